"""The kit's merge methods against mergekit's, tensor by tensor, in the peers' environment.

Both get the tensors of tiny random Qwen2 and Llama models and of branches around them. Unless a test says otherwise the
results are equal bit for bit. Where several entries share the magnitude at which pruning stops, mergekit takes any of
them and the kit the first; such entries are left out, and they are few. In float16 the methods of `IN_FLOAT32` are
compared with what mergekit computes in float32 from the same tensors, as `tinyr1.merge.methods.sums` says.
"""

import pytest
import torch
from parity import CLOSE, DTYPES, EXACT, NOT_IN_FLOAT16, TIED, by_mergekit, kit_method, peer_case, tied

from tinyr1.merge.fusion_blocks import Fusion
from tinyr1.merge.method import merge_tensors

pytestmark = pytest.mark.slow
BRANCHES = 6


def checkpoint(config) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForCausalLM

    state = AutoModelForCausalLM.from_config(config).state_dict()
    return {f"{config.model_type}.{name}": tensor for name, tensor in state.items()}


def pairs(cases: dict) -> list[tuple[str, str]]:
    unlike = {TIED, *((case, "float16") for case in NOT_IN_FLOAT16)}
    return [(c, d) for c in cases for d in DTYPES if (c, d) not in unlike]


@pytest.fixture(scope="module")
def models() -> dict[str, torch.Tensor]:
    """'i|dtype|tensor' -> tensor; model 0 is the base. Differences are large enough for the curved part of SLERP."""
    from transformers import LlamaConfig, Qwen2Config

    torch.manual_seed(0)
    size = {"hidden_size": 48, "intermediate_size": 100, "num_hidden_layers": 2, "vocab_size": 300}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    base = checkpoint(Qwen2Config(**size, **heads)) | checkpoint(LlamaConfig(**size, **heads))
    branches = [{n: t + torch.randn(t.shape) * 0.01 for n, t in base.items()} for _ in range(BRANCHES)]
    return {
        f"{i}|{dtype}|{name}": tensor.to(DTYPES[dtype]).contiguous()
        for i, model in enumerate([base, *branches])
        for dtype in DTYPES
        for name, tensor in model.items()
    }


@pytest.fixture(scope="module")
def mergekit(models, tmp_path_factory) -> dict[str, torch.Tensor]:
    """'case|dtype|tensor' -> mergekit's result."""
    cases = {case: peer_case(case) for case in EXACT | CLOSE}
    cases["native karcher"] = peer_case("karcher", native=True)
    return by_mergekit(models, cases, tmp_path_factory.mktemp("parity"))


def compared(case: str, dtype: str, models: dict, mergekit: dict):
    """(tensor's name, kit's result, mergekit's, entries that may differ) of each tensor."""
    kit = kit_method(case)
    keys = [key for key in mergekit if key.startswith(f"{case}|{dtype}|")]
    assert len(keys) == 27 + 21  # Qwen2, which has biases, and Llama
    for key in keys:
        name = key.split("|", 1)[1]
        tensors = tuple(models[f"{i}|{name}"] for i in range(kit.inputs))
        yield name, merge_tensors(kit, tensors)[0], mergekit[key], tied(kit, tensors)


@pytest.mark.parametrize(("case", "dtype"), pairs(EXACT))
def test_results_are_equal_bit_for_bit(case, dtype, models, mergekit):
    left_out, entries = 0, 0
    for name, ours, theirs, skip in compared(case, dtype, models, mergekit):
        assert torch.equal(ours[~skip], theirs[~skip]), name
        left_out, entries = left_out + int(skip.sum()), entries + skip.numel()
    assert left_out <= (0.0001 if dtype == "float32" else 0.02) * entries


@pytest.mark.parametrize(("case", "dtype"), pairs(CLOSE))
def test_results_differ_by_the_rounding_of_a_sum(case, dtype, models, mergekit):
    """Angles, lengths and the factor of `rescale` come from sums over the tensor: in float64 here, in float32 there.

    More than four branches are added up in an order that depends on the tensor's layout there, one by one here.
    """
    differing, entries = 0, 0
    for name, ours, theirs, skip in compared(case, dtype, models, mergekit):
        ours, theirs = ours[~skip], theirs[~skip]
        # float32: some units in the last place of the largest entry. Else that, or the neighbour when it is rounded.
        largest = theirs.abs().max().item()
        if case.startswith("model_stock"):  # its result can be far smaller than what it is computed from
            largest = max(largest, *(models[f"{i}|{name}"].abs().max().item() for i in range(3)))
        atol, rtol = 1e-6 * largest, {"float32": 0, "bfloat16": 2**-7, "float16": 2**-10}[dtype]
        torch.testing.assert_close(ours, theirs, atol=atol, rtol=rtol, msg=lambda text, name=name: f"{name}: {text}")
        differing, entries = differing + int((ours != theirs).sum()), entries + ours.numel()
    assert dtype == "float32" or differing <= 0.001 * entries


