import copy
import functools
import os
import struct
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup
from nbformat import v4

from tinyr1.core import config, record, show
from tinyr1.report import pages, plots

RUNS = ["smoke", "smol", "r1-1.5b", "paper"]


def tables(page):
    """(rows of the table that is shown, rows of the table that is folded away): path of a block -> its text."""
    soup = BeautifulSoup(page.data, "html.parser")
    folded = soup.details.extract()

    def rows(part):
        cells = [[cell.text for cell in row.find_all(["th", "td"])] for row in part.select("tbody tr")]
        return dict(cells)

    return rows(soup), rows(folded)


def rebuilt(rows):
    """Rows, read as YAML and put back in their places: path of a parameter -> value."""
    found = {}
    for block, text in rows.items():
        prefix = "" if block == "run" else f"{block}."
        found |= {f"{prefix}{key}": value for key, value in yaml.safe_load(f"{{{text}}}").items()}
    return found


def leaves(value, path=""):
    """Path -> value of every parameter that a params file sets; a recipe is one."""
    if isinstance(value, dict) and value and not path.endswith(".recipe"):
        parts = [leaves(inner, f"{path}.{key}" if path else key) for key, inner in value.items()]
        return functools.reduce(dict.__or__, parts)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return functools.reduce(dict.__or__, (leaves(inner, f"{path}.{i}") for i, inner in enumerate(value)))
    return {path: value}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("stage", config.STAGES)
def test_every_parameter_of_the_file_is_in_one_of_the_two_tables_whole(run, stage):
    cfg = config.load(run)
    own, others = map(rebuilt, tables(show.parameters(cfg, stage)))
    assert not own.keys() & others.keys()
    assert own | others == leaves(cfg.params.model_dump(mode="json", by_alias=True, exclude_unset=True))


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("stage", config.STAGES)
def test_only_what_decides_the_stage_is_shown(run, stage):
    cfg = config.load(run)
    own, others = map(rebuilt, tables(show.parameters(cfg, stage)))
    wanted = leaves(record.determines(record.as_stored(cfg.params), stage)) if own else {}
    assert own.keys() <= wanted.keys()
    assert not others.keys() & wanted.keys()


def test_a_stage_shows_what_it_is_about(home):
    cfg = config.load("smol")
    shown = {stage: tables(show.parameters(cfg, stage))[0] for stage in config.STAGES}
    merges, orders = shown["03_fusion_merge"], (("code", "science"), ("science", "code"))
    assert merges.keys() == {"merge", *(f"merge.models.{i}" for i in range(len(cfg.merges)))}
    assert merges["merge"] == "reading: exact, iqr_multiplier: 1.5"
    for i, (last, first) in enumerate(orders):
        recipe = f"recipe: {{method: fusion, base: {last}, other: {{method: fusion, base: {first}, other: math}}}}"
        assert merges[f"merge.models.{i}"] == recipe
    assert {block.split(".")[0] for block in shown["05_ablations"]} == {"analysis", "ablations"}
    assert "domains.math.sft" in shown["02_branch_sft"]
    assert "domains.math.sft" not in shown["01_data_curation"]
    assert shown["04_evaluation"]["domains.math.benchmarks.mini-math"] == "samples: 1, max_tokens: 120"


