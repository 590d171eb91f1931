"""Quartiles of large tensors: a sample of the scores decides how long the search takes, and never what it finds."""

import numpy as np
import pytest
import torch

from tinyr1.core.errors import UserError
from tinyr1.merge import fusion_blocks, kernels, method, quantiles
from tinyr1.merge.fusion_blocks import Fusion
from tinyr1.merge.row_kl import row_kl

READINGS = ("exact", "paper", "magnitude")


@pytest.fixture(params=["kernels", "tensors"])
def implementation(request, monkeypatch):
    if request.param == "tensors":
        monkeypatch.setattr(fusion_blocks, "is_compiled", lambda tensor: False)


def branches(shape, dtype=torch.bfloat16, spread=1e-4):
    generator = torch.Generator().manual_seed(3)
    base = 0.02 * torch.randn(shape, generator=generator)
    return tuple((base + spread * torch.randn(shape, generator=generator)).to(dtype) for _ in range(2))


def prepared(base, other, reading, sampled, monkeypatch):
    """(state, number of passes) of a tensor, with or without a sample."""
    monkeypatch.setattr(fusion_blocks, "SAMPLED", 1 if sampled else 2**62)
    monkeypatch.setattr(method, "BLOCK", 5000)
    passes = []

    def scan(function):
        passes.append(function)
        return (function(method.RowBlock(a, (base[a:b], other[a:b]))) for a, b in method.borders(base.shape))

    return Fusion(reading).prepare(scan, tuple(base.shape)), len(passes)


def agree(base, other, reading, monkeypatch):
    """(passes without a sample, passes with one), which give the same state."""
    plain, few = prepared(base, other, reading, False, monkeypatch)
    state, many = prepared(base, other, reading, True, monkeypatch)
    assert state.threshold == plain.threshold
    assert np.array_equal(state.divergence, plain.divergence)
    return few, many


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("shape", [(600, 1000), (3, 40000), (5000, 7), (64, 16)])
@pytest.mark.usefixtures("implementation")
def test_the_quartiles_are_those_of_all_scores(shape, reading, dtype, monkeypatch):
    agree(*branches(shape, dtype), reading, monkeypatch)


@pytest.mark.usefixtures("implementation")
def test_a_sample_of_many_scores_takes_no_more_passes(monkeypatch):
    shape = (fusion_blocks.SAMPLED // 2048, 2048)  # the smallest tensor of which a merge takes a sample
    assert agree(*branches(shape, torch.float32), "exact", monkeypatch) == (2, 2)


def test_where_a_sample_misleads_all_scores_are_counted(monkeypatch):
    """The entries that are sampled differ by a thousandth of what the others differ by."""
    base, other = branches((320, 1600), torch.float32)
    part = 1600 // kernels.SHARE
    for row in range(320):
        first = row % kernels.SHARE * part
        other[row, first : first + part] = base[row, first : first + part] + 1e-7
    assert agree(base, other, "magnitude", monkeypatch) == (2, 4)


def test_where_the_brackets_are_wide_all_scores_are_counted(monkeypatch):
    """Half of the differences are tiny, half are large: the median of a sample may be of either kind."""
    base = torch.zeros(320, 1600)
    other = torch.where(torch.rand(320, 1600, generator=torch.Generator().manual_seed(0)) < 0.5, 1e-30, 1.0)
    assert agree(base, other, "magnitude", monkeypatch) == (2, 3)


def test_weights_that_change_between_two_passes_are_said(monkeypatch):
    base, other = branches((64, 96))
    passes = []

    def scan(function):
        passes.append(function)
        pairs = ((a, (base[a:b], len(passes) * other[a:b])) for a, b in method.borders(base.shape))
        return (function(method.RowBlock(*pair)) for pair in pairs)

    with pytest.raises(UserError, match="the weights were changed while they were merged"):
        Fusion().prepare(scan, (64, 96))


@pytest.mark.parametrize("differing", [0.0, 0.001, 0.4])
@pytest.mark.usefixtures("implementation")
def test_many_entries_that_are_equal_in_both_models(differing, monkeypatch):
    base, other = branches((400, 2000))
    other = torch.where(torch.rand(base.shape, generator=torch.Generator().manual_seed(0)) < differing, other, base)
    agree(base, other, "exact", monkeypatch)


def test_brackets_hold_a_bin_for_each_rank_and_overlap_nowhere():
    counts = torch.zeros(quantiles.BINS, dtype=torch.int64)
    counts[[5, 6, 9]] = torch.tensor([100, 100, 200])
    assert quantiles.brackets(counts, [0, 150, 399], 400) == [(5, 5), (6, 6), (9, 9)]
    assert quantiles.brackets(counts, [10, 90], 400) == [(5, 5)]
    assert quantiles.brackets(counts, [100 * 40, 200 * 40, 300 * 40], 400 * 40) == [(5, 9)]


def test_a_rank_outside_of_all_brackets_is_left_out():
    counts = [torch.tensor([2, 0, 1]), torch.tensor([5])]
    assert quantiles.inside(counts, [3, 10], [5, 14]) == [(0, 2), (1, 0)]
    assert quantiles.inside(counts, [3, 10], [2, 6, 15]) == []


BITS = {7: "0x1.dec48ap-33", 1024: "0x1.4513d8p-29", 5120: "0x1.437124p-29", 1003: "0x1.450478p-29"}


@pytest.mark.parametrize(("width", "bits"), BITS.items())
def test_a_divergence_has_the_same_bits_on_every_processor(width, bits):
    """As scores use it, in single precision. The rows come from integers, so that no library has a say in them."""
    places = np.arange(width, dtype=np.int64)
    other = ((places * 7919 % 4001 - 2000) / 2**16).astype(np.float32)
    base = (other + (places * 104729 % 997 - 498) / 2**22).astype(np.float32)
    assert np.float32(row_kl(base, other, np.empty(width), np.empty(width))) == float.fromhex(bits)
