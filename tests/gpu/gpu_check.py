r"""`make gpu-check`: what this kit computes on a GPU is right, how fast it is, and whether the plan's memory holds.

    python tests/gpu/gpu_check.py            on one card of 80 GB, in at most twelve minutes
    python tests/gpu/gpu_check.py --tiny     the same program on a CPU and small shapes, which is how it is tested

    checks --each--> Rows: what was measured, what it must be --print--> one table, reports/gpu/<card>.json
                                                                         exit status 1 where a result is wrong

It needs PyTorch 2.11 or newer and transformers 5, and downloads nothing: networks are random, of the shape of
DeepSeek-R1-Distill-Qwen-1.5B. What is too slow does not fail: its row says `below the goal` or `below the floor`.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config  # noqa: E402

from tinyr1.branch import attention  # noqa: E402
from tinyr1.branch.causal_lm import IGNORED, PackedCausalLM  # noqa: E402
from tinyr1.merge import fusion  # noqa: E402
from tinyr1.plan import hardware, memory, shapes  # noqa: E402

RIGHT, WRONG, TOLD = "ok", "WRONG", "measured"
BELOW_GOAL, BELOW_FLOOR = "below the goal", "below the floor"


@dataclass(frozen=True)
class Row:
    """One line of the table; must: the bound in words, "" where there is none."""

    check: str
    measured: str
    must: str
    verdict: str


@dataclass(frozen=True)
class Size:
    """What is computed: on a card, or small enough for a test on a CPU.

    shape: of the network. lengths: tokens of the samples of the packed sequence that is compared. layers: of the
    network whose step is compared with fp32 on the CPU. sequence: tokens of the sequence that is timed. matrix: rows
    and columns of the tensor that is merged, and rows of the part that is merged on the CPU, too.
    """

    shape: shapes.Shape
    lengths: Sequence[int]
    layers: int
    sequence: int
    steps: int
    matrix: tuple[int, int, int]


CARD = Size(
    shapes.PUBLISHED["deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"], (1, 7, 130, 2048, 33, 512, 1, 900), 4, 16_384, 8,
    (5120, 27_648, 256),
)  # fmt: skip
TINY = Size(shapes.Shape(2, 64, 4, 2, 16, 96, 512, False, True), (1, 7, 30, 64, 3), 2, 256, 2, (64, 96, 16))
# Relative distances of bf16 results to those in fp32. bf16 has 8 significant bits: a rounding is off by 4e-3 at most.
ATTENTION_ERROR, LOSS_ERROR, GRADIENT_ERROR = 1e-2, 2e-3, 5e-2
MFU_GOAL, MFU_FLOOR = 0.55, 0.45
MEMORY_ERROR = 0.15
WEIGHTS_32B = 32_763_876_352


def distance(value: torch.Tensor, reference: torch.Tensor) -> float:
    """|value - reference| / |reference|, in fp64 on the CPU."""
    value, reference = value.detach().cpu().double(), reference.detach().cpu().double()
    return float((value - reference).norm() / reference.norm().clamp_min(1e-30))


def judged(check: str, value: float, most: float) -> Row:
    """A row whose value has a largest one."""
    return Row(check, f"{value:.2g}", f"at most {most:g}", RIGHT if value <= most else WRONG)


# --- attention ------------------------------------------------------------------------------------------------


def reference_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Causal attention of each sample by its formula, in the dtype of its arguments: (1, heads, tokens, dim) each."""
    out, start = [], 0
    for n in lengths:
        a, b, c = (t[0, :, start : start + n] for t in (q, k, v))
        b, c = (t.repeat_interleave(a.shape[0] // t.shape[0], dim=0) for t in (b, c))
        scores = a @ b.transpose(1, 2) / a.shape[-1] ** 0.5
        future = torch.full((n, n), -torch.inf, dtype=a.dtype).triu(1)
        out.append((scores + future).softmax(-1) @ c)
        start += n
    return torch.cat(out, dim=1)[None]


def attention_rows(size: Size, device: torch.device) -> Iterator[Row]:
    """Packed attention in bf16 with grouped heads and uneven samples, forward and backward, beside its formula."""
    shape, tokens = size.shape, sum(size.lengths)
    generator = torch.Generator().manual_seed(0)
    heads = (shape.heads, shape.kv_heads, shape.kv_heads)
    exact = [torch.randn(1, n, tokens, shape.head_dim, generator=generator).bfloat16().float() for n in heads]
    weight = torch.randn(1, shape.heads, tokens, shape.head_dim, generator=generator).bfloat16()
    for tensor in exact:
        tensor.requires_grad_()
    expected = reference_attention(*exact, size.lengths)
    (expected * weight.float()).sum().backward()
    given = [t.detach().to(device, torch.bfloat16).requires_grad_() for t in exact]
    ends = torch.tensor([0, *size.lengths]).cumsum(0).int().to(device)
    out, _ = attention.packed_attention(
        torch.nn.Identity(), *given, None, shape.head_dim**-0.5, cu_seq_lens_q=ends, max_length_q=max(size.lengths)
    )
    (out.transpose(1, 2).float() * weight.float().to(device)).sum().backward()
    yield judged("packed attention: output", distance(out.transpose(1, 2), expected), ATTENTION_ERROR)
    for name, mine, theirs in zip("qkv", given, exact, strict=True):
        yield judged(f"packed attention: gradient of {name}", distance(mine.grad, theirs.grad), ATTENTION_ERROR)


# --- a training step ------------------------------------------------------------------------------------------


def network(shape: shapes.Shape, layers: int, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """A random network of a shape, the same at every call."""
    config = Qwen2Config(
        vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=shape.intermediate,
        num_hidden_layers=layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        tie_word_embeddings=shape.tied, max_position_embeddings=32_768,
    )  # fmt: skip
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation=attention.ATTENTION)
    return made.to(device, dtype)


def sequence(shape: shapes.Shape, lengths: Sequence[int], device: torch.device) -> dict[str, torch.Tensor]:
    """A packed sequence of random tokens, of which the first third of each sample is prompt."""
    ids = torch.randint(shape.vocabulary, (sum(lengths),), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(n) for n in lengths])
    prompt = torch.cat([torch.arange(n) < max(1, n // 3) for n in lengths])
    made = {
        "input_ids": ids[None], "labels": torch.where(prompt, IGNORED, ids)[None], "position_ids": positions[None],
        "cu_seq_lens": torch.tensor([0, *lengths]).cumsum(0).int(),
    }  # fmt: skip
    return {name: tensor.to(device) for name, tensor in made.items()}


def step_rows(size: Size, device: torch.device) -> Iterator[Row]:
    """Loss and gradients of one packed sequence in bf16 beside those of the same weights in fp32 on the CPU."""
    results = []
    for place, dtype in ((torch.device("cpu"), torch.float32), (device, torch.bfloat16)):
        model = PackedCausalLM(network(size.shape, size.layers, dtype, place))
        loss = model(**sequence(size.shape, size.lengths, place))
        loss.backward()
        loss = loss.detach()
        gradients = {name: p.grad.detach().float().cpu() for name, p in model.named_parameters() if p.grad is not None}
        results.append((float(loss), gradients))
    (expected, exact), (loss, gradients) = results
    yield judged("training step: loss", abs(loss - expected) / expected, LOSS_ERROR)
    if gradients.keys() != exact.keys():
        yield Row("training step: gradients", f"{len(gradients)} tensors", f"{len(exact)}", WRONG)
        return
    errors = {name: distance(gradients[name], exact[name]) for name in exact}
    worst = max(errors, key=lambda name: errors[name])
    mine, theirs = (torch.cat([part[name].flatten() for name in exact]) for part in (gradients, exact))
    yield judged("training step: all gradients", distance(mine, theirs), GRADIENT_ERROR)
    yield judged(f"training step: {worst}", errors[worst], 4 * GRADIENT_ERROR)


def speed_rows(size: Size, device: torch.device) -> Iterator[Row]:
    """Tokens/s, MFU and peak memory of forward and backward passes with gradient checkpointing, as run r1-1.5b has."""
    shape, sample = size.shape, size.sequence // 4
    model = PackedCausalLM(network(shape, shape.layers, torch.bfloat16, device))
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    given = sequence(shape, [sample] * 4, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(size.steps):
        started = time.perf_counter()
        model(**given).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    rate = size.sequence / min(seconds[1:])
    yield Row(f"training: tokens/s at {size.sequence:,} tokens", f"{rate:,.0f}", "", TOLD)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    kind = next((gpu for gpu in hardware.KINDS.values() if gpu.name.partition("-")[0] in name), None)
    if kind is None or kind.flops is None:
        yield Row("training: MFU", "the peak of this device is not known", "", TOLD)
    else:
        operations = 6 * shape.multiplied + 6 * shape.layers * shape.attention_width * sample
        mfu = rate * operations / kind.flops
        bounds = f"goal {100 * MFU_GOAL:g} %, floor {100 * MFU_FLOOR:g} %"
        verdict = RIGHT if mfu >= MFU_GOAL else BELOW_GOAL if mfu >= MFU_FLOOR else BELOW_FLOOR
        yield Row("training: MFU", f"{100 * mfu:.0f} %", bounds, verdict)
    yield from memory_rows(size, device)


def memory_rows(size: Size, device: torch.device) -> Iterator[Row]:
    """Peak memory of the passes beside the plan's, without the optimizer, whose state DeepSpeed holds."""
    if device.type != "cuda":
        yield Row("training: peak memory", "is measured on a GPU only", "", TOLD)
        return
    trainer = SimpleNamespace(zero_stage=0, sequence_length=size.sequence, gradient_checkpointing=True)
    planned = memory.training(size.shape, trainer, 1, True, size.sequence // 4, 2 / 3)
    expected = planned.weights + 2 * size.shape.parameters + planned.activations + planned.logits
    peak = torch.cuda.max_memory_allocated()
    row = judged("training: peak memory against the plan", abs(peak / expected - 1), MEMORY_ERROR)
    told = f"{peak / 1e9:.1f} GB, {100 * (peak / expected - 1):+.0f} %"
    yield Row(row.check, told, row.must, row.verdict)


# --- the merge ------------------------------------------------------------------------------------------------


def merge_rows(size: Size, device: torch.device) -> Iterator[Row]:
    """Arcee Fusion of two matrices of 32B shape: the GPU's bytes beside the CPU's, and the time of all weights."""
    rows, width, part = size.matrix
    generator = torch.Generator().manual_seed(2)
    base = (0.02 * torch.randn(rows, width, generator=generator)).bfloat16()
    other = (base.float() + 1e-3 * torch.randn(rows, width, generator=generator)).bfloat16()
    for reading in ("exact", "released"):
        expected, theirs = fusion.fuse(base[:part], other[:part], reading=reading)
        found, mine = fusion.fuse(base[:part].to(device), other[:part].to(device), reading=reading)
        differing = int((found.cpu().view(torch.int16) != expected.view(torch.int16)).sum())
        same = differing == 0 and mine.selected == theirs.selected
        yield Row(
            f"merge, {reading}: entries unlike the CPU's", f"{differing} of {expected.numel():,}", "0",
            RIGHT if same else WRONG,
        )  # fmt: skip
        on_device = base.to(device), other.to(device)
        work = partial(fusion.fuse, *on_device, reading=reading)
        whole = min(_seconds(work, device) for _ in range(3)) * WEIGHTS_32B / base.numel()
        yield Row(f"merge, {reading}: seconds of computing, 32B", f"{whole:.0f}", "", TOLD)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


CHECKS = (attention_rows, step_rows, speed_rows, merge_rows)


def check(size: Size, device: torch.device) -> list[Row]:
    """All rows; a check that raises is a wrong one, and the others go on."""
    rows: list[Row] = []
    for one in CHECKS:
        try:
            rows += one(size, device)
        except Exception as error:  # noqa: BLE001 - whatever the device or its libraries raise is the result
            rows.append(Row(one.__name__, f"{type(error).__name__}: {str(error)[:160]}", "no error", WRONG))
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text."""
    cells = [("check", "measured", "must", ""), *((r.check, r.measured, r.must, r.verdict) for r in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="small shapes on the CPU, to test this program itself")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "gpu", help="folder for the results of a card")
    given = parser.parse_args(words)
    if not given.tiny and not torch.cuda.is_available():
        print(f"gpu-check: not run: PyTorch {torch.__version__} sees no GPU; a build with CUDA and a card are needed")
        return 2
    size, device = (TINY, torch.device("cpu")) if given.tiny else (CARD, torch.device("cuda"))
    started = time.perf_counter()
    rows = check(size, device)
    name = "CPU, small shapes" if given.tiny else torch.cuda.get_device_name()
    print(f"{name}, PyTorch {torch.__version__}, {time.perf_counter() - started:.0f} s\n\n{table(rows)}")
    if not given.tiny:
        given.out.mkdir(parents=True, exist_ok=True)
        about = {"card": name, "torch": torch.__version__, "python": platform.python_version(),
                 "date": time.strftime("%Y-%m-%d"), "rows": [asdict(row) for row in rows]}  # fmt: skip
        file = given.out / f"{name.replace(' ', '-').lower()}.json"
        file.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        print(f"\nwritten: {file}")
    return int(any(row.verdict == WRONG for row in rows))


if __name__ == "__main__":
    sys.exit(main())
