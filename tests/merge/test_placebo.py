"""Controls of fusion: as many entries as importance takes and no others, noise as long as the difference."""

from functools import partial
from pathlib import Path

import pytest
import torch
from checkpoints import Shape, bytes_of, experts
from safetensors.torch import load_file

from tinyr1.core import jsonl
from tinyr1.core.errors import UserError
from tinyr1.core.recipe import PLACEBOS, READINGS, parse
from tinyr1.merge import checkpoint, engine, fusion, fusion_blocks, mergekit
from tinyr1.merge import method as blocks
from tinyr1.merge.engine import MergeOptions
from tinyr1.merge.fusion_blocks import Fusion
from tinyr1.merge.method import RowBlock, merge_tensors
from tinyr1.merge.methods import pruning
from tinyr1.merge.methods.placebo import Noise, Placebo

BF16, FP32 = torch.bfloat16, torch.float32
DTYPES = pytest.mark.parametrize("dtype", [BF16, FP32])
STEP = {"method": "fusion", "base": "code", "other": "math"}


def branches(shape=(96, 160), spread=1e-3, dtype=BF16, differing=1.0):
    """(base, other); the share `differing` of the entries is moved."""
    generator = torch.Generator().manual_seed(3)
    base = 0.02 * torch.randn(shape, generator=generator)
    moved = torch.rand(shape, generator=generator) < differing
    return base.to(dtype), (base + moved * spread * torch.randn(shape, generator=generator)).to(dtype)


def chain(mask: str, seed: int | None = None):
    own = {"mask": mask} | ({} if seed is None else {"seed": seed})
    return parse(STEP | own | {"other": {"method": "fusion", "base": "science", "other": "math"} | own}, "test")


def merged(recipe, folders: dict, out: Path, **options) -> tuple[dict[str, bytes], list[dict]]:
    """(weight files, statistics) of a merge into a new folder."""
    out.mkdir()
    checkpoint.merge_checkpoints(recipe, folders, out, MergeOptions(**options), "test")
    return bytes_of(out), jsonl.read(out / checkpoint.STATISTICS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return experts(tmp_path_factory.mktemp("experts"), Shape(extras=True))


@pytest.fixture(params=["kernels", "tensors"])
def arithmetic(request, monkeypatch):
    """The compiled loops, and the tensor operations that a GPU runs."""
    if request.param == "tensors":
        monkeypatch.setattr(fusion_blocks, "is_compiled", lambda tensor: False)


@pytest.mark.parametrize("mask", ["importance", *PLACEBOS])
def test_a_chain_whose_inner_rows_are_computed_again_is_the_same_chain(mask, folders, tmp_path, monkeypatch):
    """Those of large tensors are, for every pass of the outer step; those of small ones stay in memory."""
    stays, _ = merged(chain(mask), folders, tmp_path / "stays")
    monkeypatch.setattr(engine, "KEPT", 0)
    again, _ = merged(chain(mask), folders, tmp_path / "again")
    assert again == stays


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("mask", PLACEBOS)
@DTYPES
def test_a_placebo_takes_as_many_entries_as_importance(reading, mask, dtype, monkeypatch):
    base, other = branches((20, 160), dtype=dtype)
    whole = merge_tensors(Placebo(reading, mask=mask, seed=1), (base, other))[0]
    monkeypatch.setattr(blocks, "BLOCK", 160 * 7)
    _, real = merge_tensors(Fusion(reading), (base, other))
    placebo, said = merge_tensors(Placebo(reading, mask=mask, seed=1), (base, other))
    assert 0 < real["selected"] < real["differing"], "the regime `part`, or this test shows nothing"
    assert said["selected"] == real["selected"]
    assert said["threshold"] == real["threshold"]
    assert said["mask"] == mask
    assert torch.equal(placebo, whole), "blocks must not change the result"
    if reading in fusion.COPYING:
        assert int((placebo != base).count_nonzero()) == real["selected"]
        assert torch.equal(torch.where(placebo != base, other, base), placebo)


@DTYPES
def test_largest_takes_the_largest_differences_and_equal_ones_by_index(dtype):
    base, other = branches(dtype=dtype)
    placebo, said = merge_tensors(Placebo(mask="largest"), (base, other))
    order = (other.float() - base.float()).abs().flatten().sort(descending=True, stable=True).indices
    expected = torch.zeros(base.numel(), dtype=torch.bool)
    expected[order[: said["selected"]]] = True
    assert torch.equal(placebo != base, expected.view_as(base))


def test_random_masks_are_fair_and_follow_seed_tensor_and_step():
    base, other = branches((400, 500), dtype=FP32)
    make = partial(Placebo, mask="random")
    masks = {
        key: merge_tensors(make(seed=key[0], step=key[1]).for_tensor(key[2]), (base, other))[0] != base
        for key in ((0, "a & b", "x"), (1, "a & b", "x"), (0, "b & c", "x"), (0, "a & b", "y"))
    }
    share = float(next(iter(masks.values())).double().mean())
    for one, first in masks.items():
        # standard error of a share of 200,000 entries: below 0.001; halves of a mask hold half of it
        assert float(first[:200].double().mean()) == pytest.approx(share, abs=0.01)
        assert float(first[:, :250].double().mean()) == pytest.approx(share, abs=0.01)
        large = (other - base).abs() > (other - base).abs().median()
        assert float(first[large].double().mean()) == pytest.approx(share, abs=0.01), "size must not matter"
        for two, second in masks.items():
            both = float((first & second).double().mean())
            assert both == pytest.approx(share if one == two else share**2, abs=0.005)
    again = merge_tensors(make(seed=0, step="a & b").for_tensor("x"), (base, other))[0]
    assert torch.equal(again != base, masks[0, "a & b", "x"])


@pytest.mark.parametrize("mask", PLACEBOS)
def test_only_entries_that_differ_count(mask):
    base, other = branches(differing=0.5)
    _, real = merge_tensors(Fusion(), (base, other))
    placebo, said = merge_tensors(Placebo(mask=mask), (base, other))
    assert int((placebo != base).count_nonzero()) == real["selected"] == said["selected"]
    # Fewer than a quarter differ: the threshold is 0 and takes everything, and the count is of those that differ.
    base, other = branches(differing=0.1)
    placebo, said = merge_tensors(Placebo(mask=mask), (base, other))
    assert said["regime"] == "everything"
    assert said["selected"] == said["differing"] < base.numel()
    assert torch.equal(placebo, other)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 1), (2, 3, 5)])
