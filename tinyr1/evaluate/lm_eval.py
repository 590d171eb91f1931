"""Results and responses in other tools' forms: lm-evaluation-harness files out, responses of any tool in.

    write(folder, graded, asked, protocols, gated)   <folder>/<model>/results.json and samples_<task>.jsonl
    load(path, asked, protocol_key)                  lines of the response store, to be graded like our own

Nothing is guessed: a response that cannot be tied to exactly one question, by its id or its whole text, is refused.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tinyr1.core import artifact, jsonl, record
from tinyr1.core.errors import UserError
from tinyr1.evaluate.compare import by_question
from tinyr1.sampling import responses

ID_COLUMNS = ("question_id", "task_id", "problem_id", "unique_id", "Record ID", "id", "ID", "question")
QUESTION_COLUMNS = ("question", "problem", "Problem", "question_content", "prompt")
TEXT_COLUMNS = ("text", "response", "completion", "output", "responses", "completions", "outputs", "output_list")
SHOWN = 5  # problems in one message
INVALID = "[invalid]"  # what lm-evaluation-harness writes where its filter finds no answer


# --- out ----------------------------------------------------------------------------------------------------


def write(folder: Path, graded: pd.DataFrame, asked: dict, protocols: dict, gated: set[str]) -> list[Path]:
    """Files for every model of the graded samples, in the layout of `lm_eval --log_samples --output_path folder`.

    graded: rows of `evaluate.grade_all`. asked, protocols: questions and protocol by benchmark. gated: benchmarks whose
    questions must not be published; they get scores and no samples file, since answers quote their questions.
    """
    paths = []
    for model, rows in graded.groupby("model", sort=False):
        target = folder / str(model)
        tasks = {str(task): part for task, part in rows.groupby("benchmark", sort=False)}
        for task in [t for t in tasks if t not in gated]:
            paths.append(target / f"samples_{task}.jsonl")
            jsonl.write(paths[-1], samples(tasks[task], asked[task], protocols[task]))
        paths.append(target / "results.json")
        content = results(str(model), tasks, asked, protocols)
        artifact.write_atomic(paths[-1], json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return paths


def metric_of(questions: list[dict]) -> str:
    """pass@1 for programs, exact_match for answers."""
    return "pass@1" if questions[0]["kind"] == "program" else "exact_match"


def results(model: str, tasks: dict[str, pd.DataFrame], asked: dict, protocols: dict) -> dict:
    """results.json: scores in [0, 1] with question-clustered standard errors (evaluation.md §6)."""
    scores, counts, repeats = {}, {}, {}
    for task, rows in tasks.items():
        questions = by_question(rows)
        x, repeats[task] = questions.share.to_numpy(), int(questions.samples.max())
        metric, n = metric_of(asked[task]), len(x)
        error = float(x.std(ddof=1) / np.sqrt(n)) if n > 1 else "N/A"
        scores[task] = {"alias": task, f"{metric},none": float(x.mean()), f"{metric}_stderr,none": error}
        counts[task] = {"original": len(asked[task]), "effective": n}
    return {
        "results": scores, "group_subtasks": {task: [] for task in tasks},
        "configs": {task: {"task": task, "output_type": "generate_until", "repeats": repeats[task],
                           "num_fewshot": 0, "metadata": protocols[task]} for task in tasks},
        "versions": dict.fromkeys(tasks, 1.0), "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": {task: {metric_of(asked[task]): True} for task in tasks}, "n-samples": counts,
        "config": {"model": "tinyr1", "model_args": {"name": model}}, "git_hash": record.code_version()["commit"],
        "date": time.time(), "model_name": model, "model_name_sanitized": model,
    }  # fmt: skip


def samples(rows: pd.DataFrame, questions: list[dict], protocol: dict) -> list[dict]:
    """One line for each question of a benchmark, all its samples in `resps`; fields beyond the harness's own: outcomes,
    n_tokens."""
    answers, metric = dict(tuple(rows.sort_values("sample").groupby("question"))), metric_of(questions)
    shares = by_question(rows).share.droplevel(["model", "benchmark"])
    lines = []
    for i, question in enumerate(questions):
        if (part := answers.get(question["id"])) is None:
            continue
        doc = {"id": question["id"], "question": question["question"], "family": question.get("family", "")}
        target = str(question.get("answer", ""))
        extracted = [INVALID if pd.isna(e) else str(e) for e in part.extracted]
        sampling = {k: protocol[k] for k in ("temperature", "top_p", "max_tokens") if k in protocol}
        lines.append({
            "doc_id": i, "doc": doc, "target": target,
            "arguments": {"gen_args_0": {"arg_0": question["user"], "arg_1": {"do_sample": True, **sampling}}},
            "resps": [list(part.text)], "filtered_resps": [extracted if len(extracted) > 1 else extracted[0]],
            "filter": "none", "metrics": [metric], metric: float(shares[question["id"]]),
            "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)), "prompt_hash": _hash(question["user"]),
            "target_hash": _hash(target), "outcomes": list(part.outcome),
            "n_tokens": [None if pd.isna(n) else int(n) for n in part.n_tokens],
        })  # fmt: skip
    return lines


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


# --- in -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Imported:
    """Lines of the response store, the form they came in ("tinyr1", "lm-eval" or "plain"), and what is incomplete."""

    lines: list[dict]
    form: str
    notes: list[str]


class _Refused(ValueError):
    """A row that cannot be imported."""


def load(path: Path, asked: list[dict], protocol_key: str | None = None) -> Imported:
    """Responses of a JSONL file for the questions `asked` of one benchmark. UserError lists every problem.

    Accepted: our own store; `samples_*.jsonl` of lm-evaluation-harness; rows with an id (or the whole question) and a
    text or a list of texts. Rows of other forms get the file's hash as model key.
    protocol_key: the protocol of own lines must be this one; None: any, but one.
    """
    rows = _rows(path)
    form = _form(rows[0][1])
    if form == "lm-eval":  # a task with several filters repeats each document with the same responses
        rows = [(number, row) for number, row in rows if row.get("filter") == rows[0][1].get("filter")]
    questions, problems, lines = _Questions(asked), [], []
    keys = {"model_key": artifact.file_hash(path), "protocol_key": protocol_key or "imported"}
    for number, row in rows:
        try:
            lines += [(number, keys | line) for line in _READERS[form](row, questions)]
        except _Refused as error:
            problems.append(f"line {number}: {error}")
    problems += _repeated(lines)
    made = [line for _, line in lines]
    if form == "tinyr1":
        problems += _mixed(made, protocol_key)
    if problems:
        more = f"\n… and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError(f"{path}: not imported:\n" + "\n".join(problems[:SHOWN]) + more)
    return Imported(made, form, _incomplete(made, asked))


def _rows(path: Path) -> list[tuple[int, dict]]:
    """(line number, row) of the file's lines."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a JSONL file of responses")
    lines = list(jsonl.scan(path))
    rows = [(line.number, line.value) for line in lines]
    problems = [
        f"line {line.number}: {line.error or f'{type(line.value).__name__}, expected an object'}"
        for line in lines
        if not isinstance(line.value, dict)
    ]
    if problems:
        raise UserError(f"{path}: {len(problems)} malformed lines:\n" + "\n".join(problems[:SHOWN]))
    if not rows:
        raise UserError(f"{path}: holds no line")
    return rows


