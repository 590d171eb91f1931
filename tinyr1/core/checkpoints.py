"""The files of a checkpoint folder in the format of transformers. Weights themselves are not read here.

    model.safetensors -> its index -> pytorch_model.bin -> its index -> a complete numbered set without an index

The first of these that is there is the model;
transformers chooses in this order. A file that is neither named here nor by the index is no part of the model: an
adapter, a copy in another layout (`consolidated.safetensors`), shards that an earlier save has left.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tinyr1.core.errors import UserError

WHOLE, PICKLED = "model.safetensors", "pytorch_model.bin"
INDEX, PICKLED_INDEX = f"{WHOLE}.index.json", f"{PICKLED}.index.json"
NUMBERED = re.compile(r"(?P<stem>model|pytorch_model)-(?P<number>\d+)-of-(?P<count>\d+)\.(?P<suffix>safetensors|bin)")
WEIGHTS_KEY = "transformers_weights"  # of config.json: the name of a weight file or an index that comes before all
ADAPTER_CONFIG = "adapter_config.json"  # of peft; its folder holds an adapter, if it holds no model
OTHER_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth")  # suffixes that a message about missing weights lists

# The files that decide how text becomes token ids, the chat template included, by all names that transformers uses.
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "chat_template.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model",
    "sentencepiece.bpe.model", "sentencepiece.model", "tekken.json", "normalizer.json", "vocab.bpe", "bpe.codes",
    "spm.model", "source.spm", "target.spm",
)  # fmt: skip
# Patterns for the files of a whole checkpoint: these are fetched from a hub, and two models differ if one of them does.
CHECKPOINT = ("*.safetensors", "*.json", *TOKENIZER_FILES)
PICKLES = ("pytorch_model*.bin", "adapter_model.bin")  # patterns for weights in the format before safetensors
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
# Keys of config.json that say where a checkpoint comes from, how it is run and stored, but do not describe the network.
PROVENANCE = ("_name_or_path", "transformers_version", "use_cache", "torch_dtype", "dtype", WEIGHTS_KEY)


def read_json(path: Path) -> object:
    """The value in a JSON file, None where there is no file. UserError when it is not JSON."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from error


def read_object(path: Path) -> dict | None:
    """The object in a JSON file, None where there is no file. UserError when it holds another kind of value."""
    content = read_json(path)
    if content is not None and not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, expected an object; fetch or write it again")
    return content


def read_config(folder: Path) -> dict:
    """config.json of a checkpoint folder. UserError when there is no such folder or file, or it is damaged."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of a checkpoint on this machine")
    config = read_object(folder / "config.json")
    if config is None:
        raise UserError(f"{folder}: not a checkpoint, it has no config.json")
    return config


@dataclass(frozen=True)
class Weights:
    """The files that hold a checkpoint's weights, in the order of their names.

    weight_map: tensor name -> the one of `files` that holds it, as the index says; None where no index is used.
    notices: what a person should know about the choice, a sentence each.
    """

    files: list[Path]
    weight_map: dict[str, Path] | None = None
    notices: tuple[str, ...] = ()


def weight_files(folder: Path) -> list[Path]:
    """The files of `chosen_weights`, which raises the errors."""
    return chosen_weights(folder).files


def chosen_weights(folder: Path) -> Weights:
    """The weights of a checkpoint, chosen as transformers chooses them.

    A complete set of numbered files without an index, which transformers does not load, is taken with a notice.
    UserError when there are no weights, when a file of the index or of a numbered set is missing, and when the index
    is damaged or names a file outside of the folder.
    """
    if weights := _choose(folder):
        return weights
    if (folder / ADAPTER_CONFIG).is_file():
        raise UserError(
            f"{folder}: holds an adapter and no model; give a model, or to a merge the adapter with its base, as "
            f"base+adapter (BASE+{folder})"
        )
    others = sorted(file.name for file in folder.glob("*") if file.suffix in OTHER_WEIGHTS)
    unnamed = f"; {', '.join(others)}: no index names such a file" if others else ""
    raise UserError(
        f"{folder}: no weights: neither {WHOLE} nor {PICKLED} nor an index of either{unnamed}; load the model with "
        "transformers and save it again"
    )


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter of peft and no model."""
    return (folder / ADAPTER_CONFIG).is_file() and _choose(folder) is None


