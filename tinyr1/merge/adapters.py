"""A LoRA adapter of peft applied to its base while that is read, block by block.

    rows of W (base) ------------------------------------ + ---> rounded to the dtype of W ---> rows of W'
    rows of B, all of A (adapter) --> scale · B·A in float32 ^

W' is what `merge_and_unload` of peft stores: the product is computed in float32, the sum in that or in a wider dtype of
W, and W' is rounded once, to the dtype of W or to that in which the merge computes, where it is wider. An embedding and
a layer that keeps its weight transposed get (B·A)ᵀ, and as in peft the kind of the layer decides this, whatever
`fan_in_fan_out` says; of an embedding peft rounds the product before the sum, too, which can move an entry by one step
of a narrow dtype. Whole tensors that were
trained with the adapter (`modules_to_save`) take the place of the base's. Everything else that peft can do is refused
by its name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tinyr1.core.checkpoints import ADAPTER_CONFIG, TOKENIZER_FILES, read_object
from tinyr1.core.errors import UserError
from tinyr1.merge import inputs
from tinyr1.merge.reader import Checkpoint, StoredTensor, TensorFiles, read_header

PREFIX = "base_model.model."  # of all names in an adapter
LORA = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<part>[AB])(?:\.default)?(?:\.weight)?")
WRAPPED = re.compile(r"\.(?:base_layer|modules_to_save(?:\.default)?)(?=\.)")  # modules of peft around whole tensors
INITIAL = {True, False, None, "gaussian", "orthogonal", "eva"}  # ways to begin that leave the base as it was
# Keys of adapter_config.json that do not change what is added to the base.
WITHOUT_EFFECT = {
    "auto_mapping", "base_model_name_or_path", "corda_config", "eva_config", "exclude_modules", "inference_mode",
    "layers_pattern", "layers_to_transform", "loftq_config", "lora_dropout", "megatron_core", "modules_to_save",
    "peft_type", "peft_version", "qalora_group_size", "revision", "runtime_config", "target_modules", "task_type",
}  # fmt: skip
# Networks whose linear layers are Conv1D of transformers, which keeps a weight as (inputs, outputs), and these layers.
CONV1D_NETWORKS = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer"}
CONV1D_LAYERS = {"c_attn", "q_attn", "c_proj", "c_fc"}
FACTORS = 4  # factors that stay in memory as float32: of the tensors that the threads are at
REMEDY = "merge the adapter into its base with peft (merge_and_unload) and give that model"


class LoraConfig(BaseModel):
    """The keys of adapter_config.json that say what is added to the base, with the defaults of peft."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    r: int = Field(default=8, ge=1)
    lora_alpha: float = 8
    rank_pattern: dict[str, int] = {}
    alpha_pattern: dict[str, float] = {}
    use_rslora: bool = False
    fan_in_fan_out: bool = False
    bias: str = "none"
    init_lora_weights: bool | str | None = True

    @field_validator("rank_pattern", "alpha_pattern")
    @classmethod
    def _are_patterns(cls, patterns: dict[str, Any]) -> dict[str, Any]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
        return patterns

    def rank(self, module: str) -> int:
        """The rank of a module's factors."""
        return _of_pattern(self.rank_pattern, module, self.r)

    def scale(self, module: str) -> float:
        """The factor on B·A of a module."""
        rank = self.rank(module)
        return _of_pattern(self.alpha_pattern, module, self.lora_alpha) / (rank**0.5 if self.use_rslora else rank)


def _of_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """The value of the first pattern that is the end of a module's name, whole parts of it."""
    return next((value for end, value in patterns.items() if re.fullmatch(rf"(.*\.)?({end})", module)), default)


