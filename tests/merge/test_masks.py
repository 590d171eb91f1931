"""Which entries a rule takes: placebos, printed equations and the sweep, against plain tensors in memory."""

import pandas as pd
import pytest
import torch
from checkpoints import Shape, experts
from safetensors.torch import load_file

from tinyr1.merge import fusion, masks
from tinyr1.merge.method import merge_tensors
from tinyr1.merge.methods.placebo import Placebo
from tinyr1.report import plots, plots_merge


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return experts(tmp_path_factory.mktemp("experts"), Shape(dtype=torch.float32), spread=0.01)


def pairs(folders):
    base, other = (load_file(folders[name] / "model.safetensors") for name in ("science", "math"))
    return {n: (base[n], other[n]) for n in base if ".layers." in n}


def test_placebos_take_as_much_as_importance_and_something_else(folders):
    table = masks.placebos(folders["science"], folders["math"], 1.5)
    assert table.index.to_list() == ["importance", "magnitude", "largest", "random"]
    taken = table["differing weights taken"]
    assert taken["importance"] == taken["largest"] == taken["random"]
    both = either = distance = whole = differing = count = 0
    for name, (base, other) in pairs(folders).items():
        real = fusion.fuse(base, other)[0] != base
        mask = merge_tensors(Placebo(mask="random").for_tensor(name), (base, other))[0] != base
        both, either = both + int((real & mask).sum()), either + int((real | mask).sum())
        squared = (other.double() - base.double()).square()
        distance, whole = distance + float(squared[mask].sum()), whole + float(squared.sum())
        differing, count = differing + int((base != other).sum()), count + int(real.sum())
    assert table.loc["random", "overlap with importance"] == pytest.approx(both / either)
    assert table.loc["random", "squared distance taken"] == pytest.approx(distance / whole, rel=1e-5)
    assert taken["importance"] == pytest.approx(count / differing)
    assert table.loc["importance", "overlap with importance"] == 1
    squared = table["squared distance taken"]
    assert squared["random"] < squared["importance"] < squared["largest"], "nothing of this size holds more than those"


def test_the_divergence_of_the_printed_equations_cancels(folders):
    seen = masks.printed(folders["science"], folders["math"], 1.5)
    taken = smaller = differing = 0
    for base, other in pairs(folders).values():
        signed = (base - other).double()
        low, median, high = signed.flatten().sort().values[fusion.quartile_ranks(signed.numel())]
        mask = signed > median + 1.5 * (high - low)
        taken, smaller = taken + int(mask.sum()), smaller + int((mask & (other < base)).sum())
        differing += int((signed != 0).sum())
    assert seen["overlap"] == 1
    assert seen["ties"] < 0.01
    assert seen["taken"] == pytest.approx(taken / differing, abs=seen["ties"] + 1e-9)
    assert seen["smaller"] == pytest.approx(smaller / taken, abs=0.01)
    assert masks.printed_told({"taken": 0.031, "overlap": 0.5, "ties": 0.002, "smaller": 0.999}) == (
        "The printed equations take 3.1 % of the weights that differ. The same rule without the divergence makes a "
        "selection that overlaps with theirs by 0.500, apart from the 0.2 % of the weights that lie on the threshold, "
        "where rounding decides. Of the weights that the equations take, 99.9 % become smaller."
    )


def test_a_sweep_repeats_and_its_branches_have_their_distance():
    table = masks.sweep(1.5, widths=(512,), distances=(1e-4, 1e-2))
    pd.testing.assert_frame_equal(table, masks.sweep(1.5, widths=(512,), distances=(1e-4, 1e-2)))
    exact = table[table.arithmetic == "exact"]
    assert exact.overlap.to_list() == [1, 1]
    assert (exact["rows with KL <= 0"] == 0).all()
    released = table[table.arithmetic == "released, fp32"].set_index("distance")
    assert released.overlap[1e-2] > 0.9, "far apart, float32 does what the definition says"
    assert released.overlap[1e-4] < released.overlap[1e-2], "close together, rounding decides"
    base, other = masks._branches(64, 512, 1e-2)
    assert float((other.double() - base.double()).std()) == pytest.approx(1e-2, rel=0.02)
    assert float(base.double().std()) == pytest.approx(masks.SPREAD, rel=0.02)
    assert len(plots_merge.sweep(table).axes) == 1
    plots.plt.close("all")


def test_a_sweep_is_told_with_its_numbers():
    rows = [
        {"width": 5120, "distance": 1e-4, "arithmetic": name, "taken": taken, "overlap": overlap,
         "rows with KL <= 0": below} for name, taken, overlap, below in (
            ("released, bf16", 0.07, 0.29, 0.1), ("exact", 0.048, 1.0, 0.0))
    ]  # fmt: skip
    assert masks.sweep_told(pd.DataFrame(rows), 1e-4) == (
        "In rows of 5,120 weights whose branches differ by 0.0001, the released arithmetic takes 7.0 % of the weights "
        "that differ and the exact one 4.8 %; the two selections overlap by 0.29, and 10 % of the rows get a "
        "divergence of zero or below."
    )


def test_the_picture_of_the_example_has_the_numbers_of_fusion():
    base = torch.tensor([[0.0, 1.0, 2.0], [0.5, 0.5, 0.5]])
    other = torch.tensor([[0.1, 1.2, 3.0], [0.5, 0.52, 0.49]])
    merged, selection = fusion.fuse(base, other)
    panels = plots_merge.by_hand(base, other, 1.5).axes
    axes = {ax.get_title("left"): [text.get_text() for text in ax.texts] for ax in panels}
    plots.plt.close("all")
    assert axes["merged"] == [f"{value:.2f}" for value in merged.flatten().tolist()]
    mask = axes[f"≥ {selection.threshold:.4f}: mask"]
    assert [int(each) for each in mask] == (merged != base).flatten().int().tolist()
