r"""Reads the program out of an answer: by LiveCodeBench's rule, and where that yields none, by what compiles.

    text --fenced_code--> between the last two fences --is_program--> taken
             \-- it is no program --> the last fenced block that is one; without any, what LiveCodeBench takes

Nothing is run here. Compiling happens in this process, with limits: CPython refuses sources that nest too deep.
"""

import ast
import threading
import warnings
from collections.abc import Iterator
from textwrap import dedent

FENCE = "```"
LONGEST = 1 << 17  # characters of a source that is compiled here; a longer one is left to the sandbox
FENCES = 40  # from the end of an answer, among which a program is sought
ENDS = 3  # fences that are tried as the end of one block, since a program may hold fences in a text of its own
EFFECTS = ("print", "exec", "eval", "open", "input", "exit", "quit")  # what an expression alone calls to do something
_ONE_AT_A_TIME = threading.Lock()  # `warnings.catch_warnings` changes the whole process


def fenced_code(text: str) -> str | None:
    """The code between the last two lines with a fence, which is LiveCodeBench's rule (docs/evaluation.md §1.1)."""
    lines = text.split("\n")
    fences = [i for i, line in enumerate(lines) if FENCE in line]
    return "\n".join(lines[fences[-2] + 1 : fences[-1]]) if len(fences) >= 2 else None


def program(text: str, name: str = "") -> str | None:
    """`fenced_code` where it is a program; else the last block of the text that is one, indented or never closed
    blocks included; else `fenced_code` whatever it is.

    name: what a program has to define where it is called and does not read its input. A block that only calls it is
    an example, and no program, unless no block defines it.
    """
    official = fenced_code(text)
    for wanted in dict.fromkeys((name, "")):
        if official is not None and is_program(official, wanted):
            return official
        if (found := next((code for code in _blocks(text) if is_program(code, wanted)), None)) is not None:
            return found
    return official


def is_program(code: str, name: str = "") -> bool:
    """Whether a text compiles and does something: it calls or defines something, unlike an output such as "5" and a
    formula such as "O(n)" or "max(a, b)". With a name, whether it compiles and defines that."""
    if len(code) > LONGEST:
        return True
    try:
        with _ONE_AT_A_TIME, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes; Python prints them when the program is run, too
            tree = ast.parse(code)
            compile(tree, "<answer>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError):  # all that a source can cause
        return False
    if name:
        return any(_defines(node, name) for node in ast.walk(tree))
    if all(isinstance(statement, ast.Expr) for statement in tree.body):
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        return any(isinstance(f, ast.Attribute) or (isinstance(f, ast.Name) and f.id in EFFECTS) for f in calls)
    doing = (ast.Call, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(isinstance(node, doing) for node in ast.walk(tree))


def _defines(node: ast.AST, name: str) -> bool:
    """Whether a part of a program gives a name to a function, by `def`, an assignment or an import."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return node.name == name
    if isinstance(node, ast.alias):
        return name in (node.name, node.asname)
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name


def _blocks(text: str) -> Iterator[str]:
    """What may be the content of a fenced block, the last block first, without the indentation that all its lines have.

    A fence with a word behind it opens a block; a bare one opens it or closes the one that is open. A block ends at one
    of the next ENDS fences, the nearest first, or at the end of the text.
    """
    lines = text.split("\n")
    fences = [i for i, line in enumerate(lines) if line.lstrip().startswith(FENCE)][-FENCES:]
    openers, is_open = [], False
    for i in fences:
        is_open = bool(lines[i].strip().strip("`")) or not is_open
        if is_open:
            openers.append(i)
    for start in reversed(openers):
        ends = [i for i in fences if i > start]
        for end in (ends if len(ends) >= ENDS else [*ends, len(lines)])[:ENDS]:
            yield dedent("\n".join(lines[start + 1 : end]))
