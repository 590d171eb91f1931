"""Turns an executed notebook into one HTML file that opens offline and needs no other file.

    executed .ipynb -> without what papermill adds -> nbconvert -> without paths of this machine -> markup -> templates/

Images and style are inside the page, nothing is fetched from a network, and files are named from the root of the
repository. The only script is that of templates/sort.js, which sorts tables and filters rows; everything else works
without it. nbconvert and nbformat are imported where a notebook is read: they take seconds, and whoever asks for the
state of a run needs neither.
"""

import base64
import hashlib
import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from bs4 import BeautifulSoup
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from pygments.formatters import HtmlFormatter

from tinyr1.core import artifact, config
from tinyr1.core.config import STAGES
from tinyr1.report import markup

if TYPE_CHECKING:
    from nbformat import NotebookNode

TEMPLATES = Path(__file__).parent / "templates"
ANCHOR = "papermill-error-cell"  # the id that papermill gives to the failing cell
GIVEN, INJECTED = "parameters", "injected-parameters"  # tags of the cell in the notebook and of papermill's
# Without the types of widgets and of JavaScript, which need a script to be shown.
DATA_PRIORITY = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]


def render(notebook: Path, out: Path, run: str, stages: Sequence[str] = STAGES) -> None:
    """Write an executed notebook, also one that failed, as the HTML page `out` of the run `run`, which has `stages`."""
    import nbformat

    nb = _without_papermill(nbformat.read(notebook, as_version=4))
    failure = _failure(nb)
    failed = nb.cells[failure[0]].get("id") if failure else None
    if failure:
        mark = f'<p class="failure" id="{ANCHOR}">The run failed in this cell.</p>'
        nb.cells.insert(failure[0], nbformat.v4.new_markdown_cell(mark))
    soup = BeautifulSoup(without_paths(_body(nb)), "html.parser")
    markup.offline(soup, notebook.parent)
    sections = markup.number_headings(soup)
    markup.fold_code(soup, f"cell-id={failed}")
    markup.name_missing(soup)
    markup.make_sortable(soup)
    markup.box_wide_parts(soup)
    previous, following = _neighbours(notebook.stem, stages)
    page = template("notebook.html.j2").render(
        title=notebook.stem, run=run, previous=previous, following=following, body=str(soup), sections=sections,
        failure=failure and failure[1], anchor=ANCHOR,
        light_code=_code_style("xcode"), dark_code=_code_style("zenburn"),
    )  # fmt: skip
    artifact.write_atomic(out, page)


def _body(nb: "NotebookNode") -> str:
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    for cell in nb.cells:
        cell.metadata.setdefault("alt", "figure")
    exporter = HTMLExporter(template_name="basic", exclude_anchor_links=True)
    exporter.config.NbConvertBase.display_data_priority = DATA_PRIORITY
    exporter.register_preprocessor(CoalesceStreamsPreprocessor(), enabled=True)
    return exporter.from_notebook_node(nb)[0]


def _code_style(name: str) -> str:
    return HtmlFormatter(style=name).get_style_defs(".highlight")


def failing_cell(notebook: Path) -> str | None:
    """First line of the error in an executed notebook, or None if every cell ran.

    It looks at outputs and execution counts and not at papermill's metadata, because papermill calls the cell in which
    a kernel died "completed" and calls a notebook that ended by `sys.exit(0)` a success.
    """
    import nbformat

    failure = _failure(_without_papermill(nbformat.read(notebook, as_version=4)))
    return failure[1] if failure else None


def without_paths(text: str, runs: Path | None = None) -> str:
    """The text with files named from the root of the repository, and with ~ for the home folder.

    runs: the folder of all runs where it is outside the repository (TINYR1_HOME); it becomes `runs`. A path is replaced
    only where it begins: `/data/root/x` does not name the home folder `/root`.
    """
    root, home = config.ROOT, Path.home()
    places = [(root, "")] if runs is None or runs.is_relative_to(root) else [(runs, "runs/"), (root, "")]
    known = []
    for place, name in places:
        paths = [str(place)]
        if place.is_relative_to(home) and place != home:  # IPython itself writes ~ for the home folder in tracebacks
            paths.append(f"~/{place.relative_to(home)}")
        known += [pair for path in paths for pair in ((f"{path}/", name), (path, name.rstrip("/") or "."))]
    if not Path(sys.prefix).is_relative_to(root):  # name an environment elsewhere as `make setup` would name it
        known.append((sys.prefix, ".venv"))
    if len(home.parts) > 1:
        known.append((str(home), "~"))
    for path, new in known:
        end = "" if path.endswith("/") else r"(?![\w.-]*\w)"
        text = re.sub(rf"(^|[^\w.~-]|\x1b\[[\d;]*m|\\[nrt]){re.escape(path)}{end}", rf"\g<1>{new}", text)
    return text


def first_line(text: str) -> str:
    """The first line of an error, without colours and paths of this machine, for a table."""
    from nbconvert.filters import strip_ansi

    lines = without_paths(strip_ansi(text)).strip().splitlines()
    return lines[0] if lines else "failed without a message"


def _failure(nb: "NotebookNode") -> tuple[int, str] | None:
    """(index, first line of the error) of the cell that failed, or of the first that did not run; None without one."""
    for i, cell in enumerate(nb.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return i, first_line(f"{output.ename}: {output.evalue}".removesuffix(": "))
    code = [i for i, cell in enumerate(nb.cells) if cell.cell_type == "code" and cell.source.strip()]
    pending = [(n, i) for n, i in enumerate(code, 1) if nb.cells[i].get("execution_count") is None]
    if not any(n > 1 for n, _ in pending):
        return None
    n, i = pending[0]
    return i, f"the kernel stopped before cell {n}"


def _without_papermill(nb: "NotebookNode") -> "NotebookNode":
    """The notebook without papermill's notes on an error, and with one cell of parameters: the one that was used."""
    injected = any(INJECTED in _tags(cell) for cell in nb.cells)
    nb.cells = [
        cell for cell in nb.cells
        if not (cell.cell_type == "markdown" and ANCHOR in cell.source) and not (injected and GIVEN in _tags(cell))
    ]  # fmt: skip
    return nb


def _tags(cell: "NotebookNode") -> list[str]:
    return cell.metadata.get("tags", [])


def _neighbours(stage: str, stages: Sequence[str]) -> tuple[str | None, str | None]:
    """The stages before and after this one; None at the ends, and twice None for a notebook that is not a stage."""
    around = [None, *stages, None]
    i = around.index(stage) if stage in stages else 0
    return (around[i - 1], around[i + 1]) if i else (None, None)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(duration=duration, quote=quote)
    script = (TEMPLATES / "sort.js").read_text(encoding="utf-8")
    code = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(script=script, script_hash=f"sha256-{code}")  # no other script can run on a page
    return environment


def template(name: str) -> Template:
    """A template of tinyr1/report/templates by its file name; rendering it raises where a value is not given."""
    return _environment().get_template(name)


def duration(seconds: float) -> str:
    """12.3 -> '12 s', 754 -> '12 min 34 s', 7500 -> '2 h 5 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
