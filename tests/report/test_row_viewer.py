"""Rows of strangers in a notebook and on its page: every text is seen, none is believed, and a word finds its rows."""

import pytest
import test_browser
from bs4 import BeautifulSoup
from nbformat import v4
from test_pages import cell, saved, shown

from tinyr1.report import pages, row_viewer

PLANTED = '</script><script>window.hit = 1</script><img src=x onerror="window.hit = 1"><details open ontoggle=hit()>'
STRANGE = [
    PLANTED, "<think>\nSo $x^2$ and \\(y\\)\n</think> `code` \\boxed{4}", "👩‍👧 and שלום עולם", "half \ud83d of a pair",
    "a\x00b\x1b[31mred\u202eback\u200b", "'\"&amp;&lt;", "{{ 7 * 7 }} {% raw %}", "",
]  # fmt: skip
browser = test_browser.browser


def made(outcome="kept", **parts):
    """A row as stage 01 prepares it, a kept one or one that the readers dropped."""
    row = {
        "id": "math-0123456789abcdef", "domain": "math", "source": "openr1", "file": "data/train-00000.parquet",
        "row": 17, "outcome": outcome, "detail": "", "raw": {"problem": "What is 1 + 1?", "correct": [True, None]},
        "normalised": {"question": "What is 1 + 1?", "thinking": "1 and 1", "response": "It is \\boxed{2}."},
        "prompt": "<|user|>What is 1 + 1?", "target": "1 and 1\n</think>\n\nIt is \\boxed{2}.",
        "tokens": [["What", False], [" is", False], ["\n\n", True], [" 2", True], ["<|end|>", True]],
    }  # fmt: skip
    before = {} if outcome == "kept" else {"id": "", "normalised": None, "prompt": None, "target": None, "tokens": None}
    return row | before | parts


def strange(text):
    """A row that has a text in every place that can hold one."""
    return made(
        id=text, domain=text, source=text, file=text, outcome=text, detail=text, prompt=text, target=text,
        raw={"a": text, text: [text, {"b": [text, 1]}]}, normalised={"question": text}, tokens=[[text, True]],
    )  # fmt: skip


def soup_of(*rows):
    return BeautifulSoup(row_viewer.viewer(rows), "html.parser")


def texts_of(soup):
    return [part.get_text() for part in soup.select(".row-text")]


def fields_of(soup, step):
    """The named texts of a step of the first row."""
    box = soup.select(".row-steps > li")[step]
    return {name.get_text(): text.get_text() for name, text in zip(box("dt"), box("dd"), strict=True)}


def test_a_row_is_shown_from_its_raw_columns_to_its_tokens():
    soup = soup_of(made(detail="the first trace"))
    assert fields_of(soup, 0) == {"problem": "What is 1 + 1?", "correct": "[true, null]"}
    assert list(fields_of(soup, 1)) == ["question", "thinking", "response"]
    assert fields_of(soup, 2)["target"] == "1 and 1\n</think>\n\nIt is \\boxed{2}."
    tokens = soup.select_one(".row-tokens")
    assert [part.get_text() for part in tokens("i")] == ["What", " is"]
    assert [part.get_text() for part in tokens("b")] == ["↵\n↵\n", " 2", "<|end|>"]
    assert "3 carry loss · 2 are only read" in soup.get_text()
    summary = soup.summary.get_text(" ", strip=True)
    assert summary == "kept math · openr1 · data/train-00000.parquet · row 17 · math-0123456789abcdef What is 1 + 1?"
    assert soup.select_one(".row-why").get_text() == "the first trace"


def test_a_dropped_row_has_no_further_steps():
    soup = soup_of(made("near_duplicate", raw={"system": "You are kind.", "turns": [{"value": "Why is it?"}]}))
    assert soup.select_one(".row-outcome").get_text() == "near duplicate"
    assert soup.get_text().count("Nothing to show: the row was dropped.") == 3
    assert fields_of(soup, 0) == {"system": "You are kind.", "turns[0].value": "Why is it?"}
    assert soup.select_one(".row-title").get_text() == "Why is it?"


@pytest.mark.parametrize("text", STRANGE)
def test_a_strange_text_is_shown_as_it_is_in_every_place(text):
    soup = soup_of(strange(text))
    assert not soup(["img", "think"]), "a text became an element"
    assert len(soup("script")) == len(soup("details")) == 1
    assert fields_of(soup, 1)["question"] == row_viewer.visible(text)
    assert fields_of(soup, 0)["a"] == row_viewer.visible(text)
    str(soup).encode()  # no half of a surrogate pair is left


