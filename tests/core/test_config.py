import functools
import re
from datetime import date

import pytest
import yaml
from conftest import ROOT
from pydantic import ValidationError

from tinyr1.core import config, show
from tinyr1.core.errors import UserError

FILE = "params/x.yaml"
LCB = {"kind": "livecodebench", "path": "x", "questions": None, "samples": 1, "max_tokens": 9}


def problems(text):
    """The lines of the error that a params file makes."""
    with pytest.raises(UserError) as error:
        config.parse(text, FILE)
    return str(error.value).splitlines()


def change(text, path, value=None):
    """`text` with the parameter at `path` (keys joined by dots) set, or removed when no value is given."""
    data = yaml.safe_load(text)
    *above, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    block = functools.reduce(lambda found, key: found[key], above, data)
    if value is None:
        del block[last]
    else:
        block[last] = value
    return yaml.safe_dump(data, sort_keys=False)


@pytest.mark.parametrize("path", sorted((ROOT / "params").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_params_file_of_the_repository_loads(path, monkeypatch):
    monkeypatch.delenv("TINYR1_PARAMS", raising=False)
    cfg = config.load(path.stem)
    assert cfg.run == path.stem
    assert set(cfg.params.sources) == set(config.DOMAINS)


def test_an_unknown_run_is_refused_with_the_nearest_name(home):
    with pytest.raises(
        UserError, match=r"there is no params/smoll\.yaml; runs are smol\. Did you mean RUN=smol\?"
    ):
        config.load("smoll")


def test_an_unknown_run_without_a_near_name_gets_no_suggestion(home):
    with pytest.raises(UserError) as error:
        config.load("zzz")
    assert "runs are smol" in str(error.value)
    assert "Did you mean" not in str(error.value)


def test_a_run_name_cannot_leave_the_params_folder(home):
    (home / "other.yaml").write_text((home / "params" / "smol.yaml").read_text())
    with pytest.raises(UserError, match="there is no params"):
        config.load("../other")


def test_a_misspelt_key_is_reported_with_the_right_spelling(params_text):
    text = change(change(params_text, "branch.math.learning_rate"), "branch.math.learing_rate", 1.0e-5)
    lines = problems(text)
    where = f"{FILE}: branch.math"
    assert f"{where}.learing_rate: unknown parameter; did you mean 'learning_rate'?" in lines
    assert f"{where}.learning_rate: is missing; every parameter must be given" in lines


def test_an_unknown_key_like_no_other_gets_no_suggestion(params_text):
    assert problems(params_text + "bogus_thing: 1\n") == [f"{FILE}: bogus_thing: unknown parameter"]


def test_a_missing_key_is_reported_with_its_path(params_text):
    lines = problems(change(params_text, "trainer.zero_stage"))
    assert lines == [f"{FILE}: trainer.zero_stage: is missing; every parameter must be given"]


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("branch.math.learning_rate", "fast", "'fast' is not a number; e.g. 1.0e-5"),
        ("branch.math.epochs", 1.5, "1.5 is not a whole number"),
        ("trainer.processes_per_node", True, "True is not a whole number"),
        ("trainer.gradient_checkpointing", 0, "0 is neither true nor false"),
        ("sources.math", 3, "3 is not a list"),
        ("evaluate", 3, "3 is not a mapping of parameters"),
        ("evaluate.benchmarks", 3, "3 is not a mapping"),
        ("description", 7, "7 is not a text"),
        ("sources.math.0.path", 7, "7 is not a text"),
    ],
)
def test_a_value_of_the_wrong_type_is_reported(params_text, path, value, complaint):
    assert problems(change(params_text, path, value)) == [f"{FILE}: {path}: {complaint}"]


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("trainer.zero_stage", 4, "4 should be less than or equal to 3"),
        ("trainer.weight_decay", -1, "-1 should be greater than or equal to 0"),
        ("evaluate.top_p", 1.01, "1.01 should be less than or equal to 1"),
        ("evaluate.top_p", 0, "0 should be greater than 0"),
        ("trainer.max_grad_norm", float("inf"), "inf should be a finite number"),
        ("trainer.max_grad_norm", float("nan"), "nan should be a finite number"),
        ("evaluate.split", "train", "'train' should be 'test' or 'validation'"),
    ],
)
def test_a_value_out_of_range_is_reported(params_text, path, value, complaint):
    assert problems(change(params_text, path, value)) == [f"{FILE}: {path}: {complaint}"]


