"""The 42 escape tests of docs/evaluation.md §3.8: hostile programs, and ordinary ones that must still work.

Run as root the programs get a user of their own; the last test then runs this file, test_runner.py and
test_ordinary.py once more as an ordinary user, and some of it as the root of a container.
"""

import base64
import errno
import json
import os
import pickle
import platform
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import ROOT
from processes import descendants

from tinyr1.core.errors import UserError
from tinyr1.core.params.domains import LiveCodeBenchmark
from tinyr1.core.params.evaluation import Sandbox
from tinyr1.data import benchmarks
from tinyr1.evaluate.grading.programs import judge_program
from tinyr1.sandbox import syscalls
from tinyr1.sandbox.runner import Runner

LIMITS = Sandbox(cpu_seconds=1, memory_mb=1024, semantics="real", isolation="landlock")
ISOLATIONS = ("landlock", *(("bubblewrap",) if shutil.which("bwrap") else ()))
COLUMN = syscalls.MACHINES.index(platform.machine())
CONTROL = ("print(sum(map(int, sys.stdin)))", "1\n2\n3\n", "6\n")
SECRET = f"the-secret-{123456 * 7 % 1000000:06d}"
ORDINARY_UID = 54321
INTERPRETER = Path(os.__file__)


@pytest.fixture(scope="module", params=ISOLATIONS)
def runner(request):
    """One for all: it has to survive every one of them."""
    with Runner(LIMITS.model_copy(update={"isolation": request.param})) as running:
        yield running


@pytest.fixture
def folder():
    """A folder that everybody may use, with files that everybody may read and change: a token, a data set, results."""
    with tempfile.TemporaryDirectory(prefix="tinyr1-open-") as name:
        os.chmod(name, 0o777)
        for file in ("token", "dataset.jsonl", "results.json"):
            Path(name, file).write_text(SECRET)
            os.chmod(Path(name, file), 0o666)
        yield name


def traces(runner, folder):
    """What a program could leave behind."""
    ipc = [Path(f"/proc/sysvipc/{kind}").read_text() for kind in ("shm", "sem", "msg")]
    shm = sorted(os.listdir("/dev/shm"))
    files = {path.name: (path.stat().st_mode, path.read_text()) for path in Path(folder).iterdir()}
    working = sorted(path.name for path in Path(runner.server.folder.name).glob("*"))
    return ipc, shm, files, working, INTERPRETER.stat().st_mtime_ns, INTERPRETER.stat().st_mode


@pytest.fixture(autouse=True)
def unharmed(request):
    """The fork-server lives or was replaced, the next program runs, nothing is left."""
    if "runner" not in request.fixturenames or "folder" not in request.fixturenames:
        yield
        return
    runner, folder = request.getfixturevalue("runner"), request.getfixturevalue("folder")
    assert runner.run(CONTROL[0], CONTROL[1]).output == CONTROL[2]
    before, processes = traces(runner, folder), len(descendants(runner.server.process.pid))
    yield
    assert runner.run(CONTROL[0], CONTROL[1]).output == CONTROL[2]
    assert traces(runner, folder) == before
    assert len(descendants(runner.server.process.pid)) == processes


def wrong(runner, code, expected="right", func_name="", text=""):
    """The program does not pass; its verdict."""
    verdict = judge_program(runner, code, [{"input": text, "output": expected}], func_name)
    assert verdict.outcome == "wrong", verdict
    return verdict


def denied(runner, code, absent=False):
    """Every line of the program, tried by itself, is refused. absent: it may also be that there is no such file."""
    refusals = {errno.EPERM, errno.EACCES}
    if absent or runner.limits.isolation == "bubblewrap":
        refusals |= {errno.ENOENT, errno.EROFS}
    program = (
        "import os, sys\ndef attempt(line):\n    try:\n        exec(line, {'os': os})\n"
        f"    except BaseException as e:\n        if getattr(e, 'errno', 0) in {refusals!r}: return\n"
        "        print('OTHER', line, type(e).__name__, e)\n        return\n"
        f"    print('ESCAPED', line)\nfor line in {code.splitlines()!r}: attempt(line)\nprint('end')"
    )
    result = runner.run(program, "")
    assert (result.status, result.output) == ("ok", "end\n"), result


def calls_denied(runner, names):
    """Raw system calls, made with every argument zero, fail with EPERM."""
    numbers = {name: syscalls.DENIED[name][COLUMN] for name in names.split()}
    code = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"for name, number in {[(k, v) for k, v in numbers.items() if v is not None]!r}:\n"
        "    got = libc.syscall(number, 0, 0, 0, 0, 0, 0)\n"
        f"    if got != -1 or ctypes.get_errno() != {errno.EPERM}: print(name, got, ctypes.get_errno())\nprint('end')"
    )
    result = runner.run(code, "")
    assert (result.status, result.output) == ("ok", "end\n"), result


def test_01_exit_before_any_output(runner, folder):
    assert wrong(runner, "import os\nos._exit(0)").status == "ok"


