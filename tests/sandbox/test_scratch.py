"""Temporary folders of killed processes are removed by the next one, and those of live ones are not."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tinyr1.sandbox import scratch


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def start(temporary):
    """A process that holds a folder until it is killed, and the folder."""
    code = "from tinyr1.sandbox import scratch\nf = scratch.folder('test')\nprint(f.name, flush=True)\ninput()"
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(temporary)}, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    return process, Path(process.stdout.readline().strip())


def test_the_folder_of_a_killed_process_is_removed_and_no_other(temporary):
    process, folder = start(temporary)
    (folder / "file").write_text("x")
    strangers = [temporary / name for name in ("tinyr1-notes", "tinyr1-test-1-1-1-abc", "other")]
    for stranger in strangers:  # the second of another PID namespace
        stranger.mkdir()
    with scratch.folder("test") as own:
        scratch.sweep()
        assert folder.is_dir(), "its process lives"
        with process:
            process.kill()
        scratch.sweep()
        assert not folder.exists()
        assert Path(own).is_dir()
    assert sorted(temporary.iterdir()) == sorted(strangers)


def test_a_number_used_again_by_another_process_protects_no_folder(temporary):
    space, pid, _ = scratch.owner(os.getpid()).split("-")
    before = temporary / f"tinyr1-test-{space}-{pid}-1-abc"
    before.mkdir()
    scratch.sweep()
    assert not before.exists()


def test_a_process_that_is_gone_has_no_name():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert scratch.owner(process.pid) is None
