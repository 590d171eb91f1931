"""Runs a generated program inside its confined process, in one of two ways (docs/evaluation.md §1.2, §3.5).

`real`        each test has a process: real standard streams; a program that reads them is `__main__`, one whose
              function is called, once, is imported as `solution`
`lcb-compat`  all tests of a sample share a process that imitates LiveCodeBench's official runner: its mock of standard
              input, the program wrapped into a function, one Solution object for all tests, a wall-clock alarm

Results leave through one descriptor as records: four bytes of length, then a JSON object whose values are texts.
{"ready"} comes first; {"value"} is the JSON of a function's value, {"stdout"} is what a test of lcb-compat printed, and
{"error"} is the exception that ended the program. None of them is a verdict, so a program gains nothing by writing them
itself: what it claims to print or return is compared like what it prints, and the fork-server observes how it ended.
This file uses the standard library only.
"""

import ast
import builtins
import contextlib
import io
import json
import os
import signal
import struct
import sys
import types
from collections.abc import Callable
from typing import Any

import interpreter

# The lines that LiveCodeBench's runner puts before every program.
MODULES = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools",
    "functools", "operator", "io", "sys", "json", "builtins", "typing",
)  # fmt: skip
PRELUDE = (
    "".join(f"from {name} import *\n" for name in MODULES)
    + "".join(f"import {name}\n" for name in MODULES[:-2])
    + "sys.setrecursionlimit(50000)\n"
)
# How a value becomes one of exactly this type, without a call of any method that a subclass may have replaced.
PLAIN: dict[type, Callable[[Any], object]] = {int: int.__pos__, float: float.__pos__, str: str.__str__}
# The official runner makes these modules impossible to import.
HIDDEN = ("ipdb", "joblib", "resource", "psutil", "tkinter")


def _main_module() -> types.ModuleType:
    module = types.ModuleType("__main__")
    module.__file__ = os.path.abspath("solution.py")
    exec(PRELUDE, module.__dict__)
    return module


# Made before the fork, and every fork has its own copy. To fill a new module in the fork would change the reference
# count of every object in it, and so copy all the memory pages they are in.
MAIN = _main_module()


class TimeoutException(Exception):  # noqa: N818 - programs may catch it by the name it has in the official runner
    """The alarm of lcb-compat went off."""


class Opaque(Exception):
    """The program exited where its function had to return a value."""


