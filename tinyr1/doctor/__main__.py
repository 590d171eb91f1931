"""What a run needs and whether it is here: `make doctor RUN=smol`; without a run, the machine for a bug report.

    python -m tinyr1.doctor smol     a table with ok, warning and missing; exit status 1 where something is missing
    python -m tinyr1.doctor          versions, processor, memory, isolation
"""

import argparse
import sys

from tinyr1.core import config, surroundings
from tinyr1.core.errors import guarded
from tinyr1.core.needs import MISSING
from tinyr1.doctor import checks, describe, table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tinyr1.doctor", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", nargs="?", default="", help="name of a file in params/, without .yaml")
    run = parser.parse_args().run
    return guarded(lambda: examine(run) if run else print(describe.text()))


def examine(run: str) -> int:
    """Print the table of a run; the exit status."""
    surroundings.check()
    cfg = config.load(run)
    stages, found = checks.examine(cfg)
    print(table.text(run, stages, found))
    return int(any(one.state == MISSING for one in found))


if __name__ == "__main__":
    sys.exit(main())
