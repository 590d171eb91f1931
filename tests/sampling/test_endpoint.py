"""A served model: how it is asked, how it misbehaves, and what 30 kills leave."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from openai.types.chat import ChatCompletion
from plans import SAMPLING, exactly_once, plan_of, received, said, start
from served import MODEL, Served, answer_to

from tinyr1.core import prompts
from tinyr1.core.errors import UserError
from tinyr1.sampling import endpoint, responses
from tinyr1.sampling.process import sample_plan
from tinyr1.sampling.requests import Answer, Failure, Request


def test_a_served_model_answers_and_is_asked_as_the_protocol_says(tmp_path):
    with Served() as server:
        plan = plan_of(tmp_path, server.settings(), samples=3)
        (j,) = plan["models"][0]["jobs"]
        j["sampling"] = SAMPLING | {"seed": 40, "stop": ["END"], "stop_token_ids": [7]}
        assert sample_plan(plan, tmp_path / "p.progress") is False
    assert exactly_once(plan)
    lines = {(line["question"], line["sample"]): line for _, line in responses.RESPONSE.lines(Path(j["out"]))}
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
        sample_plan(plan, tmp_path / "p.progress")
    assert server.bodies[0]["prompt"] == "1 + 1 =<think>\n"
    assert exactly_once(plan)


def test_passing_faults_are_retried_and_leave_no_trace(tmp_path):
    faults = {1: "500", 2: "429", 4: "503"}
    with Served(faults.get) as server:
        plan = plan_of(tmp_path, server.settings(concurrency=1))
        sample_plan(plan, tmp_path / "p.progress")
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
            sample_plan(plan, tmp_path / "p.progress")
        assert received(plan)["only"].total() == 4
        assert sample_plan(plan, tmp_path / "p.progress") is False
    assert exactly_once(plan)
    assert server.asked.total() == 6, "answers that arrived are not asked again"


def test_an_endpoint_that_is_down_is_given_up_soon_and_not_asked_every_question(tmp_path):
    with Served(lambda n: "500" if n > 3 else None) as server:
        plan = plan_of(tmp_path, server.settings(concurrency=2, retries=0), questions=[f"q{i}" for i in range(100)])
        with pytest.raises(UserError, match="197 of 200 requests.*") as error:
            sample_plan(plan, tmp_path / "p.progress")
        assert server.attempts < 20
    assert "not asked: the endpoint was given up" in str(error.value)
    assert received(plan)["only"].total() == 3


@pytest.mark.parametrize("status", ["401", "403", "404"])
def test_a_refusal_that_meets_every_request_stops_at_once(tmp_path, status):
    with Served(lambda n: status) as server:
        plan = plan_of(tmp_path, server.settings(), questions=[f"q{i}" for i in range(100)])
        with pytest.raises(UserError, match=f"HTTP {status}"):
            sample_plan(plan, tmp_path / "p.progress")
        assert server.attempts <= 8


def test_an_unknown_model_and_a_silent_address_are_refused_before_any_question(tmp_path):
    with Served(models=("other",)) as server:
        plan = plan_of(tmp_path, server.settings())
        with pytest.raises(UserError, match="does not serve 'parrot'; it has other"):
            sample_plan(plan, tmp_path / "p.progress")
    assert server.bodies == []
    plan["engine"]["retries"] = 0
    with pytest.raises(UserError, match=f"{server.url} does not answer"):
        sample_plan(plan, tmp_path / "p.progress")


@pytest.mark.parametrize("page", ["<html>a web site</html>", '{"detail": "hello"}', '"pong"'])
def test_an_address_that_is_no_api_is_refused_before_any_question(tmp_path, page):
    with Served() as server:
        server.send = lambda handler, status, text: Served.send(handler, status, page)
        plan = plan_of(tmp_path, server.settings(base_url=server.url.removesuffix("/v1")))
        with pytest.raises(UserError, match=r"is no OpenAI-compatible API.*the URL usually ends in /v1"):
            sample_plan(plan, tmp_path / "p.progress")
    assert server.attempts == 0


def test_an_endpoint_is_one_model(tmp_path):
    with Served() as server:
        plan = plan_of(tmp_path, server.settings(), ("one", "two"))
        with pytest.raises(UserError, match=r"serves one model \(parrot\), but the run has 2: one, two"):
            sample_plan(plan, tmp_path / "p.progress")
    assert server.attempts == 0


def test_the_key_comes_from_the_environment_and_is_written_nowhere(tmp_path, monkeypatch):
    with Served() as server:
        plan = plan_of(tmp_path, server.settings(api_key_variable="QUIZ_KEY"))
        with pytest.raises(UserError, match="no QUIZ_KEY"):
            sample_plan(plan, tmp_path / "p.progress")
        monkeypatch.setenv("QUIZ_KEY", "s3cret")
        sample_plan(plan, tmp_path / "p.progress")
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
    reply = ChatCompletion.construct(choices=[{"finish_reason": "stop", "message": message}])
    answer = endpoint.read_reply(reply, 7)
    assert answer == Answer(text, None, "stop", 7)
    assert prompts.split_response(answer.text)[1] == ("4" if "</think>" in text else None)


@pytest.mark.parametrize("kind", ["application/json", "text/html"])
@pytest.mark.parametrize(
    "page",
    ["<html>busy</html>", '"pong"', "[1]", "{}", '{"choices": null}', '{"choices": [7]}', '{"choices": [{}]}',
     '{"choices": [{"finish_reason": "stop", "message": "so 4"}]}', '{"choices": [{"message": {"content": "4"}}]}',
     '{"choices": [{"finish_reason": "stop", "message": {"content": ["4"]}}]}',
     '{"choices": [{"finish_reason": "stop", "message": {"content": "4"}}], "usage": {"completion_tokens": "3"}}',
     '{"choices": [{"finish_reason": "stop", "message": {"content": "4"}}], "usage": 3}'],
)  # fmt: skip
def test_whatever_is_no_completion_is_a_failure(page, kind):
    with Served() as server:
        server.send = lambda handler, status, text: Served.send(handler, status, page, kind)
        result = endpoint.Endpoint(server.settings(retries=0)).ask(Request(0, "q", 0, None, SAMPLING, messages=[
            {"role": "user", "content": "2 + 2?"}]))  # fmt: skip
    assert isinstance(result, Failure)
    assert result.reason.startswith("the reply is no completion: ")
    assert not result.fatal


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
            before = len(responses.stored(out, "key of only", "p").lines)
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
            found = responses.stored(out, "key of only", "p")
            assert len(found.lines) >= before
            in_work += len(found.lines) > before
        lost = server.asked.total() - len(found.lines)
        assert in_work >= 20, "the kills have to meet it at work"
        assert lost <= 30 * settings["concurrency"], "a kill loses at most the requests in flight"
        last = start(path)
        assert last.wait(timeout=300) == 0, said(last)
    assert exactly_once(plan)
    assert all(line["text"] == answer_to(f"{line['question']}?") for _, line in responses.RESPONSE.lines(out))
    assert responses.stored(out, "key of only", "p").notes() == []
