"""What differs between the models of a merge and does not stand in its way: configs, dtypes, files beside weights."""

import json
from pathlib import Path

import pytest
import torch
from checkpoints import Shape, change_json, config, experts, put_json, store
from safetensors.torch import load_file

from tinyr1.core.errors import UserError
from tinyr1.core.recipe import Recipe
from tinyr1.merge import checkpoint, configs
from tinyr1.merge.checkpoint import config_of_result
from tinyr1.merge.engine import DTYPES, MergeOptions

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
SMALL = Shape(layers=1)
LINEAR = Recipe.model_validate({"method": "linear", "models": [{"model": "math"}, {"model": "code"}]})


@pytest.fixture
def two(tmp_path) -> dict[str, Path]:
    return experts(tmp_path / "in", SMALL, ("math", "code"))


def into(folders: dict[str, Path], out: Path, recipe: Recipe = LINEAR, **options) -> dict[str, torch.Tensor]:
    out.mkdir()
    checkpoint.merge_checkpoints(recipe, folders, out, MergeOptions(threads=1, **options), "test")
    return load_file(out / "model.safetensors")


def written(out: Path, name: str = "config.json") -> dict:
    return json.loads((out / name).read_text(encoding="utf-8"))


def said(capsys) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line]


OLD = {  # as transformers 4.4x writes it
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64, "hidden_act": "silu",
    "max_position_embeddings": 131072, "max_window_layers": 2, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0,
    "sliding_window": 131072, "use_sliding_window": False, "use_mrope": False, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16", "transformers_version": "4.43.1",
}  # fmt: skip


def saved_again(old: dict) -> dict:
    """The same config as the installed transformers writes it."""
    from transformers import Qwen2Config

    made = Qwen2Config.from_dict(dict(old)).to_dict()
    made.pop("use_mrope")
    return json.loads(json.dumps(made, default=str))


