"""What the trainings of stage 02 need, and the base checkpoint, which stage 01 makes."""

from functools import partial

from tinyr1.branch import hosts, origin, plan
from tinyr1.core import artifact, machine
from tinyr1.core.config import STAGES, Config
from tinyr1.core.needs import Need

TRAINING = STAGES[1]


def needs(cfg: Config) -> list[Need]:
    """What the base checkpoint and the trainings of a run need; a verification run has no training."""
    base = []
    if not artifact.manifest_path(origin.base_path(cfg)).is_file():
        base.append(Need("base checkpoint", cfg.stages[:1], partial(origin.ready, cfg)))
    return base if cfg.params.verification else [*base, *_of_trainings(cfg)]


def _of_trainings(cfg: Config) -> list[Need]:
    found = [
        Need("settings of the trainings", (TRAINING,), partial(_settings, cfg)),
        Need("ports", (TRAINING,), _port),
        Need("shared memory", (TRAINING,), partial(machine.require_shared_memory, _ranks_that_share(cfg))),
    ]
    if cfg.params.trainer.hostfile:
        found.append(Need("hosts", (TRAINING,), partial(_hosts, cfg)))
    return found


def _settings(cfg: Config) -> str:
    first = plan.distill_job(cfg, origin.base_path(cfg))
    planned = [*([first] if first else []), *plan.jobs(cfg)]
    plan.check_jobs(cfg, planned, rows=False)
    ranks = plan.world_size(cfg)
    return f"{len(planned)} trainings, each on {ranks} rank{'s' if ranks > 1 else ''}"


def _port() -> str:
    return f"{machine.free_port()} is free at 127.0.0.1, for instance"


def _ranks_that_share(cfg: Config) -> int:
    """Ranks of this machine that exchange data in its shared memory: those on GPUs."""
    return cfg.params.trainer.processes_per_node if machine.has_gpu() else 1


def _hosts(cfg: Config) -> str:
    table = hosts.check(cfg, machine.has_gpu())
    return f"{len(table)} answer by ssh, with the packages and the code of this machine"
