"""Products of bf16 matrices by way of fp32: the numbers, and that none is computed in bf16."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, Qwen2Config

from tinyr1.branch import attention, causal_lm, products
from tinyr1.core import machine

SHAPE = Qwen2Config(vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True)  # fmt: skip
LENGTHS = [5, 9, 3]


class Computed(TorchDispatchMode):
    """What is computed inside it: operations, and dtypes of their first arguments."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if args and isinstance(args[0], torch.Tensor):
            self.seen.append((str(func), args[0].dtype))
        return func(*args, **(kwargs or {}))

    def products(self):
        """Those that multiply matrices, by their names."""
        return {(name, dtype) for name, dtype in self.seen if "mm" in name or "attention" in name}


def loss_and_gradients(checkpointing=False):
    """(loss, gradients by name) of the same tiny random network in bf16, and the operations of both passes."""
    torch.manual_seed(0)
    inner = AutoModelForCausalLM.from_config(SHAPE, dtype=torch.bfloat16, attn_implementation=attention.ATTENTION)
    model = causal_lm.PackedCausalLM(inner).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    ids = torch.arange(sum(LENGTHS))[None] * 7 % 60
    positions = torch.cat([torch.arange(n) for n in LENGTHS])[None]
    ends = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0)], dtype=torch.int32)
    loss = model(input_ids=ids, labels=ids, position_ids=positions, cu_seq_lens=ends)
    loss.backward()
    return loss.item(), {name: p.grad.float() for name, p in model.named_parameters()}


@pytest.mark.parametrize("bias", [False, True])
def test_a_product_is_that_of_fp32_rounded_once_forward_and_backward(bias):
    torch.manual_seed(0)
    x, w = torch.randn(3, 7, 300).bfloat16().requires_grad_(), torch.randn(40, 300).bfloat16().requires_grad_()
    b = torch.randn(40).bfloat16().requires_grad_() if bias else None
    up = torch.randn(3, 7, 40).bfloat16()
    with products.Fp32Products():
        out = F.linear(x, w, b)
        out.backward(up)
    exact = [t.detach().double() for t in (x, w)]
    wanted = exact[0] @ exact[1].T + (b.detach().double() if bias else 0)
    grads = up.double() @ exact[1], up.double().flatten(0, 1).T @ exact[0].flatten(0, 1)
    for got, value in zip((out, x.grad, w.grad), (wanted, *grads), strict=True):
        assert got.dtype == torch.bfloat16
        # Sums in fp32 can fall on the other side of the middle of two bf16 numbers, in a few of thousands.
        assert (got != value.bfloat16()).double().mean() < 0.01
        assert torch.allclose(got.double(), value, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_a_network_computes_no_product_in_bf16_and_has_the_same_loss_and_gradients(monkeypatch, padded, checkpointing):
    monkeypatch.setattr(attention, "PADDED_LIMIT", 1024 if padded else 0)
    monkeypatch.setattr(causal_lm, "LOSS_CHUNK", 4)
    with Computed() as native:
        loss, gradients = loss_and_gradients(checkpointing)
    with Computed() as computed, products.Fp32Products():
        raised, raised_gradients = loss_and_gradients(checkpointing)
    before, after = native.products(), computed.products()
    assert {name for name, dtype in before if dtype == torch.bfloat16} <= products.PRODUCTS.keys()
    assert {name for name, _ in after} == {name for name, _ in before}
    assert {dtype for _, dtype in after} == {torch.float32}
    assert raised == pytest.approx(loss, rel=2e-3)
    for name, value in gradients.items():
        assert (raised_gradients[name] - value).norm() <= 0.02 * value.norm(), name


def test_products_of_other_dtypes_stay_as_they_are():
    a, b = torch.randn(4, 5), torch.randn(5, 6)
    with products.Fp32Products():
        assert torch.equal(a @ b, torch.mm(a, b))
        assert (a.double() @ b.double()).dtype == torch.float64


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU multiplies bf16 numbers")
def test_a_processor_with_the_instructions_uses_them(monkeypatch):
    monkeypatch.setattr(machine, "processor_flags", lambda: frozenset({"avx512_bf16"}))
    assert isinstance(products.of_this_processor(), contextlib.nullcontext)
    monkeypatch.setattr(machine, "processor_flags", lambda: frozenset({"avx2"}))
    assert isinstance(products.of_this_processor(), products.Fp32Products)
