"""Five checkpoints and one quiz on a CPU: one engine that reloads weights, against one engine start for each.

    python tests/bench/bench_generate.py FOLDER     FOLDER is made; the checkpoints are tiny and random

Greedy sampling, so that both ways must write the same texts.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

from tinyr1.branch import backbone
from tinyr1.core import config, prompts
from tinyr1.sampling import responses
from tinyr1.sampling.vllm import cpu_environment

MODELS, QUESTIONS, SAMPLES, MAX_TOKENS = 5, 16, 2, 32


def checkpoints(folder: Path, models: int = MODELS) -> list[Path]:
    """Checkpoints that differ in their weights only."""
    tokenizer = backbone._wheel_tokenizer()
    tokenizer.chat_template = prompts.R1_TEMPLATE
    paths = []
    for seed in range(models):
        paths.append(folder / f"model-{seed}")
        model = backbone._random_qwen2(seed)
        with torch.no_grad():  # biases and norms too, which start as zeros and ones
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(paths[-1])
        tokenizer.save_pretrained(paths[-1])
    return paths


def plan_of(cfg: config.Config, paths: list[Path], out: Path, questions: int = QUESTIONS) -> dict:
    """The generation plan of these checkpoints, responses under `out`."""
    requests = [
        {"question": f"q{q}", "sample": s, "messages": [{"role": "user", "content": f"What is {q} + {q * q}?"}],
         "open_think": True, "order": None}
        for q in range(questions) for s in range(SAMPLES)
    ]  # fmt: skip
    sampling = {"temperature": 0.0, "top_p": 1.0, "max_tokens": MAX_TOKENS, "stop": [], "stop_token_ids": [],
                "seed": 3}  # fmt: skip
    return {
        "engine": cfg.params.evaluate.engine.model_dump(), "seed": 0,
        "models": [
            {"name": p.name, "path": str(p), "key": p.name, "jobs": [{
                "name": "quiz", "out": str(out / f"{p.name}.jsonl"), "protocol_key": "p", "sampling": sampling,
                "requests": requests,
            }]}
            for p in paths
        ],
    }  # fmt: skip


def sample(cfg: config.Config, plan: dict, path: Path) -> float:
    """Seconds of one generating process, from start to end."""
    path.write_text(json.dumps(plan), encoding="utf-8")
    command = [sys.executable, "-m", "tinyr1.sampling.process", str(path)]
    started = time.perf_counter()
    result = subprocess.run(
        command, env=os.environ | cpu_environment(plan["engine"]), cwd=config.ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if result.returncode:
        raise RuntimeError(result.stderr[-3000:])
    return time.perf_counter() - started


def texts(plan: dict) -> dict:
    """(model, question, sample) -> text; refuses a plan that was not sampled exactly once."""
    found = {}
    for model in plan["models"]:
        for job in model["jobs"]:
            lines = responses.of_job(job, model["key"])
            if lines.notes() or len(lines.lines) != len(job["requests"]):
                raise RuntimeError(f"{model['name']}: {len(lines.lines)} of {len(job['requests'])}, {lines.notes()}")
            found |= {(model["name"], r["question"], r["sample"]): r["text"] for r in lines.lines}
    return found


def measure(folder: Path) -> dict:
    """Seconds of both ways, and the texts they wrote."""
    cfg, paths = config.load("smoke"), checkpoints(folder)
    sample(cfg, plan_of(cfg, paths[:1], folder / "warm", questions=1), folder / "warm.json")  # files into the cache
    together = plan_of(cfg, paths, folder / "together")
    seconds = {"one engine": sample(cfg, together, folder / "together.json"), "engine for each": 0.0}
    apart = plan_of(cfg, paths, folder / "apart")
    for model in apart["models"]:
        seconds["engine for each"] += sample(cfg, apart | {"models": [model]}, folder / "apart.json")
    return {"seconds": seconds, "together": texts(together), "apart": texts(apart)}


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True)
    measured = measure(Path(sys.argv[1]))
    times = measured["seconds"]
    print({name: round(value, 1) for name, value in times.items()})
    print(f"ratio {times['engine for each'] / times['one engine']:.2f}, "
          f"same texts: {measured['together'] == measured['apart']}")  # fmt: skip
