"""LoRA adapters: applied as peft merges them, block by block; what cannot be applied is refused by its name."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from checkpoints import Shape, bytes_of, change_json, experts, put_json, store
from safetensors.torch import load_file, save_file

from tinyr1.core import artifact
from tinyr1.core.errors import UserError
from tinyr1.merge import __main__ as merge
from tinyr1.merge import adapters, inputs, mergekit
from tinyr1.merge.adapters import AdaptedCheckpoint
from tinyr1.merge.method import as_rows
from tinyr1.merge.parents import ParentHashes
from tinyr1.merge.reader import StoredTensor

SHAPE = Shape(layers=2)
QUERY, DOWN, EMBEDDING = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj", "model.embed_tokens"
RANK = 4


@pytest.fixture
def base(tmp_path) -> Path:
    return experts(tmp_path / "models", SHAPE, ("base",))["base"]


def weight(folder: Path, module: str) -> torch.Tensor:
    return load_file(folder / "model.safetensors")[f"{module}.weight"]


def factors(module: str, out: int, into: int, rank: int = RANK, dtype: torch.dtype = torch.float32) -> dict:
    """Random A and B under the names that peft gives them."""
    kinds = ("lora_embedding_A", "lora_embedding_B") if module == EMBEDDING else ("lora_A.weight", "lora_B.weight")
    sizes = ((rank, into), (out, rank))
    return {f"base_model.model.{module}.{kind}": (torch.randn(size) * 0.1).to(dtype)
            for kind, size in zip(kinds, sizes, strict=True)}  # fmt: skip


def make(folder: Path, tensors: dict[str, torch.Tensor], **config: object) -> Path:
    """An adapter folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    put_json(folder / "adapter_config.json", {"peft_type": "LORA", "r": RANK, "lora_alpha": 6, **config})
    return folder


@pytest.fixture
def adapter(tmp_path) -> Path:
    """An adapter with factors of two layers."""
    torch.manual_seed(1)
    tensors = factors(QUERY, SHAPE.hidden, SHAPE.hidden) | factors(DOWN, SHAPE.hidden, SHAPE.intermediate)
    return make(tmp_path / "loras" / "mine", tensors)


def read(base: Path, adapter: Path, step: int = 5) -> dict[str, torch.Tensor]:
    """The tensors of the base with the adapter applied, read some rows at a time."""
    checkpoint = AdaptedCheckpoint(base, adapter).open()
    found = {}
    for name, stored in checkpoint.tensors.items():
        rows = as_rows(stored.shape)[0]
        parts = [checkpoint.rows(name, first, min(first + step, rows)) for first in range(0, rows, step)]
        found[name] = torch.cat(parts).reshape(stored.shape)
    checkpoint.close()
    return found


def expected(base: Path, adapter: Path, module: str, scale: float, transposed: bool = False) -> torch.Tensor:
    """W + scale · B·A of whole tensors in float64, rounded once."""
    stored = sorted(load_file(adapter / "adapter_model.safetensors").items())
    a, b = (tensor.double() for name, tensor in stored if f".{module}." in name)
    old = weight(base, module)
    return (old.double() + scale * ((b @ a).T if transposed else b @ a)).to(old.dtype)


