"""Which model of a run plays which part of the paper: the merges are told by their recipes, not by their names."""

from tinyr1.core.config import Config
from tinyr1.core.params.training import MergedModel
from tinyr1.core.recipe import Recipe
from tinyr1.report.statement import (
    BACKBONE,
    EXPERT,
    MERGED,
    MIXTURE,
    OTHER_ORDER,
    TWO_AVERAGED,
    TWO_DARE_LINEAR,
    TWO_DARE_TIES,
    TWO_FUSED,
)

PAIR = {"math", "science"}
TWO = {"linear": TWO_AVERAGED, "dare_linear": TWO_DARE_LINEAR, "dare_ties": TWO_DARE_TIES}
ORDERS = {("math", "science", "code"): MERGED, ("math", "code", "science"): OTHER_ORDER, ("math", "science"): TWO_FUSED}


def models(cfg: Config) -> dict[str, str]:
    """Part of the paper -> name of the run's model that plays it; parts that no model plays are left out."""
    found = {BACKBONE: "backbone"} | {part: domain for domain, part in EXPERT.items() if domain in cfg.domains}
    found |= {f"{part} of Figure 2": name for part, name in found.items() if name in PAIR}
    if cfg.params.mixture:
        found[MIXTURE] = "mixture"
    for name, merged in candidates(cfg).items():
        if part := _part(cfg, merged):
            found.setdefault(part, name)
    return found


def candidates(cfg: Config) -> dict[str, MergedModel]:
    """Every merge of the run and of its ablations, by name; the run's own come first."""
    ablations = cfg.params.ablations
    return cfg.merged_models | (ablations.merges() if ablations else {})


def _part(cfg: Config, merged: MergedModel) -> str | None:
    """The part that a merge plays; None for every other merge, and for one with other settings than the run's."""
    recipe = merged.recipe
    if merged.dtype is not None or any(step.varies for step in recipe.steps):
        return None
    if order := fusion_order(recipe):
        own = {(cfg.params.merge.reading, cfg.params.merge.iqr_multiplier, "importance")}
        return ORDERS.get(order) if settings(cfg, recipe) == own else None
    weights = {(one.weight, one.density) for one in recipe.models or ()}
    return TWO.get(recipe.method) if set(recipe.leaves) - {"backbone"} == PAIR and len(weights) == 1 else None


def settings(cfg: Config, recipe: Recipe) -> set[tuple[str, float, str]]:
    """(reading, λ, mask) of the steps of a fusion, with the run's own where a step gives none."""
    merge = cfg.params.merge
    return {
        (step.reading or merge.reading,
         merge.iqr_multiplier if step.iqr_multiplier is None else step.iqr_multiplier,
         step.mask or "importance")
        for step in recipe.steps
    }  # fmt: skip


def fusion_order(recipe: Recipe) -> tuple[str, ...] | None:
    """Models of a chain of fusion steps in the order in which they are merged; the base of the last step comes last.

    (math & science) & code gives ("math", "science", "code"). Every recipe that is not such a chain gives None.
    """
    if recipe.method != "fusion":
        return None
    base, other = recipe.parts
    before = (other,) if isinstance(other, str) else fusion_order(other)
    return (*before, base) if before and isinstance(base, str) else None
