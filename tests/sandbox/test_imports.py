"""The sandbox can be read, and used, without the rest of the package."""

import ast
import sys

import pytest
from conftest import ROOT

from tinyr1.sandbox import forkserver

FOLDER = ROOT / "tinyr1" / "sandbox"


def imports(path):
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda p: p.stem)
def test_it_needs_the_standard_library_and_the_error_class_only(path):
    others = {name for name in imports(path) if name.split(".")[0] not in sys.stdlib_module_names}
    if path.name in forkserver.INSIDE:
        beside = {name.removesuffix(".py") for name in forkserver.INSIDE} - {"zygote"}
        assert others <= beside | {"numpy"}  # numpy where it is installed
    else:
        assert {name for name in others if not name.startswith("tinyr1.sandbox")} <= {"tinyr1.core.errors"}
