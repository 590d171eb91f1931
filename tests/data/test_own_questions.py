"""Files of one's own: the shapes in which questions are published, and what is refused, with the number of its row."""

import copy
import csv
import json

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from pydantic import TypeAdapter
from test_readers import ANYTHING

from tinyr1.core.errors import UserError
from tinyr1.core.params.domains import Benchmark
from tinyr1.data import benchmarks, own_questions
from tinyr1.data.answers import LETTERS

SPEC = TypeAdapter(Benchmark)

# A few rows in the shape of each dataset, written for this test.
GSM8K = [
    {"question": "Ada has 3 boxes of 8 pens. How many pens?", "answer": "3*8=<<3*8=24>>24 pens.\n#### 24"},
    {"question": "A hall seats 1,200. Half are free. How many?", "answer": "1200/2=600\n#### 600"},
    {"question": "What do 4 cars at $250,000 cost?", "answer": "4*250000\n#### 1,000,000"},
]
MATH_500 = [
    {"problem": "Find $1/4+1/4$.", "solution": "It is $\\boxed{\\frac{1}{2}}$.", "answer": "\\frac{1}{2}",
     "subject": "Prealgebra", "level": 1, "unique_id": "test/prealgebra/1.json"},
    {"problem": "Who won?", "solution": "$\\boxed{\\text{Mia}}$", "answer": "\\text{Mia}", "subject": "Logic",
     "level": 2, "unique_id": "test/logic/2.json"},
]  # fmt: skip
MMLU = [
    {"question": "Which is a gas?", "subject": "x", "choices": ["iron", "neon", "salt", "clay"], "answer": 1},
    {"question": "Which is 2?", "subject": "x", "choices": ["4", "3", "2", "1"], "answer": 2},
]
ARC = [
    {"id": "M1", "question": "What melts?", "choices": {"text": ["ice", "air", "fire"], "label": ["A", "B", "C"]},
     "answerKey": "A"},
    {"id": "M2", "question": "What flows?", "choices": {"text": ["rock", "sand", "tar", "water"],
                                                      "label": ["1", "2", "3", "4"]}, "answerKey": "4"},
]  # fmt: skip
GPQA = [
    {"Record ID": f"rec{i}", "Question": f"Which is {i}?", "Correct Answer": f"{i}", "Incorrect Answer 1": f"{i + 1}",
     "Incorrect Answer 2": f"{i + 2}", "Incorrect Answer 3": f"{i + 3}", "High-level domain": "Physics"}
    for i in range(3)
]  # fmt: skip