def test_02_right_output_but_a_failing_exit_status(runner, folder):
    code = "import os\nprint('right', flush=True)\nos._exit({})"
    assert wrong(runner, code.format(1)).status == "error"
    tests = [{"input": "", "output": "right"}]
    assert judge_program(runner, code.format(0), tests, "").outcome == "correct"  # an ordinary end, and right


FRAMES = (
    "seen, frame = [], sys._getframe()\nwhile frame:\n    seen += map(repr, [*frame.f_locals.values(), "
    "*frame.f_globals.values()])\n    frame = frame.f_back\n"
)
OBJECTS = "import gc\nseen = [repr(o)[:1 << 16] for o in gc.get_objects() if type(o) in (dict, list, tuple, str)]\n"
FOUND = "import re\nfound = re.findall('the-' + 'secret-[0-9]{6}', ' '.join(seen))\nprint((found or ['none'])[0])"


@pytest.mark.parametrize("spy", [FRAMES, OBJECTS], ids=["03 frames", "04 objects"])
def test_03_04_expected_outputs_are_not_in_the_interpreter_of_a_program(runner, folder, spy):
    wrong(runner, spy + FOUND, SECRET)
    assert runner.run(spy + FOUND, "").output == "none\n"
    assert runner.run(f"kept = [{SECRET!r}]\n{spy}{FOUND}", "").output == SECRET + "\n"  # it finds what is there


SCAN = (
    "import ctypes, os, re\nlibc, (r, w) = ctypes.CDLL(None), os.pipe()\n"
    "pattern = re.compile(b'the-' + b'secret-[0-9]{6}')\n"
    "end = libc.sbrk\nend.restype = ctypes.c_void_p\ncentres = [id(object()), id(bytes(1 << 20)), end(0), id(sys)]\n"
    "found, done = 'none', set()\nfor centre in centres:\n"
    "    for page in range((centre >> 12) - 2048, (centre >> 12) + 2048):\n"
    "        if page in done or libc.write(w, ctypes.c_void_p(page << 12), 4096) != 4096: continue\n"
    "        done.add(page)\n        hit = pattern.search(os.read(r, 4096))\n        if hit: found = hit[0].decode()\n"
    "print(found)"
)


def test_05_expected_outputs_and_earlier_programs_are_not_in_memory(runner, folder):
    patient = runner.limits
    runner.limits = patient.model_copy(update={"cpu_seconds": 9})
    try:
        assert runner.run(f"kept = {SECRET!r} * 3\n{SCAN}", "").output == SECRET + "\n"  # it finds what is there
        for _ in range(3):
            runner.run(f"kept = {SECRET!r}\nprint(kept)", SECRET)
        assert runner.run(SCAN, "").output == "none\n"
        wrong(runner, SCAN, SECRET)
    finally:
        runner.limits = patient
    denied(runner, "open('/proc/self/mem', 'rb')\nopen('/proc/self/maps')")


SAME = "    __eq__ = lambda *_: True\n    __ne__ = lambda *_: False\n    __hash__ = lambda *_: 0\n"


@pytest.mark.parametrize("kind", ["object", "list", "dict", "set", "Exception"])
def test_06_a_value_that_claims_to_equal_everything(runner, folder, kind):
    wrong(runner, f"class Same({kind}):\n{SAME}def f(a):\n    return Same()", "[1]", "f", "1")


@pytest.mark.parametrize(
    ("kind", "value", "expected"), [("int", "1", "2"), ("str", "'a'", '"b"'), ("float", "1.0", "2.0")]
)
def test_07_a_subclass_with_another_equality_is_judged_by_its_value(runner, folder, kind, value, expected):
    code = f"class Same({kind}):\n{SAME}    __str__ = __repr__ = lambda s: '2'\ndef f(a):\n    return Same({{}})"
    wrong(runner, code.format(value), expected, "f", "1")
    tests = [{"input": "1", "output": expected}]
    assert judge_program(runner, code.format(repr(json.loads(expected))), tests, "f").outcome == "correct"


@pytest.mark.parametrize(
    "patch",
    [
        "import json\njson.dumps = lambda *a, **k: '[1]'\njson.loads = lambda *a: [1]",
        "import sys\nclass Out:\n    write = flush = lambda *a: None\nsys.stdout = sys.__stdout__ = Out()",
        "import sys\nm = sys.modules['programs']\n"
        "m.plain = m.returned = lambda v: [1]\nm.Results.send = lambda *a: 1",
        "import os\nos._exit = os.write = lambda *a: 0",
        "import sys\nsys.modules.clear()",
        "import builtins\nfor n in ('isinstance', 'type', 'len', 'print'): setattr(builtins, n, lambda *a: True)",
    ],
    ids=["json", "stdout", "harness", "os", "modules", "builtins"],
)
def test_08_patches_change_nothing_but_the_programs_own_result(runner, folder, patch):
    wrong(runner, f"{patch}\ndef f(a):\n    return [2]", "[3]", "f", "1")
    wrong(runner, f"{patch}\nprint('wrong')")


