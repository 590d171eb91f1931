"""Which tensors of which models make a tensor of the result, where recipes stack layers or vary over them.

    recipe        slerp(a[0:2], b[2:4]) with t: [0, 1]     and `model.layers.1.mlp.up_proj.weight` of its result
                                  | Layers.source
    StepTensor    slerp with t: 1.0
      inputs      a: model.layers.1.mlp.up_proj.weight     b: model.layers.3.mlp.up_proj.weight

Stacks vanish and numbers become constant, so that a step merges tensors and knows nothing of layers. Where a recipe
neither stacks nor has gradients, a tensor has one name in all models and the number of layers is not asked for.

Filters and gradients are those of mergekit: the numbers of a model are chosen by the name that the tensor has in this
model, the other numbers by its name in the result; a gradient runs over the layers of its step.

Nothing here imports torch.
"""

import copy
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinyr1.core.errors import UserError
from tinyr1.core.recipe import Input, Recipe, describe
from tinyr1.core.varying import at, varies

if TYPE_CHECKING:
    from tinyr1.merge.reader import Checkpoint

COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")  # names of config.json for the number of layers
PER_LAYER = ("layer_types", "mlp_layer_types", "layers_block_type", "no_rope_layers")  # lists with an entry for each
EMBEDDINGS = ("wte", "wpe")  # those whose names do not say it
# Keys that tell the kind of a layer by its number, and the rule: dense or experts, a window or none, rotation or none.
_KINDS: dict[str, Callable[[int, Any], bool]] = {
    "mlp_only_layers": lambda layer, listed: layer in listed,
    "first_k_dense_replace": lambda layer, k: layer < k,
    "decoder_sparse_step": lambda layer, step: (layer + 1) % step == 0,
    "sliding_window_pattern": lambda layer, n: (layer + 1) % n == 0,
    "full_attention_interval": lambda layer, n: (layer + 1) % n == 0,
    "no_rope_layer_interval": lambda layer, n: (layer + 1) % n == 0,
    "max_window_layers": lambda layer, n: layer < n,
}
# What some networks mean where their config leaves it out.
_UNSAID = {
    "gemma2": {"sliding_window_pattern": 2}, "gemma3_text": {"sliding_window_pattern": 6},
    "cohere2": {"sliding_window_pattern": 4},
}  # fmt: skip
# Of these `layer_types` is the list.
_OF_ATTENTION = {"sliding_window_pattern", "full_attention_interval", "max_window_layers"}


@dataclass(frozen=True)
class LeafTensor:
    """A tensor of an input model."""

    model: str
    name: str

    @property
    def leaves(self) -> tuple["LeafTensor", ...]:
        return (self,)


@dataclass(frozen=True)
class StepTensor:
    """A merge step for one tensor: its recipe with constant numbers, and its inputs in the order of the parts."""

    recipe: Recipe
    inputs: tuple["StepTensor | LeafTensor", ...]

    @property
    def leaves(self) -> tuple[LeafTensor, ...]:
        """The tensors of models from which it is made, the base first."""
        return tuple(leaf for part in self.inputs for leaf in part.leaves)

    @property
    def steps(self) -> tuple["StepTensor", ...]:
        """This step and those inside it."""
        return (self, *(s for part in self.inputs if isinstance(part, StepTensor) for s in part.steps))


Source = StepTensor | LeafTensor


