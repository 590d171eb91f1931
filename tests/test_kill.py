"""kill -9 of any process of a run, then the same command: it finishes, and repeats no finished work."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from kit import WHOLE_RUN

from tinyr1.core import jsonl
from tinyr1.core.config import ROOT

pytestmark = pytest.mark.slow
PROCESSES = (
    "tinyr1.run", "ipykernel_launcher", "deepspeed.launcher", "tinyr1.branch.train", "tinyr1.merge",
    "tinyr1.sampling.process",
)  # fmt: skip


def family(home: Path) -> list[tuple[int, str]]:
    """(pid, command) of every process that works on the run stored under `home`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes()
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if f"TINYR1_HOME={home}".encode() in environment and any(p in command for p in PROCESSES):
                found.append((int(entry.name), command))
    return found


def start(env: dict, log: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "tinyr1.run", "smoke"]
    with log.open("a") as file:
        return subprocess.Popen(command, env=env, cwd=ROOT, stdout=file, stderr=file)


def finished(home: Path) -> dict[Path, int]:
    """Time stamps of the weights of finished checkpoints."""
    walked = os.walk(home)  # a folder of unfinished work may go while this looks
    folders = [Path(folder) for folder, _, names in walked if "artifact.json" in names and ".partial" not in folder]
    return {f: f.stat().st_mtime_ns for folder in folders for f in folder.glob("*.safetensors")}


def kill_one(home: Path, rng: random.Random) -> str | None:
    """Kill a random process of the run; its command, or None when the run is over."""
    while victims := family(home):
        pid, command = rng.choice(victims)
        try:
            os.kill(pid, signal.SIGKILL)
            return command
        except ProcessLookupError:
            continue  # it ended by itself
    return None


def ends(process: subprocess.Popen, seconds: float) -> bool:
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def test_a_run_survives_kills_at_random_moments(tmp_path):
    home, log = tmp_path / "runs", tmp_path / "terminal.txt"
    env = os.environ | {"TINYR1_HOME": str(home)}
    rng, killed = random.Random(3), []
    for _ in range(5):
        process = start(env, log)
        deadline = time.monotonic() + rng.uniform(15, 45)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.2)
        before = finished(home)
        command = kill_one(home, rng)
        if command is None:
            break
        while not ends(process, 30):  # the victim had done its work and was about to end, and the run went on
            before, command = finished(home), kill_one(home, rng) or command
        killed.append(command.split()[-2:])
        deadline = time.monotonic() + 120  # orphans notice that their parent is gone, once they have imported torch
        while family(home) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert not family(home), f"left running after killing {command}: {family(home)}"
        after = finished(home)
        assert before.items() <= after.items(), f"finished work was touched after killing {command}"
    assert len(killed) >= 3, "the run ended before it was killed often enough to show anything"
    kept = finished(home)
    last = start(env, log)
    assert last.wait(timeout=WHOLE_RUN) == 0, f"killed {killed}\n{log.read_text()[-3000:]}"
    assert kept.items() <= finished(home).items(), "finished work was repeated"
    assert (home / "smoke" / "report" / "scores.csv").is_file()


def test_a_run_that_a_cluster_ends_stores_a_checkpoint_and_goes_on_from_it(tmp_path):
    """SIGTERM and SIGUSR1 to the run alone: its training ends after a step, with a checkpoint."""
    home, log, params = tmp_path / "runs", tmp_path / "terminal.txt", tmp_path / "params"
    params.mkdir()
    data = yaml.safe_load((ROOT / "params" / "smoke.yaml").read_text())
    data["trainer"]["save_steps"] = 1000
    data["backbone"]["distill"]["sft"]["epochs"] = 100
    (params / "smoke.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    env = os.environ | {"TINYR1_HOME": str(home), "TINYR1_PARAMS": str(params)}
    steps = home / "smoke" / "backbone.partial" / "log.jsonl"
    for number in (signal.SIGTERM, signal.SIGUSR1):
        process, before = start(env, log), len(jsonl.read(steps))
        deadline = time.monotonic() + WHOLE_RUN
        while len(jsonl.read(steps)) < before + 3:
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(0.2)
        process.send_signal(number)
        assert process.wait(timeout=120) == 1
        done = len(jsonl.read(steps))
        said = f"backbone: stopped by a signal after step {done} of "
        assert said in log.read_text(), log.read_text()[-3000:]
        assert done > before
        assert [path.name for path in steps.parent.glob("checkpoint-*")] == [f"checkpoint-{done}"]
        assert not family(home)
    losses = [line["loss"] for line in jsonl.read(steps)]
    assert [line["step"] for line in jsonl.read(steps)] == list(range(1, len(losses) + 1))
