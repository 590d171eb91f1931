"""Answers of other tools -> the response store, so that they are graded like our own (`--responses`).

    file --read_answers: rows of three forms--> Answers(lines, form, notes) --adopt_answers--> responses/<model>/….jsonl

Nothing is guessed: a response that cannot be tied to exactly one question, by its id or its whole text, is refused.
"""

import codecs
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tinyr1.core import artifact, jsonl
from tinyr1.core.config import Config
from tinyr1.core.errors import UserError
from tinyr1.core.prompts import THINK_CLOSE, THINK_OPEN
from tinyr1.evaluate import protocol as protocols
from tinyr1.evaluate import stage
from tinyr1.sampling import responses

ID_COLUMNS = ("question_id", "task_id", "problem_id", "unique_id", "Record ID", "id", "ID", "question")
QUESTION_COLUMNS = ("question", "problem", "Problem", "question_content", "prompt")
TEXT_COLUMNS = ("text", "response", "completion", "output", "responses", "completions", "outputs", "output_list")
SHOWN_PROBLEMS = 5  # in one message


def adopt_answers(cfg: Config, path: Path, asked: dict[str, list[dict]]) -> None:
    """Store the answers of a file as if the run's one model had given them under this protocol; print the missing ones.

    UserError unless one benchmark is asked, or when the file cannot be read (see `read_answers`).
    """
    if len(asked) != 1:
        raise UserError("--responses: holds the answers of one benchmark; name one in --benchmarks")
    ((name, questions),) = asked.items()
    (model,) = cfg.models
    rules = protocols.of(cfg.params, name)
    known = [_with_order(rules, q) if "options" in q and not q.get("fixed") else q for q in questions]
    keys = {"model_key": stage.model_key(cfg, model), "protocol_key": stage.protocol_key(cfg, name, questions)}
    answers = read_answers(path, known, keys["protocol_key"])
    lines = [line | keys for line in answers.lines]
    if answers.form != "tinyr1":  # another tool's prompt showed the order of sample 0, whatever the sample
        order = {q["id"]: protocols.order(rules, q, 0) for q in questions}
        opened = _prompts_opened([line["text"] for line in lines])
        lines = [line | {"order": order[line["question"]], "opened": opened} for line in lines]
    jsonl.write(cfg.responses(model, name), lines)
    print(f"{path}: {len(lines)} answers ({answers.form})")
    if beyond := sum(line["sample"] >= rules.samples for line in lines):
        print(f"  {beyond} are samples beyond the {rules.samples} of each question that are graded; raise --samples")
    for note in answers.notes:
        print(f"  {note}")


def _with_order(rules: protocols.Protocol, question: dict) -> dict:
    """A question whose text is that of its prompt, with the options in the order of sample 0."""
    return question | {"question": protocols.shown_text(rules, question)}


def _prompts_opened(texts: list[str]) -> bool:
    """Whether the prompts behind texts of another tool ended in an open think tag: some text closes reasoning that it
    did not open. A text of the same file without any tag was then cut off inside its reasoning."""
    return any(THINK_CLOSE in text and THINK_OPEN not in text.partition(THINK_CLOSE)[0] for text in texts)


@dataclass(frozen=True)
class Answers:
    """What a file holds, as lines of the response store."""

    lines: list[dict]
    form: str  # in which they came: tinyr1, lm-eval or plain
    notes: list[str]  # one sentence for each kind of answer that is missing


class _Refused(ValueError):
    """The reason why a row cannot be adopted."""


