"""Two runs side by side: `make compare A=smol B=reports/smol`.

    records, scores.csv, graded samples of A and of B  ->  tables on the terminal, one HTML page in <runs>/compare/

A and B are names of runs, or folders of reports. A run that is not here, but published, is read from reports/. Scores
are compared question by question where both runs have graded samples of the same questions, which is far more precise;
elsewhere by their intervals alone.
"""

import argparse
import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tinyr1.core import artifact, config, jsonl
from tinyr1.core.config import ROOT, STAGES
from tinyr1.core.errors import UserError, guarded
from tinyr1.evaluate import stats
from tinyr1.evaluate.scores import by_question
from tinyr1.report import scoreboard, states
from tinyr1.report.differences import differences
from tinyr1.report.pages import duration, template, without_paths

RECORD_KEYS = {"params", "seconds", "code", "machine"}
HOW_ASKED = {"samples", "max_tokens"}  # of a benchmark; the other parameters decide which questions it has
PAIRED, UNPAIRED = "question by question", "by their intervals alone"


@dataclass(frozen=True)
class Side:
    """One of the two runs: its name on the page, records by stage, rows of scores.csv, and graded samples if any."""

    name: str
    records: dict[str, dict]
    scores: list[dict]
    graded: pd.DataFrame | None

    @property
    def params(self) -> dict:
        """The parameters that the first of its stages was made from."""
        return next(iter(self.records.values()))["params"]


@dataclass(frozen=True)
class Comparison:
    """What differs between two runs; every table has a column A and a column B."""

    params: pd.DataFrame
    machines: pd.DataFrame
    scores: pd.DataFrame
    durations: pd.DataFrame


def read(name: str) -> Side:
    """The run of this name, or the report in the folder of this name. UserError where there is no record."""
    folder = _folder(name)
    paths = {stage: folder / f"{stage}.json" for stage in STAGES}
    remedy = f"run `make reproduce RUN={name}`"
    records = {s: artifact.read_intact(p, RECORD_KEYS, remedy) for s, p in paths.items() if p.is_file()}
    if not records:
        raise UserError(f"{name}: {folder} holds no record of a stage; give a run or the folder of a report")
    rows, _ = scoreboard.stored_scores(folder, remedy)
    graded = folder.parent / "graded.jsonl"
    return Side(name, records, rows, pd.DataFrame(jsonl.read(graded)) if graded.is_file() else None)


def _folder(name: str) -> Path:
    if "/" in name:
        return ROOT / name
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise UserError(f"{name!r} is neither the name of a run nor a folder of a report; e.g. smol or reports/smol")
    own = config.runs_folder() / name / "report"
    return own if any(own.glob("*.json")) else config.reports_folder() / name


def compare(a: Side, b: Side) -> Comparison:
    """What differs between two runs: parameters, machines, scores and seconds."""
    pairs = [(path, without_paths(x), without_paths(y)) for path, x, y in differences(a.params, b.params)]
    return Comparison(
        params=pd.DataFrame(pairs, columns=["parameter", "A", "B"]).set_index("parameter"),
        machines=_machines(a, b), scores=_scores(a, b), durations=_durations(a, b),
    )  # fmt: skip


def _machines(a: Side, b: Side) -> pd.DataFrame:
    """Code and machine of both runs, a row for each."""

    def told(side: Side, text: Callable[[dict], str]) -> str:
        found = states.distinct(side.records, text)
        return "; ".join(f"{value} ({stages})" if stages else value for value, stages in found)

    rows = {"code": states.commit_text, "machine": states.machine_text}
    return pd.DataFrame({"A": {n: told(a, t) for n, t in rows.items()}, "B": {n: told(b, t) for n, t in rows.items()}})


def _durations(a: Side, b: Side) -> pd.DataFrame:
    """Seconds of the work of each stage; a stage that a run has not finished has none."""
    a_seconds, b_seconds = ({s: sum(e["seconds"].values()) for s, e in x.records.items()} for x in (a, b))
    return pd.DataFrame({"A": a_seconds, "B": b_seconds}, index=list(STAGES), dtype=float).dropna(how="all")


def _scores(a: Side, b: Side) -> pd.DataFrame:
    """A row for each model and benchmark that both have: scores with intervals in percent, B less A in points."""
    ours, theirs = ({(r["model"], r["benchmark"]): r for r in side.scores} for side in (a, b))
    shares = [None if side.graded is None else by_question(side.graded)["share"] for side in (a, b)]
    rows = []
    for key in [key for key in ours if key in theirs]:
        cells = scoreboard.cell(ours[key]), scoreboard.cell(theirs[key])
        if cells[0] is None or cells[1] is None:
            continue
        paired = _paired(shares, key) if same_questions(a, b, key[1]) else None
        difference = paired or _unpaired(ours[key], theirs[key])
        rows.append({
            "model": key[0], "benchmark": key[1],
            **{side: f"{cell['at']:.1f} {cell['interval']}" for side, cell in zip("AB", cells, strict=True) if cell},
            "B less A, points": difference.points(),
            "differs": "yes" if difference.low > 0 or difference.high < 0 else "not shown",
            "compared": PAIRED if paired else UNPAIRED,
        })  # fmt: skip
    columns = ["model", "benchmark", "A", "B", "B less A, points", "differs", "compared"]
    return pd.DataFrame(rows, columns=columns).set_index(["model", "benchmark"])


