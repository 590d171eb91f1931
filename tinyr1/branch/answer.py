"""Answers a few questions with several checkpoints, one after another: the process behind `examples.before_and_after`.

    python -m tinyr1.branch.answer plan.jsonl answers.jsonl

Each line of the plan has domain, role, model (a checkpoint folder), user (the user's turn) and max_tokens; each line of
the answers has domain, role and text. One checkpoint is in memory at a time. Evaluation does not work like this: it
draws thousands of answers with vLLM (tinyr1.sampling). Here the likeliest token is taken each time.
"""

import argparse
import os
from itertools import groupby
from pathlib import Path
from typing import Any

from tinyr1.core import jsonl, launch, machine, prompts
from tinyr1.core.tokenizers import load_tokenizer

with launch.lasting_imports():
    import torch
    from transformers import AutoModelForCausalLM


@torch.inference_mode()
def likeliest(model: Any, tokenizer: Any, user: str, max_tokens: int) -> str:
    """The greedy answer to one user's turn as text, reasoning included; " […]" where max_tokens cut it off."""
    ids = torch.tensor([prompts.encode_prompt(tokenizer, user)], device=model.device)
    made = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False,
        temperature=None, top_p=None, top_k=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )[0, ids.shape[1] :]  # fmt: skip
    text = tokenizer.decode(made, skip_special_tokens=True)
    return text if tokenizer.eos_token_id in made else f"{text} […]"


def answer(requests: list[dict], out: Path) -> None:
    """Append the answer to each request to `out`; those to one model must follow each other."""
    cuda = torch.cuda.is_available()
    with out.open("ab") as file:
        for folder, group in groupby(requests, key=lambda request: request["model"]):
            tokenizer = load_tokenizer(Path(folder))
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=machine.inference_dtype(cuda), device_map="auto" if cuda else None
            )
            for request in group:
                text = likeliest(model.eval(), tokenizer, request["user"], request["max_tokens"])
                file.write(jsonl.encode({"domain": request["domain"], "role": request["role"], "text": text}))
                file.flush()
            del model  # before the next one is loaded


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("plan", type=Path, help="JSON lines of requests, written by tinyr1.branch.examples")
    parser.add_argument("out", type=Path, help="JSON lines of answers")
    arguments = parser.parse_args()
    launch.die_with_parent()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    answer(jsonl.read(arguments.plan), arguments.out)


if __name__ == "__main__":
    main()
