"""What others published, apart from everything measured here: each number belongs to one model on one benchmark.

Percent pass@1; token counts in thousands. The paper is arXiv 2503.04872v2. Scores that its Table 1 marks with a dagger
were copied there from the DeepSeek-R1 report (arXiv 2501.12948), with token lengths of the authors' own testing.
No source names a revision of a model's files, so that none is compared.

    hub id, benchmark of a params file --published, of_model--> Published: score, source, how it was sampled
"""

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyr1.core.params.domains import Benchmark
from tinyr1.core.params.schema import Params

if TYPE_CHECKING:  # it takes a second, and the plan of a run needs no table
    import pandas as pd


@dataclass(frozen=True)
class Asked:
    """A benchmark as the paper asked it.

    questions and samples: their number (paper §3.1.2; docs/fidelity.md §4.1, §4.4). revision: which questions they are.
    """

    title: str
    domain: str
    questions: int
    samples: int
    revision: str


BENCHMARKS = {
    "aime24": Asked("AIME 2024", "math", 30, 16, "both exams of 2024"),
    "livecodebench": Asked("LiveCodeBench 24.08-25.02", "code", 279, 4, "release_v5, contests from 2024-08-01 on"),
    "gpqa": Asked("GPQA-Diamond", "science", 198, 4, "the 198 questions of Diamond"),
}

# Datasets of the hub that hold the published questions, as patterns of a benchmark's path.
SOURCES = {
    "aime24": r"hf://[^/]+/aime[-_]?(?:20)?24/", "livecodebench": r"hf://livecodebench/code_generation_lite(?:/|$)",
    "gpqa": r"hf://Idavidrein/gpqa/gpqa_diamond\.csv$",
}  # fmt: skip

BACKBONE, TINYR1 = "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", "qihoo360/TinyR1-32B-Preview"
LLAMA_70B, R1 = "deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "deepseek-ai/DeepSeek-R1"

TABLE_1: dict[str, dict[str, tuple[float, float | None]]] = {  # hub id -> benchmark -> (pass@1, thousand tokens)
    BACKBONE: {"aime24": (72.6, 9.6), "livecodebench": (57.2, 10.1), "gpqa": (62.1, 5.3)},
    LLAMA_70B: {"aime24": (70.0, None), "livecodebench": (57.5, None), "gpqa": (65.2, None)},
    R1: {"aime24": (79.8, 9.6), "livecodebench": (65.9, 10.4), "gpqa": (71.5, 5.3)},
    TINYR1: {"aime24": (78.1, 11.8), "livecodebench": (61.6, 12.4), "gpqa": (65.0, 8.6)},
}
MATH, CODE, SCIENCE = "Math Expert", "Coding Expert", "Science Expert"
MIXTURE = "Data Mixture"
MATH_CODE_SCIENCE, MATH_SCIENCE_CODE = "(Math & Coding) & Science", "(Math & Science) & Coding"
TABLE_2: dict[str, dict[str, float]] = {  # the paper's own name of a model -> benchmark -> pass@1
    MATH: {"aime24": 73.1},
    CODE: {"livecodebench": 63.4},
    SCIENCE: {"gpqa": 64.5},
    MIXTURE: {"aime24": 75.3, "livecodebench": 61.0, "gpqa": 65.7},
    MATH_CODE_SCIENCE: {"aime24": 77.3, "livecodebench": 63.8, "gpqa": 64.0},
    MATH_SCIENCE_CODE: {"aime24": 78.1, "livecodebench": 61.6, "gpqa": 65.0},
}
MERGING_HOURS = {MIXTURE: 740.0, MATH_CODE_SCIENCE: 4.0, MATH_SCIENCE_CODE: 4.0}  # "Merging Time", GPU hours, Table 2
# Figure 2, merge methods on math and science, percent on GPQA-Diamond. The numbers are in the text layer of arXiv
# 2503.04872v3, apart from their labels: that Arcee is the highest is stated, the other bars are taken in the order of
# the labels. Every value is a whole number of 198 questions, so of one answer to each.
FIGURE_2 = {"Arcee": 68.18, "Model_Soup": 66.67, "Math-Model": 63.64, "Science-Model": 63.64, "Dare_Linear": 60.10,
            "Dare_Ties": 34.85}  # fmt: skip


@dataclass(frozen=True)
class Sampling:
    """How a published score was sampled. samples: benchmark -> answers to each question. unknown: what is not told."""

    temperature: float
    top_p: float
    max_tokens: int
    samples: Mapping[str, int]
    unknown: str


