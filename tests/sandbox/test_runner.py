import os
import signal
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from processes import children, ended

from tinyr1.core.params.evaluation import Sandbox
from tinyr1.evaluate.grading.programs import judge_program
from tinyr1.sandbox import forkserver, probes, syscalls
from tinyr1.sandbox import runner as sandbox
from tinyr1.sandbox.forkserver import Refused, SandboxError
from tinyr1.sandbox.runner import Runner

INPUT = "1\n2\n3\n"
LIMITS = Sandbox(cpu_seconds=1, memory_mb=512, semantics="real", isolation="landlock")


def limits(**changes):
    return LIMITS.model_copy(update=changes)


@pytest.fixture(scope="module")
def runner():
    """One runner for all tests of this file: it has to survive every one of them."""
    with Runner(LIMITS) as running:
        yield running


@pytest.fixture(autouse=True)
def survives(runner):
    yield
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
    with Runner(limits(cpu_seconds=9, memory_mb=256)) as patient:  # touching memory takes CPU time too
        result = patient.run(code, "", "")
    assert result.status == "memory"
    assert "MemoryError" in result.error


def test_a_program_may_use_memory_below_its_limit(runner):
    assert runner.run("print(len(bytearray(1 << 26)))", "", "").output == f"{1 << 26}\n"


def test_a_program_that_floods_its_output_is_stopped(runner):
    result = runner.run("while True: print('x' * 1000)", "", "")
    assert (result.status, result.output) == ("output_limit", "")


def test_large_input_and_output_below_the_limit_come_through(runner):
    text = "7" * 900_000 + "\n"
    assert runner.run("print(input())", text, "").output == text


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
    assert judge_program(runner, f"print(2)\n{code}", [{"input": "", "output": "2"}], "").outcome == "correct"
    assert judge_program(runner, code, [{"input": "", "output": "2"}], "").outcome == "wrong"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise ValueError('no')", "ValueError: no"),
        ("print(1)\n1 / 0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError"),
        ("def f(): f()\nf()", "RecursionError"),
        ("import no_such_module", "ModuleNotFoundError"),
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
        ("def f(a):\n    return (a, (1, 2))", '"x"', '["x", {"o": "tuple"}]'),
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


@pytest.mark.parametrize(
    ("value", "output"),
    [
        ("{'a': 1, 2: [3]}", '{"d": [["a", 1], [2, [3]]]}'),
        ("__import__('numpy').int64(3)", "3"),
        ("[__import__('numpy').bool_(True), __import__('numpy').float64(.5)]", "[true, 0.5]"),
        ("__import__('numpy').ones(2)", '{"o": "ndarray"}'),
        ("{1}", '{"o": "set"}'),
        ("collections.deque([1])", '{"o": "deque"}'),
        ("collections.Counter('a')", '{"d": [["a", 1]]}'),
        ("(1, (2,))", '[1, {"o": "tuple"}]'),
    ],
)
def test_a_returned_value_keeps_what_can_equal_json(runner, value, output):
    result = runner.run(f"def f(a):\n    return {value}", "1", "f")
    assert (result.status, result.output) == ("ok", output)


def test_a_function_that_exits_is_an_error(runner):
    for leave in ("exit()", "import os; os._exit(0)"):
        assert runner.run(f"def f(a):\n    {leave}", "1", "f").status == "error"


