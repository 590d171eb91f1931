"""Rows of the datasets become training rows, or one reason."""

import json

import pytest

from tinyr1.core.params.domains import FileSource
from tinyr1.data import curate, readers, sources

THOUGHT = "<|begin_of_thought|>\n\nwhy\n\n<|end_of_thought|>\n\n"
SOLUTION = "<|begin_of_solution|>\n\nThe answer is 5.\n\n<|end_of_solution|>"


def source(columns, path="x", keep=None, correct="verified"):
    return FileSource(
        kind="files", columns=columns, path=str(path), rows=None, keep=keep or {}, correct=correct
    )


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
    assert readers.normalise(raw, source(columns, keep=keep), 1) == [reason]
    assert reason in curate.REASONS


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
    assert readers.think_parts(text) == parts


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
    assert readers.openthoughts_parts(text) == parts


def test_the_answer_of_an_openthoughts_row_stays_outside_the_reasoning():
    """docs/fidelity.md C3: the paper's replacement, taken literally, would put `</think>` after the answer."""
    turns = [{"from": "user", "value": "q"}, {"from": "assistant", "value": THOUGHT + SOLUTION}]
    (row,) = readers.normalise({"conversations": turns}, source("openthoughts"), 1)
    assert "5" not in row["thinking"]
    assert row["response"] == "The answer is 5."
    assert "<|" not in row["thinking"] + row["response"]


def real_rows(path, columns, domain="math", **options):
    spec = source(columns, path, **options)
    return [c for raw in sources.read_source(spec, domain, 0) for c in readers.normalise(raw, spec, 4)]


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
    assert readers.normalise(raw, source("s1"), 1) == ["incomplete"]
    traced = raw | {"deepseek_thinking_trajectory": "why", "deepseek_attempt": "so"}
    (row,) = readers.normalise(traced, source("s1"), 1)
    assert (row["question"], row["answer"]) == (raw["question"].strip(), raw["solution"])
