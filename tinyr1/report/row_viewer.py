"""Shows rows of stage 01 on their way: raw -> normalised -> rendered -> tokens, those that carry loss marked.

    rows -> texts, cut and made visible -> templates/row_viewer.html.j2 -> HTML for a notebook and for its page

The rows are what strangers wrote. Jinja escapes every text; here, characters that cannot be seen get a sign, and long
texts lose their middle. Without a script each row is a <details> element; the script of templates/sort.js adds the
search. The HTML has no ids, no headings, no tables and no <pre>, so that two viewers fit on a page and
`tinyr1.report.markup` leaves them as they are.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tinyr1.report.pages import template

TEXT = 4_000  # characters of a text that are shown at most
STEP = 8_000  # characters that all texts of one step of a row share
FIELDS = 40  # values of a raw or normalised row that are shown
DEPTH = 6  # lists and objects inside each other that are taken apart; what lies deeper is shown as JSON
TOKENS = 400  # tokens of a row that are shown
LABEL = 120  # characters of a name, of a token, and of the question in the line that stands for a folded row
QUESTIONS = ("question", "problem", "prompt", "instruction")  # names that published datasets give to a question
# Control characters but for tab and newline, marks that change the direction of writing, and spaces without a width.
# Joiners stay, because emoji and many scripts are written with them.
UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]"
)


@dataclass(frozen=True)
class Text:
    """A text whose middle may be left out. left_out: the characters between head and tail, 0 where it is whole."""

    head: str
    left_out: int = 0
    tail: str = ""


@dataclass(frozen=True)
class Step:
    """What one step made of a row: named texts. more: how many are not shown; missing: it was dropped."""

    name: str
    fields: Sequence[tuple[Text, Text]] = ()
    more: int = 0
    missing: bool = False


@dataclass(frozen=True)
class Tokens:
    """The tokens of a row, each with whether it carries loss: those before and those after `left_out` others."""

    head: Sequence[tuple[Text, bool]]
    tail: Sequence[tuple[Text, bool]]
    left_out: int
    learned: int
    read: int


def viewer(rows: Sequence[dict]) -> str:
    """HTML that shows rows one below the other, each folded into a line, with a search by words, outcome and domain.

    Each row has id (may be ""), domain, source, file, row (its number in the file), outcome (`kept` or a reason),
    detail, raw (dict of JSON values), normalised (dict or None), prompt, target (text or None) and tokens (list of
    [text, whether it carries loss], or None). None stands for a step of a dropped row. The first row is open.
    """
    shown = [_shown(row) for row in rows]
    choices = {name: list(dict.fromkeys(row[name] for row in shown)) for name in ("outcome", "domain")}
    return template("row_viewer.html.j2").render(rows=shown, choices=choices)


def _shown(row: dict) -> dict[str, Any]:
    """What the template shows of a row."""
    rendered = {name: row[name] for name in ("prompt", "target") if row[name] is not None}
    return {
        "kept": row["outcome"] == "kept",
        "outcome": _label(row["outcome"].replace("_", " ")) or "(none)",
        "domain": _label(row["domain"]) or "(none)",
        "place": " · ".join(filter(None, [_label(row["source"]), _label(row["file"]), f"row {row['row']}"])),
        "id": _label(row["id"]),
        "title": _title(row),
        "detail": shorten(row["detail"]),
        "steps": [
            _step("raw", row["raw"]),
            _step("normalised", row["normalised"]),
            _step("rendered", rendered or None),
        ],
        "tokens": None if row["tokens"] is None else _tokens(row["tokens"]),
    }


def _label(text: str) -> str:
    """A name on one line, which may also be the value of an attribute."""
    short = shorten(text, LABEL)
    return f"{short.head}…{short.tail}" if short.left_out else short.head


def _title(row: dict) -> str:
    """What tells a row from others at a glance: the beginning of its question, or of the first words that it has."""
    texts = [leaf for part in (row["normalised"], row["raw"]) if part for leaf in _leaves(part)]
    named = [text for path, text in texts if path.rpartition(".")[2] in QUESTIONS]
    others = [text for path, text in texts if " " in text.strip() and "system" not in path]
    title = " ".join(next(filter(str.strip, [*named, *others]), "").split())
    return visible(title if len(title) <= LABEL else f"{title[:LABEL]}…")


def _step(name: str, values: dict | None) -> Step:
    """A step with the values of a row as named texts; short texts are whole before long ones share the rest."""
    if values is None:
        return Step(name, missing=True)
    leaves = list(_leaves(values))
    most = _fair([len(text) for _, text in leaves[:FIELDS]], STEP)
    fields = [(shorten(path, LABEL), shorten(text, most)) for path, text in leaves[:FIELDS]]
    return Step(name, fields, len(leaves) - len(fields))


def _leaves(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """(path, text) of each value, such as `messages[0].content`, so that texts inside lists keep their own lines."""
    if isinstance(value, dict) and value and depth < DEPTH:
        for key, part in value.items():
            yield from _leaves(part, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, list) and depth < DEPTH and any(isinstance(part, str | dict | list) for part in value):
        for i, part in enumerate(value):
            yield from _leaves(part, f"{path}[{i}]", depth + 1)
    else:
        yield path, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _fair(lengths: Sequence[int], budget: int) -> int:
    """The most characters that a text may keep, so that texts of these lengths stay within a budget together."""
    left = budget
    for i, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - i)
        if length > share:
            return min(share, TEXT)
        left -= length
    return TEXT


def shorten(text: str, most: int = TEXT) -> Text:
    """A text of at most `most` characters, without its middle where it is longer, and with signs for unseen ones."""
    if len(text) <= most:
        return Text(visible(text))
    half = most // 2
    return Text(visible(text[:half]), len(text) - 2 * half, visible(text[-half:]))


def visible(text: str) -> str:
    """A text in which every character can be seen: ⟨U+0000⟩ stands for NUL, ⟨U+202E⟩ for a turn of the direction.

    A half of a surrogate pair, which no page can hold, becomes U+FFFD; two halves that fit become their character.
    """
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", whole)


def _tokens(tokens: Sequence[Sequence[Any]]) -> Tokens:
    """The tokens as the template shows them: all, or as many from the beginning as from the end."""
    texts = [(_token(text), bool(loss)) for text, loss in tokens]
    learned = sum(loss for _, loss in texts)
    half = TOKENS // 2
    head, tail = (texts, []) if len(texts) <= TOKENS else (texts[:half], texts[-half:])
    return Tokens(head, tail, len(texts) - len(head) - len(tail), learned, len(texts) - learned)


def _token(text: str) -> Text:
    """A token whose newlines and tabs have signs, too, because a token may consist of nothing else."""
    short = shorten(text, LABEL)
    head, tail = (part.replace("\n", "↵\n").replace("\t", "⇥") for part in (short.head, short.tail))
    return Text(head, short.left_out, tail)
