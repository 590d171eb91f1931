r"""Artifacts: files and folders that are complete or absent, whatever kills the process that makes them.

    make(path, inputs, build)
      key = digest(inputs) --- manifest at path has this key ---------------------------------> kept
                \--- no --> build(<path>.partial) --> flush, hash, manifest --> rename to path --> made

An artifact is made under a temporary name, flushed to disk, and renamed when it is complete. Its manifest,
`artifact.json` in a folder or `<file>.artifact.json` beside a file, says from which inputs it was made and lists sizes
and SHA-256 of its files. What has no manifest is not finished, and is never used.
"""

import fcntl
import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyr1.core.errors import UserError

MANIFEST = "artifact.json"
HASHED = "sha256"  # fact of a builder: hashes of the files that it has hashed while it wrote them
ASIDE = "aside"  # fact of a builder: files that say how it was made (seconds, paths) and not what was made
HASHED_AT_ONCE = 2**24  # bytes of a file
# What the two kinds of files hold at the least; one without it was cut short or changed by hand.
MANIFEST_KEYS = {"key", "content", "files", "facts"}


def digest(value: object) -> str:
    """SHA-256 of a JSON-able value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, which are mapped: to copy them first would take an eighth of the time."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for start in range(0, size, HASHED_AT_ONCE):
            length = min(HASHED_AT_ONCE, size - start)
            if os.fstat(file.fileno()).st_size < start + length:  # touching it would end the process
                raise OSError(f"{path}: cut short while it was hashed; another program works in that folder")
            with mmap.mmap(file.fileno(), length, access=mmap.ACCESS_COPY, offset=start) as part:
                found.update(part)
    return found.hexdigest()


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that it is there completely or not at all, power cuts included. Text becomes UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def manifest_path(path: Path) -> Path:
    """Where the manifest of an artifact is: inside a folder, beside a file."""
    return path.with_name(f"{path.name}.{MANIFEST}") if _is_table(path) else path / MANIFEST


def _is_table(path: Path) -> bool:
    """File artifacts are tables; every other artifact is a folder."""
    return path.suffix == ".jsonl"


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and p.name != MANIFEST)


def seal(path: Path, key: str, facts: dict) -> dict:
    """Flush an artifact's files, hash them and write its manifest, last.

    The manifest's `content` identifies what was made: a hash of all files but those that facts[ASIDE] names, so that
    two trainings with the same result are one branch, however long they took. Files that the builder hashed while it
    wrote them are in facts[HASHED] (name -> SHA-256). Neither fact is kept.
    """
    root = path.parent if path.is_file() else path
    known, aside = facts.get(HASHED, {}), facts.get(ASIDE, ())
    facts = {name: fact for name, fact in facts.items() if name not in (HASHED, ASIDE)}
    files = {}
    for file in _files(path):
        if not file.is_symlink():  # what a link points to is not ours to flush
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())
        stat = file.stat()
        name = str(file.relative_to(root))
        digest_of = known.get(name) or file_hash(file)
        files[name] = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": digest_of}
    content = digest({name: entry["sha256"] for name, entry in files.items() if name not in aside})
    made = {"key": key, "content": content, "files": files, "facts": facts}
    write_atomic(manifest_path(path), json.dumps(made, indent=1))
    return made


def manifest(path: Path, remedy: str = "") -> dict:
    """What the manifest of an artifact says, its files unseen. UserError where it is missing or damaged."""
    file = manifest_path(path)
    remedy = remedy or f"{_removal(path)} and make it again"
    if not file.is_file():
        raise UserError(f"{path}: not there, or never finished (no {file.name}); {remedy}")
    return read_json(file, MANIFEST_KEYS, remedy)


def read_json(path: Path, keys: set[str], remedy: str) -> dict:
    """The JSON object in a file that is there. UserError where it is not one with these keys."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON or of UTF-8
        raise UserError(f"{path}: damaged, it is not valid JSON ({error}); {remedy}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: damaged, it is no JSON object; {remedy}")
    if absent := sorted(keys - value.keys()):
        raise UserError(f"{path}: damaged, it has no {', '.join(absent)}; {remedy}")
    return value


