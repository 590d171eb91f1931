r"""Every statement of the paper, held against the paper's own numbers and asked of a run.

    statements + published scores   --resolution-->  does the paper support itself?
    statements + the run's answers  --decide------>  verdict for this run

A verdict is about the models of the run. Only where the run has the paper's backbone and a published benchmark is a
single published number asked, too. The comparisons of `analysis.headline` are confirmatory; all others are exploratory,
in one family for each group of statements (docs/evaluation.md §6).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tinyr1.evaluate import against, compare, stats
from tinyr1.evaluate.compare import Comparison
from tinyr1.report import resolution, spending
from tinyr1.report.resolution import ALONE, NO, NO_NUMBERS, NOT_SHOWN, SAME, SIGN, YES
from tinyr1.report.statement import AVERAGE, DOMAINS, Statement, scores, tokens
from tinyr1.report.verdicts import CONTRADICTED, HEADLINE, NOT_RUN, SUPPORTED, UNCHECKED, UNDECIDED

CONFIRMATORY = "confirmatory: analysis.headline"
# Of the parts of a composed statement the first one that occurs counts.
WORST_PAPER = (NO, NO_NUMBERS, ALONE, NOT_SHOWN, SIGN, SAME, YES)
WORST_RUN = (CONTRADICTED, NOT_RUN, UNCHECKED, UNDECIDED, SUPPORTED)
# What was measured; outcome: the verdict of `compare.decide` on model and against.
MEASURED = ("model", "against", "ours", "low", "high", "unit", "n", "k", "test", "p", "holm", "detectable", "outcome")
EMPTY = dict.fromkeys(MEASURED)
Paper = tuple[str, float | None, str, str]  # value, difference in points, whether it supports itself, why


@dataclass(frozen=True)
class Run:
    """What is known of a run.

    models: part of the paper -> model that plays it. benchmarks: domain -> its benchmarks. shares: index (benchmark,
    question), a column for each model, the share of right answers in [0, 1]. lengths: the same with mean tokens.
    samples: (model, benchmark) -> answers to each question. margin: in points. headline: (model, against) pairs.
    published: benchmarks on which the run can repeat the paper's own numbers. spent: hours of merging and of training
    on the mixed data; None where one is not known. branches: hours of
    training the experts.
    """

    models: Mapping[str, str]
    benchmarks: Mapping[str, tuple[str, ...]]
    shares: pd.DataFrame
    lengths: pd.DataFrame
    samples: Mapping[tuple[str, str], int]
    margin: float
    headline: Sequence[tuple[str, str]]
    published: frozenset[str] = frozenset()
    spent: tuple[spending.Cost, spending.Cost] | None = None
    branches: spending.Cost | None = None

    def asked_in(self, domain: str) -> tuple[str, ...]:
        """The benchmarks of a domain, or all of them for AVERAGE."""
        every = tuple(name for names in self.benchmarks.values() for name in names)
        return every if domain == AVERAGE else self.benchmarks.get(domain, ())

    def missing(self, statement: Statement) -> str:
        """What the run lacks for a statement, in words; "" where it has everything."""
        parts = [part for part in (statement.model, statement.against) if part]
        lacking = [part for part in parts if self.models.get(part) not in self.shares]
        if lacking:
            return f"this run has no {' and no '.join(lacking)}"
        return "" if self.asked_in(statement.domain) else f"this run has no benchmark in {statement.domain}"

    def k(self, models: Sequence[str], benchmarks: Sequence[str]) -> int:
        """The smallest number of answers to a question."""
        return min(self.samples[model, benchmark] for model in models for benchmark in benchmarks)


def audit(statements: Sequence[Statement], run: Run) -> list[dict[str, Any]]:
    """One item for each comparison of the headline and for each statement, in this order.

    Numbers are rounded, so that equal runs give equal items: points to 2 decimals, p to 4 figures.
    """
    headline = [Comparison(CONFIRMATORY, a, b, run.asked_in(AVERAGE)) for a, b in run.headline]
    wanted = {s.id: _comparisons(s, run) for s in statements}
    every = list(dict.fromkeys([*headline, *(c for needed in wanted.values() for c in needed.values())]))
    decided = compare.decide(run.shares, every, run.margin).to_dict("records")
    found = dict(zip(every, decided, strict=True))
    items = [_of_headline(i, comparison, found[comparison], run) for i, comparison in enumerate(headline, 1)]
    lengths = _lengths(statements, run)
    by_id: dict[str, dict] = {}
    for s in statements:
        rows = {kind: found[comparison] for kind, comparison in wanted[s.id].items()}
        by_id[s.id] = _composed(s, by_id) if s.says == "all" else _item(s, run, rows, lengths)
    return items + list(by_id.values())


def _comparisons(s: Statement, run: Run) -> dict[str, Comparison]:
    """kind -> comparison that a statement asks for; none where the run cannot be asked, or for other statements."""
    if s.says in ("number", "longer", "fact", "saves", "all") or run.missing(s):
        return {}
    model, against, where = run.models[s.model], run.models[s.against], run.asked_in(s.domain)
    kinds = {"similar": ["equivalence"], "retains": ["equivalence"]}.get(s.says, ["difference"])
    if s.says.startswith("slightly"):
        kinds = ["difference", "equivalence"]
    confirmed = kinds == ["difference"] and s.domain == AVERAGE and (model, against) in run.headline
    family = CONFIRMATORY if confirmed else f"exploratory: {s.group}"
    return {kind: Comparison(family, model, against, where, kind) for kind in kinds}  # type: ignore[arg-type]


def _item(s: Statement, run: Run, rows: Mapping[str, dict], lengths: Mapping[str, dict]) -> dict:
    """The item of a statement that stands alone. rows: kind -> decided comparison."""
    value, points, holds, why = _paper(s, run.margin)
    if s.unasked:
        verdict, said, measured = (NOT_RUN if holds == NO_NUMBERS and not s.value else UNCHECKED), s.unasked, EMPTY
    elif s.says == "saves":
        verdict, said, measured = _saved(run)
    elif said := run.missing(s):
        verdict, measured = NOT_RUN, EMPTY
    elif s.says == "number":
        verdict, said, measured = _number(s, run)
    elif s.says == "longer":
        verdict, said, measured = lengths[s.id]["verdict"], lengths[s.id]["said"], lengths[s.id]["measured"]
    else:
        row = rows.get("difference") or rows["equivalence"]
        verdict, said = _verdict(s.says, rows, run.margin), compare.in_words(row)
        measured = _measured(row, run)
    return _filled(s, (value, points, holds, why), measured, verdict, said, rows)


def _filled(
    s: Statement, theirs: Paper, measured: Mapping, verdict: str, said: str, rows: Mapping[str, dict]
) -> dict[str, Any]:
    """One item with its keys in the order of claims.json."""
    families, (value, points, holds, why) = [row["family"] for row in rows.values()], theirs
    return {
        "id": s.id, "group": s.group, "family": families[0] if families else None,
        "confirmatory": CONFIRMATORY in families, "source": s.source, "claim": s.claim, "paper_value": value,
        "paper_points": points, "paper_supports_itself": holds, "paper_why": why, **measured, "verdict": verdict,
        "why": said,
    }  # fmt: skip


# --- the paper against itself -----------------------------------------------------------------------------------


def _paper(s: Statement, margin: float) -> Paper:
    """The paper's value, its difference in points, whether its own numbers support the statement, and why."""
    if s.says in ("fact", "saves"):
        return s.value, None, s.holds, s.why
    if s.says == "longer":
        counts = tokens()
        ours, theirs = counts[s.model][s.domain], counts[s.against][s.domain]
        text = f"{ours:g}k against {theirs:g}k tokens, {100 * (ours / theirs - 1):+.0f} %"
        holds = YES if ours > theirs and (not s.value or s.value in text) else NO
        return s.value or text, None, holds, f"{text}; no spread is given"
    printed = scores()
    if s.says == "number":
        score = printed[s.model][s.domain]
        return f"{score.percent:g}", None, ALONE, resolution.of_number(score)
    return _paper_difference(s, printed, margin)


