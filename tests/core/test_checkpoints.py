"""The list of tokenizer files holds every file that transformers names, and all who need the list use it."""

import pytest
from checkpoints import Shape, experts
from transformers import tokenization_utils_base as base

from tinyr1.core.checkpoints import TOKENIZER_FILES
from tinyr1.core.errors import UserError
from tinyr1.merge import checks
from tinyr1.merge.reader import Checkpoint
from tinyr1.sampling.requests import tokenizer_key


def test_the_files_that_transformers_names_are_listed():
    from transformers import GemmaTokenizer, GPT2Tokenizer, LlamaTokenizer, Qwen2Tokenizer, T5Tokenizer

    named = {base.SPECIAL_TOKENS_MAP_FILE, base.ADDED_TOKENS_FILE, base.TOKENIZER_CONFIG_FILE, base.FULL_TOKENIZER_FILE,
             base.CHAT_TEMPLATE_FILE}  # fmt: skip
    for kind in (GemmaTokenizer, GPT2Tokenizer, LlamaTokenizer, Qwen2Tokenizer, T5Tokenizer):
        named |= set(kind.vocab_files_names.values())
    assert len(named) >= 8
    assert named <= set(TOKENIZER_FILES)


@pytest.mark.parametrize("name", [n for n in TOKENIZER_FILES if n != "tokenizer.json"])
def test_a_difference_in_any_of_them_is_seen_before_a_merge_and_before_sampling(tmp_path, name):
    two = experts(tmp_path, Shape(layers=1), names=("math", "code"))
    key = tokenizer_key(two["math"])
    assert tokenizer_key(two["code"]) == key
    (two["code"] / name).write_text('{"other": 1}', encoding="utf-8")
    assert tokenizer_key(two["code"]) != key
    with pytest.raises(UserError, match=f"{name}: code and math differ"):
        checks.check({n: Checkpoint(folder) for n, folder in two.items()}, None)
