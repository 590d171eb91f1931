"""Estimates how much disk a run still needs for its checkpoints, before its first notebook starts."""

import shutil
import tempfile
from pathlib import Path

from tinyr1.branch import origin
from tinyr1.core import artifact
from tinyr1.core.config import Config
from tinyr1.core.errors import UserError

REST = 10**9  # bytes for rows, responses, logs and pages
# Size of a resumable checkpoint, in bf16 models: the weights twice (2), then fp32 weights and two fp32 moments (6). The
# next one is written before the last one is removed.
RESUMABLE = 2 * 8


def is_finished(model: Path) -> bool:
    """Whether the checkpoint of a model is there; its files are not looked at."""
    return artifact.manifest_path(model).is_file()


def finished_bytes(cfg: Config) -> int | None:
    """Bytes of one model of the run, by its finished base checkpoint; None where that is not there."""
    for made in (cfg.home / "base", cfg.backbone):
        if is_finished(made):
            return sum(file["bytes"] for file in artifact.manifest(made)["files"].values())
    return None


def model_bytes(cfg: Config) -> int | None:
    """Bytes of one model of the run, by its base checkpoint or the source of that; None where neither is known."""
    if (finished := finished_bytes(cfg)) is not None:
        return finished
    if cfg.params.backbone.model != origin.RANDOM:
        return origin.weight_bytes(cfg)
    from tinyr1.branch import backbone  # imports PyTorch, for which other runs do not wait

    return backbone.weight_bytes(cfg)


def checkpoint_bytes(cfg: Config, size: int) -> int:
    """Bytes that the checkpoints of a run still take on its disk, for models of `size` bytes.

    It counts every model that is not finished, one more (the base, or the old model while a new one is made), and the
    optimizer states of one training where the run keeps any; less what an interrupted run has already written.
    """
    own = [m for m in cfg.models if m != cfg.models[0] or cfg.params.backbone.distill]  # else the backbone is a link
    absent = [m for m in own if not is_finished(cfg.model(m))]
    if not absent:
        return 0
    trains = cfg.params.trainer.save_steps and any(m not in cfg.merges for m in absent)
    copies = len(absent) + 1 + (RESUMABLE if trains else 0)
    begun = [f for m in absent for f in artifact.partial_path(cfg.model(m)).rglob("*") if f.is_file()]
    return max(0, copies * size - sum(f.stat().st_size for f in begun))


def require_disk_space(cfg: Config) -> str:
    """Room on the disk of a run, in words. UserError says how much is missing for what the run still makes."""
    need = checkpoint_bytes(cfg, model_bytes(cfg) or 0) + REST
    free = shutil.disk_usage(existing(cfg.home)).free
    if free < need:
        raise UserError(
            f"{cfg.home}: {free / 1e9:.1f} GB free, the run needs about {need / 1e9:.1f} GB more; free some space, "
            "or set TINYR1_HOME to a folder on a larger disk"
        )
    return f"{free / 1e9:.1f} GB free, the run needs about {need / 1e9:.1f} GB more"


def existing(folder: Path) -> Path:
    """The folder, or the first one above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def try_to_write(folder: Path) -> None:
    """OSError where nothing can be written into a folder, or where it would be made; nothing stays there."""
    with tempfile.TemporaryDirectory(prefix=".tinyr1-", dir=existing(folder)):
        pass


def require_writable(cfg: Config) -> str:
    """UserError where the folder of a run cannot be written: nothing else of a checkout has to be."""
    try:
        try_to_write(cfg.reports)
    except OSError as error:
        raise UserError(
            f"{cfg.home} cannot be written ({error.strerror}); all of a run is stored there: set TINYR1_HOME to a "
            "folder that you may write to"
        ) from error
    return "can be written"