def test_a_number_in_scientific_notation_that_yaml_takes_for_text_is_a_number(params_text):
    text = re.sub("weight_decay: .*", "weight_decay: 1e-5", params_text)
    assert yaml.safe_load(text)["trainer"]["weight_decay"] == "1e-5"
    assert config.parse(text, FILE).trainer.weight_decay == pytest.approx(1e-5, rel=1e-12)


def test_a_number_in_scientific_notation_is_not_a_count(params_text):
    lines = problems(change(params_text, "branch.code.batch_size", "1e3"))
    assert lines == [f"{FILE}: branch.code.batch_size: '1e3' is not a whole number"]


def test_a_key_given_twice_is_refused(params_text):
    lines = problems(params_text + "\nseed: 43\n")
    assert "key 'seed' is given twice" in lines[0]
    assert lines[0].startswith(f"{FILE}: not valid YAML")


@pytest.mark.parametrize("text", ["", "- 1\n", "just words"])
def test_a_file_that_is_no_mapping_is_refused(text):
    assert "expected a mapping of parameters" in problems(text)[0]


def test_broken_yaml_is_refused_with_its_place():
    assert re.search(r"not valid YAML.*line 2", " ".join(problems("a: [\n")))


def test_all_errors_of_a_file_are_listed_at_once_each_with_the_file_and_its_path(params_text):
    text = change(params_text, "seed", -1)
    text = change(change(text, "trainer.zero_stage"), "trainer.zero_stages", 0)
    text = change(text, "branch.math.learning_rate", "fast")
    text = change(text, "evaluate.temperature", "hot")
    lines = problems(text)
    assert len(lines) == 5
    assert all(line.startswith(f"{FILE}: ") for line in lines)
    paths = {line.removeprefix(f"{FILE}: ").split(":")[0] for line in lines}
    assert paths == {
        "seed", "trainer.zero_stage", "trainer.zero_stages", "branch.math.learning_rate",
        "evaluate.temperature",
    }  # fmt: skip


def test_all_contradictions_of_a_file_are_listed_at_once(params_text):
    text = change(params_text, "merge.models.math-science-code.base", "coed")
    text = change(text, "curate.max_tokens", 100_000)
    text = change(text, "evaluate.benchmarks.mini-code.max_tokens", 100_000)
    lines = problems(text)
    assert [line.removeprefix(f"{FILE}: ").split(":")[0] for line in lines] == [
        "curate.max_tokens", "evaluate.benchmarks.mini-code.max_tokens", "merge.models.math-science-code",
    ]  # fmt: skip
    assert all(line.startswith(f"{FILE}: ") for line in lines)


def test_a_load_error_names_the_file_of_the_run(home):
    path = home / "params" / "mine.yaml"
    path.write_text(change((home / "params" / "smol.yaml").read_text(), "seed", "many"))
    with pytest.raises(UserError, match=r"^params/mine\.yaml: seed: 'many' is not a whole number$"):
        config.load("mine")


def test_a_merge_recipe_may_only_name_models_of_the_run(params_text):
    lines = problems(change(params_text, "merge.models.math-science-code.right.right", "maths"))
    assert lines == [
        f"{FILE}: merge.models.math-science-code: 'maths' is not a model of this run "
        "(backbone, code, math, mixture, science)"
    ]


@pytest.mark.parametrize("name", ["math", "backbone", "mixture"])
def test_a_merge_may_not_share_the_output_folder_of_another_model(params_text, name):
    lines = problems(change(params_text, f"merge.models.{name}", {"method": "fusion", "base": "code", "right": "math"}))
    assert len(lines) == 1
    assert lines[0].startswith(f"{FILE}: merge.models.{name}: the name is taken")


