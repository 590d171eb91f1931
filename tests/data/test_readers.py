"""Rows of the datasets become training rows, or one reason."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyr1.core.params.domains import FileSource
from tinyr1.data import columns, ledger, readers, schema, sources

THOUGHT = "<|begin_of_thought|>\n\nwhy\n\n<|end_of_thought|>\n\n"
SOLUTION = "<|begin_of_solution|>\n\nThe answer is 5.\n\n<|end_of_solution|>"


def source(columns, path="x", keep=None, correct="verified", **options):
    return FileSource(
        kind="files", columns=columns, path=str(path), rows=None, keep=keep or {}, correct=correct, **options
    )


def normalised(raw, spec, generations=1, taught=None):
    """Rows and reasons of one raw row."""
    return [candidate for candidate, _ in readers.normalise(raw, spec, generations, taught)]


def reason(raw, spec):
    (drop,) = normalised(raw, spec)
    assert drop.reason in ledger.REASONS
    return drop.reason


def openr1(generations=("<think>a</think>b",), **other):
    row = {"problem": "p", "answer": "5", "question_type": "x", "source": "y", "generations": generations,
           "correctness_math_verify": [True] * len(generations or ())}  # fmt: skip
    return row | other


def metadata(**other):
    return {"problem": "p", "deepseek_reasoning": "t", "deepseek_solution": "s", "domain": "math"} | other


def says(*turns):
    """Turns as ShareGPT has them: says("human", "q", "gpt", "a")."""
    return {"conversations": [{"from": w, "value": t} for w, t in zip(turns[::2], turns[1::2], strict=True)]}


def messages(*turns):
    return {"messages": [{"role": w, "content": t} for w, t in zip(turns[::2], turns[1::2], strict=True)]}


@pytest.mark.parametrize(
    ("columns", "keep", "raw", "expected"),
    [
        ("openthoughts_metadata", {"domain": ["code"]}, metadata(), "domain"),
        ("openthoughts_metadata", {}, metadata(deepseek_solution=" "), "incomplete"),
        ("openthoughts_metadata", {}, metadata(deepseek_reasoning=" "), "no_reasoning"),
        ("openthoughts_metadata", {}, metadata(problem=["a", "list"]), "malformed"),
        ("openthoughts_metadata", {}, metadata(problem=5), "malformed"),
        ("openthoughts_metadata", {}, metadata(deepseek_solution="half \ud83d"), "malformed"),
        ("openthoughts_metadata", {"domain": ["x"]}, {"problem": "p", "deepseek_reasoning": "t"}, "malformed"),
        ("openr1_math", {}, openr1(None), "malformed"),
        ("openr1_math", {}, openr1("text"), "malformed"),
        ("openr1_math", {}, openr1([None]), "incomplete"),
        ("openr1_math", {}, openr1([]), "incomplete"),
        ("openr1_math", {}, openr1(problem=None), "no_question"),
        ("openr1_math", {}, openr1(answer=math.nan), "no_answer"),
        ("openr1_math", {}, openr1(answer=["5"]), "malformed"),
        ("openr1_math", {}, openr1(answer=True), "malformed"),
        ("openr1_math", {}, openr1(["<think>\n\n</think>\n\n5"]), "no_reasoning"),
        ("openr1_math", {}, openr1(correctness_math_verify=[True, True]), "malformed"),
        ("openr1_math", {}, openr1(correctness_math_verify=None), "unverified"),
        ("openr1_math", {}, openr1(correctness_math_verify="yes"), "malformed"),
        ("openr1_math", {}, openr1(is_reasoning_complete=[False]), "incomplete"),
        ("openr1_math", {}, openr1(finish_reasons=["length"]), "incomplete"),
        ("s1", {"cot_type": ["science"]}, {"question": "q", "cot_type": "math"}, "cot_type"),
        ("s1", {}, {"question": "q", "thinking_trajectories": [], "attempt": "a"}, "no_reasoning"),
        ("s1", {}, {"question": "q", "thinking_trajectories": ["t"], "attempt": None}, "incomplete"),
        ("openthoughts", {}, says("user", "q"), "incomplete"),
        ("openthoughts", {}, says("user", "q", "assistant", None), "incomplete"),
        ("openthoughts", {}, messages("user", "q", "assistant", "a"), "malformed"),
        ("openthoughts", {}, says("assistant", "a"), "malformed"),
        ("sharegpt", {}, says("tool", "a"), "malformed"),
        ("sharegpt", {}, {"conversations": []}, "malformed"),
        ("sharegpt", {}, {"conversations": "text"}, "malformed"),
        ("sharegpt", {}, says("human", "q", "gpt", "no tags"), "no_reasoning"),
        ("messages", {}, messages("user", "q", "user", "q", "assistant", "a"), "malformed"),
        ("messages", {}, messages("user", "q", "assistant", [{"type": "image"}]), "malformed"),
        ("messages", {}, messages("user", "q", "assistant", "<think>never closed"), "incomplete"),
    ],
)  # fmt: skip
def test_a_row_that_gives_nothing_has_the_reason_that_is_true(columns, keep, raw, expected):
    assert reason(raw, source(columns, keep=keep)) == expected


@pytest.mark.parametrize("raw", [None, 5, "text", ["list"], True])
def test_a_row_that_is_no_mapping_is_malformed(raw):
    assert reason(raw, source("s1")) == "malformed"


def test_a_row_with_role_and_content_says_which_columns_read_it():
    (drop,) = normalised({"conversations": [{"role": "user", "content": "q"}]}, source("sharegpt"))
    assert "columns: messages" in drop.detail
    (drop,) = normalised({"messages": [{"from": "human", "value": "q"}]}, source("messages"))
    assert "columns: sharegpt" in drop.detail


@pytest.mark.parametrize(("number", "text"), [(5, "5"), (5.0, "5"), (0.25, "0.25"), (-3, "-3"), ("7", "7")])
def test_a_number_as_answer_is_text(number, text):
    (row,) = normalised(openr1(answer=number), source("openr1_math"))
    assert row["answer"] == text


def test_marks_that_are_missing_count_as_not_verified_and_the_ledger_says_so():
    (row,) = normalised(openr1(["<think>a</think>b", "<think>c</think>d"], correctness_math_verify=[True]),
                        source("openr1_math"), 2)  # fmt: skip
    assert row["thinking"] == "a"
    ((_, parsed),) = readers.normalise(openr1(correctness_math_verify=[True]), source("openr1_math"), 2)
    assert parsed.detail == ""
    two = openr1(["<think>a</think>b"] * 2, correctness_math_verify=[True])
    assert readers.normalise(two, source("openr1_math"), 2)[0][1].detail == "1 of 2 marks are missing"


def test_the_same_generation_twice_is_one_sample():
    rows = normalised(openr1(["<think>a</think>b"] * 2 + ["<think>c</think>b"]), source("openr1_math"), 3)
    assert [row["thinking"] for row in rows] == ["a", "c"]


def test_several_closing_tags_leave_no_tag_in_what_is_trained():
    (row,) = normalised(openr1(["<think>a</think> wait </think>\n\\boxed{5}</think>"]), source("openr1_math"))
    assert (row["response"], "think>" in row["thinking"]) == ("\\boxed{5}", False)
    assert "wait" in row["thinking"]


def test_a_row_without_reasoning_is_kept_by_a_switch():
    (row,) = normalised(openr1(["<think>\n\n</think>\n\n5"]), source("openr1_math", without_reasoning="keep"))
    assert (row["thinking"], row["response"]) == ("", "5")
    (row,) = normalised(says("human", "q", "gpt", "no tags"), source("sharegpt", without_reasoning="keep"))
    assert (row["thinking"], row["response"]) == ("", "no tags")


def test_filters_compare_without_blanks_and_case():
    for said in ("physics", "Physics", "physics ", " PHYSICS\n"):
        (row,) = normalised(metadata(domain=said), source("openthoughts_metadata", keep={"domain": ["physics"]}))
        assert isinstance(row, dict)
    assert reason(metadata(domain=None), source("openthoughts_metadata", keep={"domain": ["None"]})) == "domain"


TURNS = (
    "human",
    "First?",
    "gpt",
    "<think>a</think>one",
    "human",
    "Second?",
    "gpt",
    "<think>b</think>two",
    "human",
    "?",
)
BEFORE = [{"role": "user", "content": "First?"}, {"role": "assistant", "content": "one"}]


def test_of_a_conversation_the_last_answer_is_taken_with_what_stands_before_it():
    (row,) = normalised(says(*TURNS), source("sharegpt"))
    assert (row["question"], row["thinking"], row["response"], row["history"]) == ("Second?", "b", "two", BEFORE)


def test_of_a_conversation_all_answers_can_be_taken_each_with_its_loss_once():
    first, second = normalised(says(*TURNS), source("sharegpt", turns="all"))
    assert (first["question"], first["response"], "history" in first) == ("First?", "one", False)
    assert (second["question"], second["history"]) == ("Second?", BEFORE)


def test_conversations_can_be_refused():
    assert reason(says(*TURNS), source("sharegpt", turns="refuse")) == "several_turns"
    assert isinstance(normalised(says(*TURNS[:4]), source("sharegpt", turns="refuse"))[0], dict)


def test_openthoughts_turns_keep_their_history_too():
    (row,) = normalised(says("user", "First?", "assistant", THOUGHT + SOLUTION, "user", "Second?", "assistant",
                             THOUGHT + SOLUTION), source("openthoughts"))  # fmt: skip
    assert [turn["content"] for turn in row["history"]] == ["First?", "The answer is 5."]


def test_a_system_turn_is_history():
    (row,) = normalised(
        messages("system", "Be brief.", "user", "q", "assistant", "<think>a</think>b"), source("messages")
    )
    assert row["history"] == [{"role": "system", "content": "Be brief."}]
    (row,) = normalised(says("human", "q", "gpt", "<think>a</think>b") | {"system": "Be brief."}, source("sharegpt"))
    assert row["history"] == [{"role": "system", "content": "Be brief."}]


@pytest.mark.parametrize(
    "turn",
    [
        {"content": "so", "reasoning_content": "why"},
        {"content": "so", "reasoning": "why"},
        {"content": "<think>why</think>so"},
        {"content": [{"type": "text", "text": "<think>why</think>"}, {"type": "text", "text": "so"}]},
    ],
)
def test_reasoning_of_a_message_stands_apart_or_in_tags(turn):
    raw = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", **turn}]}
    (row,) = normalised(raw, source("messages"))
    assert (row["thinking"], row["response"]) == ("why", "so")


def test_tags_are_those_that_the_params_name():
    raw = messages("user", "q", "assistant", "[R]why[/R]so")
    (row,) = normalised(raw, source("messages", think_tags=("[R]", "[/R]")))
    assert (row["thinking"], row["response"]) == ("why", "so")


def test_columns_are_those_that_the_params_name():
    names = {"question": "frage", "response": "text", "answer": "zahl"}
    raw = {"frage": "q", "text": "<think>why</think>so", "zahl": 5, "other": [1]}
    (row,) = normalised(raw, source("columns", names=names))
    assert row == {"question": "q", "starter_code": "", "thinking": "why", "response": "so", "answer": "5"}
    (row,) = normalised(raw | {"weil": "since"}, source("columns", names=names | {"reasoning": "weil"}))
    assert row["thinking"] == "since"
    with pytest.raises(ValueError, match="names: goes with `columns: columns`"):
        source("s1", names=names)
    with pytest.raises(ValueError, match="names: goes with `columns: columns`"):
        source("columns")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(alphabet=st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8,
)  # fmt: skip
ROWS = {
    "openr1_math": openr1() | {"is_reasoning_complete": [True], "finish_reasons": ["stop"]},
    "openthoughts": says("user", "q", "assistant", THOUGHT + SOLUTION), "openthoughts_metadata": metadata(),
    "s1": {"question": "q", "solution": "s", "deepseek_thinking_trajectory": "t", "deepseek_attempt": "a"},
    "messages": messages("user", "q", "assistant", "<think>a</think>b"),
    "sharegpt": says("human", "q", "gpt", "<think>a</think>b"),
    "columns": {"question": "q", "response": "<think>a</think>b"},
}  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(columns=st.sampled_from(sorted(ROWS)), data=st.data())
def test_any_value_in_any_field_gives_rows_of_text_or_one_reason(columns, data):
    """Whatever JSON can hold: no traceback, nothing but text in a row, and every reason is known."""
    raw = json.loads(json.dumps(ROWS[columns]))
    field = data.draw(st.sampled_from(sorted(raw)))
    if isinstance(raw[field], list) and data.draw(st.booleans()):  # a value inside a list, or inside one of its turns
        i = data.draw(st.integers(0, len(raw[field]) - 1))
        if isinstance(raw[field][i], dict):
            raw[field][i][data.draw(st.sampled_from(sorted(raw[field][i])))] = data.draw(ANYTHING)
        else:
            raw[field][i] = data.draw(ANYTHING)
    else:
        raw[field] = data.draw(ANYTHING)
    names = {"question": "question", "response": "response"} if columns == "columns" else None
    found = normalised(raw, source(columns, keep={field: ["a"]} if data.draw(st.booleans()) else None, names=names), 2)
    assert found
    for candidate in found:
        if isinstance(candidate, dict):
            json.dumps(candidate, ensure_ascii=False).encode()
            assert all(isinstance(candidate[name], str) for name in ("question", "thinking", "response", "answer"))
        else:
            assert candidate.reason in ledger.REASONS or candidate.reason == field


def test_a_source_names_the_columns_that_it_needs():
    alternatives = {"other": {"keep": {"level": ["1"]}, "correct": "any"}}
    spec = source("openr1_math", keep={"source": ["x"]}, alternatives=alternatives)
    assert schema.required(spec) == ["problem", "answer", "generations", "correctness_math_verify", "source", "level"]


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
    assert columns.openthoughts_parts(text) == parts


def test_the_answer_of_an_openthoughts_row_stays_outside_the_reasoning():
    """docs/fidelity.md C3: the paper's replacement, taken literally, would put `</think>` after the answer."""
    turns = [{"from": "user", "value": "q"}, {"from": "assistant", "value": THOUGHT + SOLUTION}]
    (row,) = normalised({"conversations": turns}, source("openthoughts"))
    assert "5" not in row["thinking"]
    assert row["response"] == "The answer is 5."
    assert "<|" not in row["thinking"] + row["response"]


def real_rows(path, columns, domain="math", **options):
    spec = source(columns, path, **options)
    return [c for raw in sources.read_source(spec, domain, 0) for c in normalised(raw.value, spec, 4)]


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
    assert [drop.reason for drop in real_rows(path, "openthoughts")] == ["incomplete"] * 252


def test_real_s1_questions_go_through_the_s1_reader_with_a_trace_put_beside_them(shared_data):
    path = shared_data / "s1k" / "partial_solution_question_source_type.jsonl"
    raw = json.loads(path.open(encoding="utf-8").readline())
    assert reason(raw, source("s1")) == "incomplete"
    traced = raw | {"deepseek_thinking_trajectory": "why", "deepseek_attempt": "so"}
    (row,) = normalised(traced, source("s1"))
    assert (row["question"], row["answer"]) == (raw["question"].strip(), raw["solution"])
