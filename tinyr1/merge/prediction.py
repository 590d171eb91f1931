"""Layers for multi-token prediction (MTP), which some models store behind their last layer.

    model.layers.61.*  of DeepSeek-V3 (61 layers)    model.layers.46.*  of GLM-4.5-Air (46)    mtp.*  of Qwen3-Next

They serve speculative decoding. transformers drops them on loading, so that a model that was trained with it is stored
without them, and is still the same network as the one that it comes from.
"""

import re

from tinyr1.merge.configs import PREDICTION
from tinyr1.merge.reader import Checkpoint

MODULE = re.compile(r"(?:^|\.)(?:mtp|mtp_layers|nextn)\.")
LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def drop_where_missing(models: dict[str, Checkpoint], counts_layers: bool) -> list[str]:
    """Take the prediction layers out of all models unless all have the same; a line that says so, where it is done.

    counts_layers: whether the recipe stacks layers or varies over them, where these have no place among the others;
    then no model keeps them. The configs count no such layer, so that an engine does not look for one.
    """
    found = {name: _names(model) for name, model in models.items()}
    owners = [name for name, names in found.items() if names]
    alike = all(names == found[next(iter(found))] for names in found.values())
    if not owners or (alike and not counts_layers):
        return []
    example = min(next(iter(found[name])) for name in owners)
    for name, model in models.items():
        for tensor in found[name]:
            del model.tensors[tensor]
        model.config = _without_counts(model.config)
    why = "the recipe counts layers" if alike else "not every model has them alike"
    return [
        f"{example} and others: layers for multi-token prediction, which transformers drops on loading, stored by "
        f"{' and '.join(owners)}; {why}, so the result has none"
    ]


def _names(model: Checkpoint) -> list[str]:
    """The tensors of a model that belong to its prediction layers."""
    inner = model.config.get("text_config")
    counts = [part.get("num_hidden_layers") for part in (model.config, inner) if isinstance(part, dict)]
    layers = next((count for count in counts if isinstance(count, int)), None)
    return [name for name in sorted(model.tensors) if MODULE.search(name) or _is_behind(name, layers)]


def _is_behind(name: str, layers: int | None) -> bool:
    """Whether a tensor is of a layer behind the last one of the network."""
    found = LAYER.search(name)
    return layers is not None and found is not None and int(found[1]) >= layers


def _without_counts(config: dict) -> dict:
    """A config that counts no prediction layer, neither itself nor the configs inside it."""
    inner = {key: _without_counts(value) for key, value in config.items() if isinstance(value, dict)}
    return config | inner | {key: 0 for key in PREDICTION if key in config}
