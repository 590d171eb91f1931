"""Right programs pass: every ordinary way in which a program reads its input, writes its output and ends.

test_escapes.py runs this file once more as an ordinary user and as the root of a container.
"""

import json
import shutil

import pytest
from conftest import ROOT

from tinyr1.core.params.evaluation import Sandbox
from tinyr1.evaluate.grading.programs import judge_program
from tinyr1.sandbox.runner import Runner

LIMITS = Sandbox(cpu_seconds=30, memory_mb=1024, semantics="real", isolation="landlock")
ISOLATIONS = ("landlock", *(("bubblewrap",) if shutil.which("bwrap") else ()))
SHARED = ROOT.parent / "shared" / "cases" / "evaluation" / "benign_programs.jsonl"


@pytest.fixture(scope="module", params=ISOLATIONS)
def runner(request):
    with Runner(LIMITS.model_copy(update={"isolation": request.param})) as running:
        yield running


def failures(runner, programs, text, expected, func_name=""):
    """(program, verdict) of each program that is not right."""
    tests = [{"input": text, "output": expected}]
    verdicts = [(code, judge_program(runner, code, tests, func_name)) for code in programs]
    return [(code, verdict) for code, verdict in verdicts if verdict.outcome != "correct"]


REST = "\nnext(f)\nprint(sum(map(int, next(f).split())))"  # `f` gives the two lines of the input
READS = {
    "a file of its own": [
        f"f = open(0){REST}", f"f = open(0, 'rb'){REST}", f"import os\nf = os.fdopen(0){REST}",
        f"import io, sys\nf = io.TextIOWrapper(sys.stdin.buffer){REST}",
        f"import codecs, sys\nf = codecs.getreader('utf-8')(sys.stdin.buffer){REST}",
        f"import sys\nwith sys.stdin as g: f = iter(g.readlines()){REST}",
    ],
    "a name of the file system": [
        *(f"f = open({name!r}){REST}" for name in ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")),
        f"import os\nf = os.fdopen(os.open('/dev/stdin', os.O_RDONLY)){REST}",
        f"from pathlib import Path\nf = iter(Path('/dev/stdin').read_text().splitlines()){REST}",
    ],
    "bytes at once": [
        f"import io, os\nf = io.BytesIO(os.read(0, os.fstat(0).st_size)){REST}",
        f"import mmap\nf = iter(mmap.mmap(0, 0, access=mmap.ACCESS_READ).read().splitlines()){REST}",
        f"import mmap\nf = iter(mmap.mmap(0, 0, mmap.MAP_PRIVATE, mmap.PROT_READ)[:].splitlines()){REST}",
        f"import sys\nb = bytearray(99)\nf = iter(b[:sys.stdin.buffer.readinto(b)].splitlines()){REST}",
    ],
    "standard input in other ways": [
        f"import sys\nsys.stdin.read()\nsys.stdin.seek(0)\nf = sys.stdin{REST}",
        f"import select, sys\nf = select.select([sys.stdin], [], [])[0][0]{REST}",
        f"import fileinput\nf = fileinput.input(){REST}", "import csv, sys\nnext(sys.stdin)\nf = iter('x')\n"
        "next(f)\nprint(sum(map(int, next(csv.reader(sys.stdin, delimiter=' ')))))",
        f"import sys\nsys.stdin.reconfigure(encoding='ascii')\nf = sys.stdin{REST}",
    ],
    "a file only where there is one": [
        f"import os, sys\nif os.path.exists('input.txt'): sys.stdin = open('input.txt')\nf = sys.stdin{REST}",
        "import sys\nfrom pathlib import Path\npath = Path('input.txt')\n"
        f"f = path.open() if path.exists() else sys.stdin{REST}",
        f"import sys\ntry: sys.stdin = open('input.txt')\nexcept FileNotFoundError: pass\nf = sys.stdin{REST}",
        f"import os, sys\nos.chdir(os.path.dirname(os.path.abspath(__file__)))\nassert not os.path.exists('a')\n"
        f"f = sys.stdin{REST}",
        f"import sys\nif len(sys.argv) > 1: sys.stdin = open(sys.argv[1])\nf = sys.stdin{REST}",
    ],
    "numpy": [
        "import numpy, sys\nprint(int(numpy.loadtxt(sys.stdin, skiprows=1).sum()))",
        "import numpy\nprint(int(numpy.fromfile('/dev/stdin', dtype=int, sep=' ')[1:].sum()))",
        "import numpy, sys\nprint(int(numpy.array(sys.stdin.read().split(), int)[1:].sum()))",
    ],
}  # fmt: skip


@pytest.mark.parametrize("way", READS)
def test_a_program_may_read_its_input_as(runner, way):
    assert failures(runner, READS[way], "2\n20 22\n", "42\n") == []


MADE = "def late(): return made\n"  # a function holds the globals, so that only the end of the program frees them
WRITES = {
    "another file object": [
        "made = open(1, 'w')\nmade.write('42')", f"{MADE}made = open(1, 'w')\nmade.write('42')",
        "import os\nmade = os.fdopen(1, 'w')\nprint(42, file=made)", "made = open(1, 'wb')\nmade.write(b'42')",
        "import os\nmade = os.fdopen(os.dup(1), 'w')\nmade.write('42')",
        "import io\nmade = io.BufferedWriter(io.FileIO(1, 'w'))\nmade.write(b'42')",
        "with open(1, 'w') as made: made.write('42')", "made = open(1, 'w').write\nmade('42')",
    ],
    "a wrapper of standard output": [
        "import io, sys\nmade = io.TextIOWrapper(sys.stdout.buffer)\nmade.write('42')",
        "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, 'utf-8', line_buffering=False)\nprint(42)",
        "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.detach())\nprint(42)",
        "import sys\nmade = sys.stdout.detach()\nmade.write(b'42')",
        "import codecs, sys\nsys.stdout = codecs.getwriter('utf-8')(sys.stdout.buffer)\nprint(42)",
        "import sys\nsys.stdout.reconfigure(write_through=True)\nprint(42)",
        "import sys\nsys.stdout.buffer.write(b'42')",
    ],
    "a file object that something holds": [
        "import functools\nprint = functools.partial(print, file=open(1, 'w'))\nprint(42)",
        "class Made: out = open(1, 'w')\nMade.out.write('42')",
        "class Made: pass\nmade = Made()\nmade.itself, made.out = made, open(1, 'w')\nmade.out.write('42')",
        "import builtins\nbuiltins.made = open(1, 'w')\nmade.write('42')",
        "def f(out=open(1, 'w')): out.write('42')\nf()",
        "def f():\n    made = open(1, 'w')\n    made.write('42')\n    exit()\nf()",
        "import io, sys\nclass Fast(io.IOBase):\n    def __init__(self): self.kept = []\n"
        "    def write(self, text): self.kept.append(text)\n"
        "    def flush(self): sys.__stdout__.write(''.join(self.kept)); self.kept.clear()\n"
        "made = Fast()\nmade.write('42')",
    ],
    "a name of the file system": [
        "import sys\nsys.stdout = open('/dev/stdout', 'w')\nprint(42)",
        "made = open('/dev/fd/1', 'a')\nmade.write('42')", "print(42, file=open('/proc/self/fd/1', 'w'))",
        "from pathlib import Path\nPath('/dev/stdout').write_text('42')",
        "import os\nos.write(os.open('/dev/stdout', os.O_WRONLY), b'42')",
        "import os, sys\nsys.stderr = open(os.devnull, 'w')\nopen('/dev/stderr', 'w').write('x')\nprint(42)",
    ],
    "something kept until its end": [
        "import atexit\natexit.register(print, 42)",
        "import atexit, io, sys\nsys.stdout = io.StringIO()\n"
        "atexit.register(lambda: sys.__stdout__.write(sys.stdout.getvalue()))\nprint(42)",
        "import io, sys\nsys.stdout = io.StringIO()\nprint(42)\nsys.__stdout__.write(sys.stdout.getvalue())",
        "import weakref\nclass Made: pass\nmade = Made()\nweakref.finalize(made, print, 42)",
        "class Made:\n    def __del__(self): print(42)\nmade = Made()",
        "def f():\n    try: yield\n    finally: print(42)\nmade = f()\nnext(made)",
        "import gc, io, sys\nsys.stdout = io.StringIO()\nsys.__stdout__.write('42')\ngc.freeze()",
    ],
    "something it closes": [
        "import sys\nprint(42)\nsys.stdout.close()", "import os\nprint(42, flush=True)\nos.close(1)",
        "import os\nprint(42, flush=True)\nos.closerange(0, 3)", "import sys\nprint(42, flush=True)\nsys.stdout = None",
        "import sys\nprint(42)\nsys.stdout.flush()\ndel sys.stdout", "import sys\nwith sys.stdout as f: f.write('42')",
    ],
    "other modules": [
        "import json, sys\njson.dump(42, sys.stdout)",
        "import logging, sys\nlogging.basicConfig(stream=sys.stdout, format='%(message)s')\nlogging.error(42)",
        "import numpy, sys\nnumpy.savetxt(sys.stdout, [42], fmt='%d')", "import os\nos.writev(1, [b'4', b'2'])",
        "import shutil, io, sys\nshutil.copyfileobj(io.StringIO('42'), sys.stdout)",
    ],
}  # fmt: skip


@pytest.mark.parametrize("way", WRITES)
def test_a_program_may_write_its_output_through(runner, way):
    assert failures(runner, WRITES[way], "", "42\n") == []


def test_text_beyond_ascii_comes_through_in_every_way(runner):
    wrapper = "import io, sys\nmade = io.TextIOWrapper(sys.stdout.buffer)\n"
    ways = ["print('é\u6f22')", "made = open(1, 'w')\nmade.write('é\u6f22')", f"{wrapper}made.write('é\u6f22')",
            "print(input())", "print(open(0).read())"]  # fmt: skip
    assert failures(runner, ways, "é\u6f22", "é\u6f22\n") == []


ENDS = [
    *(f"print(42)\n{end}" for end in ("quit()", "quit(0)", "exit()", "exit(1)", "raise SystemExit", "quit('x')")),
    *(f"import sys\nprint(42)\n{end}" for end in ("sys.exit()", "sys.exit('x')", "sys.exit(not print(end=''))")),
    "import builtins\nprint(42)\nbuiltins.exit()", "import os\nprint(42, flush=True)\nos._exit(0)",
    "import sys\ndef main(): print(42)\nif __name__ == '__main__': sys.exit(main())",
    "import threading\nthreading.Thread(target=lambda: print(42) or exit()).start()",
    "import threading, time\nthreading.Thread(target=time.sleep, args=(99,), daemon=True).start()\nprint(42)",
    "import atexit\nprint(42)\natexit.register(lambda: 1 / 0)",
    "class Made:\n    def __del__(self): raise KeyError\nmade = Made()\nprint(42)",
]


def test_a_program_may_end_in_every_ordinary_way(runner):
    assert failures(runner, ENDS, "", "42\n") == []


SCRIPTS = [
    "import sys, os\nassert os.path.basename(__file__) == sys.argv[0]\nprint(42)", "\ufeffprint(42)",
    "\ufeff# -*- coding: utf-8 -*-\nprint(42)", "#!/usr/bin/env python3\r\nif 1:\r\n\tprint(42)\r\n", "\x0cprint(42)",
    "'''Text.'''\nassert __doc__ == 'Text.' and __spec__ is __package__ is None\nprint(42)",
    "print(__builtins__.sum([20, 22]))", "import __main__\nx = 42\nprint(__main__.x)",
    "import sys\nassert (sys.stdin.name, sys.stdout.name) == ('<stdin>', '<stdout>')\nprint(42)",
    "import pickle\nclass A: x = 42\nprint(pickle.loads(pickle.dumps(A())).x)",
    "import resource\nresource.setrlimit(resource.RLIMIT_STACK, (1 << 29, -1))\nprint(42)",
    "from signal import signal, SIGPIPE, SIG_DFL\nsignal(SIGPIPE, SIG_DFL)\nprint(42)",
    "import signal, time\nsignal.signal(signal.SIGALRM, lambda *_: print(42))\n"
    "signal.setitimer(signal.ITIMER_REAL, 0.02)\ntime.sleep(0.05)",
    "import os\nos.system('clear')\nprint(42)", "import gc\ngc.disable()\nprint(42)",
    "import sys, threading\nsys.setrecursionlimit(1 << 25)\nthreading.stack_size(1 << 28)\n"
    "def f(n): return n and 1 + f(n - 1)\nt = threading.Thread(target=lambda: print(f(90000) - 89958))\nt.start()",
    "import sys\nfrom functools import lru_cache\nsys.setrecursionlimit(1 << 20)\n@lru_cache(None)\n"
    "def f(n): return n and 1 + f(n - 1)\nprint(f(15000) - 14958)",
    "import unittest\nclass T(unittest.TestCase): pass\nprint(42)\nif __name__ == '__main__': unittest.main()",
]


def test_a_program_meets_what_a_script_meets(runner):
    assert failures(runner, SCRIPTS, "", "42\n") == []


AWAIT = "import asyncio\nasync def main():\n    {}\nasyncio.run(main())"
LOOPS = [
    AWAIT.format("print(int(input()) + sum(await asyncio.gather(*map(asyncio.sleep, [0, 0], [20, 2]))))"),
    AWAIT.format("print(int(await asyncio.to_thread(input)) + 22)"),
    AWAIT.format("try: await asyncio.wait_for(asyncio.sleep(9), 0.01)\n    except asyncio.TimeoutError: print(42)"),
    "import asyncio\nloop = asyncio.new_event_loop()\nloop.call_later(0.01, loop.stop)\nloop.run_forever()\nprint(42)",
    "import asyncio, threading\nloop = asyncio.new_event_loop()\n"
    "threading.Timer(0.01, loop.call_soon_threadsafe, (loop.stop,)).start()\nloop.run_forever()\nprint(42)",
    "import asyncio, signal\nloop = asyncio.new_event_loop()\nloop.add_signal_handler(signal.SIGALRM, loop.stop)\n"
    "signal.setitimer(signal.ITIMER_REAL, 0.02)\nloop.run_forever()\nloop.close()\nprint(42)",
]  # fmt: skip


def test_event_loops_run(runner):
    assert failures(runner, LOOPS, "20\n", "42\n") == []


SUM = "class Solution:\n    def f(self, a): return sum(a)\n"
GUARDED = ("n = int(input())", "import unittest\n    unittest.main()", "import sys\n    sys.exit(1)", "quit()",
           "assert Solution().f([1]) == 2", "while True: pass")  # fmt: skip
FUNCTIONS = {
    "a part that is for its run as a script": [
        *(f"{SUM}if __name__ == '__main__':\n    {part}\n" for part in GUARDED),
        "def f(a): return sum(a)\ndef main(): print(f(map(int, input().split())))\n"
        "if '__main__' == __name__:\n    main()", f"{SUM}if __name__ in ('__main__', 'main'): exit()",
        f"assert __name__ != '__main__'\n{SUM}",
    ],
    "prints for debugging": [
        "def f(a):\n    for i in range(20000): print('line', i)\n    return sum(a)", f"print('x' * 10 ** 6)\n{SUM}",
        "import os\ndef f(a):\n    os.write(1, b'x' * 10 ** 6)\n    return sum(a)",
        "import sys\ndef f(a):\n    print(a)\n    sys.stdout.close()\n    return sum(a)",
    ],
    "what a module has": [
        "import pickle\nclass A: pass\ndef f(a):\n    pickle.loads(pickle.dumps(A()))\n    return sum(a)",
        "import sys\nx = 42\ndef f(a): return sys.modules[__name__].x", "import __main__\ndef f(a): return sum(a)",
        "from __future__ import annotations\nimport typing\nclass A:\n    x: List[int]\n"
        "def f(a): return len(typing.get_type_hints(A)) * sum(a)",
        "import os\nhere = os.path.dirname(__file__)\ndef f(a): return sum(a)", "\ufeffdef f(a): return sum(a)",
        "def f(a): return __builtins__['sum'](a)", "import asyncio\nasync def g(a): return sum(a)\n"
        "def f(a): return asyncio.run(g(a))",
    ],
}  # fmt: skip


@pytest.mark.parametrize("part", FUNCTIONS)
def test_a_program_with_a_function_may_have(runner, part):
    assert failures(runner, FUNCTIONS[part], "[20, 22]", "42", "f") == []


def test_the_part_for_a_run_as_a_script_runs_where_standard_input_is_read(runner):
    assert failures(runner, ["if __name__ == '__main__':\n    print(int(input()) + 22)"], "20\n", "42\n") == []


def test_what_functions_print_has_no_limit_in_the_official_semantics_either():
    with Runner(LIMITS.model_copy(update={"semantics": "lcb-compat"})) as official:
        assert failures(official, FUNCTIONS["prints for debugging"][:2], "[20, 22]", "42", "f") == []


def test_a_heap_of_objects_and_a_full_memory_do_not_disturb_the_end():
    heap = "made = open(1, 'w')\nheap = [[i] for i in range(10 ** 6)]\nmade.write('42')"
    full = ("made, kept, size = open(1, 'w'), [], 1 << 24\nmade.write('42')\nwhile size > 64:\n"
            "    try: kept.append(bytes(size))\n    except MemoryError: size >>= 1")  # fmt: skip
    with Runner(LIMITS.model_copy(update={"memory_mb": 512})) as small:
        assert failures(small, [heap, full], "", "42") == []


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_file(), reason=f"{SHARED} is not there")
def test_the_programs_of_the_shared_file_pass(runner):
    rows = [json.loads(line) for line in SHARED.read_text(encoding="utf-8").splitlines()]
    wrong = {}
    for row in rows:
        found = failures(runner, [row["code"]], row["input"], row["expected"], row["func_name"])
        missing = found and found[0][1].detail.startswith("ModuleNotFoundError")
        # The official comparison, which is ours, calls two kinds of values unequal to the expected one.
        if bool(found) != ("official: unequal" in row["name"]) and not missing:
            wrong[row["name"]] = found
    assert wrong == {}
