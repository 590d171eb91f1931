"""The claim audit of a run, as `claims.json`, as tables and as the sentence that comes first.

graded answers, ablation_questions.csv, records --of_run--> what the run can be asked
statements of the paper                         --audit---> items --save--> report/claims.json
"""

import json
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import pandas as pd

from tinyr1.core import artifact, paper, record
from tinyr1.core.config import Config
from tinyr1.core.errors import UserError
from tinyr1.core.params.ablations import OWN
from tinyr1.evaluate.compare import Comparison, decide, in_words
from tinyr1.evaluate.scores import Published, by_question, points_texts
from tinyr1.report import ablations, audit, effects, parts, spending
from tinyr1.report.statement import MERGED, MIXTURE
from tinyr1.report.statements import statements
from tinyr1.report.verdicts import HEADLINE, MEANINGS

TRAINED, MERGING = "02_branch_sft", "03_fusion_merge"
NUMBERS = "Single numbers"  # the group of statements that are one number each
PAPER = "all statements of the paper"  # the last row of `counts`


def published_scores(cfg: Config, questions: Mapping[str, Sized]) -> Published:
    """(model, benchmark) -> pass@1 in [0, 1] that somebody published for a model of the run (`core.paper.of_run`).

    questions: benchmark -> the questions that are asked.
    """
    return paper.of_run(cfg.params, {name: len(asked) for name, asked in questions.items()}, cfg.models[0])


def of_run(cfg: Config, graded: pd.DataFrame) -> audit.Run:
    """What a run can be asked: its own models, and the merges of its ablations where these were made.

    graded: one row for each answer, with model, benchmark, question, outcome and n_tokens. UserError where the
    ablations were asked other questions, and for a run that trains nothing.
    """
    cfg.require_training("This audit of the paper's claims")
    counts = by_question(graded)
    shares, samples = counts["share"].unstack("model"), counts["samples"].groupby(["model", "benchmark"]).min()
    if (tables := ablations.load(cfg)) is not None:
        more, more_samples = _of_ablations(cfg, tables[1], shares)
        shares, samples = shares.join(more), pd.concat([samples, more_samples])
    lengths = graded.groupby(["benchmark", "question", "model"])["n_tokens"].mean().unstack("model")
    benchmarks = cfg.params.benchmarks
    domains = {d: tuple(b for b in benchmarks if cfg.params.domain_of[b] == d) for d in cfg.domains}
    asked = {name: shares.index.get_level_values("benchmark").to_list().count(name) for name in benchmarks}
    theirs = cfg.params.backbone.model == paper.BACKBONE
    return audit.Run(
        models=parts.models(cfg),
        benchmarks={domain: names for domain, names in domains.items() if names},
        shares=shares,
        lengths=lengths,
        samples={(m, b): int(k) for m, b, k in samples.reset_index().itertuples(index=False)},
        margin=cfg.params.analysis.margin,
        headline=[(pair.model, pair.against) for pair in cfg.params.analysis.headline],
        published=frozenset(name for _, name in paper.of_run(cfg.params, asked)) if theirs else frozenset(),
        spent=spent(cfg),
        branches=_branches(cfg),
    )


