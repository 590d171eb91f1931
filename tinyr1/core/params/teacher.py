"""Block of a params file: the model that writes reasoning traces for the training questions (paper §2.1)."""

from collections.abc import Iterator
from typing import Literal

from pydantic import model_validator

from tinyr1.core.params.blocks import Block, Count, Positive, PositiveOrZero, PositiveShare
from tinyr1.core.params.evaluation import EndpointEngine, Engine, VllmEngine

OWN_BACKBONE = "backbone"


class Price(Block):
    """What a served model costs, in dollars per million tokens."""

    input: PositiveOrZero
    """Dollars per million tokens of the prompt. Choice."""
    output: PositiveOrZero
    """Dollars per million tokens of the answer, reasoning included. Choice."""


class Teacher(Block):
    """The model that writes a trace for each question of a source with `traces`, and which of its samples is kept."""

    engine: Engine
    """What asks the teacher: a server that runs already, or vLLM in a process of its own. Choice."""
    model: str | None
    """The checkpoint that vLLM loads: a Hugging Face id, a folder (relative to the repository), or `backbone`, the
    run's own; null for an endpoint, whose `engine.model` names it. Paper §2.1: DeepSeek-R1."""
    revision: str | None
    """Commit of a Hugging Face model; null: the newest. Choice."""
    temperature: PositiveOrZero
    """Temperature of sampling. The paper names none; DeepSeek's advice for R1: 0.6 (docs/fidelity.md §1.3)."""
    top_p: PositiveShare
    """Probability mass of the tokens that are drawn from. The paper names none; DeepSeek's advice for R1: 0.95
    (docs/fidelity.md §1.3)."""
    max_tokens: Count
    """Longest answer in tokens, reasoning included; a longer one is cut off and gives no trace. Choice."""
    samples: Count
    """Answers to each question among which `choose` takes one. Choice: the paper names none."""
    attempts: Count
    """How often each of the samples is drawn at most: one that was cut off, refused, or came without reasoning is drawn
    again. Raise it in a finished run to ask again for those alone; 1: never again. Choice."""
    choose: Literal["first", "shortest_correct", "majority"]
    """`first`: the first sample that the domain's grader accepts, and the next one is asked for only where none was;
    `shortest_correct`: the shortest of those that it accepts; `majority`: the first with the answer that most samples
    give, if the grader accepts it. Where there is no answer to compare with, every complete sample counts as accepted.
    Choice."""
    requests_per_minute: Count | None
    """Requests that the server is sent in any 60 seconds; null: no limit. Choice."""
    tokens_per_minute: Count | None
    """Tokens, of prompts and answers, that the requests of any 60 seconds may take; null: no limit. Choice."""
    price: Price | None
    """What the served model costs; null: nothing is counted. Choice."""
    budget: Positive | None
    """Dollars that the traces of all domains may cost together. Asking stops before an answer could exceed it, and goes
    on when it is raised. Null: no end. Choice."""

    @model_validator(mode="after")
    def _parts_fit(self) -> "Teacher":
        if problems := list(self._problems()):
            raise ValueError("\n".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        if isinstance(self.engine, VllmEngine):
            yield from self._problems_with_vllm(self.engine)
        else:
            yield from self._problems_with(self.engine)

    def _problems_with_vllm(self, engine: VllmEngine) -> Iterator[str]:
        if self.model is None:
            yield f"model: is null, and vLLM needs a checkpoint; give a hub id, a folder, or {OWN_BACKBONE}"
        if self.model == OWN_BACKBONE and self.revision is not None:
            yield f"revision: {self.revision!r} has no effect on the run's own {OWN_BACKBONE}; set it to null"
        if self.max_tokens >= engine.max_model_len:
            room = f"max_model_len ({engine.max_model_len})"
            yield f"max_tokens: {self.max_tokens} leaves no room for the prompt in {room}; lower it"
        for name in ("requests_per_minute", "tokens_per_minute", "price", "budget"):
            if getattr(self, name) is not None:
                yield f"{name}: has no effect on vLLM in a process of this machine; set it to null"

    def _problems_with(self, engine: EndpointEngine) -> Iterator[str]:
        for name in ("model", "revision"):
            if getattr(self, name) is not None:
                yield f"{name}: has no effect on an endpoint, which serves {engine.model!r}; set it to null"
        if self.budget is not None and self.price is None:
            yield f"budget: {self.budget:g} dollars cannot be kept without a price; give input and output"
