"""Files of other tools: written so that their users know them, read so that no answer lands on another question."""

import json

import pandas as pd
import pytest

from tinyr1.core.errors import UserError
from tinyr1.evaluate import adopt, lm_eval
from tinyr1.sampling import responses

MATH = [
    {"id": f"m{i}", "kind": "integer", "question": f"{i} + 1?", "user": f"{i} + 1?\nThink.", "answer": str(i + 1),
     "family": "sum", "private": False}
    for i in range(3)
]  # fmt: skip
SCIENCE = [{"id": "s0", "kind": "option", "question": "Which?\nA) x\nB) y", "user": "Which?…", "answer": "B",
            "private": True}]  # fmt: skip
CODE = [{"id": "c0", "kind": "program", "question": "Add.", "user": "Add.", "tests": [], "private": False}]
ASKED = {"math": MATH, "science": SCIENCE, "code": CODE}
PROTOCOLS = {name: {"benchmark": name, "temperature": 0.6, "top_p": 0.95, "max_tokens": 9} for name in ASKED}


def graded(model="ours"):
    def row(benchmark, question, sample, outcome, extracted):
        return {"model": model, "benchmark": benchmark, "question": question, "family": "", "sample": sample,
                "outcome": outcome, "extracted": extracted, "n_tokens": 4 + sample,
                "text": f"{question}/{sample}</think>"}  # fmt: skip

    return pd.DataFrame([
        row("math", "m0", 0, "correct", "1"), row("math", "m0", 1, "wrong", "9"),
        row("math", "m1", 0, "correct", "2"), row("math", "m1", 1, "correct", "2"),
        row("math", "m2", 1, "truncated", None), row("math", "m2", 0, "no_answer", None),
        row("science", "s0", 0, "correct", "B"), row("code", "c0", 0, "wrong", "x = 1"),
    ])  # fmt: skip


@pytest.fixture
def written(tmp_path):
    lm_eval.write_files(tmp_path, graded(), ASKED, PROTOCOLS)
    return tmp_path / "ours"


def load_lines(path):
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


def file_of(tmp_path, *rows):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# --- out ------------------------------------------------------------------------------------------------------


def test_results_have_the_scores_and_the_harness_fields(written):
    found = json.loads((written / "results.json").read_text())
    assert found["results"]["math"]["exact_match,none"] == pytest.approx(0.5)
    assert found["results"]["math"]["exact_match_stderr,none"] == pytest.approx((0.25 / 3) ** 0.5)  # of .5, 1, 0
    assert found["results"]["code"] == {"alias": "code", "pass@1,none": 0.0, "pass@1_stderr,none": "N/A"}
    assert found["n-samples"]["math"] == {"original": 3, "effective": 3}
    assert found["higher_is_better"] == {
        "math": {"exact_match": True}, "science": {"exact_match": True}, "code": {"pass@1": True}}  # fmt: skip
    assert found["configs"]["math"]["repeats"] == 2
    assert found["configs"]["math"]["metadata"] == PROTOCOLS["math"]
    assert {"versions", "n-shot", "group_subtasks", "config", "git_hash", "date", "model_name"} <= found.keys()


def test_samples_have_one_line_for_each_question(written):
    lines = load_lines(written / "samples_math.jsonl")
    assert [line["doc_id"] for line in lines] == [0, 1, 2]
    first, last = lines[0], lines[2]
    assert first["resps"] == [["m0/0</think>", "m0/1</think>"]]
    assert (first["filtered_resps"], first["exact_match"], first["target"]) == ([["1", "9"]], 0.5, "1")
    assert first["arguments"]["gen_args_0"]["arg_0"] == "0 + 1?\nThink."
    assert first["arguments"]["gen_args_0"]["arg_1"] == {
        "do_sample": True, "temperature": 0.6, "top_p": 0.95, "max_tokens": 9}  # fmt: skip
    assert (last["filtered_resps"], last["outcomes"]) == ([["[invalid]"] * 2], ["no_answer", "truncated"])
    assert {"doc", "filter", "metrics", "doc_hash", "prompt_hash", "target_hash"} <= first.keys()


def test_a_gated_benchmark_gets_scores_and_no_sample(written):
    assert json.loads((written / "results.json").read_text())["results"]["science"]["exact_match,none"] == 1.0
    assert sorted(p.name for p in written.iterdir()) == ["results.json", "samples_code.jsonl", "samples_math.jsonl"]
    assert not [p for p in written.iterdir() if "Which?" in p.read_text() or "s0/0" in p.read_text()]


