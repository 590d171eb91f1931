"""How much there is to do: rows and tokens of each training, answers and tokens of the evaluation.

    rows/<domain> of finished stage 01 --read_tokens--> Rows, counted
    else: limit, sources, TOKENS_PER_ROW -------------> Rows, estimated
    Rows of each job --trainings--> Training            benchmarks x models --asking--> Asking
"""

import math
from dataclasses import dataclass

import numpy as np

from tinyr1.branch import plan
from tinyr1.branch.sequences import layout
from tinyr1.core import artifact, paper, record
from tinyr1.core.config import Config
from tinyr1.core.errors import UserError
from tinyr1.core.params.domains import (
    HUB,
    RELEASES,
    Benchmark,
    ChoiceBenchmark,
    HubSource,
    LiveCodeBenchmark,
    MathBenchmark,
    MiniatureBenchmark,
    MiniatureSource,
)
from tinyr1.data.files import find_files, records
from tinyr1.data.tokens import read_tokens

# Rows that pass `keep`, by dataset and accepted values; "" is the whole dataset (docs/fidelity.md §1.1 to §1.4).
KEPT_ROWS: dict[str, dict[str, int]] = {
    "open-r1/OpenR1-Math-220k": {"": 93_733},
    "open-thoughts/OpenThoughts-114k": {"code": 19_904, "biology chemistry physics puzzle": 4_933, "": 113_957},
    "simplescaling/data_ablation_full59K": {"health science science": 2_700, "": 58_986},
    "simplescaling/s1K-1.1": {"": 1_000},
}
UNKNOWN_ROWS = 20_000  # of a dataset that nothing here knows: as many as the paper's rows of code
# Rows of reasoning are as long as DeepSeek-R1's answers to the benchmark of their domain: 9.6k, 10.4k and 5.3k tokens
# (docs/fidelity.md §5.1). With the paper's rows that is 4e9 tokens for the mixture, as in docs/fidelity.md §5.4.
TOKENS_PER_ROW = {
    paper.BENCHMARKS[name].domain: 1000 * (thousand or 0) for name, (_, thousand) in paper.TABLE_1[paper.R1].items()
}
MINIATURE_TOKENS = {"math": 87, "science": 120, "science_values": 90, "code": 137}  # reports/smol, 01_data_curation
MINIATURE_TARGETS = 0.43  # share of tokens with loss; reports/smol, 02_branch_sft. Reasoning rows: nearly all
FILL = 0.92  # share of packed sequences that tokens take; reports/smol, 02_branch_sft
QUESTIONS = {"aime": 30, "gpqa": 198}  # docs/fidelity.md §4.1, §1.4
UNKNOWN = 500  # questions of a file of one's own that is not here
MINIATURE_ANSWER = 0.3  # of max_tokens; reports/smol, scores.csv


@dataclass(frozen=True)
class Rows:
    """The curated rows of a domain. lengths: tokens of each, where stage 01 has made them, else None.

    mean: tokens of a row on average. longest: of the longest one, at most. targets: share of tokens that carry loss.
    """

    count: int
    mean: float
    longest: int
    targets: float
    lengths: np.ndarray | None = None


@dataclass(frozen=True)
class Training:
    """One training.

    section: where its schedule stands in the params file. rows and tokens: of one pass. batch: packed sequences in a
    step. longest, targets: as in Rows. counted: the rows are counted, not estimated. done: its model is finished.
    """

    name: str
    section: str
    rows: int
    tokens: float
    sequences: int
    epochs: int
    batch: int
    longest: int
    targets: float
    counted: bool
    done: bool

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return math.ceil(self.sequences / self.batch) * self.epochs

    @property
    def trained_tokens(self) -> float:
        """Tokens of all passes."""
        return self.tokens * self.epochs


@dataclass(frozen=True)
class Asking:
    """What all models are asked on one benchmark. tokens: of one answer on average, thinking included."""

    benchmark: str
    answers: int
    tokens: float

    @property
    def all_tokens(self) -> float:
        """Tokens of all answers."""
        return self.answers * self.tokens


def rows_of(cfg: Config, name: str) -> Rows:
    """The rows of a domain: counted where stage 01 is finished, else estimated."""
    folder = cfg.rows(name)
    if artifact.manifest_path(folder).is_file():
        tokens = read_tokens(folder)
        if len(tokens):
            targets = 1 - int(tokens.prompts.sum()) / tokens.count
            lengths = tokens.lengths
            return Rows(len(tokens), float(lengths.mean()), int(lengths.max()), targets, lengths)
    return estimated_rows(cfg, name)


