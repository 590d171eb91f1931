"""What happens to a generated program inside its confined process, under two semantics (evaluation.md §1.2, §3).

`real`        one process a test: real standard streams, the program as `__main__`, a function called once
`lcb-compat`  all tests of a sample in one process, with the stand-ins of LiveCodeBench's official runner: its mock of
              standard input, the program wrapped into a function, one Solution object for all tests, a wall-clock alarm

Results leave on one descriptor as records: four bytes of length, then a JSON object of texts; {"ready"} first,
{"value"} for the JSON of what a function returned, {"stdout"} for what a test of lcb-compat printed,
{"status", "error"} for what ended the program. Everything here can be
reached and changed by the program, which gains nothing by it: right or wrong is decided elsewhere. Standard library
only.
"""

import ast
import atexit
import builtins
import io
import json
import os
import resource
import signal
import struct
import sys
import threading
import types

# What LiveCodeBench's runner puts before every program.
MODULES = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools",
    "functools", "operator", "io", "sys", "json", "builtins", "typing",
)  # fmt: skip
PRELUDE = (
    "".join(f"from {name} import *\n" for name in MODULES)
    + "".join(f"import {name}\n" for name in MODULES[:-2])
    + "sys.setrecursionlimit(50000)\n"
)
# Modules the official runner makes unimportable.
HIDDEN = ("ipdb", "joblib", "resource", "psutil", "tkinter")


def _main_module() -> types.ModuleType:
    module = types.ModuleType("__main__")
    exec(PRELUDE, module.__dict__)
    return module


MAIN = _main_module()  # every fork has its own copy; filling a fresh one would touch each object, and so copy its page


class TimeoutException(Exception):  # noqa: N818 - programs may catch it by the name it has in the official runner
    """The alarm of lcb-compat went off."""


class Opaque(Exception):
    """A program's own exit where a value was due."""


