"""Benchmark questions as one shape: AIME, GPQA-Diamond, LiveCodeBench and the miniature's three.

A question is a dict: id, benchmark (its name), domain, kind ("integer", "option" or "program"), question, family,
private (True: its text must not reach a report), and

    integer   answer: decimal digits without leading zeros
    option    answer: a letter, the options being part of the question (miniature); or, with options (four texts),
              the id of the right one, its index as text: "0"
    program   starter_code, func_name ("": standard input and output), tests, erratum ("" or what is wrong with it)

What a model is asked is made from it by `tinyr1.evaluate.protocol`.
"""

import base64
import binascii
import io
import json
import pickle
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tinyr1.core.config import Config
from tinyr1.core.errors import UserError
from tinyr1.core.params import RELEASES, Benchmark, LiveCodeBenchmark, MiniatureBenchmark
from tinyr1.data import files
from tinyr1.data.answers import integer
from tinyr1.data.files import column

Question = dict
DECODED_LIMIT = 512 << 20  # bytes; the largest LiveCodeBench problem unpacks to far less
AIME_IDS = ("id", "source", "problem_idx")  # math-ai's and yentinglin's, the released script's, MathArena's
PRIVATE = ("gpqa",)  # its authors ask that no question appears in plain text

# LiveCodeBench's ERRATA.md: AtCoder problems by id, LeetCode's by the words of their title (docs/evaluation.md §1.1)
ERRATA = {
    "several right answers": (
        "abc311_c", "abc326_d", "abc327_b", "abc333_e", "abc343_e", "abc362_c", "arc185_c", "abc343_a",
        "find-words-containing-character", "find-the-peaks", "generate-binary-strings-without-adjacent-zeros",
    ),
    "interactive": ("abc337_e", "abc355_e"),
    "wrong tests": (
        "abc350_c", "arc189_a", "apply-operations-to-make-string-empty", "most-frequent-ids",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Where the questions came from; goes into the record, beside the scores."""

    benchmark: str
    path: str | None  # null: made by tinyr1.data.miniature
    revision: str | None
    release: str | None
    window: tuple[str, str] | None
    sha256: str | None
    rows: int  # in the files
    questions: int  # in the window, at most as many as params ask for
    errata: int  # of these, with a known fault
    late_on_last_day: int  # contests later than 00:00 of the window's last day: in here, out in the official filter


@dataclass(frozen=True)
class Loaded:
    """The questions of a benchmark, in a fixed order, and their source."""

    questions: list[Question]
    source: Source

    def record(self) -> dict:
        """The source as plain values."""
        return asdict(self.source)


def load(name: str, domain: str, benchmark: Benchmark, split: str, seed: int) -> Loaded:
    """The questions of a benchmark and what they were read from.

    split and seed are the miniature's. UserError when a file, a column or a day is missing, a line is malformed, an id
    occurs twice, or a file is not the one that params pin.
    """
    where = f"domains.{domain}.benchmarks.{name}"
    located = None if isinstance(benchmark, MiniatureBenchmark) else files.find(where, benchmark)
    try:
        if located is None:
            questions, rows, late = _miniature(benchmark, split, seed), benchmark.questions, 0
        else:
            questions, rows, late = _read(located.paths, benchmark)
        _check(questions, rows, benchmark)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    common = {"benchmark": name, "domain": domain, "kind": benchmark.answers, "private": benchmark.kind in PRIVATE}
    questions = [q | common for q in questions[: benchmark.questions]]
    lcb = isinstance(benchmark, LiveCodeBenchmark)
    source = Source(
        benchmark=name, path=located and benchmark.path, revision=located and benchmark.revision,
        release=benchmark.release if lcb else None, window=tuple(map(str, benchmark.window)) if lcb else None,
        sha256=located and located.sha256, rows=rows, questions=len(questions),
        errata=sum(bool(q.get("erratum")) for q in questions), late_on_last_day=late,
    )  # fmt: skip
    return Loaded(questions, source)


def load_all(cfg: Config) -> dict[str, Loaded]:
    """Every benchmark of a run with the source of its questions, by benchmark name."""
    p = cfg.params
    return {name: load(name, p.domain_of[name], b, p.evaluate.split, p.seed) for name, b in p.benchmarks.items()}


def _check(questions: list[Question], rows: int, benchmark: Benchmark) -> None:
    if isinstance(benchmark, MiniatureBenchmark):
        return
    window = ""
    if isinstance(benchmark, LiveCodeBenchmark):
        expected = RELEASES.get(benchmark.release, rows)
        if rows != expected:
            raise UserError(
                f"{benchmark.path} holds {rows} problems, {benchmark.release} has {expected}; a file is cut off, or is "
                "of another release"
            )
        window = f" from {benchmark.window[0]} to {benchmark.window[1]}"
    if not questions:
        raise UserError(f"{benchmark.path} holds no question{window}; it has {rows} rows")
    seen: set[str] = set()
    if twice := sorted({q["id"] for q in questions if q["id"] in seen or seen.add(q["id"])}):
        raise UserError(f"question ids occur twice: {', '.join(twice[:5])}; give each question one id")


def _miniature(benchmark: MiniatureBenchmark, split: str, seed: int) -> list[Question]:
    from tinyr1.data.miniature import raw  # the real runs need none of it

    tasks = raw.take(benchmark.tasks, split, benchmark.levels, seed, benchmark.questions)
    rows = [raw.question_row(task, i) for i, task in enumerate(tasks)]
    build = {"integer": _integer, "option": _lettered, "program": _program}[benchmark.answers]
    return [build(row, Path("the miniature"), i) for i, row in enumerate(rows)]


def _read(paths: tuple[Path, ...], benchmark: Benchmark) -> tuple[list[Question], int, int]:
    """(questions, rows in the files, contests late on the last day); rows outside the window are not decoded."""
    build = {"aime": _competition, "gpqa": _options, "livecodebench": _program}[benchmark.kind]
    first, last = map(str, benchmark.window) if isinstance(benchmark, LiveCodeBenchmark) else ("", "")
    questions, total, late = [], 0, 0
    for path in paths:
        for i, row in enumerate(files.rows(path)):
            total += 1
            if last:
                day, _, clock = str(column(row, path, "contest_date")).partition("T")
                if not first <= day <= last:
                    continue
                late += day == last and clock.strip("0:.Z+") != ""
            questions.append(build(row, path, i))
    return questions, total, late


def _integer(row: dict, path: Path, i: int) -> Question:
    return {"id": str(row["id"]), "question": row["question"], "answer": str(int(row["answer"])),
            "family": row.get("family", "")}  # fmt: skip


def _lettered(row: dict, path: Path, i: int) -> Question:
    return {"id": row["id"], "question": row["question"], "answer": row["answer"], "family": row["family"]}


def _competition(row: dict, path: Path, i: int) -> Question:
    """An AIME row; published sets call their columns differently, and some have no id."""
    named = set(AIME_IDS) & {key.lower() for key in row}
    name = str(column(row, path, *AIME_IDS)) if named else f"{path.stem}-{i + 1}"
    answer = column(row, path, "answer")
    value = integer(str(answer))
    if value is None or not 0 <= value <= 999:
        raise UserError(f"{path}: question {name}: {answer!r} is no AIME answer, an integer from 0 to 999")
    return {"id": name, "question": column(row, path, "question", "problem"), "answer": str(value), "family": ""}


def _options(row: dict, path: Path, i: int) -> Question:
    """A GPQA row; its options keep the order of the file, the right one first. The protocol orders them."""
    wrong = [column(row, path, f"Incorrect Answer {n}") for n in (1, 2, 3)]
    options = [str(column(row, path, "Correct Answer")), *map(str, wrong)]
    name = str(column(row, path, "Record ID"))
    if not all(map(str.strip, options)) or options[0].strip() in map(str.strip, options[1:]):
        raise UserError(f"{path}: question {name}: an option is empty, or is also the right answer")
    return {"id": name, "question": column(row, path, "Question"), "options": options, "answer": "0",
            "family": column(row, path, "High-level domain")}  # fmt: skip


def _program(row: dict, path: Path, i: int) -> Question:
    name, title = str(column(row, path, "question_id")), str(row.get("question_title", ""))
    where, keys = f"{path}: problem {name}", ("public_test_cases", "private_test_cases")
    tests = [test for key in keys for test in _decoded(_tests, column(row, path, key), f"{where}: {key}")]
    metadata = _decoded(_metadata, row.get("metadata") or "{}", f"{where}: metadata")
    return {"id": name, "question": column(row, path, "question_content"), "family": column(row, path, "difficulty"),
            "starter_code": row.get("starter_code") or "", "func_name": metadata.get("func_name") or "",
            "tests": tests, "erratum": erratum(name, title)}  # fmt: skip


def _decoded(decode: Callable, field: object, where: str) -> list | dict:
    """A field of a row, decoded; UserError names it."""
    try:
        return decode(field)
    except (ValueError, RecursionError, zlib.error, binascii.Error, pickle.UnpicklingError, EOFError) as error:
        raise UserError(f"{where}: {error}") from error


def _metadata(field: object) -> dict:
    """What LiveCodeBench says of a problem's program, an object as JSON text."""
    if not isinstance(field, str) or not isinstance(found := json.loads(field), dict):
        raise ValueError(f"{field!r} is not the text of a JSON object")
    return found


def erratum(question_id: str, title: str) -> str:
    """What LiveCodeBench's errata say of a problem, or "". Such problems stay in the headline score."""
    names = {question_id, files.slug(title)}
    return next((what for what, problems in ERRATA.items() if names & set(problems)), "")


class _TextOnly(pickle.Unpickler):
    """Refuses everything but plain data: a pickled dataset field is otherwise a program to run."""

    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(f"test cases may not refer to {module}.{name}")


def _tests(field: str | list) -> list[dict]:
    """Test cases of LiveCodeBench: JSON, or base64 of zlib of a pickled JSON string (docs/evaluation.md §1.1)."""
    if isinstance(field, str):
        field = json.loads(field if field.lstrip().startswith("[") else _unpacked(field))
    if not isinstance(field, list) or not all(isinstance(t, dict) and {"input", "output"} <= t.keys() for t in field):
        raise ValueError("test cases are not a list of objects with input and output")
    return field


def _unpacked(field: str) -> str:
    """The text in an encoded field; nothing but a string is unpickled, and no more than DECODED_LIMIT bytes."""
    unpacked = zlib.decompressobj()
    data = unpacked.decompress(base64.b64decode(field, validate=True), DECODED_LIMIT)
    if unpacked.unconsumed_tail:
        raise ValueError(f"test cases unpack to more than {DECODED_LIMIT} bytes")
    if not unpacked.eof:
        raise ValueError("test cases are cut off")
    text = _TextOnly(io.BytesIO(data)).load()
    if type(text) is not str:
        raise ValueError(f"test cases unpack to {type(text).__name__}, expected the text of a JSON list")
    return text