def _choose(folder: Path) -> Weights | None:
    """The weights of a folder, None where it has none."""
    named = (read_object(folder / "config.json") or {}).get(WEIGHTS_KEY)
    if named is not None:
        name = _inside(folder / "config.json", named)
        if not (folder / name).is_file():
            raise UserError(f"{folder / 'config.json'}: {WEIGHTS_KEY} names {name}, which is not there; fetch it again")
        return _indexed(folder / name) if name.endswith(".index.json") else Weights([folder / name])
    for name in (WHOLE, INDEX, PICKLED, PICKLED_INDEX):
        if not (folder / name).is_file():
            continue
        if name in (INDEX, PICKLED_INDEX):
            return _indexed(folder / name)
        index = f"{name}.index.json"
        notice = f"{folder}: {name} and {index} are both there; {name} is the model, as transformers chooses"
        return Weights([folder / name], notices=(notice,) if (folder / index).exists() else ())
    return _numbered(folder)


def _indexed(index: Path) -> Weights:
    """The weights that an index names. UserError when one of its files is missing or not inside of the folder."""
    folder = index.parent
    weight_map = {name: folder / _inside(index, file) for name, file in _read_weight_map(index).items()}
    files = sorted(set(weight_map.values()))
    if absent := [str(file.relative_to(folder)) for file in files if not file.is_file()]:
        raise UserError(f"{folder}: the index lists files that are not there: {', '.join(absent)}")
    return Weights(files, weight_map)


def _inside(source: Path, name: object) -> str:
    """A file name that `source` gives. UserError unless it stays inside of the folder."""
    path = PurePosixPath(name) if isinstance(name, str) else None
    if path is None or not path.parts or path.is_absolute() or ".." in path.parts:
        raise UserError(f"{source}: names {name!r}, which is no file inside of {source.parent}; fetch the model again")
    return str(path)


def _numbered(folder: Path) -> Weights | None:
    """A set like model-00001-of-00002.safetensors, … without an index. UserError when it is not complete."""
    found = [match for file in sorted(folder.glob("*-of-*")) if (match := NUMBERED.fullmatch(file.name))]
    sets: dict[tuple[str, str], list[re.Match]] = {}
    for match in found:
        sets.setdefault((match["suffix"], match["count"]), []).append(match)
    if not sets:
        return None
    suffix = max(suffix for suffix, _ in sets)  # safetensors come before pickles
    counts = [count for kind, count in sets if kind == suffix]
    if len(counts) > 1:
        raise UserError(f"{folder}: no index, and {suffix} files of several sets (of {', of '.join(counts)}); remove "
                        "those that are not the model")  # fmt: skip
    (count,) = counts
    first = sets[suffix, count][0]
    names = [
        f"{first['stem']}-{i:0{len(first['number'])}d}-of-{count}.{suffix}" for i in range(1, int(count) + 1)
    ]
    if absent := [name for name in names if not (folder / name).is_file()]:
        raise UserError(f"{folder}: no index, and of {count} numbered files these are missing: {', '.join(absent)}; "
                        "fetch them again")  # fmt: skip
    notice = f"{folder}: no index; {names[0]} to {names[-1]} are the model (transformers does not load it like this)"
    return Weights([folder / name for name in names], notices=(notice,))


def _read_weight_map(index: Path) -> dict[str, object]:
    """Tensor name -> what an index says of its file. UserError when the index is damaged."""
    content = read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index}: has no weight_map of names to files; fetch it again")
    return weight_map
