"""Executed notebooks become pages that open from a file, offline, and say what failed."""

import base64
import io
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from matplotlib.figure import Figure
from nbformat import v4

from tinyr1.core import config
from tinyr1.core.config import ROOT
from tinyr1.report import pages

ANCHOR = '<span id="papermill-error-cell" style="color:red">Execution using papermill failed</span>'
FRAME = '<table border="1" class="dataframe"><thead><tr><th></th><th>loss</th></tr></thead></table>'
LOADED = re.compile(r"""<script|<link|<iframe|\ssrc=(?!["']?data:)|url\(\s*["']?http|@import""", re.I)
SCRIPT = f"<script>{(pages.TEMPLATES / 'sort.js').read_text(encoding='utf-8')}</script>"


def fetched(page: str) -> list[str]:
    """What a page fetches or runs beside the one script that sorts its tables."""
    assert page.count(SCRIPT) == 1
    return LOADED.findall(page.replace(SCRIPT, ""))


def png() -> bytes:
    buffer = io.BytesIO()
    Figure(figsize=(1, 1)).savefig(buffer, format="png")
    return buffer.getvalue()


def cell(source: str, *outputs: dict, count: int | None = 1) -> dict:
    return v4.new_code_cell(source, outputs=list(outputs), execution_count=count)


def shown(**data: str) -> dict:
    return v4.new_output("display_data", {kind.replace("_", "/"): value for kind, value in data.items()})


def stream(text: str, name: str = "stdout") -> dict:
    return v4.new_output("stream", name=name, text=text)


def raised(evalue: str) -> dict:
    lines = ["\x1b[31mValueError\x1b[0m", f"File \x1b[32m{ROOT}/tinyr1/train.py:7\x1b[39m, in <module>"]
    return v4.new_output("error", ename="ValueError", evalue=evalue, traceback=lines)


def saved(folder: Path, *cells: dict, name: str = "02_branch_sft") -> Path:
    path = folder / f"{name}.ipynb"
    nbformat.write(v4.new_notebook(cells=list(cells)), path)
    return path


def rendered(folder: Path, *cells: dict, name: str = "02_branch_sft") -> str:
    out = folder / "smol" / "report" / f"{name}.html"
    pages.render(saved(folder, *cells, name=name), out, "smol")
    return out.read_text(encoding="utf-8")


def test_a_page_loads_nothing_from_elsewhere(tmp_path):
    html = '<script src="https://cdn.example/x.js"></script><img src="https://e.example/a.png"><b>kept</b>'
    page = rendered(
        tmp_path,
        v4.new_markdown_cell("![far](https://e.example/b.png) and [a paper](https://arxiv.org/abs/1)"),
        cell("1", shown(text_html=html), shown(text_html=FRAME, application_javascript="alert(1)")),
    )
    assert not fetched(page)
    assert "alert(1)" not in page
    assert "<b>kept</b>" in page
    assert '<a href="https://arxiv.org/abs/1">a paper</a>' in page


def test_images_are_inside_the_page(tmp_path):
    image = base64.b64encode(png()).decode()
    assert f'src="data:image/png;base64,{image}' in rendered(tmp_path, cell("plot()", shown(image_png=image)))


def test_image_files_named_in_prose_are_put_inside_the_page(tmp_path):
    (tmp_path / "near.png").write_bytes(png())
    page = rendered(tmp_path, v4.new_markdown_cell("![near](near.png)"))
    assert "data:image/png;base64," in page
    assert not fetched(page)


def test_files_of_the_repository_are_named_and_not_linked(tmp_path):
    prose = "[docs/a.md](../docs/a.md), [the card](../docs/a.md#c1), [far](https://arxiv.org/abs/1), [near](index.html)"
    page = rendered(tmp_path, v4.new_markdown_cell(prose))
    said = (
        'docs/a.md, the card (docs/a.md#c1), <a href="https://arxiv.org/abs/1">far</a>, <a href="index.html">near</a>'
    )
    assert said in page


def test_code_tables_and_streams_are_shown(tmp_path):
    page = rendered(
        tmp_path,
        cell("curate(cfg)", stream("one\n"), stream("two\n"), stream("a < b\n", "stderr")),
        cell("table", shown(text_html=FRAME)),
    )
    assert ">curate</span>" in page
    assert "<pre>one\ntwo\n</pre>" in page
    assert "a &lt; b" in page
    assert 'class="dataframe"' in page


def test_a_progress_bar_leaves_only_its_last_state(tmp_path):
    page = rendered(tmp_path, cell("train()", stream("10 %\r"), stream("20 %\r"), stream("done %\n")))
    assert "done %" in page
    assert "10 %" not in page


