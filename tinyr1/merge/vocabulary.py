"""Embeddings and heads of models with different vocabularies, brought to the rows of one vocabulary.

    tokenizer.json of each model --tokens_of--> token -> row
    tokens of the result: those of the base, of another model, or of all (union)
      -- for each token: row in each model, -1 where it lacks the token --> Plan
    rows of the result in one model  <-- Resized -- own rows; where it lacks a token: the row of the model that has it

A token that several models have and one lacks gets the row of the base of the merge, or, without a base, the mean of
those that have it; this is mergekit's rule. Rows are gathered block by block, and no embedding is in memory as a whole.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinyr1.core.checkpoints import read_object
from tinyr1.core.errors import UserError
from tinyr1.merge.configs import EMBEDDINGS, HEADS, OTHER_HEADS, ending
from tinyr1.merge.reader import Checkpoint, StoredTensor

MEAN, ZERO = -1, -2  # donors of a row beside the models, which are counted from 0
BASE, UNION = "base", "union"  # tokenizer sources beside the names of models
PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}


def tokens_of(folder: Path) -> dict[str, int] | None:
    """Token -> id of a checkpoint with its added tokens; None where no file says it. UserError for a damaged file."""
    data = read_object(folder / "tokenizer.json")
    if data is None:
        vocabulary = read_object(folder / "vocab.json")
        return None if vocabulary is None else vocabulary | (read_object(folder / "added_tokens.json") or {})
    try:
        listed = data["model"]["vocab"]
        if isinstance(listed, list):  # (token, score) by id
            listed = {token: i for i, (token, _) in enumerate(listed)}
        tokens = {**listed, **{entry["content"]: entry["id"] for entry in data.get("added_tokens") or ()}}
    except (KeyError, TypeError, ValueError) as error:
        file = folder / "tokenizer.json"
        raise UserError(f"{file}: does not list tokens with ids; fetch or write it again") from error
    if not all(isinstance(i, int) and i >= 0 for i in tokens.values()):
        raise UserError(f"{folder / 'tokenizer.json'}: an id that is no whole number; fetch or write it again")
    return tokens


@dataclass(frozen=True)
class Plan:
    """Where the rows of the result are in each model.

    places: (models, rows) int64, the row in each model, -1 where it has none. donors: (rows,) int64, the model that
    gives its row to those that have none, or MEAN or ZERO.
    """

    places: np.ndarray
    donors: np.ndarray

    @property
    def rows(self) -> int:
        return self.places.shape[1]

    def changes(self, model: int, size: int) -> bool:
        """Whether a model with so many rows has to be changed."""
        return size != self.rows or bool((self.places[model] != np.arange(size)).any())

    def window(self, model: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """(model or MEAN or ZERO, row in it), int64 each, of rows first to last - 1 of the result for one model."""
        own = self.places[model, first:last]
        source = np.where(own >= 0, model, self.donors[first:last])
        given = self.places[np.maximum(source, 0), np.arange(first, last)]
        return source, np.where(source >= 0, given, -1)


def plan_for(tokens: Mapping[str, int], vocabularies: list[dict[str, int]], sizes: list[int], base: int | None) -> Plan:
    """The plan for a vocabulary. sizes: rows of each model; a token at or beyond them has no row there.

    base: the model whose row counts where several models have a token that another lacks; None: their mean.
    """
    places = np.full((len(vocabularies), max(tokens.values(), default=-1) + 1), -1, dtype=np.int64)
    for model, (vocabulary, size) in enumerate(zip(vocabularies, sizes, strict=True)):
        pairs = [(row, vocabulary[token]) for token, row in tokens.items() if vocabulary.get(token, size) < size]
        if pairs:
            result, own = np.array(pairs, dtype=np.int64).T
            places[model, result] = own
    has = places >= 0
    used = np.flatnonzero(has.any(axis=0))
    return _with_donors(places[:, : used[-1] + 1 if len(used) else 0], base)


def plan_of_padding(sizes: list[int], main: int) -> Plan:
    """The plan for models with the same tokens, whose embeddings have more or fewer rows behind them than the main
    model's."""
    row = np.arange(sizes[main], dtype=np.int64)
    return _with_donors(np.stack([np.where(row < size, row, -1) for size in sizes]), main)


