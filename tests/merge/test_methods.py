"""Merge methods against plain references on whole tensors, written from the definitions of the papers."""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tinyr1.merge import method as blocks
from tinyr1.merge.method import RowBlock, merge_tensors
from tinyr1.merge.methods import METHODS, Linear, Slerp, TaskArithmetic, Ties, pruning
from tinyr1.merge.methods.consensus import ModelStock, Sce
from tinyr1.merge.methods.entrywise import Nearswap, Passthrough
from tinyr1.merge.methods.karcher import Karcher
from tinyr1.merge.methods.placebo import Noise
from tinyr1.merge.methods.sparse import (
    Breadcrumbs,
    BreadcrumbsTies,
    DareLinear,
    DareTies,
    Della,
    DellaLinear,
    tensor_seed,
)
from tinyr1.merge.methods.spheres import Multislerp, Nuslerp

WEIGHT = (1.0, 0.5, 0.25)
EVERY = {
    "linear": Linear(weight=(0.2, 0.5, 0.3, 1.0)),
    "slerp": Slerp(t=0.3),
    "task_arithmetic": TaskArithmetic(weight=WEIGHT, lambda_=0.7),
    "ties": Ties(weight=WEIGHT, density=0.4),
    "dare_linear": DareLinear(weight=WEIGHT, density=0.5, seed=3),
    "dare_ties": DareTies(weight=WEIGHT, density=0.5, seed=3),
    "della_linear": DellaLinear(weight=WEIGHT, density=0.5, seed=3),
    "della": Della(weight=WEIGHT, density=0.5, seed=3),
    "breadcrumbs": Breadcrumbs(weight=WEIGHT, density=0.5, gamma=0.1),
    "breadcrumbs_ties": BreadcrumbsTies(weight=WEIGHT, density=0.5, gamma=0.1),
    "nuslerp": Nuslerp(weight=(1, 3), has_base=True),
    "multislerp": Multislerp(weight=WEIGHT, has_base=True),
    "karcher": Karcher(models=3),
    "sce": Sce(models=3, select_topk=0.4),
    "model_stock": ModelStock(models=3),
    "nearswap": Nearswap(t=0.005),
    "passthrough": Passthrough(),
    "noise": Noise(seed=3),
}


def models(count: int, shape=(37, 23), dtype=torch.float32, spread=0.01) -> tuple[torch.Tensor, ...]:
    """A base and models around it."""
    torch.manual_seed(7)
    base = torch.randn(shape) * 0.02
    return tuple(t.to(dtype) for t in (base, *(base + torch.randn(shape) * spread for _ in range(count - 1))))


