import ast
import sys

from conftest import ROOT

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
    assert [p.stem for p in FILES if words(p) & {"params_folder", "TINYR1_PARAMS"}] == ["config"]


def test_yaml_is_read_by_config_and_for_merge_recipes_only():
    loaders = {"safe_load", "safe_load_all", "load_all", "SafeLoader"}
    assert [p.stem for p in FILES if words(p) & loaders] == ["config", "mergekit"]


def test_the_sandboxed_interpreter_needs_the_standard_library_only():
    files = [ROOT / "tinyr1" / "sandbox" / name for name in forkserver.INSIDE]
    assert len(files) == 4
    for path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        own = {p.stem for p in files} | {"numpy"}  # numpy is loaded where it is installed
        assert {name.split(".")[0] for name in names} - own <= sys.stdlib_module_names