def _form(row: dict) -> str:
    if {"model_key", "protocol_key"} <= row.keys():
        return "tinyr1"
    return "lm-eval" if {"doc_id", "doc", "resps"} <= row.keys() else "plain"


class _Questions:
    """Finds the question that a row is about."""

    def __init__(self, asked: list[dict]) -> None:
        self.by_id = {q["id"]: q for q in asked}
        texts = Counter(q["question"].strip() for q in asked)
        self.by_text = {q["question"].strip(): q for q in asked if texts[q["question"].strip()] == 1}
        self.counted: Counter[str] = Counter()  # rows without a sample number, by question id

    def of(self, row: dict, shown: object) -> dict:
        """The question of a row with an id or a whole question text; `shown`: everything that the file tells of it.

        The letter of an option question means nothing without the order of its options, so its text must be shown.
        """
        ids = {c: str(row[c]) for c in ID_COLUMNS if isinstance(row.get(c), (str, int))}
        texts = [row[c].strip() for c in QUESTION_COLUMNS if isinstance(row.get(c), str)]
        hits = [self.by_id[i] for i in ids.values() if i in self.by_id]
        hits += [self.by_text[t] for t in texts if t in self.by_text]
        if not hits:
            told = f"unknown question {next(iter(ids.values()))[:80]!r}" if ids else "no column with a question's id"
            raise _Refused(f"{told}; expected one of {', '.join(ID_COLUMNS)} with an id such as "
                           f"{next(iter(self.by_id))!r}, or the whole question")  # fmt: skip
        if len({q["id"] for q in hits}) > 1:
            raise _Refused(f"its columns name different questions: {', '.join(sorted({q['id'] for q in hits}))}")
        if hits[0]["kind"] == "option" and not any(hits[0]["question"].strip() in text for text in _texts(shown)):
            raise _Refused(f"{hits[0]['id']}: the row does not show the question with its options in the order used "
                           "here, so a letter cannot be graded")  # fmt: skip
        return hits[0]


