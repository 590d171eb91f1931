"""What stands in a recipe or a command for a model -> the folders that are read.

    text           place                              fetched                  parts
    models/math -> /home/me/models/math ------------> the same --------------> (folder, None)
    owner/name  -> owner/name ----------------------> folder of the cache ---> (folder, None)
    base+lora   -> /home/me/base+/home/me/lora -----> the same --------------> (base, adapter)
    lora        -> /home/me/lora -------------------> its base + itself -----> (base, adapter)

A place is a path, so that it goes where the folder of a model goes: into recipe files, mergekit's too, and out of them.
One of a base with an adapter is written as mergekit writes it. Only `fetched` uses the network.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from tinyr1.core import hub
from tinyr1.core.checkpoints import ADAPTER_CONFIG, is_adapter, read_object
from tinyr1.core.errors import UserError

HUB_ID = re.compile(r"(?P<model>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?")
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")  # of peft, in the order in which it looks


def place(text: str, home: Path) -> Path:
    """The place that a text names; `home`: the folder that relative paths begin at.

    A folder of exactly this name comes first, then base+adapter, then a model of the hub (owner/name@revision). What is
    none of these is taken for a folder, which `fetched` and the readers miss.
    """
    folder = home / os.path.expanduser(text)  # noqa: PTH111 (Path's raises for a user that does not exist)
    if folder.exists():
        return folder
    if both := next(_splits(text, home), None):
        return Path("+".join(both))
    return Path(text) if HUB_ID.fullmatch(text) else folder


def _splits(text: str, home: Path) -> Iterator[tuple[str, str]]:
    """Base and adapter, each an absolute path or a hub id, for every + of a text between two of these."""
    for plus in re.finditer(r"\+", text):
        sides = [_side(part, home) for part in (text[: plus.start()], text[plus.end() :])]
        if all(sides):
            yield sides[0], sides[1]


def _missing_sides(text: str) -> Iterator[str]:
    """What stands before or behind a + of a text where the other side is a model, but this one is none."""
    for plus in re.finditer(r"\+", text):
        sides = text[: plus.start()], text[plus.end() :]
        is_model = [bool(_side(part, Path())) for part in sides]
        if any(is_model) and all(sides):
            yield sides[is_model.index(False)]


def _side(text: str, home: Path) -> str:
    """The absolute path of a folder, or a hub id; an empty text for anything else."""
    folder = (home / os.path.expanduser(text)).absolute()  # noqa: PTH111
    if text and folder.is_dir():
        return str(folder)
    return text if HUB_ID.fullmatch(text) else ""


def fetched(model: Path) -> Path:
    """A place whose folders are on this machine: models of the hub are fetched, an adapter alone gets its base.

    UserError where the hub does not give a model, and where the base of an adapter cannot be had.
    """
    if model.is_dir():
        return _with_base(model)
    if both := next(_splits(str(model), Path()), None):
        base, adapter = map(_folder, both)
        if not (adapter / ADAPTER_CONFIG).is_file():
            raise UserError(f"{model}: {adapter} is no adapter, it has no {ADAPTER_CONFIG}; write base+adapter")
        return Path(f"{base}+{adapter}")
    if missing := next(_missing_sides(str(model)), None):
        raise UserError(f"{model}: {missing} is no folder here; base+adapter takes two folders or ids of the hub")
    return _with_base(_folder(str(model))) if HUB_ID.fullmatch(str(model)) else model


def _folder(text: str) -> Path:
    """The folder that an absolute path or a hub id names."""
    if Path(text).is_dir():
        return Path(text)
    found = HUB_ID.fullmatch(text)
    if found is None:  # removed since it was looked for
        raise UserError(f"{text}: no such folder")
    return hub.model_folder(f"{text}: no folder here, and on the hub", found["model"], found["revision"], True)


def _with_base(folder: Path) -> Path:
    """A model as it is; an adapter with the base that its config names."""
    if not is_adapter(folder):
        return folder
    config = read_object(folder / ADAPTER_CONFIG) or {}
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    remedy = f"write base+adapter (BASE+{folder}), with BASE the folder of the model that it was trained on"
    if not isinstance(base, str) or not (side := _side(base, Path())):
        raise UserError(f"{folder}: an adapter whose base ({base!r}) is no folder on this machine; {remedy}")
    if isinstance(revision, str) and revision and HUB_ID.fullmatch(side) and "@" not in side:
        side = f"{side}@{revision}"
    try:
        return Path(f"{_folder(side)}+{folder.absolute()}")
    except UserError as error:
        raise UserError(f"{folder}: an adapter whose base is not on this machine; {remedy}. {error}") from error


def parts(model: Path) -> tuple[Path, Path | None]:
    """(folder of a model, folder of the adapter that is applied to it or None) of a place whose folders are there."""
    if not model.is_dir() and (both := next(_splits(str(model), Path()), None)):
        return Path(both[0]), Path(both[1])
    return model, None


def adapter_weights(adapter: Path) -> Path:
    """The file with the tensors of an adapter. UserError when there is none."""
    for name in ADAPTER_WEIGHTS:
        if (adapter / name).is_file():
            return adapter / name
    raise UserError(f"{adapter}: an adapter without weights ({' or '.join(ADAPTER_WEIGHTS)}); fetch it again")
