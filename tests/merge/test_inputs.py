"""Which files of a folder are the model, and what may stand for one: pickles, prefixes, ids of the hub."""

import json
import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub
import pytest
import torch
from checkpoints import Shape, bytes_of, change_json, experts, put_json, store
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from tinyr1.core.checkpoints import INDEX, PICKLED, PICKLED_INDEX, WHOLE, chosen_weights
from tinyr1.core.errors import UserError
from tinyr1.core.recipe import parse
from tinyr1.merge import __main__ as merge
from tinyr1.merge import checkpoint, inputs, pickled, tensor_names
from tinyr1.merge.method import as_rows
from tinyr1.merge.reader import DTYPES_STORED, Checkpoint

SMALL = Shape(layers=1, hidden=16, intermediate=24, vocabulary=20)
NORM = "model.norm.weight"


@pytest.fixture
def three(tmp_path) -> dict[str, Path]:
    return experts(tmp_path / "in", SMALL)


@pytest.fixture
def one(three) -> Path:
    return three["science"]


def command(monkeypatch, capsys, folders: dict[str, Path], out: Path, *more: str) -> tuple[int, str, str]:
    """(exit status, standard output, standard error) of the released merge of three models."""
    words = [word for name, folder in folders.items() for word in (f"--{name}", str(folder))]
    monkeypatch.setattr(sys, "argv", ["merge", *words, "--out", str(out), *more])
    return merge.main(), *capsys.readouterr()


