"""How long the parts of a run take: by a measured throughput where a record has one, else by the speed of the machine.

    records of this run and of reports/, same model, same kind of machine --measured--> tokens/s
    a CPU, another model: the same records, by the operations of a token --scaled-----> tokens/s
    a GPU: its peak x the share that is used; its bandwidth for sampling --computed---> tokens/s

Operations of a token in training: 6 for each weight that it is multiplied with, and 6 x layers x attention width x
tokens of its row for attention to what is before it. Checkpointing computes the forward pass again: a third more, which
counts as use of the machine here. `mfu` is the share of the peak that both together reach.

A step of sampling reads all weights and the keys and values of all answers that are written at the same time, with
DECODE_SHARE of the bandwidth; it cannot be faster than its operations.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tinyr1.core.config import Config, reports_folder
from tinyr1.core.params.evaluation import VllmEngine
from tinyr1.core.params.training import Trainer
from tinyr1.plan.hardware import GIB, Gpu, Machine
from tinyr1.plan.shapes import PUBLISHED, Shape
from tinyr1.plan.work import Asking

MFU = 0.4  # docs/fidelity.md §5.4: with it, the paper's 740 GPU hours are the 4e9 tokens of its sizes
DECODE_SHARE = 0.5  # of the bandwidth of a GPU's memory; assumed
STARTING = 19.0  # seconds from the start of a training or an engine to its first step; reports/smol, 02_branch_sft
CURATED_TOKENS = 200_000.0  # tokens/s that stage 01 reads, compares and encodes; assumed, downloads not counted
MERGED_WEIGHTS = 100e6  # weights/s of one step of a merge; reports/smol, 03_fusion_merge: 54e6 to 192e6 on two cores
# Where no record fits a CPU: what run smol reached on one of two cores (reports/smol, 02_branch_sft).
CORE_FLOPS = 2.0e11
CORE_FLOPS_FP32 = 5.0e10  # where bf16 products are computed in fp32; assumed, half the peak of AVX2 at 3 GHz
DECODED_ON_CPU = 0.1  # of these operations that sampling reaches, since it waits for memory; assumed
TINY = 1e8  # weights; of a smaller network the operations are the smaller part of its time
# Of the params in a record, those that its rate is told by.
PARAMS_KEYS = {"02_branch_sft": {"backbone", "trainer"}, "03_fusion_merge": {"backbone", "merge"},
               "04_evaluation": {"backbone", "evaluate"}}  # fmt: skip


@dataclass(frozen=True)
class Rate:
    """Pieces in a second, and where that is from; None where nothing says it."""

    value: float | None
    source: str

    def seconds(self, pieces: float) -> float | None:
        """Seconds for so many pieces."""
        return pieces / self.value if self.value else None


def operations(shape: Shape, checkpointing: bool, row_tokens: float) -> float:
    """Floating-point operations that training takes for one token of a row of `row_tokens`."""
    attention = 6 * shape.layers * shape.attention_width * row_tokens
    return (6 * shape.multiplied + attention) * (4 / 3 if checkpointing else 1)


def training_rate(
    cfg: Config, shape: Shape, machine: Machine, ranks: int, trainer: Trainer, row_tokens: float, mfu: float
) -> Rate:
    """Tokens/s of a training on all its ranks. row_tokens: tokens of a row on average."""
    mine = operations(shape, trainer.gradient_checkpointing, row_tokens)
    known = [(name, entry, _trained(entry, machine, ranks)) for name, entry in records(cfg, "02_branch_sft")]
    for name, entry, speed in known:
        if speed and _same_model(entry, cfg) and _given(entry["params"]["trainer"]) == _given(trainer.model_dump()):
            return Rate(speed, f"measured, {name}")
    if machine.gpu is None:
        for name, entry, speed in known:
            if speed and (other := _telling(entry)):
                theirs = operations(other, entry["params"]["trainer"]["gradient_checkpointing"], 0)
                return Rate(speed * theirs / mine, f"scaled from {name} by the operations of a token")
        return Rate(_cpu_flops(machine) / mine, "assumed operations of a core")
    if machine.gpu.flops is None:
        return Rate(None, f"the peak of {machine.gpu.name} is not known here; name the nearest kind by --gpu")
    return Rate(ranks * machine.gpu.flops * mfu / mine, f"{100 * mfu:g} % of the peak")


def _given(block: dict) -> dict:
    """The parameters of a block that are not null: a record knows none that came after it."""
    return {name: value for name, value in block.items() if value is not None}


def sampling_rate(cfg: Config, shape: Shape, machine: Machine, answer_tokens: float) -> Rate:
    """Tokens/s of all engines of a run. answer_tokens: tokens of an answer on average."""
    engine = cfg.params.evaluate.engine
    if not isinstance(engine, VllmEngine):
        return Rate(None, "the server that is named has a speed of its own")
    known = [(name, entry, _sampled(entry, machine)) for name, entry in records(cfg, "04_evaluation")]
    for name, entry, speed in known:
        same_engine = entry["params"]["evaluate"]["engine"] == engine.model_dump(mode="json")
        if speed and _same_model(entry, cfg) and same_engine:
            return Rate(speed, f"measured, {name}")
    if machine.gpu is not None:
        return _decoding(engine, shape, machine.gpu, answer_tokens)
    for name, entry, speed in known:
        if speed and (other := _telling(entry)):
            return Rate(speed * other.multiplied / shape.multiplied, f"scaled from {name} by the weights")
    return Rate(_cpu_flops(machine) * DECODED_ON_CPU / (2 * shape.multiplied), "assumed operations of a core")


def _decoding(engine: VllmEngine, shape: Shape, gpu: Gpu, answer_tokens: float) -> Rate:
    if gpu.bandwidth is None or gpu.flops is None:
        return Rate(None, f"the speed of {gpu.name} is not known here; name the nearest kind by --gpu")
    gpus = engine.tensor_parallel_size * engine.pipeline_parallel_size
    kept = shape.kv_bytes * answer_tokens / 2  # an answer is half written on average
    room = gpus * (engine.gpu_memory_utilization * gpu.memory - 2 * GIB) - shape.weight_bytes
    together = max(1, min(engine.max_num_seqs, int(room / kept)))
    reading = (shape.weight_bytes + together * kept) / (gpus * gpu.bandwidth * DECODE_SHARE)
    computing = 2 * shape.multiplied * together / (gpus * gpu.flops * MFU)
    speed = engine.data_parallel_size * together / max(reading, computing)
    return Rate(speed, f"{together} answers at once, {100 * DECODE_SHARE:g} % of the bandwidth")


def merging_rate(cfg: Config, shape: Shape, machine: Machine, steps: int) -> Rate:
    """Weights/s of one step of a merge, with all that the notebook does beside it. steps: of all merges of the run."""
    for name, entry in records(cfg, "03_fusion_merge"):
        scale = _scale(entry["machine"], machine)
        if scale and _same_model(entry, cfg) and entry["params"]["merge"] == cfg.params.merge.model_dump(mode="json"):
            return Rate(scale * steps * shape.parameters / sum(entry["seconds"].values()), f"measured, {name}")
    return Rate(MERGED_WEIGHTS, "assumed")


def answer_lengths(cfg: Config) -> dict[str, float]:
    """Benchmark -> tokens of an answer on average, from the scores of a finished run on the same model."""
    for _, entry in records(cfg, "04_evaluation"):
        if _same_model(entry, cfg):
            lines = _scores(Path(entry["folder"]))
            return {
                name: sum(values) / len(values)
                for name in cfg.params.benchmarks
                if (values := [float(x["mean_tokens"]) for x in lines if x["benchmark"] == name and x["mean_tokens"]])
            }
    return {}


def scored_tokens(folder: Path) -> float:
    """Tokens of all answers in the scores of a report; 0 where they do not say."""
    return sum(
        float(line["mean_tokens"] or 0) * int(line["n_problems"]) * int(line["n_samples"]) for line in _scores(folder)
    )


def mean_tokens(asked: list[Asking]) -> float:
    """Tokens of an answer, over all answers."""
    return sum(one.all_tokens for one in asked) / max(1, sum(one.answers for one in asked))


def records(cfg: Config, stage: str) -> Iterator[tuple[str, dict]]:
    """Yield (a name for people, record) of a stage from this run, then from its published report, then from others in
    the order of their names.

    A record has the key `folder` here. One that is damaged, or of an older edition, is left out: a plan is no place to
    complain about it.
    """
    published = sorted(
        reports_folder().glob(f"*/{stage}.json"), key=lambda file: (file.parent.name != cfg.run, file.parent.name)
    )
    for file in (cfg.reports / f"{stage}.json", *published):
        try:
            entry = json.loads(file.read_text(encoding="utf-8"))
            complete = entry["params"].keys() >= PARAMS_KEYS[stage] and entry["machine"].keys() >= {"gpus", "cores"}
            complete = complete and entry.keys() >= {"seconds", "facts"}
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            continue
        if complete:
            name = "this run" if file.parent == cfg.reports else f"reports/{file.parent.name}"
            yield name, entry | {"folder": str(file.parent)}


def _scores(folder: Path) -> list[dict[str, str]]:
    try:
        with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except OSError:
        return []


def _same_model(entry: dict, cfg: Config) -> bool:
    return entry["params"]["backbone"]["model"] == cfg.params.backbone.model


def _telling(entry: dict) -> Shape | None:
    """The shape of a record's model where its speed says something about others: it is known, and not tiny."""
    shape = PUBLISHED.get(entry["params"]["backbone"]["model"])
    return shape if shape and shape.parameters > TINY else None


