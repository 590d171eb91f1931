"""Benchmarks of one's own through the command, from files in the shapes of published ones to scores."""

import json

import pandas as pd
import pytest
import yaml
from test_grade import params_of

from tinyr1.core import config
from tinyr1.core.errors import UserError
from tinyr1.core.params.schema import Params
from tinyr1.evaluate import __main__ as command
from tinyr1.evaluate import protocol as protocols
from tinyr1.evaluate import scores
from tinyr1.evaluate.grading import options

MATH = [
    {"question": "Ada has 3 boxes of 8 pens. How many pens?", "answer": "3*8=<<3*8=24>>24 pens.\n#### 24"},
    {"question": "Find $1/4+1/4$.", "answer": "\\frac{1}{2}"},
    {"question": "Solve $x^2=1$.", "answer": "\\{-1, 1\\}"},
    {"question": "Who won?", "answer": "\\text{Mia}"},
]
RIGHT = ["24\\text{ pens}", "0.5", "\\pm 1", "Mia"]
CHOICE = [
    {"id": "two", "question": "Is ice cold?", "choices": ["no", "yes"], "answer": 1},
    {"id": "five", "question": "Which is 2?", "choices": ["5", "4", "3", "2", "1"], "answer": 3},
    {"id": "twelve", "question": "Which is the last?", "choices": [f"number {i}" for i in range(12)], "answer": 11},
]
SHAPED = [
    {"Record ID": f"rec{i}", "Question": f"Which is {i}?", "Correct Answer": f"{i}",
     **{f"Incorrect Answer {n}": f"{i + n}" for n in range(1, wrong + 1)}} for i, wrong in enumerate((1, 2, 6))
]  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYR1_HOME", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "quiz.jsonl", MATH)
    write(tmp_path / "exam.jsonl", CHOICE)
    return tmp_path


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def evaluate(home, *words):
    parsed = command.command_parser().parse_args(["--model", "the/tool", "--out", str(home / "out"), *words])
    command.evaluate_models(parsed)
    facts = json.loads((home / "out" / "evaluation.json").read_text())
    return facts, pd.read_csv(home / "out" / "scores.csv"), (home / "out" / "graded.jsonl").read_text()


def test_a_file_of_mathematical_questions_is_graded_to_scores(home, capsys):
    rows = [{"id": f"quiz-{i}", "response": f"<think>x</think>So \\boxed{{{said}}}."} for i, said in enumerate(RIGHT,
     1)]
    rows[2]["response"] = "<think>\\boxed{\\pm 1}</think>\\boxed{1}"
    write(home / "said.jsonl", rows)
    facts, table, graded = evaluate(home, "--benchmarks", "math:quiz.jsonl", "--responses", "said.jsonl")
    outcomes = [json.loads(line)["outcome"] for line in graded.splitlines()]
    assert outcomes == ["correct", "correct", "wrong", "correct"]
    assert table[["benchmark", "n_problems", "n_samples", "pass_at_1", "chance"]].to_numpy().tolist() == [
        ["quiz", 4, 1, 0.75, 0.0]]  # fmt: skip
    (source,) = facts["sources"]
    assert (source["rows"], source["questions"], len(source["sha256"])) == (4, 4, 64)
    assert source["columns"] == {"question": "question", "context": None, "answer": "answer", "id": None}
    shown = capsys.readouterr().out
    assert "quiz: Math-Verify cannot read 1 of the reference answers; a word or text is right where" in shown
    assert "second opinion: Math-Verify disagrees on" in shown
    assert "mathematical answers" in shown
    assert "published numbers" not in shown
    assert "Find $1/4+1/4$.\nPlease reason step by step, and put your final answer within" in shown.replace(
        "Ada has 3 boxes of 8 pens. How many pens?", "Find $1/4+1/4$.")  # fmt: skip


def test_a_file_of_questions_with_options_is_graded_to_scores(home, capsys):
    said = {"two": "\\boxed{B}", "five": "**Answer: D**", "twelve": "\\boxed{\\text{(L) number 11}}"}
    write(home / "said.jsonl", [{"id": name, "response": f"x</think>{text}"} for name, text in said.items()])
    facts, table, graded = evaluate(home, "--benchmarks", "mine=choice:exam.jsonl", "--responses", "said.jsonl")
    assert [json.loads(line)["extracted"] for line in graded.splitlines()] == ["3", "11", "1"]
    (row,) = table.to_dict("records")
    assert (row["benchmark"], row["pass_at_1"]) == ("mine", 1.0)
    assert row["chance"] == pytest.approx((1 / 2 + 1 / 5 + 1 / 12) / 3, abs=1e-6)
    assert "A) no\nB) yes\nPlease reason step by step, and put the letter within \\boxed{}." in capsys.readouterr().out
    assert "right: 2" in (home / "out" / "examples.txt").read_text()
    doc = json.loads((home / "out" / "tool" / "samples_mine.jsonl").read_text().splitlines()[0])["doc"]
    assert doc["options"] == ["no", "yes"]


