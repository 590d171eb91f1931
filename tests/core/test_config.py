import copy
import functools
import json
import re
from datetime import date

import pytest
import yaml
from conftest import ROOT
from pydantic import ValidationError

from tinyr1.core import config
from tinyr1.core.errors import UserError

FILE = "params/x.yaml"
AIME = {"kind": "aime", "path": "x", "questions": None, "samples": 1, "max_tokens": 9}
LCB = AIME | {"kind": "livecodebench", "window": ["2024-08-01", "2025-01-31"]}
FILES = {
    "kind": "files", "columns": "s1", "path": "x.jsonl", "rows": None, "keep": {}, "correct": "any"
}  # fmt: skip
STEP = {"method": "fusion", "base": "code", "other": "math"}
ENDPOINT = {
    "kind": "endpoint", "base_url": "http://127.0.0.1:8000/v1", "model": "m", "api_key_variable": None,
    "concurrency": 8, "timeout_seconds": 60, "retries": 0,
}  # fmt: skip
FIRST_EDITION = """\
description: a params file as they were before domains became data
seed: 42
sources: {math: []}
curate: {levels: {math: [1]}, max_tokens: 512, generations_per_question: 1, limit: {math: 340},
         decontaminate: {ngram: 8, min_share: 0.9}}
branch: {mixture: {epochs: 1, batch_size: 1, learning_rate: 3.0e-4, schedule: cosine, warmup_ratio: 0.1}}
merge: {reading: exact, iqr_multiplier: 1.5, models: {math-code: {method: fusion, base: code, right: math}}}
evaluate: {split: test, protocol: sound, temperature: 0.6, top_p: 1.0, benchmarks: {}}
"""


@pytest.fixture
def data(params_text):
    """The default run's parameters, to be spoiled by a test; without the blocks that name its merges."""
    analysis = {"margin": 5, "headline": [{"model": "math", "against": "backbone"}]}
    return yaml.safe_load(params_text) | {"ablations": None, "analysis": analysis}


def put(data, path, value=None):
    """A copy of the parameters with the one at `path` (keys joined by dots) set, or removed when no value is given."""
    made = copy.deepcopy(data)
    *above, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    block = functools.reduce(lambda block, key: block[key], above, made)
    if value is None:
        del block[last]
    else:
        block[last] = value
    return made


def problems(text):
    """The lines of the error that a params file makes, without the name of the file."""
    with pytest.raises(UserError) as error:
        config.parse(text if isinstance(text, str) else yaml.safe_dump(text, sort_keys=False), FILE)
    lines = str(error.value).splitlines()
    assert all(line.startswith(f"{FILE}: ") for line in lines)
    return [line.removeprefix(f"{FILE}: ") for line in lines]


def paths(lines):
    return [line.split(":")[0] for line in lines]


def parse(data):
    return config.parse(yaml.safe_dump(data, sort_keys=False), FILE)


