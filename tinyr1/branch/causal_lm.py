r"""A causal language model that takes a packed sequence and returns the loss of its targets.

    input_ids, position_ids, cu_seq_lens --decoder, tinyr1.branch.attention--> hidden states --LossHead--> summed loss
    labels --shifted_targets--> positions, targets ------------------------------------------/

It needs PyTorch and transformers and nothing else, so that a GPU can be checked where only they are (`make gpu-check`).
"""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IGNORED = -100  # label of a token that carries no loss; PyTorch's cross-entropy skips it
LOSS_CHUNK = 4096  # target tokens whose logits exist at the same time


def shifted_targets(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(positions whose next token carries loss, those next tokens), both int64 (targets,); labels is (1, tokens)."""
    # A sample's first token is never a target of the sample before it: it belongs to a prompt, which is ignored.
    following = labels[0, 1:]
    positions = torch.nonzero(following != IGNORED).squeeze(-1)
    return positions, following[positions]


class LossHead(torch.nn.Module):
    """The output head of a causal LM, which returns the loss of its logits in place of the logits.

    It holds the parameters of the head themselves, under the same names.
    """

    def __init__(self, head: torch.nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = head.weight, head.bias

    def forward(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy in nats, summed over `targets` (n,) int64, of the head on `hidden` (n, width); n may be 0."""
        # Only positions with loss reach the vocabulary projection, and no more than LOSS_CHUNK of them at a time: a
        # sequence of 16,384 tokens over 152,064 entries would need 10 GB for its fp32 logits alone. The chunks compute
        # their logits again in the backward pass. All are inside one call of one module: ZeRO-3 gathers weights over
        # the ranks for each call, and the ranks have different numbers of chunks.
        if len(targets) <= LOSS_CHUNK:
            return self._chunk_loss(hidden, targets)
        pieces = zip(hidden.split(LOSS_CHUNK), targets.split(LOSS_CHUNK), strict=True)
        losses = (checkpoint(self._chunk_loss, h, y, use_reentrant=False) for h, y in pieces)
        return sum(losses, torch.zeros((), device=hidden.device))

    def _chunk_loss(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(F.linear(hidden, self.weight, self.bias).float(), targets, reduction="sum")


class PackedCausalLM(torch.nn.Module):
    """A causal LM whose forward pass takes one packed sequence and returns its summed target loss, in nats.

    The arguments of the forward pass are those that `tinyr1.branch.packing.PackedSequences` gives.
    """

    # The Trainer then counts the target tokens of the whole step, over all ranks and accumulated sequences.
    accepts_loss_kwargs = True

    def __init__(self, model: "PreTrainedModel") -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        model.set_output_embeddings(LossHead(model.get_output_embeddings()))

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        position_ids: torch.Tensor,
        cu_seq_lens: torch.Tensor,
    ) -> torch.Tensor:
        longest = int(cu_seq_lens.diff().max())
        # The decoder without its head, which is asked for the positions with loss only. What transformers does not know
        # itself it hands on to the attention function.
        hidden = self.model.get_decoder()(
            input_ids=input_ids, position_ids=position_ids, use_cache=False,
            cu_seq_lens_q=cu_seq_lens, cu_seq_lens_k=cu_seq_lens,
            max_length_q=longest, max_length_k=longest,
        ).last_hidden_state  # (1, tokens, width)  # fmt: skip
        positions, targets = shifted_targets(labels)
        return self.model.get_output_embeddings()(hidden[0, positions], targets)

    def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
        """The Trainer calls it on the model that it was given."""
        self.model.gradient_checkpointing_enable(**kwargs)