# Paper §3.1.2; and README.md of GitHub deepseek-ai/DeepSeek-R1 at 00f3296, "Evaluation Results".
OF_THE_PAPER = Sampling(
    0.6, 0.95, 32768, {name: asked.samples for name, asked in BENCHMARKS.items()},
    "prompts and graders are those of the authors' scripts, which `protocol: released` follows (docs/fidelity.md §4)",
)  # fmt: skip
OF_DEEPSEEK = Sampling(
    0.6, 0.95, 32768, dict.fromkeys(BENCHMARKS, 64), "prompts, option order and graders are not published"
)
# The other distills that DeepSeek published with R1: pass@1 over 64 answers to each question. The numbers were read in
# README.md of GitHub deepseek-ai/DeepSeek-R1 at 00f3296, which repeats the table of the report.
R1_REPORT = "arXiv 2501.12948 Table 5"
DISTILLS: dict[str, dict[str, float]] = {
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": {"aime24": 28.9, "livecodebench": 16.9, "gpqa": 33.8},
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": {"aime24": 55.5, "livecodebench": 37.6, "gpqa": 49.1},
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": {"aime24": 69.7, "livecodebench": 53.1, "gpqa": 59.1},
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": {"aime24": 50.4, "livecodebench": 39.6, "gpqa": 49.0},
}
# LiveCodeBench's window opens on this day. It ends in January 2025 for DeepSeek (unverified, docs/fidelity.md §4.1) and
# in February for the paper. release_v5 ends in January, so that both are the same problems of it.
WINDOW_OPENS = datetime.date(2024, 8, 1)
WINDOW_CLOSES = (datetime.date(2025, 1, 31), datetime.date(2025, 2, 1))


@dataclass(frozen=True)
class Published:
    """A score that somebody published: percent pass@1 of a model (hub id) on a benchmark (key of BENCHMARKS).

    tokens: thousand tokens of an answer on average, None where nobody says.
    """

    model: str
    benchmark: str
    percent: float
    source: str
    sampling: Sampling
    tokens: float | None = None

    @property
    def samples(self) -> int:
        """Answers to each question."""
        return self.sampling.samples[self.benchmark]


def published(model: str, benchmark: str) -> Published | None:
    """The published score of a model by its hub id; None where nobody published one that this kit knows."""
    if score := TABLE_1.get(model, {}).get(benchmark):
        copied = model != TINYR1  # with a dagger
        source = f"paper Table 1, from {R1_REPORT}" if copied else "paper Table 1"
        return Published(model, benchmark, score[0], source, OF_DEEPSEEK if copied else OF_THE_PAPER, score[1])
    if percent := DISTILLS.get(model, {}).get(benchmark):
        return Published(model, benchmark, percent, R1_REPORT, OF_DEEPSEEK)
    return None


def benchmark_of(block: Benchmark, asked: int) -> str | None:
    """Which of BENCHMARKS a benchmark of a run is; None for every other one, and for a part of one.

    block: the benchmark in a params file. asked: number of its questions. Only the pinned datasets of SOURCES are known
    to hold the published questions: what a run calls a benchmark, or a file of its own, says nothing of its contents.
    LiveCodeBench is told by release and window, too.
    """
    key = {"aime": "aime24"}.get(block.kind, block.kind)
    if key not in BENCHMARKS or not re.match(SOURCES[key], getattr(block, "path", ""), re.IGNORECASE):
        return None
    if block.kind == "livecodebench":
        same = block.window[0] == WINDOW_OPENS and block.window[1] in WINDOW_CLOSES and block.release == "release_v5"
        return key if same and block.questions is None else None
    return key if asked == BENCHMARKS[key].questions else None


def of_model(model: str, params: Params, asked: Mapping[str, int]) -> dict[str, Published]:
    """Published scores of one model (hub id) on the benchmarks of a params file, by their names in the file.

    asked: benchmark name -> number of questions; only these benchmarks are looked at.
    """
    keys = {name: benchmark_of(params.benchmarks[name], n) for name, n in asked.items()}
    scores = {name: published(model, key) for name, key in keys.items() if key}
    return {name: score for name, score in scores.items() if score}


def of_run(params: Params, asked: Mapping[str, int], backbone: str = "backbone") -> dict[tuple[str, str], float]:
    """(model, benchmark) -> published pass@1 in [0, 1] for the models of a run.

    backbone: the name of its first model in tables. Only that one can have a score: experts, mixture and merges are
    made by the run, and are not those that the paper made. A backbone that the run distils itself is not the published
    model either.
    """
    if params.backbone.distill:
        return {}
    scores = of_model(params.backbone.model, params, asked)
    return {(backbone, name): score.percent / 100 for name, score in scores.items()}


def short(model: str) -> str:
    """A hub id without its owner; every other name as it is."""
    return model.rpartition("/")[2]


def table_1() -> "pd.DataFrame":
    """The paper's Table 1: `pass@1 (thousand tokens)`."""
    import pandas as pd

    rows = {
        short(model): {BENCHMARKS[b].title: f"{v:.1f}" + (f" ({t:.1f}k)" if t else "") for b, (v, t) in row.items()}
        for model, row in TABLE_1.items()
    }
    return pd.DataFrame(rows).T.rename_axis("paper, Table 1")


def table_2() -> "pd.DataFrame":
    """The paper's Table 2: pass@1 in percent, and its merging time in GPU hours."""
    import pandas as pd

    rows = {
        model: {asked.title: row.get(b) for b, asked in BENCHMARKS.items()} | {"GPU hours": MERGING_HOURS.get(model)}
        for model, row in TABLE_2.items()
    }
    return pd.DataFrame(rows).T.rename_axis("paper, Table 2")
