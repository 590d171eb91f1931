"""What a stored response belongs to, and what a reader sees of graded samples in the cells of notebook 04."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest

from tinyr1.core import artifact, config, machine
from tinyr1.core.params.schema import Params
from tinyr1.data import benchmarks
from tinyr1.evaluate import examples, scores, stage, tables

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


def test_each_outcome_of_each_benchmark_has_an_example_by_the_first_model_that_has_it(home):
    shown = examples.example_answers(config.load("smol"), GRADED, ASKED).split(f"\n{'-' * 60}\n")
    assert shown == [
        "[gpqa: wrong, by code] its questions must not be published",
        "[mini-math: correct, by backbone] How many?\n\nseven of the backbone\n\nright: 7",
        "[mini-math: truncated, by science] How many?\n\ncut off by science\n\nright: 7",
    ]


def answered(**outcomes):
    """One answer of each model to the questions of two benchmarks; outcomes: question -> of models x, y, z."""
    rows = [
        {"model": m, "benchmark": q[0], "question": q, "sample": 0, "outcome": o}
        for q, ended in outcomes.items() for m, o in zip("xyz", ended, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def question(name, private=False):
    return {"id": name, "question": f"<{name}>?", "answer": "7", "private": private, "kind": "integer"}


CORRECT, WRONG, CUT = "correct", "wrong", "truncated"


@pytest.mark.parametrize(
    ("graded", "told"),
    [
        # nobody is right to m0; m1 has one outcome, m2 three
        (answered(m0=[WRONG, CUT, "no_answer"], m1=[CORRECT] * 3, m2=[CORRECT, CUT, WRONG]), ("m", "m2")),
        # of equally many outcomes, that to which fewer models are right
        (answered(m0=[CORRECT, CORRECT, WRONG], m1=[CORRECT, WRONG, WRONG], m2=[CORRECT] * 3), ("m", "m1")),
        # the benchmark s, on which y and z are never right, comes first
        (answered(m0=[CORRECT, CORRECT, CUT], m1=[WRONG, WRONG, CORRECT], s0=[CORRECT, WRONG, WRONG]), ("s", "s0")),
    ],
)
def test_the_question_shown_is_one_that_explains_the_scores(graded, told):
    asked = {"m": [question("m0"), question("m1"), question("m2")], "s": [question("s0")]}
    assert examples.telling_question(graded, asked) == told
    assert examples.telling_question(graded, {"m": [question("m0", private=True)]}) is None


def test_one_question_is_shown_with_the_whole_answer_of_every_model(home):
    asked = {"gpqa": ASKED["gpqa"], "mini-math": [question("mini-math") | {"id": "m"}]}
    long = "Let me see. " * 3000 + "</think><b>so</b>"
    graded = GRADED.assign(looping=False)
    graded.loc[2, ["text", "looping"]] = [long, True]
    page = examples.side_by_side(config.load("smol"), graded[graded.model != "code"], asked).data
    assert "Let me see. " * 3000 + "&lt;/think&gt;&lt;b&gt;so&lt;/b&gt;" in page
    shown = [row.split("</td>")[:2] for row in page.split("<tr>")[2:]]
    texts = [tuple(cell.partition(">")[2] for cell in row) for row in shown]
    assert texts == [("the question", ""), ("backbone", "correct"), ("science", "truncated, loops"), ("right is", "")]
    assert "&lt;mini-math&gt;?" in page
    assert "SECRET" not in page
    page = examples.side_by_side(config.load("smol"), graded, {"gpqa": ASKED["gpqa"]}).data
    assert page == "<p>The questions of these benchmarks must not be published.</p>"


def test_an_overview_leaves_out_what_nobody_reads():
    table = tables.overview(
        [
            {"benchmark": "a", "system": None, "stop": [], "sha256": "f" * 64, "prompt": "x", "faults": ["1", "2"]},
            {"benchmark": "b", "system": None, "stop": [], "sha256": "e" * 64, "prompt": "", "faults": [], "yes": True},
        ],
        by="benchmark",
    )
    assert table.fillna("").to_dict() == {
        "a": {"prompt": "x", "faults": "1\n2", "yes": ""}, "b": {"prompt": "", "faults": "", "yes": "yes"},
    }  # fmt: skip
    assert (
        tables.overview([{"of": "p", "probes": {"fork": "denied", "n": 1}}], "of").loc["probes", "p"]
        == "fork: denied\nn: 1"
    )


@pytest.mark.parametrize("has_gpu", [True, False])
def test_the_notebook_samples_on_the_gpu_that_torch_can_use(has_gpu):
    told = []
    exec(cell("stage.generate("), {
        "machine": SimpleNamespace(has_gpu=lambda: has_gpu), "watch": SimpleNamespace(lap=print), "cfg": None,
        "stage": SimpleNamespace(generate=lambda *a, has_gpu: told.append(has_gpu)), "questions": {},
    })  # fmt: skip
    assert told == [has_gpu]


def test_the_lengths_of_answers_are_quantiles_of_those_that_were_counted():
    rows = pd.DataFrame([row("m", "counted", "wrong", "", n) for n in [*range(101), None]]
                        + [row("m", "not", "wrong", "", None)])  # fmt: skip
    table = scores.token_quantiles(rows)
    assert table.to_dict("index") == {
        "counted": {"min": 0, "25 %": 25, "median": 50, "75 %": 75, "95 %": 95, "max": 100}
    }
    assert scores.token_quantiles(rows[rows.benchmark == "not"]).empty


def test_whether_an_answer_loops_is_seen_from_its_text_and_stored_nowhere(home):
    cfg, stuck = config.load("smol"), "Let me see. " + "So x = 4, and " * 5
    graded = GRADED.assign(family="", extracted=None, looping=False)
    graded.loc[1, "text"] = stuck
    stage.save_graded(cfg, graded)
    assert "looping" not in stage.graded_path(cfg).read_text(encoding="utf-8")
    loaded = stage.load_graded(cfg)
    assert loaded["looping"].to_list() == [False, True, False, False, False]
    pd.testing.assert_frame_equal(loaded[["model", "text", "outcome"]], graded[["model", "text", "outcome"]])


# --- identity -------------------------------------------------------------------------------------------------


def changed(cfg, **paths):
    """A run whose parameters differ: a__b__c=value sets a.b.c of the params file."""
    data = cfg.params.model_dump(mode="json")
    for path, value in paths.items():
        *blocks, name = path.split("__")
        inner = data
        for block in blocks:
            inner = inner[block.replace("_", "-") if block.startswith("mini_") else block]
        inner[name] = value
    return cfg.model_copy(update={"params": Params.model_validate(data)})


def keys(cfg):
    """The protocol key of each benchmark of a run."""
    return {name: stage.protocol_key(cfg, name, one.questions) for name, one in benchmarks.load_all(cfg).items()}


ENDPOINT = {"kind": "endpoint", "base_url": "http://127.0.0.1:9/v1", "model": "m", "api_key_variable": None,
            "concurrency": 1, "timeout_seconds": 1.0, "retries": 0}  # fmt: skip


def test_a_protocol_key_depends_on_what_shapes_responses_and_on_nothing_else(home, monkeypatch):
    cfg = config.load("smol")
    before = keys(cfg)
    assert len(set(before.values())) == 3
    for same in (
        {"evaluate__sandbox__cpu_seconds": 9}, {"evaluate__engine__max_num_seqs": 3}, {"description": "x"},
        {"evaluate__engine__enforce_eager": False}, {"evaluate__engine__cpu_kv_cache_gb": 9},
        {"domains__math__benchmarks__mini_math__samples": 4}, {"trainer__weight_decay": 0.5},
    ):  # fmt: skip
        assert keys(changed(cfg, **same)) == before, same
    for other in (
        {"evaluate__temperature": 0.0}, {"evaluate__top_p": 0.5}, {"seed": 1}, {"evaluate__split": "validation"},
        {"evaluate__engine__max_model_len": 400}, {"evaluate__engine": ENDPOINT},
    ):  # fmt: skip
        assert not set(keys(changed(cfg, **other)).values()) & set(before.values()), other
    one = keys(changed(cfg, domains__math__instruction="Else."))
    assert {name for name in one if one[name] != before[name]} == {"mini-math"}
    monkeypatch.setattr(machine, "describe", lambda: {"packages": {"torch": "9.9"}, "cores": 1})
    assert keys(cfg) == before, "versions are described, and do not decide"
    assert stage.describe_protocol(cfg, "mini-math", [])["versions"] == {"torch": "9.9"}


def test_where_a_server_samples_neither_seed_nor_address_shape_the_protocol_key(home):
    cfg = changed(config.load("smol"), evaluate__engine=ENDPOINT)
    questions = [{"id": "m", "question": "How many?"}]
    key = stage.protocol_key(cfg, "mini-math", questions)
    for same in ({"seed": 1}, {"evaluate__engine": ENDPOINT | {"base_url": "http://127.0.0.1:8/v1", "retries": 3}}):
        assert stage.protocol_key(changed(cfg, **same), "mini-math", questions) == key
    assert stage.protocol_key(cfg, "mini-math", [{"id": "m", "question": "How few?"}]) != key


def test_a_model_key_is_the_content_of_its_checkpoint_or_the_address_of_its_server(home):
    cfg = config.load("smol")

    def build(folder):
        (folder / "config.json").write_text("{}")
        return {"seconds": 3}

    made, _ = artifact.make(cfg.model("math"), {"any": 1}, build, "")
    assert stage.model_key(cfg, "math") == made["content"]
    served = changed(cfg, evaluate__engine=ENDPOINT)
    other = changed(cfg, evaluate__engine=ENDPOINT | {"model": "n"})
    patient = changed(cfg, evaluate__engine=ENDPOINT | {"timeout_seconds": 9.0})
    assert stage.model_key(served, "math") == stage.model_key(patient, "math") != stage.model_key(other, "math")
