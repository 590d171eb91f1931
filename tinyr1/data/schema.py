r"""What a raw row may contain: one model for each kind of columns. A row that does not fit is malformed.

    raw row (any JSON value) --parse--> model of its columns
                              \-------> Malformed: the field, and the rule that it breaks

Null, NaN and a column that may be absent count as "there is none", and the readers say what is missing then. A number
is text only where an answer is meant; no list, mapping or truth value ever becomes text. Text with half of a surrogate
pair cannot be written as UTF-8 and is refused. The columns are those of docs/fidelity.md §1.4.
"""

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from tinyr1.core.params.domains import Source


class Malformed(ValueError):
    """A raw row that its model refuses; the message begins with the field."""


def _absent(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def as_text(value: object) -> str:
    """Text, "" where there is none. ValueError for anything else."""
    if _absent(value):
        return ""
    if not isinstance(value, str):
        raise ValueError(f"is {_kind(value)}, not text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds half of a surrogate pair, which UTF-8 has no form for") from error
    return value


def as_question(value: object) -> str:
    """Text, or that of a conversation with one message, of a user. ValueError for anything else."""
    if not isinstance(value, (list, tuple)):
        return as_text(value)
    message = value[0] if len(value) == 1 else None
    if not isinstance(message, dict) or message.get("role", "user") != "user":
        raise ValueError("is a list, and not of one message of a user")
    return as_text(message.get("content"))


def as_answer(value: object) -> str:
    """Text, or a number as text: 5 and 5.0 are "5"."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not _absent(value):
        if math.isinf(value):
            raise ValueError("is an infinite number")
        return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(value)
    return as_text(value)


def _mark(value: object) -> bool:
    """Whether a checker accepted a text; a mark that is missing did not."""
    if _absent(value):
        return False
    if isinstance(value, (bool, int)) and value in (0, 1):
        return bool(value)
    raise ValueError(f"is {_kind(value)}, not true or false")


def _list(value: object) -> list:
    if _absent(value):
        return []
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"is {_kind(value)}, not a list")
    return list(value)


def _content(value: object) -> str:
    """The text of a message; of a list of parts, their texts one after another."""
    if not isinstance(value, list):
        return as_text(value)
    texts = []
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise ValueError("holds a part that is not text")
        texts.append(as_text(part.get("text")))
    return "".join(texts)


def _kind(value: object) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a mapping", str: "text"}
    return names.get(type(value), f"a {type(value).__name__}")


Text = Annotated[str, BeforeValidator(as_text)]
Answer = Annotated[str, BeforeValidator(as_answer)]
Content = Annotated[str, BeforeValidator(_content)]
Marks = Annotated[list[Annotated[bool, BeforeValidator(_mark)]], BeforeValidator(_list)]
Texts = Annotated[list[Text], BeforeValidator(_list)]


class _Columns(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class OpenR1Math(_Columns):
    """A row of OpenR1-Math-220k: one question, up to four generations and what is known of each of them.

    The lists beside `generations` may be null or shorter: a mark that is missing counts as "not accepted", and a
    statement of completeness that is missing says nothing. A longer list belongs to other generations.
    """

    problem: Text
    answer: Answer
    generations: list[Text]
    correctness_math_verify: Marks
    is_reasoning_complete: Annotated[list[bool | None], BeforeValidator(_list)] = []
    finish_reasons: Texts = []


class _Turn(_Columns):
    role: Text
    content: Content
    reasoning_content: Text = ""
    reasoning: Text = ""


class Messages(_Columns):
    """A conversation as a list of messages with `role` and `content`, as chat APIs have it."""

    messages: list[_Turn]


class _Saying(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)
    value: Text


class Conversations(_Columns):
    """A conversation as a list of turns with `from` and `value`, as ShareGPT and OpenThoughts have it."""

    conversations: list[_Saying]
    system: Text = ""


class OpenThoughtsMetadata(_Columns):
    """A row of OpenThoughts-114k, configuration `metadata`: reasoning and solution apart."""

    problem: Text
    deepseek_reasoning: Text
    deepseek_solution: Text
    starter_code: Text = ""


def _trajectory(value: object) -> str:
    return as_text(value) if not isinstance(value, list) else "".join(as_text(part) for part in value)


class S1(_Columns):
    """A row of s1: s1K-1.1 brings traces of DeepSeek-R1; the full set brings Gemini's (docs/fidelity.md §1.3)."""

    question: Text
    solution: Answer = ""
    deepseek_thinking_trajectory: Text = ""
    deepseek_attempt: Text = ""
    thinking_trajectories: Annotated[str, BeforeValidator(_trajectory)] = ""
    attempt: Text = ""


class Named(_Columns):
    """A row whose columns the params file names."""

    question: Text
    reasoning: Text = ""
    response: Text
    answer: Answer = ""
    starter_code: Text = ""


MODELS: dict[str, type[_Columns]] = {
    "openr1_math": OpenR1Math, "openthoughts": Conversations, "openthoughts_metadata": OpenThoughtsMetadata,
    "s1": S1, "messages": Messages, "sharegpt": Conversations, "columns": Named,
}  # fmt: skip


def required(source: Source) -> list[str]:
    """The columns that a row of a source must have, those of its filter included."""
    model = MODELS[source.columns]
    names = source.names.model_dump(exclude_none=True) if source.names else {}
    needed = [names.get(name, name) for name, field in model.model_fields.items() if field.is_required()]
    kept = [*source.keep, *(column for other in (source.alternatives or {}).values() for column in other.keep)]
    return list(dict.fromkeys([*needed, *names.values(), *kept]))


def parse(raw: Any, source: Source) -> Any:
    """The model of a raw row. Malformed, with the field and the rule, where the row does not fit."""
    if not isinstance(raw, dict):
        raise Malformed(f"the row is {_kind(raw)}, not a mapping of columns")
    if missing := [name for name in required(source) if name not in raw]:
        raise Malformed(f"{', '.join(missing)}: the row has no such column")
    if source.columns in ("openthoughts", "sharegpt"):
        raw = raw | {"conversations": [_saying(turn) for turn in _turns(raw, "conversations")]}
    elif source.columns == "messages":
        raw = raw | {"messages": [_message(turn) for turn in _turns(raw, "messages")]}
    elif source.names:
        named = source.names.model_dump(exclude_none=True)
        raw = {name: raw[column] for name, column in named.items()}
    try:
        return MODELS[source.columns].model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise Malformed(f"{field}: {first['msg'].removeprefix('Value error, ')}") from error


def _turns(raw: dict, column: str) -> list:
    turns = raw[column]
    if not isinstance(turns, list):
        raise Malformed(f"{column}: is {_kind(turns)}, not a list of turns")
    if not turns:
        raise Malformed(f"{column}: is empty")
    for i, turn in enumerate(turns):
        if not isinstance(turn, dict):
            raise Malformed(f"{column}.{i}: is {_kind(turn)}, not a turn")
    return turns


def _saying(turn: dict) -> dict:
    if "from" not in turn or "value" not in turn:
        hint = "; `columns: messages` reads role and content" if {"role", "content"} <= turn.keys() else ""
        raise Malformed(f"conversations: a turn has {', '.join(map(str, turn)) or 'nothing'}, not from and value{hint}")
    return turn


def _message(turn: dict) -> dict:
    if "role" not in turn or "content" not in turn:
        hint = "; `columns: sharegpt` reads from and value" if {"from", "value"} <= turn.keys() else ""
        raise Malformed(f"messages: a turn has {', '.join(map(str, turn)) or 'nothing'}, not role and content{hint}")
    return turn
