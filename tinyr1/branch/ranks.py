"""Several ranks as one: DeepSpeed's settings, and what lets the ranks of a training make the model that one would make.

    connect, then deepspeed_config --> a model that is sharded while it loads --restore_frequencies--> an exact one
    sequences in random order --EvenSampler--> as many for each rank

tests/branch/test_ranks.py compares losses and weights; docs/fidelity.md §2.2 says what was measured.
"""

import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import deepspeed
import deepspeed.ops
import psutil
import torch
from transformers import PreTrainedModel

from tinyr1.branch.packing import IDLE


def connect(timeout: timedelta | None = None) -> None:
    """Makes the ranks known to each other; before the training's arguments and its model. timeout: DeepSpeed's own."""
    # DeepSpeed would compile shared-memory collectives on a CPU, which takes 40 s and a compiler; gloo does the same
    # work. A build killed half-way leaves a lock in the user's cache, on which every later training would wait forever.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if interface := _interface_to(os.environ.get("MASTER_ADDR", "")):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    # On a CPU the arguments connect PyTorch alone, and ZeRO-3 would shard the model for one rank.
    deepspeed.init_distributed(**({"timeout": timeout} if timeout else {}))


def _interface_to(address: str) -> str | None:
    """The network interface over which this host reaches another one, or itself; None where that is this machine alone.

    gloo takes the interface of the host's name otherwise, and many systems give their own name the address 127.0.1.1.
    """
    if not address:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))  # sends nothing
        except OSError:  # the address is of IPv6, or cannot be reached; connecting says so in its own words
            return None
        own = probe.getsockname()[0]
    if own.startswith("127."):
        return None
    found = psutil.net_if_addrs().items()
    return next((name for name, addresses in found if any(one.address == own for one in addresses)), None)


def deepspeed_config(zero_stage: int) -> dict:
    """DeepSpeed's configuration, the released one for stage 3 (docs/fidelity.md §2.2); the Trainer fills in `auto`."""
    zero: dict[str, object] = {"stage": zero_stage}
    sums: dict[str, object] = {}
    if zero_stage:
        zero |= {"overlap_comm": torch.cuda.is_available(), "contiguous_gradients": True}
        # DeepSpeed would add gradients up, over ranks and over accumulated sequences, in the dtype of the weights: of
        # 96 in bf16 the last ones are rounded away in part. It refuses fp32 at stage 0.
        sums = {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"}
    if zero_stage == 2:
        zero["reduce_scatter"] = False  # it would divide by the number of ranks in bf16, and sends as much
    if zero_stage == 3:
        zero |= {
            "sub_group_size": 1e9, "reduce_bucket_size": "auto", "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto", "stage3_max_live_parameters": 1e9,
            "stage3_max_reuse_distance": 1e9, "stage3_gather_16bit_weights_on_model_save": True,
        }  # fmt: skip
    auto = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    return dict.fromkeys(auto, "auto") | sums | {
        "zero_allow_untested_optimizer": True, "bf16": {"enabled": True}, "zero_optimization": zero,
    }  # fmt: skip


def restore_frequencies(model: PreTrainedModel) -> None:
    """Computes the frequencies of the rotary embeddings again, in fp32, as they are where the model is used."""
    # Under ZeRO-3 DeepSpeed makes every tensor bf16 that appears while the model loads. These would be off by up to one
    # part in 500, and at position 16,000 the angles by several radians.
    for module in model.modules():
        if hasattr(module, "inv_freq"):
            exact = type(module)(module.config)
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, exact.get_buffer(name).to(buffer.device))


class EvenSampler(torch.utils.data.Sampler):
    """The indices of another sampler, one of Accelerate's, then IDLE until every rank has the same number of them.

    EvenSampler([4, 2, 3], ranks=2) -> 4, 2, 3, IDLE
    """

    def __init__(self, sampler: Any, ranks: int) -> None:
        self.sampler, self.idle = sampler, -len(sampler) % ranks

    def __iter__(self) -> Iterator[int]:
        yield from self.sampler
        yield from [IDLE] * self.idle

    def __len__(self) -> int:
        return len(self.sampler) + self.idle

    def set_epoch(self, epoch: int) -> None:
        """Each epoch has an order of its own."""
        self.sampler.set_epoch(epoch)
