"""Files of rows, above all of benchmark questions: found locally or fetched from the Hugging Face hub, read, hashed.

`path` of a benchmark is one of

    data/aime24.jsonl                      a JSONL, CSV or parquet file, relative to the repository
    data/lcb                               a folder of them
    hf://owner/dataset/folder/file.jsonl   one file of a hub dataset, at the commit that `revision` names
    hf://owner/dataset                     LiveCodeBench only: the files of its `release`

No dataset script is ever run: LiveCodeBench ships one, and its files are read instead (docs/evaluation.md §1.1).
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
from tinyr1.core.params import HUB, AimeBenchmark, GpqaBenchmark, LiveCodeBenchmark

Published = AimeBenchmark | GpqaBenchmark | LiveCodeBenchmark
PARQUET_ROWS = 256  # read at a time: one row of reasoning has up to a megabyte
SUFFIXES = (".jsonl", ".csv", ".parquet")
csv.field_size_limit(1 << 24)  # characters; the default of 131,072 is below the longest GPQA explanations allowed


@dataclass(frozen=True)
class Files:
    """What a benchmark is read from. sha256: of the file; of several, the hash of what `sha256sum` prints for them."""

    paths: tuple[Path, ...]
    sha256: str
    revision: str | None  # commit of a hub dataset


def find(where: str, benchmark: Published) -> Files:
    """The files of a benchmark. UserError, which begins with `where`, when one is missing, refused or altered."""
    paths = _hub(where, benchmark) if benchmark.path.startswith(HUB) else _local(where, benchmark)
    sha256 = checksum(paths)
    if benchmark.sha256 not in (None, sha256):
        raise UserError(
            f"{where}: {benchmark.path} has sha256 {sha256}, the params pin {benchmark.sha256}: the file was altered "
            "or is another version; restore it, or change `sha256`"
        )
    return Files(tuple(paths), sha256, benchmark.revision)


def checksum(paths: list[Path]) -> str:
    """sha256 of one file; of several, what `sha256sum FILES | sha256sum` prints in their folder."""
    hashes = [artifact.file_hash(path) for path in paths]
    if len(hashes) == 1:
        return hashes[0]
    listing = "".join(f"{h}  {path.name}\n" for h, path in zip(hashes, paths, strict=True))
    return hashlib.sha256(listing.encode()).hexdigest()


def release_files(release: str) -> list[str]:
    """File names of a LiveCodeBench release: each release adds one file to those before it."""
    return [f"test{i or ''}.jsonl" for i in (0, *range(2, int(release[-1]) + 1))]


def _release(benchmark: Published) -> str | None:
    return benchmark.release if isinstance(benchmark, LiveCodeBenchmark) else None


def _local(where: str, benchmark: Published) -> list[Path]:
    path = ROOT / benchmark.path
    if path.is_dir() and (release := _release(benchmark)):
        files = [path / file for file in release_files(release)]
        if absent := [file.name for file in files if not file.is_file()]:
            raise UserError(f"{where}: {release} needs {', '.join(absent)} in {path}; put them there")
        return files
    files = sorted(p for p in path.glob("*") if p.suffix in SUFFIXES) if path.is_dir() else [path]
    if not files or not all(p.is_file() for p in files):
        kinds = "no .jsonl, .csv or .parquet file"
        raise UserError(f"{where}.path: {path} does not exist or holds {kinds}; put it there, or name another path")
    return files


def _hub(where: str, benchmark: Published) -> list[Path]:
    owner, dataset, *rest = benchmark.path.removeprefix(HUB).split("/")
    names = ["/".join(rest)] if rest else release_files(_release(benchmark))
    return [hub.dataset_file(where, f"{owner}/{dataset}", name, benchmark.revision) for name in names]


def rows(path: Path) -> Iterator[dict]:
    """Rows of a file, one after another. UserError names file and line of one that is malformed."""
    return {".csv": _csv, ".parquet": _parquet}.get(path.suffix, _jsonl)(path)


def _jsonl(path: Path) -> Iterator[dict]:
    for line in jsonl.scan(path):
        if line.error:
            raise UserError(f"{path}:{line.number}: {line.error}")
        if not isinstance(line.value, dict):
            raise UserError(f"{path}:{line.number}: expected a JSON object, found {type(line.value).__name__}")
        yield line.value


def _csv(path: Path) -> Iterator[dict]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    columns = len(reader.fieldnames)
                    raise UserError(f"{path}:{reader.line_num}: a row without the {columns} fields of the header")
                yield row
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path}:{reader.line_num}: not valid CSV: {error}") from error


def _parquet(path: Path) -> Iterator[dict]:
    """Some rows at a time: a whole file of a training dataset takes gigabytes."""
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
    """Value of the first of `names` that the row has; upper and lower case do not matter (AIME sets differ in it)."""
    found = {key.lower(): value for key, value in row.items()}
    for name in names:
        if found.get(name.lower()) is not None:
            return found[name.lower()]
    raise UserError(f"{path.name} has no column {' or '.join(map(repr, names))}; it has {', '.join(row)}")


def slug(title: str) -> str:
    """Find the Peaks -> find-the-peaks"""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