def _with_donors(places: np.ndarray, base: int | None) -> Plan:
    has = places >= 0
    donors = np.full(places.shape[1], MEAN, dtype=np.int64)
    if base is not None:
        donors[has[base]] = base
    count = has.sum(axis=0)
    donors[count == 1] = has.argmax(axis=0)[count == 1]
    donors[count == 0] = ZERO
    return Plan(places, donors)


class Resized(Checkpoint):
    """A checkpoint whose embedding and head have the rows of another vocabulary; all else is its own.

    models: all models of the merge, in the order of the plan; each is opened for itself. dtype: in which the merge
    computes, to which a mean is rounded; None for that of the models.
    """

    def __init__(
        self, models: list[Checkpoint], own: int, plan: Plan, names: list[str], dtype: torch.dtype | None
    ) -> None:  # fmt: skip
        self.models, self.index, self.plan, self.names = models, own, plan, frozenset(names)
        self.own = models[own]
        self.folder, self.files = self.own.folder, self.own.files
        self.config = resized_config(self.own.config, self.own.tensors[names[0]].shape[0], plan.rows)
        self.tensors = dict(self.own.tensors)
        for name in names:
            stored = self.own.tensors[name]
            # Rows of other models come in their dtypes; a dtype that holds all of them loses nothing.
            wide = torch.promote_types(stored.dtype, dtype or stored.dtype)
            for model in models:
                wide = torch.promote_types(wide, model.tensors[name].dtype)
            self.tensors[name] = StoredTensor(stored.file, stored.begin, (plan.rows, stored.shape[1]), wide)

    def open(self) -> "Resized":
        self.own.open()
        return self

    def close(self) -> None:
        self.own.close()

    def announce(self, name: str) -> None:
        self.own.announce(name)

    def rows(self, name: str, first: int, last: int) -> torch.Tensor:
        """Rows first to last - 1 of a tensor as (rows, width), as `Checkpoint.rows`."""
        if name not in self.names:
            return self.own.rows(name, first, last)
        stored = self.tensors[name]
        source, row = self.plan.window(self.index, first, last)
        out = torch.zeros((last - first, stored.shape[1]), dtype=stored.dtype)
        for start, end in _runs(source, row):
            if source[start] >= 0:
                model, at = self.models[source[start]], int(row[start])
                out[start:end] = model.rows(name, at, at + end - start)
            elif source[start] == MEAN:
                for i in range(start, end):
                    out[i] = self._mean(name, first + i)
        return out

    def _mean(self, name: str, row: int) -> torch.Tensor:
        """The mean, in float32, of a row of the result over the models that have it."""
        places = zip(self.models, self.plan.places[:, row].tolist(), strict=True)
        return torch.cat([model.rows(name, at, at + 1).float() for model, at in places if at >= 0]).mean(dim=0)


def _runs(source: np.ndarray, row: np.ndarray) -> list[tuple[int, int]]:
    """(start, end) of the longest stretches whose rows lie behind one another in one model."""
    breaks = np.flatnonzero((np.diff(source) != 0) | ((np.diff(row) != 1) & (source[1:] >= 0))) + 1
    edges = [0, *breaks.tolist(), len(source)]
    return [(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True) if a < b]


def resized_config(config: dict[str, Any], before: int, rows: int) -> dict[str, Any]:
    """A config with another `vocab_size`, also inside its own configs; before: the number of rows it has."""

    def changed(part: dict[str, Any]) -> dict[str, Any]:
        nested = {key: changed(value) if isinstance(value, dict) else value for key, value in part.items()}
        return nested | ({"vocab_size": rows} if part.get("vocab_size") == before else {})

    new = changed(config)
    if new == config and rows != before:  # the default of the class held
        return config | {"vocab_size": rows}
    return new


