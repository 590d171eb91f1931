"""mergekit's YAML as it is published: what runs gives the numbers that it asks for, the rest is refused by name."""

import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import peers
import pytest
import torch
import yaml
from checkpoints import Shape, bytes_of, change_json, experts, put_json, store
from safetensors.torch import load_file

from tinyr1.core import artifact, jsonl
from tinyr1.core.errors import UserError
from tinyr1.core.recipe import About, Input, Recipe, describe, parse
from tinyr1.core.varying import at
from tinyr1.merge import checkpoint, mergekit
from tinyr1.merge.engine import MergeOptions
from tinyr1.merge.layers import layers_of
from tinyr1.merge.mergekit import from_mergekit, to_mergekit
from tinyr1.merge.method import merge_tensors
from tinyr1.merge.methods import METHODS

SLERP = {"merge_method": "slerp", "base_model": "/a", "models": [{"model": "/a"}, {"model": "/b"}]}
TIES = {"merge_method": "ties", "base_model": "/a", "models": [{"model": "/b"}, {"model": "/c"}]}
LINEAR = {"merge_method": "linear", "models": [{"model": "/a"}, {"model": "/b"}]}
SCE = TIES | {"merge_method": "sce"}
KARCHER = LINEAR | {"merge_method": "karcher"}
WEIGHTED = {"model": "/b", "parameters": {"weight": 0.5}}


def sources(*models: tuple[str, int, int], **more: object) -> dict:
    """A slice of (model, first layer, the one after the last)."""
    return {"sources": [{"model": m, "layer_range": [first, last]} for m, first, last in models], **more}


LAZY = {
    "slices": [sources(("/a", 0, 4), ("/b", 0, 4))], "merge_method": "slerp", "base_model": "/a",
    "parameters": {"t": [
        {"filter": "self_attn", "value": [0, 0.4, 0.2, 0.8, 1]}, {"filter": "mlp", "value": [1, 0.6, 0.8, 0.2, 0]},
        {"value": 0.5},
    ]},
    "dtype": "bfloat16",
}  # fmt: skip


def read(data: dict | list) -> tuple[Recipe, dict, dict]:
    return from_mergekit(yaml.safe_dump_all(data if isinstance(data, list) else [data]), "file")


