"""A run's merges of every kind by the command as a child, and their tables: whose weights won, how readings agree."""

import os
import shutil
import sys
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
import torch
from checkpoints import NAMES, Shape, experts, store
from safetensors.torch import load_file
from test_notebooks import code_cells

from tinyr1.core import artifact, config, launch, record
from tinyr1.core.config import ROOT
from tinyr1.core.errors import UserError
from tinyr1.core.params.training import MergedModel
from tinyr1.core.recipe import parse
from tinyr1.merge import __main__ as merge
from tinyr1.merge import analysis, collapse, masks, stage, tables
from tinyr1.merge.fusion_blocks import Fusion
from tinyr1.merge.method import merge_tensors
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
FOLLOW = launch.follow
FUSED = ("fused", "onto-sparse", "two-minds")
FIGURES = {"fusion_by_hand", "winners", "importance", "branch_distance", "activations"}
SHAPES = {"bf16": Shape(), "fp32": Shape(dtype=torch.float32, architecture="llama", tied=True, stores_head=False)}


def with_recipes(cfg, recipes):
    models = [MergedModel(name=name, recipe=parse(data, name)) for name, data in recipes.items()]
    merge = cfg.params.merge.model_copy(update={"models": models})
    return cfg.model_copy(update={"params": cfg.params.model_copy(update={"merge": merge})})


@pytest.fixture
def here(monkeypatch):
    """The command runs in this process: a child takes seconds to start. Returns the commands so far."""
    commands = []

    def follow(command, environment, log, title, poll, unit, first, last):
        commands.append(command)
        assert command[:3] == [sys.executable, "-m", "tinyr1.merge"]
        monkeypatch.setattr(sys, "argv", command[2:])
        assert merge.main() == 0

    monkeypatch.setattr(launch, "follow", follow)
    return commands


@pytest.fixture(params=SHAPES)
def run(request, home, tmp_path, here):
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


