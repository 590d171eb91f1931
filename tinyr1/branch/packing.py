"""Sample packing: several samples share one sequence, each with positions 0, 1, … of its own.

    lengths of rows --layout--> which rows share a sequence --write_layout--> a small file
    that file + the tokens of stage 01 --PackedSequences--> one forward pass after another

The released code never resets positions (docs/fidelity.md §2.5). What a sample may see is `tinyr1.branch.attention`'s.
"""

import bisect
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from tinyr1.data.tokens import Tokens

IGNORED = -100  # label of a token that carries no loss


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


def write_layout(path: Path, parts: Sequence[Tokens], capacity: int, seed: int) -> dict[str, float]:
    """Pack the rows of `parts` (counted through all of them) and store where each goes; returns counts for the log.

    The file holds order (int64, samples: row numbers in packed order) and sequences (int64, packed sequences + 1: first
    sample of each). The tokens stay where they are, for the training ranks to map into memory.
    """
    lengths = np.concatenate([part.lengths for part in parts])
    groups = layout(lengths.tolist(), capacity, seed)
    tensors = {
        "order": torch.tensor([i for group in groups for i in group], dtype=torch.int64),
        "sequences": torch.tensor([0, *(len(g) for g in groups)]).cumsum(0),
    }
    save_file(tensors, path)
    tokens = int(lengths.sum())
    return {
        "samples": len(lengths),
        "sequences": len(groups),
        "tokens": tokens,
        "target_tokens": tokens - sum(int(part.prompts.sum()) for part in parts),
        "fill": tokens / (len(groups) * capacity),
    }


class PackedSequences(torch.utils.data.Dataset):
    """The packed sequences of a file made by `write_layout`, each as the keyword arguments of one forward pass."""

    def __init__(self, path: Path, parts: Sequence[Tokens]) -> None:
        packed = load_file(path)
        self.order, self.sequences, self.parts = packed["order"], packed["sequences"], parts
        self.firsts = np.cumsum([0, *map(len, parts)])  # the number of each part's first row
        self.tokens = sum(int(part.lengths.sum()) for part in parts)

    def __len__(self) -> int:
        return len(self.sequences) - 1

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        first, last = self.sequences[index : index + 2].tolist()
        rows = [self._row(i) for i in self.order[first:last].tolist()]
        ids = torch.from_numpy(np.concatenate([ids for ids, _ in rows]).astype(np.int64))
        lengths = torch.tensor([len(ids) for ids, _ in rows])
        positions = torch.cat([torch.arange(n) for n in lengths.tolist()])
        is_prompt = positions < torch.repeat_interleave(torch.tensor([n for _, n in rows]), lengths)
        return {
            "input_ids": ids[None],  # (1, tokens)
            "labels": torch.where(is_prompt, IGNORED, ids)[None],  # (1, tokens), not shifted
            "position_ids": positions[None],  # (1, tokens), 0 at each sample's first token
            "cu_seq_lens": torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int(),  # (samples + 1,)
        }

    def _row(self, number: int) -> tuple[np.ndarray, int]:
        """(ids, prompt length) of a row, counted through all parts."""
        at = int(np.searchsorted(self.firsts, number, side="right")) - 1
        part, i = self.parts[at], number - int(self.firsts[at])
        return part.ids[part.starts[i] : part.starts[i + 1]], int(part.prompts[i])


def shifted_targets(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(positions whose next token is supervised, those next tokens); labels is (1, tokens).

    A sample's first token is never a target: it is always part of the prompt.
    """
    following = labels[0, 1:]
    positions = torch.nonzero(following != IGNORED).squeeze(-1)
    return positions, following[positions]
