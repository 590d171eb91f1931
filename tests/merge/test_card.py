"""Model cards of merges: metadata, only what a method has, no folder of this machine, scores of a run."""

import csv
import re
import sys

import pytest
import yaml
from checkpoints import Shape, experts

from tinyr1.core import artifact, config
from tinyr1.core.config import ROOT
from tinyr1.core.errors import UserError
from tinyr1.core.licences import LICENCES, LOCAL, OWN, SMOLLM2
from tinyr1.core.recipe import About, parse
from tinyr1.merge import __main__ as merge
from tinyr1.merge import card, checkpoint, mergekit, stage
from tinyr1.merge.engine import MergeOptions

CHAIN = {"method": "fusion", "base": "code", "other": {"method": "fusion", "base": "science", "other": "math"}}
ABOUT = About(base_model=[SMOLLM2], data={"open-r1/OpenR1-Math-220k": "apache-2.0", "local files": LOCAL})
SCORES = [
    {"model": "out", "benchmark": "mini-math", "n_problems": "144", "n_samples": "1", "pass_at_1": "0.25",
     "ci_low": "0.2", "ci_high": "0.3125", "chance": "0.0"},
    {"model": "code", "benchmark": "mini-math", "n_problems": "144", "n_samples": "1", "pass_at_1": "0.9",
     "ci_low": "0.8", "ci_high": "0.95", "chance": "0.0"},
]  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return experts(tmp_path_factory.mktemp("experts"), Shape(layers=1))


def made(recipe, folders, out, about=None, **options):
    """The card of a merge into a new folder."""
    out.mkdir()
    checkpoint.merge_checkpoints(recipe, folders, out, MergeOptions(**options), "test", about=about)
    return (out / card.CARD).read_text(encoding="utf-8")


def metadata(text):
    return yaml.safe_load(text.split("---\n")[1])


def section(text, title):
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_metadata_names_models_and_data_of_the_hub(folders, tmp_path):
    text = made(parse(CHAIN, "test"), folders, tmp_path / "out", ABOUT)
    assert metadata(text) == {"base_model": [SMOLLM2], "datasets": ["open-r1/OpenR1-Math-220k"],
                              "library_name": "transformers", "tags": ["merge", "tinyr1"]}  # fmt: skip
    sources = section(text, "Made from")
    for line in (f"| model | {SMOLLM2} | apache-2.0 |", "| data | open-r1/OpenR1-Math-220k | apache-2.0 |",
                 f"| data | local files | {LOCAL} |"):  # fmt: skip
        assert line in sources
    assert set(metadata(made(parse(CHAIN, "test"), folders, tmp_path / "plain"))) == {"library_name", "tags"}


def test_no_folder_of_this_machine_is_named(folders, tmp_path):
    text = made(parse(CHAIN, "test"), folders, tmp_path / "own", ABOUT)
    assert str(tmp_path.parent) not in text
    steps, places, _ = mergekit.read_recipe(tmp_path / "own" / checkpoint.MERGEKIT_FILE)
    assert all("/" in leaf for leaf in steps.leaves), "mergekit's files call models by their folders"
    again = made(steps, places, tmp_path / "again")
    assert str(tmp_path.parent) not in again
    assert "# (math & science) & code\n" in again
    assert section(again, "Fusion, tensor by tensor") == section(text, "Fusion, tensor by tensor")


@pytest.mark.parametrize(("recipe", "options", "settings"), [
    (CHAIN | {"iqr_multiplier": 3.0}, {"reading": "released"},
     ["| math & science | fusion | reading released, λ 1.5 |",
      "| (math & science) & code | fusion | reading released, λ 3 |"]),
    (CHAIN["other"] | {"mask": "random"}, {},
     ["| math &random science | fusion | reading exact, λ 1.5, mask random, as many weights of each tensor as "
      "importance would take, seed 0 |"]),
    ({"method": "linear", "models": [{"model": "math"}, {"model": "code", "weight": 2.0}]}, {},
     ["| linear(math, code) | linear | weight 1.0, 2.0 |"]),
    ({"method": "ties", "base": "code", "models": [{"model": "math", "density": 0.5}], "lambda": 0.75}, {},
     ["| ties(code, math) | ties | lambda 0.75, density 0.5, weight 1.0 |"]),
    ({"method": "slerp", "base": "code", "other": "math", "t": 0.25}, {}, ["| slerp(code, math) | slerp | t 0.25 |"]),
    ({"method": "noise", "base": "code", "other": "math"}, {}, ["| noise(code, math) | noise | defaults |"]),
])  # fmt: skip
def test_steps_say_what_their_method_has_and_no_more(recipe, options, settings, folders, tmp_path):
    text = made(parse(recipe, "test"), folders, tmp_path / "out", **options)
    steps = section(text, "Steps")
    assert [line for line in steps.splitlines() if line.startswith("|")][2:] == settings
    assert ("λ" in steps) == ("fusion" in str(recipe))
    assert "None" not in text
    assert ("tensor by tensor" in text) == ("fusion" in str(recipe))
    own = section(text, "Recipe").strip().removeprefix("```yaml\n").removesuffix("```")
    assert parse(yaml.safe_load(own)["recipe"], "card") == parse(recipe, "test")
    assert ("Recipe for mergekit" in text) == (not mergekit.not_in_mergekit(parse(recipe, "test")))


