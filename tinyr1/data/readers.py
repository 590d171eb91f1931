"""Turns a raw row in its dataset's own columns into training rows, or into the reason why it gives none.

    raw row --normalise--> up to n rows, one for each trace of its question; or one reason

There is one reader for each kind of columns (docs/fidelity.md §1.4). A Row is a dict with question, starter_code,
thinking, response and answer; `tinyr1.data.curate` adds id, domain, source and n_tokens to the rows that it keeps.
"""

import re
from collections.abc import Callable

from tinyr1.core.params.domains import Source
from tinyr1.core.prompts import THINK_CLOSE, THINK_OPEN

Row = dict
Candidate = Row | str  # a row without id, domain, source and n_tokens; or the reason to drop the raw row


def think_parts(text: str) -> tuple[str, str] | None:
    """(thinking, response) of an R1 generation; None when the think tag is never closed, or nothing follows it."""
    head, tag, response = text.partition(THINK_CLOSE)
    if not tag or not response.strip():
        return None
    return head.replace(THINK_OPEN, "", 1).strip(), response.strip()


def openthoughts_parts(text: str) -> tuple[str, str] | None:
    """(thinking, response) from OpenThoughts' tags.

    The paper writes that `<|end_of_solution|>` becomes `</think>`, which would put the answer inside the
    reasoning; `<|end_of_thought|>` is meant (docs/fidelity.md C3). The solution tags are removed.
    """
    form = r"<\|begin_of_thought\|>(.*)<\|end_of_thought\|>\s*<\|begin_of_solution\|>(.*)<\|end_of_solution\|>"
    match = re.search(form, text, re.DOTALL)
    return (match[1].strip(), match[2].strip()) if match else None


def _row(question: str, thinking: str, response: str, answer: str = "", starter_code: str = "") -> Row:
    return {
        "question": question.strip(), "starter_code": starter_code or "", "thinking": thinking.strip(),
        "response": response.strip(), "answer": answer,
    }  # fmt: skip


def _openr1_math(raw: dict, source: Source, generations: int) -> list[Candidate]:
    if raw["answer"] in (None, "", "proof", "notfound"):
        return ["no_answer"]
    verified = raw["correctness_math_verify"] or [False] * len(raw["generations"])
    texts = [
        text for text, ok in zip(raw["generations"], verified, strict=True) if ok or source.correct == "any"
    ]
    if not any(map(think_parts, raw["generations"])):
        return ["incomplete"]
    if not texts:
        return ["unverified"]
    parts = [p for p in map(think_parts, texts) if p]
    return [_row(raw["problem"], *p, answer=raw["answer"]) for p in parts[:generations]] or ["incomplete"]


def _openthoughts(raw: dict, source: Source, generations: int) -> list[Candidate]:
    turns = {turn["from"]: turn["value"] for turn in raw["conversations"]}
    parts = openthoughts_parts(turns.get("assistant", ""))
    return [_row(turns.get("user", ""), *parts)] if parts else ["incomplete"]


def _openthoughts_metadata(raw: dict, source: Source, generations: int) -> list[Candidate]:
    thinking, response = raw["deepseek_reasoning"] or "", raw["deepseek_solution"] or ""
    if not thinking.strip() or not response.strip():
        return ["incomplete"]
    return [_row(raw["problem"], thinking, response, starter_code=raw.get("starter_code") or "")]


def _s1(raw: dict, source: Source, generations: int) -> list[Candidate]:
    """s1K-1.1 brings traces of DeepSeek-R1; s1's full set brings Gemini's, which the paper replaced.

    Source: docs/fidelity.md §1.3.
    """
    thinking = raw.get("deepseek_thinking_trajectory") or "".join(raw.get("thinking_trajectories") or [])
    response = raw.get("deepseek_attempt") or raw.get("attempt") or ""
    if not thinking.strip() or not response.strip():
        return ["incomplete"]
    return [_row(raw["question"], thinking, response, answer=raw.get("solution") or "")]


READERS: dict[str, Callable[[dict, Source, int], list[Candidate]]] = {
    "openr1_math": _openr1_math,
    "openthoughts": _openthoughts,
    "openthoughts_metadata": _openthoughts_metadata,
    "s1": _s1,
}


def normalise(raw: dict, source: Source, generations: int) -> list[Candidate]:
    """Rows of one raw row, up to `generations` of them; or one reason to drop it.

    A reason is a key of `curate.REASONS`, or the name of the column whose value `source.keep` does not accept.
    """
    for column, accepted in source.keep.items():
        if raw[column] not in accepted:
            return [column]
    candidates = READERS[source.columns](raw, source, generations)
    return [c if isinstance(c, str) or c["question"] else "no_question" for c in candidates]
