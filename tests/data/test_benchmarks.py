import base64
import csv
import hashlib
import http.server
import json
import pickle
import subprocess
import zlib

import pyarrow
import pytest
from pyarrow import parquet
from pydantic import TypeAdapter

from tinyr1.core.errors import UserError
from tinyr1.core.params.domains import Benchmark
from tinyr1.data import benchmarks, files

EVERY_DAY = ("2020-01-01", "2030-12-31")


SPEC = TypeAdapter(Benchmark)
DOMAINS = {"aime": "math", "gpqa": "science", "livecodebench": "code"}


def load_all(kind, path, window=None, questions=None, **pins):
    """A published benchmark, whose name is its kind."""
    given = {"kind": kind, "path": str(path), "questions": questions, "samples": 1, "max_tokens": 10, **pins}
    spec = SPEC.validate_python(given | ({"window": window} if window else {}))
    return benchmarks.load_benchmark(kind, DOMAINS[kind], spec, "test", 0)


def load(*arguments, **more):
    return load_all(*arguments, **more).questions


def miniature(tasks="math", seed=0, questions=20):
    spec = SPEC.validate_python({"kind": "miniature", "tasks": tasks, "levels": [1, 2], "questions": questions,
                                 "samples": 1, "max_tokens": 10})  # fmt: skip
    return benchmarks.load_benchmark("mine", "any", spec, "test", seed)


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
    assert questions[0]["question"].startswith("Every morning Aya")
    assert not questions[0]["private"]


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


def test_a_gpqa_question_keeps_its_options_in_the_order_of_the_file_and_is_private(gpqa):
    questions = load("gpqa", gpqa)
    assert [q["id"] for q in questions] == [f"rec{i}" for i in range(40)]
    for i, question in enumerate(questions):
        assert question["question"] == f'Which\n"one" of {i}? '
        assert question["options"] == [f"right {i}\n", *(f"wrong-{n} {i}" for n in (1, 2, 3))]
        assert (question["answer"], question["family"], question["private"]) == ("0", "Physics", True)


