"""The merges of a run: its recipes to checkpoints, and tables of what they did."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch

from tinyr1.core import artifact, jsonl
from tinyr1.core.config import Config
from tinyr1.core.errors import UserError
from tinyr1.core.progress import say
from tinyr1.core.recipe import Recipe
from tinyr1.merge import checkpoint
from tinyr1.merge.engine import Options
from tinyr1.merge.method import as_rows, borders
from tinyr1.merge.methods import build
from tinyr1.merge.reader import Checkpoint

STEP_COLUMNS = ["model", "other", "base", "tensor", "regime", "threshold", "differing", "entries"]


def options(cfg: Config) -> Options:
    """The run's settings; merging uses a GPU where there is one."""
    settings = cfg.params.merge
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Options(reading=settings.reading, iqr_multiplier=settings.iqr_multiplier, device=device)


def check(cfg: Config) -> None:
    """The methods take the settings of every recipe of the run; UserError lists all recipes they refuse.

    `config.load` cannot tell: the methods need PyTorch, and a params file is read without it.
    """
    chosen, problems = cfg.params.merge, []
    for name, recipe in cfg.merges.items():
        try:
            build(recipe, chosen.reading, chosen.iqr_multiplier)
        except UserError as error:
            problems.append(f"merge.models.{name}: {error}")
    if problems:
        raise UserError("\n".join(problems))


def make(cfg: Config, name: str) -> dict:
    """The merged checkpoint of a run's recipe; kept if it was made from the same branches and settings."""
    recipe, chosen = cfg.merges[name], options(cfg)
    folders = {leaf: cfg.model(leaf) for leaf in recipe.leaves}
    remedy = cfg.remedy("02_branch_sft")
    inputs = {
        "recipe": recipe.model_dump(by_alias=True), **chosen.results(),
        "models": {leaf: artifact.check(path, remedy)["content"] for leaf, path in folders.items()},
    }  # fmt: skip

    def merge(out: Path) -> dict:
        return checkpoint.merge(recipe, folders, out, chosen, name)

    again = cfg.remedy("03_fusion_merge")
    manifest, built = artifact.make(cfg.model(name), inputs, merge, again)
    facts = manifest["facts"] | _fusion_settings(recipe, chosen)
    state = f"merged in {facts['seconds']:.0f} s" if built else "kept"
    say(f"  {name:18s} {facts['order']}, {state}")
    return facts | {"model": name, "merged_now": built}


def _fusion_settings(recipe: Recipe, chosen: Options) -> dict:
    """The readings and λ that a recipe's fusion steps use, one or a list; None for both where it has none."""
    steps = list(_fusion_steps(recipe))
    used = {
        "reading": {s.reading or chosen.reading for s in steps},
        "iqr_multiplier": {chosen.iqr_multiplier if s.iqr_multiplier is None else s.iqr_multiplier for s in steps},
    }
    return {k: min(v, default=None) if len(v) < 2 else ", ".join(map(str, sorted(v))) for k, v in used.items()}


def _fusion_steps(recipe: Recipe) -> Iterator[Recipe]:
    if recipe.method == "fusion":
        yield recipe
    for part in recipe.parts:
        if isinstance(part, Recipe):
            yield from _fusion_steps(part)


def statistics(folder: Path) -> pd.DataFrame:
    """Per-tensor statistics of a merged checkpoint: tensor, method, base, right, and those of the method."""
    return pd.DataFrame(jsonl.read(folder / checkpoint.STATISTICS))


def fusion_tables(cfg: Config) -> dict[str, pd.DataFrame]:
    """`statistics` of the fusion steps of every merged model that has any, by model name."""
    tables = {name: statistics(cfg.model(name)) for name in cfg.merges}
    tables = {name: table[table.method == "fusion"] for name, table in tables.items() if len(table)}
    return {name: table for name, table in tables.items() if len(table)}


def facts_table(facts: list[dict]) -> pd.DataFrame:
    """One row for each merged model: order (base last), reading and λ of its fusion steps, parameters, seconds."""
    columns = ["model", "order", "reading", "iqr_multiplier", "parameters", "seconds"]
    table = pd.DataFrame(facts)[columns].set_index("model")
    return table.where(table.notna(), "–")


def summary(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Each fusion step over all tensors, weighted by entries; shares are fractions."""
    rows = []
    for name, table in tables.items():
        for (other, base), step in table.groupby(["other", "base"], sort=False):
            differing = step.differing.sum()
            rows.append({
                "model": name, "other": other, "base": base,
                "weights that differ": differing / step.entries.sum(),
                "taken, of those": step.selected.sum() / max(1, differing),
                "tensors with threshold 0": step.threshold.le(0).mean(),
                "rows with KL < 0": step.negative_rows.sum() / max(1, step.rows.sum()),
            })  # fmt: skip
    columns = ["model", "other", "base"]
    return (pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)).set_index("model").round(3)


def regimes(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Tensors by what fusion did to them, for each step; `everything` and `nothing` are the degenerate regimes."""
    return _joined(tables).pivot_table(
        index=["model", "other", "base"], columns="regime", values="tensor", aggfunc="count", fill_value=0, sort=False
    )


def degenerate(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The tensors of which fusion took everything or nothing, named: model, right, base, tensor, regime, threshold."""
    joined = _joined(tables)
    return joined[joined.regime.isin(["everything", "nothing"])][STEP_COLUMNS].reset_index(drop=True)


def _joined(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The tables below each other, with the model as a column; a run may have no fusion step at all."""
    parts = [table.assign(model=name) for name, table in tables.items()]
    return pd.concat(parts) if parts else pd.DataFrame(columns=STEP_COLUMNS)


def all_finite(folder: Path) -> bool:
    """Whether every floating-point tensor of a checkpoint is finite."""
    opened = Checkpoint(folder).open()
    try:
        return all(
            bool(opened.rows(name, *place).isfinite().all())
            for name, stored in opened.tensors.items()
            if stored.dtype.is_floating_point
            for place in borders(as_rows(stored.shape))
        )
    finally:
        opened.close()
