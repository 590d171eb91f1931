r"""The engine for a served model: requests go to a server that speaks OpenAI's API, several at a time.

    request --Purse: is there money?--> thread --Pace: its turn--> one attempt --read_reply--> Answer | Failure
                                          ^---- backs off while the failure may pass ---------------/
                                          answers, failures --> the caller, each as it arrives

An answer is kept whatever its server forgets to say about it: usage, finish reason, a message in parts. What is no
answer is a Failure of one of the kinds that `tinyr1.sampling.requests.Failure` lists.
"""

import email.utils
import json
import os
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

from tinyr1.core.errors import UserError
from tinyr1.core.prompts import THINK_CLOSE, THINK_OPEN
from tinyr1.sampling.limits import Pace, Purse, prompt_bytes, tokens_of
from tinyr1.sampling.requests import BUDGET, GIVEN_UP, Answer, Failure, Request, Result

PASSING = (408, 409, 429)  # HTTP status that another moment may change, as those from 500 on
FATAL = (401, 402, 403, 404)  # key, balance, permission, model: every request would meet them
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds between two attempts where the server names none
LONGEST_WAIT = 900.0  # seconds that a server may ask for; it is unavailable if it asks for more
# Finish reasons of generations that the server gave up: vLLM and SGLang, others, DeepSeek's API.
GAVE_UP = ("abort", "error", "cancelled", "insufficient_system_resource")
# How a refusal to process a question is worded where it comes as HTTP 400: Azure's code, DeepSeek's message.
REFUSALS = ("content_filter", "content exists risk")
UNKNOWN = "unknown"  # the finish reason of an answer whose server gave none


