"""The engine for a served model: requests go to a server that speaks OpenAI's API, several at a time."""

import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any

from tinyr1.core.errors import UserError
from tinyr1.core.prompts import THINK_CLOSE
from tinyr1.sampling.requests import Answer, Failure, Request, Result


class Endpoint:
    """A served model. A request whose retries are used up becomes a Failure.

    The server renders messages with its own template, so whether the think tag is opened is the server's choice. After
    `patience` failures in a row, or a refusal that would meet every request, the server gets no further requests.
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
        """Close the connections."""
        self.client.close()

    def check_served(self) -> None:
        """UserError when the address does not answer, is no such API, or does not serve the model."""
        import openai

        url, model = self.settings["base_url"], self.settings["model"]
        try:
            # The client takes a page of a web site for a list of models, so the reply is read here.
            reply = self.client.models.with_raw_response.list()
            names = [served["id"] for served in json.loads(reply.content)["data"]]
        except openai.NotFoundError:
            return  # an endpoint may do without the list
        except openai.APIError as error:
            raise UserError(f"engine.base_url: {url} does not answer: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"engine.base_url: {url} is no OpenAI-compatible API: {url}/models holds no list of models; the URL "
                "usually ends in /v1"
            ) from error
        if names and model not in names:
            raise UserError(f"engine.model: {url} does not serve {model!r}; it has {', '.join(names[:10])}")

    def answers(self, requests: Iterable[Request]) -> Iterator[Result]:
        """Yield each request with its answer or failure as it arrives, `concurrency` requests in flight.

        There are fewer results than requests when the server is given up.
        """
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
        """The answer to one request; the client retries, and waits between its attempts."""
        import openai

        sampling = request.sampling
        options: dict[str, Any] = {name: sampling[name] for name in ("temperature", "top_p", "max_tokens")}
        options |= {"model": self.settings["model"]} | ({"stop": sampling["stop"]} if sampling["stop"] else {})
        options |= {} if request.seed is None else {"seed": request.seed}
        if sampling["stop_token_ids"]:  # beyond OpenAI's own API; vLLM and SGLang know it
            options["extra_body"] = {"stop_token_ids": sampling["stop_token_ids"]}
        try:
            if request.messages is not None:
                chat: Any = self.client.chat.completions  # its messages are typed key by key; those of a plan are JSON
                return read_reply(chat.create(messages=request.messages, **options), request.seed)
            return read_reply(self.client.completions.create(prompt=request.text, **options), request.seed)
        except openai.APIStatusError as error:
            return Failure(f"HTTP {error.status_code}: {str(error)[:300]}", error.status_code in (401, 403, 404))
        except openai.APIConnectionError as error:  # time-outs are among them
            return Failure(f"{type(error).__name__}: {error}")
        except ValueError as error:  # of the client, where the reply is not JSON, and of read_reply
            return Failure(f"the reply is no completion: {error}")


def read_reply(reply: Any, seed: int | None) -> Answer:
    """The answer in a ChatCompletion or Completion of the client. ValueError where there is none.

    The client makes its types without validation: it accepts finish reasons and fields of other servers, but also
    whatever else was sent. So all that is read here is checked here.
    """
    try:
        choice, usage = reply.choices[0], reply.usage
        text = choice.text if hasattr(choice, "text") else whole_text(choice.message)
        n_tokens = usage.completion_tokens if usage else None
        finish = choice.finish_reason
    except (AttributeError, IndexError, TypeError) as error:
        raise ValueError("it holds no choice with a text or a message") from error
    if not isinstance(text, str) or not isinstance(finish, str):
        raise ValueError(f"its text is a {type(text).__name__} and its finish reason {finish!r}")
    if n_tokens is not None and (type(n_tokens) is not int or n_tokens < 0):
        raise ValueError(f"its number of tokens is {n_tokens!r}")
    return Answer(text, n_tokens, finish, seed)


def whole_text(message: Any) -> str:
    """All that a model wrote. Where the server cut the reasoning out, it is put back before its closing tag."""
    reasoning = getattr(message, "reasoning", None) or getattr(message, "reasoning_content", None)
    content = message.content or ""
    if not reasoning:
        return content
    return f"{reasoning}\n{THINK_CLOSE}\n\n{content}" if content else reasoning
