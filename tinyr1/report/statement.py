"""What a statement of the paper is, and the parts that models play in the paper, with their published scores."""

from dataclasses import dataclass
from typing import Literal

from tinyr1.core import paper
from tinyr1.report.resolution import Score

Says = Literal[
    "number", "longer", "higher", "lower", "similar", "retains", "slightly higher", "slightly lower", "all", "fact",
    "saves",
]  # fmt: skip
AVERAGE = "average"
DOMAINS = tuple(asked.domain for asked in paper.BENCHMARKS.values())

# The parts that models play in the paper. A run may have a model for each (`tinyr1.report.parts`).
MERGED, OTHER_ORDER, MIXTURE, BACKBONE = "merged model", "other order", "data mixture", "backbone"
EXPERT = {domain: f"{domain} expert" for domain in DOMAINS}
R1, LLAMA_70B = "DeepSeek-R1", "70B distill"
TWO_FUSED, TWO_AVERAGED = "fusion of math and science", "average of math and science"
TWO_DARE_LINEAR, TWO_DARE_TIES = "DARE-linear of math and science", "DARE-TIES of math and science"
# Figure 2 measures both experts anew, so they have scores of their own there.
FIGURE_2 = {
    TWO_FUSED: "Arcee", TWO_AVERAGED: "Model_Soup", "math expert of Figure 2": "Math-Model",
    "science expert of Figure 2": "Science-Model", TWO_DARE_LINEAR: "Dare_Linear", TWO_DARE_TIES: "Dare_Ties",
}  # fmt: skip
TABLE_1 = {BACKBONE: paper.BACKBONE, LLAMA_70B: paper.LLAMA_70B, R1: paper.R1, MERGED: paper.TINYR1}
TABLE_2 = {
    EXPERT["math"]: paper.MATH, EXPERT["code"]: paper.CODE, EXPERT["science"]: paper.SCIENCE,
    MIXTURE: paper.MIXTURE, OTHER_ORDER: paper.MATH_CODE_SCIENCE, MERGED: paper.MATH_SCIENCE_CODE,
}  # fmt: skip


@dataclass(frozen=True)
class Statement:
    """One claim in numbers or of a comparison.

    says: what kind of claim it is. model, against: the parts that it is about, in `domain` (math, code, science or
    AVERAGE). value: what the paper prints, where that does not follow from its tables. parts: of "all", the ids of the
    statements that make it together. holds, why: of a "fact", whether the paper's own numbers support it, and why.
    unasked: why no run of this kit can be asked, where that is so.
    """

    id: str
    group: str
    source: str
    claim: str
    says: Says
    model: str = ""
    against: str = ""
    domain: str = ""
    value: str = ""
    parts: tuple[str, ...] = ()
    holds: str = ""
    why: str = ""
    unasked: str = ""


def scores() -> dict[str, dict[str, Score]]:
    """Part -> domain -> score that the paper prints, with the questions and answers behind it."""
    percents = {part: {b: score[0] for b, score in paper.TABLE_1[name].items()} for part, name in TABLE_1.items()}
    percents |= {part: paper.TABLE_2[name] for part, name in TABLE_2.items()}
    found: dict[str, dict[str, Score]] = {}
    for part, row in percents.items():
        for benchmark, percent in row.items():
            asked = paper.BENCHMARKS[benchmark]
            found.setdefault(part, {})[asked.domain] = Score(percent, asked.questions, asked.samples)
    for part, name in FIGURE_2.items():
        found[part] = {"science": Score(paper.FIGURE_2[name], paper.BENCHMARKS["gpqa"].questions, 1)}
    return found


def tokens() -> dict[str, dict[str, float]]:
    """Part -> domain -> thousand tokens in an answer, from Table 1."""
    return {
        part: {paper.BENCHMARKS[b].domain: count for b, (_, count) in paper.TABLE_1[name].items() if count}
        for part, name in TABLE_1.items()
    }