def test_09_a_flood_of_output(runner, folder):
    assert wrong(runner, "while True: print('x' * 10 ** 6)").status == "output_limit"
    assert wrong(runner, "print('x' * 10 ** 6)").status == "output_limit"
    assert wrong(runner, "def f(a): return 'x' * 10 ** 7", "1", "f", "1").status == "output_limit"


def record(text):
    return f"os.write(3, len({text!r}).to_bytes(4, 'big') + {text!r})\n"


@pytest.mark.parametrize(
    "forged",
    [
        record(b'{"value": "1"}') * 2, record(b'{"ready": ""}'), record(b'{"stdout": "1"}'), record(b'{"value": [1]}'),
        record(b'{"status": "ok", "error": ""}'), record(b"not json"), record(b"[" * 50000), record(b"\xff\xfe"),
        "os.write(3, b'\\0\\0')\nos._exit(0)\n", record(b'{"status": "error", "error": ""}') * 2,
    ],
    ids=["two", "ready", "other kind", "not text", "status", "not json", "deep", "bytes", "half", "after end"],
)  # fmt: skip
def test_10_forged_records(runner, folder, forged):
    process = runner.server.process.pid
    verdict = wrong(runner, f"import os\n{forged}def f(a):\n    return 1", "1", "f", "1")
    assert verdict.status == "protocol"
    assert runner.run(*CONTROL[:2]).output == CONTROL[2]
    assert runner.server.process.pid != process  # a new one, tested by the probes


def test_10_a_record_that_never_ends_and_a_record_for_a_program_that_prints(runner, folder):
    endless = "import os\nos.write(3, b'\\x7f\\0\\0\\0')\nwhile True: os.write(3, b'x' * 9999)"
    assert wrong(runner, endless).status == "output_limit"
    assert wrong(runner, "import os\nprint('right')\n" + record(b'{"value": "1"}'), "right").status == "protocol"


EVERYWHERE = """import os
def attempt(target, data):
    try: os.write(target if type(target) is int else os.open(target, os.O_WRONLY), data)
    except OSError: pass
def say(record):
    data = len(record).to_bytes(4, 'big') + record
    for fd in range(3, 256):
        for target in (fd, f'/proc/self/fd/{fd}', f'/dev/fd/{fd}'): attempt(target, data)
"""
CLAIMS = (b'{"status": "timeout", "error": ""}', b'{"status": "ok", "error": ""}', b'{"error": "TimeoutException: "}',
          b'{"value": "right"}', b'{"outcome": "correct"}')  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS)
def test_10_a_verdict_declared_on_every_descriptor_is_none(runner, folder, claim):
    for printed, status in (("wrong", 1), ("right", 0)):  # a claim takes the verdict even from a program that is right
        code = f"{EVERYWHERE}print({printed!r}, flush=True)\nsay({claim!r})\nos._exit({status})"
        assert wrong(runner, code).status in ("protocol", "error" if status else "protocol")


def test_10_only_the_clock_makes_a_timeout(runner, folder):
    claim = record(b'{"error": "TimeoutException: "}')
    function = f"import os\ndef f(a):\n    {claim}    os._exit(1)"
    assert wrong(runner, function, "1", "f", "1").status == "error"
    official = runner.limits.model_copy(update={"semantics": "lcb-compat", "cpu_seconds": 1})
    test = [{"input": "1", "output": "2"}]
    with Runner(official) as running:
        for code in (function, f"import os\n{claim}os._exit(1)", "class TimeoutException(Exception): pass\n"
                     "def f(a): raise TimeoutException"):  # fmt: skip
            verdict = judge_program(running, code, test, "f")
            assert (verdict.outcome, verdict.status) == ("wrong", "error")
        assert judge_program(running, "def f(a):\n    while True: pass", test, "f").outcome == "timeout"


@pytest.mark.parametrize(
    "value",
    [
        "x = []\nfor _ in range(40000): x = [x]", "x = float('nan')", "x = 10 ** 10 ** 6", "x = '\\ud800'",
        "x = {(1, 2): 3}", "x = 10 ** 40000", "x = [float('inf')]", "x = b'1'", "x = lambda: 1", "x = []\nx.append(x)",
        "x = 1j",
    ],
)  # fmt: skip
def test_11_strange_values(runner, folder, value):
    wrong(runner, f"{value}\ndef f(a):\n    return x", "1", "f", "1")


@pytest.mark.parametrize("text", ["[" * 30000, '{"d": 5}', '{"d": [[[], 1]]}', '{"d": [[1]]}', "9" * 60000, "nan", '"'])
def test_11_strange_values_sent_by_hand(runner, folder, text):
    data = json.dumps({"value": text}).encode()
    wrong(runner, f"import os\n{record(data)}os._exit(0)", "1", "f", "1")


