"""A fault in each kind of process: its cause stands in the first lines that a person sees, the page of the stage is
there, and the same command goes on once the fault is gone.

Small processes stand for DeepSpeed, vLLM and the merge: all three are started by `launch.follow`. What is said of real
ones is tested where they are: tests/branch, tests/sampling, tests/merge, tests/test_kill.py.
"""

import sys

import nbformat
import pytest
from nbformat import v4

from tinyr1 import run
from tinyr1.core import config, launch
from tinyr1.core.config import STAGES
from tinyr1.core.errors import UserError
from tinyr1.report import index

STAGE = STAGES[0]
NOISE = "import atexit, sys; atexit.register(lambda: sys.stderr.write('noise of a library\\n' * 10_000))"
# What happens in a process -> what is said of it.
FAULTS = {
    "raise": ("raise ValueError('no room')", "ValueError: no room"),
    "raise before noise": (f"{NOISE}; raise ValueError('no room')", "ValueError: no room"),
    "reason": (
        "print('error: 2 of 6 requests have no answer:\\n  1 x HTTP 500'); sys.exit(2)",
        "2 of 6 requests have no answer: 1 x HTTP 500",
    ),
    "exit": ("sys.exit(7)", "ended with exit status 7"),
    "kill": ("os.kill(os.getpid(), 9)", "was killed by signal 9 (SIGKILL)"),
    "memory": (
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)); bytearray(4 << 30)", "MemoryError",
    ),
    "disk": (
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)); open('large', 'wb').write(bytes(2 << 20))",
        "OSError: [Errno 27] File too large",
    ),
}  # fmt: skip
CHILD = "import os, resource, sys; print('step 1', flush=True); {}"


def first_lines(text):
    """The first three lines that are not empty."""
    return "\n".join([line for line in text.splitlines() if line][:3])


@pytest.mark.parametrize("fault", FAULTS)
def test_the_cause_of_a_child_that_fails_is_in_the_first_lines_and_the_next_one_is_not_told_of_it(
    fault, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, said = FAULTS[fault]

    def follow(code):
        command = [sys.executable, "-c", CHILD.format(code)]
        launch.follow(command, {}, tmp_path / "log", "math", lambda: None, "step")

    with pytest.raises(UserError) as error:
        follow(code)
    assert said in first_lines(str(error.value))
    assert len(str(error.value).splitlines()) < 50
    follow("pass")
    with pytest.raises(UserError) as error:
        follow("sys.exit(5)")
    assert said not in str(error.value)


def test_of_the_parts_of_an_engine_the_one_that_failed_first_is_the_cause(tmp_path):
    core = [
        "Traceback (most recent call last):", '  File "/site-packages/vllm/v1/engine/core.py", line 7, in run',
        "torch.OutOfMemoryError: CUDA out of memory",
    ]  # fmt: skip
    labelled = "\n".join(f"(EngineCore pid=12) ERROR 01-02 03:04:05 [core.py:9] {line}" for line in core)
    own = "Traceback (most recent call last):\n  File 'x'\nEngineDeadError: see the stack trace above"
    code = f"print({labelled + chr(10) + own!r}); sys.exit(1)"
    with pytest.raises(UserError) as error:
        launch.follow(
            [sys.executable, "-c", CHILD.format(code)], {}, tmp_path / "log", "sampling", lambda: None, "answer"
        )
    assert str(error.value).startswith("sampling: torch.OutOfMemoryError: CUDA out of memory\n")


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "log").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*/log'$"):
        launch.follow([sys.executable, "-c", ""], {}, tmp_path / "log", "math", lambda: None, "step")


def test_a_child_whose_log_has_no_room_for_its_error_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "LEAST", float("inf"))  # no disk has more
    with pytest.raises(UserError, match=r"^math: the command ended with exit status 1; the disk of its log is full: "):
        launch.follow([sys.executable, "-c", "exit(1)"], {}, tmp_path / "log", "math", lambda: None, "step")


# --- whole stages -------------------------------------------------------------------------------------------

FOLLOWED = """
import sys
from tinyr1.core import config, launch
cfg = config.load(run)
words = [sys.executable, "-c", "raise ValueError('no room')"]
launch.follow(words, {}, cfg.home / "logs" / "train-math.log", "math", lambda: None, "step")
"""
GRADER = """
import sys
from tinyr1.evaluate.grading.symbolic import Verifier
sys.executable = "/bin/false"  # stands for the Python that compares
with Verifier() as verifier:
    verifier.compare("1", "$1$")
"""
IN_A_STAGE = {
    "raise": ("raise ValueError('no room')", "ValueError: no room"),
    "sys.exit": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "exit": ("import os; os._exit(3)", "the process of the notebook ended with exit status 3"),
    "memory": ("bytearray(1 << 60)", "MemoryError"),
    "child": (FOLLOWED, "UserError: math: ValueError: no room"),
    "grader": (GRADER, "UserError: Math-Verify does not start: run `python -m tinyr1.evaluate.grading.symbolic"),
}


@pytest.fixture
def cfg(home):
    made = config.load("smol")
    made.home.mkdir()
    return made


@pytest.mark.parametrize("fault", IN_A_STAGE)
def test_a_stage_with_a_fault_names_it_leaves_a_page_and_goes_on_without_it(fault, cfg, tmp_path, monkeypatch, capsys):
    code, said = IN_A_STAGE[fault]
    planted = f"from pathlib import Path\nif not Path({str(tmp_path / 'mended')!r}).exists():\n"
    planted += "\n".join(f"    {line}" for line in code.splitlines())
    end = f"from tinyr1.core import config, record\nrecord.write(config.load(run), {STAGE!r}, {{}}, {{}}, {{}})"
    cells = [
        v4.new_code_cell("run = ''", metadata={"tags": ["parameters"]}),
        *map(v4.new_code_cell, ("print('begun')", planted, end)),
    ]
    nbformat.write(
        v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}}), tmp_path / f"{STAGE}.ipynb"
    )
    monkeypatch.setattr(run, "NOTEBOOKS", tmp_path)
    assert not run.run_stage(cfg, STAGE)
    told = capsys.readouterr().err
    assert said in first_lines(told)
    assert "goes on from here" in told
    assert (cfg.reports / f"{STAGE}.html").is_file()
    assert index.shown_as_running(cfg) is None
    (tmp_path / "mended").touch()
    assert run.run_stage(cfg, STAGE), capsys.readouterr().err
