"""Published numbers belong to one model on one benchmark, and to no other."""

import pytest

from tinyr1.core import config, paper


def params(**changes):
    """Params of run `paper`, with changes as (path in the file, value)."""
    data = config.load("paper").params.model_dump(mode="json", by_alias=True)
    for path, value in changes.items():
        *above, last = path.split("__")
        block = data
        for key in above:
            block = block[key]
        block[last] = value
    return config.validate(data, "")


ASKED = {"aime24": 30, "gpqa": 198, "livecodebench": 279}
LCB = "domains__code__benchmarks__livecodebench__"


def test_the_papers_backbone_has_the_papers_numbers_and_no_model_that_the_run_makes_has_any():
    scores = paper.of_run(params(), ASKED)
    wanted = {("backbone", "aime24"): 0.726, ("backbone", "gpqa"): 0.621, ("backbone", "livecodebench"): 0.572}
    assert scores == pytest.approx(wanted)


def test_another_distill_has_its_own_numbers_or_none():
    small = params(backbone__model="deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B")
    assert paper.of_run(small, ASKED)[("backbone", "aime24")] == pytest.approx(0.289)
    assert paper.of_run(params(backbone__model="Qwen/Qwen2.5-32B"), ASKED) == {}
    assert paper.of_run(params(backbone__model="DeepSeek-R1-Distill-Qwen-32B"), ASKED) == {}, "a folder of that name"
    assert {score.source for score in paper.of_model(small.backbone.model, small, ASKED).values()} == {paper.R1_REPORT}


def test_a_backbone_that_the_run_distils_is_another_model():
    distill = config.load("smol").params.backbone.model_dump(mode="json")["distill"]
    distill["sft"]["batch_size"] = 8  # that the ranks of `paper` can share
    distilled = params(backbone__distill=distill)
    assert paper.of_run(distilled, ASKED) == {}


@pytest.mark.parametrize(
    ("changes", "asked", "lost"),
    [
        ({}, {"aime24": 29}, "aime24"),
        ({"domains__math__benchmarks__aime24__path": "data/aime24.jsonl"}, {}, "aime24"),  # a file of whatever contents
        ({}, {"gpqa": 448}, "gpqa"),
        ({LCB + "window": ["2024-08-01", "2025-04-30"]}, {}, "livecodebench"),
        ({LCB + "window": ["2024-05-01", "2025-02-01"]}, {}, "livecodebench"),
        ({LCB + "window": ["2024-08-01", "2025-01-31"]}, {}, None),
        ({LCB + "release": "release_v6"}, {}, "livecodebench"),
        ({LCB + "questions": 50}, {}, "livecodebench"),
    ],
)
def test_another_benchmark_or_a_part_of_one_has_no_number(changes, asked, lost):
    if "domains__math__benchmarks__aime24__path" in changes:
        changes |= {f"domains__math__benchmarks__aime24__{key}": None for key in ("revision", "sha256")}
    found = {benchmark for _, benchmark in paper.of_run(params(**changes), ASKED | asked)}
    assert found == set(ASKED) - {lost}


def test_a_miniature_has_no_published_number_whatever_its_name_is():
    smol = config.load("smol").params
    block = next(iter(smol.benchmarks.values()))
    assert paper.benchmark_of(block, 30) is None


def test_aime_of_another_year_is_another_benchmark():
    block = config.load("paper").params.benchmarks["aime24"]
    other = block.model_copy(update={"path": "hf://math-ai/aime25/test.jsonl"})
    assert paper.benchmark_of(block, 30) == "aime24"
    assert paper.benchmark_of(other, 30) is None
    assert paper.benchmark_of(block.model_copy(update={"path": "hf://owner/aime240/test.jsonl"}), 30) is None


@pytest.mark.parametrize("path", ["aime24.jsonl", "/data/HuggingFaceH4/aime_2024/x.parquet", "hf:aime24", "./aime24/"])
def test_a_file_of_ones_own_is_not_the_published_exam_whatever_it_is_called(path):
    block = config.load("paper").params.benchmarks["aime24"]
    own = block.model_copy(update={"path": path, "revision": None, "sha256": None})
    assert paper.benchmark_of(own, 30) is None


def test_tables_show_every_number_with_the_papers_own_names():
    first, second = paper.table_1(), paper.table_2()
    assert first.loc["TinyR1-32B-Preview", "AIME 2024"] == "78.1 (11.8k)"
    assert second.loc["(Math & Coding) & Science"].tolist() == [77.3, 63.8, 64.0, 4.0]