def files(folder):
    """Name -> bytes of the files that identify a merge."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in ("artifact.json", "README.md")}


@pytest.mark.parametrize("run", ["bf16"], indirect=True)
class TestChild:
    """The command as a child process, which the other tests replace by a call."""

    @pytest.fixture(autouse=True)
    def _real(self, run, monkeypatch):
        monkeypatch.setattr(launch, "follow", FOLLOW)
        self.cfg, self.folders = run

    def test_it_makes_the_same_checkpoint_and_leaves_a_log(self, run, monkeypatch):
        assert stage.make(self.cfg, "two-minds")["merged_now"]
        log = (self.cfg.home / "logs" / "merge-two-minds.log").read_text()
        assert "-m tinyr1.merge --recipe " in log
        assert "merged in " in log
        assert "%|" not in log, "the bar is shown by the notebook"
        out, by_hand = self.cfg.model("two-minds"), self.cfg.home / "by-hand"
        settings = ["--reading", "exact", "--out", str(by_hand)]
        monkeypatch.setattr(sys, "argv", ["merge", "--recipe", str(out.with_name("two-minds.recipe.yaml")), *settings])
        assert merge.main() == 0
        assert files(by_hand) == files(out)
        assert sorted(p.name for p in out.parent.iterdir()) == ["two-minds", "two-minds.recipe.yaml"]

    def test_its_error_is_shown_and_nothing_is_left(self, run):
        tensors = weights(self.folders["math"])
        tensors["model.norm.weight"][0] = float("nan")
        store(self.folders["math"], tensors)
        artifact.seal(self.folders["math"], "math", {})
        said = r"(?s)mean: the command ended with exit status 2.*model.norm.weight holds infinities"
        with pytest.raises(UserError, match=said):
            stage.make(self.cfg, "mean")
        assert [p.name for p in (self.cfg.home / "merged").iterdir()] == ["mean.recipe.yaml"]


@pytest.mark.parametrize("run", ["bf16"], indirect=True)
class TestKey:
    """A merge is made again when its recipe, its settings or its parents change, and otherwise kept."""

    def test_other_settings_replace_a_merge(self, run):
        cfg, _ = run
        stage.make(cfg, "fused")
        before = weights(cfg.model("fused"))
        other = cfg.params.merge.model_copy(update={"iqr_multiplier": 0.1})
        changed = cfg.model_copy(update={"params": cfg.params.model_copy(update={"merge": other})})
        assert stage.make(changed, "fused")["merged_now"]
        assert not all(torch.equal(before[n], t) for n, t in weights(cfg.model("fused")).items())
        assert not stage.make(changed, "fused")["merged_now"]

    def test_content_of_the_parents_counts_and_their_times_do_not(self, run):
        cfg, folders = run
        stage.make(cfg, "fused")
        for file in folders["math"].iterdir():
            os.utime(file)
        artifact.seal(folders["math"], "trained again", {"seconds": 9})
        assert not stage.make(cfg, "fused")["merged_now"]
        tensors = weights(folders["math"])
        store(folders["math"], {name: tensor * 2 for name, tensor in tensors.items()})
        artifact.seal(folders["math"], "math", {})
        assert stage.make(cfg, "fused")["merged_now"]

    def test_a_kill_after_the_renaming_leaves_nothing_behind_after_the_next_call(self, run, here):
        cfg, _ = run
        stage.make(cfg, "fused")
        out = cfg.model("fused")
        partial = artifact.partial_path(out)
        partial.with_name(f"{partial.name}.key").write_text(artifact.manifest(out)["key"])
        stage.make(cfg, "fused")
        assert len(here) == 2
        assert sorted(p.name for p in out.parent.iterdir()) == ["fused", "fused.recipe.yaml"]


def test_every_kind_of_merge_is_made_once_and_told(run):
    cfg, folders = run
    facts = [stage.make(cfg, name) for name in RECIPES]
    assert all(f["merged_now"] for f in facts)
    assert not any(stage.make(cfg, name)["merged_now"] for name in RECIPES)
    table = tables.facts_table(facts)
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
        stage.make(cfg, name)
    methods = {name: set(tables.statistics(cfg.model(name)).method) for name in RECIPES}
    assert methods == {"mean": {"linear"}, "alone": {"linear"}, "sparse": {"ties"}, "between": {"slerp"},
                       "fused": {"fusion"}, "onto-sparse": {"fusion", "ties"}, "two-minds": {"fusion"}}  # fmt: skip
    fused = tables.fusion_tables(cfg)
    assert list(fused) == list(FUSED)
    base, other = weights(folders["science"]), weights(folders["math"])
    differing = sum(int((base[n] != other[n]).sum()) for n in base)
    summary = tables.summary(fused)
    assert summary.loc["fused", "weights that differ"] == round(differing / sum(t.numel() for t in base.values()), 3)
    assert summary.loc["onto-sparse", "other"] == "ties(backbone, math, science)"
    told = tables.regimes_told(fused)
    assert told.startswith(f"Of {4 * len(base)} tensors in all fusion steps, ")
    for regime, words in (("part", "took a part"), ("everything", "took all of it"), ("nothing", "took nothing")):
        number = sum(int((table.regime == regime).sum()) for table in fused.values())
        assert (f"{number} {words}" in told) == (number > 0 or regime == "part")


def test_a_run_without_any_fusion_has_empty_tables():
    assert tables.summary({}).empty
    assert tables.regimes_told({}) == "No merge of this run has a fusion step."


def test_recipes_are_checked_before_there_is_a_model(home):
    cfg = config.load("smol")
    stage.check(with_recipes(cfg, RECIPES))
    uneven = SPARSE | {"models": [{"model": "math", "density": 0.5}, {"model": "code"}]}
    nested = {"method": "fusion", "base": "code", "other": {"method": "linear", "models": [
        {"model": "math", "weight": 1}, {"model": "science", "weight": -1}]}}  # fmt: skip
    with pytest.raises(UserError) as error:
        stage.check(with_recipes(cfg, RECIPES | {"uneven": uneven, "nested": nested}))
    assert str(error.value).splitlines() == [
        "merge.models.uneven: ties: models: density is given for some models only; give it for all or for none",
        "merge.models.nested: linear: weight = (1.0, -1.0) sums to 0 and cannot be normalized; set normalize to false",
    ]


def in_this_process(command, *_):
    """Stands for the process that measures activations, which takes ten seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command[2:])
        collapse.main()