def test_two_runs_that_differ_in_one_parameter_look_different(home):
    file = home / "params" / "smol.yaml"
    data = yaml.safe_load(file.read_text())
    data["domains"]["science"]["instruction"] += " " + "Long " * 500 + "<end>"
    data["domains"]["code"]["limit"] = None
    (home / "params" / "changed.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    for stage in config.STAGES:
        page = show.parameters(config.load("changed"), stage)
        shown = functools.reduce(dict.__or__, map(rebuilt, tables(page)))
        assert shown["domains.science.instruction"] == data["domains"]["science"]["instruction"]
        assert shown["domains.code.limit"] is None
        assert "&lt;end&gt;" in page.data, "a value is text, not HTML"


def test_equal_parameters_look_equal_whatever_their_order_in_the_file(home):
    data = yaml.safe_load((home / "params" / "smol.yaml").read_text())
    moved = copy.deepcopy(data) | {"seed": data["seed"]}
    moved = dict(reversed(moved.items()))
    (home / "params" / "smol.yaml").write_text(yaml.safe_dump(moved, sort_keys=False))
    again = show.parameters(config.load("smol"), "03_fusion_merge").data
    (home / "params" / "smol.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    assert show.parameters(config.load("smol"), "03_fusion_merge").data == again


def test_the_tables_need_no_script_and_no_style_sheet(home):
    page = show.parameters(config.load("smol"), "01_data_curation").data
    soup = BeautifulSoup(page, "html.parser")
    assert {tag.name for tag in soup.find_all(True)} == {
        "table", "thead", "tbody", "tr", "th", "td", "details", "summary"
    }  # fmt: skip
    assert not soup.details.has_attr("open")
    assert not [tag for tag in soup.find_all(True) if set(tag.attrs) - {"style"}]


def test_a_table_of_texts_is_shown_to_the_end_of_each():
    text = "first line\n" + "word " * 100 + "<think>\nend"
    page = show.whole(pd.DataFrame({"prompt": [text, None]}, index=["<think>", "b"])).to_html()
    cells = BeautifulSoup(page, "html.parser")
    assert cells.td.text == text
    assert cells.tbody.th.text == "<think>"
    assert "pre-wrap" in page


def test_the_static_page_keeps_the_folded_table(home, tmp_path):
    """The page of a notebook is cleaned of everything that a browser would run or fetch."""
    shown = show.parameters(config.load("smol"), "02_branch_sft").data
    output = v4.new_output("display_data", {"text/html": shown})
    notebook = v4.new_notebook(cells=[v4.new_code_cell("show.parameters(cfg)", outputs=[output])])
    nbformat.write(notebook, tmp_path / "02_branch_sft.ipynb")
    pages.render(tmp_path / "02_branch_sft.ipynb", tmp_path / "page.html", "smol")
    page = BeautifulSoup((tmp_path / "page.html").read_text(encoding="utf-8"), "html.parser")
    assert "epochs: 1" in page.select_one("table").text
    others = page.select_one(".output details")
    assert "chat_template: r1" in others.text
    assert not others.has_attr("open")


def figure():
    fig, ax = plots.plt.subplots(figsize=(plots.WIDTH, 2), layout="constrained")
    ax.barh(["a", "b"], [1, 2], hatch="//")  # a hatch has an id inside an SVG
    ax.set_title("ein Titel")
    return fig


def test_a_figure_is_saved_as_svg_and_png_with_the_same_bytes_each_time(home):
    cfg = config.load("smol")
    files = [cfg.reports / f"bars.{suffix}" for suffix in ("svg", "png")]
    made = []
    for _ in range(2):
        shown = show.save_figure(cfg, "bars", figure())
        made.append([file.read_bytes() for file in files])
        plots.plt.close("all")
    assert made[0] == made[1]
    svg, png = made[0]
    assert shown.data == png
    assert shown.width == round(plots.WIDTH * show.SHOWN)
    assert b"<text" not in svg, "the letters must not depend on the fonts of the reader's machine"
    for word in (b"date>", b"Matplotlib v", b"Software"):
        assert word not in svg
        assert word not in png
    assert struct.unpack(">II", png[16:24]) == (round(plots.WIDTH * show.PIXELS), 2 * show.PIXELS)


def test_a_person_s_own_matplotlibrc_does_not_change_a_figure(tmp_path):
    (tmp_path / "matplotlibrc").write_text("font.family: serif\nfont.size: 30\naxes.grid: True\n")
    keys = ("font.family", "font.size", "axes.grid")
    program = f"from tinyr1.report.plots import plt; print(*map(plt.rcParams.get, {keys}))"
    command = [sys.executable, "-c", program]
    environment = os.environ | {"MATPLOTLIBRC": str(tmp_path)}
    out = subprocess.run(command, env=environment, cwd=config.ROOT, capture_output=True, text=True, check=True).stdout
    assert out.split() == ["DejaVu", "Sans", "9.0", "False"]


def test_a_figure_grows_with_its_file_in_an_open_notebook_and_not_in_a_headless_run(tmp_path, monkeypatch):
    from tinyr1.core import progress
    from tinyr1.report import plots_branch

    file, shown = tmp_path / "math.partial" / "log.jsonl", []
    file.parent.mkdir()

    class Handle:
        def update(self, figure):
            shown.append(len(figure.axes[0].lines[0].get_xdata()))

    def display(figure, display_id):
        Handle().update(figure)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr(show, "REDRAW", 0)
    monkeypatch.setenv(progress.EVENTS, "x")
    watch = show.live(plots_branch.loss_so_far)
    watch(file)
    file.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n{"step": 3, "lo')
    watch(file)
    assert shown == []
    monkeypatch.delenv(progress.EVENTS)
    watch(file)
    file.write_text(file.read_text() + 'ss": 1.2}\n')
    watch(file)
    monkeypatch.setattr(show, "REDRAW", 1000)
    watch(file)
    assert shown == [2, 3]