def test_12_new_processes(runner, folder):
    denied(
        runner,
        "os.fork()\nos.posix_spawn('/bin/true', ['true'], {})\nimport posix; posix.fork()\n"
        "import importlib; importlib.reload(os).fork()\nos.execv('/bin/true', ['true'])\n"
        "import subprocess; subprocess.run(['true'])\nimport subprocess; subprocess.run('true', shell=True)",
    )
    calls_denied(runner, "fork vfork")
    code = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"for n, a in (({syscalls.FILTERED['clone'][COLUMN]}, 17), (435, 0), (437, 0), (999, 0)):\n"
        "    print(libc.syscall(n, a, 0, 0, 0, 0), ctypes.get_errno())\nprint(libc.fork())"
    )
    assert runner.run(code, "").output == "-1 1\n-1 38\n-1 38\n-1 38\n-1\n"  # EPERM, then ENOSYS


def test_13_a_fork_bomb(runner, folder):
    bomb = "for _ in range(2000):\n    try: made += os.fork() >= 0\n    except OSError: pass\n"
    code = f"import os\nmade = 0\n{bomb}print(made)"
    assert runner.run(code, "").output == "0\n"


def test_14_a_thread_bomb(runner, folder):
    code = (
        "import threading, time\nthreading.stack_size(1 << 16)\nn = 0\ntry:\n    for n in range(5000):\n"
        "        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\nexcept RuntimeError: print(n)"
    )
    result = runner.run(code, "")
    limit = 64 if runner.description()["identity"].startswith("private") else 1000
    assert 30 < int(result.output) < limit


def test_15_other_programs(runner, folder):
    denied(
        runner,
        "os.execv('/bin/true', ['true'])\nos.execve('/proc/self/exe', ['p'], {})\nos.memfd_create('x')\n"
        "os.execve(0, ['x'], {})",
    )
    calls_denied(runner, "execve execveat memfd_create memfd_secret")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other calling conventions exist on x86_64 only")
def test_16_system_calls_of_other_conventions(runner, folder):
    code = (
        "import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7)\nm.write({!r})\n"
        "f = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\nprint(f())"
    )
    getpid_32 = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"  # mov eax, 20; int 0x80; ret
    assert runner.run(code.format(getpid_32), "").status == "crash"
    assert runner.run("import ctypes\nprint(ctypes.CDLL(None).syscall(0x40000000 + 39))", "").error == "SIGSYS"
    getpid_64 = b"\xb8\x27\x00\x00\x00\x0f\x05\xc3"  # the same way, by the ordinary convention
    assert int(runner.run(code.format(getpid_64), "").output) > 0


def test_17_sockets(runner, folder):
    kinds = ["INET STREAM", "INET DGRAM", "INET RAW", "INET6 STREAM", "UNIX STREAM", "UNIX DGRAM", "NETLINK RAW",
             "PACKET RAW"]  # fmt: skip
    makes = "import socket as s; s.socket(s.AF_{}, s.SOCK_{})"
    denied(runner, "\n".join(makes.format(*kind.split()) for kind in kinds))
    denied(runner, "import socket; socket.socketpair()\nimport socket; socket.create_server(('127.0.0.1', 0))")
    assert runner.run("import socket\nsocket.getaddrinfo('localhost.localdomain', 80)", "").status == "error"
    calls_denied(runner, "socket socketpair connect bind listen accept accept4 sendto sendmsg recvmsg")


def test_18_io_uring_and_asynchronous_io(runner, folder):
    calls_denied(runner, "io_uring_setup io_uring_enter io_uring_register io_setup io_submit bpf userfaultfd")


def test_19_signals(runner, folder):
    denied(
        runner,
        "os.kill(os.getppid(), 9)\nos.kill(-1, 9)\nos.killpg(0, 9)\nos.kill(os.getpid(), 9)\n"
        "import signal; signal.pidfd_send_signal(0, 9)\nos.pidfd_open(os.getppid())\n"
        "import signal; signal.raise_signal(9)",
    )
    calls_denied(runner, "kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal pidfd_open pidfd_getfd")


def test_20_other_processes_memory(runner, folder):
    calls_denied(runner, "ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp process_madvise perf_event_open")


def test_21_proc(runner, folder):
    names = ("environ", "mem", "maps", "cmdline", "stat")
    denied(
        runner,
        "\n".join(f"open('/proc/%d/{name}' % os.getppid(), 'rb')" for name in names)
        + "\nos.listdir('/proc')\nos.listdir('/proc/self/fd')\nopen('/proc/self/environ')\nopen('/proc/meminfo')",
    )


def test_22_files_of_others(runner, folder):
    paths = [
        "/etc/passwd", "/etc/hostname", os.path.expanduser("~/.ssh"), os.path.expanduser("~"), "/tmp", "/", "/sys",
        f"{folder}/token", f"{folder}/dataset.jsonl", f"{folder}/results.json", str(ROOT / "params"),
        str(ROOT / "README.md"), str(ROOT / "tinyr1" / "evaluate" / "grading" / "grade.py"), __file__,
        str(ROOT / ".git"), runner.server.folder.name,
    ]  # fmt: skip
    code = (
        f"import os\nfor path in {paths!r}:\n"
        "    for read in (os.listdir, open, os.scandir, lambda p: os.open(p, os.O_RDONLY)):\n"
        "        try: read(path)\n        except OSError as e:\n            if e.errno in (13, 2, 20): continue\n"
        "            print(path, e)\n        else: print('ESCAPED', path)\nprint('end')"
    )
    assert runner.run(code, "").output == "end\n"


