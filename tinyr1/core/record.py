"""The record that ends each stage. It says what the stage made, from which inputs, with which code, on which machine,
and in how many seconds; a later stage starts only from a record that still holds.

    write:   check every artifact --> <reports of the run>/NN_stage.json, last and in one step
    require: the record --- its key is not that of today's params and inputs, or an artifact changed --> UserError
"""

import ast
import json
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import ClassVar

from pydantic import ValidationError

from tinyr1.core import machine, memory, surroundings
from tinyr1.core.artifact import check, digest, file_hash, read_intact, write_atomic
from tinyr1.core.config import ROOT, Config
from tinyr1.core.errors import UserError
from tinyr1.core.params.schema import Params

NO_COMMIT = "no commit"  # in place of a commit where git knows of none
# A record without one of these keys was cut short or changed by hand.
RECORD_KEYS = {"key", "notebook", "finished", "code", "machine", "params", "seconds", "artifacts"}


class Stopwatch:
    """Measures the seconds between laps, and from its start on the most memory that this process and all that it
    starts hold, for a stage's record. A process works on one stage, so the latest stopwatch is that of its stage."""

    peak: ClassVar[memory.Peak | None] = None

    def __init__(self) -> None:
        if Stopwatch.peak:
            Stopwatch.peak.stop()
        Stopwatch.peak = memory.Peak()
        self.seconds: dict[str, float] = {}
        self.last = time.monotonic()

    def lap(self, name: str) -> None:
        """Store the seconds since the last lap under `name`."""
        now = time.monotonic()
        self.seconds[name] = now - self.last
        self.last = now


def record_path(cfg: Config, stage: str) -> Path:
    """The file of a stage's record."""
    return cfg.reports / f"{stage}.json"


def set_aside(cfg: Config, stage: str) -> None:
    """Take the record of a stage away, so that the stage counts as unfinished; `write` still finds its durations."""
    path = record_path(cfg, stage)
    if path.is_file():
        _before(cfg, stage).parent.mkdir(parents=True, exist_ok=True)
        path.replace(_before(cfg, stage))


def _before(cfg: Config, stage: str) -> Path:
    return cfg.home / "executed" / f"{stage}.before.json"


def _earlier(cfg: Config, stage: str) -> Path:
    """The latest record of a stage: in JupyterLab nobody has set it aside."""
    path = record_path(cfg, stage)
    return path if path.is_file() else _before(cfg, stage)


def _measured(before: Path, entry: dict) -> dict:
    """`seconds` of each part of a stage, and `peak_memory_gb` where it was measured.

    A stage that ran again on the same machine and found its artifacts finished took no time and little memory; what its
    parts cost is what they took when they were made.
    """
    now = entry["seconds"]
    peak = {"peak_memory_gb": round(Stopwatch.peak.stop() / 1e9, 2)} if Stopwatch.peak else {}
    try:
        earlier = json.loads(before.read_text(encoding="utf-8"))
        same = all(earlier["machine"][key] == entry["machine"][key] for key in ("cores", "gpus"))
        made = {name: item["content"] for name, item in earlier["artifacts"].items()}
        seconds, most = earlier["seconds"], earlier.get("peak_memory_gb", 0)
    except (OSError, ValueError, KeyError, TypeError):  # no record, or one that was changed by hand
        return {"seconds": now} | peak
    contents = {name: item["content"] for name, item in entry["artifacts"].items()}
    kept = {
        part for part in now
        if same and (contents == made if part not in contents else contents[part] == made.get(part))
    }  # fmt: skip
    if peak and same and contents == made:
        peak["peak_memory_gb"] = max(peak["peak_memory_gb"], most)
    return {"seconds": {p: max(value, seconds.get(p, 0)) if p in kept else value for p, value in now.items()}} | peak


