"""What draws samples: vLLM in this process, or a served model behind an OpenAI-compatible endpoint.

Both take requests of `tinyr1.sampling.preflight` and yield (request, Answer or Failure) as each finishes.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field, ValidationError

from tinyr1.core import launch
from tinyr1.core.errors import UserError
from tinyr1.sampling.preflight import Request

if TYPE_CHECKING:
    import torch
    from vllm import SamplingParams

# What `reload_weights` raises where a checkpoint cannot take the place of the one before; a new engine is the remedy.
RELOAD_ERRORS = (RuntimeError, ValueError, KeyError, AttributeError, AssertionError, OSError)


@dataclass(frozen=True)
class Answer:
    """One finished sample.

    finish: "stop", "length", or the endpoint's own word. n_tokens: None where the endpoint does not count.
    seed: None where the sample had none of its own.
    """

    text: str
    n_tokens: int | None
    finish: str
    seed: int | None


@dataclass(frozen=True)
class Failure:
    """A request without an answer; `fatal` when every other request would meet the same."""

    reason: str
    fatal: bool = False


Result = tuple[Request, Answer | Failure]


def seed_of(request: Request) -> int | None:
    """Seed of one sample: the protocol's plus the sample's index, as vLLM numbers the n samples of one request."""
    seed = request.sampling["seed"]
    return None if seed is None else seed + request.sample


# --- vLLM ---------------------------------------------------------------------------------------------------


def vllm_options(settings: dict, path: str, seed: int, is_cpu: bool) -> dict:
    """Arguments of vllm.LLM. UserError for settings that a CPU cannot have."""
    spans = settings["tensor_parallel_size"] * settings["pipeline_parallel_size"]
    if is_cpu and spans * settings["data_parallel_size"] > 1:
        raise UserError(
            "engine: tensor_parallel_size, pipeline_parallel_size and data_parallel_size are 1 on a CPU, where "
            "one engine uses every core"
        )
    options = {
        "model": path, "dtype": "bfloat16", "seed": seed, "enable_prefix_caching": True,
        **{name: settings[name] for name in ("max_model_len", "max_num_seqs", "tensor_parallel_size",
                                             "pipeline_parallel_size", "enforce_eager")},
    }  # fmt: skip
    if settings["max_num_batched_tokens"]:
        options["max_num_batched_tokens"] = settings["max_num_batched_tokens"]
    if is_cpu:
        return options | {"distributed_executor_backend": "uni"}
    if settings["distributed_executor_backend"]:
        options["distributed_executor_backend"] = settings["distributed_executor_backend"]
    return options | {"gpu_memory_utilization": settings["gpu_memory_utilization"]}


class Vllm:
    """One engine; `load` puts another checkpoint of the same signature into it."""

    def __init__(self, settings: dict, path: str, seed: int) -> None:
        with launch.lasting_imports():
            from vllm import LLM
            from vllm.platforms import current_platform

        self.is_cpu = current_platform.is_cpu()
        # A generator of its own kills the CPU engine of vLLM 0.32; the engine's seed serves there.
        self.request_seeds = not self.is_cpu
        self.llm = LLM(**vllm_options(settings, path, seed, self.is_cpu))

    def load(self, path: str) -> None:
        """Reload the weights in place; one of RELOAD_ERRORS when that fails, and then the engine is of no more use."""
        self.llm.collective_rpc("reload_weights", kwargs={"weights_path": path})
        if self.is_cpu:
            self.llm.apply_model(repack_heads)
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("the prefix cache of the weights before could not be emptied")

    def close(self) -> None:
        """End the engine's processes and return their memory."""
        self.llm.llm_engine.engine_core.shutdown()

    def answers(self, requests: Iterable[Request]) -> Iterator[Result]:
        """Results as they finish.

        Each sample is a request of its own: vLLM hands out the samples of one request only when all of them are done,
        which would lose finished ones to a kill. They share the prompt's blocks through the prefix cache either way.
        """
        engine, waiting = self.llm.llm_engine, {}
        params: dict[tuple, SamplingParams] = {}
        for i, request in enumerate(requests):
            seed = seed_of(request) if self.request_seeds else None
            key = (request.job, seed)
            if key not in params:
                params[key] = sampling_params(request.sampling, seed)
            engine.add_request(str(i), {"prompt_token_ids": request.prompt}, params[key])
            waiting[str(i)] = (request, seed)
        while waiting:
            for output in engine.step():
                if output.finished:
                    yield self._result(*waiting.pop(output.request_id), output.outputs[0])

    @staticmethod
    def _result(request: Request, seed: int | None, output: object) -> Result:
        if output.finish_reason not in ("stop", "length"):
            return request, Failure(f"the engine ended it with {output.finish_reason!r}")
        return request, Answer(output.text, len(output.token_ids), output.finish_reason, seed)