def _removal(path: Path) -> str:
    """How a person removes an artifact: a table lies beside its manifest, and either may be the damaged one."""
    return f"remove it (rm -f {path} {manifest_path(path)})" if _is_table(path) else f"remove it (rm -r {path})"


def check(path: Path, remedy: str) -> dict:
    """The manifest of a finished artifact whose files are as they were made.

    Sizes are always compared; a file whose time stamp changed is hashed again. UserError names the file, the
    rule and the command to run.
    """
    found = manifest(path, remedy)
    root = manifest_path(path).parent
    for name, entry in found["files"].items():
        file = root / name
        if not file.is_file():
            raise UserError(f"{file}: deleted after it was made; {remedy}")
        stat = file.stat()
        if stat.st_size != entry["bytes"]:
            raise UserError(
                f"{file}: {stat.st_size:,} bytes, but {entry['bytes']:,} when it was made; "
                f"it was changed or cut short; {remedy}"
            )
        if stat.st_mtime_ns != entry["mtime_ns"] and file_hash(file) != entry["sha256"]:
            raise UserError(f"{file}: its content changed after it was made; {remedy}")
    return found


def partial_path(path: Path) -> Path:
    """Where the artifact of `path` is while it is made."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def discard(path: Path) -> None:
    """Remove what an unfinished `make` of `path` left, for builders that start over and have no use for it."""
    partial = partial_path(path)
    _remove(partial)
    _remove(partial.with_name(f"{partial.name}.key"))


def make(path: Path, inputs: dict, build: Callable[[Path], dict], remedy: str) -> tuple[dict, bool]:
    """(manifest, whether it was built now) of the artifact at `path`, made from `inputs`.

    `build(folder or file)` writes under a temporary name that survives a kill, so that a builder which can
    resume finds its earlier work there; work on other inputs is thrown away first.
    """
    key = digest(inputs)
    partial = partial_path(path)
    key_file = partial.with_name(f"{partial.name}.key")
    if manifest_path(path).exists():
        made = check(path, f"{_removal(path)} and {remedy}")
        if made["key"] == key:
            if key_file.exists() and key_file.read_text() == key:  # of a kill after the renaming
                key_file.unlink()
            return made, False
    with _alone(partial):
        return _build(path, partial, key_file, key, build, remedy), True


def _build(
    path: Path, partial: Path, key_file: Path, key: str, build: Callable[[Path], dict], remedy: str
) -> dict:
    """`make` where there is something to make."""
    if not key_file.exists() or key_file.read_text() != key:
        _remove(partial)
        _remove(partial.with_name(f"{partial.name}.work"))
        partial.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(key_file, key)
    if not _is_table(path):
        partial.mkdir(parents=True, exist_ok=True)
    if _is_table(path):
        facts = build(partial)
        _remove(manifest_path(path))
        partial.replace(path)
        made = seal(path, key, facts)
    else:
        # A kill between sealing and renaming leaves a finished artifact under the temporary name.
        if not manifest_path(partial).exists():
            seal(partial, key, build(partial))
        made = check(partial, f"{_removal(partial)} and {remedy}")
        _remove(path)
        partial.replace(path)
    _sync(path.parent)
    key_file.unlink()
    return made


@contextmanager
def _alone(partial: Path) -> Iterator[None]:
    """Hold an artifact's temporary name for this process, however it ends. UserError when another one has it."""
    lock = partial.with_name(f".{partial.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = lock.exists() and os.fstat(handle.fileno()).st_ino == lock.stat().st_ino
        except BlockingIOError:
            same = False
        if not same:
            raise UserError(f"{partial}: another process is making it; wait for it or stop it first")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