def write(
    cfg: Config, stage: str, artifacts: dict[str, Path], facts: dict, seconds: dict[str, float],
    tables: Sequence[str] = (),
) -> dict:  # fmt: skip
    """Write the record that ends a stage, in one step, and return it.

    artifacts: name -> path of each artifact that the stage made. facts: numbers that reports show. seconds: of each
    part of the stage. tables: names of the stage's files in the reports folder. UserError when an artifact is not
    finished or damaged.
    """
    remedy = cfg.remedy(stage)
    entry = {
        "stage": stage,
        "run": cfg.run,
        "key": stage_key(cfg, stage),
        "notebook": notebook_hash(stage),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "code": code_version(),
        "machine": machine.describe(),
        "variables": surroundings.recorded(),
        "params": cfg.params.model_dump(mode="json"),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "artifacts": {
            name: {"path": str(path.relative_to(cfg.home)), "content": check(path, remedy)["content"]}
            for name, path in artifacts.items()
        },
        "tables": {name: file_hash(cfg.reports / name) for name in tables},
        "facts": facts,
    }
    entry |= _measured(_earlier(cfg, stage), entry)
    write_atomic(record_path(cfg, stage), json.dumps(entry, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return entry


def read(cfg: Config, stage: str) -> dict:
    """The record of a finished stage. UserError, with the command that makes it, where it is missing or damaged."""
    path, remedy = record_path(cfg, stage), cfg.remedy(stage)
    if not path.is_file():
        raise UserError(f"{path}: missing; {remedy}")
    return read_intact(path, RECORD_KEYS, remedy)


def require(cfg: Config, stage: str) -> dict:
    """The record of an earlier stage, after a check that it still holds: that the params, its inputs, and the files
    that it made are the same. UserError names the difference and the command to run."""
    entry = read(cfg, stage)
    remedy = cfg.remedy(stage)
    if not holds(cfg, stage, entry):
        raise UserError(f"{record_path(cfg, stage)}: made from other parameters or inputs; {remedy}")
    for item in entry["artifacts"].values():
        path = cfg.home / item["path"]
        if check(path, remedy)["content"] != item["content"]:
            raise UserError(f"{path}: not what {stage}.json lists; {remedy}")
    for name, expected in entry.get("tables", {}).items():
        path = cfg.reports / name
        if not path.is_file() or file_hash(path) != expected:
            raise UserError(f"{path}: missing, or not what {stage}.json lists; {remedy}")
    return entry


def determines(params: Mapping, stage: str) -> dict:
    """The parameters that decide the result of a stage, together with the results of earlier stages; nested as in the
    params file.

    params: all parameters, as `as_stored` gives them. Benchmarks decide stage 01 by their
    questions, which no training row may hold, and stage 04 by how they are asked.
    """
    asking = ("samples", "max_tokens")

    def some(block: Mapping, keys: Iterable[str]) -> dict:
        return {key: value for key, value in block.items() if key in keys}

    def rest(block: Mapping, keys: Iterable[str]) -> dict:
        return {key: value for key, value in block.items() if key not in keys}

    p = params
    if p.get("verification") and stage == "04_evaluation":  # no stage before it has looked at model and questions
        return some(p, ["verification", "seed", "backbone", "domains", "evaluate"])
    if stage == "01_data_curation":
        domains = {
            name: rest(domain, ["sft", "benchmarks"])
            | {"benchmarks": {key: rest(benchmark, asking) for key, benchmark in domain["benchmarks"].items()}}
            for name, domain in p["domains"].items()
        }
        return some(p, ["seed", "teacher"]) | {
            "backbone": rest(p["backbone"], ["distill"]), "curate": rest(p["curate"], ["num_proc"]), "domains": domains,
            "evaluate": some(p["evaluate"], ["split"]),
        }  # fmt: skip
    if stage == "02_branch_sft":
        domains = {name: some(domain, ["sft"]) for name, domain in p["domains"].items()}
        backbone = some(p["backbone"], ["distill"])
        return some(p, ["seed", "trainer", "mixture"]) | {"backbone": backbone, "domains": domains}
    if stage == "03_fusion_merge":
        return some(p, ["merge"])
    if stage == "04_evaluation":
        domains = {
            name: {"benchmarks": {key: some(benchmark, asking) for key, benchmark in domain["benchmarks"].items()}}
            for name, domain in p["domains"].items()
        }
        return some(p, ["seed", "evaluate"]) | {"domains": domains}
    return some(p, ["analysis", "ablations"])


def as_stored(params: Params) -> dict:
    """All parameters under the names of a params file."""
    return params.model_dump(mode="json", by_alias=True)


def stage_key(cfg: Config, stage: str) -> str:
    """Hash of everything that determines a stage: its parameters, and the artifacts of the stage before it."""
    return _key(cfg, stage, as_stored(cfg.params))


def _key(cfg: Config, stage: str, params: Mapping) -> str:
    i = cfg.stages.index(stage)
    before: dict = read(cfg, cfg.stages[i - 1]) if i else {"key": "", "artifacts": {}}
    made = {name: item["content"] for name, item in before["artifacts"].items()}
    if stage == cfg.stages[-1]:  # the last stage also shows what `make ablations` has measured by then
        made |= {path.name: file_hash(path) for path in sorted(cfg.reports.glob("ablation*.csv"))}
    return digest([stage, determines(params, stage), before["key"], made])


def holds(cfg: Config, stage: str, entry: Mapping) -> bool:
    """Whether a record was made from the present parameters, and from what the stage before it made.

    A later version of this kit may have parameters that the record does not know. They are null where a params file
    does not use them, and such a file decides what it decided before.
    """
    try:
        known = Params.model_validate(entry["params"], by_alias=True, by_name=True)
    except ValidationError:  # a parameter was renamed or is gone
        return False
    same = determines(as_stored(known), stage) == determines(as_stored(cfg.params), stage)
    written = known.model_dump(mode="json", by_alias=True, exclude_unset=True)  # what the record knows, and no more
    return same and entry["key"] == _key(cfg, stage, written)


def notebook_hash(stage: str) -> str:
    """Hash of the kinds and sources of a notebook's cells, which running and saving it in JupyterLab do not change.

    The cell of parameters does not count: it names the run, and so does the record.
    """
    cells = json.loads((ROOT / "notebooks" / f"{stage}.ipynb").read_text(encoding="utf-8"))["cells"]
    counted = [cell for cell in cells if "parameters" not in cell["metadata"].get("tags", [])]
    return digest([[cell["cell_type"], "".join(cell["source"])] for cell in counted])


def source_hash(*parts: str) -> str:
    """Hash of the behaviour of modules and folders: of their syntax trees, without docstrings and comments.

    parts: paths below tinyr1/, such as "sandbox" or "evaluate/protocol.py".
    """
    files = [file for part in parts for file in _modules(ROOT / "tinyr1" / part)]
    return digest({str(file.relative_to(ROOT)): _syntax(file) for file in files})


def _modules(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _syntax(file: Path) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.dump(tree)


@cache
def code_version() -> dict:
    """Git commit, or NO_COMMIT; whether the tree differs from it; and a hash of the package's own source."""
    source = {str(p.relative_to(ROOT)): file_hash(p) for p in sorted((ROOT / "tinyr1").rglob("*.py"))}
    changed = _git("status", "--porcelain", "--", "tinyr1", "notebooks", "params", "requirements.txt")
    return {"commit": _git("rev-parse", "HEAD") or NO_COMMIT, "modified": bool(changed), "source": digest(source)}


def _git(*words: str) -> str:
    """What git says of this repository; nothing where the program is missing, or the kit came as an archive."""
    # Without this question git would look in the folders above, and name the commit of somebody else's repository.
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        return ""
    done = subprocess.run(
        ["git", *words], cwd=ROOT, env=surroundings.for_child(), capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""
