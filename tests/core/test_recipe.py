"""Recipes as data: what is accepted, what is said about the rest, and mergekit's YAML both ways."""

from pathlib import Path

import pytest
import torch
import yaml
from checkpoints import Shape, bytes_of, experts

from tinyr1.core import recipe
from tinyr1.core.errors import UserError
from tinyr1.core.recipe import TAKES, About, Input, parse
from tinyr1.merge import checkpoint, mergekit, methods
from tinyr1.merge.engine import MergeOptions
from tinyr1.merge.fusion_blocks import Fusion
from tinyr1.merge.mergekit import from_mergekit, to_mergekit
from tinyr1.merge.method import merge_tensors
from tinyr1.merge.methods import METHODS
from tinyr1.merge.methods.placebo import Placebo

CHAIN = {"method": "fusion", "base": "code", "other": {"method": "fusion", "base": "science", "other": "math"}}
TWO = [{"model": "math", "weight": 0.25}, {"model": "science", "weight": 0.5}]
UNWEIGHTED = [{"model": "math"}, {"model": "science"}]
SPARSE = {"base": "backbone", "models": [m | {"density": 0.5} for m in TWO], "lambda": 0.75, "normalize": False}
EVERY = {
    "fusion": CHAIN,
    "slerp": {"method": "slerp", "base": "math", "other": "code", "t": 0.25},
    "linear": {"method": "linear", "models": TWO, "normalize": False},
    "task_arithmetic": {"method": "task_arithmetic", "base": "backbone", "models": TWO, "lambda": 0.5},
    **{name: {"method": name, **SPARSE, "rescale": True} for name in ("ties", "dare_linear", "dare_ties")},
    **{name: {"method": name, **SPARSE, "models": [m | {"epsilon": 0.1} for m in SPARSE["models"]]}
       for name in ("della_linear", "della")},
    **{name: {"method": name, **SPARSE, "models": [m | {"gamma": 0.01} for m in SPARSE["models"]]}
       for name in ("breadcrumbs", "breadcrumbs_ties")},
    "nuslerp": {"method": "nuslerp", "models": TWO, "nuslerp_flatten": False, "nuslerp_row_wise": True},
    "multislerp": {"method": "multislerp", "base": "backbone", "models": TWO, "normalize_weights": False, "eps": 1e-6},
    "karcher": {"method": "karcher", "models": UNWEIGHTED, "max_iter": 3, "tol": 1e-4},
    "sce": {"method": "sce", "base": "backbone", "models": UNWEIGHTED, "select_topk": 0.5},
    "model_stock": {"method": "model_stock", "base": "backbone", "models": UNWEIGHTED, "filter_wise": True},
    "nearswap": {"method": "nearswap", "base": "math", "other": "code", "t": 0.25},
    "passthrough": {"method": "passthrough", "models": [{"model": "math", "scale": 0.5}]},
    "noise": {"method": "noise", "base": "math", "other": "code", "seed": 3},
    "stack": {"method": "stack", "models": [{"model": "math", "layers": [0, 2]}, {"model": "code", "layers": [1, 3]}]},
}  # fmt: skip
NESTED = {
    "method": "ties", "base": "backbone", "lambda": 0.5,
    "models": [
        {"model": CHAIN, "weight": 0.5, "density": 0.5},
        {"model": {"method": "linear", "models": TWO}, "weight": 1.0, "density": 0.25},
    ],
}  # fmt: skip


def refused(data: object) -> list[str]:
    with pytest.raises(UserError) as caught:
        parse(data, "file")
    return str(caught.value).splitlines()


