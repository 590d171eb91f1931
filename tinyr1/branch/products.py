"""Products of bfloat16 matrices on processors that have no instructions for them.

    a, b in bf16 --to fp32, exact--> product in fp32 --rounded once--> bf16

PyTorch computes such a product there in plain loops, 20 to 50 times slower than one in fp32. The way over fp32 gives
what the instructions would: products of two bf16 numbers are exact in fp32, sums are taken in fp32, and the result is
rounded once. Weights, gradients between the layers and the optimizer stay as they are.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from tinyr1.core import machine

# PyTorch's operations, each with the number of its first results that have the dtype of its arguments; others, such as
# the sums of a softmax, are fp32 in any case.
PRODUCTS = {
    "aten.mm.default": 1, "aten.addmm.default": 1, "aten.bmm.default": 1, "aten.baddbmm.default": 1,
    "aten._scaled_dot_product_flash_attention_for_cpu.default": 1,
    "aten._scaled_dot_product_flash_attention_for_cpu_backward.default": 3,
}  # fmt: skip


class Fp32Products(TorchDispatchMode):
    """Inside it, products of bf16 matrices on the CPU are computed in fp32 and rounded, forward and backward."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        rounded = PRODUCTS.get(str(func))
        if rounded is None or not _is_bf16_on_cpu(args[0]):
            return func(*args, **(kwargs or {}))
        given, named = tree_map_only(torch.Tensor, _raised, (args, kwargs or {}))
        result = func(*given, **named)
        if isinstance(result, torch.Tensor):
            return result.bfloat16()
        return tuple(one.bfloat16() if i < rounded else one for i, one in enumerate(result))


def of_this_processor() -> AbstractContextManager:
    """Fp32Products on a processor that needs them, where no GPU computes; else nothing."""
    return nullcontext() if torch.cuda.is_available() or machine.multiplies_bf16() else Fp32Products()


def _is_bf16_on_cpu(tensor: torch.Tensor) -> bool:
    return tensor.dtype == torch.bfloat16 and tensor.device.type == "cpu"


def _raised(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor
