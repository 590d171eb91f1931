"""The blocks `analysis` and `ablations` of a params file: what they refuse, and files that hold only ablations."""

import copy

import pytest
import yaml

from tinyr1.core import config
from tinyr1.core.errors import UserError
from tinyr1.core.params import ablations


@pytest.fixture
def data():
    return yaml.safe_load((config.params_folder() / "smoke.yaml").read_text(encoding="utf-8"))


def refused(data):
    with pytest.raises(UserError) as error:
        config.parse(yaml.safe_dump(data, sort_keys=False), "x.yaml")
    return str(error.value)


STEP = {"method": "fusion", "base": "code", "other": "math"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a["trainings"].update(own={"models": ["math"]}), "ablations.trainings.own: is the name of"),
        (lambda a: a["trainings"]["shorter"].update(models=["maths"]), "'maths' is not one of code, math, mixture"),
        (lambda a: a["groups"]["controls"]["trainings"].append("seed-9"), "'seed-9' is not named in"),
        (lambda a: a["groups"]["mixtures"].update(control_training="late"), "'late' is not named in"),
        (lambda a: a["groups"]["controls"].update(control="ties"), "control: 'ties' is not among the models"),
        (lambda a: a["groups"]["controls"]["models"].append("ties"), "'ties' is no model of the run and no merge"),
        (lambda a: a["groups"]["controls"]["models"].append({"name": "average", "recipe": STEP}), "is taken"),
        (lambda a: a["groups"]["controls"]["models"].append({"recipe": STEP | {"other": "maths"}}), "is no model"),
        (lambda a: a["groups"]["controls"]["models"].append({"recipe": STEP | {"t": 0.5}}), "t: fusion does"),
        (lambda a: a["trainings"]["shorter"].update(share=1.5), "less than or equal to 1"),
        (lambda a: a.update(groups={}), "is empty; give at least one"),
        (lambda a: a["groups"]["controls"].update(contrl="average"), "unknown parameter; did you mean control"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place_and_rule(data, change, message):
    change(data["ablations"])
    assert message in refused(data)


@pytest.mark.parametrize("key", ["model", "against"])
def test_a_headline_compares_models_of_the_run(data, key):
    data["analysis"]["headline"][0][key] = "ties"
    assert f"analysis.headline.0.{key}: 'ties' is not a model of this run" in refused(data)


def test_a_run_without_ablations_is_fine_and_one_without_analysis_is_not(data):
    assert config.parse(yaml.safe_dump(data | {"ablations": None}), "x.yaml").ablations is None
    del data["analysis"]
    assert "analysis: is missing" in refused(data)


def test_merges_of_ablations_are_found_by_name(data):
    block = config.parse(yaml.safe_dump(data, sort_keys=False), "x.yaml").ablations
    assert list(block.merges()) == ["random-masks", "float32"]
    assert ablations.names_of(block.groups["controls"]) == ["math-science-code", "average", "random-masks"]


def test_a_file_that_holds_only_ablations_serves_a_run(data, tmp_path):
    cfg, file = config.load("smoke"), tmp_path / "own.yaml"
    block = copy.deepcopy(data["ablations"])
    del block["groups"]["readings"], block["groups"]["mixtures"]
    file.write_text(yaml.safe_dump({"ablations": block}), encoding="utf-8")
    assert list(config.ablations_from(cfg, file).groups) == ["controls"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{ablations: null}", "ablations: is missing or null"),
        ("{seed: 3}", "seed: such a file holds the block `ablations` and nothing else"),
        ("- a list", "expected a mapping"),
        ("{ablations: {groups: {a: {question: q, control: math, models: [maths]}}}}", "'maths' is no model of the run"),
    ],
)
def test_such_a_file_is_checked_against_the_models_of_the_run(tmp_path, text, message):
    file = tmp_path / "own.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="own.yaml") as error:
        config.ablations_from(config.load("smoke"), file)
    assert message in str(error.value)


def test_such_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml: does not exist"):
        config.ablations_from(config.load("smoke"), tmp_path / "none.yaml")