def test_22_metadata_of_others(runner, folder, tmp_path):
    identity = runner.description()["identity"]
    if runner.limits.isolation == "landlock" and identity != "private user":
        pytest.skip(f"a program of the {identity} may look up metadata (docs/evaluation.md §3.7)")
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    private.joinpath("token").write_text(SECRET)
    paths = [f"{private}/token", os.path.expanduser("~/.ssh"), f"{folder}/token", __file__, "/etc/passwd"]
    found = runner.run(f"import os\nprint([os.path.exists(path) for path in {paths!r}])", "").output
    if runner.limits.isolation == "bubblewrap":
        assert found == f"{[False] * len(paths)}\n"
    else:
        assert found.startswith("[False, False, ")


WRITES = """open('{p}/{new}', 'w')
open('{p}/{new}', 'a')
open('{p}/{new}', 'x')
os.open('{p}/{new}', os.O_CREAT | os.O_RDWR)
os.open('{p}', os.O_TMPFILE | os.O_RDWR)
os.mkdir('{p}/{new}')
os.symlink('/etc', '{p}/{new}')
os.mkfifo('{p}/{new}')
os.mknod('{p}/{new}')
os.unlink('{p}/token')
os.remove('{p}/token')
os.rmdir('{p}')
os.truncate('{p}/token', 0)
os.open('{p}/token', os.O_TRUNC)
open('{p}/token', 'r+')
os.rename('{p}/token', '{p}/{new}')
os.link('{p}/token', '{p}/{new}')"""


@pytest.mark.parametrize("where", ["{folder}", ".", "/dev/shm", "/tmp", "/"])
def test_23_writing_anywhere(runner, folder, where):
    new = f"new-{secrets.token_hex(8)}"  # /tmp belongs to everybody: a plain name may lie there
    lines = WRITES.format(p=where.format(folder=folder), new=new).splitlines()
    denied(runner, "\n".join(lines), absent=where != "{folder}")
    result = runner.run("\n".join(["import os", *(f"try: {line}\nexcept OSError: pass" for line in lines)]), "")
    assert result.status == "ok"


def test_24_attributes_of_files(runner, folder):
    denied(
        runner,
        "\n".join(
            line.format(p=p)
            for p in (INTERPRETER, f"{folder}/token")
            for line in ("os.chmod('{p}', 0)", "os.chown('{p}', 1, 1)", "os.utime('{p}', (0, 0))",
                         "os.setxattr('{p}', 'user.x', b'x')", "os.removexattr('{p}', 'user.x')")
        ),
    )  # fmt: skip
    calls_denied(runner, "chmod fchmod fchmodat chown fchown utimensat setxattr fsetxattr removexattr")


def test_25_filling_the_disk(runner, folder):
    denied(runner, "import tempfile; open('/dev/shm/x', 'w')\nos.truncate(0, 1 << 40)\nos.ftruncate(1, 1 << 40)\n"
                   "os.posix_fallocate(1, 0, 1 << 40)\nopen('x', 'wb')")  # fmt: skip
    assert "No usable temporary" in runner.run("import tempfile\ntempfile.TemporaryFile()", "").error
    calls_denied(runner, "truncate ftruncate fallocate creat sync syncfs fsync")


@pytest.mark.parametrize(
    "code",
    [
        "bytearray(100 << 30)", "x = []\nwhile True: x.append(bytearray(1 << 24))", "x = [0] * (1 << 31)",
        "x = {}\ni = 0\nwhile True:\n    x[i] = bytes(1 << 20)\n    i += 1",
        "import threading\nx = []\ndef f():\n    while True: x.append(bytes(1 << 22))\n"
        "for _ in range(8): threading.Thread(target=f, daemon=True).start()\nf()",
        "import numpy\nnumpy.ones(1 << 31)",
    ],
    ids=["at once", "growing", "list", "dict", "threads", "numpy"],
)  # fmt: skip
def test_26_memory(runner, folder, code):
    patient = runner.limits
    runner.limits = patient.model_copy(update={"cpu_seconds": 20})  # touching memory takes CPU time too
    try:
        result = runner.run(code, "")
    finally:
        runner.limits = patient
    assert result.status == "memory" or "start new thread" in result.error, result
    assert result.memory_mb < 1200


def test_26_anonymous_maps(runner, folder):
    assert runner.run("import mmap\nx = [mmap.mmap(-1, 1 << 28) for _ in range(64)]", "").status in ("error", "memory")


