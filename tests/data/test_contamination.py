"""Which questions repeat the wording of a benchmark question."""

import json

import pytest

from tinyr1.core.params.domains import Decontaminate
from tinyr1.data.contamination import Contamination, words

BENCHMARK = "A train leaves the town of Alma at noon and runs 90 kilometers per hour towards the distant sea"
CLEAN = "How many ways are there to seat five guests around one table"


def rule(share=0.5, private=False):
    return Contamination([{"question": BENCHMARK, "private": private}], Decontaminate(ngram=8, min_share=share))


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


def test_real_questions_are_found_again_in_themselves_and_not_in_each_other(shared_data):
    path = shared_data / "s1k" / "partial_solution_question_source_type.jsonl"
    questions = [json.loads(line)["question"] for line in path.open(encoding="utf-8")]
    long = [q for q in dict.fromkeys(questions) if len(words(q)) > 30][:100]
    asked = [{"question": text, "private": False} for text in long[:50]]
    index = Contamination(asked, Decontaminate(ngram=8, min_share=0.9))
    assert all(index.hit(f"Consider this. {q}") for q in long[:50])
    assert not any(index.hit(q) for q in long[50:])
