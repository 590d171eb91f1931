"""Two runs side by side: what differs, and how sure it is."""

import json

import pytest
from report_parts import write_record, write_scores

from tinyr1.core import artifact, config, jsonl
from tinyr1.core.config import STAGES
from tinyr1.report import compare_runs

ROW = ("smol", "math", "mini-math", 4, 1, 0.5, 0.0, 1.0, 80.0, 0, 0, "")


def graded(right: list[bool], first: int = 0) -> list[dict]:
    return [
        {"model": "math", "benchmark": "mini-math", "question": f"q{first + i}", "sample": 0,
         "outcome": "correct" if ok else "wrong"} for i, ok in enumerate(right)
    ]  # fmt: skip


@pytest.fixture
def two(cfg):
    """Runs smol and mine, both finished and scored; call it with the graded samples of each."""

    def make(a: list[dict] | None = None, b: list[dict] | None = None, **changes: object):
        for name, rows, more in (("smol", a, {}), ("mine", b, changes)):
            params = config.params_folder() / f"{name}.yaml"
            params.write_text((config.params_folder() / "smol.yaml").read_text(encoding="utf-8"), encoding="utf-8")
            run = config.load(name)
            for stage in STAGES:
                write_record(run, stage, **more)
            write_scores(run, ROW)
            if rows is not None:
                jsonl.write(run.home / "graded.jsonl", rows)
        return compare_runs.read("smol"), compare_runs.read("mine")

    return make


def test_the_same_questions_are_compared_one_by_one(two):
    right = [True, False] * 20
    found = compare_runs.compare(*two(graded(right), graded(right[:-1] + [True]))).scores.loc[("math", "mini-math")]
    assert found["compared"] == compare_runs.PAIRED
    assert found["B less A, points"] == "+2.5 [-6.5, +11.5]"
    assert found["differs"] == "not shown"


@pytest.mark.parametrize("other", [None, graded([True, False], first=5)])
def test_without_the_same_graded_questions_intervals_are_compared(two, other):
    found = compare_runs.compare(*two(graded([True, False]), other)).scores.loc[("math", "mini-math")]
    assert found["compared"] == compare_runs.UNPAIRED
    assert found["B less A, points"] == "+0.0 [-70.7, +70.7]"


@pytest.mark.parametrize(
    "changed",
    [{"seed": 43}, {"evaluate": {"split": "validation"}}, {"domains": {}}],
    ids=["seed", "split", "questions"],
)
def test_questions_of_other_parameters_are_not_the_same(two, cfg, changed):
    params = cfg.params.model_dump(mode="json") | changed
    a, b = two(graded([True, False]), graded([True, False]), params=params)
    assert not compare_runs.same_questions(a, b, "mini-math")
    assert compare_runs.same_questions(a, a, "mini-math")


def test_questions_that_another_commit_wrote_are_the_same_only_where_the_key_of_the_answers_is(two):
    code = {"commit": "f" * 40, "modified": False, "source": "s"}
    assert not compare_runs.same_questions(*two([], [], code=code), "mini-math")
    facts = {"protocols": [{"benchmark": "mini-math", "responses": "k"}]}
    a, b = two([], [], code=code, facts=facts)
    assert not compare_runs.same_questions(a, b, "mini-math")
    assert compare_runs.same_questions(compare_runs.Side("a", b.records | {}, [], None), b, "mini-math")


def test_parameters_machines_and_durations_stand_side_by_side(two, cfg):
    params = cfg.params.model_dump(mode="json") | {"seed": 43}
    machine = {"cores": 64, "memory_gb": 512, "gpus": ["H800"], "python": "3.12.1", "packages": {}}
    found = compare_runs.compare(*two(params=params, machine=machine, seconds={"work": 9.5}))
    assert found.params.to_dict("index") == {"seed": {"A": "42", "B": "43"}}
    assert found.machines.loc["machine", "B"] == "64 CPU cores, 512 GB memory, H800; Python 3.12.1"
    assert found.machines.loc["code", "A"] == found.machines.loc["code", "B"] == "commit 0123456789"
    assert found.durations.loc[STAGES[1]].to_dict() == {"A": 154.5, "B": 9.5}


def run_compare(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["compare", *words])
    return compare_runs.main()


def test_the_command_prints_tables_and_writes_one_page(two, monkeypatch, capsys):
    two(graded([True, False] * 9), graded([False, True] * 9), seconds={"work": 754.0})
    assert run_compare(monkeypatch, "smol", "mine") == 0
    said = capsys.readouterr().out
    page = config.runs_folder() / "compare" / "smol-against-mine.html"
    assert said.startswith("A is smol, B is mine\n")
    assert said.endswith(f"The page: {page}\n")
    for text in (said, page.read_text(encoding="utf-8")):
        assert "12 min 34 s" in text
        assert compare_runs.PAIRED in text


def test_a_published_report_is_read_where_the_run_is_not_here(two, cfg, monkeypatch, capsys):
    two()
    published = config.reports_folder() / "far"
    for stage in STAGES[:2]:
        artifact.write_atomic(published / f"{stage}.json", (cfg.reports / f"{stage}.json").read_bytes())
    assert list(compare_runs.read("far").records) == list(STAGES[:2])
    assert run_compare(monkeypatch, "far", str(published)) == 0
    assert "nothing differs or is there" in capsys.readouterr().out


def test_what_is_no_run_and_no_report_is_refused_in_one_sentence(cfg, monkeypatch, capsys):
    assert run_compare(monkeypatch, "smol", "gone") == 2
    assert capsys.readouterr().err.startswith("error: smol: ")
    assert run_compare(monkeypatch, "a b", "gone") == 2
    assert "'a b' is neither the name of a run nor a folder of a report" in capsys.readouterr().err
    write_record(cfg, STAGES[0])
    (cfg.reports / f"{STAGES[0]}.json").write_text(json.dumps({"params": {}}))
    assert run_compare(monkeypatch, "smol", "smol") == 2
    assert "run `make reproduce RUN=smol`" in capsys.readouterr().err
