"""The training process: which checkpoint a killed run continues from."""

import shutil
from pathlib import Path

import pytest

from tinyr1.branch import train


def checkpoint(folder: Path, step: int, complete: bool) -> None:
    place = folder / f"checkpoint-{step}"
    place.mkdir()
    (place / "weights.bin").write_bytes(b"w")
    if complete:
        (place / train.CHECKPOINT_DONE).touch()


def test_continues_from_the_newest_complete_checkpoint(tmp_path):
    assert train.last_checkpoint(tmp_path) is None
    checkpoint(tmp_path, 9, complete=True)
    checkpoint(tmp_path, 10, complete=True)
    checkpoint(tmp_path, 11, complete=False)
    assert train.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_a_checkpoint_whose_deletion_was_cut_short_is_not_taken_for_complete(tmp_path, monkeypatch):
    checkpoint(tmp_path, 1, complete=True)
    checkpoint(tmp_path, 2, complete=False)

    def killed(folder: Path) -> None:
        (folder / "weights.bin").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        train.keep_only(tmp_path, "checkpoint-2")
    assert train.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")


def test_older_checkpoints_go(tmp_path):
    checkpoint(tmp_path, 1, complete=True)
    checkpoint(tmp_path, 2, complete=False)
    train.keep_only(tmp_path, "checkpoint-2")
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-2"]
