import base64
import csv
import json
import pickle
import zlib

import pytest

from tinyr1 import benchmarks
from tinyr1.config import Benchmark, ConfigError

EVERY_DAY = ("2020-01-01", "2030-12-31")


def load(kind, path, seed=0, window=None, questions=None):
    spec = Benchmark(
        kind=kind,
        path=str(path) if path else None,
        questions=questions,
        samples=1,
        max_tokens=10,
        window=window,
    )
    return benchmarks.load("mini-math" if kind == "miniature" else kind, spec, "test", {"math": [1, 2]}, seed)


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def encode(value):
    """Test cases as LiveCodeBench stores the private ones."""
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def lcb_row(name="a", date="2024-08-15T12:30:00", private="[]", **other):
    return {
        "question_id": name, "question_content": f"Do {name}.", "difficulty": "easy", "starter_code": "",
        "contest_date": date, "public_test_cases": '[{"input": "1", "output": "2"}]',
        "private_test_cases": private, "metadata": "{}", **other,
    }  # fmt: skip


def test_real_aime_2024_questions_load_with_their_leading_zeros_read_as_numbers(shared_data):
    path = shared_data / "aime" / "tinyr1_aime24_test.jsonl"
    questions = load("aime", path)
    raw = [json.loads(line)["answer"] for line in path.open(encoding="utf-8")]
    assert "025" in raw
    assert len(questions) == 30
    assert [int(q["answer"]) for q in questions] == [int(answer) for answer in raw]
    assert questions[raw.index("025")]["answer"] == "25"
    assert {(q["domain"], q["kind"]) for q in questions} == {("math", "integer")}
    assert questions[0]["user"].startswith("Every morning Aya")
    assert questions[0]["user"].endswith("put your final answer within \\boxed{}.")


def test_real_aime_2025_questions_load_with_their_source_as_id(shared_data):
    questions = load("aime", shared_data / "aime" / "tinyr1_aime25_test.jsonl")
    assert len(questions) == 30
    assert questions[0]["id"] == "aime_2025_I-1"
    assert questions[0]["answer"] == "70"


def test_a_folder_holds_the_questions_of_all_its_files(shared_data):
    assert len(load("aime", shared_data / "aime")) == 60


def test_a_question_may_hold_unicode_line_separators(tmp_path):
    rows = [{"id": 1, "question": "a\u2028b\x85c", "answer": "007"}]
    (question,) = load("aime", write(tmp_path / "a.jsonl", rows))
    assert (question["question"], question["answer"]) == ("a\u2028b\x85c", "7")


def test_real_encoded_test_cases_are_those_of_the_decoded_file(shared_data):
    folder = shared_data / "livecodebench"
    decoded = map(json.loads, (folder / "decoded_tests_plain_json.jsonl").open(encoding="utf-8"))
    path = folder / "code_generation_lite_1row_encoded_private.jsonl"
    (question,) = load("livecodebench", path, window=EVERY_DAY)
    public = json.loads(path.open(encoding="utf-8").readline())["public_test_cases"]
    private = next(row[column] for row in decoded if (column := "private_test_cases_decoded") in row)
    assert question["tests"] == public + private
    assert len(private) == 4
    assert question["func_name"] == ""


def test_real_encoded_tests_of_another_project_are_refused_by_their_shape(shared_data):
    path = shared_data / "livecodebench" / "sandboxfusion_3rows_encoded_all_tests.jsonl"
    for line in path.open(encoding="utf-8"):
        with pytest.raises(ValueError, match="unpack to dict, expected the text of a JSON list"):
            benchmarks._tests(json.loads(line)["test"])


def test_public_tests_come_before_private_ones(tmp_path):
    private = [{"input": "3", "output": "4"}]
    row = lcb_row(private=encode(json.dumps(private)), metadata='{"func_name": "f"}')
    (question,) = load("livecodebench", write(tmp_path / "a.jsonl", [row]), window=EVERY_DAY)
    assert question["tests"] == [{"input": "1", "output": "2"}, *private]
    assert question["func_name"] == "f"