class TestRuns:
    @pytest.mark.parametrize("path", sorted((ROOT / "params").glob("*.yaml")), ids=lambda p: p.stem)
    def test_every_params_file_of_the_repository_loads(self, path, monkeypatch):
        monkeypatch.delenv("TINYR1_PARAMS", raising=False)
        cfg = config.load(path.stem)
        assert cfg.run == path.stem
        assert cfg.domains
        assert bool(cfg.merges) != path.stem.startswith("verify-")

    def test_an_unknown_run_is_refused_with_the_nearest_name(self, home):
        with pytest.raises(
            UserError, match=r"there is no params/smoll\.yaml; runs are smol\. Did you mean RUN=smol\?"
        ):
            config.load("smoll")

    def test_an_unknown_run_without_a_near_name_gets_no_suggestion(self, home):
        with pytest.raises(UserError) as error:
            config.load("zzz")
        assert "runs are smol" in str(error.value)
        assert "Did you mean" not in str(error.value)

    def test_a_run_name_cannot_leave_the_params_folder(self, home):
        (home / "other.yaml").write_text((home / "params" / "smol.yaml").read_text())
        with pytest.raises(UserError, match="there is no params"):
            config.load("../other")

    def test_a_load_error_names_the_file_of_the_run(self, home, data):
        (home / "params" / "mine.yaml").write_text(yaml.safe_dump(put(data, "seed", "many")))
        with pytest.raises(UserError, match=r'^params/mine\.yaml: seed: "many" is not a whole number$'):
            config.load("mine")

    def test_relative_folders_are_in_the_repository_wherever_a_notebook_runs(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("TINYR1_HOME", "elsewhere/home")
        monkeypatch.setenv("TINYR1_PARAMS", "params")
        cfg = config.load("smol")
        assert cfg.home == ROOT / "elsewhere" / "home" / "smol"
        assert cfg.reports == cfg.home / "report"

    def test_a_loaded_config_cannot_be_changed(self, home):
        cfg = config.load("smol")
        for target, name in ((cfg, "run"), (cfg.params, "seed"), (cfg.params.domains["math"].sft, "learning_rate")):
            with pytest.raises(ValidationError, match="frozen"):
                setattr(target, name, 1)

    def test_every_model_has_a_folder_of_its_own_under_the_home(self, home):
        cfg = config.load("smol")
        folders = [cfg.model(name) for name in cfg.models]
        assert len(set(folders)) == len(folders) == len(cfg.models)
        assert all(folder.is_relative_to(home / "runs" / "smol") for folder in folders)


class TestFiles:
    """What is no valid YAML, or no mapping."""

    def test_a_key_given_twice_is_refused(self, params_text):
        with pytest.raises(UserError, match=r"^params/x\.yaml: not valid YAML: key 'seed' is given twice"):
            config.parse(params_text + "\nseed: 43\n", FILE)

    @pytest.mark.parametrize("key", ["3", "yes", "null", "2024-08-01", "? [a]\n"])
    def test_a_key_that_yaml_takes_for_something_else_is_refused(self, params_text, key):
        with pytest.raises(UserError, match=r"^params/x\.yaml: not valid YAML: key .* is not a text; put it in quotes"):
            config.parse(f"{params_text}\n{key}: 1\n", FILE)

    @pytest.mark.parametrize("text", ["", "- 1\n", "just words"])
    def test_a_file_that_is_no_mapping_is_refused(self, text):
        assert "expected a mapping of parameters" in problems(text)[0]

    def test_broken_yaml_is_refused_with_its_place(self):
        with pytest.raises(UserError, match=r"(?s)not valid YAML.*line 2"):
            config.parse("a: [\n", FILE)

    def test_a_file_of_the_first_edition_is_told_where_each_key_is_now(self):
        lines = problems(FIRST_EDITION)
        for expected in (
            "sources: moved to domains.<domain>.sources",
            "branch: moved to domains.<domain>.sft, and branch.mixture to mixture",
            "curate.limit: moved to domains.<domain>.limit",
            "curate.levels: moved to levels of each miniature source and benchmark",
            "evaluate.benchmarks: moved to domains.<domain>.benchmarks",
        ):
            assert expected in lines
        merge = next(line for line in lines if line.startswith("merge.models: "))
        assert "is a list now: `- recipe: {method: fusion, base: code, other: math}`" in merge
        assert "`right` of a step is `other`" in merge

    def test_right_of_a_step_is_called_other_now(self, data):
        step = STEP | {"other": {"method": "fusion", "base": "science", "right": "math"}}
        assert "merge.models.0.recipe.other.right: unknown; this key is called `other` now, rename it" in problems(
            put(data, "merge.models.0.recipe", step)
        )


class TestKeys:
    def test_a_misspelt_key_is_reported_with_the_right_spelling(self, data):
        lines = problems(put(put(data, "domains.math.sft.learning_rate"), "domains.math.sft.learing_rate", 1.0e-5))
        where = "domains.math.sft"
        assert lines == [
            f"{where}.learing_rate: unknown parameter; did you mean learning_rate?",
            f"{where}.learning_rate: is missing; every parameter must be given",
        ]

    def test_an_unknown_key_like_no_other_gets_no_suggestion(self, params_text):
        assert problems(params_text + "bogus_thing: 1\n") == ["bogus_thing: unknown parameter"]

    def test_a_key_in_the_wrong_block_is_told_where_it_belongs(self, data):
        assert problems(put(data, "limit", 3)) == ["limit: unknown parameter; did you mean domains.<domain>.limit?"]

    def test_a_missing_key_is_reported_with_its_path(self, data):
        lines = problems(put(data, "trainer.zero_stage"))
        assert lines == ["trainer.zero_stage: is missing; every parameter must be given"]

    def test_a_parameter_whose_default_is_null_may_be_left_out(self, data):
        asks = put(data, "domains.science.instruction_with_options", "The letter.")
        assert parse(asks).domains["science"].instruction_with_options == "The letter."
        left_out = parse(put(asks, "domains.science.instruction_with_options"))
        assert left_out.domains["science"].instruction_with_options is None
        assert parse(put(data, "domains.math.benchmarks.aime24", AIME)).benchmarks["aime24"].sha256 is None


class TestKinds:
    """Sources, benchmarks and engines are unions by `kind`."""

    @pytest.mark.parametrize(
        ("path", "kinds"),
        [
            ("domains.math.sources.0", "huggingface, files, miniature"),
            ("domains.math.benchmarks.mini-math", "aime, gpqa, livecodebench, math, choice, miniature"),
            ("evaluate.engine", "vllm, endpoint"),
        ],
    )
    def test_an_unknown_kind_is_told_the_known_ones(self, data, path, kinds):
        assert problems(put(data, f"{path}.kind", "other")) == [f'{path}.kind: "other" is not one of {kinds}']
        assert problems(put(data, f"{path}.kind")) == [f"{path}.kind: is missing; one of {kinds}"]
        assert problems(put(data, path, 3)) == [f"{path}: 3 is not a mapping of parameters"]

    @pytest.mark.parametrize(
        ("path", "block", "key", "rule"),
        [
            ("domains.math.benchmarks.aime", AIME, "window", "of kind: aime; it belongs to kind: livecodebench"),
            ("domains.math.benchmarks.aime", AIME, "levels", "of kind: aime; it belongs to kind: miniature"),
            ("domains.math.sources.0", FILES, "revision", "of kind: files; it belongs to kind: huggingface"),
            ("evaluate.engine", ENDPOINT, "enforce_eager", "of kind: endpoint; it belongs to kind: vllm"),
            ("domains.math.benchmarks.aime", AIME, "bogus_thing", ""),
        ],
    )
    def test_a_key_of_another_kind_is_an_unknown_parameter(self, data, path, block, key, rule):
        lines = problems(put(data, path, block | {key: 1}))
        assert lines == [f"{path}.{key}: unknown parameter{' ' if rule else ''}{rule}"]

    def test_a_kind_is_checked_like_any_other_block(self, data):
        lines = problems(put(data, "domains.math.sources.0", {**FILES, "rows": 0, "path": 7}))
        assert lines == [
            "domains.math.sources.0.path: 7 is not a text",
            "domains.math.sources.0.rows: 0 should be greater than or equal to 1",
        ]

    def test_a_benchmark_that_is_called_like_a_kind_keeps_its_path(self, data):
        lines = problems(put(data, "domains.math.benchmarks.aime", AIME | {"samples": 0}))
        assert lines == ["domains.math.benchmarks.aime.samples: 0 should be greater than or equal to 1"]


class TestValues:
    @pytest.mark.parametrize(
        ("path", "value", "complaint"),
        [
            ("domains.math.sft.learning_rate", "fast", '"fast" is not a number; e.g. 1.0e-5'),
            ("domains.math.sft.learning_rate", True, "true is not a number"),
            ("domains.math.sft.epochs", 1.5, "1.5 is not a whole number"),
            ("domains.math.sft.epochs", "two", '"two" is not a whole number'),
            ("trainer.processes_per_node", True, "true is not a number"),
            ("trainer.gradient_checkpointing", 0, "0 is neither true nor false"),
            ("trainer.gradient_checkpointing", "yes", '"yes" is neither true nor false'),
            ("domains.math.sources", 3, "3 is not a list"),
            ("domains.math", 3, "3 is not a mapping of parameters"),
            ("domains.math.sft", [1], "[1] is not a mapping of parameters"),
            ("domains", 3, "3 is not a mapping"),
            ("evaluate", 3, "3 is not a mapping of parameters"),
            ("domains.math.benchmarks", 3, "3 is not a mapping"),
            ("description", 7, "7 is not a text"),
            ("mixture", "yes", '"yes" is not a mapping of parameters'),
        ],
    )
    def test_a_value_of_the_wrong_type_is_reported(self, data, path, value, complaint):
        assert problems(put(data, path, value)) == [f"{path}: {complaint}"]

    @pytest.mark.parametrize(
        ("path", "value", "complaint"),
        [
            ("trainer.zero_stage", 4, "4 should be less than or equal to 3"),
            ("trainer.weight_decay", -1, "-1 should be greater than or equal to 0"),
            ("evaluate.top_p", 1.01, "1.01 should be less than or equal to 1"),
            ("evaluate.top_p", 0, "0 should be greater than 0"),
            ("trainer.max_grad_norm", float("inf"), "Infinity should be a finite number"),
            ("trainer.max_grad_norm", float("nan"), "NaN should be a finite number"),
            ("evaluate.split", "train", "\"train\" should be 'test' or 'validation'"),
            ("domains.math.sources.0.levels", [1, 4], "4 should be less than or equal to 3"),
            # transformers takes 1 for one step
            ("domains.math.sft.warmup_ratio", 1, "1 should be less than 1"),
            ("domains.math.limit", 0, "0 should be greater than or equal to 1"),
        ],
    )
    def test_a_value_out_of_range_is_reported(self, data, path, value, complaint):
        where = f"{path}.1" if isinstance(value, list) else path
        assert problems(put(data, path, value)) == [f"{where}: {complaint}"]

    @pytest.mark.parametrize("text", ["1e-5", "'1.0e-5'", "0.00001"])
    def test_a_number_may_be_written_as_yaml_takes_it_or_as_text(self, params_text, text):
        """YAML 1.1 takes 1e-5 for text."""
        text = re.sub("weight_decay: .*", f"weight_decay: {text}", params_text)
        assert config.parse(text, FILE).trainer.weight_decay == pytest.approx(1e-5, rel=1e-12)

    @pytest.mark.parametrize("value", [3, "3", 3.0, "3.0"])
    def test_a_count_may_be_a_number_in_a_text(self, data, value):
        params = parse(put(data, "domains.code.sft.batch_size", value))
        assert params.domains["code"].sft.batch_size == 3
        assert type(params.domains["code"].sft.batch_size) is int

    def test_a_number_in_scientific_notation_is_not_a_count(self, data):
        lines = problems(put(data, "domains.code.sft.batch_size", "1e3"))
        assert lines == ['domains.code.sft.batch_size: "1e3" is not a whole number']

    @pytest.mark.parametrize(
        ("path", "empty"),
        [("merge.models", []), ("domains", {}), ("domains.math.sources", []), ("domains.math.sources.0.levels", []),
         ("domains.math.sources.0.keep.question_type", [])],
    )  # fmt: skip
    def test_what_needs_an_entry_may_not_be_empty(self, data, path, empty):
        assert problems(put(data, path, empty)) == [f"{path}: {empty} is empty; give at least one"]

    def test_a_long_value_is_cut_in_the_message(self, data):
        line = problems(put(data, "seed", "long " * 1000))[0]
        assert line.startswith('seed: "long long')
        assert line.endswith("… is not a whole number")
        assert len(line) < 200

    @pytest.mark.parametrize(
        ("path", "value", "rule"),
        [
            ("domains.math.benchmarks.aime.sha256", "0" * 63,
             "is not a SHA-256 checksum; give all 64 hexadecimal digits"),
            ("domains.math.benchmarks.aime.revision", "main", "is not a commit; give all 40 hexadecimal digits"),
            ("evaluate.engine.base_url", "https://me:secret@host/v1",
             "is not an address such as http://127.0.0.1:8000/v1, without user name and password"),
            ("merge.models.0.name", "A/b", "is not a name; use lower-case letters, digits and hyphens"),
        ],
    )  # fmt: skip
    def test_a_text_of_the_wrong_form_is_told_the_form(self, data, path, value, rule):
        data = put(put(data, "domains.math.benchmarks.aime", AIME), "evaluate.engine", ENDPOINT)
        assert problems(put(data, path, value)) == [f"{path}: {json.dumps(value)} {rule}"]


class TestWindow:
    PATH = "domains.code.benchmarks.lcb"

    @pytest.mark.parametrize("dates", ["[2024-08-01, 2025-01-31]", '["2024-08-01", "2025-01-31"]'])
    def test_dates_may_be_quoted_or_not(self, data, dates):
        params = parse(put(data, self.PATH, LCB | {"window": yaml.safe_load(dates)}))
        assert params.benchmarks["lcb"].window == (date(2024, 8, 1), date(2025, 1, 31))
        assert params.model_dump(mode="json")["domains"]["code"]["benchmarks"]["lcb"]["window"] == [
            "2024-08-01", "2025-01-31"
        ]  # fmt: skip

    @pytest.mark.parametrize("value", ["2024-8-01", "soon", "20240801", 20240801, "2025-02-29", True, 1722470400])
    def test_what_is_no_date_is_refused(self, data, value):
        lines = problems(put(data, self.PATH, LCB | {"window": [value, "2025-12-31"]}))
        assert lines == [
            f"{self.PATH}.window.0: {json.dumps(value)} is not a date of the form YYYY-MM-DD; e.g. 2024-08-01"
        ]

    def test_the_dates_are_in_order(self, data):
        lines = problems(put(data, self.PATH, LCB | {"window": ["2025-01-31", "2024-08-01"]}))
        assert lines == [
            f"{self.PATH}.window: 2025-01-31 is after 2024-08-01; give the first contest date, then the last"
        ]

    def test_one_day_is_a_window(self, data):
        day = date(2024, 8, 1)
        assert parse(put(data, self.PATH, LCB | {"window": [day, day]})).benchmarks["lcb"].window == (day, day)

    def test_one_date_is_none(self, data):
        assert paths(problems(put(data, self.PATH, LCB | {"window": ["2024-08-01"]}))) == [f"{self.PATH}.window.1"]


class TestBenchmarkFiles:
    PATH, COMMIT = "domains.code.benchmarks.it", "0" * 40

    @pytest.mark.parametrize(
        ("block", "complaint"),
        [
            (AIME | {"path": "hf://a/b/c.jsonl"}, "revision: goes with hf:// paths, which need the full commit"),
            (AIME | {"revision": COMMIT}, "revision: goes with hf:// paths, which need the full commit; path is 'x'"),
            (AIME | {"path": "hf://a/b", "revision": COMMIT}, "path: 'hf://a/b' should read hf://owner/dataset/file"),
            (LCB | {"path": "hf://a/b", "revision": COMMIT}, "release: hf:// paths need one of release_v1, release_v2"),
            (LCB | {"path": "hf://a/b/c.jsonl", "revision": COMMIT, "release": "release_v5"},
             "path: 'hf://a/b/c.jsonl' should read hf://owner/dataset"),
        ],
    )  # fmt: skip
    def test_path_revision_and_release_go_together(self, data, block, complaint):
        (line,) = problems(put(data, self.PATH, block))
        assert line.startswith(f"{self.PATH}.{complaint}")

    def test_a_file_of_the_hub_has_a_commit(self, data):
        hub = {"path": "hf://a/b/c.jsonl", "revision": self.COMMIT}
        assert parse(put(data, self.PATH, AIME | hub)).benchmarks["it"].revision == self.COMMIT
        hub = {"path": "hf://a/b", "revision": self.COMMIT, "release": "release_v5"}
        assert parse(put(data, self.PATH, LCB | hub)).benchmarks["it"].release == "release_v5"


class TestRecipes:
    PATH = "merge.models.0.recipe"

    @pytest.mark.parametrize(
        ("recipe", "line"),
        [
            ("code", 'recipe: "code" is not a merge step; e.g. {method: fusion, base: code, other: math}'),
            (STEP | {"other": 3}, "recipe.other: 3 is neither the name of a model nor a merge step"),
            (STEP | {"other": [STEP]}, "recipe.other: [{"),
            (STEP | {"method": "fusio"}, "recipe.method: \"fusio\" should be 'fusion', "),
            (STEP | {"other": STEP | {"method": "fusio"}}, "recipe.other.method: \"fusio\" should be 'fusion', "),
            (STEP | {"other": STEP | {"bases": "math"}}, "recipe.other.bases: unknown parameter; did you mean base?"),
            (STEP | {"iqr_multiplier": "x"}, 'recipe.iqr_multiplier: "x" is not a number; e.g. 1.0e-5'),
            ({"method": "fusion", "base": "code"}, "recipe.other: is missing; fusion needs it"),
            (STEP | {"other": {"method": "fusion", "base": "code"}},
             "recipe.other.other: is missing; fusion needs it"),
            ({"method": "linear", "models": ["math"]}, 'recipe.models.0: "math" is not a model with its settings; '),
            ({"method": "linear", "models": [{"model": "math", "weight": "x"}]},
             'recipe.models.0.weight: "x" is not a number; e.g. 1.0e-5'),
            ({"method": "linear", "models": [{"model": 3}]},
             "recipe.models.0.model: 3 is neither the name of a model nor a merge step"),
            ({"method": "linear", "models": [{"model": {"method": "fusion", "base": "code"}}]},
             "recipe.models.0.model.other: is missing; fusion needs it"),
        ],
    )  # fmt: skip
    def test_a_wrong_recipe_is_one_line_with_its_path(self, data, recipe, line):
        lines = problems(put(data, self.PATH, recipe))
        assert len(lines) == 1
        assert lines[0].startswith(f"merge.models.0.{line}")

    def test_a_recipe_in_place_of_a_model_is_told_so(self, data):
        lines = problems(put(data, "merge.models.0", STEP))
        assert "merge.models.0.base: unknown parameter; did you mean merge.models.<i>.recipe.base?" in lines
        assert "merge.models.0.recipe: is missing; every parameter must be given" in lines

    def test_names_of_merged_models_follow_from_their_recipes(self, data):
        recipes = [
            {"method": "fusion", "base": "code", "other": {"method": "fusion", "base": "science", "other": "math"}},
            {"method": "linear", "models": [{"model": "math"}, {"model": "science"}]},
            {"method": "dare_ties", "base": "backbone", "models": [{"model": "code"}, {"model": "math"}]},
        ]
        models = [{"recipe": recipe} for recipe in recipes] + [{"recipe": STEP, "name": "my-own"}]
        cfg = config.Config(run="x", params=parse(put(data, "merge.models", models)))
        assert list(cfg.merges) == [
            "math-science-code", "linear-math-science", "dare-ties-backbone-code-math", "my-own"
        ]  # fmt: skip
        assert cfg.merges["math-science-code"].leaves == ("code", "science", "math")
        assert cfg.models == ("backbone", "math", "science", "code", "mixture", *cfg.merges)

    def test_equal_recipes_need_names_of_their_own(self, data):
        models = [{"recipe": STEP}, {"recipe": STEP | {"iqr_multiplier": 3.0}}]
        lines = problems(put(data, "merge.models", models))
        assert paths(lines) == ["merge.models.1"]
        assert "the name 'math-code' is taken by another model" in lines[0]
        models[1]["name"] = "math-code-3"
        params = parse(put(data, "merge.models", models))
        assert [model.called for model in params.merge.models] == ["math-code", "math-code-3"]

    @pytest.mark.parametrize("name", ["math", "backbone", "mixture"])
    def test_a_merge_may_not_share_the_output_folder_of_another_model(self, data, name):
        (line,) = problems(put(data, "merge.models.0.name", name))
        assert line.startswith(f"merge.models.0: the name '{name}' is taken by another model")
        assert line.endswith("give this one a `name` of its own")

    def test_a_recipe_may_only_name_models_of_the_run(self, data):
        lines = problems(put(data, f"{self.PATH}.other.other", "maths"))
        assert lines == [
            "merge.models.0: 'maths' is not a model of this run (backbone, code, math, mixture, science)"
        ]
        data["mixture"] = None
        lines = problems(put(data, f"{self.PATH}.other.other", "mixture"))
        assert lines == ["merge.models.0: 'mixture' is not a model of this run (backbone, code, math, science)"]


class TestAllAtOnce:
    def test_all_errors_of_a_file_are_listed_each_with_the_file_and_its_path(self, data):
        data = put(data, "seed", -1)
        data = put(put(data, "trainer.zero_stage"), "trainer.zero_stages", 0)
        data = put(data, "domains.math.sft.learning_rate", "fast")
        data = put(data, "domains.code.sources.0.kind", "web")
        data = put(data, "evaluate.temperature", "hot")
        assert paths(problems(data)) == [
            "domains.code.sources.0.kind", "domains.math.sft.learning_rate", "evaluate.temperature", "seed",
            "trainer.zero_stage", "trainer.zero_stages",
        ]  # fmt: skip

    def test_all_contradictions_of_a_file_are_listed(self, data):
        data = put(data, "merge.models.0.recipe.base", "coed")
        data = put(data, "curate.max_tokens", 100_000)
        data = put(data, "domains.code.benchmarks.mini-code.max_tokens", 100_000)
        assert paths(problems(data)) == [
            "curate.max_tokens", "domains.code.benchmarks.mini-code.max_tokens", "merge.models.0",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("path", "value", "reported"),
        [
            ("seed", "many", "seed"),
            ("trainer.weight_decay", "much", "trainer.weight_decay"),
            ("domains.math.limit", "some", "domains.math.limit"),
            ("evaluate.engine.max_model_len", "long", "evaluate.engine.max_model_len"),
            ("domains.math.benchmarks.mini-math.samples", 0, "domains.math.benchmarks.mini-math.samples"),
            ("domains.code.sft.schedule", "constant", "domains.code.sft.warmup_ratio"),
            ("domains.math.sources.0.kind", "web", "domains.math.sources.0.kind"),
        ],
    )
    def test_a_contradiction_is_reported_beside_a_value_that_is_wrong_in_itself(self, data, path, value, reported):
        data = put(put(data, path, value), "curate.max_tokens", data["trainer"]["sequence_length"] + 1)
        data = put(data, "merge.models.0.recipe.base", "coed")
        assert sorted(paths(problems(data))) == sorted(["curate.max_tokens", "merge.models.0", reported])

    @pytest.mark.parametrize(
        ("path", "value"), [("trainer.sequence_length", "long"), ("domains.math", 3), ("domains.Math", {})]
    )
    def test_a_contradiction_is_not_looked_for_with_a_value_that_is_wrong(self, data, path, value):
        lines = problems(put(data, path, value) | {"curate": data["curate"] | {"max_tokens": 100_000}})
        expected = {path} if path == "trainer.sequence_length" else {path, "curate.max_tokens"}
        assert {".".join(one.split(".")[:2]) for one in paths(lines)} == expected


class TestRules:
    def test_rows_longer_than_the_packed_sequence_are_refused(self, data):
        room = data["trainer"]["sequence_length"]
        assert problems(put(data, "curate.max_tokens", room + 1)) == [
            f"curate.max_tokens: {room + 1} is above trainer.sequence_length ({room}); "
            "a row must fit into one packed sequence"
        ]
        assert parse(put(data, "curate.max_tokens", room)).curate.max_tokens == room

    @pytest.mark.parametrize("path", ["domains.math.sft", "backbone.distill.sft", "mixture"])
    def test_a_constant_rate_has_no_warmup(self, data, path):
        constant = put(data, f"{path}.schedule", "constant")
        assert problems(constant) == [
            f"{path}.warmup_ratio: 0.1 has no effect with schedule: constant; use constant_with_warmup, "
            "or warmup_ratio: 0"
        ]
        assert parse(put(constant, f"{path}.warmup_ratio", 0))

    def test_the_distillation_leaves_rows_of_every_domain_for_the_branches(self, data):
        data = put(put(data, "domains.math.limit", 100), "backbone.distill.rows", {"math": 100, "science": 9, "art": 9})
        assert problems(data) == [
            "backbone.distill.rows.art: is not a domain of this run (math, science, code)",
            "backbone.distill.rows.code: missing; give a number of rows",
            "domains.math.limit: 100 rows, but backbone.distill.rows.math takes 100 of them and the branch is left "
            "with none; raise the limit",
        ]

    def test_an_answer_leaves_room_for_the_prompt(self, data):
        room = data["evaluate"]["engine"]["max_model_len"]
        path = "domains.math.benchmarks.mini-math.max_tokens"
        (line,) = problems(put(data, path, room))
        assert line == f"{path}: {room} leaves no room for the prompt in evaluate.engine.max_model_len ({room})"
        assert parse(put(put(data, path, room), "evaluate.engine", ENDPOINT)), "a server has limits of its own"

    def test_engines_side_by_side_share_one_machine(self, data):
        data = put(data, "evaluate.engine.data_parallel_size", 2)
        (line,) = problems(put(data, "evaluate.engine.distributed_executor_backend", "ray"))
        assert line.startswith("evaluate.engine.data_parallel_size: 2 engines share one machine")

    def test_the_released_protocol_knows_the_papers_benchmarks_only(self, data):
        lines = problems(put(data, "evaluate.protocol", "released"))
        assert paths(lines) == [f"domains.{name}.benchmarks.mini-{name}" for name in ("code", "math", "science")]


def domain(name, tasks="math", **more):
    """A domain of the miniature."""
    return {
        "instruction": f"Think about {name}.",
        "sources": [{"kind": "miniature", "columns": "openr1_math", "tasks": tasks, "levels": [1], "rows": 60,
                     "keep": {}, "correct": "any"}],
        "limit": None,
        "sft": {"epochs": 1, "batch_size": 1, "learning_rate": 1e-3, "schedule": "cosine", "warmup_ratio": 0},
        "benchmarks": {f"mini-{name}": {"kind": "miniature", "tasks": tasks, "levels": [1], "questions": 6,
                                        "samples": 1, "max_tokens": 24}},
        **more,
    }  # fmt: skip


class TestDomains:
    """Domains are data: nothing counts to three."""

    @pytest.mark.parametrize("names", [("law",), ("law", "art"), ("law", "art", "maths-2", "code")])
    def test_a_run_has_any_number_of_domains_with_any_names(self, data, names):
        data["domains"] = {name: domain(name) for name in names}
        data["backbone"]["distill"]["rows"] = dict.fromkeys(names, 5)
        models = [{"model": name} for name in names]
        data["merge"]["models"] = [{"recipe": {"method": "linear", "models": models}}]
        data["analysis"]["headline"] = [{"model": names[0], "against": "backbone"}]
        cfg = config.Config(run="x", params=parse(data))
        assert cfg.domains == names
        assert cfg.branches == (*names, "mixture")
        assert cfg.models == ("backbone", *names, "mixture", "-".join(["linear", *names]))
        assert list(cfg.params.benchmarks) == [f"mini-{name}" for name in names]
        assert cfg.params.domain_of == {f"mini-{name}": name for name in names}
        assert len({cfg.rows(name) for name in names} | {cfg.model(name) for name in cfg.models}) == 2 * len(names) + 3

    def test_the_order_of_the_file_is_the_order_of_the_tables(self, data):
        data["domains"] = dict(reversed(data["domains"].items()))
        cfg = config.Config(run="x", params=parse(data))
        assert cfg.domains == ("code", "science", "math")
        assert list(cfg.params.benchmarks) == ["mini-code", "mini-science", "mini-math"]

    def test_without_the_mixture_there_is_no_such_model(self, data):
        data["mixture"] = None
        cfg = config.Config(run="x", params=parse(data))
        assert cfg.branches == cfg.domains == ("math", "science", "code")
        assert "mixture" not in cfg.models

    @pytest.mark.parametrize("name", ["backbone", "mixture"])
    def test_a_domain_may_not_be_called_like_another_model(self, data, name):
        data["domains"][name] = domain(name)
        data["backbone"]["distill"] = None
        lines = problems(data)
        assert f"domains.{name}: the name is taken by another model; choose another name" in lines

    @pytest.mark.parametrize("name", ["Math", "a b", "../x", "-x"])
    def test_a_domain_has_a_name_that_can_be_a_folder(self, data, name):
        data["domains"][name] = domain("x")
        assert problems(data) == [
            f"domains.{name}: {json.dumps(name)} is not a name; use lower-case letters, digits and hyphens"
        ]

    def test_a_benchmark_has_one_domain(self, data):
        data["domains"]["code"]["benchmarks"]["mini-math"] = data["domains"]["math"]["benchmarks"]["mini-math"]
        assert problems(data) == [
            "domains.code.benchmarks.mini-math: math has a benchmark of this name; choose another"
        ]

    def test_a_domain_may_have_several_benchmarks_or_none(self, data):
        data["domains"]["math"]["benchmarks"] = {"aime24": AIME, "aime25": AIME}
        data["domains"]["code"]["benchmarks"] = {}
        params = parse(data)
        assert list(params.benchmarks) == ["aime24", "aime25", "mini-science"]
        assert params.domain_of == {"aime24": "math", "aime25": "math", "mini-science": "science"}
        assert {name: benchmark.answers for name, benchmark in params.benchmarks.items()} == {
            "aime24": "integer", "aime25": "integer", "mini-science": "integer",
        }  # fmt: skip

    def test_a_run_without_any_benchmark_is_refused(self, data):
        for block in data["domains"].values():
            block["benchmarks"] = {}
        assert problems(data) == [
            "domains: none of them has a benchmark; give at least one, or nothing can be evaluated"
        ]


# --- the text of a file ---------------------------------------------------------------------------------------------


def with_seed(params_text, text):
    """The default run's params file with another text in the place of its seed."""
    return re.sub(r"^seed: .*$", f"seed: {text}", params_text, count=1, flags=re.M)


@pytest.mark.parametrize(
    ("text", "seed"),
    [("010", 10), ("0o10", 8), ("0x1F", 31), ("1.0e1", 10), ("7.0", 7), ("+5", 5), ("4294967295", 2**32 - 1)],
)
def test_numbers_are_those_of_yaml_1_2(params_text, text, seed):
    assert config.parse(with_seed(params_text, text), FILE).seed == seed


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("1:30", 'seed: "1:30" is not a whole number'),
        ("0b11", 'seed: "0b11" is not a whole number'),
        ("4294967296", "seed: 4294967296 should be less than or equal to 4294967295"),
        ("9223372036854775808", "seed: 9223372036854775808 should be less than or equal to 4294967295"),
        ("9" * 5000, "a value cannot be read: Exceeds the limit"),
        ("2025-02-30", "a value cannot be read: day is out of range for month"),
        ("{<<: 1}", "`<<` copies no keys here; write them out"),
        ("!!python/name:os.system ''", "is not read; write the plain value"),
        ("[" * 400, "it is nested deeper than 60 levels"),
        ("[" * 400 + "]" * 400, "it is nested deeper than 60 levels"),
        ("{a: " * 200 + "1" + "}" * 200, "it is nested deeper than 60 levels"),
        ("- " * 300 + "1", "not valid YAML"),
    ],
)
def test_a_text_that_is_no_parameter_is_refused_in_plain_words(params_text, text, rule):
    with pytest.raises(UserError) as refused:
        config.parse(with_seed(params_text, text), FILE)
    assert str(refused.value).startswith(f"{FILE}: ")
    assert rule in str(refused.value)