def test_a_failed_page_says_so_in_its_first_sentence_and_marks_the_cell(tmp_path):
    top = v4.new_markdown_cell('An Exception was encountered at <a href="#papermill-error-cell">In [1]</a>.')
    page = rendered(tmp_path, top, cell("f()"), v4.new_markdown_cell(ANCHOR), cell("g()", raised("lr\nmore")))
    said = re.search(r'<main>\s*<p class="failure" role="alert">(.*?)</p>', page)[1]
    assert said.startswith(
        'This notebook failed: ValueError: lr. <a href="#papermill-error-cell">To the cell that failed'
    )
    assert page.count('id="papermill-error-cell"') == 1
    assert page.index('id="papermill-error-cell"') < page.index('<details class="code" open="">')
    assert "Exception was encountered" not in page
    assert "using papermill" not in page


def test_a_failure_that_papermill_did_not_mark_gets_the_anchor(tmp_path):
    page = rendered(tmp_path, cell("a"), cell("b"), cell("c_cell", count=None))
    assert page.count('id="papermill-error-cell"') == 1
    assert page.index(">b<") < page.index('id="papermill-error-cell"') < page.index(">c_cell<")


def test_a_finished_notebook_has_no_anchor(tmp_path):
    page = rendered(tmp_path, cell("a"), cell("b", count=2))
    assert 'id="papermill-error-cell"' not in page
    assert 'class="failure"' not in page


def test_colours_of_a_traceback_become_markup(tmp_path):
    page = rendered(tmp_path, cell("f()", raised("lr")))
    assert "\x1b" not in page
    assert '<span class="ansi-red-fg">ValueError</span>' in page


def test_outputs_do_not_show_where_the_repository_and_home_are(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/homes/me")
    monkeypatch.setattr(config, "ROOT", Path("/homes/me/kit"))
    paths = "/homes/me/kit/runs/a ~/kit/tinyr1/b.py '/homes/me/.cache' /data/homes/me/c "
    text = paths + "\x1b[32m/homes/me/kit\x1b[0m"
    outputs = stream(text), shown(text_html=f"<p>{text}</p>")
    page = rendered(tmp_path, cell("x", *outputs), cell("y", raised(text)))
    assert page.count("runs/a tinyr1/b.py '~/.cache' /data/homes/me/c ") == 2
    assert not re.search(r"(?<!/data)/homes/me", page)


def test_the_folder_of_all_runs_becomes_runs_wherever_it_is(monkeypatch):
    monkeypatch.setenv("HOME", "/homes/me")
    monkeypatch.setattr(config, "ROOT", Path("/opt/kit"))
    for place in ("/scratch/me", "/homes/me/big disk"):
        shown = pages.without_paths(f"{place}/smol/a {place} /x{place}/b /opt/kit/c", Path(place))
        assert shown == f"runs/smol/a runs /x{place}/b c"
    assert pages.without_paths("~/disk/smol ~/diskette", Path("/homes/me/disk")) == "runs/smol ~/diskette"
    assert pages.without_paths("/opt/kit/runs/smol", Path("/opt/kit/runs")) == "runs/smol"


def test_the_traceback_names_files_of_the_repository_only(tmp_path):
    page = rendered(tmp_path, cell("f()", raised("lr")))
    assert str(ROOT) not in page
    assert ">tinyr1/train.py:7<" in page


@pytest.mark.parametrize(
    ("name", "links"),
    [
        ("01_data_curation", ["index", "02_branch_sft"]),
        ("03_fusion_merge", ["index", "02_branch_sft", "04_evaluation"]),
        ("05_ablations", ["index", "04_evaluation"]),
        ("notes", ["index"]),
    ],
)
def test_the_top_bar_leads_to_the_index_and_the_stages_beside(tmp_path, name, links):
    page = rendered(tmp_path, cell("x"), name=name)
    assert re.findall(r'<a href="(\w+)\.html"', page) == links


# --- contents, code, tables ---------------------------------------------------------------------------------


def tagged(source: str, tag: str, **more: object) -> dict:
    return v4.new_code_cell(source, metadata={"tags": [tag]}, execution_count=1, **more)


def test_the_contents_lead_to_every_heading(tmp_path):
    page = rendered(tmp_path, *map(v4.new_markdown_cell, ["# Top", "## A & b", "### Deep", "## A & b", "#### no"]))
    listed = re.findall(r'<li(?: class="sub")?><a href="#([\w-]+)">(.*?)</a>', page)
    assert listed == [("a-b", "A &amp; b"), ("deep", "Deep"), ("a-b-2", "A &amp; b")]
    for name, _ in listed:
        assert page.count(f'id="{name}"') == 1


def test_code_is_folded_except_where_it_is_the_lesson(tmp_path):
    page = rendered(tmp_path, cell("a\nb"), tagged("taught()", "lesson"), cell("c"))
    assert re.findall("<summary>(code.*?)</summary>", page) == ["code, 2 lines", "code, 1 line"]
    lesson = page[page.index("celltag_lesson") : page.index(">c<")]
    assert "taught" in lesson
    assert "<details" not in lesson.split("taught")[0]


def test_of_the_cells_with_parameters_only_the_one_that_was_used_is_shown(tmp_path):
    both = tagged('run = "smol"', "parameters"), tagged('run = "mine"', "injected-parameters")
    page = rendered(tmp_path, *both, cell("x"))
    assert "&quot;mine&quot;" in page or '"mine"' in page
    assert '"smol"' not in page
    assert '"smol"' in rendered(tmp_path, both[0], cell("x"))


def frame(labels: list, **how: object) -> str:
    return pd.DataFrame({"loss": [3, 1, 2]}, index=labels).rename_axis(**how).to_html()


def test_tables_of_one_row_of_headings_can_be_sorted(tmp_path):
    named, plain = frame([1, 2, 3], index="model"), frame([4, 5, 6])
    page = rendered(tmp_path, cell("t", shown(text_html=named), shown(text_html=plain)))
    assert page.count('class="dataframe sortable"') == 2
    assert re.search(r"<th>model</th>\s*<th>loss</th>\s*</tr>\s*</thead>", page), (
        "the index is named beside the columns"
    )


def test_tables_with_cells_over_several_rows_or_headings_keep_their_order(tmp_path):
    spanned = pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)])
    wide = pd.DataFrame({("x", 1): [1, 2, 3], ("x", 2): [1, 2, 3]})
    outputs = (
        shown(text_html=frame(spanned)),
        shown(text_html=wide.to_html()),
        shown(text_html=frame([1, 2, 3], columns="c", index="i")),
    )
    assert "sortable" not in rendered(tmp_path, cell("t", *outputs)).split("<main>")[1].split("<script>")[0]


