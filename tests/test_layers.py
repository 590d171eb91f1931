import ast
import sys

import pytest
from conftest import ROOT

STAGES = ("sources", "curate", "branch", "merged", "evaluate", "lens", "plots", "report")
FILES = sorted((ROOT / "tinyr1").rglob("*.py"))


def imported(path):
    """Modules of the package that a file imports, by their names below tinyr1."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {
                name.name.removeprefix("tinyr1.") for name in node.names if name.name.startswith("tinyr1.")
            }
        elif (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").split(".")[0] == "tinyr1"
            and not node.level
        ):
            inside = node.module.removeprefix("tinyr1").removeprefix(".")
            found |= {inside} if inside else {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            found |= {node.module} if node.module else {name.name for name in node.names}
    return found


def test_imports_are_seen_in_every_form(tmp_path):
    text = "import tinyr1.a\nfrom tinyr1 import b, c\nfrom tinyr1.d import x\nfrom . import e\n"
    text += "def f():\n    from .g import y\n"
    (tmp_path / "m.py").write_text(text + "import torch\nfrom tinyr1other import z\n")
    assert imported(tmp_path / "m.py") == set("abcdeg")


@pytest.mark.parametrize("name", [s for s in STAGES if (ROOT / "tinyr1" / f"{s}.py").exists()])
def test_a_stage_imports_no_other_stage(name):
    assert not imported(ROOT / "tinyr1" / f"{name}.py") & set(STAGES)


def test_most_stages_exist_so_that_the_test_above_looks_at_something():
    assert len([s for s in STAGES if (ROOT / "tinyr1" / f"{s}.py").exists()]) >= 4


def words(path):
    """Names, attributes and imported names of a file of the package."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        found |= {getattr(node, "attr", ""), getattr(node, "id", ""), str(getattr(node, "value", ""))}
        if isinstance(node, ast.ImportFrom):
            found |= {name.name for name in node.names}
    return found


def test_only_config_knows_where_params_files_are():
    assert [p.stem for p in FILES if words(p) & {"params_folder", "TINYR1_PARAMS"}] == ["config"]


def test_yaml_is_read_by_config_and_for_merge_recipes_only():
    loaders = {"safe_load", "safe_load_all", "load_all", "SafeLoader"}
    assert [p.stem for p in FILES if words(p) & loaders] == ["config", "recipe"]


def test_the_sandboxed_interpreter_needs_the_standard_library_only():
    files = [p for p in FILES if p.stem.startswith("sandbox_")]
    assert len(files) == 4
    for path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        own = {p.stem for p in files} | {"numpy"}  # numpy is loaded where it is installed
        assert {name.split(".")[0] for name in names} - own <= sys.stdlib_module_names
