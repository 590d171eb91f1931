"""scores.csv as a run's reports show it: models down, benchmarks across, each score with interval and chance level."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinyr1.core.config import SCORE_COLUMNS
from tinyr1.report.pages import without_paths

SCORING = "04_evaluation"  # the stage that writes scores.csv
# The columns of scores.csv without which there is no table.
SHOWN_COLUMNS = ("model", "benchmark", "n_problems", "n_samples", "pass_at_1", "ci_low", "ci_high", "paper")


def stored_scores(folder: Path, remedy: str) -> tuple[list[dict], str | None]:
    """(rows of scores.csv, problem): no rows where they cannot be shown; a problem where columns are missing.

    A table that an earlier version wrote raises no error, because the stage that makes it again writes this page first.
    remedy: what a person does about it, as in "run `make 04_evaluation RUN=smol`".
    """
    path = folder / "scores.csv"
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
        f"remove {without_paths(str(path))} and {remedy}."
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


def size(row: dict) -> str:
    """How many questions a score rests on, and how many answers to each."""
    n, k = (int(float(row[column])) for column in ("n_problems", "n_samples"))
    return f"{n} questions × {k} answer{'' if k == 1 else 's'}"


def cell(row: dict) -> dict | None:
    """A score with its interval, as text and as positions on a scale from 0 to 100 %; None where there is none.

    `chance` is the percentage that guessing gives, None in tables of a version that did not store it, and `by_chance`
    says that the interval of the score does not lie above it.
    """
    if row["pass_at_1"] in ("", "nan"):
        return None
    low, high, value = (100 * float(row[column]) for column in ("ci_low", "ci_high", "pass_at_1"))
    guess = chance(row)
    return {
        "value": f"{value:.1f} %", "interval": f"[{low:.1f}, {high:.1f}]", "at": value, "low": low, "width": high - low,
        "chance": guess, "by_chance": guess is not None and guess > 0 and low <= guess,
    }  # fmt: skip


def chance(row: dict) -> float | None:
    """The percentage of right answers that guessing gives on the benchmark of a row of scores.csv."""
    given = row.get("chance", "")
    return None if given in ("", "nan") else 100 * float(given)


def paper_cell(row: dict) -> dict:
    """A score of the paper, which prints no intervals."""
    return {"value": f"{100 * float(row['paper']):.1f} %", "interval": None}


def chance_levels(rows: list[dict]) -> dict[str, float]:
    """benchmark -> percentage that guessing gives, of the benchmarks where it is stored and more than 0."""
    return {row["benchmark"]: level for row in rows if (level := chance(row))}
