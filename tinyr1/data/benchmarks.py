"""Benchmark questions in one shape, whatever their files look like.

    files of AIME, GPQA-Diamond, LiveCodeBench --files--> rows --\
    files of one's own ------------------own_questions-----------> rows --> questions + their provenance
                                  the miniature's tasks --raw--> rows --/

A question is a dict: id, benchmark (its name), domain, kind ("integer", "expression", "option" or "program"),
question, family, private (True: its text must not reach a report), and

    integer     answer: decimal digits without leading zeros
    expression  answer: a number, formula or word, as its file has it
    option      answer: a letter, where the options are part of the question (the miniature); or the index of the right
                one in `options` (texts), which the protocol puts into an order, or leaves in theirs where `fixed`
    program     starter_code, func_name ("": standard input and output), tests (dicts with input and output), erratum
                ("" or what is wrong with the problem)

`tinyr1.evaluate.protocol` makes the prompts from them.
"""

import base64
import binascii
import io
import json
import pickle
import re
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinyr1.core.config import Config
from tinyr1.core.errors import UserError
from tinyr1.core.params.domains import (
    RELEASES,
    Benchmark,
    ChoiceBenchmark,
    LiveCodeBenchmark,
    MathBenchmark,
    MiniatureBenchmark,
    PublishedBenchmark,
)
from tinyr1.data import files, own_questions, schema
from tinyr1.data.answers import integer
from tinyr1.data.files import column

Question = dict
DECODED_LIMIT = 512 << 20  # bytes; the largest LiveCodeBench problem unpacks to far less
AIME_IDS = ("id", "source", "problem_idx")  # math-ai's and yentinglin's, the released script's, MathArena's
PRIVATE = ("gpqa",)  # its authors ask that no question appears in plain text

# LiveCodeBench's ERRATA.md: AtCoder's problems by id, LeetCode's by the words of their title (docs/evaluation.md §1.1)
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
class Provenance:
    """Where the questions of a benchmark came from; it goes into the record, beside the scores."""

    benchmark: str
    rows: int  # in the files
    questions: int  # in the window, and no more than the params ask for
    errata: int  # questions with a known fault
    path: str | None = None  # None: tinyr1.data.miniature made the questions
    revision: str | None = None
    release: str | None = None
    window: tuple[str, str] | None = None  # first and last contest date, inclusive
    sha256: str | None = None
    columns: dict[str, Any] | None = None  # of a file of one's own: which column holds what
    late_on_last_day: int = 0  # contests after 00:00 of the window's last day, which the official filter leaves out


@dataclass(frozen=True)
class LoadedBenchmark:
    """The questions of a benchmark, in a fixed order, and where they came from."""

    questions: list[Question]
    source: Provenance

    def record(self) -> dict:
        """The provenance as plain values, for a record."""
        return {key: value for key, value in asdict(self.source).items() if key != "columns" or value is not None}


def load_benchmark(name: str, domain: str, benchmark: Benchmark, split: str, seed: int) -> LoadedBenchmark:
    """The questions of a benchmark and where they came from. split and seed are the miniature's.

    UserError when a file, a column or a day is missing, a line is malformed, an id occurs twice, or a file is not the
    one that the params pin.
    """
    origin: dict[str, Any]
    if isinstance(benchmark, MiniatureBenchmark):
        questions, origin = _miniature(benchmark, split, seed), {"rows": benchmark.questions}
    else:
        questions, origin = _published(f"domains.{domain}.benchmarks.{name}", benchmark)
    common = {"benchmark": name, "domain": domain, "kind": benchmark.answers}
    private = benchmark.kind in PRIVATE
    questions = [q | common | {"private": private or "private" in q} for q in questions[: benchmark.questions]]
    errata = sum(bool(q.get("erratum")) for q in questions)
    return LoadedBenchmark(questions, Provenance(name, questions=len(questions), errata=errata, **origin))


def load_all(cfg: Config) -> dict[str, LoadedBenchmark]:
    """Every benchmark of a run, by benchmark name."""
    p = cfg.params
    return {
        name: load_benchmark(name, p.domain_of[name], benchmark, p.evaluate.split, p.seed)
        for name, benchmark in p.benchmarks.items()
    }


def _miniature(benchmark: MiniatureBenchmark, split: str, seed: int) -> list[Question]:
    from tinyr1.data.miniature import raw  # the real runs need none of it

    tasks = raw.take(benchmark.tasks, split, benchmark.levels, seed, benchmark.questions)
    rows = [raw.question_row(task, i) for i, task in enumerate(tasks)]
    return [_program(row, Path("the miniature")) for row in rows] if benchmark.answers == "program" else rows


def _published(where: str, benchmark: PublishedBenchmark) -> tuple[list[Question], dict[str, Any]]:
    """(questions, fields of their Provenance); every UserError begins with `where`."""
    found = files.find_files(where, benchmark)
    origin: dict[str, Any] = {"path": benchmark.path, "revision": benchmark.revision, "sha256": found.sha256}
    if isinstance(benchmark, LiveCodeBenchmark):
        first, last = map(str, benchmark.window)
        origin |= {"release": benchmark.release, "window": (first, last)}
    try:
        if isinstance(benchmark, MathBenchmark | ChoiceBenchmark):
            own = own_questions.read(found.paths, benchmark)
            questions, rows = own.questions, own.rows
            more: dict[str, Any] = {"columns": own.columns}
        else:
            questions, rows, late = _read(found.paths, benchmark)
            more = {"late_on_last_day": late}
        _check(questions, rows, benchmark)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return questions, origin | {"rows": rows} | more


