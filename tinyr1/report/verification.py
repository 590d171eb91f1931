"""A verification run in numbers: what was published for its model, what came out here, and whether the two agree.

    graded samples + core.paper --compared--> an item for each benchmark --save--> report/verification.json
    items, protocols of stage 04 -----------> tables of notebook 05, of the page of the run and of its README.md

A published score stands only beside the published model on the published questions (`core.paper`); every other
benchmark has a score of its own and none beside it. The verdict is that of `evaluate.against.with_published`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tinyr1.core import artifact, paper
from tinyr1.core.config import Config
from tinyr1.evaluate import against, compare, stats, tables
from tinyr1.evaluate.scores import by_question

FILE = "verification.json"
NOTHING = "no published score"
# Verdicts in the order of the headline, each with its words there and with the sentence that explains it.
VERDICTS = {
    "similar": ("reproduced", "asked again, these questions would give a score within the margin of the published one; "
                "a test of equivalence says so"),
    "higher": ("higher than published", "the score is above the published one by more than the drawing of answers "
               "explains"),
    "lower": ("lower than published", "the score is below the published one by more than the drawing of answers "
              "explains"),
    "undecided": ("undecided", "neither is shown; beside it stands the difference that would have shown"),
    NOTHING: (NOTHING, "nobody published one that this kit knows for this model on these questions"),
}  # fmt: skip


def compared(cfg: Config, graded: pd.DataFrame) -> list[dict[str, Any]]:
    """One item for each benchmark, in the order of the params file, with what was published where something was.

    benchmark, n (questions), k (answers to each), ours, low, high (percent, 95 % interval over questions), tokens (mean
    of an answer, None where they were not counted); published (percent), source, their_k, their_tokens (thousand);
    less, less_low, less_high (points, 95 % interval for the same questions sampled again), verdict (a key of VERDICTS)
    and words. What nobody published is None.
    """
    counts = by_question(graded).droplevel("model")
    asked = {name: len(counts.loc[name]) for name in cfg.params.benchmarks}
    theirs = paper.of_model(cfg.params.backbone.model, cfg.params, asked)
    rows = against.with_published(graded, theirs, cfg.params.analysis.margin).set_index("benchmarks")
    lengths = graded.groupby("benchmark")["n_tokens"].mean()
    items = []
    for name, n in asked.items():
        over = stats.proportion(counts.loc[name]["share"].to_numpy())
        item = {
            "benchmark": name, "n": n, "k": int(counts.loc[name]["samples"].min()),
            **_percent(over, "ours", "low", "high"),
            "tokens": None if pd.isna(lengths[name]) else round(float(lengths[name]), 1),
        }  # fmt: skip
        items.append(item | (_beside(theirs[name], rows.loc[[name]].iloc[0]) if name in theirs else _alone()))
    return items


def _beside(score: paper.Published, row: pd.Series) -> dict[str, Any]:
    """What an item says of the published score. row: of `against.with_published`."""
    less = stats.Estimate(row["mean"], row["low"], row["high"])
    return {
        "published": score.percent, "source": score.source, "their_k": score.samples, "their_tokens": score.tokens,
        **_percent(less, "less", "less_low", "less_high"), "verdict": row["verdict"], "words": compare.in_words(row),
    }  # fmt: skip


def _alone() -> dict[str, Any]:
    names = ("published", "source", "their_k", "their_tokens", "less", "less_low", "less_high")
    return dict.fromkeys(names) | {"verdict": NOTHING, "words": NOTHING}


def _percent(estimate: stats.Estimate, *names: str) -> dict[str, float]:
    values = (estimate.mean, estimate.low, estimate.high)
    return {name: round(100 * value, 2) + 0.0 for name, value in zip(names, values, strict=True)}  # no negative zero


def headline(cfg: Config, items: Sequence[Mapping[str, Any]]) -> str:
    """How many published scores came out, which did not, and which benchmarks have none; one or two sentences."""
    by_verdict = {verdict: [i["benchmark"] for i in items if i["verdict"] == verdict] for verdict in VERDICTS}
    alone, (model,) = by_verdict.pop(NOTHING), cfg.models
    among = sum(map(len, by_verdict.values()))
    if not among:
        return f"No published score of {model} is known for {', '.join(alone)}: the scores stand alone."
    parts = [f"{len(names)} {VERDICTS[v][0]} ({', '.join(names)})" for v, names in by_verdict.items() if names]
    scores = "1 published score" if among == 1 else f"{among} published scores"
    sentence = f"Of {scores} of {model}, within ±{cfg.params.analysis.margin:g} points: {'; '.join(parts)}."
    return sentence + (f" No score was published for {', '.join(alone)}." if alone else "")


def save(cfg: Config, items: Sequence[Mapping[str, Any]]) -> Path:
    """Write the items as report/verification.json, in one step; equal items have equal bytes."""
    path = cfg.reports / FILE
    artifact.write_atomic(path, json.dumps(list(items), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def stored(folder: Path) -> list[dict[str, Any]]:
    """The items in a report folder; [] where they are not there."""
    path = folder / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def table(items: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The items for reading: benchmarks down; published, ours, the difference and the verdict across."""
    rows = {
        item["benchmark"]: {
            "published": published_text(item),
            "ours": f"{item['ours']:.1f} [{item['low']:.1f}, {item['high']:.1f}], {asked_text(item['n'], item['k'])}",
            "ours less published, same questions": less_text(item), "verdict": item["words"],
        }
        for item in items
    }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("benchmark")


