"""Requests: the samples of a plan as an engine takes them, their prompts as token ids, and what comes back.

    plan entries --Prompts.encode--> token ids --requests_of_job--> Request --engine--> Answer | Failure

`tinyr1.sampling.vllm` and `tinyr1.sampling.endpoint` are the engines.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from jinja2 import TemplateError

from tinyr1.core import prompts
from tinyr1.core.artifact import digest
from tinyr1.core.checkpoints import TOKENIZER_FILES
from tinyr1.core.errors import UserError
from tinyr1.core.tokenizers import load_tokenizer


@dataclass(frozen=True)
class Request:
    """One sample to draw.

    job: index of the request's job in the plan of its model. order: whatever the plan gave with the question, stored
    with the answer. sampling: temperature, top_p, max_tokens, stop, stop_token_ids and seed of the job.
    prompt: token ids for vLLM; empty for an endpoint, which renders `messages` or `text` by itself.
    """

    job: int
    question: str
    sample: int
    order: Any
    sampling: dict
    prompt: list[int] = field(default_factory=list)
    messages: list[dict] | None = None
    text: str | None = None

    @property
    def seed(self) -> int | None:
        """The job's seed plus the sample's index, as vLLM numbers the n samples of one request; None without a seed."""
        seed = self.sampling["seed"]
        return None if seed is None else seed + self.sample


@dataclass(frozen=True)
class Answer:
    """One finished sample.

    n_tokens: generated tokens, None where an endpoint does not count them. finish: "stop", "length", or an endpoint's
    own word. seed: None where the sample had no seed of its own. n_prompt: tokens of the prompt, None where nobody
    counts them. dollars: what it cost, None where the plan has no price.
    """

    text: str
    n_tokens: int | None
    finish: str
    seed: int | None
    n_prompt: int | None = None
    dollars: float | None = None


Kind = Literal["passing", "own", "too_long", "refused", "fatal", "given_up", "budget"]


@dataclass(frozen=True)
class Failure:
    """The reason why a request has no answer.

    kind: "passing" where the same request may have an answer at another moment; "own" where the question is at fault,
    "too_long" where it does not fit into the server's context; "refused" where the model or a filter declines it;
    "fatal" where every other request would fail for the same reason; "given_up" and "budget" where it was not sent.
    sent: what came in place of an answer, with a finish reason that is a failure's; None: nothing came.
    """

    reason: str
    kind: Kind = "passing"
    sent: Answer | None = None


GIVEN_UP = Failure("not asked: the endpoint was given up after the failures above", "given_up")
BUDGET = Failure("not asked: the budget is used up", "budget")


Result = tuple[Request, Answer | Failure]


class Engine(Protocol):
    """What both engines can do."""

    def answers(self, requests: Iterable[Request]) -> Iterator[Result]:
        """Yield each request with its answer or failure as it finishes, in any order."""

    def close(self) -> None:
        """Return memory and connections."""


def requests_of_job(index: int, job: dict, token_ids: list[list[int]]) -> list[Request]:
    """Requests of the job at `index`; token_ids: the prompt of each, in the job's order.

    The samples of a question stand together, so that they share its prompt in the engine's prefix cache.
    """
    requests = [
        Request(index, r["question"], r["sample"], r.get("order"), job["sampling"], ids, r.get("messages"),
                raw_prompt(r) if "prompt" in r else None)
        for r, ids in zip(job["requests"], token_ids, strict=True)
    ]  # fmt: skip
    first: dict[str, int] = {}
    for request in requests:
        first.setdefault(request.question, len(first))
    return sorted(requests, key=lambda r: first[r.question])


def tokenizer_key(folder: Path) -> str:
    """Hash of the files of a checkpoint that decide how text becomes token ids."""
    files = [folder / name for name in TOKENIZER_FILES]
    return digest([[p.name, p.read_bytes().hex()] for p in files if p.is_file()])


class Prompts:
    """Token ids of prompts. Each distinct prompt is made once for all its samples and all models with one tokenizer."""

    def __init__(self) -> None:
        self.tokenizers: dict[str, Any] = {}
        self.token_ids: dict[tuple[str, str], list[int]] = {}

    def encode(self, folder: Path, requests: list[dict]) -> list[list[int]]:
        """Token ids for each request of the plan, made with the tokenizer and chat template of the checkpoint `folder`.

        UserError when the tokenizer cannot be loaded, has no chat template, or when the template refuses the messages.
        """
        key, tokenizer = self._tokenizer(folder)
        if tokenizer.chat_template is None and any("messages" in r for r in requests):
            raise UserError(
                f"{folder}: the tokenizer has no chat template, and the protocol asks with messages; put the model's "
                "chat_template.jinja into the folder, or use a protocol with raw prompts"
            )
        return [self._ids(key, tokenizer, r) for r in requests]

    def text(self, folder: Path, request: dict) -> str:
        """The prompt of one request as the model sees it, special tokens included."""
        (ids,) = self.encode(folder, [request])
        return self._tokenizer(folder)[1].decode(ids)

    def _tokenizer(self, folder: Path) -> tuple[str, Any]:
        key = tokenizer_key(folder)
        if key not in self.tokenizers:
            self.tokenizers[key] = load_tokenizer(folder)
        return key, self.tokenizers[key]

    def _ids(self, key: str, tokenizer: Any, request: dict) -> list[int]:
        text = json.dumps([request.get("messages"), request.get("prompt"), request["open_think"]])
        if (key, text) not in self.token_ids:
            try:
                self.token_ids[key, text] = encode_request(tokenizer, request)
            except TemplateError as error:  # a template may refuse a system turn, or turns in this order
                raise UserError(f"{request['question']}: the model's chat template refuses it: {error}") from error
        return self.token_ids[key, text]


def encode_request(tokenizer: Any, request: dict) -> list[int]:
    """Token ids of one request of the plan.

    Special tokens that a message spells are text. In a raw prompt they are tokens, and it gets the tokenizer's own BOS,
    as in an engine that takes a string; a prompt that spells BOS out therefore has it twice, as in the released AIME
    runs (`docs/fidelity.md §4.2`).
    """
    if "messages" in request:
        return prompts.encode_messages(tokenizer, request["messages"], request["open_think"])
    return tokenizer.encode(raw_prompt(request))


def raw_prompt(request: dict) -> str:
    """The text of a request without messages; with `open_think` it ends in the opened think tag."""
    text, opened = request["prompt"], f"{prompts.THINK_OPEN}\n"
    return text if not request["open_think"] or text.endswith(opened) else text + opened
