"""Texts as token ids, where no text can open or end a turn: a control token that is spelled in it stays text.

    messages --hide--> a private-use character stands for each control token --template--> Text --encode--> token ids:
        the control tokens that the template wrote, and the hidden ones tokenized as text

The prompts and targets that are tokenized so are made in `tinyr1.core.prompts`.
"""

import copy
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
PRIVATE_USE = range(0xF0000, 0xFFFFE)  # Unicode leaves these characters without a meaning, and so do all tokenizers
CHUNK = 16  # texts in one call of the Rust tokenizer


@dataclass(frozen=True)
class Text:
    """A text to tokenize. hidden: private-use character in the text -> the control token that is spelled there."""

    text: str
    hidden: dict[str, str]


class _Controls:
    """The control tokens of a tokenizer with a chat template: special tokens, and added ones that the template writes,
    such as DeepSeek's `<｜User｜>`, which is not special.

    ids: their ids. spelled: finds one in a text. It passes over the think tags, for which templates look in earlier
    turns and which end no turn.
    """

    def __init__(self, tokenizer: Any, template: str) -> None:
        added = {
            i: token.content
            for i, token in tokenizer.added_tokens_decoder.items()
            if token.special or (token.content.strip() and token.content in template)
        }
        self.ids = frozenset(added)
        texts = sorted({*added.values()} - {THINK_OPEN, THINK_CLOSE}, key=len, reverse=True)
        self.spelled = re.compile("|".join(map(re.escape, texts)) or "(?!)")
        self._rust, self._added = tokenizer.backend_tokenizer, added.values()

    @cached_property
    def literal(self) -> Any:
        """A Rust tokenizer that tokenizes control tokens as text and everything else as the tokenizer does."""
        from tokenizers import AddedToken

        made = copy.deepcopy(self._rust)
        made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in self._added])
        made.encode_special_tokens = True
        made.no_truncation()
        made.no_padding()
        return made


def _controls(tokenizer: Any) -> _Controls:
    return _controls_of(tokenizer, tokenizer.get_chat_template())


_controls_of = lru_cache(maxsize=4)(_Controls)


def hide(tokenizer: Any, texts: list[str]) -> tuple[list[str], dict[str, str]]:
    """The texts with a private-use character for each control token that they spell, and what each one stands for."""
    spelled = _controls(tokenizer).spelled
    found = sorted({token for text in texts for token in spelled.findall(text)})
    if not found:
        return texts, {}
    used = set("".join(texts))
    free = (character for character in map(chr, PRIVATE_USE) if character not in used)
    stands_for = dict(zip(found, free, strict=False))
    hidden = [spelled.sub(lambda match: stands_for[match[0]], text) for text in texts]
    return hidden, {character: token for token, character in stands_for.items()}


def encode(tokenizer: Any, texts: list[Text], num_proc: int = 1) -> list[list[int]]:
    """Token ids of texts. Templates write every special token themselves; the tokenizer would add a second BOS."""
    tokenizer.encode("", add_special_tokens=False)  # puts the Rust tokenizer's truncation and padding out of force
    rust = tokenizer.backend_tokenizer
    plain = [text.text for text in texts if not text.hidden]
    chunks = [plain[i : i + CHUNK] for i in range(0, len(plain), CHUNK)]

    def encoded(chunk: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in rust.encode_batch_fast(chunk, add_special_tokens=False)]

    if num_proc == 1:
        done = list(map(encoded, chunks))
    else:
        with ThreadPoolExecutor(num_proc) as threads:  # the Rust tokenizer works without Python's lock
            done = list(threads.map(encoded, chunks))
    ids = (ids for chunk in done for ids in chunk)
    return [_encode_hidden(tokenizer, text) if text.hidden else next(ids) for text in texts]


def _encode_hidden(tokenizer: Any, text: Text) -> list[int]:
    """Token ids of a text in which control tokens are hidden: those that it shows are tokens, the hidden ones text."""
    controls = _controls(tokenizer)
    spelled = {ord(character): token for character, token in text.hidden.items()}

    def literal(start: int, end: int | None = None) -> list[int]:
        stretch = text.text[start:end].translate(spelled)
        return controls.literal.encode(stretch, add_special_tokens=False).ids if stretch else []

    ids: list[int] = []
    start = 0
    shown = tokenizer.backend_tokenizer.encode(text.text, add_special_tokens=False)
    for token, (begin, end) in zip(shown.ids, shown.offsets, strict=True):
        if token in controls.ids:
            ids += [*literal(start, begin), token]
            start = end
    return ids + literal(start)