def read_answers(path: Path, asked: list[dict], protocol_key: str | None = None) -> Answers:
    """Responses of a JSONL file or JSON list for the questions `asked` of one benchmark. UserError lists every problem.

    Three forms are read: our own store; `samples_*.jsonl` of lm-evaluation-harness; rows with an id (or the whole
    question) and a text or a list of texts. Lines that are not our own get the file's hash as their model key.
    protocol_key: the protocol that our own lines must have; None: any, but all the same.
    """
    rows = _numbered_rows(path)
    form = _form(rows[0][1])
    if form == "lm-eval":  # a task with several filters repeats each document with the same responses
        rows = [(number, row) for number, row in rows if row.get("filter") == rows[0][1].get("filter")]
    questions = _Questions(asked)
    problems: list[str] = []
    numbered: list[tuple[int, dict]] = []
    keys = {"model_key": artifact.file_hash(path), "protocol_key": protocol_key or "imported"}
    for number, row in rows:
        try:
            numbered += [(number, keys | line) for line in _READERS[form](row, questions)]
        except _Refused as error:
            problems.append(f"line {number}: {error}")
    problems += _repeated(numbered)
    lines = [line for _, line in numbered]
    if form == "tinyr1":
        problems += _mixed(lines, protocol_key)
    if problems:
        more = f"\n… and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        raise UserError(f"{path}: not imported:\n" + "\n".join(problems[:SHOWN_PROBLEMS]) + more)
    return Answers(lines, form, _incomplete(lines, asked))


def _numbered_rows(path: Path) -> list[tuple[int, dict]]:
    """(number of the line or of the entry, row) of a JSONL file, or of a JSON list such as LiveCodeBench writes."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a JSONL file of responses")
    with path.open("rb") as file:
        is_list = file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")
    if is_list and (entries := _entries(path)) is not None:
        return entries
    rows, problems = [], []
    for line in jsonl.scan(path):
        if isinstance(line.value, dict):
            rows.append((line.number, line.value))
        else:
            why = line.error or f"{type(line.value).__name__}, expected an object"
            problems.append(f"line {line.number}: {why}")
    if problems:
        raise UserError(f"{path}: {len(problems)} malformed lines:\n" + "\n".join(problems[:SHOWN_PROBLEMS]))
    if not rows:
        raise UserError(f"{path}: holds no line")
    return rows


def _entries(path: Path) -> list[tuple[int, dict]] | None:
    """(number, row) of a file that is one JSON list of objects; None where it is something else."""
    try:
        rows = json.loads(path.read_bytes())
    except ValueError:
        return None
    whole = isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)
    return list(enumerate(rows, 1)) if whole else None


def _form(row: dict) -> str:
    """The form of a file, by its first row."""
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

    def asked_in(self, row: dict, shown: object) -> dict:
        """The question of a row that has its id or its whole text. _Refused when there is not exactly one.

        shown: everything that the file says of the question. The letter of an option means nothing without the order
        of the options, so the file must show the question of an answer that is a letter, unless the options have the
        order of the question's own file.
        """
        ids = {c: str(row[c]) for c in ID_COLUMNS if isinstance(row.get(c), (str, int))}
        texts = [row[c].strip() for c in QUESTION_COLUMNS if isinstance(row.get(c), str)]
        hits = [self.by_id[i] for i in ids.values() if i in self.by_id]
        hits += [self.by_text[t] for t in texts if t in self.by_text]
        if not hits:
            why = f"unknown question {next(iter(ids.values()))[:80]!r}" if ids else "no column with a question's id"
            raise _Refused(f"{why}; expected one of {', '.join(ID_COLUMNS)} with an id such as "
                           f"{next(iter(self.by_id))!r}, or the whole question")  # fmt: skip
        if len({q["id"] for q in hits}) > 1:
            raise _Refused(f"its columns name different questions: {', '.join(sorted({q['id'] for q in hits}))}")
        needs_order = hits[0]["kind"] == "option" and not hits[0].get("fixed")
        if needs_order and not any(hits[0]["question"].strip() in text for text in _texts(shown)):
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


def _own_row(row: dict, questions: _Questions) -> list[dict]:
    """A line of our own store."""
    if why := responses.RESPONSE.problem(row):
        raise _Refused(why)
    if row["question"] not in questions.by_id:
        raise _Refused(f"unknown question {row['question'][:80]!r}")
    return [row]


def _harness_row(row: dict, questions: _Questions) -> list[dict]:
    """A line of samples_*.jsonl: one document with all its responses."""
    if not isinstance(row.get("doc"), dict) or not isinstance(row.get("resps"), list):
        raise _Refused("doc is no object or resps is no list")
    question = questions.asked_in(row["doc"], [row["doc"], row.get("arguments")])
    texts = [text for group in row["resps"] for text in (group if isinstance(group, list) else [group])]
    return _lines(question, texts, 0, row)


def _plain_row(row: dict, questions: _Questions) -> list[dict]:
    """A row with one text or a list of them. Without a number of the sample, they are numbered in the file's order."""
    columns = [c for c in TEXT_COLUMNS if c in row]
    if len(columns) != 1:
        why = f"several columns of text ({', '.join(columns)})" if columns else "no column of text"
        raise _Refused(f"{why} among {', '.join(row)}; expected one of {', '.join(TEXT_COLUMNS)}")
    question = questions.asked_in(row, {k: v for k, v in row.items() if k not in columns})
    texts = row[columns[0]] if isinstance(row[columns[0]], list) else [row[columns[0]]]
    start = row.get("sample")
    if start is None:
        start = questions.counted[question["id"]]
        questions.counted[question["id"]] += len(texts)
    elif type(start) is not int or start < 0 or len(texts) > 1:
        raise _Refused(f"sample {start!r} is not a number from 0 on, of one text")
    return _lines(question, texts, start, row)


