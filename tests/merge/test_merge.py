"""Checkpoints in, checkpoint out: one pass, any number of threads, what the result is good for, the command."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from blake3 import blake3
from checkpoints import Shape, bytes_of, change_json, experts, put_json, store
from safetensors.torch import load_file

from tinyr1.core import artifact, jsonl, recipe
from tinyr1.core.errors import UserError
from tinyr1.core.recipe import Recipe, parse
from tinyr1.merge import __main__ as merge
from tinyr1.merge import checkpoint, engine, mergekit, method
from tinyr1.merge.card import COLUMNS
from tinyr1.merge.engine import MergeOptions
from tinyr1.merge.reader import Checkpoint

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
FUSION = {"method": "fusion", "base": "code", "other": {"method": "fusion", "base": "science", "other": "math"}}
LINEAR = {"method": "linear", "models": [{"model": "math", "weight": 0.3}, {"model": "science", "weight": 0.9}]}
TIES = {
    "method": "ties", "base": "code",
    "models": [{"model": "science", "density": 0.5}, {"model": "math", "weight": 0.5, "density": 0.3}],
}  # fmt: skip
# name: a recipe of two steps
TWO_STEPS = {
    "fusion": FUSION,
    "fusion of a soup": FUSION | {"other": LINEAR},
    "a soup of a fusion": LINEAR | {"models": [{"model": FUSION["other"], "weight": 0.3}, {"model": "code"}]},
    "slerp of dare": {"method": "slerp", "t": 0.4, "base": "code", "other": TIES | {"method": "dare_ties", "seed": 3}},
    "ties with a fused base": TIES | {"base": FUSION["other"], "models": [{"model": "code", "density": 0.4}]},
}  # fmt: skip
CHAIN = parse(FUSION, "test")


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> dict[str, Path]:
    return experts(tmp_path_factory.mktemp("three"), Shape(extras=True))


def merged(recipe: Recipe | dict, folders: dict, out: Path, **options) -> dict[str, bytes]:
    """The weight files of a merge into a new folder."""
    out.mkdir()
    recipe = parse(recipe, "test") if isinstance(recipe, dict) else recipe
    checkpoint.merge_checkpoints(recipe, folders, out, MergeOptions(**options), "test")
    return bytes_of(out)


def converted(folder: Path, to: Path, dtype: torch.dtype) -> Path:
    """The checkpoint with its floating-point tensors in another dtype."""
    shutil.copytree(folder, to)
    tensors = load_file(folder / "model.safetensors")
    store(to, {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()})
    return to


def in_two(data: dict) -> tuple[dict, dict]:
    """(inner step, outer step with the name `inner` in its place) of a recipe of two steps."""
    outer = json.loads(json.dumps(data))
    for holder, key in ((outer, "base"), (outer, "other"), *((m, "model") for m in outer.get("models", ()))):
        if isinstance(holder.get(key), dict):
            inner, holder[key] = holder[key], "inner"
            return inner, outer
    raise AssertionError("no inner step")


class TestOnePass:
    @pytest.mark.parametrize("data", TWO_STEPS.values(), ids=TWO_STEPS)
    @pytest.mark.parametrize(
        ("stored", "options"),
        [
            (BF16, {}), (FP32, {}), (FP16, {}), (BF16, {"reading": "released"}), (FP32, {"reading": "released"}),
            (BF16, {"reading": "paper"}), (BF16, {"dtype": FP32, "out_dtype": BF16}), (FP32, {"dtype": BF16}),
            (BF16, {"dtype": FP32, "reading": "released"}),
        ],
    )  # fmt: skip
    def test_a_chain_has_the_bytes_of_two_merges(self, tmp_path, data, stored, options):
        folders = experts(tmp_path / "in", Shape(layers=1, dtype=stored, extras=True))
        inner, outer = in_two(data)
        once = merged(data, folders, tmp_path / "once", **options)
        final = options.get("out_dtype") or options.get("dtype")
        if final not in (None, stored):  # the second merge wants one dtype: that of what the first wrote
            folders = {n: converted(folder, tmp_path / "converted" / n, final) for n, folder in folders.items()}
        merged(inner, folders, tmp_path / "first", **options)
        assert once == merged(outer, {**folders, "inner": tmp_path / "first"}, tmp_path / "second", **options)

    def test_a_step_that_is_computed_again_for_each_pass_gives_the_same_bytes(self, three, tmp_path, monkeypatch):
        kept = merged(FUSION, three, tmp_path / "kept")
        monkeypatch.setattr(engine, "KEPT", 0)
        assert merged(FUSION, three, tmp_path / "again") == kept

    def test_an_output_dtype_alone_rounds_between_steps_and_widens_at_the_end(self, three, tmp_path):
        plain = merged(FUSION, three, tmp_path / "plain")
        wide = merged(FUSION, three, tmp_path / "wide", out_dtype=FP32)
        assert plain.keys() == wide.keys()
        narrow, wide = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "wide"))
        for name, tensor in narrow.items():
            assert wide[name].dtype == (FP32 if tensor.is_floating_point() else tensor.dtype)
            assert torch.equal(wide[name], tensor.to(wide[name].dtype)), name


@pytest.fixture(scope="module")
def plain(three, tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """What every recipe gives on one thread with large blocks."""
    folder = tmp_path_factory.mktemp("plain")
    return {n: merged(r, three, folder / n, threads=1) for n, r in {**TWO_STEPS, "ties": TIES}.items()}


class TestSameBytes:
    @pytest.mark.parametrize("data", [*TWO_STEPS, "ties"])
    @pytest.mark.parametrize("size", [method.BLOCK, 250])
    def test_threads_change_nothing(self, three, plain, tmp_path, monkeypatch, data, size):
        """With blocks of 250 entries, 7 rows or 5, threads share a matrix; with large blocks each has its own."""
        monkeypatch.setattr(method, "BLOCK", size)
        step = TIES if data == "ties" else TWO_STEPS[data]
        one, two, four = (merged(step, three, tmp_path / str(n), threads=n) for n in (1, 2, 4))
        assert one == two == four
        if "slerp" not in data:  # its sums over the whole tensor are taken block by block
            assert one == plain[data]

    @pytest.mark.parametrize("reading", ["released", "paper"])
    def test_readings_of_fusion(self, three, tmp_path, monkeypatch, reading):
        whole = merged(FUSION, three, tmp_path / "whole", reading=reading, threads=1)
        monkeypatch.setattr(method, "BLOCK", 300)
        one, four = (merged(FUSION, three, tmp_path / str(n), reading=reading, threads=n) for n in (1, 4))
        assert one == four
        if reading == "released":
            assert one == whole

    def test_shards_of_the_inputs_change_nothing(self, three, plain, tmp_path):
        folders = experts(tmp_path / "in", Shape(extras=True, shards=3))
        assert merged(FUSION, folders, tmp_path / "out") == plain["fusion"]

    def test_shards_of_the_output_hold_the_same_tensors(self, three, plain, tmp_path):
        merged(FUSION, three, tmp_path / "out", shard_bytes=10_000)
        found = {}
        for file in (tmp_path / "out").glob("*.safetensors"):
            found |= load_file(file)
        (tmp_path / "whole.safetensors").write_bytes(plain["fusion"]["model.safetensors"])
        whole = load_file(tmp_path / "whole.safetensors")
        assert found.keys() == whole.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in whole.items())

    def test_special_tensors_come_through(self, three, tmp_path):
        merged(FUSION, three, tmp_path / "out")
        made, base = (load_file(f / "model.safetensors") for f in (tmp_path / "out", three["code"]))
        assert made.keys() == base.keys()
        for name in ("position_ids", "mask", "empty", "empty.rows", "empty.ids"):
            assert torch.equal(made[name], base[name]), name
            assert made[name].dtype == base[name].dtype
        assert made["scale"].shape == ()

    def test_a_model_merged_with_itself_is_itself(self, three, tmp_path):
        merged({"method": "fusion", "base": "math", "other": "math"}, three, tmp_path / "out")
        made, own = (load_file(f / "model.safetensors") for f in (tmp_path / "out", three["math"]))
        assert all(torch.equal(made[n], t) for n, t in own.items())


class TestResult:
    @pytest.mark.parametrize("architecture", ["qwen2", "llama"])
    @pytest.mark.parametrize("tied", [False, True])
    def test_transformers_loads_it_and_generates(self, tmp_path, architecture, tied):
        from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

        folders = experts(tmp_path / "in", Shape(architecture=architecture, tied=tied, stores_head=False))
        merged(FUSION, folders, out := tmp_path / "out", shard_bytes=20_000)
        model, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert model.dtype == BF16
        state = {n: t for f in out.glob("*.safetensors") for n, t in load_file(f).items()}
        assert all(torch.equal(model.state_dict()[n], t) for n, t in state.items())
        tokenizer = PreTrainedTokenizerFast.from_pretrained(out)
        tokens = tokenizer("so we have the answer", return_tensors="pt")
        made = model.generate(**tokens, max_new_tokens=4, do_sample=False, eos_token_id=None)
        assert made.shape == (1, 5 + 4)

    @pytest.mark.parametrize("architecture", ["qwen2", "llama"])
    def test_llama_cpp_knows_every_tensor(self, tmp_path, architecture):
        from gguf import MODEL_ARCH, get_tensor_name_map

        shape = Shape(architecture=architecture)
        merged(FUSION, experts(tmp_path / "in", shape), tmp_path / "out")
        known = get_tensor_name_map(getattr(MODEL_ARCH, architecture.upper()), shape.layers)
        names = Checkpoint(tmp_path / "out").tensors
        assert len(names) > 20
        assert not [n for n in names if known.get_name(n, try_suffixes=(".weight", ".bias")) is None]

    def test_config_has_the_dtype_of_the_result(self, three, tmp_path):
        merged(FUSION, three, tmp_path / "a", dtype=FP32)
        merged(FUSION, three, tmp_path / "b", dtype=FP32, out_dtype=FP16)
        merged(FUSION, three, tmp_path / "c")
        read = [json.loads((tmp_path / n / "config.json").read_text())["torch_dtype"] for n in "abc"]
        assert read == ["float32", "float16", "bfloat16"]

    def test_statistics_have_a_row_for_every_tensor_and_step(self, three, tmp_path):
        merged(FUSION, three, tmp_path / "out")
        rows = jsonl.read(tmp_path / "out" / checkpoint.STATISTICS)
        tensors = load_file(three["code"] / "model.safetensors")
        names = {n for n, t in tensors.items() if t.is_floating_point() and t.numel()}
        steps = [("math", "science"), ("math & science", "code")]
        inner = [r for r in rows if r["other"] == "math"]
        assert {(r["tensor"], r["base"]) for r in inner} == {(n, "science") for n in names}
        assert len(rows) == 2 * len(names)
        assert {r["base"] for r in rows} == {base for _, base in steps}
        for row in inner:
            base, other = (load_file(three[n] / "model.safetensors")[row["tensor"]] for n in ("science", "math"))
            assert row["entries"] == base.numel()
            assert row["differing"] == int((base != other).sum())

    def test_the_card_names_recipe_parents_and_tensors(self, three, tmp_path):
        merged(FUSION, three, tmp_path / "out", iqr_multiplier=1.25)
        card = (tmp_path / "out" / "README.md").read_text()
        assert card.startswith("---\n")
        assert "# (math & science) & code" in card
        assert "| (math & science) & code | fusion | reading exact, λ 1.25 |" in card
        for name, folder in three.items():
            digest = blake3((folder / "model.safetensors").read_bytes()).hexdigest()
            assert f"| {name} | model.safetensors | blake3:{digest} |" in card
        rows = jsonl.read(tmp_path / "out" / checkpoint.STATISTICS)
        lines = [line for line in card.splitlines() if line.startswith(("| model.", "| lm_head"))]
        assert len(lines) == len(rows) - 2  # `scale`, twice, starts with neither
        assert all(line.count(" | ") == len(COLUMNS) - 1 for line in lines)

    def test_the_mergekit_file_reads_back(self, three, tmp_path):
        merged(FUSION, three, tmp_path / "out", dtype=FP32, out_dtype=BF16)
        steps, folders, settings = mergekit.read_recipe(tmp_path / "out" / checkpoint.MERGEKIT_FILE)
        assert recipe.describe(steps) == recipe.describe(CHAIN).replace("math", str(three["math"])).replace(
            "science", str(three["science"])).replace("& code", f"& {three['code']}")  # fmt: skip
        assert set(folders.values()) == set(three.values())
        assert settings == {"dtype": "float32", "out_dtype": "bfloat16"}


# --- the command --------------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command; returns (exit status, what it printed, its errors)."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["merge", *map(str, words)])
        capsys.readouterr()
        return merge.main(), *capsys.readouterr()

    return run


@pytest.fixture
def given(three) -> list:
    return [word for name, folder in three.items() for word in (f"--{name}", folder)]


class TestCommand:
    def test_three_experts(self, three, given, command, tmp_path):
        code, said, _ = command(*given, "--out", tmp_path / "made" / "out")
        assert code == 0
        assert said.startswith("merged in ")
        assert said.endswith(f"{tmp_path / 'made' / 'out'} ((math & science) & code)\n")
        assert bytes_of(tmp_path / "made" / "out") == merged(FUSION, three, tmp_path / "same")
        assert [p.name for p in (tmp_path / "made").iterdir()] == ["out"]

    @pytest.mark.parametrize("reading", ["released", "paper"])
    def test_reading_and_dtypes(self, three, given, command, tmp_path, reading):
        settings = ("--reading", reading, "--iqr-multiplier", "0.5", "--dtype", "float32", "--out-dtype", "float16")
        assert command(*given, "--out", tmp_path / "out", *settings)[0] == 0
        options = {"reading": reading, "iqr_multiplier": 0.5, "dtype": FP32, "out_dtype": FP16}
        assert bytes_of(tmp_path / "out") == merged(FUSION, three, tmp_path / "same", **options)

    def test_a_recipe_file_and_the_command_line_wins(self, three, command, tmp_path):
        put_json(tmp_path / "recipe.yaml", {
            "recipe": TIES, "models": {n: str(f) for n, f in three.items()}, "dtype": "float32", "out_dtype": "float16",
        })  # fmt: skip
        words = ("--recipe", tmp_path / "recipe.yaml", "--out", tmp_path / "out", "--out-dtype", "float32")
        code, said, _ = command(*words)
        assert code == 0
        assert "(ties(code, science, math))" in said
        assert bytes_of(tmp_path / "out") == merged(TIES, three, tmp_path / "same", dtype=FP32)

    def test_mergekits_file(self, three, command, tmp_path):
        text = mergekit.to_mergekit(CHAIN, {n: str(f) for n, f in three.items()}, "bfloat16", None)
        (tmp_path / "recipe.yaml").write_text(text)
        assert command("--recipe", tmp_path / "recipe.yaml", "--reading", "released", "--out", tmp_path / "out")[0] == 0
        assert bytes_of(tmp_path / "out") == merged(FUSION, three, tmp_path / "same", reading="released")

    def test_a_dry_run_writes_nothing_and_says_what_would_be(self, given, command, tmp_path):
        before = set(tmp_path.rglob("*"))
        code, said, _ = command(*given, "--out", tmp_path / "out", "--dry-run")
        assert code == 0
        assert set(tmp_path.rglob("*")) == before
        for word in ("(math & science) & code (exact, λ = 1.5)", "memory ", "time ", "result     33 tensors"):
            assert word in said, said
        assert command(*given, "--dry-run")[0] == 0, "a plan needs no output folder"

    def test_a_dry_run_of_a_checkpoint_that_is_mostly_integers(self, command, tmp_path):
        folders = experts(tmp_path / "in", Shape(layers=1))
        for folder in folders.values():
            tensors = load_file(folder / "model.safetensors")
            store(folder, tensors | {"table": torch.zeros(100, 100, dtype=torch.int64)})
        code, said, error = command(*(w for n, f in folders.items() for w in (f"--{n}", f)), "--dry-run")
        assert code == 0, error

    def test_the_same_command_again_does_nothing(self, given, command, tmp_path):
        out = tmp_path / "out"
        command(*given, "--out", out)
        times = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
        code, said, _ = command(*given, "--out", out)
        assert code == 0
        assert said.startswith("already there: ")
        assert times == {p.name: p.stat().st_mtime_ns for p in out.iterdir()}

    def test_the_result_of_another_recipe_is_refused(self, given, command, tmp_path):
        out = tmp_path / "out"
        command(*given, "--out", out)
        before = bytes_of(out)
        for other in (("--reading", "paper"), ("--iqr-multiplier", "1"), ("--out-dtype", "float32")):
            code, _, error = command(*given, "--out", out, *other)
            assert code == 2
            rule = "holds the result of another recipe or other models; choose another --out, or give --replace"
            assert error == f"error: {out}: {rule}\n"
        assert bytes_of(out) == before

    def test_another_recipe_may_replace_a_result(self, three, given, command, tmp_path):
        command(*given, "--out", out := tmp_path / "out")
        code, said, _ = command(*given, "--out", out, "--reading", "paper", "--replace")
        assert (code, said[:10]) == (0, "merged in ")
        assert bytes_of(out) == merged(FUSION, three, tmp_path / "same", reading="paper")
        assert command(*given, "--out", out, "--reading", "paper", "--replace")[1].startswith("already there: ")

    def test_results_of_other_models_are_refused(self, three, given, command, tmp_path):
        command(*given, "--out", tmp_path / "out")
        swapped = ["--math", three["code"], "--science", three["science"], "--code", three["math"]]
        assert "of another recipe or other models" in command(*swapped, "--out", tmp_path / "out")[2]

    def test_foreign_files_are_refused_before_anything_is_hashed(self, given, command, tmp_path, monkeypatch):
        monkeypatch.setattr(artifact, "file_hash", lambda path: pytest.fail("hashed"))
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.tex").write_text("x")
        (tmp_path / "file").write_text("x")
        for name in ("out", "file"):
            code, _, error = command(*given, "--out", tmp_path / name)
            assert code == 2
            assert error.startswith(f"error: {tmp_path / name}: exists and is not a merged checkpoint")
        assert (tmp_path / "out" / "thesis.tex").read_text() == "x"
        assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "out"]

    def test_an_empty_folder_is_used(self, given, command, tmp_path):
        (tmp_path / "out").mkdir()
        assert command(*given, "--out", tmp_path / "out")[0] == 0

    def test_verify_finds_what_changed(self, given, command, tmp_path):
        out = tmp_path / "out"
        command(*given, "--out", out)
        assert command("--verify", out)[:2] == (0, f"{out}: every file is as it was written\n")
        weights, card = out / "model.safetensors", out / "README.md"
        stat, data = weights.stat(), bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
        os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a failing disk changes it
        assert command("--verify", out)[:2] == (1, "model.safetensors: not the bytes that were written\n")
        card.unlink()
        (out / "more.txt").write_text("x")
        assert command("--verify", out)[:2] == (
            1, "README.md: missing\nmodel.safetensors: not the bytes that were written\nmore.txt: added later\n"
        )  # fmt: skip

    def test_a_damaged_manifest_is_named(self, given, command, tmp_path):
        command(*given, "--out", out := tmp_path / "out")
        manifest = out / "artifact.json"
        manifest.write_text(manifest.read_text()[:-9])
        for words in (("--verify", out), (*given, "--out", out)):
            code, _, error = command(*words)
            assert code == 2
            assert error.startswith(f"error: {manifest}: damaged, it is not valid JSON")

    def test_a_changed_result_is_not_taken_for_finished(self, given, command, tmp_path):
        command(*given, "--out", tmp_path / "out")
        with (tmp_path / "out" / "model.safetensors").open("ab") as file:
            file.write(b"x")
        code, _, error = command(*given, "--out", tmp_path / "out")
        assert code == 2
        assert "it was changed or cut short; remove it" in error

    def test_a_merge_can_be_a_parent_and_its_changes_are_found(self, three, given, command, tmp_path):
        command(*given, "--out", first := tmp_path / "first")
        assert command(*given[:-1], first, "--out", tmp_path / "second")[0] == 0
        (first / "model.safetensors").write_bytes((first / "model.safetensors").read_bytes()[:-2])
        code, _, error = command(*given[:-1], first, "--out", tmp_path / "third")
        assert code == 2
        assert f"{first}/model.safetensors: " in error

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ((), "--math, --science, --code: missing; give all three experts, or --recipe"),
            (("--math", "a", "--code", "b"), "--science: missing"),
            (("--recipe", "r.yaml", "--math", "a"), "--recipe names its own models; leave out --math"),
            (("--recipe", "nowhere.yaml"), "--recipe: nowhere.yaml does not exist"),
            (("--math", "a", "--science", "b", "--code", "nowhere", "--out", "o"), "nowhere: no such folder"),
            (("--verify", "nowhere"), "nowhere: no artifact.json; not a checkpoint that this program finished"),
        ],
    )
    def test_what_is_missing_is_said(self, command, words, said):
        code, _, error = command(*words)
        assert code == 2
        assert error.startswith(f"error: {said}")

    def test_a_missing_output_folder_is_said(self, given, command):
        for words in ((), ("--out", "")):
            assert command(*given, *words)[2] == "error: --out: missing; name the folder for the merged checkpoint\n"

    def test_an_empty_word_is_no_folder(self, three, command, tmp_path):
        """`make merge` passes on variables that were not set."""
        words = ["--math", three["math"], "--science", "", "--code", three["code"], "--out", tmp_path / "out"]
        assert command(*words)[2] == "error: --science: missing; give all three experts, or --recipe\n"

    @pytest.mark.parametrize("device", ["foo", "cuda:99"])
    def test_a_device_that_is_not_there_is_refused(self, given, command, tmp_path, device):
        code, _, error = command(*given, "--out", tmp_path / "out", "--device", device)
        assert code == 2
        assert error.startswith(f"error: --device: {device!r} cannot be used here (")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("threads", ["0", "-1", "two"])
    def test_threads_are_a_number(self, given, command, tmp_path, capsys, threads):
        with pytest.raises(SystemExit):
            command(*given, "--out", tmp_path / "out", "--threads", threads)
        assert f"{threads!r} is not a whole number of at least 1" in capsys.readouterr().err

    def test_a_recipe_without_a_folder_for_a_model_is_refused(self, three, command, tmp_path):
        put_json(tmp_path / "r.yaml", {"recipe": FUSION, "models": {"math": str(three["math"])}})
        code, _, error = command("--recipe", tmp_path / "r.yaml", "--out", tmp_path / "out")
        assert error == "error: recipe: no folder is given for code, science; models: math\n"

    def test_different_tokenizers_need_a_choice(self, command, tmp_path):
        folders = experts(tmp_path / "in", Shape(layers=1))
        change_json(folders["math"] / "tokenizer_config.json", model_max_length=9)
        words = [w for n, f in folders.items() for w in (f"--{n}", f)]
        assert "tokenizer_config.json" in command(*words, "--out", tmp_path / "out")[2]
        assert command(*words, "--out", tmp_path / "out", "--tokenizer", "math")[0] == 0
        assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["model_max_length"] == 9

    def test_the_manifest_lists_every_file(self, given, command, tmp_path):
        command(*given, "--out", out := tmp_path / "out")
        manifest = artifact.check(out, "")
        assert set(manifest["files"]) == {p.name for p in out.iterdir()} - {"artifact.json"}
        beside = {"config.json", "generation_config.json", "tokenizer.json", "README.md", checkpoint.MERGEKIT_FILE}
        assert beside <= set(manifest["files"])
        documents = list(yaml.safe_load_all((out / checkpoint.MERGEKIT_FILE).read_text()))
        assert documents[-1]["merge_method"] == "arcee_fusion"


class TestFailure:
    def fails(self, given, command, out: Path) -> tuple[int, str]:
        """(exit status, last line of the errors), after a look for what was left."""
        code, _, error = command(*given, "--out", out)
        assert sorted(p.name for p in out.parent.iterdir() if p.name.startswith("out")) == []
        return code, error.splitlines()[-1]

    @pytest.mark.parametrize("size", [method.BLOCK, 300])
    @pytest.mark.parametrize("call", [1, 40, 150])
    def test_an_error_in_a_thread_ends_the_merge_and_leaves_nothing(
        self, given, command, tmp_path, monkeypatch, size, call
    ):
        """With small blocks threads share a tensor, with large ones each has its own: both must stop."""
        rows, calls = Checkpoint.rows, []

        def broken(self, name, first, last):
            calls.append(name)
            if len(calls) >= call:
                raise UserError("the disk went away")
            return rows(self, name, first, last)

        monkeypatch.setattr(method, "BLOCK", size)
        monkeypatch.setattr(Checkpoint, "rows", broken)
        assert self.fails(given, command, tmp_path / "out") == (2, "error: the disk went away")
        assert len(calls) < call + 100

    def test_an_error_of_the_system_is_said_without_a_trace(self, given, command, tmp_path, monkeypatch):
        def full(self, name, offset, data):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(engine.ShardWriter, "write", full)
        said = "error: [Errno 28] No space left on device; free some space and repeat the command"
        assert self.fails(given, command, tmp_path / "out") == (2, said)

    def test_an_interrupt_leaves_nothing(self, given, command, tmp_path, monkeypatch):
        rows, calls = Checkpoint.rows, []

        def interrupted(self, name, first, last):
            calls.append(name)
            if len(calls) >= 30:
                raise KeyboardInterrupt  # a real signal may end in a callback of Python's that swallows it
            return rows(self, name, first, last)

        monkeypatch.setattr(Checkpoint, "rows", interrupted)
        assert self.fails(given, command, tmp_path / "out") == (130, "interrupted; nothing was left behind")

    def test_after_a_failure_the_same_command_works(self, three, given, command, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "rows", lambda *a: (_ for _ in ()).throw(UserError("no")))
            self.fails(given, command, tmp_path / "out")
        assert command(*given, "--out", tmp_path / "out")[0] == 0
        assert bytes_of(tmp_path / "out") == merged(FUSION, three, tmp_path / "same")


MEMORY_BOUND = 160  # MB
MEMORY = """
import resource, sys
from pathlib import Path
from tinyr1.merge import checkpoint as merging
from tinyr1.core.recipe import parse
from tinyr1.merge.engine import MergeOptions

