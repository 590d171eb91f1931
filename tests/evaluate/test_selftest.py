import json

import pytest
from pydantic import TypeAdapter
from test_grade import DOMAINS, rules

from tinyr1.core.errors import UserError
from tinyr1.core.params.domains import Benchmark
from tinyr1.core.params.evaluation import Sandbox
from tinyr1.data import benchmarks
from tinyr1.data.answers import integer
from tinyr1.evaluate.grading import extract, grade, released_math
from tinyr1.evaluate.grading.selftest import run_self_test
from tinyr1.evaluate.grading.symbolic import Verifier
from tinyr1.sandbox.runner import Runner


@pytest.fixture(scope="module")
def tools():
    limits = Sandbox(cpu_seconds=2, memory_mb=512, semantics="real", isolation="auto")
    with Runner(limits) as runner, Verifier(1) as verifier:
        yield runner, verifier


def loaded(kind, domain, **more):
    spec = TypeAdapter(Benchmark).validate_python({"kind": kind, "samples": 4, "max_tokens": 9, **more})
    return benchmarks.load_benchmark("one", domain, spec, "test", 7).questions


def miniature(name, questions=30):
    domain = name.removeprefix("mini-")
    return loaded("miniature", domain, tasks=domain, levels=[1, 2, 3], questions=questions)


def from_file(kind, path, **more):
    return loaded(kind, DOMAINS[kind], path=str(path), questions=None, **more)


def check(table, **least):
    """Every row ran as expected; `least`: samples that a form must have, by the start of its name."""
    assert all(row["samples"] == row["as_expected"] for row in table)
    for form, samples in least.items():
        rows = [r for r in table if r["answer"].startswith(form.replace("_", " "))]
        assert sum(r["samples"] for r in rows) >= samples, form


@pytest.mark.parametrize("name", ["mini-math", "mini-science", "mini-code"])
def test_the_miniature_passes(tools, name):
    table = run_self_test(rules("sound", "miniature", name), miniature(name, 12), *tools)
    check(table, a_=36, no_answer=12)
    assert not any(row["not_run"] for row in table)


@pytest.mark.parametrize("name", ["sound", "released"])
@pytest.mark.parametrize("year", ["24", "25"])
def test_every_real_aime_answer_passes(tools, shared_data, name, year):
    path = shared_data / "aime" / f"tinyr1_aime{year}_test.jsonl"
    table = run_self_test(rules(name, "aime"), from_file("aime", path), *tools)
    check(table, boxed=60, bare=30, a_constant=210)


def gpqa():
    options = {"kind": "option", "options": ["a", "b", "c", "d"], "answer": "0"}
    return [{"id": f"rec{i}", **options} for i in range(20)]


@pytest.mark.parametrize("name", ["sound", "released"])
def test_gpqa_passes_and_a_constant_letter_gets_what_the_orders_give_it(name):
    table = run_self_test(rules(name, "gpqa"), gpqa())
    check(table, boxed=80, anchored=80, a_constant_letter=320)
    right = sum(r["samples"] for r in table if r["answer"] == "a constant letter" and r["expected"] == "correct")
    assert right == 80  # one letter of four, whatever the order


@pytest.mark.parametrize("name", ["sound", "released"])
def test_a_real_livecodebench_problem_passes(tools, shared_data, name):
    path = shared_data / "livecodebench" / "code_generation_lite_1row_encoded_private.jsonl"
    questions = from_file("livecodebench", path, window=["2000-01-01", "2030-01-01"])
    check(run_self_test(rules(name, "livecodebench"), questions, *tools), a_stand=1, a_program=3)


def test_programs_that_were_not_run_are_counted(monkeypatch):
    table = run_self_test(rules("sound", "miniature", "mini-code"), miniature("mini-code", 3))
    assert {r["answer"]: (r["samples"], r["not_run"]) for r in table} == {
        "no answer": (0, 3), "a stand-in for a reference solution": (0, 3), "a program with constant output": (0, 9),
    }  # fmt: skip


def test_known_faults_of_the_released_rule_are_listed_and_not_hidden(tools):
    hundred = [{"id": "h", "kind": "integer", "answer": "100"}]
    table = run_self_test(rules("released", "aime"), hundred, *tools)
    faults = [r for r in table if "known fault" in r["answer"]]
    assert [(r["expected"], r["samples"]) for r in faults] == [("correct", 1)]  # 1 = 100
    assert not [r for r in run_self_test(rules("sound", "aime"), hundred, *tools) if "known fault" in r["answer"]]


def last_word(text):
    """A rule that takes a number at the end for an answer, boxed or not."""
    return integer(text.rpartition(" ")[2].strip(".$")) or extract.boxed_integer(text)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda text: 42, "expected no_answer"),
        (lambda text: None, "boxed: wrong, expected correct"),
        (last_word, "bare: correct, expected no_answer"),
    ],
    ids=["constant", "blind", "last word"],
)
def test_a_broken_extraction_is_found(monkeypatch, broken, said):
    monkeypatch.setitem(grade.EXTRACTION, "boxed_integer", broken)
    with pytest.raises(UserError, match=f"mini-math, protocol sound: .*{said}"):
        run_self_test(rules("sound", "miniature", "mini-math"), miniature("mini-math"))


def test_a_grader_that_says_yes_to_everything_is_found(tools, monkeypatch):
    monkeypatch.setattr(grade, "quick_equal", lambda found, truth: True)
    with pytest.raises(UserError, match="a constant: correct, expected wrong"):
        run_self_test(rules("released", "aime"), [{"id": "q", "kind": "integer", "answer": "204"}], *tools)
    assert released_math.quick_equal("1", "204") is False


def test_a_shifted_option_order_is_found(monkeypatch):
    real = grade.order
    monkeypatch.setattr(grade, "order", lambda protocol, question, sample: real(protocol, question, sample + 1))
    with pytest.raises(UserError, match="gpqa, protocol sound"):
        run_self_test(rules("sound", "gpqa"), gpqa())


def test_a_problem_whose_right_output_is_constant_does_not_fail_the_test(tools):
    tests = [{"input": str(i), "output": "0\n"} for i in range(3)]
    question = {"id": "z", "kind": "program", "func_name": "", "tests": tests}
    check(run_self_test(rules("sound", "livecodebench"), [json.loads(json.dumps(question))], *tools), a_program=3)
