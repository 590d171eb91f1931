"""What may know what: contracts of the whole package, and that the tools of `make lint` catch what breaks them."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from test_reference import outdated

from tinyr1.sandbox import forkserver

FILES = sorted((ROOT / "tinyr1").rglob("*.py"))


def words(path):
    """Names, attributes and imported names of a file of the package."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        found |= {getattr(node, "attr", ""), getattr(node, "id", ""), str(getattr(node, "value", ""))}
        if isinstance(node, ast.ImportFrom):
            found |= {name.name for name in node.names}
    return found


def test_only_config_knows_where_params_files_are():
    assert [p.stem for p in FILES if words(p) & {"params_folder"}] == ["config"]
    assert [p.stem for p in FILES if words(p) & {"TINYR1_PARAMS"}] == ["config", "surroundings"]


def test_one_module_reads_yaml():
    loaders = {"load", "load_all", "safe_load", "safe_load_all", "full_load", "SafeLoader", "CSafeLoader"}

    def reads(path):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        attributes = (node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name))
        return any(node.value.id == "yaml" and node.attr in loaders for node in attributes)

    assert [p.stem for p in FILES if reads(p)] == ["params_text"]


def test_the_sandboxed_interpreter_needs_the_standard_library_only():
    files = [ROOT / "tinyr1" / "sandbox" / name for name in forkserver.INSIDE]
    assert len(files) == 5
    for path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        own = {p.stem for p in files} | {"numpy"}  # numpy is loaded where it is installed
        assert {name.split(".")[0] for name in names} - own <= sys.stdlib_module_names


def test_no_module_imports_a_private_name_of_another():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                private = [name.name for name in node.names if name.name.startswith("_") and name.name != "__version__"]
                assert not private, f"{path}: imports {private}"


# --- the tools of `make lint`: each is run on a copy of the package in which one rule is broken ---------------


@pytest.fixture
def copy(tmp_path):
    """A copy of what the tools read, to be spoilt by a test."""
    for name in ("tinyr1", "params", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def tool(copy, package, *command):
    """(exit status, what it prints) of a tool that looks at the copy; skipped where the tool is not installed."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed; run `make setup`")
    environment = os.environ | {"PYTHONPATH": str(copy)}  # before the package that is installed for development
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def plant(file, text):
    file.write_text(file.read_text(encoding="utf-8") + text, encoding="utf-8")


def contracts(copy):
    code = "from importlinter.cli import lint_imports_command as check; check()"
    return tool(copy, "importlinter", sys.executable, "-c", code)


def test_the_contracts_hold(copy):
    status, said = contracts(copy)
    assert status == 0, said


@pytest.mark.parametrize(
    ("room", "planted", "complaint"),
    [
        ("data/files.py", "import tinyr1.evaluate.stats", "tinyr1.data.files -> tinyr1.evaluate.stats"),
        ("branch/packing.py", "import tinyr1.merge.fusion", "tinyr1.branch.packing -> tinyr1.merge.fusion"),
        ("core/errors.py", "import tinyr1.core.jsonl", "No circle between the modules of any folder BROKEN"),
        ("core/config.py", "import torch", "tinyr1.core.config -> torch"),
        ("core/errors.py", "import transformers", "-> transformers"),
    ],
)
def test_a_forbidden_import_is_caught(copy, room, planted, complaint):
    plant(copy / "tinyr1" / room, f"\n{planted}  # noqa: E402\n")
    status, said = contracts(copy)
    assert status != 0
    assert complaint in said


def test_a_private_member_of_another_module_is_caught(copy):
    file = copy / "tinyr1" / "core" / "show.py"
    check = (sys.executable, "-m", "ruff", "check", "--no-cache", str(file))
    assert tool(copy, "ruff", *check)[0] == 0
    plant(file, "\n\ndef moved() -> dict:\n    return record._syntax(None)\n")
    status, said = tool(copy, "ruff", *check)
    assert status != 0
    assert "SLF001" in said


def test_a_type_error_is_caught(copy):
    check = (sys.executable, "-m", "mypy", "-m", "tinyr1.core.errors")
    assert tool(copy, "mypy", *check)[0] == 0
    plant(copy / "tinyr1" / "core" / "errors.py", "\n\ndef length(text: str) -> str:\n    return len(text)\n")
    status, said = tool(copy, "mypy", *check)
    assert status != 0
    assert 'got "int", expected "str"' in said


@pytest.mark.parametrize("path", ["docs/params.md", "params/schema.json"])
def test_an_outdated_page_of_parameters_is_caught(copy, path):
    assert outdated(copy) == []
    text = (copy / path).read_text(encoding="utf-8")
    (copy / path).write_text(text.replace("Peak learning rate", "Learning rate"), encoding="utf-8")
    assert outdated(copy) == [path]