class TestRefused:
    @pytest.mark.parametrize(
        ("data", "said"),
        [
            # what stands where nothing reads it
            (TIES | {"models": [{"model": "/b", "weight": 0.5}]}, "models.0.weight: nothing reads it here; put it"),
            (TIES | {"models": [{"model": "/b", "density": 0.5}]}, "models.0.density: nothing reads it here"),
            (SLERP | {"t": 0.5}, "t: nothing reads it here; put it under `parameters`"),
            (SLERP | {"models": [{"model": "/b", "layer_range": [0, 4]}]}, "models.0.layer_range: only slices take"),
            (SLERP | {"models": [{"model": "/b", "paramters": {}}]}, "models.0.paramters: nothing reads it; remove it"),
            (SLERP | {"licence": "mit"}, "licence: unknown key; remove it or correct its spelling; known: name"),
            ({**LAZY, "slices": [sources(("/a", 0, 4), residual_weight=0.5)]}, "slices.0.residual_weight: nothing"),
            # parameters that the method does not read
            (SLERP | {"parameters": {"t": 0.5, "density": 1}}, "parameters: density: slerp does not read it; rem"),
            (TIES | {"parameters": {"t": 0.5}}, "t: ties does not read it; remove it, or give lambda, normalize"),
            (TIES | {"models": [{"model": "/a", "parameters": {"density": 1}}, WEIGHTED]},
             "models.0.parameters: density: the base of ties does not read it"),
            (SLERP | {"models": [{"model": "/b", "parameters": {"weight": 1}}]}, "a model of slerp does not read it"),
            (TIES | {"models": [{"model": "/b", "parameters": {"lambda": 1}}]}, "put it under `parameters` of the doc"),
            (TIES | {"parameters": {"iqr_multiplier": 1}}, "iqr_multiplier: ties does not read it"),
            # kinds of values
            (SLERP | {"parameters": [{"t": 0.5}]}, r"parameters: \[{'t': 0.5}\] is not a mapping"),
            (SLERP | {"models": [["/a"]]}, r"models.0: \['/a'\] is not a mapping"),
            (SLERP | {"models": {"model": "/a"}}, "models: {'model': '/a'} is not a list"),
            (SLERP | {"parameters": {"t": "half"}}, "t: 'half' is not a number"),
            (SLERP | {"parameters": {"t": []}}, "t: an empty list"),
            (SLERP | {"parameters": {"t": [0.1, {"value": 1}]}}, "t.0: 0.1 is not a mapping"),
            (SLERP | {"parameters": {"t": [0, 2]}}, "t.1: Input should be less than or equal to 1"),
            (SLERP | {"parameters": {"t": [{"filter": "mlp", "value": 2}, {"value": 1}]}}, "t: Input should be less"),
            (SLERP | {"parameters": {"t": {"filter": "mlp", "values": 1}}}, "t.0: values: nothing reads it"),
            (SLERP | {"parameters": {"t": {"filter": 3, "value": 1}}}, "t.0: filter: 3 is not a text"),
            (TIES | {"parameters": {"normalize": 0.5}}, "normalize: 0.5 is neither true nor false"),
            (TIES | {"parameters": {"normalize": [0, 1]}}, "normalize: .* differs between layers; give one value"),
            (SLERP | {"dtype": ["bfloat16"]}, r"dtype: \['bfloat16'\] is not the name of a dtype"),
            (SLERP | {"random_seed": "x"}, "random_seed: 'x' is not a whole number"),
            (SLERP | {1: 2}, "key 1 is not a text; put it in quotes"),
            # filters
            (SLERP | {"parameters": {"t": {"filter": "mlp", "value": 1}}}, "t: a tensor that no filter takes has no n"),
            (SLERP | {"parameters": {"t": [{"value": 1}, {"filter": "mlp", "value": 0}]}}, "t.1: is never reached"),
            # slices
            ({**LAZY, "models": [{"model": "/a"}]}, "give either `models` or `slices`"),
            ({**LAZY, "slices": [[]]}, r"slices.0: \[\] is not a mapping"),
            ({**LAZY, "slices": [{"sources": []}]}, r"slices.0.sources: \[\] is not a list with at least one"),
            ({**LAZY, "slices": [sources(("/a", 0, 4), ("/b", 0, 3))]}, "slices.0: its sources have 3 and 4 layers"),
            ({**LAZY, "slices": [sources(("/a", 2, 2), ("/b", 0, 0))]}, r"layer_range: \[2, 2\] is not \[first layer"),
            ({**LAZY, "slices": [sources(("/a", 0, 4), ("/a", 4, 8))]}, "slices.0: /a is there twice"),
            ({**LAZY, "slices": [sources(("/c", 0, 4), ("/b", 0, 4))]}, "slices.0: base_model /a is not among"),
            ({**LAZY, "slices": [{"sources": [{"model": "/a"}]}]}, "sources.0.layer_range: None is not"),
            # models, methods, blocks
            (SLERP | {"base_model": {"path": "/a", "rev": "x"}}, "base_model.rev: nothing reads it"),
            (SLERP | {"base_model": {"model": "/a", "override_architecture": "X"}}, "override_architecture: a model"),
            (LINEAR | {"base_model": "/base"}, "base_model /base is not one of the models; mergekit merges it, too"),
            (SLERP | {"merge_method": "slrep"}, "merge_method 'slrep' is not known here; known: fusion, slerp, linear"),
            (SLERP | {"merge_method": "noise"}, "merge_method 'noise' is not known here"),
            (SLERP | {"chat_template": 3}, "chat_template: 3 is neither a name nor Jinja text"),
            (SLERP | {"merge_method": "ram"}, r"merge_method ram \(Reinforced Agent Merging\) is not among"),
            (SCE | {"parameters": {"weight": 1}}, "weight: sce does not read it; remove it, or give select_topk"),
            (KARCHER | {"parameters": {"max_iter": [1, 2]}}, r"max_iter: \[1, 2\] differs between layers; give one"),
            (KARCHER | {"parameters": {"tol": [{"filter": "mlp", "value": 0}, {"value": 1}]}}, "tol: Input should be"),
            ({"merge_method": "passthrough", "models": ["/a", "/b"]}, "passthrough takes one model, found 2"),
            ({"merge_method": "passthrough", "slices": [sources(("/a", 0, 2), parameters={"weight": 1})]},
             "weight: passthrough does not read it; remove it, or give scale"),
            (SLERP | {"tokenizer": {"source": "base", "tokens": {"x": {}}}}, "tokenizer.tokens: tokens and padding"),
            (SLERP | {"tokenizer": {"source": "base"}, "tokenizer_source": "base"}, "exclude each other"),
        ],
    )  # fmt: skip
    def test_what_nothing_would_read_is_refused_with_its_place(self, data, said):
        with pytest.raises(UserError, match=said) as caught:
            read({"parameters": {"t": 0.5}, **data} if data.get("merge_method") == "slerp" else data)
        assert str(caught.value).startswith("file: ")

    @pytest.mark.parametrize(
        ("documents", "said"),
        [
            ([SLERP | {"name": "x"}, SLERP | {"name": "x"}], "document 2: name: 'x' is no text, or the name"),
            ([SLERP, SLERP], "document 2: name: is missing"),
            ([SLERP | {"name": "x"}, SLERP], "document 1: the result does not use it"),
            ([SLERP | {"name": "x", "base_model": "x"}, SLERP | {"base_model": "x"}], "it is one of its own models"),
            ([SLERP | {"name": "x", "weight": 1}, TIES | {"base_model": "x"}], "file: document 1: weight: unknown key"),
        ],
    )
    def test_documents_that_make_no_single_result_are_refused(self, documents, said):
        with pytest.raises(UserError, match=said):
            read([{"parameters": {"t": 0.5}, **d} if d["merge_method"] == "slerp" else d for d in documents])


