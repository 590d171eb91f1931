"""docs/merge.md says of each merge method what a comparison with mergekit shows; every row is held to its claim."""

import pytest
import torch
from parity import WEIGHT, by_mergekit, failures
from parity_table import BEGIN, CUT, DOCUMENT, END, EQUAL, ROWS, SCALED, on_checkpoints, on_tensors, table

from tinyr1.merge.method import merge_tensors
from tinyr1.merge.methods import METHODS

pytestmark = pytest.mark.slow
NEIGHBOUR = {"bfloat16": 2**-6, "float16": 2**-9}  # of the largest entry: the most that the next number is away


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    return on_tensors(tmp_path_factory.mktemp("odd"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return on_checkpoints(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.case)
def test_every_row_keeps_its_claim(row, odd, whole):
    found = [(dtype, seen) for part in (odd, whole) for (case, dtype), seen in part.items() if case == row.case]
    assert {dtype for dtype, _ in found} >= {"float32", "bfloat16"}
    for dtype, seen in found:
        assert seen.entries > 0
        if row.claim == EQUAL:
            assert seen.differing == 0, dtype
        elif row.claim == CUT and not row.bound:
            assert seen.beside_ties == 0, dtype
        elif row.claim == SCALED:  # a unit in the last place of the factor; a sign that is elected may follow
            assert seen.beside_ties <= 0.2 * seen.entries or dtype == "float32" and seen.largest <= 1e-6, dtype
        else:
            assert seen.largest <= (row.bound if dtype == "float32" else NEIGHBOUR[dtype]), dtype
            assert dtype == "float32" or row.claim == CUT or seen.beside_ties <= 0.02 * seen.entries, dtype


def test_the_document_has_the_table(odd, whole):
    """The words are the same; measured shares belong to a processor, see the document."""
    written = DOCUMENT.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]

    def words(text: str) -> list[list[str]]:
        lines = [line.split("|") for line in text.splitlines()]
        return [line[1:3] + line[7:9] for line in lines]

    assert words(written) == words(table(odd, whole))


def test_mergekit_fails_on_della_where_a_row_has_one_entry(tmp_path):
    shapes = {"column": (40, 1), "single": (), "row": (1, 40)}
    models = {f"{i}|float32|{name}": torch.randn(shape) for i in range(4) for name, shape in shapes.items()}
    settings = {"weight": WEIGHT, "density": 0.5}
    theirs = by_mergekit(models, {"della": ("della", settings, 4, 0, ())}, tmp_path)
    assert {key.split("|")[2] for key in failures(tmp_path)} == {"column", "single"}
    assert [key.split("|")[2] for key in theirs] == ["row"]
    for name, shape in shapes.items():
        inputs = tuple(models[f"{i}|float32|{name}"] for i in range(4))
        assert merge_tensors(METHODS["della"](**settings), inputs)[0].shape == shape


@pytest.mark.parametrize(("method", "theirs_too"), [("dare_linear", True), ("della_linear", False)])
def test_random_pruning_keeps_the_difference_in_expectation(method, theirs_too, tmp_path):
    """Of the tenth of the entries that differ most, which MagPrune of mergekit makes too large."""
    torch.manual_seed(3)
    base, other = torch.zeros(500, 400), torch.randn(500, 400)
    settings = {"weight": [1.0], "density": 0.5, "rescale": True}
    models = {"0|float32|x": base, "1|float32|x": other}
    theirs = by_mergekit(models, {"case": (method, settings, 2, 0, ())}, tmp_path)["case|float32|x"]
    ours, _ = merge_tensors(METHODS[method](**settings), (base, other))
    most = other.abs() >= other.abs().flatten().kthvalue(int(0.9 * other.numel())).values
    kept = [float(merged[most].abs().sum() / other[most].abs().sum()) for merged in (ours, theirs)]
    assert kept[0] == pytest.approx(1, abs=0.03)
    assert kept[1] == pytest.approx(1, abs=0.03) if theirs_too else kept[1] > 1.07
