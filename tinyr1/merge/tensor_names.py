"""The names that a model has for its tensors, from those in its files.

    _orig_mod.model.norm.weight                   -> model.norm.weight     torch.compile wrapped the model
    module.model.norm.weight                      -> model.norm.weight     so did DataParallel
    model.layers.0.self_attn.rotary_emb.inv_freq  -> left out              computed anew from config.json on loading
    h.0.ln_1.weight         -> transformer.h.0.ln_1.weight                 GPT-2 and BLOOM, as first published
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tinyr1.core.errors import UserError

# Modules of PyTorch that wrap another one, anywhere in a model, and add their name to those of its tensors.
WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
PARALLEL = "module."  # of DataParallel, which wraps whole models; inside of a name it is a model's own word
# Buffers that old releases of transformers stored: today's compute them from the config and drop those of a file.
RECOMPUTED = re.compile(r"(?:^|\.)rotary_(?:pos_)?emb\.(?:(?:original_)?inv_freq|(?:cos|sin)_cached)$|\.position_ids$")
CAUSAL_MASK = re.compile(r"(?:^|\.)(?:attn|attention|crossattention)\.(?:masked_)?bias$")
# Networks whose published files leave out the module around the layers, which files saved later have.
PREFIXES = {"gpt2": "transformer.", "bloom": "transformer."}
HEAD = "lm_head."  # stands outside that module
WITH_CAUSAL_MASK = {"gpt2", "gpt_neo", "gpt_neox", "gptj"}  # elsewhere an attention's bias is a weight


@dataclass(frozen=True)
class Names:
    """stored: name in the model -> name in the files. notices: what was changed or left out, a sentence each."""

    stored: dict[str, str]
    notices: list[str]


def of_model(where: str, stored: Iterable[str], model_type: str | None) -> Names:
    """The names of a checkpoint's tensors without prefixes of wrappers and without buffers that are computed anew.

    where: the checkpoint, for messages. UserError when two names become one.
    """
    plain = {name: WRAPPERS.sub("", name) for name in stored}
    while plain and all(name.startswith(PARALLEL) for name in plain.values()):
        plain = {name: short.removeprefix(PARALLEL) for name, short in plain.items()}
    notices = []
    if changed := [(name, short) for name, short in plain.items() if name != short]:
        name, short = changed[0]
        notices.append(f"{where}: wrappers' prefixes are removed from {len(changed)} names ({name} is {short})")
    prefix = PREFIXES.get(model_type or "", "")
    if prefix and not any(short.startswith(prefix) for short in plain.values()):
        plain = {name: short if short.startswith(HEAD) else prefix + short for name, short in plain.items()}
        notices.append(f"{where}: its names get {prefix!r} before them, as transformers has it")
    kept: dict[str, str] = {}
    recomputed = []
    for name, short in plain.items():
        if short in kept:
            raise UserError(f"{where}: {kept[short]} and {name} are one tensor of the model; write the model again")
        if _is_recomputed(short, model_type):
            recomputed.append(short)
        else:
            kept[short] = name
    if recomputed:
        notices.append(f"{where}: {_some(recomputed)}: computed anew on loading, neither merged nor written")
    return Names(kept, notices)


def _is_recomputed(name: str, model_type: str | None) -> bool:
    """Whether transformers drops a stored tensor and computes it."""
    return bool(RECOMPUTED.search(name) or (model_type in WITH_CAUSAL_MASK and CAUSAL_MASK.search(name)))


def _some(names: list[str]) -> str:
    """The first name, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more like it"
