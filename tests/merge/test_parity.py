"""The kit's merge methods against mergekit's, tensor by tensor, in the peers' environment.

Both get the tensors of tiny random Qwen2 and Llama models and of branches around them. Unless a test says otherwise the
results are equal bit for bit. Where several entries share the magnitude at which pruning stops, mergekit takes any of
them and the kit the first; such entries are left out, and they are few. In float16 the methods of `IN_FLOAT32` are
compared with what mergekit computes in float32 from the same tensors, as `tinyr1.merge.methods.sums` says.
"""

import json
import subprocess
from pathlib import Path

import peers
import pytest
import torch
from safetensors.torch import load_file, save_file

from tinyr1.merge.fusion_blocks import Fusion
from tinyr1.merge.method import Method, merge_tensors
from tinyr1.merge.methods import METHODS
from tinyr1.merge.methods.consensus import Sce
from tinyr1.merge.methods.sums import computed_in

pytestmark = pytest.mark.slow
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BRANCHES = 6
WEIGHT = [0.9, 0.5, 0.3]

# name -> (mergekit's name of the method, its parameters, what the kit's class is told besides). The first tensor is the
# base of the methods that have one; the others count it among the models.
EXACT = {
    "soup": ("linear", {"weight": [1, 1, 1, 1]}),
    "weighted": ("linear", {"weight": [0.1, 0.7, 0.3, 0.2]}),
    "sum": ("linear", {"weight": [1, 0.5, -0.5, 0.3], "normalize": False}),
    "task arithmetic": ("task_arithmetic", {"weight": WEIGHT, "lambda": 0.8}),
    "task arithmetic, normalized": ("task_arithmetic", {"weight": WEIGHT, "normalize": True}),
    "soup of seven": ("linear", {"weight": [0.1, 0.2, 0.3, 0.7, 0.15, 0.6, 0.9]}),
    "opposed weights": ("task_arithmetic", {"weight": [1, -1, 0], "normalize": True}),
    "ties": ("ties", {"weight": WEIGHT, "density": 0.2}),
    "ties, a density each": ("ties", {"weight": WEIGHT, "density": [0.2, 0.5, 1.0], "normalize": False}),
    "ties, negative weight": ("ties", {"weight": [1, -0.5, 0.3], "density": 0.5, "lambda": 0.4}),
    "breadcrumbs": ("breadcrumbs", {"weight": WEIGHT, "density": 0.4, "gamma": 0.1}),
    "breadcrumbs, little room": ("breadcrumbs", {"weight": WEIGHT, "density": 0.9, "gamma": 0.2, "normalize": True}),
    "breadcrumbs_ties": ("breadcrumbs_ties", {"weight": WEIGHT, "density": [0.4, 0.6, 0.8], "gamma": [0.1, 0.05, 0]}),
    # Without pruning nothing is left to chance.
    "dare_ties, density 1": ("dare_ties", {"weight": WEIGHT, "density": 1.0}),
    "della, density 1": ("della", {"weight": WEIGHT, "density": 1.0}),
    "nearswap": ("nearswap", {"t": 0.004}),
    "passthrough": ("passthrough", {}),
    "passthrough, scaled": ("passthrough", {"scale": [0.3]}),
}
CLOSE = {
    "six branches": ("task_arithmetic", {"weight": [0.9, 0.5, 0.3, 0.2, 0.1, 0.7], "normalize": True}),
    "six branches, ties": ("ties", {"weight": [0.9, 0.5, 0.3, 0.2, 0.1, 0.7], "density": 0.4}),
    "slerp": ("slerp", {"t": 0.3}),
    "slerp, half": ("slerp", {"t": 0.5}),
    "ties, rescaled": ("ties", {"weight": WEIGHT, "density": 0.3, "rescale": True}),
    "breadcrumbs, rescaled": ("breadcrumbs", {"weight": WEIGHT, "density": 0.3, "gamma": 0.1, "rescale": True}),
    "nuslerp": ("nuslerp", {"weight": [0.4, 0.8]}),
    "nuslerp, base": ("nuslerp", {"weight": [0.4, 0.8]}, {"has_base": True}),
    "nuslerp, rows": ("nuslerp", {"weight": [0.4, 0.8], "nuslerp_flatten": False}, {"has_base": True}),
    "nuslerp, columns": ("nuslerp", {"weight": [1, -1], "nuslerp_flatten": False, "nuslerp_row_wise": True}),
    "multislerp": ("multislerp", {"weight": [0.4, 0.8, 0.3]}),
    "multislerp, base": ("multislerp", {"weight": WEIGHT, "normalize_weights": False}, {"has_base": True}),
    "karcher": ("karcher", {}, {"models": 3}),
    "karcher, two": ("karcher", {"max_iter": 3, "tol": 1e-3}, {"models": 2}),
    "sce": ("sce", {}, {"models": 3}),
    "sce, a part": ("sce", {"select_topk": 0.3}, {"models": 3}),
    "model_stock": ("model_stock", {}, {"models": 3}),
    "model_stock, rows": ("model_stock", {"filter_wise": True}, {"models": 2}),
}
# float16 overflows in mergekit: it takes the sums for `rescale` in it, and 1e-8, below which a sum of weights does not
# divide, is 0 in it. The kit takes both in wider types.
NOT_IN_FLOAT16 = {"opposed weights", "ties, rescaled", "breadcrumbs, rescaled"}