def test_bytes_that_are_not_utf_8_are_refused_with_their_line(home, params_text):
    file = home / "params" / "odd.yaml"
    file.write_bytes("# one\n# f\u00fcr two\n".encode("latin-1") + params_text.encode())
    with pytest.raises(UserError, match=r"^params/odd\.yaml: line 2: a byte is not UTF-8; save the file in that"):
        config.load("odd")
    file.write_bytes(b"\xef\xbb\xbf" + params_text.encode())  # a byte order mark
    assert config.load("odd").params == config.load("smol").params
    file.write_text(params_text, encoding="utf-16")
    with pytest.raises(UserError, match=r"^params/odd\.yaml: line 1: a byte is not UTF-8"):
        config.load("odd")


def test_an_ablation_file_that_is_not_utf_8_is_refused_too(home, tmp_path):
    (tmp_path / "odd.yaml").write_bytes(b"ablations: \xfc")
    with pytest.raises(UserError, match=r"odd\.yaml: line 1: a byte is not UTF-8"):
        config.ablations_from(config.load("smol"), tmp_path / "odd.yaml")


@pytest.mark.parametrize("name", ["smol", "smol.yaml", "params/smol.yaml", "params/smol"])
def test_a_run_may_be_named_by_its_file(home, name):
    assert config.load(name).run == "smol"


