"""Texts without think tags are answers, unclosed reasoning is none, and one-sided outcomes are told with a reason."""

import json
import re

import pandas as pd
import pytest
from served import MODEL, Served, completion
from test_command import AIME, evaluate, home
from test_grade import GPQA, INTEGER, SOUND, response, rules

from tinyr1.core import prompts
from tinyr1.evaluate import notices
from tinyr1.evaluate.grading import grade, selftest

__all__ = ["home"]  # a fixture of test_command


@pytest.mark.parametrize(
    ("text", "opened", "expected"),
    [
        ("so 5", False, ("so 5", False)), ("so 5", True, (None, True)), ("  ", False, (None, False)),
        ("<think>so 5", False, (None, True)), ("so <think> 5", False, (None, True)),
        ("why</think> 5", False, ("5", False)), ("why</think> 5", True, ("5", False)),
        ("<think>why</think> 5 </think>\n", False, ("5", False)), ("why</think>", True, (None, False)),
    ],
)  # fmt: skip
def test_the_answer_is_the_whole_text_where_nothing_opened_a_reasoning(text, opened, expected):
    assert prompts.final_answer(text, opened) == expected


@pytest.mark.parametrize(
    ("text", "finish", "opened", "expected"),
    [
        ("so \\boxed{25}", "unknown", False, ("correct", "25")), ("so \\boxed{25}", "stop", False, ("correct", "25")),
        ("so \\boxed{25}", "length", False, ("truncated", None)), ("so 25", "stop", False, ("no_answer", None)),
        ("<think>so \\boxed{25}", "unknown", False, ("truncated", None)),
        ("<think>so \\boxed{25}", "stop", False, ("truncated", None)),
        ("so \\boxed{25}", "unknown", True, ("truncated", None)),
        ("so \\boxed{25}", "stop", True, ("no_answer", None)),  # our own engine knows that nothing was cut off
        ("<think>a</think>\\boxed{25}</think>", "stop", False, ("correct", "25")),
    ],
)  # fmt: skip
def test_unclosed_reasoning_is_a_truncated_answer(text, finish, opened, expected):
    assert grade.outcome(response(text, finish) | {"opened": opened}, INTEGER, SOUND["integer"]) == expected


def told(home, *rows):
    """Outcome by question of the rows (id and text) of a file of answers."""
    path = home / "answers.jsonl"
    path.write_text("".join(json.dumps({"id": f"q{i}", "response": text}) + "\n" for i, text in rows))
    evaluate(home, "--model", "other/tool", "--responses", str(path), "--samples", "1")
    graded = [json.loads(line) for line in (home / "out" / "graded.jsonl").read_text().splitlines()]
    return {line["question"]: line["outcome"] for line in graded}


def test_answers_of_a_file_need_no_think_tags(home, capsys):
    outcomes = told(home, *((i, f"It is \\boxed{{{2 * i}}}.") for i in range(1, 4)))
    assert outcomes == {"q1": "correct", "q2": "correct", "q3": "correct"}
    shown = capsys.readouterr().out
    assert "second opinion: Math-Verify disagrees on 0 of 3 integer answers and has no verdict on 0" in shown
    assert "answers are" not in shown
    facts = json.loads((home / "out" / "evaluation.json").read_text())
    assert facts["second_opinion"] == [], "the second opinion reads the same text as the grader"
    assert facts["notices"] == []


def test_a_file_in_which_prompts_opened_the_tag_has_unclosed_reasoning_where_no_tag_is(home):
    outcomes = told(home, (1, "why</think>\\boxed{2}"), (2, "I try \\boxed{4}, or"), (3, "<think>I try \\boxed{6}, or"))
    assert outcomes == {"q1": "correct", "q2": "truncated", "q3": "truncated"}


def test_a_server_that_keeps_the_reasoning_to_itself_gets_its_score(home, capsys):
    def says(prompt, times):
        number = int(prompt.split()[2])
        if number == 1:
            return completion(None, reasoning_content="I try \\boxed{2}, or")
        return completion(f"It is \\boxed{{{2 * number}}}.")

    with Served(says=says) as server:
        evaluate(home, "--model", MODEL, "--endpoint", server.url, "--samples", "1", "--max-tokens", "64")
    facts = json.loads((home / "out" / "evaluation.json").read_text())
    assert {o["outcome"]: o["samples"] for o in facts["outcomes"]} == {"correct": len(AIME) - 1, "truncated": 1}


def test_an_outcome_that_nearly_all_answers_have_is_told_with_its_reason(home, capsys):
    told(home, *((i, f"It is {2 * i}.") for i in range(1, 9)))
    sentence = (
        "aime24, tool: 8 of 8 answers are no_answer: 8 of them hold no answer in the form that the prompt asks for; "
        "examples.txt shows one"
    )
    assert f"\n{sentence}\n" in capsys.readouterr().out
    assert json.loads((home / "out" / "evaluation.json").read_text())["notices"] == [sentence]


def graded(*rows, model="m", benchmark="b"):
    table = pd.DataFrame(rows, columns=["outcome", "text", "final"])
    reason = table["text"].where(table["text"] == "unreadable")
    return table.assign(model=model, benchmark=benchmark, reason=reason)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("no_answer", "why \\boxed{5}", "")] * 10, "10 of them never close the think tag that the prompt opened"),
        ([("no_answer", "why</think>", "")] * 9 + [("wrong", "", "x")], "9 of them have nothing behind"),
        ([("no_answer", "x", "x")] * 4 + [("no_answer", "why", "")] * 6, "6 of them never close .*; 4 of them hold no"),
        ([("truncated", "", "")] * 9 + [("correct", "", "")], "9 of 10 answers are truncated: .*raise max_tokens"),
        ([("wrong", "unreadable", "")] * 9 + [("wrong", "", "")], "9 of 10 answers are unreadable: their boxes hold"),
        ([("timeout", "", "")] * 10, "cpu_seconds"), ([("grader_error", "", "")] * 10, "the questions failed"),
        ([("no_answer", "x", "x")] * 8 + [("wrong", "", "")] * 2, None), ([("wrong", "", "")] * 10, None),
        ([("no_answer", "x", "x")] * 5 + [("truncated", "", "")] * 5, None),
    ],
)  # fmt: skip
def test_the_reason_fits_the_texts(rows, reason):
    found = notices.one_sided(graded(*rows))
    assert len(found) == (reason is not None)
    if reason:
        assert re.search(reason, found[0])


def test_each_model_and_benchmark_is_looked_at_by_itself():
    cut, right = [("truncated", "", "")] * 10, [("correct", "", "")] * 10
    table = pd.concat([graded(*cut, model="a"), graded(*right, model="a", benchmark="c"), graded(*right, model="b")])
    assert [sentence.partition(":")[0] for sentence in notices.one_sided(table)] == ["b, a"]


@pytest.mark.parametrize("kind", ["aime", "gpqa"])
def test_the_self_test_finds_a_grader_that_needs_a_closing_tag_or_reads_the_reasoning(monkeypatch, kind):
    question = INTEGER if kind == "aime" else GPQA
    assert selftest.run_self_test(rules("sound", kind), [question])
    for broken, said in (
        (lambda text, opened: (prompts.split_reasoning(text)[1], False), "without reasoning: no_answer"),
        (lambda text, opened: (text, False), "inside a reasoning without an end: correct"),
    ):
        monkeypatch.setattr(grade, "final_answer", broken)
        with pytest.raises(selftest.UserError, match=said):
            selftest.run_self_test(rules("sound", kind), [question])