@pytest.mark.parametrize("mask", PLACEBOS)
def test_small_and_equal_tensors(shape, mask):
    base, other = branches(shape)
    real, placebo = (merge_tensors(each, (base, other))[1] for each in (Fusion(), Placebo(mask=mask)))
    assert placebo["selected"] == real["selected"]
    same, said = merge_tensors(Placebo(mask=mask), (base, base))
    assert torch.equal(same, base)
    assert said["regime"] == "identical"


def test_magnitude_is_the_difference_under_the_rule_of_the_threshold():
    base, other = branches(dtype=FP32)
    distance = (other - base).abs()
    low, median, high = distance.flatten().sort().values[fusion.quartile_ranks(distance.numel())].double()
    expected = torch.where(distance.double() >= median + 2 * (high - low), other, base)
    result, said = merge_tensors(Fusion("magnitude", 2.0), (base, other))
    assert torch.equal(result, expected)
    assert torch.equal(fusion.fuse(base, other, 2.0, "magnitude")[0], expected)
    assert said["nonpositive_rows"] == 0
    exact = merge_tensors(Fusion("exact", 2.0), (base, other))[0]
    assert not torch.equal(exact, expected), "the divergence of a row changes what is taken"


class TestCheckpoints:
    @pytest.mark.parametrize("mask", PLACEBOS)
    def test_every_step_of_a_chain_takes_what_importance_would(self, mask, folders, tmp_path):
        once, rows = merged(chain(mask), folders, tmp_path / "one", threads=1)
        for threads in (2, 5):
            assert merged(chain(mask), folders, tmp_path / str(threads), threads=threads) == (once, rows)
        assert merged(chain("importance"), folders, tmp_path / "real")[0] != once
        # The first step: importance gets the same two models. The second: it gets what the first step has made.
        inner = parse(chain(mask).other.model_dump(by_alias=True, exclude_none=True), "test")
        merged(inner, folders, tmp_path / "inner")
        for own, base, other in ((inner, "science", "math"), (chain(mask), "code", "inner")):
            real = parse({"method": "fusion", "base": base, "other": other}, "test")
            counted = merged(real, folders | {"inner": tmp_path / "inner"}, tmp_path / f"{base}-{other}")[1]
            mine = [row for row in rows if row["base"] == own.base]
            assert [r["selected"] for r in mine] == [r["selected"] for r in counted]
            assert any(0 < r["selected"] < r["differing"] for r in mine)

    def test_seeds_and_steps_differ(self, folders, tmp_path):
        made = {seed: merged(chain("random", seed), folders, tmp_path / str(seed)) for seed in (0, 1)}
        assert made[0][0] != made[1][0]
        assert [r["selected"] for r in made[0][1]][::2] == [r["selected"] for r in made[1][1]][::2], "the first step"
        out = load_file(tmp_path / "0" / "model.safetensors")
        parents = {name: load_file(folder / "model.safetensors") for name, folder in folders.items()}
        # With one stream for both steps the second would take the entries of math alone.
        taken = sum(
            int(((out[name] == parents["science"][name]) & (out[name] != parents["code"][name])).sum()) for name in out
        )
        assert taken > 100

    def test_a_model_fused_with_itself_is_itself(self, folders, tmp_path):
        for mask in ("importance", *PLACEBOS):
            again = merged(parse(STEP | {"other": "code", "mask": mask}, "test"), folders, tmp_path / mask)[0]
            assert again == bytes_of(folders["code"])

    def test_what_mergekit_cannot_express_is_refused_and_merged_without_its_file(self, folders, tmp_path):
        noise = {"method": "noise", "base": "code", "other": "math"}
        for data, said in (
            (STEP | {"mask": "random"}, "math &random code: mergekit has no `mask: random`"),
            (noise, r"noise\(code, math\): mergekit has no method noise"),
            (STEP | {"reading": "magnitude"}, "math & code: mergekit's fusion has no reading magnitude"),
        ):
            recipe = parse(data, "test")
            with pytest.raises(UserError, match=said):
                mergekit.to_mergekit(recipe, {}, None, None)
            out = tmp_path / said[:8].strip("\\(& ")
            merged(recipe, folders, out)
            assert not (out / checkpoint.MERGEKIT_FILE).exists()
            assert "mergekit" not in (out / "README.md").read_text(encoding="utf-8").lower()
        with pytest.raises(UserError, match="reading magnitude"):
            mergekit.to_mergekit(parse(STEP, "test"), {}, None, None, reading="magnitude")
        with pytest.raises(UserError, match="merge_method 'noise' is not known here"):
            mergekit.from_mergekit("{merge_method: noise, base_model: /a, models: [/a, /b]}", "file")

    def test_noise_in_a_chain_does_not_depend_on_threads(self, folders, tmp_path):
        inner = {"method": "noise", "base": "science", "other": "math", "seed": 4}
        made = [merged(parse(STEP | {"other": inner}, "test"), folders, tmp_path / str(n), threads=n) for n in (1, 3)]
        assert made[0] == made[1]