# --- models of a merge --------------------------------------------------------------------------------------


def fit(
    models: dict[str, Checkpoint], folders: Mapping[str, Path], main: str, source: str | None, has_base: bool,
    dtype: torch.dtype | None = None,
) -> tuple[dict[str, Checkpoint], list[str]]:  # fmt: skip
    """(models whose embeddings have the same rows, lines about what was done).

    source: BASE, UNION, or one of `folders`, whose tokens the result has; None: models with the same tokens get the
    number of rows of the main model, and others stay as they are. has_base: whether the main model is the base of the
    merge. dtype: in which it computes. UserError for an unknown source, where the tokens of a model are not known, and
    where they move but not all tensors with a row for each token are known.
    """
    names = _token_tensors(models)
    if not names and source is not None:
        raise UserError(
            f"tokenizer_source: {source}: the models have no embedding whose rows are known to be tokens, or an output "
            "head of another size beside it; leave tokenizer_source out, or give models of one vocabulary"
        )
    if not names:
        return models, []
    sizes = [model.tensors[names[0]].shape[0] for model in models.values()]
    main_index = list(models).index(main)
    if source is None:
        if len(set(sizes)) == 1 or not _same_tokens(models, min(sizes)):
            return models, []
        plan = plan_of_padding(sizes, main_index)
        said = ", ".join(f"{size} in {name}" for name, size in zip(models, sizes, strict=True))
        notices = [f"{' and '.join(names)}: rows are {said}; the tokens are the same, and the result has the "
                   f"{plan.rows} rows of {main}"]  # fmt: skip
    else:
        own = {name: model.folder for name, model in models.items()}
        plan = plan_for(
            result_tokens({**folders, **own}, own, main, source), [_known(f) for f in own.values()], sizes,
            main_index if has_base else None,
        )  # fmt: skip
        notices = _notices(plan, list(models), source)
    everyone = list(models.values())
    if any(plan.changes(i, size) for i, size in enumerate(sizes)):
        _refuse_unknown(models, sizes, names)
    changed = {
        name: Resized(everyone, i, plan, names, dtype) if plan.changes(i, sizes[i]) else model
        for i, (name, model) in enumerate(models.items())
    }
    return changed, notices


def result_tokens(
    folders: Mapping[str, Path], own: Mapping[str, Path], main: str, source: str
) -> dict[str, int]:  # fmt: skip
    """Token -> row of the result. own: the models that are merged; folders: these and others that may be named."""
    if source == UNION:
        return _known(own[main]) | {entry["content"]: entry["id"] for entry in added_for_union(own, main)}
    return _known(folders[tokenizer_model(folders, main, source)])


def tokenizer_model(folders: Mapping[str, Path], main: str, source: str) -> str:
    """The model whose tokenizer files the result gets. UserError for an unknown source."""
    if source in (BASE, UNION):
        return main
    if source not in folders:
        raise UserError(f"tokenizer_source: {source!r} is neither base nor union nor one of the models "
                        f"({', '.join(folders)})")  # fmt: skip
    return source


def added_for_union(own: Mapping[str, Path], main: str) -> list[dict[str, Any]]:
    """Entries for tokenizer.json of the main model: the tokens that it lacks, in the order of the models and their ids.

    A token keeps the settings that it has as an added token of the first model that has it.
    """
    tokens, entries = _known(own[main]), []
    if not (own[main] / "tokenizer.json").is_file():
        raise UserError(f"{own[main]}: no tokenizer.json, which a union extends; save it as a fast tokenizer")
    following = max(tokens.values(), default=-1) + 1
    for folder in own.values():
        lacking = {token: i for token, i in _known(folder).items() if token not in tokens}
        settings = {e["content"]: e for e in (read_object(folder / "tokenizer.json") or {}).get("added_tokens") or ()}
        for token in sorted(lacking, key=lacking.__getitem__):
            entry = {"id": following, "content": token, **PLAIN}
            entries.append(entry | {k: v for k, v in settings.get(token, {}).items() if k in PLAIN})
            tokens[token], following = following, following + 1
    return entries