def close(made: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Equal but for entries that lie between two numbers of the dtype, where float32 and float64 round apart."""
    step = torch.finfo(made.dtype).eps * wanted.abs().double()
    apart = (made.double() - wanted.double()).abs()
    return made.dtype == wanted.dtype and bool((apart <= 2 * step).all()) and float((apart > 0).double().mean()) < 0.01


class TestProduct:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
    def test_it_is_added_to_its_tensors_and_to_no_other(self, tmp_path, adapter, dtype):
        base = experts(tmp_path / dtype_name(dtype), Shape(layers=2, dtype=dtype), ("base",))["base"]
        before, made = load_file(base / "model.safetensors"), read(base, adapter)
        for module in (QUERY, DOWN):
            wanted = expected(base, adapter, module, 6 / RANK)
            if dtype.itemsize < 4:
                assert close(made[f"{module}.weight"], wanted)
            else:  # the sum of the product in float32 is not the one in float64
                torch.testing.assert_close(made[f"{module}.weight"], wanted, rtol=1e-6, atol=1e-7)
            assert not torch.equal(made[f"{module}.weight"], before[f"{module}.weight"])
        rest = before.keys() - {f"{QUERY}.weight", f"{DOWN}.weight"}
        assert made.keys() == before.keys()
        assert all(torch.equal(made[n], before[n]) for n in rest)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_stored_factors_of_any_dtype_are_multiplied_in_float32(self, base, tmp_path, dtype):
        torch.manual_seed(2)
        adapter = make(tmp_path / "lora", factors(QUERY, SHAPE.hidden, SHAPE.hidden, dtype=dtype))
        assert close(read(base, adapter)[f"{QUERY}.weight"], expected(base, adapter, QUERY, 6 / RANK))

    def test_the_sum_is_rounded_once(self, base, tmp_path):
        """A product rounded to bfloat16 before the sum would lose its last quarter."""
        tensors = load_file(base / "model.safetensors")
        tensors[f"{QUERY}.weight"] = torch.full((32, 32), 1.0).bfloat16()
        store(base, tensors)
        a, b = torch.zeros(1, 32), torch.ones(32, 1)
        a[0, 0] = 2**-8 + 2**-17  # just above the middle of 1 and its neighbour 1 + 2**-7
        named = {f"base_model.model.{QUERY}.lora_{k}.weight": t for k, t in (("A", a), ("B", b))}
        adapter = make(tmp_path / "lora", named, r=1, lora_alpha=1)
        assert read(base, adapter)[f"{QUERY}.weight"][3, 0] == 1 + 2**-7

    @pytest.mark.parametrize("step", [1, 7, 64])
    def test_the_size_of_the_blocks_changes_no_bit_of_a_narrow_dtype(self, base, adapter, step):
        whole, parts = read(base, adapter, 10**6), read(base, adapter, step)
        assert all(torch.equal(whole[n], parts[n]) for n in whole)

    def test_an_embedding_gets_the_transposed_product(self, base, tmp_path):
        torch.manual_seed(3)
        adapter = make(tmp_path / "lora", factors(EMBEDDING, SHAPE.hidden, SHAPE.vocabulary))
        wanted = expected(base, adapter, EMBEDDING, 6 / RANK, transposed=True)
        assert close(read(base, adapter)[f"{EMBEDDING}.weight"], wanted)

    def test_the_kind_of_a_layer_decides_whether_its_product_is_transposed_as_in_peft(self, base, tmp_path):
        torch.manual_seed(4)
        adapter = make(tmp_path / "lora", factors(QUERY, SHAPE.hidden, SHAPE.hidden), fan_in_fan_out=True)
        assert close(read(base, adapter)[f"{QUERY}.weight"], expected(base, adapter, QUERY, 6 / RANK))
        conv1d, config = "transformer.h.0.attn.c_proj", adapters.LoraConfig(r=2, fan_in_fan_out=False)
        stored = {f"base_model.model.{conv1d}.lora_{part}.weight": StoredTensor(Path("file"), 0, shape, torch.float32)
                  for part, shape in {"A": (2, 8), "B": (8, 2)}.items()}  # fmt: skip
        place = {f"{conv1d}.weight": StoredTensor(Path("file"), 0, (8, 8), torch.float32)}
        for network, transposed in (("gpt2", True), ("llama", False)):
            product = adapters.changes("it", config, stored, place, network).products[f"{conv1d}.weight"]
            assert product.transposed is transposed

    def test_the_sum_is_rounded_to_the_dtype_of_the_merge_and_not_to_that_of_the_base_before(self, base, adapter):
        wide = adapters.AdaptedCheckpoint(base, adapter, torch.float32).open()
        rows = wide.rows(f"{QUERY}.weight", 0, SHAPE.hidden)
        wide.close()
        stored = load_file(adapter / "adapter_model.safetensors")
        a, b = (stored[f"base_model.model.{QUERY}.lora_{part}.weight"].double() for part in "AB")
        assert rows.dtype == torch.float32
        assert (rows.double() - (weight(base, QUERY).double() + 6 / RANK * b @ a)).abs().max() < 1e-6
        assert torch.equal(rows.bfloat16(), read(base, adapter)[f"{QUERY}.weight"])

    @pytest.mark.parametrize(
        ("tensors", "why"), [({}, "holds no tensor"), ({"x": torch.ones(2, 2).char()}, "torch.int8")]
    )
    def test_an_adapter_without_tensors_or_with_whole_numbers_is_refused(self, base, tmp_path, tensors, why):
        with pytest.raises(UserError, match=why):
            AdaptedCheckpoint(base, make(tmp_path / "lora", tensors))

    @pytest.mark.parametrize(
        ("config", "query", "down"),
        [
            ({"use_rslora": True}, 6 / 2, 6 / 2),
            ({"alpha_pattern": {"q_proj": 5}}, 5 / 4, 6 / 4),
            ({"alpha_pattern": {"layers.1.mlp.down_proj": 3, "proj": 9}}, 6 / 4, 3 / 4),
            ({"alpha_pattern": {r"model\.layers\.\d+\.self_attn\.q_proj": 7}}, 7 / 4, 6 / 4),
            ({"alpha_pattern": {"^model.layers.0.self_attn.q_proj": 7}}, 7 / 4, 6 / 4),
        ],
    )
    def test_the_scale_is_that_of_the_config(self, base, adapter, config, query, down):
        change_json(adapter / "adapter_config.json", **config)
        made = read(base, adapter)
        for module, scale in ((QUERY, query), (DOWN, down)):
            assert close(made[f"{module}.weight"], expected(base, adapter, module, scale))

    def test_ranks_may_differ_from_layer_to_layer(self, base, tmp_path):
        torch.manual_seed(5)
        tensors = factors(QUERY, SHAPE.hidden, SHAPE.hidden, 2) | factors(DOWN, SHAPE.hidden, SHAPE.intermediate)
        adapter = make(tmp_path / "lora", tensors, rank_pattern={"q_proj": 2})
        made = read(base, adapter)
        assert close(made[f"{QUERY}.weight"], expected(base, adapter, QUERY, 6 / 2))
        assert close(made[f"{DOWN}.weight"], expected(base, adapter, DOWN, 6 / 4))

    def test_a_config_that_says_little_has_the_defaults_of_peft(self, base, adapter):
        put_json(adapter / "adapter_config.json", {"peft_type": "LORA", "r": RANK})
        assert close(read(base, adapter)[f"{QUERY}.weight"], expected(base, adapter, QUERY, 8 / RANK))

    def test_a_tokenizer_beside_the_adapter_is_not_used_and_that_is_said(self, base, adapter):
        shutil.copy(base / "tokenizer.json", adapter)
        assert len(AdaptedCheckpoint(base, adapter).notices) == 1
        (adapter / "chat_template.jinja").write_text("{{ messages }}")
        *_, said = AdaptedCheckpoint(base, adapter).notices
        assert said == f"{adapter}: chat_template.jinja: not used, the tokenizer is the one of {base}"

    def test_pickled_factors_are_read_too(self, base, adapter):
        wanted = read(base, adapter)
        torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
        (adapter / "adapter_model.safetensors").unlink()
        made = read(base, adapter)
        assert all(torch.equal(made[n], wanted[n]) for n in wanted)


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class TestWholeTensors:
    def test_those_trained_with_the_adapter_take_the_place_of_the_base(self, base, adapter):
        head, norm = torch.randn(SHAPE.vocabulary, SHAPE.hidden), torch.rand(SHAPE.hidden)
        tensors = load_file(adapter / "adapter_model.safetensors")
        tensors |= {"base_model.model.lm_head.weight": head, "base_model.model.model.norm.weight": norm}
        make(adapter, tensors, modules_to_save=["lm_head", "norm"])
        made = read(base, adapter)
        assert torch.equal(made["lm_head.weight"], head.bfloat16())
        assert torch.equal(made["model.norm.weight"], norm.bfloat16())
        assert close(made[f"{QUERY}.weight"], expected(base, adapter, QUERY, 6 / RANK))

    def test_a_product_is_added_to_an_embedding_that_was_saved_whole(self, base, tmp_path):
        torch.manual_seed(6)
        saved = torch.randn(SHAPE.vocabulary, SHAPE.hidden).bfloat16()
        tensors = factors(EMBEDDING, SHAPE.hidden, SHAPE.vocabulary)
        tensors[f"base_model.model.{EMBEDDING}.base_layer.weight"] = saved
        adapter = make(tmp_path / "lora", tensors)
        made = read(base, adapter)[f"{EMBEDDING}.weight"]
        store(base, load_file(base / "model.safetensors") | {f"{EMBEDDING}.weight": saved})
        small = make(tmp_path / "small", {n: t for n, t in tensors.items() if "lora" in n})
        assert close(made, expected(base, small, EMBEDDING, 6 / RANK, transposed=True))


class TestRefused:
    @pytest.mark.parametrize(
        ("config", "said"),
        [
            ({"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA is applied here, merge the adapter into its base"),
            ({"use_dora": True}, "use_dora: True: cannot be applied here; merge the adapter into its base with peft"),
            ({"bias": "all"}, "bias: 'all': cannot be applied here"),
            ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights: 'pissa_niter_16': cannot be applied"),
            ({"target_parameters": ["experts.up"]}, r"target_parameters: \['experts.up'\]: cannot be applied"),
            ({"what_is_new": 1}, "what_is_new: 1: cannot be applied here"),
            ({"r": 0}, "r: Input should be greater than or equal to 1"),
            ({"lora_alpha": "16"}, "lora_alpha: Input should be a valid number"),
            ({"alpha_pattern": {"(": 1}}, r"'\(' is not a regular expression"),
            ({"r": 8}, f"{QUERY}: factors of shapes \\[4, 32\\] and \\[32, 4\\], expected two matrices of rank 8"),
        ],
    )
    def test_a_config_that_asks_for_something_else(self, base, adapter, config, said):
        change_json(adapter / "adapter_config.json", **config)
        with pytest.raises(UserError, match=said) as caught:
            AdaptedCheckpoint(base, adapter)
        assert str(adapter) in str(caught.value)

    def test_what_says_nothing_of_the_product_is_let_pass(self, base, adapter):
        change_json(
            adapter / "adapter_config.json", task_type="CAUSAL_LM", lora_dropout=0.1, inference_mode=True,
            use_dora=False, target_modules=["q_proj"], megatron_config=None, layer_replication=None,
            init_lora_weights="gaussian", peft_version="0.18.0", target_parameters=[], loftq_config={},
            megatron_core="megatron.core",
        )  # fmt: skip
        assert AdaptedCheckpoint(base, adapter).changes.products

    @pytest.mark.parametrize(
        ("tensors", "said"),
        [
            (factors("model.layers.9.mlp.up_proj", 48, 32), "changes model.layers.9.mlp.up_proj.weight, which"),
            (factors(QUERY, 32, 16), rf"{QUERY}.weight has the shape \[32, 32\] in the base and \[32, 16\] in the"),
            ({f"base_model.model.{QUERY}.lora_A.weight": torch.zeros(4, 32)}, "lora_A.weight: one of two factors"),
            ({f"base_model.model.{QUERY}.lora_magnitude_vector": torch.zeros(32)}, "lora_magnitude_vector, which the"),
            ({"base_model.model.lm_head.weight": torch.zeros(70, 32)}, r"lm_head.weight has the shape \[64, 32\]"),
        ],
    )
    def test_tensors_that_do_not_fit_the_base(self, base, tmp_path, tensors, said):
        with pytest.raises(UserError, match=said):
            AdaptedCheckpoint(base, make(tmp_path / "lora", tensors))

    def test_an_adapter_without_weights(self, base, adapter):
        (adapter / "adapter_model.safetensors").unlink()
        with pytest.raises(UserError, match="mine: an adapter without weights"):
            AdaptedCheckpoint(base, adapter)


class TestNamed:
    """base+adapter in recipes and commands, and an adapter alone."""

    def test_both_sides_are_paths_from_where_a_path_begins(self, base, adapter, tmp_path):
        for text in ("models/base+loras/mine", f"{base}+{adapter}", f"models/base+{adapter}"):
            named = inputs.place(text, tmp_path)
            assert inputs.parts(inputs.fetched(named)) == (base, adapter)
        folder = tmp_path / "models/base+loras/mine"
        folder.mkdir(parents=True)
        assert inputs.parts(inputs.place("models/base+loras/mine", tmp_path)) == (folder, None)

    def test_ids_of_the_hub_may_stand_on_both_sides(self, base, adapter, monkeypatch):
        there = {"owner/base": base, "owner/lora": adapter}
        monkeypatch.setattr(inputs.hub, "model_folder", lambda where, model, revision, pickles: there[model])
        named = inputs.place("owner/base@main+owner/lora", Path("/elsewhere"))
        assert inputs.parts(inputs.fetched(named)) == (base, adapter)

    @pytest.mark.parametrize("side", [0, 1])
    def test_a_side_that_is_not_there_is_named(self, base, adapter, tmp_path, side):
        sides = [str(base), str(adapter)]
        sides[side] = str(tmp_path / "nowhere")
        with pytest.raises(UserError, match=r": \S+/nowhere is no folder here; base\+adapter takes two folders"):
            inputs.fetched(inputs.place("+".join(sides), Path()))

    def test_a_model_on_the_right_is_no_adapter(self, base):
        with pytest.raises(UserError, match=r"base is no adapter, it has no adapter_config\.json; write base\+adapter"):
            inputs.fetched(inputs.place(f"{base}+{base}", Path()))

    def test_an_adapter_alone_is_applied_to_the_base_that_it_names(self, base, adapter, monkeypatch):
        change_json(adapter / "adapter_config.json", base_model_name_or_path=str(base))
        assert inputs.parts(inputs.fetched(adapter)) == (base, adapter)
        change_json(adapter / "adapter_config.json", base_model_name_or_path="owner/base", revision="v2")
        asked = []
        monkeypatch.setattr(inputs.hub, "model_folder", lambda *words: asked.append(words[1:3]) or base)
        assert inputs.parts(inputs.fetched(adapter)) == (base, adapter)
        assert asked == [("owner/base", "v2")]

    @pytest.mark.parametrize("named", [None, "/nowhere/base", 3])
    def test_an_adapter_without_its_base_is_refused_with_what_to_write(self, adapter, named):
        change_json(adapter / "adapter_config.json", base_model_name_or_path=named)
        said = rf"mine: an adapter whose base .*; write base\+adapter \(BASE\+{adapter}\)"
        with pytest.raises(UserError, match=said):
            inputs.fetched(adapter)

    def test_an_adapter_whose_base_the_hub_does_not_give(self, adapter, tmp_path, monkeypatch):
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        change_json(adapter / "adapter_config.json", base_model_name_or_path="x/y")
        with pytest.raises(UserError, match=r"write base\+adapter .*x/y: no folder here, and on the hub: x/y could"):
            inputs.fetched(adapter)

    def test_elsewhere_an_adapter_is_no_checkpoint(self, base, adapter):
        shutil.copy(base / "config.json", adapter)
        with pytest.raises(UserError, match="mine: holds an adapter and no model"):
            ParentHashes({"mine": adapter})


class TestMerged:
    def run(self, monkeypatch, capsys, tmp_path, models: dict[str, str], out: str) -> str:
        """What the command says of a linear merge by a recipe of mergekit."""
        recipe = {"merge_method": "linear", "dtype": "bfloat16",
                  "models": [{"model": m, "parameters": {"weight": w}} for m, w in models.items()]}  # fmt: skip
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        words = ["merge", "--recipe", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / out)]
        monkeypatch.setattr(sys, "argv", words)
        monkeypatch.chdir(tmp_path)  # folders of mergekit's files are relative to where the command is started
        status = merge.main()
        said = capsys.readouterr()
        assert status == 0, said.err
        return said.out

    @pytest.fixture
    def other(self, tmp_path) -> Path:
        return experts(tmp_path / "models", SHAPE, ("other",), spread=0.01)["other"]

    def test_the_result_is_that_of_a_base_into_which_it_was_merged(
        self, base, adapter, other, tmp_path, monkeypatch, capsys
    ):
        shutil.copytree(base, tmp_path / "models" / "whole")
        store(tmp_path / "models" / "whole", read(base, adapter))
        said = self.run(monkeypatch, capsys, tmp_path, {f"{base}+{adapter}": 0.25, str(other): 0.75}, "out")
        assert f"{adapter}: an adapter, applied to 2 tensor(s) of {base}" in said
        self.run(monkeypatch, capsys, tmp_path, {"models/whole": 0.25, str(other): 0.75}, "again")
        assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "again")
        assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
        card = (tmp_path / "out" / "README.md").read_text()
        assert "+mine/adapter_model.safetensors" in card
        assert "+mine/adapter_config.json" in card
        assert "# linear(base+mine, other)\n" in card
        steps, places, _ = mergekit.read_recipe(tmp_path / "out" / "mergekit_config.yml")
        assert inputs.parts(places[steps.leaves[0]]) == (base, adapter)

    def test_another_scale_is_another_merge(self, base, adapter, tmp_path):
        place = inputs.place(f"{base}+{adapter}", Path())
        found = ParentHashes({"a": place})
        identities, hashes = found.identities(), found.hashes()
        files = ["model.safetensors", "+mine/adapter_config.json", "+mine/adapter_model.safetensors"]
        assert list(hashes["a"]) == files
        change_json(adapter / "adapter_config.json", lora_alpha=60)
        found = ParentHashes({"a": place})
        assert found.identities() != identities
        assert [file for file in files if found.hashes()["a"][file] != hashes["a"][file]] == files[1:2]

    def test_a_base_that_this_kit_made_and_its_adapted_form_are_two_models(self, base, adapter, tmp_path):
        def build(out: Path) -> dict:
            shutil.copytree(base, out, dirs_exist_ok=True)
            return {}

        manifest, _ = artifact.make(tmp_path / "made", {}, build, "")
        place = inputs.place(f"{tmp_path / 'made'}+{adapter}", Path())
        found = ParentHashes({"plain": tmp_path / "made", "adapted": place})
        identities = found.identities()
        assert identities["plain"] == manifest["content"]
        assert set(identities["adapted"]) == set(found.hashes()["adapted"])
        known = manifest["files"]["model.safetensors"]["sha256"]
        assert found.hashes()["adapted"]["model.safetensors"] == f"sha256:{known}"


def test_the_product_is_what_peft_merges(base, tmp_path):
    """Against peft itself, where it is installed."""
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    targets = ["q_proj", "down_proj", "embed_tokens"]
    config = peft.LoraConfig(
        r=RANK, lora_alpha=7, target_modules=targets, rank_pattern={"q_proj": 2}, alpha_pattern={"down_proj": 5},
        use_rslora=True, modules_to_save=["lm_head"],
    )  # fmt: skip
    torch.manual_seed(7)
    wrapped = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.normal_(0, 0.1)
    wrapped.save_pretrained(tmp_path / "lora")
    again = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    merged = peft.PeftModel.from_pretrained(again, tmp_path / "lora").merge_and_unload().state_dict()
    made = adapters.load(inputs.place(f"{base}+{tmp_path / 'lora'}", Path())).open()
    assert made.tensors.keys() == merged.keys()
    for name, stored in made.tensors.items():
        rows = made.rows(name, 0, as_rows(stored.shape)[0]).reshape(stored.shape)
        if name == f"{EMBEDDING}.weight":  # peft rounds the product before the sum, see tinyr1.merge.adapters
            torch.testing.assert_close(rows, merged[name], rtol=2**-7, atol=2**-8)
        else:
            assert torch.equal(rows, merged[name]), name
    made.close()