def estimated_rows(cfg: Config, name: str) -> Rows:
    """The rows of a domain by its limit and sources, with typical lengths."""
    domain, most = cfg.params.domains[name], cfg.params.curate.max_tokens
    found = sum(map(_source_rows, domain.sources))
    count = min(found, domain.limit or found)
    if all(isinstance(source, MiniatureSource) for source in domain.sources):
        kinds = [source.tasks for source in domain.sources if isinstance(source, MiniatureSource)]
        mean = sum(MINIATURE_TOKENS[kind] for kind in kinds) / len(kinds)
        return Rows(count, min(mean, most), most, MINIATURE_TARGETS)
    return Rows(count, min(TOKENS_PER_ROW.get(name, max(TOKENS_PER_ROW.values())), most), most, 1.0)


def _source_rows(source: object) -> int:
    """Rows of a source that pass its `keep`."""
    if isinstance(source, MiniatureSource):
        return source.rows
    if isinstance(source, HubSource):
        known = KEPT_ROWS.get(source.path, {})
        values = " ".join(sorted(value for values in source.keep.values() for value in values))
        return known.get(values) or source.rows or known.get("") or UNKNOWN_ROWS
    return UNKNOWN_ROWS


def trainings(cfg: Config) -> list[Training]:
    """The trainings of a run in their order: the distillation where there is one, the experts, the mixture.

    A verification run has none.
    """
    if cfg.params.verification:
        return []
    rows = {name: rows_of(cfg, name) for name in cfg.domains}
    first = plan.distill_job(cfg, cfg.home / "base")
    return [_training(cfg, job, rows) for job in [*([first] if first else []), *plan.jobs(cfg)]]


def _training(cfg: Config, job: plan.Job, rows: dict[str, Rows]) -> Training:
    parts = [(rows[folder.name], part) for folder, part in job.rows]
    counts = [len(range(*part.indices(all_rows.count))) for all_rows, part in parts]
    lengths = [all_rows.lengths[part] for all_rows, part in parts if all_rows.lengths is not None]
    counted = len(lengths) == len(parts)
    capacity = cfg.params.trainer.sequence_length
    if counted:
        together = np.concatenate(lengths)
        tokens = float(together.sum())
        sequences = len(layout(together.tolist(), capacity, cfg.params.seed, job.sft.packing))
    else:
        tokens = sum(count * all_rows.mean for count, (all_rows, _) in zip(counts, parts, strict=True))
        sequences = sum(counts) if job.sft.packing == "none" else math.ceil(tokens / capacity / FILL)
    return Training(
        job.name, job.section, sum(counts), tokens, sequences, job.sft.epochs, job.sft.batch_size,
        longest=max(all_rows.longest for all_rows, _ in parts),
        targets=max(all_rows.targets for all_rows, _ in parts),
        counted=counted, done=artifact.manifest_path(cfg.model(job.name)).is_file(),
    )  # fmt: skip


def asking(cfg: Config, measured: dict[str, float]) -> list[Asking]:
    """What all models of a run are asked. measured: benchmark -> tokens of an answer, from a finished record."""
    return [
        Asking(
            name, len(cfg.models) * questions(benchmark) * benchmark.samples,
            measured.get(name) or _answer_tokens(benchmark),
        )
        for name, benchmark in cfg.params.benchmarks.items()
    ]  # fmt: skip


def questions(benchmark: Benchmark) -> int:
    """Questions of a benchmark: as many as the params ask for, else as it is known to have."""
    if benchmark.questions is not None:
        return benchmark.questions
    if isinstance(benchmark, LiveCodeBenchmark):
        # The paper's window has 279 of the 880 questions of release_v5 (docs/fidelity.md §4.4).
        return min(paper.BENCHMARKS["livecodebench"].questions, RELEASES.get(benchmark.release or "", 279))
    if isinstance(benchmark, MathBenchmark | ChoiceBenchmark):
        return _questions_of_ones_own(benchmark)
    return QUESTIONS[benchmark.kind]


def _questions_of_ones_own(benchmark: MathBenchmark | ChoiceBenchmark) -> int:
    """The rows of local files that are there, else UNKNOWN; the evaluation says what is wrong with a file."""
    try:
        paths = () if benchmark.path.startswith(HUB) else find_files("", benchmark).paths
        return sum(1 for path in paths for _ in records(path)) or UNKNOWN
    except UserError:
        return UNKNOWN


def _answer_tokens(benchmark: Benchmark) -> float:
    """Tokens of an answer: as TinyR1's on the benchmark of its kind (docs/fidelity.md §5.1), the longest known."""
    if isinstance(benchmark, MiniatureBenchmark):
        return MINIATURE_ANSWER * benchmark.max_tokens
    known = {"aime": "aime24", "math": "aime24", "choice": "gpqa"}.get(benchmark.kind, benchmark.kind)
    thousand = paper.TABLE_1[paper.TINYR1][known][1] or 0
    return min(1000 * thousand, benchmark.max_tokens)


def evaluated(cfg: Config) -> bool:
    """Whether the evaluation of the run is finished."""
    return record.record_path(cfg, "04_evaluation").is_file()
