"""Arcee Fusion on tensors: by hand, against the released arithmetic, against 50 digits, and degenerate cases."""

import mpmath
import pytest
import torch

from tinyr1.merge import fusion, kernels, method, quantiles

SHAPES = ((48, 160), (160, 48), (5, 27648), (3, 40000), (7, 3, 5), (1000, 1), (576,), (1,), ())


@pytest.fixture(params=["compiled", "tensors"])
def path(request, monkeypatch):
    """Both implementations: the compiled loops, and the tensor operations that a GPU runs."""
    if request.param == "tensors":
        monkeypatch.setattr(fusion, "_compiled", lambda tensor: False)
    return request.param


def branches(shape, spread, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    base = 0.02 * torch.randn(shape, generator=generator)
    return tuple((base + spread * torch.randn(shape, generator=generator)).to(dtype) for _ in range(2))


def released(left, right):
    """The whole of the released code's arithmetic on tensors of up to a million entries (ledger §3.2)."""
    p, q = right.softmax(-1) + 1e-8, left.softmax(-1) + 1e-8
    scores = (right - left).abs() * (p * (p / q).log()).sum(-1, keepdim=True)
    ordered = scores.reshape(-1).sort().values
    low, median, high = ordered[(torch.tensor([0.25, 0.5, 0.75]) * (ordered.numel() - 1)).long()]
    limit = median + 1.5 * (high - low)
    return (left + (right - left) * (scores >= limit).float()).to(left.dtype), float(limit)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("spread", [1e-5, 1e-4, 1e-3, 0.1, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_released_is_the_released_arithmetic_to_the_bit(shape, spread, dtype, path):
    left, right = branches(shape, spread, dtype)
    merged, selection = fusion.fuse(left, right, reading="released")
    expected, limit = released(left, right)
    assert selection.threshold == limit
    assert torch.equal(merged, expected)


def test_released_differs_from_a_subsampled_threshold_only_between_the_two_thresholds():
    left, right = branches((1100, 1000), 1e-3, torch.bfloat16)  # above a million: the released code draws a sample
    scores = fusion.importance(left, right, fusion.released_divergence(right, left), "released")
    ours, selection = fusion.fuse(left, right, reading="released")
    drawn = scores.flatten()[torch.randint(scores.numel(), (10**6,), generator=torch.Generator().manual_seed(1))]
    low, median, high = drawn.sort().values[[249999, 499999, 749999]].bfloat16()
    sampled = float(median + 1.5 * (high - low))
    theirs = fusion.combine(left, right, scores, sampled, "released")
    between = (scores >= min(sampled, selection.threshold)) & (scores < max(sampled, selection.threshold))
    assert bool((ours == theirs)[~between].all())


@pytest.mark.parametrize("spread", [1e-6, 1e-4, 1e-2, 1.0])
def test_the_divergence_of_a_row_has_six_digits_and_no_sign(spread):
    right, left = branches((4, 60), spread, torch.float32)
    compiled, counts = torch.empty(4, dtype=torch.float64), torch.zeros(quantiles.BINS, dtype=torch.int32)
    kernels.exact_divergence(right.numpy(), left.numpy(), compiled.numpy(), counts.numpy().view("uint32"))
    mpmath.mp.dps = 50
    for i in range(4):
        p, q = ([mpmath.exp(mpmath.mpf(float(x))) for x in row[i]] for row in (right, left))
        p, q = ([x / sum(row) for x in row] for row in (p, q))
        truth = float(sum(a * mpmath.log(a / b) for a, b in zip(p, q, strict=True)))
        assert float(fusion.row_divergence(right, left)[i]) == pytest.approx(truth, rel=1e-5)
        assert float(compiled[i]) == pytest.approx(truth, rel=1e-5)


@pytest.mark.parametrize("offset", [0.0, 300.0])
@pytest.mark.parametrize("width", [1, 2, 4096])
def test_the_divergence_is_never_negative(offset, width):
    """Rows of near twins and of wide range, where Σ p log(p/q) would come out below zero."""
    right, left = branches((64, width), 1e-7, torch.float32)
    right[:, 0] += offset
    left[:, 0] += offset
    compiled, counts = torch.empty(64, dtype=torch.float64), torch.zeros(quantiles.BINS, dtype=torch.int32)
    kernels.exact_divergence(right.numpy(), left.numpy(), compiled.numpy(), counts.numpy().view("uint32"))
    assert bool((compiled >= 0).all())
    assert bool((fusion.row_divergence(right, left) >= 0).all())
    assert torch.allclose(compiled, fusion.row_divergence(right, left), rtol=1e-6, atol=0)


@pytest.mark.parametrize("width", [1, 3, 1025, 27648])
@pytest.mark.parametrize("scale", [0.02, 0.5, 4.0])
@pytest.mark.parametrize("spread", [1e-18, 1e-13, 1e-6, 1e-3, 2e-3, 0.1])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_kernels_keep_six_digits_of_a_divergence(width, scale, spread, shift):
    """Sums in single precision where the numbers allow it, in double precision elsewhere; shift: of a whole row."""
    generator = torch.Generator().manual_seed(width)
    right = torch.empty(4, width).normal_(0, scale, generator=generator)
    delta = torch.empty(4, width).normal_(0, spread, generator=generator) + shift * 3 * spread
    left = (right.double() - delta.double()).float()
    compiled, counts = torch.empty(4, dtype=torch.float64), torch.zeros(quantiles.BINS, dtype=torch.int32)
    kernels.exact_divergence(right.numpy(), left.numpy(), compiled.numpy(), counts.numpy().view("uint32"))
    truth = fusion.row_divergence(right, left)
    assert torch.allclose(compiled, truth, rtol=1e-5, atol=1e-36), (compiled / truth).tolist()
    assert int(counts.sum()) == right.numel()


def test_exact_by_hand(path):
    left = torch.tensor([[0.0, 1.0, 2.0], [0.5, 0.5, 0.5]])
    right = torch.tensor([[0.0, 1.0, 3.0], [0.5, 0.51, 0.5]])
    merged, selection = fusion.fuse(left, right)
    # Scores: 0, 0, KL_0 · 1 and 0, KL_1 · 0.01, 0. Quartiles at ranks 1, 2, 3 of 6: all 0, so everything passes.
    assert selection.threshold == 0
    assert selection.regime == "everything"
    assert torch.equal(merged, right)


def test_exact_takes_what_is_at_or_above_the_threshold(path):
    """One row, so that importance is |difference| times one number."""
    left = torch.zeros(1, 8)
    right = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 100.0]]) / 1024
    merged, selection = fusion.fuse(left, right)
    # Ranks 1, 3, 5 hold 2, 4, 6: the threshold is 4 + 1.5 · (6 - 2) = 10, and only 100 passes.
    assert merged.tolist() == [[0, 0, 0, 0, 0, 0, 0, 100 / 1024]]
    assert (selection.differing, selection.selected, selection.regime) == (8, 1, "part")
    assert selection.distance_share == pytest.approx(100**2 / (100**2 + sum(i * i for i in range(1, 8))))
    tied, _ = fusion.fuse(left, right, iqr_multiplier=0.0)  # the threshold is the entry of 4 itself: it is taken
    assert tied.count_nonzero() == 5


