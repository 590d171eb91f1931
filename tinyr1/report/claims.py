"""The paper's claims, each as a paired comparison that any run can decide for itself.

A verdict is about this run only: `higher here` when the 95 % interval of the paired difference lies above zero,
`lower here` when it lies below, `undecided here` otherwise.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tinyr1.core import paper
from tinyr1.evaluate import stats

AVERAGE = "average"


@dataclass(frozen=True)
class Claim:
    """`better` scores higher than `worse` in `domain` (or on the average of the benchmarks)."""

    text: str
    source: str
    better: str
    worse: str
    domain: str


def claims(domains: tuple[str, ...], has_mixture: bool) -> Iterator[Claim]:
    """The claims of Tables 1 and 2, in the paper's order."""
    merged, other = "math-science-code", "math-code-science"
    for domain in domains:
        yield Claim(f"merged model over backbone, {domain}", "Table 1", merged, "backbone", domain)
    for domain in domains:
        yield Claim(f"{domain} expert over backbone, {domain}", "Table 2", domain, "backbone", domain)
    for domain in domains:
        yield Claim(f"merged model over {domain} expert, {domain}", "Table 2", merged, domain, domain)
    if has_mixture:
        yield Claim("merged model over data mixture, average", "Table 2", merged, "mixture", AVERAGE)
    yield Claim("math & science first over math & code first, average", "§3.2, C25", merged, other, AVERAGE)


def published(claim: Claim) -> float:
    """The paper's own difference for a claim, in points; NaN where it gives none."""
    scores = paper.scores()
    names = {domain: b for b, domain in paper.DOMAIN.items()}
    wanted = list(names.values()) if claim.domain == AVERAGE else [names[claim.domain]]
    values = [scores.get((claim.better, b), np.nan) - scores.get((claim.worse, b), np.nan) for b in wanted]
    return 100 * float(np.mean(values))


def audit(per_question: pd.DataFrame, domains: dict[str, str]) -> pd.DataFrame:
    """One row for each claim: ours with its interval, the verdict, and the paper's number in its own column.

    per_question: model, benchmark, question, score in [0, 1]; domains: benchmark -> domain.
    """
    wide = per_question.pivot_table(index=["benchmark", "question"], columns="model", values="score")
    rows = []
    for claim in claims(tuple(dict.fromkeys(domains.values())), "mixture" in wide):
        if not {claim.better, claim.worse} <= set(wide):
            continue
        wanted = [b for b, domain in domains.items() if claim.domain in (AVERAGE, domain)]
        d = stats.averaged([wide.loc[b, claim.better].to_numpy() - wide.loc[b, claim.worse].to_numpy() for b in wanted])
        verdict = "higher here" if d.low > 0 else "lower here" if d.high < 0 else "undecided here"
        rows.append({
            "claim": claim.text, "where": claim.source,
            "ours, points": f"{100 * d.mean:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]", "verdict": verdict,
            "paper, points": f"{published(claim):+.1f}",
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("claim")
