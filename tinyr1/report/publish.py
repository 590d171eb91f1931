"""Copies the report of a finished run to `reports/<run>/` and its scores into README.md: `make publish RUN=smol`.

    runs/<run>/report/*.html .json .csv .png  -- without paths of this machine -->  reports/<run>/
    scores.csv and the stages' records        -- a table in Markdown ----------->  README.md, at the run's marker

Each file is replaced atomically, so after a kill it is either the old or the new one, and the same command finishes
the publication. README.md changes only where it has a marker with the name of the run.
"""

import argparse
import re
import sys
from pathlib import Path

from tinyr1.core import artifact, config, record
from tinyr1.core.config import STAGES, Config
from tinyr1.core.errors import UserError, guarded
from tinyr1.core.recipe import describe
from tinyr1.report import index
from tinyr1.report.pages import without_paths

README = config.ROOT / "README.md"


def publish(cfg: Config) -> list[Path]:
    """Publish the report of a run; returns the folder, and README.md where it shows this run.

    UserError where a stage is not finished, stages do not belong together, or a page or column of scores is missing.
    """
    _require_whole(cfg)
    index.write_index(cfg)
    text = README.read_text(encoding="utf-8")
    shown = with_results(text, cfg)
    folder = config.reports_folder() / cfg.run
    files = [*index.report_files(cfg.reports), cfg.reports / "index.html"]
    for file in files:
        artifact.write_atomic(folder / file.name, _without_machine(file, cfg))
    names = {file.name for file in files}
    stale = [p for p in index.report_files(folder) if p.name not in names]
    for file in [*stale, *folder.glob(".*.tmp")]:  # and what a killed publication left half-written
        file.unlink()
    if shown == text:
        return [folder]
    artifact.write_atomic(README, shown)
    return [folder, README]


def _require_whole(cfg: Config) -> None:
    """All stages are finished as the page of the run shows them, and each has its page; UserError otherwise."""
    for row in index.stage_rows(cfg):
        if row["status"] != "finished":
            why = f" ({row['note']})" if row["note"] else ""
            raise UserError(f"run {cfg.run}: {row['name']} is {row['status']}{why}; {cfg.remedy('reproduce')} first")
        if row["html"] is None:
            raise UserError(f"{cfg.reports}/{row['name']}.html: missing; {cfg.remedy('reproduce')} first")
    rows, problem = index.stored_scores(cfg)
    if problem or not rows:
        raise UserError(problem or f"{cfg.reports}/scores.csv: missing or empty; {cfg.remedy(index.SCORING)}")


def _without_machine(file: Path, cfg: Config) -> bytes:
    """Content of a file of the report; in text, without paths of this machine."""
    content = file.read_bytes()
    return content if file.suffix == ".png" else without_paths(content.decode(), cfg.home.parent).encode()


def with_results(readme: str, cfg: Config) -> str:
    """README text with the table of this run between its markers made again; unchanged where it has no such markers.

    The markers are `<!-- results of RUN: any words -->` and `<!-- /results -->`, each on its own line.
    """
    pattern = rf"(<!-- results of {re.escape(cfg.run)}:[^\n]*-->\n).*?(<!-- /results -->)"
    if not re.search(pattern, readme, re.DOTALL):
        return readme
    records = {stage: record.read(cfg, stage) for stage in STAGES}
    parts = (_score_lines(cfg), records[STAGES[-1]]["facts"]["headline"], _made_by(records) + _merge_orders(cfg))
    made = "\n\n".join(parts)
    return re.sub(pattern, lambda match: f"{match[1]}{made}\n{match[2]}", readme, flags=re.DOTALL)


def _score_lines(cfg: Config) -> str:
    """scores.csv as a Markdown table: models down, benchmarks across, percent with 95 % intervals."""
    rows, _ = index.stored_scores(cfg)
    table = index.score_grid(rows, _score_text, lambda row: f"{row['n_problems']} questions × {row['n_samples']}")
    heads = ["model", *(", ".join(column) for column in table["columns"])]
    lines = [heads, ["---"] * len(heads), *([model, *cells] for model, cells in table["rows"])]
    return "\n".join(f"| {' | '.join(text or '–' for text in line)} |" for line in lines)


def _score_text(row: dict) -> str:
    value, low, high = (100 * float(row[column]) for column in ("pass_at_1", "ci_low", "ci_high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _made_by(records: dict[str, dict]) -> str:
    """What the numbers are, and which commits on how many cores made them in how many minutes."""
    minutes = sum(sum(entry["seconds"].values()) for entry in records.values()) / 60
    scored = {stage: records[stage] for stage in STAGES[:-1]}  # the last stage only reads the scores
    commits = [f"{text} ({where})" if where else text for text, where in index.distinct(scored, index.commit_text)]
    return (
        f"pass@1 in percent with 95 % question-clustered intervals; made by {' and '.join(commits)} on "
        f"{records[index.SCORING]['machine']['cores']} cores, {minutes:.0f} minutes of work inside the notebooks, "
        "their start and rendering not counted."
    )


def _merge_orders(cfg: Config) -> str:
    """In which order each merged model fuses its experts; "" in a run without fusion."""
    orders = [f"`{name}` is {describe(merge)}" for name, merge in cfg.merges.items() if merge.method == "fusion"]
    return f" Order of the fusion steps, base last: {', '.join(orders)}." if orders else ""


def main() -> int:
    """Copy the report of a finished run to reports/<run>/, and its scores into README.md."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("run", help="name of a file in params/, without .yaml")
    name = parser.parse_args().run

    def write() -> None:
        for path in publish(config.load(name)):
            print(f"written: {path}")

    return guarded(write)


if __name__ == "__main__":
    sys.exit(main())