@dataclass(frozen=True)
class Layers:
    """The layers of the models of a recipe.

    prefix: how the names of their tensors begin, up to the number of the layer, such as `model.layers.`; None where the
    recipe does not ask for layers. counts: model -> its number of layers.
    """

    prefix: str | None
    counts: Mapping[str, int]

    def source(self, recipe: "Recipe | str", name: str) -> Source:
        """What makes the tensor `name` of a recipe's result."""
        return self._source(recipe, name, None)

    def names(self, recipe: "Recipe | str", own: Mapping[str, Iterable[str]]) -> set[str]:
        """Names of the tensors of a result, without those that some of the models of a step lack.

        own: model -> names of its tensors.
        """
        if isinstance(recipe, str):
            return set(own[recipe])
        if recipe.method != "stack":
            return set.intersection(*(self.names(part, own) for part in recipe.parts))
        return self._stacked(recipe.models or [], own)

    def count(self, recipe: "Recipe | str") -> int:
        """The number of layers of a result. UserError where the models of a step differ, or lack layers of a stack."""
        if isinstance(recipe, str):
            return self.counts[recipe]
        if recipe.method == "stack":
            return sum(last - first for first, last in map(self._range, recipe.models or ()))
        first, *others = recipe.parts
        for part in others:
            if self.count(part) != self.count(first):
                raise UserError(
                    f"{describe(recipe)}: {describe(first)} has {self.count(first)} layers, {describe(part)} has "
                    f"{self.count(part)}; one step merges models of as many layers, take some with `layers`"
                )
        return self.count(first)

    def config(self, recipe: Recipe, configs: Mapping[str, dict], content: dict) -> dict:
        """config.json of the result. configs: model -> its config.json; content: that of the main model."""
        if not recipe.stacks:
            return content
        count = self.count(recipe)
        leaves = [self.source(recipe, f"{self.prefix}{i}.").leaves[0] for i in range(count)]
        lists = {}
        for key in PER_LAYER:
            if isinstance(_decoder(content).get(key), list):
                lists[key] = [_decoder(configs[leaf.model])[key][self._number(leaf.name)] for leaf in leaves]
        for layer, leaf in enumerate(leaves):
            self._check_kind(layer, leaf, _decoder(configs[leaf.model]), _decoder(content), lists.keys())
        return _with_layers(content, count, lists)

    def _check_kind(
        self, layer: int, leaf: LeafTensor, config: dict, of_result: dict, known: Collection[str]
    ) -> None:  # fmt: skip
        """UserError where config.json tells the kind of a layer by its number, and tells another one of the place that
        a layer gets. known: the lists that the result has, which say it for each layer."""
        own = self._number(leaf.name) or 0
        config, of_result = (_UNSAID.get(one.get("model_type", ""), {}) | one for one in (config, of_result))
        for key, kind in _KINDS.items():
            if key in _OF_ATTENTION and ("layer_types" in known or config.get("use_sliding_window") is False):
                continue
            before, after = (
                kind(number, value) if (value := one.get(key)) else None
                for number, one in ((own, config), (layer, of_result))
            )
            if before != after:
                raise UserError(
                    f"layer {layer} of the result is layer {own} of {leaf.model}, and config.json tells by {key}: "
                    f"{config.get(key)!r} and the number of a layer of which kind it is: the result would be read as "
                    "another network; take layers that keep their kind, or write the kinds as a list (layer_types)"
                )

    def is_below(self, name: str, layer: int) -> bool:
        """Whether a tensor lies below a layer, or outside of the layers."""
        number = self._number(name)
        return number is None or number < layer

    def _source(self, part: "Recipe | str", name: str, called: str | None) -> Source:
        """called: the tensor's name in the whole stack, for a step that makes some of its layers."""
        if isinstance(part, str):
            return LeafTensor(part, name)
        if part.method == "stack":
            entry, there = self._entry(part, name)
            return self._source(entry.model, there, (called or name) if entry.layers is None else None)
        inputs = tuple(self._source(inner, name, None) for inner in part.parts)
        return StepTensor(self._constant(part, name, called or name), inputs)

    def _constant(self, step: Recipe, name: str, called: str) -> Recipe:
        """A step with its numbers for one tensor. name: the tensor's among the layers of this step."""
        if not step.varies:
            return step
        depth = self._depth(step, name)
        own: dict[str, Any] = _numbers(step, called, depth)
        if step.models:
            places = [self._place(one.model, name) for one in step.models]
            pairs = zip(step.models, places, strict=True)
            own["models"] = [one.model_copy(update=_numbers(one, place, depth)) for one, place in pairs]
        return step.model_copy(update=own)

    def _place(self, part: "Recipe | str", name: str) -> str:
        """The name of a tensor in the model that a part takes it from."""
        while isinstance(part, Recipe) and part.method == "stack":
            entry, name = self._entry(part, name)
            part = entry.model
        return name

    def _entry(self, stack: Recipe, name: str) -> tuple[Input, str]:
        """The entry of a stack that a tensor comes from, and the tensor's name in its model."""
        entries = stack.models or []
        number = self._number(name)
        if number is None:
            return entries[0] if _is_before(name) else entries[-1], name
        rest = name.removeprefix(f"{self.prefix}{number}")
        for entry in entries:
            first, last = self._range(entry)
            if number < last - first:
                return entry, f"{self.prefix}{first + number}{rest}"
            number -= last - first
        raise AssertionError(f"{name}: above the layers of {describe(stack)}")

    def _stacked(self, entries: list[Input], own: Mapping[str, Iterable[str]]) -> set[str]:
        found: set[str] = set()
        below = 0
        for i, entry in enumerate(entries):
            first, last = self._range(entry)
            for name in self.names(entry.model, own):
                number = self._number(name)
                if number is None:
                    found |= {name} if i == (0 if _is_before(name) else len(entries) - 1) else set()
                elif first <= number < last:
                    found.add(f"{self.prefix}{number - first + below}{name.removeprefix(f'{self.prefix}{number}')}")
            below += last - first
        return found

    def _range(self, entry: Input) -> tuple[int, int]:
        """The first layer of an entry of a stack and the one after the last."""
        count = self.count(entry.model)
        first, last = entry.layers or (0, count)
        if last > count:
            raise UserError(f"layers {entry.layers} of {describe(entry.model)}: it has {count} layers, counted from 0")
        return first, last

    def _depth(self, step: Recipe, name: str) -> float:
        """0 in the first layer of a step, 1 in the last and in an only one, 0 outside of the layers."""
        number = self._number(name)
        if number is None:
            return 0.0
        last = self.count(step) - 1
        return number / last if last else 1.0

    def _number(self, name: str) -> int | None:
        """The layer of a tensor; None outside of the layers."""
        if self.prefix is None or not name.startswith(self.prefix):
            return None
        number = name.removeprefix(self.prefix).split(".")[0]
        return int(number) if number.isdecimal() else None


