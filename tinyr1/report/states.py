"""The stages of a run as its reports show them: status, times and page of each, from their records."""

import json
from collections.abc import Callable, Mapping

from tinyr1.core import record
from tinyr1.core.config import Config
from tinyr1.core.errors import UserError
from tinyr1.core.record import NO_COMMIT
from tinyr1.report.pages import first_line

PLANNED = "plan.json"  # what `tinyr1.plan.gate.remember` stores in the report folder


def stage_rows(
    cfg: Config, given: Mapping[str | None, str] | None = None, failures: Mapping[str, str] | None = None
) -> list[dict]:
    """Name, status, note, record, times and page of every stage, as the page shows them.

    given: stage -> status that counts more than the stage's record. failures: stage -> error message.
    """
    failures, planned = failures or {}, planned_stages(cfg)
    given = dict(given or {}) | dict.fromkeys(failures, "failed")
    rows: list[dict] = []
    for stage in cfg.stages:
        entry = None if stage in given else _readable_record(cfg, stage)
        follows = all(before["status"] == "finished" for before in rows)
        status, note = (given[stage], None) if stage in given else _status(cfg, stage, entry, follows)
        seconds = entry["seconds"] if entry else {}
        rows.append({
            "name": stage, "status": status, "note": note, "record": entry,
            "error": first_line(failures[stage]) if stage in failures else None,
            "finished": entry["finished"].replace("T", " ").removesuffix("Z") + " UTC" if entry else None,
            "seconds": sum(seconds.values()) if entry else None,
            "parts": list(seconds.items()),
            "planned": planned.get(stage, {}).get("seconds"),
            "memory": memory_text(planned.get(stage, {}), entry),
            "html": f"{stage}.html" if (cfg.reports / f"{stage}.html").is_file() else None,
        })  # fmt: skip
    return rows


def planned_stages(cfg: Config) -> dict[str, dict]:
    """What the plan of the run said of each stage before it ran: seconds, source, memory_gb; {} without a plan."""
    try:
        return json.loads((cfg.reports / PLANNED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def memory_text(planned: Mapping, entry: Mapping | None) -> str:
    """The memory of a stage, planned and measured: of a training rank, then of all processes together; "" where it was
    not measured."""
    entry = entry or {}
    models = entry.get("facts", {}).get("models") or []
    ranks = [model["memory_gb"] for model in models if isinstance(model, dict) and model.get("memory_gb")]
    peak, words = entry.get("peak_memory_gb"), []
    if ranks and planned.get("memory_gb"):
        words.append(f"{planned['memory_gb']:g} GB of memory planned, {max(ranks):.1f} GB measured")
    if peak:
        expected = f"{planned['main_memory_gb']:g} GB planned, " if planned.get("main_memory_gb") else ""
        words.append(f"main memory of all processes: {expected}{peak:.1f} GB measured")
    return "; ".join(words)


def is_fresh(cfg: Config, stage: str) -> bool:
    """Whether the results of a stage are complete and were made from the present parameters and notebook."""
    try:
        entry = record.require(cfg, stage)
    except (UserError, FileNotFoundError):
        return False
    return (cfg.reports / f"{stage}.html").is_file() and entry["notebook"] == record.notebook_hash(stage)


def left(cfg: Config) -> list[str]:
    """The stages that have work left: the first that is not fresh and, as it may make something else, all after it."""
    first = next((i for i, stage in enumerate(cfg.stages) if not is_fresh(cfg, stage)), len(cfg.stages))
    return list(cfg.stages[first:])


def _readable_record(cfg: Config, stage: str) -> dict | None:
    """The record of a stage; None where it is missing or damaged, since the page is to be written all the same."""
    try:
        return record.read(cfg, stage)
    except UserError:
        return None


def _status(cfg: Config, stage: str, entry: dict | None, follows: bool) -> tuple[str, str | None]:
    """(status, reason) of a stage by its record. follows: whether all stages before it are finished.

    A stage is outdated where `record.require` would refuse the key of its record. Unlike `record.require`, this does
    not look at the artifacts, which a clone of the repository does not have.
    """
    if entry is None:
        damaged = record.record_path(cfg, stage).is_file()
        return ("outdated", "its record is damaged") if damaged else ("not run", None)
    if not follows:
        return "outdated", "from an earlier run of the stages above"
    if not record.holds(cfg, stage, entry):
        return "outdated", "made from other parameters or inputs"
    return "finished", None


def distinct(records: Mapping[str, dict], text: Callable[[dict], str]) -> list[tuple[str, str]]:
    """The different texts of some records, each with its stages ("stages 02, 03"), or with "" where all are the same.

    It shows when two commits or two machines made one run. records: stage -> record.
    """
    stages: dict[str, list[str]] = {}
    for stage, entry in records.items():
        stages.setdefault(text(entry), []).append(stage[:2])
    several = len(stages) > 1
    return [(value, "stages " + ", ".join(names) if several else "") for value, names in stages.items()]


def commit_text(entry: dict) -> str:
    """The commit that a record was made by, in ten digits, and whether files differed from it; without a commit, the
    hash of the sources."""
    code = entry["code"]
    if code["commit"] == NO_COMMIT:
        return f"{NO_COMMIT}, sources {code['source'][:10]}"
    return f"commit {code['commit'][:10]}" + (", with uncommitted changes" if code["modified"] else "")


def machine_text(entry: dict) -> str:
    """Cores, memory, GPUs and software of the machine that made a record."""
    machine = entry["machine"]
    software = [f"Python {machine['python']}", *(f"{name} {v}" for name, v in machine["packages"].items())]
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    return f"{machine['cores']} CPU cores, {machine['memory_gb']} GB memory, {gpus}; {', '.join(software)}"
