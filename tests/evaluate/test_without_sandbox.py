"""Benchmarks of numbers and letters are graded on a machine that cannot confine programs."""

import pytest
from test_grades import AIME, TEXTS, grade_quiz, quiz

from tinyr1.core import config
from tinyr1.data.benchmarks import load_all
from tinyr1.evaluate import stage
from tinyr1.sandbox.forkserver import Refused
from tinyr1.sandbox.runner import Runner

LCB = [{
    "question_id": "p", "question_title": "", "question_content": "Add one.", "difficulty": "easy", "starter_code": "",
    "contest_date": "2024-05-05T00:00:00", "public_test_cases": '[{"input": "1", "output": "2"}]',
    "private_test_cases": "[]", "metadata": "{}",
}]  # fmt: skip


@pytest.fixture
def starts(tmp_path, monkeypatch):
    """How often a sandbox was started; it never works here."""
    monkeypatch.setenv("TINYR1_HOME", str(tmp_path / "runs"))
    monkeypatch.setenv("TINYR1_PARAMS", str(tmp_path))
    started = []

    def start_server(self):
        started.append(1)
        raise Refused("generated programs are not run without isolation")

    monkeypatch.setattr(Runner, "start_server", start_server)
    return started


def test_aime_alone_needs_no_sandbox(tmp_path, starts):
    quiz(tmp_path, AIME)
    cfg = config.load("quiz")
    asked = {name: one.questions for name, one in load_all(cfg).items()}
    assert stage.self_test(cfg, asked)["not_run"].eq(0).all()
    assert stage.describe_isolation(cfg) == {"isolation": "not used: no benchmark asks for programs"}
    assert [line["outcome"] for line in grade_quiz(cfg)] == ["correct", "wrong"] * 4
    assert not starts


def test_where_programs_are_asked_for_the_machine_is_refused_before_anything_is_sampled(tmp_path, starts):
    quiz(tmp_path, AIME, LCB)
    cfg = config.load("quiz")
    asked = {name: one.questions for name, one in load_all(cfg).items()}
    with pytest.raises(Refused):
        stage.self_test(cfg, asked)
    with pytest.raises(Refused):
        stage.describe_isolation(cfg)
    assert [line["outcome"] for line in grade_quiz(cfg)] == ["correct", "wrong"] * 4, "no program was answered"
    with pytest.raises(Refused):
        grade_quiz(cfg, TEXTS | {("lcb", "p", 0): "</think>```python\nprint(2)\n```"})
    assert len(starts) == 3
