"""The merge methods: a step of a recipe becomes an object that merges the blocks of a tensor (`method.Method`).

    task_vectors   task_arithmetic                             read this first
    sparse         ties, dare_*, della*, breadcrumbs*          task arithmetic with pruned differences
    averages       linear, slerp                               without differences to a base
    spheres        nuslerp, multislerp                         directions, of models or of differences
    karcher        karcher                                     the mean direction of models
    consensus      sce, model_stock                            weights from how much the models agree
    entrywise      nearswap, passthrough                       one entry at a time
    placebo        noise, and controls of Arcee Fusion, which is in `tinyr1.merge.fusion`

METHODS has the names that mergekit gives the methods, and `noise`. Of the methods of mergekit 0.1.5 `ram` and
`ramplus_tl` are missing here. A new method also needs its keys in `TAKES` and its name in `MethodName` of
`tinyr1.core.recipe`.
Tensors come in and go out in one dtype and are rounded where mergekit 0.1.5 rounds them, so that both give the same
bits where a method is deterministic. `weight` has one number per model; a base is the first tensor and has none.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from tinyr1.core.errors import UserError
from tinyr1.core.recipe import BASE_OPTIONAL, PARTS, PLACEBOS, TAKES, Recipe, describe
from tinyr1.merge.fusion_blocks import Fusion
from tinyr1.merge.method import Method
from tinyr1.merge.methods.averages import Linear, Slerp
from tinyr1.merge.methods.consensus import ModelStock, Sce
from tinyr1.merge.methods.entrywise import Nearswap, Passthrough
from tinyr1.merge.methods.karcher import Karcher
from tinyr1.merge.methods.placebo import Noise, Placebo
from tinyr1.merge.methods.sparse import Breadcrumbs, BreadcrumbsTies, DareLinear, DareTies, Della, DellaLinear, Ties
from tinyr1.merge.methods.spheres import Multislerp, Nuslerp
from tinyr1.merge.methods.task_vectors import TaskArithmetic

METHODS: dict[str, type[Method]] = {
    "linear": Linear,
    "slerp": Slerp,
    "task_arithmetic": TaskArithmetic,
    "ties": Ties,
    "dare_linear": DareLinear,
    "dare_ties": DareTies,
    "della_linear": DellaLinear,
    "della": Della,
    "breadcrumbs": Breadcrumbs,
    "breadcrumbs_ties": BreadcrumbsTies,
    "nuslerp": Nuslerp,
    "multislerp": Multislerp,
    "karcher": Karcher,
    "sce": Sce,
    "model_stock": ModelStock,
    "nearswap": Nearswap,
    "passthrough": Passthrough,
    "noise": Noise,
}


def build(recipe: Recipe, reading: str, iqr_multiplier: float) -> Method:
    """The method of the outermost step; reading and iqr_multiplier are for fusion steps that name none.

    Inner steps are checked too, see `check`. UserError for settings that a method refuses.
    """
    for part in recipe.parts:
        if isinstance(part, Recipe):
            check(part, reading, iqr_multiplier)
    return _method(recipe, reading, iqr_multiplier)


def check(recipe: Recipe, reading: str, iqr_multiplier: float) -> None:
    """UserError for settings of a step, or of the steps inside it, that their methods refuse.

    Numbers that vary are checked when they are known, by `build` for each tensor.
    """
    for step in recipe.steps:
        if step.method != "stack" and not step.varies:
            _method(step, reading, iqr_multiplier)


def _method(recipe: Recipe, reading: str, iqr_multiplier: float) -> Method:
    make: Callable[[], Method]
    if recipe.method == "fusion":
        own = recipe.iqr_multiplier
        chosen = recipe.reading or reading, iqr_multiplier if own is None else own
        make = partial(Fusion, *chosen)
        if recipe.mask in PLACEBOS:
            make = partial(Placebo, *chosen, mask=recipe.mask, seed=recipe.seed or 0, step=describe(recipe))
    elif recipe.method == "noise":
        make = partial(Noise, seed=recipe.seed or 0, step=describe(recipe))
    else:
        make = partial(METHODS[recipe.method], **_settings(recipe))
    try:
        return make()
    except ValueError as error:  # raised by the checks of the method's own parameters
        raise UserError(f"{recipe.method}: {error}") from error


def _settings(recipe: Recipe) -> dict[str, Any]:
    """The parameters of a step that are given, by the names that its method has for them."""
    takes, model_takes = TAKES[recipe.method]
    names = [name for name, field in Recipe.model_fields.items() if (field.alias or name) in takes - PARTS]
    settings = {name: value for name in names if (value := getattr(recipe, name)) is not None}
    if "models" in takes and "weight" not in model_takes:  # the others count their weights
        settings["models"] = len(recipe.models or ())
    if recipe.method in BASE_OPTIONAL:
        settings["has_base"] = recipe.base is not None
    for key in model_takes:
        values = tuple(getattr(one, key) for one in recipe.models or ())
        if all(v is None for v in values):
            continue
        if None in values:
            some = f"{recipe.method}: models: {key} is given for some models only"
            raise UserError(f"{some}; give it for all or for none")
        settings[key] = values
    return settings