class TestAges:
    def test_a_config_saved_by_a_newer_transformers_is_the_same(self):
        new = saved_again(OLD)
        assert "rope_theta" not in new
        assert new["layer_types"] == ["full_attention"] * 2
        problems, notices = configs.compare("new", {"old": OLD, "new": new})
        assert problems == []
        assert notices == [], "use_mrope is off in one and absent in the other"
        assert configs.compare("new", {"old": OLD | {"use_mrope": True}, "new": new})[1] == [
            "config.json: use_mrope is True in old, not set in new; the result has that of new"
        ]

    def test_another_rope_is_another_network_in_either_form(self):
        new = saved_again(OLD | {"rope_theta": 10000.0})
        problems, _ = configs.compare("old", {"old": OLD, "new": new})
        assert len(problems) == 1
        assert problems[0].startswith(
            "config.json: rope_parameters.rope_theta is 10000.0 in new, 1000000.0 in old; only models of one network"
        )

    def test_scaling_of_an_old_config_is_compared_with_that_of_a_new_one(self):
        yarn = OLD | {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}}
        assert configs.compare("old", {"old": yarn, "new": saved_again(yarn)})[0] == []
        assert "rope_parameters.factor is 2.0 in new" in str(
            configs.compare("old", {"old": yarn, "new": saved_again(yarn | {"rope_scaling": {
                "type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32768}})})[0])  # fmt: skip

    def test_the_context_counts_where_dynamic_scaling_starts_from_it(self):
        dynamic = OLD | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}
        problems, _ = configs.compare("a", {"a": dynamic, "b": dynamic | {"max_position_embeddings": 4096}})
        assert "max_position_embeddings is 4096 in b, 131072 in a" in problems[0]
        for kind in ("dynamic", "longrope"):
            newer = OLD | {"auto_map": {}, "rope_scaling": {"rope_type": kind, "factor": 2.0}}
            problems, _ = configs.compare("a", {"a": newer, "b": newer | {"max_position_embeddings": 4096}})
            assert "max_position_embeddings is 4096 in b, 131072 in a" in problems[0]

    def test_windows_count_only_where_sliding_attention_is_on(self):
        on = OLD | {"use_sliding_window": True}
        assert configs.compare("a", {"a": OLD, "b": OLD | {"sliding_window": 9, "max_window_layers": 1}})[0] == []
        problems, _ = configs.compare("a", {"a": on, "b": on | {"max_window_layers": 1}})
        assert "layer_types is ['full_attention', 'sliding_attention'] in b" in problems[0]

    @pytest.mark.parametrize(
        ("change", "line"),
        [
            ({"max_position_embeddings": 64}, "max_position_embeddings is 128 in a, 64 in b"),
            ({"pad_token_id": None}, "pad_token_id is 0 in a, not set in b"),
            ({"eos_token_id": [2, 5]}, "eos_token_id is 2 in a, [2, 5] in b"),
            ({"attention_dropout": 0.5}, "attention_dropout is not set in a, 0.5 in b"),
            ({"initializer_range": 0.5}, "initializer_range is not set in a, 0.5 in b"),
            ({"_attn_implementation_autoset": True}, "_attn_implementation_autoset is not set in a, True in b"),
        ],
    )
    def test_what_says_nothing_about_the_network_is_the_main_models(self, change, line):
        own = config(SMALL)
        problems, notices = configs.compare("a", {"a": own, "b": own | change})
        assert problems == []
        assert notices == [f"config.json: {line}; the result has that of a"]

    def test_a_key_that_no_class_knows_is_a_mark_and_not_the_network(self):
        own = config(SMALL)
        problems, notices = configs.compare("a", {"a": own, "b": own | {"finetuned_with": {"tool": "x"}}, "c": own})
        assert problems == []
        assert notices == ["config.json: finetuned_with.tool is not set in a and c, 'x' in b; the result has that of a"]

    def test_one_end_token_may_stand_in_a_list(self):
        own = config(SMALL)
        assert configs.compare("a", {"a": own, "b": own | {"eos_token_id": [2]}}) == ([], [])

    def test_marks_inside_a_nested_config_are_marks(self):
        from transformers import LlavaConfig

        own = json.loads(json.dumps(LlavaConfig().to_dict(), default=str))
        text = own["text_config"]
        marked = own | {"text_config": text | {"_name_or_path": "x", "dtype": "float32", "use_cache": False, "mark": 1}}
        problems, notices = configs.compare("a", {"a": own, "b": marked})
        assert problems == []
        assert notices == ["config.json: text_config.mark is not set in a, 1 in b; the result has that of a"]
        wide = own | {"text_config": text | {"hidden_size": 64}}
        assert "text_config.hidden_size is 64 in b" in configs.compare("a", {"a": own, "b": wide})[0][0]

    def test_code_of_a_checkpoint_is_not_executed(self):
        """Its configs are compared as they are written, although another class has this model_type."""
        own = config(SMALL) | {"auto_map": {"AutoConfig": "mine.Config"}}
        problems, notices = configs.compare("a", {"a": own, "b": own | {"rope_theta": 10000.0, "unsloth_fixed": True}})
        assert [line.split(";")[0] for line in problems] == ["config.json: rope_theta is 10000.0 in b, not set in a"]
        assert [line.split(";")[0] for line in notices] == ["config.json: unsloth_fixed is not set in a, True in b"]

    def test_a_config_that_its_class_refuses_is_compared_as_it_is(self):
        own = config(SMALL)
        problems, _ = configs.compare("a", {"a": own, "b": own | {"hidden_size": "wide"}})
        assert "hidden_size is 'wide' in b, 32 in a" in problems[0]

    def test_the_main_model_is_the_base_of_the_merge(self, two, tmp_path, capsys):
        change_json(two["math"] / "config.json", max_position_embeddings=4096)
        for base, other, context in (("math", "code", 4096), ("code", "math", 128)):
            into(two, tmp_path / base, Recipe(method="slerp", base=base, other=other, t=0.5))
            assert written(tmp_path / base)["max_position_embeddings"] == context
            assert f"the result has that of {base}" in said(capsys)[0]


class TestDtypes:
    def test_different_ones_need_a_dtype_to_compute_in(self, tmp_path):
        folders = experts(tmp_path / "a", Shape(layers=1, dtype=FP32), ("math",))
        folders |= experts(tmp_path / "b", SMALL, ("code",))
        with pytest.raises(UserError) as caught:
            into(folders, tmp_path / "none")
        assert str(caught.value).splitlines()[1:] == [
            "all 15 tensors: bfloat16 in code, float32 in math; say in what to compute: --dtype, or dtype in the recipe"
        ]
        made = into(folders, tmp_path / "out", dtype=BF16)
        a, b = (load_file(folders[name] / "model.safetensors") for name in ("math", "code"))
        for name, tensor in made.items():
            expected = (a[name].to(BF16).float() + b[name].float()) / 2
            assert torch.equal(tensor, expected.to(BF16)), name

    def test_norms_in_float32_stay_so(self, two, tmp_path):
        for folder in two.values():
            tensors = load_file(folder / "model.safetensors")
            store(folder, {n: t.float() if "norm" in n else t for n, t in tensors.items()})
        made = into(two, tmp_path / "out")
        assert {t.dtype for n, t in made.items() if "norm" in n} == {FP32}
        assert {t.dtype for n, t in made.items() if "norm" not in n} == {BF16}
        assert {t.dtype for t in into(two, tmp_path / "half", dtype=FP16).values()} == {FP16}

    @pytest.mark.parametrize(
        ("own", "options", "result"),
        [
            ({"dtype": "bfloat16", "torch_dtype": "float32"}, {}, {"dtype": "bfloat16", "torch_dtype": "bfloat16"}),
            ({"dtype": "bfloat16", "torch_dtype": "bfloat16"}, {"dtype": "float32"},
             {"dtype": "float32", "torch_dtype": "float32"}),
            ({"torch_dtype": "bfloat16"}, {"dtype": "float32", "out_dtype": "float16"}, {"torch_dtype": "float16"}),
            ({}, {}, {}),
            ({}, {"dtype": "float16"}, {"torch_dtype": "float16"}),
            ({"dtype": "bfloat16", "text_config": {"dtype": "bfloat16", "torch_dtype": "float32", "x": 1}},
             {"dtype": "float32"},
             {"dtype": "float32", "text_config": {"dtype": "float32", "torch_dtype": "float32", "x": 1}}),
        ],
    )  # fmt: skip
    def test_the_config_says_one_dtype(self, own, options, result):
        wanted = MergeOptions(**{key: DTYPES[value] for key, value in options.items()})
        assert config_of_result(own, {}, wanted) == result


class TestTiedHeads:
    DARE = Recipe.model_validate({
        "method": "dare_linear", "base": "math", "models": [{"model": "code", "density": 0.5}],
    })  # fmt: skip

    def test_a_stored_head_gets_no_mask_of_its_own(self, tmp_path):
        from transformers import AutoModelForCausalLM

        folders = experts(tmp_path / "in", Shape(layers=1, tied=True), ("math", "code"))
        made = into(folders, tmp_path / "out", self.DARE)
        assert "lm_head.weight" not in made
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=BF16)
        assert torch.equal(loaded.lm_head.weight, made["model.embed_tokens.weight"])

    def test_a_head_that_is_not_the_embedding_is_refused(self, tmp_path):
        folders = experts(tmp_path / "in", Shape(layers=1, tied=True), ("math", "code"))
        tensors = load_file(folders["code"] / "model.safetensors")
        tensors["lm_head.weight"][-1, -1] += 1
        store(folders["code"], tensors)
        with pytest.raises(UserError, match=r"lm_head.weight is not model.embed_tokens.weight, .*model code.*set tie_"):
            into(folders, tmp_path / "out", self.DARE)

    def test_a_class_that_ties_by_default_needs_no_key(self, two, tmp_path, capsys):
        """Gemma's config.json is silent, and one of two models stores the head."""
        assert configs.ties_head({"model_type": "gemma2"})
        assert not configs.ties_head({"model_type": "qwen2"})
        assert not configs.ties_head({})
        for folder in two.values():
            put_json(folder / "config.json", {"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"]})
        tensors = load_file(two["math"] / "model.safetensors")
        store(two["math"], tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
        tensors = load_file(two["code"] / "model.safetensors")
        store(two["code"], {n: t for n, t in tensors.items() if n != "lm_head.weight"})
        assert "lm_head.weight" not in into(two, tmp_path / "out")
        assert said(capsys)[0] == (
            "lm_head.weight: is tied to model.embed_tokens.weight and stored beside it by math; the result has one "
            "tensor"
        )


    def test_a_tensor_under_several_names_gets_one_mask(self, tmp_path):
        """T5 has its embedding under four."""
        folders = experts(tmp_path / "in", Shape(layers=1), ("math", "code"))
        names = ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
        for folder in folders.values():
            tensors = load_file(folder / "model.safetensors")
            tensors |= {name: tensors["model.embed_tokens.weight"].clone() for name in names}
            store(folder, tensors)
        made = into(folders, tmp_path / "out", self.DARE)
        assert all(torch.equal(made[name], made["model.embed_tokens.weight"]) for name in names)
        assert not torch.equal(made["lm_head.weight"], made["model.embed_tokens.weight"])


class TestBeside:
    def test_named_chat_templates_are_the_tokenizers(self, two, tmp_path):
        for name, folder in two.items():
            (folder / "additional_chat_templates").mkdir()
            (folder / "additional_chat_templates" / "tool_use.jinja").write_text(f"of {name}")
        with pytest.raises(UserError, match="additional_chat_templates/tool_use.jinja: code and math differ"):
            into(two, tmp_path / "none")
        into(two, tmp_path / "out", tokenizer="code")
        assert (tmp_path / "out" / "additional_chat_templates" / "tool_use.jinja").read_text() == "of code"

    def test_processors_are_the_main_models_and_none_is_lost(self, two, tmp_path, capsys):
        for name, folder in two.items():
            put_json(folder / "preprocessor_config.json", {"image_mean": [0.5, 0.5], "of": name})
        put_json(two["code"] / "processor_config.json", {"patch_size": 8})
        into(two, tmp_path / "out")
        assert written(tmp_path / "out", "preprocessor_config.json")["of"] == "math"
        assert written(tmp_path / "out", "processor_config.json") == {"patch_size": 8}
        assert said(capsys)[:2] == [
            "processor_config.json: math has none; the result has that of code",
            "preprocessor_config.json: of is 'math' in math, 'code' in code; the result has that of math",
        ]

    def test_a_generation_config_that_the_main_model_lacks_is_another_models(self, two, tmp_path, capsys):
        (two["math"] / "generation_config.json").unlink()
        change_json(two["code"] / "generation_config.json", eos_token_id=[2, 0])
        into(two, tmp_path / "out")
        assert written(tmp_path / "out", "generation_config.json")["eos_token_id"] == [2, 0]
        assert said(capsys)[0] == "generation_config.json: math has none; the result has that of code"

    def test_token_ids_of_generation_are_the_tokenizers(self, two, tmp_path, capsys):
        change_json(two["code"] / "generation_config.json", eos_token_id=5)
        into(two, tmp_path / "math")
        assert said(capsys)[0] == (
            "generation_config.json: eos_token_id is 2 in math, 5 in code; the result has that of math"
        )
        assert written(tmp_path / "math", "generation_config.json")["eos_token_id"] == 2
        into(two, tmp_path / "code", tokenizer="code")
        assert written(tmp_path / "code", "generation_config.json")["eos_token_id"] == 5

    def test_code_that_auto_map_names_is_copied_and_not_executed(self, two, tmp_path):
        for folder in two.values():
            change_json(folder / "config.json", model_type="mine", auto_map={
                "AutoConfig": "configuration_my.Config", "AutoModelForCausalLM": "modeling_my.Model",
                "AutoModel": "owner/name--elsewhere.Model", "AutoTokenizer": ["../in/outside.Slow", None],
            })  # fmt: skip
            (folder / "configuration_my.py").write_text("raise SystemExit('executed')\n")
            (folder / "modeling_my.py").write_text("from .layers_my import Layer\nfrom . import more_my\n")
            (folder / "layers_my.py").write_text("from .configuration_my import Config\n")
            (folder / "more_my.py").write_text("not python\n")
            (folder / "train.py").write_text("pass\n")
        into(two, tmp_path / "out")
        copied = {path.name for path in (tmp_path / "out").glob("*.py")}
        assert copied == {"configuration_my.py", "modeling_my.py", "layers_my.py", "more_my.py"}

    def test_code_that_no_model_has_is_said(self, two, tmp_path, capsys):
        for folder in two.values():
            change_json(folder / "config.json", auto_map={"AutoConfig": "gone.Config"})
        into(two, tmp_path / "out")
        assert said(capsys)[0] == "gone.py: auto_map of math names it, and no model has it"

    def test_the_card_names_no_place_on_this_machine(self, two, tmp_path):
        paths = {str(folder): folder for folder in two.values()}
        recipe = Recipe.model_validate({"method": "linear", "models": [{"model": name} for name in paths]})
        into(paths, tmp_path / "out", recipe, tokenizer=str(two["code"]), tokenizer_source=None)
        card = (tmp_path / "out" / "README.md").read_text()
        assert str(tmp_path) not in card
        assert "tokenizer code" in card
