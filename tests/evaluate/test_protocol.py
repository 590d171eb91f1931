import collections
import datetime
import json
import re
from dataclasses import replace

import pytest
from test_grade import params_of, rules

from tinyr1.core import config, prompts
from tinyr1.core.errors import UserError
from tinyr1.core.params.schema import Params
from tinyr1.evaluate import protocol as protocols
from tinyr1.evaluate.released import RELEASED

AIME = {"id": "60", "kind": "integer", "question": "What is $1+1$ in {braces}?", "answer": "2"}
GPQA = [
    {"id": f"rec{i}", "kind": "option", "question": f" Which of {i}?\n", "options": [f"o{n} " for n in range(4)],
     "answer": "0"} for i in range(60)
]  # fmt: skip
STDIN = {"id": "a", "kind": "program", "question": "Add $x$.", "starter_code": ""}
CALL = STDIN | {"id": "b", "starter_code": "class Solution:\n    def f(self):\n        "}


def test_the_paper_run_samples_as_the_paper_says(monkeypatch):
    monkeypatch.delenv("TINYR1_PARAMS", raising=False)
    params = config.load("paper").params
    assert params.evaluate.protocol == "released"
    found = {name: protocols.of(params, name) for name in params.benchmarks}
    assert {name: p.samples for name, p in found.items()} == {"aime24": 16, "gpqa": 4, "livecodebench": 4}
    for protocol in found.values():
        assert (protocol.temperature, protocol.top_p, protocol.max_tokens) == (0.6, 0.95, 32768)
        assert protocol.differs() == ()
        assert protocol.known_faults
    assert params.benchmarks["livecodebench"].window == (datetime.date(2024, 8, 1), datetime.date(2025, 2, 1))
    assert params.benchmarks["livecodebench"].release == "release_v5"


def test_other_sampling_than_the_papers_is_named():
    assert rules("released", "aime", samples=2).differs() == ("samples 2, paper 16",)
    assert rules("sound", "miniature", "mini-math").differs() == ()


def test_the_released_aime_prompt_is_raw_text_with_single_braces_and_no_think_tag():
    (request, second) = protocols.requests(rules("released", "aime"), [AIME], 2)
    assert request == {
        "question": "60", "sample": 0, "open_think": False, "order": None, "seed": 0,
        "prompt": "<｜begin▁of▁sentence｜>Please reason step by step, and put your final answer within \\boxed{}."
                  "<｜User｜>What is $1+1$ in {braces}?<｜Assistant｜>",
    }  # fmt: skip
    assert second == request | {"sample": 1, "seed": 1}


def test_the_released_gpqa_prompt_has_its_double_braces_and_options_on_one_line():
    protocol = rules("released", "gpqa")
    (request,) = protocols.requests(protocol, GPQA[:1], 1)
    system, user = request["messages"]
    assert system == {
        "role": "system", "content": "You are a helpful and harmless assistant. You should think step-by-step."
    }
    a, b, c, d = request["order"]
    assert user["content"] == (
        "Return your final response within \\boxed{{}} and only include the letter choice (A, B, C, or D) as your "
        f"final response.  Which of 0?\n\nA) o{a} , B) o{b} , C) o{c} , D) o{d} "
    )
    assert (request["open_think"], request["seed"]) == (False, 0)
    assert protocol.stop_token_ids == (151645, 151643)


def test_the_released_code_prompts_differ_by_starter_code():
    first, second = protocols.requests(rules("released", "livecodebench"), [STDIN, CALL], 1)
    (message,) = first["messages"]
    assert message["content"].startswith("You will be given a question (problem specification) and will generate a ")
    assert "\n\nQuestion: Add $x$.\n\nRead the inputs from stdin solve the problem" in message["content"]
    assert message["content"].endswith("\n```python\n# YOUR CODE HERE\n```\n\n")
    assert second["messages"][0]["content"].endswith(
        "delimiters.\n```python\nclass Solution:\n    def f(self):\n        \n```\n\n"
    )
    assert first["seed"] == 10008


