import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from processes import ended

from tinyr1.core.errors import UserError
from tinyr1.evaluate.grading import symbolic
from tinyr1.evaluate.grading.symbolic import Verifier


@pytest.fixture(scope="module")
def verifier():
    with Verifier(1, seconds=2, memory_mb=1536) as running:
        running.compare("1", "$1$")  # imports
        yield running


@pytest.mark.parametrize(
    ("gold", "text", "status"),
    [
        ("204", "\\boxed{204}", "equal"), ("204", "\\boxed{0204}", "equal"),
        ("204", "\\boxed{\\frac{408}{2}}", "equal"),
        ("204", "so $m+n=204$", "equal"), ("204", "\\boxed{205}", "different"), ("204", "no number at all", "nothing"),
    ],
)  # fmt: skip
def test_verdicts_are_math_verifys(verifier, gold, text, status):
    assert verifier.compare(gold, text).status == status


@pytest.mark.parametrize("bomb", ["\\boxed{9^{9^{9^9}}}", "\\boxed{10000000!}"])
def test_a_bomb_is_killed_in_time_and_the_next_question_is_answered(verifier, bomb):
    started = time.monotonic()
    assert verifier.compare("204", bomb).status in ("timeout", "error")
    assert time.monotonic() - started < 10
    assert verifier.compare("204", "\\boxed{204}").status == "equal"


def test_a_bomb_ends_by_itself_when_nobody_is_left_to_kill_it():
    code = (
        "from tinyr1.evaluate.grading.symbolic import Verifier\n"
        "v = Verifier(1, seconds=1)\nv.compare('1', '$1$')\nchild = v.idle.get()\n"
        "print(child.process.pid, flush=True)\n"
        "v.idle.put(child)\nchild.reply(['204', '\\\\boxed{9^{9^{9^9}}}', 'text'], 600)"
    )
    judge = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = judge.stdout.readline().strip()
    time.sleep(0.3)
    judge.kill()
    judge.wait()
    judge.stdout.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not ended(pid):
        time.sleep(0.1)
    assert ended(pid)


def test_memory_is_limited(verifier):
    verifier.compare("1", "$1$")
    child = verifier.idle.get()
    limit = next(line for line in open(f"/proc/{child.process.pid}/limits") if line.startswith("Max address space"))  # noqa: SIM115
    verifier.idle.put(child)
    assert limit.split()[3] == str(1536 << 20)


def test_it_works_from_other_threads_and_leaves_no_process(verifier):
    with Verifier(2, seconds=5) as own:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda i: own.compare("4", f"${i}$").status, range(8)))
        children = [own.idle.get() for _ in range(2)]
        pids = [child.process.pid for child in children if child]
        for child in children:
            own.idle.put(child)
    assert sorted(found) == ["different"] * 7 + ["equal"]
    assert pids
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


@pytest.mark.parametrize(("deaths", "starts"), [(1, True), (3, False)])
def test_a_child_that_is_killed_while_it_starts_is_started_again(monkeypatch, deaths, starts):
    class Killed(symbolic._Child):
        left = deaths

        def is_ready(self):
            if Killed.left:
                Killed.left -= 1
                self.process.kill()
                self.process.wait()
            return super().is_ready()

    monkeypatch.setattr(symbolic, "_Child", Killed)
    with Verifier(1, seconds=2) as own:
        if starts:
            assert own.compare("204", "\\boxed{204}").status == "equal"
        else:
            with pytest.raises(UserError, match="does not start"):
                own.compare("204", "\\boxed{204}")


@pytest.mark.parametrize(("end", "killed"), [("kill -9 $$", True), ("exit 1", False)])
def test_how_a_child_ended_is_told_though_its_output_ends_before_it(tmp_path, monkeypatch, end, killed):
    script = tmp_path / "child"
    script.write_text(f"#!/bin/sh\nexec >&-\nsleep 0.3\n{end}\n")
    script.chmod(0o755)
    monkeypatch.setattr(symbolic.sys, "executable", str(script))
    child = symbolic._Child(512, 1)
    assert not child.is_ready()
    assert child.process.poll() is None, "its output has ended and it has not"
    assert child.was_killed() == killed
    child.close()


def test_a_child_that_ends_by_itself_is_not_started_again(monkeypatch):
    started = []
    monkeypatch.setattr(symbolic, "_Child", lambda *a: started.append(1) or child)
    child = SimpleNamespace(was_killed=lambda: False, is_ready=lambda: False, close=lambda: None)
    with Verifier(1) as own, pytest.raises(UserError, match="does not start"):
        own.compare("1", "$1$")
    assert len(started) == 1


def sample(text, outcome, extracted, answer="204"):
    return {"question": "q", "sample": 0, "answer": answer, "text": text, "outcome": outcome, "extracted": extracted}


def test_disagreements_and_missing_verdicts_are_listed(verifier):
    items = [
        sample("\\boxed{204}", "correct", "204"), sample("\\boxed{205}", "wrong", "205"),
        sample("none", "no_answer", None), sample("\\boxed{\\frac{408}{2}}", "no_answer", None),
        sample("\\boxed{3} so \\boxed{204}", "correct", "204"), sample("$9^{9^{9}}$ so \\boxed{204}", "correct", "204"),
    ]  # fmt: skip
    rows = verifier.second_opinion(items)
    assert [(r["outcome"], r["math_verify"]) for r in rows] == [
        ("no_answer", "equal"), ("correct", "different"), ("correct", "skipped"),
    ]  # fmt: skip
    assert rows[1]["math_verify_extracted"] == "3,204"  # neighbouring boxes joined (docs/evaluation.md §4.2)
    assert rows[0]["tail"] == "\\boxed{\\frac{408}{2}}"
