"""Graded samples -> the files that lm-evaluation-harness writes with `--log_samples --output_path folder`.

    export(cfg, folder, graded, asked, described) --> <folder>/<model>/results.json and samples_<task>.jsonl
"""

import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd

from tinyr1.core import artifact, jsonl, record
from tinyr1.core.config import Config
from tinyr1.evaluate import protocol as protocols
from tinyr1.evaluate.scores import by_question

INVALID = "[invalid]"  # what lm-evaluation-harness writes where its filter finds no answer


def export(
    cfg: Config, folder: Path, graded: pd.DataFrame, asked: dict[str, list[dict]], described: list[dict]
) -> None:
    """Write the files of every model. asked, described: questions by benchmark, and the protocols in the same order."""
    rules = {name: protocols.of(cfg.params, name) for name in asked}
    texts = {name: [q | {"user": protocols.shown_text(rules[name], q)} for q in qs] for name, qs in asked.items()}
    write_files(folder, graded, texts, {d["benchmark"]: d for d in described})


def write_files(folder: Path, graded: pd.DataFrame, asked: dict, described: dict) -> list[Path]:
    """Write the files of every model in the graded samples; their paths.

    asked: questions by benchmark, each with `user`, the text that showed it to the model. described: protocols by
    benchmark. A benchmark whose questions are private gets scores and no samples file, since answers quote questions.
    """
    paths = []
    for model in graded["model"].unique():
        target, rows = folder / model, graded[graded["model"] == model]
        tasks = {task: rows[rows["benchmark"] == task] for task in rows["benchmark"].unique()}
        for task in [task for task in tasks if not asked[task][0]["private"]]:
            paths.append(target / f"samples_{task}.jsonl")
            jsonl.write(paths[-1], sample_lines(tasks[task], asked[task], described[task]))
        paths.append(target / "results.json")
        content = results_content(model, tasks, asked, described)
        artifact.write_atomic(paths[-1], json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return paths


def _metric(questions: list[dict]) -> str:
    return "pass@1" if questions[0]["kind"] == "program" else "exact_match"


def results_content(model: str, tasks: dict[str, pd.DataFrame], asked: dict, described: dict) -> dict:
    """results.json: scores in [0, 1] with question-clustered standard errors (docs/evaluation.md §6.5)."""
    scores, counts, repeats = {}, {}, {}
    for task, rows in tasks.items():
        questions = by_question(rows)
        shares, repeats[task] = questions["share"].to_numpy(), int(questions["samples"].max())
        metric, n = _metric(asked[task]), len(shares)
        error = float(shares.std(ddof=1) / np.sqrt(n)) if n > 1 else "N/A"
        scores[task] = {"alias": task, f"{metric},none": float(shares.mean()), f"{metric}_stderr,none": error}
        counts[task] = {"original": len(asked[task]), "effective": n}
    return {
        "results": scores, "group_subtasks": {task: [] for task in tasks},
        "configs": {task: {"task": task, "output_type": "generate_until", "repeats": repeats[task],
                           "num_fewshot": 0, "metadata": described[task]} for task in tasks},
        "versions": dict.fromkeys(tasks, 1.0), "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": {task: {_metric(asked[task]): True} for task in tasks}, "n-samples": counts,
        "config": {"model": "tinyr1", "model_args": {"name": model}}, "git_hash": record.code_version()["commit"],
        "date": time.time(), "model_name": model, "model_name_sanitized": model,
    }  # fmt: skip


def sample_lines(rows: pd.DataFrame, questions: list[dict], described: dict) -> list[dict]:
    """One line for each question of a benchmark, all its samples in `resps`; the fields outcomes and n_tokens are not
    the harness's own."""
    ordered, metric = rows.sort_values("sample"), _metric(questions)
    shares = by_question(rows)["share"].droplevel(["model", "benchmark"])
    sampling = {k: described[k] for k in ("temperature", "top_p", "max_tokens") if k in described}
    lines = []
    for i, question in enumerate(questions):
        part = ordered[ordered["question"] == question["id"]]
        if part.empty:
            continue
        doc = {"id": question["id"], "question": question["question"], "family": question.get("family", "")}
        doc |= {"options": question["options"]} if "options" in question else {}
        target = str(question.get("answer", ""))
        extracted = [INVALID if pd.isna(e) else str(e) for e in part["extracted"]]
        lines.append({
            "doc_id": i, "doc": doc, "target": target,
            "arguments": {"gen_args_0": {"arg_0": question["user"], "arg_1": {"do_sample": True, **sampling}}},
            "resps": [list(part["text"])], "filtered_resps": [extracted if len(extracted) > 1 else extracted[0]],
            "filter": "none", "metrics": [metric], metric: float(shares[question["id"]]),
            "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)), "prompt_hash": _hash(question["user"]),
            "target_hash": _hash(target), "outcomes": list(part["outcome"]),
            "n_tokens": [None if pd.isna(n) else int(n) for n in part["n_tokens"]],
        })  # fmt: skip
    return lines


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
