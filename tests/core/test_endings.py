"""What is said of a child that failed: the signal, the memory and the exception of the rank that failed first."""

import subprocess
import sys

import psutil
import pytest

from tinyr1.core import endings

HELD = 'x = bytearray(200_000_000); print("held", flush=True); input()'


def memory(left, held, ran_out=False):
    seen = endings.Memory()
    seen.left, seen.held = left, held
    seen._killed -= ran_out
    return seen


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (3, "ended with exit status 3"),
        (-15, "was killed by signal 15 (SIGTERM)"),
        (-11, "was killed by signal 11 (SIGSEGV)"),
        (134, "was killed by signal 6 (SIGABRT)"),  # of a shell
        (245, "was killed by signal 11 (SIGSEGV)"),  # of a launcher: -11 as a byte
        (255, "ended with exit status 255"),
        (-9, "was killed by signal 9 (SIGKILL); the machine had 30.0 GB of memory left, the process held 2.0 GB"),
    ],
)
def test_statuses_and_signals_are_told_in_words(monkeypatch, status, said):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("V", (), {"total": 64e9, "available": 30e9}))
    assert endings.told(status, memory(30e9, 2e9)) == said


@pytest.mark.parametrize("status", [-9, 137, 247])
def test_a_process_that_the_system_ended_for_want_of_memory_is_told_so(status):
    said = endings.told(status, memory(0.3e9, 21e9, ran_out=True))
    assert "killed by signal 9" in said
    assert "the machine had 0.3 GB of memory left, the process held 21.0 GB: out of memory; end other programs" in said


def test_little_memory_left_counts_as_none(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("V", (), {"total": 64e9, "available": 9e9}))
    assert "out of memory" in endings.told(-9, memory(1e9, 60e9))
    assert "out of memory" not in endings.told(-9, memory(9e9, 50e9))


def test_what_a_process_and_its_children_hold_is_seen():
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HELD!r}])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        seen = endings.Memory()
        seen.look(process.pid)
        process.communicate(b"\n")
    assert 200_000_000 < seen.held < 400_000_000
    before = seen.held
    seen.look(process.pid)  # it has ended
    assert seen.held == before
    assert 0 < seen.left < float("inf")


FAILED = """Traceback (most recent call last):
  File "/kits/my kit/tinyr1/branch/train.py", line 12, in main
    fine_tune(plan)
  File "/kits/my kit/.venv/lib/python3.11/site-packages/torch/x.py", line 7, in call
    raise ValueError("no room")
ValueError: no room"""


def of_rank(rank, text):
    return "\n".join(f"[rank{rank}]: {line}" for line in text.splitlines())


NOISE = "\n".join(f"nanobind: leaked {i} instances" for i in range(10_000))


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (f"step 1\n{FAILED}\n{NOISE}", "ValueError: no room, at tinyr1/branch/train.py:12"),
        (f"{FAILED.replace('no room', 'old')}\nstep 2\n{FAILED}", "ValueError: no room, at tinyr1/branch/train.py:12"),
        (f"{of_rank(2, FAILED)}\n{of_rank(0, FAILED.replace('no room', 'the other rank is gone'))}\n{FAILED}",
         "ValueError: no room, at tinyr1/branch/train.py:12"),
        ("Traceback (most recent call last):\n  File \"a.py\", line 1\nKeyError: 'x'", "KeyError: 'x'"),
        ("step 1\nstep 2", ""),
        ("Traceback (most recent call last):\n  File", ""),
    ],
)  # fmt: skip
def test_the_exception_of_the_rank_that_failed_first_is_the_cause(log, said):
    assert endings.cause(log) == said
