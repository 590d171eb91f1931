"""The kernel of a notebook is this interpreter in a closed environment, whatever stands around it."""

import json
import sys

import papermill
from nbformat import v4, write

from tinyr1.core import kernel

ASK = "import os, sys; print(sys.executable, 'HOSTILE' in os.environ, os.environ.get('PYTHONPATH') == '/hostile')"


def test_another_kernel_of_the_same_name_is_not_started(tmp_path, monkeypatch):
    folder = tmp_path / "kernels" / "python3"
    folder.mkdir(parents=True)
    other = {"argv": ["/usr/bin/false"], "display_name": "other", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(other))
    for name, value in {"JUPYTER_PATH": str(tmp_path), "PYTHONPATH": "/hostile", "HOSTILE": "1", "MY_KEY": "k"}.items():
        monkeypatch.setenv(name, value)
    cells = [v4.new_code_cell(ASK), v4.new_code_cell("os.environ['MY_KEY']")]
    write(v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}}), tmp_path / "ask.ipynb")
    done = papermill.execute_notebook(
        tmp_path / "ask.ipynb", tmp_path / "done.ipynb", kernel_name="python3", progress_bar=False,
        kernel_manager_class=kernel.Kernel(("MY_KEY",)).manager, cwd=tmp_path,
    )  # fmt: skip
    assert done.cells[0].outputs[0].text.split() == [sys.executable, "False", "False"]
    assert done.cells[1].outputs[0].data["text/plain"] == "'k'"
