"""Tiny checkpoints for the tests of merging: three experts around one base, with config and tokenizer."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

NAMES = ("math", "science", "code")
WORDS = ("<pad>", "<bos>", "<eos>", "<unk>", "the", "answer", "is", "so", "then", "we", "have", "thus")
HIDDEN, INTERMEDIATE, LAYERS, VOCABULARY, HEADS, KV_HEADS = 32, 48, 2, 64, 4, 2


@dataclass(frozen=True)
class Shape:
    """Sizes and layout of the checkpoints that `experts` makes."""

    dtype: torch.dtype = torch.bfloat16
    architecture: str = "qwen2"
    layers: int = LAYERS
    hidden: int = HIDDEN
    intermediate: int = INTERMEDIATE
    vocabulary: int = VOCABULARY
    tied: bool = False
    stores_head: bool = True  # of a tied one; an untied head is always stored
    shards: int = 1
    extras: bool = False  # an integer buffer, a 0-d tensor, empty tensors


def experts(folder: Path, shape: Shape = Shape(), names: tuple[str, ...] = NAMES, spread: float = 0.002) -> dict:
    """Checkpoints around one random base, name -> folder. `spread`: the deviation of their weights from it."""
    base = weights(shape, torch.Generator().manual_seed(1))
    made = {}
    for i, name in enumerate(names):
        generator = torch.Generator().manual_seed(100 + i)
        made[name] = write(folder / name, shape, moved(base, shape, generator, spread))
    return made


def weights(shape: Shape, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Random weights under the names that transformers gives them."""
    h, m, kv = shape.hidden, shape.intermediate, shape.hidden * KV_HEADS // HEADS
    sizes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocabulary, h), "model.norm.weight": (h,)}
    for i in range(shape.layers):
        layer = f"model.layers.{i}"
        sizes |= {f"{layer}.input_layernorm.weight": (h,), f"{layer}.post_attention_layernorm.weight": (h,)}
        for name, rows in (("q", h), ("k", kv), ("v", kv)):
            sizes[f"{layer}.self_attn.{name}_proj.weight"] = (rows, h)
            if shape.architecture == "qwen2":
                sizes[f"{layer}.self_attn.{name}_proj.bias"] = (rows,)
        sizes[f"{layer}.self_attn.o_proj.weight"] = (h, h)
        sizes |= {f"{layer}.mlp.{name}_proj.weight": (m, h) for name in ("gate", "up")}
        sizes[f"{layer}.mlp.down_proj.weight"] = (h, m)
    if not shape.tied:
        sizes["lm_head.weight"] = (shape.vocabulary, h)
    return {n: torch.randn(s, generator=generator) * 0.05 + ("norm" in n) for n, s in sizes.items()}


def moved(base: dict[str, torch.Tensor], shape: Shape, generator: torch.Generator, spread: float) -> dict:
    """The base moved at random, in the dtype of `shape`, with the tensors that the layout adds."""
    out = {
        n: (t + torch.randn(t.shape, generator=generator) * spread).to(shape.dtype).contiguous()
        for n, t in base.items()
    }
    if shape.tied and shape.stores_head:
        out["lm_head.weight"] = out["model.embed_tokens.weight"].clone()
    if shape.extras:
        out |= {
            "position_ids": torch.arange(7), "scale": torch.randn((), generator=generator).to(shape.dtype),
            "empty": torch.zeros(0, dtype=shape.dtype), "empty.rows": torch.zeros(3, 0, dtype=shape.dtype),
            "empty.ids": torch.zeros(0, 4, dtype=torch.int64), "mask": torch.tensor([True, False, True]),
        }  # fmt: skip
    return out


def write(folder: Path, shape: Shape, tensors: dict[str, torch.Tensor]) -> Path:
    """A checkpoint folder: weights in `shape.shards` files, config, generation config, tokenizer."""
    folder.mkdir(parents=True)
    store(folder, tensors, shape.shards)
    put_json(folder / "config.json", config(shape))
    put_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    add_tokenizer(folder)
    return folder


def store(folder: Path, tensors: dict[str, torch.Tensor], shards: int = 1) -> None:
    """The weights in one file, or dealt out to several with an index."""
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = dict(sorted(tensors.items())[i::shards])
        save_file(part, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    put_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def config(shape: Shape) -> dict:
    name = {"qwen2": "Qwen2", "llama": "Llama"}[shape.architecture]
    return {
        "architectures": [f"{name}ForCausalLM"], "model_type": shape.architecture, "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate, "num_hidden_layers": shape.layers, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "vocab_size": shape.vocabulary, "max_position_embeddings": 128,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": shape.tied, "hidden_act": "silu",
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        "torch_dtype": str(shape.dtype).removeprefix("torch."),
    }  # fmt: skip


def add_tokenizer(folder: Path, words: tuple[str, ...] = WORDS) -> None:
    """A tokenizer with one token a word."""
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    put_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **special})
    put_json(folder / "special_tokens_map.json", special)


def put_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def change_json(path: Path, **changes: object) -> None:
    """Set keys of a JSON file."""
    put_json(path, json.loads(path.read_text(encoding="utf-8")) | changes)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """The weight files and their index."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if ".safetensors" in p.name}
