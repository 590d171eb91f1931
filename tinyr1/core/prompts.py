"""Prompt text, think tags, chat templates and loss spans. They are defined only here.

Training and evaluation call the same functions, so the prompts of the two cannot differ.
"""

import re
from dataclasses import dataclass
from typing import Any

from tinyr1.core.params.domains import Domain

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

# The prompt form of DeepSeek-R1's distilled models, written with ChatML tags: there is no system turn, and the prompt
# of a question (`add_generation_prompt`) ends in the opening think tag, so that each reply starts inside the reasoning.
R1_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)

# Lettered options: lines that begin with B and C, after an A; or (A), (B) and (C), or A), B) and C), inside the text. A
# formula such as (x cos A)(y cos B) shows none, nor does a list such as "the circles (A), (B) and (C)". Drawings and
# programs name points and cases by the same letters and are not read.
_OPTION_LINES = re.compile(
    r"\bA[)\].:]\s.*?^\s*[(\[]?B[)\].:]\s.*?^\s*[(\[]?C[)\].:]\s", re.MULTILINE | re.DOTALL
)
_OPTIONS_INSIDE = re.compile(
    r"\(A\)(?!\s*(?:[,;]|and\b|or\b)).*?\(B\).*?\(C\)|\sA\)\s.*?\sB\)\s.*?\sC\)\s", re.DOTALL
)
_UNREAD = re.compile(r"```.*?```|\\begin\{(tikzpicture|asy)\}.*?\\end\{\1\}|\[asy\].*?\[/asy\]", re.DOTALL)


@dataclass(frozen=True)
class Encoded:
    """One conversation as token ids. The loss covers ids[n_prompt:], the end token included, and not the prompt."""

    ids: list[int]
    n_prompt: int


def shows_options(question: str) -> bool:
    """Whether a question shows lettered options, so that its answer is a letter."""
    text = _UNREAD.sub(" ", question)
    return bool(_OPTION_LINES.search(text) or _OPTIONS_INSIDE.search(text))


def user_turn(instruction: str, question: str, starter_code: str = "") -> str:
    """The user's message: the question, the starter code if there is any, and the instruction."""
    starter = f"\nStart from:\n```python\n{starter_code.rstrip()}\n```" if starter_code else ""
    return f"{question}{starter}\n{instruction}"


def row_turn(domain: Domain, row: dict) -> str:
    """The user's message of a training row: question, starter_code, and the instruction that fits the question."""
    instruction = domain.instruction_for(shows_options(row["question"]))
    return user_turn(instruction, row["question"], row.get("starter_code", ""))


def render_prompt(tokenizer: Any, user: str) -> str:
    """The text of a prompt with one user turn, up to the model's first token; the opening think tag belongs to it."""
    return render_messages(tokenizer, [{"role": "user", "content": user}], open_think=True)


def render_messages(tokenizer: Any, messages: list[dict], open_think: bool) -> str:
    """The text of messages in the tokenizer's chat template; with `open_think` it ends in the opening think tag."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    # DeepSeek's template has opened the think tag since 9 February 2025, earlier revisions do not.
    return text if not open_think or text.endswith(f"{THINK_OPEN}\n") else f"{text}{THINK_OPEN}\n"


def render_target(thinking: str, response: str) -> str:
    """The text that a model learns to write after the prompt, without the end token."""
    return f"{thinking.strip()}\n{THINK_CLOSE}\n\n{response.strip()}"


def encode_row(tokenizer: Any, domain: Domain, row: dict) -> Encoded:
    """Token ids of a training row. Prompt and target are tokenized apart, because a sampled answer is apart from its
    prompt, too: a token must never span both."""
    prompt = encode_prompt(tokenizer, row_turn(domain, row))
    target = tokenizer.encode(render_target(row["thinking"], row["response"]), add_special_tokens=False)
    return Encoded([*prompt, *target, tokenizer.eos_token_id], len(prompt))


def encode_prompt(tokenizer: Any, user: str) -> list[int]:
    """Token ids of a prompt with one user turn."""
    # The template writes every special token itself; the tokenizer would add a second BOS.
    return tokenizer.encode(render_prompt(tokenizer, user), add_special_tokens=False)


def split_response(text: str) -> tuple[str, str | None]:
    """(thinking, final answer) of a sampled text; the answer is None where the text does not close the think tag."""
    thinking, tag, final = text.rpartition(THINK_CLOSE)
    return (thinking, final.strip()) if tag else (text, None)