class TestRead:
    def test_lazymergekits_default(self):
        made, folders, settings = read(LAZY)
        assert describe(made) == "slerp(/a[0:4], /b[0:4])"
        assert [(one.filter, one.value) for one in made.t] == [
            ("self_attn", [0, 0.4, 0.2, 0.8, 1]), ("mlp", [1, 0.6, 0.8, 0.2, 0]), (None, 0.5)
        ]  # fmt: skip
        assert folders == {"/a": "/a", "/b": "/b"}
        assert settings == {"dtype": "bfloat16", "out_dtype": None}

    def test_settings_of_the_engine_are_no_parameters(self):
        more = {"int8_mask": True, "lazy_unpickle": True, "random_seed": 0, "dtype": "torch.float16"}
        made, _, settings = read(TIES | {"parameters": {"int8_mask": 1, "normalize": 1, "weight": "1e-1"}} | more)
        plain = {"model": "/b", "weight": 0.1}, {"model": "/c", "weight": 0.1}
        assert made == parse({"method": "ties", "base": "/a", "models": [*plain], "normalize": True}, "file")
        assert settings == {"dtype": "float16", "out_dtype": None}

    def test_a_random_seed_is_that_of_the_masks(self):
        assert read(TIES | {"merge_method": "dare_ties", "random_seed": 7})[0].seed == 7

    @pytest.mark.parametrize(
        ("model", "text"),
        [
            ({"path": "/x"}, "/x"),
            ({"path": "o/x", "revision": "main"}, "o/x@main"),
            ({"model": {"path": "/x"}}, "/x"),
            ({"model": "/x", "lora": {"path": "/l"}}, "/x+/l"),
        ],
    )
    def test_models_in_the_long_form(self, model, text):
        assert read({"merge_method": "linear", "models": [{"model": model}, {"model": "/y"}]})[0].parts == (text, "/y")

    def test_one_value_in_a_list_is_a_number(self):
        for value in (0.8, [0.8], {"value": 0.8}, [{"value": 0.8}], [{"filter": "*", "value": [0.8]}]):
            assert read(SLERP | {"parameters": {"t": value}})[0].t == 0.8

    def test_the_source_comes_before_the_slice_and_the_slice_before_the_document(self):
        own = {"weight": [{"filter": "mlp", "value": 1}]}
        one = sources(("/a", 0, 2), ("/b", 0, 2), parameters={"weight": [{"filter": "norm", "value": 2}]})
        one["sources"][0]["parameters"] = own
        made, *_ = read({"merge_method": "linear", "slices": [one], "parameters": {"weight": 3}})
        weights = [[(e.filter, e.value) for e in each.weight] for each in made.models]
        assert weights == [[("mlp", 1), ("norm", 2), (None, 3)], [("norm", 2), (None, 3)]]

    def test_what_one_model_gives_all_get_as_in_mergekit(self):
        data = TIES | {"models": [{"model": "/b", "parameters": {"density": [{"filter": "mlp", "value": 0.5}]}}, "/c"]}
        first, second = read(data)[0].models
        assert [(e.filter, e.value) for e in first.density] == [("mlp", 0.5), (None, 1.0)]
        assert second.density == 1.0

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({}, {}),
            ({"tokenizer_source": "base"}, {"tokenizer_source": "/a"}),
            ({"tokenizer_source": "union", "chat_template": "chatml"},
             {"tokenizer_source": "union", "chat_template": "chatml"}),
            ({"tokenizer": {"source": "/b"}}, {"tokenizer_source": "/b"}),
            ({"tokenizer": {}}, {"tokenizer_source": "union"}),
            ({"merge_method": "linear", "base_model": "/b", "parameters": {}}, {"tokenizer": "/b"}),
            ({"merge_method": "linear", "base_model": None, "tokenizer_source": "base", "parameters": {}},
             {"tokenizer_source": "/a"}),
        ],
    )  # fmt: skip
    def test_tokenizer_and_chat_template_are_settings_of_the_merge(self, change, expected):
        settings = read(SLERP | {"parameters": {"t": 0.5}} | change)[2]
        assert settings == {"dtype": None, "out_dtype": None} | expected

    def test_the_tokens_can_be_those_of_a_model_that_is_not_merged(self):
        _, folders, settings = read(LINEAR | {"tokenizer_source": "/z"})
        assert settings["tokenizer_source"] == "/z"
        assert folders == {"/a": "/a", "/b": "/b", "/z": "/z"}

    def test_passthrough_without_a_scale_is_layers_and_with_one_a_step(self):
        cut = {"model": "/a", "layers": [0, 2]}
        expected = parse({"method": "stack", "models": [cut]}, "test")
        one = {"merge_method": "passthrough", "slices": [sources(("/a", 0, 2))]}
        assert read(one)[0] == expected
        scale = [{"filter": "o_proj", "value": 0}, {"value": 1}]
        step = {"method": "passthrough", "models": [{"model": expected, "scale": scale}]}
        assert read(one | {"parameters": {"scale": {"filter": "o_proj", "value": 0}}})[0] == parse(step, "test")
        whole = {"method": "passthrough", "models": [{"model": "/a"}]}
        assert read({"merge_method": "passthrough", "models": ["/a"]})[0] == parse(whole, "test")

    def test_a_base_that_models_do_not_list_is_merged_too_where_it_has_a_weight(self):
        made, *_ = read(LINEAR | {"base_model": "/base", "parameters": {"weight": 0.5}})
        assert made.models == [Input(model=name, weight=0.5) for name in ("/a", "/b", "/base")]

    def test_documents_may_come_in_any_order(self):
        inner = LINEAR | {"name": "soup"}
        outer = SLERP | {"base_model": "soup", "models": ["/c"], "parameters": {"t": 0.25}}
        made = {describe(read(documents)[0]) for documents in ([inner, outer], [outer, inner])}
        assert made == {"slerp(linear(/a, /b), /c)"}

    def test_folders_start_where_the_command_does_and_own_ones_at_the_file(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "configs").mkdir()
        path = tmp_path / "configs" / "x.yml"
        path.write_text(yaml.safe_dump(LINEAR | {"models": ["models/a", "./b", "~/c"]}), encoding="utf-8")
        folders = mergekit.read_recipe(path)[1]
        assert list(folders.values()) == [Path("models/a"), Path("b"), tmp_path / "c"]
        recipe = {"method": "linear", "models": [{"model": "a"}, {"model": "c"}]}
        own = {"recipe": recipe, "models": {"a": "a", "c": "~/c"}}
        path.write_text(yaml.safe_dump(own), encoding="utf-8")
        assert mergekit.read_recipe(path)[1] == {"a": tmp_path / "configs" / "a", "c": tmp_path / "c"}