class TestParsing:
    def test_every_method_is_covered_here(self):
        assert EVERY.keys() == TAKES.keys() == METHODS.keys() | {"fusion", "stack"}

    def test_all_problems_are_said_at_once(self):
        lines = refused({"method": "slerp", "base": 3, "t": 2, "wheight": 1})
        assert all(line.startswith("file: ") for line in lines)
        for said in ("wheight: unknown key", "t: Input should be less than or equal to 1", "base: 3 is neither"):
            assert any(said in line for line in lines), (said, lines)

    def test_what_a_method_takes_is_said(self):
        said = "\n".join(refused({"method": "fusion", "base": "a", "models": [{"model": "b"}], "t": 0.5}))
        assert "models: fusion does not take it; it takes base, iqr_multiplier, mask, other, reading, seed" in said
        assert "t: fusion does not take it" in said
        assert "other: is missing; fusion needs it" in said
        said = "\n".join(refused({"method": "linear", "models": [{"model": "b", "density": 0.5, "gamma": 0.1}]}))
        assert "models: linear takes no density for a model" in said
        assert "models: linear takes no gamma for a model" in said

    def test_a_base_is_needed_or_not(self):
        for name in ("nuslerp", "multislerp"):
            for based in ({}, {"base": "backbone"}):
                made = parse({"method": name, "models": TWO} | based, "file")
                assert methods.build(made, "exact", 1.5).inputs == len(made.parts) == 2 + len(based)
        for name in ("sce", "model_stock"):
            said = refused({"method": name, "models": UNWEIGHTED})
            assert said == [f"file: base: is missing; {name} needs it"]

    @pytest.mark.parametrize("name", ["karcher", "sce", "model_stock", "passthrough"])
    def test_a_weight_that_the_method_would_not_use_is_refused(self, name):
        models = EVERY[name]["models"]
        alike = EVERY[name] | {"models": [m | {"weight": 1} for m in models]}
        assert parse(alike, "file") == parse(EVERY[name], "file")
        said = refused(EVERY[name] | {"models": [m | {"weight": 0.5} for m in models]})
        assert said == [f"file: models: {name} takes no weight for a model; remove it"]

    def test_keys_that_came_later_do_not_change_how_older_recipes_are_written(self):
        older = {"method", "base", "other", "models", "reading", "iqr_multiplier", "mask", "t", "normalize", "rescale"}
        written = parse(NESTED, "file").model_dump(by_alias=True)
        assert written.keys() == older | {"lambda", "seed"}
        assert written["models"][0].keys() == {"model", "weight", "density", "gamma", "epsilon"}
        assert written["models"][0]["model"]["other"].keys() == older | {"lambda", "seed"}
        assert parse(EVERY["sce"], "file").model_dump()["select_topk"] == 0.5

    def test_masks_and_seeds_belong_to_some_steps(self):
        assert any("mask: Input should be 'importance', 'random'" in line for line in refused(CHAIN | {"mask": "best"}))
        assert refused(EVERY["slerp"] | {"mask": "random"}) == [
            "file: mask: slerp does not take it; it takes base, other, t"
        ]
        for mask in ({}, {"mask": "importance"}, {"mask": "largest"}):
            assert refused(CHAIN | mask | {"seed": 1}) == [
                "file: seed: only fusion with `mask: random` draws numbers; remove it"
            ]
        assert parse(CHAIN | {"mask": "random", "seed": 1}, "file").seed == 1

    def test_problems_inside_a_nested_step_have_their_path(self):
        lines = refused({"method": "fusion", "base": "a", "other": {"method": "fusoin", "base": "b", "other": "c"}})
        assert len(lines) == 1
        assert lines[0].startswith("file: other.method: Input should be 'fusion', 'slerp'")
        inner = {"method": "fusion", "base": "b", "other": 3}
        assert refused({"method": "linear", "models": [{"model": "a"}, {"model": inner}]}) == [
            "file: models.1.model.other: 3 is neither the name of a model nor a merge step"
        ]
        lines = refused(EVERY["ties"] | {"models": [{"model": "a"}, {"model": "b", "density": 1.5}]})
        assert any("models.1.density: Input should be less than or equal to 1" in line for line in lines)

    def test_the_old_name_of_other_is_an_unknown_key_with_a_hint(self):
        inner = {"method": "fusion", "base": "b", "right": "c"}
        hint = "right: unknown; this key is called `other` now, rename it"
        assert refused(inner) == [f"file: {hint}"]
        assert refused({"method": "fusion", "base": "a", "other": inner}) == [f"file: other.{hint}"]

    @pytest.mark.parametrize("data", [None, [], "fusion", 3, {}, {"method": ["fusion"]}, {"method": None}])
    def test_what_is_no_step_is_refused(self, data):
        refused(data)

    @pytest.mark.parametrize(("key", "value"), [("t", True), ("t", "0.5"), ("t", float("nan")), ("base", None)])
    def test_values_of_another_kind_are_refused(self, key, value):
        refused(EVERY["slerp"] | {key: value})

    def test_whole_numbers_are_numbers(self):
        made = parse(EVERY["slerp"] | {"t": 1}, "file")
        assert made == parse(EVERY["slerp"] | {"t": 1.0}, "file")
        one = parse({"method": "linear", "models": [{"model": "a", "weight": 1}, {"model": "b", "weight": 2}]}, "file")
        assert [m.weight for m in one.models] == [1.0, 2.0]
        assert all(isinstance(m.weight, float) for m in one.models)
        assert parse(CHAIN | {"iqr_multiplier": 2}, "file").iqr_multiplier == 2.0

    def test_a_recipe_survives_its_own_data(self):
        for data in (*EVERY.values(), NESTED):
            made = parse(data, "file")
            assert parse(made.model_dump(by_alias=True), "again") == made