@pytest.mark.parametrize(("recipes", "figures"), [
    (("mean", "sparse"), FIGURES),
    (("mean", "fused"), FIGURES | {"selected_share"}),
])  # fmt: skip
def test_the_notebook_shows_what_there_is_of_fusion(run, monkeypatch, recipes, figures):
    cfg, _ = run
    cfg = with_recipes(cfg, {name: RECIPES[name] for name in recipes})
    recorded = []
    monkeypatch.setattr(config, "load", lambda name: cfg)
    monkeypatch.setattr(record, "require", lambda cfg, stage: {"artifacts": {}})
    monkeypatch.setattr(collapse, "launch", SimpleNamespace(follow=in_this_process, die_with_parent=lambda: None))
    monkeypatch.setattr(collapse, "texts", lambda cfg: [[4, 5, 6, 7, 8, 9], [10, 11, 4, 5]])
    monkeypatch.setattr(masks, "ENTRIES", 2**16)
    monkeypatch.setattr(record, "write", lambda *args: recorded.append(args) or {"artifacts": {}})
    book = nbformat.read(ROOT / "notebooks" / "03_fusion_merge.ipynb", as_version=4)
    program = "\n".join(cell.source for cell in code_cells(book))
    exec(program, {"display": lambda shown: None})
    plots.plt.close("all")
    ((_, stage, made, facts, _),) = recorded
    assert (stage, tuple(made), set(facts["winners"]["all"]) - {"disagree"}) == (
        "03_fusion_merge", recipes, {*NAMES, "shared", "none"})  # fmt: skip
    assert {path.stem for path in cfg.reports.glob("*.png")} == figures


def test_a_value_that_is_not_finite_is_found(run):
    cfg, _ = run
    stage.make(cfg, "mean")
    folder = cfg.model("mean")
    assert analysis.all_finite(folder)
    for value in (float("nan"), float("-inf")):
        tensors = weights(folder)
        tensors["model.layers.1.mlp.down_proj.weight"][-1, -1] = value
        store(folder, tensors)
        assert not analysis.all_finite(folder)


@pytest.mark.parametrize("name", RECIPES)
def test_winners_are_counted_entry_by_entry(run, name):
    cfg, folders = run
    stage.make(cfg, name)
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
    stage.make(cfg, "alone")
    found = analysis.winners(cfg.model("alone"), {n: folders[n] for n in NAMES}).loc["all"]
    assert (found["none"], found.science + found.shared) == (0.0, 1.0)


def test_the_winners_are_told_with_the_numbers_of_their_table():
    shares = pd.DataFrame(
        [{"math": 0.1, "science": 0.25, "code": 0.6, "shared": 0.04, "none": 0.01, "disagree": 0.876}], index=["all"]
    )
    assert analysis.winners_told(shares, "math-code") == (
        "Where the experts disagree, which is 88 % of all weights, math-code is 60 % code, 25 % science, 10 % math, "
        "4 % what two or more experts share and 1 % of no expert."
    )
    alone = pd.DataFrame([{"math": 1.0, "shared": 0.0, "none": 0.0, "disagree": 0.5}], index=["all"])
    assert analysis.winners_told(alone, "m").endswith("which is 50 % of all weights, m is 100 % math.")


def test_readings_agree_with_what_fusion_does_with_the_same_tensors(run):
    _, folders = run
    summary, overlap = analysis.agreement(folders["science"], folders["math"], 1.5)
    assert overlap.to_numpy().diagonal().tolist() == [1.0] * 4
    assert (overlap.to_numpy() == overlap.to_numpy().T).all()
    base, other = weights(folders["science"]), weights(folders["math"])
    done = [merge_tensors(Fusion(), (base[n].float(), other[n].float()))[1] for n in base]
    taken = sum(s["selected"] for s in done) / sum(s["differing"] for s in done)
    assert summary.loc["exact", "differing weights taken"] == pytest.approx(taken)


def test_importance_is_drawn_for_the_tensors_that_are_there(run):
    _, folders = run
    kinds = ("self_attn.q_proj", "no.such", "mlp.down_proj")
    drawn = analysis.histograms(folders["science"], folders["math"], 1.5, kinds)
    assert drawn.groupby("kind", sort=False).reading.apply(list).to_dict() == dict.fromkeys(
        ("self_attn.q_proj", "mlp.down_proj"), list(analysis.ARITHMETICS))  # fmt: skip
    for row in drawn.itertuples():
        assert (row.scores > 0).all()
        size = {"self_attn.q_proj": 32 * 32, "mlp.down_proj": 32 * 48}[row.kind]
        assert len(row.scores) == round(size * (1 - row.zero_share))
    assert plots.importance(drawn).axes
