"""Reworks the HTML that nbconvert makes of a notebook, element by element.

    body of nbconvert -> offline -> anchors and contents -> folded code -> tables without walls of None, that sort
                      -> scroll boxes

Every function changes the parsed page in place. What the page looks like is in templates/.
"""

import base64
import mimetypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from bs4 import BeautifulSoup, Tag

LESSON = "lesson"  # the tag of cells whose code is what the page teaches: it is not folded away
LONG = 30  # lines of an output beyond which it gets a scroll box of limited height
MISSING = ("None", "nan", "NaN", "NaT", "<NA>", "()", "[]", "{}")  # how Python and pandas write a missing value
TAGS = "celltag_"  # nbconvert puts it before the tags of a cell


@dataclass(frozen=True)
class Section:
    """A heading of a page: its level (2 or 3), the id to link to, and its text."""

    level: int
    id: str
    text: str


def offline(soup: BeautifulSoup, folder: Path) -> None:
    """Take out what a browser would fetch or run, and the numbers of the cells; put image files of `folder` inside.

    nbconvert has `embed_images` for the images, but it closes every inline tag in prose at once, such as an anchor.
    """
    for element in [*soup(["script", "link", "iframe", "object", "embed", "base", "meta"]), *soup.select(".prompt")]:
        element.decompose()
    for element in soup(src=lambda src: src and not src.startswith("data:")):
        source = str(element["src"])
        kind = mimetypes.guess_type(source)[0] or ""
        file = folder / unquote(source)
        if element.name == "img" and kind.startswith("image/") and file.is_file():
            element["src"] = f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
            continue
        link = soup.new_tag("a", href=source)
        link.string = str(element.get("alt") or source)
        element.replace_with(link)
    for element in soup("a", href=re.compile(r"^\.\./")):  # to a file of the repository, which is not beside the page
        name, path = element.get_text(), str(element["href"]).replace("../", "")
        element.replace_with(name if path.partition("#")[0] in name else f"{name} ({path})")
    for element in soup(srcset=True):
        del element["srcset"]
    for element in soup(["img", "svg"]):
        _add_class(element, "picture")
    for element in soup("style", scoped=True):  # of pandas; the page has its own style for tables
        element.decompose()


def number_headings(soup: BeautifulSoup) -> list[Section]:
    """Give every heading an id that follows from its text, and return the contents of the page."""
    taken: set[str] = {str(element["id"]) for element in soup(id=True)}
    sections = []
    for heading in soup(["h1", "h2", "h3", "h4"]):
        text = heading.get_text(" ", strip=True)
        slug = re.sub(r"\W+", "-", text.lower()).strip("-") or "section"
        name = next(n for n in _numbered(slug) if n not in taken)
        taken.add(name)
        heading["id"] = name
        if heading.name in ("h2", "h3"):
            sections.append(Section(int(heading.name[1]), name, text))
    return sections


def _numbered(name: str) -> Iterator[str]:
    """name, name-2, name-3, …"""
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1


def fold_code(soup: BeautifulSoup, failed: str | None) -> None:
    """Fold the code of each cell away, except where the code is the lesson and in the cell with the id `failed`."""
    for cell in soup.select(".code_cell"):
        code, pre = cell.select_one(".input"), cell.select_one(".input pre")
        if code is None or pre is None or f"{TAGS}{LESSON}" in cell.get_attribute_list("class"):
            continue
        lines = pre.get_text().strip().splitlines()
        details = soup.new_tag("details", attrs={"class": "code"})
        if failed and cell.get("id") == failed:
            details["open"] = ""
        summary = soup.new_tag("summary")
        summary.string = f"code, {len(lines)} lines" if len(lines) > 1 else "code, 1 line"
        code.wrap(details)
        details.insert(0, summary)


def make_sortable(soup: BeautifulSoup) -> None:
    """Mark the tables that the script of the page can sort: one row of headings, no cell over several rows or columns.

    A second row of headings that only names the index, as pandas writes it, becomes part of the first.
    """
    for table in soup("table"):
        head, body = table.find("thead"), table.find("tbody")
        if head is None or body is None:
            continue
        _join_heads(head)
        spans = [c for c in table(["th", "td"]) if c.get("rowspan", "1") != "1" or c.get("colspan", "1") != "1"]
        if len(head("tr")) == 1 and len(body("tr")) > 2 and not spans:
            _add_class(table, "sortable")


def name_missing(soup: BeautifulSoup) -> None:
    """Show a missing value as a dash, and name rows without any value below their table, in one line."""
    for table in soup("table"):
        rows = [row for body in table("tbody") for row in body("tr") if row("td")]
        for cell in table("td"):
            if _text(cell) in MISSING:
                cell.string = "–"
        empty = [row for row in rows if row("th") and all(_text(cell) == "–" for cell in row("td"))]
        if not 0 < len(empty) < len(rows) or table(["th", "td"], rowspan=True):
            continue
        line = soup.new_tag("p", attrs={"class": "without"})
        line.string = f"Without a value: {', '.join(' '.join(map(_text, row('th'))) for row in empty)}."
        table.insert_after(line)
        for row in empty:
            row.decompose()


def _join_heads(head: Tag) -> None:
    """Move the names of the index into the row above, where that row has empty cells there."""
    rows = head("tr")
    if len(rows) != 2:
        return
    above, below = (row(["th", "td"]) for row in rows)
    names = [(up, low) for up, low in zip(above, below, strict=False) if _text(low)]
    if len(above) == len(below) and names and not any(_text(up) for up, _ in names):
        for up, low in names:
            up.string = _text(low)
        rows[1].decompose()


def _add_class(element: Tag, name: str) -> None:
    element["class"] = " ".join([*filter(None, element.get_attribute_list("class")), name])


def _text(element: Tag) -> str:
    return element.get_text().replace("\xa0", " ").strip()


def box_wide_parts(soup: BeautifulSoup) -> None:
    """Put tables, code and long outputs into boxes of their own that scroll and that the keyboard reaches.

    Each box is a region with a name of its own: what it is, its number, and the heading above it.
    """
    parts = [e for e in soup(["table", "pre"]) if e.find_parent(["table", "pre"]) is None]
    for number, part in enumerate(parts, 1):
        heading = part.find_previous(["h1", "h2", "h3"])
        kind = "Table" if part.name == "table" else "Code" if part.find_parent(class_="input") else "Text"
        label = f"{kind} {number}" + (f", {heading.get_text(' ', strip=True)}" if heading else "")
        box = soup.new_tag("div", attrs={"class": "wide", "tabindex": "0", "role": "region", "aria-label": label})
        if kind == "Text" and part.get_text().count("\n") > LONG and not part.find_parent(class_="output_error"):
            _add_class(box, "long")
        part.wrap(box)
