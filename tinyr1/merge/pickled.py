"""Tensors in the files of `torch.save`: where each of them lies, found without running code and without reading it.

    zip archive   data.pkl: name -> (storage, offset, shape, strides, dtype) | data/0 | data/1 | …   bytes as in memory

Only the pickle is read, by the unpickler of torch that knows tensors and nothing else. Loading onto the device "meta"
takes no bytes of the storages and tells where they begin, so that their rows are mapped as those of safetensors are.
"""

import pickle
import zipfile
from collections.abc import Collection
from pathlib import Path

import torch

from tinyr1.core.errors import UserError

# What torch raises for an archive or a pickle that is not what `torch.save` writes.
DAMAGED = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError, EOFError)
Place = tuple[int, tuple[int, ...], torch.dtype]  # first byte in the file, shape, dtype


def places(file: Path, dtypes: Collection[torch.dtype]) -> dict[str, Place]:
    """Where the tensors of a file are.

    UserError when it is damaged, or holds anything but named tensors of these dtypes.
    """
    _check_archive(file)
    try:
        content = torch.load(file, map_location="meta", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file}: holds more than tensors, and loading that could run code; save the weights alone, best as "
            "safetensors"
        ) from error
    except DAMAGED as error:
        raise _damaged(file, str(error).partition("\n")[0]) from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: holds a {type(content).__name__}, expected tensors by name; save a state_dict")
    for name, tensor in content.items():
        _check_tensor(file, name, tensor, dtypes)
    return {name: _place(file, name, tensor) for name, tensor in content.items()}


def _check_archive(file: Path) -> None:
    """UserError unless the storages lie in the file as they would in the memory of this machine."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            # Reading compares checksums, which torch does not; those of the weights would take as long as reading them.
            read = {m.filename: archive.read(m) for m in members if "/data/" not in m.filename}
    except (zipfile.BadZipFile, EOFError) as error:
        raise UserError(
            f"{file}: no archive of torch.save ({error}): cut short, or written by PyTorch before 1.6; fetch it again, "
            "or load the model with transformers and save it again"
        ) from error
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise _damaged(file, "its archive is compressed, which torch.save never does")
    if any(name.endswith("/byteorder") and order != b"little" for name, order in read.items()):
        raise _damaged(file, "its numbers are big-endian")


def _check_tensor(file: Path, name: object, tensor: object, dtypes: Collection[torch.dtype]) -> None:
    """UserError unless this is a named tensor, stored in one piece in the order of its entries."""
    if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
        raise UserError(f"{file}: {name!r} is a {type(tensor).__name__}, expected tensors by name; save a state_dict")
    if tensor.layout != torch.strided or tensor.dtype not in dtypes:
        raise UserError(f"{file}: {name} is stored as {tensor.layout} {tensor.dtype}; dequantize the model first")
    if not tensor.is_contiguous():
        raise UserError(f"{file}: {name} is stored with its dimensions exchanged; save it with .contiguous()")


def _place(file: Path, name: str, tensor: torch.Tensor) -> Place:
    """Where one tensor is. UserError when the file is too short for it."""
    # torch's notes on serialization tell of this attribute; it has no public name.
    storage_begin = tensor.untyped_storage()._checkpoint_offset  # noqa: SLF001
    if storage_begin is None:
        raise UserError(f"{file}: {name} is not stored as plain numbers; save a state_dict of plain tensors")
    begin = storage_begin + int(tensor.storage_offset()) * tensor.dtype.itemsize
    if begin + tensor.nbytes > file.stat().st_size:
        raise _damaged(file, f"{name} would end behind the end of the file")
    return begin, tuple(tensor.shape), tensor.dtype


def _damaged(file: Path, why: str) -> UserError:
    return UserError(f"{file}: damaged file of torch.save: {why}; fetch it again or save the model again")
