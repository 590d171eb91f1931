"""Sampling plans, tiny checkpoints and sampling processes for tests."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tinyr1.core import prompts
from tinyr1.core.config import ROOT
from tinyr1.sampling import responses

SAMPLING = {"temperature": 0.6, "top_p": 0.95, "max_tokens": 24, "stop": [], "stop_token_ids": [], "seed": None}
VLLM = {
    "kind": "vllm", "max_model_len": 512, "max_num_seqs": 64, "max_num_batched_tokens": 2048,
    "tensor_parallel_size": 1, "pipeline_parallel_size": 1, "data_parallel_size": 1,
    "distributed_executor_backend": None, "gpu_memory_utilization": 0.5, "cpu_kv_cache_gb": 1, "enforce_eager": True,
}  # fmt: skip


def request(question, sample=0, **changes):
    message = {"role": "user", "content": f"{question}?"}
    return {"question": question, "sample": sample, "messages": [message], "open_think": True, "order": None} | changes


def job(out, questions, samples, **changes):
    requests = [request(q, i) for q in questions for i in range(samples)]
    return {"name": out.stem, "out": str(out), "protocol_key": "p", "sampling": SAMPLING,
            "requests": requests} | changes  # fmt: skip


def plan_of(tmp_path, engine, models=("only",), questions=("a", "b", "c"), samples=2):
    return {
        "engine": engine, "seed": 5,
        "models": [
            {"name": m, "path": str(tmp_path / m), "key": f"key of {m}",
             "jobs": [job(tmp_path / "responses" / m / "quiz.jsonl", questions, samples)]}
            for m in models
        ],
    }  # fmt: skip


def received(plan):
    """model -> Counter of (question, sample) over every line of every file."""
    return {
        m["name"]: Counter(
            (line["question"], line["sample"])
            for j in m["jobs"]
            for path in responses.shards(Path(j["out"]))
            for _, line in responses.RESPONSE.lines(path)
        )
        for m in plan["models"]
    }


def exactly_once(plan):
    asked = {m["name"]: Counter((r["question"], r["sample"]) for j in m["jobs"] for r in j["requests"])
             for m in plan["models"]}  # fmt: skip
    return received(plan) == asked and all(n == 1 for c in asked.values() for n in c.values())


def checkpoint_maker(tmp_path, tokenizer):
    """Makes checkpoint folders of a tiny network: make(name, hidden=8, template=…, **changes of config.json)."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    def make(name, hidden=8, template=prompts.R1_TEMPLATE, **changes):
        folder = tmp_path / name
        folder.mkdir()
        content = {"model_type": "qwen2", "hidden_size": hidden, "max_position_embeddings": 2048, "eos_token_id": 2}
        (folder / "config.json").write_text(json.dumps(content | changes))
        save_file({"w": torch.zeros(hidden, 4)}, folder / "model.safetensors")
        had, tokenizer.chat_template = tokenizer.chat_template, template
        tokenizer.save_pretrained(folder)
        tokenizer.chat_template = had
        return folder

    return make


def start(path, environment=None):
    command = [sys.executable, "-m", "tinyr1.sampling.process", str(path)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def said(process):
    """What a process that has to end now wrote to its standard error."""
    process.kill()
    return process.communicate()[1]
