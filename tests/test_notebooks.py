"""The committed notebooks: one parameter, no outputs, no definitions, readable cells.

The version in git's index is checked, so running and saving a notebook in JupyterLab does not fail a test.
"""

import ast
import copy
import subprocess
import sys

import nbformat
import papermill
import pytest
import yaml

from tinyr1.core import record
from tinyr1.core.config import ROOT, STAGES

MOST_LINES = 15


def committed(stage):
    """Text of a notebook as git would commit it now, or as it is where there is no git."""
    name = f"notebooks/{stage}.ipynb"
    shown = subprocess.run(["git", "show", f":{name}"], cwd=ROOT, capture_output=True, check=False)
    return shown.stdout.decode() if shown.returncode == 0 else (ROOT / name).read_text(encoding="utf-8")


def strip_command():
    """What `git commit` does with a notebook, in this environment."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    (hook,) = (hook for hook in hooks if hook["id"] == "notebooks-without-outputs")
    program, *words = hook["entry"].split()
    assert program == ".venv/bin/nbstripout"
    return [sys.executable, "-m", "nbstripout", *words, *hook["args"]]


@pytest.fixture
def book(stage):
    return nbformat.reads(committed(stage), as_version=4)


def code_cells(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def test_there_are_exactly_the_five_stages():
    assert sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb")) == sorted(STAGES)


@pytest.mark.parametrize("stage", STAGES)
class TestNotebook:
    def test_run_is_its_only_parameter(self, stage, book, tmp_path):
        path = tmp_path / f"{stage}.ipynb"
        path.write_text(committed(stage), encoding="utf-8")
        assert set(papermill.inspect_notebook(str(path))) == {"run"}
        tagged = [c for c in code_cells(book) if "parameters" in c.metadata.get("tags", [])]
        assert [c.source for c in tagged] == ['run = "smol"']

    def test_it_is_committed_without_outputs(self, book):
        assert not [c.id for c in code_cells(book) if c.outputs or c.execution_count]

    def test_it_defines_nothing(self, book):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        found = [n for c in code_cells(book) for n in ast.walk(ast.parse(c.source)) if isinstance(n, kinds)]
        assert not found

    def test_its_cells_are_short(self, book):
        assert not [c.id for c in code_cells(book) if len(c.source.splitlines()) > MOST_LINES]

    def test_it_names_the_plain_kernel_and_keeps_stable_cell_ids(self, stage, book):
        assert book.metadata.kernelspec.name == "python3"
        assert [c.id for c in book.cells] == [f"{stage[:2]}-{i:02d}" for i in range(len(book.cells))]

    def test_it_ends_with_its_record(self, stage, book):
        assert f'record.write(cfg, "{stage}"' in code_cells(book)[-1].source

    def test_it_alternates_prose_and_code(self, book):
        kinds = "".join(c.cell_type[0] for c in book.cells)
        assert "cccc" not in kinds, "four code cells in a row without a word of why"

    def test_running_and_saving_it_does_not_invalidate_finished_work(self, stage, book, tmp_path, monkeypatch):
        monkeypatch.setattr(record, "ROOT", tmp_path)
        (tmp_path / "notebooks").mkdir()

        def hash_of(book):
            nbformat.write(book, tmp_path / "notebooks" / f"{stage}.ipynb")
            return record.notebook_hash(stage)

        saved = copy.deepcopy(book)
        saved.metadata.language_info = {"name": "python", "version": "3.12.1"}
        for n, cell in enumerate(code_cells(saved), 1):
            cell.execution_count = n
            cell.outputs = [nbformat.v4.new_output("stream", text="done\n")]
            cell.metadata.scrolled = True
        code_cells(saved)[0].source = 'run = "mine"'
        before = hash_of(book)
        assert hash_of(saved) == before
        code_cells(saved)[-1].source += "\n"
        assert hash_of(saved) != before

    def test_what_a_commit_strips_leaves_nothing_of_what_jupyterlab_saves(self, stage, book, tmp_path):
        path = tmp_path / f"{stage}.ipynb"
        for n, cell in enumerate(code_cells(book), 1):
            cell.execution_count = n
            cell.outputs = [nbformat.v4.new_output("stream", text="done\n")]
            cell.metadata.scrolled = True
        book.cells[0].metadata["jp-MarkdownHeadingCollapsed"] = True
        book.metadata.language_info = {
            "codemirror_mode": {"name": "ipython", "version": 3}, "file_extension": ".py", "version": "3.12.1",
            "mimetype": "text/x-python", "name": "python", "nbconvert_exporter": "python", "pygments_lexer": "ipython3",
        }  # fmt: skip
        nbformat.write(book, path)
        subprocess.run([*strip_command(), path], check=True)
        assert path.read_text(encoding="utf-8") == committed(stage)