def instruction_of(domain):
    """What run `smoke`, on which `rules` builds, appends to the questions of its benchmark."""
    return config.load("smoke").params.domains[domain].instruction_for(domain == "science")


@pytest.mark.parametrize(("name", "question"), [("mini-math", AIME), ("mini-science", GPQA[0]), ("mini-code", CALL)])
def test_the_sound_prompt_is_the_one_that_training_uses(name, question):
    question = {k: v for k, v in question.items() if k != "options"}
    (request,) = protocols.requests(rules("sound", "miniature", name), [question], 1)
    instruction = instruction_of(name.removeprefix("mini-"))
    text = prompts.user_turn(instruction, question["question"], question.get("starter_code", ""))
    assert request["messages"] == [{"role": "user", "content": text}]
    assert (request["open_think"], request["seed"], request["order"]) == (True, None, None)


def test_the_sound_gpqa_prompt_has_its_options_on_lines():
    (request,) = protocols.requests(rules("sound", "gpqa"), GPQA[:1], 1)
    lines = [f"{letter}) o{i}" for letter, i in zip("ABCD", request["order"], strict=True)]
    text = prompts.user_turn(instruction_of("science"), "\n".join(["Which of 0?", *lines]))
    assert request["messages"] == [{"role": "user", "content": text}]
    assert protocols.shown_text(rules("sound", "gpqa"), GPQA[0]) == text


def test_a_raw_prompt_is_what_shows_a_question_where_there_is_no_message():
    protocol = rules("released", "aime")
    assert protocols.shown_text(protocol, AIME) == protocols.requests(protocol, [AIME], 1)[0]["prompt"]


def test_the_kind_of_a_benchmark_decides_how_it_is_answered_whatever_its_domain_is_called():
    data = params_of({})
    law = data["domains"].pop("math") | {"instruction": "Cite $5.", "instruction_with_options": "Give the letter."}
    common = {"kind": "miniature", "levels": [1], "questions": 2, "samples": 1, "max_tokens": 9}
    law["benchmarks"] = {f"law-{tasks}": common | {"tasks": tasks} for tasks in ("math", "science", "code")}
    data["domains"] = {"law": law}
    data["backbone"]["distill"]["rows"] = {"law": 8}
    data["merge"]["models"] = [{"recipe": {"method": "linear", "models": [{"model": "law"}, {"model": "mixture"}]}}]
    data |= {"ablations": None, "analysis": {"margin": 5, "headline": [{"model": "law", "against": "backbone"}]}}
    params = Params.model_validate(data)
    found = {name: protocols.of(params, name) for name in params.benchmarks}
    assert {name: (p.extraction, p.grader) for name, p in found.items()} == {
        "law-math": ("boxed_integer", "integer"), "law-science": ("anchored_option", "option"),
        "law-code": ("last_fence_or_program", "program"),
    }  # fmt: skip
    texts = {name: protocols.shown_text(p, CALL) for name, p in found.items()}
    assert texts["law-math"] == "Add $x$.\nCite $5."
    assert texts["law-science"].endswith("\nGive the letter.")
    assert "class Solution" in texts["law-code"]


def test_over_four_samples_every_option_stands_at_every_letter_once():
    protocol = rules("sound", "gpqa")
    for question in GPQA:
        for block in (range(4), range(4, 8)):
            orders = [protocols.order(protocol, question, sample) for sample in block]
            for letter in range(4):
                assert sorted(o[letter] for o in orders) == [0, 1, 2, 3]


def test_orders_differ_between_questions_and_blocks_and_do_not_favour_a_letter():
    protocol = rules("sound", "gpqa")
    first = [protocols.order(protocol, q, 0) for q in GPQA]
    assert len(set(first)) > 15
    assert [protocols.order(protocol, q, 4) for q in GPQA] != first
    gold = collections.Counter(order.index(0) for order in first)
    assert all(6 <= gold[letter] <= 25 for letter in range(4))  # 15 expected


