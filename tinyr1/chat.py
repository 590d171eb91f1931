"""Prompt text, think tags, chat templates and loss spans: the only place that holds them.

Training and evaluation call the same functions, so a prompt cannot drift between them.

    python -m tinyr1.chat runs/smol/merged/math-science-code     talk to a model, reasoning and answer streamed
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyr1 import config
from tinyr1.modelfiles import CheckpointError, weight_files

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

# A tokenizer has at least one of these files.
VOCABULARIES = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip


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


def load(folder: Path) -> tuple[Any, Any]:
    """(model, tokenizer) of a checkpoint folder. CheckpointError where one cannot talk to it."""
    if not (folder / "config.json").is_file():
        lack = "no config.json, so it is no checkpoint" if folder.is_dir() else "no such folder"
        raise CheckpointError(f"{folder}: {lack}; `make reproduce` makes the merged model, MODEL=folder names another")
    weight_files(folder)
    if not any((folder / name).is_file() for name in VOCABULARIES):  # transformers would make up an empty tokenizer
        raise CheckpointError(f"{folder}: no tokenizer; copy tokenizer.json and its neighbours from the model's origin")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with _loading(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.chat_template is None:
        raise CheckpointError(
            f"{folder}: the tokenizer has no chat template, which makes a prompt of a question; put the model's "
            "chat_template.jinja into the folder"
        )
    with _loading(folder):
        encode_prompt(tokenizer, "a question")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """Errors of transformers about a checkpoint in one sentence, as CheckpointError."""
    from jinja2 import TemplateError
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError, TemplateError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{folder}: cannot be loaded ({reason}); make it or fetch it again") from error


def ask(at_terminal: bool) -> str:
    """The next question; empty at an empty line, at the end of the input, and at Ctrl-C."""
    try:
        return input("\n> " if at_terminal else "").strip()
    except (EOFError, KeyboardInterrupt):
        if at_terminal:
            print()
        return ""


def talk(model: Any, tokenizer: Any, settings: argparse.Namespace) -> None:
    """Questions and answers, to the last question. At a terminal Ctrl-C stops an answer and no more."""
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        rules = "one question a line; Ctrl-C stops an answer, an empty line ends"
        print(f"{model.name_or_path} on {model.device}: {rules}")
    while question := ask(at_terminal):
        user = user_turn(settings.domain, question) if settings.domain else question
        try:
            stream(model, tokenizer, user, settings.max_tokens, settings.temperature)
        except KeyboardInterrupt:
            if not at_terminal:
                raise
            print()


def main() -> int:
    parser = argparse.ArgumentParser(description="Talk to a model folder; reasoning and answer are streamed.")
    parser.add_argument("model", nargs="?", type=Path, help="checkpoint folder (default: the merged model of smol)")
    parser.add_argument("--domain", choices=sorted(INSTRUCTION), help="append this domain's instruction")
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--temperature", type=float, default=0.6, help="0: always the likeliest token")
    arguments = parser.parse_args()
    try:
        folder = arguments.model or config.load("smol").model("math-science-code")
        talk(*load(folder), arguments)
    except (CheckpointError, config.ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