def published_text(item: Mapping[str, Any]) -> str:
    """The published score with its answers and its source; a dash where there is none."""
    if item["published"] is None:
        return "–"
    return f"{item['published']:g}, {item['their_k']} answers to each question ({item['source']})"


def less_text(item: Mapping[str, Any]) -> str:
    """Ours less the published score in points; a dash where there is none."""
    if item["less"] is None:
        return "–"
    return f"{item['less']:+.1f} [{item['less_low']:+.1f}, {item['less_high']:+.1f}]"


def asked_text(n: int, k: int) -> str:
    """How many questions, and how many answers to each."""
    return f"{n} questions × {k} answer{'' if k == 1 else 's'}"


def protocol(cfg: Config, protocols: Sequence[Mapping[str, Any]], sources: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The whole protocol: its rules down, what is published first and then each benchmark across.

    protocols, sources: as stage 04 records them. A rule that is empty everywhere has no row.
    """
    asked = tables.overview(protocols, by="benchmark")
    (model,), spec = cfg.models, cfg.params.backbone
    files = {source["benchmark"]: source for source in sources}
    first = pd.DataFrame(
        {name: {"model": spec.model if spec.revision else model, "commit": spec.revision or "of a folder",
                "questions": _questions(files[name])}
         for name in asked.columns}
    )  # fmt: skip
    whole = pd.concat([first, asked])
    known = paper.of_model(spec.model, cfg.params, {one["benchmark"]: one["n_problems"] for one in protocols})
    whole.insert(0, "published", pd.Series(_published(known), dtype=str))
    return whole.fillna("").rename_axis(index=None, columns="rule")


def _questions(source: Mapping[str, Any]) -> str:
    """Where the questions of a benchmark are from, with their commit."""
    told = [str(source[key]) for key in ("path", "revision") if source.get(key)]
    return " at ".join(told) or "made by this kit"


def _published(known: Mapping[str, paper.Published]) -> dict[str, str]:
    """The rules that were published with the scores of one model; none where no score was."""
    if not known:
        return {}
    sampling = next(iter(known.values())).sampling  # whoever published several scores sampled all of them alike
    counts = {score.samples for score in known.values()}
    return {
        "commit": "not stated", "temperature": f"{sampling.temperature:g}", "top_p": f"{sampling.top_p:g}",
        "samples": ", ".join(f"{one.samples} ({name})" for name, one in known.items()) if len(counts) > 1
        else str(*counts), "max_tokens": str(sampling.max_tokens), "prompt": sampling.unknown,
    }  # fmt: skip
