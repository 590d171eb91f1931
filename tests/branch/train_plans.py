"""Trains by several plans, each by one process or more: what tests/branch/test_ranks.py starts.

    python tests/branch/train_plans.py tasks.json

tasks.json holds a list of tasks: ranks, plans (of tinyr1.branch.train), chunk (target tokens whose logits exist at the
same time), factor (by which the loss is multiplied), stop (the optimizer step after which each training is broken off;
null: none), kills (how often the one rank is killed at a random moment, 0: never). One import serves all of them, as it
takes longer than the trainings.
"""

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from random import Random

os.environ |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}

import torch
import torch.distributed as dist

from tinyr1.branch import causal_lm, monitor, train
from tinyr1.core import jsonl, launch, machine


def rank(number: int, port: int, task: dict) -> None:
    """One rank: trains by all plans, one after another."""
    own = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": task["ranks"], "LOCAL_WORLD_SIZE": task["ranks"]}
    os.environ |= {name: str(value) for name, value in (own | {"MASTER_PORT": port}).items()}

    class Stopping(monitor.StepLog):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop |= state.global_step == task["stop"]
            time.sleep(0.03 if task.get("kills") else 0)  # so that a kill meets a training in the middle

    class Multiplied(train.PackedTrainer):
        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs) * task["factor"]

    launch.die_with_parent()
    causal_lm.LOSS_CHUNK, monitor.StepLog, train.PackedTrainer = task["chunk"], Stopping, Multiplied
    torch.set_num_threads(1)
    for plan in task["plans"]:
        train.fine_tune(plan)
    dist.destroy_process_group()


def together(task: dict) -> None:
    """Runs the ranks of a task to their end."""
    os.environ[launch.PARENT] = f"{os.getpid()}@{os.uname().nodename}"
    port = machine.free_port()
    context = multiprocessing.get_context("fork")
    for number in range(task.get("kills", 0)):
        kill_one(context.Process(target=rank, args=(0, port, task)), Path(task["plans"][0]["out"]), Random(number))
    group = [context.Process(target=rank, args=(number, port, task)) for number in range(task["ranks"])]
    for process in group:
        process.start()
    for process in group:
        process.join()
    if any(process.exitcode for process in group):
        sys.exit(f"{task['ranks']} ranks ended with {[process.exitcode for process in group]}")


def kill_one(process: multiprocessing.Process, out: Path, rng: Random) -> None:
    """Start a rank and kill it: four times of five some time after its next step, else while it starts."""
    log = out / "log.jsonl"
    before = log.stat().st_size if log.exists() else 0
    process.start()
    deadline = time.monotonic() + 60
    while rng.random() < 0.999 and (log.stat().st_size if log.exists() else 0) <= before:  # a chance to kill earlier
        if time.monotonic() > deadline or not process.is_alive():
            sys.exit("the training did not begin again, or came to its end before it was killed")
        time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.5))
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    print(f"killed with {len(jsonl.read(log))} steps in the log, checkpoint {monitor.last_checkpoint(out)}", flush=True)


if __name__ == "__main__":
    for task in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        together(task)
