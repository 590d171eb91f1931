"""What of a plan does not fit its machine, and the smallest change that would make it fit.

    Plan --rules--> findings: why, and how to find a change     fits: whether there is none
    findings --problems--> Problem, each with the first change that makes it fit, in the order of `changes`
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tinyr1.core.params.evaluation import VllmEngine
from tinyr1.core.params.training import Trainer
from tinyr1.plan import memory
from tinyr1.plan.estimate import Plan, engine_gpus, make_plan, training_memory
from tinyr1.plan.hardware import GB, KINDS, Gpu, Machine
from tinyr1.plan.words import duration

LONGEST_ON_CPU = 48.0  # hours of training and sampling that a run without a GPU may take
MOST_RANKS = 256  # that a change may ask for


@dataclass(frozen=True)
class Problem:
    """why: what does not fit, with both figures. change: the smallest change that would make it fit."""

    why: str
    change: str


# Why a plan does not fit, and the search for a change. The search asks whether other plans fit, which looks for none.
Finding = tuple[str, Callable[[], str]]


def problems(plan: Plan) -> list[Problem]:
    """Everything that keeps a plan from being carried out; empty where it fits."""
    return [Problem(why, change()) for why, change in _findings(plan)]


def fits(plan: Plan) -> bool:
    """Whether a plan can be carried out."""
    return next(_findings(plan), None) is None


def _findings(plan: Plan) -> Iterator[Finding]:
    for rule in (_too_slow, _too_few_gpus, _uneven, _training_memory, _engine, _main_memory, _disk):
        yield from rule(plan)


def _too_slow(plan: Plan) -> Iterator[Finding]:
    """A CPU that would train and sample longer than anybody waits for."""
    spent = [stage.seconds or 0.0 for stage in plan.stages]
    if plan.machine.gpu is None and sum(spent) > 3600 * LONGEST_ON_CPU:
        training = "" if plan.cfg.params.verification else f"training takes about {duration(spent[1])} and "
        yield (
            f"{training}sampling takes about {duration(spent[3])} on {plan.machine.cores} CPU cores, and there is no "
            f"GPU that PyTorch can use; a CPU may take {LONGEST_ON_CPU:g} hours",
            lambda: smallest_machine(plan),
        )


def _too_few_gpus(plan: Plan) -> Iterator[Finding]:
    there, trainer = plan.machine.count, plan.cfg.params.trainer
    if plan.machine.gpu is None:
        return
    if plan.left and plan.ranks > there:
        yield (
            f"trainer.processes_per_node: {plan.ranks} ranks need a GPU each, and there are {there}",
            lambda: _other_ranks(plan, trainer, there),
        )
    if plan.sampling and engine_gpus(plan.cfg) > there:
        yield (
            f"evaluate.engine: takes {engine_gpus(plan.cfg)} GPUs (tensor x pipeline x data parallel), and there are "
            f"{there}",
            lambda: _engine_change(plan, there) or f"use {engine_gpus(plan.cfg)} GPUs",
        )


def _other_ranks(plan: Plan, trainer: Trainer, there: int) -> str:
    """As many ranks as there are GPUs, or the most below that; else more GPUs."""
    for ranks in range(there, 0, -1):
        if _shares(plan, ranks) and _fits(plan, trainer, ranks, plan.machine.gpu):
            return f"set trainer.processes_per_node: {ranks}" + (" and hostfile: null" if trainer.hostfile else "")
    enough = _fits(plan, trainer, plan.ranks, plan.machine.gpu)
    return f"use {plan.ranks} GPUs" if enough else _training_change(plan, trainer)


def _uneven(plan: Plan) -> Iterator[Finding]:
    for one in plan.left:
        if one.batch % plan.ranks:
            yield (
                f"{one.section}.batch_size: {one.batch} packed sequences cannot be shared by {plan.ranks} ranks",
                lambda: f"use a multiple of {plan.ranks}",
            )


def _training_memory(plan: Plan) -> Iterator[Finding]:
    trainer, room = plan.cfg.params.trainer, _room(plan.machine, plan.ranks)
    if plan.training is None or room is None or plan.training.total <= room:
        return
    where = f"a GPU of {plan.machine.gpu.name}" if plan.machine.gpu else "this machine, for each rank,"
    yield (
        f"training takes {plan.training.total / GB:.1f} GB on each rank ({largest(plan.training)}), and {where} has "
        f"{room / GB:.1f} GB that can be used",
        lambda: _training_change(plan, trainer),
    )


def _training_change(plan: Plan, trainer: Trainer) -> str:
    """The first of the changes after which a rank fits."""
    gpu = plan.machine.gpu
    larger = sorted((kind for kind in KINDS.values() if gpu and kind.memory > gpu.memory), key=lambda kind: kind.memory)
    instead = next((kind for kind in larger if _fits(plan, trainer, plan.ranks, kind)), None)
    for words, changed, ranks in changes(trainer, plan.ranks, gpu is not None):
        if _shares(plan, ranks) and _fits(plan, changed, ranks, gpu):
            other = f", or use {plan.ranks} × {instead.name}" if instead and ranks != plan.ranks else ""
            return words + other
    if gpu is None:
        return smallest_machine(plan)
    return f"use {plan.ranks} × {instead.name}" if instead else "lower trainer.sequence_length, and curate.max_tokens"


def changes(trainer: Trainer, ranks: int, on_gpu: bool) -> Iterator[tuple[str, Trainer, int]]:
    """Yield (change in words, trainer, ranks), the smallest first: one key of the params file, two keys, more GPUs."""
    for update in _settings(trainer, ranks):
        yield f"set {_in_words(update)}", trainer.model_copy(update=update), ranks
    more = 2 * ranks
    while on_gpu and more <= MOST_RANKS:
        for update in [{}, *_settings(trainer, more)]:
            words = f"use {more} GPUs in place of {ranks}" + (f", with {_in_words(update)}" if update else "")
            yield words, trainer.model_copy(update=update), more
        more *= 2


def _settings(trainer: Trainer, ranks: int) -> list[dict]:
    """Changes of the trainer that save memory on each of so many ranks: checkpointing, the next ZeRO stages, both."""
    checkpointing: list[dict] = [] if trainer.gradient_checkpointing else [{"gradient_checkpointing": True}]
    stages: list[dict] = [{"zero_stage": stage} for stage in range(trainer.zero_stage + 1, 4)] if ranks > 1 else []
    return [*checkpointing, *stages, *(stage | more for stage in stages for more in checkpointing)]


def _in_words(update: dict) -> str:
    return " and ".join(f"trainer.{key}: {str(value).lower()}" for key, value in update.items())


def _shares(plan: Plan, ranks: int) -> bool:
    """Whether the batches of all trainings can be shared evenly."""
    return all(one.batch % ranks == 0 for one in plan.left)


def _fits(plan: Plan, trainer: Trainer, ranks: int, gpu: Gpu | None) -> bool:
    needed = training_memory(plan.shape, trainer, ranks, gpu is not None, plan.left)
    room = gpu.memory * memory.USABLE if gpu else _room(plan.machine, ranks)
    return needed is None or room is None or needed.total <= room


def _room(machine: Machine, ranks: int) -> float | None:
    """Bytes that one rank may use: of its GPU, else of its share of main memory; None where that is unknown."""
    if machine.gpu is not None:
        return machine.gpu.memory * memory.USABLE
    if machine.memory is None:
        return None
    return (machine.memory * memory.USABLE - memory.BESIDE) / (ranks * memory.GROWTH)


def _engine(plan: Plan) -> Iterator[Finding]:
    engine, gpu = plan.cfg.params.evaluate.engine, plan.machine.gpu
    if not isinstance(engine, VllmEngine) or gpu is None or not plan.sampling:
        return
    room = engine.gpu_memory_utilization * gpu.memory
    if plan.sampling > room:
        yield (
            f"evaluate.engine: a GPU needs {plan.sampling / GB:.1f} GB for its part of the weights and one sequence of "
            f"{engine.max_model_len:,} tokens, and may use {room / GB:.1f} GB of {gpu.name}",
            lambda: _engine_change(plan, plan.machine.count) or "use GPUs with more memory, or lower its max_model_len",
        )


def _engine_change(plan: Plan, there: int) -> str | None:
    """The smallest tensor_parallel_size that fits into a GPU's memory and divides the attention heads."""
    engine, gpu = plan.cfg.params.evaluate.engine, plan.machine.gpu
    assert isinstance(engine, VllmEngine)
    assert gpu is not None
    for size in range(1, there + 1):
        needed = memory.sampling(plan.shape, size, 1, engine.max_model_len)
        if plan.shape.heads % size == 0 and needed <= engine.gpu_memory_utilization * gpu.memory:
            others = [] if engine.pipeline_parallel_size == 1 else ["pipeline_parallel_size: 1"]
            others += [] if engine.data_parallel_size * size <= there else ["data_parallel_size: 1"]
            return "set evaluate.engine." + " and ".join([f"tensor_parallel_size: {size}", *others])
    return None


