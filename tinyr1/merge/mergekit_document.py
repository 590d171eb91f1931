"""One document of a mergekit configuration as a step of a recipe.

    models: [a, b]                                              a step over the models a and b
    slices: [{sources: [{model: a, layer_range: [0, 2]}, …]}]   a step over a[0:2] and …; several slices are stacked
    slices: [{sources: [{model: a, layer_range: [0, 2]}]}, …]   of passthrough without a scale: the layers, no step

    a number: parameters of the source, else of the slice, else of the document; a list of filters goes on with the next
    of them where none of its filters fits

What no step can hold is refused by its name and its place. mergekit passes over keys that it does not know, and merges
with its defaults.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinyr1.core.errors import UserError
from tinyr1.core.recipe import TAKES, Input, Recipe, parse
from tinyr1.merge.mergekit_values import (
    Data,
    entries,
    kind_of,
    layer_range,
    listed,
    mapping,
    model_text,
    parameters_of,
)

FUSION, PASSTHROUGH = "arcee_fusion", "passthrough"
OURS = {"noise", "stack"}  # methods that mergekit does not have
NO_PARAMETERS = {"base", "other", "models", "reading", "iqr_multiplier", "mask", "seed", "layers"}
KEYS = (
    "name", "merge_method", "models", "slices", "base_model", "parameters", "dtype", "out_dtype", "tokenizer_source",
    "tokenizer", "chat_template", "random_seed",
)  # fmt: skip
# Settings of mergekit's engine, which people also write into configurations. They change no number of the result.
ENGINE = {
    "int8_mask", "lazy_unpickle", "low_cpu_memory", "read_to_gpu", "cuda", "multi_gpu", "clone_tensors", "quiet",
    "num_threads", "async_write", "write_threads",
}  # fmt: skip
# Methods of mergekit 0.1.5 that the kit does not have.
MISSING = {"ram": "Reinforced Agent Merging", "ramplus_tl": "Reinforced Agent Merging Plus"}
# What mergekit takes where no number is given; a model without a weight is an error there.
DEFAULTS = {
    "density": 1.0, "gamma": 0.01, "epsilon": 0.15, "lambda": 1.0, "scale": 1.0, "select_topk": 1.0, "eps": 1e-8,
    "tol": 1e-5,
}  # fmt: skip


@dataclass(frozen=True)
class _Source:
    """A model of a slice. layers: its layer_range; None for all. where: its place in the file."""

    model: str
    layers: list[int] | None
    parameters: Data
    where: str


@dataclass(frozen=True)
class _Slice:
    """What makes some layers of the result. parameters: (place, parameters) of the slice, then of the document."""

    sources: list[_Source]
    base: str | None
    parameters: list[tuple[str, Data]]
    where: str


class Document:
    """One document. where: how errors call it. part: the step or model that the text of a model stands for."""

    def __init__(self, data: Data, where: str, part: Callable[[str], str | Recipe]) -> None:
        self.data, self.where, self.part = data, where, part
        self.called = _known_method(data.get("merge_method"), where)
        self.method = "fusion" if self.called == FUSION else self.called
        takes, of_models = TAKES[self.method]
        self.shared, self.own = sorted(takes - NO_PARAMETERS), sorted(of_models - NO_PARAMETERS)
        self._check_keys()

    def recipe(self) -> Recipe:
        """The step that the document describes. UserError for what has no counterpart."""
        found = [self._entry(one) for one in self._slices()]
        step = found[0]["model"]
        if len(found) == 1 and "layers" not in found[0] and isinstance(step, Recipe):
            return step
        return parse({"method": "stack", "models": found}, self.where)

    def _check_keys(self) -> None:
        for key in self.data:
            if key == "modules":
                raise UserError(f"{self.where}: modules: parts of a model are not merged apart from each other; give "
                                "`models` or `slices` for all of it")  # fmt: skip
            if key in (*self.shared, *self.own):
                raise UserError(f"{self.where}: {key}: nothing reads it here; put it under `parameters`")
            if key not in KEYS and key not in ENGINE:
                raise UserError(f"{self.where}: {key}: unknown key; remove it or correct its spelling; known: "
                                f"{', '.join(KEYS)}")  # fmt: skip
        seed = self.data.get("random_seed")
        if seed is not None and type(seed) is not int:
            raise UserError(f"{self.where}: random_seed: {seed!r} is not a whole number")

    # --- models and slices ---

    def _slices(self) -> list[_Slice]:
        models, slices = self.data.get("models"), self.data.get("slices")
        if (models is None) == (slices is None):
            raise UserError(f"{self.where}: give either `models` or `slices`")
        base = self.data.get("base_model")
        base = None if base is None else model_text(base, f"{self.where}: base_model")
        parameters = parameters_of(self.data, f"{self.where}: ")
        if slices is None:
            sources = [self._source(one, place, False) for one, place in listed(models, f"{self.where}: models")]
            return [_Slice(sources, base, [parameters], self.where)]
        return [self._slice(one, place, base, parameters) for one, place in listed(slices, f"{self.where}: slices")]

    def _slice(self, entry: object, where: str, base: str | None, parameters: tuple[str, Data]) -> _Slice:
        data = mapping(entry, where)
        for key in data:
            if key not in ("sources", "base_model", "parameters"):
                raise UserError(f"{where}.{key}: nothing reads it; a slice has sources, base_model and parameters")
        if data.get("base_model") is not None:
            base = model_text(data["base_model"], f"{where}.base_model")
        sources = [self._source(one, place, True) for one, place in listed(data.get("sources"), f"{where}.sources")]
        lengths = sorted({one.layers[1] - one.layers[0] for one in sources if one.layers})
        if len(lengths) > 1:
            raise UserError(f"{where}: its sources have {' and '.join(map(str, lengths))} layers; give as many of each")
        return _Slice(sources, base, [parameters_of(data, f"{where}."), parameters], where)

    def _source(self, entry: object, where: str, in_slice: bool) -> _Source:
        """An entry of `models`, or of the sources of a slice."""
        data = {"model": entry} if isinstance(entry, str) and not in_slice else mapping(entry, where)
        for key in data:
            if key in (*self.shared, *self.own):
                raise UserError(f"{where}.{key}: nothing reads it here; put it under `parameters` of this model")
            if key == "layer_range" and not in_slice:
                raise UserError(f"{where}.layer_range: only slices take layers; list the models as sources of one")
            if key not in ("model", "parameters", "layer_range"):
                raise UserError(f"{where}.{key}: nothing reads it; remove it or correct its spelling")
        model = model_text(data.get("model"), f"{where}.model")
        layers = layer_range(data.get("layer_range"), f"{where}.layer_range") if in_slice else None
        return _Source(model, layers, parameters_of(data, f"{where}.")[1], where)

    # --- steps ---

    def _entry(self, one: _Slice) -> Data:
        """A slice as an entry of a stack: a step, or layers that pass through."""
        models = [source.model for source in one.sources]
        if twice := [model for model in models if models.count(model) > 1]:
            raise UserError(f"{one.where}: {twice[0]} is there twice; list each model once")
        first = one.sources[0]
        scaled = any("scale" in given for given in (first.parameters, *(given for _, given in one.parameters)))
        if self.method == PASSTHROUGH and len(models) > 1:
            raise UserError(f"{one.where}: passthrough takes one model, found {len(models)}")
        if self.method == PASSTHROUGH and first.layers is not None and not scaled:
            self._check_source(first, self.own)
            self._check_shared(one, self.own)
            return {"model": self.part(first.model), "layers": first.layers}
        return {"model": parse(self._step(one), one.where)}

    def _step(self, one: _Slice) -> Data:
        """A slice as data of a merge step."""
        takes = TAKES[self.method][0]
        self._check_shared(one, [*self.shared, *self.own])
        data: Data = {"method": self.method}
        others = one.sources
        if "base" in takes and one.base is not None:
            data["base"] = self._base(one, one.base)
            others = [source for source in one.sources if source.model != one.base]
        elif one.base is not None:
            others = self._with_base(one, one.base)
        data |= {key: self._value(key, Recipe, one.parameters) for key in self.shared}
        if "other" in takes:
            if len(others) != 1:
                count = len(others)
                raise UserError(f"{one.where}: {self.called} merges a base_model with one other model, found {count}")
            self._check_source(others[0], [])
            data["other"] = self._layers(others[0])
        else:
            data["models"] = self._inputs(others, one)
        if "seed" in takes and self.method != "fusion":
            data["seed"] = self.data.get("random_seed")
        return {key: value for key, value in data.items() if value is not None}

    def _base(self, one: _Slice, base: str) -> str | Recipe:
        """The base of a step. mergekit adds it to `models`, but not to the sources of a slice."""
        source = next((source for source in one.sources if source.model == base), None)
        if source is not None:
            self._check_source(source, [], "the base")
            return self._layers(source)
        if one.sources[0].layers:
            raise UserError(f"{one.where}: base_model {base} is not among the sources; add it with its layer_range")
        return self.part(base)

    def _with_base(self, one: _Slice, base: str) -> list[_Source]:
        """The models of a method without a base: mergekit merges a base_model that `models` does not list, too."""
        if one.sources[0].layers or any(source.model == base for source in one.sources):
            return one.sources
        if "weight" in self.own and not any("weight" in given for _, given in one.parameters):
            raise UserError(
                f"{self.where}: base_model {base} is not one of the models; mergekit merges it, too, and no weight is "
                "given for it; list it in models with a weight, or remove base_model (tokenizer_source can name it)"
            )
        return [*one.sources, _Source(base, None, {}, f"{self.where}: base_model")]

    def _layers(self, source: _Source) -> str | Recipe:
        """A model, or those of its layers that a slice takes."""
        part = self.part(source.model)
        if source.layers is None:
            return part
        return parse({"method": "stack", "models": [{"model": part, "layers": source.layers}]}, source.where)

    def _inputs(self, sources: list[_Source], one: _Slice) -> list[Data]:
        """The models of a step with their numbers. Those that some models give, all get: the others mergekit's."""
        inputs: list[Data] = []
        for source in sources:
            self._check_source(source, self.own)
            scopes = [(f"{source.where}.parameters", source.parameters), *one.parameters]
            numbers = {key: self._value(key, Input, scopes) for key in self.own}
            inputs.append({"model": self._layers(source), **numbers})
        given = {key for key in self.own for each in inputs if each[key] is not None}
        for source, each in zip(sources, inputs, strict=True):
            if "weight" in given and each["weight"] is None:
                raise UserError(f"{source.where}: weight: {source.model} has none and another model has one; give each "
                                "a weight")  # fmt: skip
        defaults = {key: DEFAULTS[key] for key in given if key in DEFAULTS}
        return [defaults | {k: v for k, v in each.items() if v is not None} for each in inputs]

    # --- parameters ---

    def _check_source(self, source: _Source, read: list[str], called: str = "a model") -> None:
        """UserError for a parameter of a model that its method does not read."""
        for key in source.parameters:
            if key in read or key in ENGINE:
                continue
            place = f"{source.where}.parameters: {key}: {called} of {self.called} does not read it"
            if key in self.shared:
                raise UserError(f"{place}; it is one number for all models: put it under `parameters` of the document")
            raise UserError(f"{place}; remove it" + (f", or give {', '.join(read)}" if read else ""))

    def _check_shared(self, one: _Slice, read: list[str]) -> None:
        """UserError for a parameter of a slice or of the document that its method does not read."""
        for where, parameters in one.parameters:
            for key in parameters:
                if key not in read and key not in ENGINE:
                    given = f", or give {', '.join(read)}" if read else ""
                    raise UserError(f"{where}: {key}: {self.called} does not read it; remove it{given}")

    def _value(self, key: str, block: type[Recipe] | type[Input], scopes: list[tuple[str, Data]]) -> Any:
        """A parameter from the first of the places that give it; None where none does."""
        found: list[Data] = []
        for where, parameters in scopes:
            if parameters.get(key) is not None:
                found += entries(parameters[key], f"{where}: {key}", kind_of(block, key))
                if found[-1]["filter"] is None:
                    break
        if not found:
            return None
        if found[-1]["filter"] is not None:
            if key not in DEFAULTS:
                raise UserError(f"{scopes[0][0]}: {key}: a tensor that no filter takes has no number; end the list "
                                "with `- value: …`")  # fmt: skip
            found.append({"filter": None, "value": DEFAULTS[key]})
        return found[0]["value"] if len(found) == 1 else found


def _known_method(method: object, where: str) -> str:
    """mergekit's name of a method that has a counterpart."""
    known = [*(name for name in TAKES if name not in OURS), FUSION]
    if isinstance(method, str) and method in MISSING:
        raise UserError(
            f"{where}: merge_method {method} ({MISSING[method]}) is not among the methods of this kit; merge with "
            f"mergekit itself, or choose one of {', '.join(known)}"
        )
    if not isinstance(method, str) or method not in known:
        raise UserError(f"{where}: merge_method {method!r} is not known here; known: {', '.join(known)}")
    return method
