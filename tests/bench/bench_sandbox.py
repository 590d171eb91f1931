"""Measures the cost of isolation: `make bench`, or this file alone, on a quiet machine, for about half a minute.

The bare fork-server is the same one without any layer; it runs one harmless program only. Executions alternate between
the variants. The time is that of `Runner.run`, from the call to the result.
"""

import argparse
import contextlib
import os
import shutil
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tinyr1.core.params.evaluation import Sandbox
from tinyr1.sandbox.forkserver import ForkServer
from tinyr1.sandbox.runner import Runner

PROGRAM, TEXT, EXPECTED = "a, b = map(int, input().split())\nprint(a + b)", "20 22\n", "42\n"
LIMITS = Sandbox(cpu_seconds=6, memory_mb=4096, semantics="real", isolation="landlock")


class Bare(Runner):
    """The fork-server without any layer, for comparison and for the program above only."""

    def start_server(self) -> ForkServer:
        self.server = ForkServer(self.slot, "none", ())
        return self.server


def once(runner: Runner) -> float:
    """Milliseconds of one execution."""
    start = time.perf_counter()
    result = runner.run(PROGRAM, TEXT)
    seconds = time.perf_counter() - start
    assert result.output == EXPECTED, result
    return 1e3 * seconds


def overhead(repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each execution, by variant."""
    kinds = ["landlock"] + (["bubblewrap"] if shutil.which("bwrap") else [])
    with contextlib.ExitStack() as stack:
        runners = {"bare fork-server": stack.enter_context(Bare(LIMITS))}
        for kind in kinds:
            runners[kind] = stack.enter_context(Runner(LIMITS.model_copy(update={"isolation": kind})))
        times = {name: [] for name in runners}
        for _ in range(repeats):
            for name, runner in runners.items():
                times[name].append(once(runner))
    return times


def cpu_seconds(runners: list[Runner]) -> float:
    """CPU time so far of this process, the fork-servers and their forks; a loaded machine changes it little."""
    total = sum(os.times()[:2])
    for runner in runners:
        fields = Path(f"/proc/{runner.server.process.pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


def throughput(slots: int, repeats: int) -> tuple[float, float]:
    """Executions per second of so many Runners, each in a thread, and CPU milliseconds of an execution."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(slots) as pool:
        runners = [stack.enter_context(Runner(LIMITS)) for _ in range(slots)]
        start, cpu = time.perf_counter(), cpu_seconds(runners)
        list(pool.map(lambda runner: [once(runner) for _ in range(repeats)], runners))
        seconds, cpu = time.perf_counter() - start, cpu_seconds(runners) - cpu
        return slots * repeats / seconds, 1e3 * cpu / (slots * repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=500, help="executions of each variant")
    repeats = parser.parse_args().repeats
    print(f"load before: {os.getloadavg()[0]:.2f}, cores: {len(os.sched_getaffinity(0))}")
    times = overhead(repeats)
    bare = statistics.median(times["bare fork-server"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:18} median {median:6.2f} ms  min {min(values):6.2f} ms  over bare {median - bare:+6.2f} ms")
    for slots in (1, 2):
        rate, cpu = throughput(slots, repeats)
        print(f"{slots} slot(s): {rate:6.0f} executions/s, {cpu:5.2f} ms of CPU time each")


if __name__ == "__main__":
    main()
