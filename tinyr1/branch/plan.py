"""The trainings of a run, before they start: which model learns from which rows, and by which command.

    params + rows on disk --jobs, distill_job--> Jobs --check_jobs, plan_table--> a person
                                                 Job --training_command--> DeepSpeed, started by tinyr1.branch.stage

Hyper-parameters and their sources: docs/fidelity.md §2.1.
"""

import importlib.util
import math
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinyr1.branch import failures
from tinyr1.branch.hosts import read_hostfile
from tinyr1.branch.sequences import layout
from tinyr1.core import artifact, launch, machine
from tinyr1.core.config import Config, located
from tinyr1.core.errors import UserError
from tinyr1.core.params.training import Sft
from tinyr1.data.tokens import Tokens, read_tokens

if TYPE_CHECKING:  # it takes a second, and the plan of a run needs no table
    import pandas as pd

CPU_ENVIRONMENT = {
    "DS_ACCELERATOR": "cpu",
    # Large buffers stay in the process, in huge pages: otherwise a third of a step goes into page faults.
    "THP_MEM_ALLOC_ENABLE": "1",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_MMAP_THRESHOLD_": "100000000000",
    # How long OpenMP's threads spin for each other before they sleep. By default it is a hundred times as long, and
    # beside another busy job a step took 16 times as long as alone. With this, 2.4 times, and as long as before alone.
    "GOMP_SPINCOUNT": "6000",
}


# Parameters of the trainer block that change how a training is started and watched, and not the model.
WITHOUT_EFFECT = {"save_steps", "report_to", "spike", "launcher"}
# By which program DeepSpeed finds out that a launcher is there.
PROGRAMS = {"pdsh": "pdsh", "openmpi": "ompi_info", "mpich": "mpirun", "slurm": "sinfo"}
RANK_LOGS, HOST_ENVIRONMENT = "ranks", "environment"  # in the work folder of a training on several hosts
CHECKPOINT_DONE = "tinyr1_complete"  # file in a checkpoint of a training that was written to its end


@dataclass(frozen=True)
class Job:
    """One model to fine-tune: start checkpoint, rows, schedule.

    rows: (folder of a domain's curated rows, slice of them). Where the backbone is distilled, the distillation takes
    the first rows of each domain and the branches train on the others, as the paper's branches saw other data than
    DeepSeek's distillation. section: where the schedule is in the params file.
    """

    name: str
    start: Path
    rows: tuple[tuple[Path, slice], ...]
    sft: Sft
    section: str

    def tokens(self) -> list[Tokens]:
        """The tokens of its rows, mapped; one part for each folder of rows."""
        return [read_tokens(folder).part(rows) for folder, rows in self.rows]


def jobs(cfg: Config) -> list[Job]:
    """The experts, one for each domain, then the data-mixture baseline on the rows of all (docs/fidelity.md §5.2)."""
    distill = cfg.params.backbone.distill
    rows = {name: (cfg.rows(name), slice(distill.rows[name] if distill else 0, None)) for name in cfg.domains}
    experts = [
        Job(name, cfg.backbone, (rows[name],), domain.sft, f"domains.{name}.sft")
        for name, domain in cfg.params.domains.items()
    ]
    if cfg.params.mixture is None:
        return experts
    mixed = tuple(rows[name] for name, times in _passes(cfg, rows).items() for _ in range(times))
    return [*experts, Job("mixture", cfg.backbone, mixed, cfg.params.mixture, "mixture")]


def _passes(cfg: Config, rows: dict[str, tuple[Path, slice]]) -> dict[str, int]:
    """How often one epoch of the mixture goes over the rows of each domain (`Mixture.balance`)."""
    balance = cfg.params.mixture.balance if cfg.params.mixture else None
    if balance == "epochs":
        return {name: domain.sft.epochs for name, domain in cfg.params.domains.items()}
    if balance == "tokens" and all(folder.is_dir() for folder, _ in rows.values()):  # before stage 01 none is known
        tokens = {name: read_tokens(folder).part(part).count for name, (folder, part) in rows.items()}
        return {name: round(max(tokens.values()) / count) if count else 1 for name, count in tokens.items()}
    return dict.fromkeys(rows, 1)


