r"""Attention over a packed sequence: causal, and inside each segment only.

    tokens    a a a b b c c c        a segment attends to itself and to nothing before it
              \\    \\  \\            one triangle a segment: the (tokens x tokens) mask is never built

A segment is a sample, and packing has the loss and the gradients of unpacked training, which
tests/branch/test_packing.py asserts. With `packing: contaminated` it is the whole sequence: the released code lets
samples see each other for math (docs/fidelity.md §2.5, C31).
"""

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

ATTENTION = "tinyr1_packed"  # under this name transformers finds packed_attention
PADDED_LIMIT = 1024  # tokens; above it padded scores would take more memory than they save time


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    dropout: float = 0.0,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """(attention output (1, tokens, heads, head_dim), None), with the signature that transformers asks for.

    query: (1, heads, tokens, head_dim); key and value: (1, kv_heads, tokens, head_dim); cu_seq_lens_q: int32 (samples +
    1,), the first token of each sample and the number of all; max_length_q: tokens of the longest sample.
    """
    if query.is_cuda:
        from torch.nn.attention.varlen import varlen_attn

        q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))  # (tokens, heads, head_dim)
        out = varlen_attn(
            q, k, v, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q,
            scale=scaling, window_size=(-1, 0), enable_gqa=True,
        )  # fmt: skip
        assert isinstance(out, torch.Tensor)  # more than the output comes with return_aux only
        return out[None], None
    # On a CPU the cost is that of the squared sample lengths, not of their squared sum.
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
    """Attention over samples that are padded to the longest, as two batched products around a softmax."""
    # On a CPU the backward pass of the fused kernel takes three times as long for samples of this size.
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
    # What the padding computed is cut off here, so no gradient passes through it.
    return torch.cat([o[:, :length] for o, length in zip(out, lengths, strict=True)], dim=1)[None]


AttentionInterface.register(ATTENTION, packed_attention)
