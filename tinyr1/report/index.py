"""Writes `index.html` of a run, and the `README.md` beside it: what was found, how sure it is, and what made it.

    records, claims.json, scores.csv, figures, rendered notebooks in runs/<run>/report/  ->  index.html, README.md

The pages are made from stored files only, so they can be written at any moment of a run; a part whose data is not there
yet says so. Like the pages that it links, the index opens offline, from a file.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from tinyr1.core import artifact, config
from tinyr1.core.config import STAGES, Config
from tinyr1.report import ablation_lines, claims, folder_readme, roles, scoreboard, states, verdicts, verification
from tinyr1.report.differences import differences
from tinyr1.report.pages import ANCHOR, template, without_paths

REPORT_SUFFIXES = (".html", ".json", ".csv", ".png", ".svg", ".md")  # of the files that make up a report
PICTURES = (".png", ".svg")
PAPER = "paper"  # the run that the parameters of every run are compared with
RUNNING = r'data-stage="(\w+)" data-status="running"'  # finds the row of the stage that the page shows as running
# The figures that carry conclusions, in the order of the page: what is drawn, and how to read it.
FIGURES = {
    "figure_1": "Each bar is the share of right answers of one model on one benchmark, its line the 95 % interval. "
    "Whether two models differ is not for the lines to say: the paired differences below tell, with their correction.",
    "claims": "Each line is the 95 % interval of the difference that one claim is about, in points, the diamond the "
    "paper's own difference, and the shaded band holds what counts as similar. A coloured line is decided, after the "
    "correction for the number of comparisons; a grey one may be chance, even where it keeps clear of zero.",
    "ablations": "Each line is the 95 % interval of a model's score less that of the control above it, in points. "
    "Only a star marks a difference that is decided; a line without one does not show that its change matters.",
    "gains": "Each line is the 95 % interval of a model's gain over the backbone, question by question, in points. "
    "A line that keeps clear of zero speaks for a gain or a loss, before any correction for the number of lines.",
    "comparison_matrix": "Each cell is the score of the model in its row less that of the model in its column, in "
    "points. A star marks the pairs that differ after the correction for their number; other cells may be chance.",
}

# Those of a verification run, which has one model.
OF_ONE_MODEL = {
    "outcomes": "How the answers to each benchmark ended. Answers that were cut off, or have nothing to grade, are "
    "the first thing to look at where a score is lower than the published one.",
    "answer_lengths": "How long the answers are, in tokens: the box holds the middle half of them, its line the "
    "median.",
}


def write_index(
    cfg: Config,
    running: str | None = None,
    failures: Mapping[str, str] | None = None,
    interrupted: str | None = None,
) -> Path:
    """Write the page of a run, and its README.md, from what its report folder holds; the path of the page.

    running: the stage that is being run now. interrupted: the stage that was left half-way. failures: stage -> error
    message of each stage that failed. These three count more than the record of an earlier, successful run. The page
    links only pages that exist, so render a notebook first.
    """
    stages = states.stage_rows(cfg, {running: "running", interrupted: "interrupted"}, failures or {})
    records = {s["name"]: s["record"] for s in stages if s["record"]}
    rows, problem = scoreboard.stored_scores(cfg.reports, cfg.remedy(scoreboard.SCORING))
    published = [row for row in rows if row["paper"] not in ("", "nan")]
    items, drawn = verdicts.stored_claims(cfg.reports), figures(cfg.reports, cfg)
    folder_readme.write(cfg, headline(records), items, rows, drawn)
    files = [(p.name, f"{max(1, round(p.stat().st_size / 1000)):,} kB") for p in report_files(cfg.reports)]
    page = template("verification.html.j2" if cfg.params.verification else "index.html.j2").render(
        cfg=cfg,
        stages=stages,
        finished=sum(s["status"] == "finished" for s in stages),
        total=sum(s["seconds"] for s in stages if s["status"] == "finished"),
        headline=headline(records),
        claims=items,
        verdicts=verdicts,
        measured=claims.ours,
        seeds=claims.over_seeds(cfg),
        models=roles.model_roles(cfg),
        benchmarks=roles.benchmark_roles(cfg),
        more=roles.ablation_roles(cfg),
        scored=next(stage for stage in stages if stage["name"] == scoreboard.SCORING),
        problem=problem,
        ours=scoreboard.score_grid(rows, scoreboard.cell, scoreboard.size),
        chance=scoreboard.chance_levels(rows),
        paper=scoreboard.score_grid(published, scoreboard.paper_cell, lambda row: ""),
        figures=drawn,
        compared=_compared(rows, verification.stored(cfg.reports)),
        protocol=_protocol(cfg, records.get(scoreboard.SCORING)),
        meanings=verification.VERDICTS,
        ablations=ablation_lines.lines(cfg),
        codes=states.distinct(records, states.commit_text),
        machines=states.distinct(records, states.machine_text),
        changes=changes_to_paper(cfg),
        params=without_paths(_yaml(cfg)),
        hashes=_hashes(records),
        files=[file for file in files if not file[0].endswith(PICTURES)],
        pictures=[file for file in files if file[0].endswith(PICTURES)],
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


def headline(records: Mapping[str, dict]) -> str | None:
    """The sentence that the last stage found; None before it is finished."""
    last = records.get(STAGES[-1])
    return last["facts"].get("headline") if last else None


def changes_to_paper(cfg: Config) -> list[tuple[str, str, str]] | None:
    """(parameter, value in params/paper.yaml, value in this run) where they differ; None without params/paper.yaml."""
    if PAPER not in config.runs():
        return None
    paper, own = (c.params.model_dump(mode="json", by_alias=True) for c in (config.load(PAPER), cfg))
    return [(path, without_paths(a), without_paths(b)) for path, a, b in differences(paper, own)]


def _compared(rows: list[dict], items: list[dict]) -> list[dict]:
    """The items of a verification run, each with its row of scores.csv and its place on a scale from 0 to 100 %."""
    by_benchmark = {row["benchmark"]: row for row in rows}
    return [
        item | {"row": by_benchmark[item["benchmark"]], "cell": scoreboard.cell(by_benchmark[item["benchmark"]]),
                "asked": verification.asked_text(item["n"], item["k"]), "less_text": verification.less_text(item),
                "detail": item["words"].partition(" (")[2].removesuffix(")")}
        for item in items if item["benchmark"] in by_benchmark
    ]  # fmt: skip


def _protocol(cfg: Config, scored: dict | None) -> tuple[list[str], list[list[str]]] | None:
    """(columns, rows) of the protocol of a verification run; None for other runs, and before it is evaluated."""
    if scored is None or not cfg.params.verification:
        return None
    table = verification.protocol(cfg, scored["facts"]["protocols"], scored["facts"]["sources"])
    return list(table.columns), [[str(rule), *cells] for rule, cells in zip(table.index, table.to_numpy(), strict=True)]


def _hashes(records: Mapping[str, dict]) -> list[tuple[str, str, str]]:
    """(stage, path, first twelve digits of the hash) of every stage and of every artifact that it made."""
    rows = []
    for stage, entry in records.items():
        rows.append((stage, "its parameters and inputs", entry["key"][:12]))
        rows += [(stage, item["path"], item["content"][:12]) for item in entry["artifacts"].values()]
    return rows


def figures(folder: Path, cfg: Config) -> list[tuple[str, str, str]]:
    """(name, file, how to read it) of the figures that carry conclusions and are there; SVG where there is one."""
    shown = []
    for name, text in (OF_ONE_MODEL if cfg.params.verification else FIGURES).items():
        files = [f"{name}{suffix}" for suffix in (".svg", ".png") if (folder / f"{name}{suffix}").is_file()]
        shown += [(name.replace("_", " "), file, text) for file in files[:1]]
    return shown


def _yaml(cfg: Config) -> str:
    params = cfg.params.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return yaml.safe_dump(params, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)


def report_files(folder: Path) -> list[Path]:
    """The files of a report beside its index.html, by name; notebooks do not belong to it, their pages do."""
    files = (p for p in folder.glob("*") if p.suffix in REPORT_SUFFIXES and p.name != "index.html")
    return sorted(p for p in files if p.is_file() and not p.name.startswith("."))
