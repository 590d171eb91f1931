"""A served model: how it is asked, how it misbehaves, and what 30 kills leave."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from plans import SAMPLING, exactly_once, plan_of, received, said, start
from served import MODEL, Served, answer_to, completion

from tinyr1.core import prompts
from tinyr1.core.errors import UserError
from tinyr1.sampling import endpoint, replies, responses
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


QUESTION = Request(0, "q", 0, None, SAMPLING | {"seed": 7}, messages=[{"role": "user", "content": "2 + 2?"}])


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "so 4"}, "so 4"),
        ({"content": "4", "reasoning_content": "2 + 2"}, "2 + 2\n</think>\n\n4"),
        ({"content": "4", "reasoning": "2 + 2"}, "2 + 2\n</think>\n\n4"),
        ({"content": None, "reasoning": "2 + …"}, "<think>\n2 + …"),
        ({"content": [{"type": "text", "text": "so "}, {"type": "text", "text": "4"}]}, "so 4"),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "2 + 2"}]},
                      {"type": "text", "text": "4"}]}, "2 + 2\n</think>\n\n4"),
    ],
)  # fmt: skip
def test_reasoning_that_a_server_cut_out_is_put_back(message, text):
    reply = {"choices": [{"finish_reason": "stop", "message": message}]}
    answer = replies.read_body(json.dumps(reply).encode(), QUESTION)
    assert answer == Answer(text, None, "stop", 7)
    assert prompts.split_reasoning(answer.text)[1] == ("4" if "</think>" in text else None)


FOUR = '{"message": {"content": "4"}, "finish_reason": "stop"}'


def asked_once(page, kind="application/json", **settings):
    """What the engine makes of a page that the server sends."""
    with Served() as server:
        server.send = lambda handler, status, text: Served.send(handler, status, page, kind)
        return endpoint.Endpoint(server.settings(retries=0, **settings)).ask(QUESTION)


@pytest.mark.parametrize("kind", ["application/json", "text/html"])
@pytest.mark.parametrize(
    "page",
    ["<html>busy</html>", '"pong"', "[1]", "{}", '{"choices": null}', '{"choices": [7]}', '{"choices": [{}]}',
     '{"choices": [{"finish_reason": "stop", "message": "so 4"}]}',
     '{"choices": [{"finish_reason": "stop", "message": {"content": [4]}}]}',
     '{"choices": [{"finish_reason": "stop", "message": {"content": 4}}]}'],
)  # fmt: skip
def test_whatever_is_no_completion_is_a_failure_that_may_pass(page, kind):
    result = asked_once(page, kind)
    assert isinstance(result, Failure)
    assert result.reason.startswith("the reply is no completion: ")
    assert result.kind == "passing"


@pytest.mark.parametrize(
    ("usage", "counts"),
    [("null", (None, None)), ("{}", (None, None)), ("3", (None, None)), ('{"completion_tokens": null}', (None, None)),
     ('{"completion_tokens": -1, "prompt_tokens": 7}', (None, 7)), ('{"completion_tokens": "3"}', (None, None)),
     ('{"completion_tokens": 3, "prompt_tokens": 2.5}', (3, None)), ('{"completion_tokens": 3}', (3, None))],
)  # fmt: skip
def test_an_answer_is_kept_whatever_the_usage_says(usage, counts):
    answer = asked_once(f'{{"choices": [{FOUR}], "usage": {usage}}}')
    assert (answer.text, answer.finish, answer.n_tokens, answer.n_prompt) == ("4", "stop", *counts)


@pytest.mark.parametrize(
    ("choice", "finish"),
    [('"finish_reason": null, ', "unknown"), ("", "unknown"), ('"finish_reason": "eos", ', "eos")],
)
def test_an_answer_is_kept_whatever_finish_reason_it_has(choice, finish):
    page = f'{{"choices": [{{{choice}"message": {{"content": "4"}}}}], "usage": {{"completion_tokens": 1}}}}'
    assert asked_once(page) == Answer("4", 1, finish, 7)
    assert asked_once(page.replace("1}", "24}")).finish == ("eos" if finish == "eos" else "length"), "24 is the limit"


@pytest.mark.parametrize("finish", ["abort", "error", "insufficient_system_resource"])
def test_a_generation_that_the_server_gave_up_is_asked_again_and_never_stored(tmp_path, finish):
    with Served(says=lambda prompt, times: completion("so", finish)) as server:
        plan = plan_of(tmp_path, server.settings(retries=1))
        with pytest.raises(UserError, match=f"6 x the server ended it with '{finish}'"):
            sample_plan(plan, tmp_path / "p.progress")
        assert received(plan)["only"].total() == 0
        assert server.asked.total() == 12
        server.says = lambda prompt, times: None
        sample_plan(plan, tmp_path / "p.progress")
    assert exactly_once(plan)


@pytest.mark.parametrize(
    "reply",
    [{"error": {"message": "overloaded"}}, {"choices": []}, completion(None), completion(None, reasoning_content="")],
)
def test_a_reply_with_status_200_and_no_answer_is_asked_for_again(tmp_path, reply):
    with Served(says=lambda prompt, times: dict(reply) if times == 1 else None) as server:
        plan = plan_of(tmp_path, server.settings(retries=1), samples=1)
        sample_plan(plan, tmp_path / "p.progress")
        assert server.asked.total() == 6
    assert exactly_once(plan)


def test_the_reason_of_an_error_body_is_told(tmp_path):
    with Served(says=lambda prompt, times: {"error": {"message": "overloaded"}}) as server:
        plan = plan_of(tmp_path, server.settings(retries=0))
        with pytest.raises(UserError, match=r"no completion: it says .*overloaded.*\(first: [abc]\)"):
            sample_plan(plan, tmp_path / "p.progress")


def test_a_reasoning_without_an_end_is_a_cut_off_answer_even_without_content():
    assert asked_once(json.dumps(completion(None, "length"))) == Answer("", 3, "length", 7, 7)


REFUSED = [completion("so", "content_filter"), completion(None, refusal="I cannot."),
           {"status": 400, "error": {"message": "Content Exists Risk"}},
           {"status": 400, "error": {"message": "no", "code": "content_filter"}}]  # fmt: skip


@pytest.mark.parametrize("reply", REFUSED)
def test_a_refused_question_is_no_answer_and_is_not_asked_again_and_again(tmp_path, reply):
    with Served(says=lambda prompt, times: dict(reply) if prompt == "b?" else None) as server:
        plan = plan_of(tmp_path, server.settings(), samples=1)
        with pytest.raises(UserError, match="1 of 3 requests to only have no answer"):
            sample_plan(plan, tmp_path / "p.progress")
        assert server.asked["b?"] == 1
        assert received(plan)["only"] == {("a", 0): 1, ("c", 0): 1}
        plan["tolerant"] = True
        sample_plan(plan, tmp_path / "p.progress")
        assert server.asked["b?"] == 2, "the next run asks again"
        plan["final"] = ["refused"]
        sample_plan(plan, tmp_path / "p.progress")
        assert server.asked["b?"] == 2, "unless a refusal stands"
    (line,) = responses.of_job(plan["models"][0]["jobs"][0], "key of only").failed
    assert (line["question"], line["finish"], line["kind"]) == ("b", "content_filter", "refused")


def test_a_question_that_is_too_long_for_the_server_blocks_no_other(tmp_path):
    too_long = {"status": 400, "error": {"message": "maximum context length"}}
    with Served(says=lambda prompt, times: dict(too_long) if prompt == "long?" else None) as server:
        plan = plan_of(tmp_path, server.settings(), questions=["long", *"abcdefgh"], samples=16)
        with pytest.raises(UserError, match=r"16 of 144 requests[^:]*:\n  16 x HTTP 400.*first: long"):
            sample_plan(plan, tmp_path / "p.progress")
    assert received(plan)["only"].total() == 8 * 16
    assert server.attempts == 144, "HTTP 400 is not tried again"


def test_a_server_that_takes_no_question_is_given_up(tmp_path):
    with Served(lambda n: "400") as server:
        plan = plan_of(tmp_path, server.settings(concurrency=2), questions=[f"q{i}" for i in range(100)])
        with pytest.raises(UserError, match="given up"):
            sample_plan(plan, tmp_path / "p.progress")
    assert server.attempts < 40


@pytest.mark.parametrize("tolerant", [False, True])
@pytest.mark.parametrize("status", ["401", "402", "500"])
def test_a_tolerant_plan_does_not_take_a_server_that_is_down_for_questions_that_fail(tmp_path, status, tolerant):
    with Served(lambda n: status) as server:
        plan = plan_of(tmp_path, server.settings(retries=0), questions=[f"q{i}" for i in range(20)])
        with pytest.raises(UserError, match=f"HTTP {status}"):
            sample_plan(plan | {"tolerant": tolerant}, tmp_path / "p.progress")


def test_failures_of_a_server_that_is_down_never_stand_for_those_of_a_question(tmp_path):
    with Served(lambda n: None if n == 1 else "500") as server:
        plan = plan_of(tmp_path, server.settings(retries=0, concurrency=1), questions=[f"q{i}" for i in range(20)])
        plan |= {"tolerant": True, "final": list(responses.KINDS)}
        with pytest.raises(UserError, match="given up"):
            sample_plan(plan, tmp_path / "p.progress")
        (job,) = plan["models"][0]["jobs"]
        assert {line["kind"] for line in responses.of_job(job, "key of only").failed} == {"given_up"}
        server.faults = lambda n: "500" if n % 2 else None
        sample_plan(plan, tmp_path / "p.progress")
        found = responses.of_job(job, "key of only")
        assert len(found.lines) + len(found.failed) == 40
        assert {line["kind"] for line in found.failed} == {"passing"}, "the server was there for all others"
        attempts = server.attempts
        sample_plan(plan, tmp_path / "p.progress")
        assert server.attempts == attempts


def test_a_tolerant_plan_counts_what_fails(tmp_path):
    with Served(lambda n: "400" if n in (2, 5) else None) as server:
        plan = plan_of(tmp_path, server.settings(concurrency=1)) | {"tolerant": True}
        assert sample_plan(plan, tmp_path / "p.progress") is False
    assert received(plan)["only"].total() == 4
    (reason,) = (failures := json.loads((tmp_path / "p.progress").read_text())["failures"])
    assert reason.startswith("HTTP 400")
    assert failures[reason] == 2


def test_the_longest_answer_may_have_another_name(tmp_path):
    with Served() as server:
        settings = server.settings(max_tokens_name="max_completion_tokens")
        sample_plan(plan_of(tmp_path, settings), tmp_path / "p.progress")
    assert server.bodies[0]["max_completion_tokens"] == 24
    assert "max_tokens" not in server.bodies[0]


def test_usage_and_cost_are_stored_and_lines_of_older_stores_still_count(tmp_path):
    with Served(says=lambda prompt, times: completion("4")) as server:
        plan = plan_of(tmp_path, server.settings(concurrency=1))
        plan["limits"] = {"price": {"input": 1.0, "output": 10.0}, "budget": None}
        (j,) = plan["models"][0]["jobs"]
        old = {"question": "a", "sample": 0, "text": "4", "n_tokens": 3, "finish": "stop", "model_key": "key of only",
               "protocol_key": "p"}  # fmt: skip
        Path(j["out"]).parent.mkdir(parents=True)
        Path(j["out"]).write_text(json.dumps(old) + "\n")
        sample_plan(plan, tmp_path / "p.progress")
    assert exactly_once(plan)
    first, *others = responses.of_job(j, "key of only").lines
    assert first == old
    assert {(line["n_prompt"], line["n_tokens"], line["dollars"]) for line in others} == {(7, 3, 37e-6)}
    progress = json.loads((tmp_path / "p.progress").read_text())
    assert progress["dollars"] == pytest.approx(5 * 37e-6)
    assert (progress["tokens"], progress["prompt_tokens"]) == (15, 35)


# --- waiting --------------------------------------------------------------------------------------------------


def test_the_pause_that_a_server_asks_for_is_kept_by_all_requests(tmp_path):
    with Served({1: "429 after 0.6"}.get) as server:
        plan = plan_of(tmp_path, server.settings(concurrency=1))
        sample_plan(plan, tmp_path / "p.progress")
    assert exactly_once(plan)
    assert server.moments[1] - server.moments[0] >= 0.6


def test_a_pause_of_hours_is_no_pause(tmp_path):
    with Served({1: "429 after 5000"}.get) as server:
        plan = plan_of(tmp_path, server.settings(concurrency=1))
        with pytest.raises(UserError, match="1 x HTTP 429"):
            sample_plan(plan, tmp_path / "p.progress")
    assert received(plan)["only"].total() == 5


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({}, None), ({"retry-after": "2.5"}, 2.5), ({"retry-after-ms": "300"}, 0.3), ({"retry-after": "-1"}, None),
     ({"retry-after": "Thu, 01 Jan 1970 00:02:00 GMT"}, 20.0), ({"retry-after": "soon"}, None)],
)  # fmt: skip
def test_a_pause_is_read_in_each_of_its_forms(headers, seconds):
    assert endpoint.retry_after(headers, now=100.0) == seconds


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
