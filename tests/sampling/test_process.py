"""The sampling process: shares of ranks, engines in turn, progress, and processes side by side."""

import json
import sys
from pathlib import Path

import plans
import pytest
from plans import VLLM, exactly_once, plan_of, request, start
from served import Served

from tinyr1.core.errors import UserError
from tinyr1.sampling import process, responses
from tinyr1.sampling.process import sample_plan
from tinyr1.sampling.requests import Answer, Failure
from tinyr1.sampling.store import LineWriter


@pytest.fixture
def checkpoint(tmp_path, tokenizer):
    return plans.checkpoint_maker(tmp_path, tokenizer)


def test_ranks_share_whole_questions_without_gap_or_overlap():
    requests = [request(q, i) for i in range(3) for q in "abcde"]
    parts = [process.share_of_rank(requests, rank, 3) for rank in range(3)]
    assert sorted(map(str, sum(parts, []))) == sorted(map(str, requests))
    assert [{r["question"] for r in part} for part in parts] == [{"a", "d"}, {"b", "e"}, {"c"}]


def test_a_ranks_share_does_not_depend_on_what_the_others_have_written(tmp_path):
    plan = plan_of(tmp_path, VLLM, questions="abcd", samples=1)
    (j,) = plan["models"][0]["jobs"]
    before = process.unfinished(plan, 1, 2)
    line = {"question": "a", "sample": 0, "text": "", "n_tokens": 0, "finish": "stop", "model_key": "key of only",
            "protocol_key": "p"}  # fmt: skip
    with LineWriter(Path(j["out"]), responses.RESPONSE) as writer:
        writer.append(line)
    assert process.unfinished(plan, 1, 2) == before
    assert [r["question"] for r in process.unfinished(plan, 0, 2)[0]["jobs"][0]["requests"]] == ["c"]


def test_ranks_get_gpus_of_their_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert process.visible_gpus(VLLM | {"data_parallel_size": 2, "tensor_parallel_size": 2}) == ["4,5", "6,7"]
    with pytest.raises(UserError, match="3 engines of 2 GPUs need 6, this machine shows 4"):
        process.visible_gpus(VLLM | {"data_parallel_size": 3, "pipeline_parallel_size": 2})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match="to 1 on a CPU"):
        process.visible_gpus(VLLM | {"data_parallel_size": 2})


# --- engines in turn ------------------------------------------------------------------------------------------


class Recorded:
    """Stands in for vLLM: says which checkpoint answered; `broken` cannot be reloaded, `deaf` aborts every request."""

    log: list = []

    def __init__(self, settings, path, seed):
        self.path = Path(path).name
        self.log.append(("start", self.path))

    def serve(self, path):
        if Path(path).name == "broken":
            raise RuntimeError("shapes do not fit")
        self.path = Path(path).name
        self.log.append(("load", self.path))

    def answers(self, requests):
        for r in requests:
            done = Answer(f"{self.path} on {r.question}", 2, "stop", None)
            yield r, Failure("aborted") if self.path == "deaf" else done

    def close(self):
        self.log.append(("close", self.path))


@pytest.fixture
def recorded(monkeypatch):
    monkeypatch.setattr(process, "Vllm", Recorded)
    Recorded.log = []
    return Recorded.log


def run_to_the_end(plan, tmp_path):
    """What main does, with a call in place of the fresh process."""
    progress, rounds = tmp_path / "p.progress", 1
    while sample_plan(plan, progress, continued=rounds > 1):
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
    for model in plan["models"]:
        lines = [line for _, line in responses.RESPONSE.lines(Path(model["jobs"][0]["out"]))]
        assert all(line["text"].startswith(f"{model['name']} on") for line in lines)
    assert (progress["done"], progress["of"], progress["tokens"]) == (30, 30, 60)


def test_nothing_starts_when_nothing_is_missing(tmp_path, checkpoint, recorded):
    checkpoint("only")
    plan = plan_of(tmp_path, VLLM)
    run_to_the_end(plan, tmp_path)
    recorded.clear()
    assert sample_plan(plan, tmp_path / "p.progress") is False
    assert recorded == []