def test_paper_by_hand(path):
    """Equations (1) to (4): the signed difference left - right, one divergence, ⌈max(0, S - THR)⌉ as the factor."""
    left = torch.tensor([[9.0, 1.0], [2.0, 3.0]])
    right = torch.tensor([[1.0, 2.0], [2.5, 3.0]])
    p, q = left.flatten().double().softmax(0), right.flatten().double().softmax(0)
    divergence = float((p * (p / q).log()).sum())
    scores = (left.double() - right.double()) * divergence
    ordered = scores.flatten().float().sort().values
    limit = float(ordered[1] + 1.5 * (ordered[2] - ordered[0]))
    merged, selection = fusion.fuse(left, right, reading="paper")
    factor = (scores.float() - limit).clamp_min(0).ceil()
    assert selection.threshold == pytest.approx(limit, rel=1e-6)
    assert factor.max() > 1, "the factor exceeds 1 here, which the equations allow"
    assert torch.equal(merged, left + (right - left) * factor)


@pytest.mark.parametrize("reading", fusion.READINGS)
def test_both_implementations_agree(reading, monkeypatch):
    for dtype in (torch.bfloat16, torch.float32):
        left, right = branches((200, 300), 1e-3, dtype, seed=3)
        compiled, by_kernels = fusion.fuse(left, right, reading=reading)
        with monkeypatch.context() as patch:
            patch.setattr(fusion, "_compiled", lambda tensor: False)
            tensors, by_tensors = fusion.fuse(left, right, reading=reading)
        assert torch.equal(compiled, tensors)
        assert by_kernels.selected == by_tensors.selected
        assert by_kernels.threshold == pytest.approx(by_tensors.threshold, rel=1e-6)


@pytest.mark.parametrize("reading", fusion.READINGS)
def test_blocks_have_no_say_in_the_result(reading, monkeypatch):
    left, right = branches((97, 130), 1e-3, torch.bfloat16)
    whole = fusion.fuse(left, right, reading=reading)[0]
    monkeypatch.setattr(method, "BLOCK", 1000)
    assert torch.equal(fusion.fuse(left, right, reading=reading)[0], whole)


def test_a_tensor_with_itself_is_itself(path):
    left, _ = branches((20, 30), 1e-3, torch.bfloat16)
    for reading in fusion.READINGS:
        merged, selection = fusion.fuse(left, left.clone(), reading=reading)
        assert torch.equal(merged, left)
        assert (selection.regime, selection.differing) == ("identical", 0)


def test_few_differing_entries_make_the_threshold_zero_and_everything_pass(path):
    left, _ = branches((40, 50), 1e-3, torch.bfloat16)
    right = left.clone()
    right[:8] += 0.01  # a fifth of the entries
    merged, selection = fusion.fuse(left, right)
    assert selection.threshold == 0
    assert selection.regime == "everything"
    assert torch.equal(merged, right)


def test_half_precision_and_empty_tensors():
    left, right = branches((30, 40), 1e-3, torch.float16)
    merged, _ = fusion.fuse(left, right)
    assert merged.dtype == torch.float16
    assert bool(((merged == left) | (merged == right)).all())
    empty, selection = fusion.fuse(torch.empty(0, 5), torch.empty(0, 5))
    assert (empty.shape, selection.entries) == ((0, 5), 0)
    with pytest.raises(ValueError, match="bfloat16 or float32"):
        fusion.fuse(left, right, reading="released")


def test_what_cannot_be_fused():
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        fusion.fuse(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="reading 'exakt'"):
        fusion.fuse(torch.zeros(2), torch.zeros(2), reading="exakt")
    with pytest.raises(ValueError, match="iqr_multiplier -1"):
        fusion.fuse(torch.zeros(2), torch.zeros(2), iqr_multiplier=-1)


def test_the_finite_check_sees_every_bit_pattern():
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)
    for bits, value in zip(every.view(torch.uint16).split(1), every.split(1), strict=True):
        if not bool(value.isfinite()):
            assert not kernels.all_finite(bits.numpy())
    assert kernels.all_finite(every[every.isfinite()].view(torch.uint16).numpy())