def plain(value: object) -> object:
    """A returned value for JSON: what can equal a JSON value keeps its own value, everything else is a mere name.

    None, bool, int, float, str and list stay (subclasses by their value, numpy scalars by their item); a dict is
    {"d": [[key, value], …]}; anything else {"o": type name}, which equals nothing.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    for kind, convert in ((int, int.__pos__), (float, float.__pos__), (str, str.__str__)):
        if isinstance(value, kind):
            return convert(value)
    if isinstance(value, list):
        return [plain(item) for item in list.__iter__(value)]
    if isinstance(value, dict):
        return {"d": [[plain(key), plain(item)] for key, item in dict.items(value)]}
    return {"o": type(value).__name__}


def returned(value: object) -> object:
    """`plain`, after a tuple at the top became a list, as in the official runner."""
    return plain(list(value) if isinstance(value, tuple) else value)


class Results:
    """Writes records to the judge."""

    def __init__(self, handle: int) -> None:
        self.handle, self._write = handle, os.write  # a program may put another function in its place

    def send(self, record: dict) -> None:
        data = json.dumps(record).encode()
        data = struct.pack(">I", len(data)) + data
        while data:
            data = data[self._write(self.handle, data) :]


def run(job: dict, results: Results) -> int:
    """Run a job to its end; the exit status of the process."""
    try:
        (_lcb_compat if job["semantics"] == "lcb-compat" else _real)(job, results)
    except BaseException as error:  # noqa: BLE001 - whatever a program raises is its own result
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        name = type(error).__name__
        status = "memory" if isinstance(error, MemoryError) else "error"
        if job["semantics"] == "lcb-compat" and "timeoutexception" in name.lower():
            status = "timeout"
        results.send({"status": status, "error": f"{name}: {error}"[:500]})
        return 1
    return 0


def _streams() -> None:
    """Standard streams as a script has them; what a program writes to stderr is not its answer."""
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.argv = ["solution.py"]


def _real(job: dict, results: Results) -> None:
    """The program as a script, or one call of its function."""
    call = job["func_name"]
    arguments = [json.loads(line) for line in job["inputs"][0].split("\n") if line.strip()] if call else []
    sys.modules["__main__"], names = MAIN, MAIN.__dict__
    _streams()
    names.update((name, getattr(sys, name)) for name in ("stdin", "stdout", "stderr", "argv"))  # of `from sys import *`
    sys.setrecursionlimit(50000)
    code = compile(job["code"], "solution.py", "exec", dont_inherit=True)
    try:
        exec(code, names)
        if call:
            function = getattr(names["Solution"](), call) if "Solution" in names else names[call]
            value = function(*arguments)
    except SystemExit as error:
        if call:
            raise Opaque("the program exited before its function returned") from error
    if call:
        results.send({"value": json.dumps(returned(value))})
        return
    threading._shutdown()  # threads of the program that still run, as at the end of a script
    atexit._run_exitfuncs()
    sys.stdout.flush()


def _alarm(*_: object) -> None:
    raise TimeoutException


def _compiled(code: str, seconds: int) -> object:
    """The module of a program, or its Solution object if the text has a class of that name (under the alarm)."""
    signal.alarm(seconds)
    module = types.ModuleType("tmp_sol")
    exec(code, module.__dict__)
    solution = module.Solution() if "class Solution" in code else module
    signal.alarm(0)
    return solution


def _lcb_compat(job: dict, results: Results) -> None:
    """All tests of a sample, one record each, in the way of the official runner."""
    _streams()
    signal.signal(signal.SIGALRM, _alarm)
    builtins.quit = builtins.help = None
    for name in HIDDEN:
        sys.modules[name] = None
    if job["func_name"]:
        solution = _compiled(f"{PRELUDE}\n\n{job['code']}", job["seconds"])
        method = getattr(solution, job["func_name"])
        inputs = [[json.loads(line) for line in text.split("\n")] for text in job["inputs"]]
        for arguments in inputs:
            signal.alarm(job["seconds"])
            value = method(*arguments)
            signal.alarm(0)
            results.send({"value": json.dumps(returned(value))})
        return
    method = _compiled(_wrapped(_without_main_test(job["code"])), job["seconds"]).wrapped_function
    for text in job["inputs"]:
        signal.alarm(job["seconds"])
        printed = _call_with_mocks(method, text)
        signal.alarm(0)
        results.send({"stdout": printed})


def _without_main_test(code: str) -> str:
    """The body of a closing `if __name__ == '__main__':` in its place; only in that spelling."""
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError):
        return code
    if body and isinstance(body[-1], ast.If) and ast.unparse(body[-1].test) == "__name__ == '__main__'":
        return ast.unparse(ast.Module([*body[:-1], *body[-1].body], []))
    return code


def _wrapped(code: str) -> str:
    """Imports of the top level first, everything else inside `wrapped_function`; text that does not parse as it is."""
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError):
        return code
    imports = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    function = ast.parse("def wrapped_function(): pass")
    function.body[0].body = [node for node in body if not isinstance(node, ast.Import | ast.ImportFrom)]
    return f"{PRELUDE}\n{ast.unparse(ast.Module(imports, []))}\n{ast.unparse(function)}"


class _MockBuffer:
    """The official runner's `sys.stdin.buffer`: every read starts at the beginning."""

    def __init__(self, text: str) -> None:
        self._data = text.encode()

    def read(self, *_: object) -> bytes:
        return self._data

    def readline(self, *_: object) -> bytes:
        return self._data.split(b"\n")[0] + b"\n"


class _MockStdin:
    """The official runner's `sys.stdin`: no iteration; what it lacks it takes from a StringIO."""

    def __init__(self, text: str) -> None:
        self._text, self._stream, self.buffer = text, io.StringIO(text), _MockBuffer(text)

    def read(self, *_: object) -> str:
        return self._text

    def readline(self, *arguments: int) -> str:
        return self._stream.readline(*arguments)

    def readlines(self, *_: object) -> list[str]:
        return self._text.split("\n")

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def _call_with_mocks(method: types.FunctionType, text: str) -> str:
    """What the wrapped program prints.

    `from sys import stdin` has bound the real stream before; on that the official runner replaces three methods, and
    its readline ends with StopIteration.
    """
    real, stdout, lines = sys.stdin, sys.stdout, iter(text.split("\n"))
    real.readline, real.readlines = lambda *_: next(lines), lambda *_: text.split("\n")
    real.read = lambda *_: text
    sys.stdin, sys.stdout = _MockStdin(text), io.StringIO()
    captured = sys.stdout
    try:
        method()
    except SystemExit:
        pass
    finally:
        sys.stdin, sys.stdout = real, stdout
    return captured.getvalue()