def test_a_merge_name_that_is_no_folder_name_is_refused(params_text):
    assert (
        "should match pattern"
        in problems(change(params_text, "merge.models.A/b", {"method": "fusion", "base": "code", "right": "math"}))[0]
    )


def test_rows_longer_than_the_packed_sequence_are_refused(params_text):
    room = config.parse(params_text, FILE).trainer.sequence_length
    assert problems(change(params_text, "curate.max_tokens", room + 1)) == [
        f"{FILE}: curate.max_tokens: {room + 1} is above trainer.sequence_length ({room}); "
        "a row must fit into one packed sequence"
    ]
    assert config.parse(change(params_text, "curate.max_tokens", room), FILE).curate.max_tokens == room


def test_a_domain_without_sources_is_refused(params_text):
    expected = [f"{FILE}: sources.code: missing; give at least one source"]
    assert problems(change(params_text, "sources.code")) == expected
    assert problems(change(params_text, "sources.code", [])) == expected


def test_a_window_of_unquoted_dates_is_read_as_text(params_text):
    dates = [date(2024, 8, 1), date(2025, 1, 31)]
    text = change(params_text, "evaluate.benchmarks.lcb", LCB | {"window": dates})
    assert "- 2024-08-01\n" in text
    assert config.parse(text, FILE).evaluate.benchmarks["lcb"].window == ("2024-08-01", "2025-01-31")


def test_a_window_belongs_to_livecodebench_only(params_text):
    aime = LCB | {"kind": "aime", "window": ["2024-08-01", "2025-01-31"]}
    assert problems(change(params_text, "evaluate.benchmarks.aime", aime)) == [
        f"{FILE}: evaluate.benchmarks.aime.window: goes with kind: livecodebench only, this benchmark is aime"
    ]


@pytest.mark.parametrize(
    ("window", "complaint"),
    [
        (["2024-8-01", "2025-01-31"], "'2024-8-01' is not a date of the form YYYY-MM-DD; e.g. 2024-08-01"),
        (["2024-08-01", "soon"], "'soon' is not a date of the form YYYY-MM-DD; e.g. 2024-08-01"),
        (["20240801", "2025-01-31"], "'20240801' is not a date of the form YYYY-MM-DD; e.g. 2024-08-01"),
        (["2024-08-01", "2025-02-29"], "'2025-02-29' is not a date of the form YYYY-MM-DD; e.g. 2024-08-01"),
        (["2025-01-31", "2024-08-01"],
         "2025-01-31 is after 2024-08-01; give the first contest date, then the last"),
    ],
)  # fmt: skip
def test_a_window_is_two_dates_in_order(params_text, window, complaint):
    text = change(params_text, "evaluate.benchmarks.lcb", LCB | {"window": window})
    assert problems(text) == [f"{FILE}: evaluate.benchmarks.lcb.window: {complaint}"]


def test_a_window_of_one_day_is_a_window(params_text):
    text = change(params_text, "evaluate.benchmarks.lcb", LCB | {"window": ["2024-08-01", "2024-08-01"]})
    assert config.parse(text, FILE).evaluate.benchmarks["lcb"].window == ("2024-08-01", "2024-08-01")


@pytest.mark.parametrize("path", ["branch.math", "backbone.distill.sft"])
def test_a_constant_rate_has_no_warmup(params_text, path):
    text = change(params_text, f"{path}.schedule", "constant")
    assert problems(text) == [
        f"{FILE}: {path}.warmup_ratio: 0.1 has no effect with schedule: constant; use constant_with_warmup, "
        "or warmup_ratio: 0"
    ]
    assert config.parse(change(text, f"{path}.warmup_ratio", 0), FILE)


def test_a_warmup_over_all_steps_is_refused(params_text):
    """transformers takes 1 for one step."""
    lines = problems(change(params_text, "branch.math.warmup_ratio", 1))
    assert lines == [f"{FILE}: branch.math.warmup_ratio: 1 should be less than 1"]


