r"""Memory of one rank in training, of one GPU in sampling, and of the machine: formulas, in bytes.

Training. P weights, N ranks, T tokens in a packed sequence. What holds them in DeepSpeed 0.19.8 with the settings of
tinyr1.branch.ranks: FP16_UnfusedOptimizer (stage 0), BF16_Optimizer (1), zero/stage_1_and_2.py (2), zero/stage3.py (3).

    part         stage 0    1           2                 3
    weights      2P         2P          2P                2P/N
    gradients    2P + 4P    2P + 4P     4P/N              4P/N + 4 min(P/N, sub_group_size)
    optimizer    12P        12P/N       12P/N             12P/N     fp32 master copy and two moments of Adam
    buffers      none       4P; none    2B, 4B on a GPU;  2 LIVE for N > 1: layers that are gathered; 6E: the gradient
                            for P > B   4 min(B, P), or   of the head or embedding, whole, and its fp32 copy to be
                                        6E where E > B    reduced; 4h²: an fp32 bucket; on a CPU 4P/N more

    gradients    Stage 0 keeps them in bf16 and copies all to fp32 for the step. The others add them up in fp32: stage 1
                 whole on each rank and beside those in bf16. Stage 3 copies a sub-group once more for the step.
    buffers      B = 5e8 numbers, E weights of the head. Stage 1 reduces the fp32 gradients through a copy, but where
                 they lie if they are more than B. Stage 2 fills a bf16 bucket of B numbers, however small the model,
                 two of them where communication overlaps, and copies it to fp32; a matrix larger than B goes alone, as
                 at stage 3. Stage 3 sets up with blocks of 4P/N that it frees, and on a CPU no block of that size takes
                 their place (glibc 2.36: an aligned block asks for more than its size).

    activations  kept from the forward pass: with checkpointing the input of each layer, 2hT; without, the whole layer:
                   T (16h + 4A + 4K + 8f)
                     16h    two RMS norms in fp32 (4h), their bf16 results before and after the gain (2h + 2h)
                     4A+4K  queries and output, keys and values; flash attention keeps no scores
                     8f     gate, its SiLU, up, and their product
                 and one layer at work in the backward pass: 6fT of gradients, and with checkpointing its own values
                 h width, A width of all query heads, K of all key heads, f intermediate width
                 On a CPU attention pads samples of at most 1,024 tokens and keeps their scores: 2 x heads x T x longest
    logits       at most LOSS_CHUNK targets at a time: log-probabilities, their gradient and that of the logits, each in
                 fp32: 12 x targets x vocabulary

The parts are added up, though the copies of gradients and the logits are never there together: heaps and caching
allocators give little back to other sizes. Not counted: fragmentation, CUDA's context, NCCL's buffers; hence USABLE.
On a CPU, FRAMEWORK is what the process holds before its first step.

Checked by the peak of the training process on CPU cores (VmHWM; one rank, 12 steps; of smoke all its 3, at stage 3
five, of two ranks three). The same training differs by up to a tenth between two starts:

    smoke, stage 0, T = 1,024, with checkpointing           predicted 1.03 GB    measured 1.02 GB
    SmolLM2-135M, stage 0, T = 512, without, as in smol     predicted 3.92 GB    measured 3.89 GB
    SmolLM2-135M, stage 0, T = 512, with checkpointing      predicted 3.52 GB    measured 3.86 GB
    SmolLM2-135M, stage 1, T = 512, without                 predicted 4.43 GB    measured 4.65 GB
    SmolLM2-135M, stage 2, T = 512, without                 predicted 5.16 GB    measured 5.74 GB
    SmolLM2-135M, stage 3, T = 512, without                 predicted 4.87 GB    measured 4.72 and 5.19 GB
    SmolLM2-135M, stage 1, T = 512, without, two ranks      predicted 3.63 GB    measured 4.00 GB on each
    SmolLM2-135M, stage 3, T = 512, without, two ranks      predicted 3.39 GB    measured 3.56 GB on each
"""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from tinyr1.plan.hardware import GB, GIB
from tinyr1.plan.shapes import Shape

if TYPE_CHECKING:  # a GPU is checked where pydantic may be missing (`make gpu-check`)
    from tinyr1.core.params.training import Trainer

