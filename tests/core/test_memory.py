"""Tests for core/memory.py: limits of control groups, and what a tree of processes holds."""

import os
import subprocess
import sys

import psutil
import pytest

from tinyr1.core import memory

MACHINE = 64 * 10**9


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """put(lines of /proc/self/cgroup, {file: text} of the mounted groups): a machine of 64 GB, 40 GB of them free."""
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "MOUNT", tmp_path / "mount")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("V", (), {"total": MACHINE, "available": 40 * 10**9}))

    def put(lines, files):
        (tmp_path / "cgroup").write_text("\n".join(lines) + "\n")
        for name, text in files.items():
            path = tmp_path / "mount" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    return put


def test_without_control_groups_the_machine_is_the_limit(groups):
    assert (memory.limit(), memory.available()) == (MACHINE, 40 * 10**9)


def test_the_narrowest_group_of_version_2_is_the_limit(groups):
    groups(["0::/user/job"], {"user/memory.max": 6 * 10**9, "user/memory.current": 5 * 10**9,
                              "user/job/memory.max": "max", "user/job/memory.current": 10**9})  # fmt: skip
    assert memory.limit() == 6 * 10**9
    assert memory.available() == 10**9, "other programs of the group above hold the rest"


def test_files_that_a_group_remembers_are_free(groups):
    groups(["0::/job"], {"job/memory.max": 6 * 10**9, "job/memory.current": 5 * 10**9,
                         "job/memory.stat": f"anon {10**9}\ninactive_file {3 * 10**9}\nactive_file 5"})  # fmt: skip
    assert memory.available() == 4 * 10**9


def test_a_group_of_version_1_counts_beside_other_controllers(groups):
    lines = ["5:cpu,cpuacct:/slurm", "4:memory:/slurm/job", "1:name=systemd:/", "0::/"]
    groups(lines, {"memory/slurm/job/memory.limit_in_bytes": 8 * 10**9,
                   "memory/slurm/job/memory.usage_in_bytes": 2 * 10**9,
                   "memory/slurm/memory.limit_in_bytes": 2**63 - 4096, "cpu/slurm/memory.limit_in_bytes": 1,
                   "memory/slurm/job/memory.stat": f"inactive_file 7\ntotal_inactive_file {10**9}"})  # fmt: skip
    assert (memory.limit(), memory.available()) == (8 * 10**9, 7 * 10**9)


def test_inside_a_container_the_root_of_the_mount_is_the_group(groups):
    groups(["0::/outside/of/it"], {"memory.max": 3 * 10**9, "memory.current": 4 * 10**9})
    assert (memory.limit(), memory.available()) == (3 * 10**9, 0), "more than the limit is in use: nothing is free"


def test_the_peak_is_that_of_a_process_with_all_that_it_has_started(monkeypatch):
    monkeypatch.setattr(memory, "PERIOD", 0.05)
    peak = memory.Peak()
    before = peak.stop()
    assert before > 10**7
    peak = memory.Peak()
    words = [sys.executable, "-c", "import time; held = b'x' * 300_000_000; print('held', flush=True); time.sleep(60)"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"held\n"
        family = memory.tree(os.getpid())
        assert child.pid in [process.pid for process in family]
        assert memory.resident(family[-1]) >= 300_000_000
        assert 290_000_000 <= memory.proportional(family[-1]) <= memory.resident(family[-1]) * 1.01
        peak.look()
        child.kill()
    assert 290_000_000 <= peak.stop() - before <= 400_000_000, "and it stays when the child is gone"


def test_a_process_that_has_ended_holds_nothing():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        (process,) = memory.tree(child.pid)
        child.kill()
    assert memory.tree(child.pid) == []
    assert (memory.resident(process), memory.proportional(process)) == (0, 0)