@pytest.mark.parametrize(
    "code",
    [
        "import signal\nfor s in set(signal.Signals) - {9, 19}: signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "import os\nos.close(1)\nos.close(3)\nwhile True: pass",
        "import signal\nsignal.alarm(0)\nsignal.setitimer(signal.ITIMER_REAL, 0)\nwhile True: pass",
        "import atexit\ndef f():\n    while True: pass\natexit.register(f)",
        "import threading\ndef f():\n    while True: pass\nfor _ in range(4): threading.Thread(target=f).start()",
    ],
    ids=["27 signals", "27 exceptions", "27 closed", "29 timers", "31 atexit", "31 threads"],
)
def test_27_29_31_loops_without_end(runner, folder, code):
    result = runner.run(code, "")
    assert result.status == "timeout"
    assert result.cpu_seconds < 2.5


def test_28_a_sleep(runner, folder):
    result = runner.run("import time\ntime.sleep(10 ** 9)", "")
    assert result.status == "timeout"
    assert 4 < result.wall_seconds < 9


def test_29_limits_cannot_be_raised(runner, folder):
    code = (
        "import resource as r\nfor n in [x for x in dir(r) if x.startswith('RLIMIT_')]:\n    k = getattr(r, n)\n"
        "    hard = r.getrlimit(k)[1]\n    if hard == r.RLIM_INFINITY: continue\n"
        "    try: r.setrlimit(k, (hard, hard + 1))\n    except (ValueError, OSError): continue\n"
        "    print('ESCAPED', n)\nprint('end')"
    )
    assert runner.run(code, "").output == "end\n"
    denied(runner, "import resource as r; r.prlimit(os.getppid(), r.RLIMIT_CPU, (1, 1))")


def test_30_stopping_itself(runner, folder):
    denied(runner, "os.kill(os.getpid(), 19)\nimport signal; signal.raise_signal(19)")


def test_31_leaving_the_session(runner, folder):
    denied(runner, "os.setsid()\nos.setpgid(0, 0)\nos.forkpty()\nos.daemon() if hasattr(os, 'daemon') else os.fork()")
    left = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
    assert runner.run(left, "").status == "ok"


def test_32_namespaces_and_mounts(runner, folder):
    denied(runner, "os.chroot('/')")
    calls_denied(runner, "unshare setns mount umount2 chroot pivot_root fsopen fsmount move_mount mount_setattr")


def test_33_what_outlives_a_process(runner, folder):
    calls_denied(runner, "shmget shmat semget semop msgget msgsnd mq_open mq_unlink add_key request_key keyctl flock")
    denied(runner, "from multiprocessing import shared_memory as m; m.SharedMemory('x', create=True, size=9)\n"
                   "import multiprocessing; multiprocessing.Lock()")  # fmt: skip


def test_34_inherited_descriptors(runner, folder):
    code = (
        "import os, stat\nfor fd in range(2000):\n    try: mode = os.fstat(fd).st_mode\n    except OSError: continue\n"
        "    print(fd, stat.S_ISFIFO(mode), stat.S_ISREG(mode), stat.S_ISSOCK(mode), end=';')"
    )
    expected = "0 False True False;1 True False False;2 False False False;3 True False False;"
    assert runner.run(code, "").output == expected


def test_35_terminals(runner, folder):
    denied(runner, "import fcntl; fcntl.ioctl(0, 0x5412, b'x')\nimport fcntl; fcntl.ioctl(1, 0x540E, 0)\n"
                   "import fcntl; fcntl.fcntl(1, fcntl.F_SETOWN, os.getppid())\nopen('/dev/tty')")  # fmt: skip


@pytest.mark.parametrize(
    ("code", "statuses"),
    [
        ("(" * 100_000 + ")" * 100_000, ("error", "memory")),
        ("x = 9 ** 9 ** 9", ("timeout", "memory")),
        ("x = 1\n" * 8_000_000, ("error",)),
        ("print('right')\0", ("error",)),
        ("# -*- coding: no-such-encoding -*-\nprint('wrong')", ("ok",)),
        ("x = '\\N{NO SUCH NAME}'", ("error",)),
        ("-" * 200_000 + "1", ("error", "memory", "crash")),
        ("x = " + "1 + " * 200_000 + "1", ("error", "memory", "crash", "ok")),
        ("if 1:\n" + "".join(" " * i + "if 1:\n" for i in range(1, 500)), ("error",)),
        ("\ud800", ("error",)),
    ],
    ids=["parentheses", "power", "48 MB", "NUL", "encoding", "name", "signs", "sums", "indents", "surrogate"],
)
def test_36_sources_that_burst_a_compiler(runner, folder, code, statuses):
    verdict = judge_program(runner, code, [{"input": "", "output": "right"}], "")
    assert verdict.outcome in ("wrong", "timeout")
    assert verdict.status in statuses


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("def f(): f()\nf()", "error"),
        ("sys.setrecursionlimit(10 ** 9)\ndef f(n): return max(map(f, [n + 1]))\nf(0)", "crash"),
        ("import ctypes\nctypes.string_at(0)", "crash"),
        ("import ctypes\nctypes.memset(8, 0, 8)", "crash"),
        ("import ctypes\nctypes.CDLL(None).abort()", "crash"),
        ("import ctypes\nctypes.CFUNCTYPE(None)(1)()", "crash"),
    ],
    ids=["recursion", "C stack", "null", "write", "abort", "jump"],
)
def test_37_crashes(runner, folder, code, status):
    patient = runner.limits
    runner.limits = patient.model_copy(update={"cpu_seconds": 9})
    try:
        assert runner.run(code, "").status == status
    finally:
        runner.limits = patient


