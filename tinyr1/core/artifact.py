r"""Artifacts: files and folders that are complete or absent, whatever kills the process that makes them.

    make(path, inputs, build)
      key = digest(inputs)
       |-- manifest at `path` has this key ----> check its files ------------------------------------> (manifest, False)
       \-- no manifest, or another key --------> take the lock of <path>.partial
             |-- <path>.partial was begun with this key: keep it, so that `build` can resume
             \-- begun with another key: remove it
           build(<path>.partial) -> facts --> seal: flush, hash, write the manifest --> rename --> (manifest, True)

An artifact is made under a temporary name, flushed to disk, and renamed when it is complete. Its manifest,
`artifact.json` in a folder or `<file>.artifact.json` beside a file, says from which inputs it was made (`key`), what
identifies the result (`content`), and the size and SHA-256 of each of its files. An artifact without a manifest is not
finished and never used. So a kill at any moment leaves the old artifact, none, or the new one, and the same command
goes on from there.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyr1.core.errors import UserError

MANIFEST = "artifact.json"
# Two facts that a builder may return for `seal`, which keeps neither of them in the manifest:
HASHED = "sha256"  # name -> SHA-256 of files that the builder hashed while it wrote them
ASIDE = "aside"  # names of files that say how the artifact was made (seconds, paths) and not what was made
MANIFEST_KEYS = {"key", "content", "files", "facts"}  # a manifest that lacks one was cut short or changed by hand


def digest(value: object) -> str:
    """SHA-256 of a value that JSON can hold, as hexadecimal digits; the order of its keys does not matter."""
    text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits. OSError when the file is cut short while it is read."""
    # Without a buffer, because file_digest brings one of its own.
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        result = hashlib.file_digest(file, "sha256")
        # The hash of half a file would be taken for that of a whole one.
        if file.tell() < size:
            raise OSError(f"{path}: cut short while it was hashed; another program works in that folder")
    return result.hexdigest()


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that it is there completely or not at all, even after a power cut. Text becomes UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps two processes that write the same file from writing into one temporary file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())
        file.flush()
        # Bytes first, name second: a file system may store a rename before the bytes that it points to.
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    # A rename is on the disk only when the folder that holds the name is.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def manifest_path(path: Path) -> Path:
    """Where the manifest of an artifact is: inside a folder, beside a file."""
    return path.with_name(f"{path.name}.{MANIFEST}") if _is_table(path) else path / MANIFEST


def _is_table(path: Path) -> bool:
    # The path of an artifact that does not exist yet has to tell, so the suffix decides and not the disk.
    return path.suffix == ".jsonl"


def seal(path: Path, key: str, facts: dict) -> dict:
    """Flush an artifact's files, hash them and write its manifest, last. The manifest.

    key: digest of the inputs. facts: what the builder says of the artifact; HASHED and ASIDE are taken out.
    The manifest's `content` identifies what was made: it is a hash of all files but those that facts[ASIDE] names, so
    that two trainings with the same result are one branch, however long they took.
    """
    root = path.parent if path.is_file() else path
    known, aside = facts.get(HASHED, {}), facts.get(ASIDE, ())
    files = {}
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if not file.is_file() or file.name == MANIFEST:
            continue
        # A link points to a file of somebody else, such as the hub's cache, which may be read-only.
        if not file.is_symlink():
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())
        stat, name = file.stat(), str(file.relative_to(root))
        sha256 = known.get(name) or file_hash(file)
        files[name] = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256}
    content = {
        "key": key,
        "content": digest({name: entry["sha256"] for name, entry in files.items() if name not in aside}),
        "files": files,
        "facts": {name: fact for name, fact in facts.items() if name not in (HASHED, ASIDE)},
    }
    write_atomic(manifest_path(path), json.dumps(content, indent=1))
    return content


def manifest(path: Path, remedy: str = "") -> dict:
    """The manifest of an artifact, without a look at its files. UserError where it is missing or damaged.

    remedy: what a person shall do then, as the end of a sentence; removing the artifact where nothing is given.
    """
    file = manifest_path(path)
    remedy = remedy or f"{_removal(path)} and make it again"
    if not file.is_file():
        raise UserError(f"{path}: not there, or never finished (no {file.name}); {remedy}")
    return read_intact(file, MANIFEST_KEYS, remedy)


