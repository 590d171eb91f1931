import json

import pytest

from tinyr1.core.config import Decontaminate, Source
from tinyr1.data import curate, sources

BENCHMARK = "A train leaves the town of Alma at noon and runs 90 kilometers per hour towards the distant sea"
CLEAN = "How many ways are there to seat five guests around one table"


def source(columns, path="x", keep=None, correct="verified"):
    return Source(
        kind="files", columns=columns, path=str(path), config=None, revision=None, rows=None,
        keep=keep or {}, correct=correct,
    )  # fmt: skip


def math_row(problem=CLEAN, answer="5", generations=("<think>a</think>b",), verified=(True,), **other):
    return {
        "problem": problem, "answer": answer, "question_type": "math-word-problem", "source": "olympiads",
        "generations": list(generations), "correctness_math_verify": verified and list(verified), **other,
    }  # fmt: skip


def rule(share=0.5, private=False):
    return curate.Contamination([{"question": BENCHMARK, "private": private}], Decontaminate(ngram=8, min_share=share))


def run(raw_rows, max_tokens=100, limit=None, generations=1, unseen=None, **options):
    """`curate` over OpenR1 rows; a token is a word of the whole row."""
    spec = source(
        "openr1_math", keep={"question_type": ["math-word-problem"], "source": ["olympiads"]}, **options
    )
    found = [("openr1", curate.candidates(raw_rows, spec, generations))]

    def count(row):
        return len(" ".join((row["question"], row["thinking"], row["response"])).split())

    return curate.curate("math", found, unseen or rule(), count, max_tokens, limit)


@pytest.mark.parametrize(
    ("reason", "rows"),
    [
        ("question_type", [math_row(question_type="MCQ")]),
        ("source", [math_row(source="synthetic_math")]),
        ("no_question", [math_row(problem=" \n")]),
        ("no_answer", [math_row(answer="proof")]),
        ("no_answer", [math_row(answer="notfound")]),
        ("no_answer", [math_row(answer=None)]),
        ("unverified", [math_row(verified=(False,))]),
        ("unverified", [math_row(verified=None)]),
        ("incomplete", [math_row(generations=("<think>cut off",))]),
        ("incomplete", [math_row(generations=("<think>cut off</think> ",))]),
        ("incomplete", [math_row(generations=("<think>cut", "<think>a</think>b"), verified=(True, False))]),
        ("duplicate", [math_row(), math_row(problem=f"  {CLEAN.upper()}?")]),
        ("contaminated", [math_row(problem=f"Homework: {BENCHMARK}. Why?")]),
        ("too_long", [math_row(problem="word " * 101)]),
        ("over_limit", [math_row(problem=f"{CLEAN} {i}") for i in range(4)]),
    ],
)  # fmt: skip
def test_a_row_is_dropped_for_the_reason_it_was_made_for(reason, rows):
    kept, ledger = run(rows, limit=3)
    assert ledger.dropped == {("openr1", reason): 1}
    assert ledger.raw == len(rows)
    assert ledger.kept == len(kept) == len(rows) - 1
    assert reason in curate.REASONS


@pytest.mark.parametrize(
    ("columns", "keep", "raw", "reason"),
    [
        ("openthoughts_metadata", {"domain": ["code"]},
         {"problem": "p", "deepseek_reasoning": "t", "deepseek_solution": "s", "domain": "math"}, "domain"),
        ("openthoughts_metadata", {},
         {"problem": "p", "deepseek_reasoning": "t", "deepseek_solution": " ", "domain": "math"},
         "incomplete"),
        ("s1", {"cot_type": ["science"]}, {"question": "q", "cot_type": "math"}, "cot_type"),
        ("s1", {}, {"question": "q", "cot_type": "math", "thinking_trajectories": [], "attempt": "a"},
         "incomplete"),
        ("openthoughts", {}, {"conversations": [{"from": "user", "value": "q"}]}, "incomplete"),
    ],
)  # fmt: skip
def test_other_readers_give_their_reasons(columns, keep, raw, reason):
    assert curate.normalise(raw, source(columns, keep=keep), 1) == [reason]
    assert reason in curate.REASONS


