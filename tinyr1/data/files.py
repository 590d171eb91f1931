"""Files of rows, read one row after another; the files of a benchmark, found locally or on the Hugging Face hub.

    path of a benchmark --find_files--> QuestionFiles (paths, checksum) --read_rows--> rows as dicts --column--> values
    path of a source ----tinyr1.data.sources-------------------> files --records--> rows, the damaged ones included

The `path` of a benchmark has one of these forms:

    data/aime24.jsonl                      a JSON, JSONL, CSV, TSV or parquet file, relative to the repository
    data/lcb                               a folder of such files
    hf://owner/dataset/folder/file.jsonl   one file of a hub dataset, at the commit that `revision` names
    hf://owner/dataset                     LiveCodeBench only: the files of its `release`

No dataset script is ever run: LiveCodeBench ships one, and this module reads its files instead (docs/evaluation.md
§1.1).
"""

import codecs
import csv
import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import BinaryIO, cast

from tinyr1.core import artifact, hub, jsonl
from tinyr1.core.config import located
from tinyr1.core.errors import UserError
from tinyr1.core.params.domains import HUB, LiveCodeBenchmark, PublishedBenchmark

PARQUET_ROWS = 256  # read at a time: one row of reasoning has up to a megabyte
FORMATS = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".tsv": "csv",
           ".parquet": "parquet"}  # fmt: skip
COMPRESSED = (".gz", ".zst")
HEAD = 1 << 16  # bytes that are read at once
csv.field_size_limit(1 << 24)  # characters; the default of 131,072 is below the longest explanations of GPQA


@dataclass(frozen=True)
class QuestionFiles:
    """The files that a benchmark is read from.

    sha256: hexadecimal, of the file; of several files, the hash of the listing that `sha256sum` prints for them.
    """

    paths: tuple[Path, ...]
    sha256: str


def find_files(where: str, benchmark: PublishedBenchmark) -> QuestionFiles:
    """The files of a benchmark. UserError, beginning with `where`, when one is missing, refused or altered."""
    paths = _on_hub(where, benchmark) if benchmark.path.startswith(HUB) else local_files(where, benchmark)
    sha256 = checksum(paths)
    if benchmark.sha256 not in (None, sha256):
        raise UserError(
            f"{where}: {benchmark.path} has sha256 {sha256}, the params pin {benchmark.sha256}: the file was altered "
            "or is another version; restore it, or change `sha256`"
        )
    return QuestionFiles(tuple(paths), sha256)


def checksum(paths: list[Path]) -> str:
    """SHA-256 of one file; of several, what `sha256sum FILES | sha256sum` prints in their folder."""
    hashes = [artifact.file_hash(path) for path in paths]
    if len(hashes) == 1:
        return hashes[0]
    listing = "".join(f"{h}  {path.name}\n" for h, path in zip(hashes, paths, strict=True))
    return hashlib.sha256(listing.encode()).hexdigest()


def release_files(release: str) -> list[str]:
    """File names of a LiveCodeBench release (docs/fidelity.md §1.4): each release adds one file to those before it."""
    return [f"test{i or ''}.jsonl" for i in (0, *range(2, int(release[-1]) + 1))]


def local_files(where: str, benchmark: PublishedBenchmark) -> list[Path]:
    """The files of a benchmark that stands on this machine. UserError when one is missing."""
    path = located(benchmark.path)
    if path.is_dir() and isinstance(benchmark, LiveCodeBenchmark) and benchmark.release:
        files = [path / file for file in release_files(benchmark.release)]
        if absent := [file.name for file in files if not file.is_file()]:
            raise UserError(f"{where}: {benchmark.release} needs {', '.join(absent)} in {path}; put them there")
        return files
    files = sorted(p for p in path.glob("*") if data_format(p)) if path.is_dir() else [path]
    if not files or not all(p.is_file() for p in files):
        kinds = "no .jsonl, .csv or .parquet file"
        raise UserError(f"{where}.path: {path} does not exist or holds {kinds}; put it there, or name another path")
    return files


def _on_hub(where: str, benchmark: PublishedBenchmark) -> list[Path]:
    dataset, names = hub_files(benchmark)
    return [hub.dataset_file(where, dataset, name, str(benchmark.revision)) for name in names]


def hub_files(benchmark: PublishedBenchmark) -> tuple[str, list[str]]:
    """(dataset, names of the files) of a benchmark of the hub."""
    owner, dataset, *rest = benchmark.path.removeprefix(HUB).split("/")
    names = ["/".join(rest)]
    if isinstance(benchmark, LiveCodeBenchmark) and not rest:
        names = release_files(str(benchmark.release))  # the params file has one: tinyr1.core.params sees to it
    return f"{owner}/{dataset}", names


@dataclass(frozen=True)
class Record:
    """One row of a file: its number (of a text file, that of its line), and its value or why it has none."""

    row: int
    value: object
    error: str | None = None


def data_format(path: Path) -> str | None:
    """How a file is read, by its name whatever the case: json, csv or parquet; None where it is no file of rows."""
    ending = _ending(path)
    return None if ending == ".parquet" and path.suffix.lower() != ending else FORMATS.get(ending)


def _ending(path: Path) -> str:
    """The ending that tells the format: `.csv` of a.CSV.gz."""
    name = path.name.lower()
    packed = next((ending for ending in COMPRESSED if name.endswith(ending)), "")
    return Path(name.removesuffix(packed)).suffix