def test_what_was_used_is_described(runner):
    found = runner.description()
    assert found["isolation"] == "landlock"
    assert found["layers"] == ["rlimits", "landlock", "seccomp"]
    assert found["landlock_abi"] >= 1
    assert found["identity"].startswith("private user" if os.geteuid() == 0 else "own user")
    assert set(found["probes"]) > set(probes.PROBES)
    assert {found["probes"][name] for name in probes.PROBES} == {"PermissionError"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives programs another user")
def test_an_interpreter_in_a_private_folder_can_still_be_read(monkeypatch, tmp_path):
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    private.joinpath("late.py").write_text("x = 1")
    private.joinpath("late.py").chmod(0o600)
    monkeypatch.setattr(forkserver, "SYSTEM", (*forkserver.SYSTEM, str(private)))
    with Runner(LIMITS) as running:
        assert running.description()["identity"].startswith("private user with CAP_DAC_")
        code = f"import sys, os\nsys.path.append({str(private)!r})\nimport late\nprint(late.x, os.getuid() > 0)"
        assert running.run(code, "").output == "1 True\n"
        beside = running.run(f"open({str(tmp_path / 'private' / '..' / 'beside')!r}, 'w')", "")
        assert beside.error.startswith("PermissionError")
        assert running.run("open('/etc/shadow').read()", "").error.startswith("PermissionError")


def test_without_a_layer_programs_are_refused(monkeypatch):
    """The probes notice it: first the filter is left out, then Landlock."""
    before = sandbox.SLOTS.copy()
    monkeypatch.setattr(sandbox, "LAYERS", ("rlimits", "landlock"))
    with pytest.raises(Refused, match=r"a test program could: fork, .*What is needed"), Runner(LIMITS):
        pass
    monkeypatch.setattr(sandbox, "LAYERS", ("rlimits", "seccomp"))
    with pytest.raises(Refused, match="a test program could: read a file, .*list /proc"), Runner(LIMITS):
        pass
    assert before == sandbox.SLOTS


def test_a_kernel_without_a_layer_is_refused(monkeypatch):
    monkeypatch.setattr(sandbox, "LAYERS", ("rlimits", "landlock", "no-such-layer"))
    with pytest.raises(Refused, match="this kernel has no no-such-layer"), Runner(LIMITS):
        pass


def test_bubblewrap_is_refused_where_it_is_not(monkeypatch):
    monkeypatch.setattr(sandbox.shutil, "which", lambda _: None)
    with pytest.raises(Refused, match="there is no program bwrap"), Runner(limits(isolation="bubblewrap")):
        pass
    with Runner(limits(isolation="auto")) as running:
        assert running.description()["isolation"] == "landlock"


def test_auto_goes_on_where_bubblewrap_does_not_work(monkeypatch):
    monkeypatch.setattr(sandbox.shutil, "which", lambda _: "/bin/false")
    with Runner(limits(isolation="auto")) as running:
        assert running.description()["isolation"] == "landlock"
    with pytest.raises(Refused, match="bubblewrap: the fork-server ended"), Runner(limits(isolation="bubblewrap")):
        pass


def test_running_without_isolation_takes_two_acts_and_is_never_allowed_to_root(monkeypatch):
    monkeypatch.delenv(sandbox.CONFIRMATION, raising=False)
    monkeypatch.setattr(sandbox.os, "geteuid", lambda: 1000)
    with pytest.raises(Refused, match=sandbox.CONFIRMATION), Runner(limits(isolation="none")):
        pass
    monkeypatch.setenv(sandbox.CONFIRMATION, "yes")
    with pytest.raises(Refused, match=sandbox.CONFIRMATION), Runner(limits(isolation="none")):
        pass
    monkeypatch.setenv(sandbox.CONFIRMATION, sandbox.CONFIRMED)
    with Runner(limits(isolation="none")) as running:
        assert running.run("print(1)", "").output == "1\n"
        assert running.description()["isolation"] == "none"
        assert running.description()["layers"] == ["rlimits"]
    monkeypatch.setattr(sandbox.os, "geteuid", lambda: 0)
    with pytest.raises(Refused, match="never allowed as root"), Runner(limits(isolation="none")):
        pass


def test_a_fork_server_that_dies_is_replaced_after_one_error():
    with Runner(LIMITS) as running:
        running.server.process.kill()
        running.server.process.wait()
        with pytest.raises(SandboxError):
            running.run("print(1)", "")
        assert running.run("print(1)", "").output == "1\n"


def test_an_interrupted_execution_does_not_answer_for_the_next():
    def accept(i, output):
        raise KeyboardInterrupt

    with Runner(limits(semantics="lcb-compat")) as running:
        with pytest.raises(KeyboardInterrupt):
            running.run_all("print(1)", ["", ""], "", accept)
        assert [r.output for r in running.run_all("print(2)", ["", ""], "", lambda *_: True)] == ["2\n", "2\n"]


def test_a_fork_server_that_dies_does_not_decide_about_a_program():
    tests = [{"input": "", "output": "1"}]
    with Runner(LIMITS) as running:
        running.server.process.kill()
        running.server.process.wait()
        assert judge_program(running, "print(1)", tests, "").outcome == "correct"


def test_a_program_that_is_killed_from_outside_once_is_run_again():
    tests = [{"input": "", "output": "1"}]
    with Runner(LIMITS) as running:
        victims = []

        def kill():
            while not victims:
                victims.extend(children(running.server.process.pid))
            os.kill(victims[0], signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        assert judge_program(running, "import time\ntime.sleep(0.5)\nprint(1)", tests, "").outcome == "correct"
        killer.join()


def test_nothing_runs_on_when_the_judge_is_killed():
    code = (
        "import sys, threading\n"
        "from tinyr1.core.params.evaluation import Sandbox\nfrom tinyr1.sandbox.runner import Runner\n"
        "with Runner(Sandbox(cpu_seconds=600, memory_mb=512, semantics='real', isolation='landlock')) as r:\n"
        "    print(r.server.process.pid, r.server.folder.name, flush=True)\n    r.run('while True: pass', '')"
    )
    root = Path(sandbox.__file__).parents[2]
    judge = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root)
    zygote, folder = judge.stdout.readline().split()
    zygote = int(zygote)
    time.sleep(0.5)
    judge.kill()
    judge.wait()
    judge.stdout.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and (not ended(zygote) or children(zygote)):
        time.sleep(0.05)
    assert ended(zygote)
    assert not children(zygote)
    assert not Path(folder).exists()


def test_runners_in_threads_have_slots_of_their_own():
    barrier = threading.Barrier(3)

    def work(i):
        with Runner(LIMITS) as running:
            barrier.wait()
            found = [running.run(f"import os\nprint({i}, os.getuid())", "").output.split() for _ in range(20)]
            barrier.wait()
            return running.slot, {tuple(line) for line in found}

    with ThreadPoolExecutor(3) as pool:
        slots, found = zip(*pool.map(work, range(3)), strict=True)
    assert len(set(slots)) == 3
    assert all(len(lines) == 1 for lines in found)
    uids = {uid for lines in found for _, uid in lines}
    assert len(uids) == (3 if os.geteuid() == 0 else 1)


def test_alone_means_that_no_other_runner_executes():
    running, seen = set(), []
    turns = sandbox.Turns()

    def work(i):
        with turns.take(alone=i % 5 == 0):
            running.add(i)
            time.sleep(0.005)
            seen.append((i, len(running)))
            running.discard(i)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(60)))
    assert all(count == 1 for i, count in seen if i % 5 == 0)
    assert max(count for _, count in seen) > 1