def test_the_ledger_adds_up_over_a_mixture_of_rows():
    rows = [
        math_row(problem=f"{CLEAN} {i}", answer="proof" if i % 5 == 0 else "1", verified=(i % 3 != 0,))
        for i in range(40)
    ] + [math_row(problem=BENCHMARK), math_row(problem=f"{CLEAN} 1"), math_row(problem="x " * 200)]
    kept, ledger = run(rows, limit=15)
    assert ledger.raw == len(rows) == ledger.kept + sum(ledger.dropped.values())
    assert ledger.kept == len(kept) == 15
    assert {reason for _, reason in ledger.dropped} == {
        "no_answer", "unverified", "contaminated", "duplicate", "too_long", "over_limit",
    }  # fmt: skip


def test_a_kept_row_is_the_first_verified_generation():
    generations = ("<think>wrong</think>4", "<think>\nright\n</think>\n\n5", "<think>also right</think>5")
    (row,), _ = run([math_row(generations=generations, verified=(False, True, True))])
    assert row.pop("id").startswith("math-")
    assert row == {
        "domain": "math", "source": "openr1", "question": CLEAN, "starter_code": "", "thinking": "right",
        "response": "5", "answer": "5", "n_tokens": 14,
    }  # fmt: skip


def test_unverified_generations_are_kept_where_any_will_do():
    kept, _ = run([math_row(verified=(False,))], correct="any")
    assert len(kept) == 1


def test_several_generations_of_a_question_are_one_raw_row_and_never_exceed_the_limit():
    rows = [
        math_row(
            problem=f"{CLEAN} {i}",
            generations=[f"<think>{n}</think>5" for n in range(3)],
            verified=(True,) * 3,
        )
        for i in range(3)
    ]
    kept, ledger = run(rows, generations=2)
    assert [row["thinking"] for row in kept] == ["0", "1"] * 3
    assert len({row["id"] for row in kept}) == 6
    assert (ledger.raw, ledger.kept) == (3, 3)
    assert len(run(rows, generations=2, limit=3)[0]) == 3


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think>\nwhy\n</think>\n\nso 5", ("why", "so 5")),
        ("why</think>so", ("why", "so")),  # later templates put the opening tag into the prompt
        ("<think>why", None),
        ("<think>why</think>\n", None),
        ("no tags at all", None),
    ],
)
def test_deepseek_tags_part_thinking_and_response(text, parts):
    assert curate.think_parts(text) == parts


THOUGHT = "<|begin_of_thought|>\n\nwhy\n\n<|end_of_thought|>\n\n"
SOLUTION = "<|begin_of_solution|>\n\nThe answer is 5.\n\n<|end_of_solution|>"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (THOUGHT + SOLUTION, ("why", "The answer is 5.")),
        (THOUGHT + SOLUTION.removesuffix("<|end_of_solution|>"), None),
        (THOUGHT, None),
        (SOLUTION, None),
        ("", None),
    ],
)
def test_openthoughts_tags_part_thinking_and_response(text, parts):
    assert curate.openthoughts_parts(text) == parts


def test_the_answer_of_an_openthoughts_row_stays_outside_the_reasoning():
    """Ledger C3: the paper's replacement, taken literally, would put `</think>` after the answer."""
    turns = [{"from": "user", "value": "q"}, {"from": "assistant", "value": THOUGHT + SOLUTION}]
    (row,) = curate.normalise({"conversations": turns}, source("openthoughts"), 1)
    assert "5" not in row["thinking"]
    assert row["response"] == "The answer is 5."
    assert "<|" not in row["thinking"] + row["response"]


@pytest.mark.parametrize(
    "text",
    [
        BENCHMARK,
        BENCHMARK.upper(),
        f"Warm-up. {BENCHMARK}! When does it arrive?",
        BENCHMARK.replace(" ", "\n").replace("noon", "noon,"),
        BENCHMARK.replace("distant sea", "capital"),
    ],
)
def test_a_question_with_the_wording_of_a_benchmark_is_contaminated(text):
    question, share = rule().hit(text)
    assert question == BENCHMARK
    assert share >= 0.5