def test_missing_values_are_dashes_and_rows_without_any_are_named_in_one_line(tmp_path):
    table = pd.DataFrame({"a": [1, None, None], "b": ["x", None, "()"]}, index=["kind", "system", "stop"]).astype(
        object
    )
    page = rendered(tmp_path, cell("t", shown(text_html=table.to_html()), shown(text_html=table[1:].to_html())))
    assert page.count("Without a value: system, stop.") == 1, "a table of nothing but missing values keeps its rows"
    assert page.count("<td>–</td>") == 4
    assert not re.search("<td>(None|NaN|nan|\\(\\))</td>", page)


def test_every_scroll_box_is_reached_by_keyboard_and_has_a_name_of_its_own(tmp_path):
    page = rendered(
        tmp_path, v4.new_markdown_cell("## Scores"), cell("t", shown(text_html=FRAME), stream("a\n" * 50), stream("x"))
    )
    boxes = re.findall(r'<div aria-label="([^"]+)" class="(wide[ \w]*)" role="region" tabindex="0">', page)
    boxes += [
        (name, kind)
        for kind, name in re.findall(
            r'<div class="(wide[ \w]*)" tabindex="0" role="region" aria-label="([^"]+)">', page
        )
    ]
    assert boxes == [("Code 1, Scores", "wide"), ("Table 2, Scores", "wide"), ("Text 3, Scores", "wide long")]
    assert page.count("<pre>") + page.count("<table") == len(boxes)


# --- failing cells ------------------------------------------------------------------------------------------


def test_a_failing_cell_is_described_by_the_first_line_of_its_error(tmp_path):
    path = saved(tmp_path, cell("a"), cell("f()", raised(f"\x1b[31m{ROOT}/params/x.yaml\x1b[0m: bad\nmore")))
    assert pages.failing_cell(path) == "ValueError: params/x.yaml: bad"


def test_an_error_without_a_message_is_described_by_its_name(tmp_path):
    assert pages.failing_cell(saved(tmp_path, cell("f()", raised("")))) == "ValueError"


def test_a_dead_kernel_is_a_failure_whatever_the_metadata_says(tmp_path):
    died = cell("b", count=None)
    died.metadata["papermill"] = {"status": "completed", "exception": False}
    prose = v4.new_markdown_cell("prose")
    assert pages.failing_cell(saved(tmp_path, cell("a"), prose, died)) == "the kernel stopped before cell 2"


def test_a_notebook_whose_cells_all_ran_has_no_failing_cell(tmp_path):
    assert pages.failing_cell(saved(tmp_path, cell("a"), cell("", count=None), cell("b", count=2))) is None
