r"""What a stage needs before it works: each need is asked for by the function that the stage itself calls.

    data, branch, merge, evaluate: needs of a run --> Need: what, stages, ask
    Needs --examined: all at once--> Finding: ok, warning or missing, in a sentence --> tinyr1.doctor
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tinyr1.core.errors import UserError

OK, WARNING, MISSING = STATES = ("ok", "warning", "missing")


@dataclass(frozen=True)
class Doubt:
    """The answer about a need without which a run may still succeed: a sentence with what to do."""

    said: str


@dataclass(frozen=True)
class Need:
    """what: a name of a few words. stages: those that need it. ask: gives what is there, in words, or a Doubt, within
    seconds; UserError or OSError where it is missing, with what to do."""

    what: str
    stages: tuple[str, ...]
    ask: Callable[[], str | Doubt]


@dataclass(frozen=True)
class Finding:
    """What was found of a need. state: one of STATES. said: what is there, or what is missing and what to do."""

    state: str
    what: str
    stages: tuple[str, ...]
    said: str


def examined(needs: Iterable[Need]) -> list[Finding]:
    """What was found of each need, in their order; all are asked for at the same time."""
    needs = list(needs)
    with ThreadPoolExecutor(max(1, len(needs))) as threads:
        return list(threads.map(_found, needs))


def _found(need: Need) -> Finding:
    try:
        said = need.ask()
    except (UserError, OSError) as error:
        return Finding(MISSING, need.what, need.stages, str(error))
    if isinstance(said, Doubt):
        return Finding(WARNING, need.what, need.stages, said.said)
    return Finding(OK, need.what, need.stages, said)