class TestStructure:
    def test_leaves_come_base_first(self):
        assert parse(CHAIN, "file").leaves == ("code", "science", "math")
        assert parse(NESTED, "file").leaves == ("backbone", "code", "science", "math", "math", "science")

    def test_the_main_leaf_is_the_base_of_the_last_step(self):
        assert parse(CHAIN, "file").main_leaf == "code"
        assert parse(NESTED, "file").main_leaf == "backbone"
        assert parse({"method": "linear", "models": [{"model": CHAIN}, {"model": "x"}]}, "file").main_leaf == "code"
        as_base = {"method": "fusion", "base": CHAIN, "other": "x"}
        assert parse(as_base, "file").main_leaf == "code"

    def test_descriptions(self):
        assert recipe.describe(parse(CHAIN, "file")) == "(math & science) & code"
        assert recipe.describe("math") == "math"
        nested = "ties(backbone, (math & science) & code, linear(math, science))"
        assert recipe.describe(parse(NESTED, "file")) == nested

    def test_readings_of_all_steps(self):
        assert recipe.readings(parse(CHAIN, "file"), "exact") == {"exact"}
        own = CHAIN | {"other": CHAIN["other"] | {"reading": "paper"}}
        assert recipe.readings(parse(own, "file"), "exact") == {"exact", "paper"}
        assert recipe.readings(parse(EVERY["ties"], "file"), "exact") == set()
        assert recipe.readings(parse(NESTED, "file"), "released") == {"released"}


class TestBuilding:
    @pytest.mark.parametrize("name", [name for name in EVERY if name != "stack"])
    def test_every_method_is_made_with_its_settings(self, name):
        made = methods.build(parse(EVERY[name], "file"), "exact", 1.5)
        if name == "fusion":
            assert made == Fusion("exact", 1.5)
            return
        assert type(made) is METHODS[name]
        if name == "noise":
            assert (made.seed, made.step) == (3, "noise(math, code)")
        elif "weight" in TAKES[name][1]:
            assert made.weight == (0.25, 0.5)
        settings = {"normalize": False, "lambda_": 0.75, "density": (0.5, 0.5)} if "density" in TAKES[name][1] else {}
        settings |= {"scale": (0.5,)} if name == "passthrough" else {}
        settings |= {k: v for k, v in EVERY[name].items() if k in TAKES[name][0] - recipe.PARTS - {"lambda"}}
        for key, value in settings.items():
            assert getattr(made, key) == value
        assert made.inputs == len(parse(EVERY[name], "file").parts)

    def test_a_step_of_its_own_mind(self):
        made = parse(CHAIN | {"reading": "paper", "iqr_multiplier": 0.0}, "file")
        assert methods.build(made, "exact", 1.5) == Fusion("paper", 0.0)
        assert methods.build(made.other, "exact", 1.5) == Fusion("exact", 1.5)

    def test_placebos_know_their_step(self):
        step = {"method": "fusion", "base": "b", "other": "a", "mask": "random", "seed": 5}
        made = methods.build(parse(step | {"base": step}, "file"), "released", 2.0)
        assert made == Placebo("released", 2.0, mask="random", seed=5, step="a &random (a &random b)")
        assert methods.build(parse(CHAIN | {"mask": "importance"}, "file"), "exact", 1.5) == Fusion("exact", 1.5)

    def test_what_a_method_refuses_is_refused_in_inner_steps_too(self):
        bad = {"method": "linear", "models": [{"model": "a", "weight": 1}, {"model": "b", "weight": -1}]}
        with pytest.raises(UserError, match="sums to 0"):
            methods.build(parse({"method": "fusion", "base": "c", "other": bad}, "file"), "exact", 1.5)

    def test_a_setting_for_some_models_only_is_refused(self):
        some = EVERY["ties"] | {"models": [{"model": "a", "density": 0.5}, {"model": "b"}]}
        with pytest.raises(UserError, match="density is given for some models only"):
            methods.build(parse(some, "file"), "exact", 1.5)

    def test_the_order_of_a_built_method_is_that_of_the_parts(self):
        made = parse({"method": "slerp", "base": "a", "other": "b", "t": 0}, "file")
        a, b = torch.randn(3, 4), torch.randn(3, 4)
        assert made.parts == ("a", "b")
        assert torch.equal(merge_tensors(methods.build(made, "exact", 1.5), (a, b))[0], a)