def deltas_of(tensors: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    return [t - tensors[0] for t in tensors[1:]]


def largest(delta: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """`delta` where its magnitude has a place from start to stop - 1 among all, the largest first; else 0."""
    order = delta.abs().flatten().sort(descending=True, stable=True).indices[start:stop]
    kept = torch.zeros(delta.numel())
    kept[order] = 1
    return delta * kept.view_as(delta)


def elect_and_average(deltas: list[torch.Tensor], weight) -> torch.Tensor:
    """TIES §3: the sign of the total, then the weighted mean of the models that have it; entry by entry."""
    out = torch.zeros_like(deltas[0]).flatten()
    for at, values in enumerate(torch.stack(deltas).flatten(1).T.tolist()):
        total = sum(w * v for w, v in zip(weight, values, strict=True))
        agree = [(w, v) for w, v in zip(weight, values, strict=True) if v * total > 0]
        if agree:
            out[at] = sum(w * v for w, v in agree) / sum(w for w, _ in agree)
    return out.view_as(deltas[0])


@pytest.fixture(params=[2**20, 1, 50, 23 * 5])
def block(request, monkeypatch):
    """Entries in a block: everything in one, one row each, some rows."""
    monkeypatch.setattr(blocks, "BLOCK", request.param)


@pytest.mark.usefixtures("block")
class TestDefinitions:
    def test_linear_is_the_weighted_average(self):
        a, b, c = models(3)
        merged, _ = merge_tensors(Linear(weight=(1, 2, 5)), (a, b, c))
        torch.testing.assert_close(merged, (a + 2 * b + 5 * c) / 8)
        merged, _ = merge_tensors(Linear(weight=(1, -2, 1), normalize=False), (a, b, c))
        torch.testing.assert_close(merged, a - 2 * b + c)

    def test_a_soup_is_the_mean(self):
        tensors = models(4)
        torch.testing.assert_close(merge_tensors(Linear(weight=(1,) * 4), tensors)[0], torch.stack(tensors).mean(0))

    @pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
    def test_slerp_follows_the_great_circle(self, t):
        a, b = models(2, spread=0.03)
        cosine = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)
        angle = torch.acos(cosine)
        merged, statistics = merge_tensors(Slerp(t=t), (a, b))
        expected = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)
        torch.testing.assert_close(merged, expected, rtol=1e-5, atol=1e-7)
        assert statistics["cosine"] == pytest.approx(cosine.item(), abs=1e-6)

    def test_task_arithmetic_adds_differences(self):
        tensors = models(3)
        a, b = deltas_of(tensors)
        merged, statistics = merge_tensors(TaskArithmetic(weight=(0.5, 2), lambda_=0.3), tensors)
        torch.testing.assert_close(merged, tensors[0] + 0.3 * (0.5 * a + 2 * b))
        assert statistics == {"kept_share_1": 1, "kept_share_2": 1}
        merged, _ = merge_tensors(TaskArithmetic(weight=(0.5, 2), normalize=True), tensors)
        torch.testing.assert_close(merged, tensors[0] + (0.5 * a + 2 * b) / 2.5)

    def test_ties_trims_elects_and_averages(self):
        tensors = models(4)
        density = (0.2, 0.5, 1.0)
        trimmed = [largest(d, 0, int(p * d.numel())) for d, p in zip(deltas_of(tensors), density, strict=True)]
        merged, statistics = merge_tensors(Ties(weight=WEIGHT, density=density, lambda_=0.9), tensors)
        torch.testing.assert_close(merged, tensors[0] + 0.9 * elect_and_average(trimmed, WEIGHT))
        entries = tensors[0].numel()
        assert [statistics[f"kept_share_{i}"] for i in (1, 2, 3)] == [int(p * entries) / entries for p in density]
        assert statistics["threshold_1"] == trimmed[0][trimmed[0] != 0].abs().min()

    def test_breadcrumbs_drop_both_ends(self):
        tensors = models(3)
        entries = tensors[0].numel()
        gamma, density = (0.05, 0.3), (0.5, 0.8)  # the second asks for more than 1: fewer large ones are dropped
        starts = [int(0.05 * entries), entries - int(0.8 * entries)]
        parts = zip(deltas_of(tensors), starts, density, strict=True)
        masked = [largest(d, start, start + int(p * entries)) for d, start, p in parts]
        plain = Breadcrumbs(weight=(1, 0.5), density=density, gamma=gamma)
        torch.testing.assert_close(merge_tensors(plain, tensors)[0], tensors[0] + masked[0] + 0.5 * masked[1])
        elected = BreadcrumbsTies(weight=(1, 0.5), density=density, gamma=gamma, normalize=True)
        expected = tensors[0] + elect_and_average(masked, (1, 0.5))
        torch.testing.assert_close(merge_tensors(elected, tensors)[0], expected)

    def test_dare_drops_by_chance_and_rescales(self):
        tensors = models(3)
        shape, density = tensors[0].shape, (0.3, 0.9)
        draws = [pruning.uniform(11, i, 0, shape, tensors[0].device) for i in (0, 1)]
        parts = zip(deltas_of(tensors), draws, density, strict=True)
        masked = [d * (u < p) / p for d, u, p in parts]
        linear = DareLinear(weight=(1, 0.5), density=density, seed=11)
        torch.testing.assert_close(merge_tensors(linear, tensors)[0], tensors[0] + masked[0] + 0.5 * masked[1])
        elected = DareTies(weight=(1, 0.5), density=density, seed=11, normalize=True)
        expected = tensors[0] + elect_and_average(masked, (1, 0.5))
        torch.testing.assert_close(merge_tensors(elected, tensors)[0], expected)

    def test_della_keeps_by_rank_in_the_row(self):
        tensors = models(3)
        shape, (density, epsilon) = tensors[0].shape, (0.6, 0.2)
        masked = []
        for i, delta in enumerate(deltas_of(tensors)):
            larger = (delta.abs().unsqueeze(1) > delta.abs().unsqueeze(2)).sum(2)  # entries of the row above each
            ranks = shape[1] - 1 - larger.double()
            chance = density - epsilon + 2 * epsilon * ranks / (shape[1] - 1)
            masked.append((delta * (pruning.uniform(4, i, 0, shape, delta.device) < chance) / chance).float())
        linear = DellaLinear(weight=(1, 0.5), density=density, epsilon=epsilon, seed=4)
        torch.testing.assert_close(merge_tensors(linear, tensors)[0], tensors[0] + masked[0] + 0.5 * masked[1])
        elected = Della(weight=(1, 0.5), density=density, epsilon=epsilon, seed=4)
        expected = tensors[0] + elect_and_average(masked, (1, 0.5))
        torch.testing.assert_close(merge_tensors(elected, tensors)[0], expected)

    @pytest.mark.parametrize("cls", [Ties, Breadcrumbs, BreadcrumbsTies])
    def test_rescale_restores_the_sum_of_magnitudes(self, cls):
        tensors = models(2)
        (delta,) = deltas_of(tensors)
        plain, scaled = (merge_tensors(cls(weight=(1,), density=0.3, rescale=r), tensors)[0] for r in (False, True))
        kept = (plain - tensors[0]) * (delta.abs().sum() / (plain - tensors[0]).abs().sum())
        torch.testing.assert_close(scaled - tensors[0], kept, rtol=1e-4, atol=1e-7)


