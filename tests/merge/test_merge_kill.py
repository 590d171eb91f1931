"""kill -9 of a merge at fifty random moments, then the same command: the bytes of an undisturbed merge."""

import json
import subprocess
import sys

import pytest
import torch
from checkpoints import Shape, experts

from tinyr1.core.config import ROOT

pytestmark = pytest.mark.slow
KILLS = 50
# A process that has everything imported and compiled forks the merges, so that a kill falls into the merge and not
# into its start. It compiles on tensors in memory: no thread ever runs in the process that forks.
FORKS = """
import json, os, random, shutil, signal, sys, time
from pathlib import Path
import torch
from tinyr1.core import artifact
from tinyr1.merge import __main__ as merge, fusion_blocks, method

torch.set_num_threads(1)
method.merge_tensors(fusion_blocks.Fusion(), tuple(torch.randn(2, 64, 64).bfloat16()))

folder, kills = Path(sys.argv[1]), int(sys.argv[2])
experts = [word for name in ("math", "science", "code") for word in (f"--{name}", str(folder / "in" / name))]

def start(out):
    child = os.fork()
    if child == 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")
        sys.argv = ["merge", *experts, "--out", str(out), "--threads", "2"]
        os._exit(merge.main())
    return child

def finish(out):
    return os.waitstatus_to_exitcode(os.waitpid(start(out), 0)[1])

def result(out):
    return {p.name: artifact.file_hash(p) for p in sorted(out.iterdir()) if p.name != "artifact.json"}

PHASES = ["before", "weights", "merge.jsonl", "config.json", "artifact.json", "result, key left", "result"]

def phase(out):
    '''How far a merge came: nothing yet, weights, files beside them, a sealed folder, or the result.'''
    partial = artifact.partial_path(out)
    try:
        names = set(os.listdir(partial))
    except FileNotFoundError:  # not begun, or at this moment renamed: then it is found under its final name
        names = set()
    if out.exists():
        return "result, key left" if partial.with_name(partial.name + ".key").exists() else "result"
    for name in ("artifact.json", "config.json", "merge.jsonl"):
        if name in names:
            return name
    return "weights" if names else "before"

assert finish(folder / "first") == 0
def timed(out):
    began = time.perf_counter()
    code = finish(out)
    return code, time.perf_counter() - began

def until(child, out, wanted):
    '''Wait until a merge came as far as `wanted`, or is over.'''
    while PHASES.index(phase(out)) < PHASES.index(wanted):
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.0002)

_, whole = timed(folder / "timed")
expected, rng, outcomes = result(folder / "first"), random.Random(5), []
while sum(o["killed"] for o in outcomes) < kills and len(outcomes) < 2 * kills:
    i = len(outcomes)
    out = folder / f"killed-{i}"
    child = start(out)
    if i % 3 == 2:  # into the end, where files are written beside the weights, sealed and renamed
        until(child, out, rng.choice(PHASES[2:]))
        time.sleep(rng.uniform(0, 0.002))
    else:  # spread over the whole time
        time.sleep(rng.random() * whole)
    os.kill(child, signal.SIGKILL)
    killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    was = phase(out)
    if out.exists():  # under the final name there is nothing or everything
        assert result(out) == expected and merge.verify(out) == [], f"{out}: half a result"
    if was in ("config.json", "artifact.json"):  # what would load is complete, under the temporary name too
        left = result(artifact.partial_path(out))
        for name in [n for n in left if n.startswith(".artifact.json.")]:  # a seal that was cut short; nothing reads it
            del left[name]
        assert left | {"config.json": 0} == expected | {"config.json": 0}, f"{out}: loads and is not whole"
    code, seconds = timed(out)
    if was != "result":
        whole = seconds  # the machine's speed changes; a merge starts over, so this one was whole
    names = sorted(p.name for p in folder.glob(f"killed-{i}*"))
    outcomes.append({"killed": killed, "phase": was, "code": code, "names": names,
                     "same": result(out) == expected and merge.verify(out) == []})
    shutil.rmtree(out)  # a hundred results would take 5 GB
print(json.dumps({"seconds": whole, "outcomes": outcomes}))
"""


def test_a_killed_merge_gives_the_bytes_of_an_undisturbed_one(tmp_path):
    shape = Shape(dtype=torch.bfloat16, layers=4, hidden=512, intermediate=2048, vocabulary=8000)
    experts(tmp_path / "in", shape)
    command = [sys.executable, "-c", FORKS, str(tmp_path), str(KILLS)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1200)
    assert process.returncode == 0, process.stderr[-3000:]
    measured = json.loads(process.stdout.splitlines()[-1])
    outcomes = measured["outcomes"]
    phases = [o["phase"] for o in outcomes if o["killed"]]
    print(f"{measured['seconds']:.2f} s a merge; killed in: { {p: phases.count(p) for p in sorted(set(phases))} }")
    assert not [o for o in outcomes if o["code"] != 0 or not o["same"]]
    beside = [o["names"] for i, o in enumerate(outcomes) if o["names"] != [f"killed-{i}"]]
    assert not beside, "a result must be alone"
    assert len(phases) == KILLS, "the merge was over before most kills"
    assert {"before", "weights"} < set(phases), phases
    assert len(set(phases)) >= 4, "of the phases of the end, two at least"


# Dies before call number 1, 2, … of a function of `os` in a merge, then merges again.
DIES = """
import json, os, signal, sys
from pathlib import Path
import torch
from tinyr1.core import artifact
from tinyr1.merge import __main__ as merge, fusion_blocks, method, writer

torch.set_num_threads(1)
method.merge_tensors(fusion_blocks.Fusion(), tuple(torch.randn(2, 64, 64).bfloat16()))
writer.PIECE = 4096  # many writes of a small model
folder, step = Path(sys.argv[1]), sys.argv[2]
experts = [word for name in ("math", "science", "code") for word in (f"--{name}", str(folder / "in" / name))]

def run(out, at):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    real, left = getattr(os, step), [at]
    def dying(*args, **more):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **more)
    setattr(os, step, dying)
    sys.stdout = sys.stderr = open(os.devnull, "w")
    sys.argv = ["merge", *experts, "--out", str(out)]
    os._exit(merge.main())

assert run(folder / "whole", 0) == 0
expected, outcomes = artifact.check(folder / "whole", "")["content"], []
for at in range(1, 200):
    out = folder / f"out-{at}"
    code = run(out, at)
    if code == 0:
        break
    half = out.exists() and artifact.check(out, "")["content"] != expected
    again = run(out, 0)
    outcomes.append([code, half, again, artifact.check(out, "")["content"] == expected,
                     sorted(p.name for p in folder.glob(f"out-{at}*")) == [out.name]])
print(json.dumps(outcomes))
"""


@pytest.mark.parametrize(("step", "least"), [("fsync", 10), ("replace", 4), ("unlink", 1), ("pwrite", 15)])
def test_a_merge_that_dies_at_every_step(tmp_path, step, least):
    """The moments that a timer rarely hits: before each flush, renaming, removal and write of a merge, one by one."""
    experts(tmp_path / "in", Shape(layers=3))
    command = [sys.executable, "-c", DIES, str(tmp_path), step]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert process.returncode == 0, process.stderr[-3000:]
    outcomes = json.loads(process.stdout.splitlines()[-1])
    assert len(outcomes) >= least, f"{len(outcomes)} calls of {step}"
    assert {tuple(o) for o in outcomes} == {(-9, False, 0, True, True)}, outcomes