class TestNoise:
    @DTYPES
    @pytest.mark.parametrize("spread", [1e-5, 1e-3, 1e-1])
    def test_the_norm_is_that_of_the_difference(self, dtype, spread):
        base, other = branches((300, 400), spread, dtype)
        result, said = merge_tensors(Noise(seed=2), (base, other))
        wanted = float((other.double() - base.double()).norm())
        assert float((result.double() - base.double()).norm()) == pytest.approx(wanted, rel=0.01)
        assert said["norm"] == pytest.approx(wanted)
        assert said["noise"] == pytest.approx(wanted, rel=0.01)
        assert result.dtype == dtype

    def test_it_is_gaussian_and_knows_nothing_of_the_other_model(self):
        base, other = branches((500, 400), 1e-3, FP32)
        result = merge_tensors(Noise(), (base, other))[0]
        noise, delta = ((t - base).double().flatten() for t in (result, other))
        # standard errors with 200,000 draws: kurtosis 0.011, correlation and mean 0.0022 standard deviations
        assert float((noise**4).mean() / noise.square().mean() ** 2) == pytest.approx(3, abs=0.05)
        assert abs(float(noise.mean() / noise.std())) < 0.01
        assert abs(float(torch.corrcoef(torch.stack([noise, delta]))[0, 1])) < 0.01

    def test_seed_tensor_and_step_change_it_and_blocks_hardly(self, monkeypatch):
        pair = branches((50, 40), 1e-3, FP32)
        keys = [(0, "a", "x"), (1, "a", "x"), (0, "b", "x"), (0, "a", "y"), (0, "a", "x")]
        results = [merge_tensors(Noise(seed=s, step=step).for_tensor(n), pair)[0] for s, step, n in keys]
        assert torch.equal(results[0], results[4])
        assert not any(torch.allclose(results[0], each, rtol=0, atol=1e-4) for each in results[1:4])
        monkeypatch.setattr(blocks, "BLOCK", 70)
        small = merge_tensors(Noise(step="a").for_tensor("x"), pair)[0]
        torch.testing.assert_close(small, results[0], rtol=1e-6, atol=1e-9)  # sums over blocks set its length

    def test_no_difference_gives_no_noise(self):
        base, _ = branches((5, 7))
        assert torch.equal(merge_tensors(Noise(), (base, base))[0], base)
        assert merge_tensors(Noise(), (torch.zeros(()), torch.ones(())))[0].shape == ()


def test_a_mask_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="mask 'best': must be importance, random or largest"):
        Placebo(mask="best")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mask", ["random", "largest"])
def test_compiled_loops_take_and_count_what_the_definitions_say(mask, dtype):
    torch.manual_seed(2)
    base = torch.randn(37, 53).to(dtype)
    other = torch.where(torch.rand(37, 53) < 0.7, (base.float() + 0.1 * torch.randn(37, 53)).to(dtype), base)
    block = RowBlock(0, (base, other))
    method = Placebo("exact", mask=mask, seed=11)
    state = method.prepare(lambda function: map(function, [block]), (37, 53))
    drawn = pruning.uniform(11, 0, 0, base.shape, base.device)
    scores = (other.float() - base.float()).abs() if mask == "largest" else (1 - drawn).float() * (other != base)
    factor = state.head.mask(scores, 0).float()
    merged, tally = method.apply(state, block)
    assert 0 < factor.sum() < (base != other).sum()
    assert torch.equal(merged, fusion.combine(base, other, factor, "exact"))
    assert tally.tolist() == pytest.approx(fusion.tally(base, other, factor), rel=1e-12)