def _read(paths: tuple[Path, ...], benchmark: PublishedBenchmark) -> tuple[list[Question], int, int]:
    """(questions, rows in the files, contests late on the last day); rows outside the window are not decoded."""
    build = {"aime": _competition, "gpqa": _options, "livecodebench": _program}[benchmark.kind]
    first, last = map(str, benchmark.window) if isinstance(benchmark, LiveCodeBenchmark) else ("", "")
    questions, total, late = [], 0, 0
    for path in paths:
        for i, row in enumerate(files.read_rows(path)):
            total += 1
            if last:
                date = str(column(row, path, "contest_date"))  # a text, or a time as Parquet and pandas have it
                day, clock = date[:10], date[11:]
                if not re.fullmatch(r"\d{4}-\d\d-\d\d", day):
                    raise UserError(f"{path}: row {i + 1}: contest_date {date!r} begins with no day such as 2025-01-31")
                if not first <= day <= last:
                    continue
                late += day == last and clock.strip("0:.Z+") != ""
            questions.append(build(row, path, i))
    return questions, total, late


def _check(questions: list[Question], rows: int, benchmark: PublishedBenchmark) -> None:
    window = ""
    if isinstance(benchmark, LiveCodeBenchmark):
        expected = RELEASES[benchmark.release] if benchmark.release else rows
        if rows != expected:
            raise UserError(
                f"{benchmark.path} holds {rows} problems, {benchmark.release} has {expected}; a file is cut off, or is "
                "of another release"
            )
        window = f" from {benchmark.window[0]} to {benchmark.window[1]}"
    if not questions:
        raise UserError(f"{benchmark.path} holds no question{window}; it has {rows} rows")
    counts = Counter(q["id"] for q in questions)
    if twice := sorted(name for name, n in counts.items() if n > 1):
        raise UserError(f"question ids occur twice: {', '.join(twice[:5])}; give each question one id")


def _competition(row: dict, path: Path, i: int) -> Question:
    """A row of AIME; published sets name their columns differently, and some have no id."""
    named = set(AIME_IDS) & {key.lower() for key in row}
    name = str(column(row, path, *AIME_IDS)) if named else f"{path.stem}-{i + 1}"
    answer = column(row, path, "answer", "expected_answer")  # the second is evalchemy's
    value = integer(str(answer))
    if value is None or not 0 <= value <= 999:
        raise UserError(f"{path}: question {name}: {answer!r} is no AIME answer, an integer from 0 to 999")
    asked = column(row, path, "question", "problem", "prompt")  # the third is QwQ's
    return {"id": name, "question": _asked(asked, f"{path}: question {name}"), "answer": str(value), "family": ""}


def _asked(value: object, where: str) -> str:
    """The text of a question; UserError where there is none."""
    try:
        text = schema.as_question(value)
    except ValueError as error:
        raise UserError(f"{where}: its text {error}") from error
    if not text.strip():
        raise UserError(f"{where}: its text is empty")
    return text


def _options(row: dict, path: Path, _: int) -> Question:
    """A row of GPQA; its options keep the order of the file, the right one first."""
    wrong = [column(row, path, f"Incorrect Answer {n}") for n in (1, 2, 3)]
    options = [str(column(row, path, "Correct Answer")), *map(str, wrong)]
    name = str(column(row, path, "Record ID"))
    if not all(map(str.strip, options)) or options[0].strip() in map(str.strip, options[1:]):
        raise UserError(f"{path}: question {name}: an option is empty, or is also the right answer")
    asked = _asked(column(row, path, "Question"), f"{path}: question {name}")
    return {"id": name, "question": asked, "options": options, "answer": "0",
            "family": column(row, path, "High-level domain")}  # fmt: skip


def _program(row: dict, path: Path, _: int = 0) -> Question:
    name, title = str(column(row, path, "question_id")), str(row.get("question_title", ""))
    where, keys = f"{path}: problem {name}", ("public_test_cases", "private_test_cases")
    tests = [test for key in keys for test in _decoded(_tests, column(row, path, key), f"{where}: {key}")]
    metadata = _decoded(_metadata, row.get("metadata") or "{}", f"{where}: metadata")
    asked = _asked(column(row, path, "question_content"), where)
    return {"id": name, "question": asked, "family": column(row, path, "difficulty"),
            "starter_code": row.get("starter_code") or "", "func_name": metadata.get("func_name") or "",
            "tests": tests, "erratum": erratum(name, title)}  # fmt: skip


def _decoded(decode: Callable[[Any], Any], field: object, where: str) -> Any:
    """A field of a row after `decode`; UserError names the field."""
    try:
        return decode(field)
    except (ValueError, RecursionError, zlib.error, binascii.Error, pickle.UnpicklingError, EOFError) as error:
        raise UserError(f"{where}: {error}") from error


def _metadata(field: object) -> dict:
    """LiveCodeBench's metadata of a problem, an object as JSON text."""
    if not isinstance(field, str) or not isinstance(metadata := json.loads(field), dict):
        raise ValueError(f"{field!r} is not the text of a JSON object")
    return metadata


def erratum(question_id: str, title: str) -> str:
    """The fault that LiveCodeBench's errata name for a problem, or "". Such problems stay in the headline score."""
    names = {question_id, files.slug(title)}
    return next((fault for fault, problems in ERRATA.items() if names & set(problems)), "")


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