class Hostile:
    """Unpickling it with `pickle.loads` would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_that_would_run_something_is_refused(tmp_path):
    target = tmp_path / "pwned"
    field = encode(Hostile(target))
    with pytest.raises(pickle.UnpicklingError, match=r"may not refer to _?io\.open"):
        benchmarks._tests(field)
    assert not target.exists()
    pickle.loads(zlib.decompress(base64.b64decode(field))).close()  # it is as hostile as it claims
    assert target.exists()


@pytest.mark.parametrize("value", [[{"input": "1"}], b"[]", 7, None])
def test_a_pickle_of_anything_but_text_is_refused(value):
    with pytest.raises(ValueError, match="expected the text of a JSON list"):
        benchmarks._tests(encode(value))


def test_a_zip_bomb_is_refused_before_it_unpacks(monkeypatch):
    monkeypatch.setattr(benchmarks, "DECODED_LIMIT", 10_000)
    assert benchmarks._tests(encode("[" + " " * 9_900 + "]")) == []
    with pytest.raises(ValueError, match="unpack to more than 10000 bytes"):
        benchmarks._tests(encode("[" + " " * 10_000 + "]"))


@pytest.fixture
def gpqa(tmp_path, shared_data):
    """A made-up GPQA file with the real columns."""
    columns = json.loads((shared_data / "gpqa" / "gpqa_diamond_header.json").read_text(encoding="utf-8"))
    assert len(columns) == 78
    with (tmp_path / "gpqa_diamond.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, columns)
        out.writeheader()
        for i in range(40):
            out.writerow({
                "Record ID": f"rec{i}", "Question": f"Which\n\"one\" of {i}? ",
                "Correct Answer": f"right {i}\n",
                "Incorrect Answer 1": f"wrong-1 {i}", "Incorrect Answer 2": f"wrong-2 {i}",
                "Incorrect Answer 3": f"wrong-3 {i}", "High-level domain": "Physics",
            })  # fmt: skip
    return tmp_path / "gpqa_diamond.csv"


def test_the_letter_of_a_gpqa_question_points_at_its_right_option(gpqa):
    questions = load("gpqa", gpqa)
    assert [q["id"] for q in questions] == [f"rec{i}" for i in range(40)]
    for i, question in enumerate(questions):
        head, *options = question["question"].rsplit("\n", 4)
        assert head == f'Which\n"one" of {i}?'
        assert [line[:3] for line in options] == ["A) ", "B) ", "C) ", "D) "]
        texts = {line[0]: line[3:] for line in options}
        assert texts[question["answer"]] == f"right {i}"
        assert sorted(texts.values()) == sorted([f"right {i}", *(f"wrong-{n} {i}" for n in (1, 2, 3))])
        assert question["family"] == "Physics"


def test_the_order_of_gpqa_options_follows_the_seed_and_uses_all_letters(gpqa):
    first = load("gpqa", gpqa, seed=1)
    assert load("gpqa", gpqa, seed=1) == first
    assert [q["answer"] for q in load("gpqa", gpqa, seed=2)] != [q["answer"] for q in first]
    assert {q["answer"] for q in first} == set("ABCD")


def test_the_order_of_a_question_does_not_depend_on_the_questions_around_it(gpqa):
    lines = gpqa.read_text(encoding="utf-8")
    every = {q["id"]: q for q in load("gpqa", gpqa)}
    start = lines.index("\n") + 1
    gpqa.write_text(
        lines[:start] + lines[start:].partition("Physics")[2].partition("\n")[2], encoding="utf-8"
    )
    fewer = load("gpqa", gpqa)
    assert len(fewer) == 39
    assert all(every[q["id"]] == q for q in fewer)


def test_the_date_window_includes_its_first_and_last_day(tmp_path):
    dates = [
        "2024-07-31T23:59:59",
        "2024-08-01T00:00:00",
        "2024-08-15",
        "2024-08-31T23:59:59",
        "2024-09-01T00:00:00",
    ]
    path = write(tmp_path / "a.jsonl", [lcb_row(name=date[5:10], date=date) for date in dates])
    found = load("livecodebench", path, window=("2024-08-01", "2024-08-31"))
    assert [q["id"] for q in found] == ["08-01", "08-15", "08-31"]


def test_a_window_without_questions_is_an_error(tmp_path):
    path = write(tmp_path / "a.jsonl", [lcb_row()])
    with pytest.raises(ConfigError, match="holds no question"):
        load("livecodebench", path, window=("2030-01-01", "2030-01-02"))


def test_question_ids_may_not_occur_twice(tmp_path):
    rows = [{"id": i, "question": "q", "answer": "1"} for i in (1, 2, 2)]
    with pytest.raises(ConfigError, match="question ids occur twice: 2"):
        load("aime", write(tmp_path / "a.jsonl", rows))


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(ConfigError, match="has no column 'answer'"):
        load("aime", write(tmp_path / "a.jsonl", [{"id": 1, "question": "q"}]))


@pytest.mark.parametrize("name", ["nowhere", "nowhere.jsonl", ""])
def test_a_path_without_questions_is_named(tmp_path, name):
    with pytest.raises(ConfigError, match=r"does not exist or holds no \.jsonl or \.csv file"):
        load("aime", tmp_path / name if name else tmp_path)


def test_only_the_first_questions_are_taken_when_fewer_are_asked_for(tmp_path):
    rows = [{"id": i, "question": "q", "answer": i} for i in range(5)]
    assert [q["id"] for q in load("aime", write(tmp_path / "a.jsonl", rows), questions=2)] == ["0", "1"]


def test_miniature_questions_are_the_same_for_the_same_seed():
    first = load("miniature", None, seed=3, questions=20)
    assert len(first) == len({q["id"] for q in first}) == 20
    assert load("miniature", None, seed=3, questions=20) == first
    assert [q["question"] for q in load("miniature", None, seed=4, questions=20)] != [
        q["question"] for q in first
    ]


def test_a_miniature_benchmark_says_its_domain_in_its_name():
    spec = Benchmark(kind="miniature", path=None, questions=2, samples=1, max_tokens=9, window=None)
    with pytest.raises(ConfigError, match="mini-history: call it mini-math, mini-science or mini-code"):
        benchmarks.load("mini-history", spec, "test", {"code": [1]}, 0)
    (question, _) = benchmarks.load("mini-code", spec, "test", {"code": [1]}, 0)
    assert question["kind"] == "program"
    assert len(question["tests"]) > 2