def by_hand(method, base: list[float], *rows: list[float]) -> list[float]:
    merged, _ = merge_tensors(method, tuple(torch.tensor(row) for row in (base, *rows)))
    return merged.tolist()


def test_ties_by_hand():
    # Trimmed to two each: [4, 0, -2, 0] and [0, 0, 8, 2]. The signs elected are +, (+), +, +.
    models = [4.0, 1.0, -2.0, 1.0], [1.0, 1.0, 8.0, 2.0]
    assert by_hand(Ties(weight=(1, 1), density=0.5), [0.0] * 4, *models) == [4, 0, 8, 2]
    # Weights decide the election: -2 · 6 against 8, and the mean of one is itself.
    assert by_hand(Ties(weight=(6, 1)), [1.0], [-1.0], [9.0]) == [-1]


def test_breadcrumbs_by_hand():
    method = Breadcrumbs(weight=(1,), density=0.5, gamma=0.25)
    assert by_hand(method, [0.0] * 4, [9.0, -3.0, 2.0, 1.0]) == [0, -3, 2, 0]


def test_slerp_by_hand():
    half = by_hand(Slerp(t=0.5), [1.0, 0.0], [0.0, 1.0])
    assert half == pytest.approx([math.sqrt(0.5)] * 2)
    assert by_hand(Slerp(t=0.25), [1.0, 0.0], [-1.0, 0.0]) == [0.5, 0]  # opposite: no great circle is the shortest
    assert by_hand(Slerp(t=0.25), [1.0, 0.0], [3.0, 0.0]) == [1.5, 0]  # parallel
    assert by_hand(Slerp(t=0.5), [0.0, 0.0], [0.0, 0.0]) == [0, 0]


