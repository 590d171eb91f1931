import pytest

from tinyr1.config import Sandbox
from tinyr1.grade import judge_program
from tinyr1.sandbox import Runner

INPUT = "1\n2\n3\n"


@pytest.fixture(scope="module")
def runner():
    """One runner for all tests of this file: it has to survive every one of them."""
    with Runner(Sandbox(cpu_seconds=1, memory_mb=512)) as running:
        yield running


@pytest.fixture(autouse=True)
def survives(runner):
    yield
    assert runner.process.poll() is None
    assert runner.run("print(sum(map(int, sys.stdin)))", INPUT, "").output == "6\n"


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        "import signal\nsignal.alarm(0)\nimport os\nos.close(1)\nwhile True: pass",
    ],
    ids=["loop", "swallowed exceptions", "ignored signal", "closed output"],
)
def test_a_program_has_no_more_than_its_cpu_time(runner, code):
    assert runner.run(code, "", "").status == "timeout"


def test_a_program_that_only_sleeps_is_stopped_too(runner):
    assert runner.run("import time\ntime.sleep(600)", "", "").status == "timeout"


@pytest.mark.parametrize(
    "code", ["bytearray(1 << 30)", "x = [0] * (1 << 28)", "x = []\nwhile True: x.append(bytearray(1 << 24))"]
)
def test_a_program_has_no_more_than_its_memory(code):
    with Runner(Sandbox(cpu_seconds=9, memory_mb=256)) as patient:  # touching memory takes CPU time too
        result = patient.run(code, "", "")
    assert result.status == "error"
    assert "MemoryError" in result.error


def test_a_program_may_use_memory_below_its_limit(runner):
    assert runner.run("print(len(bytearray(1 << 26)))", "", "").output == f"{1 << 26}\n"


def test_a_program_that_floods_its_output_is_stopped(runner):
    result = runner.run("while True: print('x' * 1000)", "", "")
    assert (result.status, result.output) == ("output_limit", "")


def test_large_input_and_output_below_the_limit_come_through(runner):
    text = "7" * 900_000 + "\n"
    assert runner.run("print(input())", text, "").output == text


@pytest.mark.parametrize(
    "code",
    [
        "open({path!r}, 'w')",
        "open({path!r}, 'a')",
        "os.open({path!r}, os.O_CREAT | os.O_RDWR)",
        "os.mkdir({path!r})",
        "os.symlink('/etc', {path!r})",
        "os.mkfifo({path!r})",
        "os.unlink({kept!r})",
        "os.truncate({kept!r}, 0)",
        "os.rename({kept!r}, {path!r})",
        "os.chmod({kept!r}, 0)",
        "import socket\nsocket.socket()",
        "import socket\nsocket.socketpair()",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.posix_spawn('/bin/true', ['true'], {{}})",
        "import subprocess\nsubprocess.run(['true'])",
        "os.kill(os.getppid(), 9)",
        "os.kill(os.getpid(), 9)",
    ],
)
def test_a_program_is_refused_what_reaches_beyond_it(runner, tmp_path, code):
    kept = tmp_path / "kept"
    kept.write_text("kept")
    result = runner.run("import os\n" + code.format(path=str(tmp_path / "new"), kept=str(kept)), "", "")
    assert result.status == "error"
    assert "PermissionError" in result.error
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    assert kept.read_text() == "kept"
    assert kept.stat().st_mode & 0o400


def test_os_system_starts_nothing(runner):
    assert "hello" not in runner.run("import os\nos.system('echo hello')", "", "").output


def test_a_program_cannot_lift_its_limits(runner):
    result = runner.run("import resource\nresource.setrlimit(resource.RLIMIT_CPU, (99, 99))", "", "")
    assert (result.status, "ValueError" in result.error) == ("error", True)


def test_a_program_sees_nothing_of_the_environment(runner, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    with Runner(Sandbox(cpu_seconds=1, memory_mb=512)) as fresh:
        code = "import os\nprint(os.environ.get('HF_TOKEN'), 'HOME' in os.environ)"
        assert fresh.run(code, "", "").output == "None False\n"


def test_threads_work(runner):
    code = (
        "import threading\nfound = []\n"
        "threads = [threading.Thread(target=found.append, args=(i,)) for i in range(5)]\n"
        "for t in threads: t.start()\nfor t in threads: t.join()\nprint(sorted(found))"
    )
    assert runner.run(code, "", "").output == "[0, 1, 2, 3, 4]\n"


@pytest.mark.parametrize(
    "code",
    [
        "for line in sys.stdin: print(int(line) * 2)",
        "import sys\nfor line in sys.stdin.buffer: print(int(line) * 2)",
        "print(int(input()) * 2)\nprint(*(int(x) * 2 for x in sys.stdin.read().split()), sep='\\n')",
        "for x in open(0).read().split(): print(int(x) * 2)",
        "import os\nfor x in os.read(0, 100).split(): print(int(x) * 2)",
        "while True:\n    try: print(int(input()) * 2)\n    except EOFError: break",
        "import sys\nread = sys.stdin.readline\nwhile (line := read()): print(int(line) * 2)",
    ],
)
def test_every_usual_way_to_read_the_input_works(runner, code):
    result = runner.run(code, INPUT, "")
    assert (result.status, result.output.split()) == ("ok", ["2", "4", "6"])


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("if __name__ == '__main__': print(3)", "3\n"),
        ("n = 1\ndef f():\n    global n\n    n += 1\nf()\nprint(n)", "2\n"),
        ("from __future__ import annotations\nprint(4)", "4\n"),
        ("print(gcd(12, 18), Counter('aab')['a'], isqrt(10))", "6 2 3\n"),  # LiveCodeBench's prelude
        ("def f(n): return n and 1 + f(n - 1)\nprint(f(20000))", "20000\n"),
        ("print(len(str(10 ** 6000)))", "6001\n"),
        ("import sys\nsys.stdout.buffer.write(b'bytes')", "bytes"),
        ("print('é \\u2028')", "é \u2028\n"),
        ("print('a\\0b')", "a\0b\n"),
        ("import sys\nprint('debug', file=sys.stderr)\nprint(5)", "5\n"),
    ],
)
def test_the_output_is_what_a_program_prints(runner, code, output):
    result = runner.run(code, "", "")
    assert (result.status, result.output) == ("ok", output)


