"""`index.html` of a run: its stages, scores, figures, parameters and files; and the result table of README.md.

Made from stored artifacts only (records, scores.csv, figures, rendered notebooks). Like the pages it links, it works
offline, from a file.
"""

import argparse
import csv
import re
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from tinyr1.core import artifact, config, record
from tinyr1.core.config import SCORE_COLUMNS, STAGES, Config
from tinyr1.core.errors import UserError, guarded
from tinyr1.report.pages import ANCHOR, first_line, template, without_paths

Table = dict | None
SCORING = "04_evaluation"  # the stage that writes scores.csv
RUNNING = r'data-stage="(\w+)" data-status="running"'  # of a row of the page
# Of scores.csv: without one of these there is no table.
SHOWN_COLUMNS = ("model", "benchmark", "n_problems", "n_samples", "pass_at_1", "ci_low", "ci_high", "paper")


def index(
    cfg: Config, running: str | None = None, failures: dict[str, str] | None = None, interrupted: str | None = None
) -> Path:
    """Write reports/<run>/index.html from what is stored there, and return its path.

    running, interrupted: the stage that is being run now, or was left half-way. failures: stage -> error message of
    the stages that failed; all of them outweigh records of an earlier, successful run. Links lead to pages that
    exist, so render them first.
    """
    failures = failures or {}
    told = {running: "running", interrupted: "interrupted"} | dict.fromkeys(failures, "failed")
    records = {s: entry for s in STAGES if (entry := _entry(cfg, s)) and s not in told}
    stages: list[dict] = []
    for s in STAGES:
        follows = all(before["status"] == "finished" for before in stages)
        status, note = (told[s], None) if s in told else _status(cfg, s, records.get(s), follows)
        stages.append(_stage(cfg, s, status, note, records.get(s), failures.get(s)))
    rows, lacking = _score_rows(cfg)
    published = [row for row in rows if row["paper"] not in ("", "nan")]
    page = template("index.html.j2").render(
        run=cfg.run,
        description=cfg.params.description,
        stages=stages,
        finished=sum(s["status"] == "finished" for s in stages),
        total=sum(s["seconds"] for s in stages if s["status"] == "finished"),
        scored=stages[STAGES.index(SCORING)],
        codes=_distinct(records, lambda r: _code(r["code"])),
        machines=_distinct(records, lambda r: _machine(r["machine"])),
        lacking=lacking,
        ours=_table(rows, _our_cell, _size),
        paper=_table(published, _paper_cell, lambda row: ""),
        figures=_figures(cfg.reports),
        params=without_paths(_yaml(cfg)),
        files=_files(cfg.reports),
        anchor=ANCHOR,
    )
    path = cfg.reports / "index.html"
    artifact.write_atomic(path, page)
    return path


def shown_as_running(cfg: Config) -> str | None:
    """The stage that the page, as it is, says is being run."""
    path = cfg.reports / "index.html"
    found = re.search(RUNNING, path.read_text(encoding="utf-8")) if path.is_file() else None
    return found and found[1]


def _entry(cfg: Config, stage: str) -> dict | None:
    """The record of a stage; None where there is none that can be read: the page is no place to fail."""
    try:
        return record.read(cfg, stage)
    except UserError:
        return None


def _status(cfg: Config, stage: str, entry: dict | None, follows: bool) -> tuple[str, str | None]:
    """(status, why) of a stage by its record. follows: the stages before it are finished.

    What `record.require` would refuse by its key is outdated; the files are not looked at, which a clone has not.
    """
    if entry is None:
        damaged = record.record_path(cfg, stage).is_file()
        return ("outdated", "its record is damaged") if damaged else ("not run", None)
    if not follows:
        return "outdated", "from an earlier run of the stages above"
    if entry["key"] != record.stage_key(cfg, stage):
        return "outdated", "made from other parameters or inputs"
    return "finished", None


def _stage(cfg: Config, stage: str, status: str, note: str | None, entry: dict | None, failure: str | None) -> dict:
    """What the table says about one stage."""
    seconds = entry["seconds"] if entry else {}
    return {
        "name": stage,
        "status": status,
        "note": note,
        "error": None if failure is None else first_line(failure),
        "finished": entry["finished"].replace("T", " ").removesuffix("Z") + " UTC" if entry else None,
        "seconds": sum(seconds.values()) if entry else None,
        "parts": list(seconds.items()),
        "html": f"{stage}.html" if (cfg.reports / f"{stage}.html").is_file() else None,
    }


def _distinct(records: dict[str, dict], text: Callable[[dict], str]) -> list[tuple[str, str]]:
    """(text, stages it holds for), so that a run made by two commits or on two machines says so."""
    stages: dict[str, list[str]] = {}
    for stage, entry in records.items():
        stages.setdefault(text(entry), []).append(stage[:2])
    several = len(stages) > 1
    return [(value, "stages " + ", ".join(names) if several else "") for value, names in stages.items()]


def _code(code: dict) -> str:
    return f"commit {code['commit'][:10]}" + (", with uncommitted changes" if code["modified"] else "")