def _paper_difference(s: Statement, printed: Mapping, margin: float) -> Paper:
    a, b = printed.get(s.model, {}), printed.get(s.against, {})
    domains = DOMAINS if s.domain == AVERAGE else (s.domain,)
    if not set(domains) <= a.keys() & b.keys():
        return "", None, NO_NUMBERS, "no numbers are given"
    pairs = [(a[d], b[d]) for d in domains]
    ours, theirs = (sum(pair[i].percent for pair in pairs) / len(pairs) for i in (0, 1))
    digits = 2 if len(pairs) > 1 or any(score.samples == 1 for pair in pairs for score in pair) else 1
    value = f"{ours:.{digits}f} − {theirs:.{digits}f} = {ours - theirs:+.{digits}f}"
    return value, round(ours - theirs, 2), *resolution.of_difference(s.says, pairs, margin)


# --- the run ----------------------------------------------------------------------------------------------------


def _verdict(says: str, rows: Mapping[str, dict], margin: float) -> str:
    """The verdict of a comparison by what the statement says. rows: kind -> decided comparison."""
    if says in ("higher", "lower"):
        opposite = {"higher": "lower", "lower": "higher"}[says]
        return {says: SUPPORTED, opposite: CONTRADICTED}.get(rows["difference"]["verdict"], UNDECIDED)
    equal = rows["equivalence"]["verdict"]
    if says == "similar":
        return {"similar": SUPPORTED, "undecided": UNDECIDED}.get(equal, CONTRADICTED)
    if says == "retains":
        return {"similar": SUPPORTED, "higher": SUPPORTED, "lower": CONTRADICTED}.get(equal, UNDECIDED)
    direction, row = says.removeprefix("slightly "), rows["difference"]
    beyond = min(abs(row["low"]), abs(row["high"])) > margin / 100 and row["low"] * row["high"] > 0
    if beyond or row["verdict"] == {"higher": "lower", "lower": "higher"}[direction]:
        return CONTRADICTED
    return SUPPORTED if row["verdict"] == direction and equal == "similar" else UNDECIDED


