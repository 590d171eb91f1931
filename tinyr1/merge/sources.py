"""A check of what stacks bring together and of numbers that vary, tensor by tensor, before a byte of weights is read.

What holds for every tensor alike is checked once: the models by `checks.check`, constant numbers by `methods.check`.
"""

from tinyr1.core.errors import UserError
from tinyr1.core.recipe import Recipe, describe
from tinyr1.merge.engine import MergeOptions, result_tensors
from tinyr1.merge.layers import Layers, Source, StepTensor, layers_of
from tinyr1.merge.methods import build
from tinyr1.merge.reader import Checkpoint


def check_sources(recipe: Recipe, models: dict[str, Checkpoint], options: MergeOptions) -> None:
    """UserError where the tensors that make one of the result differ, or a method refuses a number that varies."""
    if not recipe.stacks and not any(step.varies for step in recipe.steps):
        return
    layers = layers_of(recipe, models)
    _check_complete(recipe, models, layers)
    for name in result_tensors(recipe, models):
        source = layers.source(recipe, name)
        _check_alike(name, source, models, options)
        for step in source.steps if isinstance(source, StepTensor) else ():
            try:
                build(step.recipe, options.reading, options.iqr_multiplier)
            except UserError as error:
                raise UserError(f"{name}: {error}") from error


def _check_complete(recipe: Recipe, models: dict[str, Checkpoint], layers: Layers) -> None:
    """UserError where the layers that a step merges do not all have the same tensors."""
    own = {name: model.tensors for name, model in models.items()}
    for step in recipe.steps if recipe.stacks else ():
        if step.method == "stack":
            continue
        names = [layers.names(part, own) for part in step.parts]
        for part, here in zip(step.parts, names, strict=True):
            absent = sorted(name for name in set.union(*names) - here if not layers.is_below(name, 0))
            if absent:
                raise UserError(f"{describe(step)}: {describe(part)} has no {absent[0]}; choose other layers")


def _check_alike(name: str, source: Source, models: dict[str, Checkpoint], options: MergeOptions) -> None:
    """UserError unless the tensors have one shape, and one dtype where they are not converted to one."""
    first, *others = source.leaves
    main = models[first.model].tensors[first.name]
    for other in others:
        stored = models[other.model].tensors[other.name]
        if stored.shape != main.shape or (stored.dtype != main.dtype and options.dtype is None):
            kinds = [f"{list(one.shape)} in {one.dtype}" for one in (stored, main)]
            raise UserError(
                f"{name}: {other.name} of {other.model} is {kinds[0]}, {first.name} of {first.model} is {kinds[1]}; "
                "layers of one kind can be merged, choose others"
            )