def test_what_is_written_can_be_read_back(written):
    found = adopt.read_answers(written / "samples_math.jsonl", MATH, "p")
    assert (found.form, found.notes) == ("lm-eval", [])
    texts = {(line["question"], line["sample"]): line["text"] for line in found.lines}
    assert texts == {(f"m{i}", s): f"m{i}/{s}</think>" for i in range(3) for s in range(2)}
    assert not [line for line in found.lines if responses.RESPONSE.problem(line)]


# --- in -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [
        [{"id": "m0", "text": "a"}, {"id": "m0", "text": "b"}],
        [{"question_id": "m0", "completion": "a"}, {"question_id": "m0", "completion": "b"}],
        [{"question": "m0", "response": "a", "sample": 0}, {"question": "m0", "response": "b", "sample": 1}],
        [{"problem": " 0 + 1?\n", "output": "a"}, {"problem": "0 + 1?", "output": "b"}],
        [{"question_id": "m0", "output_list": ["a", "b"], "code_list": ["", ""]}],
        [{"doc_id": 5, "doc": {"question": "0 + 1?", "answer": "1"}, "resps": [["a", "b"]], "filter": "none"}],
        [{"doc_id": 5, "doc": {"id": "m0"}, "resps": [["a"], ["b"]], "filter": f} for f in ("strict", "flexible")],
    ],
)
def test_rows_of_other_tools_are_read(tmp_path, rows):
    found = adopt.read_answers(file_of(tmp_path, *rows), MATH, "p")
    assert [(x["question"], x["sample"], x["text"]) for x in found.lines] == [("m0", 0, "a"), ("m0", 1, "b")]
    assert not [line for line in found.lines if responses.RESPONSE.problem(line)]
    assert found.notes == ["2 of 3 questions have no response: m1, m2"]


def test_a_json_list_is_read_as_livecodebench_writes_it(tmp_path):
    rows = [{"question_id": "c0", "question_title": "Add", "question_content": "Add.", "output_list": ["x", "y"],
             "code_list": ["", ""], "graded_list": [True, False], "pass@1": 0.5}]  # fmt: skip
    path = tmp_path / "Scenario.codegeneration_2_0.6_eval_all.json"
    for encoding in ("utf-8-sig", "utf-8"):
        path.write_text(json.dumps(rows, indent=4), encoding=encoding)
        found = adopt.read_answers(path, CODE, "p")
        assert [(x["question"], x["sample"], x["text"]) for x in found.lines] == [("c0", 0, "x"), ("c0", 1, "y")]
    path.write_text(json.dumps([*rows, {"question_id": "c9", "output_list": ["x"]}], indent=4))
    with pytest.raises(UserError, match="line 2: unknown question 'c9'"):
        adopt.read_answers(path, CODE, "p")
    for broken in (json.dumps(rows)[:-1], "[]", "[1, 2]"):
        path.write_text(broken)
        with pytest.raises(UserError, match="malformed"):
            adopt.read_answers(path, CODE, "p")


def test_what_a_row_tells_of_the_end_is_kept(tmp_path):
    rows = [{"id": "m0", "text": "a", "finish_reason": "length", "n_tokens": 7}, {"id": "m1", "text": "a"}]
    found = adopt.read_answers(file_of(tmp_path, *rows), MATH, "p").lines
    assert [(x["finish"], x["n_tokens"]) for x in found] == [("length", 7), ("unknown", None)]
    several = {"id": "m0", "responses": ["a", "b"], "finish_reason": ["stop", "max_tokens"]}
    found = adopt.read_answers(file_of(tmp_path, several), MATH, "p").lines
    assert [x["finish"] for x in found] == ["stop", "length"]
    with pytest.raises(UserError, match="line 1: m0: 2 responses and 1 finish reasons"):
        adopt.read_answers(file_of(tmp_path, several | {"finish_reason": ["stop"]}), MATH, "p")