def plain(value: object) -> object:
    """A returned value in a form that JSON can hold and that no method of the program can influence later.

    None, bool, int, float, str and list stay (subclasses as their plain value, numpy scalars as Python numbers). A dict
    becomes {"d": [[key, value], …]}. Anything else becomes {"o": type name}, which equals nothing.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    for kind, convert in PLAIN.items():
        if isinstance(value, kind):
            return convert(value)
    if isinstance(value, list):
        return [plain(item) for item in list.__iter__(value)]
    if isinstance(value, dict):
        return {"d": [[plain(key), plain(item)] for key, item in dict.items(value)]}
    return {"o": type(value).__name__}


def returned(value: object) -> object:
    """`plain`, with a tuple at the top as a list, as in the official runner."""
    return plain(list(value) if isinstance(value, tuple) else value)


class Results:
    """Writes records into the pipe to the judge."""

    def __init__(self, handle: int) -> None:
        self.handle, self._write = handle, os.write  # a program may put another function in its place

    def send(self, record: dict[str, str]) -> None:
        data = json.dumps(record).encode()
        data = struct.pack(">I", len(data)) + data
        while data:
            data = data[self._write(self.handle, data) :]


def run(job: dict[str, Any], results: Results) -> int:
    """Run a job to its end; return the exit status of the process.

    job: code, semantics (real or lcb-compat), func_name ("" for programs that read standard input), inputs (texts: one
    JSON argument a line, or standard inputs for lcb-compat), seconds (alarm of one test, lcb-compat only).
    """
    try:
        (_lcb_compat if job["semantics"] == "lcb-compat" else _real)(job, results)
    except BaseException as error:  # noqa: BLE001 - whatever a program raises is its own result
        interpreter.lend_spare_memory()
        results.send({"error": f"{type(error).__name__}: {error}"[:500]})
        return 1
    return 0


def _real(job: dict[str, Any], results: Results) -> None:
    """Run the program as a script, or import it and call its function once."""
    call = job["func_name"]
    arguments = [json.loads(line) for line in job["inputs"][0].split("\n") if line.strip()] if call else []
    # An imported program does not run what it keeps for a run as a script: there it may read input, test itself, exit.
    MAIN.__name__ = "solution" if call else "__main__"
    sys.modules.update({"__main__": MAIN, MAIN.__name__: MAIN})
    names = MAIN.__dict__
    # The prelude's `from sys import *` bound those of the fork-server.
    names.update((name, getattr(sys, name)) for name in ("stdin", "stdout", "stderr", "argv"))
    names["__builtins__"] = vars(builtins) if call else builtins  # as Python has it for a module and for a script
    sys.setrecursionlimit(50000)
    if "asyncio" in job["code"]:
        interpreter.make_event_loops_work()
    # Python skips a byte order mark at the beginning of a file, not of a text.
    code = compile(job["code"].removeprefix("\ufeff"), "solution.py", "exec", dont_inherit=True)
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
    else:
        interpreter.end_of_script()


def _alarm(*_: object) -> None:
    raise TimeoutException


def _compiled(code: str, seconds: int) -> Any:
    """The module of a program, or its Solution object if the text has a class of that name; the alarm is set."""
    signal.alarm(seconds)
    module = types.ModuleType("tmp_sol")
    exec(code, module.__dict__)
    solution: Any = module.Solution() if "class Solution" in code else module
    signal.alarm(0)
    return solution


def _lcb_compat(job: dict[str, Any], results: Results) -> None:
    """Run all tests of a sample as the official runner does, and send a record for each."""
    signal.signal(signal.SIGALRM, _alarm)
    vars(builtins).update(quit=None, help=None)
    for name in HIDDEN:
        sys.modules[name] = None  # type: ignore[assignment]  # this makes `import name` fail
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
    """The program with the body of a closing `if __name__ == '__main__':` in its place, if spelled exactly so."""
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError):
        return code
    if body and isinstance(body[-1], ast.If) and ast.unparse(body[-1].test) == "__name__ == '__main__'":
        return ast.unparse(ast.Module([*body[:-1], *body[-1].body], []))
    return code


def _wrapped(code: str) -> str:
    """Top-level imports first, everything else inside `wrapped_function`. Text that does not parse stays as it is."""
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError):
        return code
    imports: list[ast.stmt] = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    wrapper = ast.parse("def wrapped_function(): pass")
    vars(wrapper.body[0])["body"] = [node for node in body if not isinstance(node, ast.Import | ast.ImportFrom)]
    return f"{PRELUDE}\n{ast.unparse(ast.Module(imports, []))}\n{ast.unparse(wrapper)}"


class _MockBuffer:
    """The `sys.stdin.buffer` of the official runner, on which every read starts at the beginning."""

    def __init__(self, text: str) -> None:
        self._data = text.encode()

    def read(self, *_: object) -> bytes:
        return self._data

    def readline(self, *_: object) -> bytes:
        return self._data.split(b"\n")[0] + b"\n"


class _MockStdin:
    """The `sys.stdin` of the official runner: it cannot be iterated; a StringIO has the methods that it lacks."""

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


def _call_with_mocks(method: Callable[[], object], text: str) -> str:
    """Call the wrapped program with `text` as its standard input; return what it printed.

    A program with `from sys import stdin` has the real stream. On that one the official runner replaces three methods,
    and its readline ends with StopIteration.
    """
    real: Any = sys.stdin
    stdout, captured, lines = sys.stdout, io.StringIO(), iter(text.split("\n"))
    real.readline, real.readlines = lambda *_: next(lines), lambda *_: text.split("\n")
    real.read = lambda *_: text
    vars(sys).update(stdin=_MockStdin(text), stdout=captured)
    try:
        with contextlib.suppress(SystemExit):
            method()
    finally:
        sys.stdin, sys.stdout = real, stdout
    return captured.getvalue()
