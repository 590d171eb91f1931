"""Tables of notebook 03: the effect of a run's merges on the weights, by tensor and step."""

from pathlib import Path
from typing import Any

import pandas as pd

from tinyr1.core import jsonl
from tinyr1.core.config import Config
from tinyr1.merge.analysis import kind
from tinyr1.merge.checkpoint import STATISTICS

STEP = ["model", "base", "other"]  # columns that name a step of a merged model
MOST_NAMED = 4  # kinds of tensors that a sentence names


def facts_table(facts: list[dict[str, Any]]) -> pd.DataFrame:
    """One row for each merged model: order (base last), reading and λ of its fusion steps, parameters, seconds."""
    columns = ["model", "order", "reading", "iqr_multiplier", "parameters", "seconds"]
    table = pd.DataFrame(facts)[columns].set_index("model")
    return table.where(table.notna(), "–")


def statistics(folder: Path) -> pd.DataFrame:
    """Per-tensor statistics of a merged checkpoint: tensor, method, base, other, and those of the method."""
    return pd.DataFrame(jsonl.read(folder / STATISTICS))


def fusion_tables(cfg: Config) -> dict[str, pd.DataFrame]:
    """`statistics` of the fusion steps of every merged model that has any, by model name."""
    tables = {name: statistics(cfg.model(name)) for name in cfg.merges}
    tables = {name: table[table.method == "fusion"] for name, table in tables.items() if len(table)}
    return {name: table for name, table in tables.items() if len(table)}


def summary(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Each fusion step over all tensors, weighted by entries; shares are fractions."""
    rows = []
    for name, table in tables.items():
        for (base, other), step in table.groupby(["base", "other"], sort=False):
            differing = step.differing.sum()
            rows.append({
                "model": name, "base": base, "other": other,
                "weights that differ": differing / step.entries.sum(),
                "differing weights taken": step.selected.sum() / max(1, differing),
                "tensors with threshold 0": step.threshold.le(0).mean(),
                "rows with KL < 0": step.negative_rows.sum() / max(1, step.rows.sum()),
            })  # fmt: skip
    return (pd.DataFrame(rows) if rows else pd.DataFrame(columns=STEP)).set_index("model").round(3)


def regimes_told(tables: dict[str, pd.DataFrame]) -> str:
    """How many tensors of the fusion steps are in which regime, in sentences; the kinds of the degenerate ones."""
    joined = _joined(tables)
    if joined.empty:
        return "No merge of this run has a fusion step."
    counts = joined.regime.value_counts()
    said = f"Of {len(joined):,} tensors in all fusion steps, {counts.get('part', 0):,} took a part of what differs"
    for regime, means in (("everything", "all of it"), ("nothing", "nothing of it"), ("identical", "")):
        if number := counts.get(regime, 0):
            kinds = joined[joined.regime == regime].tensor.map(kind).value_counts()
            named = ", ".join(f"{name} {count}" for name, count in kinds.head(MOST_NAMED).items())
            named += ", …" if len(kinds) > MOST_NAMED else ""
            said += f"; {number:,} took {means} ({named})" if means else f"; {number:,} had nothing to take ({named})"
    return f"{said}."


def _joined(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The tables below each other, with the model as a column; a run may have no fusion step at all."""
    parts = [table.assign(model=name) for name, table in tables.items()]
    return pd.concat(parts) if parts else pd.DataFrame(columns=[*STEP, "tensor", "regime"])
