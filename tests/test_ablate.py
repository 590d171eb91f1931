"""Ablations: which models there are, what a training changes, and tables from graded samples."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from tinyr1 import ablate
from tinyr1.branch import plan
from tinyr1.core import artifact, config, prompts
from tinyr1.core.errors import UserError
from tinyr1.core.params.ablations import Training
from tinyr1.data import curate
from tinyr1.data.tokens import RowWriter, read_tokens
from tinyr1.report import ablations as tables


@pytest.fixture
def cfg():
    return config.load("smoke")


@pytest.fixture
def items(cfg):
    return ablate.items(cfg, cfg.params.ablations)


def test_each_model_of_each_training_occurs_once(items):
    assert [item.name for item in items] == [
        "math-science-code", "average", "random-masks", "math-science-code@other-seed", "average@other-seed",
        "random-masks@other-seed", "mixture", "mixture@shorter", "float32",
    ]  # fmt: skip
    assert [item.name for item in items if item.own] == ["math-science-code", "average", "mixture"]
    assert [item.name for item in items if not item.is_merge] == ["mixture", "mixture@shorter"]


def test_a_training_takes_the_branches_that_it_leaves_out_from_the_run(cfg, items):
    variant = next(item.variant for item in items if item.name == "average@other-seed")
    assert variant.model("math") == cfg.home / "ablations" / "other-seed" / "branches" / "math"
    assert variant.model("science") == cfg.model("science")
    assert variant.model("average") == cfg.home / "ablations" / "other-seed" / "merged" / "average"
    assert (variant.backbone, variant.rows("math")) == (cfg.backbone, cfg.rows("math"))


def test_merges_of_the_runs_own_training_do_not_get_into_the_folder_of_the_run(cfg, items):
    variant = next(item.variant for item in items if item.name == "float32")
    assert variant.model("float32") == cfg.home / "ablations" / "own" / "merged" / "float32"
    assert variant.model("math") == cfg.model("math")


def test_a_training_changes_what_it_names_and_nothing_else(cfg, items, monkeypatch):
    monkeypatch.setattr(plan.Job, "tokens", lambda self: [range(10) for _ in self.rows])
    variant = next(item.variant for item in items if item.name == "mixture@shorter")
    own = next(job for job in plan.jobs(cfg) if job.name == "mixture")
    changed = ablate.job_of(variant, "mixture")
    assert (changed.sft.learning_rate, changed.sft.epochs) == (2.0e-3, 2)
    assert changed.sft.model_copy(update={"learning_rate": own.sft.learning_rate, "epochs": own.sft.epochs}) == own.sft
    assert [part for _, part in changed.rows] == [slice(8, 13)] * 3
    assert dataclasses.replace(changed, sft=own.sft, rows=own.rows) == own


def variant_of(cfg, **changes):
    """The variant of a further training with these changes."""
    training = Training.model_validate({"models": ["math"]} | changes)
    ablations = cfg.params.ablations
    block = ablations.model_copy(update={"trainings": ablations.trainings | {"other": training}})
    params = cfg.params.model_copy(update={"ablations": block})
    return ablate.Variant(run=cfg.run, params=params, own=cfg, training="other")


def test_a_training_may_pack_otherwise(cfg, monkeypatch):
    monkeypatch.setattr(plan.Job, "tokens", lambda self: [range(10) for _ in self.rows])
    job = ablate.job_of(variant_of(cfg, packing="contaminated"), "math")
    assert job.sft.packing == "contaminated"
    assert dataclasses.replace(job, sft=job.sft.model_copy(update={"packing": None})) == plan.jobs(cfg)[0]


def test_a_training_in_another_template_has_rows_of_its_own_with_the_same_texts(home, tokenizer):
    cfg = config.load("smol")
    rows = [{"id": f"math-{i}", "question": f"{i} + 1?", "thinking": "So.", "response": "It is."} for i in range(3)]

    def build(folder):
        with RowWriter(folder) as writer:
            for row in rows:
                writer.write(row, prompts.encode_row(tokenizer, cfg.params.domains["math"], row))
        return {}

    artifact.make(cfg.rows("math"), {}, build, "")
    variant = variant_of(cfg, template="qwen")
    place = variant.rows("math")
    assert place == cfg.home / "ablations" / "other" / "rows" / "math"
    curate.retokenize(cfg, "math", "qwen", place, tokenizer)
    assert [{**row, "n_tokens": 0} for row in curate.curated_rows(variant, "math")] == [
        {**row, "n_tokens": 0} for row in rows
    ]
    encoded = prompts.encode_rows(tokenizer, cfg.params.domains["math"], rows, template="qwen")
    assert [read_tokens(place).row(i) for i in range(3)] == encoded
    trainer = cfg.params.trainer.model_copy(update={"sequence_length": 20})
    short = cfg.model_copy(update={"params": cfg.params.model_copy(update={"trainer": trainer})})
    with pytest.raises(UserError, match="math-0: .* tokens in template qwen, trainer.sequence_length is 20"):
        curate.retokenize(short, "math", "qwen", home / "elsewhere", tokenizer)


def test_a_batch_holds_no_more_merges_than_the_disk_is_to_hold(items, monkeypatch):
    monkeypatch.setattr(ablate, "BATCH", 2)
    parts = list(ablate.batches(items))
    assert [item for part in parts for item in part] == items
    assert all(sum(item.is_merge for item in part) <= 2 for part in parts)
    assert list(ablate.batches([])) == []


def test_the_own_training_comes_first(items):
    trainings = [(variant.training, len(part)) for variant, part in ablate.by_training(items[::-1])]
    assert trainings == [("own", 5), ("shorter", 1), ("other-seed", 3)]


def test_tables_hold_only_what_has_answered_and_repeat_a_model_in_each_of_its_ablations(cfg, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYR1_HOME", str(tmp_path))
    Path(cfg.reports).mkdir(parents=True)
    rows = [
        (model, benchmark, f"q{q}", outcome, 10 + q, looping)
        for model in ("math-science-code", "average@other-seed")
        for benchmark in ("mini-math", "mini-code")
        for q, (outcome, looping) in enumerate([("correct", False), ("wrong", True), ("truncated", True)])
    ]
    graded = pd.DataFrame(rows, columns=["model", "benchmark", "question", "outcome", "n_tokens", "looping"])
    names = {"math-science-code": ("math-science-code", "own"), "average@other-seed": ("average", "other-seed")}
    tables.save(cfg, cfg.params.ablations, graded, names)
    scores, questions = tables.load(cfg)
    assert tuple(scores.columns) == tables.COLUMNS
    assert tuple(questions.columns) == tables.QUESTION_COLUMNS
    assert list(zip(scores.ablation, scores.model, scores.training, scores.seed, strict=True)) == [
        ("controls", "math-science-code", "own", 7), ("controls", "math-science-code", "own", 7),
        ("controls", "average", "other-seed", 8), ("controls", "average", "other-seed", 8),
        ("readings", "math-science-code", "own", 7), ("readings", "math-science-code", "own", 7),
    ]  # fmt: skip
    assert scores.n.eq(3).all()
    assert scores.pass_at_1.round(6).eq(0.333333).all()
    assert scores.looping.round(6).eq(0.666667).all()
    assert (len(questions), questions.right.sum()) == (12, 4)


def test_a_run_without_ablations_has_no_tables(cfg, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYR1_HOME", str(tmp_path))
    assert tables.load(cfg) is None


@pytest.mark.parametrize(("group", "other"), [("packing", "contaminated"), ("template", "qwen")])
def test_a_run_asks_over_three_seeds_what_the_authors_did_otherwise_on_the_models_of_the_miniature(group, other):
    cfg, miniature = config.load("smol-authors"), config.load("smol")
    for name in ("seed", "backbone", "domains", "curate", "trainer", "evaluate"):
        assert getattr(cfg.params, name) == getattr(miniature.params, name), name
    assert cfg.merges == {name: miniature.merges[name] for name in cfg.merges}
    block = cfg.params.ablations
    changes = [block.trainings[name].model_dump() if name != "own" else {} for name in block.groups[group].trainings]
    assert [change.get(group) for change in changes] == [None] * 3 + [other] * 3
    assert [change.get("seed") or cfg.params.seed for change in changes] == [42, 43, 44] * 2
    assert block.groups[group].control_training == "own"
