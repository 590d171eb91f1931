"""Raw rows of a source: a Hugging Face dataset, local files, or the miniature's made-up rows.

    source of the params file --find--> its files; those that are not read, and why
                              --read_source--> Raw: file, row number, value or error --> tinyr1.data.readers

Files are read row by row and not by `datasets`, which refuses a whole file for one row of another form; rows of the hub
come through `datasets`, whose files are of one form.
"""

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from tinyr1.core import hub
from tinyr1.core.config import located
from tinyr1.core.errors import UserError
from tinyr1.core.params.domains import FileSource, HubSource, Source
from tinyr1.data import files, schema

HEAD_ROWS = 100  # rows of each file whose columns are looked at before any row is processed
SHARD = re.compile(r"(.*?)-(\d{4,6})-of-(\d{4,6})(\D.*)?")  # as data-00001-of-00005.parquet


@dataclass(frozen=True)
class Raw:
    """A row as its source has it. file: its name inside the source; row: its number there, of text files that of its
    line; error: why it has no value, or None."""

    file: str
    row: int
    value: object
    error: str | None = None


@dataclass(frozen=True)
class Found:
    """The files of a source in the order in which they are read, and the others with the reason why they are not."""

    paths: list[Path]
    unread: list[tuple[str, str]] = field(default_factory=list)


def name_of(source: Source) -> str:
    """What the ledger calls a source: its path, or of made-up rows the dataset whose columns they have."""
    return source.columns if source.kind == "miniature" else source.path


def find(source: FileSource, where: str) -> Found:
    """The files behind a path: a file, a folder with all below it, or a pattern.

    UserError where there is none to read, a link leads nowhere, or one of several numbered files is missing.
    """
    path = located(source.path)
    if path.is_file():
        found = Found([path])
    elif path.is_dir():
        found = _sorted_out([path / name for name in _walk(path)], path)
        _check_shards(found, where)
    else:
        matches = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if not Path(name).is_dir())
        found = _sorted_out(matches, path.parent)
        _check_shards(found, where)
    if broken := [p for p in (path, *found.paths) if p.is_symlink() and not p.exists()]:
        raise UserError(
            f"{where}: {broken[0]} is a link to {os.readlink(broken[0])}, which is not there; mend the link"
        )
    if not found.paths or files.data_format(found.paths[0]) is None:
        kinds = f"{', '.join(files.FORMATS)} file (with {' or '.join(files.COMPRESSED)} or without)"
        raise UserError(
            f"{where}: {path}: no such {kinds}, and no folder with any{_not_read(found)}; put it there, or name "
            "another path"
        )
    return found


def check(source: FileSource, where: str) -> Found:
    """`find`, and UserError where a file cannot be read, or its first rows lack a column that the reader needs."""
    found = find(source, where)
    for path in found.paths:
        _check_columns(_file_rows(path, path.name, where), source, where, str(path))
    return found


def _not_read(found: Found) -> str:
    return f"; not read: {'; '.join(f'{name} ({why})' for name, why in found.unread[:5])}" if found.unread else ""


def unread(source: Source, domain: str) -> list[tuple[str, str]]:
    """The files that stand among those of a source and are not read, and why."""
    return find(source, f"domains.{domain}.sources").unread if source.kind == "files" else []


def _walk(folder: Path) -> Iterator[str]:
    """Names of all files below a folder, relative to it and in order; links to folders are followed once."""
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(root) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(root))
        folders.sort()
        for name in names:
            yield os.path.relpath(os.path.join(root, name), folder)


def _sorted_out(paths: list[Path], folder: Path) -> Found:
    read, unread = [], []
    for path in sorted(paths):
        name = str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
        if any(part.startswith(".") for part in Path(name).parts):
            unread.append((name, "hidden"))
        elif files.data_format(path) is None:
            unread.append((name, f"{path.suffix or 'a name without an ending'} is no format of rows"))
        else:
            read.append(path)
    return Found(read, unread)


def _check_shards(files_there: Found, where: str) -> None:
    """UserError where a numbered file is neither read nor left out on purpose by a pattern."""
    sets: dict[tuple[Path, str, int, int], set[int]] = {}
    for path in files_there.paths:
        if match := SHARD.fullmatch(path.name):
            sets.setdefault((path.parent, match[1], int(match[3]), len(match[2])), set()).add(int(match[2]))
    for (folder, start, of, width), found in sets.items():
        there = {i for i in range(of + 1) if any(folder.glob(f"{glob.escape(start)}-{i:0{width}d}-of-*"))}
        first = 1 if of in there and 0 not in there else 0  # most sets count from 0
        if absent := [i for i in range(first, first + of) if i not in there]:
            names = ", ".join(f"{start}-{i:0{width}d}-of-{of:0{width}d}" for i in absent[:5])
            raise UserError(
                f"{where}: {folder} has {len(found)} of {of} files; missing: {names}{_not_read(files_there)}; put the "
                "rest there, or name the files to read with a pattern in a folder of their own"
            )


def read_source(source: Source, domain: str, seed: int) -> Iterator[Raw]:
    """Raw rows in their dataset's own columns, at most `source.rows` of them, each read when it is needed.

    domain is part of messages; seed is the miniature's. UserError when a file or dataset cannot be read, or when the
    first rows of a file have not the columns that the reader needs; that is found out before the first row is given.
    """
    where = f"domains.{domain}.sources"
    yield from islice(_raw_rows(source, where, seed), source.rows)


def _raw_rows(source: Source, where: str, seed: int) -> Iterator[Raw]:
    if source.kind == "miniature":
        from tinyr1.data.miniature import raw  # the real runs need none of it

        rows = raw.rows(source.tasks, source.columns, source.rows, source.levels, seed)
        return (Raw("", number, row) for number, row in enumerate(rows, 1))
    if source.kind == "files":
        paths = check(source, where).paths
        return chain.from_iterable(_file_rows(path, _shown(path, source), where) for path in paths)
    _check_columns(_hub_rows(source, where), source, where, source.path)
    return _hub_rows(source, where)


def _hub_rows(source: HubSource, where: str) -> Iterator[Raw]:
    rows = hub.dataset_rows(where, source.path, source.config, source.split or "train", source.revision)
    return (Raw(source.split or "train", number, row) for number, row in enumerate(rows, 1))


def _shown(path: Path, source: FileSource) -> str:
    root = located(source.path)
    return str(path.relative_to(root)) if root.is_dir() else path.name


def _file_rows(path: Path, shown: str, where: str) -> Iterator[Raw]:
    """Rows of one file. UserError names the file and the row where it is damaged."""
    try:
        for record in files.records(path):
            yield Raw(shown, record.row, record.value, record.error)
    except UserError as error:
        raise UserError(f"{where}: {error}; mend the file, or put it there again") from error


def _check_columns(rows: Iterator[Raw], source: Source, where: str, name: str) -> None:
    """UserError where a column that the reader needs is in none of the first rows."""
    columns = {key for raw in islice(rows, HEAD_ROWS) if isinstance(raw.value, dict) for key in raw.value}
    if missing := [column for column in schema.required(source) if columns and column not in columns]:
        raise UserError(
            f"{where}: {name} has no column {', '.join(missing)}; it has {', '.join(sorted(map(str, columns)))}. Is "
            f"`columns: {source.columns}` right?"
        )