def _measured(row: Mapping, run: Run) -> dict:
    """What a decided comparison measured, in points."""
    benchmarks = row["benchmarks"].split(", ")
    one_sided = f"two one-sided t tests against ±{run.margin:g} points"
    return EMPTY | {
        "model": row["model"], "against": row["against"], "outcome": row["verdict"],
        "ours": _points(row["mean"]), "low": _points(row["low"]), "high": _points(row["high"]), "unit": "points",
        "n": int(row["n"]), "k": run.k([row["model"], row["against"]], benchmarks),
        "test": "sign-flip test" if row["kind"] == "difference" else one_sided,
        "p": _figures(row["p"]), "holm": _figures(row["holm"]), "detectable": _points(row["detectable"]),
    }  # fmt: skip


def _number(s: Statement, run: Run) -> tuple[str, str, dict]:
    """The run's score beside a single published one; a verdict only where the run repeats the paper's experiment."""
    model, benchmarks = run.models[s.model], run.asked_in(s.domain)
    shares = run.shares[model].loc[list(benchmarks)]
    score = stats.averaged([shares.xs(name, level="benchmark").to_numpy() for name in benchmarks])
    samples = run.k([model], benchmarks)
    measured = EMPTY | {
        "model": model, "ours": _points(score.mean), "low": _points(score.low), "high": _points(score.high),
        "unit": "percent", "n": len(shares), "k": samples,
    }  # fmt: skip
    if not set(benchmarks) <= run.published:
        return UNCHECKED, "other models answered other questions here", measured
    theirs = scores()[s.model][s.domain]
    row = against.repeated(
        model, ", ".join(benchmarks), shares.to_numpy(), samples, theirs.percent, theirs.samples, run.margin
    )
    decided = compare.judged([row]).iloc[0]
    verdict = {"similar": SUPPORTED, "undecided": UNDECIDED}.get(decided["verdict"], CONTRADICTED)
    measured |= {"test": f"two one-sided tests against ±{run.margin:g} points of the published score, same questions"}
    less = stats.Estimate(*decided[["mean", "low", "high"]]).points()
    return verdict, f"ours less it {less}: {compare.in_words(decided)}", measured


def _saved(run: Run) -> tuple[str, str, dict]:
    """The saving of time by merging; one measurement, without an interval."""
    if run.spent is None:
        return NOT_RUN, "this run has no data mixture, or no time of its merge", EMPTY
    saved = 100 - spending.share(*run.spent)
    verdict = SUPPORTED if saved >= spending.SAVED_PERCENT else CONTRADICTED
    measured = EMPTY | {"ours": round(saved, 2), "unit": "percent saved", "test": "one measurement without an interval"}
    said = "the training of the experts is not counted, as in the paper"
    if run.branches:
        said += f"; it alone takes {spending.share(run.branches, run.spent[1]):.0f} % of the time of the mixture"
    return verdict, said, measured