def _main_memory(plan: Plan) -> Iterator[Finding]:
    if plan.machine.memory is None:
        return
    if plan.machine.gpu is not None:
        need, what = plan.host + memory.BESIDE, "loading and merging the models"
    else:
        need, what = max(plan.stages[2].main, plan.stages[3].main), "merging or sampling"  # training has its own rule
    if need > plan.machine.memory * memory.USABLE:
        yield (
            f"{what} takes {need / GB:.1f} GB of main memory, and there are {plan.machine.memory / GB:.1f} GB",
            lambda: "use a machine with more memory",
        )


def _disk(plan: Plan) -> Iterator[Finding]:
    if plan.disk_free is not None and plan.disk_need > plan.disk_free:
        need, free = plan.disk_need / GB, plan.disk_free / GB
        yield (
            f"{plan.cfg.home}: {free:.1f} GB of disk free, the run needs about {need:.1f} GB more",
            lambda: f"free {need - free:.1f} GB, or set TINYR1_HOME to a folder on a larger disk",
        )


def grouped(found: list[Problem]) -> dict[str, list[str]]:
    """Change -> everything that it is the remedy of."""
    groups: dict[str, list[str]] = {}
    for problem in found:
        groups.setdefault(problem.change, []).append(problem.why)
    return groups


def largest(needed: memory.Memory) -> str:
    """The two largest parts in words."""
    two = sorted(needed.parts.items(), key=lambda part: -part[1])[:2]
    return ", ".join(f"{name} {size / GB:.1f}" for name, size in two)


def smallest_machine(plan: Plan) -> str:
    """The smallest machine with GPUs, of those known here, on which a run fits as it is, with its hours there.

    Where none does, what would make it fit on the largest one.
    """
    trainer = plan.cfg.params.trainer
    ranks_here, hosts = (0, None) if plan.cfg.params.verification else (trainer.processes_per_node, trainer.hostfile)
    for kind in sorted(KINDS.values(), key=lambda kind: (kind.memory, kind.flops or 0)):
        for nodes in (1, 2, 4, 8, 16) if hosts else (1,):
            count = max(nodes * ranks_here, engine_gpus(plan.cfg))
            machine = Machine(kind, count, plan.machine.cores, None, None, False)
            other = make_plan(plan.cfg, machine, plan.mfu, plan.trainings)
            if fits(other):
                took = duration(other.seconds)
                return f"use {other.machine}, the smallest machine known here that fits; it takes {took}"
    return f"on {kind.name}: {'; '.join(grouped(problems(other)))}"