def same_questions(a: Side, b: Side, benchmark: str) -> bool:
    """Whether two runs asked the same questions of a benchmark: by their parameters, and for questions that this kit
    writes itself also by its commit, or by the key of the stored answers, which holds the questions."""
    if scoreboard.SCORING not in a.records or scoreboard.SCORING not in b.records:
        return False
    entries = [side.records[scoreboard.SCORING] for side in (a, b)]
    blocks = [_benchmarks(entry["params"]).get(benchmark) for entry in entries]
    if blocks[0] is None or blocks[0] != blocks[1]:
        return False
    decisive = [(entry["params"]["seed"], entry["params"]["evaluate"]["split"]) for entry in entries]
    keys = [
        [p.get("responses") for p in entry.get("facts", {}).get("protocols", []) if p["benchmark"] == benchmark]
        for entry in entries
    ]
    written = blocks[0]["kind"] == "miniature"
    same_code = entries[0]["code"] == entries[1]["code"] or (keys[0] == keys[1] != [])
    return decisive[0] == decisive[1] and (same_code or not written)


def _benchmarks(params: dict) -> dict[str, dict]:
    """Benchmarks by name with the parameters that decide which questions they have."""
    blocks = (domain.get("benchmarks", {}) for domain in params.get("domains", {}).values())
    every = {name: block for part in blocks for name, block in part.items()}
    return {name: {k: v for k, v in block.items() if k not in HOW_ASKED} for name, block in every.items()}


def _paired(shares: list[pd.Series | None], key: tuple[str, str]) -> stats.Estimate | None:
    """B less A over the questions of a model and benchmark; None where one run has no graded samples of them."""
    parts = [s[key] for s in shares if s is not None and key in {entry[:2] for entry in s.index}]
    if len(parts) < 2 or set(parts[0].index) != set(parts[1].index):
        return None
    a, b = (part.loc[parts[0].index].to_numpy()[None, :] for part in parts)
    return stats.difference_over([b], [a]).estimate()


def _unpaired(a: dict, b: dict) -> stats.Estimate:
    """B less A from two scores with independent intervals: the squares of their half-widths add up."""
    mean = float(b["pass_at_1"]) - float(a["pass_at_1"])
    half = math.hypot(*((float(row["ci_high"]) - float(row["ci_low"])) / 2 for row in (a, b)))
    return stats.Estimate(mean, mean - half, mean + half)


def write_page(a: Side, b: Side, found: Comparison) -> Path:
    """The comparison as one HTML page in the folder of all runs; returns its path."""
    name = "-against-".join(re.sub(r"[^A-Za-z0-9._-]+", "-", side.name).strip("-.") for side in (a, b))
    path = config.runs_folder() / "compare" / f"{name}.html"
    page = template("compare.html.j2").render(
        a=without_paths(a.name), b=without_paths(b.name), params=found.params.reset_index(),
        machines=found.machines.rename_axis("what").reset_index(), scores=found.scores.reset_index(),
        durations=_readable(found.durations).rename_axis("stage").reset_index(),
    )  # fmt: skip
    artifact.write_atomic(path, page)
    return path


def _readable(durations: pd.DataFrame) -> pd.DataFrame:
    """Seconds as "12 min 34 s"."""
    return durations.map(lambda seconds: "–" if pd.isna(seconds) else duration(seconds))


def main() -> int:
    """Parameters, machines, scores and durations of two runs side by side."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("a", help="name of a run, or the folder of a report")
    parser.add_argument("b", help="another one")
    arguments = parser.parse_args()

    def show() -> None:
        a, b = read(arguments.a), read(arguments.b)
        found = compare(a, b)
        print(f"A is {a.name}, B is {b.name}")
        parts = {"Parameters": found.params, "Machines": found.machines, "Scores, percent": found.scores,
                 "Durations": _readable(found.durations)}  # fmt: skip
        for title, table in parts.items():
            print(f"\n{title}\n{table.to_string(max_colwidth=60) if len(table) else 'nothing differs or is there'}")
        print(f"\nThe page: {write_page(a, b, found)}")

    return guarded(show)


if __name__ == "__main__":
    sys.exit(main())