def _lines(question: dict, texts: list, start: int, row: dict) -> list[dict]:
    """Lines of the store for the texts of one question. The number of tokens counts only where the row has one text."""
    if not texts or not all(isinstance(text, str) for text in texts):
        raise _Refused(f"{question['id']}: a response is no text")
    said, n_tokens = row.get("finish", row.get("finish_reason")), row.get("n_tokens")
    finishes = said if isinstance(said, list) else [said] * len(texts)
    if len(finishes) != len(texts):
        raise _Refused(f"{question['id']}: {len(texts)} responses and {len(finishes)} finish reasons")
    counted = n_tokens if type(n_tokens) is int and len(texts) == 1 else None
    return [
        {"question": question["id"], "sample": start + i, "text": text, "finish": responses.finish_of(finish),
         "n_tokens": counted}
        for i, (text, finish) in enumerate(zip(texts, finishes, strict=True))
    ]  # fmt: skip


_READERS = {"tinyr1": _own_row, "lm-eval": _harness_row, "plain": _plain_row}


def _repeated(lines: list[tuple[int, dict]]) -> list[str]:
    """Lines of a sample that an earlier line has already."""
    first: dict[tuple, int] = {}
    return [
        f"line {number}: sample {line['sample']} of {line['question']} is on line {first[key]} already"
        for number, line in lines
        if first.setdefault(key := (line["question"], line["sample"], line["model_key"], line["protocol_key"]), number)
        != number
    ]


def _mixed(lines: list[dict], protocol_key: str | None) -> list[str]:
    """Why the lines of a response store are not those of one model under one protocol."""
    keys = {what: {line[f"{what}_key"] for line in lines} for what in ("model", "protocol")}
    problems = [
        f"responses of {len(several)} {what}s ({_shortened_keys(several)}); import one at a time"
        for what, several in keys.items()
        if len(several) > 1
    ]
    if protocol_key and (others := keys["protocol"] - {protocol_key}):
        problems.append(
            f"drawn under protocol {_shortened_keys(others)}, this is {protocol_key[:12]}; name the protocol they were "
            "drawn under"
        )
    return problems


def _shortened_keys(keys: set[str]) -> str:
    return ", ".join(sorted(key[:12] for key in keys))


def _incomplete(lines: list[dict], asked: list[dict]) -> list[str]:
    """One sentence for questions without a response, and one for questions with fewer samples than the others."""
    counts = Counter(line["question"] for line in lines)
    most = max(counts.values())
    none, fewer = [q["id"] for q in asked if not counts[q["id"]]], [q for q, n in counts.items() if n < most]
    notes = []
    for ids, what in ((none, "have no response"), (fewer, f"have fewer than {most} responses")):
        more = ", …" if len(ids) > SHOWN_PROBLEMS else ""
        if ids:
            notes.append(f"{len(ids)} of {len(asked)} questions {what}: {', '.join(ids[:SHOWN_PROBLEMS])}{more}")
    return notes
