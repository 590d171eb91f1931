"""What watches a training: its log, a stop by NaN or a jump of the loss, checkpoints, and the wish to end early.

    every optimizer step --StepLog--> log.jsonl, one line
                         --Guard----> TrainingStopped: loss or gradient is no number, or jumped; names the rows
                         --Ending---> a checkpoint and the end of the training, after a signal or at the file `stop`
    every checkpoint     --keep_only--> the older ones are gone; last_checkpoint finds the newest that is complete
"""

import json
import math
import os
import resource
import shutil
import signal
import statistics
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import PreTrainedModel, TrainerCallback

from tinyr1.branch.packing import IDLE, PackedSequences
from tinyr1.branch.plan import CHECKPOINT_DONE
from tinyr1.core import jsonl, launch
from tinyr1.core.errors import UserError

NEIGHBOURS = 20  # steps whose median says what loss is usual
EARLIEST = 10  # steps before which no loss counts as a jump: at its beginning a training has no usual loss
SHOWN = 6  # rows of a sequence that an error names


class StepLog(TrainerCallback):
    """Writes one line for each optimizer step: step, of (all steps), loss (nats/token), learning_rate, grad_norm,
    tokens, seconds, tflops and memory_gb.

    tokens and seconds count from when this process began to train. tflops is the rate of the model's own operations on
    one rank, in 10^12 a second; memory_gb the most that this rank has taken, of the GPU where it has one.
    """

    def __init__(self, path: Path, tokens_per_step: float, operations: float = 0.0) -> None:
        self.path, self.tokens_per_step, self.operations = path, tokens_per_step, operations

    def on_train_begin(self, args, state, control, **kwargs):
        self.started, self.first, self.ranks = time.perf_counter(), state.global_step, args.world_size
        # Steps after the last checkpoint are made, and logged, a second time.
        if state.is_world_process_zero:
            jsonl.write(self.path, [r for r in jsonl.read(self.path) if r["step"] <= state.global_step])

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or "loss" not in logs:
            return
        tokens = (state.global_step - self.first) * self.tokens_per_step
        seconds = time.perf_counter() - self.started
        line = {
            "step": state.global_step, "of": state.max_steps, "loss": logs["loss"],
            "learning_rate": logs["learning_rate"], "grad_norm": logs.get("grad_norm"),
            "tokens": round(tokens), "seconds": round(seconds, 2),
            "tflops": round(tokens * self.operations / seconds / self.ranks / 1e12, 4),
            "memory_gb": round(peak_memory() / 1e9, 2),
        }  # fmt: skip
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            keep_only(Path(args.output_dir), f"checkpoint-{state.global_step}")


