r"""Questions with options, from files that write options and the right one in any of the usual ways.

    row --Choice.question--> question with its options and what names the right one
    all of them --Choice.answer_all: the one way of naming (letter, index, text) that fits every row--> with answers
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from tinyr1.core.errors import UserError
from tinyr1.core.params.domains import QuestionColumns
from tinyr1.data import schema
from tinyr1.data.answers import LETTERS
from tinyr1.data.own_columns import (
    QUESTION,
    RefusedRow,
    cell,
    context_column,
    existing_column,
    filled,
    id_column,
    listing,
    needed_column,
    normal,
    question_cell,
    short_cell,
    usual_column,
)

# The usual names of columns, in lower case and with _ for a blank.
OPTIONS = ("choices", "options")
RIGHT, WRONG = ("correct_answer",), re.compile(r"(?:incorrect_answer|distractor)_?(\d+)")
ANSWER = ("answer", "answerkey", "answer_key", "label", "correct")


class Choice:
    """Rows with a question, its options, and what names the right one."""

    def __init__(self, given: QuestionColumns, names: Sequence[str]) -> None:
        self.asks = needed_column(names, "question", given.question, QUESTION)
        self.context = context_column(names, given.context)
        self.id = id_column(names, given.id)
        self.right, self.wrong, self.options = _form(given, names)
        self.answer = None if self.right else needed_column(names, "answer", given.answer, ANSWER)
        self.ways = (given.answer_as,) if given.answer_as else tuple(_WAYS)
        self.chosen: str | None = None

    def columns(self) -> dict[str, Any]:
        common = {"question": self.asks, "context": self.context, "id": self.id}
        if self.right:
            return common | {"right": self.right, "wrong": self.wrong}
        return common | {"options": self.options, "answer": self.answer, "answer_as": self.chosen}

    def question(self, row: dict) -> dict[str, Any]:
        """With `named`, what the row says of the right option, until `answer_all` has replaced it."""
        asks = question_cell(row, self.asks, self.context)
        if self.right:
            options, labels = [short_cell(row, self.right), *_cells(row, self.wrong)], None
            named: dict[str, Any] = {"answer": "0"}
        else:
            options, labels = self._options(row)
            value = row.get(str(self.answer))
            named = {"fixed": True, "answer": None, "named": (value, short_cell(row, str(self.answer)), labels)}
        if not 2 <= len(options) <= len(LETTERS):
            raise RefusedRow(f"it has {len(options)} options, and 2 to {len(LETTERS)} can be shown")
        if twice := next((text for text in options if options.count(text) > 1), None):
            raise RefusedRow(f"two of its options are {twice[:80]!r}")
        return {"question": asks, "options": options} | named

    def _options(self, row: dict) -> tuple[list[str], list[str] | None]:
        """(texts of the options, their labels where the file has them)."""
        if isinstance(self.options, str):
            return _listed(self.options, row.get(self.options))
        return _cells(row, list(self.options or ())), None

    def answer_all(self, questions: list[dict[str, Any]], places: Sequence[str]) -> list[str]:
        """Set the answer of every question, by the one way of naming it that fits all; the problems, if there are any.

        One row alone seldom tells: "2" may be an index or an option's text. All rows together do.
        """
        if self.right or not questions:
            return []
        found = {way: [_WAYS[way](question) for question in questions] for way in self.ways}
        fitting = [way for way, indexes in found.items() if None not in indexes]
        if not fitting:
            return self._unnamed(questions, places, found)
        self.chosen = fitting[0]
        problems = []
        for i, (question, place) in enumerate(zip(questions, places, strict=True)):
            if len({found[way][i] for way in fitting}) > 1:
                problems.append(f"{place}: {self.answer} {question['named'][1]!r} names one option as {fitting[0]} and "
                                f"another as {fitting[-1]}; say which in columns.answer_as")  # fmt: skip
            question["answer"] = str(found[self.chosen][i])
            del question["named"]
        return problems

    def _unnamed(self, questions: list[dict[str, Any]], places: Sequence[str], found: dict[str, list]) -> list[str]:
        """The rows that do not name one of their options, in the way that fits most rows."""
        way = max(found, key=lambda way: sum(index is not None for index in found[way]))
        return [
            f"{place}: {self.answer} {question['named'][1][:80]!r} is not the {_NAMED[way]} of one of its "
            f"{len(question['options'])} options"
            for place, question, index in zip(places, questions, found[way], strict=True)
            if index is None
        ]


def _form(
    given: QuestionColumns, names: Sequence[str]
) -> tuple[str | None, list[str], str | list[str] | None]:  # fmt: skip
    """(column of the right option, columns of the wrong ones, column or columns of all options): the form of a file."""
    if given.right is not None:
        wrong = [existing_column(names, "wrong", name) for name in given.wrong or ()]
        return existing_column(names, "right", given.right), wrong, None
    if isinstance(given.options, str):
        return None, [], existing_column(names, "options", given.options)
    if given.options is not None:
        return None, [], [existing_column(names, "options", name) for name in given.options]
    listed = usual_column(names, "options", OPTIONS)
    lettered = [letter for letter in LETTERS if letter in names]
    lettered = lettered if lettered == list(LETTERS[: len(lettered)]) and len(lettered) > 1 else []
    numbered = {name: match for name in names if (match := WRONG.fullmatch(normal(name)))}
    wrong = sorted(numbered, key=lambda name: int(numbered[name][1]))
    right = usual_column(names, "right option", RIGHT) if wrong else None
    forms = [form for form in (listed, lettered, right) if form]
    if len(forms) > 1:
        shown = ", ".join([*filter(None, (listed, right)), *lettered])
        raise UserError(f"the options could be in several of the columns {shown}; name them in `columns`")
    if not forms:
        usual = "choices, options, A and B and so on, or correct_answer with incorrect_answer_1 or distractor1"
        raise UserError(
            f"no column has a usual name of options ({usual}); name it in `columns`, the files have {listing(names)}"
        )
    return (right, wrong, None) if right else (None, [], listed or lettered)


def _cells(row: dict, columns: Sequence[str]) -> list[str]:
    """The options in columns of their own; a question may leave the last ones empty."""
    texts = [cell(column, row.get(column), schema.as_answer) for column in columns]
    while texts and not texts[-1]:
        texts.pop()
    if "" in texts:
        raise RefusedRow(f"{columns[texts.index('')]} is empty and a later option is not")
    return texts


def _listed(column: str, value: Any) -> tuple[list[str], list[str] | None]:
    """(texts, labels) of options in one cell: a list of texts; a mapping of labels to texts, or of two lists; a list of
    such mappings (ARC); or the JSON text of one of these, as CSV has it."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RefusedRow(f"{column} is text and no JSON list of options") from error
    labels: list | None = None
    if isinstance(value, dict) and {"text", "label"} <= value.keys():
        value, labels = value["text"], value["label"]
    elif isinstance(value, dict):
        value = {label: text for label, text in value.items() if text is not None}  # parquet has all keys in all rows
        value, labels = list(value.values()), list(value)
    elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        value, labels = [one.get("text") for one in value], [one.get("label") for one in value]
    if not isinstance(value, list) or not (labels is None or isinstance(labels, list)):
        raise RefusedRow(f"{column} is no list of options")
    texts = [filled(f"{column}: option {i}", text, schema.as_answer) for i, text in enumerate(value, 1)]
    if labels is None:
        return texts, None
    names = [filled(f"{column}: label {i}", label, schema.as_answer) for i, label in enumerate(labels, 1)]
    if len(names) != len(texts) or len(set(names)) < len(names):
        raise RefusedRow(f"{column} has {len(texts)} texts and {len(set(names))} different labels")
    return texts, names


def _by_letter(question: dict[str, Any]) -> int | None:
    _, text, labels = question["named"]
    names = labels or list(LETTERS[: len(question["options"])])
    match = re.fullmatch(r"[(\[]?\s*(.*?)\s*[)\].:]*", text, re.DOTALL)
    name = match[1] if match else text
    name = name if labels else name.upper()
    return names.index(name) if name in names else None


def _by_index(question: dict[str, Any]) -> int | None:
    """An index counts from 0; labels of the file's own leave it without a meaning."""
    _, text, labels = question["named"]
    if labels or not re.fullmatch(r"[0-9]{1,2}", text) or int(text) >= len(question["options"]):
        return None
    return int(text)


def _by_text(question: dict[str, Any]) -> int | None:
    text, options = question["named"][1], question["options"]
    return options.index(text) if text in options else None


_WAYS = {"letter": _by_letter, "index": _by_index, "text": _by_text}
_NAMED = {"letter": "letter or label", "index": "index, counted from 0,", "text": "text"}
