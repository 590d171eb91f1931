"""Sample packing: bins, position ids, and block-diagonal causal attention.

Several samples share one sequence, each with its own positions 0, 1, … and blind to the others. The released
code never resets positions and, for math, lets samples attend to each other (ledger §2.5); packing here gives
the loss of unpacked training.
"""

import bisect
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AttentionInterface

from tinyr1.core.prompts import Encoded

IGNORED = -100  # label of a token that carries no loss
ATTENTION = "tinyr1_packed"
PADDED_LIMIT = 1024  # tokens; above it padded scores would take more memory than they save time


def bins(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best fit, in the order given: indices of `lengths` in groups whose sum is at most `capacity`.

    Sorting by length first would pack tighter, but would also put the samples of one kind into one sequence.

    bins([5, 3, 2, 4], 7) -> [[0, 2], [1, 3]]
    """
    groups: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (room left, group), sorted
    for i, length in enumerate(lengths):
        if length > capacity:
            raise ValueError(f"sample {i} has {length} tokens, the packed sequence only {capacity}")
        at = bisect.bisect_left(free, (length, -1))
        room, group = free.pop(at) if at < len(free) else (capacity, len(groups))
        if group == len(groups):
            groups.append([])
        groups[group].append(i)
        bisect.insort(free, (room - length, group))
    return groups


def layout(lengths: Sequence[int], capacity: int, seed: int) -> list[list[int]]:
    """Sample indices of each packed sequence, samples taken in a seeded random order."""
    order = Random(seed).sample(range(len(lengths)), len(lengths))
    return [[order[i] for i in group] for group in bins([lengths[i] for i in order], capacity)]


def write(path: Path, samples: Sequence[Encoded], capacity: int, seed: int) -> dict[str, float]:
    """Pack and store samples for the training ranks to map into memory; returns counts for the log.

    The file holds ids (int32, all tokens, packed order), starts (int64, samples + 1), prompts (int32, prompt
    length of each sample) and sequences (int64, packed sequences + 1: first sample of each).
    """
    groups = layout([len(s.ids) for s in samples], capacity, seed)
    ordered = [samples[i] for group in groups for i in group]
    lengths = torch.tensor([0, *(len(s.ids) for s in ordered)])
    tensors = {
        "ids": torch.tensor([t for s in ordered for t in s.ids], dtype=torch.int32),
        "starts": lengths.cumsum(0),
        "prompts": torch.tensor([s.n_prompt for s in ordered], dtype=torch.int32),
        "sequences": torch.tensor([0, *(len(g) for g in groups)]).cumsum(0),
    }
    save_file(tensors, path)
    tokens = int(tensors["ids"].numel())
    return {
        "samples": len(ordered),
        "sequences": len(groups),
        "tokens": tokens,
        "target_tokens": tokens - int(tensors["prompts"].sum()),
        "fill": tokens / (len(groups) * capacity),
    }


class PackedSequences(torch.utils.data.Dataset):
    """Packed sequences of a file made by `write`, each as the keyword arguments of one forward pass."""

    def __init__(self, path: Path) -> None:
        self.data = load_file(path)

    def __len__(self) -> int:
        return len(self.data["sequences"]) - 1

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        first, last = self.data["sequences"][index : index + 2].tolist()
        starts = self.data["starts"][first : last + 1]
        ids = self.data["ids"][int(starts[0]) : int(starts[-1])].long()
        ends = starts - starts[0]
        positions = torch.cat([torch.arange(n) for n in ends.diff().tolist()])
        is_prompt = positions < torch.repeat_interleave(self.data["prompts"][first:last].long(), ends.diff())
        return {
            "input_ids": ids[None],  # (1, tokens)
            "labels": torch.where(is_prompt, IGNORED, ids)[None],  # (1, tokens), not shifted
            "position_ids": positions[None],  # (1, tokens), 0 at each sample's first token
            "cu_seq_lens": ends.int(),  # (samples + 1,)
        }


def shifted_targets(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(positions whose next token is supervised, those next tokens); labels is (1, tokens).

    A sample's first token is never a target: it is always part of the prompt.
    """
    following = labels[0, 1:]
    positions = torch.nonzero(following != IGNORED).squeeze(-1)
    return positions, following[positions]


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # (1, heads, tokens, head_dim)
    key: torch.Tensor,  # (1, kv_heads, tokens, head_dim)
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,  # (samples + 1,) int32
    max_length_q: int | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each sample only; never builds the (tokens × tokens) mask.

    On a GPU this is PyTorch's variable-length flash attention; on a CPU one small call for each sample, which
    costs the sum of the squared sample lengths instead of the square of their sum.
    """
    if query.is_cuda:
        from torch.nn.attention.varlen import varlen_attn

        q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))  # (tokens, heads, head_dim)
        groups = q.shape[1] // k.shape[1]
        k, v = (t.repeat_interleave(groups, dim=1) for t in (k, v))
        out = varlen_attn(
            q, k, v, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q,
            scale=scaling, window_size=(-1, 0),
        )  # fmt: skip
        return out[None], None
    lengths = cu_seq_lens_q.diff().tolist()
    if max_length_q <= PADDED_LIMIT:
        out = _padded_attention(query, key, value, lengths, scaling)
    else:
        parts = zip(*(t.split(lengths, dim=2) for t in (query, key, value)), strict=True)
        out = torch.cat([_causal_sdpa(q, k, v, scaling) for q, k, v in parts], dim=2)
    return out.transpose(1, 2), None  # (1, tokens, heads, head_dim)


def _causal_sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scaling: float) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)


def _padded_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int], scaling: float
) -> torch.Tensor:
    """Attention over samples padded to the longest, as three batched products.

    On a CPU the backward pass of the fused kernel takes three times as long for samples of this size.
    """
    heads, kv_heads, longest = query.shape[1], key.shape[1], max(lengths)
    # (1, heads, tokens, dim) -> (samples, heads, longest, dim)
    q, k, v = (
        torch.nn.utils.rnn.pad_sequence([p.transpose(0, 1) for p in t[0].split(lengths, dim=1)], True)
        .transpose(1, 2)
        .contiguous()
        for t in (query, key, value)
    )
    n, _, _, dim = q.shape
    groups = heads // kv_heads
    future = torch.full((longest, longest), float("-inf"), dtype=q.dtype).triu(1).repeat(groups, 1)
    # The query heads of one key head are one long matrix; scale and mask are part of the product.
    scores = torch.baddbmm(
        future.expand(n * kv_heads, -1, -1), q.view(n * kv_heads, groups * longest, dim),
        k.view(n * kv_heads, longest, dim).transpose(1, 2), alpha=scaling,
    )  # fmt: skip
    out = torch.bmm(scores.softmax(-1), v.view(n * kv_heads, longest, dim)).view(n, heads, longest, dim)
    return torch.cat([o[:, :length] for o, length in zip(out, lengths, strict=True)], dim=1)[None]


AttentionInterface.register(ATTENTION, packed_attention)
