"""Directions, consensus and entry by entry: values against whole-tensor formulas in float64, odd inputs, errors.

`test_methods` has what holds for every method: borders and threads change no bit, equal models merge to themselves.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from checkpoints import Shape, experts

from tinyr1.core.errors import UserError
from tinyr1.core.recipe import parse
from tinyr1.merge import checkpoint
from tinyr1.merge import method as blocks
from tinyr1.merge.engine import MergeOptions
from tinyr1.merge.method import RowBlock, merge_tensors
from tinyr1.merge.methods import build
from tinyr1.merge.methods.consensus import ModelStock, Sce
from tinyr1.merge.methods.entrywise import Nearswap, Passthrough
from tinyr1.merge.methods.karcher import Karcher, coefficients
from tinyr1.merge.methods.spheres import Multislerp, Nuslerp

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def models(count: int, shape=(37, 23), dtype=torch.float32, spread=0.02) -> tuple[torch.Tensor, ...]:
    """Tensors around a common one, at angles of about 45 degrees."""
    torch.manual_seed(11)
    common = torch.randn(shape) * 0.02
    return tuple((common + torch.randn(shape) * spread).to(dtype) for _ in range(count))


@pytest.fixture(params=[2**20, 1, 50, 23 * 5])
def block(request, monkeypatch):
    """Entries in a block: everything in one, one row each, some rows."""
    monkeypatch.setattr(blocks, "BLOCK", request.param)


def merged(method, *tensors) -> torch.Tensor:
    return merge_tensors(method, tensors)[0]


def arc(v: torch.Tensor, w: torch.Tensor, t: float) -> torch.Tensor:
    """The point of the arc between two flat vectors, with the angle from `atan2`, which loses no digits anywhere."""
    a, b = v / v.norm(), w / w.norm()
    angle = 2 * torch.atan2((a - b).norm(), (a + b).norm())
    return (torch.sin((1 - t) * angle) * v + torch.sin(t * angle) * w) / torch.sin(angle)


def lines(tensor: torch.Tensor, along_first: bool) -> torch.Tensor:
    """(lines, entries) of a tensor along its first or its last dimension."""
    return tensor.movedim(0 if along_first else -1, -1).flatten(0, -2) if tensor.dim() > 1 else tensor.reshape(1, -1)


@pytest.mark.usefixtures("block")
class TestDefinitions:
    @pytest.mark.parametrize(("weight", "t"), [((1, 3), 0.75), ((0.5, 0.5), 0.5), ((1, -1), 0.5), ((2, 0), 0.0)])
    def test_nuslerp_takes_the_place_of_the_second_weight(self, weight, t):
        base, a, b = (m.double() for m in models(3))
        close = {"rtol": 1e-5, "atol": 1e-8, "check_dtype": False}
        expected = arc(a.flatten(), b.flatten(), t).view_as(a)
        torch.testing.assert_close(merged(Nuslerp(weight=weight), a.float(), b.float()), expected, **close)
        expected = base + arc((a - base).flatten(), (b - base).flatten(), t).view_as(a)
        tensors = base.float(), a.float(), b.float()
        torch.testing.assert_close(merged(Nuslerp(weight=weight, has_base=True), *tensors), expected, **close)

    @pytest.mark.parametrize("shape", [(37, 23), (3, 5, 8), (2, 3, 4, 6), (40, 1), (1, 40), (301,), (1,), ()])
    def test_nuslerp_of_rows_and_of_columns(self, shape):
        a, b = models(2, shape)
        for row_wise in (False, True):
            method = Nuslerp(weight=(2, 1), nuslerp_flatten=False, nuslerp_row_wise=row_wise)
            pairs = zip(lines(a.double(), row_wise), lines(b.double(), row_wise), strict=True)
            # A line of one entry is parallel or opposite to the other, and so is interpolated linearly.
            expected = torch.stack([(2 * v + w) / 3 if len(v) == 1 else arc(v, w, 1 / 3) for v, w in pairs])
            result = lines(merged(method, a, b), row_wise)
            torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-7, check_dtype=False)

    @pytest.mark.parametrize("has_base", [False, True])
    @pytest.mark.parametrize("normalize", [False, True])
    def test_multislerp_walks_from_the_mean_direction(self, has_base, normalize):
        weight = torch.tensor([0.5, 1.0, 0.75], dtype=torch.float64)
        base, *tensors = models(4)
        origin = base.double().flatten() if has_base else torch.zeros(base.numel(), dtype=torch.float64)
        vectors = torch.stack([m.double().flatten() for m in tensors]) - origin
        shares = weight / weight.sum() if normalize else weight
        lengths = vectors.norm(dim=1)
        directions = vectors / lengths[:, None]
        mean = shares @ directions
        mean = mean / mean.norm()
        step = shares @ (directions - (directions @ mean)[:, None] * mean)
        walked = mean * step.norm().cos() + step / step.norm() * step.norm().sin()
        expected = (origin + walked * (shares @ lengths)).view_as(base)
        method = Multislerp(weight=tuple(weight.tolist()), has_base=has_base, normalize_weights=normalize)
        result = merged(method, *([base] if has_base else []), *tensors)
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-7, check_dtype=False)

    def test_karcher_is_where_the_pulls_cancel_out(self):
        tensors = models(4, spread=0.03)
        result = merged(Karcher(models=4, max_iter=100, tol=1e-9), *tensors).double().flatten()
        vectors = torch.stack([m.double().flatten() for m in tensors])
        assert result.norm() == pytest.approx(vectors.norm(dim=1).mean().item(), rel=1e-6)
        mean, directions = result / result.norm(), vectors / vectors.norm(dim=1)[:, None]
        angles = (directions @ mean).arccos()
        pulls = (angles / angles.sin())[:, None] * (directions - (directions @ mean)[:, None] * mean)
        assert pulls.sum(0).norm() < 1e-5 * pulls.norm(dim=1).max()

    def test_sce_selects_weighs_and_erases(self):
        base, *tensors = (m.double() for m in models(4))
        changes = torch.stack(tensors) - base
        variance = changes.var(dim=0, unbiased=False)
        chosen = variance.flatten().sort(descending=True).indices[: int(base.numel() * 0.3)]
        mask = torch.zeros(base.numel(), dtype=torch.float64)
        mask[chosen] = 1
        changes = changes * mask.view_as(base)
        sizes = changes.square().mean(dim=(1, 2))
        weight = sizes / sizes.sum()
        expected = base.clone().flatten()
        for i, values in enumerate(changes.flatten(1).T.tolist()):
            agree = [(w, v) for w, v in zip(weight.tolist(), values, strict=True) if v * sum(values) > 0]
            if agree:
                expected[i] += sum(w * v for w, v in agree) / sum(w for w, _ in agree)
        tensors = tuple(m.float() for m in (base, *tensors))
        result, statistics = merge_tensors(Sce(models=3, select_topk=0.3), tensors)
        torch.testing.assert_close(result, expected.view_as(base), rtol=1e-5, atol=1e-7, check_dtype=False)
        assert [statistics[f"weight_{i}"] for i in (1, 2, 3)] == pytest.approx(weight.tolist())
        assert statistics["changed_share"] == int(base.numel() * 0.3) / base.numel()

    @pytest.mark.parametrize("filter_wise", [False, True])
    @pytest.mark.parametrize("shape", [(37, 23), (3, 5, 8), (301,), ()])
    def test_model_stock_goes_as_far_as_the_models_agree(self, filter_wise, shape):
        base, *tensors = (m.double() for m in models(4, shape))
        lines = (-1, shape[-1]) if filter_wise and shape else (1, -1)
        changes = torch.stack([(m - base).reshape(lines) for m in tensors])
        pairs = [(changes[i], changes[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
        cosine = sum((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)) for a, b in pairs)[:, None] / 3
        t = 3 * cosine / (1 + 2 * cosine)
        expected = (base.reshape(lines) + t * changes.mean(0)).view(shape)
        method = ModelStock(models=3, filter_wise=filter_wise)
        result = merged(method, *(m.float() for m in (base, *tensors)))
        # A t that is large, where a denominator is small, has fewer right digits.
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-6 * t.abs().max().item(), check_dtype=False)

    def test_nearswap_takes_what_is_near(self):
        base, other = models(2)
        share = torch.minimum(torch.ones(()), 0.01 / (other - base).abs())
        result = merged(Nearswap(t=0.01), base, other)
        torch.testing.assert_close(result, base + share * (other - base), rtol=1e-5, atol=1e-8)
        near = (other - base).abs() < 0.01
        assert near.any()
        assert torch.equal(result[near], other[near])

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_passthrough_is_the_model_or_a_multiple_of_it(self, dtype):
        (model,) = models(1, dtype=dtype)
        assert torch.equal(merged(Passthrough(), model), model)
        assert torch.equal(merged(Passthrough(scale=(-2.0,)), model), -2 * model)


def by_hand(method, *rows: list[float]) -> list[float]:
    return merged(method, *(torch.tensor(row) for row in rows)).tolist()


class TestOddVectors:
    def test_nuslerp(self):
        half = Nuslerp(weight=(1, 1))
        assert by_hand(half, [1.0, 0.0], [0.0, 1.0]) == pytest.approx([math.sqrt(0.5)] * 2)
        assert by_hand(half, [1.0, 0.0], [3.0, 0.0]) == [2, 0]  # parallel
        assert by_hand(half, [1.0, 0.0], [-3.0, 0.0]) == [-1, 0]  # opposite: no arc is the shortest
        assert by_hand(half, [0.0, 0.0], [0.0, 0.0]) == [0, 0]
        assert by_hand(half, [0.0, 0.0], [2.0, 0.0]) == pytest.approx([math.sqrt(2), 0])  # counts as orthogonal
        based = Nuslerp(weight=(1, 1), has_base=True)
        assert by_hand(based, [5.0, 5.0], [6.0, 5.0], [5.0, 6.0]) == pytest.approx([5 + math.sqrt(0.5)] * 2)

    def test_multislerp(self):
        pair = Multislerp(weight=(1, 1))
        assert by_hand(pair, [1.0, 0.0], [0.0, 1.0]) == pytest.approx([math.sqrt(0.5)] * 2)
        assert by_hand(pair, [2.0, 0.0], [4.0, 0.0]) == pytest.approx([3, 0])
        assert by_hand(pair, [2.0, 0.0], [-4.0, 0.0]) == [-1, 0]  # opposite: a weighted sum
        assert by_hand(Multislerp(weight=(3,)), [2.0, 0.0]) == [2, 0]
        assert by_hand(Multislerp(weight=(3,), has_base=True), [1.0, 1.0], [2.0, 0.0]) == [2, 0]
        still = Multislerp(weight=(1, 2, 3), has_base=True)
        assert by_hand(still, *[[0.5, 0.25]] * 4) == [0.5, 0.25], "models that all equal the base"

    def test_multislerp_names_the_tensor_whose_directions_cancel_out(self):
        method = Multislerp(weight=(1, 1, 2)).for_tensor("model.norm.weight")
        with pytest.raises(UserError, match=r"multislerp: model.norm.weight: .* cancel out with weight = \(1, 1, 2\)"):
            by_hand(method, [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0])

    def test_karcher(self):
        pair = Karcher(models=2)
        assert by_hand(pair, [1.0, 0.0], [0.0, 1.0]) == pytest.approx([math.sqrt(0.5)] * 2)
        assert by_hand(pair, [2.0, 0.0], [4.0, 0.0]) == pytest.approx([3, 0])
        assert by_hand(pair, [2.0, 0.0], [-4.0, 0.0]) == pytest.approx([3, 0])  # cancelled out: starts at the first
        assert by_hand(pair, [2.0, 0.0], [0.0, 0.0]) == pytest.approx([1, 0])  # no direction, but a length of 0
        assert by_hand(pair, [0.0, 0.0], [0.0, 0.0]) == [0, 0]
        assert by_hand(Karcher(models=1), [1e-9, 0.0]) == [pytest.approx(1e-9), 0]

    def test_karcher_starts_with_the_mean_of_the_directions_and_ends_after_max_iter(self):
        gram = np.eye(3) + 0.5 * (np.ones((3, 3)) - np.eye(3)) + np.diag([0, 3.0, 0])
        gram[0, 1] = gram[1, 0] = 1.8
        vectors = np.linalg.cholesky(gram)
        directions = vectors / np.linalg.norm(vectors, axis=1)[:, None]
        start = directions.sum(0) / np.linalg.norm(directions.sum(0)) * np.linalg.norm(vectors, axis=1).mean()
        assert coefficients(gram, 0, 1e-5) @ vectors == pytest.approx(start)
        one, many, more = (coefficients(gram, steps, 1e-12) @ vectors for steps in (1, 50, 60))
        assert np.linalg.norm(one - many) < 0.2 * np.linalg.norm(start - many)
        assert many == pytest.approx(more, abs=1e-12)

    def test_sce(self):
        base, one = [0.0, 0.0, 0.0], [3.0, -1.0, 0.0]
        assert by_hand(Sce(models=1), base, one) == one
        assert by_hand(Sce(models=1, select_topk=0.5), base, one) == base, "one model has no variance"
        assert by_hand(Sce(models=2, select_topk=0), base, one, [1.0, 1.0, 1.0]) == base
        # Means of squares 10 / 3 and 6 / 3. The sum of the second entry counts as positive, of the third it is.
        two = [2.0, 1.0, 1.0]
        assert by_hand(Sce(models=2), base, one, two) == pytest.approx([(30 + 12) / 16, 1, 1])
        # Changes that are small weigh alike.
        small = [[1e-4 * v for v in row] for row in (base, one, two)]
        assert by_hand(Sce(models=2), *small) == pytest.approx([2.5e-4, 1e-4, 1e-4])

    def test_sce_takes_of_equal_variances_the_first(self, monkeypatch):
        for size in (1, 3, 2**20):
            monkeypatch.setattr(blocks, "BLOCK", size)
            base, model = torch.zeros(5, 3), torch.full((5, 3), 2.0)
            model[0] = 0
            result = merged(Sce(models=2, select_topk=0.5), base, model, base)
            assert result.nonzero().tolist() == [[1, 0], [1, 1], [1, 2], [2, 0], [2, 1], [2, 2]]

    def test_model_stock(self):
        base, pair = [1.0, 1.0], ModelStock(models=2)
        assert by_hand(pair, base, [2.0, 1.0], [1.0, 2.0]) == base, "orthogonal changes say nothing in common"
        assert by_hand(pair, base, [2.0, 1.0], [4.0, 1.0]) == [3, 1], "parallel ones agree"
        assert by_hand(pair, base, [2.0, 1.0], [0.0, 1.0]) == base, "opposite ones have no finite ratio"
        assert by_hand(pair, base, base, [2.0, 1.0]) == base

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_nearswap_without_a_difference_or_with_t_0(self, dtype):
        base, other = models(2, dtype=dtype)
        assert torch.equal(merged(Nearswap(t=0), base, other), base)
        assert torch.equal(merged(Nearswap(t=0), base, base), base)
        assert torch.equal(merged(Nearswap(t=0.1), base, base), base)
        tiny = base + base.abs().clamp(min=1e-3) * 2**-10
        assert torch.equal(merged(Nearswap(t=1), base, tiny.to(dtype)), tiny.to(dtype))


def test_float16_tensors_keep_the_angle_that_float16_cannot_hold():
    # Products of differences are about 1e-9, and float16 has nothing between 0 and 6e-8.
    torch.manual_seed(1)
    base, common = torch.zeros(200, 300), torch.randn(200, 300) * 5e-5
    half = tuple(m.half() for m in (base, *(common + torch.randn(200, 300) * 2e-5 for _ in range(2))))
    cosine = torch.nn.functional.cosine_similarity(*(m.double().flatten() for m in half[1:]), dim=0).item()
    assert cosine == pytest.approx(25 / 29, abs=0.01)
    assert merge_tensors(ModelStock(models=2), half)[1]["cosine"] == pytest.approx(cosine, abs=1e-4)
    assert merge_tensors(Nuslerp(weight=(1, 1), has_base=True), half)[1]["cosine"] == pytest.approx(cosine)


COLUMNS = Nuslerp(weight=(1, 3), nuslerp_flatten=False, nuslerp_row_wise=True)
OTHERS = {
    "nuslerp of rows": Nuslerp(weight=(1, 3), nuslerp_flatten=False, has_base=True),
    "nuslerp of columns": COLUMNS,
    "multislerp": Multislerp(weight=(1, 2, 3)),
    "sce": Sce(models=4),
    "model_stock of rows": ModelStock(models=2, filter_wise=True),
    "passthrough": Passthrough(scale=(0.3,)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("shape", [(37, 23), (3, 5, 8), (301,), ()])
def test_borders_and_threads_change_no_bit(name, dtype, shape, monkeypatch):
    tensors = models(OTHERS[name].inputs, shape, dtype)
    whole = merged(OTHERS[name], *tensors)
    assert whole.dtype == dtype
    rows = blocks.as_rows(shape)
    method = OTHERS[name].for_shape(shape)
    for size in (1, 100):
        monkeypatch.setattr(blocks, "BLOCK", size)
        assert torch.equal(merged(OTHERS[name], *tensors), whole)
        cut = [RowBlock(a, tuple(t.reshape(rows)[a:b] for t in tensors)) for a, b in blocks.borders(rows)]
        for threads in (1, 2):
            with ThreadPoolExecutor(threads) as pool:
                state = method.prepare(lambda function, pool=pool, cut=cut: pool.map(function, cut), rows)
                parts = list(pool.map(lambda part, state=state: method.apply(state, part)[0], cut))
            assert torch.equal(torch.cat(parts).view(shape), whole)


@pytest.mark.parametrize("name", OTHERS)
def test_a_tensor_without_entries_stays_empty(name):
    for shape in ((0, 5), (3, 0), (0,)):
        assert merged(OTHERS[name], *models(OTHERS[name].inputs, shape)).shape == shape


RECIPES = [
    {"method": "nuslerp", "models": [{"model": "math"}, {"model": "code", "weight": 0.5}], "nuslerp_flatten": False,
     "nuslerp_row_wise": True},
    {"method": "multislerp", "base": "science", "models": [{"model": "math"}, {"model": "code"}]},
    {"method": "karcher", "models": [{"model": "science"}, {"model": "math"}, {"model": "code"}]},
    {"method": "sce", "base": "science", "models": [{"model": "math"}, {"model": "code"}], "select_topk": 0.5},
    {"method": "model_stock", "base": "science", "models": [{"model": "math"}, {"model": "code"}]},
    {"method": "nearswap", "base": "science", "other": {"method": "passthrough",
                                                        "models": [{"model": "math", "scale": 0.5}]}, "t": 0.01},
]  # fmt: skip


@pytest.mark.parametrize("data", RECIPES, ids=lambda data: data["method"])
def test_checkpoints_merge_to_the_bits_of_their_tensors_with_any_number_of_threads(data, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 512)  # several blocks a tensor
    folders, recipe = experts(tmp_path, Shape(layers=1)), parse(data, "test")
    results = []
    for threads in (1, 2):
        out = tmp_path / f"out-{threads}"
        out.mkdir()
        checkpoint.merge_checkpoints(recipe, folders, out, MergeOptions(threads=threads), "test")
        results.append(read(out))
    inputs = {name: read(folder) for name, folder in folders.items()}
    for name, tensor in results[0].items():
        assert torch.equal(tensor, results[1][name]), name
        assert torch.equal(tensor, in_memory(recipe, {m: tensors[name] for m, tensors in inputs.items()})), name
    assert any(not torch.equal(results[0][name], inputs[recipe.main_leaf][name]) for name in results[0])


def read(folder) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def in_memory(recipe, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    parts = [tensors[part] if isinstance(part, str) else in_memory(part, tensors) for part in recipe.parts]
    return merged(build(recipe, "exact", 1.5), *parts)


ERRORS = [
    (lambda: Nuslerp(weight=(1, 1, 1)), r"merges two models beside the base and got 3; give two"),
    (lambda: Nuslerp(weight=(1, 1), nuslerp_flatten=1), r"nuslerp_flatten = 1 is neither true nor false"),
    (lambda: Nuslerp(weight=(1, 1), nuslerp_row_wise="no"), r"nuslerp_row_wise = 'no' is neither true nor false"),
    (lambda: Multislerp(weight=(1, -1)), r"sums to 0 and cannot be normalized; set normalize_weights to false"),
    (lambda: Multislerp(weight=(1, math.inf)), r"weight = inf is not a finite number"),
    (lambda: Multislerp(weight=(1, 1), normalize_weights=0), r"normalize_weights = 0 is neither true nor false"),
    (lambda: Multislerp(weight=(1, 1), eps=0), r"eps = 0 is not a finite number above 0"),
    (lambda: Karcher(models=2, max_iter=-1), r"max_iter = -1 is not a whole number of at least 0"),
    (lambda: Karcher(models=2, max_iter=2.0), r"max_iter = 2.0 is not a whole number"),
    (lambda: Karcher(models=2, tol=0.0), r"tol = 0.0 is not a finite number above 0"),
    (lambda: Sce(models=2, select_topk=1.5), r"select_topk = 1.5 is not a number from 0 to 1"),
    (lambda: ModelStock(models=1), r"compares the models beside the base and got 1; give at least 2"),
    (lambda: ModelStock(models=2, filter_wise=None), r"filter_wise = None is neither true nor false"),
    (lambda: Nearswap(t=-0.1), r"t = -0.1 is not a number from 0 to 1"),
    (lambda: Passthrough(models=2), r"takes one model and got 2; give one"),
    (lambda: Passthrough(scale=(math.nan,)), r"scale = nan is not a finite number"),
    (lambda: merged(Sce(models=2), *models(2)), r"Sce has parameters for 3 tensors.*got 2"),
    (lambda: merged(Nuslerp(weight=(1, 1)), *models(3)), r"Nuslerp has parameters for 2 tensors.*got 3"),
]


@pytest.mark.parametrize(("make", "message"), ERRORS)
def test_errors_name_the_value_the_rule_and_the_remedy(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"method": "passthrough", "models": [{"model": "a"}, {"model": "b"}]}, "passthrough: takes one model.* got 2"),
        ({"method": "nuslerp", "models": [{"model": "a"}]}, "nuslerp: merges two models beside the base and got 1"),
        ({"method": "model_stock", "base": "a", "models": [{"model": "b"}]}, "model_stock: .* give at least 2"),
        ({"method": "multislerp", "models": [{"model": "a", "weight": 0.0}]}, "multislerp: weight = .* sums to 0"),
    ],
)
def test_a_wrong_number_of_models_is_an_error_of_the_recipe(data, said):
    with pytest.raises(UserError, match=said):
        build(parse(data, "file"), "exact", 1.5)