@pytest.mark.parametrize("name", ["params/params/smol", "../params/smol.yaml", "smol.yaml.yaml", "", "none.yaml"])
def test_another_name_is_refused(home, name):
    with pytest.raises(UserError, match=r"there is no params/.*; runs are smol"):
        config.load(name)


def test_paths_are_read_as_in_a_shell(monkeypatch):
    monkeypatch.setenv("HOME", "/homes/me")
    monkeypatch.setenv("DISK", "/disk")
    assert [str(config.located(path)) for path in ("~/hosts", "$HOME/hosts", "${DISK}/a", "/a", "a/b", "$NONE/a")] == [
        "/homes/me/hosts", "/homes/me/hosts", "/disk/a", "/a", str(ROOT / "a/b"), str(ROOT / "$NONE/a"),
    ]  # fmt: skip


def test_a_batch_that_the_ranks_cannot_share_is_refused_with_all_others(params_text):
    data = yaml.safe_load(params_text)
    data["trainer"]["processes_per_node"] = 2
    data["domains"]["math"]["sft"]["batch_size"] = 4
    with pytest.raises(UserError) as refused:
        config.validate(data, FILE)
    rule = "1 packed sequences cannot be shared by the 2 ranks of trainer.processes_per_node; use a multiple of 2"
    blocks = ("backbone.distill.sft", "domains.code.sft", "domains.science.sft", "mixture")
    assert str(refused.value).splitlines() == [f"{FILE}: {block}.batch_size: {rule}" for block in blocks]


def test_the_variables_that_hold_keys_are_those_of_its_servers(home, params_text):
    data = yaml.safe_load(params_text)
    assert config.load("smol").key_variables == ()
    data["evaluate"]["engine"] = ENDPOINT | {"api_key_variable": "QUIZ_KEY"}
    served = config.Config(run="x", params=config.validate(data, FILE))
    assert served.key_variables == ("QUIZ_KEY",)


def test_a_params_file_is_one_document():
    with pytest.raises(UserError, match="params/x.yaml: holds 2 documents; a params file is one"):
        config.parse("seed: 1\n---\nseed: 2\n", "params/x.yaml")