LOSS_CHUNK = 4096  # of tinyr1.branch.causal_lm, which imports PyTorch; a test compares them
PADDED_LIMIT = 1024  # of tinyr1.branch.attention, alike
BUCKET = 5e8  # numbers; MEMORY_OPT_ALLREDUCE_SIZE (stage 1) and the default of reduce_bucket_size (2) in DeepSpeed
LIVE = 1e9  # numbers; stage3_max_live_parameters and sub_group_size in tinyr1.branch.ranks
FRAMEWORK = 0.64 * GB  # a training process on a CPU before its first step: PyTorch, DeepSpeed, tokenizer; measured
USABLE = 0.92  # of a GPU's memory; the rest is for what is not counted
# What runs beside the ranks, the engine or the merge: the process of the run 0.5, the kernel of the notebook 0.6 with
# its libraries and tables, two launchers of DeepSpeed 0.4; proportional memory, measured in run smol.
BESIDE = 1.5 * GB
# A process on a CPU keeps the memory that it has ever had. In run smol a rank for which these formulas say 3.9 GB went
# up to 4.1 to 4.9 GB over its steps, and the engine from 3.1 to 4.2 GB over its answers.
GROWTH = 1.25
MERGING = 2 * GB  # bytes; a merge holds blocks of rows and not models (shared measurement: 0.6 GB at 32B shapes)


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank by part."""

    weights: float
    gradients: float
    optimizer: float
    buffers: float
    activations: float
    logits: float
    framework: float = 0.0

    @property
    def parts(self) -> dict[str, float]:
        """The parts by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def total(self) -> float:
        """All parts together."""
        return sum(self.parts.values())


def training(shape: Shape, trainer: "Trainer", ranks: int, on_gpu: bool, longest: int, target_share: float) -> Memory:
    """Memory of one rank of a training.

    longest: tokens of the longest row. target_share: share of the tokens that carry loss.
    """
    states = _states(shape, trainer.zero_stage, ranks, on_gpu)
    tokens = trainer.sequence_length
    return Memory(
        **states,
        activations=tokens * _token_bytes(shape, trainer.gradient_checkpointing, on_gpu, longest),
        logits=12 * min(LOSS_CHUNK, target_share * tokens) * shape.vocabulary,
        framework=0.0 if on_gpu else FRAMEWORK,
    )


def _states(shape: Shape, stage: int, ranks: int, on_gpu: bool) -> dict[str, float]:
    """Bytes of weights, gradients, optimizer and buffers."""
    whole, share, head = shape.parameters, shape.parameters / ranks, shape.head_parameters
    gradients = (6 * whole, 6 * whole, 4 * share, 4 * share + 4 * min(share, LIVE))[stage]
    copied = 4 * whole if whole <= BUCKET else 0.0
    buckets = 2 * BUCKET * (2 if on_gpu else 1) + (4 * min(BUCKET, whole) if head <= BUCKET else 6 * head)
    gathered = 2 * min(whole, max(LIVE, head)) if ranks > 1 else 0.0
    left = 0.0 if on_gpu else 4 * share
    return {
        "weights": 2 * (share if stage == 3 else whole),
        "gradients": gradients,
        "optimizer": 12 * (share if stage else whole),
        "buffers": (0.0, copied, buckets, gathered + left + 6 * head + 4 * shape.width**2)[stage],
    }


def _token_bytes(shape: Shape, checkpointing: bool, on_gpu: bool, longest: int) -> float:
    """Bytes of activations for one token of a packed sequence."""
    attention = 4 * (shape.attention_width + shape.kv_width)
    scores = 2 * shape.heads * longest if not on_gpu and longest <= PADDED_LIMIT else 0
    layer = 16 * shape.width + attention + scores + 8 * shape.intermediate
    kept = shape.layers * (2 * shape.width if checkpointing else layer)
    return kept + (layer if checkpointing else 0) + 6 * shape.intermediate


def sampling(shape: Shape, tensor: int, pipeline: int, context: int) -> float:
    """Bytes that one GPU of an engine needs at least: its part of the weights, and the keys and values of one sequence.

    tensor and pipeline: GPUs that share each layer, and groups of GPUs that share the layers. context: tokens of the
    longest sequence, which vLLM refuses to start without. 2 GiB more are for activations and compiled graphs.
    """
    split = min(tensor, shape.kv_heads)  # key heads are repeated where there are more GPUs than heads
    return shape.weight_bytes / (tensor * pipeline) + context * shape.kv_bytes / (split * pipeline) + 2 * GIB


def together(working: float) -> float:
    """Bytes of main memory of all processes of a stage on a CPU, whose ranks or engine take so much by the formulas."""
    return GROWTH * working + BESIDE


def host(shape: Shape, zero_stage: int, ranks_here: int) -> float:
    """Bytes of main memory beside GPUs: every rank loads the whole model there, at stage 3 only one gathers it."""
    return shape.weight_bytes * (1 if zero_stage == 3 else ranks_here) + MERGING
