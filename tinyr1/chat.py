"""Prompt text, think tags, chat templates and loss spans: the only place that holds them.

Training and evaluation call the same functions, so a prompt cannot drift between them.

    python -m tinyr1.chat runs/smol/merged/math-science-code     talk to a model, reasoning and answer streamed
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
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


def stream(model: Any, tokenizer: Any, user: str, max_tokens: int, temperature: float) -> None:
    """Print the reasoning and the answer of a model to one user turn as they are written."""
    import torch
    from transformers import TextStreamer

    ids = torch.tensor([encode_prompt(tokenizer, user)], device=model.device)
    sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, **sampling,
        streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True),
    )  # fmt: skip


def main() -> None:
    default = "runs/smol/merged/math-science-code"
    parser = argparse.ArgumentParser(description="Talk to a model folder; reasoning and answer are streamed.")
    parser.add_argument("model", nargs="?", default=default, help=f"checkpoint folder (default: {default})")
    parser.add_argument("--domain", choices=sorted(INSTRUCTION), help="append this domain's instruction")
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--temperature", type=float, default=0.6, help="0: always the likeliest token")
    arguments = parser.parse_args()
    if not (Path(arguments.model) / "config.json").is_file():
        parser.error(f"{arguments.model} is no checkpoint folder (no config.json); `make reproduce` makes one")

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.bfloat16).to(device).eval()
    if sys.stdin.isatty():
        print(f"{arguments.model} on {device}; one question a line, an empty line ends")
    while True:
        try:
            question = input("\n> " if sys.stdin.isatty() else "").strip()
        except (EOFError, KeyboardInterrupt):
            return
        if not question:
            return
        user = user_turn(arguments.domain, question) if arguments.domain else question
        stream(model, tokenizer, user, arguments.max_tokens, arguments.temperature)


if __name__ == "__main__":
    main()
