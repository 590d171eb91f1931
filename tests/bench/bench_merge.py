"""`make bench`, merging: the kit against mergekit's arcee_fusion, alternating, in one sitting.

Two inputs: layers with the shapes of Qwen2.5-32B (embedding and two layers, random bf16 weights with differences of
the size that branches have), and the branches of a finished run. Each program is started as its own command, from
start to exit, with the operating system's account of its memory. The floor (`floor.py`) moves the same bytes in the
same way and computes nothing. Before a warm command the inputs are read once, before a cold one they leave the page
cache.
Parameters/s are those of merging: the time that a program needs for a checkpoint of nearly no size is taken off.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import checkpoints  # beside this file
import pandas as pd
import torch
from peers import python as peer_python
from safetensors.torch import save_file

from tinyr1.core import config

HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, VOCABULARY, LAYERS = 5120, 27648, 40, 8, 152064, 2
SPREAD = 1e-4  # standard deviation of a branch's difference to the backbone (docs/fidelity.md §3.4)
EXPERTS = ("math", "science", "code")
CHUNK = 1 << 20
TWO = {"method": "fusion", "base": "science", "other": "math"}
CHAIN = {"method": "fusion", "base": "code", "other": TWO}


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a two-layer Qwen2.5-32B."""
    key = HIDDEN // HEADS * KV_HEADS
    layer = {
        "self_attn.q_proj.weight": (HIDDEN, HIDDEN), "self_attn.q_proj.bias": (HIDDEN,),
        "self_attn.k_proj.weight": (key, HIDDEN), "self_attn.k_proj.bias": (key,),
        "self_attn.v_proj.weight": (key, HIDDEN), "self_attn.v_proj.bias": (key,),
        "self_attn.o_proj.weight": (HIDDEN, HIDDEN), "mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
        "mlp.up_proj.weight": (INTERMEDIATE, HIDDEN), "mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
        "input_layernorm.weight": (HIDDEN,), "post_attention_layernorm.weight": (HIDDEN,),
    }  # fmt: skip
    outside = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
    return outside | {f"model.layers.{i}.{name}": s for i in range(LAYERS) for name, s in layer.items()}


def make_experts(folder: Path) -> dict[str, Path]:
    """Three checkpoints of the 32B shapes around one base; 3.5 GB each."""
    architecture = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "vocab_size": VOCABULARY, "tie_word_embeddings": True, "dtype": "bfloat16",
    }  # fmt: skip
    for seed, name in enumerate(EXPERTS):
        tensors = {}
        for place, (tensor, shape) in enumerate(shapes().items()):
            base = torch.empty(shape).normal_(0, 0.02, generator=torch.Generator().manual_seed(place))
            own = torch.Generator().manual_seed(1000 * (seed + 1) + place)
            tensors[tensor] = base.add_(torch.empty(shape).normal_(0, SPREAD, generator=own)).bfloat16()
        (folder / name).mkdir(parents=True)
        save_file(tensors, folder / name / "model.safetensors", metadata={"format": "pt"})
        (folder / name / "config.json").write_text(json.dumps(architecture), encoding="utf-8")
    return {name: folder / name for name in EXPERTS}


def timed(command: list, environment: dict | None = None) -> tuple[float, float]:
    """(seconds, peak resident memory in GB) of a command, which must succeed."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | (environment or {}))
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{command}: failed\n{output.read().decode()[-3000:]}")
    return time.perf_counter() - started, usage.ru_maxrss / 1e6


def floor(inputs: list[Path], output_bytes: int, scratch: Path) -> tuple[float, float]:
    """Reading every input once while as many bytes are written as the result has."""
    return timed([sys.executable, Path(__file__).with_name("floor.py"), scratch, str(output_bytes), *weights(inputs)])


def weights(folders: Iterable[Path]) -> list[Path]:
    return [file for folder in folders for file in sorted(folder.glob("*.safetensors"))]


def warm(files: list[Path]) -> None:
    """Bring the files into the page cache."""
    buffer = bytearray(CHUNK)
    for file in files:
        with file.open("rb", buffering=0) as handle:
            while handle.readinto(buffer):
                pass


def cold(files: list[Path]) -> None:
    """Take the files out of the page cache; their bytes must be on the disk for that."""
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def kit(recipe: dict, folders: dict[str, Path], reading: str, out: Path) -> tuple[float, float]:
    """One merge by the kit's command."""
    file = recipe_file(recipe, folders, out.with_suffix(".yaml"))
    command = [sys.executable, "-m", "tinyr1.merge", "--recipe", file, "--reading", reading, "--out", out]
    return timed(command)


def recipe_file(recipe: dict, folders: dict[str, Path], file: Path) -> Path:
    models = {name: str(folder.resolve()) for name, folder in folders.items()}
    file.write_text(json.dumps({"recipe": recipe, "models": models}), encoding="utf-8")
    return file