@pytest.mark.parametrize(
    ("ranges", "low", "high"),
    [
        ("0 0 4294967295", 3 << 30, (1 << 32) - 8000),
        ("0 100000 65536", 40000, 57345),
        ("0 1000 1\n1 100000 65536", 40000, 57346),
    ],
)
def test_private_users_lie_inside_what_the_namespace_has(ranges, low, high):
    found = {forkserver.private_uid(slot, ranges, 4321) for slot in range(64)}
    assert len(found) == 64
    assert low < min(found) <= max(found) < high


def test_a_namespace_of_one_user_has_no_private_ones():
    assert forkserver.private_uid(0, "0 1000 1", 1) is None


@pytest.mark.parametrize(
    ("machine", "header"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
    ],
)
def test_numbers_of_system_calls_are_those_of_the_kernel(machine, header):
    if not Path(header).is_file():
        pytest.skip(f"{header} is not installed (linux-libc-dev)")
    words = [line.split() for line in Path(header).read_text().splitlines() if line.startswith("#define __NR")]
    pairs = [(w[1].removeprefix("__NR3264_").removeprefix("__NR_"), w[2]) for w in words if len(w) == 3]
    kernel = {name: int(number) for name, number in pairs if number.isdigit()}
    column = syscalls.MACHINES.index(machine)
    tables = syscalls.DENIED | syscalls.FILTERED | syscalls.ABSENT
    ours = {name: numbers[column] for name, numbers in tables.items() if numbers[column] is not None}
    assert ours == {name: kernel[name] for name in ours}
    missing = {name for name, numbers in tables.items() if numbers[column] is None}
    assert not missing & set(kernel)


