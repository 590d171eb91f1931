"""Tables of notebook 03: the effect of a run's merges on the weights, by tensor and step."""

from pathlib import Path
from typing import Any

import pandas as pd

from tinyr1.core import jsonl
from tinyr1.core.config import Config
from tinyr1.merge.checkpoint import STATISTICS

STEP = ["model", "base", "other"]  # columns that name a step of a merged model
STEP_COLUMNS = [*STEP, "tensor", "regime", "threshold", "differing", "entries"]


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


def regimes(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Number of tensors in each regime of fusion, for each step; `everything` and `nothing` are degenerate."""
    return _joined(tables).pivot_table(
        index=STEP, columns="regime", values="tensor", aggfunc="count", fill_value=0, sort=False
    )


def degenerate(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The tensors in a degenerate regime, where fusion took everything or nothing: STEP_COLUMNS."""
    joined = _joined(tables)
    return joined[joined.regime.isin(["everything", "nothing"])][STEP_COLUMNS].reset_index(drop=True)


def _joined(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The tables below each other, with the model as a column; a run may have no fusion step at all."""
    parts = [table.assign(model=name) for name, table in tables.items()]
    return pd.concat(parts) if parts else pd.DataFrame(columns=STEP_COLUMNS)
