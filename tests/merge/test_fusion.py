"""Arcee Fusion of a tensor: by hand, against the released arithmetic, against 50 digits, and degenerate cases."""

import mpmath
import pytest
import torch

from tinyr1.core.recipe import READINGS
from tinyr1.merge import float_bits, fusion, fusion_blocks, kernels, method, quantiles
from tinyr1.merge.fusion_blocks import Fusion

SHAPES = ((48, 160), (160, 48), (5, 27648), (3, 40000), (7, 3, 5), (1000, 1), (576,), (1,), ())


def by_blocks(base, other, iqr_multiplier=1.5, reading="exact"):
    """`fusion.fuse` as a merge does it."""
    merged, statistics = method.merge_tensors(Fusion(reading, iqr_multiplier), (base, other))
    return merged, fusion.Selection(**statistics)


@pytest.fixture(params=["definition", "kernels", "tensors"])
def fuse(request, monkeypatch):
    """The three implementations: the definition, the compiled loops, and the tensor operations that a GPU runs."""
    if request.param == "tensors":
        monkeypatch.setattr(fusion_blocks, "is_compiled", lambda tensor: False)
    return fusion.fuse if request.param == "definition" else by_blocks


def nothing_counted() -> torch.Tensor:
    """What the kernels count scores in."""
    return torch.zeros(quantiles.BINS * kernels.COPIES, dtype=torch.int64)


