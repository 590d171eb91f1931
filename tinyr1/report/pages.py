"""Executed notebooks as pages: standalone HTML that opens offline, from a file.

Images and style are inside the page, nothing is fetched from a network, no script runs, and no path of the machine is
told.
"""

import base64
import copy
import mimetypes
import re
import sys
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote

import nbformat
from bs4 import BeautifulSoup
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from nbconvert import HTMLExporter
from nbconvert.filters import strip_ansi
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

from tinyr1.core import artifact, config
from tinyr1.core.config import STAGES

TEMPLATES = Path(__file__).parent / "templates"
ANCHOR = "papermill-error-cell"  # the id papermill gives to the failing cell
DATA_PRIORITY = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]


def render(notebook: Path, out: Path) -> None:
    """Write an executed notebook, failed ones included, as one HTML file that needs nothing else."""
    nb = without_machine_paths(nbformat.read(notebook, as_version=4))
    nb = _with_anchor(nb)
    for cell in nb.cells:
        cell.metadata.setdefault("alt", "figure")
    exporter = HTMLExporter(template_name="basic", exclude_anchor_links=True)
    exporter.config.NbConvertBase.display_data_priority = DATA_PRIORITY  # no widgets, no JavaScript
    exporter.register_preprocessor(CoalesceStreamsPreprocessor(), enabled=True)
    body, _ = exporter.from_notebook_node(nb)
    previous, following = _neighbours(notebook.stem)
    page = template("notebook.html.j2").render(
        title=notebook.stem, run=out.absolute().parent.name, previous=previous, following=following,
        body=_offline(body, notebook.parent),
        code_style=HtmlFormatter(style="default").get_style_defs(".highlight"),
    )  # fmt: skip
    artifact.write_atomic(out, page)


def failing_cell(notebook: Path) -> str | None:
    """First line of the error in an executed notebook, or None if every cell ran.

    It looks at outputs and execution counts, not at metadata: papermill calls the cell in which a kernel died
    "completed", and ends `sys.exit(0)` with success.
    """
    found = _failure(nbformat.read(notebook, as_version=4))
    return found[1] if found else None


def without_machine_paths(nb: NotebookNode) -> NotebookNode:
    """A copy of the notebook whose outputs name files from the repository root, and the home folder as ~."""
    nb = copy.deepcopy(nb)
    for output in [o for cell in nb.cells for o in cell.get("outputs", [])]:
        if output.output_type == "stream":
            output.text = without_paths(output.text)
        elif output.output_type == "error":
            output.evalue = without_paths(output.evalue)
            output.traceback = [without_paths(line) for line in output.traceback]
        else:
            for kind, value in output.data.items():
                if isinstance(value, str) and not kind.startswith("image/"):
                    output.data[kind] = without_paths(value)
    return nb


def without_paths(text: str) -> str:
    """Text in which files are named from the repository root, and the home folder is ~.

    Paths are replaced where a path starts: `/data/root/x` is not the home folder `/root`.
    """
    root, home = config.ROOT, Path.home()
    known = [(f"{root}/", ""), (str(root), ".")]
    if root.is_relative_to(home) and root != home:  # IPython shortens the home folder in tracebacks itself
        short = f"~/{root.relative_to(home)}"
        known += [(f"{short}/", ""), (short, ".")]
    if not Path(sys.prefix).is_relative_to(root):  # an environment kept elsewhere is shown where set-up puts it
        known.append((sys.prefix, ".venv"))
    if len(home.parts) > 1:
        known.append((str(home), "~"))
    for path, new in known:
        end = "" if path.endswith("/") else r"(?![\w.-]*\w)"
        text = re.sub(rf"(^|[^\w.~-]|\x1b\[[\d;]*m|\\[nrt]){re.escape(path)}{end}", rf"\g<1>{new}", text)
    return text


def _failure(nb: NotebookNode) -> tuple[int, str] | None:
    """(index, first line of the error) of the failing cell, or of the first that did not run, or None."""
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


def first_line(text: str) -> str:
    """An error in one line, for a table."""
    lines = without_paths(strip_ansi(text)).strip().splitlines()
    return lines[0] if lines else "failed without a message"


def _with_anchor(nb: NotebookNode) -> NotebookNode:
    """Papermill marks the cell that raised; where it could not (the kernel died), mark the place here."""
    found = _failure(nb)
    if found and not any(f'id="{ANCHOR}"' in cell.source for cell in nb.cells):
        banner = f'<span id="{ANCHOR}">The run failed here.</span>'
        tags = {"tags": ["papermill-error-cell-tag"]}
        nb.cells.insert(found[0], nbformat.v4.new_markdown_cell(banner, metadata=tags))
    return nb


def _offline(body: str, folder: Path) -> str:
    """Take out what a browser would fetch or run; image files in `folder` are put into the page.

    nbconvert's own `embed_images` closes every inline tag in prose at once, papermill's anchor among them.
    """
    soup = BeautifulSoup(body, "html.parser")
    for element in soup(["script", "link", "iframe", "object", "embed", "base", "meta"]):
        element.decompose()
    for element in soup(src=lambda src: src and not src.startswith("data:")):
        source = element["src"]
        kind = mimetypes.guess_type(source)[0] or ""
        if element.name == "img" and kind.startswith("image/") and (folder / unquote(source)).is_file():
            data = base64.b64encode((folder / unquote(source)).read_bytes()).decode()
            element["src"] = f"data:{kind};base64,{data}"
            continue
        link = soup.new_tag("a", href=source)
        link.string = element.get("alt") or source
        element.replace_with(link)
    for element in soup(srcset=True):
        del element["srcset"]
    return str(soup)


def _neighbours(stage: str) -> tuple[str | None, str | None]:
    """Names of the stages before and after; None at the ends, and for a notebook that is not a stage."""
    if stage not in STAGES:
        return None, None
    i = STAGES.index(stage)
    return (STAGES[i - 1] if i else None), (STAGES[i + 1] if i + 1 < len(STAGES) else None)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(duration=_duration, quote=quote)
    return environment


def template(name: str) -> Template:
    """A template of tinyr1/templates by its file name; a value that it is not given is an error."""
    return _environment().get_template(name)


def _duration(seconds: float) -> str:
    """12.3 -> '12 s', 754 -> '12 min 34 s', 7500 -> '2 h 5 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