def records(path: Path) -> Iterator[Record]:
    """Every row of a file, one after another, those that cannot be read included. UserError where the file itself is
    damaged, or its name tells no format."""
    form = data_format(path)
    if form is None:
        raise UserError(
            f"{path}: its ending is none of {', '.join(FORMATS)}, with {' or '.join(COMPRESSED)} or without"
        )
    try:
        yield from {"json": _json_records, "csv": _csv_records, "parquet": _parquet_records}[form](path)
    except (EOFError, zlib.error, OSError) as error:
        raise UserError(f"{path}: cannot be read to its end: {error}") from error


def read_rows(path: Path) -> Iterator[dict]:
    """Rows of a file, one after another. UserError names the file, and the row that is bad."""
    return (row for _, row in numbered_rows(path))


def numbered_rows(path: Path) -> Iterator[tuple[int, dict]]:
    """(number as in `Record`, row) of a file, one after another. UserError names the file, and the row that is bad."""
    for record in records(path):
        if record.error:
            raise UserError(f"{path}:{record.row}: {record.error}")
        if not isinstance(record.value, dict):
            raise UserError(f"{path}:{record.row}: expected a JSON object, found {type(record.value).__name__}")
        yield record.row, record.value


def _opened(path: Path) -> BinaryIO:
    name = path.name.lower()
    if name.endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    if name.endswith(".zst"):
        import pyarrow  # it brings the decompressor; the standard library of Python 3.11 has none

        return cast(BinaryIO, io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")))
    return path.open("rb")


def _json_records(path: Path) -> Iterator[Record]:
    """A JSON value on each line, or one array of rows: the first character that is not blank tells."""
    with _opened(path) as file:
        start = file.read(HEAD).removeprefix(codecs.BOM_UTF8).lstrip()
    with _opened(path) as file:
        if start.startswith(b"["):
            yield from _array_records(path, file)
            return
        for number, data in enumerate(file, 1):
            if data.strip():
                yield Record(number, *jsonl.parse(data))


def _array_records(path: Path, file: BinaryIO) -> Iterator[Record]:
    """The entries of a JSON array, decoded while the file is read: it may be larger than the memory."""
    text, decoder = codecs.getreader("utf-8-sig")(file), json.JSONDecoder()
    buffer, at, ended = text.read(HEAD).lstrip(), 1, False
    for number in count(1):
        while True:  # until one whole entry, and what follows it, is in the buffer
            at = _skip_blanks(buffer, at, "," if number > 1 else "")
            try:
                if buffer[at : at + 1] == "]":
                    if rest := (buffer[at + 1 :] + text.read(HEAD)).strip():
                        raise UserError(f"{path}: text follows the end of its array: {rest[:40]!r}; mend the file")
                    return
                value, end = decoder.raw_decode(buffer, at)
                if end < len(buffer) or ended:  # else a number may go on
                    break
            except (ValueError, RecursionError) as error:
                if ended:
                    raise UserError(f"{path}: entry {number} of its array is not valid JSON: {error}") from error
            try:
                more = text.read(max(HEAD, len(buffer)))
            except UnicodeDecodeError as error:
                raise UserError(f"{path}: entry {number} of its array is not UTF-8: {error}") from error
            buffer, at, ended = buffer[at:] + more, 0, not more
        yield Record(number, value)
        at = end


def _skip_blanks(text: str, at: int, comma: str) -> int:
    while at < len(text) and (text[at].isspace() or text[at] == comma):
        at += 1
    return at


def _csv_records(path: Path) -> Iterator[Record]:
    with _opened(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True, delimiter="\t" if _ending(path) == ".tsv" else ",")
        try:
            columns = reader.fieldnames or ()
            if twice := sorted({name for name in columns if list(columns).count(name) > 1}):
                raise UserError(
                    f"{path}: its header names {', '.join(twice)} twice; give each column a name of its own"
                )
            for row in reader:
                if None in row or None in row.values():  # the row has more or fewer fields than the header
                    yield Record(reader.line_num, None, f"a row without the {len(columns)} fields of the header")
                else:
                    yield Record(reader.line_num, row)
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path}:{reader.line_num}: not valid CSV: {error}") from error


def _parquet_records(path: Path) -> Iterator[Record]:
    """Some rows at a time: a whole file of a training dataset would take gigabytes."""
    import pyarrow
    from pyarrow import parquet

    done = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(PARQUET_ROWS):
            for number, row in enumerate(batch.to_pylist(), done + 1):
                yield Record(number, row)
            done += len(batch)
    except (pyarrow.ArrowException, OSError) as error:
        said = str(error).partition("\n")[0]
        raise UserError(f"{path}: not a whole parquet file, rows beyond {done} cannot be read: {said}") from error


def column(row: dict, path: Path, *names: str) -> object:
    """Value of the first of `names` that the row has, whatever their case: published AIME sets differ in it.

    UserError when the row has none of them, or only null.
    """
    values = {key.lower(): value for key, value in row.items()}
    for name in names:
        if values.get(name.lower()) is not None:
            return values[name.lower()]
    raise UserError(f"{path.name} has no column {' or '.join(map(repr, names))}; it has {', '.join(row)}")


def slug(title: str) -> str:
    """A title as LeetCode writes it in addresses: Find the Peaks -> find-the-peaks"""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
