"""A real `vllm serve` with a reasoning parser: its answers are those of the engine that this kit starts, to the letter.

The model knows three answers by heart (`known.py`).
"""

import json
import os

import pytest
from known import KNOWN
from plans import SAMPLING, VLLM, plan_of, request, start
from served import CONTEXT, MODEL

from tinyr1.core.errors import UserError
from tinyr1.sampling import endpoint, responses
from tinyr1.sampling.process import sample_plan
from tinyr1.sampling.requests import Request
from tinyr1.sampling.vllm import cpu_environment

pytestmark = pytest.mark.slow
LONGEST = 64
GREEDY = SAMPLING | {"temperature": 0.0, "top_p": 1.0, "max_tokens": LONGEST}
STARTS = 1500  # seconds that an engine may take to start on a busy machine


def asked_of(folder, tmp_path, engine, **changes):
    """A plan for the model: its questions as messages, and the same prompts as raw text."""
    plan = plan_of(tmp_path, engine | changes, (), ())
    requests = [request(question) for question in KNOWN]
    for question in KNOWN:
        raw = f"<|im_start|>user\n{question}?<|im_end|>\n<|im_start|>assistant\n<think>\n"
        requests.append({"question": f"raw {question}", "sample": 0, "prompt": raw, "open_think": True})
    jobs = [{"name": "quiz", "out": str(tmp_path / "quiz.jsonl"), "protocol_key": "p", "sampling": GREEDY,
             "requests": requests}]  # fmt: skip
    return plan | {"models": [{"name": "tiny", "path": str(folder), "key": "k", "jobs": jobs}]}


def answered(plan):
    """question -> (text, finish, tokens)."""
    found = responses.of_job(plan["models"][0]["jobs"][0], "k").lines
    return {line["question"]: (line["text"], line["finish"], line["n_tokens"]) for line in found}


@pytest.fixture(scope="module")
def local(known_model, tmp_path_factory):
    """What the engine of this kit answers."""
    folder = tmp_path_factory.mktemp("local")
    plan = asked_of(known_model, folder, VLLM, max_model_len=CONTEXT)
    path = folder / "plan.json"
    path.write_text(json.dumps(plan))
    process = start(path, os.environ | cpu_environment(plan["engine"]))
    try:
        _, errors = process.communicate(timeout=STARTS)
    finally:
        process.kill()
    assert process.returncode == 0, errors[-3000:]
    return answered(plan)


@pytest.fixture
def server(known_server):
    """The engine block for a running server of the model."""
    return {
        "kind": "endpoint", "base_url": known_server, "model": MODEL, "api_key_variable": None, "concurrency": 2,
        "timeout_seconds": 300, "retries": 0, "max_tokens_name": None,
    }  # fmt: skip


def test_the_local_engine_knows_the_answers(local):
    texts = {question: text for question, (text, _, _) in local.items() if not question.startswith("raw")}
    assert texts == {q: text[:LONGEST] if q == "Count for ever" else text for q, text in KNOWN.items()}


def test_a_served_model_writes_what_the_local_engine_writes_with_a_parser_and_without(
    known_model, local, server, tmp_path
):
    plan = asked_of(known_model, tmp_path, server)
    sample_plan(plan, tmp_path / "p.progress")
    served = answered(plan)
    raw = {question for question in served if question.startswith("raw")}
    assert {q: served[q] for q in raw} == {q: local[q] for q in raw}, "a raw prompt meets no parser"
    first, second, cut = KNOWN
    assert served[first] == local[first], "to the letter, with the same tokens"
    # Nothing shows that there was no line end beside this tag.
    text, finish, tokens = local[second]
    assert served[second] == (text.replace("</think>", "\n</think>\n\n"), finish, tokens)
    text, finish, tokens = local[cut]
    assert served[cut] == (f"<think>\n{text}", finish, tokens), "its prompt opened the tag, which a grader has to see"
    assert finish == "length"


def test_a_question_that_is_too_long_for_it_fails_alone(known_model, server, tmp_path):
    plan = asked_of(known_model, tmp_path, server) | {"tolerant": True}
    (job,) = plan["models"][0]["jobs"]
    job["requests"] = [request("What is 2 + 2"), request("2 + " * CONTEXT), request("3 + " * (2 * CONTEXT))]
    sample_plan(plan, tmp_path / "p.progress")
    found = responses.of_job(job, "k")
    assert [line["question"] for line in found.lines] == ["What is 2 + 2"]
    assert [line["kind"] for line in found.failed] == ["too_long", "too_long"]
    assert all(line["reason"].startswith("HTTP 400, too long for the server: ") for line in found.failed)


def test_it_takes_the_longest_answer_under_either_name(known_model, local, server, tmp_path):
    plan = asked_of(known_model, tmp_path, server, max_tokens_name="max_completion_tokens")
    plan["models"][0]["jobs"][0]["requests"] = [request("Count for ever")]
    sample_plan(plan, tmp_path / "p.progress")
    ((_, finish, tokens),) = answered(plan).values()
    assert (finish, tokens) == ("length", LONGEST)


def test_a_name_that_it_does_not_serve_is_refused(known_model, server, tmp_path):
    plan = asked_of(known_model, tmp_path, server, model="other")
    with pytest.raises(UserError, match=f"does not serve 'other'; it has {MODEL}"):
        sample_plan(plan, tmp_path / "p.progress")
    asked = Request(0, "q", 0, None, GREEDY, messages=[{"role": "user", "content": "2 + 2?"}])
    failure = endpoint.Endpoint(server | {"model": "other"}).ask(asked)
    assert failure.kind == "fatal"
    assert failure.reason.startswith("HTTP 404: ")
    assert failure.reason.endswith("; check engine.model and engine.base_url")
