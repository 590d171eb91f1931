"""Files of rows, read one row after another; the files of a benchmark, found locally or on the Hugging Face hub.

    path of a benchmark --find_files--> QuestionFiles (paths, checksum) --read_rows--> rows as dicts --column--> values

The `path` of a benchmark has one of these forms:

    data/aime24.jsonl                      a JSONL, CSV or parquet file, relative to the repository
    data/lcb                               a folder of such files
    hf://owner/dataset/folder/file.jsonl   one file of a hub dataset, at the commit that `revision` names
    hf://owner/dataset                     LiveCodeBench only: the files of its `release`

No dataset script is ever run: LiveCodeBench ships one, and this module reads its files instead (docs/evaluation.md
§1.1).
"""

import csv
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tinyr1.core import artifact, hub, jsonl
from tinyr1.core.config import ROOT
from tinyr1.core.errors import UserError
from tinyr1.core.params.domains import HUB, AimeBenchmark, GpqaBenchmark, LiveCodeBenchmark

PublishedBenchmark = AimeBenchmark | GpqaBenchmark | LiveCodeBenchmark
PARQUET_ROWS = 256  # read at a time: one row of reasoning has up to a megabyte
QUESTION_SUFFIXES = (".jsonl", ".csv", ".parquet")
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
    paths = _on_hub(where, benchmark) if benchmark.path.startswith(HUB) else _local(where, benchmark)
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


def _local(where: str, benchmark: PublishedBenchmark) -> list[Path]:
    path = ROOT / benchmark.path
    if path.is_dir() and isinstance(benchmark, LiveCodeBenchmark) and benchmark.release:
        files = [path / file for file in release_files(benchmark.release)]
        if absent := [file.name for file in files if not file.is_file()]:
            raise UserError(f"{where}: {benchmark.release} needs {', '.join(absent)} in {path}; put them there")
        return files
    files = sorted(p for p in path.glob("*") if p.suffix in QUESTION_SUFFIXES) if path.is_dir() else [path]
    if not files or not all(p.is_file() for p in files):
        kinds = "no .jsonl, .csv or .parquet file"
        raise UserError(f"{where}.path: {path} does not exist or holds {kinds}; put it there, or name another path")
    return files


def _on_hub(where: str, benchmark: PublishedBenchmark) -> list[Path]:
    owner, dataset, *rest = benchmark.path.removeprefix(HUB).split("/")
    names = ["/".join(rest)]
    if isinstance(benchmark, LiveCodeBenchmark) and not rest:
        names = release_files(str(benchmark.release))  # the params file has one: tinyr1.core.params sees to it
    return [hub.dataset_file(where, f"{owner}/{dataset}", name, str(benchmark.revision)) for name in names]


def read_rows(path: Path) -> Iterator[dict]:
    """Rows of a JSONL, CSV or parquet file, one after another. UserError names the file, and the line that is bad."""
    return {".csv": _csv_rows, ".parquet": _parquet_rows}.get(path.suffix, _jsonl_rows)(path)


def _jsonl_rows(path: Path) -> Iterator[dict]:
    for line in jsonl.scan(path):
        if line.error:
            raise UserError(f"{path}:{line.number}: {line.error}")
        if not isinstance(line.value, dict):
            raise UserError(f"{path}:{line.number}: expected a JSON object, found {type(line.value).__name__}")
        yield line.value


def _csv_rows(path: Path) -> Iterator[dict]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():  # the row has more or fewer fields than the header
                    columns = len(reader.fieldnames or ())
                    raise UserError(f"{path}:{reader.line_num}: a row without the {columns} fields of the header")
                yield row
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path}:{reader.line_num}: not valid CSV: {error}") from error


def _parquet_rows(path: Path) -> Iterator[dict]:
    """Some rows at a time: a whole file of a training dataset would take gigabytes."""
    import pyarrow
    from pyarrow import parquet

    done = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(PARQUET_ROWS):
            yield from batch.to_pylist()
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
