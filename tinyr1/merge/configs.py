r"""config.json of several models of one network, however old the files are, compared by what decides the network.

    config.json of each model -- read as transformers reads it --> keys in the names of its config class
                              \- custom code, or no class -------> the keys of the file

    keys that decide tensors or forward pass --- differ ---> problem: these are different networks
    all other keys ----------------------------- differ ---> notice: the main model's value is taken

Files are read through the classes of transformers only where they differ, because its import takes a second. Code that
comes with a checkpoint is never executed.
"""

import copy
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tinyr1.core.checkpoints import PROVENANCE

# How many layers for multi-token prediction a model has, which transformers does not load (`prediction`).
PREDICTION = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers")
# Keys that change neither tensors nor forward pass: limits, noise of training, initial values, token ids, outputs.
NEUTRAL = {
    "max_position_embeddings", "initializer_range", "initializer_factor", "init_std", "bos_token_id", "eos_token_id",
    "pad_token_id", "sep_token_id", "cls_token_id", "mask_token_id", "decoder_start_token_id", "forced_bos_token_id",
    "forced_eos_token_id", "id2label", "label2id", "problem_type", "return_dict", "output_hidden_states",
    "output_attentions", "chunk_size_feed_forward", "router_aux_loss_coef", "router_jitter_noise",
    "output_router_logits", "pretraining_tp", "auto_map", "max_window_layers", *PREDICTION,
}  # fmt: skip
MARKS = ("unsloth", "_attn_implementation", "_experts_implementation")  # how the keys begin that trainers leave
ROPE = {"rope_theta", "rope_scaling", "partial_rotary_factor"}  # in old files; classes read them as rope_parameters
WHOLE = {"id2label", "label2id", "auto_map"}  # mappings that are one value and no nested config
# Tensors with one row for each token, by the ends of their names.
HEADS = ("lm_head.weight", "embed_out.weight")
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight", "tok_embeddings.weight",
              "shared.weight", "backbone.embeddings.weight")  # fmt: skip
OTHER_HEADS = ("output.weight", "output_layer.weight", "proj_out.weight", "ff_out.weight", "decoder.weight")
SHOWN = 60  # characters of a value in a message


def compare(main: str, configs: Mapping[str, dict], skip: frozenset[str] = frozenset()) -> tuple[list[str], list[str]]:
    """(problems, notices), a line each, of configs by model.

    main: the model whose config the result gets. skip: keys that the caller compares. A problem is a difference of the
    network; a notice says which values differ and whose is taken.
    """
    # A config that does not name its class is read as that of any class.
    free = frozenset({"architectures"} if any(not c.get("architectures") for c in configs.values()) else ())
    parts = {name: _parts(_flat(config), {}, skip, free) for name, config in configs.items()}
    if any(network != parts[main][0] for network, _ in parts.values()):
        read = {name: known for name, config in configs.items() if (known := _read(config))}
        if len(read) == len(configs):
            parts = {name: _parts(*known, skip, free) for name, known in read.items()}
    return (_problems(main, {name: network for name, (network, _) in parts.items()}),
            _notices(main, {name: others for name, (_, others) in parts.items()}))  # fmt: skip


