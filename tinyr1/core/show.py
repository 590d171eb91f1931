"""What notebooks show: parameters, whole tables, figures. pandas and IPython are imported when they are needed."""

import html
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tinyr1.core import progress, record
from tinyr1.core.config import Config

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML, Image
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

PIXELS = 200  # of an inch of a figure, in its PNG
REDRAW = 10.0  # seconds between two pictures of a figure that grows
SHOWN = 110  # pixels of a page that an inch of a figure takes where there is room; 9 points are 14 pixels then


def parameters(cfg: Config, stage: str) -> "HTML":
    """The parameters that decide a stage, a row for each block of the params file; the others fold away below.

    Every parameter that the file sets is in one of the two tables, null and whole, so that two runs that differ look
    different. UserError where the run does not have the stage.
    """
    if stage not in cfg.stages:
        cfg.require_training(f"notebook {stage}")
    from IPython.display import HTML

    own, others = _split(_file(cfg), record.determines(record.as_stored(cfg.params), stage))
    file = f"params/{cfg.run}.yaml"
    none = f"<p>No parameter of {file} decides this stage beside those of the stages before it.</p>"
    summary = f"<summary>Parameters of {file} that do not decide this stage</summary>"
    return HTML(f"{_table(own) if own else none}\n<details>{summary}\n{_table(others)}\n</details>")


def _file(cfg: Config) -> dict:
    """The parameters that the params file sets, as it nests them."""
    return cfg.params.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _split(values: dict, wanted: dict) -> tuple[dict, dict]:
    """The parameters among `values` that are in `wanted`, and the others, both as the file nests them."""
    inside: dict[str, Any] = {}
    outside: dict[str, Any] = {}
    for key, value in values.items():
        if key in wanted and isinstance(value, dict) and value and isinstance(wanted[key], dict):
            for place, part in zip((inside, outside), _split(value, wanted[key]), strict=True):
                if part:
                    place[key] = part
        else:
            (inside if key in wanted else outside)[key] = value
    return inside, outside


def _rows(value: dict, path: str = "") -> Iterator[tuple[str, str]]:
    """(path of a block, its own parameters as YAML) for each block; an entry of a list is a block, too."""
    blocks: dict[str, dict] = {}
    own: dict[str, Any] = {}
    for key, part in value.items():
        if isinstance(part, list) and part and all(isinstance(entry, dict) for entry in part):
            blocks |= {f"{key}.{i}": entry for i, entry in enumerate(part)}
        elif isinstance(part, dict) and part and key != "recipe":  # a recipe is read at one glance
            blocks[key] = part
        else:
            own[key] = part
    if own:
        own = {key: own[key] for key in sorted(own, key=lambda key: key != "kind")}
        text = yaml.safe_dump(own, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf)
        yield path or "run", text.strip().removeprefix("{").removesuffix("}")
    for key, block in blocks.items():
        yield from _rows(block, f"{path}.{key}" if path else key)


def _table(values: dict) -> str:
    """HTML without scripts and classes of its own: JupyterLab and the static page show it alike."""
    style = ' style="text-align: left; white-space: pre-wrap; vertical-align: top"'
    rows = (f"<tr><th{style}>{html.escape(b)}</th><td{style}>{html.escape(p)}</td></tr>" for b, p in _rows(values))
    head = f"<thead><tr><th{style}>block</th><th{style}>parameters</th></tr></thead>"
    return f"<table>{head}<tbody>\n" + "\n".join(rows) + "\n</tbody></table>"


def whole(table: "pd.DataFrame") -> "Styler":
    """A table of texts for a notebook, each cell to its end, with its own line breaks and tags such as </think>."""
    texts = table.astype(str).style.format(escape="html").format_index(escape="html")
    return texts.set_table_styles(
        [{"selector": "td", "props": [("text-align", "left"), ("white-space", "pre-wrap")]}]
    )


def live(draw: Callable[[Path], "Figure"]) -> Callable[[Path], None]:
    """A function that shows in an open notebook what `draw` makes of a file as the file grows, every REDRAW seconds.

    It does nothing in a headless run, nor before the file has a line.
    """
    shown: dict[str, Any] = {"at": -math.inf, "display": None}

    def show(file: Path) -> None:
        if progress.EVENTS in os.environ or time.monotonic() - shown["at"] < REDRAW:
            return
        if not file.is_file() or not file.stat().st_size:
            return
        from IPython.display import display
        from matplotlib import pyplot as plt

        shown["at"], figure = time.monotonic(), draw(file)
        if shown["display"] is None:
            shown["display"] = display(figure, display_id=True)
        else:
            shown["display"].update(figure)
        plt.close(figure)

    return show


def save_figure(cfg: Config, name: str, figure: "Figure") -> "Image":
    """A figure as <name>.svg and <name>.png in the run's report folder; returned as a picture for the notebook.

    The same figure gives the same bytes each time.
    """
    # Only notebooks draw, and these imports take a second.
    import matplotlib
    from IPython.display import Image

    cfg.reports.mkdir(parents=True, exist_ok=True)
    path = cfg.reports / f"{name}.png"
    # Without a salt, the ids inside an SVG are random; its letters are drawn, as not every machine has the font.
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
        figure.savefig(path, dpi=PIXELS, metadata={"Software": None})
    return Image(data=path.read_bytes(), width=round(figure.get_figwidth() * SHOWN), alt=name.replace("_", " "))
