"""Benchmark questions as one shape: AIME, GPQA-Diamond, LiveCodeBench and the miniature's three.

A question is a dict: id, domain, kind ("integer", "option" or "program"), question, user (the whole user turn),
and answer, or starter_code, func_name and tests.
"""

import base64
import csv
import io
import json
import pickle
import zlib
from pathlib import Path
from random import Random

from tinyr1 import chat
from tinyr1.config import ROOT, Benchmark, ConfigError

Question = dict
DOMAIN = {"aime": "math", "gpqa": "science", "livecodebench": "code"}
KIND = {"math": "integer", "science": "option", "code": "program"}
DECODED_LIMIT = 512 << 20  # bytes; the largest LiveCodeBench problem unpacks to far less


def domain_of(name: str, benchmark: Benchmark) -> str:
    """math, science or code; a miniature benchmark says it in its name: mini-math."""
    if benchmark.kind != "miniature":
        return DOMAIN[benchmark.kind]
    domain = name.rpartition("-")[2]
    if domain not in KIND:
        raise ConfigError(f"evaluate.benchmarks.{name}: call it mini-math, mini-science or mini-code")
    return domain


def load(name: str, benchmark: Benchmark, split: str, levels: dict[str, list[int]], seed: int) -> list[Question]:
    """The questions of a benchmark, in a fixed order. ConfigError when a file or a column is missing."""
    domain = domain_of(name, benchmark)
    if benchmark.kind == "miniature":
        rows = _miniature(domain, split, levels[domain], seed, benchmark.questions)
    else:
        rows = _read(ROOT / benchmark.path, name)
    build = {"math": _integer, "science": _option, "code": _program}[domain]
    try:
        questions = [build(row, seed) for row in rows if _in_window(row, benchmark.window)]
    except KeyError as error:
        raise ConfigError(f"evaluate.benchmarks.{name}: {benchmark.path} has no column {error}") from error
    questions = questions[: benchmark.questions]
    ids = [q["id"] for q in questions]
    if twice := {i for i in ids if ids.count(i) > 1}:
        raise ConfigError(f"evaluate.benchmarks.{name}: question ids occur twice: {', '.join(sorted(twice)[:5])}")
    if not questions:
        raise ConfigError(f"evaluate.benchmarks.{name}: {benchmark.path} holds no question (in the date window)")
    return [q | {"domain": domain, "kind": KIND[domain], "user": _user(domain, q)} for q in questions]


def _user(domain: str, question: Question) -> str:
    return chat.user_turn(domain, question["question"], question.get("starter_code", ""))


def _miniature(domain: str, split: str, levels: list[int], seed: int, n: int) -> list[dict]:
    from tinyr1.miniature import raw  # the real runs need none of it

    return [raw.question_row(task, i) for i, task in enumerate(raw.take(domain, split, levels, seed, n))]


def _read(path: Path, name: str) -> list[dict]:
    """Rows of a JSONL or CSV file, or of all of them in a folder."""
    files = sorted(p for p in path.glob("*") if p.suffix in (".jsonl", ".csv")) if path.is_dir() else [path]
    if not files or not all(p.is_file() for p in files):
        raise ConfigError(f"evaluate.benchmarks.{name}.path: {path} does not exist or holds no .jsonl or .csv file")
    rows: list[dict] = []
    for file in files:
        text = file.read_text(encoding="utf-8")
        lines = filter(str.strip, text.split("\n"))  # not splitlines: JSON may hold other line separators
        rows.extend(csv.DictReader(io.StringIO(text)) if file.suffix == ".csv" else map(json.loads, lines))
    return rows


def _in_window(row: dict, window: tuple[str, str] | None) -> bool:
    """Contest dates from first to last day, both inclusive, compared as days (ledger §4.4)."""
    return window is None or window[0] <= row["contest_date"][:10] <= window[1]


def _integer(row: dict, seed: int) -> Question:
    name = row.get("id", row.get("source"))
    return {"id": str(name), "question": row["question"], "answer": str(int(row["answer"])),
            "family": row.get("family", "")}  # fmt: skip


def _option(row: dict, seed: int) -> Question:
    """GPQA rows get their options in a seeded order that is the same for all models."""
    if "Correct Answer" not in row:
        return {"id": str(row["id"]), "question": row["question"], "answer": row["answer"],
                "family": row.get("family", "")}  # fmt: skip
    options = [row["Correct Answer"], *(row[f"Incorrect Answer {i}"] for i in (1, 2, 3))]
    order = Random(f"{seed}/{row['Record ID']}").sample(range(4), 4)
    lines = [f"{letter}) {options[i].strip()}" for letter, i in zip("ABCD", order, strict=True)]
    return {"id": row["Record ID"], "question": "\n".join([row["Question"].strip(), *lines]),
            "answer": "ABCD"[order.index(0)], "family": row["High-level domain"]}  # fmt: skip


def _program(row: dict, seed: int) -> Question:
    metadata = json.loads(row.get("metadata") or "{}")
    tests = _tests(row["public_test_cases"]) + _tests(row["private_test_cases"])
    return {"id": row["question_id"], "question": row["question_content"], "family": row["difficulty"],
            "starter_code": row["starter_code"], "func_name": metadata.get("func_name", ""),
            "tests": tests}  # fmt: skip


class _TextOnly(pickle.Unpickler):
    """Refuses everything but plain data: a pickled dataset field is otherwise a program to run."""

    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(f"test cases may not refer to {module}.{name}")


def _tests(field: str | list) -> list[dict]:
    """Test cases of LiveCodeBench: JSON, or base64 of zlib of a pickled JSON string (evaluation.md §1.1)."""
    if isinstance(field, list):
        return field
    if field.lstrip().startswith("["):
        return json.loads(field)
    unpacked = zlib.decompressobj()
    data = unpacked.decompress(base64.b64decode(field), DECODED_LIMIT)
    if unpacked.unconsumed_tail:
        raise ValueError(f"test cases unpack to more than {DECODED_LIMIT} bytes")
    text = _TextOnly(io.BytesIO(data)).load()
    if type(text) is not str:
        raise ValueError(f"test cases unpack to {type(text).__name__}, expected the text of a JSON list")
    return json.loads(text)