ROUND = {
    "gradient": SLERP | {"parameters": {"t": [0, 0.5, 1]}},
    "lazy": LAZY,
    "ties": {**TIES, "models": [{"model": "/b", "parameters": {"density": [1, 0.7, 0.1], "weight": [
        {"filter": "mlp", "value": 0.5}, {"value": 0}]}}]},
    "stack of steps": {**LAZY, "slices": [
        sources(("/a", 0, 2), ("/b", 1, 3)), sources(("/a", 1, 4), ("/c", 0, 3), parameters={"t": 0.25})]},
    "another base above": {**LAZY, "slices": [sources(("/a", 0, 2), ("/b", 0, 2)),
                                              sources(("/b", 2, 4), ("/a", 2, 4), base_model="/b")]},
    "passthrough": {"merge_method": "passthrough", "slices": [sources(("/a", 0, 3)), sources(("/b", 1, 4))]},
    "scaled layers": {"merge_method": "passthrough", "slices": [
        sources(("/a", 0, 3)), sources(("/a", 2, 4), parameters={"scale": [{"filter": "down_proj", "value": 0}]})]},
    "whole model": {"merge_method": "passthrough", "models": [{"model": "/a", "parameters": {"scale": 0.5}}]},
    "optional base": {"merge_method": "nuslerp", "models": ["/b", "/c"], "base_model": "/a",
                      "parameters": {"weight": [0, 1], "nuslerp_flatten": False}},
    "sce": SCE | {"parameters": {"select_topk": [0.1, 1]}},
    "karcher": KARCHER | {"parameters": {"max_iter": 3, "tol": [1e-4, 1e-6]}},
    "nearswap": SLERP | {"merge_method": "nearswap", "parameters": {"t": [0.1, 0.2]}},
    "linear slices": {"merge_method": "linear", "parameters": {"weight": [1, 2]},
                      "slices": [sources(("/a", 0, 2), ("/b", 2, 4))]},
}  # fmt: skip


@pytest.mark.parametrize("name", ROUND)
def test_what_is_read_can_be_written_for_mergekit_and_as_an_own_file(name, tmp_path):
    made, folders, _ = read(ROUND[name])
    assert from_mergekit(to_mergekit(made, {}, None, None), "again")[0] == made
    path = tmp_path / "own.yaml"
    path.write_text(mergekit.own_form(made, {n: Path(f) for n, f in folders.items()}, {}, About()), encoding="utf-8")
    assert mergekit.read_recipe(path)[0] == made


def test_a_stack_of_unlike_steps_becomes_documents_and_one_without_ranges_cannot_be_written():
    inner = {"method": "linear", "models": [{"model": "/a"}, {"model": "/b"}]}
    mixed = {"method": "stack", "models": [{"model": inner, "layers": [0, 2]}, {"model": "/c", "layers": [2, 4]}]}
    made = parse(mixed, "test")
    assert describe(made) == "linear(/a, /b)[0:2] + /c[2:4]"
    assert from_mergekit(to_mergekit(made, {}, None, None), "again")[0] == made
    whole = parse({"method": "stack", "models": [{"model": "/a"}, {"model": "/b"}]}, "test")
    with pytest.raises(UserError, match=r"/a \+ /b: mergekit stacks ranges of layers; give `layers` of each model"):
        to_mergekit(whole, {}, None, None)


# --- what the numbers do ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"merge_method: linear\nmodels: [a, b]\nmodels: [a, c]\n", "key 'models' is given twice"),
        (b"recipe: {method: linear, models: [{model: a, weight: 1, weight: 2}]}\nmodels: {a: a}\n", "'weight' is giv"),
        (b"merge_method: linear\nmodels: [m\xf6del]\n", "line 2: a byte is not UTF-8"),
        (b"models: " + b"[" * 500, "it is nested deeper than 60 levels"),
        (b"- a\n- b\n", "needs `recipe` .a merge step. and `models`"),
    ],
)  # fmt: skip
def test_a_file_that_says_two_things_or_cannot_be_read_is_refused_in_a_sentence(raw, said, tmp_path):
    (tmp_path / "r.yml").write_bytes(raw)
    with pytest.raises(UserError, match=said):
        mergekit.read_recipe(tmp_path / "r.yml")


