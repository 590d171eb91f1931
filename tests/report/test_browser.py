"""Every page of a report in headless Chromium, at two widths, light and dark, and printed.

No request leaves the folder of the report, nothing is said on the console, links resolve, axe-core finds nothing
serious, nothing is cut, and no text is lost in print.
"""

import base64
import json
from urllib.parse import unquote, urlsplit

import chromium
import pandas as pd
import pytest
from nbformat import v4
from report_parts import write_record, write_scores
from test_index import CLAIM
from test_pages import cell, png, raised, saved, shown, stream, tagged

from tinyr1.core import artifact
from tinyr1.core.config import ROOT, STAGES
from tinyr1.report import compare_runs, index, pages, verdicts

pytestmark = pytest.mark.slow
VIEWS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
COMMITTED = ROOT / "reports" / "smol"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = chromium.installed()
    if program is None:
        pytest.skip(f"no browser is installed: one of {', '.join(chromium.NAMES)}")
    opened = chromium.Chromium(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def varied_cells():
    """Cells with what notebooks hold: prose, code, tables narrow and wide, long texts, colours, figures, errors."""
    numbers = pd.DataFrame({f"column {i}": range(100 * i, 100 * i + 12) for i in range(9)}).rename_axis("model")
    words = pd.DataFrame({"claim": ["a sentence of several words " * 8] * 3, "p": [None, 1, 2]})
    log = "\n".join(f"answer-{i} of a model, and what follows" for i in range(120))
    image = base64.b64encode(png()).decode()
    return [
        v4.new_markdown_cell("# Title\n\n> A quotation with `code` and [a link](https://arxiv.org/abs/2503.04872)."),
        tagged('run = "smol"', "parameters"),
        v4.new_markdown_cell("## Tables\n\n### Wide\n\n```\nimportance = |other − base| · KL\n```"),
        cell("import os\n\n\ndef f(a: int = 3) -> str:\n    # a comment\n    return f'{a} of {len(\"x\")}'  # noqa",
             shown(text_html=numbers.to_html()), shown(text_html=words.to_html()), stream(log)),
        v4.new_markdown_cell("## Code that is the lesson"),
        tagged("x = [1, 2.5, None, True]\n@decorated\nclass A: ...", "lesson", outputs=[shown(image_png=image)]),
        cell("print()", stream("\x1b[31mred\x1b[0m \x1b[32mgreen\x1b[0m \x1b[33my\x1b[0m \x1b[36mc\x1b[0m", "stderr")),
    ]  # fmt: skip


@pytest.fixture
def report(whole, tmp_path):
    """The report of a run with all that a page can show: the last stage failed."""
    for stage in STAGES:
        cells = varied_cells() + ([cell("g()", raised("too long")), cell("h()")] if stage == STAGES[-1] else [])
        pages.render(saved(tmp_path, *cells, name=stage), whole.reports / f"{stage}.html", "smol")
    claims = [CLAIM | {"id": verdict, "verdict": verdict} for verdict in verdicts.MEANINGS]
    artifact.write_atomic(whole.reports / "claims.json", json.dumps(claims * 3))
    for name in ("figure_1.png", "gains.png"):
        artifact.write_atomic(whole.reports / name, png())
    write_scores(whole, *(("smol", m, "mini-science", 96, 1, 0.3, 0.2, 0.4, 80.0, 0, 0, 0.7) for m in whole.models))
    table = pd.read_csv(whole.reports / "scores.csv").assign(chance=0.25)
    table.to_csv(whole.reports / "scores.csv", index=False)
    write_record(whole, STAGES[1], artifacts={"math": {"path": "branches/math", "content": "a" * 64}})
    index.write_index(whole, failures={STAGES[4]: "ValueError: too long"})
    return whole.reports


def problems(browser, page):
    """What is wrong with a page, a line each; [] where nothing is."""
    found = []
    for width, scheme in VIEWS:
        browser.open(page, width, scheme)
        where = f"{page.name} at {width} px, {scheme}:"
        outside = [url for url in browser.fetched() if not url.startswith(page.parent.as_uri())]
        found += [f"{where} asked for {url}" for url in outside]
        found += [f"{where} said {said}" for said in browser.said()]
        if browser.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
            found.append(f"{where} is wider than the window")
        found += [f"{where} {finding}" for finding in browser.findings()]
    found += [f"{page.name}: {link} leads nowhere" for link in dead_links(browser, page)]
    browser.open(page, 1280)
    found += [f"{page.name}: {label} is cut" for label in browser.evaluate(CUT)]
    printed = browser.pdf_text()
    return found + [f"{page.name}: {word!r} is not in print" for word in browser.words() if word not in printed]


# Names of the boxes that scroll sideways: at 1280 pixels nothing need be moved to be read.
CUT = """[...document.querySelectorAll(".wide")]
  .filter((box) => box.scrollWidth > box.clientWidth + 1).map((box) => box.ariaLabel)"""


def dead_links(browser, page):
    """Links of the open page to a file or an anchor that is not there, and links to a network without TLS."""
    dead = []
    for link in browser.evaluate("[...document.querySelectorAll('a[href]')].map((a) => a.href)"):
        parts = urlsplit(link)
        if parts.scheme != "file":
            dead += [] if parts.scheme == "https" else [link]
            continue
        target = page.with_name(unquote(parts.path).rpartition("/")[2])
        if not target.is_file() or (parts.fragment and f'id="{parts.fragment}"' not in target.read_text("utf-8")):
            dead.append(link)
    return dead


@pytest.mark.parametrize("name", ["index", STAGES[1], STAGES[4]])
def test_a_page_can_be_read_by_everybody_everywhere(browser, report, name):
    assert problems(browser, report / f"{name}.html") == []


def test_the_page_of_two_runs_can_be_read_by_everybody_everywhere(browser, report):
    a, b = compare_runs.read("smol"), compare_runs.read(str(COMMITTED))
    assert problems(browser, compare_runs.write_page(a, b, compare_runs.compare(a, b))) == []


def test_the_checks_find_what_is_wrong(browser, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        "<!DOCTYPE html><html lang=en><title>bad</title><main><p style='color:#bbb;background:#fff'>pale</p>"
        "<a href='gone.html'>gone</a><a href='#nowhere'>no</a><img src='http://127.0.0.1:9/x.png' alt=x>"
        "<div style='width:2000px'>wide</div><div class=wide aria-label=box style='overflow:auto;width:50px'>"
        "<pre>a text without any break</pre></div>"
        "<p style='display:none'>unprintable</p><script>console.log(1)</script>",
        encoding="utf-8",
    )
    found = "\n".join(problems(browser, page))
    faults = (
        "asked for http://127.0.0.1:9/x.png", "'value': 1", "wider than the window", "color-contrast", "box is cut",
        "gone.html leads nowhere", "#nowhere leads nowhere", "'unprintable' is not in print",
    )  # fmt: skip
    assert [fault for fault in faults if fault not in found] == []


def test_a_click_on_a_heading_sorts_the_table_and_a_second_one_turns_it_round(browser, report):
    browser.open(report / f"{STAGES[0]}.html", 1280)
    table = "document.querySelector('table.sortable')"
    column = f"[...{table}.tBodies[0].rows].map((row) => row.cells[3].textContent)"
    before = browser.evaluate(column)
    head = f"{table}.tHead.rows[0].cells[3]"
    browser.evaluate(f"{head}.querySelector('button').click()")
    assert (browser.evaluate(column), browser.evaluate(f"{head}.ariaSort")) == (before, "ascending")
    browser.evaluate(f"{head}.querySelector('button').click()")
    assert (browser.evaluate(column), browser.evaluate(f"{head}.ariaSort")) == (before[::-1], "descending")
    assert browser.said() == []


def test_numbers_are_sorted_by_value_and_signs_count(browser, tmp_path):
    script = (pages.TEMPLATES / "sort.js").read_text(encoding="utf-8")
    values = ["+9.5 [1, 2]", "–", "−12", "1,000", "≤ 0.5", "10 %", "-3", "math-2"]
    rows = "".join(f"<tr><td>{value}</td></tr>" for value in values)
    table = f"<table class=sortable><thead><tr><th>v</th></tr></thead><tbody>{rows}</tbody></table>"
    page = tmp_path / "sort.html"
    page.write_text(f"<meta charset=utf-8>{table}<script>{script}</script>", encoding="utf-8")
    browser.open(page, 1280)
    browser.evaluate("document.querySelector('button').click()")
    cells = "[...document.querySelectorAll('td')].map((cell) => cell.textContent)"
    assert browser.evaluate(cells) == ["−12", "-3", "≤ 0.5", "+9.5 [1, 2]", "10 %", "1,000", "–", "math-2"]
    browser.evaluate("document.querySelector('button').click()")
    assert browser.evaluate(cells)[:2] == ["1,000", "10 %"], "what is no number stays last"
    assert browser.evaluate(cells)[-2:] == ["math-2", "–"]


def test_the_committed_report_can_be_read_by_everybody_everywhere(browser):
    found = [problem for page in sorted(COMMITTED.glob("*.html")) for problem in problems(browser, page)]
    assert found == []


def test_the_committed_index_is_small_with_its_figures():
    page = COMMITTED / "index.html"
    figures = [path for path in COMMITTED.iterdir() if f'src="{path.name}"' in page.read_text(encoding="utf-8")]
    assert sum(path.stat().st_size for path in [page, *figures]) <= 3_000_000