def layers_of(recipe: Recipe, models: "Mapping[str, Checkpoint]") -> Layers:
    """The layers of the models, if the recipe asks for them.

    UserError where config.json and the names of tensors do not tell them, or the recipe does not fit to them.
    """
    if not recipe.counts_layers:
        return Layers(None, {})
    found = {name: _found(name, model) for name, model in models.items()}
    (first, (prefix, _)), *others = found.items()
    for name, (other, _) in others:
        if other != prefix:
            raise UserError(f"{name} calls its layers {other}…, {first} calls them {prefix}…; they cannot be merged")
    layers = Layers(prefix, {name: count for name, (_, count) in found.items()})
    layers.count(recipe)
    return layers


def _found(name: str, model: "Checkpoint") -> tuple[str, int]:
    """(how the names of its layers begin, number of layers) of a model."""
    count = next((value for key in COUNTS if (value := _decoder(model.config).get(key)) is not None), None)
    if not isinstance(count, int):
        raise UserError(f"{model.folder / 'config.json'}: no number of layers ({', '.join(COUNTS)}); a recipe that "
                        "stacks layers or varies over them needs it")  # fmt: skip
    numbers: dict[str, set[int]] = {}
    for tensor in model.tensors:
        parts = tensor.split(".")
        place = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
        if place is not None:
            numbers.setdefault(".".join(parts[:place]) + ".", set()).add(int(parts[place]))
    stacks = sorted(prefix for prefix, found in numbers.items() if len(found) > 1 or found == set(range(count)))
    if len(stacks) != 1 or numbers[stacks[0]] != set(range(count)):
        here = ", ".join(f"{prefix}… with {len(numbers[prefix])}" for prefix in stacks) or "none"
        raise UserError(
            f"{name}: config.json says {count} layers, the weights have {here}; a recipe that stacks layers or varies "
            "over them takes models with one stack of layers, all of which are there"
        )
    return stacks[0], count


def _decoder(config: dict) -> dict:
    """The part of a config that describes the language model; models that see have it in text_config."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) and not any(key in config for key in COUNTS) else config


def _is_before(name: str) -> bool:
    """Whether a tensor outside of the layers comes before them: embeddings do, the last norm and the head do not."""
    parts = name.split(".")
    return any("embed" in part or part in EMBEDDINGS for part in parts) and "embed_out" not in parts


def _numbers(block: Recipe | Input, name: str, depth: float) -> dict[str, float]:
    """The numbers of a block that vary, for one tensor."""
    values = {key: getattr(block, key) for key in type(block).model_fields if key not in ("models", "layers")}
    return {key: at(value, name, depth) for key, value in values.items() if varies(value)}


def comparable(recipe: Recipe, models: "Mapping[str, Checkpoint]") -> "dict[str, Checkpoint]":
    """The models as they can be compared with each other: where a recipe stacks layers, the layers that all have."""
    if not recipe.stacks:
        return dict(models)
    layers = layers_of(recipe, models)
    common = min(layers.counts.values())
    views = {}
    for name, model in models.items():
        view = views[name] = copy.copy(model)  # it reads through the same files
        lists = {key: value[:common] for key in PER_LAYER if isinstance(value := _decoder(model.config).get(key), list)}
        view.config = _with_layers(model.config, common, lists)
        view.tensors = {n: stored for n, stored in model.tensors.items() if layers.is_below(n, common)}
    return views


def _with_layers(config: dict, count: int, lists: dict[str, list]) -> dict:
    """A config with another number of layers, and with these lists of what differs between them."""
    decoder = _decoder(config)
    changed = decoder | {key: count for key in COUNTS if key in decoder} | lists
    return changed if decoder is config else config | {"text_config": changed}
