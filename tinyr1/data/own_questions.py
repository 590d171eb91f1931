r"""Questions of one's own, of files with columns of any name: the kinds `math` and `choice` (docs/evaluation.md §0.5).

    rows of all files --which column holds what?--> names --_Math, Choice: row -> question--> questions
                \-- several columns could, or none --> UserError       \-- refused rows --> UserError with their numbers

Every row becomes a question or is refused with its number and the reason; a file with a refused row is not used.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyr1.core.errors import UserError
from tinyr1.core.params.domains import ChoiceBenchmark, MathBenchmark, QuestionColumns
from tinyr1.data import files, schema
from tinyr1.data.answers import LONGEST
from tinyr1.data.boxes import boxed
from tinyr1.data.own_columns import (
    QUESTION,
    RefusedRow,
    context_column,
    filled,
    id_column,
    needed_column,
    question_cell,
    short_cell,
)
from tinyr1.data.own_options import Choice

SHOWN = 5  # refused rows in one message
# The usual names of columns, in lower case and with _ for a blank.
ANSWER, WORKED = ("answer", "expected_answer", "final_answer"), ("solution",)
CANARY = "canary"  # in the name of a column: its authors ask that no question appears in plain text (GPQA)

Question = dict[str, Any]


@dataclass(frozen=True)
class OwnQuestions:
    """What the files of a benchmark of one's own hold.

    columns: the column of each part of a question, as they were named or recognised.
    """

    questions: list[Question]
    rows: int
    columns: dict[str, Any]


def read(paths: Sequence[Path], benchmark: MathBenchmark | ChoiceBenchmark) -> OwnQuestions:
    """All questions of the files. UserError where columns cannot be told apart, and with the rows that are refused."""
    rows = [(path, i, number, row) for path in paths for i, (number, row) in enumerate(files.numbered_rows(path))]
    if not rows:
        return OwnQuestions([], 0, {})
    names = list(dict.fromkeys(name for *_, row in rows for name in row))
    reader = (_Math if isinstance(benchmark, MathBenchmark) else Choice)(benchmark.columns or QuestionColumns(), names)
    questions: list[Question] = []
    problems: list[str] = []
    first: dict[str, str] = {}
    for path, i, number, row in rows:
        place = f"{path.name}:{number}"
        try:
            name = short_cell(row, reader.id) if reader.id else f"{path.name.partition('.')[0]}-{i + 1}"
            if (earlier := first.setdefault(name, place)) != place:
                raise RefusedRow(f"its id {name!r} is that of {earlier}, too; give each question one id")
            questions.append({"id": name, "family": ""} | reader.question(row))
        except RefusedRow as error:
            problems.append(f"{place}: {error}")
    if not problems and isinstance(reader, Choice):
        problems = reader.answer_all(questions, [f"{path.name}:{number}" for path, _, number, _ in rows])
    if problems:
        more = f"\n… and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError(
            f"{len(problems)} of {len(rows)} rows are no questions; mend them, or name other columns in `columns`:\n"
            + "\n".join(problems[:SHOWN]) + more
        )  # fmt: skip
    if any(CANARY in name.lower() for name in names):
        questions = [question | {"private": True} for question in questions]
    return OwnQuestions(questions, len(rows), reader.columns())


# --- mathematical answers ------------------------------------------------------------------------------------------


class _Math:
    """Rows with a question and a reference answer."""

    def __init__(self, given: QuestionColumns, names: Sequence[str]) -> None:
        self.asks = needed_column(names, "question", given.question, QUESTION)
        self.context = context_column(names, given.context)
        self.answer = needed_column(names, "answer", given.answer, ANSWER, WORKED)
        self.id = id_column(names, given.id)

    def columns(self) -> dict[str, Any]:
        return {"question": self.asks, "context": self.context, "answer": self.answer, "id": self.id}

    def question(self, row: dict) -> Question:
        value = row.get(self.answer)
        # A list holds the answers to a question that has several, or the one (OlympiadBench).
        parts = list(value) if isinstance(value, (list, tuple)) else [value]
        if not parts:
            raise RefusedRow(f"{self.answer} is an empty list")
        answers = [filled(self.answer, part, lambda one: reference(schema.as_answer(one))) for part in parts]
        return {"question": question_cell(row, self.asks, self.context), "answer": ", ".join(answers)}


def reference(text: str) -> str:
    """The answer in the text of a reference: behind its last ####, or in its last box, or the text itself.

    reference("48/2 = 24 clips.\\n#### 24") -> "24". ValueError where there is none.
    """
    if "####" in text:
        answer = text.rpartition("####")[2]
    elif re.search(r"\\(?:boxed|fbox)\s*\{", text):
        content = boxed(text)
        if content is None:
            raise ValueError("has a box that is never closed")
        answer = content
    else:
        answer = text
    answer = answer.strip()
    if not answer:
        raise ValueError("is empty")
    if len(answer) > LONGEST or "\n\n" in answer:
        raise ValueError("is a worked solution without #### or a box; name a column with the answer alone")
    depth = 0
    for brace in re.findall(r"\\.|[{}]", answer, re.DOTALL):
        depth += (brace == "{") - (brace == "}")
        if depth < 0:
            break
    if depth:
        raise ValueError(f"{answer[:80]!r} has a brace without its other one")
    return answer
