"""Writes `index.html` of a run: its stages, scores, figures, parameters and files.

    records, scores.csv, figures, rendered notebooks in runs/<run>/report/  ->  runs/<run>/report/index.html

The page is made from stored files only, so it can be written at any moment of a run. Like the pages that it links, it
opens offline, from a file.
"""

import csv
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tinyr1.core import artifact, record
from tinyr1.core.config import SCORE_COLUMNS, STAGES, Config
from tinyr1.core.errors import UserError
from tinyr1.report.pages import ANCHOR, first_line, template, without_paths

REPORT_SUFFIXES = (".html", ".json", ".csv", ".png")  # of the files that make up a report
SCORING = "04_evaluation"  # the stage that writes scores.csv
RUNNING = r'data-stage="(\w+)" data-status="running"'  # finds the row of the stage that the page shows as running
# The columns of scores.csv without which there is no table.
SHOWN_COLUMNS = ("model", "benchmark", "n_problems", "n_samples", "pass_at_1", "ci_low", "ci_high", "paper")
# Captions of the figures in the order of the stages; a figure that is not listed comes last, under its own name.
CAPTIONS = {
    "curation_funnel": "Where the raw rows of each domain went.",
    "row_lengths": "Tokens in a training row, prompt and response.",
    "training_loss": "Training loss of the backbone, the branches and the data mixture.",
    "selected_share": "Share of the differing weights that a fusion step took, layer by kind of tensor.",
    "winners": "Whose weights the merged model has, where the experts disagree.",
    "importance": "Importance in the middle layer under each reading of fusion, with its threshold.",
    "outcomes": "What became of the answers of each model.",
    "answer_lengths": "Tokens in an answer: median, quartiles and range.",
    "comparison_matrix": "Row model less column model in points; a star where they differ after Holm's correction.",
    "figure_1": "pass@1 of every model with its 95 % interval, the counterpart of the paper's Figure 1.",
    "gains": "Paired gains over the backbone in points, with 95 % intervals.",
}


def write_index(
    cfg: Config,
    running: str | None = None,
    failures: Mapping[str, str] | None = None,
    interrupted: str | None = None,
) -> Path:
    """Write the page of a run from what its report folder holds, and return the path of the page.

    running: the stage that is being run now. interrupted: the stage that was left half-way. failures: stage -> error
    message of each stage that failed. These three count more than the record of an earlier, successful run. The page
    links only pages that exist, so render a notebook first.
    """
    failures = failures or {}
    stages = stage_rows(cfg, {running: "running", interrupted: "interrupted"}, failures)
    records = {s["name"]: s["record"] for s in stages if s["record"]}
    rows, problem = stored_scores(cfg)
    published = [row for row in rows if row["paper"] not in ("", "nan")]
    page = template("index.html.j2").render(
        run=cfg.run,
        description=cfg.params.description,
        stages=stages,
        finished=sum(s["status"] == "finished" for s in stages),
        total=sum(s["seconds"] for s in stages if s["status"] == "finished"),
        scored=stages[STAGES.index(SCORING)],
        codes=distinct(records, commit_text),
        machines=distinct(records, _machine_text),
        problem=problem,
        ours=score_grid(rows, _our_cell, _size),
        paper=score_grid(published, _paper_cell, lambda row: ""),
        figures=_figures(cfg.reports),
        params=without_paths(_yaml(cfg)),
        files=[(p.name, f"{max(1, round(p.stat().st_size / 1000)):,} kB") for p in report_files(cfg.reports)],
        anchor=ANCHOR,
    )
    path = cfg.reports / "index.html"
    artifact.write_atomic(path, page)
    return path


def shown_as_running(cfg: Config) -> str | None:
    """The stage that the page, as it was last written, shows as running; None without a page or such a stage."""
    path = cfg.reports / "index.html"
    match = re.search(RUNNING, path.read_text(encoding="utf-8")) if path.is_file() else None
    return match[1] if match else None


