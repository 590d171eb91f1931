"""What tests/hosts/test_hosts.py runs on the first of its hosts: check | meet | train, for a run in TINYR1_HOME.

    python tests/hosts/drive.py train WORK      WORK holds start/ and rows/, which the test has made
"""

import sys
from pathlib import Path

from tinyr1.branch import hosts, plan, stage
from tinyr1.core import config
from tinyr1.core.errors import guarded


def main() -> int:
    what, work = sys.argv[1], Path(sys.argv[2])
    cfg = config.load("hosts")
    if what == "check":
        print(hosts.check(cfg, False).to_string())
    elif what == "meet":
        plan.meet(cfg, False)
        print("all have met")
    else:
        rows = ((work / "rows", slice(0, None)),)
        job = plan.Job("math", work / "start", rows, cfg.params.domains["math"].sft, "domains.math.sft")
        print(stage.train_job(cfg, job, False)["steps"])
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, "interrupted"))
