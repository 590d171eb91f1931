"""The table of runs in README.md: the plan of each run on the machine that it is meant for, and what was measured.

    params/*.yaml, MACHINES --make_plan, as if nothing were made yet--> a row each \
    reports/<run>/ --stored records--> minutes that were measured                  / -> README.md, at the markers

README.md changes only between `<!-- hardware: any words -->` and `<!-- /hardware -->`, each on its own line. All that
stands there follows from the params files and the published reports, so a test can compare the two.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tinyr1.core import artifact, config
from tinyr1.core.config import Config
from tinyr1.core.errors import UserError, guarded
from tinyr1.plan.estimate import Plan, make_plan
from tinyr1.plan.hardware import GB, KINDS, Machine
from tinyr1.plan.verdict import problems
from tinyr1.plan.words import duration, tokens
from tinyr1.report import readme

CPU = Machine(None, 0, 2, 8 * GB, None, False)
MACHINES = {
    "smoke": CPU,
    "smol": CPU,
    "smol-authors": CPU,
    "try-1.5b": Machine(KINDS["H100-80GB"], 1, 2, None, None, False),
    "r1-1.5b": Machine(KINDS["H100-80GB"], 1, 2, None, None, False),
    "verify-r1-distill-1.5b": Machine(KINDS["H100-80GB"], 1, 2, None, None, False),
    "verify-r1-distill-32b": Machine(KINDS["H100-80GB"], 4, 2, None, None, False),
    "verify-tinyr1-32b": Machine(KINDS["H100-80GB"], 4, 2, None, None, False),
    "paper": Machine(KINDS["H800-80GB"], 32, 2, None, None, False),
}
COLUMNS = ("run", "what it is", "planned on", "tokens to train on", "time by the plan", "GPU hours", "memory", "disk",
           "measured")  # fmt: skip
MARKED = re.compile(r"(<!-- hardware:[^\n]*-->\n).*?(<!-- /hardware -->)", re.DOTALL)


class Unstarted(Config):
    """A run of which nothing is made yet, whatever this machine has of it."""

    @property
    def home(self) -> Path:
        return Path(os.devnull) / self.run


def table() -> str:
    """The table as Markdown, a run each, small ones first; params files of a user's own are not in it."""
    rows = [_row(name, machine) for name, machine in MACHINES.items()]
    return "".join(f"| {' | '.join(row)} |\n" for row in (COLUMNS, ["---"] * len(COLUMNS), *rows))


def with_table(text: str) -> str:
    """README text with the table between its markers. UserError where it has none."""
    if not MARKED.search(text):
        raise UserError("README.md: has no line `<!-- hardware: … -->`; add it where the table of runs belongs")
    made = table()
    return MARKED.sub(lambda match: f"{match[1]}{made}{match[2]}", text)


def _row(name: str, machine: Machine) -> list[str]:
    cfg = config.load(name)
    plan = make_plan(Unstarted(run=cfg.run, params=cfg.params), machine)
    if unfit := problems(plan):
        raise UserError(f"{name}: the run does not fit {machine}: {unfit[0].why}; name another machine in {__name__}")
    return [
        f"`{name}`", cfg.params.description.rstrip("."), str(machine),
        tokens(sum(one.trained_tokens for one in plan.trainings)) if plan.trainings else "none",
        ("" if plan.complete else "at least ") + duration(plan.seconds),
        f"{plan.gpu_hours:,.{0 if plan.gpu_hours >= 10 else 1}f}" if machine.gpu else "none",
        " and ".join(_memory(plan)), f"{plan.disk_need / GB:,.0f} GB", _measured(name),
    ]  # fmt: skip


def _memory(plan: Plan) -> Iterator[str]:
    """What a GPU needs at most, and the main memory of a machine."""
    main = max(stage.main for stage in plan.stages)
    if plan.machine.gpu is None:
        yield f"{main / GB:.0f} GB"
        return
    yield f"{max(stage.memory for stage in plan.stages) / GB:.0f} GB of a GPU"
    yield f"{main / GB:.0f} GB of a node"


def _measured(name: str) -> str:
    """Minutes of the published report of a run, on its machine."""
    folder = config.reports_folder() / name
    stages = config.load(name).stages
    if not all((folder / f"{stage}.json").is_file() for stage in stages):
        return "no report yet"
    records = [json.loads((folder / f"{stage}.json").read_text(encoding="utf-8")) for stage in stages]
    seconds = sum(sum(entry["seconds"].values()) for entry in records)
    gpus = records[-1]["machine"]["gpus"]
    return f"{duration(seconds)} on {', '.join(gpus) or '{} CPU cores'.format(records[-1]['machine']['cores'])}"


def main() -> int:
    """Write the table into README.md, which shows the published reports of reports/ and no others."""

    def write() -> None:
        if config.reports_folder() != config.ROOT / "reports":
            print("README.md stays as it is: it shows reports/, and TINYR1_REPORTS names another folder")
            return
        artifact.write_atomic(readme.README, with_table(readme.README.read_text(encoding="utf-8")))
        print(f"{readme.README} shows the plans of params/")

    return guarded(write)


if __name__ == "__main__":
    sys.exit(main())
