"""What is checked before an engine starts, and how requests become prompts."""

import json

import plans
import pytest
from plans import SAMPLING, VLLM, plan_of, request

from tinyr1.core.errors import UserError
from tinyr1.sampling import preflight, requests
from tinyr1.sampling.requests import Request


@pytest.fixture
def checkpoint(tmp_path, tokenizer):
    return plans.checkpoint_maker(tmp_path, tokenizer)


def test_samples_of_a_question_stand_together_and_its_prompt_is_made_once(tmp_path, checkpoint, monkeypatch):
    made = []
    monkeypatch.setattr(requests, "encode_request", lambda tokenizer, r: made.append(r["question"]) or [1, 2])
    plan = plan_of(tmp_path, VLLM, models=("one", "two"), samples=3)
    checkpoint("one"), checkpoint("two")
    for model in plan["models"]:
        model["jobs"][0]["requests"].sort(key=lambda r: r["sample"])
    ready = preflight.checked_requests(VLLM, plan["models"])
    assert [(r.question, r.sample) for r in ready["two"]] == [(q, i) for q in "abc" for i in range(3)]
    assert made == ["a", "b", "c"], "once for both models and all samples"


def test_a_model_without_chat_template_is_refused_unless_prompts_are_raw(tmp_path, checkpoint):
    folder = checkpoint("only", template=None)
    plan = plan_of(tmp_path, VLLM)
    with pytest.raises(UserError, match=f"{folder}.*no chat template"):
        preflight.checked_requests(VLLM, plan["models"])
    raw = {"question": "a", "sample": 0, "prompt": "1 + 1 =", "open_think": False, "order": None}
    plan["models"][0]["jobs"][0]["requests"] = [raw]
    assert preflight.checked_requests(VLLM, plan["models"])["only"][0].prompt


def test_the_think_tag_is_opened_where_the_protocol_says_so(tokenizer):
    def prompt(flag):
        return tokenizer.decode(requests.encode_request(tokenizer, request("q", open_think=flag)))

    text = prompt(False), prompt(True)
    assert text[1].endswith("<think>\n")
    assert text[0] == text[1], "this template opens it"
    tokenizer.chat_template, had = "{{ messages[0]['content'] }}", tokenizer.chat_template
    text = prompt(False), prompt(True)
    tokenizer.chat_template = had
    assert text == ("q?", "q?<think>\n")
    assert requests.raw_prompt({"prompt": "x", "open_think": True}) == "x<think>\n"
    assert requests.raw_prompt({"prompt": "x<think>\n", "open_think": True}) == "x<think>\n"


def test_a_prompt_too_long_for_the_context_is_named_with_its_number(tmp_path, checkpoint):
    checkpoint("only")
    plan = plan_of(tmp_path, VLLM)
    requests = plan["models"][0]["jobs"][0]["requests"]
    requests[-1]["messages"] = requests[-2]["messages"] = [{"role": "user", "content": "word " * 600}]
    with pytest.raises(UserError, match=r"exceed engine.max_model_len \(512\).*\nquiz/c: 6\d\d \+ 24 = 6\d\d$"):
        preflight.checked_requests(VLLM, plan["models"])


def test_a_context_longer_than_the_models_is_refused(tmp_path, checkpoint):
    checkpoint("only")
    with pytest.raises(UserError, match="4,096 is above 2,048"):
        preflight.checked_requests(VLLM | {"max_model_len": 4096}, plan_of(tmp_path, VLLM)["models"])


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


@pytest.mark.parametrize(("spoil", "message"), [("config.json", "no config.json"), ("model.safetensors", "no weights")])
def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path, checkpoint, spoil, message):
    with pytest.raises(UserError, match="no such folder"):
        preflight.checked_requests(VLLM, plan_of(tmp_path, VLLM)["models"])
    (checkpoint("only") / spoil).unlink()
    with pytest.raises(UserError, match=message):
        preflight.checked_requests(VLLM, plan_of(tmp_path, VLLM)["models"])


def test_pickled_weights_are_refused_before_an_engine_starts(checkpoint):
    folder = checkpoint("only")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin: no \.safetensors file; load the model with transformers"):
        preflight.signature(folder)


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
    if name.endswith("index.json"):  # which nobody reads beside a whole file
        (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=message):
        preflight.signature(folder)
    if name.startswith(("config", "model.safetensors.index")):
        with pytest.raises(UserError, match=message):
            preflight.check_vllm(VLLM, [{"path": str(folder)}])


def test_a_template_that_refuses_the_messages_is_named_with_the_question(tmp_path, checkpoint):
    checkpoint("only", template="{{ raise_exception('no system turns') }}")
    with pytest.raises(UserError, match="a: the model's chat template refuses it: no system turns"):
        preflight.checked_requests(VLLM, plan_of(tmp_path, VLLM)["models"])


def test_a_sample_that_is_asked_for_twice_is_refused(tmp_path, checkpoint):
    checkpoint("only")
    plan = plan_of(tmp_path, VLLM, questions="aba", samples=1)
    with pytest.raises(UserError, match="quiz: asked for twice: a, sample 0;"):
        preflight.checked_requests(VLLM, plan["models"])


def test_ray_without_the_package_is_refused(tmp_path, checkpoint, monkeypatch):
    checkpoint("only")
    monkeypatch.setattr(preflight.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package ray"):
        preflight.checked_requests(VLLM | {"distributed_executor_backend": "ray"}, plan_of(tmp_path, VLLM)["models"])


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


def test_seeds_are_numbered_by_sample():
    r = Request(0, "q", 3, None, SAMPLING | {"seed": 100})
    assert r.seed == 103
    assert Request(0, "q", 3, None, SAMPLING).seed is None