def mergekit(base: Path, other: Path, out: Path) -> tuple[float, float]:
    """One merge by mergekit's command, as the released script calls it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    file = out.with_suffix(".yaml")
    document = {
        "models": [{"model": str(other.resolve())}, {"model": str(base.resolve())}], "merge_method": "arcee_fusion",
        "base_model": str(base.resolve()), "dtype": "bfloat16", "out_dtype": "bfloat16",
    }  # fmt: skip
    file.write_text(json.dumps(document), encoding="utf-8")
    command = Path(peer_python()).with_name("mergekit-yaml")
    return timed([command, "--quiet", "--random-seed", "0", file, out])


def starts(scratch: Path, repeats: int) -> dict[str, float]:
    """Median seconds of each program's command for checkpoints of a few thousand parameters."""
    tiny = checkpoints.experts(scratch / "tiny")
    found: dict[str, list[float]] = {"tinyr1": [], "mergekit": []}
    for i in range(repeats):
        found["tinyr1"].append(kit(TWO, tiny, "exact", scratch / f"kit{i}")[0])
        found["mergekit"].append(mergekit(tiny["science"], tiny["math"], scratch / f"mergekit{i}")[0])
    shutil.rmtree(scratch)
    return {program: statistics.median(seconds) for program, seconds in found.items()}


def compare(
    folders: dict[str, Path], scratch: Path, repeats: int, start: dict[str, float], cache: Callable[[list[Path]], None]
) -> pd.DataFrame:
    """Medians over alternating repeats: seconds, parameters/s, peak GB, GB written, ratio to mergekit."""
    seconds: dict[tuple[str, str], list[float]] = {}
    memory: dict[tuple[str, str], list[float]] = {}
    size = sum(f.stat().st_size for f in folders["code"].glob("*.safetensors"))

    def note(kind: str, who: str, result: tuple[float, float]) -> None:
        seconds.setdefault((kind, who), []).append(result[0])
        memory.setdefault((kind, who), []).append(result[1])

    def fresh() -> Path:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        cache(weights(folders.values()))
        return scratch / "out"

    kit(CHAIN, folders, "exact", fresh())  # compiles once
    for _ in range(repeats):
        for kind, recipe in (("two models", TWO), ("chain of three", CHAIN)):
            for reading in ("exact", "released"):
                note(kind, f"tinyr1, {reading}", kit(recipe, folders, reading, fresh()))
            used = [folders[name] for name in EXPERTS[: 2 if kind == "two models" else 3]]
            fresh()
            note(kind, "floor", floor(used, size, scratch / "floor"))
        first = mergekit(folders["science"], folders["math"], fresh() / "mid")
        cache(weights([folders["code"], scratch / "out" / "mid"]))
        second = mergekit(folders["code"], scratch / "out" / "mid", scratch / "out" / "end")
        note("two models", "mergekit", first)
        note("chain of three", "mergekit", (first[0] + second[0], max(first[1], second[1])))
    shutil.rmtree(scratch)
    rows = []
    for (kind, who), values in sorted(seconds.items()):
        steps, commands = (1, 1) if kind == "two models" else (2, 2 if who == "mergekit" else 1)
        begun = commands * start.get(who.split(",")[0], 0.0)  # nothing for the floor

        def rate(steps: int, seconds: float) -> float:
            return steps * size / 2 / seconds / 1e6

        median, theirs = statistics.median(values), statistics.median(seconds[kind, "mergekit"])
        merging = rate(steps, median - begun)
        rows.append({
            "inputs": kind, "program": who, "seconds": median, "of them start": begun,
            "M parameters/s": merging, "peak GB": max(memory[kind, who]), "GB written": commands * size / 1e9,
            "parameters/s, times mergekit": merging / rate(steps, theirs - steps * start["mergekit"]),
            "whole command, times mergekit": theirs / median,
            "times floor": median / statistics.median(seconds[kind, "floor"]),
        })  # fmt: skip
    return pd.DataFrame(rows).set_index(["inputs", "program"]).round(2)


def show(title: str, folders: dict[str, Path], scratch: Path, repeats: int, start: dict[str, float]) -> None:
    """Print the tables of warm and cold inputs, and what the threads of a chain do in both cases (`timeline.py`)."""
    for cache in (warm, cold):
        load = os.getloadavg()[0]
        table = compare(folders, scratch, repeats, start, cache)
        print(f"{title}; {cache.__name__} inputs; load {load:.1f} before\n{table.to_string()}\n")
        scratch.mkdir()
        file = recipe_file(CHAIN, folders, scratch / "chain.yaml")
        cache(weights(folders.values()))
        command = [sys.executable, Path(__file__).with_name("timeline.py"), "--recipe", file, "--out", scratch / "out"]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, flush=True)
        shutil.rmtree(scratch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", default="smol", help="a finished run whose branches are merged too")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="disk with 25 GB for the 32B-shaped checkpoints")
    arguments = parser.parse_args()
    peer_python()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        cfg = config.load(arguments.run)
        branches = {name: cfg.model(name) for name in EXPERTS}
        start = starts(folder / "start", arguments.repeats)
        if all(path.is_dir() for path in branches.values()):
            show(f"branches of {cfg.run}", branches, folder / "scratch", arguments.repeats, start)
        # In a process of its own: a command's peak memory would otherwise count what this one held when it forked.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            experts = pool.submit(make_experts, folder).result()
        title = f"layers with the shapes of Qwen2.5-32B, {LAYERS} of them and the embedding"
        show(title, experts, folder / "scratch", arguments.repeats, start)


if __name__ == "__main__":
    main()
