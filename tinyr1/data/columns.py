"""The readers of stage 01, one for each kind of columns (docs/fidelity.md §1.4).

model of a raw row (tinyr1.data.schema) --a reader of READERS--> Parsed: question, history, traces; or what is missing
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tinyr1.core import prompts
from tinyr1.core.params.domains import Source
from tinyr1.data import schema

NO_ANSWER = ("", "proof", "notfound")  # what OpenR1-Math writes where there is no answer to check against
CUT = "length"  # the finish reason of a generation that ran into its limit
THOUGHT = re.compile(
    r"<\|begin_of_thought\|>(.*)<\|end_of_thought\|>\s*"
    r"<\|begin_of_solution\|>(.*)<\|end_of_solution\|>",
    re.DOTALL,
)
ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}


class Drop(NamedTuple):
    """Why a row is not kept: a key of `curate.REASONS`, or the column that `source.keep` refuses; and the evidence."""

    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Parsed:
    """One question of a raw row with what the row offers as its traces.

    traces: (thinking, response) of each usable trace, in the order of the row. missing: why there is none. detail: what
    the ledger says of a row that is kept.
    """

    question: str
    traces: list[tuple[str, str]] = field(default_factory=list)
    missing: Drop | None = None
    starter_code: str = ""
    answer: str = ""
    history: tuple[dict, ...] = ()
    detail: str = ""


def _trace(thinking: str, response: str) -> tuple[list[tuple[str, str]], Drop | None]:
    """One trace whose parts stand apart, or why it is none."""
    if not response.strip():
        return [], Drop("incomplete", "no answer follows the reasoning")
    if not thinking.strip():
        return [(thinking, response)], Drop("no_reasoning", "nothing stands before the answer")
    return [(thinking, response)], None


def _split(text: str, source: Source) -> tuple[list[tuple[str, str]], Drop | None]:
    """One trace in which tags part reasoning and answer, or why it is none."""
    tags = source.think_tags or (prompts.THINK_OPEN, prompts.THINK_CLOSE)
    if tags[1] not in text:
        return [], Drop("incomplete", f"{tags[1]} is never written")
    thinking, response = prompts.split_reasoning(text, *tags)
    return _trace(thinking, response or "")


def openthoughts_parts(text: str) -> tuple[str, str] | None:
    """(thinking, response) from OpenThoughts' tags.

    The paper writes that `<|end_of_solution|>` becomes `</think>`, which would put the answer inside the
    reasoning; `<|end_of_thought|>` is meant (docs/fidelity.md C3). The solution tags are removed.
    """
    match = THOUGHT.search(text)
    return (match[1].strip(), match[2].strip()) if match else None


def _openr1_math(row: schema.OpenR1Math, source: Source) -> list[Parsed]:
    texts, marks = row.generations, row.correctness_math_verify
    complete, finish = row.is_reasoning_complete, row.finish_reasons
    lists: dict[str, list] = {
        "correctness_math_verify": marks,
        "is_reasoning_complete": complete,
        "finish_reasons": finish,
    }
    for name, values in lists.items():
        if len(values) > len(texts):
            raise schema.Malformed(f"{name}: {len(values)} entries for {len(texts)} generations")
    if row.answer.strip() in NO_ANSWER:
        return [Parsed(row.problem, missing=Drop("no_answer", f"answer: {row.answer.strip()!r}"))]
    detail = f"{len(texts) - len(marks)} of {len(texts)} marks are missing" if len(marks) < len(texts) else ""
    traces: list[tuple[str, str]] = []
    accepted: list[Drop] = []  # what is wrong with the generations that count, and with the others
    others: list[Drop] = []
    for i, text in enumerate(texts):
        ended = (i >= len(complete) or complete[i] is not False) and (i >= len(finish) or finish[i] != CUT)
        found, why = _split(text, source) if ended else ([], Drop("incomplete", f"generation {i} was cut off"))
        if source.correct == "verified" and not (i < len(marks) and marks[i]):
            others.append(Drop("unverified", detail) if found else why or Drop("incomplete"))
        elif why and not (found and source.without_reasoning == "keep"):
            accepted.append(why)
        else:
            traces += [trace for trace in found if trace not in traces]  # the same text is no second sample
    unverified = [why for why in others if why.reason == "unverified"]
    missing = [*accepted, *unverified, *others, Drop("incomplete", "there is no generation")][0]
    return [Parsed(row.problem, traces, None if traces else missing, answer=row.answer, detail=detail)]


def _openthoughts_metadata(row: schema.OpenThoughtsMetadata, source: Source) -> list[Parsed]:
    traces, missing = _trace(row.deepseek_reasoning, row.deepseek_solution)
    return [Parsed(row.problem, traces, missing, starter_code=row.starter_code)]


def _s1(row: schema.S1, source: Source) -> list[Parsed]:
    traces, missing = _trace(row.deepseek_thinking_trajectory or row.thinking_trajectories,
                             row.deepseek_attempt or row.attempt)  # fmt: skip
    return [Parsed(row.question, traces, missing, answer=row.solution)]


def _named(row: schema.Named, source: Source) -> list[Parsed]:
    if source.names and source.names.reasoning:
        traces, missing = _trace(row.reasoning, row.response)
    else:
        traces, missing = _split(row.response, source)
        if missing and missing.reason == "incomplete" and not _opens(row.response, source):
            traces, missing = _trace("", row.response)  # no tag at all: an answer without reasoning
    return [Parsed(row.question, traces, missing, starter_code=row.starter_code, answer=row.answer)]


def _opens(text: str, source: Source) -> bool:
    return any(tag in text for tag in source.think_tags or (prompts.THINK_OPEN, prompts.THINK_CLOSE))


def _openthoughts(row: schema.Conversations, source: Source) -> list[Parsed]:
    def parts(turn: Any) -> tuple[list[tuple[str, str]], Drop | None]:
        found = openthoughts_parts(turn.value)
        return _trace(*found) if found else ([], Drop("incomplete", "the tags of thought and solution do not close"))

    # The system turn only tells the teacher to write these tags (docs/fidelity.md §1.2): no model is asked with it.
    return _conversation(_sayings(row), parts, source)


def _sharegpt(row: schema.Conversations, source: Source) -> list[Parsed]:
    system = [("system", row.system, row)] if row.system.strip() else []
    return _conversation([*system, *_sayings(row)], lambda turn: _plain(turn.value, "", source), source)


def _sayings(row: schema.Conversations) -> list[tuple[str, str, Any]]:
    return [(str((turn.model_extra or {}).get("from")), turn.value, turn) for turn in row.conversations]


def _messages(row: schema.Messages, source: Source) -> list[Parsed]:
    def parts(turn: Any) -> tuple[list[tuple[str, str]], Drop | None]:
        return _plain(turn.content, turn.reasoning_content or turn.reasoning, source)

    return _conversation([(turn.role, turn.content, turn) for turn in row.messages], parts, source)


def _plain(text: str, reasoning: str, source: Source) -> tuple[list[tuple[str, str]], Drop | None]:
    """The trace of an assistant's turn: its reasoning stands apart, in tags, or nowhere."""
    if reasoning.strip():
        return _trace(reasoning, text)
    return _split(text, source) if _opens(text, source) else _trace("", text)