TALK = """import os, time
said = 0
def attempt(f):
    global said
    try: said += bool(f())
    except (OSError, ImportError): pass
def locked():
    import fcntl
    with open(os.__file__) as file: fcntl.lockf(file, fcntl.LOCK_SH)
    return True
def bound(family, address):
    import socket
    socket.socket(family, socket.SOCK_STREAM).bind(address)
    return True
end = time.monotonic() + 0.5
while time.monotonic() < end:
    attempt(lambda: open({folder!r} + '/dataset.jsonl', 'a').write('x'))
    attempt(lambda: open('/dev/shm/talk', 'a').write('x'))
    attempt(locked)
    attempt(lambda: bound(1, '\\0talk'))
    attempt(lambda: bound(2, ('127.0.0.1', 45454)))
    attempt(lambda: os.utime(os.__file__))
    attempt(lambda: os.getxattr(os.__file__, 'user.talk'))
print(said)"""


def test_38_two_programs_at_once_cannot_talk(runner, folder):
    with Runner(runner.limits) as other:
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda r: r.run(TALK.format(folder=folder), ""), (runner, other)))
        if os.geteuid() == 0:
            uids = [r.run("import os\nprint(os.getuid(), os.getgid())", "").output for r in (runner, other)]
            assert len(set(uids)) == 2
            assert all(int(uid) > 0 for line in uids for uid in line.split())
    assert [result.output for result in found] == ["0\n", "0\n"]


def test_39_hostile_modules_and_variables(folder, monkeypatch):
    for name in ("json", "sitecustomize", "usercustomize", "numpy", "programs", "confine", "string"):
        Path(folder, f"{name}.py").write_text("raise SystemExit('hostile')")
    for name, value in {"PYTHONPATH": folder, "PYTHONSTARTUP": f"{folder}/json.py", "PYTHONHOME": "/x",
                        "LD_PRELOAD": "", "HF_TOKEN": SECRET, "PYTHONINSPECT": "1"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    with Runner(LIMITS) as fresh:
        code = "import os, json\nprint({k: v for k, v in os.environ.items() if 'THREADS' not in k}, json.__file__)"
        output = fresh.run(code, "").output
    assert output.startswith("{'PYTHONHASHSEED': '0'")
    assert output.endswith(f"{INTERPRETER.parent}/json/__init__.py\n")
    assert SECRET not in output


def test_40_fields_of_a_data_set_are_not_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "hostile"),))

    file = tmp_path / "lcb.jsonl"
    row = {"question_id": "q", "question_title": "", "question_content": "?", "difficulty": "easy",
           "contest_date": "2024-05-05T00:00:00", "public_test_cases": "[]"}  # fmt: skip
    problems = LiveCodeBenchmark.model_validate({
        "kind": "livecodebench", "path": str(file), "questions": None, "samples": 1, "max_tokens": 9,
        "window": ["2024-01-01", "2024-12-31"],
    })  # fmt: skip

    def read(data):
        encoded = base64.b64encode(zlib.compress(data)).decode()
        file.write_text(json.dumps(row | {"private_test_cases": encoded}))
        return benchmarks.load_benchmark("lcb", "code", problems, "test", 0).questions

    assert read(pickle.dumps("[]"))[0]["tests"] == []
    for data in (pickle.dumps(Hostile()), pickle.dumps([1]), pickle.dumps(b"[]")):
        with pytest.raises(UserError, match="test cases"):
            read(data)
    assert list(tmp_path.iterdir()) == [file]


def test_41_clock_priority_and_placement(runner, folder):
    denied(runner, "import time; time.clock_settime(time.CLOCK_REALTIME, 0)\nos.sched_setaffinity(0, {0})\n"
                   "os.setpriority(os.PRIO_PROCESS, 0, 5)\nos.sched_setscheduler(0, 0, os.sched_param(0))\n"
                   "os.nice(5)")  # fmt: skip
    calls_denied(runner, "settimeofday clock_settime adjtimex setpriority ioprio_set sched_setaffinity "
                         "sched_setscheduler sched_setattr sethostname "
                         "mlockall setuid setgid setresuid capset personality")  # fmt: skip


def test_every_denied_call_is_denied(runner, folder):
    calls_denied(runner, " ".join(syscalls.DENIED))


DEEP = "from functools import lru_cache\n@lru_cache(None)\ndef f(n): return n and 1 + f(n - 1)\nprint(f({}))"
STACK = (
    "import threading\nthreading.stack_size(512 << 20)\n"
    "t = threading.Thread(target=lambda: print(input()))\nt.start()\n{}"
)
LATE = "import fractions, decimal, html.parser, zoneinfo, sqlite3, xml.dom.minidom\nprint(fractions.Fraction(1, 2))"
POOL = "from concurrent.futures import ThreadPoolExecutor as P\nwith P(8) as p: print(sum(p.map(abs, range(9))))"
ALARM = (
    "import time, signal\nsignal.signal(signal.SIGALRM, lambda *_: print('rung'))\n"
    "signal.setitimer(signal.ITIMER_REAL, .05)\ntime.sleep(.2)"
)
LOWER = "import resource as r\nr.setrlimit(r.RLIMIT_STACK, (1 << 26, r.getrlimit(r.RLIMIT_STACK)[1]))\nprint(1)"