def distill_job(cfg: Config, base: Path) -> Job | None:
    """The job that makes the backbone from a base checkpoint; None where the backbone reasons already."""
    distill = cfg.params.backbone.distill
    if distill is None:
        return None
    rows = tuple((cfg.rows(name), slice(distill.rows[name])) for name in cfg.domains)
    return Job("backbone", base, rows, distill.sft, "backbone.distill.sft")


def world_size(cfg: Config) -> int:
    """Ranks of a training: processes_per_node for each host of the hostfile, or for this machine alone."""
    trainer = cfg.params.trainer
    hosts = len(read_hostfile(located(trainer.hostfile))) if trainer.hostfile else 1
    return hosts * trainer.processes_per_node


def check_jobs(cfg: Config, planned: list[Job], rows: bool = True) -> None:
    """UserError that lists every job without rows, or with a batch that the ranks cannot share evenly, and each program
    or tool that the trainings use and that is not installed. rows: whether stage 01 has made the rows yet."""
    ranks, trainer = world_size(cfg), cfg.params.trainer
    problems = [
        f"trainer.report_to: {tool} is not installed; `pip install {tool}`, or leave it out"
        for tool in trainer.report_to or () if importlib.util.find_spec(tool) is None
    ]  # fmt: skip
    program = PROGRAMS[trainer.launcher or "pdsh"]
    if trainer.hostfile and shutil.which(program) is None:
        problems.append(f"trainer.launcher: there is no program `{program}` here; install it, or name another launcher")
    for job in planned:
        if job.sft.batch_size % ranks:
            problems.append(
                f"{job.section}.batch_size: {job.sft.batch_size} packed sequences cannot be shared by {ranks} ranks; "
                f"use a multiple of {ranks}"
            )
        if rows and not sum(map(len, job.tokens())):
            problems.append(f"{job.name}: no rows to train on are left after curation; see sources and limit")
    if problems:
        raise UserError("\n".join(problems))


def training_command(cfg: Config, plan: Path, has_gpu: bool) -> tuple[list[str], dict[str, str]]:
    """(command, environment variables) of a training by its plan file; both can be pasted into a terminal."""
    words, environment = start_of("tinyr1.branch.train", cfg, plan.parent, has_gpu)
    if "tensorboard" in (cfg.params.trainer.report_to or ()):  # elsewhere than in the checkpoint
        place = cfg.home / "logs" / "tensorboard" / plan.parent.name.partition(".")[0]
        environment = environment | {"TENSORBOARD_LOGGING_DIR": str(place)}
    return [*words, str(plan)], environment


def start_of(module: str, cfg: Config, work: Path, has_gpu: bool) -> tuple[list[str], dict[str, str]]:
    """(words of a command, environment variables) that start a module on all ranks, by DeepSpeed's launcher.

    work: a folder of the command, on a disk that all hosts see; with a hostfile each rank writes a log of its own into
    `ranks` there. A rank that is alone is told so by the same variables, without the launcher, which imports PyTorch
    and DeepSpeed twice before it starts anything.
    """
    trainer = cfg.params.trainer
    environment = {} if has_gpu else CPU_ENVIRONMENT
    visible = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    port = str(machine.free_port())  # because two trainings may share a machine
    if trainer.hostfile is None and trainer.processes_per_node == 1:
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        gpu = {"CUDA_VISIBLE_DEVICES": [*visible, "0"][0]} if has_gpu else {}
        return [sys.executable, "-u", "-m", module], environment | alone | gpu
    words = [sys.executable, "-m", "deepspeed.launcher.runner", "--master_port", port]
    if trainer.hostfile:
        words += ["--hostfile", str(located(trainer.hostfile)), "--launcher", trainer.launcher or "pdsh"]
        words += ["--force_multi", "--enable_each_rank_log", str(work / RANK_LOGS)]
        environment = environment | {"DS_ENV_FILE": str(work / HOST_ENVIRONMENT)}
    if has_gpu and visible and not trainer.hostfile:
        # With --num_gpus the launcher forgets which GPUs this process may use.
        words += ["--include", f"localhost:{','.join(visible[: trainer.processes_per_node])}"]
    else:
        words += ["--num_gpus" if has_gpu else "--num_accelerators", str(trainer.processes_per_node)]
    return [*words, "--module", module], environment


