r"""Sample packing: several samples share one sequence, each with positions 0, 1, 2 and so on of its own.

    lengths of the rows --layout--> which rows share a sequence --write_layout--> layout.safetensors (a megabyte)
    layout.safetensors + the tokens of stage 01, mapped --PackedSequences[i]--> the arguments of one forward pass

    input_ids     a0 a1 a2 a3 b0 b1 c0 c1 c2      three samples in one sequence
    position_ids   0  1  2  3  0  1  0  1  2      begin again with each sample
    labels         -  - a2 a3  - b1  - c1 c2      prompts carry no loss
    cu_seq_lens    0           4     6        9   where `tinyr1.branch.attention` parts them

The loss is that of unpacked training. The released code never begins positions again, and for math its samples see each
other (docs/fidelity.md §2.5, C31): with `sft.packing: contaminated` the sequence is one sample of nine tokens, whose
positions are 0 to 8, and the labels stay.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from tinyr1.branch.causal_lm import IGNORED
from tinyr1.branch.sequences import layout
from tinyr1.data.tokens import Tokens

IDLE = -1  # index of the sequence of a rank that has nothing to do while others have: one token, without loss


def write_layout(
    path: Path, parts: Sequence[Tokens], capacity: int, seed: int, packing: str | None = None
) -> dict[str, float]:
    """Packs the rows of `parts`, which are counted through, and stores where each row goes; returns counts.

    The file holds `order` (int64 (samples,), row numbers in packed order) and `sequences` (int64 (packed sequences +
    1,), the first sample of each). The counts are samples, sequences, tokens, target_tokens (those with loss) and fill
    (the share of all sequences' capacity that tokens take). packing: of `Sft`. ValueError when a row is longer than the
    capacity.
    """
    lengths = np.concatenate([part.lengths for part in parts])
    groups = layout(lengths.tolist(), capacity, seed, packing)
    # No token is copied: the ranks read them where stage 01 wrote them, and a layout is made again in seconds.
    tensors = {
        "order": torch.tensor([i for group in groups for i in group], dtype=torch.int64),
        "sequences": torch.tensor([0, *map(len, groups)]).cumsum(0),
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
    """The packed sequences of a file that `write_layout` made, each as the keyword arguments of one forward pass, and
    its index.

    parts: the same rows, in the same order, as when the file was written. packing: of `Sft`; `contaminated` lets the
    samples of a sequence see each other. The index IDLE gives a sequence without loss.
    """

    def __init__(self, path: Path, parts: Sequence[Tokens], packing: str | None = None) -> None:
        packed, self.packing = load_file(path), packing
        self.order, self.sequences, self.parts = packed["order"], packed["sequences"], parts
        self.firsts = np.cumsum([0, *map(len, parts)])  # the number of each part's first row
        self.tokens = sum(part.count for part in parts)

    def __len__(self) -> int:
        return len(self.sequences) - 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == IDLE:
            zero = torch.zeros((1, 1), dtype=torch.int64)
            return {
                "input_ids": zero, "labels": torch.full_like(zero, IGNORED), "position_ids": zero,
                "cu_seq_lens": torch.tensor([0, 1], dtype=torch.int32), "index": IDLE,
            }  # fmt: skip
        first, last = self.sequences[index : index + 2].tolist()
        rows = [self._row(number) for number in self.order[first:last].tolist()]
        # The one copy of the tokens, and their way from the disk: int32 there, int64 for the embedding.
        ids = torch.from_numpy(np.concatenate([ids for ids, _ in rows]).astype(np.int64))
        lengths = torch.tensor([len(ids) for ids, _ in rows])
        positions = torch.cat([torch.arange(n) for n in lengths.tolist()])
        is_prompt = positions < torch.repeat_interleave(torch.tensor([n for _, n in rows]), lengths)
        if self.packing == "contaminated":
            positions, lengths = torch.arange(len(ids)), lengths.sum()[None]
        return {
            "input_ids": ids[None],  # (1, tokens)
            "labels": torch.where(is_prompt, IGNORED, ids)[None],  # (1, tokens), not shifted
            "position_ids": positions[None],  # (1, tokens), 0 at the first token of what sees itself only
            "cu_seq_lens": torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int(),  # (such parts + 1,)
            "index": index,  # for messages
        }

    def rows_of(self, index: int) -> list[tuple[Path, int]]:
        """(folder of rows, number of the row in it from 0) of each sample of a sequence."""
        first, last = self.sequences[index : index + 2].tolist()
        places = [self._place(number) for number in self.order[first:last].tolist()]
        return [(part.folder, i + part.first) for part, i in places]

    @property
    def seen(self) -> list[int]:
        """Tokens of each stretch that sees itself only: of the samples, or of whole sequences."""
        lengths = np.concatenate([part.lengths for part in self.parts])[self.order.numpy()]
        if self.packing != "contaminated":
            return lengths.tolist()
        return np.add.reduceat(lengths, self.sequences[:-1].numpy()).tolist()

    def _row(self, number: int) -> tuple[np.ndarray, int]:
        """(ids, prompt length) of a row, by its number among the rows of all parts."""
        part, i = self._place(number)
        return part.row_ids(i), int(part.prompts[i])

    def _place(self, number: int) -> tuple[Tokens, int]:
        """(part, number in it) of a row."""
        at = int(np.searchsorted(self.firsts, number, side="right")) - 1  # right: an empty part holds no number
        return self.parts[at], number - int(self.firsts[at])
