"""The plan before a run: its short form, and a refusal where the run cannot be carried out on this machine.

    Config --make_plan, problems--> short form, printed     problems and no FORCE=1 --> UserError, nothing was touched
    the plan of a run that starts --remember--> plan.json in its report folder, which its page sets beside what it took
"""

import json
import os

from tinyr1.core import artifact
from tinyr1.core.config import Config
from tinyr1.core.errors import UserError
from tinyr1.plan import hardware, tables
from tinyr1.plan.estimate import Plan, make_plan
from tinyr1.plan.hardware import GB
from tinyr1.plan.verdict import grouped, problems
from tinyr1.plan.words import wrapped
from tinyr1.report.states import PLANNED

FORCE = "FORCE"  # environment variable, or word of `make`: 1 starts all the same


def forced() -> bool:
    """Whether a person wants a run to start that does not fit."""
    return os.environ.get(FORCE) == "1"


def pass_gate(cfg: Config) -> Plan | None:
    """Print the short form of a run's plan for this machine, and return the plan; None where there can be none.

    UserError lists what does not fit, unless FORCE is 1.
    """
    try:
        plan = make_plan(cfg, hardware.here())
    except UserError as error:  # the size of the model is unknown; a plan is no reason not to run
        print(f"no plan of {cfg.run}: {error}", flush=True)
        return None
    found = problems(plan)
    print(tables.short(plan, found), flush=True)
    if found and not forced():
        lines = (line for change, whys in grouped(found).items() for line in (*whys, f"  -> {change}"))
        told = wrapped("\n".join(f"  {line}" for line in lines))
        raise UserError(
            f"run {cfg.run} cannot be carried out on this machine:\n{told}\n"
            f"`make plan RUN={cfg.run}` shows the figures, also for other machines; FORCE=1 starts all the same"
        )
    return plan


def remember(cfg: Config, plan: Plan) -> None:
    """Store what the plan says of each stage that has work left: seconds, their source, the memory of a
    rank, and the main memory of all processes.

    What an earlier plan said of a stage that is finished by now stays.
    """
    path = cfg.reports / PLANNED
    planned = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for stage in plan.stages:
        if stage.seconds:
            planned[stage.name] = {
                "seconds": round(stage.seconds), "source": stage.source, "memory_gb": round(stage.memory / GB, 1),
                "main_memory_gb": round(stage.main / GB, 1),
            }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    artifact.write_atomic(path, json.dumps(planned, indent=1) + "\n")