def _parts(
    known: dict[str, Any], unknown: dict[str, Any], skip: frozenset[str], free: frozenset[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Flat keys without those in `skip`, as (those that decide the network, all others, those in `free` among them).

    unknown: keys that the config class does not know.
    """
    # A key that no class knows and that is off is as good as absent.
    unknown = {key: value for key, value in unknown.items() if value is not False}
    known, unknown = ({k: v for k, v in keys.items() if _last(k) not in skip} for keys in (known, unknown))
    network = {key: value for key, value in known.items() if key not in free and not _is_neutral(key, known)}
    return network, {key: value for key, value in known.items() if key not in network} | unknown


def ties_head(config: dict) -> bool:
    """Whether a network shares its output head with its embedding; the default of its class where config.json is
    silent."""
    said = config.get("tie_word_embeddings")
    if said or (said is False and not isinstance(config.get("text_config"), dict)):
        return bool(said)
    read = _read(config)
    return bool(read and read[0].get("tie_word_embeddings"))


def ending(names: Iterable[str], ends: tuple[str, ...]) -> list[str]:
    """The tensors whose names are one of these ends, or have one after a dot."""
    return [name for name in names if any(name == end or name.endswith(f".{end}") for end in ends)]


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Keys with a dot for each nested config -> value, without what is not set; [2] is 2."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and key not in WHOLE:
            flat |= _flat(value, f"{prefix}{key}.")
        elif value is not None and _last(key) not in PROVENANCE:
            flat[prefix + key] = _plain(key, value)
    # Old files call it `type`, and transformers keeps that name beside its own.
    for key in [k for k in flat if k.endswith(".type") and k.removesuffix("type") + "rope_type" in flat]:
        del flat[key]
    return flat


def _plain(key: str, value: Any) -> Any:
    value = list(value) if isinstance(value, tuple) else value
    return value[0] if key.endswith("_token_id") and isinstance(value, list) and len(value) == 1 else value


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _is_neutral(key: str, keys: Mapping[str, Any]) -> bool:
    last, prefix = _last(key), key[: len(key) - len(_last(key))]
    if last == "max_window_layers":  # `layer_types` says the same for each layer
        return f"{prefix}layer_types" in keys or not keys.get(f"{prefix}use_sliding_window")
    if last == "max_position_embeddings":  # these kinds of scaling start from it
        names = ("rope_parameters.rope_type", "rope_scaling.rope_type", "rope_scaling.type")
        return not {"dynamic", "longrope"} & {keys.get(f"{prefix}{name}") for name in names}
    if last in ("sliding_window", "use_sliding_window"):
        kinds = keys.get(f"{prefix}layer_types")
        off = keys.get(f"{prefix}use_sliding_window") is False
        return off or (isinstance(kinds, list) and not any("sliding" in str(kind) for kind in kinds))
    if last == "architectures":  # of a config inside another: where that part comes from
        return bool(prefix)
    return last in NEUTRAL or last.startswith(MARKS) or "dropout" in last or last.endswith("pdrop")


# --- as transformers reads them -----------------------------------------------------------------------------


def _read(config: dict) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """(flat keys of the config class, flat keys that it does not know); None where there is no class, where the
    class comes with the checkpoint, or where it refuses the file."""
    if "auto_map" in config or not isinstance(config.get("model_type"), str):
        return None
    from huggingface_hub.errors import StrictDataclassError
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if config["model_type"] not in CONFIG_MAPPING:
        return None
    with _quiet():
        try:
            # A copy, because classes change the mappings that they are given.
            made = CONFIG_MAPPING[config["model_type"]].from_dict(copy.deepcopy(config))
        except (StrictDataclassError, TypeError, ValueError, KeyError, AttributeError):
            return None
        return _flat(_fields(made)), _flat(_unknown(made, config))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of transformers: they are about its own use of a config."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _fields(made: Any) -> dict[str, Any]:
    """The fields of a config object, with those of the configs inside it."""
    values = {field.name: getattr(made, field.name, None) for field in dataclasses.fields(made)}
    nested = {name: _fields(value) for name, value in values.items() if _is_config(value)}
    return values | nested | {"model_type": type(made).model_type}


def _unknown(made: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a file holds beside the fields of the object that was made from it."""
    known = {field.name for field in dataclasses.fields(made)} | set(made.attribute_map) | {"model_type"}
    known |= ROPE if "rope_parameters" in known else set()
    unknown = {key: value for key, value in config.items() if key not in known}
    for key, value in config.items():
        if isinstance(value, Mapping) and _is_config(getattr(made, key, None)):
            unknown[key] = _unknown(getattr(made, key), value)
    return unknown


def _is_config(value: object) -> bool:
    return dataclasses.is_dataclass(value) and hasattr(value, "attribute_map")


# --- lines for people ---------------------------------------------------------------------------------------


def _problems(main: str, network: Mapping[str, dict[str, Any]]) -> list[str]:
    remedy = "only models of one network can be merged: leave one out, or correct the file that is wrong"
    return [
        f"config.json: {key} is {shown(keys.get(key))} in {name}, {shown(network[main].get(key))} in {main}; {remedy}"
        for name, keys in network.items()
        for key in sorted(keys.keys() | network[main].keys())
        if keys.get(key) != network[main].get(key)
    ]


def _notices(main: str, others: Mapping[str, dict[str, Any]]) -> list[str]:
    keys = sorted({key for one in others.values() for key in one})
    lines = (differing("config.json", key, main, {n: one.get(key) for n, one in others.items()}) for key in keys)
    return [line for line in lines if line]


def differing(file: str, key: str, main: str, values: Mapping[str, Any]) -> str | None:
    """A line that says which values of a key differ and whose is taken; None where all models have the same."""
    if all(value == values[main] for value in values.values()):
        return None
    groups: list[tuple[Any, list[str]]] = []
    for name, value in values.items():
        same = next((names for seen, names in groups if seen == value), None)
        if same is None:
            groups.append((value, [name]))
        else:
            same.append(name)
    said = ", ".join(f"{shown(value)} in {' and '.join(names)}" for value, names in groups)
    return f"{file}: {key} is {said}; the result has that of {main}"


def shown(value: Any) -> str:
    """A value in a message, cut where it is long."""
    text = "not set" if value is None else repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