def test_ties_at_the_cut_change_the_weights_of_sce_by_a_unit_in_their_last_place(models, mergekit):
    left_out, entries = 0, 0
    for name, ours, theirs, skip in compared(*TIED, models, mergekit):
        largest = (theirs - models[f"0|{name}"]).abs().max().item()
        torch.testing.assert_close(ours[~skip], theirs[~skip], atol=2**-6 * largest, rtol=2**-7)
        left_out, entries = left_out + int(skip.sum()), entries + skip.numel()
    assert left_out <= 0.1 * entries


def test_karcher_differs_from_what_mergekit_computes_in_bfloat16_by_less_than_2_percent(models, mergekit):
    prefix = "native karcher|"
    for key in [key for key in mergekit if key.startswith(f"{prefix}bfloat16|")]:
        tensors = tuple(models[f"{i}|{key.removeprefix(prefix)}"] for i in range(3))
        ours = merge_tensors(kit_method("karcher"), tensors)[0]
        assert (ours - mergekit[key]).abs().max() < 0.02 * mergekit[key].abs().max(), key


# The share of the largest entry by which mergekit's own float32 sums move its result in a tensor of a million entries.
ODD = {"one row": (1, 40), "column": (40, 1), "three dimensions": (13, 7, 5), "tall": (26003, 40), "vector": (2000,),
       "single": ()}  # fmt: skip
SUMMED = {"nuslerp": 1e-5, "multislerp": 1e-4, "karcher": 1e-5, "sce": 1e-6, "model_stock": 1e-6, "nearswap": 0}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_odd_shapes(dtype, tmp_path):
    """bfloat16 is equal but for the last bit of a few entries; karcher is computed in float32, see `peer_case`.

    nuslerp has a sum for every column: one of them lies so near the middle of two bfloat16 numbers that the last digits
    of a float32 sum decide which one it becomes, and the column follows.
    """
    torch.manual_seed(5)
    odd = {}
    for name, shape in ODD.items():
        base = torch.randn(shape) * 0.02
        for i in range(4):
            odd[f"{i}|{dtype}|{name}"] = (base + torch.randn(shape) * 0.01 * (i > 0)).to(DTYPES[dtype])
    cases = [c for c, (method, *_) in (EXACT | CLOSE).items() if method in SUMMED and (c, dtype) != TIED]
    theirs = by_mergekit(odd, {case: peer_case(case) for case in cases}, tmp_path)
    for key, expected in theirs.items():
        case, name = key.split("|", 1)
        kit = kit_method(case)
        ours = merge_tensors(kit, tuple(odd[f"{i}|{name}"] for i in range(kit.inputs)))[0]
        method = (EXACT | CLOSE)[case][0]
        in_float32 = dtype == "float32" or method == "karcher"
        share = SUMMED[method] if in_float32 else 2**-6 if method == "nuslerp" else 0
        atol = share * expected.abs().max().item()
        rtol = 2**-7 if dtype == "bfloat16" else 0
        torch.testing.assert_close(ours, expected, rtol=rtol, atol=atol, msg=lambda text, key=key: f"{key}: {text}")
        if dtype == "bfloat16":
            assert (ours != expected).sum() <= (0.02 if share else 0.001) * ours.numel(), key


# Up to a million entries mergekit takes exact quantiles, as the kit always does.
FUSED = {
    "projection": (576, 1536), "wide": (36, 27648), "million": (1000, 1000), "vocabulary": (15000, 64),
    "three dimensions": (4, 50, 60), "bias": (1024,), "one row": (1, 5120), "column": (300, 1), "single": (1,),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_released_fusion_is_equal_bit_for_bit_up_to_a_million_entries(dtype, tmp_path):
    torch.manual_seed(1)
    models = {}
    for name, shape in FUSED.items():
        base = torch.randn(shape) * 0.02
        for spread in (1e-5, 1e-4, 1e-3, 0.1):  # from branches nearly lost in rounding to unrelated models
            for i in range(2):
                models[f"{i}|{name}, {spread}"] = (base + torch.randn(shape) * spread).to(DTYPES[dtype])
    theirs = by_mergekit(models, {"fusion": ("arcee_fusion", {}, 2, 0, ())}, tmp_path)
    assert len(theirs) == 4 * len(FUSED)
    for key, expected in theirs.items():
        name = key.split("|", 1)[1]
        ours, _ = merge_tensors(Fusion("released"), (models[f"0|{name}"], models[f"1|{name}"]))
        assert torch.equal(ours, expected.to(ours.dtype)), name  # mergekit rounds the result where it stores it
