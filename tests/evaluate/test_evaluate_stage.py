"""What a reader sees of graded samples, and the cells of notebook 04 that show it."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest

from tinyr1.core import config
from tinyr1.evaluate import stage

ASKED = {
    "mini-math": [{"id": "m", "question": "How many?", "answer": "7", "private": False}],
    "gpqa": [{"id": "g", "question": "SECRET", "answer": "0", "private": True}],
}


def row(model, benchmark, outcome, text, n_tokens=3):
    return {"model": model, "benchmark": benchmark, "question": benchmark[0], "sample": 0, "outcome": outcome,
            "text": text, "n_tokens": n_tokens}  # fmt: skip


GRADED = pd.DataFrame([
    row("backbone", "mini-math", "correct", "seven of the backbone"),
    row("code", "mini-math", "truncated", "cut off by code"),
    row("science", "mini-math", "truncated", "cut off by science"),
    row("science", "mini-math", "correct", "seven of science"),
    row("code", "gpqa", "wrong", "SECRET, it must be A"),
])  # fmt: skip


def cell(words):
    """Source of the one code cell of notebook 04 that holds `words`."""
    book = json.loads((config.ROOT / "notebooks" / "04_evaluation.ipynb").read_text(encoding="utf-8"))
    (found,) = [s for c in book["cells"] if c["cell_type"] == "code" and words in (s := "".join(c["source"]))]
    return found


def test_each_outcome_of_each_benchmark_has_an_example_by_the_first_model_that_has_it(home, capsys):
    exec(cell("evaluate.examples"), {"evaluate": stage, "cfg": config.load("smol"), "graded": GRADED,
                                     "questions": ASKED})  # fmt: skip
    shown = capsys.readouterr().out.split(f"\n{'-' * 60}\n")
    assert shown == [
        "[gpqa: wrong, by code] its questions must not be published",
        "[mini-math: correct, by backbone] How many?\n\nseven of the backbone\n\nright: 7",
        "[mini-math: truncated, by science] How many?\n\ncut off by science\n\nright: 7\n",
    ]


@pytest.mark.parametrize("has_gpu", [True, False])
def test_the_notebook_samples_on_the_gpu_that_torch_can_use(has_gpu):
    told = []
    exec(cell("evaluate.generate("), {
        "record": SimpleNamespace(has_gpu=lambda: has_gpu), "watch": SimpleNamespace(lap=print), "cfg": None,
        "evaluate": SimpleNamespace(generate=lambda *a, has_gpu: told.append(has_gpu)), "questions": {},
    })  # fmt: skip
    assert told == [has_gpu]


def test_the_lengths_of_answers_are_quantiles_of_those_that_were_counted():
    rows = pd.DataFrame([row("m", "counted", "wrong", "", n) for n in [*range(101), None]]
                        + [row("m", "not", "wrong", "", None)])  # fmt: skip
    table = stage.token_quantiles(rows)
    assert table.to_dict("index") == {
        "counted": {"min": 0, "25 %": 25, "median": 50, "75 %": 75, "95 %": 95, "max": 100}
    }
    assert stage.token_quantiles(rows[rows.benchmark == "not"]).empty
