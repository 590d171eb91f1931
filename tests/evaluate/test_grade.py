import pytest
import yaml

from tinyr1.core.config import ROOT
from tinyr1.core.params.evaluation import Sandbox
from tinyr1.core.params.schema import Params
from tinyr1.evaluate import protocol as protocols
from tinyr1.evaluate.grading import grade
from tinyr1.evaluate.grading.symbolic import Verifier
from tinyr1.sandbox.runner import Runner

ENDPOINT = {"kind": "endpoint", "base_url": "http://127.0.0.1:9/v1", "model": "m", "api_key_variable": None,
            "concurrency": 1, "timeout_seconds": 1.0, "retries": 0}  # fmt: skip
DOMAINS = {"aime": "math", "gpqa": "science", "livecodebench": "code"}


def params_of(benchmarks, protocol="sound"):
    """The parameters of a run of one served model with these benchmarks, as a params file has them, by domain."""
    params = yaml.safe_load((ROOT / "params" / "smoke.yaml").read_text(encoding="utf-8"))
    params["evaluate"] |= {"protocol": protocol, "engine": ENDPOINT}
    for domain, block in params["domains"].items():
        block["benchmarks"] = benchmarks.get(domain, {})
    return params


def rules(name, kind, benchmark="mini-science", samples=4):
    """The protocol of one benchmark, without the rest of a params file."""
    domain = DOMAINS.get(kind) or benchmark.removeprefix("mini-")
    one = {"kind": kind, "questions": 4, "samples": samples, "max_tokens": 32768}
    one |= {"tasks": domain, "levels": [1]} if kind == "miniature" else {"path": "x"}
    one |= {"window": ["2024-08-01", "2025-02-01"]} if kind == "livecodebench" else {}
    name_of = benchmark if kind == "miniature" else kind
    return protocols.of(Params.model_validate(params_of({domain: {name_of: one}}, name)), name_of)


INTEGER = {"id": "q", "kind": "integer", "answer": "25"}
OPTION = {"id": "q", "kind": "option", "answer": "B"}
PROGRAM = {"id": "q", "kind": "program", "func_name": ""}
SOUND = {q["kind"]: rules("sound", "miniature", f"mini-{d}") for q, d in (
    (INTEGER, "math"), (OPTION, "science"), (PROGRAM, "code"))}  # fmt: skip


def response(text, finish="stop", sample=0):
    return {"text": text, "finish": finish, "sample": sample}


@pytest.mark.parametrize(
    ("text", "finish", "question", "expected"),
    [
        ("why</think>\\boxed{25}", "stop", INTEGER, ("correct", "25")),
        ("why</think>\\boxed{025}", "stop", INTEGER, ("correct", "25")),
        ("why</think>\\boxed{26}", "stop", INTEGER, ("wrong", "26")),
        ("why</think>\\boxed{25.01}", "stop", INTEGER, ("wrong", None)),
        ("why</think>It is 25.", "stop", INTEGER, ("no_answer", None)),
        ("why</think>", "stop", INTEGER, ("no_answer", None)),
        ("so \\boxed{25}", "stop", INTEGER, ("no_answer", None)),
        ("so \\boxed{25}</think>It is done.", "stop", INTEGER, ("no_answer", None)),
        ("so \\boxed{26}</think>\\boxed{25}", "stop", INTEGER, ("correct", "25")),
        ("a</think>\\boxed{26}</think>\\boxed{25}", "stop", INTEGER, ("correct", "25")),
        ("why</think>\\boxed{25}", "length", INTEGER, ("truncated", None)),
        ("why, why, why", "length", INTEGER, ("truncated", None)),
        ("why</think>\\boxed{B}", "stop", OPTION, ("correct", "B")),
        ("why</think>Answer: C", "stop", OPTION, ("wrong", "C")),
        ("why</think>Vitamin B", "stop", OPTION, ("no_answer", None)),
        ("why</think>no code", "stop", PROGRAM, ("no_answer", None)),
    ],
)
def test_every_response_has_exactly_one_outcome(text, finish, question, expected):
    found = grade.outcome(response(text, finish), question, SOUND[question["kind"]])
    assert found == expected
    assert found[0] in grade.OUTCOMES


GPQA = {"id": "rec1", "kind": "option", "options": ["right", "w1", "w2", "w3"], "answer": "0"}


@pytest.mark.parametrize("name", ["sound", "released"])
@pytest.mark.parametrize("sample", range(8))
def test_a_letter_becomes_the_id_of_the_option_that_it_stood_for(name, sample):
    protocol = rules(name, "gpqa")
    shown = protocols.order(protocol, GPQA, sample)
    for letter, option in zip("ABCD", shown, strict=True):
        found = grade.outcome(response(f"hm</think>\\boxed{{{letter}}}", sample=sample), GPQA, protocol)
        assert found == ("correct" if option == 0 else "wrong", str(option))


@pytest.mark.parametrize(
    ("text", "finish", "letter"),
    [
        ("\\boxed{B}. This is a consequence.", "stop", "A"), ("Answer: C, as vitamin D does", "stop", "D"),
        ("I think of B and", "length", "B"), ("\\boxed{C}", "stop", "C"), ("nothing", "stop", None),
        ("nothing", "length", None),
    ],
)  # fmt: skip
def test_the_released_rule_of_gpqa_takes_the_last_bare_letter_of_the_whole_text(text, finish, letter):
    protocol = rules("released", "gpqa")
    if letter is None:
        expected = ("truncated" if finish == "length" else "no_answer", None)
    else:
        option = protocols.order(protocol, GPQA, 0)["ABCD".index(letter)]
        wrong = "truncated" if finish == "length" else "wrong"
        expected = ("correct" if option == 0 else wrong, str(option))
    assert grade.outcome(response(text, finish), GPQA, protocol) == expected


