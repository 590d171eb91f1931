"""Runs generated programs outside this process: one isolated child, a confined fork for each test.

Each test has limits on CPU time, memory, output and open files, may write no file, open no socket and start no
process. Expected outputs are not sent to the child; but it may *read* what its user may read, so a program that
sets out to cheat or to spy is not stopped here.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tinyr1.config import Sandbox

OUTPUT_BYTES = 1 << 20
CHILD = Path(__file__).with_name("sandbox_child.py")


class SandboxError(RuntimeError):
    """Programs cannot be run in isolation on this machine."""


@dataclass(frozen=True)
class Result:
    """What one test did. status: ok, error (exception), timeout, crash (signal) or output_limit."""

    status: str
    output: str
    error: str


class Runner:
    """A child process that runs tests one after another; use as a context manager."""

    def __init__(self, limits: Sandbox) -> None:
        self.limits = limits

    def __enter__(self) -> "Runner":
        self.folder = tempfile.TemporaryDirectory(prefix="tinyr1-sandbox-")
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(CHILD)], cwd=self.folder.name, env={"PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        probe = self.run("import socket\nsocket.socket()", "", "")
        if probe.status != "error" or "PermissionError" not in probe.error:
            self.__exit__()
            raise SandboxError(
                f"a test program could open a socket ({probe.status}: {probe.error or probe.output}); "
                "generated programs are not run without isolation: use a Linux kernel with seccomp filters"
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.folder.cleanup()

    def run(self, code: str, text: str, func_name: str) -> Result:
        """Run a program once. text: standard input, or one JSON argument a line if func_name is given."""
        request = {
            "code": code, "input": text, "func_name": func_name, "output_bytes": OUTPUT_BYTES,
            "cpu_seconds": self.limits.cpu_seconds, "memory_mb": self.limits.memory_mb,
        }  # fmt: skip
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SandboxError(f"the sandbox process ended: {self.process.stderr.read()[-2000:]}")
        return Result(**json.loads(line))