def test_unseen_characters_have_signs_and_halves_of_pairs_are_replaced():
    assert row_viewer.visible("a\x00\x1b\x7f\x85\u202e\u200b\r\n\tb") == (
        "a⟨U+0000⟩⟨U+001B⟩⟨U+007F⟩⟨U+0085⟩⟨U+202E⟩⟨U+200B⟩⟨U+000D⟩\n\tb"
    )
    assert row_viewer.visible("\ud83d|\ude00|\ud83d\ude00|x\ud83d") == "\ufffd|\ufffd|😀|x\ufffd"
    assert row_viewer.visible("👩‍👧 שלום") == "👩‍👧 שלום", "joiners make one emoji of two"


def test_a_long_text_loses_its_middle_and_says_how_much():
    text = "".join(f"{i:07d} " for i in range(10_000))
    short = row_viewer.shorten(text)
    assert (short.head, short.tail) == (text[:2000], text[-2000:])
    assert short.left_out == len(text) - 4000
    assert "[… 76,000 characters left out …]" in soup_of(made(prompt=text)).get_text()


def test_short_texts_of_a_row_are_whole_before_long_ones_share_the_rest():
    raw = {"problem": "p" * 500, **{f"generation {i}": "g" * 20_000 for i in range(4)}, "answer": "4"}
    lengths = {name: sum(map(text.count, "pg4")) for name, text in fields_of(soup_of(made(raw=raw)), 0).items()}
    assert (lengths["problem"], lengths["answer"]) == (500, 1)
    assert sum(lengths.values()) <= row_viewer.STEP


def test_of_many_tokens_the_first_and_the_last_are_shown():
    soup = soup_of(made(tokens=[[f"{i} ", i >= 1000] for i in range(1500)]))
    shown = soup.select_one(".row-tokens")(["b", "i"])
    assert [part.get_text() for part in shown] == [f"{i} " for i in [*range(200), *range(1300, 1500)]]
    assert "[… 1,100 tokens left out …]" in soup.get_text()
    assert "500 carry loss · 1,000 are only read" in soup.get_text()


def test_many_and_deep_values_are_counted_and_not_followed_for_ever():
    deep = "the end"
    for _ in range(100):
        deep = [deep]
    fields = fields_of(soup_of(made(raw={"deep": deep, "none": {}, "odd": {1: b"\xff"}})), 0)
    assert fields["deep" + "[0]" * (row_viewer.DEPTH - 1)].count("[") == 100 - row_viewer.DEPTH + 1
    assert (fields["none"], fields["odd.1"]) == ("{}", "\"b'\\\\xff'\"")
    soup = soup_of(made(raw={f"column {i}": i for i in range(1000)}))
    assert len(fields_of(soup, 0)) == row_viewer.FIELDS
    assert "960 more values are not shown." in soup.get_text()


def test_rows_of_any_size_make_a_page_that_is_not_heavy():
    long = "x" * 60_000
    huge = strange(long) | {"tokens": [["word", True]] * 15_000}
    usual = made(raw={"problem": "p" * 2000}, target="t" * 2000, tokens=[["word", True]] * 500)
    style = len(row_viewer.viewer([]))
    assert len(row_viewer.viewer([huge])) - style < 45_000
    assert len(row_viewer.viewer([usual] * 40)) < 500_000


def test_two_viewers_fit_on_a_page_and_mathjax_leaves_them_alone():
    soup = soup_of(made(), made("duplicate"))
    assert not soup(id=True)
    assert not soup(["h1", "h2", "h3", "h4", "table", "pre", "form"])
    root = soup.select_one(".row-viewer")
    assert {"mathjax_ignore", "tex2jax_ignore"} <= set(root["class"])
    assert list(soup.find_all(True, recursive=False)) == [root]
    assert row_viewer.viewer([made()]) == row_viewer.viewer([made()])