def write(path, rows):
    """The rows in the format that the name asks for; values of other types become JSON in the text formats."""
    name = path.name
    if name.endswith(".parquet"):
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif name.endswith((".csv", ".tsv")):
        with path.open("w", newline="", encoding="utf-8") as file:
            out = csv.DictWriter(file, list(rows[0]), delimiter="\t" if name.endswith(".tsv") else ",")
            out.writeheader()
            out.writerows([{k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows])
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def load_all(kind, path, **more):
    given = {"kind": kind, "path": str(path), "questions": None, "samples": 1, "max_tokens": 9} | more
    return benchmarks.load_benchmark("quiz", "math", SPEC.validate_python(given), "test", 0)


def load(kind, path, **more):
    return load_all(kind, path, **more).questions


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet"])
@pytest.mark.parametrize(
    ("kind", "rows", "expected"),
    [
        ("math", GSM8K, [("a-1", "24"), ("a-2", "600"), ("a-3", "1,000,000")]),
        ("math", MATH_500, [("test/prealgebra/1.json", "\\frac{1}{2}"), ("test/logic/2.json", "\\text{Mia}")]),
        ("choice", MMLU, [("a-1", "neon"), ("a-2", "2")]),
        ("choice", ARC, [("M1", "ice"), ("M2", "water")]),
        ("choice", GPQA, [("rec0", "0"), ("rec1", "1"), ("rec2", "2")]),
    ],
    ids=["gsm8k", "math-500", "mmlu", "arc", "gpqa"],
)
def test_well_known_shapes_need_no_names_in_any_format(tmp_path, ending, kind, rows, expected):
    found = load_all(kind, write(tmp_path / f"a.{ending}", rows))
    right = [q["options"][int(q["answer"])] if kind == "choice" else q["answer"] for q in found.questions]
    assert list(zip([q["id"] for q in found.questions], right, strict=True)) == expected
    assert [q["question"] for q in found.questions] == [
        row.get("question") or row.get("problem") or row["Question"] for row in rows
    ]
    assert {q["kind"] for q in found.questions} == {"expression" if kind == "math" else "option"}
    assert found.record()["rows"] == len(rows)
    assert len(found.record()["sha256"]) == 64


def test_the_record_says_which_columns_were_read(tmp_path):
    found = load_all("choice", write(tmp_path / "a.jsonl", MMLU)).record()["columns"]
    assert found == {"question": "question", "context": None, "options": "choices", "answer": "answer",
                     "answer_as": "index", "id": None}  # fmt: skip


def test_options_of_a_right_and_wrong_column_are_ordered_by_the_protocol_and_others_keep_their_order(tmp_path):
    assert not any("fixed" in q for q in load("choice", write(tmp_path / "a.jsonl", GPQA)))
    assert all(q["fixed"] for q in load("choice", write(tmp_path / "b.jsonl", ARC)))


def test_a_file_with_a_canary_is_private(tmp_path):
    path = write(tmp_path / "a.jsonl", [row | {"Canary String": "gpqa:0"} for row in GPQA])
    assert all(q["private"] for q in load("choice", path))
    assert not any(q["private"] for q in load("choice", write(tmp_path / "b.jsonl", GPQA)))


# --- columns --------------------------------------------------------------------------------------------------

LETTERED = {"question": "Q?", "A": "w", "B": "x", "C": "y", "answer": "B"}


@pytest.mark.parametrize(
    ("kind", "row", "columns", "answer"),
    [
        ("math", {"Aufgabe": "1+1", "Wert": 2}, {"question": "Aufgabe", "answer": "Wert"}, "2"),
        ("math", {"problem": "1+1", "prompt": "x", "answer": 2.0}, {"question": "problem"}, "2"),
        ("math", {"problem": "1+1", "answer": "7", "expected_answer": 2}, {"answer": "expected_answer"}, "2"),
        ("math", {"problem": "1+1", "final_answer": ["2", "3"]}, None, "2, 3"),
        ("math", {"problem": "1+1", "solution": "so \\boxed{\\boxed{\\frac{2}{3}}}."}, None, "\\frac{2}{3}"),
        ("choice", LETTERED, None, "1"), ("choice", LETTERED | {"answer": "(b)."}, None, "1"),
        ("choice", LETTERED | {"answer": "y"}, None, "2"), ("choice", LETTERED | {"answer": 0}, None, "0"),
        ("choice", LETTERED | {"C": ""}, None, "1"),
        ("choice", {"q": "Q?", "opa": "w", "opb": "x", "cop": 1},
         {"question": "q", "options": ["opa", "opb"], "answer": "cop"}, "1"),
        ("choice", {"question": "Q?", "options": {"A": "w", "B": "x", "E": "y"}, "answer": "E"}, None, "2"),
        ("choice", {"question": "Q?", "choices": [{"label": "A", "text": "w"}, {"label": "B", "text": "x"}],
                    "answerKey": "B"}, None, "1"),
        ("choice", {"question": "Q?", "correct_answer": "w", "distractor1": "x", "distractor2": "y"}, None, "0"),
        ("choice", {"question": "Q?", "good": "w", "bad": "x"}, {"right": "good", "wrong": ["bad"]}, "0"),
        ("choice", {"question": "Q?", "options": list(LETTERS.lower()), "answer": "Z"}, {"answer_as": "letter"}, "25"),
        ("choice", {"question": "Q?", "options": [2, 0, 1], "answer": 0}, {"answer_as": "text"}, "1"),
    ],
)  # fmt: skip
def test_columns_of_any_name_are_read(tmp_path, kind, row, columns, answer):
    (question,) = load(kind, write(tmp_path / "a.jsonl", [row]), columns=columns)
    assert question["answer"] == answer


ASKED = [{"role": "user", "content": "Q?"}]


@pytest.mark.parametrize(
    ("row", "columns", "asked"),
    [
        ({"question": "Q?", "answer": "1", "passage": "Once."}, {"context": "passage"}, "Once.\n\nQ?"),
        ({"question": "Q?", "answer": "1", "passage": ""}, {"context": "passage"}, "Q?"),
        ({"question": "Q?", "answer": "1", "passage": "Once."}, {"context": ""}, "Q?"),
        ({"question": "Q?", "answer": "1", "text": "Once."}, {"context": "text"}, "Once.\n\nQ?"),
        ({"prompt": ASKED, "answer": "1"}, None, "Q?"),
    ],
)
def test_a_question_is_asked_with_what_it_is_about(tmp_path, row, columns, asked):
    (question,) = load("math", write(tmp_path / "a.jsonl", [row]), columns=columns)
    assert question["question"] == asked
    choice = LETTERED | {"question": row.get("question", ASKED)}
    choice |= {name: value for name, value in row.items() if name in ("passage", "text")}
    (question,) = load("choice", write(tmp_path / "b.jsonl", [choice]), columns=columns)
    assert question["question"] == asked


MATH_ROW = {"question": "Q?", "answer": "1"}


@pytest.mark.parametrize(
    ("kind", "rows", "columns", "message"),
    [
        ("math", [{"question": "Q", "problem": "P", "answer": "1"}], None,
         "each of the columns question, problem could hold the question; name one of them in `columns`"),
        ("math", [{"task": "Q", "answer": "1"}], None, "no column has a usual name of the question"),
        ("math", [{"task": "Q", "answer": "1"}], None, "the files have task, answer"),
        *(
            (kind, [row | {"Article": "Once."}], None,
             "the questions may be about the column Article; name it as columns.context")
            for kind, row in (("math", {"question": "Q?", "answer": "1"}), ("choice", LETTERED))
        ),
        ("math", [MATH_ROW], {"context": "text"}, "columns.context: there is no column 'text'"),
        ("math", [{"prompt": [*ASKED, *ASKED], "answer": "1"}], None, "prompt is a list, and not of one message"),
        ("math", [MATH_ROW], {"answer": "gold"}, "columns.answer: there is no column 'gold'; the files have question"),
        ("math", [MATH_ROW, MATH_ROW | {"question": " "}], None,
         "1 of 2 rows are no questions.*\na.jsonl:2: question is"),
        ("math", [MATH_ROW | {"answer": None}], None, "a.jsonl:1: answer is empty"),
        ("math", [MATH_ROW | {"answer": "#### "}], None, "a.jsonl:1: answer is empty"),
        ("math", [MATH_ROW | {"answer": "\\frac{1}{2"}], None, "has a brace without its other one"),
        ("math", [MATH_ROW | {"answer": "\\boxed{1"}], None, "answer has a box that is never closed"),
        ("math", [MATH_ROW | {"answer": "First,\n\nthen 7."}], None, "is a worked solution without #### or a box"),
        ("math", [MATH_ROW | {"answer": True}], None, "answer is true or false, not text"),
        ("math", [MATH_ROW | {"id": 1}, MATH_ROW | {"id": "1"}], None,
         "a.jsonl:2: its id '1' is that of a.jsonl:1, too"),
        ("math", [MATH_ROW | {"id": 1}, MATH_ROW], None, "a.jsonl:2: id is empty"),
        ("math", [], None, "holds no question; it has 0 rows"),
        ("choice", [MATH_ROW], None, "no column has a usual name of options"),
        ("choice", [LETTERED | {"options": ["a", "b"]}], None,
         "the options could be in several of the columns options, A"),
        ("choice", [LETTERED | {"C": "x"}], None, "two of its options are 'x'"),
        ("choice", [LETTERED | {"B": ""}], None, "B is empty and a later option is not"),
        ("choice", [LETTERED | {"B": "", "C": ""}], None, "it has 1 options, and 2 to 26 can be shown"),
        ("choice", [LETTERED | {"answer": "D"}], None, "answer 'D' is not the letter or label of one of its 3 options"),
        ("choice", [LETTERED | {"answer": 3}], {"answer_as": "index"},
         "'3' is not the index, counted from 0, of one of its"),
        ("choice", [LETTERED | {"answer": ""}], None, "answer is empty"),
        ("choice", [LETTERED | {"A": "1", "B": "0", "answer": "1"}], None, "say which in columns.answer_as"),
        ("choice", [LETTERED, LETTERED | {"answer": "y"}], None, "a.jsonl:2: answer 'y' is not the letter"),
        ("choice", [LETTERED | {"label": 1}], None, "each of the columns answer, label could hold the answer"),
        ("choice", [{"question": "Q", "options": "a, b", "answer": "A"}], None, "options is text and no JSON list"),
        ("choice", [{"question": "Q", "choices": {"text": ["a", "b"], "label": ["A"]}, "answer": "A"}], None,
         "choices has 2 texts and 1 different labels"),
    ],
)  # fmt: skip
def test_what_is_no_question_is_refused_in_a_sentence_with_its_row(tmp_path, kind, rows, columns, message):
    with pytest.raises(UserError, match=f"(?s)domains.math.benchmarks.quiz: .*{message}"):
        load(kind, write(tmp_path / "a.jsonl", rows), columns=columns)


@pytest.mark.parametrize(
    ("kind", "columns", "message"),
    [("choice", {"right": "a"}, "right: goes with `wrong`"), ("choice", {"options": ["a"]}, "at least 2"),
     ("choice", {"right": "a", "wrong": ["b"], "answer": "c"}, "so options and answer have no meaning"),
     ("math", {"options": "a"}, "columns.options: goes with `kind: choice`")],
)  # fmt: skip
def test_columns_that_do_not_fit_together_are_refused_before_anything_is_read(kind, columns, message):
    with pytest.raises(ValueError, match=message):
        load_all(kind, "absent.jsonl", columns=columns)


def test_the_first_refused_rows_are_shown_and_the_others_counted(tmp_path):
    with pytest.raises(UserError, match="8 of 8 rows are no questions") as error:
        load("math", write(tmp_path / "a.jsonl", [{"question": "", "answer": "1"}] * 8))
    assert str(error.value).endswith("a.jsonl:5: question is empty\n… and 3 more")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_value_in_any_column_gives_a_question_or_a_sentence(tmp_path_factory, data):
    kind, rows = data.draw(st.sampled_from(
        [("math", GSM8K), ("math", MATH_500), ("choice", MMLU), ("choice", ARC), ("choice", GPQA),
         ("choice", [LETTERED])]))  # fmt: skip
    rows = copy.deepcopy(rows)
    row = data.draw(st.sampled_from(rows))
    row[data.draw(st.sampled_from(sorted(row)))] = data.draw(ANYTHING)
    path = write(tmp_path_factory.getbasetemp() / "any.jsonl", rows)
    try:
        questions = load(kind, path)
    except UserError as refused:
        said = str(refused)
    else:
        said = ""
    if said:
        assert "any.jsonl:" in said
        return
    json.dumps(questions, ensure_ascii=False).encode()
    for question in questions:
        assert question["question"].strip()
        assert question["answer"].strip()
        if kind == "choice":
            assert 0 <= int(question["answer"]) < len(question["options"]) <= len(LETTERS)
            assert all(isinstance(text, str) and text for text in question["options"])


def test_a_reference_is_read_in_the_ways_of_the_datasets():
    texts = ["7", " 7\n", "a\n#### 7", "a \\boxed{6} b \\boxed{7}", "#### 5\n#### 7", "\\fbox{7}"]
    assert [own_questions.reference(text) for text in texts] == ["7"] * len(texts)
