"""The committed notebooks: one parameter, no outputs, no definitions, readable cells."""

import ast

import nbformat
import papermill
import pytest

from tinyr1.core.config import ROOT, STAGES

PATHS = [ROOT / "notebooks" / f"{stage}.ipynb" for stage in STAGES]
MOST_LINES = 15


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_there_are_exactly_the_five_stages():
    assert sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb")) == sorted(STAGES)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
class TestNotebook:
    def test_run_is_its_only_parameter(self, path):
        assert set(papermill.inspect_notebook(str(path))) == {"run"}
        tagged = [c for c in code_cells(path) if "parameters" in c.metadata.get("tags", [])]
        assert [c.source for c in tagged] == ['run = "smol"']

    def test_it_is_committed_without_outputs(self, path):
        assert not [c.id for c in code_cells(path) if c.outputs or c.execution_count]

    def test_it_defines_nothing(self, path):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        found = [n for c in code_cells(path) for n in ast.walk(ast.parse(c.source)) if isinstance(n, kinds)]
        assert not found

    def test_its_cells_are_short(self, path):
        assert not [c.id for c in code_cells(path) if len(c.source.splitlines()) > MOST_LINES]

    def test_it_names_the_plain_kernel_and_keeps_stable_cell_ids(self, path):
        book = nbformat.read(path, as_version=4)
        assert book.metadata.kernelspec.name == "python3"
        assert [c.id for c in book.cells] == [f"{path.stem[:2]}-{i:02d}" for i in range(len(book.cells))]

    def test_it_ends_with_its_record(self, path):
        assert f'record.write(cfg, "{path.stem}"' in code_cells(path)[-1].source

    def test_it_alternates_prose_and_code(self, path):
        kinds = "".join(c.cell_type[0] for c in nbformat.read(path, as_version=4).cells)
        assert "cccc" not in kinds, "four code cells in a row without a word of why"