TIED = ("sce, a part", "bfloat16")  # of equal variances mergekit takes others, and the weights of the models follow
IN_FLOAT32 = {"nuslerp", "multislerp", "karcher", "sce", "model_stock", "nearswap", "passthrough"}
WITHOUT_BASE = {"linear", "karcher", "passthrough"}

PEER = """
import json, sys
import torch
from safetensors.torch import load_file, save_file
from mergekit.merge_methods import registry
from mergekit.merge_methods.base import TensorGroup
models, cases, out = load_file(sys.argv[1]), json.load(open(sys.argv[2])), {}
names = sorted({key.split("|", 1)[1] for key in models})
for case, (method, parameters, count, base_index, wide) in cases.items():
    for name in names:
        tensors = [models[f"{i}|{name}"] for i in range(count)]
        group = TensorGroup.from_tensors(tensors, base_index=base_index)
        types = {}
        if name.split("|")[0] in wide:
            types = {"dtype": torch.float32, "out_dtype": tensors[0].dtype}
        out[f"{case}|{name}"] = registry.get(method)([group], parameters=parameters, **types)[0].contiguous()
save_file(out, sys.argv[3])
"""


def kit_method(case: str) -> Method:
    """The kit's method of a case; other names for the same parameter are known here alone."""
    method, parameters, *own = (EXACT | CLOSE)[case]
    parameters = {"lambda_" if name == "lambda" else name: value for name, value in parameters.items()}
    return METHODS[method](**parameters, **(own[0] if own else {}))


def peer_case(case: str, native: bool = False) -> tuple:
    """A case as `PEER` takes it; native: mergekit computes in the dtype of the tensors, whatever the method."""
    method, parameters, *_ = (EXACT | CLOSE)[case]
    kit = kit_method(case)
    base_index = None if method in WITHOUT_BASE or not getattr(kit, "has_base", True) else 0
    wide = ("float16", "bfloat16") if method == "karcher" else ("float16",)
    wide = wide if method in IN_FLOAT32 and not native else ()
    return method, parameters, kit.inputs, base_index, wide


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


def by_mergekit(models: dict[str, torch.Tensor], cases: dict, folder: Path) -> dict[str, torch.Tensor]:
    """What mergekit makes of the models; cases: name -> what `peer_case` makes."""
    save_file(models, folder / "models.safetensors")
    (folder / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    (folder / "peer.py").write_text(PEER, encoding="utf-8")
    words = [folder / name for name in ("peer.py", "models.safetensors", "cases.json", "out.safetensors")]
    subprocess.run([peers.python(), *words], check=True)
    return load_file(folder / "out.safetensors")


def compared(case: str, dtype: str, models: dict, mergekit: dict):
    """(tensor's name, kit's result, mergekit's, entries that may differ) of each tensor."""
    kit = kit_method(case)
    keys = [key for key in mergekit if key.startswith(f"{case}|{dtype}|")]
    assert len(keys) == 27 + 21  # Qwen2, which has biases, and Llama
    for key in keys:
        name = key.split("|", 1)[1]
        tensors = tuple(models[f"{i}|{name}"] for i in range(kit.inputs))
        yield name, merge_tensors(kit, tensors)[0], mergekit[key], tied(kit, tensors)


def tied(method, tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """True where one of several entries of equal magnitude is kept and another is not, in any model."""
    found = torch.zeros(tensors[0].shape, dtype=torch.bool)
    if isinstance(method, Sce) and method.select_topk < 1:
        changes = torch.stack([(model - tensors[0]).float() for model in tensors[1:]])
        variance = changes.to(computed_in(tensors[0].dtype)).var(dim=0, unbiased=False)
        falling = variance.flatten().sort(descending=True).values
        place = int(variance.count_nonzero() * method.select_topk)
        return variance == falling[place] if place > 0 and falling[place - 1] == falling[place] else found
    if not hasattr(method, "places"):
        return found
    for i, model in enumerate(tensors[1:]):
        magnitudes = (model - tensors[0]).abs()
        falling = magnitudes.flatten().sort(descending=True).values
        for place in method.places(i, len(falling)):
            if 0 < place < len(falling) and falling[place - 1] == falling[place]:
                found |= magnitudes == falling[place]
    return found


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
