"""Loads the tokenizer of a checkpoint folder, so that its token ids are those of tokenizer.json.

A module of its own, because training, sampling and chat load tokenizers, and `prompts` takes one that is loaded.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from tinyr1.core.checkpoints import read_object
from tinyr1.core.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Words, numbers, an accent in two code points, signs, blanks and lines: what normalizers and pre-tokenizers differ in.
PROBE = "It's x = 3.14159, so f(x) ≤ 1000!\n\n  def cafe\u0301(n):\n\treturn n // 2  # 答案 \U0001f642\r\n"


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of the checkpoint `folder`; its token ids are those of tokenizer.json.

    AutoTokenizer does not promise that. The class that transformers 5 takes by tokenizer_config.json, or by the
    architecture in config.json, reads the vocabulary from tokenizer.json and brings its own rules for splitting text.
    `LlamaTokenizerFast`, which DeepSeek names for its distilled models, loses blanks and line ends with it; a
    checkpoint of the qwen2 architecture gets Qwen2's rules whatever it names. The class that is taken here reads the
    whole file. UserError where there is no tokenizer.json, where it cannot be read, and where the tokenizer's other
    files change ids.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    file = folder / "tokenizer.json"
    failed = f"{folder}: its tokenizer cannot be loaded"
    content = read_object(file)
    if content is None:
        raise UserError(
            f"{failed}: there is no tokenizer.json; copy it and its neighbours from the model's origin, or let "
            "transformers write it (save_pretrained of the model's tokenizer)"
        )
    try:
        own = Tokenizer.from_file(str(file))
        loaded = PreTrainedTokenizerFast.from_pretrained(folder)
    except Exception as error:  # noqa: BLE001 - the Rust library raises nothing narrower
        raise UserError(f"{failed}: {error}; fetch or write its files again") from error
    probe = PROBE + "".join(f"word {token['content']} word" for token in content.get("added_tokens", []))
    if loaded.encode(probe, add_special_tokens=False) != own.encode(probe, add_special_tokens=False).ids:
        raise UserError(
            f"{failed}: added or special tokens in its other files (tokenizer_config.json, special_tokens_map.json, "
            "added_tokens.json) change the token ids of tokenizer.json; fetch all of them again from the model's origin"
        )
    return loaded
