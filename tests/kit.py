"""The kit as a person starts it, for tests of whole runs."""

import shutil
import subprocess
import sys

from tinyr1.core.config import ROOT


def run_kit(*words, env, timeout=900):
    command = [sys.executable, "-m", "tinyr1.run", *words]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=timeout)


def git_status():
    """What git says about the checkout; "" where there is no git."""
    if shutil.which("git") is None:
        return ""
    command = ["git", "status", "--porcelain"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