def test_an_uneven_number_of_samples_is_noted(tmp_path):
    rows = [{"id": q, "text": "a"} for q in ("m0", "m0", "m1", "m2")]
    assert adopt.read_answers(file_of(tmp_path, *rows), MATH, "p").notes == [
        "2 of 3 questions have fewer than 2 responses: m1, m2"
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "m9", "text": "a"}, "line 2: unknown question 'm9'"),
        ({"text": "a"}, "line 2: no column with a question's id; .* such as 'm0'"),
        ({"id": "m0", "words": "a"}, "line 2: no column of text among id, words"),
        ({"id": "m0", "text": "a", "output": "b"}, r"line 2: several columns of text \(text, output\)"),
        ({"id": "m1", "question": "0 + 1?", "text": "a"}, "line 2: its columns name different questions: m0, m1"),
        ({"id": "m0", "text": None}, "line 2: m0: a response is no text"),
        ({"id": "m0", "text": []}, "line 2: m0: a response is no text"),
        ({"id": "m0", "text": "a", "sample": 0}, "line 2: sample 0 of m0 is on line 1 already"),
        ({"id": "m0", "text": "a", "sample": "1"}, "line 2: sample '1' is not a number"),
        (["m0", "a"], "line 2: list, expected an object"),
    ],
)
def test_rows_that_fit_no_question_or_no_column_are_refused_by_line(tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        adopt.read_answers(file_of(tmp_path, {"id": "m0", "text": "a"}, row), MATH, "p")


def test_repeated_documents_broken_lines_and_empty_files_are_refused(tmp_path):
    doc = {"doc_id": 0, "doc": {"id": "m0"}, "resps": [["a"]], "filter": "none"}
    with pytest.raises(UserError, match="line 2: sample 0 of m0 is on line 1 already"):
        adopt.read_answers(file_of(tmp_path, doc, doc), MATH, "p")
    path = file_of(tmp_path, doc)
    path.write_text(path.read_text() + '{"doc_id": 1, "doc"\n')
    with pytest.raises(UserError, match="1 malformed lines:\nline 2: not valid JSON"):
        adopt.read_answers(path, MATH, "p")
    path.write_text("\n")
    with pytest.raises(UserError, match="holds no line"):
        adopt.read_answers(path, MATH, "p")
    with pytest.raises(UserError, match="no such file"):
        adopt.read_answers(tmp_path / "none.jsonl", MATH, "p")


def test_two_questions_of_the_same_text_are_not_told_apart_by_it(tmp_path):
    twins = [MATH[0], MATH[0] | {"id": "twin"}]
    with pytest.raises(UserError, match="unknown question"):
        adopt.read_answers(file_of(tmp_path, {"question": "0 + 1?", "text": "a"}), twins, "p")


def test_a_letter_counts_only_where_the_file_shows_the_options_in_our_order(tmp_path):
    with pytest.raises(UserError, match="s0: the row does not show the question with its options"):
        adopt.read_answers(file_of(tmp_path, {"id": "s0", "text": "B"}), SCIENCE, "p")
    with pytest.raises(UserError, match="does not show"):
        adopt.read_answers(file_of(tmp_path, {"id": "s0", "text": "B", "prompt": "Which?\nA) y\nB) x"}), SCIENCE, "p")
    shown = {"id": "s0", "text": "B", "prompt": f"Answer this.\n{SCIENCE[0]['question']}\n"}
    assert len(adopt.read_answers(file_of(tmp_path, shown), SCIENCE, "p").lines) == 1


def own(question="m0", sample=0, **changes):
    return {"question": question, "sample": sample, "text": "a", "n_tokens": 1, "finish": "stop", "model_key": "m",
            "protocol_key": "p"} | changes  # fmt: skip


def test_own_lines_keep_their_model_and_every_field(tmp_path):
    rows = [own(), own(sample=1, order=[1, 0])]
    for key in ("p", None):
        found = adopt.read_answers(file_of(tmp_path, *rows), MATH, key)
        assert (found.form, found.lines) == ("tinyr1", rows)


@pytest.mark.parametrize(
    ("rows", "key", "message"),
    [
        ([own(protocol_key="q")], "p", "drawn under protocol q, this is p"),
        ([own(), own(model_key="n")], "p", r"responses of 2 models \(m, n\)"),
        ([own(), own(protocol_key="q")], None, r"responses of 2 protocols \(p, q\)"),
        ([own(), own()], "p", "line 2: sample 0 of m0 is on line 1 already"),
        ([own("m9")], "p", "line 1: unknown question 'm9'"),
        ([own(n_tokens="1")], "p", "line 1: field 'n_tokens' is '1'"),
        ([own(), {"id": "m0", "text": "a"}], "p", "line 2: no field 'question'"),
    ],
)
def test_own_lines_of_another_model_or_protocol_are_refused(tmp_path, rows, key, message):
    with pytest.raises(UserError, match=message):
        adopt.read_answers(file_of(tmp_path, *rows), MATH, key)
