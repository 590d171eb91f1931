"""What a server may be asked: requests and tokens a minute with a clock of the test, and dollars."""

import threading
from dataclasses import replace

import pytest
from plans import SAMPLING
from served import Served, completion

from tinyr1.sampling import limits
from tinyr1.sampling.endpoint import Endpoint
from tinyr1.sampling.requests import Answer, Failure, Request


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now, self.lock = 1000.0, threading.Lock()

    def time(self):
        return self.now

    def sleep(self, seconds):
        with self.lock:
            self.now += seconds


def request(i=0, content="2 + 2?", max_tokens=24):
    sampling = SAMPLING | {"max_tokens": max_tokens}
    return Request(0, f"q{i}", 0, None, sampling, messages=[{"role": "user", "content": content}])


def pace(requests=None, tokens=None):
    clock = Clock()
    return limits.Pace(requests, tokens, clock.time, clock.sleep), clock


def most_in_a_minute(moments, amounts):
    """The largest sum of amounts in any 60 seconds."""
    return max(sum(a for m, a in zip(moments, amounts, strict=True) if start <= m < start + 60) for start in moments)


def test_no_minute_has_more_requests_than_allowed_and_none_is_wasted():
    paced, clock = pace(requests=10)
    moments = []
    for _ in range(95):
        paced.take(100)
        moments.append(clock.now)
    assert most_in_a_minute(moments, [1] * 95) == 10
    assert moments[-1] - moments[0] == pytest.approx(9 * 60), "95 requests are ten minutes' worth"


def test_tokens_are_counted_as_they_were_and_not_as_they_were_feared():
    paced, clock = pace(tokens=1000)
    first = paced.take(900)
    paced.settle(first, 100)
    moments = []
    for _ in range(40):
        taken = paced.take(900)
        paced.settle(taken, 100)
        moments.append(clock.now)
    assert most_in_a_minute(moments, [100] * 40) == 1000
    assert clock.now - 1000 == pytest.approx(4 * 60)


def test_a_request_above_the_limit_waits_for_an_empty_minute_and_not_for_ever():
    paced, clock = pace(tokens=1000)
    paced.take(5000)
    paced.take(5000)
    assert clock.now == 1060


def test_a_failed_request_takes_no_tokens():
    paced, clock = pace(tokens=1000)
    for _ in range(50):
        paced.settle(paced.take(1000), None)
    assert clock.now == 1000


def test_a_pause_holds_every_request_back():
    paced, clock = pace()
    paced.hold(30)
    paced.hold(10)
    paced.take(1)
    assert clock.now == 1030


def test_without_limits_nothing_waits():
    paced, clock = pace()
    for _ in range(1000):
        paced.take(10**9)
    assert clock.now == 1000


def test_threads_share_one_pace():
    paced, clock = pace(requests=5)
    threads = [threading.Thread(target=lambda: [paced.take(1) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert clock.now - 1000 >= 7 * 60, "40 requests at 5 a minute"


def test_a_served_model_is_asked_at_its_pace():
    with Served() as server:
        engine, clock = Endpoint(server.settings(), {"requests_per_minute": 6}), Clock()
        engine.pace.clock, engine.pace.sleep = clock.time, clock.sleep
        results = list(engine.answers(request(i) for i in range(20)))
        engine.close()
    assert all(isinstance(result, Answer) for _, result in results)
    assert clock.now - 1000 >= 3 * 60


# --- dollars --------------------------------------------------------------------------------------------------

PRICE = {"input": 1.0, "output": 10.0}  # 24 tokens of an answer cost 240 millionths of a dollar, its prompt at most 70


def answers(server, budget, n=20, price=PRICE):
    engine = Endpoint(server.settings(), {"price": price, "budget": budget})
    results = list(engine.answers(request(i) for i in range(n)))
    engine.close()
    return [result for _, result in results if isinstance(result, Answer)], engine, results


@pytest.mark.parametrize("tokens", [3, 24])
def test_a_budget_is_never_exceeded_and_nearly_used_up(tokens):
    with Served(says=lambda prompt, times: completion("4", usage=(7, tokens)), delay=0.02) as server:
        budget = 20 * 100e-6 if tokens == 3 else 20 * 125e-6
        done, engine, results = answers(server, budget, n=60)
    assert len(results) == 60
    assert engine.purse.paid == pytest.approx(sum(answer.dollars for answer in done))
    assert budget - 310e-6 < engine.purse.paid <= budget, "less than the dearest answer is left"
    unasked = [result for _, result in results if isinstance(result, Failure)]
    assert {result.kind for result in unasked} == {"budget"}
    assert server.asked.total() == len(done) == 60 - len(unasked)
    assert engine.purse.aside == pytest.approx(0)


def test_a_budget_below_the_dearest_answer_asks_nothing():
    with Served() as server:
        done, _, results = answers(server, 100e-6)
    assert (done, server.attempts, len(results)) == ([], 0, 20)


def test_failures_cost_nothing_that_is_known_and_give_back_what_was_set_aside():
    with Served(lambda n: "400" if n % 2 else None, says=lambda prompt, times: completion("4")) as server:
        done, engine, _ = answers(server, None)
    assert len(done) == 10
    assert engine.purse.paid == pytest.approx(10 * 37e-6)
    assert engine.purse.aside == pytest.approx(0)


def test_an_answer_whose_tokens_nobody_counts_is_not_free():
    purse = limits.Purse(PRICE, 1.0)
    answer = Answer("x" * 400, None, "stop", None)
    assert purse.cost(request(), answer) > purse.cost(request(), replace(answer, n_tokens=100, n_prompt=20))


def test_without_a_price_nothing_is_counted():
    with Served() as server:
        done, engine, _ = answers(server, None, price=None)
    assert {answer.dollars for answer in done} == {None}
    assert engine.purse.paid == 0
