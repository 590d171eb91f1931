"""A run's merges of every kind, and what is told of them: tables, whose weights won, how readings agree."""

import shutil

import pytest
import torch
from checkpoints import NAMES, Shape, experts, store
from safetensors.torch import load_file
from test_notebooks import code_cells

from tinyr1.core import artifact, config, record
from tinyr1.core.config import ROOT
from tinyr1.core.errors import UserError
from tinyr1.core.recipe import parse
from tinyr1.merge import analysis, fusion
from tinyr1.merge import stage as merged
from tinyr1.report import plots

EACH = [{"model": name} for name in NAMES]
SPARSE = {"method": "ties", "base": "backbone", "models": [{"model": m, "density": 0.5} for m in ("math", "science")]}
RECIPES = {
    "mean": {"method": "linear", "models": EACH},
    "alone": {"method": "linear", "models": [{"model": "science"}]},
    "sparse": SPARSE | {"models": [m | {"density": 0.5} for m in EACH]},
    "between": {"method": "slerp", "base": "math", "other": "code", "t": 0.5},
    "fused": {"method": "fusion", "base": "science", "other": "math"},
    "onto-sparse": {"method": "fusion", "base": "code", "other": SPARSE, "reading": "paper"},
    "two-minds": {"method": "fusion", "base": "code", "iqr_multiplier": 0.5,
                  "other": {"method": "fusion", "base": "science", "other": "math", "reading": "released"}},
}  # fmt: skip
FUSED = ("fused", "onto-sparse", "two-minds")
SHAPES = {"bf16": Shape(), "fp32": Shape(dtype=torch.float32, architecture="llama", tied=True, stores_head=False)}


def with_recipes(cfg, recipes):
    models = {name: parse(data, name) for name, data in recipes.items()}
    merge = cfg.params.merge.model_copy(update={"models": models})
    return cfg.model_copy(update={"params": cfg.params.model_copy(update={"merge": merge})})


@pytest.fixture(params=SHAPES)
def run(request, home, tmp_path):
    """(configuration of a run with these recipes, name -> folder of its branches and backbone), all made."""
    cfg = with_recipes(config.load("smol"), RECIPES)
    folders = {}
    for name, made in experts(tmp_path / "in", SHAPES[request.param], ("backbone", *NAMES)).items():
        folders[name] = cfg.model(name)
        folders[name].parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, folders[name])
        artifact.seal(folders[name], name, {})
    return cfg, folders


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_every_kind_of_merge_is_made_once_and_told(run):
    cfg, folders = run
    facts = [merged.make(cfg, name) for name in RECIPES]
    assert all(f["merged_now"] for f in facts)
    assert not any(merged.make(cfg, name)["merged_now"] for name in RECIPES)
    table = merged.facts_table(facts)
    assert table.order.to_dict() == {
        "mean": "linear(math, science, code)", "alone": "linear(science)",
        "sparse": "ties(backbone, math, science, code)", "between": "slerp(math, code)", "fused": "math & science",
        "onto-sparse": "(ties(backbone, math, science)) & code",
        "two-minds": "(math & science) & code",
    }  # fmt: skip
    readings = {"fused": "exact", "onto-sparse": "paper", "two-minds": "exact, released"}
    assert table.reading.to_dict() == dict.fromkeys(RECIPES, "–") | readings
    multipliers = {"fused": 1.5, "onto-sparse": 1.5, "two-minds": "0.5, 1.5"}
    assert table.iqr_multiplier.to_dict() == dict.fromkeys(RECIPES, "–") | multipliers
    parts = [weights(folders[name]) for name in NAMES]
    for name, tensor in weights(cfg.model("mean")).items():
        mean = sum(part[name].float() for part in parts) / 3
        tolerance = {"rtol": 2**-7, "atol": 1e-6}  # of one rounding to bf16
        torch.testing.assert_close(tensor.float(), mean, **tolerance)


def test_tables_of_fusion_hold_the_fusion_steps_and_no_others(run):
    cfg, folders = run
    for name in RECIPES:
        merged.make(cfg, name)
    methods = {name: set(merged.statistics(cfg.model(name)).method) for name in RECIPES}
    assert methods == {"mean": {"linear"}, "alone": {"linear"}, "sparse": {"ties"}, "between": {"slerp"},
                       "fused": {"fusion"}, "onto-sparse": {"fusion", "ties"}, "two-minds": {"fusion"}}  # fmt: skip
    tables = merged.fusion_tables(cfg)
    assert list(tables) == list(FUSED)
    left, right = weights(folders["science"]), weights(folders["math"])
    differing = sum(int((left[n] != right[n]).sum()) for n in left)
    summary = merged.summary(tables)
    assert summary.loc["fused", "weights that differ"] == round(differing / sum(t.numel() for t in left.values()), 3)
    assert summary.loc["onto-sparse", "other"] == "ties(backbone, math, science)"
    regimes = merged.regimes(tables)
    assert regimes.sum(axis=1).to_list() == [len(left)] * 4
    assert len(merged.degenerate(tables)) == regimes.reindex(columns=["everything", "nothing"]).sum().sum()


def test_a_run_without_any_fusion_has_empty_tables():
    assert merged.summary({}).empty
    assert merged.regimes({}).empty
    assert list(merged.degenerate({}).columns) == merged.STEP_COLUMNS