@pytest.mark.parametrize(
    ("value", "name", "depth", "number"),
    [
        (0.5, "x", 1.0, 0.5),
        ([0, 0.5, 1], "x", 0.25, 0.25),
        ([0, 1, 0], "x", 0.75, 0.5),
        ([2, 4], "x", 1.0, 4.0),
        ([{"filter": "mlp", "value": [0, 1]}, {"value": 0.3}], "layers.0.mlp.up", 0.5, 0.5),
        ([{"filter": "mlp", "value": [0, 1]}, {"value": 0.3}], "layers.0.attn", 0.5, 0.3),
    ],
)
def test_a_gradient_is_linear_between_its_values_and_the_first_filter_counts(value, name, depth, number):
    weight = parse({"method": "linear", "models": [{"model": "a", "weight": value}]}, "test").models[0].weight
    assert at(weight, name, depth) == pytest.approx(number)


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        ([{"filter": "mlp", "value": 1}], "weight: a tensor that no filter takes has no number"),
        ([{"value": 1}, {"filter": "mlp", "value": 1}], "weight: entries after the one without a filter"),
        ([], "weight: List should have at least 1 item"),
        ([0.5, "x"], "weight.1: Input should be a valid number"),
        ([{"value": 1, "filtre": "x"}], "weight.0.filtre: unknown key"),
        ([{"value": 1}, 0.5], "weight.1: 0.5 is not a mapping"),
    ],
)
def test_own_recipes_refuse_wrong_lists_with_their_path(weight, said):
    with pytest.raises(UserError, match=f"file: models.0.{said}"):
        parse({"method": "linear", "models": [{"model": "a", "weight": weight}]}, "file")


