"""The files of a checkpoint folder in the format of transformers. Weights themselves are not read here."""

import json
from pathlib import Path

from tinyr1.core.errors import UserError

INDEX = "model.safetensors.index.json"

# The files that decide how text becomes token ids, the chat template included, by all names that transformers uses.
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "chat_template.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model",
    "sentencepiece.bpe.model",
)  # fmt: skip
# Patterns for the files of a whole checkpoint: these are fetched from a hub, and two models differ if one of them does.
CHECKPOINT = ("*.safetensors", "*.json", *TOKENIZER_FILES)
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
# Keys of config.json that say where a checkpoint comes from and how it is run, but do not describe the network.
PROVENANCE = ("_name_or_path", "transformers_version", "use_cache", "torch_dtype", "dtype")


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


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: those in its index, or all of the folder where there is no index.

    UserError when there are none, or when the index is damaged or lists files that are not there.
    """
    if not (folder / INDEX).exists():
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise UserError(f"{folder}: no .safetensors file; convert the weights with transformers first")
        return files
    files = sorted({folder / name for name in read_weight_map(folder).values()})
    if absent := [f.name for f in files if not f.is_file()]:
        raise UserError(f"{folder}: the index lists files that are not there: {', '.join(absent)}")
    return files


def read_weight_map(folder: Path) -> dict[str, str]:
    """Tensor name -> file name, from the checkpoint's index. UserError when the index is damaged."""
    index = read_json(folder / INDEX)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise UserError(f"{folder / INDEX}: has no weight_map of names to files; fetch it again")
    return weight_map
