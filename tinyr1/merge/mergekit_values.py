"""Values in mergekit's configurations: parameters, models, ranges of layers. UserError with its place for each slip.

    0.5 | [0, 1] | {filter: mlp, value: …} | a list of these   --entries-->     [{filter, value}, …]
    path | {path, revision} | {model, lora}                    --model_text-->  path@revision+adapter
"""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from tinyr1.core.errors import UserError
from tinyr1.core.recipe import Input, Recipe

Data = dict[str, Any]


def kind_of(block: type[Recipe] | type[Input], key: str) -> type:
    """bool, int or float: what a parameter of a recipe is."""
    fields: Mapping[str, Any] = {field.alias or name: field for name, field in block.model_fields.items()}
    kinds = (fields[key].annotation, *get_args(fields[key].annotation))
    return next((kind for kind in (bool, int) if kind in kinds), float)


def entries(value: object, where: str, kind: type) -> list[Data]:
    """A setting of mergekit as a list of filters, of which only the last may have none."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not any(isinstance(entry, dict) for entry in value):
        return [{"filter": None, "value": _numbers(value, where, kind)}]
    found: list[Data] = []
    for i, entry in enumerate(value):
        data = mapping(entry, f"{where}.{i}")
        if extra := sorted(data.keys() - {"filter", "value"}):
            raise UserError(f"{where}.{i}: {extra[0]}: nothing reads it; an entry has filter and value")
        text = data.get("filter")
        if text is not None and not isinstance(text, str):
            raise UserError(f"{where}.{i}: filter: {text!r} is not a text")
        number = _numbers(data.get("value"), f"{where}.{i}: value", kind)
        found.append({"filter": None if text in ("*", "") else text, "value": number})
    if early := [i for i, entry in enumerate(found[:-1]) if entry["filter"] is None]:
        raise UserError(f"{where}.{early[0] + 1}: is never reached, the entry before it takes all; put that one last")
    if kind is not float and len(found) > 1:
        raise UserError(f"{where}: differs between tensors; give one value for all")
    return found


def _numbers(value: object, where: str, kind: type) -> Any:
    """A number, or a gradient of some."""
    if not isinstance(value, list):
        return _number(value, where, kind)
    if not value:
        raise UserError(f"{where}: an empty list; give at least one number")
    numbers = [_number(one, where, kind) for one in value]
    if len(numbers) > 1 and kind is not float:
        raise UserError(f"{where}: {value} differs between layers; give one value for all")
    return numbers if len(numbers) > 1 else numbers[0]


def _number(value: object, where: str, kind: type) -> float | bool:
    """One number, or a flag. YAML reads 1e-5 as a text, and 1 is a flag for mergekit."""
    if kind is bool:
        if isinstance(value, bool) or value in (0, 1):
            return bool(value)
        raise UserError(f"{where}: {value!r} is neither true nor false")
    try:
        if isinstance(value, str):
            value = float(value)
    except ValueError as error:
        raise UserError(f"{where}: {value!r} is not a number") from error
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{where}: {value!r} is not a number")
    return int(value) if kind is int and isinstance(value, float) and value.is_integer() else value


def layer_range(value: object, where: str) -> list[int]:
    """The first layer and the one after the last."""
    whole = isinstance(value, list) and len(value) == 2 and all(type(one) is int for one in value)
    if not isinstance(value, list) or not whole or not 0 <= value[0] < value[1]:
        raise UserError(f"{where}: {value!r} is not [first layer, counted from 0, and the one after the last]")
    return value


def model_text(value: object, where: str) -> str:
    """A model as mergekit writes it in one text: path@revision+adapter."""
    if isinstance(value, str) and value:
        return value
    if isinstance(value, dict) and "path" in value:
        if extra := sorted(map(str, value.keys() - {"path", "revision"})):
            raise UserError(f"{where}.{extra[0]}: nothing reads it; a model has path and revision")
        revision = value.get("revision")
        if revision is not None and not isinstance(revision, str):
            raise UserError(f"{where}.revision: {revision!r} is not a text; put it into quotes")
        return f"{model_text(value['path'], f'{where}.path')}{f'@{revision}' if revision else ''}"
    if isinstance(value, dict) and "model" in value:
        if value.get("override_architecture") is not None:
            raise UserError(f"{where}.override_architecture: a model is merged as what its config.json says; remove it")
        if extra := sorted(map(str, value.keys() - {"model", "lora", "override_architecture"})):
            raise UserError(f"{where}.{extra[0]}: nothing reads it; a model has model and lora")
        lora = None if value.get("lora") is None else model_text(value["lora"], f"{where}.lora")
        return model_text(value["model"], f"{where}.model") + (f"+{lora}" if lora else "")
    raise UserError(f"{where}: {value!r} is not the folder of a model")


def parameters_of(data: Data, where: str) -> tuple[str, Data]:
    """(place, parameters) of a document, a slice or a source; where: its place, with what separates it."""
    value = data.get("parameters")
    return f"{where}parameters", {} if value is None else mapping(value, f"{where}parameters")


def mapping(value: object, where: str) -> Data:
    """A mapping; its keys are texts (`params_text`)."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: {value!r} is not a mapping of keys to values")
    return value


def listed(value: object, where: str) -> Iterator[tuple[object, str]]:
    """(entry, its place) of a list that is not empty."""
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: {value!r} is not a list with at least one entry")
    for i, entry in enumerate(value):
        yield entry, f"{where}.{i}"