def test_own_columns_and_instruction_are_given_by_option(home, capsys):
    write(home / "frage.jsonl", [{"Frage": f"{i}+1?", "Wert": i + 1} for i in range(3)])
    write(home / "said.jsonl", [{"id": f"frage-{i}", "response": f"x</think>\\boxed{{{i}}}"} for i in (1, 2, 3)])
    words = ["--benchmarks", "math:frage.jsonl", "--columns", "frage={question: Frage, answer: Wert}", "--responses",
             "said.jsonl", "--instruction", "frage=Rechne, $ zuletzt \\boxed{}."]  # fmt: skip
    _, table, _ = evaluate(home, *words)
    assert table["pass_at_1"].tolist() == [1.0]
    assert "0+1?\nRechne, $ zuletzt \\boxed{}." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--benchmarks", "maths:quiz.jsonl"], "a file of your own is math:FILE or choice:FILE"),
        (["--benchmarks", "math:quiz.jsonl,math:quiz.jsonl"],
         "the name 'quiz' is taken; give another, as in quiz=math:"),
        (["--benchmarks", "aime24=math:quiz.jsonl"], "the name 'aime24' is taken"),
        (["--benchmarks", "math:quiz.jsonl", "--protocol", "released"], "knows aime, gpqa and livecodebench only"),
        (["--benchmarks", "math:absent.jsonl"], "absent.jsonl does not exist"),
        (["--benchmarks", "math:quiz.jsonl", "--columns", "quiz={question: Frage}"], "there is no column 'Frage'"),
        (["--benchmarks", "math:quiz.jsonl", "--columns", "quiz={frage: x}"], "frage"),
        (["--benchmarks", "math:quiz.jsonl", "--columns", "quiz=[a]"], "--columns: expected a mapping"),
        (["--benchmarks", "aime24", "--columns", "aime24={id: x}"], "must be a benchmark from a file of your own"),
        (["--benchmarks", "math:quiz.jsonl", "--instruction", "quiz= "], "instruction"),
        (["--benchmarks", "Quiz No 1=math:quiz.jsonl"], "is not a name"),
        (["--benchmarks", "choice:quiz.jsonl"], "no column has a usual name of options"),
    ],
)  # fmt: skip
def test_what_the_command_cannot_mean_is_refused_before_anything_is_asked(home, words, message):
    write(home / "said.jsonl", [{"id": "quiz-1", "response": "\\boxed{24}"}])
    with pytest.raises(UserError, match=message):
        evaluate(home, *words, "--responses", "said.jsonl")


def test_a_params_file_without_a_like_benchmark_is_named(home, monkeypatch):
    only = {"kind": "math", "path": "x", "questions": None, "samples": 1, "max_tokens": 9}
    params = params_of({"math": {"only": only}})
    (home / "bare.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.setenv("TINYR1_PARAMS", str(home))
    with pytest.raises(UserError, match="no benchmark that is answered alike"):
        evaluate(home, "--run", "bare", "--benchmarks", "choice:exam.jsonl", "--responses", "said.jsonl")


# --- protocol -------------------------------------------------------------------------------------------------


def rules_of(kind, name="sound", **more):
    block = {"kind": kind, "path": "x", "questions": None, "samples": 8, "max_tokens": 9} | more
    return protocols.of(Params.model_validate(params_of({"science": {"own": block}}, name)), "own")


def test_the_instruction_is_the_domains_unless_the_benchmark_has_its_own():
    domain = config.load("smoke").params.domains["science"]
    assert rules_of("math").prompt.endswith(f"\n{domain.instruction}")
    assert rules_of("choice").prompt.endswith(f"\n{domain.instruction_with_options}")
    assert rules_of("choice", instruction="Say $x.").prompt == "${question}\n${options}\nSay $$x."


@pytest.mark.parametrize("kind", ["math", "choice"])
def test_the_released_protocol_refuses_questions_of_ones_own(kind):
    with pytest.raises(ValueError, match="the released protocol knows aime, gpqa and livecodebench only"):
        rules_of(kind, "released")


@pytest.mark.parametrize("n", [2, 3, 7, 26])
def test_each_block_of_n_samples_shows_every_option_at_every_letter_once(n):
    question = {"id": "q", "kind": "option", "options": [f"o{i}" for i in range(n)], "answer": "0"}
    shown = [protocols.order(rules_of("choice"), question, sample) for sample in range(2 * n)]
    assert all(sorted(block[letter] for block in shown[:n]) == list(range(n)) for letter in range(n))
    assert protocols.order(rules_of("choice"), question | {"fixed": True}, 5) == tuple(range(n))
    assert scores.chance(question) == 1 / n


@pytest.mark.parametrize(
    ("text", "n", "letter"),
    [
        ("\\boxed{J}", 10, "J"), ("\\boxed{J}", 9, None), ("Answer: E", 5, "E"), ("Answer: E", 4, None),
        ("The answer is (H).", 10, "H"), ("\\boxed{\\text{G) heat}}", 8, "G"), ("\\boxed{E or F}", 10, None),
        ("**Answer: I**", 9, "I"), ("The answer is I think", 26, None), ("Answer: F or G", 8, None), ("\\boxed{C}", 2,
         None),
        ("\\boxed{F = ma}", 10, None), ("\\boxed{Z: last}", 26, "Z"), ("Hence F is correct.", 6, "F"),
        ("The answer is E. But E is hot.", 5, None), ("\\boxed{K}. Answer: B", 4, "B"),
    ],
)  # fmt: skip
def test_letters_are_read_as_far_as_a_question_has_options(text, n, letter):
    assert options.option(text, n) == letter