def _conversation(
    turns: list[tuple[str, str, Any]], parts: Callable[[Any], tuple[list[tuple[str, str]], Drop | None]], source: Source
) -> list[Parsed]:
    """The answers of a conversation, each with what was said before it: the last one, or all (`source.turns`).

    The reasoning of earlier turns is left out of the history, as chat templates of reasoning models do. A user turn
    that nobody answers is not used.
    """
    history: list[dict] = []
    answers: list[Parsed] = []
    for name, text, turn in turns:
        role = ROLES.get(name.strip().lower())
        if role is None:
            raise schema.Malformed(f"a turn is from {name!r}; {', '.join(ROLES)} are known")
        if role == "assistant":
            if not history or history[-1]["role"] != "user":
                raise schema.Malformed("an assistant's turn answers no user's turn")
            traces, missing = parts(turn)
            answers.append(Parsed(history[-1]["content"], traces, missing, history=tuple(history[:-1])))
            text = traces[0][1] if traces else text
        elif role == "user" and history and history[-1]["role"] == "user":
            raise schema.Malformed("two user's turns follow each other")
        elif role == "system" and history:
            raise schema.Malformed("a system turn stands behind another turn")
        history.append({"role": role, "content": text.strip()})
    if not answers:
        said = next((text for name, text, _ in turns if ROLES.get(name.strip().lower()) == "user"), "")
        return [Parsed(said, missing=Drop("incomplete", "no assistant's turn"))]
    if source.turns == "refuse" and len(answers) > 1:
        return [Parsed(answers[0].question, missing=Drop("several_turns", f"{len(answers)} answers"))]
    return answers if source.turns == "all" else answers[-1:]


READERS: dict[str, Callable[[Any, Source], list[Parsed]]] = {
    "openr1_math": _openr1_math, "openthoughts": _openthoughts, "openthoughts_metadata": _openthoughts_metadata,
    "s1": _s1, "messages": _messages, "sharegpt": _sharegpt, "columns": _named,
}  # fmt: skip
