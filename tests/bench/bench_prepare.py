"""`make bench`: what notebook 02 does in its kernel before a model is trained, at the paper's number of rows.

    made-up rows (lognormal lengths, random ids) --RowWriter--> a temporary folder of some 2.5 GB
    jobs, check, plan_table, write_layout of every job, loss_tokens, final_tokens --> seconds and peak memory

The measured part runs in a process of its own, so that its peak memory is not that of writing the rows.
"""

import argparse
import bisect
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
import peers

from tinyr1.branch.sequences import layout
from tinyr1.core import config
from tinyr1.core.prompts import Encoded
from tinyr1.data.tokens import RowWriter, read_tokens

RUN, LONGEST, VOCABULARY, EOS = "paper", 16_384, 150_000, 151_643
ROWS = {"math": (58_000, 7000), "science": (8_600, 5000), "code": (20_000, 8000)}  # rows, median tokens of one
SPREAD = 0.55  # of the logarithm of a length
MOST_SECONDS, MOST_GB = 180, 3.0


def load() -> config.Config:
    """The paper's run on one node, so that no hostfile is needed."""
    cfg = config.load(RUN)
    trainer = cfg.params.trainer.model_copy(update={"hostfile": None})
    return cfg.model_copy(update={"params": cfg.params.model_copy(update={"trainer": trainer})})


def write(cfg: config.Config, share: float) -> int:
    """Rows of the documented lengths; returns the bytes of their ids."""
    rng, written = np.random.default_rng(0), 0
    for domain, (rows, median) in ROWS.items():
        folder = cfg.rows(domain)
        folder.mkdir(parents=True)
        lengths = np.clip(rng.lognormal(np.log(median), SPREAD, round(rows * share)), 300, LONGEST).astype(int)
        with RowWriter(folder) as writer:
            for i, length in enumerate(lengths):
                ids = rng.integers(0, VOCABULARY, length, dtype=np.int32)
                ids[-1] = EOS
                writer.write({"id": f"{domain}-{i}"}, Encoded(ids, 120))
        written += read_tokens(folder).count * 4
    return written


class Decoder:
    """Stands in for a tokenizer."""

    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))


def measure(cfg: config.Config) -> dict:
    """Seconds of each step and the peak memory of this process, in GB."""
    from tinyr1.branch import examples, packing, plan, stage

    seconds, started = {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal started
        seconds[name] = time.perf_counter() - started
        started = time.perf_counter()

    jobs = plan.jobs(cfg)
    plan.check_jobs(cfg, jobs)
    lap("jobs, check")
    plan.plan_table(cfg, jobs)
    lap("plan_table")
    for job in jobs:
        trainer = cfg.params.trainer
        packing.write_layout(cfg.home / f"{job.name}.layout", job.tokens(), trainer.sequence_length, cfg.params.seed)
    lap("write_layout")
    examples.loss_tokens(Decoder(), jobs[0])
    lap("loss_tokens")
    assert stage.final_tokens(jobs) == {EOS}
    lap("final_tokens")
    return {"seconds": seconds, "gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}


def knapsack(lengths: list[int], capacity: int) -> int:
    """Sequences of the way the released framework packs (docs/fidelity.md §2.5): in each of 64 shards, a sequence takes
    the longest sample that still fits until none does."""
    count = 0
    for shard in range(64):
        left = sorted(lengths[shard::64])
        while left:
            count, room = count + 1, capacity
            while at := bisect.bisect_right(left, room):
                room -= left.pop(at - 1)
    return count


def packing_of_peers() -> None:
    """Fill and seconds of the layout of 58,000 rows, beside the released framework's way and TRL's best fit."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(4900), 0.7, ROWS["math"][0]), 200, LONGEST).astype(int).tolist()
    peer = """
import json, sys, time
from datasets import Dataset
from trl import pack_dataset
lengths, capacity = json.load(sys.stdin)
data = Dataset.from_dict({"input_ids": [[0] * n for n in lengths]})
started = time.perf_counter()
packed = pack_dataset(data, capacity, strategy="bfd")
print("RESULT", len(packed), time.perf_counter() - started)
"""
    given = json.dumps([lengths, LONGEST])
    said = subprocess.run([peers.python(), "-c", peer], input=given, check=True, stdout=subprocess.PIPE, text=True)
    theirs = said.stdout.split("RESULT")[1].split()
    found = {"TRL, best fit decreasing": (int(theirs[0]), float(theirs[1]))}
    for name, work in (("this kit", lambda: len(layout(lengths, LONGEST, 42))),
                       ("the released framework's way", lambda: knapsack(lengths, LONGEST))):  # fmt: skip
        started = time.perf_counter()
        found[name] = (work(), time.perf_counter() - started)
    for name, (sequences, seconds) in found.items():
        fill = 100 * sum(lengths) / (sequences * LONGEST)
        print(f"packing {len(lengths):,} rows, {name}: {fill:.2f} % full, {seconds:.2f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the paper's number of rows")
    parser.add_argument("--measure", action="store_true", help="the rows are there: the part that is measured")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(load())))
        return 0
    with tempfile.TemporaryDirectory() as name:
        os.environ["TINYR1_HOME"] = name
        written = write(load(), arguments.share)
        words = [sys.executable, __file__, "--measure"]
        found = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)
    total = sum(found["seconds"].values())
    steps = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in found["seconds"].items())
    print(f"preparation of stage 02 for {written / 1e9:.1f} GB of tokens: {total:.1f} s, peak {found['gb']:.2f} GB")
    print(f"    {steps}")
    packing_of_peers()
    return int(total > MOST_SECONDS or found["gb"] > MOST_GB)


if __name__ == "__main__":
    sys.exit(main())
