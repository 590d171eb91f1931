"""The bar counts its ETA from the first finished piece, and names what is done while nothing can be counted."""

import pytest

from tinyr1.core import launch, progress


@pytest.fixture
def events(tmp_path, monkeypatch):
    """Call it for the pictures that a headless run has emitted so far."""
    path = tmp_path / "events.txt"
    monkeypatch.setenv(progress.EVENTS, str(path))
    return lambda: path.read_bytes().decode().split("\r")[:-1]


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until `clock.now` is set."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


def test_the_eta_counts_from_the_first_finished_piece_and_not_from_the_start(events, clock):
    bar = progress.Bar("sampling", "answer")
    for now, done in ((1100, 1), (1102, 3), (1110, 11)):  # an engine of 100 s, then an answer each second
        clock.now = float(now)
        bar.update(done, 301)
    first, second, third = events()
    assert "1/301 [01:40<?" in first, "one piece is no rate"
    assert "3/301 [01:42<04:58, " in second
    assert "11/301 [01:50<04:50, " in third


def test_the_eta_follows_a_change_of_the_rate(events, clock):
    bar = progress.Bar("math", "step")
    for second in range(601):  # a step each second, then one in ten seconds
        clock.now = 1000.0 + second
        bar.update(1 + min(second, 300) + max(0, second - 300) // 10, 1000)
    pictures = events()
    assert "301/1000 [05:00<11:39, " in pictures[300]
    assert "331/1000 [10:00<1:51:30, " in pictures[600]
    clock.now += 600
    bar.update(331, 1000)  # nothing for ten minutes
    assert "331/1000 [20:00<" in events()[-1]
    assert "20:00<1:51:30" not in events()[-1]


def test_what_is_started_and_saved_is_named_with_the_time_it_takes(events, clock):
    bar = progress.Bar("math", "step")
    for now, news in ((1012, None), (1020, (0, 5, "")), (1030, (4, 5, "loss 1")), (1040, (5, 5, "loss 1"))):
        clock.now = float(now)
        launch._show(bar, news, "loading the model", "saving the model")
    started, still, counted, saved = events()
    assert started == "  math: loading the model, 00:12"
    assert still == "  math: loading the model, 00:20"
    assert "4/5" in counted
    assert saved == "  math: 100 %, saving the model, 00:40"


def test_a_bar_is_drawn_once_a_second_at_most(events, clock):
    bar = progress.Bar("grading", "answer")
    for i in range(1, 30):
        clock.now += 0.1
        bar.update(i, 30)
    assert len(events()) == 3


def test_outside_of_a_headless_run_the_bar_ends_with_all_that_was_done(monkeypatch, capsys, clock):
    monkeypatch.delenv(progress.EVENTS, raising=False)
    bar = progress.Bar("merge", "M")
    for done in (1, 2, 3):
        bar.update(done, 3)
    bar.close()
    pictures = capsys.readouterr().err.split("\r")
    assert "1/3" in pictures[1]
    assert "3/3" in pictures[-1]
    assert pictures[-1].endswith("\n")
