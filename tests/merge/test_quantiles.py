"""Order statistics by histograms against a sort of the whole tensor."""

import pytest
import torch

from tinyr1.merge import quantiles
from tinyr1.merge.method import RowBlock

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def order_statistics(scan, values, ranks):
    """The values of the given ranks of one series."""
    return quantiles.order_statistics(scan, [values], [ranks])[0]


def scan_of(values: torch.Tensor, step: int = 100):
    """Passes over a flat tensor in blocks of `step` entries."""
    blocks = [RowBlock(i, (part,)) for i, part in enumerate(values.split(step))]
    return lambda function: map(function, blocks)


def only(block: RowBlock) -> torch.Tensor:
    return block.tensors[0]


def spread(n: int = 997) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(n) * 10.0 ** torch.randint(-30, 30, (n,))


CASES = {
    "all magnitudes and both signs": spread(),
    "neighbours": torch.arange(0x3F800000, 0x3F800000 + 500, dtype=torch.int32).flip(0).view(torch.float32),
    "negative neighbours": -torch.arange(0x3F800000, 0x3F800000 + 500, dtype=torch.int32).view(torch.float32),
    "ties": torch.arange(7.0).repeat(60) - 3,
    "all equal": torch.full((333,), -0.25),
    "denormals": torch.arange(-200, 200).to(torch.float32) * 1e-44,
    "infinite": torch.tensor([torch.inf, -torch.inf, 0.0, 3.4e38, -3.4e38]),
    "one": torch.tensor([3.0]),
    "bfloat16": spread().bfloat16(),
    "float16": torch.randn(500, generator=torch.Generator().manual_seed(1)).half(),
}  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_a_sort(name, device):
    values = CASES[name].to(device)
    ranks = [*range(0, len(values), 1 + len(values) // 40), len(values) - 1]
    assert order_statistics(scan_of(values), only, ranks) == values.float().sort().values[ranks].tolist()


def test_zeros_of_both_signs_are_one_value():
    values = torch.tensor([0.0, -0.0, 1.0, -0.0, -1.0])
    assert order_statistics(scan_of(values), only, [0, 1, 2, 3, 4]) == [-1, 0, 0, 0, 1]


def test_several_series_take_two_passes_and_bfloat16_takes_one():
    passes = []

    def counting(values):
        scan = scan_of(values)
        return lambda function: passes.append(1) or scan(function)

    values = spread()
    series = [only, lambda block: block.tensors[0].abs(), only]
    found = quantiles.order_statistics(counting(values), series, [[5, 5, 0], [996], []])
    assert found == [values.sort().values[[5, 5, 0]].tolist(), [values.abs().max().item()], []]
    assert len(passes) == 2
    order_statistics(counting(-values.bfloat16()), only, [500])
    assert len(passes) == 3
    assert order_statistics(counting(values), only, []) == []
    assert len(passes) == 3


def test_the_order_of_keys_is_that_of_values_and_reversible():
    values = spread().sort().values
    keys = quantiles.sort_keys(values)
    assert (keys.diff() > 0).all()
    assert [quantiles.value_of(key) for key in keys.tolist()] == values.tolist()


def test_locate_finds_the_bin_and_the_rank_in_it():
    counts = torch.tensor([0, 2, 0, 3])
    assert [quantiles.locate(counts, rank) for rank in range(5)] == [(1, 0), (1, 1), (3, 0), (3, 1), (3, 2)]


@pytest.mark.parametrize("rank", [-1, 5])
def test_a_rank_that_does_not_exist_is_an_error(rank):
    with pytest.raises(ValueError, match=f"rank {rank} of 5 values does not exist; ranks count from 0"):
        order_statistics(scan_of(torch.arange(5.0)), only, [rank])


def test_float64_is_refused():
    with pytest.raises(ValueError, match="torch.float64 have more bits"):
        order_statistics(scan_of(torch.arange(5.0).double()), only, [0])


def test_compiled_histograms_count_as_bincount_does():
    torch.manual_seed(4)
    bins, special = quantiles.BINS, torch.tensor([0.0, -0.0, 3e38, -3e38, 1e-45])
    keys = quantiles.sort_keys(torch.cat([torch.randn(5000), special]))
    upper = (keys >> 16) + bins // 2
    assert torch.equal(quantiles.histogram(keys), torch.bincount(upper, minlength=bins))
    for high in (int(upper[0]), int(upper[-1]), bins // 2):
        lower = keys[upper == high] & (bins - 1)
        assert torch.equal(quantiles.histogram(keys, high), torch.bincount(lower, minlength=bins))
