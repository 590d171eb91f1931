"""The cases in which the kit's merge methods are compared with mergekit's, and what mergekit makes of tensors.

    case -> kit_method -> the kit's method             tensors -> merge_tensors -> the kit's result
         -> peer_case  -> mergekit's name and numbers          -> by_mergekit   -> mergekit's, in its own process
"""

import json
import subprocess
from pathlib import Path

import peers
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tinyr1.merge.method import Method
from tinyr1.merge.methods import METHODS
from tinyr1.merge.methods.consensus import Sce
from tinyr1.merge.methods.sums import computed_in

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
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
    "dare_linear, density 1": ("dare_linear", {"weight": WEIGHT, "density": 1.0}),
    "della_linear, density 1": ("della_linear", {"weight": WEIGHT, "density": 1.0}),
    "slerp, start": ("slerp", {"t": 0.0}),
    "slerp, end": ("slerp", {"t": 1.0}),
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
models, cases, out, failed = load_file(sys.argv[1]), json.load(open(sys.argv[2])), {}, {}
names = sorted({key.split("|", 1)[1] for key in models})
for case, (method, parameters, count, base_index, wide) in cases.items():
    for name in names:
        tensors = [models[f"{i}|{name}"] for i in range(count)]
        group = TensorGroup.from_tensors(tensors, base_index=base_index)
        types = {}
        if name.split("|")[0] in wide:
            types = {"dtype": torch.float32, "out_dtype": tensors[0].dtype}
        try:
            out[f"{case}|{name}"] = registry.get(method)([group], parameters=parameters, **types)[0].contiguous()
        except (IndexError, RuntimeError) as error:
            failed[f"{case}|{name}"] = str(error)
save_file(out, sys.argv[3], metadata={"failed": json.dumps(failed)})
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


def by_mergekit(models: dict[str, torch.Tensor], cases: dict, folder: Path) -> dict[str, torch.Tensor]:
    """What mergekit makes of the models, but for `failures`; cases: name -> what `peer_case` makes."""
    save_file(models, folder / "models.safetensors")
    (folder / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    (folder / "peer.py").write_text(PEER, encoding="utf-8")
    words = [folder / name for name in ("peer.py", "models.safetensors", "cases.json", "out.safetensors")]
    subprocess.run([peers.python(), *words], check=True)
    return load_file(folder / "out.safetensors")


def failures(folder: Path) -> dict[str, str]:
    """'case|dtype|tensor' -> mergekit's error, of the last `by_mergekit` in the folder."""
    with safe_open(folder / "out.safetensors", "pt") as file:
        return json.loads(file.metadata()["failed"])


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
