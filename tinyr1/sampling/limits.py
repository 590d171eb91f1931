r"""What a server may be asked: so many requests and tokens a minute, and so many dollars.

    worker thread --Pace.take: waits for its turn--> request --> answer --Pace.settle: its true tokens-->
    main thread ---Purse.affords: room for the dearest answer?--> submits the request --> answer --Purse.pay-->

A plan without limits (see `tinyr1.sampling.process`) has a Pace that never waits and a Purse that is never empty.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tinyr1.sampling.requests import Answer, Request

MINUTE = 60.0  # seconds
MILLION = 1e6
# Bytes of text that one token has at least, for a server that counts no tokens. English has four, formulas three.
BYTES_PER_TOKEN = 2
FRAME = 64  # tokens that a chat template adds to a message, at most


@dataclass
class Spent:
    """An amount that was taken from a window: requests or tokens, and when."""

    when: float
    amount: float


@dataclass
class Window:
    """The amounts of the last minute, which may sum up to `limit`; None: there is no limit."""

    limit: float | None
    entries: deque[Spent] = field(default_factory=deque)

    def wait(self, now: float, amount: float) -> float:
        """Seconds until `amount` fits. An amount above the limit fits into an empty window, or it would never fit."""
        while self.entries and self.entries[0].when <= now - MINUTE:
            self.entries.popleft()
        if self.limit is None:
            return 0.0
        excess, wait = sum(entry.amount for entry in self.entries) + amount - self.limit, 0.0
        for entry in self.entries:  # the oldest leaves first
            if excess <= 0:
                break
            excess, wait = excess - entry.amount, entry.when + MINUTE - now
        return wait

    def add(self, now: float, amount: float) -> Spent:
        """Take an amount; the entry may be corrected later."""
        self.entries.append(Spent(now, amount))
        return self.entries[-1]


class Pace:
    """Makes threads wait for their turn: requests and tokens of the last minute, and pauses that the server asks for.

    Nobody knows the tokens of an answer before it is there, so each request takes those of the mean answer so far (the
    longest one before the first has come), and `settle` corrects them.
    """

    def __init__(
        self, requests_per_minute: int | None, tokens_per_minute: int | None,
        clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self.requests, self.tokens = Window(requests_per_minute), Window(tokens_per_minute)
        self.clock, self.sleep, self.lock = clock, sleep, threading.Lock()
        self.held_until, self.settled, self.total = 0.0, 0, 0

    def take(self, longest: int) -> Spent:
        """Wait until one more request may be sent; `longest` is the most tokens that it can take."""
        while True:
            with self.lock:
                now, expected = self.clock(), self.total / self.settled if self.settled else longest
                wait = max(self.held_until - now, self.requests.wait(now, 1), self.tokens.wait(now, expected))
                if wait <= 0:
                    self.requests.add(now, 1)
                    return self.tokens.add(now, expected)
            self.sleep(wait)

    def settle(self, taken: Spent, tokens: int | None) -> None:
        """Put the tokens that a request really took in the place of those that were expected; None: it failed."""
        with self.lock:
            taken.amount = tokens or 0
            if tokens is not None:
                self.settled, self.total = self.settled + 1, self.total + tokens

    def hold(self, seconds: float) -> None:
        """Send nothing for so long, because the server asked for it."""
        with self.lock:
            self.held_until = max(self.held_until, self.clock() + seconds)


class Purse:
    """Dollars: what answers cost, and whether the budget has room for one more request at its dearest.

    The dearest case of every request in flight is set aside, so the budget is never exceeded by answers that arrive.
    price: dollars per million tokens, `input` and `output`; None: nothing is counted. budget: dollars; None: no end.
    """

    def __init__(self, price: dict | None, budget: float | None) -> None:
        self.counts, self.budget = price is not None, budget
        self.price = price or {"input": 0.0, "output": 0.0}
        self.paid, self.aside = 0.0, 0.0

    def dearest(self, request: Request) -> float:
        """The most that a request can cost: a token for each byte of its prompt, and the longest answer."""
        return self._dollars(prompt_bytes(request) + FRAME, request.sampling["max_tokens"])

    def cost(self, request: Request, answer: Answer) -> float:
        """What an answer cost."""
        return self._dollars(*tokens_of(request, answer))

    def _dollars(self, n_prompt: int, n_tokens: int) -> float:
        return (n_prompt * self.price["input"] + n_tokens * self.price["output"]) / MILLION

    def affords(self, request: Request) -> bool:
        """Whether the budget has room for a request beside those in flight."""
        return self.budget is None or self.paid + self.aside + self.dearest(request) <= self.budget

    def reserve(self, request: Request) -> None:
        """Set the dearest case of a request aside."""
        self.aside += self.dearest(request)

    def pay(self, request: Request, cost: float) -> None:
        """Replace what was set aside for a request by what its answer cost; 0 where none came."""
        self.aside -= self.dearest(request)
        self.paid += cost


def tokens_of(request: Request, answer: Answer) -> tuple[int, int]:
    """Tokens of the prompt and of the answer; where the server did not count them, a generous guess."""
    written = len(answer.text.encode("utf-8", "replace")) // BYTES_PER_TOKEN
    asked = prompt_bytes(request) // BYTES_PER_TOKEN + FRAME
    n_prompt, n_tokens = answer.n_prompt, answer.n_tokens
    return asked if n_prompt is None else n_prompt, written if n_tokens is None else n_tokens


def prompt_bytes(request: Request) -> int:
    """Bytes of the text of a request's messages, or of its raw prompt."""
    texts = [str(m["content"]) for m in request.messages] if request.messages is not None else [request.text or ""]
    return sum(len(text.encode("utf-8", "replace")) for text in texts)
