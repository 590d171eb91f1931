"""A command whose output ends before it: it does its work, and says so once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

WORK = """
import sys
from pathlib import Path
from tinyr1.core.errors import guarded
def work():
    for i in range(5000):
        print("line", i, flush=True)
    print("told", file=sys.stderr)
    Path(sys.argv[1]).touch()
sys.exit(guarded(work))
"""


def started(done, **streams):
    return subprocess.Popen([sys.executable, "-c", WORK, str(done)], text=True, **streams)


def test_a_reader_that_goes_away_does_not_end_the_command(tmp_path):
    process = started(tmp_path / "done", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == "line 0\n"
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait() == 0
    assert said == "the output can no longer be written (Broken pipe); the command goes on without it\ntold\n"
    assert (tmp_path / "done").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_under_both_streams_does_not_end_the_command(tmp_path):
    with open("/dev/full", "w") as full:
        assert started(tmp_path / "done", stdout=full, stderr=full).wait() == 0
    assert (tmp_path / "done").exists()


def test_a_closed_descriptor_does_not_end_the_command(tmp_path):
    process = started(tmp_path / "done", preexec_fn=lambda: (os.close(1), os.close(2)))
    assert process.wait() == 0
    assert (tmp_path / "done").exists()
