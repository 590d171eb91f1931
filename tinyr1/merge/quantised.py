"""Quantised checkpoints, whose integers stand for weights in a way of each method's own, are no input of a merge."""

from pathlib import Path
from typing import Any

from tinyr1.core.errors import UserError

# Files beside config.json in which older programs say how the weights were quantised, and the method of each.
OLDER_FILES = {"quantize_config.json": "gptq", "quant_config.json": "awq"}


def check_unquantised(folder: Path, config: dict[str, Any]) -> None:
    """UserError that names the method when a checkpoint's weights are quantised."""
    method = _method(config)
    where = "config.json"
    for file, of_file in OLDER_FILES.items():
        if method is None and (folder / file).is_file():
            method, where = of_file, file
    if method is not None:
        raise UserError(
            f"{folder}: the weights are quantised ({method}, says {where}); only full-precision weights can be merged, "
            "give the model that was quantised or dequantize this one"
        )


def _method(config: dict[str, Any]) -> str | None:
    """The method of quantisation that a config names, None where it names none."""
    nested = [part for part in config.values() if isinstance(part, dict)]
    for part in (config, *nested):
        settings = part.get("quantization_config") or part.get("compression_config")
        if isinstance(settings, dict):
            bitsandbytes = settings.get("load_in_4bit") or settings.get("load_in_8bit")
            return str(settings.get("quant_method") or ("bitsandbytes" if bitsandbytes else "of no named method"))
    return None