def test_a_bad_last_checkpoint_is_found_before_the_first_engine_starts(tmp_path, checkpoint, recorded):
    checkpoint("one"), checkpoint("two", template=None)
    with pytest.raises(UserError, match="no chat template"):
        sample_plan(plan_of(tmp_path, VLLM, ("one", "two")), tmp_path / "p.progress")
    assert recorded == []


def test_requests_that_the_engine_gives_up_end_the_run_with_a_count(tmp_path, checkpoint, recorded):
    checkpoint("deaf")
    with pytest.raises(UserError, match=r"6 of 6 requests to deaf have no answer[^:]*:\n  6 x aborted"):
        sample_plan(plan_of(tmp_path, VLLM, ("deaf",)), tmp_path / "p.progress")


def test_a_tolerant_plan_leaves_out_what_the_engine_has_no_room_for(tmp_path, checkpoint, recorded):
    checkpoint("only")
    plan = plan_of(tmp_path, VLLM) | {"tolerant": True}
    (j,) = plan["models"][0]["jobs"]
    j["requests"][0]["messages"] = j["requests"][1]["messages"] = [{"role": "user", "content": "word " * 600}]
    progress = run_to_the_end(plan, tmp_path)
    assert progress["failures"] == {process.TOO_LONG: 2}
    assert (progress["done"], progress["of"]) == (4, 4)
    recorded.clear()
    run_to_the_end(plan, tmp_path)
    assert recorded == [], "no engine starts for these alone"


def test_what_the_protocol_gave_with_a_question_is_stored_with_the_answer(tmp_path, checkpoint, recorded):
    checkpoint("only")
    plan = plan_of(tmp_path, VLLM)
    plan["models"][0]["jobs"][0]["requests"][0]["order"] = [2, 0, 1, 3]
    run_to_the_end(plan, tmp_path)
    lines = [line for _, line in responses.RESPONSE.lines(Path(plan["models"][0]["jobs"][0]["out"]))]
    assert [line.get("order") for line in lines] == [[2, 0, 1, 3]] + [None] * 5


def test_progress_is_written_at_a_bounded_rate(tmp_path, monkeypatch):
    clock, writes = [100.0], []
    monkeypatch.setattr(process.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(process, "_replace", lambda path, facts: writes.append(facts["done"]))
    progress = process.Progress(tmp_path / "p", 1000, continued=False)
    for _ in range(1000):
        clock[0] += 0.002
        progress.count(Answer("", 1, "stop", None), 0.002)
    assert 3 <= len(writes) <= 5


# --- processes ------------------------------------------------------------------------------------------------


def test_the_next_engine_gets_a_fresh_process_image_and_the_count_goes_on(tmp_path, monkeypatch):
    calls = []
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan_of(tmp_path, VLLM)))
    monkeypatch.setattr(process, "sample_plan", lambda *a: calls.append(a[1:]) or len(calls) == 1)
    monkeypatch.setattr(process.os, "execv", lambda python, words: calls.append(words))
    monkeypatch.setattr(sys, "argv", ["generate", str(path), "--continued"])
    process.main()
    words = [sys.executable, "-m", "tinyr1.sampling.process", str(path), "--continued"]
    assert calls == [(tmp_path / "plan.progress", 0, 1, True), words]
    monkeypatch.setattr(sys, "argv", ["generate", str(path)])
    process.main()
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
    shares = [{line["question"] for _, line in responses.RESPONSE.lines(path)} for path in responses.shards(out)]
    assert shares == [set("ace"), set("bdf")]
    assert json.loads((tmp_path / "plan.progress").read_text())["done"] == 12


def test_a_rank_that_fails_ends_the_others_and_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with Served(delay=60) as server:
        plan = ranked(server, tmp_path, timeout_seconds=100)
        held = Path(plan["models"][0]["jobs"][0]["out"])
        with LineWriter(responses.shard(held, 1), responses.RESPONSE):  # rank 1 finds its file taken
            process = start(tmp_path / "plan.json")
            assert process.wait(60) == 2
    assert "another process is writing" in process.stderr.read()
