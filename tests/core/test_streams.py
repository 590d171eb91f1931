"""A command whose output ends before it: it does its work, and says so once. One whose terminal is closed ends."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from tinyr1.core.errors import guarded

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


# Modules that are started by name and do not print for a person.
SILENT = {
    "branch.answer": "its output is a log", "branch.hosts": "its output is read on another host",
    "branch.meeting": "its output is a log", "branch.probe": "its output is read by the plan",
    "branch.train": "its output is a log", "core.params": "it writes two files of the repository",
    "environment": "it has to start without the packages of the kit",
    "evaluate.grading.symbolic": "its output is a pipe of the graders", "merge.collapse": "its output is a log",
}  # fmt: skip


def test_every_command_goes_on_without_its_output():
    started = {
        ".".join(path.relative_to(ROOT / "tinyr1").with_suffix("").parts).removesuffix(".__main__"): text
        for path in (ROOT / "tinyr1").rglob("*.py") if 'if __name__ == "__main__"' in (text := path.read_text("utf-8"))
    }  # fmt: skip
    inside = {name for name in started if name.startswith("sandbox.")}
    assert {name for name, text in started.items() if not re.search(r"\bguarded\(", text)} == {*SILENT, *inside}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_real_command_does_its_work_on_a_full_disk():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tinyr1.plan", "smoke"], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    said = "the output can no longer be written (No space left on device); the command goes on without it\n"
    assert (done.returncode, done.stderr) == (0, said)


HANGING = """
import sys, time
from tinyr1.core.errors import guarded
def work():
    print("begun", flush=True)
    time.sleep(float(sys.argv[1]))
sys.exit(guarded(work, "interrupted; the same command goes on"))
"""


@pytest.mark.parametrize(
    ("handler", "seconds", "end"),
    [(signal.SIG_DFL, 300, (130, "\ninterrupted; the same command goes on\n")), (signal.SIG_IGN, 3, (0, ""))],
    ids=["terminal", "nohup"],
)
def test_a_terminal_that_is_closed_ends_a_command_in_a_sentence_but_not_under_nohup(handler, seconds, end):
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING, str(seconds)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, handler),
    )  # fmt: skip
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == end


def test_an_error_of_a_full_disk_says_what_to_do(capsys):
    def work():
        raise OSError(28, "No space left on device", "rows.jsonl")

    assert guarded(work) == 2
    assert capsys.readouterr().err == (
        "error: [Errno 28] No space left on device: 'rows.jsonl'; free some space and repeat the command\n"
    )
