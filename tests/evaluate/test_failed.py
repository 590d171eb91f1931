"""Generations that failed are shown, are asked again, spoil no other benchmark, and count as wrong only on request."""

import json
import re

import pandas as pd
import pytest
from served import MODEL, Served, completion
from test_command import AIME, answers, evaluate, home

from tinyr1.core.errors import UserError
from tinyr1.evaluate import notices, scores

__all__ = ["home"]  # a fixture of test_command

TOO_LONG = {"status": 400, "error": {"message": "This model's maximum context length is 9 tokens, yours has 12."}}


def numbered(replies):
    """A server's `says`: right answers, but for the questions in `replies`."""

    def says(prompt, times):
        number = int(prompt.split()[2])
        return json.loads(json.dumps(replies.get(number))) or completion(f"It is \\boxed{{{2 * number}}}.")

    return says


def outcomes(home):
    facts = json.loads((home / "out" / "evaluation.json").read_text())
    return {o["outcome"]: o["samples"] for o in facts["outcomes"]}


def test_a_benchmark_with_failures_has_no_score_until_they_are_answered_or_count_as_wrong(home, capsys):
    replies = {1: TOO_LONG, 2: completion("so", "content_filter"), 3: completion("so far", "abort")}
    with Served(says=numbered(replies)) as server:
        words = ("--model", MODEL, "--endpoint", server.url, "--samples", "1", "--max-tokens", "64")
        first = (
            r"aime24, parrot: 3 of 8 generations failed, so it has no score; with --failed-as-wrong they count as "
            r"wrong, and without it the same command asks for them again \(.*1 x HTTP 400, too long for the"
        )
        with pytest.raises(UserError, match=first):
            evaluate(home, *words)
        asked = server.asked.copy()
        assert (home / "out" / "scores.csv").read_text().splitlines()[1:] == []
        assert outcomes(home) == {"correct": 5, "failed": 3}
        assert re.search(r"correct +failed\s+benchmark\s+aime24 +5 +3", capsys.readouterr().out)
        graded = [json.loads(line) for line in (home / "out" / "graded.jsonl").read_text().splitlines()]
        assert [line["text"] for line in graded if line["question"] == "q3"] == ["so far"], "what came is kept"
        assert "maximum context length" in (home / "out" / "examples.txt").read_text()

        evaluate(home, *words, "--failed-as-wrong")
        assert server.asked == asked, "what counts as wrong is not asked again"
        shown = capsys.readouterr().out
        assert "62.5" in shown, "5 of 8"
        assert "3 of 8 generations failed, they count as wrong; without --failed-as-wrong the same command" in shown
        assert "failed, %" in shown

        server.says = numbered({})
        evaluate(home, *words)
        assert {int(p.split()[2]): n for p, n in (server.asked - asked).items()} == {1: 1, 2: 1, 3: 1}
    assert "100.0" in capsys.readouterr().out
    assert outcomes(home) == {"correct": 8}


@pytest.mark.parametrize("status", [401, 404])
def test_a_refusal_that_meets_every_question_ends_the_command_in_one_sentence(home, status):
    with Served(lambda n: str(status)) as server, pytest.raises(UserError) as error:
        evaluate(home, "--model", MODEL, "--endpoint", server.url, "--samples", "1", "--max-tokens", "64",
                 "--failed-as-wrong")  # fmt: skip
    assert f"the server takes no request to parrot: HTTP {status}: fault {status}; check" in str(error.value)
    assert not (home / "out" / "scores.csv").exists(), "questions that nobody was asked are not wrong"


def test_the_longest_answer_has_the_name_that_the_command_says(home):
    refusal = "Unsupported parameter: 'max_tokens' is not supported with this model."
    says = numbered({n: {"status": 400, "error": {"message": refusal, "param": "max_tokens"}} for n in range(1, 9)})
    with Served(says=says) as server:
        words = ("--model", MODEL, "--endpoint", server.url, "--samples", "1", "--max-tokens", "64")
        with pytest.raises(UserError, match="set engine.max_tokens_name: max_completion_tokens"):
            evaluate(home, *words)
        server.says = numbered({})
        evaluate(home, *words, "--max-tokens-name", "max_completion_tokens")
    assert server.bodies[-1]["max_completion_tokens"] == 64


def test_failures_in_the_answers_of_another_tool_are_no_answers(home):
    rows = [{"id": r["id"], "response": f"\\boxed{{{r['answer']}}}", "finish_reason": "stop"} for r in AIME]
    rows[2] |= {"finish_reason": "abort"}
    path = home / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("--model", "other/tool", "--responses", str(path), "--samples", "1")
    with pytest.raises(UserError, match=r"1 of 8 generations failed, so it has no score; with .*reason is 'abort'"):
        evaluate(home, *words)
    evaluate(home, *words, "--failed-as-wrong")
    assert outcomes(home) == {"correct": 7, "failed": 1}


def test_an_evaluation_without_a_score_is_not_compared(home):
    words = answers(home, "first", 3)
    path = home / "first.jsonl"
    path.write_text(path.read_text().replace('"q1"', '"q1", "finish": "error"'))
    with pytest.raises(UserError, match="so it has no score"):
        evaluate(home, *words)
    with pytest.raises(UserError, match=r"--against: generations of .*first failed, so it has no score"):
        evaluate(home, *answers(home, "second", 3), "--against", str(home / "first"))


def graded(*rows):
    table = pd.DataFrame(rows, columns=["model", "benchmark", "outcome", "n_tokens", "reason"])
    return table.assign(question=range(len(table)), looping=False, text="", final="x", sample=0, extracted=None)


def test_one_failure_takes_the_score_of_its_own_model_and_benchmark_only():
    rows = graded(*((m, b, "correct", 5, None) for m in "mn" for b in "xy"), ("m", "x", "failed", None, "why"))
    left = scores.scored(rows, None)
    assert {*zip(left["model"], left["benchmark"], strict=True)} == {("m", "y"), ("n", "x"), ("n", "y")}
    assert scores.scored(rows, "wrong").equals(rows)
    assert scores.scored(rows[:0], None).empty
    table = scores.interval_table(pd.concat([rows, rows.assign(question=range(5, 10))]), {"x": [], "y": []}, {})
    assert table["failed, %"].to_dict() == {("m", "x"): "50.0", ("m", "y"): "", ("n", "x"): "", ("n", "y"): ""}


def test_reasons_that_differ_in_their_numbers_are_one_reason():
    rows = graded(*(("m", "b", "failed", None, f"HTTP 400: {n} tokens are too many") for n in range(5)),
                  *(("m", "b", "failed", None, letter) for letter in "aabbcd"))  # fmt: skip
    (sentence,) = notices.failures(rows, counted=False)
    assert sentence.startswith("b, m: 11 of 11 generations failed, so it has no score; ")
    assert sentence.endswith("(5 x HTTP 400: 4 tokens are too many; 2 x a; 2 x b; 2 other reasons)")
    assert notices.one_sided(rows) == [], "they are told once"
    assert notices.failures(graded(("m", "b", "wrong", 5, None)), counted=True) == []


def test_answers_that_the_server_did_not_count_are_told():
    rows = graded(("m", "b", "wrong", 5, None), ("m", "b", "wrong", None, None), ("m", "b", "failed", None, "why"))
    (sentence,) = notices.uncounted(rows)
    assert sentence.startswith("b, m: the server did not say how many tokens 1 of 2 answers have")
    assert notices.uncounted(rows[:1]) == notices.uncounted(rows[1:]) == []
