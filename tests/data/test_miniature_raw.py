import hashlib
import json
from itertools import pairwise

import pytest

from tinyr1.data.miniature import raw

LEVELS = [1, 2, 3]
DOMAINS = ("math", "science", "code")
SPLITS = ("train", "validation", "test")
LCB_COLUMNS = {
    "question_title", "question_content", "platform", "question_id", "contest_id", "contest_date",
    "starter_code",
    "difficulty", "public_test_cases", "private_test_cases", "metadata",
}  # fmt: skip
N = 1000


@pytest.fixture(scope="module")
def math_rows():
    return list(raw.rows("math", "openr1_math", N, LEVELS, 42))


@pytest.mark.parametrize("domain", DOMAINS)
def test_splits_never_share_a_solution_or_a_question(domain):
    drawn = {split: raw.take(domain, split, LEVELS, 42, 120) for split in SPLITS}
    for one, other in (*pairwise(SPLITS), ("train", "test")):
        assert not {*map(raw.solution_key, drawn[one])} & {*map(raw.solution_key, drawn[other])}
        assert not {t.question for t in drawn[one]} & {t.question for t in drawn[other]}
    for split, tasks in drawn.items():
        assert {raw.split_of(t) for t in tasks} == {split}
        assert len({t.question for t in tasks}) == 120


@pytest.mark.parametrize("domain", DOMAINS)
def test_splits_are_disjoint_between_seeds_too(domain):
    train = {raw.solution_key(t) for t in raw.take(domain, "train", LEVELS, 7, 120)}
    test = {raw.solution_key(t) for t in raw.take(domain, "test", LEVELS, 8, 120)}
    assert not train & test


def test_only_the_planted_benchmark_questions_are_in_the_training_rows(math_rows):
    problems = [row["problem"] for row in math_rows]
    planted = {t.question for t in raw.take("math", "test", LEVELS, 42, round(N * raw.DIRT["contaminated"]))}
    assert planted & set(problems)
    other = {t.question for t in raw.take("math", "validation", LEVELS, 42, 200)}
    assert not other & set(problems)


def shares(rows, planted):
    """What share of OpenR1 rows shows each kind of dirt."""
    kinds = {
        "proof": sum(row["answer"] == "proof" for row in rows),
        "multiple_choice": sum(row["question_type"] == "MCQ" for row in rows),
        "wrong": sum(
            row["is_reasoning_complete"] == [True] and row["correctness_math_verify"] == [False]
            for row in rows
        ),
        "cut": sum(row["is_reasoning_complete"] == [False] for row in rows),
        "duplicate": len(rows) - len({row["problem"] for row in rows}),
        "contaminated": sum(row["problem"] in planted for row in rows),
    }
    return {kind: count / len(rows) for kind, count in kinds.items()}


def test_every_kind_of_dirt_is_there_in_about_its_share(math_rows):
    planted = {t.question for t in raw.take("math", "test", LEVELS, 42, round(N * raw.DIRT["contaminated"]))}
    found = shares(math_rows, planted)
    assert found.keys() == raw.DIRT.keys()
    for kind, share in raw.DIRT.items():  # 4 standard deviations of a binomial; a repeat may repeat dirt
        assert abs(found[kind] - share) < 4 * (share * (1 - share) / N) ** 0.5 + 0.005, (kind, found[kind])


def test_a_wrong_trace_has_another_number_in_its_box(math_rows):
    wrong = [
        row for row in math_rows
        if row["is_reasoning_complete"] == [True] and row["correctness_math_verify"] == [False]
    ]  # fmt: skip
    assert wrong
    assert not any(f"boxed{{{row['answer']}}}" in row["generations"][0] for row in wrong)


def test_a_verified_trace_has_the_right_number_in_its_box(math_rows):
    good = [row for row in math_rows if row["correctness_math_verify"][-1] and row["answer"] != "proof"]
    assert len(good) > N / 2
    assert all(f"boxed{{{row['answer']}}}" in row["generations"][-1] for row in good)


@pytest.mark.parametrize("columns", raw.WRITERS)
def test_rows_of_every_form_are_the_same_for_the_same_seed_only(columns):
    domain = "math" if columns == "openr1_math" else "science"
    first = list(raw.rows(domain, columns, 60, LEVELS, 3))
    assert len(first) == 60
    assert list(raw.rows(domain, columns, 60, LEVELS, 3)) == first
    assert list(raw.rows(domain, columns, 60, LEVELS, 4)) != first
    assert len({frozenset(row) for row in first}) == 1


def test_code_questions_have_livecodebench_columns_as_text():
    for task in raw.take("code", "test", LEVELS, 42, 30):
        row = raw.question_row(task, 0)
        assert row.keys() == LCB_COLUMNS
        assert all(isinstance(value, str) for value in row.values())
        public, private = json.loads(row["public_test_cases"]), json.loads(row["private_test_cases"])
        assert len(public) == raw.PUBLIC_TESTS
        assert len(public) + len(private) == len(task.tests)
        named = json.loads(row["metadata"]).get("func_name", "")
        assert {t["testtype"] for t in public + private} == {"functional" if named else "stdin"}
        assert row["difficulty"] == {1: "easy", 2: "medium", 3: "hard"}[task.level]


@pytest.mark.parametrize("domain", ["math", "science"])
def test_other_questions_have_an_answer_and_a_family(domain):
    rows = [raw.question_row(task, i) for i, task in enumerate(raw.take(domain, "test", LEVELS, 42, 30))]
    assert {frozenset(row) for row in rows} == {frozenset({"id", "question", "answer", "family"})}
    assert len({row["id"] for row in rows}) == 30


def test_names_of_a_program_do_not_make_it_another_solution():
    task = raw.take("code", "train", [1], 42, 1)[0]
    renamed = task.__class__(**{**vars(task), "response": task.response.replace("def solve", "def other")})
    assert raw.solution_key(renamed) == raw.solution_key(task)
    other = task.__class__(**{**vars(task), "response": task.response + "\n# more"})
    assert raw.solution_key(other) != raw.solution_key(task)


@pytest.mark.parametrize(
    ("domain", "columns", "digest"),
    [
        ("math", "openr1_math", "a33c996cf6437b42"),
        ("science", "s1", "1fb551949f07ac4b"),
        ("science", "openthoughts_metadata", "670d2e3ea1cf84a1"),
        ("science_values", "s1", "77eea134ed0e7c43"),
        ("code", "openthoughts", "5a8b0f3e45dd7e95"),
    ],
)
def test_rows_and_questions_are_those_of_the_committed_report(domain, columns, digest):
    """To the byte: the reports were made with them, and a change of a family or of a draw would change the runs."""
    found = hashlib.sha256()
    for seed in (7, 42):
        for row in raw.rows(domain, columns, 40, LEVELS, seed):
            found.update(json.dumps(row).encode())
        for i, task in enumerate(raw.take(domain, "test", [1, 2], seed, 30)):
            found.update(json.dumps([vars(task), raw.question_row(task, i)], default=vars).encode())
    assert found.hexdigest()[:16] == digest
