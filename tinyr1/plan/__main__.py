"""What a run takes, on this machine or on another: `make plan RUN=r1-1.5b`.

    python -m tinyr1.plan r1-1.5b                                          on this machine
    python -m tinyr1.plan smol --probe                                     the same, its speed measured first
    python -m tinyr1.plan paper --gpus 32 --gpu H800-80GB --price 2.02     on another one
"""

import argparse
import math
import sys

from tinyr1.core import config
from tinyr1.core.errors import UserError, guarded
from tinyr1.plan import hardware, hours, tables
from tinyr1.plan.estimate import make_plan, probed
from tinyr1.plan.verdict import problems


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tinyr1.plan", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", help="name of a file in params/, without .yaml")
    parser.add_argument("--gpus", type=int, help="GPUs of all nodes together; 0: a CPU; default: those of this machine")
    parser.add_argument("--gpu", help=f"kind of GPU: {', '.join(hardware.KINDS)}; default: that of this machine")
    parser.add_argument("--price", type=float, help="dollars for one GPU hour; default: no money is worked out")
    parser.add_argument("--mfu", type=float, default=hours.MFU, help="share of a GPU's peak in training; %(default)s")
    parser.add_argument("--probe", action="store_true", help="measure how fast this machine trains, for half a minute")
    parser.add_argument("--short", action="store_true", help="the few lines that `make reproduce` begins with")
    return guarded(lambda: show(parser.parse_args()))


def show(arguments: argparse.Namespace) -> int:
    """Print the plan; the exit status is 1 where it does not fit."""
    check(arguments)
    cfg = config.load(arguments.run)
    if arguments.gpus is None and arguments.gpu is None:
        machine = hardware.here(arguments.price)
    else:
        machine = hardware.named(arguments.gpu, 1 if arguments.gpus is None else arguments.gpus, arguments.price)
    plan = make_plan(cfg, machine, arguments.mfu)
    if arguments.probe:
        plan = probed(plan)
    found = problems(plan)
    print(tables.short(plan, found) if arguments.short else tables.whole(plan, found))
    return 1 if found else 0


def check(arguments: argparse.Namespace) -> None:
    """UserError for a number that says nothing."""
    if arguments.gpus is not None and arguments.gpus < 0:
        raise UserError(f"--gpus {arguments.gpus}: is below 0; give the number of GPUs")
    if arguments.price is not None and not (math.isfinite(arguments.price) and arguments.price > 0):
        raise UserError(f"--price {arguments.price}: is not above 0; give the dollars of one GPU hour")
    if not 0 < arguments.mfu <= 1:
        raise UserError(f"--mfu {arguments.mfu}: is not above 0 and at most 1; give a share of the peak such as 0.4")


if __name__ == "__main__":
    sys.exit(main())