@pytest.mark.parametrize(
    ("code", "text", "output"),
    [
        (STACK.format("t.join()"), "7", "7\n"),
        (STACK.format(""), "7", "7\n"),
        ("for line in sys.stdin.buffer: sys.stdout.buffer.write(line)", "a\nb\n", "a\nb\n"),
        ("import sys\nfor line in sys.stdin: print(line, end='')", "a\nb\n", "a\nb\n"),
        ("print(open(0).read())", "a", "a\n"),
        ("print(open('/dev/stdin').read())", "a", "a\n"),
        ("import os\nprint(os.read(0, 9))", "a", "b'a'\n"),
        ("import numpy as np\nprint(np.linalg.inv(np.eye(2) * 2).sum(), np.fft.fft([1]).size)", "", "1.0 1\n"),
        ("import numpy as np\nprint((np.ones((300, 300)) @ np.ones((300, 300))).sum())", "", "27000000.0\n"),
        ("print(1)\nexit()", "", "1\n"),
        ("print(1)\nsys.exit(0)", "", "1\n"),
        ("def f(n): return n and 1 + f(n - 1)\nprint(f(40000))", "", "40000\n"),
        (DEEP.format(15000), "", "15000\n"),
        (LATE, "", "1/2\n"),
        ("sys.stderr = open('/dev/null', 'w')\nprint(1)", "", "1\n"),
        ("import os\nprint(len(os.urandom(9)), os.cpu_count() > 0)", "", "9 True\n"),
        (POOL, "", "36\n"),
        ("from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\nprint(A(1))", "", "A(x=1)\n"),
        (ALARM, "", "rung\n"),
        (LOWER, "", "1\n"),
    ],
)  # fmt: skip
def test_42_ordinary_programs_work(runner, folder, code, text, output):
    result = runner.run(code, text)
    assert (result.status, result.output, result.error) == ("ok", output, "")


def test_42_ten_megabytes_in_and_out(runner, folder):
    text = "7" * 10_000_000 + "\n"
    assert judge_program(runner, "print(input())", [{"input": text, "output": text}], "").outcome == "correct"


# What a container leaves its root by default: no administration, and no reading of everything either.
CONTAINER = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_raw,+mknod,+setfcap"
OTHERS = {
    "an ordinary user": ([f"--reuid={ORDINARY_UID}", f"--regid={ORDINARY_UID}", "--clear-groups"], "not bubblewrap"),
    "root of a container": (
        ["--no-new-privs", f"--bounding-set={CONTAINER}"],
        "not bubblewrap and (14 or 22 or 23 or 38 or 42 or test_ordinary)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("who", OTHERS)
def test_the_same_as(who, tmp_path):
    """The tests of programs in a process that gave up root, or most of its rights."""
    if os.geteuid() != 0 or os.environ.get("TINYR1_SAME_AS"):
        pytest.skip("only root can become somebody else, once")
    if not shutil.which("setpriv") or not shutil.which("unshare"):
        pytest.skip("util-linux is not installed")
    options, selection = OTHERS[who]
    words = ["setpriv", *options, "--inh-caps=-all", sys.executable, "-m", "pytest", "-p", "no:cacheprovider",
             "-k", selection, *(str(Path(__file__).with_name(f"test_{name}.py"))
                                for name in ("escapes", "runner", "ordinary"))]  # fmt: skip
    if who == "an ordinary user" and not all(map(reachable, (Path(os.path.realpath(sys.executable)), ROOT))):
        words = ["unshare", "--mount", "sh", "-ec", OPENED, "sh", sys.base_prefix, str(tmp_path), *words]
    with tempfile.TemporaryDirectory(prefix="tinyr1-") as own:  # pytest refuses a temporary folder of somebody else's
        os.chmod(own, 0o1777)
        environment = os.environ | {"HOME": "/nonexistent", "PYTHONPATH": str(ROOT), "TINYR1_SAME_AS": who,
                                    "PYTEST_DEBUG_TEMPROOT": own}  # fmt: skip
        result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", result.stdout)[1]) >= 30


# $1: the interpreter's prefix, $2: a folder to keep it at meanwhile. Its private parent becomes
# an open, empty folder in which only the prefix exists.
OPENED = (
    'top=/$(echo "$1" | cut -d/ -f2); mount --bind "$1" "$2"; '
    'mount -t tmpfs -o mode=0755 none "$top"; mkdir -p "$1"; mount --bind "$2" "$1"; shift 2; exec "$@"'
)


def reachable(path):
    """Whether everybody may read what is at `path`."""
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in [path, *path.parents])