def test_exactly_k_are_kept_of_equal_ones_the_first(monkeypatch):
    for size in (1, 3, 2**20):
        monkeypatch.setattr(blocks, "BLOCK", size)
        base = torch.zeros(5, 3)
        model = torch.full((5, 3), 2.0)
        model[4, 2] = -3
        merged, statistics = merge_tensors(Ties(weight=(1,), density=8 / 15), (base, model))
        assert merged.nonzero().tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [2, 0], [4, 2]]
        assert statistics == {"kept_share_1": 8 / 15, "threshold_1": 2}
        method = Breadcrumbs(weight=(1,), density=3 / 15, gamma=4 / 15)  # places 4, 5 and 6: the outlier is place 0
        assert merge_tensors(method, (base, model))[0].nonzero().tolist() == [[1, 0], [1, 1], [1, 2]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("shape", [(37, 23), (3, 5, 8), (301,), ()])
def test_borders_and_threads_change_no_bit(name, dtype, shape, monkeypatch):
    method = EVERY[name]
    tensors = models(method.inputs, shape, dtype)
    whole, statistics = merge_tensors(method, tensors)
    assert whole.dtype == dtype
    assert whole.shape == shape
    for size in (1, 100):
        monkeypatch.setattr(blocks, "BLOCK", size)
        parts, same = merge_tensors(method, tensors)
        assert torch.equal(parts, whole)
        assert same == pytest.approx(statistics)
    rows = blocks.as_rows(tensors[0].shape)
    cut = [RowBlock(a, tuple(t.reshape(rows)[a:b] for t in tensors)) for a, b in blocks.borders(rows)]
    with ThreadPoolExecutor(4) as pool:
        state = method.prepare(lambda function: pool.map(function, cut), rows)
        # The last block first: nothing depends on what was applied before.
        threaded = [method.apply(state, part)[0] for part in reversed(cut)]
    assert torch.equal(torch.cat(threaded[::-1]).view(shape), whole)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("shape", [(20, 10), (1,), (4, 1), ()])
def test_equal_models_merge_to_themselves(name, shape):
    method = EVERY[name]
    (base,) = models(1, shape)
    merged, statistics = merge_tensors(method, (base,) * method.inputs)
    torch.testing.assert_close(merged, base)
    assert not any(value for key, value in statistics.items() if key.startswith("kept_share"))


@pytest.mark.parametrize("name", EVERY)
def test_a_tensor_without_entries_stays_empty(name):
    merged, statistics = merge_tensors(EVERY[name], models(EVERY[name].inputs, (0, 5)))
    assert merged.shape == (0, 5)
    assert statistics == {}


@pytest.mark.parametrize("cls", [Ties, Breadcrumbs, BreadcrumbsTies, DareLinear, DareTies, DellaLinear, Della])
def test_density_0_gives_the_base_and_density_1_everything(cls):
    tensors = models(3)
    plain = TaskArithmetic(weight=(1, 2))
    merged, statistics = merge_tensors(cls(weight=(1, 2), density=0), tensors)
    assert torch.equal(merged, tensors[0])
    assert statistics == {"kept_share_1": 0, "kept_share_2": 0}
    if not cls.elects:
        assert torch.equal(merge_tensors(cls(weight=(1, 2), density=1), tensors)[0], merge_tensors(plain, tensors)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_sum_to_0_do_not_divide_differences(dtype):
    tensors = models(3, dtype=dtype)
    faded = TaskArithmetic(weight=(0, 0), normalize=True)
    assert torch.equal(merge_tensors(faded, tensors)[0], tensors[0])
    a, b = deltas_of(tensors)
    opposed = merge_tensors(TaskArithmetic(weight=(1, -1), normalize=True), tensors)[0]
    torch.testing.assert_close(opposed, tensors[0] + (a - b))
    assert torch.equal(merge_tensors(Ties(weight=(0, 0), density=0.5), tensors)[0], tensors[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_della_ranks_more_exactly_than_bfloat16_counts(dtype):
    # mergekit counts ranks in the dtype of the tensors; bfloat16 tells about half of 1000 ranks apart.
    delta = torch.linspace(-1, 0, 1000, dtype=dtype)[None]
    chance = DellaLinear(weight=(1,), density=0.5, epsilon=0.4).probability(0, delta)
    assert chance[0, 0] == pytest.approx(0.9, abs=0.02)
    assert len(chance.unique()) == 1000
    assert chance.min() == pytest.approx(0.1)
    assert chance.max() == pytest.approx(0.9)


def test_random_methods_keep_the_share_and_the_expectation():
    base, ones = torch.zeros(500, 400), torch.ones(500, 400)
    for cls in (DareLinear, DellaLinear):
        merged, statistics = merge_tensors(cls(weight=(1,), density=0.3, seed=1), (base, ones))
        # standard errors with 200,000 draws: 0.001 of the share, below 0.005 of the mean
        assert statistics["kept_share_1"] == pytest.approx(0.3, abs=0.005)
        assert merged.mean().item() == pytest.approx(1, abs=0.02)
        plain, _ = merge_tensors(cls(weight=(1,), density=0.3, seed=1, rescale=False), (base, ones))
        assert set(plain.unique().tolist()) == {0, 1}
        assert torch.equal(plain != 0, merged != 0)


def test_draws_depend_on_seed_model_and_index():
    cpu = torch.device("cpu")
    whole = pruning.uniform(5, 2, 0, torch.Size([40]), cpu)
    for first in range(9):
        assert torch.equal(pruning.uniform(5, 2, first, torch.Size([3, 7]), cpu).flatten(), whole[first : first + 21])
    others = [pruning.uniform(*key, 0, torch.Size([40]), cpu) for key in ((5, 3), (6, 2), (2, 5), (2**64 - 1, 2))]
    assert not any(torch.isin(other, whole).any() for other in others)
    assert 0 <= whole.min() <= whole.max() < 1
    tensors = models(2)
    results = [merge_tensors(DareLinear(weight=(1,), density=0.5, seed=s), tensors)[0] for s in (0, 0, 1)]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_the_seed_of_a_tensor_depends_on_its_name():
    seeds = {tensor_seed(seed, name) for seed in (0, 1) for name in ("a", "b", "1:a")}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert DareLinear(weight=(1,), seed=1).for_tensor("a").seed == tensor_seed(1, "a")


ERRORS = [
    (lambda: Linear(weight=()), r"weight = \(\) is not a list; give one number per model"),
    (lambda: Linear(weight=1.0), r"weight = 1.0 is not a list"),
    (lambda: Linear(weight=(1, math.nan)), r"weight = nan is not a finite number"),
    (lambda: Linear(weight=(1, -1)), r"weight = \(1, -1\) sums to 0 and cannot be normalized; set normalize to false"),
    (lambda: Linear(weight=(1,), normalize="false"), r"normalize = 'false' is neither true nor false"),
    (lambda: Ties(weight=(1,), normalize=1), r"normalize = 1 is neither true nor false"),
    (lambda: DareLinear(weight=(1,), rescale=None), r"rescale = None is neither true nor false"),
    (lambda: Slerp(t=1.5), r"t = 1.5 is not a number from 0 to 1"),
    (lambda: Slerp(t="0.5"), r"t = '0.5' is not a number from 0 to 1"),
    (lambda: TaskArithmetic(weight=(1, True)), r"weight = True is not a finite number"),
    (lambda: TaskArithmetic(weight=(1,), lambda_=math.inf), r"lambda = inf is not a finite number"),
    (lambda: Ties(weight=(1, 1), density=1.1), r"density = 1.1 is not a number from 0 to 1"),
    (lambda: Ties(weight=(1, 1), density=(0.5,)), r"density has 1 values for 2 models; give one number or one per"),
    (lambda: Breadcrumbs(weight=(1, 1), gamma=-0.1), r"gamma = -0.1 is not a number from 0 to 1"),
    (lambda: DareTies(weight=(1,), seed=-1), r"seed = -1 is not a whole number from 0 to 2\^64 - 1"),
    (lambda: DareTies(weight=(1,), seed=0.5), r"seed = 0.5 is not a whole number"),
    (lambda: Della(weight=(1,), density=0.9, epsilon=0.2), r"from 0.7 to 1.1; .* choose an epsilon below 0.1"),
    (lambda: Della(weight=(1,), density=0.2, epsilon=0.2), r"from 0 to 0.4; .* choose an epsilon below 0.2"),
    (lambda: merge_tensors(Ties(weight=(1, 1), density=0.5), models(2)), r"Ties has parameters for 3 tensors.*got 2"),
    (lambda: merge_tensors(Linear(weight=(1, 1)), models(3)), r"Linear has parameters for 2 tensors.*got 3"),
    (lambda: merge_tensors(Slerp(t=0.5), models(3)), r"Slerp has parameters for 2 tensors.*got 3"),
]


@pytest.mark.parametrize(("make", "message"), ERRORS)
def test_errors_name_the_value_the_rule_and_the_remedy(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_every_method_has_its_name():
    assert {name: type(method) for name, method in EVERY.items()} == METHODS
