"""Talk to the model in a checkpoint folder; its reasoning and its answer appear while they are generated.

    python -m tinyr1.chat FOLDER --domain math
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinyr1.core import config, machine, prompts
from tinyr1.core.checkpoints import weight_files
from tinyr1.core.errors import UserError, guarded
from tinyr1.core.params.domains import Domain
from tinyr1.core.tokenizers import load_tokenizer


def stream_answer(model: Any, tokenizer: Any, user: str, max_tokens: int, temperature: float) -> None:
    """Print the reasoning and the answer of a model to one user turn while they are generated.

    max_tokens: most tokens of both together. temperature: 0 takes the likeliest token each time.
    """
    import torch
    from transformers import TextStreamer

    ids = torch.tensor([prompts.encode_prompt(tokenizer, user)], device=model.device)
    sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, **sampling,
        streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True),
    )  # fmt: skip


def load_model(folder: Path) -> tuple[Any, Any]:
    """(model, tokenizer) of a checkpoint folder, on the GPU if there is one. UserError where nobody can talk to it."""
    if not (folder / "config.json").is_file():
        lack = "no config.json, so it is no checkpoint" if folder.is_dir() else "no such folder"
        raise UserError(f"{folder}: {lack}; `make reproduce` makes the merged model, MODEL=folder names another")
    weight_files(folder)
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(folder)
    if tokenizer.chat_template is None:
        raise UserError(
            f"{folder}: the tokenizer has no chat template, which makes a prompt of a question; put the model's "
            "chat_template.jinja into the folder"
        )
    with _loading(folder):
        prompts.encode_prompt(tokenizer, "a question")  # a template that fails does so before the weights are read
        cuda = torch.cuda.is_available()
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=machine.inference_dtype(cuda))
        return model.to("cuda" if cuda else "cpu").eval(), tokenizer


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """Turn what transformers raises about a checkpoint into a UserError of one sentence."""
    from jinja2 import TemplateError
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError, TemplateError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{folder}: cannot be loaded ({reason}); make it or fetch it again") from error


def next_question(at_terminal: bool) -> str:
    """The next question; "" at an empty line, at the end of the input, and at Ctrl-C."""
    try:
        return input("\n> " if at_terminal else "").strip()
    except (EOFError, KeyboardInterrupt):
        if at_terminal:
            print()
        return ""


def talk(model: Any, tokenizer: Any, settings: argparse.Namespace, domain: Domain | None = None) -> None:
    """Answer questions from standard input until an empty one. At a terminal, Ctrl-C stops only the present answer.

    settings: max_tokens and temperature. domain: its instruction is appended to each question.
    """
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        rules = "one question a line; Ctrl-C stops an answer, an empty line ends"
        print(f"{model.name_or_path} on {model.device}: {rules}")
    while question := next_question(at_terminal):
        user = prompts.row_turn(domain, {"question": question}) if domain else question
        try:
            stream_answer(model, tokenizer, user, settings.max_tokens, settings.temperature)
        except KeyboardInterrupt:
            if not at_terminal:
                raise
            print()


def main() -> int:
    parser = argparse.ArgumentParser(description="Talk to the model in a checkpoint folder.")
    parser.add_argument("model", nargs="?", type=Path, help="checkpoint folder (default: the merged model of the run)")
    parser.add_argument("--domain", help="append the instruction of this domain of the run")
    parser.add_argument("--run", default="smol", help="params file that names the domains")
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--temperature", type=float, default=0.6, help="0: always the likeliest token")
    arguments = parser.parse_args()

    def chat() -> None:
        cfg = config.load(arguments.run)
        if arguments.domain not in (None, *cfg.domains):
            raise UserError(f"--domain: {arguments.domain!r} is not a domain of {cfg.run} ({', '.join(cfg.domains)})")
        domain = cfg.params.domains[arguments.domain] if arguments.domain else None
        talk(*load_model(arguments.model or cfg.model(next(iter(cfg.merges), cfg.models[0]))), arguments, domain)

    return guarded(chat)


if __name__ == "__main__":
    sys.exit(main())
