"""Prompt text, think tags, chat templates, loss spans and token ids. They are defined only here.

    a row --row_messages, render_target--> texts --encode_rows--> token ids, with the span of the loss

Training and evaluation call the same functions, so the prompts of the two cannot differ. No text of a row or question
can open or end a turn: a control token that is spelled in it stays text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinyr1.core.errors import UserError
from tinyr1.core.params.domains import Domain
from tinyr1.core.text_tokens import THINK_CLOSE as THINK_CLOSE
from tinyr1.core.text_tokens import THINK_OPEN as THINK_OPEN
from tinyr1.core.text_tokens import Text, encode, hide

# The prompt form of DeepSeek-R1's distilled models, written with ChatML tags: there is no system turn, and the prompt
# of a question (`add_generation_prompt`) ends in the opening think tag, so that each reply starts inside the reasoning.
R1_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)

# The template `qwen` of the training framework that the authors used (docs/fidelity.md §2.3). The end token after the
# model's turn is not part of it. No think tag is opened: the model learns to write it.
QWEN_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN_END = "<|im_end|>"  # the token that ends the model's turn in it

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

# A think block that a template closes at the end of a prompt, for an answer without reasoning: Qwen3 and SmolLM3 write
# an empty one, DeepSeek-V3.1 the closing tag alone.
_SKIPPED = re.compile(rf"(?:{THINK_OPEN}\s*)?{THINK_CLOSE}\s*\Z")


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


def row_messages(domain: Domain, row: dict) -> list[dict]:
    """The messages of a training row before the model's turn: its earlier turns, if it has any, and the user's turn."""
    return [*row.get("history", ()), {"role": "user", "content": row_turn(domain, row)}]


def render_prompt(tokenizer: Any, user: str) -> str:
    """The text of a prompt with one user turn, up to the model's first token; the opening think tag belongs to it."""
    return render_messages(tokenizer, [{"role": "user", "content": user}], open_think=True)


def render_messages(tokenizer: Any, messages: list[dict], open_think: bool) -> str:
    """The text of messages in the tokenizer's chat template; with `open_think` it ends in the opening think tag."""
    return _render(tokenizer, [messages], open_think)[0]


def _render(
    tokenizer: Any, conversations: list[list[dict]], open_think: bool, template: str | None = None
) -> list[str]:
    texts = tokenizer.apply_chat_template(
        conversations, chat_template=template, tokenize=False, add_generation_prompt=True
    )
    return [_opened(text) for text in texts] if open_think else texts


def _opened(prompt: str) -> str:
    """The prompt with an open think tag at its end. A template may have opened it (DeepSeek's has done so since
    9 February 2025, with a line end or without), or have closed it, for a model that answers without reasoning."""
    if prompt.rstrip().endswith(THINK_OPEN):
        return prompt
    return f"{_SKIPPED.sub('', prompt)}{THINK_OPEN}\n"


def render_target(thinking: str, response: str) -> str:
    """The text that a model learns to write after the prompt, without the end token."""
    return f"{thinking.strip()}\n{THINK_CLOSE}\n\n{response.strip()}"


def split_reasoning(text: str, open_tag: str = THINK_OPEN, close_tag: str = THINK_CLOSE) -> tuple[str, str | None]:
    """(reasoning, answer) of a text in which tags part the two; the answer is None where there is none.

    The answer is what follows the last closing tag that has anything but blanks and tags behind it; without such a tag
    there is none. All tags are removed from both parts, so that no model learns to write a tag inside of them.
    """
    body = text.rstrip()
    while body.endswith((open_tag, close_tag)):
        body = body.removesuffix(close_tag).removesuffix(open_tag).rstrip()
    reasoning, tag, answer = body.rpartition(close_tag)
    if not tag:
        return _without(body, open_tag, close_tag), None
    return _without(reasoning, open_tag, close_tag), _without(answer, open_tag, close_tag) or None


def final_answer(text: str, opened: bool) -> tuple[str | None, bool]:
    """(the answer in a model's text, whether the text ends inside its reasoning); None where there is no answer.

    opened: whether the prompt ended in an open think tag. Where neither the prompt nor the text opens reasoning and
    nothing closes any, the whole text is the answer: the model does not reason, or its reasoning was left out.
    """
    if THINK_CLOSE in text:
        return split_reasoning(text)[1], False
    if opened or THINK_OPEN in text:
        return None, True
    return text.strip() or None, False


