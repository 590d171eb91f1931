"""Copies the report of a finished run to `reports/<run>/` and its scores into README.md: `make publish RUN=smol`.

    runs/<run>/report/*.html .json .csv .md .png .svg  -- without paths of this machine -->  reports/<run>/
    reports/<run>/                                     -- tinyr1.report.readme ---------->  README.md

Each file is replaced atomically, so after a kill it is either the old or the new one, and the same command finishes
the publication.
"""

import argparse
import sys
from pathlib import Path

from tinyr1.core import artifact, config
from tinyr1.core.config import Config
from tinyr1.core.errors import UserError, guarded
from tinyr1.report import index, readme, scoreboard, states
from tinyr1.report.pages import without_paths


def publish(cfg: Config) -> list[Path]:
    """Publish the report of a run; returns the folder, and README.md where it shows this run.

    UserError where a dataset of the hub has no pinned revision, a stage is not finished, stages do not belong
    together, or a page or column of scores is missing.
    """
    _require_pins(cfg)
    _require_whole(cfg)
    index.write_index(cfg)
    folder = config.reports_folder() / cfg.run
    files = [*index.report_files(cfg.reports), cfg.reports / "index.html"]
    for file in files:
        artifact.write_atomic(folder / file.name, _without_machine(file, cfg))
    names = {file.name for file in files}
    stale = [p for p in index.report_files(folder) if p.name not in names]
    for file in [*stale, *folder.glob(".*.tmp")]:  # and what a killed publication left half-written
        file.unlink()
    return [folder, readme.README] if readme.update(cfg.run) else [folder]


def _require_pins(cfg: Config) -> None:
    """UserError where a dataset is not pinned: nobody could make the run again from the newest commit of some day."""
    loose = [
        f"domains.{domain}.sources.{i}.revision"
        for domain, block in cfg.params.domains.items()
        for i, source in enumerate(block.sources or ()) if source.kind == "huggingface" and source.revision is None
    ]  # fmt: skip
    if loose:
        raise UserError(f"{loose[0]}: null is the newest commit of a day; write the one that was read, and run again")


def _require_whole(cfg: Config) -> None:
    """All stages are finished as the page of the run shows them, and each has its page; UserError otherwise."""
    for row in states.stage_rows(cfg):
        if row["status"] != "finished":
            why = f" ({row['note']})" if row["note"] else ""
            raise UserError(f"run {cfg.run}: {row['name']} is {row['status']}{why}; {cfg.remedy('reproduce')} first")
        if row["html"] is None:
            raise UserError(f"{cfg.reports}/{row['name']}.html: missing; {cfg.remedy('reproduce')} first")
    remedy = cfg.remedy(scoreboard.SCORING)
    rows, problem = scoreboard.stored_scores(cfg.reports, remedy)
    if problem or not rows:
        raise UserError(problem or f"{cfg.reports}/scores.csv: missing or empty; {remedy}")


def _without_machine(file: Path, cfg: Config) -> bytes:
    """Content of a file of the report; in text, without paths of this machine."""
    content = file.read_bytes()
    return content if file.suffix == ".png" else without_paths(content.decode(), cfg.home.parent).encode()


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