FOUR = Shape(layers=4, architecture="llama")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Models /a, /b, /c of four layers."""
    made = experts(tmp_path_factory.mktemp("four"), FOUR, ("a", "b", "c"), spread=0.05)
    return {f"/{name}": folder for name, folder in made.items()}


@pytest.fixture(scope="module")
def weights(folders) -> dict[str, dict[str, torch.Tensor]]:
    return {name: load_file(folder / "model.safetensors") for name, folder in folders.items()}


def merged(data: dict | Recipe, folders: dict, out: Path, **options) -> dict[str, torch.Tensor]:
    recipe, dtypes = (data, {}) if isinstance(data, Recipe) else (read(data)[0], {})
    out.mkdir()
    checkpoint.merge_checkpoints(recipe, folders, out, MergeOptions(**options, **dtypes), "test")
    return load_file(out / "model.safetensors")


def expected_t(name: str) -> float:
    """t of LAZY, worked out by hand for four layers: five values at 0, 1/4, 1/2, 3/4, 1; layers at 0, 1/3, 2/3, 1."""
    layer = name.split(".")[2] if ".layers." in name else None
    attention, mlp = [0, 0.4 - 0.2 / 3, 0.2 + 0.6 * 2 / 3, 1], [1, 0.6 + 0.2 / 3, 0.8 - 0.6 * 2 / 3, 0]
    if layer is None or ("self_attn" not in name and "mlp" not in name):
        return 0.5
    return (attention if "self_attn" in name else mlp)[int(layer)]


def test_every_tensor_gets_its_own_number(folders, weights, tmp_path):
    out = merged(LAZY, folders, tmp_path / "out")
    assert out.keys() == weights["/a"].keys()
    for name, tensor in out.items():
        method = METHODS["slerp"](t=expected_t(name))
        whole, _ = merge_tensors(method, (weights["/a"][name], weights["/b"][name]))
        assert torch.allclose(tensor.float(), whole.float(), rtol=2**-7, atol=1e-6), name
    ends = ("model.layers.0.self_attn.q_proj.weight", "/a"), ("model.layers.0.mlp.up_proj.weight", "/b")
    for name, model in ends:
        assert torch.equal(out[name], weights[model][name])


def test_outside_of_the_layers_a_gradient_has_its_first_value(folders, weights, tmp_path):
    out = merged(SLERP | {"parameters": {"t": [1, 0.5, 0]}}, folders, tmp_path / "out")
    for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
        assert torch.equal(out[name], weights["/b"][name]), name
    assert torch.equal(out["model.layers.3.mlp.up_proj.weight"], weights["/a"]["model.layers.3.mlp.up_proj.weight"])


def test_numbers_of_a_model_vary_and_equal_numbers_are_a_constant(folders, tmp_path):
    ties = {"merge_method": "ties", "base_model": "/a", "models": [{"model": "/b"}, {"model": "/c"}]}
    one = merged(ties | {"parameters": {"density": 0.5, "weight": 0.3}}, folders, tmp_path / "one")
    lists = {"density": [0.5, 0.5], "weight": [{"filter": "mlp", "value": [0.3, 0.3]}, {"value": 0.3}]}
    same = merged(ties | {"parameters": lists}, folders, tmp_path / "same")
    assert all(torch.equal(one[name], same[name]) for name in one)
    fading = merged(ties | {"parameters": {"density": 0.5, "weight": [0, 0.3]}}, folders, tmp_path / "fading")
    up = "model.layers.{}.mlp.up_proj.weight"
    assert torch.equal(fading[up.format(0)], load_file(folders["/a"] / "model.safetensors")[up.format(0)])
    assert torch.equal(fading[up.format(3)], one[up.format(3)])
    assert not torch.equal(fading[up.format(1)], one[up.format(1)])


def test_statistics_and_card_name_steps_and_numbers(folders, tmp_path):
    merged(LAZY, folders, tmp_path / "out")
    rows = jsonl.read(tmp_path / "out" / checkpoint.STATISTICS)
    assert {(row["method"], row["base"], row["other"]) for row in rows} == {("slerp", "/a[0:4]", "/b[0:4]")}
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| slerp(a[0:4], b[0:4]) | slerp | t (self_attn [0.0, 0.4, 0.2, 0.8, 1.0] over the layers, mlp " in card
    fused = {"merge_method": "arcee_fusion", "base_model": "/a", "slices": LAZY["slices"]}
    merged(fused, folders, tmp_path / "fused")
    card = (tmp_path / "fused" / "README.md").read_text(encoding="utf-8")
    assert "| model.layers.3.mlp.up_proj.weight | a[0:4] | b[0:4] |" in card


def test_a_number_that_a_method_refuses_names_its_tensor(folders, tmp_path):
    data = LINEAR | {"models": [{"model": "/a", "parameters": {"weight": [1, 0]}}, {"model": "/b", "parameters": {
        "weight": [0, 0]}}]}  # fmt: skip
    with pytest.raises(UserError, match=r"model.layers.3.*: linear: weight = .* sums to 0"):
        checkpoint.load_models(read(data)[0], folders, MergeOptions())


# --- stacks -------------------------------------------------------------------------------------------------

STACK = {
    "merge_method": "linear",
    "slices": [
        sources(("/a", 0, 2), ("/b", 1, 3), parameters={"weight": [1, 0.5]}),
        sources(("/c", 1, 4), ("/b", 0, 3), parameters={"weight": 0.5}),
    ],
}  # fmt: skip


def average(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return merge_tensors(METHODS["linear"](weight=(0.5, 0.5)), (first, second))[0]


def test_a_stack_takes_each_layer_from_where_its_slice_says(folders, weights, tmp_path):
    data = {**STACK, "slices": [STACK["slices"][0] | {"parameters": {"weight": 0.5}}, STACK["slices"][1]]}
    out = merged(data, folders, tmp_path / "out")
    a, b, c = weights.values()
    for part in ("self_attn.k_proj.weight", "mlp.down_proj.weight", "input_layernorm.weight"):
        layer = "model.layers.%d." + part
        pairs = [((a, 0), (b, 1)), ((a, 1), (b, 2)), ((c, 1), (b, 0)), ((c, 2), (b, 1)), ((c, 3), (b, 2))]
        for i, models in enumerate(pairs):
            expected = average(*(model[layer % number] for model, number in models))
            assert torch.equal(out[layer % i], expected), (part, i)
    outside = {"model.embed_tokens.weight": (a, b), "model.norm.weight": (c, b), "lm_head.weight": (c, b)}
    for name, models in outside.items():
        assert torch.equal(out[name], average(*(model[name] for model in models))), name
    assert len({name.split(".")[2] for name in out if ".layers." in name}) == 5


def test_a_gradient_runs_over_the_layers_of_its_slice_and_filters_see_both_names(folders, weights, tmp_path):
    fused = {"merge_method": "slerp", "slices": [
        sources(("/a", 0, 2), ("/b", 0, 2), base_model="/a", parameters={"t": [0, 1]}),
        sources(("/a", 2, 4), ("/c", 2, 4), base_model="/a", parameters={
            "t": [{"filter": "layers.3.", "value": 1}, {"value": 0}]}),
    ]}  # fmt: skip
    out = merged(fused, folders, tmp_path / "out")
    name = "model.layers.{}.mlp.up_proj.weight"
    for layer, model in enumerate(("/a", "/b", "/a", "/c")):
        assert torch.equal(out[name.format(layer)], weights[model][name.format(layer)]), layer


def test_layers_that_pass_through_can_be_scaled_tensor_by_tensor(folders, weights, tmp_path):
    scale = {"scale": {"filter": "down_proj", "value": 0}}
    slices = [sources(("/a", 0, 2)), sources(("/a", 1, 2), parameters=scale)]
    out = merged({"merge_method": "passthrough", "slices": slices}, folders, tmp_path / "out")
    for layer, part, origin in ((1, "mlp.down_proj.weight", 1), (2, "mlp.up_proj.weight", 1)):
        expected = weights["/a"][f"model.layers.{origin}.{part}"]
        assert torch.equal(out[f"model.layers.{layer}.{part}"], expected), (layer, part)
    assert not out["model.layers.2.mlp.down_proj.weight"].any()


@pytest.mark.parametrize(
    ("said", "layers", "refused"),
    [
        ({"mlp_only_layers": [1]}, [[0, 3], [1, 4]], True), ({"mlp_only_layers": [1]}, [[0, 2], [2, 4]], False),
        ({"first_k_dense_replace": 1}, [[0, 2], [0, 4]], True), ({"first_k_dense_replace": 1}, [[0, 2], [1, 4]], False),
        ({"use_sliding_window": True, "max_window_layers": 2}, [[0, 2], [1, 4]], True),
        ({"use_sliding_window": False, "max_window_layers": 2}, [[0, 2], [1, 4]], False),
        ({"sliding_window_pattern": 2}, [[0, 3], [2, 4]], True),
        ({"sliding_window_pattern": 2}, [[0, 2], [0, 4]], False),
        ({"model_type": "gemma2"}, [[0, 3], [2, 4]], True), ({"model_type": "gemma2"}, [[0, 2], [0, 4]], False),
        ({"model_type": "gemma2", "layer_types": ["a", "b"] * 2}, [[0, 3], [2, 4]], False),
    ],
)  # fmt: skip
def test_a_stack_in_which_a_layer_would_become_one_of_another_kind_is_refused(said, layers, refused):
    """The numbers of the layers tell it, in configs without a list of kinds."""
    stack = parse({"method": "stack", "models": [{"model": "/a", "layers": part} for part in layers]}, "test")
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(4)]
    content = {"num_hidden_layers": 4, **said}
    held = SimpleNamespace(config=content, tensors=dict.fromkeys(names))
    found = layers_of(stack, {"/a": held})
    if not refused:
        assert found.config(stack, {"/a": content}, content)["num_hidden_layers"] == sum(b - a for a, b in layers)
        return
    with pytest.raises(UserError, match="of which kind it is"):
        found.config(stack, {"/a": content}, content)


def test_layers_of_models_of_different_depth_can_be_stacked(folders, weights, tmp_path):
    deep = experts(tmp_path / "in", Shape(layers=6, architecture="llama"), ("d",))
    places = {"/a": folders["/a"], "/d": deep["d"]}
    for folder, count in ((shutil.copytree(folders["/a"], tmp_path / "a"), 4), (deep["d"], 6)):
        kinds = [f"kind {count}-{i}" for i in range(count)]
        change_json(folder / "config.json", layer_types=["full_attention"] * min(count, 4) + kinds[4:])
    places["/a"] = tmp_path / "a"
    slices = [sources(("/a", 0, 3)), sources(("/d", 4, 6)), sources(("/a", 3, 4))]
    data = {"merge_method": "passthrough", "slices": slices}
    out = merged(data, places, tmp_path / "out")
    other = load_file(deep["d"] / "model.safetensors")
    name = "model.layers.{}.self_attn.q_proj.weight"
    origins = [(weights["/a"], 0), (weights["/a"], 1), (weights["/a"], 2), (other, 4), (other, 5), (weights["/a"], 3)]
    for i, (model, layer) in enumerate(origins):
        assert torch.equal(out[name.format(i)], model[name.format(layer)]), i
    assert torch.equal(out["lm_head.weight"], weights["/a"]["lm_head.weight"])
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert config["num_hidden_layers"] == 6
    assert config["layer_types"] == ["full_attention"] * 3 + ["kind 6-4", "kind 6-5", "full_attention"]
    assert jsonl.read(tmp_path / "out" / checkpoint.STATISTICS) == []


def test_transformers_loads_a_stack(folders, tmp_path):
    from transformers import AutoModelForCausalLM

    merged(STACK, folders, tmp_path / "out")
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert model.config.num_hidden_layers == 5
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_a_stack_is_a_model_inside_other_steps(folders, weights, tmp_path):
    inner = {"method": "stack", "models": [{"model": "/c", "layers": [2, 4]}, {"model": "/b", "layers": [0, 2]}]}
    data = {"method": "slerp", "base": "/a", "other": inner, "t": [0, 1]}
    recipe = parse(data, "test")
    assert describe(recipe) == "slerp(/a, /c[2:4] + /b[0:2])"
    out = merged(recipe, folders, tmp_path / "out")
    name = "model.layers.{}.mlp.up_proj.weight"
    assert torch.equal(out[name.format(3)], weights["/b"][name.format(1)])
    assert torch.equal(out[name.format(0)], weights["/a"][name.format(0)])


def test_threads_change_no_byte_of_a_stack(folders, tmp_path):
    for threads in (1, 2):
        merged(STACK, folders, tmp_path / str(threads), threads=threads)
    assert bytes_of(tmp_path / "1") == bytes_of(tmp_path / "2")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"merge_method": "passthrough", "slices": [sources(("/a", 2, 9))]}, r"layers \[2, 9\] of /a: it has 4 layers"),
        ({"method": "linear", "models": [{"model": "/a"}, {"model": {"method": "stack", "models": [
            {"model": "/b", "layers": [0, 3]}]}}]}, r"linear\(/a, /b\[0:3\]\): /a has 4 layers, /b\[0:3\] has 3"),
    ],
)  # fmt: skip
def test_layers_that_are_not_there_are_refused_before_the_merge(folders, data, said):
    recipe = parse(data, "test") if "method" in data else read(data)[0]
    with pytest.raises(UserError, match=said):
        checkpoint.load_models(recipe, folders, MergeOptions())


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (None, r"slerp\(a\[0:2\], b\[1:3\]\): b\[1:3\] has no model.layers.1.mlp.up_proj.weight; choose other layers"),
        (torch.zeros(3, 4), r"model.layers.2.mlp.up_proj.weight of b is \[3, 4\] in .*; layers of one kind"),
    ],
)
def test_layers_of_another_kind_are_refused_before_the_merge(tmp_path, tensor, said):
    """Layer 2 of b lies beyond those that both models have."""
    made = experts(tmp_path, Shape(layers=2), ("a",)) | experts(tmp_path, Shape(layers=3), ("b",))
    tensors = load_file(made["b"] / "model.safetensors")
    del tensors["model.layers.2.mlp.up_proj.weight"]
    more = {} if tensor is None else {"model.layers.2.mlp.up_proj.weight": tensor.bfloat16()}
    store(made["b"], tensors | more)
    slices = [sources(("a", 0, 2), ("b", 1, 3))]
    recipe, *_ = read({"merge_method": "slerp", "base_model": "a", "slices": slices, "parameters": {"t": 0.5}})
    with pytest.raises(UserError, match=said):
        checkpoint.load_models(recipe, made, MergeOptions())


def test_a_checkpoint_whose_layers_do_not_fit_its_config_is_refused(tmp_path):
    made = experts(tmp_path, Shape(layers=2), ("a", "b"))
    for folder in made.values():
        change_json(folder / "config.json", num_hidden_layers=3)
    recipe = parse({"method": "slerp", "base": "a", "other": "b", "t": [0, 1]}, "test")
    with pytest.raises(UserError, match=r"a: config.json says 3 layers, the weights have model.layers.… with 2"):
        checkpoint.load_models(recipe, made, MergeOptions())
    for folder in made.values():
        put_json(folder / "config.json", {"model_type": "x"})
    with pytest.raises(UserError, match="no number of layers"):
        checkpoint.load_models(recipe, made, MergeOptions())


def test_the_key_of_a_constant_recipe_is_that_of_earlier_versions():
    """A merge that is on the disk stays the finished one of its recipe."""
    models = [{"model": "y", "density": 0.5}, {"model": "z", "density": 0.25, "weight": 2}]
    recipe = parse({"method": "ties", "base": "x", "models": models}, "test")
    identity = checkpoint.identity(recipe, MergeOptions(device="cpu", threads=1), {"x": "1", "y": "2", "z": "3"})
    assert artifact.digest(identity) == "37157fb3f8838aada4fc479ce9f15af492b23c651f93a8748a47e03fa491debf"


# --- the same files in mergekit -----------------------------------------------------------------------------

PEER = """
import sys, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
for path in sys.argv[1:]:
    config = MergeConfiguration.model_validate(yaml.safe_load(open(path)))
    run_merge(config, path.removesuffix(".yml"), MergeOptions(quiet=True, write_model_card=False))