# --- in a browser -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many():
    """Rows of two domains with several outcomes, a long one, and what their authors planted."""
    latex = "Let $a < b$ & $$\\sum_{i=1}^n i$$, \\(x\\) <b>bold</b>. "
    return [
        made(), made("duplicate", detail="asks the same as row 3", raw={"problem": latex * 150}),
        made(domain="science", raw={"question": "Which planet?", "notes": PLANTED}, prompt=PLANTED),
        made("too_long", domain="science", raw={"question": "Zebra or horse?", "messages": [{"content": latex}]}),
        made(target=latex * 20, tokens=[[f"word{i}", i > 30] for i in range(420)]),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def page(many, tmp_path_factory):
    """A page of a report with two viewers."""
    folder = tmp_path_factory.mktemp("pages")
    html = [shown(text_html=row_viewer.viewer(rows)) for rows in (many, many[:2])]
    cells = [v4.new_markdown_cell("# Rows"), cell("viewer(rows)", html[0]), cell("viewer(others)", html[1])]
    pages.render(saved(folder, *cells, name="01_data_curation"), folder / "01_data_curation.html", "smol")
    for name in ("index", "02_branch_sft"):
        (folder / f"{name}.html").touch()
    return folder / "01_data_curation.html"


@pytest.fixture(scope="module")
def bare(many, tmp_path_factory):
    """A page that has nothing but a viewer and its own script, as an output in JupyterLab; any script could run."""
    rows = [*many, *map(strange, STRANGE)]
    path = tmp_path_factory.mktemp("bare") / "lab.html"
    head = "<!DOCTYPE html><html lang=en><meta charset=utf-8><title>lab</title><main><h1>Rows</h1>"
    path.write_text(f"{head}{row_viewer.viewer(rows)}</main>", encoding="utf-8")
    return path


def numbers(browser, viewer=0):
    """The places of the rows that a viewer shows, and what it says of them."""
    root = f"document.querySelectorAll('.row-viewer')[{viewer}]"
    rows = f"[...{root}.querySelectorAll('.row-item')].map((row, i) => row.checkVisibility() ? i : -1)"
    said = browser.evaluate(f"{root}.querySelector('output').textContent")
    return [i for i in browser.evaluate(rows) if i >= 0], said


def select(browser, place, value):
    chosen = f"document.querySelectorAll('.row-viewer select')[{place}]"
    event = "new Event('input', {bubbles: true})"
    browser.evaluate(f"{chosen}.value = '{value}', {chosen}.dispatchEvent({event})")


@pytest.mark.slow
def test_the_viewer_can_be_read_by_everybody_everywhere(browser, page):
    assert test_browser.problems(browser, page) == []


@pytest.mark.slow
def test_words_outcome_and_domain_choose_the_rows(browser, page):
    browser.open(page, 1280)
    assert numbers(browser) == ([0, 1, 2, 3, 4], "5 of 5 rows shown")
    browser.evaluate("document.querySelector('.row-viewer input').focus()")
    browser.send("Input.insertText", text="zebra HORSE")
    assert numbers(browser) == ([3], "1 of 5 rows shown")
    assert numbers(browser, 1) == ([0, 1], "2 of 2 rows shown"), "each viewer has its own search"
    browser.send("Input.insertText", text=" giraffe")
    assert numbers(browser) == ([], "0 of 5 rows shown")
    browser.evaluate("document.querySelector('.row-viewer input').select()")
    browser.send("Input.insertText", text="bold")
    select(browser, 1, "math")
    assert numbers(browser) == ([1, 4], "2 of 5 rows shown")
    select(browser, 0, "duplicate")
    assert numbers(browser) == ([1], "1 of 5 rows shown")
    assert browser.said() == []


@pytest.mark.slow
def test_a_row_opens_by_the_keyboard_and_long_texts_scroll_by_it(browser, page):
    browser.open(page, 390)
    browser.evaluate("document.querySelectorAll('.row-viewer summary')[1].focus()")
    enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
    browser.send("Input.dispatchKeyEvent", type="keyDown", **enter)
    browser.send("Input.dispatchKeyEvent", type="keyUp", **enter)
    assert browser.evaluate("document.querySelectorAll('.row-item')[1].open")
    tab = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
    browser.send("Input.dispatchKeyEvent", type="keyDown", **tab)
    box = "document.activeElement"
    assert browser.evaluate(f"{box}.className") == "row-box"
    assert browser.evaluate(f"{box}.scrollHeight > {box}.clientHeight && {box}.scrollWidth <= {box}.clientWidth")


@pytest.mark.slow
def test_in_a_notebook_nothing_that_strangers_wrote_runs(browser, bare):
    browser.open(bare, 1280, "dark")
    browser.evaluate("document.querySelectorAll('details').forEach((row) => { row.open = true; })")
    assert len(numbers(browser)[0]) == 5 + len(STRANGE), "the script of the viewer itself ran"
    assert browser.evaluate("window.hit") is None
    assert browser.evaluate("document.images.length + document.scripts.length") == 1
    assert browser.fetched() == [bare.as_uri()]
    assert browser.said() == []
    assert browser.findings() == []
    browser.open(bare, 390)
    assert not browser.evaluate("document.documentElement.scrollWidth > window.innerWidth")
