"""Lets the ranks of a training find each other before there is anything to lose: `tinyr1.branch.plan.meet` starts it.

    deepspeed --module tinyr1.branch.meeting, one process for each rank --> a sum over all of them, or an error
"""

import argparse
import os
import sys
from datetime import timedelta

import torch
import torch.distributed as dist

from tinyr1.branch import ranks
from tinyr1.core import launch

SECONDS = 60  # in which all ranks have to have met


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--local_rank", type=int, default=-1, help="set by the DeepSpeed launcher")
    parser.parse_args()
    launch.die_with_parent()
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    ranks.connect(timedelta(seconds=SECONDS))
    one = torch.ones(1, device="cuda" if on_gpu else "cpu")
    dist.all_reduce(one)
    if int(one) != dist.get_world_size():
        sys.exit(f"error: the sum over {dist.get_world_size()} ranks is {int(one)}")
    launch.leave()


if __name__ == "__main__":
    main()