"""
PUBLISHED = {
    "lazy": LAZY,
    "ties": {
        "merge_method": "ties", "base_model": "/a", "parameters": {"normalize": 1, "int8_mask": True},
        "models": [
            {"model": "/b", "parameters": {"density": [1, 0.7, 0.1], "weight": 1.0}},
            {"model": "/c", "parameters": {"density": 0.33, "weight": [{"filter": "mlp", "value": 0.5}, {"value": 0}]}},
        ],
    },
    "stack": STACK,
    "passthrough": {"merge_method": "passthrough", "slices": [sources(("/a", 0, 3)), sources(("/b", 1, 4))]},
    # The numbers of a model go by the names that it has, here layer 3 of /b, and end in those of slice and document.
    "names": {
        "merge_method": "linear", "parameters": {"weight": 0.25},
        "slices": [
            sources(("/a", 0, 1), ("/b", 3, 4)),
            {"parameters": {"weight": {"filter": "norm", "value": [1, 2]}}, "sources": [
                {"model": "/a", "layer_range": [1, 3]},
                {"model": "/b", "layer_range": [2, 4], "parameters": {"weight": {"filter": "layers.3.", "value": 2}}},
            ]},
        ],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def by_mergekit(folders, tmp_path_factory) -> Path:
    """A folder with mergekit's result of each of PUBLISHED, made from files that name the folders of the models."""
    place = tmp_path_factory.mktemp("mergekit")
    (place / "peer.py").write_text(PEER, encoding="utf-8")
    for name, data in PUBLISHED.items():
        text = yaml.safe_dump(data)
        for model, folder in folders.items():
            text = text.replace(f": {model}\n", f": {folder}\n")
        (place / f"{name}.yml").write_text(text, encoding="utf-8")
    files = [place / f"{name}.yml" for name in PUBLISHED]
    subprocess.run([peers.python(), place / "peer.py", *files], check=True)
    return place


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_mergekit_makes_the_same_of_a_file(name, by_mergekit, tmp_path):
    """Bit for bit, but for SLERP's rounding and entries of equal magnitude where TIES stops (test_parity.py)."""
    recipe, folders, settings = mergekit.read_recipe(by_mergekit / f"{name}.yml")
    dtypes = {key: checkpoint.DTYPES[value] for key, value in settings.items() if value}
    (tmp_path / "out").mkdir()
    checkpoint.merge_checkpoints(recipe, folders, tmp_path / "out", MergeOptions(**dtypes), "test")
    results = tmp_path / "out", by_mergekit / name
    ours, theirs = (load_file(folder / "model.safetensors") for folder in results)
    assert ours.keys() == theirs.keys()
    differing = sum(int((ours[key] != theirs[key]).sum()) for key in ours)
    entries = sum(tensor.numel() for tensor in ours.values())
    assert differing <= {"lazy": 0.002, "ties": 0.02}.get(name, 0) * entries
    for key in ours:
        tolerance = {"rtol": 2**-7, "atol": 1e-6} if name != "ties" else {"rtol": 0, "atol": 0.3}
        torch.testing.assert_close(ours[key], theirs[key], **tolerance, msg=lambda text, key=key: f"{key}: {text}")
    configs = [json.loads((folder / "config.json").read_text(encoding="utf-8")) for folder in results]
    assert configs[0]["num_hidden_layers"] == configs[1]["num_hidden_layers"]
