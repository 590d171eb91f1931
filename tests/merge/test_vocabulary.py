"""Models whose embeddings have different rows: padded ones, and tokens that only some models have."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import WORDS, Shape, add_tokenizer, change_json, experts, put_json, store
from safetensors.torch import load_file

from tinyr1.core.errors import UserError
from tinyr1.core.recipe import Recipe
from tinyr1.merge import checkpoint, mergekit, method, vocabulary
from tinyr1.merge.engine import MergeOptions

BF16, FP16 = torch.bfloat16, torch.float16
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
LINEAR = Recipe.model_validate({"method": "linear", "models": [{"model": "math"}, {"model": "code"}]})
ADDED = Recipe.model_validate({"method": "task_arithmetic", "base": "math", "models": [{"model": "code"}]})
KEEPS = {"single_word": False, "lstrip": True, "rstrip": False, "normalized": False, "special": True}


def model(folder: Path, name: str, words: tuple[str, ...], rows: int, **shape) -> Path:
    """A checkpoint with a tokenizer of these words and an embedding of so many rows."""
    made = experts(folder, Shape(layers=1, vocabulary=rows, **shape), (name,))[name]
    add_tokenizer(made, words)
    return made


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def into(folders: dict[str, Path], out: Path, recipe: Recipe = LINEAR, **options) -> dict[str, torch.Tensor]:
    out.mkdir()
    checkpoint.merge_checkpoints(recipe, folders, out, MergeOptions(threads=1, **options), "test")
    return tensors(out)


def mean(*rows: torch.Tensor) -> torch.Tensor:
    return (sum(row.float() for row in rows) / len(rows)).to(rows[0].dtype)


class TestPadding:
    @pytest.mark.parametrize(("own", "other"), [(64, 72), (72, 64)])
    def test_rows_without_a_token_are_those_of_the_main_model(self, tmp_path, capsys, own, other):
        folders = {"math": model(tmp_path, "math", WORDS, own), "code": model(tmp_path, "code", WORDS, other)}
        made = into(folders, tmp_path / "out")
        a, b = (tensors(folder) for folder in folders.values())
        for name in (EMBEDDING, HEAD):
            assert torch.equal(made[name][:64], mean(a[name][:64], b[name][:64]))
            assert torch.equal(made[name][64:], a[name][64:])
        assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == own
        assert capsys.readouterr().out.splitlines()[0] == (
            f"lm_head.weight and model.embed_tokens.weight: rows are {own} in math, {other} in code; the tokens are "
            f"the same, and the result has the {own} rows of math"
        )

    def test_other_tokens_are_not_padding(self, tmp_path):
        folders = {"math": model(tmp_path, "math", WORDS, 64), "code": model(tmp_path, "code", (*WORDS, "new"), 72)}
        with pytest.raises(UserError) as caught:
            into(folders, tmp_path / "out", tokenizer="math")
        assert str(caught.value).splitlines()[1:] == [
            f"{name}: 72 rows in code, 64 in math, and their tokens differ or are not known; say which tokens the "
            "result has: --tokenizer-source base, union or one of the models"
            for name in (HEAD, EMBEDDING)
        ]

    def test_a_token_beyond_the_rows_is_not_padding(self, tmp_path):
        folders = {"math": model(tmp_path, "math", WORDS, 64), "code": model(tmp_path, "code", WORDS, 8)}
        with pytest.raises(UserError, match="8 rows in code, 64 in math, and their tokens differ"):
            into(folders, tmp_path / "out")


class TestSources:
    """math has the tokens 0 to 11; code has two of them at other places, lacks one, and has two of its own."""

    CODE = ("<pad>", "<bos>", "<eos>", "<unk>", "answer", "the", "is", "so", "then", "we", "have", "hence", "<call>")

    @pytest.fixture
    def folders(self, tmp_path) -> dict[str, Path]:
        made = {"math": model(tmp_path, "math", WORDS, 64), "code": model(tmp_path, "code", self.CODE, 72)}
        change_json(made["code"] / "tokenizer.json", added_tokens=[{"id": 12, "content": "<call>", **KEEPS}])
        return made

    def expected(self, folders, words, name: str = EMBEDDING) -> torch.Tensor:
        """Rows by token of a linear merge: the mean, or the row of the model that has the token."""
        a, b = (tensors(folder)[name] for folder in folders.values())
        rows = []
        for word in words:
            given = [t[ws.index(word)] for t, ws in ((a, WORDS), (b, self.CODE)) if word in ws]
            rows.append(mean(*given))
        return torch.stack(rows)

    @pytest.mark.parametrize("source", ["base", "math", "code", "union"])
    @pytest.mark.parametrize("size", [method.BLOCK, 32 * 5])
    def test_rows_are_merged_by_token(self, folders, tmp_path, monkeypatch, source, size):
        monkeypatch.setattr(method, "BLOCK", size)  # five rows in a block, or all
        words = {"base": WORDS, "math": WORDS, "code": self.CODE, "union": (*WORDS, "hence", "<call>")}[source]
        made = into(folders, out := tmp_path / "out", tokenizer_source=source)
        for name in (EMBEDDING, HEAD):
            assert torch.equal(made[name], self.expected(folders, words, name)), name
        assert json.loads((out / "config.json").read_text())["vocab_size"] == len(words)
        assert vocabulary.tokens_of(out) == {word: i for i, word in enumerate(words)}

    def test_transformers_reads_the_union(self, folders, tmp_path):
        from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

        change_json(folders["math"] / "tokenizer_config.json", added_tokens_decoder={})
        into(folders, out := tmp_path / "out", tokenizer_source="union")
        tokenizer = PreTrainedTokenizerFast.from_pretrained(out)
        assert tokenizer("the answer <call> hence thus")["input_ids"] == [4, 5, 13, 12, 11]
        assert tokenizer.decode([4, 13], skip_special_tokens=True) == "the", "a special token stays one"
        loaded, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
        assert loaded.get_input_embeddings().weight.shape == (14, 32)
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))

    def test_a_token_that_one_model_has_does_not_differ_from_the_base(self, folders, tmp_path):
        """Task arithmetic adds nothing to it, whether the base has it or the other model."""
        made = into(folders, tmp_path / "out", ADDED, tokenizer_source="union")[EMBEDDING]
        a, b = (tensors(folder)[EMBEDDING] for folder in folders.values())
        assert torch.equal(made[11], a[11])
        assert torch.equal(made[12:14], b[11:13])
        torch.testing.assert_close(made[4], b[5], atol=1e-3, rtol=0)  # the difference was rounded

    def test_dtypes_may_differ(self, tmp_path):
        folders = {"math": model(tmp_path, "math", WORDS, 64),
                   "code": model(tmp_path, "code", self.CODE, 72, dtype=FP16)}  # fmt: skip
        made = into(folders, tmp_path / "out", tokenizer_source="union", dtype=BF16)[EMBEDDING]
        assert torch.equal(made[12], tensors(folders["code"])[EMBEDDING][11].to(BF16))
        assert torch.equal(made[11], tensors(folders["math"])[EMBEDDING][11])

    def test_what_a_model_lacks_is_said(self, folders, tmp_path, capsys):
        into(folders, tmp_path / "out", tokenizer_source="union")
        assert capsys.readouterr().out.splitlines()[:3] == [
            "tokenizer_source union: the result has 14 tokens",
            "tokenizer_source union: math lacks 2 of them; their rows are those of the models that have them",
            "tokenizer_source union: code lacks 1 of them; their rows are those of the models that have them",
        ]

    def test_a_tensor_for_tokens_that_nobody_knows_stands_in_the_way_where_tokens_move(self, folders, tmp_path):
        for folder, rows in zip(folders.values(), (64, 72), strict=True):
            store(folder, tensors(folder) | {"lm_head.bias": torch.zeros(rows)})
        with pytest.raises(UserError, match=r"math: lm_head.bias has 64 entries, as many as there are tokens"):
            into(folders, tmp_path / "out", tokenizer_source="union")

    @pytest.mark.parametrize(
        "names",
        [("model.tok_embeddings.weight", "output.weight"), ("shared.weight", "lm_head.weight"),
         ("backbone.embeddings.weight", "lm_head.weight"), ("model.decoder.embed_tokens.weight", "proj_out.weight")],
    )  # fmt: skip
    def test_embeddings_and_heads_of_other_networks_move_together(self, folders, tmp_path, names):
        renamed = dict(zip((EMBEDDING, HEAD), names, strict=True))
        for folder in folders.values():
            store(folder, {renamed.get(name, name): tensor for name, tensor in tensors(folder).items()})
        made = into(folders, tmp_path / "out", tokenizer_source="code")
        for name in names:
            assert torch.equal(made[name], self.expected(folders, self.CODE, name))

    def test_without_an_embedding_that_is_known_a_source_is_refused(self, folders, tmp_path):
        for folder in folders.values():
            store(folder, {name.replace("embed_tokens", "table"): t for name, t in tensors(folder).items()})
        with pytest.raises(UserError, match="tokenizer_source: union: the models have no embedding whose rows"):
            into(folders, tmp_path / "out", tokenizer_source="union")

    def test_a_mean_is_rounded_to_the_dtype_of_the_merge(self, folders, tmp_path):
        third = model(tmp_path, "science", WORDS[:4], 64)
        recipe = {"method": "linear", "models": [{"model": name} for name in ("math", "code", "science")]}
        made = into(
            {**folders, "science": third}, tmp_path / "out", Recipe.model_validate(recipe), tokenizer_source="math",
            dtype=torch.float32,
        )  # fmt: skip
        a, b = (tensors(folders[name])[EMBEDDING].float() for name in ("math", "code"))
        row, there = WORDS.index("the"), self.CODE.index("the")
        average = (a[row] + b[there]) / 2
        assert torch.allclose(made[EMBEDDING][row], (a[row] + b[there] + average) / 3, rtol=1e-6, atol=1e-7)

    def test_a_source_that_is_no_model_is_refused(self, folders, tmp_path):
        with pytest.raises(UserError, match="tokenizer_source: 'physics' is neither base nor union nor one of"):
            into(folders, tmp_path / "out", tokenizer_source="physics")

    def test_a_tokenizer_and_a_source_exclude_each_other(self, folders, tmp_path):
        with pytest.raises(UserError, match="--tokenizer and --tokenizer-source: give one of them"):
            into(folders, tmp_path / "out", tokenizer_source="base", tokenizer="code")

    def test_tokens_have_to_be_known(self, folders, tmp_path):
        (folders["code"] / "tokenizer.json").unlink()
        with pytest.raises(UserError, match="code: no tokenizer.json; rows cannot be matched by token"):
            into(folders, tmp_path / "out", tokenizer_source="base")

    @pytest.mark.parametrize("damage", [{"model": {}}, {"model": {"vocab": [["a"]]}}, {"added_tokens": [{"id": 1}]},
                                        {"model": {"vocab": {"a": "0"}}}])  # fmt: skip
    def test_a_damaged_tokenizer_is_named(self, folders, damage):
        change_json(folders["code"] / "tokenizer.json", **damage)
        with pytest.raises(UserError, match="code/tokenizer.json: .*fetch or write it again"):
            vocabulary.tokens_of(folders["code"])

    def test_the_source_is_part_of_the_identity_where_it_is_given(self):
        assert "tokenizer_source" not in MergeOptions().results()
        assert MergeOptions(tokenizer_source="union").results()["tokenizer_source"] == "union"

    def test_mergekits_file_asks_for_it(self, folders, tmp_path):
        own = {name: str(folder) for name, folder in folders.items()}
        text = mergekit.to_mergekit(LINEAR, own, None, None, tokenizer_source="union", chat_template="chatml")
        (tmp_path / "r.yml").write_text(text)
        recipe, read, settings = mergekit.read_recipe(tmp_path / "r.yml")
        settings = {key: value for key, value in settings.items() if value is not None}
        assert settings == {"tokenizer_source": "union", "chat_template": "chatml"}
        into(read, tmp_path / "out", recipe, **settings)
        template = (tmp_path / "out" / "chat_template.jinja").read_text()
        assert "<|im_start|>assistant" in template

    def test_a_model_that_is_not_merged_gives_its_tokens(self, folders, tmp_path):
        folders["base"] = model(tmp_path, "base", WORDS[:8], 16)
        text = {"merge_method": "linear", "tokenizer_source": str(folders["base"]),
                "models": [{"model": str(folders[n]), "parameters": {"weight": 0.5}} for n in ("math", "code")]}
        put_json(tmp_path / "r.yml", text)
        recipe, read, settings = mergekit.read_recipe(tmp_path / "r.yml")
        made = into(read, tmp_path / "out", recipe, tokenizer_source=settings["tokenizer_source"])[EMBEDDING]
        two = {name: folders[name] for name in ("math", "code")}
        torch.testing.assert_close(made, self.expected(two, WORDS[:8]))
        assert vocabulary.tokens_of(tmp_path / "out") == {word: i for i, word in enumerate(WORDS[:8])}


class TestDonors:
    THREE = [{"a": 0, "b": 1}, {"a": 0, "b": 1, "c": 2}, {"a": 1, "c": 0}]

    def plan(self, base: int | None) -> vocabulary.Plan:
        return vocabulary.plan_for({"a": 0, "b": 1, "c": 2, "d": 3}, self.THREE, [2, 3, 2], base)

    def test_the_base_gives_its_rows_and_else_the_others_do(self):
        assert self.plan(0).donors.tolist() == [0, 0, vocabulary.MEAN]
        assert self.plan(None).donors.tolist() == [vocabulary.MEAN] * 3
        assert self.plan(0).places.tolist() == [[0, 1, -1], [0, 1, 2], [1, -1, 0]]

    def test_rows_are_gathered_from_a_window(self):
        source, row = self.plan(1).window(2, 0, 3)
        assert source.tolist() == [2, 1, 2]
        assert row.tolist() == [1, 1, 0]

    def test_a_token_beyond_the_rows_of_its_model_counts_as_lacking(self):
        plan = vocabulary.plan_for({"a": 0, "b": 1}, [{"a": 0, "b": 5}, {"a": 0, "b": 1}], [2, 2], None)
        assert plan.places.tolist() == [[0, -1], [0, 1]]
        assert plan.donors.tolist() == [vocabulary.MEAN, 1]

    def test_a_mean_is_of_those_that_have_the_token(self, tmp_path):
        words = {"math": ("a", "b"), "science": ("a", "b"), "code": ("a",)}
        folders = {name: model(tmp_path, name, w, len(w)) for name, w in words.items()}
        parts = [{"model": name, "weight": float(name == "code")} for name in ("code", "math", "science")]
        recipe = Recipe.model_validate({"method": "linear", "models": parts})
        made = into(folders, tmp_path / "out", recipe, tokenizer_source="math")[EMBEDDING]
        a, b = (tensors(folders[name])[EMBEDDING] for name in ("math", "science"))
        assert torch.equal(made[1], mean(a[1], b[1]))
        assert torch.equal(made[0], tensors(folders["code"])[EMBEDDING][0])

    def test_every_permutation_is_gathered_right(self, tmp_path):
        rng = np.random.default_rng(0)
        words = [f"w{i}" for i in range(50)]
        folders = {"math": model(tmp_path, "math", tuple(words), 50),
                   "code": model(tmp_path, "code", tuple(words[i] for i in rng.permutation(50)), 50)}  # fmt: skip
        weights = tensors(folders["math"])
        tokens = vocabulary.tokens_of(folders["code"])
        order = [words.index(word) for word in sorted(tokens, key=tokens.get)]
        store(folders["code"], weights | {name: weights[name][order] for name in (EMBEDDING, HEAD)})
        made = into(folders, tmp_path / "out", tokenizer_source="base")
        for name in (EMBEDDING, HEAD):
            assert torch.equal(made[name], weights[name])


class TestChatTemplate:
    @pytest.fixture
    def two(self, tmp_path) -> dict[str, Path]:
        made = experts(tmp_path, Shape(layers=1), ("math", "code"))
        for folder in made.values():
            change_json(folder / "tokenizer_config.json", chat_template="own {{ messages }}")
        return made

    @pytest.mark.parametrize(
        ("wanted", "text"), [("auto", "own {{ messages }}"), ("{{ messages }}!", "{{ messages }}!")]
    )  # fmt: skip
    def test_it_replaces_that_of_the_tokenizer(self, two, tmp_path, wanted, text):
        into(two, out := tmp_path / "out", chat_template=wanted)
        assert (out / "chat_template.jinja").read_text() == text
        assert "chat_template" not in json.loads((out / "tokenizer_config.json").read_text())

    def test_auto_reads_the_template_of_a_processor(self, two, tmp_path):
        for folder in two.values():
            change_json(folder / "tokenizer_config.json", chat_template=None)
            (folder / "chat_template.json").write_text(json.dumps({"chat_template": "seen {{ messages }}"}))
        into(two, out := tmp_path / "out", chat_template="auto")
        assert (out / "chat_template.jinja").read_text() == "seen {{ messages }}"

    def test_chatml_is_rendered(self, two, tmp_path):
        from transformers import PreTrainedTokenizerFast

        into(two, out := tmp_path / "out", chat_template="chatml")
        tokenizer = PreTrainedTokenizerFast.from_pretrained(out)
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": "Why?"}], tokenize=False, add_generation_prompt=True
        )
        assert rendered == "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"

    def test_an_unknown_name_is_refused_before_the_merge(self, two, tmp_path):
        with pytest.raises(UserError, match="chat_template: 'llama9' is neither chatml, auto nor Jinja text"):
            into(two, tmp_path / "out", chat_template="llama9")
        assert list((tmp_path / "out").iterdir()) == []
