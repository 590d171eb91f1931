"""Finds the columns of a file of one's own questions, and reads their cells: what all of its kinds share.

    names of the columns + those that the params name --needed_column, usual_column--> the column of a part
    row, column --question_cell, short_cell--> its text, or RefusedRow: why the row is no question
"""

from collections.abc import Callable, Sequence

from tinyr1.core.errors import UserError
from tinyr1.data import schema

# Usual names, in lower case and with _ for a blank.
QUESTION = ("question", "problem", "prompt")
CONTEXT = ("passage", "context", "article", "paragraph", "story", "background", "premise")
IDS = ("id", "unique_id", "question_id", "record_id", "problem_id", "task_id", "idx")  # the first that a file has


class RefusedRow(ValueError):
    """Why a row is no question."""


def normal(name: str) -> str:
    return name.strip().lower().replace(" ", "_")


def usual_column(names: Sequence[str], what: str, *usual: tuple[str, ...]) -> str | None:
    """The one column with a usual name; of several groups of names, the first that has any. UserError where a group has
    several; None where there is none."""
    for group in usual:
        found = [name for name in names if normal(name) in group]
        if len(found) > 1:
            raise UserError(
                f"each of the columns {', '.join(found)} could hold the {what}; name one of them in `columns`"
            )
        if found:
            return found[0]
    return None


def needed_column(names: Sequence[str], what: str, given: str | None, *usual: tuple[str, ...]) -> str:
    """The column that is named, else the one with a usual name. UserError where there is none."""
    if given is not None:
        return existing_column(names, what, given)
    if (found := usual_column(names, what, *usual)) is None:
        known = ", ".join(name for group in usual for name in group)
        raise UserError(
            f"no column has a usual name of the {what} ({known}); name it in `columns`, the files have {listing(names)}"
        )
    return found


def existing_column(names: Sequence[str], what: str, given: str) -> str:
    if given not in names:
        raise UserError(f"columns.{what}: there is no column {given!r}; the files have {listing(names)}")
    return given


def listing(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def context_column(names: Sequence[str], given: str | None) -> str | None:
    """The column with what a question is about; None where there is none. UserError where nobody says what a column is
    that has a usual name of it."""
    if given is not None:
        return existing_column(names, "context", given) if given else None
    if found := [name for name in names if normal(name) in CONTEXT]:
        raise UserError(
            f"the questions may be about the column {found[0]}; name it as columns.context, which puts it before each "
            'question, or give columns.context: "" to leave it out'
        )
    return None


def id_column(names: Sequence[str], given: str | None) -> str | None:
    if given is not None:
        return existing_column(names, "id", given)
    by_name = {normal(name): name for name in reversed(names)}
    return next((by_name[name] for name in IDS if name in by_name), None)


# --- cells ----------------------------------------------------------------------------------------------------


def question_cell(row: dict, column: str, context: str | None) -> str:
    """A question behind what it is about, without blanks around either. RefusedRow where it is empty or no text."""
    asks = filled(column, row.get(column), schema.as_question)
    about = cell(context, row.get(context), schema.as_text) if context else ""
    return f"{about}\n\n{asks}" if about else asks


def short_cell(row: dict, column: str) -> str:
    """The text or number of a cell, as text. RefusedRow where it is empty or something else."""
    return filled(column, row.get(column), schema.as_answer)


def filled(what: str, value: object, read: Callable[[object], str]) -> str:
    """What `read` makes of a value; RefusedRow where it is empty, or `read` refuses it. what: its name in messages."""
    if not (text := cell(what, value, read)):
        raise RefusedRow(f"{what} is empty")
    return text


def cell(what: str, value: object, read: Callable[[object], str]) -> str:
    """The same; an empty one is ""."""
    try:
        return read(value).strip()
    except (ValueError, OverflowError) as error:
        raise RefusedRow(f"{what} {error}") from error
