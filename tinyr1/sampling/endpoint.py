r"""The engine for a served model: requests go to a server that speaks OpenAI's API, several at a time.

    request --Purse: is there money?--> thread --Pace: its turn--> one attempt --replies--> Answer | Failure
                                          ^---- backs off while the failure may pass ------------/
                                          answers, failures --> the caller, each as it arrives

`tinyr1.sampling.replies` reads what comes back. An answer is kept whatever its server forgets to say about it.
"""

import email.utils
import os
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

from tinyr1.core import jsonl
from tinyr1.core.errors import UserError
from tinyr1.sampling import replies
from tinyr1.sampling.limits import Pace, Purse, prompt_bytes, tokens_of
from tinyr1.sampling.requests import BUDGET, GIVEN_UP, Answer, Failure, Request, Result

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds between two attempts where the server names none
LONGEST_WAIT = 900.0  # seconds that a server may ask for; it is unavailable if it asks for more
WITHOUT_LIST = (403, 404, 405, 501)  # HTTP status of servers that do without a list of their models


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
        self.limit_name = settings.get("max_tokens_name") or replies.LIMITS[0]
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
            body, _ = jsonl.parse(patient.models.with_raw_response.list().content)
        except openai.APIStatusError as error:
            if error.status_code in WITHOUT_LIST:
                return  # an endpoint may do without the list
            told = replies.failure_of(error.status_code, error.response.content, self.limit_name)
            raise UserError(f"engine.base_url: {url} does not answer: {told.reason}") from error
        except openai.APIConnectionError as error:
            raise UserError(f"engine.base_url: {url} does not answer: {_cause(error)}") from error
        served = body.get("data") if isinstance(body, Mapping) else None
        if not isinstance(served, list) or not all(isinstance(one, Mapping) and "id" in one for one in served):
            raise UserError(
                f"engine.base_url: {url} is no OpenAI-compatible API: {url}/models holds no list of models; the URL "
                "usually ends in /v1"
            )
        names = [str(one["id"]) for one in served]
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
        sent: Answer | None = None
        for attempt in range(retries + 1):
            taken = self.pace.take(prompt_bytes(request) + request.sampling["max_tokens"])
            result, pause = self._attempt(request)
            answer = result.sent if isinstance(result, Failure) else result
            sent = answer or sent  # what an earlier attempt wrote is not lost
            self.pace.settle(taken, (sum(tokens_of(request, answer)) or None) if answer else None)
            if not isinstance(result, Failure) or result.kind != "passing" or attempt == retries:
                break
            if pause is None:
                self.pace.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt) * random.uniform(0.75, 1))
            elif pause > LONGEST_WAIT:
                break
            else:
                self.pace.hold(pause)  # `take` waits, here and in the other threads
        return replace(result, sent=sent) if isinstance(result, Failure) else result

    def _attempt(self, request: Request) -> tuple[Answer | Failure, float | None]:
        """(what one attempt gives, the seconds that the server asks to wait before the next one)."""
        import openai

        try:
            return replies.read_body(self._send(request), request, self.limit_name), None
        except openai.APIStatusError as error:
            told = replies.failure_of(error.status_code, error.response.content, self.limit_name)
            return told, retry_after(error.response.headers, time.time())
        except openai.APIConnectionError as error:  # time-outs are among them
            return Failure(_cause(error)), None

    def _send(self, request: Request) -> bytes:
        """The body of the server's reply. The client would read it less carefully than `tinyr1.sampling.replies`."""
        sampling = request.sampling
        options: dict[str, Any] = {name: sampling[name] for name in ("temperature", "top_p")}
        options |= {"model": self.settings["model"]}
        options |= {"stop": sampling["stop"]} if sampling["stop"] else {}
        options |= {} if request.seed is None else {"seed": request.seed}
        if sampling["stop_token_ids"]:  # beyond OpenAI's own API; vLLM and SGLang know it
            options["extra_body"] = {"stop_token_ids": sampling["stop_token_ids"]}
        if request.messages is not None:
            options[self.limit_name] = sampling["max_tokens"]
            chat: Any = self.client.chat.completions  # its messages are typed key by key; those of a plan are JSON
            return chat.with_raw_response.create(messages=request.messages, **options).content
        options["max_tokens"] = sampling["max_tokens"]  # raw prompts know no other name
        return self.client.completions.with_raw_response.create(prompt=request.text, **options).content


def _cause(error: Exception) -> str:
    """A failed connection in words: the client's own name for it, and what lies behind that."""
    behind = f" ({error.__cause__})" if error.__cause__ and str(error.__cause__) else ""
    return f"{type(error).__name__}: {error}{behind}"


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
        elif result.kind == "own" and not self.answered and request.question not in self.refused:
            # Before any answer, HTTP 400 may mean that the server takes none of our requests. All samples of one
            # question count as one, because they fail together.
            self.refused.add(request.question)
            self.in_row += 1


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
