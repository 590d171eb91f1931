"""The record that ends each stage: what it made, from what, with which code, on which machine, in how many seconds."""

import ast
import json
import subprocess
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tinyr1.core import machine
from tinyr1.core.artifact import check, digest, file_hash, read_intact, write_atomic
from tinyr1.core.config import ROOT, STAGES, Config
from tinyr1.core.errors import UserError
from tinyr1.core.params import Params

# What a record holds at the least; one without it was cut short or changed by hand.
RECORD_KEYS = {"key", "notebook", "finished", "code", "machine", "params", "seconds", "artifacts"}


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


def record_path(cfg: Config, stage: str) -> Path:
    return cfg.reports / f"{stage}.json"


def write(
    cfg: Config, stage: str, artifacts: dict[str, Path], facts: dict, seconds: dict[str, float],
    tables: Sequence[str] = (),
) -> dict:  # fmt: skip
    """End a stage: its record, atomically. artifacts: name -> path of what it made; tables: its files in reports."""
    remedy = cfg.remedy(stage)
    entry = {
        "stage": stage,
        "run": cfg.run,
        "key": stage_key(cfg, stage),
        "notebook": notebook_hash(stage),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "code": code_version(),
        "machine": machine.describe(),
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
    """The record of a finished stage; UserError says which command makes it where it is missing or damaged."""
    path, remedy = record_path(cfg, stage), cfg.remedy(stage)
    if not path.is_file():
        raise UserError(f"{path}: missing; {remedy}")
    return read_intact(path, RECORD_KEYS, remedy)


def require(cfg: Config, stage: str) -> dict:
    """The record of an earlier stage, after checking that everything it made is still there."""
    entry = read(cfg, stage)
    remedy = cfg.remedy(stage)
    if entry["key"] != stage_key(cfg, stage):
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


def determines(params: Params, stage: str) -> dict:
    """The parameters that decide what a stage makes, beside what the stages before it made."""
    p = params.model_dump(mode="json")
    domains = p["domains"].items()
    distill = p["backbone"].get("distill") or {}
    return {
        "01_data_curation": {
            **{key: p[key] for key in ("seed", "curate")}, "split": p["evaluate"]["split"],
            "backbone": [p["backbone"][key] for key in ("model", "revision", "chat_template")],
            "domains": {name: {k: v for k, v in block.items() if k != "sft"} for name, block in domains},
        },
        "02_branch_sft": {
            "trainer": p["trainer"], "mixture": p["mixture"], "distill": distill,
            "sft": {name: block["sft"] for name, block in domains},
        },
        "03_fusion_merge": {"merge": p["merge"]},
        "04_evaluation": {"evaluate": p["evaluate"]},
        "05_ablations": {},
    }[stage]  # fmt: skip


def stage_key(cfg: Config, stage: str) -> str:
    """Hash of what determines a stage: its parameters and what the stage before it made."""
    i = STAGES.index(stage)
    before = read(cfg, STAGES[i - 1]) if i else {"key": "", "artifacts": {}}
    made = {name: item["content"] for name, item in before["artifacts"].items()}
    return digest([stage, determines(cfg.params, stage), before["key"], made])


def notebook_hash(stage: str) -> str:
    """Hash of a notebook's cells by kind and source: running and saving it in JupyterLab changes neither."""
    notebook = json.loads((ROOT / "notebooks" / f"{stage}.ipynb").read_text(encoding="utf-8"))
    return digest([[cell["cell_type"], "".join(cell["source"])] for cell in notebook["cells"]])


def source_hash(*parts: str) -> str:
    """Hash of what some modules and folders of the package do: of their syntax trees, without docstrings and comments.

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
    """Git commit, whether the tree differs from it, and a hash of the package's own source."""
    source = {str(p.relative_to(ROOT)): file_hash(p) for p in sorted((ROOT / "tinyr1").rglob("*.py"))}

    def git(*words: str) -> str:
        result = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        return result.stdout.strip()

    changed = git("status", "--porcelain", "--", "tinyr1", "notebooks", "params", "requirements.txt")
    return {"commit": git("rev-parse", "HEAD") or "unknown", "modified": bool(changed), "source": digest(source)}
