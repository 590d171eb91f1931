"""Writes the results of a published run into README.md: `make readme RUN=smol`.

    reports/<run>/scores.csv, claims.json, records, figure_1  -- as Markdown -->  README.md, at the run's markers

README.md changes only between `<!-- results of RUN: any words -->` and `<!-- /results -->`, each on its own line. All
that stands there follows from the published report, so a test can compare the two.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from tinyr1.core import artifact, config
from tinyr1.core.config import STAGES
from tinyr1.core.errors import UserError, guarded
from tinyr1.report import folder_readme, scoreboard, states, verdicts

README = config.ROOT / "README.md"
FIGURE = ("figure_1.svg", "figure_1.png")  # the first that is there is shown


def update(run: str) -> bool:
    """Make README.md show the published report of a run; False where it has no markers for this run.

    UserError where the report is not published or not whole.
    """
    text = README.read_text(encoding="utf-8")
    shown = with_results(text, config.reports_folder() / run)
    if shown is None:
        return False
    if shown != text:
        artifact.write_atomic(README, shown)
    return True


def with_results(readme: str, folder: Path) -> str | None:
    """README text with the results of the report in `folder` between the run's markers; None without such markers."""
    pattern = rf"(<!-- results of {re.escape(folder.name)}:[^\n]*-->\n).*?(<!-- /results -->)"
    if not re.search(pattern, readme, re.DOTALL):
        return None
    made = "\n\n".join(_parts(folder))
    return re.sub(pattern, lambda match: f"{match[1]}{made}\n{match[2]}", readme, flags=re.DOTALL)


def _parts(folder: Path) -> list[str]:
    """Headline, verdicts, table, its words, and the figure, as paragraphs."""
    remedy = f"run `make publish RUN={folder.name}`"
    missing = [name for name in ("scores.csv", *(f"{s}.json" for s in STAGES)) if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder / missing[0]}: missing; {remedy}")
    records = {s: json.loads((folder / f"{s}.json").read_text(encoding="utf-8")) for s in STAGES}
    rows, problem = scoreboard.stored_scores(folder, remedy)
    if not rows:
        raise UserError(problem or f"{folder}/scores.csv: holds no scores; {remedy}")
    claims = verdicts.stored_claims(folder)
    parts = [records[STAGES[-1]]["facts"]["headline"], *([folder_readme.verdict_line(claims)] if claims else [])]
    parts += [folder_readme.score_lines(rows), f"{folder_readme.score_note(rows)} {_made_by(records)}"]
    names = [name for name in FIGURE if (folder / name).is_file()]
    alt = "pass@1 of every model on every benchmark of the run, with 95 % intervals"
    return parts + [f"![{alt}](reports/{folder.name}/{name})" for name in names[:1]]


def _made_by(records: dict[str, dict]) -> str:
    """Which commits made the numbers, on how many cores and in how many minutes."""
    minutes = sum(sum(entry["seconds"].values()) for entry in records.values()) / 60
    scored = {stage: records[stage] for stage in STAGES[:-1]}  # the last stage only reads the scores
    commits = [f"{text} ({where})" if where else text for text, where in states.distinct(scored, states.commit_text)]
    return (
        f"Made by {' and '.join(commits)} on {records[scoreboard.SCORING]['machine']['cores']} cores, "
        f"{minutes:.0f} minutes of work inside the notebooks, their start and rendering not counted."
    )


def main() -> int:
    """Write the results of a published run into README.md."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("run", help="name of a folder in reports/")
    run = parser.parse_args().run

    def write() -> None:
        if not update(run):
            raise UserError(f"README.md: has no line `<!-- results of {run}: … -->`; add it where the results belong")
        print(f"{README} shows reports/{run}")

    return guarded(write)


if __name__ == "__main__":
    sys.exit(main())