def _texts(value: object) -> Iterator[str]:
    """Every string inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _own(row: dict, questions: _Questions) -> list[dict]:
    if why := responses.RESPONSE.problem(row):
        raise _Refused(why)
    if row["question"] not in questions.by_id:
        raise _Refused(f"unknown question {row['question'][:80]!r}")
    return [row]


def _harness(row: dict, questions: _Questions) -> list[dict]:
    """A line of samples_*.jsonl: one document with all its responses."""
    if not isinstance(row.get("doc"), dict) or not isinstance(row.get("resps"), list):
        raise _Refused("doc is no object or resps is no list")
    question = questions.of(row["doc"], [row["doc"], row.get("arguments")])
    found = [text for group in row["resps"] for text in (group if isinstance(group, list) else [group])]
    return _lines(question, found, 0, row)


def _plain(row: dict, questions: _Questions) -> list[dict]:
    """A row with one text or a list of them; without a sample number they are counted as they come."""
    columns = [c for c in TEXT_COLUMNS if c in row]
    if len(columns) != 1:
        told = f"several columns of text ({', '.join(columns)})" if columns else "no column of text"
        raise _Refused(f"{told} among {', '.join(row)}; expected one of {', '.join(TEXT_COLUMNS)}")
    question = questions.of(row, {k: v for k, v in row.items() if k not in columns})
    found = row[columns[0]] if isinstance(row[columns[0]], list) else [row[columns[0]]]
    start = row.get("sample")
    if start is None:
        start = questions.counted[question["id"]]
        questions.counted[question["id"]] += len(found)
    elif type(start) is not int or start < 0 or len(found) > 1:
        raise _Refused(f"sample {start!r} is not a number from 0 on, of one text")
    return _lines(question, found, start, row)


def _lines(question: dict, found: list, start: int, row: dict) -> list[dict]:
    """Store lines of the texts of one question; tokens and the reason of the end where a row of one text has them."""
    if not found or not all(isinstance(text, str) for text in found):
        raise _Refused(f"{question['id']}: a response is no text")
    finish, n_tokens = row.get("finish", row.get("finish_reason")), row.get("n_tokens")
    facts = {
        "finish": finish if isinstance(finish, str) else "unknown",
        "n_tokens": n_tokens if type(n_tokens) is int and len(found) == 1 else None,
    }
    return [{"question": question["id"], "sample": start + i, "text": text, **facts} for i, text in enumerate(found)]


_READERS = {"tinyr1": _own, "lm-eval": _harness, "plain": _plain}


def _repeated(lines: list[tuple[int, dict]]) -> list[str]:
    first: dict[tuple, int] = {}
    return [
        f"line {number}: sample {line['sample']} of {line['question']} is on line {first[key]} already"
        for number, line in lines
        if first.setdefault(key := (line["question"], line["sample"], line["model_key"], line["protocol_key"]), number)
        != number
    ]


def _mixed(lines: list[dict], protocol_key: str | None) -> list[str]:
    """Why the lines of a response store are not those of one model under one protocol."""
    models, protocols = {line["model_key"] for line in lines}, {line["protocol_key"] for line in lines}
    problems = [
        f"responses of {len(keys)} {what}s ({', '.join(sorted(k[:12] for k in keys))}); import one at a time"
        for what, keys in (("model", models), ("protocol", protocols))
        if len(keys) > 1
    ]
    if protocol_key and protocols - {protocol_key}:
        problems.append(
            f"drawn under protocol {', '.join(sorted(k[:12] for k in protocols - {protocol_key}))}, this is "
            f"{protocol_key[:12]}; name the protocol they were drawn under"
        )
    return problems


def _incomplete(lines: list[dict], asked: list[dict]) -> list[str]:
    """What the file lacks: questions without a response, and questions with fewer samples than the others."""
    counts = Counter(line["question"] for line in lines)
    most = max(counts.values())
    none, fewer = [q["id"] for q in asked if not counts[q["id"]]], [q for q, n in counts.items() if n < most]
    return [
        f"{len(ids)} of {len(asked)} questions {what}: {', '.join(ids[:SHOWN])}{', …' if len(ids) > SHOWN else ''}"
        for ids, what in ((none, "have no response"), (fewer, f"have fewer than {most} responses"))
        if ids
    ]