@pytest.mark.parametrize("text", [CLEAN, "A train leaves the town of Alma at noon", "", "90"])
def test_other_questions_are_clean(text):
    assert rule().hit(text) is None


def test_a_question_of_the_same_template_is_kept_when_the_share_is_high():
    near = BENCHMARK.replace("90", "75")
    assert rule(share=0.3).hit(near) is not None
    assert rule(share=0.9).hit(near) is None
    assert rule(share=0.9).hit(BENCHMARK)[1] == 1.0


def test_the_ledger_shows_a_contaminated_question_beside_the_benchmark_question():
    _, ledger = run([math_row(problem=f"Homework: {BENCHMARK}")])
    assert ledger.examples["contaminated"] == f"Homework: {BENCHMARK}\n  benchmark: {BENCHMARK}"


def test_the_ledger_shows_nothing_of_a_benchmark_that_must_not_be_published():
    kept, ledger = run([math_row(problem=f"Homework: {BENCHMARK}"), math_row()], unseen=rule(private=True))
    assert (len(kept), ledger.dropped["openr1", "contaminated"]) == (1, 1)
    assert ledger.examples == {"contaminated": "(a question that must not be published)"}


def real_rows(path, columns, domain="math", **options):
    spec = source(columns, path, **options)
    return [c for raw in sources.read(spec, domain, [], 0) for c in curate.normalise(raw, spec, 4)]


def test_a_real_openr1_row_gives_its_verified_trace(shared_data):
    path = shared_data / "openr1_math_220k" / "assembled_row0_one_placeholder.jsonl"
    (row,) = real_rows(path, "openr1_math", keep={"question_type": ["math-word-problem"]})
    assert row["question"].startswith("## Task B-1.3.")
    assert row["thinking"].startswith("Okay, so I need to find the speed")
    assert row["response"].endswith("\\(\\boxed{4}\\) km/h.")
    assert "think>" not in row["thinking"] + row["response"]


def test_a_real_row_in_openthoughts_form_gives_thinking_and_response(shared_data):
    path = shared_data / "openthoughts_114k" / "substitute_bespoke_stratos_17k_1row.jsonl"
    (row,) = real_rows(path, "openthoughts")
    assert "Ms. Blackwell gives an exam to two classes" in row["question"]
    assert row["thinking"].startswith("Okay, let's see.")
    assert row["response"].endswith("\\(\\boxed{C}\\).")
    assert "<|" not in row["thinking"] + row["response"]


def test_real_rows_that_were_cut_are_all_incomplete(shared_data):
    path = shared_data / "openthoughts_114k" / "partial_default_assistant_cut_at_500_chars.jsonl"
    assert real_rows(path, "openthoughts") == ["incomplete"] * 252


def test_real_s1_questions_go_through_the_s1_reader_with_a_trace_put_beside_them(shared_data):
    path = shared_data / "s1k" / "partial_solution_question_source_type.jsonl"
    raw = json.loads(path.open(encoding="utf-8").readline())
    assert curate.normalise(raw, source("s1"), 1) == ["incomplete"]
    traced = raw | {"deepseek_thinking_trajectory": "why", "deepseek_attempt": "so"}
    (row,) = curate.normalise(traced, source("s1"), 1)
    assert (row["question"], row["answer"]) == (raw["question"].strip(), raw["solution"])


def test_real_questions_are_found_again_in_themselves_and_not_in_each_other(shared_data):
    path = shared_data / "s1k" / "partial_solution_question_source_type.jsonl"
    questions = [json.loads(line)["question"] for line in path.open(encoding="utf-8")]
    long = [q for q in dict.fromkeys(questions) if len(curate.words(q)) > 30][:100]
    asked = [{"question": text, "private": False} for text in long[:50]]
    index = curate.Contamination(asked, Decontaminate(ngram=8, min_share=0.9))
    assert all(index.hit(f"Consider this. {q}") for q in long[:50])
    assert not any(index.hit(q) for q in long[50:])
