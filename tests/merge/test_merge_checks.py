"""What is found before a merge starts: every mismatch, by model, from headers alone; and what only weights show."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from checkpoints import WORDS, Shape, add_tokenizer, change_json, experts, store
from safetensors.torch import load_file

from tinyr1.core.errors import UserError
from tinyr1.core.recipe import Recipe
from tinyr1.merge import checkpoint, checks
from tinyr1.merge.engine import MergeOptions
from tinyr1.merge.reader import Checkpoint

Usage = namedtuple("Usage", "total used free")
CHAIN = Recipe(method="fusion", base="code", other=Recipe(method="fusion", base="science", other="math"))


@pytest.fixture
def three(tmp_path) -> dict[str, Path]:
    return experts(tmp_path / "in", Shape(layers=1, extras=True))


def problems(three, tokenizer: str | None = None) -> list[str]:
    """What the check says, without its first line."""
    with pytest.raises(UserError, match="these models cannot be merged") as caught:
        checks.check({name: Checkpoint(folder) for name, folder in three.items()}, tokenizer)
    return str(caught.value).splitlines()[1:]


def change_weights(folder: Path, **changes) -> None:
    """Replace tensors (by name with _ for .); None removes one."""
    tensors = load_file(folder / "model.safetensors")
    for key, value in changes.items():
        name = next((n for n in tensors if n.replace(".", "_") == key), key)
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value
    store(folder, tensors)


def into(three, out: Path, recipe: Recipe = CHAIN, **options) -> dict:
    out.mkdir(exist_ok=True)
    return checkpoint.merge_checkpoints(recipe, three, out, MergeOptions(**options), "test")


def test_equal_models_pass(three):
    checks.check({name: Checkpoint(folder) for name, folder in three.items()}, None)
    checks.check({name: Checkpoint(folder) for name, folder in three.items()}, "code")


def test_architecture_and_config_are_compared_by_key(three):
    change_json(three["science"] / "config.json", architectures=["LlamaForCausalLM"], rope_theta=5.0)
    change_json(three["code"] / "config.json", num_attention_heads=8)
    remedy = "; only models of one network can be merged: leave one out, or correct the file that is wrong"
    assert problems(three) == [
        f"config.json: architectures is ['LlamaForCausalLM'] in science, ['Qwen2ForCausalLM'] in math{remedy}",
        f"config.json: rope_parameters.rope_theta is 5.0 in science, 10000.0 in math{remedy}",
        f"config.json: num_attention_heads is 8 in code, 4 in math{remedy}",
    ]


def test_provenance_in_a_config_is_not_compared(three):
    for name, folder in three.items():
        change_json(folder / "config.json", _name_or_path=name, transformers_version=name, use_cache=name == "code")
    checks.check({name: Checkpoint(folder) for name, folder in three.items()}, None)


def test_missing_tensors_are_named_with_their_owner(three):
    change_weights(three["math"], model_norm_weight=None)
    change_weights(three["code"], more=torch.zeros(2))
    remedy = "; give models of one architecture, whole and saved alike"
    assert problems(three) == [
        f"model.norm.weight: only science has it, math does not{remedy}",
        f"2 tensors (model.norm.weight, more): only code has them, math does not{remedy}",
    ]


def test_shapes_and_dtypes_are_named(three):
    change_weights(three["science"], model_norm_weight=torch.ones(7, dtype=torch.bfloat16))
    change_weights(three["code"], model_norm_weight=torch.ones(32, dtype=torch.float16), position_ids=torch.ones(7))
    assert problems(three) == [
        "model.norm.weight: shape [7] in science, [32] in math; give models of one architecture and size",
        "model.norm.weight: float16 in code, bfloat16 in math; say in what to compute: --dtype, or dtype in the recipe",
        "position_ids: float32 in code, int64 in math; make the models agree on it",
    ]


def test_many_shapes_are_one_line_with_an_example(tmp_path):
    folders = experts(tmp_path / "a", Shape(layers=1), ("math",))
    folders |= experts(tmp_path / "b", Shape(layers=1, hidden=64), ("code",))
    assert problems(folders)[1:] == [
        "all 15 tensors: lm_head.weight has shape [64, 64] in code, [64, 32] in math; give models of one architecture "
        "and size"
    ]


def test_a_layer_more_is_one_line_beside_the_config(tmp_path):
    folders = experts(tmp_path / "a", Shape(layers=1), ("math",)) | experts(tmp_path / "b", Shape(layers=2), ("code",))
    found = problems(folders)
    assert [line.split(";")[0] for line in found] == [
        "config.json: layer_types is ['full_attention', 'full_attention'] in code, ['full_attention'] in math",
        "config.json: num_hidden_layers is 2 in code, 1 in math",
        "12 tensors (model.layers.1.input_layernorm.weight, model.layers.1.mlp.down_proj.weight, …): only code has "
        "them, math does not",
    ]


def test_tokenizers_must_agree_unless_one_is_chosen(three, tmp_path):
    add_tokenizer(three["code"], (*WORDS[:-1], "hence"))
    (three["science"] / "chat_template.jinja").write_text("{{ messages }}")
    choose = "differ; name the model whose tokenizer to keep (--tokenizer)"
    files = {"tokenizer.json": "code", "chat_template.jinja": "science"}
    assert problems(three) == [f"{file}: {name} and math {choose}" for file, name in files.items()]
    for chosen, word in (("code", "hence"), ("math", "thus")):
        into(three, folder := tmp_path / chosen, tokenizer=chosen)
        assert word in json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
        assert not (folder / "chat_template.jinja").exists()
    with pytest.raises(UserError, match=r"tokenizer: 'physics' is not one of the models \(math, science, code\)"):
        checks.check({name: Checkpoint(folder) for name, folder in three.items()}, "physics")


def test_the_layout_of_a_tokenizer_file_does_not_matter(three):
    path = three["code"] / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=4, sort_keys=True))
    checks.check({name: Checkpoint(folder) for name, folder in three.items()}, None)


def test_special_tokens_go_with_the_tokenizer(three, tmp_path):
    change_json(three["math"] / "config.json", eos_token_id=5)
    change_json(three["math"] / "generation_config.json", eos_token_id=5)
    for chosen, eos in (("math", 5), ("code", 2)):
        into(three, out := tmp_path / chosen, tokenizer=chosen)
        for file in ("config.json", "generation_config.json"):
            assert json.loads((out / file).read_text())["eos_token_id"] == eos


class TestTiedEmbeddings:
    def test_tied_and_untied_are_not_merged(self, tmp_path):
        three = experts(tmp_path / "a", Shape(layers=1), ("math",)) | experts(
            tmp_path / "b", Shape(layers=1, tied=True), ("code",)
        )
        [found] = problems(three)
        assert found.startswith("config.json: tie_word_embeddings is True in code, False in math; only models of one")

    def test_a_head_that_only_some_store_is_left_out(self, tmp_path):
        folders = experts(tmp_path / "a", Shape(layers=1, tied=True), ("math", "science"))
        folders |= experts(tmp_path / "b", Shape(layers=1, tied=True, stores_head=False), ("code",))
        into(folders, tmp_path / "out")
        made = Checkpoint(tmp_path / "out")
        assert "lm_head.weight" not in made.tensors
        assert made.tensors.keys() == Checkpoint(folders["code"]).tensors.keys()

    def test_a_head_that_all_store_is_written_once(self, tmp_path):
        folders = experts(tmp_path / "a", Shape(layers=1, tied=True))
        into(folders, tmp_path / "out")
        made = load_file(tmp_path / "out" / "model.safetensors")
        assert "lm_head.weight" not in made
        assert made.keys() == load_file(folders["code"] / "model.safetensors").keys() - {"lm_head.weight"}

    def test_without_tying_a_missing_head_is_a_problem(self, tmp_path):
        three = experts(tmp_path / "a", Shape(layers=1))
        change_weights(three["code"], lm_head_weight=None)
        assert [line.split(";")[0] for line in problems(three)] == ["lm_head.weight: only math has it, code does not"]


def test_many_problems_are_counted_and_take_ten_lines(three):
    changes = {"hidden_act": "relu", "rms_norm_eps": 1e-3, "num_attention_heads": 8, "num_key_value_heads": 8,
               "intermediate_size": 64, "hidden_size": 64}  # fmt: skip
    for name in ("science", "code"):
        change_json(three[name] / "config.json", **changes)
    found = problems(three)
    assert len(found) == checks.SHOWN + 1 == 9
    assert found[-1] == f"… and {12 - checks.SHOWN} more"


def test_a_full_disk_is_found_before_a_weight_is_read(three, tmp_path, monkeypatch):
    free = checks.RESERVE + 10_000
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10**12, 10**12 - free, free))
    monkeypatch.setattr(Checkpoint, "open", lambda self: pytest.fail("weights were opened"))
    with pytest.raises(UserError, match=r"out: the result takes 0.00 GB, 0.10 GB are free; free some space"):
        into(three, tmp_path / "out")


def test_what_a_killed_merge_left_counts_as_free(three, tmp_path, monkeypatch):
    """Its files go before new ones come, so their room must not be asked for twice."""
    rest = tmp_path / "out" / "model-00003-of-00007.safetensors"
    rest.parent.mkdir()
    rest.write_bytes(bytes(10))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(0, 0, 0 if rest.exists() else 10**12))
    into(three, rest.parent)
    assert not rest.exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("method", ["fusion", "linear"])
def test_weights_that_are_not_finite_are_named(tmp_path, bad, dtype, method):
    three = experts(tmp_path / "in", Shape(layers=1, dtype=dtype))
    name = "model.layers.0.mlp.up_proj.weight"
    tensor = load_file(three["science"] / "model.safetensors")[name]
    tensor[-1, -1] = bad
    change_weights(three["science"], **{name.replace(".", "_"): tensor})
    linear = Recipe.model_validate({"method": "linear", "models": [{"model": n} for n in three]})
    with pytest.raises(UserError, match=rf"science: {name} holds infinities or NaNs \(model science\)"):
        into(three, tmp_path / "out", CHAIN if method == "fusion" else linear)


def test_integer_tensors_must_agree(three, tmp_path):
    change_weights(three["science"], position_ids=torch.arange(7).flip(0))
    with pytest.raises(UserError, match="position_ids: an integer tensor that differs between code and science"):
        into(three, tmp_path / "out")


def test_the_released_reading_refuses_float16_before_it_starts(tmp_path, monkeypatch):
    three = experts(tmp_path / "in", Shape(layers=1, dtype=torch.float16))
    monkeypatch.setattr(Checkpoint, "open", lambda self: pytest.fail("weights were opened"))
    with pytest.raises(UserError, match="takes torch.bfloat16, torch.float32, not torch.float16"):
        into(three, tmp_path / "out", reading="released")
    with pytest.raises(UserError, match="give --dtype"):
        into(three, tmp_path / "out", CHAIN.model_copy(update={"reading": "released"}))
    monkeypatch.undo()
    into(three, tmp_path / "out", reading="released", dtype=torch.float32)