def test_an_order_depends_on_question_and_sample_alone():
    sound, released = rules("sound", "gpqa", samples=4), rules("released", "gpqa", samples=16)
    assert protocols.order(sound, GPQA[7], 2) == protocols.order(rules("sound", "gpqa", samples=9), GPQA[7], 2)
    every = protocols.requests(released, GPQA)
    fewer = protocols.requests(released, GPQA[30:], 4)
    assert [r["order"] for r in fewer] == [r["order"] for r in every[30 * 16 :] if r["sample"] < 4]
    assert all(sorted(r["order"]) == [0, 1, 2, 3] for r in every)
    assert len({tuple(r["order"]) for r in every}) == 24


def test_requests_come_for_each_question_and_sample_and_are_plain_values():
    made = protocols.requests(rules("sound", "gpqa"), GPQA[:3])
    assert [(r["question"], r["sample"]) for r in made] == [(f"rec{i}", s) for i in range(3) for s in range(4)]
    assert json.loads(json.dumps(made)) == made


def test_a_description_is_complete_and_plain():
    protocol = rules("released", "aime")
    described = protocol.describe()
    assert {"prompt", "temperature", "samples", "stop", "extraction", "grader", "known_faults"} <= described.keys()
    assert described["protocol_hash"] == protocol.key[:16]
    assert json.dumps(described)
    assert protocol.sampling() == {
        "temperature": 0.6, "top_p": 0.95, "max_tokens": 32768, "stop": ["</s>"], "stop_token_ids": [], "seed": 0,
    }  # fmt: skip


def test_the_key_changes_with_every_part():
    one = rules("sound", "gpqa")
    assert one.key == rules("sound", "gpqa").key
    assert len({one.key, rules("sound", "gpqa", samples=8).key, rules("released", "gpqa").key}) == 3
    assert one.template_hash == rules("sound", "gpqa", samples=8).template_hash


def test_responses_outlive_a_change_of_grading_or_k_but_not_of_prompt_or_sampling():
    one = rules("sound", "gpqa")
    key = protocols.response_key(one, GPQA)
    for kept in ({"samples": 16}, {"grader": "x", "extraction": "y", "reads": "whole"}, {"known_faults": ("z",)}):
        assert protocols.response_key(replace(one, **kept), GPQA) == key
    changes = (
        {"prompt": "${question} ${options}"}, {"temperature": 0.0}, {"first_seed": 1}, {"stop": ("x",)},
        {"option_order": "shuffled"}, {"open_think": False}, {"max_tokens": 9},
    )  # fmt: skip
    assert key not in {protocols.response_key(replace(one, **changed), GPQA) for changed in changes}
    assert protocols.response_key(one, GPQA[1:]) != key
    assert replace(one, known_faults=("z",)).key == one.key != replace(one, grader="x").key


def test_the_remarks_of_the_released_rules_name_three_sets_of_versions_and_documents_that_exist():
    remarks = {kind: " ".join([*r["known_faults"], *r["not_reproduced"]]) for kind, r in RELEASED.items()}
    version = re.compile(r"\b[0-9]\.[0-9]\.[0-9]\S*|\b4\.[0-9]+\.[0-9]")
    versions = {kind: version.findall(text) for kind, text in remarks.items()}
    first, second = ["0.6.3.post1", "4.45.2"], ["0.6.6.post1", "4.49.0"]
    assert versions == {"aime": ["0.5.1", "4.42.3"], "gpqa": first + second, "livecodebench": first}
    for kind, text in remarks.items():
        cited = re.findall(r"docs/\w+\.md", text)
        assert cited, kind
        assert all((config.ROOT / path).is_file() for path in cited)
        assert RELEASED[kind].keys() <= set(protocols.Protocol.__dataclass_fields__)


def test_the_released_protocol_does_not_know_the_miniature(params_text):
    with pytest.raises(UserError, match="the released protocol knows aime, gpqa and livecodebench only"):
        config.parse(params_text.replace("protocol: sound", "protocol: released"), "x")