def _lengths(statements: Sequence[Statement], run: Run) -> dict[str, dict]:
    """Id of each statement about the length of answers that the run can be asked -> its verdict and measurement."""
    found: dict[str, tuple[stats.Mean, float, Statement]] = {}
    for s in statements:
        if s.says == "longer" and not run.missing(s):
            rows = run.lengths.loc[list(run.asked_in(s.domain)), [run.models[s.model], run.models[s.against]]]
            if rows.notna().all(axis=None):
                ours, theirs = rows.to_numpy().T
                apart = stats.mean_over([(ours - theirs)[None]], span=rows.to_numpy().max())
                found[s.id] = apart, float(theirs.mean()), s
    adjusted = stats.holm({name: mean.p() for name, (mean, _, _) in found.items()})
    uncounted = {"verdict": NOT_RUN, "said": "the tokens of the answers were not counted", "measured": EMPTY}
    items = {s.id: uncounted for s in statements if s.says == "longer"}
    return items | {name: _length(*found[name], adjusted[name], run) for name in found}


def _length(mean: stats.Mean, base: float, s: Statement, holm: float, run: Run) -> dict:
    """Verdict and measurement of one statement about lengths; in percent of the mean length `base`, in tokens."""
    model, against, benchmarks = run.models[s.model], run.models[s.against], run.asked_in(s.domain)
    estimate, n = mean.estimate(), len(run.lengths.loc[list(benchmarks)])
    ours, low, high, least = (round(100 * v / base, 2) for v in
                              (estimate.mean, estimate.low, estimate.high, mean.detectable()))  # fmt: skip
    significant = holm < stats.LEVEL
    verdict = UNDECIDED if not significant else SUPPORTED if mean.mean > 0 else CONTRADICTED
    measured = EMPTY | {
        "model": model, "against": against,
        "ours": ours, "low": low, "high": high, "unit": f"percent of the tokens of {against}", "n": n,
        "k": run.k([model, against], benchmarks), "test": "t test of the tokens by question",
        "p": _figures(mean.p()), "holm": _figures(holm), "detectable": least,
    }  # fmt: skip
    return {"verdict": verdict, "said": "cut-off answers count with the tokens that were allowed", "measured": measured}


def _of_headline(number: int, comparison: Comparison, row: dict, run: Run) -> dict:
    """The item of a confirmatory comparison, with the paper's numbers where it has both models."""
    parts = {model: part for part, model in reversed(list(run.models.items()))}
    claim = f"{comparison.model} scores higher than {comparison.against}, averaged over all benchmarks."
    s = Statement(f"headline-{number}", HEADLINE, "params, analysis.headline", claim, "higher",
                  parts.get(comparison.model, ""), parts.get(comparison.against, ""), AVERAGE)  # fmt: skip
    verdict, said = _verdict("higher", {"difference": row}, run.margin), compare.in_words(row)
    theirs = _paper_difference(s, scores(), run.margin)
    return _filled(s, theirs, _measured(row, run), verdict, said, {"difference": row})


def _composed(s: Statement, items: Mapping[str, dict]) -> dict:
    """The item of a statement that is made of others: it has the worst of what they have."""
    parts = [items[name] for name in s.parts]
    holds = next(h for h in WORST_PAPER if any(part["paper_supports_itself"] == h for part in parts))
    verdict = next(v for v in WORST_RUN if any(part["verdict"] == v for part in parts))
    said = "; ".join(f"{part['id']}: {part['verdict']}" for part in parts)
    why = "; ".join(f"{part['id']}: {part['paper_supports_itself']}" for part in parts)
    rows = {part["id"]: {"family": part["family"]} for part in parts if part["family"]}
    return _filled(s, ("", None, holds, why), EMPTY, verdict, said, rows)


def _points(fraction: float) -> float:
    return round(100 * float(fraction), 2) + 0.0  # no negative zero


def _figures(p: float) -> float:
    return float(f"{p:.4g}")
