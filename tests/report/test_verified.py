"""Published and measured: the items of a verification run, its sentence, its tables and its page."""

import numpy as np
import pandas as pd
import pytest
from report_parts import write_record

from tinyr1.core import config, paper
from tinyr1.evaluate import scores
from tinyr1.report import index, verification

ASKED = {"aime24": 30, "aime25": 30, "gpqa": 198, "livecodebench": 279}


def answers(run, shares):
    """Graded samples of the model of a run: benchmark -> share of right answers, the same for all questions."""
    rows = []
    for name, share in shares.items():
        k = run.params.benchmarks[name].samples
        for question in range(ASKED[name]):
            right = round(k * share) if k > 4 else int(question % 10 < round(10 * share)) * k
            ended = ["correct"] * right + ["wrong"] * (k - right)
            rows += [
                {"model": run.models[0], "benchmark": name, "question": f"q{question}", "sample": i, "outcome": outcome,
                 "extracted": None, "n_tokens": 9000.0, "looping": False} for i, outcome in enumerate(ended)
            ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def run(tmp_path, monkeypatch):
    for name in ("HOME", "REPORTS"):
        monkeypatch.setenv(f"TINYR1_{name}", str(tmp_path / name.lower()))
    return config.load("verify-r1-distill-32b")


@pytest.fixture
def items(run):
    near = {"aime24": 0.75, "aime25": 0.5, "gpqa": 0.6, "livecodebench": 0.3}  # published: 72.6, none, 62.1, 57.2
    return verification.compared(run, answers(run, near))


def test_each_benchmark_has_an_item_and_a_published_score_where_somebody_published_one(items):
    assert [item["benchmark"] for item in items] == list(ASKED)
    aime, other, gpqa, code = items
    assert (aime["published"], aime["their_k"], aime["n"], aime["k"]) == (72.6, 64, 30, 16)
    assert (aime["ours"], aime["less"], aime["tokens"], aime["their_tokens"]) == (75.0, 2.4, 9000.0, 9.6)
    # 30 x 0.75 · 0.25 / 15 · (1 + 16 / 64) / 30² = 0.0228²; 1.96 · 2.282 = 4.47 points
    assert (aime["less_low"], aime["less_high"]) == pytest.approx((2.4 - 4.47, 2.4 + 4.47), abs=0.02)
    assert (other["published"], other["less"], other["verdict"]) == (None, None, verification.NOTHING)
    assert gpqa["verdict"] == "similar"
    assert (code["verdict"], code["words"]) == ("lower", "lower than published")


def test_the_sentence_names_every_benchmark_with_its_verdict(run, items):
    said = verification.headline(run, items)
    assert said.startswith("Of 3 published scores of DeepSeek-R1-Distill-Qwen-32B, within ±5 points: 1 reproduced ")
    assert "1 lower than published (livecodebench)" in said
    assert "1 undecided (aime24)" in said
    assert said.endswith("No score was published for aime25.")


def test_a_score_that_is_far_within_the_margin_is_reproduced_on_thirty_questions(run):
    graded = answers(run, {"aime24": 0.75, "aime25": 0.5, "gpqa": 0.6, "livecodebench": 0.6})
    always = graded["benchmark"].eq("aime24")  # 22 of 30 questions always right: 73.3, no spread between the answers
    graded.loc[always, "outcome"] = np.where(graded["question"][always].str[1:].astype(int) < 22, "correct", "wrong")
    assert verification.compared(run, graded)[0]["verdict"] == "similar"


def test_the_protocol_stands_beside_what_was_published(run):
    told = {"temperature": 0.6, "samples": 16, "grader": "integer"}
    protocols = [told | {"benchmark": name, "n_problems": n} for name, n in ASKED.items()]
    sources = [{"benchmark": name, "path": "hf://x/y/z.jsonl", "revision": "abc"} for name in ASKED]
    table = verification.protocol(run, protocols, sources)
    assert list(table.columns) == ["published", *ASKED]
    assert table.loc["temperature"].to_list() == ["0.6"] * 5
    assert table.loc["samples", "published"] == "64"
    assert table.loc["grader", "published"] == ""
    assert table.loc["commit", "aime24"] == run.params.backbone.revision
    assert table.loc["questions", "gpqa"] == "hf://x/y/z.jsonl at abc"
    tiny = config.load("verify-tinyr1-32b")
    assert verification.protocol(tiny, protocols, sources).loc["samples", "published"] == (
        "16 (aime24), 4 (gpqa), 4 (livecodebench)"
    )


def finished(run, items, shares):
    """The records, scores and items of a finished verification run in its report folder."""
    graded = answers(run, shares)
    asked = {name: [{"id": f"q{i}", "kind": "option" if name == "gpqa" else "integer"} for i in range(n)]
             for name, n in ASKED.items()}  # fmt: skip
    protocols = [{"benchmark": name, "n_problems": n, "temperature": 0.6, "prompt": "Think <hard>."} for name, n in
                 ASKED.items()]  # fmt: skip
    sources = [{"benchmark": name, "path": run.params.benchmarks[name].path, "revision": "abc"} for name in ASKED]
    published = paper.of_run(run.params, ASKED, run.models[0])
    scores.save_scores(run.reports, scores.score_rows(run, graded, asked, published))
    verification.save(run, items)
    write_record(run, "04_evaluation", facts={"protocols": protocols, "sources": sources})
    write_record(run, "05_ablations", facts={"headline": verification.headline(run, items)})


def test_the_page_shows_published_ours_and_verdict_and_no_branches(run, items):
    finished(run, items, {"aime24": 0.75, "aime25": 0.5, "gpqa": 0.6, "livecodebench": 0.3})
    page = index.write_index(run).read_text(encoding="utf-8")
    assert "<h1>Published and measured: DeepSeek-R1-Distill-Qwen-32B</h1>" in page
    assert "72.6 %<small>64 answers to each question; paper Table 1, from arXiv 2501.12948 Table 5</small>" in page
    assert "<b>reproduced</b><small>within ±5 points</small>" in page
    assert "75.0 %" in page
    assert "<b>lower than published</b>" in page
    assert "Think &lt;hard&gt;." in page
    assert "2 of 2 stages finished" in page
    assert page.count('data-stage="') == 2
    words = ("Branch-Merge", "Ablations", "experts of", "expert model", "mixture", "params/paper.yaml")
    assert [word for word in words if word in page] == []
    assert "| aime24 | 72.6, 64 answers to each question (paper Table 1" in (run.reports / "README.md").read_text()


def test_before_it_has_run_the_page_says_what_is_missing(run):
    page = index.write_index(run).read_text(encoding="utf-8")
    assert "There is no comparison yet" in page
    assert "The protocol is recorded by 04_evaluation, which is not finished." in page