class TestMergekit:
    @pytest.mark.parametrize("name", EVERY.keys() - {"noise"})
    def test_round_trip(self, name):
        made = parse(EVERY[name], "file")
        text = to_mergekit(made, {}, "bfloat16", "float32")
        back, folders, settings = from_mergekit(text, "file")
        assert back == made
        assert folders == {leaf: leaf for leaf in made.leaves}
        assert settings == {"dtype": "bfloat16", "out_dtype": "float32"}

    def test_round_trip_of_nested_steps(self):
        made = parse(NESTED, "file")
        text = to_mergekit(made, {}, None, None)
        documents = list(yaml.safe_load_all(text))
        assert [d["merge_method"] for d in documents] == ["arcee_fusion", "arcee_fusion", "linear", "ties"]
        assert documents[1]["base_model"] == "code"
        assert {m["model"] for m in documents[1]["models"]} == {documents[0]["name"], "code"}
        assert from_mergekit(text, "file")[0] == made

    def test_folders_are_written_in_place_of_names(self):
        text = to_mergekit(parse(EVERY["slerp"], "file"), {"math": "/a/math", "code": "/a/code"}, None, None)
        (document,) = yaml.safe_load_all(text)
        assert document == {
            "models": [{"model": "/a/code"}, {"model": "/a/math"}], "merge_method": "slerp", "base_model": "/a/math",
            "parameters": {"t": 0.25},
        }  # fmt: skip

    def test_a_file_written_beside_a_merge_of_relative_folders_can_be_used_from_anywhere(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        made = {n: f.relative_to(tmp_path) for n, f in experts(tmp_path / "in", Shape(layers=1)).items()}
        (tmp_path / "out").mkdir()
        released = MergeOptions(reading="released")
        checkpoint.merge_checkpoints(parse(CHAIN, "file"), made, tmp_path / "out", released, "test")
        text = (tmp_path / "out" / checkpoint.MERGEKIT_FILE).read_text(encoding="utf-8")
        assert text.startswith("# not in mergekit: fusion with reading released, iqr_multiplier 1.5\n")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        named = {m["model"] for d in yaml.safe_load_all(text) for m in d["models"]} - {"step-1"}
        assert named == {str(tmp_path / "in" / name) for name in made}
        steps, folders, settings = mergekit.read_recipe(tmp_path / "out" / checkpoint.MERGEKIT_FILE)
        options = MergeOptions(reading="released", **settings)
        again = checkpoint.merge_checkpoints(steps, folders, tmp_path / "elsewhere", options, "test")
        assert again["order"].count(str(tmp_path)) == 3
        assert bytes_of(tmp_path / "elsewhere") == bytes_of(tmp_path / "out")

    def test_what_mergekit_cannot_say_is_a_comment(self):
        own = CHAIN | {"reading": "exact", "iqr_multiplier": 2.0}
        comments = [line for line in to_mergekit(parse(own, "file"), {}, None, None).splitlines() if line[:1] == "#"]
        assert comments == ["# not in mergekit: step-2 with reading exact, iqr_multiplier 2.0"]
        text = to_mergekit(parse(own, "file"), {}, None, None, reading="paper", iqr_multiplier=1.0)
        assert text.startswith("# not in mergekit: fusion with reading paper, iqr_multiplier 1.0\n" + comments[0])
        assert from_mergekit(text, "file")[0] == parse(CHAIN, "file")
        assert "#" not in to_mergekit(parse(EVERY["ties"], "file"), {}, None, None, "paper", 1.0), "no step is a fusion"
        seeded = EVERY["dare_ties"] | {"seed": 7}
        assert to_mergekit(parse(seeded, "file"), {}, None, None).startswith("# not in mergekit: step-1 with seed 7\n")

    def test_settings_for_all_models_reach_each(self):
        text = """
        merge_method: ties
        base_model: /b
        models:
          - model: /b
          - model: /x
            parameters: {weight: 0.25}
          - /y
        parameters: {density: 0.5, weight: 2, int8_mask: true, lambda: 0.5}
        tokenizer_source: /x
        """
        made, folders, settings = from_mergekit(text, "file")
        assert made.models == [Input(model="/x", weight=0.25, density=0.5), Input(model="/y", weight=2.0, density=0.5)]
        assert made.base == "/b"
        assert made.lambda_ == 0.5
        assert folders == {"/b": "/b", "/x": "/x", "/y": "/y"}
        assert settings == {"dtype": None, "out_dtype": None, "tokenizer_source": "/x"}

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"slices": []}, "give either `models` or `slices`"),
            ({"modules": {}}, "modules: parts of a model are not merged apart"),
            ({"merge_method": "unheard"}, "merge_method 'unheard' is not known here; known: fusion"),
            ({"merge_method": "ram"}, r"merge_method ram \(Reinforced Agent Merging\) is not among the methods"),
            ({"merge_method": "ramplus_tl"}, "merge_method ramplus_tl .* choose one of fusion, .*passthrough"),
            ({"merge_method": ["ties"]}, r"merge_method \['ties'\] is not known here"),
            ({"merge_method": None}, "merge_method None is not known here"),
            ({"parameters": [1]}, r"parameters: \[1\] is not a mapping"),
            ({"models": "/x"}, "models: '/x' is not a list"),
            ({"models": [{"path": "/x"}]}, "models.0.path: nothing reads it"),
            ({"models": [{"model": {"model": 3}}]}, "models.0.model.model: 3 is not the folder of a model"),
            ({"base_model": None}, "base: is missing; ties needs it"),
            ({"tokenizer_source": ["/z"]}, r"tokenizer_source: \['/z'\] is not the folder of a model"),
            ({"chat_template": ["x"]}, r"chat_template: \['x'\] is neither a name nor Jinja text"),
            ({"parameters": {"unheard": 1}}, "unheard: ties does not read it"),
        ],
    )
    def test_what_has_no_counterpart_is_refused(self, change, said):
        good = {"merge_method": "ties", "base_model": "/b", "models": ["/x", "/y"], "parameters": {"density": 0.5}}
        assert from_mergekit(yaml.safe_dump(good), "file")
        with pytest.raises(UserError, match=said):
            from_mergekit(yaml.safe_dump(good | change), "file")

    def test_numbers_without_a_dot_are_numbers(self):
        text = "{merge_method: karcher, models: [/a, /b], parameters: {tol: 1e-5, max_iter: 7}}"
        made = from_mergekit(text, "file")[0]
        assert (made.tol, made.max_iter) == (1e-5, 7)
        text = "{merge_method: karcher, models: [/a, /b], parameters: {tol: little}}"
        with pytest.raises(UserError, match="tol: 'little' is not a number"):
            from_mergekit(text, "file")

    def test_a_base_that_the_method_does_not_know_is_a_model_as_in_mergekit(self):
        for models in (["/a", "/b"], ["/a"]):
            text = yaml.safe_dump({"merge_method": "karcher", "base_model": "/b", "models": models})
            assert from_mergekit(text, "file")[0].leaves == ("/a", "/b")

    def test_fusion_of_more_than_two_is_refused(self):
        text = yaml.safe_dump({"merge_method": "arcee_fusion", "base_model": "/b", "models": ["/x", "/y"]})
        with pytest.raises(UserError, match="merges a base_model with one other model, found 2"):
            from_mergekit(text, "file")

    @pytest.mark.parametrize("text", ["", "---\n", "- 1", "merge_method: [", "merge_method", "{}\n---\n[]"])
    def test_what_is_no_configuration_is_refused(self, text):
        with pytest.raises(UserError, match="file: "):
            from_mergekit(text, "file")


