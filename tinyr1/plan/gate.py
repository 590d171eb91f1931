"""The plan before a run: its short form, and a refusal where the run cannot be carried out on this machine.

    Config --make_plan, problems--> short form, printed     problems and no FORCE=1 --> UserError, nothing was touched
"""

import os

from tinyr1.core.config import Config
from tinyr1.core.errors import UserError
from tinyr1.plan import hardware, tables
from tinyr1.plan.estimate import make_plan
from tinyr1.plan.verdict import grouped, problems
from tinyr1.plan.words import wrapped

FORCE = "FORCE"  # environment variable, or word of `make`: 1 starts all the same


def forced() -> bool:
    """Whether a person wants a run to start that does not fit."""
    return os.environ.get(FORCE) == "1"


def pass_gate(cfg: Config) -> None:
    """Print the short form of a run's plan for this machine. UserError lists what does not fit, unless FORCE is 1."""
    try:
        plan = make_plan(cfg, hardware.here())
    except UserError as error:  # the size of the model is unknown; a plan is no reason not to run
        print(f"no plan of {cfg.run}: {error}", flush=True)
        return
    found = problems(plan)
    print(tables.short(plan, found), flush=True)
    if found and not forced():
        lines = (line for change, whys in grouped(found).items() for line in (*whys, f"  -> {change}"))
        told = wrapped("\n".join(f"  {line}" for line in lines))
        raise UserError(
            f"run {cfg.run} cannot be carried out on this machine:\n{told}\n"
            f"`make plan RUN={cfg.run}` shows the figures, also for other machines; FORCE=1 starts all the same"
        )