def _without(text: str, *tags: str) -> str:
    while any(tag in text for tag in tags):  # again, as a removal may join the halves of another tag
        for tag in tags:
            text = text.replace(tag, "")
    return text.strip()


def encode_rows(
    tokenizer: Any, domain: Domain, rows: Sequence[dict], num_proc: int = 1, template: str | None = None
) -> list[Encoded]:
    """Token ids of training rows, in the order of the rows; `num_proc` threads make them.

    template: `Backbone.training_template`. Prompt and target are tokenized apart, because a sampled answer is apart
    from its prompt, too: a token must never span both. UserError where the tokenizer has no end token.
    """
    end, n = end_token(tokenizer, template), len(rows)
    conversations = [row_messages(domain, row) for row in rows]
    if template == "qwen":
        asked, opening = _prompt_texts(tokenizer, conversations, False, QWEN_TEMPLATE), f"{THINK_OPEN}\n"
    else:
        asked, opening = _prompt_texts(tokenizer, conversations, open_think=True), ""
    ids = encode(tokenizer, [*asked, *(_target_text(tokenizer, row, opening) for row in rows)], num_proc)
    return [Encoded([*ids[i], *ids[n + i], end], len(ids[i])) for i in range(n)]


def training_texts(tokenizer: Any, domain: Domain, row: dict, template: str | None = None) -> tuple[str, str]:
    """(prompt, target) of a training row as text, for showing it; the end token is left out."""
    target, messages = render_target(row["thinking"], row["response"]), row_messages(domain, row)
    if template == "qwen":
        return _render(tokenizer, [messages], False, QWEN_TEMPLATE)[0], f"{THINK_OPEN}\n{target}"
    return render_messages(tokenizer, messages, open_think=True), target


def end_token(tokenizer: Any, template: str | None = None) -> int:
    """The id of the token that ends each training row. UserError where the tokenizer has none."""
    if template == "qwen":
        if QWEN_END not in tokenizer.get_vocab():
            raise UserError(
                f"template qwen: the tokenizer has no token {QWEN_END}; set backbone.training_template: qwen, which "
                "adds it to the base checkpoint"
            )
        return tokenizer.convert_tokens_to_ids(QWEN_END)
    if tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no eos_token, so no answer would end; name it in tokenizer_config.json")
    return tokenizer.eos_token_id


def encode_row(tokenizer: Any, domain: Domain, row: dict, template: str | None = None) -> Encoded:
    """Token ids of a training row, as `encode_rows` makes them."""
    return encode_rows(tokenizer, domain, [row], template=template)[0]


def encode_messages(tokenizer: Any, messages: list[dict], open_think: bool) -> list[int]:
    """Token ids of the prompt that `render_messages` gives; control tokens inside the messages are text."""
    return encode(tokenizer, _prompt_texts(tokenizer, [messages], open_think))[0]


def encode_prompt(tokenizer: Any, user: str) -> list[int]:
    """Token ids of a prompt with one user turn."""
    return encode_messages(tokenizer, [{"role": "user", "content": user}], open_think=True)


def _prompt_texts(
    tokenizer: Any, conversations: list[list[dict]], open_think: bool, template: str | None = None
) -> list[Text]:
    """The prompts of conversations, with the control tokens hidden that their messages spell."""
    safe, hidden = [], []
    for messages in conversations:
        contents, characters = hide(tokenizer, [message["content"] for message in messages])
        safe.append([message | {"content": text} for message, text in zip(messages, contents, strict=True)])
        hidden.append(characters)
    texts = _render(tokenizer, safe, open_think, template) if safe else []
    return [Text(text, characters) for text, characters in zip(texts, hidden, strict=True)]


def _target_text(tokenizer: Any, row: dict, opening: str = "") -> Text:
    (thinking, response), hidden = hide(tokenizer, [row["thinking"], row["response"]])
    return Text(opening + render_target(thinking, response), hidden)