def whole(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    shape = checkpoint.tensors[name].shape
    return checkpoint.rows(name, 0, as_rows(shape)[0]).reshape(shape)


def contents(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors that a merge reads."""
    checkpoint = Checkpoint(folder).open()
    found = {name: whole(checkpoint, name).clone() for name in checkpoint.tensors}
    checkpoint.close()
    return found


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) and a[n].dtype == b[n].dtype for n in a)


class TestChoice:
    """The first of model.safetensors, its index, pytorch_model.bin and its index, as transformers chooses."""

    @pytest.fixture
    def all_kinds(self, one) -> Path:
        """A folder with weights of every kind, each filled with another number."""
        first, *others = load_file(one / WHOLE)
        filled = [{name: torch.full((2,), float(number)) for name in (first, *others)} for number in range(5)]
        save_file(filled[1], one / WHOLE)
        save_file({first: filled[2][first]}, one / "model-1.safetensors")
        save_file({name: filled[2][name] for name in others}, one / "model-2.safetensors")
        torch.save(filled[3], one / PICKLED)
        torch.save(filled[4], one / "pytorch_model-1.bin")
        weight_map = dict.fromkeys(others, "model-2.safetensors") | {first: "model-1.safetensors"}
        put_json(one / INDEX, {"metadata": {}, "weight_map": weight_map})
        weight_map = dict.fromkeys((first, *others), "pytorch_model-1.bin")
        put_json(one / PICKLED_INDEX, {"metadata": {}, "weight_map": weight_map})
        return one

    def test_the_order_is_that_of_transformers(self, all_kinds):
        from transformers import modeling_utils

        for number, name in enumerate((WHOLE, INDEX, PICKLED, PICKLED_INDEX), 1):
            files, index = modeling_utils._get_resolved_checkpoint_files(all_kinds, None, None, None, None, False)
            assert [str(file) for file in chosen_weights(all_kinds).files] == files, name
            assert (index is None) == (chosen_weights(all_kinds).weight_map is None)
            assert {float(t[0]) for t in contents(all_kinds).values()} == {number}
            (all_kinds / name).unlink()
        with pytest.raises(UserError, match="no weights: neither model.safetensors nor pytorch_model.bin nor an index"):
            chosen_weights(all_kinds)

    def test_a_file_that_the_config_names_comes_before_all(self, three, all_kinds, tmp_path, monkeypatch, capsys):
        (all_kinds / WHOLE).rename(all_kinds / "mine.safetensors")
        change_json(all_kinds / "config.json", transformers_weights="mine.safetensors")
        assert chosen_weights(all_kinds).files == [all_kinds / "mine.safetensors"]
        shutil.copy(three["math"] / WHOLE, all_kinds / "mine.safetensors")
        models = {"math": three["math"], "science": three["math"], "code": all_kinds}
        assert command(monkeypatch, capsys, models, tmp_path / "out")[0] == 0
        assert "transformers_weights" not in json.loads((tmp_path / "out" / "config.json").read_text())
        for bad in ("gone.safetensors", "../math/model.safetensors", 3):
            change_json(all_kinds / "config.json", transformers_weights=bad)
            with pytest.raises(UserError, match=r"config\.json: .*names"):
                chosen_weights(all_kinds)

    def test_an_older_index_beside_a_whole_file_is_not_read_and_said(self, three, one, tmp_path, monkeypatch, capsys):
        wanted = contents(one)
        put_json(one / INDEX, {"weight_map": {NORM: "model-00001-of-00002.safetensors"}})  # a shard that was deleted
        assert same(contents(one), wanted)
        status, said, _ = command(monkeypatch, capsys, three, tmp_path / "out")
        assert status == 0
        assert said.count("are both there; model.safetensors is the model, as transformers chooses") == 1
        assert f"{one}: {WHOLE} and {INDEX}" in said

    def test_files_that_nothing_names_are_no_part_of_the_model(self, three, tmp_path, monkeypatch, capsys):
        assert command(monkeypatch, capsys, three, tmp_path / "out")[0] == 0
        for folder in three.values():
            tensors = load_file(folder / WHOLE)
            save_file({f"tok.{n}": t for n, t in tensors.items()}, folder / "consolidated.safetensors")
            save_file({"lora_A": torch.zeros(4, 4)}, folder / "adapter_model.safetensors")
            put_json(folder / "adapter_config.json", {"peft_type": "LORA", "r": 4})
        assert command(monkeypatch, capsys, three, tmp_path / "again")[0] == 0
        assert bytes_of(tmp_path / "again") == bytes_of(tmp_path / "out")

    def test_a_folder_that_has_only_other_files_says_which(self, one):
        (one / WHOLE).rename(one / "consolidated.safetensors")
        with pytest.raises(UserError, match=r"science: no weights.*; consolidated\.safetensors: no index names such"):
            Checkpoint(one)

    def test_a_numbered_set_without_an_index_is_taken_if_it_is_complete(self, tmp_path):
        folder = experts(tmp_path, Shape(layers=1, shards=3), ("a",))["a"]
        wanted = contents(folder)
        (folder / INDEX).unlink()
        assert same(contents(folder), wanted)
        assert Checkpoint(folder).notices == [
            f"{folder}: no index; model-00001-of-00003.safetensors to model-00003-of-00003.safetensors are the model "
            "(transformers does not load it like this)"
        ]
        shutil.copy(folder / "model-00001-of-00003.safetensors", folder / "model-00001-of-00002.safetensors")
        with pytest.raises(UserError, match=r"safetensors files of several sets \(of 00002, of 00003\)"):
            Checkpoint(folder)
        (folder / "model-00001-of-00002.safetensors").unlink()
        (folder / "model-00002-of-00003.safetensors").unlink()
        with pytest.raises(UserError, match=r"of 00003 numbered files these are missing: model-00002-of-00003\."):
            Checkpoint(folder)


class TestIndex:
    def test_it_may_name_files_in_a_subfolder(self, three, one, tmp_path, monkeypatch, capsys):
        assert command(monkeypatch, capsys, three, tmp_path / "out")[0] == 0
        names = list(load_file(one / WHOLE))
        (one / "weights").mkdir()
        (one / WHOLE).rename(one / "weights" / WHOLE)
        put_json(one / INDEX, {"weight_map": dict.fromkeys(names, f"weights/{WHOLE}")})
        assert command(monkeypatch, capsys, three, tmp_path / "again")[0] == 0
        assert bytes_of(tmp_path / "again") == bytes_of(tmp_path / "out")
        assert f"weights/{WHOLE}" in (tmp_path / "again" / "README.md").read_text()

    @pytest.mark.parametrize("file", ["../science/model.safetensors", "/etc/passwd", "a/../../b.safetensors", "", 3])
    def test_a_file_outside_of_the_folder_is_refused(self, one, file):
        (one / WHOLE).rename(one / "model-1.safetensors")
        put_json(one / INDEX, {"weight_map": {NORM: file}})
        with pytest.raises(UserError, match=f"{INDEX}: names {file!r}, which is no file inside of"):
            Checkpoint(one)

    def test_a_tensor_in_two_files_is_read_from_the_one_that_the_index_names(self, tmp_path):
        folder = experts(tmp_path, Shape(layers=1, shards=2), ("a",))["a"]
        wanted = contents(folder)
        files = sorted(folder.glob("*.safetensors"))
        parts = [load_file(file) for file in files]
        (shared,) = list(parts[0])[:1]
        save_file(parts[1] | {shared: torch.zeros_like(parts[0][shared])}, files[1])
        assert same(contents(folder), wanted)


class TestQuantised:
    KINDS = {
        "gptq": {"bits": 4, "quant_method": "gptq"}, "awq": {"quant_method": "awq"},
        "bitsandbytes": {"load_in_4bit": True}, "compressed-tensors": {"quant_method": "compressed-tensors"},
        "fp8": {"quant_method": "fp8"},
    }  # fmt: skip

    @pytest.mark.parametrize("method", KINDS)
    def test_it_is_refused_by_its_name_also_in_a_dry_run(self, three, tmp_path, monkeypatch, capsys, method):
        for folder in three.values():
            change_json(folder / "config.json", quantization_config=self.KINDS[method])
        for more in ((), ("--dry-run",)):
            status, _, said = command(monkeypatch, capsys, three, tmp_path / "out", *more)
            assert status == 2
            assert f"the weights are quantised ({method}, says config.json); only full-precision" in said

    def test_a_nested_config_and_older_files_tell_too(self, one):
        put_json(one / "quantize_config.json", {"bits": 4})
        with pytest.raises(UserError, match=r"quantised \(gptq, says quantize_config.json\)"):
            Checkpoint(one)
        change_json(one / "config.json", text_config={"quantization_config": self.KINDS["awq"]})
        with pytest.raises(UserError, match=r"quantised \(awq, says config.json\)"):
            Checkpoint(one)

    def test_an_empty_entry_says_nothing(self, one):
        change_json(one / "config.json", quantization_config=None)
        assert Checkpoint(one).tensors


class TestNames:
    @pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
    def test_prefixes_of_wrappers_are_removed_and_said(self, three, one, tmp_path, monkeypatch, capsys, prefix):
        assert command(monkeypatch, capsys, three, tmp_path / "out")[0] == 0
        tensors = load_file(one / WHOLE)
        store(one, {f"{prefix}{n}": t for n, t in tensors.items()})
        status, said, _ = command(monkeypatch, capsys, three, tmp_path / "again")
        assert status == 0
        assert bytes_of(tmp_path / "again") == bytes_of(tmp_path / "out")
        assert f"{one}: wrappers' prefixes are removed from {len(tensors)} names ({prefix}" in said

    def test_a_module_inside_of_a_model_keeps_its_name(self):
        found = tensor_names.of_model("x", ["module.a.weight", "b.module.weight"], None)
        assert found.stored == {"module.a.weight": "module.a.weight", "b.module.weight": "b.module.weight"}
        inner = tensor_names.of_model("x", ["model.layers._orig_mod.0.weight", "b"], None).stored
        assert inner == {"model.layers.0.weight": "model.layers._orig_mod.0.weight", "b": "b"}

    def test_published_files_of_gpt2_have_the_names_of_those_that_are_saved_later(self):
        published = ["h.0.ln_1.weight", "wte.weight", "lm_head.weight", "h.0.attn.bias"]
        found = tensor_names.of_model("x", published, "gpt2")
        assert found.stored == {
            "transformer.h.0.ln_1.weight": "h.0.ln_1.weight", "transformer.wte.weight": "wte.weight",
            "lm_head.weight": "lm_head.weight",
        }  # fmt: skip
        assert "x: its names get 'transformer.' before them" in found.notices[0]
        saved = tensor_names.of_model("x", found.stored, "gpt2")
        assert list(saved.stored) == list(found.stored)
        assert saved.notices == []
        assert tensor_names.of_model("x", ["h.0.ln_1.weight"], "llama").stored == {"h.0.ln_1.weight": "h.0.ln_1.weight"}

    def test_two_names_for_one_tensor_are_refused(self):
        with pytest.raises(UserError, match=r"x: a\.weight and _orig_mod\.a\.weight are one tensor of the model"):
            tensor_names.of_model("x", ["a.weight", "_orig_mod.a.weight"], None)

    @pytest.mark.parametrize("owners", [("science",), ("math", "science", "code")])
    def test_what_transformers_computes_anew_is_left_out(self, three, tmp_path, monkeypatch, capsys, owners):
        assert command(monkeypatch, capsys, three, tmp_path / "out", "--dtype", "bfloat16")[0] == 0
        frequencies = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.rand(4) for i in range(2)}
        for name in owners:
            store(three[name], load_file(three[name] / WHOLE) | frequencies)
        status, said, _ = command(monkeypatch, capsys, three, tmp_path / "again", "--dtype", "bfloat16")
        assert status == 0
        assert bytes_of(tmp_path / "again") == bytes_of(tmp_path / "out")
        assert said.count("computed anew on loading, neither merged nor written") == len(owners)

    @pytest.mark.parametrize(
        ("model_type", "name", "kept"),
        [
            ("gpt2", "h.0.attn.bias", False), ("gpt2", "h.0.attn.c_attn.bias", True),
            ("gpt_neox", "gpt_neox.layers.0.attention.masked_bias", False), ("olmo", "layers.0.attention.bias", True),
            ("llava", "vision_tower.embeddings.position_ids", False), ("qwen2", "rotary_emb.inv_freq", False),
        ],
    )  # fmt: skip
    def test_only_buffers_are_left_out(self, model_type, name, kept):
        assert bool(tensor_names.of_model("x", [name], model_type).stored) == kept


class TestPredictionLayers:
    """Layers for multi-token prediction, which transformers drops on loading."""

    def store(self, folder: Path, name: str) -> None:
        """Another layer under another name: the copy of all that belongs to the only layer of the model."""
        tensors = load_file(folder / WHOLE)
        layer = {n: t.clone() for n, t in tensors.items() if ".layers.0." in n}
        store(folder, tensors | {n.replace("model.layers.0", name): t for n, t in layer.items()})

    @pytest.mark.parametrize("name", ["mtp.layers.0", "model.mtp.layers.0", "model.layers.1", "model.mtp_layers.0"])
    @pytest.mark.parametrize("owners", [("code",), ("math", "science")])
    def test_what_not_all_have_is_left_out_and_said(self, three, tmp_path, monkeypatch, capsys, name, owners):
        assert command(monkeypatch, capsys, three, tmp_path / "out")[0] == 0
        for owner in owners:
            self.store(three[owner], name)
            change_json(three[owner] / "config.json", num_nextn_predict_layers=1)
        status, said, _ = command(monkeypatch, capsys, three, tmp_path / "again")
        assert status == 0
        assert bytes_of(tmp_path / "again") == bytes_of(tmp_path / "out")
        assert "layers for multi-token prediction" in said
        assert all(owner in said.split("stored by")[1].splitlines()[0] for owner in owners)
        assert json.loads((tmp_path / "again" / "config.json").read_text()).get("num_nextn_predict_layers", 0) == 0

    def test_what_all_have_is_merged(self, three, tmp_path, monkeypatch, capsys):
        for folder in three.values():
            self.store(folder, "mtp.layers.0")
            change_json(folder / "config.json", num_nextn_predict_layers=1)
        status, said, _ = command(monkeypatch, capsys, three, tmp_path / "out")
        assert status == 0
        assert "multi-token" not in said
        assert any(name.startswith("mtp.") for name in load_file(tmp_path / "out" / WHOLE))
        assert json.loads((tmp_path / "out" / "config.json").read_text())["num_nextn_predict_layers"] == 1

    def test_where_layers_are_counted_none_is_merged(self, three, tmp_path):
        recipe = parse({"method": "slerp", "base": "math", "other": "code", "t": [0, 1]}, "test")
        options = checkpoint.options_from({"device": "cpu"})
        for folder in three.values():
            self.store(folder, "model.layers.1")
            change_json(folder / "config.json", num_nextn_predict_layers=1)
        (tmp_path / "out").mkdir()
        checkpoint.merge_checkpoints(recipe, three, tmp_path / "out", options, "merge")
        assert not any(".layers.1." in name for name in load_file(tmp_path / "out" / WHOLE))
        assert json.loads((tmp_path / "out" / "config.json").read_text())["num_nextn_predict_layers"] == 0

    def test_a_layer_that_one_model_lacks_is_still_refused(self, three, tmp_path, monkeypatch, capsys):
        tensors = load_file(three["science"] / WHOLE)
        store(three["science"], {name: t for name, t in tensors.items() if ".layers.0." not in name})
        status, _, error = command(monkeypatch, capsys, three, tmp_path / "out")
        assert status == 2
        assert "only code has them" in error


class TestPickles:
    def pickled(self, folder: Path, parts: int = 1) -> None:
        """The weights of a folder as pytorch_model.bin, or as shards with an index."""
        tensors = load_file(folder / WHOLE)
        (folder / WHOLE).unlink()
        files = [PICKLED] if parts == 1 else [f"pytorch_model-{i}.bin" for i in range(parts)]
        for i, file in enumerate(files):
            torch.save(dict(list(tensors.items())[i::parts]), folder / file)
        if parts > 1:
            weight_map = {name: files[i % parts] for i, name in enumerate(tensors)}
            put_json(folder / PICKLED_INDEX, {"weight_map": weight_map})

    @pytest.mark.parametrize("parts", [1, 3])
    def test_they_merge_as_safetensors_do(self, three, one, tmp_path, monkeypatch, capsys, parts):
        assert command(monkeypatch, capsys, three, tmp_path / "out")[0] == 0
        self.pickled(one, parts)
        assert command(monkeypatch, capsys, three, tmp_path / "again")[0] == 0
        assert bytes_of(tmp_path / "again") == bytes_of(tmp_path / "out")

    def test_every_dtype_and_shape_and_views_of_one_storage(self, tmp_path):
        shared = torch.arange(40, dtype=torch.float32)
        tensors = {f"{d}.{s}": (torch.rand(s) * 9).to(d) for d in DTYPES_STORED.values() for s in ((), (3, 4), (0, 4))}
        tensors |= {"view": shared[8:20].view(3, 4), "tied": shared, "parameter": torch.nn.Parameter(torch.rand(5))}
        put_json(tmp_path / "config.json", {})
        torch.save(tensors, tmp_path / PICKLED)
        assert same(contents(tmp_path), {name: tensor.detach() for name, tensor in tensors.items()})

    def test_no_byte_of_a_weight_is_read_to_find_it(self, one):
        """The places come from the archive's pickle: a loader that read the storages would allocate them."""
        self.pickled(one)
        stored = Checkpoint(one).tensors[NORM]
        data = stored.file.read_bytes()[stored.begin : stored.begin + stored.bytes]
        assert torch.equal(torch.frombuffer(bytearray(data), dtype=stored.dtype), contents(one)[NORM])

    def test_code_is_not_run(self, one):
        class Mark:
            def __reduce__(self):
                return (Path.touch, (one / "ran",))

        self.pickled(one)
        torch.save({"x": torch.zeros(2), "y": Mark()}, one / PICKLED)
        with pytest.raises(UserError, match=r"pytorch_model\.bin: holds more than tensors, and loading that could run"):
            Checkpoint(one)
        assert not (one / "ran").exists()

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ([torch.zeros(2)], "holds a list, expected tensors by name"),
            ({"state_dict": {"x": torch.zeros(2)}}, "'state_dict' is a dict, expected tensors by name"),
            ({"x": torch.zeros(2, dtype=torch.complex64)}, r"x is stored as torch.strided torch.complex64; dequantize"),
            ({"x": torch.zeros(3, 4).T}, r"x is stored with its dimensions exchanged; save it with .contiguous\(\)"),
        ],
    )
    def test_other_contents_are_named(self, tmp_path, content, said):
        torch.save(content, tmp_path / PICKLED)
        with pytest.raises(UserError, match=f"pytorch_model.bin: {said}"):
            pickled.places(tmp_path / PICKLED, DTYPES_STORED.values())

    def test_an_old_format_is_named(self, tmp_path):
        torch.save({"x": torch.zeros(2)}, tmp_path / PICKLED, _use_new_zipfile_serialization=False)
        with pytest.raises(UserError, match="no archive of torch.save .* written by PyTorch before 1.6"):
            pickled.places(tmp_path / PICKLED, DTYPES_STORED.values())

    def test_a_damaged_file_is_an_error_or_reads_as_before(self, one):
        """Cut anywhere it is an error; a changed byte outside of the weights is one, or changes no place."""
        self.pickled(one)
        file = one / PICKLED
        data = file.read_bytes()
        wanted = pickled.places(file, DTYPES_STORED.values())
        for length in range(0, len(data), len(data) // 30):
            file.write_bytes(data[:length])
            with pytest.raises(UserError, match="pytorch_model.bin: "):
                pickled.places(file, DTYPES_STORED.values())
        start = data.index(b"data.pkl")
        errors = 0
        for at in range(start, start + 1500, 10):
            file.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
            try:
                assert pickled.places(file, DTYPES_STORED.values()) == wanted
            except UserError:
                errors += 1
        assert errors > 50


class TestPlaces:
    def test_a_folder_of_the_very_name_comes_first(self, tmp_path):
        experts(tmp_path, SMALL, ("b+lora v1", "b", "mödel – 模型"))
        for name in ("b+lora v1", "mödel – 模型"):
            assert inputs.fetched(inputs.place(name, tmp_path)) == tmp_path / name
            assert inputs.parts(tmp_path / name) == (tmp_path / name, None)

    def test_a_tilde_is_the_home_folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        assert inputs.place("~/models/x", Path("/elsewhere")) == tmp_path / "models" / "x"

    def test_paths_are_relative_to_the_folder_that_is_given(self, tmp_path):
        (tmp_path / "x").mkdir()
        assert inputs.place("x", tmp_path) == tmp_path / "x"
        assert inputs.place("../x/y", tmp_path) == tmp_path / "../x/y"  # not there: named by the reader
        assert inputs.fetched(inputs.place("x/y/z", tmp_path)) == tmp_path / "x/y/z"

    @pytest.mark.parametrize(("text", "revision"), [("owner/name", None), ("owner/na.me@refs/pr/3", "refs/pr/3")])
    def test_a_hub_id_is_fetched_where_no_such_folder_is(self, tmp_path, monkeypatch, text, revision):
        asked = []
        monkeypatch.setattr(inputs.hub, "model_folder", lambda *words: asked.append(words) or tmp_path)
        assert inputs.fetched(inputs.place(text, tmp_path)) == tmp_path
        assert [words[1:3] for words in asked] == [(text.partition("@")[0], revision)]

    def test_a_model_in_the_cache_of_the_hub_needs_no_network(self, three, one, tmp_path, monkeypatch, capsys):
        """Its snapshot consists of links to files of other names."""
        commit = "0123456789abcdef0123456789abcdef01234567"
        kept = tmp_path / "cache" / "models--owner--name"
        (kept / "refs").mkdir(parents=True)
        (kept / "refs" / "main").write_text(commit)
        (kept / "snapshots" / commit).mkdir(parents=True)
        (kept / "blobs").mkdir()
        for i, file in enumerate(sorted(one.iterdir())):
            shutil.copy(file, kept / "blobs" / f"{i:040x}")
            (kept / "snapshots" / commit / file.name).symlink_to(Path("../../blobs") / f"{i:040x}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert command(monkeypatch, capsys, three, tmp_path / "out")[0] == 0
        for text in ("owner/name", f"owner/name@{commit}"):
            out = tmp_path / text.replace("/", "-")
            status, _, said = command(monkeypatch, capsys, three | {"science": Path(text)}, out)
            assert status == 0, said
            assert bytes_of(out) == bytes_of(tmp_path / "out")
            assert "owner/name" in (out / "README.md").read_text()

    @pytest.mark.parametrize("published", [(WHOLE, PICKLED), (PICKLED,)])
    def test_pickles_are_fetched_where_the_hub_has_nothing_else(self, tmp_path, monkeypatch, published):
        def download(model, revision, allow_patterns):
            for name in published:
                if any(fnmatch(name, pattern) for pattern in allow_patterns):
                    (tmp_path / name).touch()
            return str(tmp_path)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        inputs.fetched(Path("owner/name"))
        assert sorted(file.name for file in tmp_path.iterdir()) == [published[0]]

    def test_offline_it_is_one_sentence(self, three, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        for more in ((), ("--dry-run",)):
            models = three | {"code": Path("owner/name")}
            status, _, said = command(monkeypatch, capsys, models, tmp_path / "out", *more)
            assert status == 2
            assert said.startswith("error: owner/name: no folder here, and on the hub: owner/name could not be fetched")
            assert len(said.splitlines()) == 1