def read_intact(path: Path, keys: set[str], remedy: str) -> dict:
    """The JSON object in a file that is there. UserError, ending in `remedy`, where it is not one with these keys."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # broken JSON, or broken UTF-8
        raise UserError(f"{path}: damaged, it is not valid JSON ({error}); {remedy}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: damaged, it is no JSON object; {remedy}")
    if absent := sorted(keys - value.keys()):
        raise UserError(f"{path}: damaged, it has no {', '.join(absent)}; {remedy}")
    return value


def _removal(path: Path) -> str:
    # A table lies beside its manifest, and either of the two may be the damaged one or the missing one: -f.
    return f"remove it (rm -f {path} {manifest_path(path)})" if _is_table(path) else f"remove it (rm -r {path})"


def check(path: Path, remedy: str) -> dict:
    """The manifest of a finished artifact, after a check that its files are as they were made.

    UserError names the file, the rule that it breaks, and the remedy.
    """
    listed = manifest(path, remedy)
    root = manifest_path(path).parent
    for name, entry in listed["files"].items():
        file = root / name
        if not file.is_file():
            raise UserError(f"{file}: deleted after it was made; {remedy}")
        stat = file.stat()
        if stat.st_size != entry["bytes"]:
            raise UserError(
                f"{file}: {stat.st_size:,} bytes, but {entry['bytes']:,} when it was made; "
                f"it was changed or cut short; {remedy}"
            )
        # Hashing 60 GB of weights takes minutes, and a file that only was copied or touched is still the same: so the
        # hash decides, and only where the time stamp gives a reason to ask.
        if stat.st_mtime_ns != entry["mtime_ns"] and file_hash(file) != entry["sha256"]:
            raise UserError(f"{file}: its content changed after it was made; {remedy}")
    return listed


def partial_path(path: Path) -> Path:
    """The temporary name under which the artifact of `path` is made."""
    # The suffix stays the last part, because it tells a table from a folder.
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def _key_path(partial: Path) -> Path:
    # It lies beside the unfinished work and says from which inputs that was begun.
    return partial.with_name(f"{partial.name}.key")


def begun_from_others(path: Path, inputs: dict) -> bool:
    """Whether unfinished work of `make` is there that was begun from other inputs, which `make` would remove."""
    key_file = _key_path(partial_path(path))
    return key_file.exists() and key_file.read_text() != digest(inputs)


def discard(path: Path) -> None:
    """Remove the unfinished work of an earlier `make` of `path`, for builders that cannot resume."""
    _remove(partial_path(path))
    _remove(_key_path(partial_path(path)))


def remove(path: Path) -> None:
    """Remove a finished artifact with what an unfinished `make` of it left."""
    manifest_path(path).unlink(missing_ok=True)  # first: a kill after it leaves something unfinished, not damaged
    _remove(path)
    discard(path)


def make(path: Path, inputs: dict, build: Callable[[Path], dict], remedy: str) -> tuple[dict, bool]:
    """(manifest, whether it was built now) of the artifact at `path`, made from `inputs`.

    inputs: everything that determines the result, and nothing else. build: makes the artifact in the folder, or as the
    file, that it is given, and returns facts for the manifest; it finds its own earlier work there after a kill, and an
    empty folder or no file otherwise. UserError when a finished artifact was damaged (`remedy` says which command makes
    it again), and while another process makes this one.
    """
    key, partial = digest(inputs), partial_path(path)
    key_file = _key_path(partial)
    if manifest_path(path).exists():
        finished = check(path, f"{_removal(path)} and {remedy}")
        if finished["key"] == key:
            # A kill between the renaming and the end of `_build` leaves this file.
            if key_file.exists() and key_file.read_text() == key:
                key_file.unlink()
            return finished, False
    with _alone(partial):
        if not key_file.exists() or key_file.read_text() != key:
            _remove(partial)
            _remove(partial.with_name(f"{partial.name}.work"))
            partial.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(key_file, key)
        finished = (_build_table if _is_table(path) else _build_folder)(path, partial, key, build, remedy)
        _sync(path.parent)
        # Last: with this file gone, a rerun takes what lies under the temporary name for work on other inputs.
        key_file.unlink()
    return finished, True


def _build_table(path: Path, partial: Path, key: str, build: Callable[[Path], dict], remedy: str) -> dict:
    facts = build(partial)
    # The manifest lies beside the table and cannot be renamed together with it. Without the old one, a kill here leaves
    # a table that counts as unfinished; with it, one that counts as damaged.
    _remove(manifest_path(path))
    partial.replace(path)
    return seal(path, key, facts)


def _build_folder(path: Path, partial: Path, key: str, build: Callable[[Path], dict], remedy: str) -> dict:
    partial.mkdir(parents=True, exist_ok=True)
    # A kill between sealing and renaming leaves a finished artifact under the temporary name.
    if not manifest_path(partial).exists():
        seal(partial, key, build(partial))
    finished = check(partial, f"{_removal(partial)} and {remedy}")
    # A folder cannot be renamed onto one with files. A kill here leaves the new artifact under the temporary name.
    _remove(path)
    partial.replace(path)
    return finished


@contextmanager
def _alone(partial: Path) -> Iterator[None]:
    """Hold an artifact's temporary name for this process, however it ends. UserError while another one holds it."""
    # Here, because it takes 30 ms and most commands find their artifacts finished.
    from filelock import FileLock, Timeout

    partial.parent.mkdir(parents=True, exist_ok=True)
    # The kernel drops the lock when the process ends; a soft lock, which is only a file, would stay after a kill.
    lock = FileLock(partial.with_name(f".{partial.name}.lock"), fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise UserError(f"{partial}: another process is making it; wait for it or stop it first") from error
    try:
        yield
    finally:
        # filelock leaves the file, which would puzzle people in their folders. It goes while the lock is held: filelock
        # gives up a lock on a file that was removed before it got it, so two processes never hold one name.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
