"""Prompt text, think tags, chat templates and loss spans: the only place that holds them.

Training and evaluation call the same functions, so a prompt cannot drift between them.
"""

from dataclasses import dataclass
from typing import Any

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

# The form of DeepSeek-R1's distilled models, in ChatML tags: no system turn, and the reply opens with the
# think tag, which the prompt already holds when a model is asked (`add_generation_prompt`).
R1_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)

# One instruction for each domain, appended to the question. Math: the user-side form DeepSeek recommends
# for R1 models; science and code: the letter or the fenced program that the graders look for.
INSTRUCTION = {
    "math": "Please reason step by step, and put your final answer within \\boxed{}.",
    "science": "Reason step by step, and put the letter within \\boxed{}.",
    "code": "Think, then write Python in one ```python block.",
}

@dataclass(frozen=True)
class Encoded:
    """One conversation as token ids; ids[:n_prompt] carry no loss, the rest, EOS included, does."""

    ids: list[int]
    n_prompt: int


def user_turn(domain: str, question: str, starter_code: str = "") -> str:
    """The user's message: question, starter code if there is any, instruction."""
    starter = f"\nStart from:\n```python\n{starter_code.rstrip()}\n```" if starter_code else ""
    return f"{question}{starter}\n{INSTRUCTION[domain]}"


def render_prompt(tokenizer: Any, user: str) -> str:
    """Everything a model is given before its first own token, the opening think tag included."""
    return render_messages(tokenizer, [{"role": "user", "content": user}], open_think=True)


def render_messages(tokenizer: Any, messages: list[dict], open_think: bool) -> str:
    """Messages in the model's chat template; with `open_think` the text ends in the opened think tag."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    # DeepSeek's template has opened the think tag since 9 February 2025, earlier revisions do not.
    return text if not open_think or text.endswith(f"{THINK_OPEN}\n") else f"{text}{THINK_OPEN}\n"


def render_target(thinking: str, response: str) -> str:
    """What a model is trained to write after the prompt, without EOS."""
    return f"{thinking.strip()}\n{THINK_CLOSE}\n\n{response.strip()}"


def encode(tokenizer: Any, row: dict) -> Encoded:
    """Token ids of a curated row. Prompt and target are tokenized apart, as they are when sampling."""
    user = user_turn(row["domain"], row["question"], row.get("starter_code", ""))
    prompt = encode_prompt(tokenizer, user)
    target = tokenizer.encode(render_target(row["thinking"], row["response"]), add_special_tokens=False)
    return Encoded([*prompt, *target, tokenizer.eos_token_id], len(prompt))


def encode_prompt(tokenizer: Any, user: str) -> list[int]:
    """Prompt ids. The template writes every special token itself; a second BOS would be added otherwise."""
    return tokenizer.encode(render_prompt(tokenizer, user), add_special_tokens=False)


def split_response(text: str) -> tuple[str, str | None]:
    """(thinking, final answer) of a sampled text; the answer is None if the think tag was never closed."""
    thinking, tag, final = text.rpartition(THINK_CLOSE)
    return (thinking, final.strip()) if tag else (text, None)