def go(source, out):
    out.mkdir()
    step = parse({"method": "fusion", "base": "code", "other": "math"}, "test")
    folders = {name: source / name for name in ("math", "code")}
    merging.merge_checkpoints(step, folders, out, MergeOptions(threads=2, reading=sys.argv[2]), "test")

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) // 1024

root = Path(sys.argv[1])
go(root / "small", root / f"small-{sys.argv[2]}")  # compiles and imports
before = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
go(root / "large", root / f"large-{sys.argv[2]}")
print(before, resident("VmHWM"))
"""


@pytest.mark.parametrize("reading", ["exact", "released"])
def test_memory_does_not_grow_with_a_tensor(tmp_path, reading):
    """A tensor of 268 MB in each of two models: to map it, or to keep what a block left, would take as much again.

    Two threads work on blocks of 2 MB and their intermediates, of which up to four wait for their turn; windows of the
    inputs are mapped for them and for the hashes, and the result waits in buffers for the disk: 126 to 136 MB were
    measured.
    """
    for size, rows in (("small", 64), ("large", 32768)):
        for seed, name in enumerate(("math", "code")):
            (tmp_path / size / name).mkdir(parents=True)
            put_json(tmp_path / size / name / "config.json", {})
            pattern = torch.randn(64, 4096, generator=torch.Generator().manual_seed(seed)).mul_(0.05).to(BF16)
            store(tmp_path / size / name, {"weight": pattern.repeat(rows // 64, 1)})
    child = [sys.executable, "-c", MEMORY, str(tmp_path), reading]
    result = subprocess.run(child, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    before, peak = map(int, result.stdout.split())
    print(f"{reading}: {before} MB before, {peak} MB at the peak")
    assert peak - before < MEMORY_BOUND, f"{before} MB before, {peak} MB at the peak"
