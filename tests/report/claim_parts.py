"""A made run for the tests of the claim audit: scores of each model by question."""

import numpy as np
import pandas as pd

from tinyr1.report import audit
from tinyr1.report.statement import BACKBONE, EXPERT, MERGED, MIXTURE, OTHER_ORDER

NAMES = {
    BACKBONE: "backbone", **{part: domain for domain, part in EXPERT.items()}, MIXTURE: "mixture",
    MERGED: "math-science-code", OTHER_ORDER: "math-code-science",
}  # fmt: skip
BENCHMARKS = {"math": ("mini-math",), "science": ("mini-science",), "code": ("mini-code",)}


def shares(right: dict[str, float], n: int = 200, seed: int = 0) -> pd.DataFrame:
    """Share of right answers by question: each model is right with the given probability, on the easiest questions."""
    rng = np.random.default_rng(seed)
    index = [(b, f"q{i}") for names in BENCHMARKS.values() for b in names for i in range(n)]
    hardness = rng.permuted(np.tile(np.linspace(0, 1, n, endpoint=False), (len(index) // n, 1)), axis=1).ravel()
    columns = {model: (hardness < p).astype(float) for model, p in right.items()}
    return pd.DataFrame(columns, index=pd.MultiIndex.from_tuples(index, names=["benchmark", "question"]))


def made_run(right: dict[str, float] | pd.DataFrame, **changes) -> audit.Run:
    """A run of the models of `right`: scores by model, or a table of shares."""
    table = right if isinstance(right, pd.DataFrame) else shares(right)
    parts = {part: name for part, name in NAMES.items() if name in table}
    known = {"models": parts, "benchmarks": BENCHMARKS, "shares": table, "lengths": 50 + 0 * table, "margin": 5.0,
             "samples": {(m, b): 2 for m in table for names in BENCHMARKS.values() for b in names},
             "headline": [("math-science-code", "mixture")]}  # fmt: skip
    return audit.Run(**(known | changes))


EVERY = dict.fromkeys(NAMES.values(), 0.5)