def _trained(entry: dict, machine: Machine, ranks: int) -> float:
    """Tokens/s of a record's trainings, as a machine of the same kind has them; 0 where it says nothing of this one."""
    speeds = [model["tokens_per_s"] for model in entry["facts"].get("models", []) if model.get("tokens_per_s")]
    share = ranks / len(entry["machine"]["gpus"]) if entry["machine"]["gpus"] else 1
    return share * _scale(entry["machine"], machine) * sum(speeds) / max(1, len(speeds))


def _sampled(entry: dict, machine: Machine) -> float:
    """Tokens/s of a record's sampling, as a machine of the same kind has them; 0 where it says nothing of this one."""
    seconds = entry["seconds"].get("sampling")
    return _scale(entry["machine"], machine) * scored_tokens(Path(entry["folder"])) / seconds if seconds else 0.0


def _cpu_flops(machine: Machine) -> float:
    return machine.cores * (CORE_FLOPS if machine.bf16_products else CORE_FLOPS_FP32)


def _scale(recorded: dict, machine: Machine) -> float:
    """By what the speed of a recorded machine is multiplied to give this one's; 0 where it is of another kind."""
    gpus = recorded["gpus"]
    if machine.gpu is None:
        alike = not gpus and recorded.get("bf16_products", True) == machine.bf16_products
        return machine.cores / recorded["cores"] if alike else 0.0
    return float(bool(gpus) and machine.gpu.name.partition("-")[0] in gpus[0])