def prepare_hosts(cfg: Config, work: Path, has_gpu: bool) -> None:
    """Puts into `work` what `start_of` names: the variables for the other hosts, and the folder of the logs."""
    if cfg.params.trainer.hostfile:
        shutil.rmtree(work / RANK_LOGS, ignore_errors=True)  # of an earlier start
        (work / RANK_LOGS).mkdir(parents=True)
        variables = ({} if has_gpu else CPU_ENVIRONMENT) | launch.watched()
        (work / HOST_ENVIRONMENT).write_text("".join(f"{k}={v}\n" for k, v in variables.items()), encoding="utf-8")


def meet(cfg: Config, has_gpu: bool) -> None:
    """Lets all ranks of several hosts add a number up. UserError when they do not find each other in a minute."""
    if cfg.params.trainer.hostfile is None:
        return
    work, log = cfg.home / "logs" / "meeting", cfg.home / "logs" / "meeting.log"
    prepare_hosts(cfg, work, has_gpu)
    words, environment = start_of("tinyr1.branch.meeting", cfg, work, has_gpu)
    try:
        launch.follow(
            words, environment, log, "hosts",
            lambda: None, "rank", "waiting for all ranks to meet", failed=failures.ENDS,
        )  # fmt: skip
    except UserError as error:
        raise UserError(
            f"the ranks of {cfg.params.trainer.hostfile} do not find each other: the port {words[4]} of the first host "
            f"may be closed to the others, or NCCL or gloo takes another network (NCCL_SOCKET_IFNAME, "
            f"GLOO_SOCKET_IFNAME). {failures.first_failure(work / RANK_LOGS, launch.latest(log)) or error}"
        ) from error


def job_inputs(cfg: Config, job: Job) -> dict:
    """All that determines the checkpoint of a job; its hash is the key of the checkpoint."""
    remedy = cfg.remedy("01_data_curation")
    return {
        "start": artifact.check(job.start, remedy)["content"],
        "rows": [[artifact.check(folder, remedy)["content"], rows.start, rows.stop] for folder, rows in job.rows],
        # What is null was no parameter once, and changes nothing.
        "sft": job.sft.model_dump(exclude_none=True, exclude={"balance"}),
        "trainer": cfg.params.trainer.model_dump(exclude=WITHOUT_EFFECT),
        "seed": cfg.params.seed,
    }


def plan_table(cfg: Config, planned: list[Job]) -> "pd.DataFrame":
    """One line for each job: rows, tokens, packed sequences, optimizer steps, schedule."""
    import pandas as pd

    table = []
    for job in planned:
        lengths = np.concatenate([part.lengths for part in job.tokens()])
        capacity = cfg.params.trainer.sequence_length
        sequences = len(layout(lengths.tolist(), capacity, cfg.params.seed, job.sft.packing))
        table.append({
            "model": job.name, "rows": len(lengths), "tokens": int(lengths.sum()), "packed sequences": sequences,
            "epochs": job.sft.epochs, "batch": job.sft.batch_size,
            "steps": math.ceil(sequences / job.sft.batch_size) * job.sft.epochs,
            "learning rate": job.sft.learning_rate, "schedule": job.sft.schedule,
        })  # fmt: skip
    return pd.DataFrame(table).set_index("model")