def add_tokens(entries: list[dict[str, Any]], out: Path) -> None:
    """Add entries of `added_for_union` to the tokenizer files in a folder."""

    def rewrite(name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        if (content := read_object(out / name)) is not None:
            text = json.dumps(change(content), indent=2, ensure_ascii=False)
            (out / name).write_text(text + "\n", encoding="utf-8")

    def decoded(config: dict[str, Any]) -> dict[str, Any]:
        more = {str(entry["id"]): {key: entry[key] for key in ("content", *PLAIN)} for entry in entries}
        known = config.get("added_tokens_decoder")
        return config | ({"added_tokens_decoder": known | more} if isinstance(known, dict) else {})

    rewrite("tokenizer.json", lambda data: data | {"added_tokens": [*(data.get("added_tokens") or ()), *entries]})
    rewrite("tokenizer_config.json", decoded)
    rewrite("added_tokens.json", lambda tokens: tokens | {entry["content"]: entry["id"] for entry in entries})


def _token_tensors(models: dict[str, Checkpoint]) -> list[str]:
    """Embedding and head, by name: the matrices with a row for each token, of one width in all models."""
    shared = set.intersection(*(set(model.tensors) for model in models.values()))
    found = []
    for name in sorted(ending(shared, EMBEDDINGS + HEADS + OTHER_HEADS)):
        shapes = [model.tensors[name].shape for model in models.values()]
        if all(len(shape) == 2 for shape in shapes) and len({shape[1] for shape in shapes}) == 1:
            found.append(name)
    if not ending(found, EMBEDDINGS):
        return []
    # The "output" of a layer may have the name of a head; only one with a row for each token is one.
    of_tokens = ending(found, EMBEDDINGS)[0]
    found = [n for n in found if n not in ending(found, OTHER_HEADS) or all(
        model.tensors[n].shape[0] == model.tensors[of_tokens].shape[0] for model in models.values()
    )]  # fmt: skip
    rows = [{model.tensors[name].shape[0] for name in found} for model in models.values()]
    return found if all(len(one) == 1 for one in rows) else []


def _refuse_unknown(models: dict[str, Checkpoint], sizes: list[int], names: list[str]) -> None:
    """UserError where a model has another tensor, outside its layers, with an entry or a row for each token."""
    for (name, model), size in zip(models.items(), sizes, strict=True):
        for tensor, stored in model.tensors.items():
            in_layer = any(part.isdigit() for part in tensor.split("."))
            is_width = model.config.get("hidden_size") == size  # then the size says nothing
            if stored.shape[:1] == (size,) and len(stored.shape) <= 2 and not (in_layer or is_width or tensor in names):
                raise UserError(
                    f"{name}: {tensor} has {size} {'rows' if len(stored.shape) == 2 else 'entries'}, as many as there "
                    f"are tokens, and would not move with the rows of {' and '.join(names)}; give models whose "
                    "vocabularies are the same, and leave tokenizer_source out"
                )


def _same_tokens(models: dict[str, Checkpoint], rows: int) -> bool:
    """Whether all models have the same known tokens, each with a row in every model."""
    first, *others = (tokens_of(model.folder) for model in models.values())
    return bool(first) and all(other == first for other in others) and max((first or {}).values()) < rows


def _known(folder: Path) -> dict[str, int]:
    tokens = tokens_of(folder)
    if tokens is None:
        raise UserError(f"{folder}: no tokenizer.json; rows cannot be matched by token, so leave out tokenizer_source")
    return tokens


def _notices(plan: Plan, names: list[str], source: str) -> list[str]:
    lines = [f"tokenizer_source {source}: the result has {plan.rows} tokens"]
    for model, name in enumerate(names):
        if lacking := int((plan.places[model] < 0).sum()):
            lines.append(f"tokenizer_source {source}: {name} lacks {lacking} of them; their rows are those of the "
                         "models that have them")  # fmt: skip
    return lines