def read_lora_config(adapter: Path) -> LoraConfig:
    """What adapter_config.json asks for. UserError when this is no LoRA, or asks for what is not applied here."""
    file = adapter / ADAPTER_CONFIG
    content = read_object(file) or {}
    kind = content.get("peft_type")
    if kind != "LORA":
        raise UserError(f"{file}: peft_type is {kind!r}; only LORA is applied here, {REMEDY}")
    try:
        config = LoraConfig.model_validate({key: value for key, value in content.items() if value is not None})
    except ValidationError as error:
        lines = [f"{file}: {'.'.join(map(str, e['loc']))}: {e['msg']}; write or fetch it again" for e in error.errors()]
        raise UserError("\n".join(lines)) from error
    unknown = {key: value for key, value in (config.model_extra or {}).items() if key not in WITHOUT_EFFECT and value}
    if config.bias != "none":
        unknown["bias"] = config.bias
    if config.init_lora_weights not in INITIAL:  # it changed the base, too
        unknown["init_lora_weights"] = config.init_lora_weights
    if unknown:
        said = ", ".join(f"{key}: {value!r}" for key, value in sorted(unknown.items()))
        raise UserError(f"{file}: {said}: cannot be applied here; {REMEDY}")
    return config


@dataclass(frozen=True)
class Product:
    """What is added to a tensor: scale · B·A, or its transpose; `a` and `b`: names in the adapter."""

    a: str
    b: str
    scale: float
    transposed: bool


@dataclass(frozen=True)
class Changes:
    """What an adapter does to its base, by name of the base's tensor.

    products are added; replaced: the name of the tensor in the adapter that takes its place, before a product is added.
    """

    products: dict[str, Product]
    replaced: dict[str, str]


def changes(
    where: str, config: LoraConfig, stored: Mapping[str, StoredTensor], base: Mapping[str, StoredTensor],
    network: str | None = None,
) -> Changes:  # fmt: skip
    """What the tensors of an adapter (`stored`) do to those of its base; `where`: the adapter, for messages.

    network: `model_type` of the base. UserError when one of the tensors has no place in the base, or not the shape of
    that place, and where the adapter has none.
    """
    if not stored:
        raise UserError(f"{where}: holds no tensor; fetch or write the adapter again")
    if numbers := [name for name, one in stored.items() if not one.dtype.is_floating_point]:
        dtype = stored[numbers[0]].dtype
        raise UserError(f"{where}: {numbers[0]} is stored as {dtype}; factors are floating-point numbers, {REMEDY}")
    factors: dict[str, dict[str, str]] = {}
    embeddings, replaced = set(), {}
    for name in stored:
        short = name.removeprefix(PREFIX)
        if found := LORA.fullmatch(short):
            factors.setdefault(found["module"], {})[found["part"]] = name
            embeddings |= {found["module"]} if found["embedding"] else set()
        else:
            replaced[WRAPPED.sub("", short)] = name
    products = {}
    for module, parts in factors.items():
        if parts.keys() != {"A", "B"}:
            raise UserError(f"{where}: {', '.join(parts.values())}: one of two factors; fetch the adapter again")
        is_conv1d = network in CONV1D_NETWORKS and module.rpartition(".")[2] in CONV1D_LAYERS
        transposed = is_conv1d or module in embeddings
        products[f"{module}.weight"] = Product(parts["A"], parts["B"], config.scale(module), transposed)
        a, b = stored[parts["A"]].shape, stored[parts["B"]].shape
        if len(a) != 2 or len(b) != 2 or not a[0] == b[1] == config.rank(module):
            raise UserError(
                f"{where}: {module}: factors of shapes {list(a)} and {list(b)}, expected two matrices of rank "
                f"{config.rank(module)}; fetch or write the adapter again, or {REMEDY}"
            )
    for target, product in products.items():
        _check_place(where, target, _shape(product, stored), base)
    for target, name in replaced.items():
        _check_place(where, target, stored[name].shape, base)
    return Changes(products, replaced)


