"""Output heads that a network shares with its embedding, and that some checkpoints store beside it.

One tensor under two names is merged once: with a random mask of its own, a stored head would become another tensor than
the embedding, and transformers, which compares the two, would no longer share them.
"""

from collections.abc import Collection

import torch

from tinyr1.core.errors import UserError
from tinyr1.merge.configs import EMBEDDINGS, HEADS, OTHER_HEADS, ending, ties_head
from tinyr1.merge.method import as_rows, borders
from tinyr1.merge.reader import Checkpoint


def drop_stored_heads(models: dict[str, Checkpoint]) -> list[str]:
    """Take the stored heads of tied networks out of the models; a line that says so, where there are some.

    Reads the two tensors of each model that stores both. UserError where they differ.
    """
    stored: dict[tuple[str, str], list[str]] = {}
    for name, model in models.items():
        if (pair := _pair(model)) and ties_head(model.config):
            _check_equal(name, model, *pair)
            del model.tensors[pair[0]]
            stored.setdefault(pair, []).append(name)
    return [
        f"{head}: is tied to {embedding} and stored beside it by {' and '.join(names)}; the result has one tensor"
        for (head, embedding), names in stored.items()
    ]


def same_tensors(models: Collection[Checkpoint]) -> dict[str, str]:
    """Embeddings and heads that hold the same numbers as another one in every model: name -> the first of them.

    A network may have one tensor under several names (T5 has four), and a random mask has to be one for all of them.
    The models are open. A pair that differs is known by its first block.
    """
    shared = set.intersection(*(set(model.tensors) for model in models))
    first: list[str] = []
    same: dict[str, str] = {}
    outside = [name for name in shared if not any(part.isdigit() for part in name.split("."))]  # layers have numbers
    for name in sorted(ending(outside, EMBEDDINGS + HEADS + OTHER_HEADS)):
        earlier = next((one for one in first if all(_are_equal(model, one, name) for model in models)), None)
        if earlier is None:
            first.append(name)
        else:
            same[name] = earlier
    return same


def _are_equal(model: Checkpoint, one: str, other: str) -> bool:
    """Whether two tensors of an open model hold the same numbers."""
    a, b = model.tensors[one], model.tensors[other]
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    places = borders(as_rows(a.shape))
    return all(torch.equal(model.rows(one, *place), model.rows(other, *place)) for place in places)


def _pair(model: Checkpoint) -> tuple[str, str] | None:
    """(head, embedding) of a checkpoint that stores one of each, of one shape."""
    heads, embeddings = ending(model.tensors, HEADS), ending(model.tensors, EMBEDDINGS)
    if len(heads) != 1 or len(embeddings) != 1:
        return None
    return (heads[0], embeddings[0])


def _check_equal(name: str, model: Checkpoint, head: str, embedding: str) -> None:
    """UserError unless a stored head is the embedding."""
    model.open()
    try:
        equal = _are_equal(model, head, embedding)
    finally:
        model.close()
    if not equal:
        raise UserError(
            f"{model.folder}: {head} is not {embedding}, to which config.json ties it (model {name}): transformers "
            "then keeps the two apart; set tie_word_embeddings to false in config.json of every model that stores "
            "both, or remove the head"
        )
