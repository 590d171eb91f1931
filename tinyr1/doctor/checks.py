r"""Everything that a run needs, of all rooms and of the machine.

    machine: packages, folders, memory --\
    data, branch, merge, evaluate: needs --> of the stages that have work left --> `require`: refuses a run
    plan: hours, memory, GPUs; disk ---------> what FORCE=1 passes over ---------> `examine`: these as well
"""

import tempfile
from dataclasses import replace
from functools import partial

from tinyr1 import disk
from tinyr1.branch import needs as branch
from tinyr1.core import config, memory
from tinyr1.core.config import STAGES, Config
from tinyr1.core.errors import UserError
from tinyr1.core.needs import MISSING, WARNING, Doubt, Finding, Need, examined
from tinyr1.data import needs as data
from tinyr1.doctor import pins
from tinyr1.evaluate import needs as evaluate
from tinyr1.merge import needs as merge
from tinyr1.plan import hardware
from tinyr1.plan.estimate import Plan, make_plan
from tinyr1.plan.gate import forced
from tinyr1.plan.hardware import GB
from tinyr1.plan.verdict import grouped, problems
from tinyr1.report import states


def examine(cfg: Config) -> tuple[list[str], list[Finding]]:
    """(the stages that have work left, what was found of everything that they need)."""
    stages = states.left(cfg)
    return stages, merged(examined([*of_plan(cfg), *of(cfg, stages)])) if stages else []


def require(cfg: Config, stages: list[str]) -> None:
    """UserError with a sentence for each thing that these stages need and that is missing; a line on the terminal for
    each doubt. What does not fit the machine is the gate's to say, and the disk is asked by itself."""
    found = merged(examined(of(cfg, stages)))
    for one in found:
        if one.state == WARNING:
            print(f"warning: {one.what}: {one.said}", flush=True)
    if missing := [f"{one.what}: {one.said}" for one in found if one.state == MISSING]:
        raise UserError("\n".join([
            f"run {cfg.run} would not come to its end; missing is:", *missing,
            f"`make doctor RUN={cfg.run}` shows all that was looked at",
        ]))  # fmt: skip


def merged(found: list[Finding]) -> list[Finding]:
    """The findings, those in one that say the same: several files of a benchmark, or all that one server does not
    give."""
    groups: dict[tuple, list[Finding]] = {}
    for one in found:
        key = (one.state, one.said) if one.state == MISSING else (one.state, one.said, one.what)
        groups.setdefault(key, []).append(one)
    return [
        Finding(
            group[0].state, ", ".join(dict.fromkeys(one.what for one in group)),
            tuple(stage for stage in STAGES if any(stage in one.stages for one in group)), group[0].said,
        )
        for group in groups.values()
    ]  # fmt: skip


# --- needs ----------------------------------------------------------------------------------------------------


def of(cfg: Config, stages: list[str]) -> list[Need]:
    """What the machine and the rooms of these stages need, those that FORCE=1 passes over left out."""
    rooms = (*data.needs(cfg), *branch.needs(cfg), *merge.needs(cfg), *evaluate.needs(cfg))
    own = [replace(need, stages=tuple(stage for stage in need.stages if stage in cfg.stages)) for need in rooms]
    return [*of_machine(cfg), *(need for need in own if set(need.stages) & set(stages))]


def of_machine(cfg: Config) -> list[Need]:
    """What every stage needs of the machine."""
    return [
        Need("packages", STAGES, pins.check),
        Need("folder of the run", STAGES, partial(disk.require_writable, cfg)),
        Need("temporary files", STAGES, _temporary),
        Need("memory that is free", STAGES, partial(_free_memory, cfg)),
        Need("folder of reports", (STAGES[-1],), _reports),
    ]


def of_plan(cfg: Config) -> list[Need]:
    """What FORCE=1 passes over: hours, memory and GPUs by the plan of the run, and the disk."""
    return [Need("plan", STAGES, partial(_plan, cfg)), Need("disk", STAGES, partial(_disk, cfg))]


def _temporary() -> str:
    with tempfile.TemporaryDirectory(prefix="tinyr1-"):
        return "can be written"


def _reports() -> str | Doubt:
    try:
        disk.try_to_write(config.reports_folder())
    except OSError as error:
        return Doubt(f"cannot be written ({error.strerror}), which `make publish` needs; set TINYR1_REPORTS to another")
    return "can be written"


def _planned(cfg: Config) -> Plan | None:
    """The plan of a run for this machine; None where the size of its model is unknown."""
    try:
        return make_plan(cfg, hardware.here())
    except UserError:
        return None


def _free_memory(cfg: Config) -> str | Doubt:
    plan, free = _planned(cfg), memory.available()
    if plan is None:
        return f"{free / GB:.1f} GB"
    need = max(stage.main for stage in plan.stages)
    said = f"{free / GB:.1f} GB of {memory.limit() / GB:.1f} GB, the largest stage takes about {need / GB:.1f} GB"
    return said if free >= need else Doubt(f"{said}; end other programs first")


def _plan(cfg: Config) -> str | Doubt:
    plan = _planned(cfg)
    if plan is None:
        return Doubt("the size of the model is unknown before it is here, so memory and hours are, too")
    found = grouped(problems(replace(plan, disk_free=None)))  # the disk has a line of its own
    said = "\n".join(f"{'; '.join(whys)}; {change}" for change, whys in found.items())
    if said and forced():
        return Doubt(said)
    if said:
        raise UserError(said)
    return f"it fits {plan.machine}; `make plan RUN={cfg.run}` shows hours and memory"


def _disk(cfg: Config) -> str | Doubt:
    try:
        return disk.require_disk_space(cfg)
    except UserError as error:
        if forced():
            return Doubt(str(error))
        raise
