r"""Memory of one rank in training, of one GPU in sampling, and of the machine: formulas, in bytes.

Training. P weights, N ranks, T tokens in a packed sequence. tinyr1.branch.train gives DeepSpeed bf16 weights, and none
of its keys changes the type in which gradients accumulate, so that they are bf16 too; each step makes an fp32 copy of
those that the rank's own share of the optimizer needs (deepspeed 0.19: FP16_UnfusedOptimizer, zero/stage_1_and_2.py,
zero/stage3.py).

    part         stage 0       1              2              3
    weights      2P            2P             2P             2P/N
    gradients    2P + 4P       2P + 6P/N      2P/N + 6P/N    2P/N + 4 min(P/N, sub_group_size)
    optimizer    12P           12P/N          12P/N          12P/N       fp32 master copy and two moments of Adam
    buffers      none          1 bucket       2 buckets      2 LIVE: layers that are gathered; 4E: the gradient of the
                                                             head or embedding, whole, and its copy to be reduced
                 E weights of the head. Stage 3 has no buffers for N = 1. A bucket is 5e8 numbers, at most P; the second
                 one is there where communication overlaps.

    activations  kept from the forward pass: with checkpointing the input of each layer, 2hT; without, the whole layer:
                   T (16h + 4A + 4K + 8f)
                     16h    two RMS norms in fp32 (4h), their bf16 results before and after the gain (2h + 2h)
                     4A+4K  queries and output, keys and values; flash attention keeps no scores. On a GPU keys and
                            values are repeated for each query head: 8A
                     8f     gate, its SiLU, up, and their product
                 and one layer at work in the backward pass: 6fT of gradients, and with checkpointing its own values
                 h width, A width of all query heads, K of all key heads, f intermediate width
                 On a CPU attention pads samples of at most 1,024 tokens and keeps their scores: 2 x heads x T x longest
    logits       at most LOSS_CHUNK targets at a time: log-probabilities, their gradient and that of the logits, each in
                 fp32: 12 x targets x vocabulary

The parts are added up, though the fp32 gradients and the logits are never there together: heaps and caching allocators
give little back to other sizes. Not counted: fragmentation, CUDA's context, NCCL's buffers; hence USABLE. On a CPU,
FRAMEWORK is what the process holds before its first step.

Checked by the peak of the training process on two CPU cores (VmHWM, one rank, 12 steps; smoke: all its 3):

    smoke, stage 0, T = 1,024, with checkpointing           predicted 1.03 GB    measured 1.02 GB
    SmolLM2-135M, stage 0, T = 512, without, as in smol     predicted 3.92 GB    measured 3.89 GB
    SmolLM2-135M, stage 0, T = 512, with checkpointing      predicted 3.52 GB    measured 3.86 GB
    SmolLM2-135M, stage 2, T = 512, without                 predicted 4.73 GB    measured 4.95 GB
    SmolLM2-135M, stage 3, T = 512, without, two ranks      predicted 2.96 GB    measured 3.55 GB on each
"""

from dataclasses import dataclass, fields

from tinyr1.core.params.training import Trainer
from tinyr1.plan.hardware import GB, GIB
from tinyr1.plan.shapes import Shape

LOSS_CHUNK = 4096  # of tinyr1.branch.train, which imports PyTorch; a test compares them
PADDED_LIMIT = 1024  # of tinyr1.branch.attention, alike
BUCKET = 5e8  # numbers; DeepSpeed's reduce_bucket_size where its configuration names none (stages 1 and 2)
LIVE = 1e9  # numbers; stage3_max_live_parameters and sub_group_size in tinyr1.branch.train
FRAMEWORK = 0.64 * GB  # a training process on a CPU before its first step: PyTorch, DeepSpeed, tokenizer; measured
USABLE = 0.92  # of a GPU's memory; the rest is for what is not counted
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


def training(shape: Shape, trainer: Trainer, ranks: int, on_gpu: bool, longest: int, target_share: float) -> Memory:
    """Memory of one rank of a training.

    longest: tokens of the longest row. target_share: share of the tokens that carry loss.
    """
    states = _states(shape, trainer.zero_stage, ranks)
    tokens = trainer.sequence_length
    return Memory(
        **states,
        activations=tokens * _token_bytes(shape, trainer.gradient_checkpointing, on_gpu, longest),
        logits=12 * min(LOSS_CHUNK, target_share * tokens) * shape.vocabulary,
        framework=0.0 if on_gpu else FRAMEWORK,
    )


def _states(shape: Shape, stage: int, ranks: int) -> dict[str, float]:
    """Bytes of weights, gradients, optimizer and buffers."""
    whole, share = shape.parameters, shape.parameters / ranks
    gradients = (
        6 * whole, 2 * whole + 6 * share, 8 * share, 2 * share + 4 * min(share, LIVE)
    )[stage]  # fmt: skip
    bucket = 2 * min(BUCKET, whole)
    gathered = 2 * min(whole, max(LIVE, shape.head_parameters)) + 4 * shape.head_parameters if ranks > 1 else 0.0
    return {
        "weights": 2 * (share if stage == 3 else whole),
        "gradients": gradients,
        "optimizer": 12 * (share if stage else whole),
        "buffers": (0.0, bucket, 2 * bucket, gathered)[stage],
    }


def _token_bytes(shape: Shape, checkpointing: bool, on_gpu: bool, longest: int) -> float:
    """Bytes of activations for one token of a packed sequence."""
    attention = 8 * shape.attention_width if on_gpu else 4 * (shape.attention_width + shape.kv_width)
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


def host(shape: Shape, zero_stage: int, ranks_here: int) -> float:
    """Bytes of main memory beside GPUs: every rank loads the whole model there, at stage 3 only one gathers it."""
    return shape.weight_bytes * (1 if zero_stage == 3 else ranks_here) + MERGING