class TestReading:
    def write(self, tmp_path, value) -> str:
        path = tmp_path / "recipe.yaml"
        path.write_text(value if isinstance(value, str) else yaml.safe_dump(value), encoding="utf-8")
        return path

    def test_our_form(self, tmp_path):
        models = {"math": "m", "science": "../s", "code": "/abs/c"}
        path = self.write(tmp_path, {"recipe": CHAIN, "models": models, "reading": "paper", "iqr_multiplier": 2})
        steps, folders, settings = mergekit.read_recipe(path)
        assert steps == parse(CHAIN, "file")
        assert {n: str(f) for n, f in folders.items()} == {
            "math": f"{tmp_path}/m", "science": f"{tmp_path}/../s", "code": "/abs/c"
        }  # fmt: skip
        assert settings == {"reading": "paper", "iqr_multiplier": 2}

    def test_our_form_is_written_as_it_is_read(self, tmp_path):
        text = mergekit.own_form(parse(NESTED, "file"), {"math": tmp_path / "m"}, {"reading": "paper"}, About())
        steps, folders, settings = mergekit.read_recipe(self.write(tmp_path, text))
        assert (steps, folders, settings) == (parse(NESTED, "file"), {"math": tmp_path / "m"}, {"reading": "paper"})

    def test_mergekit_form(self, tmp_path):
        path = self.write(tmp_path, to_mergekit(parse(CHAIN, "file"), {}, "float32", None))
        steps, folders, settings = mergekit.read_recipe(path)
        assert steps == parse(CHAIN, "file")
        assert folders == {name: Path(name) for name in ("math", "science", "code")}, "from where the command starts"
        assert settings == {"dtype": "float32", "out_dtype": None}

    def test_a_word_in_a_name_does_not_make_it_mergekit(self, tmp_path):
        path = self.write(tmp_path, {"recipe": CHAIN, "models": {n: f"merge_method/{n}" for n in ("math", "code")}})
        assert mergekit.read_recipe(path)[0] == parse(CHAIN, "file")

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            ("a: [", "not valid YAML"),
            ("", "needs `recipe`"),
            ({"recipe": CHAIN}, "needs `recipe`"),
            ({"recipe": CHAIN, "models": []}, "needs `recipe`"),
            ({"recipe": CHAIN, "models": {"math": 3}}, "models.math: 3 is not the path of a folder"),
            ({"recipe": CHAIN, "models": {}, "treads": 3}, "treads: unknown; beside recipe and models: reading"),
            ({"recipe": CHAIN, "models": {}, "iqr_multiplier": "2"}, "iqr_multiplier: '2' is not a number"),
            ({"recipe": CHAIN, "models": {}, "dtype": ["float32"]}, r"dtype: \['float32'\] is not text"),
            ({"recipe": {"method": "x"}, "models": {}}, "method: Input should be 'fusion'"),
        ],
    )
    def test_errors_name_the_file(self, tmp_path, data, said):
        path = self.write(tmp_path, data)
        with pytest.raises(UserError, match=said) as caught:
            mergekit.read_recipe(path)
        assert str(path) in str(caught.value)

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(UserError, match=r"nothing.yaml does not exist"):
            mergekit.read_recipe(tmp_path / "nothing.yaml")
