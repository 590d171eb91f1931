"""What notebook 02 shows of its trainings: packed sequences, the loss mask, and answers before and after a branch.

    Job --packed_samples, loss_tokens--> tables, which tinyr1.report.plots_branch draws
    questions --before_and_after--> plan --tinyr1.branch.answer, a process of its own--> answers --> table
"""

import sys
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tinyr1.branch import plan, sequences
from tinyr1.core import artifact, jsonl, launch, prompts
from tinyr1.core.config import Config
from tinyr1.data import benchmarks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SEQUENCES = 6  # that a picture of packing shows
# Tokens of a row that the picture of its loss shows: before the loss begins, after that, and at the end of the row.
BEFORE, AFTER, ENDING = 60, 60, 3
MOST_TOKENS = 256  # of an answer in the table; a notebook is no place for a reasoning of 30,000 tokens


def packed_samples(cfg: Config, job: plan.Job) -> pd.DataFrame:
    """The samples of a job's first packed sequences, where its training puts them.

    A line for each sample: sequence (from 1), first (its first token in the sequence, from 0), prompt and tokens (how
    many it has), domain.
    """
    parts = job.tokens()
    lengths = np.concatenate([part.lengths for part in parts])
    prompt = np.concatenate([part.prompts for part in parts])
    domains = [folder.name for (folder, _), part in zip(job.rows, parts, strict=True) for _ in range(len(part))]
    capacity = cfg.params.trainer.sequence_length
    layout = sequences.layout(lengths.tolist(), capacity, cfg.params.seed, job.sft.packing)
    rows = []
    for number, group in enumerate(layout[:SEQUENCES], 1):
        ends = accumulate(int(lengths[i]) for i in group)
        rows += [
            (number, end - int(lengths[i]), int(prompt[i]), int(lengths[i]), domains[i])
            for i, end in zip(group, ends, strict=True)
        ]
    return pd.DataFrame(rows, columns=["sequence", "first", "prompt", "tokens", "domain"])


def loss_tokens(tokenizer: "PreTrainedTokenizerBase", job: plan.Job) -> pd.DataFrame:
    """The tokens of a job's first row around the place where its loss begins, and its last ones: text, loss (bool)."""
    sample = job.tokens()[0].row(0)
    first, last, end = sample.n_prompt - BEFORE, sample.n_prompt + AFTER, len(sample.ids)
    rows = [("…", False)] if first > 0 else []
    for i in range(max(0, first), end):
        if i < last or i >= end - ENDING:
            text = str(tokenizer.decode([sample.ids[i]]))
            rows.append((text.replace("\n", "↵").replace("\t", "→"), i >= sample.n_prompt))
        elif i == last:
            rows.append(("…", True))
    return pd.DataFrame(rows, columns=["text", "loss"])


def asked_before_and_after(cfg: Config) -> dict[str, dict]:
    """One question of each domain's benchmarks that may be published, by domain.

    The miniature's are validation questions, which no score counts. Published benchmarks have one set only. A domain
    whose questions must stay private has none here.
    """
    asked: dict[str, dict] = {}
    for domain, block in cfg.params.domains.items():
        for name, benchmark in block.benchmarks.items():
            loaded = benchmarks.load_benchmark(name, domain, benchmark, "validation", cfg.params.seed)
            open_to_all = [question for question in loaded.questions if not question["private"]]
            if open_to_all and domain not in asked:
                asked[domain] = open_to_all[0] | {"max_tokens": min(benchmark.max_tokens, MOST_TOKENS)}
    return asked


def before_and_after(cfg: Config) -> pd.DataFrame:
    """The answers of the backbone and of a domain's expert to the same question, each the likeliest token by token.

    A line for each domain of `asked_before_and_after`: question, backbone, expert, and right answer. Answers that the
    same checkpoints gave before are kept. UserError when the process that asks fails.
    """
    remedy = cfg.remedy("02_branch_sft")
    asked = asked_before_and_after(cfg)
    requests = [
        {"domain": domain, "role": role, "model": str(cfg.model("backbone" if role == "backbone" else domain)),
         "user": prompts.row_turn(cfg.params.domains[domain], question), "max_tokens": question["max_tokens"]}
        for role in ("backbone", "expert") for domain, question in asked.items()
    ]  # fmt: skip
    models = {request["model"]: artifact.check(Path(request["model"]), remedy)["content"] for request in requests}
    inputs = {"requests": [request | {"model": models[request["model"]]} for request in requests]}

    def build(path: Path) -> dict:
        plan_file = path.with_suffix(".plan")
        path.unlink(missing_ok=True)  # of a process that was killed
        jsonl.write(plan_file, requests)
        command = [sys.executable, "-m", "tinyr1.branch.answer", str(plan_file), str(path)]
        log = cfg.home / "logs" / "answers.log"
        launch.follow(command, {}, log, "answers", lambda: _progress(path, len(requests)), "answer")
        plan_file.unlink()
        return {}

    path = cfg.home / "branches" / "answers.jsonl"
    artifact.make(path, inputs, build, remedy)
    given = {(row["domain"], row["role"]): row["text"] for row in jsonl.read(path)}
    rows = [
        {"domain": domain, "question": question["question"], "backbone": given[domain, "backbone"],
         "expert": given[domain, "expert"],
         "right answer": question.get("answer", "a program that passes its tests")}
        for domain, question in asked.items()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["domain", "question", "backbone", "expert", "right answer"]).set_index("domain")


def _progress(path: Path, of: int) -> tuple[int, int, str] | None:
    """(answers, all, text for the bar) from a file of answers; None before the first one."""
    done = len(jsonl.read(path))
    return (done, of, "") if done else None