def _shape(product: Product, stored: Mapping[str, StoredTensor]) -> tuple[int, ...]:
    shape = stored[product.b].shape[0], stored[product.a].shape[1]
    return shape[::-1] if product.transposed else shape


def _check_place(where: str, name: str, shape: tuple[int, ...], base: Mapping[str, StoredTensor]) -> None:
    """UserError unless the base has a tensor of this name and shape to be changed."""
    if name not in base:
        raise UserError(f"{where}: changes {name}, which the base does not have; name the base it was trained on, or "
                        f"{REMEDY}")  # fmt: skip
    if base[name].shape != shape:
        raise UserError(f"{where}: {name} has the shape {list(base[name].shape)} in the base and {list(shape)} in the "
                        f"adapter; name the base it was trained on, or {REMEDY}")  # fmt: skip
    if not base[name].dtype.is_floating_point:
        raise UserError(f"{where}: changes {name}, which the base stores as {base[name].dtype}; dequantize the base")


class AdaptedCheckpoint(Checkpoint):
    """A base with an adapter applied; names, shapes and dtypes are those of the base.

    dtype: in which the merge computes, None for that of the base. Changed rows come in the wider one of both.
    """

    def __init__(self, base: Path, adapter: Path, dtype: torch.dtype | None = None) -> None:
        super().__init__(base)
        self.dtype = dtype
        file = inputs.adapter_weights(adapter)
        self.adapter = TensorFiles([file], read_header(file))
        self.changes = changes(
            str(file), read_lora_config(adapter), self.adapter.tensors, self.tensors, self.config.get("model_type")
        )
        changed = len(self.changes.products) + len(self.changes.replaced)
        self.notices.append(f"{adapter}: an adapter, applied to {changed} tensor(s) of {base}")
        if own := [name for name in TOKENIZER_FILES if _differs(adapter / name, base / name)]:
            self.notices.append(f"{adapter}: {', '.join(own)}: not used, the tokenizer is the one of {base}")
        self._factor = lru_cache(FACTORS)(self._as_float32)  # every block needs all of A, or of A and B

    def open(self) -> Self:
        self.adapter.open()
        return super().open()

    def close(self) -> None:
        self._factor.cache_clear()
        self.adapter.close()
        super().close()

    def rows(self, name: str, first: int, last: int) -> torch.Tensor:
        dtype = torch.promote_types(self.tensors[name].dtype, self.dtype or self.tensors[name].dtype)
        if whole := self.changes.replaced.get(name):
            rows = self.adapter.rows(whole, first, last).to(dtype)
        else:
            rows = super().rows(name, first, last)
        product = self.changes.products.get(name)
        if product is None:
            return rows
        wide = torch.promote_types(dtype, torch.float32)
        return (rows.to(wide) + self._product_rows(product, first, last) * product.scale).to(dtype)

    def _product_rows(self, product: Product, first: int, last: int) -> torch.Tensor:
        """Rows of B·A, or of its transpose, in float32."""
        a = self._factor(product.a)
        if product.transposed:
            return a[:, first:last].T @ self._factor(product.b).T
        return self.adapter.rows(product.b, first, last).float() @ a

    def _as_float32(self, name: str) -> torch.Tensor:
        """A whole factor. It is copied, since a mapped one would keep its window."""
        return self.adapter.rows(name, 0, self.adapter.tensors[name].shape[0]).to(torch.float32, copy=True)


def _differs(file: Path, of_base: Path) -> bool:
    """Whether an adapter has a file that its base does not have, or not with the same bytes."""
    return file.is_file() and not (of_base.is_file() and of_base.read_bytes() == file.read_bytes())


def load(model: Path, dtype: torch.dtype | None = None) -> Checkpoint:
    """The checkpoint at a place (`inputs`), with the adapter applied where it has one. dtype: of the merge."""
    folder, adapter = inputs.parts(model)
    return Checkpoint(folder) if adapter is None else AdaptedCheckpoint(folder, adapter, dtype)