@pytest.mark.parametrize(
    "code",
    [
        "exit()",
        "import sys\nsys.exit(1)",
        "raise SystemExit('x')",
        "import os\nsys.stdout.flush()\nos._exit(0)",
    ],
)
def test_a_program_that_exits_is_judged_by_what_it_printed(runner, code):
    result = runner.run(f"print(2)\n{code}", "", "")
    assert (result.status, result.output) == ("ok", "2\n")
    assert judge_program(runner, f"print(2)\n{code}", [{"input": "", "output": "2"}], "") == "correct"
    assert judge_program(runner, code, [{"input": "", "output": "2"}], "") == "wrong"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise ValueError('no')", "ValueError: no"),
        ("print(1)\n1 / 0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError"),
        ("def f(): f()\nf()", "RecursionError"),
        ("import numpy", "ModuleNotFoundError"),
        ("print('a\\0b')\nraise KeyError(3)", "KeyError: 3"),
    ],
)
def test_an_exception_is_an_error_without_output(runner, code, error):
    result = runner.run(code, "", "")
    assert (result.status, result.output) == ("error", "")
    assert result.error.startswith(error)


def test_a_program_that_fails_by_its_exit_status_is_an_error(runner):
    assert runner.run("import os\nprint(1)\nos._exit(3)", "", "").status == "error"


def test_a_crash_of_the_interpreter_is_a_crash(runner):
    assert runner.run("import ctypes\nctypes.string_at(0)", "", "").status == "crash"


@pytest.mark.parametrize(
    ("code", "arguments", "output"),
    [
        ("class Solution:\n    def f(self, a, b):\n        return a + b", "[1]\n[2]", "[1, 2]"),
        ("def f(a, b=0):\n    return a", "7\n", "7"),
        ("def f(a):\n    return (a, (1, 2))", '"x"', '["x", [1, 2]]'),
        ("def f(a):\n    print('noise')\n    return None", "1", "null"),
        ("print('noise')\ndef f(a):\n    return a", '"\u2028"', '"\\u2028"'),
    ],
)
def test_a_function_is_called_with_one_json_argument_a_line(runner, code, arguments, output):
    result = runner.run(code, arguments, "f")
    assert (result.status, result.output) == ("ok", output)


def test_a_function_that_is_not_there_is_an_error(runner):
    assert runner.run("def g(a):\n    return a", "1", "f").status == "error"


def test_a_program_keeps_nothing_for_the_next_test(runner):
    code = "import math\nprint(getattr(math, 'kept', None))\nmath.kept = 1"
    assert [runner.run(code, "", "").output for _ in range(2)] == ["None\n", "None\n"]


def test_expected_outputs_cannot_be_found_in_the_interpreter_that_runs_a_program(runner):
    secret = "-".join(["the", "expected", "output", str(12345 * 678)])
    spy = (
        "import gc\nwanted = '-'.join(['the', 'expected', 'output', ''])\n"
        "inside = lambda o: o.values() if type(o) is dict else o if type(o) in (list, tuple) else ()\n"
        "found = {s for o in gc.get_objects() for s in inside(o)"
        " if type(s) is str and s.startswith(wanted) and s != wanted}\n"
        "frame = sys._getframe()\nwhile frame:\n"
        "    seen = map(str, [*frame.f_locals.values()])\n"
        "    found |= {s for s in seen if s.startswith(wanted) and s != wanted}\n"
        "    frame = frame.f_back\n"
        "print(next(iter(found), 'nothing'))"
    )
    tests = [{"input": "", "output": secret}]
    assert judge_program(runner, spy, tests, "") == "wrong"
    assert runner.run(spy, "", "").output == "nothing\n"
    planted = f"kept = ['{secret}']\n{spy}"  # the spy does find what is there
    assert judge_program(runner, planted, tests, "") == "correct"