def stage_rows(
    cfg: Config, given: Mapping[str | None, str] | None = None, failures: Mapping[str, str] | None = None
) -> list[dict]:
    """Name, status, note, record, times and page of every stage, as the page shows them.

    given: stage -> status that counts more than the stage's record. failures: stage -> error message.
    """
    failures = failures or {}
    given = dict(given or {}) | dict.fromkeys(failures, "failed")
    rows: list[dict] = []
    for stage in STAGES:
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
            "html": f"{stage}.html" if (cfg.reports / f"{stage}.html").is_file() else None,
        })  # fmt: skip
    return rows


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
    if entry["key"] != record.stage_key(cfg, stage):
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
    """The commit that a record was made by, in ten digits, and whether files differed from it."""
    code = entry["code"]
    return f"commit {code['commit'][:10]}" + (", with uncommitted changes" if code["modified"] else "")


def _machine_text(entry: dict) -> str:
    machine = entry["machine"]
    software = [f"Python {machine['python']}", *(f"{name} {v}" for name, v in machine["packages"].items())]
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    return f"{machine['cores']} CPU cores, {machine['memory_gb']} GB memory, {gpus}; {', '.join(software)}"


def stored_scores(cfg: Config) -> tuple[list[dict], str | None]:
    """(rows of scores.csv, problem): no rows where they cannot be shown; a problem where columns are missing.

    A table that an earlier version wrote raises no error, because the stage that makes it again writes this page first.
    """
    path = cfg.reports / "scores.csv"
    if not path.is_file():
        return [], None
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        columns, rows = reader.fieldnames or [], list(reader)
    missing = [column for column in SCORE_COLUMNS if column not in columns]
    if not missing:
        return rows, None
    problem = (
        f"scores.csv has no column {', '.join(missing)}: an earlier version of this kit wrote it; "
        f"remove {without_paths(str(path))} and {cfg.remedy(SCORING)}."
    )
    return ([] if set(missing) & set(SHOWN_COLUMNS) else rows), problem


def score_grid(rows: list[dict], cell: Callable[[dict], Any], note: Callable[[dict], str]) -> dict[str, list]:
    """Rows of scores.csv with models down and benchmarks across, in the order of the file.

    columns: (benchmark, note) pairs; rows: (model, cells) pairs, where a score that the file does not have is None.
    """
    cells = {(row["model"], row["benchmark"]): cell(row) for row in rows}
    models, benchmarks = (list(dict.fromkeys(key[i] for key in cells)) for i in (0, 1))
    notes = {b: dict.fromkeys(note(row) for row in rows if row["benchmark"] == b) for b in benchmarks}
    return {
        "columns": [(b, " or ".join(notes[b])) for b in benchmarks],
        "rows": [(m, [cells.get((m, b)) for b in benchmarks]) for m in models],
    }


def _size(row: dict) -> str:
    n, k = (int(float(row[column])) for column in ("n_problems", "n_samples"))
    return f"{n} problems × {k} sample{'' if k == 1 else 's'}"


def _our_cell(row: dict) -> dict | None:
    """A score with its interval, as text and as positions on a scale from 0 to 100 %."""
    if row["pass_at_1"] in ("", "nan"):
        return None
    low, high, value = (100 * float(row[column]) for column in ("ci_low", "ci_high", "pass_at_1"))
    interval = f"[{low:.1f}, {high:.1f}]"
    return {"value": f"{value:.1f} %", "interval": interval, "at": value, "low": low, "width": high - low}


def _paper_cell(row: dict) -> dict:
    """A score of the paper, which prints no intervals."""
    return {"value": f"{100 * float(row['paper']):.1f} %", "interval": None}


def _figures(folder: Path) -> list[tuple[str, str]]:
    """(file name, caption) of the figures of a run, in the order of CAPTIONS."""
    names = {p.stem for p in folder.glob("*.png")}
    order = [n for n in CAPTIONS if n in names] + sorted(names - set(CAPTIONS))
    return [(f"{name}.png", CAPTIONS.get(name, name.replace("_", " "))) for name in order]


def _yaml(cfg: Config) -> str:
    params = cfg.params.model_dump(mode="json")
    return yaml.safe_dump(params, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)


def report_files(folder: Path) -> list[Path]:
    """The files of a report beside its index.html, by name; notebooks do not belong to it, their pages do."""
    files = (p for p in folder.glob("*") if p.suffix in REPORT_SUFFIXES and p.name != "index.html")
    return sorted(p for p in files if p.is_file() and not p.name.startswith("."))