def branches(shape, spread, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    base = 0.02 * torch.randn(shape, generator=generator)
    return tuple((base + spread * torch.randn(shape, generator=generator)).to(dtype) for _ in range(2))


def released(base, other):
    """The whole of the released code's arithmetic on tensors of up to a million entries (docs/fidelity.md §3.2)."""
    p, q = other.softmax(-1) + 1e-8, base.softmax(-1) + 1e-8
    scores = (other - base).abs() * (p * (p / q).log()).sum(-1, keepdim=True)
    ordered = scores.reshape(-1).sort().values
    low, median, high = ordered[(torch.tensor([0.25, 0.5, 0.75]) * (ordered.numel() - 1)).long()]
    limit = median + 1.5 * (high - low)
    return (base + (other - base) * (scores >= limit).float()).to(base.dtype), float(limit)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("spread", [1e-5, 1e-4, 1e-3, 0.1, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_released_is_the_released_arithmetic_to_the_bit(shape, spread, dtype, fuse):
    base, other = branches(shape, spread, dtype)
    merged, selection = fuse(base, other, reading="released")
    expected, limit = released(base, other)
    assert selection.threshold == limit
    assert torch.equal(merged, expected)


def test_released_differs_from_a_subsampled_threshold_only_between_the_two_thresholds():
    base, other = branches((1100, 1000), 1e-3, torch.bfloat16)  # above a million: the released code draws a sample
    scores = fusion.importance(base, other, fusion.released_divergence(base, other), "released")
    ours, selection = by_blocks(base, other, reading="released")
    drawn = scores.flatten()[torch.randint(scores.numel(), (10**6,), generator=torch.Generator().manual_seed(1))]
    low, median, high = drawn.sort().values[[249999, 499999, 749999]].bfloat16()
    sampled = float(median + 1.5 * (high - low))
    theirs = fusion.combine(base, other, fusion.factor(scores, sampled, "released"), "released")
    between = (scores >= min(sampled, selection.threshold)) & (scores < max(sampled, selection.threshold))
    assert bool((ours == theirs)[~between].all())


@pytest.mark.parametrize("spread", [1e-6, 1e-4, 1e-2, 1.0])
def test_the_divergence_of_a_row_has_six_digits_and_no_sign(spread):
    base, other = branches((4, 60), spread, torch.float32)
    compiled, counts = torch.empty(4, dtype=torch.float64), nothing_counted()
    kernels.exact_divergence(base.numpy(), other.numpy(), compiled.numpy(), 0, False, counts.numpy())
    mpmath.mp.dps = 50
    for i in range(4):
        p, q = ([mpmath.exp(mpmath.mpf(float(x))) for x in row[i]] for row in (other, base))
        p, q = ([x / sum(row) for x in row] for row in (p, q))
        truth = float(sum(a * mpmath.log(a / b) for a, b in zip(p, q, strict=True)))
        assert float(fusion.row_divergence(base, other)[i]) == pytest.approx(truth, rel=1e-5)
        assert float(compiled[i]) == pytest.approx(truth, rel=1e-5)


@pytest.mark.parametrize("offset", [0.0, 300.0])
@pytest.mark.parametrize("width", [1, 2, 4096])
def test_the_divergence_is_never_negative(offset, width):
    """Rows of near twins and of wide range, where Σ p log(p/q) would come out below zero."""
    base, other = branches((64, width), 1e-7, torch.float32)
    other[:, 0] += offset
    base[:, 0] += offset
    compiled, counts = torch.empty(64, dtype=torch.float64), nothing_counted()
    kernels.exact_divergence(base.numpy(), other.numpy(), compiled.numpy(), 0, False, counts.numpy())
    assert bool((compiled >= 0).all())
    assert bool((fusion.row_divergence(base, other) >= 0).all())
    assert torch.allclose(compiled, fusion.row_divergence(base, other), rtol=1e-6, atol=0)


@pytest.mark.parametrize("width", [1, 3, 1025, 27648])
@pytest.mark.parametrize("scale", [0.02, 0.5, 4.0])
@pytest.mark.parametrize("spread", [1e-18, 1e-13, 1e-6, 1e-3, 2e-3, 0.1])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_kernels_keep_six_digits_of_a_divergence(width, scale, spread, shift):
    """Sums in single precision where the numbers allow it, in double precision elsewhere; shift: of a whole row."""
    generator = torch.Generator().manual_seed(width)
    other = torch.empty(4, width).normal_(0, scale, generator=generator)
    delta = torch.empty(4, width).normal_(0, spread, generator=generator) + shift * 3 * spread
    base = (other.double() - delta.double()).float()
    compiled, counts = torch.empty(4, dtype=torch.float64), nothing_counted()
    kernels.exact_divergence(base.numpy(), other.numpy(), compiled.numpy(), 0, False, counts.numpy())
    truth = fusion.row_divergence(base, other)
    assert torch.allclose(compiled, truth, rtol=1e-5, atol=1e-36), (compiled / truth).tolist()
    assert int(counts.sum()) == other.numel()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_rows_that_are_not_contiguous(dtype):
    base, other = (tensor.t() for tensor in branches((96, 64), 1e-3, dtype))
    merged, selection = by_blocks(base, other)
    expected, same = by_blocks(base.contiguous(), other.contiguous())
    assert torch.equal(merged, expected)
    assert selection == same


def test_exact_by_hand(fuse):
    base = torch.tensor([[0.0, 1.0, 2.0], [0.5, 0.5, 0.5]])
    other = torch.tensor([[0.0, 1.0, 3.0], [0.5, 0.51, 0.5]])
    merged, selection = fuse(base, other)
    # Scores: 0, 0, KL_0 · 1 and 0, KL_1 · 0.01, 0. Quartiles at ranks 1, 2, 3 of 6: all 0, so everything passes.
    assert selection.threshold == 0
    assert selection.regime == "everything"
    assert torch.equal(merged, other)


def test_exact_takes_what_is_at_or_above_the_threshold(fuse):
    """One row, so that importance is |difference| times one number."""
    base = torch.zeros(1, 8)
    other = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 100.0]]) / 1024
    merged, selection = fuse(base, other)
    # Ranks 1, 3, 5 hold 2, 4, 6: the threshold is 4 + 1.5 · (6 - 2) = 10, and only 100 passes.
    assert merged.tolist() == [[0, 0, 0, 0, 0, 0, 0, 100 / 1024]]
    assert (selection.differing, selection.selected, selection.regime) == (8, 1, "part")
    assert selection.distance_share == pytest.approx(100**2 / (100**2 + sum(i * i for i in range(1, 8))))
    tied, _ = fuse(base, other, iqr_multiplier=0.0)  # the threshold is the entry of 4 itself: it is taken
    assert tied.count_nonzero() == 5