class Endpoint:
    """A served model. A request whose retries are used up becomes a Failure.

    The server renders messages with its own template, so whether the think tag is opened is the server's choice. After
    `patience` failures in a row, or a refusal that would meet every request, the server gets no further requests. What
    concerns one question alone, such as a prompt too long for the server, does not count once anything was answered.

    settings: the plan's engine block. limits: requests_per_minute, tokens_per_minute, price and budget, each of which
    may be None (see `tinyr1.sampling.limits`); None: there are none.
    """

    def __init__(self, settings: dict, limits: dict | None = None) -> None:
        import openai

        variable = settings["api_key_variable"]
        if variable and not os.environ.get(variable):
            raise UserError(f"engine.api_key_variable: the environment has no {variable}; export it, or set null")
        self.settings, limits = settings, limits or {}
        self.patience = max(8, 2 * settings["concurrency"])
        self.pace = Pace(limits.get("requests_per_minute"), limits.get("tokens_per_minute"))
        self.purse = Purse(limits.get("price"), limits.get("budget"))
        # The client would retry by itself, but it takes an error with status 200 for a reply, does not count its
        # attempts as requests, and pauses one thread where the server asks for a pause of all.
        self.client = openai.OpenAI(
            base_url=settings["base_url"], api_key=os.environ[variable] if variable else "none",
            timeout=settings["timeout_seconds"], max_retries=0,
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
            patient = self.client.with_options(max_retries=self.settings["retries"])
            reply = patient.models.with_raw_response.list()
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

        Requests that are not sent, because the server is given up or the budget is used up, come last.
        """
        queue = iter(requests)
        following = next(queue, None)
        trouble = Trouble(self.patience)
        with ThreadPoolExecutor(self.settings["concurrency"]) as pool:
            flying: dict[Future, Request] = {}
            while True:
                while following and len(flying) < self.settings["concurrency"] and not trouble.is_too_much():
                    if not self.purse.affords(following):
                        break  # those in flight may turn out cheaper than what is set aside for them
                    self.purse.reserve(following)
                    flying[pool.submit(self.ask, following)] = following
                    following = next(queue, None)
                if not flying:
                    break
                for future in wait(flying, return_when=FIRST_COMPLETED).done:
                    request = flying.pop(future)
                    result = self._paid(request, future.result())
                    trouble.see(request, result)
                    yield request, result
        why = GIVEN_UP if trouble.is_too_much() else BUDGET
        while following:
            yield following, why
            following = next(queue, None)

    def _paid(self, request: Request, result: Answer | Failure) -> Answer | Failure:
        """The result with what it cost, which the purse pays."""
        answer = result.sent if isinstance(result, Failure) else result
        cost = self.purse.cost(request, answer) if answer else 0.0
        self.purse.pay(request, cost)
        if not answer or not self.purse.counts:
            return result
        answer = replace(answer, dollars=cost)
        return replace(result, sent=answer) if isinstance(result, Failure) else answer

    def ask(self, request: Request) -> Answer | Failure:
        """The answer to one request, after as many attempts as it takes and the settings allow."""
        retries = self.settings["retries"]
        for attempt in range(retries + 1):
            taken = self.pace.take(prompt_bytes(request) + request.sampling["max_tokens"])
            result, pause = self._attempt(request)
            answer = result.sent if isinstance(result, Failure) else result
            self.pace.settle(taken, sum(tokens_of(request, answer)) if answer else None)
            if not isinstance(result, Failure) or result.kind != "passing" or attempt == retries:
                break
            if pause is None:
                self.pace.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt) * random.uniform(0.75, 1))
            elif pause > LONGEST_WAIT:
                break
            else:
                self.pace.hold(pause)  # `take` waits, here and in the other threads
        return result

    def _attempt(self, request: Request) -> tuple[Answer | Failure, float | None]:
        """(what one attempt gives, the seconds that the server asks to wait before the next one)."""
        import openai

        try:
            return read_reply(self._send(request), request), None
        except openai.APIStatusError as error:
            told = failure_of(error.status_code, str(error), str(error.code))
            return told, retry_after(error.response.headers, time.time())
        except openai.APIConnectionError as error:  # time-outs are among them
            return Failure(f"{type(error).__name__}: {error}"), None
        except ValueError as error:  # of the client, where the reply is not JSON, and of read_reply
            return Failure(f"the reply is no completion: {error}"), None

    def _send(self, request: Request) -> Any:
        """The reply of the server, as the client reads it."""
        sampling = request.sampling
        longest = self.settings.get("max_tokens_name") or "max_tokens"
        options: dict[str, Any] = {name: sampling[name] for name in ("temperature", "top_p")}
        options |= {"model": self.settings["model"], longest: sampling["max_tokens"]}
        options |= {"stop": sampling["stop"]} if sampling["stop"] else {}
        options |= {} if request.seed is None else {"seed": request.seed}
        if sampling["stop_token_ids"]:  # beyond OpenAI's own API; vLLM and SGLang know it
            options["extra_body"] = {"stop_token_ids": sampling["stop_token_ids"]}
        if request.messages is not None:
            chat: Any = self.client.chat.completions  # its messages are typed key by key; those of a plan are JSON
            return chat.create(messages=request.messages, **options)
        return self.client.completions.create(prompt=request.text, **options)


class Trouble:
    """Counts failures in a row, until they are too much to go on with the server."""

    def __init__(self, patience: int) -> None:
        self.patience, self.in_row = patience, 0
        self.answered = False
        self.refused: set[str] = set()  # questions that the server does not take

    def is_too_much(self) -> bool:
        """Whether the server is given up."""
        return self.in_row >= self.patience

    def see(self, request: Request, result: Answer | Failure) -> None:
        """Take one more result into account."""
        if self.is_too_much():
            return  # a late answer of a server that was given up does not call for further requests
        if isinstance(result, Answer) or result.kind == "refused":
            self.answered, self.in_row = True, 0
        elif result.kind == "fatal":
            self.in_row = self.patience
        elif result.kind == "passing":
            self.in_row += 1
        elif not self.answered and request.question not in self.refused:
            # Before any answer, HTTP 400 may mean that the server takes none of our requests. All samples of one
            # question count as one, because they fail together.
            self.refused.add(request.question)
            self.in_row += 1


def failure_of(status: int, message: str, code: str) -> Failure:
    """The failure that an HTTP status means, with the message and the code that came with it."""
    reason = f"HTTP {status}: {message[:300]}"
    if any(words in f"{message} {code}".lower() for words in REFUSALS):
        return Failure(reason, "refused", Answer("", 0, "content_filter", None, 0))
    if status in FATAL or code == "insufficient_quota":
        return Failure(reason, "fatal")
    return Failure(reason, "passing" if status in PASSING or status >= 500 else "own")


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that a server asks to wait; None where it does not say. now: seconds since 1970, for a date."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        return seconds if 0 <= seconds < float("inf") else None
    try:
        return max(0.0, email.utils.parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - now)
    except ValueError:
        return None


# --- replies ------------------------------------------------------------------------------------------------


def read_reply(reply: Any, request: Request) -> Answer | Failure:
    """The answer in a ChatCompletion or Completion of the client, or the reason why it holds none.

    ValueError where it is neither. The client makes its types without validation: it accepts finish reasons and fields
    of other servers, but also whatever else was sent. So all that is read here is checked here.
    """
    try:
        choice = reply.choices[0]
        text = choice.text if hasattr(choice, "text") else whole_text(choice.message)
    except (AttributeError, IndexError, TypeError) as error:
        said = getattr(reply, "error", None)
        raise ValueError(f"it says {said!r}"[:300] if said else "it holds no choice with text or message") from error
    if not isinstance(text, str | None):
        raise ValueError(f"its text is a {type(text).__name__}")
    n_tokens, finish = _count(reply, "completion_tokens"), getattr(choice, "finish_reason", None)
    if not isinstance(finish, str):  # the answer is there all the same
        full = n_tokens is not None and n_tokens >= request.sampling["max_tokens"]
        finish = "length" if full else UNKNOWN
    refusal = getattr(getattr(choice, "message", None), "refusal", None)
    answer = Answer(text or "", n_tokens, finish, request.seed, _count(reply, "prompt_tokens"))
    if finish == "content_filter" or (not text and isinstance(refusal, str) and refusal):
        sent = replace(answer, text=text or refusal or "", finish="content_filter")
        return Failure("the server ended it with 'content_filter'", "refused", sent)
    if finish in GAVE_UP:
        return Failure(f"the server ended it with {finish!r}")
    if text is None and finish != "length":
        return Failure("its message has neither content nor reasoning")
    return answer


def _count(reply: Any, name: str) -> int | None:
    """A number of tokens from the usage of a reply; None where the server does not count, or not with whole numbers."""
    value = getattr(getattr(reply, "usage", None), name, None)
    return value if type(value) is int and value >= 0 else None


def whole_text(message: Any) -> str | None:
    """All that a model wrote; None where that is nothing. Where the server cut the reasoning out, it is put back before
    its closing tag, or behind the opening one where no answer follows it. AttributeError where it is no message."""
    thoughts, content = _parts(message.content)
    apart = [getattr(message, name, None) for name in ("reasoning", "reasoning_content")]
    (reasoning, *_) = [text for text in apart if text and isinstance(text, str)] or [thoughts]
    if not reasoning:
        return content
    return f"{reasoning}\n{THINK_CLOSE}\n\n{content}" if content else f"{THINK_OPEN}\n{reasoning}"


def _parts(content: Any) -> tuple[str, Any]:
    """(reasoning, text) of a content that is a list of parts, as Mistral's models have it; else ("", content).

    A part is {type: text, text: …} or {type: thinking, thinking: parts}. TypeError where it is another thing.
    """
    if not isinstance(content, list):
        return "", content
    thoughts, texts = "", ""
    for part in content:
        if not isinstance(part, Mapping):
            raise TypeError("a part of the content is no object")
        if part.get("type") == "thinking":
            inner = part.get("thinking")
            thoughts += inner if isinstance(inner, str) else _parts(inner)[1] or ""
        elif isinstance(part.get("text"), str):
            texts += part["text"]
    return thoughts, texts