def repack_heads(model: "torch.nn.Module") -> None:
    """On a CPU, output heads multiply by a packed copy of their weights. vLLM 0.32 renews it only for a head that the
    checkpoint lists, so a head tied to the embedding would stay that of the first checkpoint."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for head in model.modules():
        if isinstance(head, ParallelLMHead):
            head.quant_method.process_weights_after_loading(head)


def sampling_params(sampling: dict, seed: int | None) -> "SamplingParams":
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling["temperature"], top_p=sampling["top_p"], max_tokens=sampling["max_tokens"],
        stop=sampling["stop"] or None, stop_token_ids=sampling["stop_token_ids"] or None, seed=seed,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )  # fmt: skip


# --- endpoint -----------------------------------------------------------------------------------------------


class _Message(BaseModel):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(BaseModel):
    finish_reason: str
    text: str | None = None
    message: _Message | None = None


class _Usage(BaseModel):
    completion_tokens: int = Field(ge=0)


class _Reply(BaseModel):
    """What is read of a completion or chat completion."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class _Served(BaseModel):
    id: str


class _Models(BaseModel):
    """The list of models that an endpoint serves."""

    data: list[_Served]


def reply_text(choice: _Choice) -> str:
    """The whole generated text; where the server cut the reasoning out, it is put back before its closing tag."""
    if choice.message is None:
        if choice.text is None:
            raise ValueError("the reply has neither a message nor a text")
        return choice.text
    reasoning = choice.message.reasoning or choice.message.reasoning_content
    content = choice.message.content or ""
    if not reasoning:
        return content
    return f"{reasoning}\n</think>\n\n{content}" if content else reasoning


class Endpoint:
    """A served model; requests whose retries are used up become Failures.

    The server renders messages with its own template, so whether the think tag is opened is the server's choice. After
    `patience` failures in a row, or a refusal that would meet every request, nothing more is asked.
    """

    def __init__(self, settings: dict) -> None:
        import openai

        variable = settings["api_key_variable"]
        if variable and not os.environ.get(variable):
            raise UserError(f"engine.api_key_variable: the environment has no {variable}; export it, or set null")
        self.settings = settings
        self.patience = max(8, 2 * settings["concurrency"])
        self.client = openai.OpenAI(
            base_url=settings["base_url"], api_key=os.environ[variable] if variable else "none",
            timeout=settings["timeout_seconds"], max_retries=settings["retries"],
        )  # fmt: skip

    def close(self) -> None:
        self.client.close()

    def check(self) -> None:
        """The endpoint answers as one and serves the model; UserError names the models it has."""
        import openai

        url = self.settings["base_url"]
        try:
            # The client takes a page of a web site for a list of models, so the reply is read here.
            raw = self.client.models.with_raw_response.list()
            names = [model.id for model in _Models.model_validate_json(raw.content).data]
        except openai.NotFoundError:
            return  # an endpoint may do without the list
        except openai.APIError as error:
            raise UserError(f"engine.base_url: {url} does not answer: {error}") from error
        except ValidationError as error:
            raise UserError(
                f"engine.base_url: {url} is no OpenAI-compatible API: {url}/models holds no list of models; the URL "
                "usually ends in /v1"
            ) from error
        if names and self.settings["model"] not in names:
            raise UserError(
                f"engine.model: {url} does not serve {self.settings['model']!r}; "
                f"it has {', '.join(names[:10])}"
            )

    def answers(self, requests: Iterable[Request]) -> Iterator[Result]:
        """Results as they arrive, `concurrency` requests in flight; fewer than asked when the endpoint is given up."""
        queue, in_row = iter(requests), 0
        with ThreadPoolExecutor(self.settings["concurrency"]) as pool:
            flying: dict[Future, Request] = {
                pool.submit(self.ask, r): r for r in islice(queue, self.settings["concurrency"])
            }
            while flying:
                for future in wait(flying, return_when=FIRST_COMPLETED).done:
                    request, result = flying.pop(future), future.result()
                    failed = isinstance(result, Failure)
                    in_row = (self.patience if result.fatal else in_row + 1) if failed else 0
                    if in_row < self.patience and (following := next(queue, None)):
                        flying[pool.submit(self.ask, following)] = following
                    yield request, result

    def ask(self, request: Request) -> Answer | Failure:
        """One request to its end, retries and their back-off included."""
        import openai

        sampling, seed = request.sampling, seed_of(request)
        options = {name: sampling[name] for name in ("temperature", "top_p", "max_tokens")}
        options |= {"model": self.settings["model"]} | ({"stop": sampling["stop"]} if sampling["stop"] else {})
        options |= {} if seed is None else {"seed": seed}
        if sampling["stop_token_ids"]:  # beyond OpenAI's own API; vLLM and SGLang know it
            options["extra_body"] = {"stop_token_ids": sampling["stop_token_ids"]}
        try:
            if request.messages is not None:
                raw = self.client.chat.completions.with_raw_response.create(messages=request.messages, **options)
            else:
                raw = self.client.completions.with_raw_response.create(prompt=request.text, **options)
            reply = _Reply.model_validate_json(raw.content)
            choice, usage = reply.choices[0], reply.usage
            n_tokens = usage.completion_tokens if usage else None
            return Answer(reply_text(choice), n_tokens, choice.finish_reason, seed)
        except openai.APIStatusError as error:
            return Failure(f"HTTP {error.status_code}: {str(error)[:300]}", error.status_code in (401, 403, 404))
        except openai.APIConnectionError as error:  # time-outs are among them
            return Failure(f"{type(error).__name__}: {error}")
        except ValidationError as error:
            return Failure(f"the reply is no completion: {error.errors()[0]['msg']}")
        except ValueError as error:
            return Failure(str(error))