def test_settings_of_the_whole_merge_are_told_where_they_were_given(folders, tmp_path):
    text = made(parse(CHAIN, "test"), folders, tmp_path / "out", out_dtype=checkpoint.DTYPES["float32"])
    assert "Of the whole merge: out_dtype float32.\n" in text
    assert "Of the whole merge" not in made(parse(CHAIN, "test"), folders, tmp_path / "plain")


def test_a_model_in_the_cache_of_the_hub_has_its_id(folders, tmp_path):
    cached = tmp_path / "hub" / "models--some-lab--Model-7B" / "snapshots" / "0123abc"
    cached.parent.mkdir(parents=True)
    cached.symlink_to(folders["math"])
    recipe = parse({"method": "linear", "models": [{"model": str(cached)}, {"model": str(folders["code"])}]}, "test")
    text = made(recipe, {name: folders.get(name) or type(cached)(name) for name in recipe.leaves}, tmp_path / "out")
    assert metadata(text)["base_model"] == ["some-lab/Model-7B"]
    assert "# linear(some-lab/Model-7B, code)\n" in text


def test_models_whose_folders_have_one_name_are_told_apart(tmp_path):
    places = {str(tmp_path / part / "model"): tmp_path / part / "model" for part in "abc"} | {"math": tmp_path / "math"}
    assert list(card.labels(places).values()) == ["model", "model (2)", "model (3)", "math"]


def test_scores_come_before_the_steps_and_belong_to_the_model(folders, tmp_path):
    text = made(parse(CHAIN, "test"), folders, tmp_path / "out")
    scored = card.with_scores(text, SCORES, "out")
    assert "| mini-math | 25.0 | 20.0 | 31.2 | 144 | 1 | 0 |\n" in section(scored, "Scores")
    assert "90.0" not in scored
    assert scored.index(card.SCORES) < scored.index("## Steps")
    assert scored.replace(scored[scored.index(card.SCORES) : scored.index("## Steps")], "") == text
    with pytest.raises(UserError, match="none of model 'average'; give the scores.csv of the run"):
        card.with_scores(text, SCORES, "average")


def test_the_command_prints_a_card_with_scores(folders, tmp_path, monkeypatch, capsys):
    text = made(parse(CHAIN, "test"), folders, tmp_path / "out")
    with (tmp_path / "scores.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, SCORES[0])
        writer.writeheader()
        writer.writerows(SCORES)
    command = ["merge", "--card", str(tmp_path / "out"), "--scores"]
    monkeypatch.setattr(sys, "argv", [*command, str(tmp_path / "scores.csv")])
    assert merge.main() == 0
    assert capsys.readouterr().out == card.with_scores(text, SCORES, "out")
    monkeypatch.setattr(sys, "argv", command[:-1])
    assert merge.main() == 2
    assert "--card needs the folder of a merged checkpoint and --scores" in capsys.readouterr().err


def test_a_recipe_file_says_where_its_models_come_from(folders, tmp_path, monkeypatch):
    text = mergekit.own_form(parse(CHAIN, "test"), folders, {}, ABOUT)
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    command = ["merge", "--recipe", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", command)
    assert merge.main() == 0
    assert metadata((tmp_path / "out" / card.CARD).read_text(encoding="utf-8"))["base_model"] == [SMOLLM2]
    before = artifact.manifest(tmp_path / "out")
    (tmp_path / "recipe.yaml").write_text(mergekit.own_form(parse(CHAIN, "test"), folders, {}, About()))
    assert merge.main() == 0
    assert artifact.manifest(tmp_path / "out") == before, "where the models come from changes no weight"
    (tmp_path / "recipe.yaml").write_text(text.replace("base_model", "base_models"), encoding="utf-8")
    with pytest.raises(UserError, match="about: base_models: unknown key"):
        mergekit.read_recipe(tmp_path / "recipe.yaml")


# A verification run merges nothing, and has no card.
MERGING = sorted(path.stem for path in (ROOT / "params").glob("*.yaml") if not path.stem.startswith("verify-"))


@pytest.mark.parametrize("run", MERGING)
def test_runs_name_their_backbone_and_their_data_with_licences(run):
    cfg = config.load(run)
    about = stage.about(cfg)
    sources = [source for domain in cfg.params.domains.values() for source in domain.sources]
    assert len(about.data) >= len({getattr(source, "path", None) for source in sources})
    assert set(about.data.values()) <= {*LICENCES.values(), OWN}, "none is unknown"
    expected = {"smoke": [], "smol": [SMOLLM2], "smol-authors": [SMOLLM2]}.get(run, [cfg.params.backbone.model])
    assert about.base_model == expected
    assert set(about.base_model) <= set(LICENCES)


def test_licences_of_datasets_are_those_of_the_ledger():
    told = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
    rows = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[3] for line in told.splitlines()
            if re.match(r"\| [\w-]+/[\w.-]+", line) and line.count(" | ") == 3}  # fmt: skip
    models = {SMOLLM2, *(name for name in LICENCES if name.startswith("deepseek-ai/"))}
    for name in LICENCES.keys() - models - {"simplescaling/s1K", "simplescaling/s1K-1.1"}:
        assert LICENCES[name] in rows[name].lower(), name
    shared = rows["simplescaling/s1K, s1K-1.1"]
    assert shared.startswith("apache-2.0; 1.1 MIT")
    assert (LICENCES["simplescaling/s1K"], LICENCES["simplescaling/s1K-1.1"]) == ("apache-2.0", "mit")
