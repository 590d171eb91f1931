"""The paper's claims as comparisons that a run decides for itself."""

import pandas as pd
import pytest

from tinyr1.report import claims

DOMAINS = {"aime24": "math", "aime25": "math", "gpqa": "science", "lcb": "code"}


def rows(scores: dict[str, dict[str, list[float]]]) -> pd.DataFrame:
    """Scores by model and benchmark, one a question."""
    return pd.DataFrame([
        {"model": m, "benchmark": b, "question": f"q{i}", "score": s}
        for m, by_benchmark in scores.items()
        for b, values in by_benchmark.items()
        for i, s in enumerate(values)
    ])


def test_verdicts_follow_the_interval_and_an_average_is_of_benchmarks():
    merged = {"aime24": [1, 1, 1, 0], "aime25": [1, 1, 0, 1], "gpqa": [0, 1] * 50, "lcb": [0, 1] * 100}
    mixture = {b: [0] * len(v) for b, v in merged.items()}
    table = claims.audit(rows({"math-science-code": merged, "backbone": merged, "mixture": mixture}), DOMAINS)
    assert table.index.is_unique, "two benchmarks of one domain are one claim"
    assert table.loc["merged model over backbone, math", "verdict"] == "undecided here"
    average = table.loc["merged model over data mixture, average"]
    assert average.verdict == "higher here"
    assert average["ours, points"].startswith("+62.5 "), "75, 75, 50 and 50 points, each benchmark the same"


def test_the_papers_differences_come_from_its_tables():
    found = {c.text: claims.published(c) for c in claims.claims(("math", "science", "code"), True)}
    assert found["merged model over backbone, math"] == pytest.approx(78.1 - 72.6)
    assert found["merged model over backbone, science"] == pytest.approx(65.0 - 62.1)
    average = (78.1 + 61.6 + 65.0 - 75.3 - 61.0 - 65.7) / 3
    assert found["merged model over data mixture, average"] == pytest.approx(average)