def test_recipes_are_checked_before_there_is_a_model(home):
    cfg = config.load("smol")
    merged.check(with_recipes(cfg, RECIPES))
    uneven = SPARSE | {"models": [{"model": "math", "density": 0.5}, {"model": "code"}]}
    nested = {"method": "fusion", "base": "code", "other": {"method": "linear", "models": [
        {"model": "math", "weight": 1}, {"model": "science", "weight": -1}]}}  # fmt: skip
    with pytest.raises(UserError) as error:
        merged.check(with_recipes(cfg, RECIPES | {"uneven": uneven, "nested": nested}))
    assert str(error.value).splitlines() == [
        "merge.models.uneven: models: density is given for some models only; give it for all or for none",
        "merge.models.nested: weight = (1.0, -1.0) sums to 0 and cannot be normalized; set normalize to false",
    ]


@pytest.mark.parametrize(("recipes", "figures"), [
    (("mean", "sparse"), {"winners", "importance"}),
    (("mean", "fused"), {"winners", "importance", "selected_share"}),
])  # fmt: skip
def test_the_notebook_shows_what_there_is_of_fusion(run, monkeypatch, recipes, figures):
    cfg, _ = run
    cfg = with_recipes(cfg, {name: RECIPES[name] for name in recipes})
    recorded = []
    monkeypatch.setattr(config, "load", lambda name: cfg)
    monkeypatch.setattr(record, "require", lambda cfg, stage: {"artifacts": {}})
    monkeypatch.setattr(record, "write", lambda *args: recorded.append(args) or {"artifacts": {}})
    program = "\n".join(cell.source for cell in code_cells(ROOT / "notebooks" / "03_fusion_merge.ipynb"))
    exec(program, {"display": lambda shown: None})
    plots.plt.close("all")
    ((_, stage, made, facts, _),) = recorded
    assert (stage, tuple(made), set(facts["winners"]["all"]) - {"disagree"}) == (
        "03_fusion_merge", recipes, {*NAMES, "shared", "none"})  # fmt: skip
    assert {path.stem for path in cfg.reports.glob("*.png")} == figures


def test_a_value_that_is_not_finite_is_found(run):
    cfg, _ = run
    merged.make(cfg, "mean")
    folder = cfg.model("mean")
    assert merged.all_finite(folder)
    for value in (float("nan"), float("-inf")):
        tensors = weights(folder)
        tensors["model.layers.1.mlp.down_proj.weight"][-1, -1] = value
        store(folder, tensors)
        assert not merged.all_finite(folder)


@pytest.mark.parametrize("name", RECIPES)
def test_winners_are_counted_entry_by_entry(run, name):
    cfg, folders = run
    merged.make(cfg, name)
    table = analysis.winners(cfg.model(name), {n: folders[n] for n in NAMES})
    ours, theirs = weights(cfg.model(name)), [weights(folders[n]) for n in NAMES]
    counts = dict.fromkeys([*NAMES, "shared", "none"], 0)
    disagree = entries = 0
    for tensor, merged_values in ours.items():
        columns = [merged_values.flatten().tolist(), *(t[tensor].flatten().tolist() for t in theirs)]
        for value, *others in zip(*columns, strict=True):
            entries += 1
            if len(set(others)) > 1:
                disagree += 1
                same = [n for n, other in zip(NAMES, others, strict=True) if other == value]
                counts[same[0] if len(same) == 1 else "shared" if same else "none"] += 1
    found = table.loc["all"]
    assert found.disagree == pytest.approx(disagree / entries)
    assert found[list(counts)].to_dict() == pytest.approx({k: n / disagree for k, n in counts.items()})
    assert table.drop(columns="disagree").sum(axis=1).to_numpy() == pytest.approx(1.0)
    assert plots.winners(table.drop(columns="disagree"), name).axes


def test_a_merge_that_is_one_of_the_experts_has_its_weights_alone(run):
    cfg, folders = run
    merged.make(cfg, "alone")
    found = analysis.winners(cfg.model("alone"), {n: folders[n] for n in NAMES}).loc["all"]
    assert (found["none"], found.science + found.shared) == (0.0, 1.0)


def test_readings_agree_with_what_fusion_does_with_the_same_tensors(run):
    _, folders = run
    summary, overlap = analysis.agreement(folders["science"], folders["math"], 1.5)
    assert overlap.to_numpy().diagonal().tolist() == [1.0] * 4
    assert (overlap.to_numpy() == overlap.to_numpy().T).all()
    left, right = weights(folders["science"]), weights(folders["math"])
    done = [fusion.fuse(left[n].float(), right[n].float())[1] for n in left]
    taken = sum(s.selected for s in done) / sum(s.differing for s in done)
    assert summary.loc["exact", "taken, of those that differ"] == pytest.approx(taken)


def test_importance_is_drawn_for_the_tensors_that_are_there(run):
    _, folders = run
    drawn = analysis.histograms(folders["science"], folders["math"], 1.5, ("self_attn.q_proj", "no.such", "mlp.down_proj"))
    assert drawn.groupby("kind", sort=False).reading.apply(list).to_dict() == dict.fromkeys(
        ("self_attn.q_proj", "mlp.down_proj"), list(analysis.READINGS))  # fmt: skip
    for row in drawn.itertuples():
        assert (row.scores > 0).all()
        size = {"self_attn.q_proj": 32 * 32, "mlp.down_proj": 32 * 48}[row.kind]
        assert len(row.scores) == round(size * (1 - row.zero_share))
    assert plots.importance(drawn).axes
