"""The machine that a plan is made for: what the arguments name, else what is here.

    --gpus 8 --gpu H100-80GB --price 2.5 --named--> Machine
    machine.describe() of this machine ----here---> Machine
"""

import re
from dataclasses import dataclass

from tinyr1.core import machine
from tinyr1.core.errors import UserError

GIB, GB = 2**30, 10**9


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU: memory in bytes, dense bf16 in FLOP/s and memory bandwidth in bytes/s, None where unknown."""

    name: str
    memory: int
    flops: float | None
    bandwidth: float | None


def _gpu(name: str, gib: int, teraflops: float, terabytes: float) -> Gpu:
    return Gpu(name, gib * GIB, teraflops * 1e12, terabytes * 1e12)


# NVIDIA's data sheets, SXM models. Their bf16 figures for H100, H200 and H800 are with sparsity: half of 1,979 TFLOP/s
# is dense. A100: "NVIDIA A100 Tensor Core GPU", 312 TFLOP/s dense; 1.555 TB/s with 40 GB, 2.039 with 80 GB. H100:
# "NVIDIA H100 Tensor Core GPU", 3.35 TB/s. H200: "NVIDIA H200 Tensor Core GPU", 141 GB, 4.8 TB/s. H800: an H100 with
# NVLink at 400 in place of 900 GB/s, as the report of DeepSeek-V3 (arXiv 2412.19437) uses it; paper §3.1.1 has it too.
# The memory is what nvidia-smi shows, in GiB.
KINDS = {
    gpu.name: gpu
    for gpu in (
        _gpu("A100-40GB", 40, 312, 1.555), _gpu("A100-80GB", 80, 312, 2.039), _gpu("H100-80GB", 80, 989.5, 3.35),
        _gpu("H200-141GB", 140, 989.5, 4.8), _gpu("H800-80GB", 80, 989.5, 3.35),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """count: GPUs, 0 for a CPU. memory: bytes of main memory, None where unknown. price: dollars for a GPU hour.

    here: whether it is this machine, whose disk and main memory are looked at. bf16_products: False where its CPU
    computes products of bf16 numbers in fp32.
    """

    gpu: Gpu | None
    count: int
    cores: int
    memory: int | None
    price: float | None
    here: bool
    bf16_products: bool = True

    def __str__(self) -> str:
        if self.gpu is not None:
            return f"{self.count} × {self.gpu.name}"
        return f"{self.cores} CPU cores" + (f", {self.memory / GB:.0f} GB" if self.memory else "")


def here(price: float | None = None) -> Machine:
    """This machine, with the GPUs that PyTorch can use."""
    facts = machine.describe()
    memory = round(facts["memory_gb"] * GB)
    if not machine.has_gpu():
        return Machine(None, 0, facts["cores"], memory, price, True, facts["bf16_products"])
    found = [_found(line) for line in facts["gpus"]]
    smallest = min(found, key=lambda gpu: gpu.memory)
    return Machine(smallest, len(found), facts["cores"], memory, price, True)


def _found(line: str) -> Gpu:
    """The GPU of a line of nvidia-smi, such as "NVIDIA H100 80GB HBM3, 81559 MiB"; speeds by its name."""
    name, _, memory = line.rpartition(",")
    mib = int(re.sub(r"\D", "", memory) or 0)
    alike = [kind for kind in KINDS.values() if kind.name.partition("-")[0] in name]
    nearest = min(alike, key=lambda kind: abs(kind.memory - mib * 2**20), default=None)
    if nearest is None:
        return Gpu(name.strip(), mib * 2**20, None, None)
    return Gpu(nearest.name, mib * 2**20, nearest.flops, nearest.bandwidth)


def named(kind: str | None, gpus: int, price: float | None) -> Machine:
    """The machine of the arguments. UserError where they name none."""
    if kind is None:
        local = here()
        if local.gpu is None and gpus:
            raise UserError(f"--gpus {gpus}: there is no GPU here; name its kind too: --gpu {' | '.join(KINDS)}")
        kind_found = local.gpu
    elif kind in KINDS:
        kind_found = KINDS[kind]
    else:
        raise UserError(f"--gpu {kind}: is not one of {', '.join(KINDS)}; name the nearest of them")
    return Machine(kind_found if gpus else None, gpus, machine.describe()["cores"], None, price, False)