def test_paper_by_hand(fuse):
    """Equations (1) to (4): the signed difference base - other, one divergence, ⌈max(0, S - THR)⌉ as the factor."""
    base = torch.tensor([[9.0, 1.0], [2.0, 3.0]])
    other = torch.tensor([[1.0, 2.0], [2.5, 3.0]])
    p, q = base.flatten().double().softmax(0), other.flatten().double().softmax(0)
    divergence = float((p * (p / q).log()).sum())
    scores = (base.double() - other.double()) * divergence
    ordered = scores.flatten().float().sort().values
    limit = float(ordered[1] + 1.5 * (ordered[2] - ordered[0]))
    merged, selection = fuse(base, other, reading="paper")
    factor = (scores.float() - limit).clamp_min(0).ceil()
    assert selection.threshold == pytest.approx(limit, rel=1e-6)
    assert factor.max() > 1, "the factor exceeds 1 here, which the equations allow"
    assert torch.equal(merged, base + (other - base) * factor)


@pytest.mark.parametrize("reading", READINGS)
def test_blocks_in_both_implementations_agree_with_the_definition(reading, monkeypatch):
    monkeypatch.setattr(method, "BLOCK", 5000)
    for dtype in (torch.bfloat16, torch.float32):
        base, other = branches((200, 300), 1e-3, dtype, seed=3)
        merged, selection = fusion.fuse(base, other, reading=reading)
        for compiled in (True, False):
            monkeypatch.setattr(fusion_blocks, "is_compiled", lambda tensor, compiled=compiled: compiled)
            by_method, statistics = by_blocks(base, other, reading=reading)
            assert torch.equal(by_method, merged)
            assert statistics.selected == selection.selected
            assert statistics.threshold == pytest.approx(selection.threshold, rel=1e-6)


@pytest.mark.parametrize("reading", READINGS)
def test_blocks_have_no_say_in_the_result(reading, monkeypatch):
    base, other = branches((97, 130), 1e-3, torch.bfloat16)
    whole = by_blocks(base, other, reading=reading)[0]
    monkeypatch.setattr(method, "BLOCK", 1000)
    assert torch.equal(by_blocks(base, other, reading=reading)[0], whole)


def test_a_tensor_with_itself_is_itself(fuse):
    base, _ = branches((20, 30), 1e-3, torch.bfloat16)
    for reading in READINGS:
        merged, selection = fuse(base, base.clone(), reading=reading)
        assert torch.equal(merged, base)
        assert (selection.regime, selection.differing) == ("identical", 0)


def test_few_differing_entries_make_the_threshold_zero_and_everything_pass(fuse):
    base, _ = branches((40, 50), 1e-3, torch.bfloat16)
    other = base.clone()
    other[:8] += 0.01  # a fifth of the entries
    merged, selection = fuse(base, other)
    assert selection.threshold == 0
    assert selection.regime == "everything"
    assert torch.equal(merged, other)


def test_half_precision_and_empty_tensors():
    base, other = branches((30, 40), 1e-3, torch.float16)
    merged, _ = by_blocks(base, other)
    assert merged.dtype == torch.float16
    assert bool(((merged == base) | (merged == other)).all())
    assert method.merge_tensors(Fusion(), (torch.empty(0, 5), torch.empty(0, 5)))[0].shape == (0, 5)
    with pytest.raises(ValueError, match="bfloat16 or float32"):
        by_blocks(base, other, reading="released")


def test_what_cannot_be_fused():
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        by_blocks(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="reading 'exakt'"):
        by_blocks(torch.zeros(2), torch.zeros(2), reading="exakt")
    with pytest.raises(ValueError, match="iqr_multiplier -1"):
        by_blocks(torch.zeros(2), torch.zeros(2), iqr_multiplier=-1)


def test_the_finite_check_sees_every_bit_pattern():
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)
    for bits, value in zip(every.view(torch.uint16).split(1), every.split(1), strict=True):
        if not bool(value.isfinite()):
            assert not float_bits.all_finite(bits.numpy())
    assert float_bits.all_finite(every[every.isfinite()].view(torch.uint16).numpy())