@pytest.mark.parametrize("old", ["wrong-2 7", "wrong-1 7"])
@pytest.mark.parametrize("new", ["right 7", " "])
def test_an_option_that_is_empty_or_right_as_well_is_refused(gpqa, old, new):
    gpqa.write_text(gpqa.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(UserError, match="question rec7: an option is empty, or is also the right answer"):
        load("gpqa", gpqa)


def test_a_gpqa_row_without_all_fields_is_named_by_its_line(gpqa):
    gpqa.write_text(gpqa.read_text(encoding="utf-8").rstrip().rpartition(",")[0] + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"gpqa_diamond\.csv:121: a row without the 78 fields of the header"):
        load("gpqa", gpqa)


def test_the_date_window_includes_its_first_and_last_day(tmp_path):
    dates = [
        "2024-07-31T23:59:59",
        "2024-08-01T00:00:00",
        "2024-08-15",
        "2024-08-31T23:59:59",
        "2024-09-01T00:00:00",
    ]
    rows = [lcb_row(name=f"{form}-{date[5:10]}", date=date.replace("T", form)) for form in "T " for date in dates]
    found = load("livecodebench", write(tmp_path / "forms.jsonl", rows), window=("2024-08-01", "2024-08-31"))
    assert [q["id"] for q in found] == [f"{form}-{day}" for form in "T " for day in ("08-01", "08-15", "08-31")]
    epoch = write(tmp_path / "epoch.jsonl", [lcb_row(date="1722470400")])
    with pytest.raises(UserError, match="row 1: contest_date '1722470400' begins with no day such as"):
        load("livecodebench", epoch, window=("2024-08-01", "2024-08-31"))
    path = write(tmp_path / "a.jsonl", [lcb_row(name=date[5:10], date=date) for date in dates])
    found = load("livecodebench", path, window=("2024-08-01", "2024-08-31"))
    assert [q["id"] for q in found] == ["08-01", "08-15", "08-31"]


def test_a_window_without_questions_is_an_error(tmp_path):
    path = write(tmp_path / "a.jsonl", [lcb_row()])
    with pytest.raises(UserError, match="holds no question from 2030-01-01 to 2030-01-02; it has 1 rows"):
        load("livecodebench", path, window=("2030-01-01", "2030-01-02"))


def test_question_ids_may_not_occur_twice(tmp_path):
    rows = [{"id": i, "question": "q", "answer": "1"} for i in (1, 2, 2)]
    with pytest.raises(UserError, match="question ids occur twice: 2"):
        load("aime", write(tmp_path / "a.jsonl", rows))


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(UserError, match="has no column 'answer'"):
        load("aime", write(tmp_path / "a.jsonl", [{"id": 1, "question": "q"}]))


@pytest.mark.parametrize("name", ["nowhere", "nowhere.jsonl", ""])
def test_a_path_without_questions_is_named(tmp_path, name):
    with pytest.raises(UserError, match=r"does not exist or holds no \.jsonl, \.csv or \.parquet file"):
        load("aime", tmp_path / name if name else tmp_path)


def test_only_the_first_questions_are_taken_when_fewer_are_asked_for(tmp_path):
    rows = [{"id": i, "question": "q", "answer": i} for i in range(5)]
    assert [q["id"] for q in load("aime", write(tmp_path / "a.jsonl", rows), questions=2)] == ["0", "1"]


def test_miniature_questions_are_the_same_for_the_same_seed():
    first = miniature(seed=3).questions
    assert len(first) == len({q["id"] for q in first}) == 20
    assert miniature(seed=3).questions == first
    assert [q["question"] for q in miniature(seed=4).questions] != [q["question"] for q in first]


@pytest.mark.parametrize(("tasks", "kind"), [("math", "integer"), ("science", "option"), ("code", "program")])
def test_a_miniature_benchmark_has_any_name_and_domain_and_its_tasks_decide_how_it_is_answered(tasks, kind):
    loaded = miniature(tasks, questions=2)
    question, _ = loaded.questions
    assert (question["benchmark"], question["domain"], question["kind"]) == ("mine", "any", kind)
    assert len(question["tests"]) > 2 if kind == "program" else question["answer"]
    assert loaded.record() == {
        "benchmark": "mine", "rows": 2, "questions": 2, "errata": 0, "path": None, "revision": None, "release": None,
        "window": None, "sha256": None, "late_on_last_day": 0,
    }  # fmt: skip


def aime(*answers):
    return [{"id": i, "question": f"q{i}", "answer": a} for i, a in enumerate(answers)]


def test_a_malformed_line_is_named_with_its_file(tmp_path):
    path = write(tmp_path / "a.jsonl", aime(1, 2))
    path.write_text(path.read_text() + "\n" + '{"id": 3, "quest', encoding="utf-8")
    with pytest.raises(UserError, match=r"domains\.math\.benchmarks\.aime: .*a\.jsonl:4: not valid JSON"):
        load("aime", path)
    path.write_text("[[1]]\n", encoding="utf-8")  # an array of rows is read, too
    with pytest.raises(UserError, match=r"a\.jsonl:1: expected a JSON object, found list"):
        load("aime", path)
    path.write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:1: not valid JSON"):
        load("aime", path)


@pytest.mark.parametrize("answer", ["1000", "-1", "1/2", "", "33 or 34", None])
def test_an_answer_that_no_aime_question_can_have_is_refused(tmp_path, answer):
    with pytest.raises(UserError, match="is no AIME answer|has no column 'answer'"):
        load("aime", write(tmp_path / "a.jsonl", aime(5, answer)))


@pytest.mark.parametrize(
    ("asked", "message"),
    [("", "its text is empty"), (5, "its text is a number, not text"), ([], "not of one message"),
     ([{"role": "system", "content": "Be brief."}], "not of one message of a user")],
)  # fmt: skip
def test_a_question_without_text_is_refused(tmp_path, asked, message):
    with pytest.raises(UserError, match=f"question 7: .*{message}"):
        load("aime", write(tmp_path / "a.jsonl", [{"id": 7, "problem": asked, "answer": "1"}]))
    assert load("aime", write(tmp_path / "b.jsonl", [
        {"id": 7, "prompt": [{"role": "user", "content": "Find m+n."}], "answer": "1"}
    ]))[0]["question"] == "Find m+n."


def test_published_sets_of_aime_name_their_columns_differently(tmp_path):
    rows = [{"ID": "2024-I-1", "Problem": "p", "Solution": "s", "Answer": 204}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    write(tmp_path / "b.jsonl", [{"question": "q", "answer": "336^\\circ"}, {"question": "r", "answer": "007"}])
    write(tmp_path / "c.jsonl", [{"id": 60, "problem": "s", "expected_answer": "025"}, {"prompt": "t", "answer": "9"}])
    found = [(q["id"], q["question"], q["answer"]) for q in load("aime", tmp_path)]
    assert found == [("2024-I-1", "p", "204"), ("b-1", "q", "336"), ("b-2", "r", "7"), ("60", "s", "25"),
                     ("c-2", "t", "9")]  # fmt: skip


def as_parquet(path, rows):
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def halves(rows):
    half = len(rows) // 2
    return {"aime2025-I.jsonl": rows[:half], "aime2025-II.jsonl": rows[half:]}


# The known hub datasets of AIME 2025: files and columns made from (question, answer) pairs
AIME_2025 = {
    "math-ai/aime25": lambda pairs: {
        "test.jsonl": [{"problem": q, "answer": a, "id": str(i)} for i, (q, a) in enumerate(pairs)]},
    "opencompass/AIME2025": lambda pairs: halves([{"question": q, "answer": a} for q, a in pairs]),
    "yentinglin/aime_2025": lambda pairs: {"train-00000-of-00001.parquet": [
        {"id": i, "problem": q, "answer": a, "solution": "s", "url": "u", "year": 2025}
        for i, (q, a) in enumerate(pairs)]},
    "MathArena/aime_2025": lambda pairs: {"train-00000-of-00001.parquet": [
        {"problem_idx": i, "problem": q, "answer": int(a), "problem_type": ["Algebra", "Geometry"]}
        for i, (q, a) in enumerate(pairs)]},
}  # fmt: skip
MADE_UP = [("How many?", "0"), ("How much?", "71")]


def check_aime_2025(tmp_path, dataset, pairs):
    for name, rows in AIME_2025[dataset](pairs).items():
        (write if name.endswith("jsonl") else as_parquet)(tmp_path / name, rows)
    found = load("aime", tmp_path)
    assert [(q["question"], q["answer"]) for q in found] == pairs
    return [q["id"] for q in found]


@pytest.mark.parametrize("dataset", AIME_2025)
def test_every_published_set_of_aime_2025_is_understood(tmp_path, dataset):
    named = ["aime2025-I-1", "aime2025-II-1"] if dataset == "opencompass/AIME2025" else ["0", "1"]
    assert check_aime_2025(tmp_path, dataset, MADE_UP) == named


@pytest.mark.parametrize("dataset", AIME_2025)
def test_the_real_questions_of_aime_2025_in_every_published_form(tmp_path, shared_data, dataset):
    real = load("aime", shared_data / "aime" / "tinyr1_aime25_test.jsonl")
    assert len(set(check_aime_2025(tmp_path, dataset, [(q["question"], q["answer"]) for q in real]))) == 30


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR0")
    with pytest.raises(UserError, match=r"a\.parquet: not a whole parquet file"):
        load("aime", tmp_path / "a.parquet")


def test_source_counts_and_checksum_go_into_the_record(tmp_path):
    dates = ["2024-08-01T00:00:00", "2024-08-02T00:00:00", "2024-08-02T18:00:00", "2024-08-03T00:00:00"]
    rows = [lcb_row(name=n, date=d) for n, d in zip(("abc311_c", "x", "y", "z"), dates, strict=True)]
    path = write(tmp_path / "a.jsonl", rows)
    loaded = load_all("livecodebench", path, window=("2024-08-01", "2024-08-02"), questions=2)
    assert loaded.record() == {
        "benchmark": "livecodebench", "path": str(path), "revision": None, "release": None,
        "window": ("2024-08-01", "2024-08-02"), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "rows": 4, "questions": 2, "errata": 1, "late_on_last_day": 1,
    }  # fmt: skip


def test_problems_of_the_errata_are_marked_by_id_or_title(tmp_path):
    rows = [
        lcb_row(name="abc337_e"), lcb_row(name="3285", question_title="Find the Peaks"), lcb_row(name="7"),
        lcb_row(name="3039", question_title="apply-operations-to-make-string-empty"),
    ]  # fmt: skip
    questions = load("livecodebench", write(tmp_path / "a.jsonl", rows), window=EVERY_DAY)
    assert [q["erratum"] for q in questions] == ["interactive", "several right answers", "", "wrong tests"]
    assert [len(problems) for problems in benchmarks.ERRATA.values()] == [11, 2, 4]


def test_an_altered_file_is_refused_with_both_checksums(tmp_path):
    path = write(tmp_path / "a.jsonl", aime(1, 2))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(load("aime", path, sha256=sha256)) == 2
    write(path, aime(1, 3))
    other = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(UserError, match=f"has sha256 {other}, the params pin {sha256}"):
        load("aime", path, sha256=sha256)


def test_the_checksum_of_several_files_is_that_of_their_sha256sum(tmp_path):
    paths = [write(tmp_path / name, aime(i)) for i, name in enumerate(("test.jsonl", "test2.jsonl"))]
    shell = subprocess.run(
        "sha256sum test.jsonl test2.jsonl | sha256sum", shell=True, cwd=tmp_path, capture_output=True, text=True
    )
    assert files.checksum(paths) == shell.stdout.split()[0]


@pytest.fixture
def release(tmp_path, monkeypatch):
    """A folder of the second release, which has three problems here, and the file of a later one."""
    monkeypatch.setattr(benchmarks, "RELEASES", {"release_v2": 3})
    for name, problems in {"test": "ab", "test2": "c", "test3": "d"}.items():
        write(tmp_path / f"{name}.jsonl", [lcb_row(name=p) for p in problems])
    return tmp_path


def test_a_release_is_the_files_up_to_its_own(release):
    found = load_all("livecodebench", release, window=EVERY_DAY, release="release_v2")
    assert [q["id"] for q in found.questions] == ["a", "b", "c"]
    assert found.source.release == "release_v2"
    assert files.release_files("release_v1") == ["test.jsonl"]
    assert files.release_files("release_v6")[1:] == [f"test{i}.jsonl" for i in range(2, 7)]


def test_a_release_with_a_file_missing_or_cut_off_is_refused(release):
    write(release / "test.jsonl", [lcb_row(name="a")])
    with pytest.raises(UserError, match="holds 2 problems, release_v2 has 3"):
        load("livecodebench", release, window=EVERY_DAY, release="release_v2")
    (release / "test2.jsonl").unlink()
    with pytest.raises(UserError, match=r"release_v2 needs test2\.jsonl in "):
        load("livecodebench", release, window=EVERY_DAY, release="release_v2")


@pytest.mark.parametrize(
    ("private", "message"),
    [
        ("!!", "problem a: private_test_cases: "), ("[1]", "not a list of objects with input and output"),
        ('[{"input": "1"}]', "not a list of objects with input and output"), ("[{", "private_test_cases: "),
        (base64.b64encode(b"no zlib").decode(), "private_test_cases: "),
        (base64.b64encode(zlib.compress(pickle.dumps("[]" * 999))[:-9]).decode(), "test cases are cut off"),
        (base64.b64encode(zlib.compress(b"no pickle")).decode(), "private_test_cases: "),
    ],
)  # fmt: skip
def test_malformed_test_cases_are_named_by_problem(tmp_path, private, message):
    path = write(tmp_path / "a.jsonl", [lcb_row(private=private)])
    with pytest.raises(UserError, match=message):
        load("livecodebench", path, window=EVERY_DAY)


@pytest.mark.parametrize("metadata", ['{"func_name"', "[]", "null", 7])
def test_malformed_metadata_is_named_by_problem(tmp_path, metadata):
    path = write(tmp_path / "a.jsonl", [lcb_row(metadata=metadata)])
    with pytest.raises(UserError, match=r"a\.jsonl: problem a: metadata: "):
        load("livecodebench", path, window=EVERY_DAY)
    assert load("livecodebench", write(path, [lcb_row(metadata=None)]), window=EVERY_DAY)[0]["func_name"] == ""


COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as a download needs; datasets/gated/* is gated."""

    files: dict[str, bytes] = {}

    def do_HEAD(self):
        body = self.files.get(self.path, b"")
        self.send_response(401 if "/gated/" in self.path else 200 if body else 404)
        if "/gated/" in self.path:
            self.send_header("X-Error-Code", "GatedRepo")
        elif body:
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        else:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return body

    def do_GET(self):
        self.wfile.write(self.do_HEAD())

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(serve_hub, monkeypatch):
    """Puts a file on a hub."""
    serve_hub(Hub)
    monkeypatch.setattr(Hub, "files", {})

    def put(path, rows):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        Hub.files[f"/datasets/{path.replace('//', f'/resolve/{COMMIT}/')}"] = text.encode()

    return put


def test_a_file_of_the_hub_is_read_at_its_commit(hub):
    hub("some/aime//data/test.jsonl", aime(5))
    loaded = load_all("aime", "hf://some/aime/data/test.jsonl", revision=COMMIT)
    assert [q["answer"] for q in loaded.questions] == ["5"]
    assert loaded.source.revision == COMMIT
    Hub.files.clear()  # a commit never changes: what was fetched once serves without a network
    assert load("aime", "hf://some/aime/data/test.jsonl", revision=COMMIT) == loaded.questions


def test_aime_2025_of_the_evaluation_command_is_fetched_from_its_dataset(hub):
    from tinyr1.evaluate.__main__ import TWINS

    hub("math-ai/aime25//test.jsonl", AIME_2025["math-ai/aime25"](MADE_UP)["test.jsonl"])
    _, pinned = TWINS["aime25"]
    sha256 = hashlib.sha256(Hub.files[f"/datasets/math-ai/aime25/resolve/{COMMIT}/test.jsonl"]).hexdigest()
    loaded = load_all("aime", **pinned | {"revision": COMMIT, "sha256": sha256})
    assert [(q["question"], q["answer"]) for q in loaded.questions] == MADE_UP
    with pytest.raises(UserError, match=f"the params pin {pinned['sha256']}"):
        load("aime", **pinned | {"revision": COMMIT})


def test_the_files_of_a_release_are_fetched_and_nothing_else(hub, monkeypatch):
    monkeypatch.setattr(benchmarks, "RELEASES", {"release_v2": 2})
    hub("some/lcb//test.jsonl", [lcb_row(name="a")])
    hub("some/lcb//test2.jsonl", [lcb_row(name="b")])
    pins = {"revision": COMMIT, "release": "release_v2", "window": EVERY_DAY}
    assert [q["id"] for q in load("livecodebench", "hf://some/lcb", **pins)] == ["a", "b"]


def test_a_gated_dataset_says_how_to_get_it(hub):
    remedy = r"gpqa: .* of gated/gpqa at .* is gated.*Accept its licence at .*datasets/gated/gpqa.*hf auth login"
    with pytest.raises(UserError, match=remedy):
        load("gpqa", "hf://gated/gpqa/gpqa_diamond.csv", revision=COMMIT)


def test_a_file_that_the_hub_lacks_is_named(hub):
    with pytest.raises(UserError, match=r"nowhere\.jsonl of some/aime at 0123456789abcdef.* could not be fetched"):
        load("aime", "hf://some/aime/nowhere.jsonl", revision=COMMIT)


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        ("aime", {"path": "hf://some/aime/a.jsonl"}, "revision: goes with hf://"),
        ("aime", {"revision": COMMIT}, "revision: goes with hf://"),
        ("aime", {"path": "hf://some/aime", "revision": COMMIT}, "should read hf://owner/dataset/file"),
        ("aime", {"path": "hf://some/aime/load.py", "revision": COMMIT}, "should read hf://owner/dataset/file"),
        ("aime", {"path": "hf://a/b/../c.jsonl", "revision": "main"}, "String should match pattern"),
        ("aime", {"release": "release_v5"}, "(?s)aime.release.*Extra inputs are not permitted"),
        ("livecodebench", {"path": "hf://some/lcb", "revision": COMMIT, "window": EVERY_DAY}, "paths need one of"),
        ("livecodebench", {"release": "release_latest", "window": EVERY_DAY}, "release"),
        ("miniature", {"path": "a.jsonl", "questions": 3, "sha256": "0" * 64}, "(?s)sha256.*Extra inputs are not"),
        ("miniature", {"tasks": "history", "levels": [1]}, "Input should be 'math', 'science', 'science_values'"),
    ],
)  # fmt: skip
def test_params_that_do_not_pin_a_source_are_refused(kind, changed, message):
    given = {"kind": kind, "path": "a.jsonl", "questions": None, "samples": 1, "max_tokens": 9}
    with pytest.raises(ValueError, match=message):
        SPEC.validate_python(given | changed)
