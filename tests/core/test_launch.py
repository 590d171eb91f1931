"""What a started process does on its own (imports that last), and how one that fails is reported."""

import gc
import os
import signal
import sys
import threading
import time

import pytest

from tinyr1.core import launch
from tinyr1.core.errors import UserError


def imports(error: Exception | None) -> None:
    with launch.lasting_imports():
        assert not gc.isenabled()
        if error:
            raise error


@pytest.mark.parametrize("error", [None, ImportError("no such module")])
def test_garbage_is_collected_again_after_imports(error):
    frozen = gc.get_freeze_count()
    try:
        if error:
            with pytest.raises(ImportError):
                imports(error)
        else:
            imports(None)
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen, "what was imported stays"
    finally:
        gc.unfreeze()


# --- the excerpt of a log ---------------------------------------------------------------------------------------

TRACEBACK = """Traceback (most recent call last):
  File "tinyr1/sampling/process.py", line 7, in <module>
    raise ValueError("no room")
ValueError: no room"""
LEAKS = """nanobind: leaked 3 instances!
 - leaked instance 0x7f86 of type "xgrammar.xgrammar_bindings.GrammarCompiler"
 - leaked instance 0x7f87 of type "xgrammar.xgrammar_bindings.TokenizerInfo"
 - ... skipped remainder
nanobind: leaked 5 types!
 - leaked type "xgrammar.xgrammar_bindings.Grammar"
nanobind: this is likely caused by a reference counting issue in the binding code."""
STEPS = "\n".join(f"step {i}" for i in range(100))


def test_an_excerpt_ends_with_the_exception_and_not_with_what_libraries_print_later():
    excerpt = launch.error_excerpt(f"{STEPS}\n{TRACEBACK}\n{LEAKS}\n")
    assert excerpt.endswith(TRACEBACK)
    assert "step 99" in excerpt, "with its context"
    assert len(excerpt.splitlines()) == launch.CONTEXT_LINES


def test_unknown_noise_after_the_error_is_cut_down_to_its_ends():
    excerpt = launch.error_excerpt(f"{TRACEBACK}\n{STEPS}").splitlines()
    assert excerpt[:4] == TRACEBACK.splitlines()
    assert excerpt[4:] == ["step 0", "step 1", "step 2", "step 3", "[… 92 lines …]",
                           "step 96", "step 97", "step 98", "step 99"]  # fmt: skip


def test_the_reasons_behind_an_error_line_are_shown():
    said = "error: 2 of 6 requests have no answer:\n  1 x HTTP 500\n  1 x APITimeoutError"
    assert launch.error_excerpt(f"{STEPS}\n{said}\n{LEAKS}").endswith(said)


def test_of_two_errors_the_last_is_shown():
    assert launch.error_excerpt(f"{TRACEBACK}\n{STEPS}\nerror: the disk is full\n{LEAKS}").endswith("the disk is full")
    assert launch.error_excerpt(f"error: first\n{STEPS}\n{TRACEBACK}\n{LEAKS}").endswith("ValueError: no room")


def test_the_cause_of_an_exception_stays_in_the_excerpt():
    chained = f"{TRACEBACK}\n\nThe above exception was the direct cause of the following exception:\n\n"
    chained += TRACEBACK.replace("ValueError: no room", "RuntimeError: the engine died")
    excerpt = launch.error_excerpt(f"{STEPS}\n{chained}\n{LEAKS}")
    assert excerpt.endswith("RuntimeError: the engine died")
    assert "ValueError: no room" in excerpt


@pytest.mark.parametrize("prefix", ["[rank1]: ", "(EngineCore pid=12) ERROR 01-02 03:04:05 [core.py:9] "])
def test_a_traceback_is_found_behind_what_a_launcher_puts_before_each_line(prefix):
    prefixed = "\n".join(prefix + line for line in TRACEBACK.splitlines())
    excerpt = launch.error_excerpt(f"{prefixed}\n{STEPS}").splitlines()
    assert excerpt[3:5] == [f"{prefix}ValueError: no room", "step 0"]


@pytest.mark.parametrize(
    ("log", "excerpt"),
    [("", ""), (STEPS, "\n".join(STEPS.splitlines()[-25:])), (f"step 1\n{LEAKS}", "step 1"),
     ("Traceback (most recent call last):\n  File", "Traceback (most recent call last):\n  File")],
)  # fmt: skip
def test_without_a_whole_error_the_end_of_the_log_is_shown(log, excerpt):
    assert launch.error_excerpt(log) == excerpt


def test_a_command_that_fails_is_reported_with_its_own_error_and_not_with_that_of_an_earlier_one(tmp_path):
    log = tmp_path / "log" / "a.log"

    def follow(error):
        code = f"import sys; print('starts'); sys.stdout.flush(); {error}"
        launch.follow([sys.executable, "-c", code], {"MARK": "a b"}, log, "work", lambda: (1, 2, ""), "step")

    with pytest.raises(UserError, match="ZeroDivisionError") as error:
        follow("1 / 0")
    assert f"From {log}:\nstarts\nTraceback" in str(error.value)
    assert str(error.value).startswith("work: ZeroDivisionError: division by zero\nwork: the command ended with exit")
    assert "To run it alone: MARK='a b' " in str(error.value)
    with pytest.raises(UserError, match=r"exit status 3\. From .*\nstarts\nTo run it alone") as error:
        follow("sys.exit(3)")
    with pytest.raises(UserError, match=r"^work: the command was killed by signal 9 \(SIGKILL\)"):
        follow("import os; os.kill(os.getpid(), 9)")
    follow("pass")
    assert log.read_text().count("\nstarts\n") == 4


STOPPABLE = "import sys, time, pathlib\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.05)\nprint('stored')"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, None], ids=["SIGTERM", "SIGUSR1", "asked"])
def test_a_command_that_listens_ends_by_itself_with_its_work_stored(tmp_path, number):
    work, log = tmp_path / "branches" / "math.work", tmp_path / "log"
    work.mkdir(parents=True)
    stop = work / launch.STOP
    stop.touch()  # of an earlier one
    before = [signal.getsignal(one) for one in launch.SIGNALS]

    def ask():
        while not (work / launch.LISTENER).exists():
            time.sleep(0.05)
        time.sleep(0.5)
        assert not stop.exists()
        if number is None:
            assert launch.ask_to_stop(tmp_path)
        else:
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=ask)
    thread.start()
    launch.follow([sys.executable, "-c", STOPPABLE, str(stop)], {}, log, "work", lambda: None, "step", stop=stop)
    thread.join()
    assert log.read_text().endswith("stored\n")
    assert not (work / launch.LISTENER).exists()
    assert [signal.getsignal(one) for one in launch.SIGNALS] == before
    assert not launch.ask_to_stop(tmp_path), "nothing listens any more"
    (work / launch.LISTENER).write_text("999999999")  # of a process that was killed
    assert not launch.ask_to_stop(tmp_path)
