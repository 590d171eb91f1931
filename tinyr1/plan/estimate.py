"""The plan of a run: each stage with its tokens, memory, disk, hours and money.

    config.json of the run's model on this machine, else what its authors published --shape_of--> Shape
    Config, Machine --make_plan--> Plan: trainings, memory of a rank, what is asked, Stage by Stage, disk

What is finished already is shown, and counts neither in the hours nor in the verdict. A model counts as finished where
it is there: whether it was made from the parameters of today, its stage finds out.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tinyr1 import disk
from tinyr1.branch import plan as branch_plan
from tinyr1.core import checkpoints, hub, launch, surroundings
from tinyr1.core.config import ROOT, STAGES, Config, located
from tinyr1.core.errors import UserError
from tinyr1.core.params.evaluation import VllmEngine
from tinyr1.core.params.training import Trainer
from tinyr1.plan import hours, memory, work
from tinyr1.plan.hardware import GIB, Machine
from tinyr1.plan.memory import Memory
from tinyr1.plan.shapes import PUBLISHED, Shape, from_config

CPU_PROBE = 512  # tokens of a probe's sequence on a CPU, which takes long enough for a second of work


@dataclass(frozen=True)
class Stage:
    """What is left of one stage. seconds: None where nothing says them. gpus: those that work; others are not counted.

    memory: bytes that one GPU, or one rank on a CPU, needs. main: bytes of main memory that all processes of the stage
    on one machine need together. source: where the seconds are from.
    """

    name: str
    seconds: float | None
    gpus: int
    memory: float
    main: float
    source: str


@dataclass(frozen=True)
class Plan:
    """A run on a machine.

    ranks: of a training. training: bytes of a rank by part; None where nothing is left to train. sampling: bytes of a
    GPU of an engine, or of the CPU's engine; 0 where nothing is left to ask. host: bytes of main memory beside GPUs.
    disk_need: bytes of disk that are still missing. disk_free: None where the disk is that of another machine.
    """

    cfg: Config
    machine: Machine
    mfu: float
    shape: Shape
    shape_source: str
    ranks: int
    trainings: list[work.Training]
    asked: list[work.Asking]
    training: Memory | None
    training_rate: hours.Rate
    sampling: float
    host: float
    stages: list[Stage]
    disk_need: float
    disk_free: int | None

    @property
    def left(self) -> list[work.Training]:
        """The trainings that are not finished."""
        return [one for one in self.trainings if not one.done]

    @property
    def complete(self) -> bool:
        """Whether the seconds of every stage are known."""
        return all(stage.seconds is not None for stage in self.stages)

    @property
    def seconds(self) -> float:
        """Seconds of all that is left, as far as they are known."""
        return sum(stage.seconds or 0.0 for stage in self.stages)

    @property
    def gpu_hours(self) -> float:
        """Hours of all GPUs that work on what is left, as far as they are known."""
        return sum((stage.seconds or 0.0) * stage.gpus / 3600 for stage in self.stages)

    def training_seconds(self, one: work.Training) -> float | None:
        """Seconds of one training, with its start."""
        seconds = self.training_rate.seconds(one.trained_tokens)
        return None if seconds is None else seconds + hours.STARTING


def ranks_of(cfg: Config, machine: Machine) -> int:
    """Ranks of a training: those of the hostfile; where it is not written yet, those of all GPUs that are named.

    1 where nothing is trained.
    """
    trainer = cfg.params.trainer
    if cfg.params.verification:
        return 1
    if trainer.hostfile is None:
        return trainer.processes_per_node
    if located(trainer.hostfile).is_file():
        return branch_plan.world_size(cfg)
    return trainer.processes_per_node * max(1, machine.count // trainer.processes_per_node)


def engine_gpus(cfg: Config) -> int:
    """GPUs that all engines of a run take together; 0 for a server that runs elsewhere."""
    engine = cfg.params.evaluate.engine
    if not isinstance(engine, VllmEngine):
        return 0
    return engine.tensor_parallel_size * engine.pipeline_parallel_size * engine.data_parallel_size


def training_memory(
    shape: Shape, trainer: Trainer, ranks: int, on_gpu: bool, trainings: list[work.Training]
) -> Memory | None:
    """Bytes of a rank in the largest of some trainings; None where there is none."""
    if not trainings:
        return None
    longest, share = max(one.longest for one in trainings), max(one.targets for one in trainings)
    return memory.training(shape, trainer, ranks, on_gpu, longest, share)


def engine_memory(cfg: Config, shape: Shape, machine: Machine) -> float:
    """Bytes of one GPU of an engine, or of the engine on a CPU; 0 for a server that runs elsewhere."""
    engine = cfg.params.evaluate.engine
    if not isinstance(engine, VllmEngine):
        return 0.0
    if machine.gpu is None:
        weights = shape.weight_bytes * (1 if machine.bf16_products else 2)  # two bytes each, or four
        return engine.data_parallel_size * (weights + engine.cpu_kv_cache_gb * GIB + memory.FRAMEWORK)
    return memory.sampling(shape, engine.tensor_parallel_size, engine.pipeline_parallel_size, engine.max_model_len)


def make_plan(
    cfg: Config, machine: Machine, mfu: float = hours.MFU, trainings: list[work.Training] | None = None
) -> Plan:
    """The plan of a run on a machine. UserError where the shape of its model is unknown.

    trainings: those of the run, where they are known already; they are the same on every machine.
    """
    shape, source = shape_of(cfg)
    trainer, on_gpu, ranks = cfg.params.trainer, machine.gpu is not None, ranks_of(cfg, machine)
    trains = not cfg.params.verification
    if trains and machine.here and on_gpu and trainer.hostfile is not None:
        machine = replace(machine, count=max(machine.count, ranks))  # the other nodes are taken to be like this one
    if trainings is None:
        trainings = work.trainings(cfg)
    needed = training_memory(shape, trainer, ranks, on_gpu, [one for one in trainings if not one.done])
    loads = on_gpu and needed is not None
    plan = Plan(
        cfg=cfg, machine=machine, mfu=mfu, shape=shape, shape_source=source, ranks=ranks, trainings=trainings,
        asked=work.asking(cfg, hours.answer_lengths(cfg)),
        training=needed,
        training_rate=hours.training_rate(cfg, shape, machine, ranks, trainer, row_tokens(trainings), mfu)
        if trains else hours.Rate(None, "nothing is trained"),
        sampling=0.0 if work.evaluated(cfg) else engine_memory(cfg, shape, machine),
        host=memory.host(shape, trainer.zero_stage, trainer.processes_per_node) if loads else memory.MERGING,
        stages=[],
        disk_need=disk.checkpoint_bytes(cfg, disk.finished_bytes(cfg) or shape.weight_bytes) + disk.REST,
        disk_free=free_bytes(cfg.home) if machine.here else None,
    )  # fmt: skip
    return replace(plan, stages=_stages(plan))


def probed(plan: Plan) -> Plan:
    """The plan with the training rate that a probe of half a minute measures on this machine. UserError where the probe
    fails, or the plan is for another machine."""
    plan.cfg.require_training("--probe")
    if not plan.machine.here:
        raise UserError("--probe: measures this machine; leave out --gpu and --gpus")
    trainer, on_gpu = plan.cfg.params.trainer, plan.machine.gpu is not None
    tokens = trainer.sequence_length if on_gpu else min(trainer.sequence_length, CPU_PROBE)
    words = [sys.executable, "-m", "tinyr1.branch.probe", json.dumps(asdict(plan.shape)), str(tokens)]
    environment = surroundings.for_child(({} if on_gpu else branch_plan.CPU_ENVIRONMENT) | launch.watched())
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise UserError(f"--probe: the process that measures failed:\n{launch.error_excerpt(done.stderr)}")
    flops = json.loads(done.stdout.splitlines()[-1])["flops"] * (plan.ranks if on_gpu else 1)
    mine = hours.operations(plan.shape, trainer.gradient_checkpointing, row_tokens(plan.trainings))
    told = f"measured by a probe, {flops / 1e12:.2g} TFLOP/s"
    plan = replace(plan, training_rate=hours.Rate(flops / mine, told))
    return replace(plan, stages=_stages(plan))


def row_tokens(trainings: list[work.Training]) -> float:
    """Tokens of a row on average."""
    return sum(one.tokens for one in trainings) / max(1, sum(one.rows for one in trainings))


def _stages(plan: Plan) -> list[Stage]:
    """What is left of the first four stages; a verification run has the fourth alone."""
    if plan.cfg.params.verification:
        return [*(Stage(name, 0.0, 0, 0.0, 0.0, "nothing to do") for name in STAGES[:3]), _evaluating(plan)]
    return [_curating(plan), _training(plan), _merging(plan), _evaluating(plan)]


def _curating(plan: Plan) -> Stage:
    if all(one.counted for one in plan.trainings):
        return Stage(STAGES[0], 0.0, 0, 0.0, 0.0, "finished")
    tokens = sum(one.tokens for one in plan.trainings if one.name != "mixture")  # the distillation has rows of its own
    return Stage(STAGES[0], tokens / hours.CURATED_TOKENS + hours.STARTING, 0, 0.0, memory.BESIDE, "assumed")


def _training(plan: Plan) -> Stage:
    spent = [plan.training_seconds(one) for one in plan.left]
    known = [seconds for seconds in spent if seconds is not None]
    return Stage(
        STAGES[1], sum(known) if len(known) == len(spent) else None, plan.ranks if plan.machine.gpu else 0,
        plan.training.total if plan.training else 0.0, _main_memory_of_training(plan), plan.training_rate.source,
    )  # fmt: skip


def _main_memory_of_training(plan: Plan) -> float:
    """Bytes on one machine: of all ranks where they compute on a CPU, else of what loads the models."""
    if plan.training is None:
        return 0.0
    if plan.machine.gpu is not None:
        return plan.host + memory.BESIDE
    return memory.together(plan.cfg.params.trainer.processes_per_node * plan.training.total)


def _merging(plan: Plan) -> Stage:
    steps = {name: len(recipe.leaves) - 1 for name, recipe in plan.cfg.merges.items()}
    rate = hours.merging_rate(plan.cfg, plan.shape, plan.machine, sum(steps.values()))
    left = sum(n for name, n in steps.items() if not disk.is_finished(plan.cfg.model(name)))
    seconds = rate.seconds(left * plan.shape.parameters)
    return Stage(STAGES[2], seconds, 0, memory.MERGING, memory.MERGING + memory.BESIDE, rate.source)


def _evaluating(plan: Plan) -> Stage:
    if work.evaluated(plan.cfg):
        return Stage(STAGES[3], 0.0, 0, 0.0, 0.0, "finished")
    rate = hours.sampling_rate(plan.cfg, plan.shape, plan.machine, hours.mean_tokens(plan.asked))
    seconds = rate.seconds(sum(one.all_tokens for one in plan.asked))
    return Stage(
        STAGES[3], None if seconds is None else seconds + hours.STARTING,
        engine_gpus(plan.cfg) if plan.machine.gpu else 0, plan.sampling,
        plan.host + memory.BESIDE if plan.machine.gpu else memory.together(plan.sampling), rate.source,
    )  # fmt: skip


def free_bytes(folder: Path) -> int:
    """Bytes that are free on the disk where a folder is, or will be."""
    return shutil.disk_usage(disk.existing(folder)).free


def shape_of(cfg: Config) -> tuple[Shape, str]:
    """(shape of the run's model, where it is from). UserError where nothing on this machine says it."""
    spec = cfg.params.backbone
    for file in _config_files(cfg):
        content = checkpoints.read_object(file)
        if content is not None:
            return from_config(content, str(file)), str(file)
    if spec.model in PUBLISHED:
        return PUBLISHED[spec.model], "published figures, tinyr1/plan/shapes.py"
    raise UserError(
        f"backbone.model: {spec.model}: its config.json is not on this machine, so its size is unknown; fetch it with "
        f"`hf download {spec.model} config.json`, or give a folder with the model"
    )


def _config_files(cfg: Config) -> Iterator[Path]:
    """Where the config.json of the run's model may be, the surest place first."""
    spec = cfg.params.backbone
    yield from (made / "config.json" for made in (cfg.home / "base", cfg.backbone))
    if spec.model not in PUBLISHED or "/" in spec.model:
        yield located(spec.model) / "config.json"
        if cached := hub.cached_file(spec.model, "config.json", spec.revision):
            yield cached