@pytest.mark.parametrize("machine", syscalls.MACHINES)
@pytest.mark.parametrize("writing", [True, False])
def test_the_filter_decides_as_its_tables_say(machine, writing):
    program = syscalls.filter_program(machine, writing)
    column = syscalls.MACHINES.index(machine)
    arch = syscalls.AUDIT_ARCH[machine]

    def decide(number, *arguments, arch=arch):
        return _bpf(program, number, arch, arguments)

    tables = syscalls
    denied = {numbers[column] for numbers in tables.DENIED.values()} - {None}
    filtered = {numbers[column] for numbers in tables.FILTERED.values()} - {None}
    absent = {numbers[column] for numbers in tables.ABSENT.values()}
    for number in range(600):
        due = tables.DENY if number in denied else tables.ALLOW
        due = tables.NO_SUCH_CALL if number in absent or number > tables.LAST_KNOWN else due
        assert number in filtered or decide(number) == due, number
    call = {name: numbers[column] for name, numbers in tables.FILTERED.items()}
    assert decide(call["clone"], 0x3D0F00) == tables.ALLOW  # what a thread library asks for
    assert decide(call["clone"], 17) == decide(call["clone"], 0x10000 | 0x40000000) == tables.DENY
    assert decide(call["openat"], 0, 0, 0) == tables.ALLOW
    assert decide(call["openat"], 0, 0, 0o101) == (tables.ALLOW if writing else tables.DENY)
    assert decide(call["fcntl"], 0, 1030) == decide(call["ioctl"], 0, 0x5451) == tables.ALLOW
    assert decide(call["fcntl"], 0, 6) == decide(call["ioctl"], 0, 0x5412) == decide(call["prctl"], 4) == tables.DENY
    assert decide(call["prlimit64"], 0) == tables.ALLOW
    assert decide(call["prlimit64"], 1) == tables.DENY
    assert decide(0, arch=0x40000003) == tables.KILL
    if machine == "x86_64":
        assert decide(0x40000000) == tables.KILL


def _bpf(program, number, arch, arguments):
    """A seccomp filter's answer, by interpreting its instructions."""
    data = {0: number, 4: arch} | {16 + 8 * i: value for i, value in enumerate((*arguments, 0, 0, 0, 0, 0, 0)[:6])}
    steps = [struct.unpack("HBBI", program[i : i + 8]) for i in range(0, len(program), 8)]
    at = register = 0
    while True:
        code, yes, no, value = steps[at]
        if code == 0x06:
            return value
        if code == 0x20:
            register, at = data[value], at + 1
            continue
        test = {0x15: register == value, 0x25: register > value, 0x45: register & value != 0}[code]
        at += 1 + (yes if test else no)


def test_a_filter_for_another_machine_is_refused():
    with pytest.raises(ValueError, match="machine 'riscv64'"):
        syscalls.filter_program("riscv64", True)
