"""What was found of a run's needs, as text for the terminal: what is missing stands last, with what to do."""

import textwrap

from tinyr1.core.config import STAGES
from tinyr1.core.needs import MISSING, STATES, WARNING, Finding
from tinyr1.plan.words import WIDTH

STATE = max(map(len, STATES)) + 2


def text(run: str, stages: list[str], found: list[Finding]) -> str:
    """The table of a run. stages: those that have work left."""
    if not stages:
        return f"run {run}: every stage is finished, and nothing is needed"
    column = 2 + max(len(_stages(one)) for one in found)
    rows = [
        line for state in STATES for one in found if one.state == state
        for line in _row(one, STATE + column)
    ]  # fmt: skip
    head = f"{'state':{STATE}}{'stages':{column}}what"
    return "\n".join([f"run {run}, work left in {', '.join(stages)}", "", head, *rows, "", _sum(run, found)])


def _row(one: Finding, indent: int) -> list[str]:
    """A finding: one line where that is enough, else lines that are indented behind the columns."""
    start = f"{one.state:{STATE}}{_stages(one):{indent - STATE}}"
    lines = f"{one.what}: {one.said}".splitlines()
    wrapped = [part for line in lines for part in textwrap.wrap(line, WIDTH - indent - 2, break_long_words=False)]
    return [f"{start}{wrapped[0]}", *(f"{' ' * (indent + 2)}{line}" for line in wrapped[1:])]


def _stages(one: Finding) -> str:
    """The numbers of the stages that need it."""
    return "all" if one.stages == STAGES else " ".join(stage[:2] for stage in one.stages)


def _sum(run: str, found: list[Finding]) -> str:
    missing, doubts = (sum(one.state == state for one in found) for state in (MISSING, WARNING))
    if missing:
        return f"{missing} of {len(found)} are missing: `make reproduce RUN={run}` would refuse to start"
    return f"nothing is missing{f', {doubts} in doubt' if doubts else ''}: `make reproduce RUN={run}` can start"