def _machine(machine: dict) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    return (
        f"{machine['cores']} CPU cores, {machine['memory_gb']} GB memory, {gpus}; "
        f"Python {machine['python']}" + (f", {packages}" if packages else "")
    )


def _score_rows(cfg: Config) -> tuple[list[dict], str | None]:
    """(rows of scores.csv, what it lacks and how to make it again); no rows where they cannot be shown.

    A table of an earlier version is not an error here: the stage that makes it anew begins with this page.
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
    lacking = (
        f"scores.csv has no column {', '.join(missing)}: an earlier version of this kit wrote it; "
        f"remove {without_paths(str(path))} and {cfg.remedy('04_evaluation')}."
    )
    return ([] if set(missing) & set(SHOWN_COLUMNS) else rows), lacking


def _table(rows: list[dict], cell: Callable[[dict], dict | None], note: Callable[[dict], str]) -> Table:
    """Model rows × benchmark columns, in the order of the file; a note stands under each column's name."""
    if not rows:
        return None
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
    """Score and interval in words, and where a 0 to 100 % scale has them."""
    if row["pass_at_1"] in ("", "nan"):
        return None
    low, high, value = (100 * float(row[column]) for column in ("ci_low", "ci_high", "pass_at_1"))
    interval = f"[{low:.1f}, {high:.1f}]"
    return {"value": f"{value:.1f} %", "interval": interval, "at": value, "low": low, "width": high - low}


def _paper_cell(row: dict) -> dict:
    """The paper prints no intervals."""
    return {"value": f"{100 * float(row['paper']):.1f} %", "interval": None}


# In the order of the stages; a figure that is not listed comes last, under its own name.
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


def _figures(folder: Path) -> list[tuple[str, str]]:
    """(file name, caption) of the figures of a run, in the order of CAPTIONS."""
    names = {p.stem for p in folder.glob("*.png")}
    order = [n for n in CAPTIONS if n in names] + sorted(names - set(CAPTIONS))
    return [(f"{name}.png", CAPTIONS.get(name, name.replace("_", " "))) for name in order]


def _yaml(cfg: Config) -> str:
    params = cfg.params.model_dump(mode="json")
    return yaml.safe_dump(params, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)


def _files(folder: Path) -> list[tuple[str, str]]:
    """(name, size) of what is in the folder; executed notebooks are not published, their HTML is."""
    found = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return [
        (p.relative_to(folder).as_posix(), f"{max(1, round(p.stat().st_size / 1000)):,} kB")
        for p in found
        if p.suffix != ".ipynb" and p != folder / "index.html"
    ]


# --- README -------------------------------------------------------------------------------------------------

RESULTS = re.compile(r"(<!-- results:[^\n]*-->\n).*?(<!-- /results -->)", re.DOTALL)


def readme(cfg: Config, text: str) -> str:
    """README text with its result table made anew from the run's scores and record; UserError without them."""
    rows, lacking = _score_rows(cfg)
    if not rows:
        raise UserError(lacking or f"{cfg.reports}: no scores.csv; {cfg.remedy('reproduce')}")
    models, benchmarks = (list(dict.fromkeys(row[key] for row in rows)) for key in ("model", "benchmark"))
    cell = {(row["model"], row["benchmark"]): row for row in rows}
    first = [cell[models[0], b] for b in benchmarks]
    heads = [f"{r['benchmark']}, {r['n_problems']} questions × {r['n_samples']}" for r in first]
    lines = [f"| model | {' | '.join(heads)} |", "|---" * (len(benchmarks) + 1) + "|"]
    for model in models:
        shown = [
            f"{100 * float(r['pass_at_1']):.1f} [{100 * float(r['ci_low']):.1f}, {100 * float(r['ci_high']):.1f}]"
            for r in (cell[model, b] for b in benchmarks)
        ]
        lines.append(f"| {model} | {' | '.join(shown)} |")
    entries = {stage: record.read(cfg, stage) for stage in STAGES}
    total = sum(sum(entry["seconds"].values()) for entry in entries.values())
    before = {stage: entries[stage] for stage in STAGES[:-1]}  # the last stage only reads the scores
    made = " and ".join(f"{code} ({of})" if of else code for code, of in _distinct(before, lambda r: _code(r["code"])))
    cores = entries[STAGES[-2]]["machine"]["cores"]
    note = (
        f"pass@1 in percent with 95 % question-clustered intervals; made by {made} on {cores} cores, {total / 60:.0f} "
        "minutes of work inside the notebooks, their start and rendering not counted. Merges are named by their order, "
        "base last: `math-science-code` is the paper's (math & science) & code."
    )
    table = "\n".join(lines)
    headline = entries[STAGES[-1]]["facts"]["headline"]
    return RESULTS.sub(lambda match: f"{match[1]}{table}\n\n{headline}\n\n{note}\n{match[2]}", text)


def main() -> int:
    """Write the result table into README.md."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("run")
    path = config.ROOT / "README.md"

    def write() -> None:
        text = readme(config.load(parser.parse_args().run), path.read_text(encoding="utf-8"))
        artifact.write_atomic(path, text)

    return guarded(write)


if __name__ == "__main__":
    sys.exit(main())
