r"""Whether a merge can be written where --out says, found out before anything is computed.

    --out -- a link is followed --> place  is free, a folder can be made beside it, its disk has room --> merge
                                          \- else a sentence

A result is made in a folder beside its place and renamed when it is complete, so the folder around it counts.
Nothing here imports torch.
"""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tinyr1.core import artifact
from tinyr1.core.errors import UserError
from tinyr1.merge.checks import check_disk

ELSEWHERE = "choose another --out"


def place(out: Path, inputs: Iterable[Path]) -> Path:
    """Where the result for `out` is to be: links are followed. UserError where it cannot be there.

    inputs: the folders of the models. Nothing is left behind, also in a dry run.
    """
    if out.name in ("", "..") or (out.is_dir() and out.samefile(".")):
        raise UserError(
            f"--out: {out}: a result takes the place of its folder, so that cannot be the folder in which the command "
            f"is started, or one around it; name a folder inside it, such as {out / 'merged'}"
        )
    if out.suffix == ".jsonl":
        raise UserError(f"--out: {out}: a name that ends in .jsonl is that of a table; {ELSEWHERE}")
    if out.is_symlink():
        out = Path(os.path.realpath(out))
    _check_free(out, inputs)
    _check_around(out)
    return out


def _check_free(out: Path, inputs: Iterable[Path]) -> None:
    """UserError where the output folder holds anything but a finished merge that may be replaced."""
    if os.path.ismount(out):
        raise UserError(
            f"--out: {out} is a mount point, and a result takes the place of its folder; name a folder inside it, such "
            f"as {out / 'merged'}"
        )
    for folder in inputs:
        if out.exists() and out.resolve() in (folder.resolve(), *folder.resolve().parents):
            raise UserError(f"--out: {out} is or holds {folder}, a model that is merged; {ELSEWHERE}")
    if out.exists() and not artifact.manifest_path(out).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not a merged checkpoint; {ELSEWHERE} or remove it")


def _check_around(out: Path) -> None:
    """UserError where no folder can be made beside the output."""
    around = next(folder for folder in out.absolute().parents if os.path.lexists(folder))
    if not around.is_dir():
        raise UserError(f"--out: {out} cannot be made, because {around} is not a folder; {ELSEWHERE}")
    try:
        os.rmdir(tempfile.mkdtemp(prefix=f".{artifact.partial_path(out).name}.", dir=around))
    except OSError as error:
        raise UserError(f"--out: {out} cannot be made in {around} ({error.strerror}); {ELSEWHERE}") from error


def check_room(out: Path, need: int) -> None:
    """UserError where the disk has no room for a new merge of `need` bytes."""
    if not artifact.manifest_path(out).is_file():
        leftovers = artifact.partial_path(out).rglob("*")  # of a killed merge; removed before this one writes
        check_disk(out, need - sum(file.lstat().st_blocks * 512 for file in leftovers))
