"""The paper's claims, each as a paired comparison that a run decides for its own models.

The verdict of a claim holds for this run only: `higher here` when the 95 % interval of the paired difference lies
above zero, `lower here` when it lies below zero, `undecided here` otherwise (docs/evaluation.md §6.2).
"""

from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from tinyr1.core import paper
from tinyr1.core.config import Config
from tinyr1.core.recipe import Recipe, describe
from tinyr1.evaluate import stats
from tinyr1.evaluate.scores import Published

AVERAGE = "average"


@dataclass(frozen=True)
class Claim:
    """`better` scores higher than `worse` in `domain`, or on the average of all benchmarks (`AVERAGE`)."""

    text: str
    source: str
    better: str
    worse: str
    domain: str


def paper_claims(domains: tuple[str, ...], merges: Mapping[str, Recipe]) -> Iterator[Claim]:
    """The claims of the paper's Tables 1 and 2, in the paper's order, for the domains and merges of a run.

    domains: the domains that have a benchmark; the expert of a domain has the name of the domain. merges: model name
    -> recipe, where the first model is the one that the paper calls the merged model.
    """
    merged = next(iter(merges))
    for domain in domains:
        yield Claim(f"merged model over backbone, {domain}", "paper Table 1", merged, "backbone", domain)
    for domain in domains:
        yield Claim(f"{domain} expert over backbone, {domain}", "paper Table 2", domain, "backbone", domain)
    for domain in domains:
        yield Claim(f"merged model over {domain} expert, {domain}", "paper Table 2", merged, domain, domain)
    yield Claim("merged model over data mixture, average", "paper Table 2", merged, "mixture", AVERAGE)
    if pair := two_orders(merges):
        first, second = (describe(merges[name]) for name in pair)
        yield Claim(f"{first} over {second}, average", "paper §3.2; docs/fidelity.md C25", *pair, AVERAGE)


def fusion_order(recipe: Recipe) -> tuple[str, ...] | None:
    """Models of a chain of fusion steps in the order in which they are merged; the base of the last step comes last.

    (math & science) & code gives ("math", "science", "code"). Every recipe that is not such a chain gives None.
    """
    if recipe.method != "fusion":
        return None
    base, other = recipe.parts
    before = (other,) if isinstance(other, str) else fusion_order(other)
    return (*before, base) if before and isinstance(base, str) else None


def two_orders(merges: Mapping[str, Recipe]) -> tuple[str, str] | None:
    """The first two merges that fuse the same experts in two orders, with the same settings; None without two."""
    orders = {name: order for name, recipe in merges.items() if (order := fusion_order(recipe))}
    for a, b in combinations(orders, 2):
        same_experts = sorted(orders[a]) == sorted(orders[b])
        if same_experts and orders[a] != orders[b] and _settings(merges[a]) == _settings(merges[b]):
            return a, b
    return None


def _settings(recipe: Recipe) -> list[tuple]:
    """Reading and λ of every step of a fusion chain, the last step first."""
    nested = [part for part in recipe.parts if isinstance(part, Recipe)]
    return [(recipe.reading, recipe.iqr_multiplier), *(step for part in nested for step in _settings(part))]


def published_scores(cfg: Config, questions: Mapping[str, Sized]) -> Published:
    """(model, benchmark) -> pass@1 in [0, 1] that somebody published for a model of the run (`core.paper.of_run`).

    questions: benchmark -> the questions that are asked.
    """
    return paper.of_run(cfg.params, {name: len(asked) for name, asked in questions.items()})


def audit(
    per_question: pd.DataFrame,
    domains: Mapping[str, str],
    merges: Mapping[str, Recipe],
    published: Published,
) -> pd.DataFrame:
    """One row for each claim about models of the run: our difference with its interval, the verdict, the paper's.

    per_question: columns model, benchmark, question, and score in [0, 1]. domains: benchmark -> domain. merges: model
    name -> recipe. published: the paper's scores, see `published_scores`; the table has no column for the paper where
    it published none of them. Differences are in points.
    """
    wide = per_question.pivot_table(index=["benchmark", "question"], columns="model", values="score")
    rows = []
    for claim in paper_claims(tuple(dict.fromkeys(domains.values())), merges):
        if not {claim.better, claim.worse} <= set(wide):
            continue
        benchmarks = [b for b, domain in domains.items() if claim.domain in (AVERAGE, domain)]
        difference = wide[claim.better] - wide[claim.worse]
        ours = stats.averaged([difference.xs(b, level="benchmark").to_numpy() for b in benchmarks])
        rows.append({
            "claim": claim.text, "where": claim.source,
            "ours, points": ours.points(),
            "verdict": "higher here" if ours.low > 0 else "lower here" if ours.high < 0 else "undecided here",
            "paper, points": _published_difference(claim, benchmarks, published),
        })  # fmt: skip
    table = pd.DataFrame(rows).set_index("claim")
    return table.loc[:, (table != "").any()]


def _published_difference(claim: Claim, benchmarks: list[str], published: Published) -> str:
    """The paper's own difference, in points; "" unless it published both models on all of these benchmarks."""
    pairs = [(published.get((claim.better, b)), published.get((claim.worse, b))) for b in benchmarks]
    differences = [better - worse for better, worse in pairs if better is not None and worse is not None]
    return f"{100 * sum(differences) / len(differences):+.1f}" if len(differences) == len(pairs) else ""