def peak_memory() -> int:
    """Bytes that this process has taken at most, of its GPU where it has one, else of main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def operations(model: PreTrainedModel, lengths: Sequence[int]) -> float:
    """Floating-point operations that a training step needs for one token, the second forward pass of gradient
    checkpointing not counted, as model FLOPs utilization has it (arXiv 2204.02311, appendix B).

    lengths: tokens of each sample, of which a token sees half on average.
    """
    config = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    embedding: Any = model.get_input_embeddings().weight
    looked_up = 0 if model.get_output_embeddings().weight is embedding else _numbers(embedding)
    multiplied = sum(map(_numbers, model.parameters())) - looked_up
    seen = sum(n * n for n in lengths) / max(1, sum(lengths))
    return 6 * multiplied + 6 * config.num_hidden_layers * config.num_attention_heads * width * seen


def _numbers(weight: torch.Tensor) -> int:
    """Numbers of a weight, of which ZeRO-3 leaves a rank a part."""
    return getattr(weight, "ds_numel", weight.numel())


class TrainingStopped(UserError):
    """A training that does not go on, with the reason."""


class Guard(TrainerCallback):
    """Stops a training whose loss or gradient is no number, or whose loss jumped, and names the rows of the step.

    spike: a loss above this many times the median of the last steps is a jump; None: none is. The trainer tells it by
    `saw` which sequences a step has had.
    """

    def __init__(self, data: PackedSequences, spike: float | None) -> None:
        self.data, self.spike = data, spike
        self.usual: deque[float] = deque(maxlen=NEIGHBOURS)
        self.step: list[tuple[int, torch.Tensor]] = []  # index of a sequence, its share of the loss

    def saw(self, index: int, loss: torch.Tensor) -> None:
        """Note a sequence of the step; the loss stays where it is, so that nothing waits for it."""
        self.step.append((index, loss.detach()))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in logs:
            return
        loss, norm = float(logs["loss"]), float(logs.get("grad_norm") or 0.0)
        step, self.step = self.step, []
        if not math.isfinite(loss):
            raise TrainingStopped(self._message(state.global_step, f"the loss is {loss}", step))
        if not math.isfinite(norm):
            raise TrainingStopped(self._message(state.global_step, f"the gradient norm is {norm}", step))
        usual = statistics.median(self.usual) if len(self.usual) >= EARLIEST else None
        if self.spike and usual is not None and loss > self.spike * usual:
            said = f"the loss is {loss:.4g}, its median before was {usual:.4g} (trainer.spike: {self.spike:g})"
            raise TrainingStopped(self._message(state.global_step, said, step))
        self.usual.append(loss)

    def _message(self, number: int, what: str, step: Sequence[tuple[int, torch.Tensor]]) -> str:
        """The sentence, with the rows of the sequences that are no number, else of the one with the largest loss."""
        losses = [(index, float(loss)) for index, loss in step if index != IDLE]
        broken = [index for index, loss in losses if not math.isfinite(loss)]
        worst = broken or [max(losses, key=lambda pair: pair[1])[0]] if losses else []
        rows = [f"{folder.name} {row}" for index in worst for folder, row in self.data.rows_of(index)]
        if dist.is_initialized() and dist.get_world_size() > 1:  # all ranks stop here, after the same step
            parts: list[list[str]] = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(parts, rows)
            rows = [row for part in parts for row in part]
        named = ", ".join(rows[:SHOWN]) + " …" * (len(rows) > SHOWN)
        return (
            f"step {number}: {what}; the sequence holds the rows {named} (counted from 0); look at "
            "them, or lower learning_rate or max_grad_norm"
        )


class Ending(TrainerCallback):
    """Ends a training early, with a checkpoint: after a signal to any rank, or when the file `stop` appears.

    asked: whether it did.
    """

    def __init__(self, stop: Path) -> None:
        self.stop, self.signalled, self.asked = stop, False, False

    def listen(self) -> None:
        """Takes the signals of a cluster from now on."""
        for number in launch.SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, *_: object) -> None:
        self.signalled = True

    def on_step_end(self, args, state, control, **kwargs):
        wish = self.signalled or (state.is_world_process_zero and self.stop.exists())
        if args.world_size > 1:  # all ranks end after the same step
            device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
            shared = torch.tensor([int(wish)], device=device)
            dist.all_reduce(shared, op=dist.ReduceOp.MAX)
            wish = bool(shared.item())
        if wish and state.global_step < state.max_steps:
            self.asked = control.should_save = control.should_training_stop = True


def keep_only(folder: Path, name: str) -> None:
    """Marks the checkpoint `name` as complete, then deletes the older ones."""
    # The Trainer's own rotation, killed half-way through a folder, would leave it marked as complete. Here a folder
    # loses its mark first. The mark reaches the disk after what it speaks of.
    for file in (folder / name).rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    (folder / name / CHECKPOINT_DONE).touch()
    for other in folder.glob("checkpoint-*"):
        if other.name != name:
            (other / CHECKPOINT_DONE).unlink(missing_ok=True)
            shutil.rmtree(other)


def last_checkpoint(folder: Path) -> str | None:
    """Path of the newest checkpoint that was written to its end; None where there is none."""
    done = folder.glob(f"checkpoint-*/{CHECKPOINT_DONE}")
    newest = max(done, key=lambda p: int(p.parent.name.rpartition("-")[2]), default=None)
    return str(newest.parent) if newest else None