@pytest.fixture(scope="module")
def verifier():
    with Verifier(1, seconds=3) as running:
        yield running


def aime(answer):
    return {"id": "q", "kind": "integer", "answer": answer}


@pytest.mark.parametrize(
    ("text", "finish", "answer", "expected"),
    [  # measured on the released grader, or stated by its description (docs/evaluation.md §4.1)
        ("\\boxed{5}", "stop", "500", ("correct", "5")), ("\\boxed{50000}", "stop", "500", ("correct", "50000")),
        ("\\boxed{2}", "stop", "200", ("correct", "2")), ("\\boxed{1}", "stop", "100", ("correct", "1")),
        ("\\boxed{0.07}", "stop", "7", ("correct", "0.07")), ("\\boxed{204.01}", "stop", "204", ("correct", "204.01")),
        ("\\boxed{204.03}", "stop", "204", ("wrong", "204.03")), ("\\boxed{025}", "stop", "25", ("correct", "25")),
        ("so x = 17 and then 33", "length", "33", ("correct", "33")),
        ("so x = 17 and then 33", "length", "17", ("truncated", "33")),
        ("\\boxed{204} is correct, I boxed it.", "stop", "204", ("wrong", "it")),
        ("<think>\\boxed{7}</think> The answer: 12", "stop", "7", ("correct", "7")),
        ("The answer is 12.", "stop", "12", ("correct", "12")), ("so 答案是 12", "stop", "12", ("correct", "12")),
        ("final answer is $12$. I hope it is correct", "stop", "12", ("correct", "12")),
        ("\\boxed{x = 12}", "stop", "12", ("correct", "12")), ("\\boxed{\\$12}", "stop", "12", ("correct", "12")),
        ("\\boxed{12^\\circ}", "stop", "12", ("correct", "12")), ("\\boxed{(12)}", "stop", "12", ("correct", "(12)")),
        ("\\boxed{12\\text{ cm}}", "stop", "12", ("correct", "12")),
        ("\\boxed{twelve}", "stop", "12", ("correct", "12")),
        ("\\boxed{1,204}", "stop", "204", ("wrong", "1,204")), ("no number", "stop", "12", ("no_answer", None)),
        ("no number", "length", "12", ("truncated", None)), ("\\boxed{12", "stop", "12", ("correct", "12")),
        ("\\boxed{\\frac{408}{2}}", "stop", "204", ("correct", "\\frac{408}{2}")),
        ("\\boxed{\\frac{409}{2}}", "stop", "204", ("wrong", "\\frac{409}{2}")),
        ("\\boxed{m+n=204}", "stop", "204", ("correct", "204")),
        ("\\boxed{9^{9^{9^9}}}", "stop", "204", ("timeout", "9^{9^{9^9}}")),
    ],
)  # fmt: skip
def test_the_released_rule_of_aime_with_its_faults(verifier, text, finish, answer, expected):
    assert grade.outcome(response(text, finish), aime(answer), rules("released", "aime"), None, verifier) == expected


def test_a_comparison_that_dies_is_a_grader_error_and_the_next_one_works():
    with Verifier(1, seconds=5, memory_mb=2048) as verifier:
        verifier.compare("1", "$1$")
        (child,) = [verifier.idle.get()]
        child.process.kill()
        child.process.wait()
        verifier.idle.put(child)
        protocol = rules("released", "aime")
        found = [
            grade.outcome(response("\\boxed{\\frac{8}{2}}"), aime("4"), protocol, None, verifier)[0] for _ in range(2)
        ]
    assert found == ["grader_error", "correct"]


@pytest.fixture(scope="module")
def runner():
    with Runner(Sandbox(cpu_seconds=1, memory_mb=512, semantics="real", isolation="auto")) as running:
        yield running


TESTS = [{"input": "1\n", "output": "2"}, {"input": "5\n", "output": "6\n"}]
STDIN = {"kind": "program", "func_name": "", "tests": TESTS}


@pytest.mark.parametrize(
    ("code", "expected"),
    [("print(int(input()) + 1)", "correct"), ("print(2)", "wrong"), ("while True: pass", "timeout")],
)
def test_a_program_is_judged_by_its_tests(runner, code, expected):
    text = f"why</think>Here:\n```python\n{code}\n```"
    assert grade.outcome(response(text), STDIN, SOUND["program"], runner) == (expected, code)


def test_the_sound_rule_reads_code_after_the_thinking_and_the_released_one_reads_everything(runner):
    text = "```python\nprint(int(input()) + 1)\n```\nSo:"
    question = STDIN | {"id": "q"}
    assert grade.outcome(response(f"{text}</think>Done."), question, SOUND["program"], runner)[0] == "no_answer"
    released = rules("released", "livecodebench")
    assert grade.outcome(response(f"{text}</think>Done."), question, released, runner)[0] == "correct"
    assert grade.outcome(response(text, "length"), question, SOUND["program"], runner)[0] == "truncated"
    assert grade.outcome(response(text, "length"), question, released, runner)[0] == "correct"
    assert grade.outcome(response(text.replace("+", "-"), "length"), question, released, runner)[0] == "truncated"


@pytest.mark.parametrize(("protocol", "found"), [
    (SOUND["program"], "```\nx\n```"), (rules("released", "aime"), "\\boxed{\\frac{8}{2}}"),
])  # fmt: skip
def test_a_grader_without_its_tool_is_a_defect_and_no_outcome(protocol, found):
    with pytest.raises(ValueError, match="Runner|Verifier"):
        grade.outcome(response(f"</think>{found}"), STDIN | {"answer": "1"}, protocol)