@pytest.mark.parametrize("path", ["merge.models", "evaluate.benchmarks", "sources.math.0.keep.question_type"])
def test_what_needs_an_entry_may_not_be_empty(params_text, path):
    empty = [] if path.startswith("sources") else {}
    assert problems(change(params_text, path, empty)) == [f"{FILE}: {path}: {empty} is empty; give at least one"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", "many"),
        ("trainer.weight_decay", "much"),
        ("curate.limit", 3),
        ("evaluate.engine.max_model_len", "long"),
        ("evaluate.benchmarks", {}),
        ("branch.code.schedule", "constant"),
    ],
)
def test_a_contradiction_is_told_beside_a_value_that_is_wrong_in_itself(params_text, path, value):
    room = yaml.safe_load(params_text)["trainer"]["sequence_length"]
    text = change(change(params_text, path, value), "curate.max_tokens", room + 1)
    text = change(text, "merge.models.math-science-code.base", "coed")
    found = [line.removeprefix(f"{FILE}: ").split(":")[0] for line in problems(text)]
    assert len(found) == 3
    assert {"curate.max_tokens", "merge.models.math-science-code"} < set(found)
    assert [line for line in found if line.startswith(path.removesuffix(".schedule"))]


def test_a_contradiction_is_not_looked_for_with_a_value_that_is_wrong(params_text):
    text = change(change(params_text, "trainer.sequence_length", "long"), "curate.max_tokens", 100_000)
    assert problems(text) == [f"{FILE}: trainer.sequence_length: 'long' is not a whole number"]


def test_relative_folders_are_in_the_repository_wherever_a_notebook_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYR1_HOME", "elsewhere/home")
    monkeypatch.setenv("TINYR1_PARAMS", "params")
    cfg = config.load("smol")
    assert cfg.home == ROOT / "elsewhere" / "home" / "smol"
    assert cfg.reports == cfg.home / "report"


def test_a_loaded_config_cannot_be_changed(home):
    cfg = config.load("smol")
    for target, name in ((cfg, "run"), (cfg.params, "seed"), (cfg.params.branch.math, "learning_rate")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(target, name, 1)


def test_every_model_has_a_folder_of_its_own_under_the_home(home):
    cfg = config.load("smol")
    folders = [cfg.model(name) for name in cfg.models]
    assert len(set(folders)) == len(folders) == 7
    assert all(folder.is_relative_to(home / "runs" / "smol") for folder in folders)
    assert cfg.reports.is_relative_to(cfg.home)


def test_the_leaves_of_a_recipe_are_read_base_first(params_text):
    models = config.parse(params_text, FILE).merge.models
    assert models["math-science-code"].leaves == ("code", "science", "math")


def test_the_distillation_leaves_rows_of_every_domain_for_the_branches(params_text):
    text = change(params_text, "curate.limit.math", 100)
    rows = yaml.safe_load(text)["backbone"]["distill"]["rows"]
    found = problems(change(change(text, "backbone.distill.rows.math", 100), "backbone.distill.rows.code"))
    assert f"{FILE}: backbone.distill.rows.code: missing; a number of rows" in found
    assert any(line.startswith(f"{FILE}: curate.limit.math: 100 rows, but") for line in found)
    assert len(found) == 2
    assert set(rows) == set(config.DOMAINS)


@pytest.mark.parametrize("run", ["smoke", "smol", "r1-1.5b", "paper"])
def test_the_table_shows_every_parameter_that_is_set(run):
    """The rows, read as YAML and put back in their places, are the params file without what is null."""
    cfg, found = config.load(run), {}

    def leaves(value, path=""):
        if isinstance(value, dict):
            return [leaf for key, inner in value.items() for leaf in leaves(inner, f"{path}.{key}" if path else key)]
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return [leaf for i, inner in enumerate(value) for leaf in leaves(inner, f"{path}[{i}]")]
        return [] if value is None else [(path, value)]

    for block, text in show.parameters(cfg).itertuples():
        prefix = "" if block == "run" else f"{block}."
        found |= {f"{prefix}{key}": value for key, value in yaml.safe_load(f"{{{text}}}").items()}
    assert found == dict(leaves(cfg.params.model_dump(mode="json")))
