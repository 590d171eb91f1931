r"""Turns a raw row in its dataset's own columns into training rows, or into the reason why it gives none.

    raw row --schema.parse--> Parsed: question, history, traces --normalise--> up to n rows; or one Drop
                 \-- Malformed ----------------------------------------------> Drop("malformed", field and rule)

There is one reader for each kind of columns (docs/fidelity.md §1.4). A Row is a dict with question, starter_code,
thinking, response and answer, and with history where turns come before its question; `tinyr1.data.curate` adds id,
domain, source and n_tokens to the rows that it keeps.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from tinyr1.core.params.domains import Source
from tinyr1.data import schema
from tinyr1.data.columns import READERS, Drop, Parsed
from tinyr1.data.duplicates import question_key

NOT_ASKED = "teacher_not_asked"
Row = dict
Candidate = Row | Drop  # a row without id, domain, source and n_tokens; or why there is none


def refused_column(raw: Mapping, keep: Mapping[str, list[str]]) -> Drop | None:
    """The first column whose value the filter does not accept; compared without blanks around it and without case."""
    for column, accepted in keep.items():
        value = raw[column]
        values = value if isinstance(value, (list, tuple)) else [value]
        said = {str(one).strip().casefold() for one in values if one is not None}
        if not said & {text.strip().casefold() for text in accepted}:
            return Drop(column, f"{column}: {value!r}"[:300])
    return None


def read(raw: Any, source: Source) -> list[Parsed] | Drop:
    """The questions of a raw row, whatever it holds; Drop where it is malformed."""
    try:
        parsed = schema.parse(raw, source)
        if refused := refused_column(raw, source.keep):
            return [Parsed(getattr(parsed, "problem", getattr(parsed, "question", "")), missing=refused)]
        return READERS[source.columns](parsed, source)
    except schema.Malformed as error:
        return Drop("malformed", str(error)[:300])


def asked(question: str, history: Iterable[Mapping]) -> str:
    """What is compared where questions are: the question behind the turns that stand before it."""
    return "\n".join([*(turn["content"] for turn in history), question])


def seed_key(parsed: Parsed) -> str:
    """The name under which the teacher's trace of a question is stored: 32 hexadecimal digits."""
    return question_key(asked(parsed.question, parsed.history), parsed.starter_code).hex()


def wants_teacher(parsed: Parsed, source: Source) -> bool:
    """Whether the teacher writes the trace of a question: of all, or of those that come without one."""
    if source.traces is None or not parsed.question.strip():
        return False
    if parsed.missing is None:
        return source.traces == "all"
    return parsed.missing.reason in ("incomplete", "no_reasoning", "unverified")


def normalise(
    raw: Any, source: Source, generations: int, taught: Mapping[str, Any] | None = None
) -> list[tuple[Candidate, Parsed | None]]:
    """Rows of one raw row, up to `generations` of each question, or why there is none; each with what it was read from.

    taught: the teacher's traces by `seed_key`, for a source that asks for them.
    """
    questions = read(raw, source)
    if isinstance(questions, Drop):
        return [(questions, None)]
    return [(candidate, one) for one in questions for candidate in _candidates(one, source, generations, taught or {})]


def _candidates(one: Parsed, source: Source, generations: int, taught: Mapping[str, Any]) -> list[Candidate]:
    if one.missing and one.missing.reason in source.keep:
        return [one.missing]
    if not one.question.strip():
        return [Drop("no_question")]
    if wants_teacher(one, source):
        trace = taught.get(seed_key(one))
        if trace is None:
            return [Drop(NOT_ASKED, "the teacher has written no trace for this question")]
        if trace.outcome != "written":
            return [Drop(f"teacher_{trace.outcome}", f"{trace.samples} samples")]
        return [_row(one, trace.thinking, trace.response)]
    if one.missing and not (one.missing.reason == "no_reasoning" and source.without_reasoning == "keep"):
        return [one.missing]
    return [_row(one, *trace) for trace in one.traces[:generations]]


def _row(parsed: Parsed, thinking: str, response: str) -> Row:
    row = {
        "question": parsed.question.strip(), "starter_code": parsed.starter_code, "thinking": thinking.strip(),
        "response": response.strip(), "answer": parsed.answer,
    }  # fmt: skip
    return row | ({"history": list(parsed.history)} if parsed.history else {})
