"""A run's params file to its sampling plan and to stored responses."""

import json

import pytest
from plans import VLLM
from served import MODEL, Served

from tinyr1.core import config, prompts
from tinyr1.core.errors import UserError
from tinyr1.evaluate import stage
from tinyr1.sampling import requests


def test_the_plan_of_a_run_asks_each_question_as_it_is_asked_in_training(home, tokenizer, monkeypatch):
    monkeypatch.setattr(stage, "model_key", lambda cfg, model: f"key {model}")
    cfg = config.load("smol")
    asked = {"mini-math": [{"id": "q", "question": "1 + 1?"}]}
    plan = json.loads(json.dumps(stage.generation_plan(cfg, ["math"], asked)))
    (j,) = plan["models"][0]["jobs"]
    in_training = prompts.encode_prompt(tokenizer, prompts.row_turn(cfg.params.domains["math"], asked["mini-math"][0]))
    assert requests.encode_request(tokenizer, j["requests"][0]) == in_training
    assert [(r["question"], r["sample"]) for r in j["requests"]] == [("q", 0)]
    assert j["sampling"]["max_tokens"] == 120
    assert plan["engine"]["kind"] == "vllm"


def engine_text(home, text):
    """params/smol.yaml with another engine block."""
    path = home / "params" / "smol.yaml"
    lines = path.read_text(encoding="utf-8").split("\n")
    block = lines.index("evaluate:")  # the teacher has an engine, too
    first = next(i for i, line in enumerate(lines[block:], block) if line.startswith("  engine:"))
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
        (SERVED.replace("kind: endpoint, ", ""), "evaluate.engine.kind: is missing; one of vllm, endpoint"),
        (SERVED.replace("kind: endpoint", "kind: tgi"), 'evaluate.engine.kind: "tgi" is not one of vllm, endpoint'),
        (SERVED.replace("http://", "http://me:secret@"), "evaluate.engine.base_url"),
        (SERVED.replace("concurrency: 8", "concurrency: 0"), "evaluate.engine.concurrency: 0"),
        (SERVED.replace("retries: 5", "max_model_len: 5"), "evaluate.engine.max_model_len: unknown parameter"),
        (json.dumps(VLLM | {"data_parallel_size": 2, "distributed_executor_backend": "ray"}),
         "evaluate.engine.data_parallel_size: 2 engines share one machine"),
        (json.dumps(VLLM | {"max_model_len": 100}), "benchmarks.mini-math.max_tokens: 120 leaves no room"),
    ],
)  # fmt: skip
def test_engine_blocks_that_cannot_work_are_refused_by_path(home, text, message):
    engine_text(home, text)
    with pytest.raises(UserError, match=message):
        config.load("smol")


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