def _of_ablations(cfg: Config, questions: pd.DataFrame, own: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """(shares, samples) of the models of the run's own training that answered every question and are not in `own`."""
    rows = questions[(questions["training"] == OWN) & ~questions["model"].isin(own.columns)]
    keys = pd.MultiIndex.from_frame(rows[["benchmark", "question"]])
    if unknown := sorted(set(keys) - set(own.index)):
        raise UserError(
            f"{ablations.questions_path(cfg)}: {len(unknown)} questions that the run was not asked, such as "
            f"{'/'.join(map(str, unknown[0]))}; {cfg.remedy('ablations')}"
        )
    share = (rows["right"] / rows["samples"]).groupby([rows[c] for c in ("benchmark", "question", "model")]).mean()
    wide = share.unstack("model").reindex(own.index).dropna(axis=1)
    rows = rows[rows["model"].isin(wide.columns)]
    return wide, rows.groupby(["model", "benchmark"])["samples"].min()


def spent(cfg: Config) -> tuple[spending.Cost, spending.Cost] | None:
    """What the paper's merge and the data mixture took in this run; None where it has not made one of them."""
    models = parts.models(cfg)
    merged, mixture = models.get(MERGED), models.get(MIXTURE)
    if merged is None or mixture is None:
        return None
    costs = spending.of_part(record.read(cfg, MERGING), merged), spending.of_part(record.read(cfg, TRAINED), mixture)
    return costs if costs[0] and costs[1] else None  # type: ignore[return-value]


def _branches(cfg: Config) -> spending.Cost | None:
    """What the experts of this run took together; None where the time of one is not known."""
    trained = record.read(cfg, TRAINED)
    costs = [spending.of_part(trained, domain) for domain in cfg.domains]
    known = [cost for cost in costs if cost]
    if len(known) < len(costs):
        return None
    return spending.Cost(sum(cost.seconds for cost in known), known[0].workers, known[0].unit)


def of_statements(run: audit.Run) -> list[dict[str, Any]]:
    """The items of claims.json for a run, in their order."""
    return audit.audit(statements(), run)


def save(cfg: Config, items: Sequence[Mapping[str, Any]]) -> Path:
    """Write the items as report/claims.json, in one step; equal items have equal bytes."""
    path = cfg.reports / "claims.json"
    artifact.write_atomic(path, json.dumps(list(items), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def headline(items: Sequence[Mapping[str, Any]]) -> str:
    """The confirmatory comparisons in one sentence each, with what they could have shown."""
    return " ".join(_sentence(item) for item in items if item["group"] == HEADLINE)


def _sentence(item: Mapping[str, Any]) -> str:
    """One confirmatory comparison in words."""
    model, against, outcome = item["model"], item["against"], item["outcome"]
    values = f"({item['ours']:+.1f} points, 95 % interval {item['low']:+.1f} to {item['high']:+.1f})"
    if outcome in ("higher", "lower"):
        return f"{model} scores {outcome} than {against} {values}."
    if outcome == "similar":
        return f"{model} and {against} score similarly {values}."
    seen = f"a difference of {item['detectable']:.1f} points would have shown"
    return f"Between {model} and {against} nothing is decided {values}; {seen}."


def counts(items: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The number of items by group and verdict; the confirmatory comparisons are the first group, and the last row has
    the statements of the paper alone."""
    table = pd.crosstab(pd.Series([i["group"] for i in items]), pd.Series([i["verdict"] for i in items]))
    groups = list(dict.fromkeys(item["group"] for item in items))
    table = table.reindex(index=groups, columns=list(MEANINGS), fill_value=0)
    of_paper = table.drop(index=HEADLINE, errors="ignore").sum().rename(PAPER)
    return pd.concat([table, of_paper.to_frame().T]).rename_axis(None).rename_axis(None, axis=1)


def table(items: Sequence[Mapping[str, Any]], numbers: bool = False) -> pd.DataFrame:
    """The items for reading, without or with only those that are a single number of a table."""
    rows = [
        {
            "claim": item["claim"], "source": item["source"], "paper": item["paper_value"],
            "do its own numbers show it?": f"{item['paper_supports_itself']}: {item['paper_why']}",
            "this run": ours(item), "verdict": item["verdict"], "because": item["why"],
        }
        for item in items
        if (item["group"] == NUMBERS) == numbers
    ]  # fmt: skip
    return pd.DataFrame(rows).set_index("claim")


def ours(item: Mapping[str, Any]) -> str:
    """What the run measured for an item, with interval, unit and number of answers; "" where it measured nothing."""
    if item["ours"] is None:
        return ""
    sign = "" if item["unit"] == "percent" else "+"
    other = f"{item['model']} here: " if item["unit"] == "percent" else ""  # beside a number of another model
    interval = f" [{item['low']:{sign}.1f}, {item['high']:{sign}.1f}]" if item["low"] is not None else ""
    size = f", n = {item['n']} × {item['k']}" if item["n"] else ""
    return f"{other}{item['ours']:{sign}.1f}{interval} {item['unit']}{size}"


def over_seeds(cfg: Config) -> pd.DataFrame | None:
    """The confirmatory comparisons over questions and training seeds, in points; None without ablations of seeds.

    The seeds are those of the run's own training and of every training that differs from it in nothing else.
    """
    tables = ablations.load(cfg)
    block = cfg.params.ablations
    if tables is None or block is None:
        return None
    rows = tables[1][tables[1]["training"].isin(effects.repetitions(block))]
    keys = [rows[column] for column in ("seed", "benchmark", "question", "model")]
    wide = (rows["right"] / rows["samples"]).groupby(keys).mean().unstack("model")
    pairs = [pair for pair in cfg.params.analysis.headline if {pair.model, pair.against} <= set(wide.columns)]
    if not pairs or wide.index.get_level_values("seed").nunique() < 2:
        return None
    asked = [Comparison("over training seeds", p.model, p.against, tuple(cfg.params.benchmarks)) for p in pairs]
    decided = decide(wide, asked, cfg.params.analysis.margin)
    return decided[["model", "against"]].assign(
        seeds=[_seeds(wide, p.model, p.against) for p in pairs],
        points=points_texts(decided),
        verdict=[in_words(row) for _, row in decided.iterrows()],
    )


def _seeds(wide: pd.DataFrame, model: str, against: str) -> int:
    """The number of trainings in which both models answered every question."""
    return int(wide[[model, against]].notna().all(axis=1).groupby("seed").all().sum())
