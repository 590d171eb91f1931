"""What watches a training: its log, a stop by NaN or a jump, the wish to end early, and kills to the bit."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from checkpoints import Shape, experts
from test_packing import LENGTHS, make_model, stored
from test_ranks import CHUNK, losses, make_plan, put_rows, weights

from tinyr1.branch import monitor, packing
from tinyr1.core import jsonl
from tinyr1.core.config import ROOT
from tinyr1.plan import hours, shapes


def state_at(step, of=100):
    return SimpleNamespace(global_step=step, max_steps=of, is_world_process_zero=True)


@pytest.fixture
def data(tmp_path):
    parts = [stored(tmp_path / "math")]
    packing.write_layout(tmp_path / "layout", parts, 32, 3)
    return packing.PackedSequences(tmp_path / "layout", parts)


def told(guard, step, loss, norm=1.0, sequences=((0, 1.0),)):
    for index, value in sequences:
        guard.saw(index, torch.tensor(value))
    guard.on_log(None, state_at(step), None, {"loss": loss, "grad_norm": norm, "learning_rate": 1e-5})


@pytest.mark.parametrize(
    ("loss", "norm", "sequences", "what", "blamed"),
    [
        (math.nan, 1.0, [(0, 5.0), (1, math.nan)], "the loss is nan", 1),
        (math.inf, 1.0, [(2, math.inf), (1, 3.0)], "the loss is inf", 2),
        (2.0, math.nan, [(0, 1.0), (1, 7.0), (packing.IDLE, 0.0)], "the gradient norm is nan", 1),
    ],
)
def test_a_loss_that_is_no_number_stops_the_training_with_the_rows_of_its_sequence(
    data, loss, norm, sequences, what, blamed
):
    guard = monitor.Guard(data, None)
    told(guard, 1, 2.0)
    rows = ", ".join(f"math {row}" for _, row in data.rows_of(blamed))
    with pytest.raises(monitor.TrainingStopped, match=re.escape(f"step 2: {what}; the sequence holds the rows {rows}")):
        told(guard, 2, loss, norm, sequences)


def test_a_jump_of_the_loss_stops_the_training_only_where_the_params_ask_for_it(data):
    usual = [2.0, 2.1, 1.9] * 5
    for spike, course in ((None, [*usual, 50.0]), (3, [*usual, 5.0]), (3, [50.0, *usual])):
        guard = monitor.Guard(data, spike)
        for step, loss in enumerate(course, 1):
            told(guard, step, loss)
    guard = monitor.Guard(data, 3)
    for step, loss in enumerate(usual, 1):
        told(guard, step, loss)
    with pytest.raises(monitor.TrainingStopped, match=r"loss is 6\.5, its median before was 2 \(trainer.spike: 3\)"):
        told(guard, 16, 6.5)


def test_a_file_or_a_signal_ends_a_training_with_a_checkpoint_and_not_at_its_last_step(tmp_path):
    args = SimpleNamespace(world_size=1)

    def wishes(ending, step):
        control = SimpleNamespace(should_save=False, should_training_stop=False)
        ending.on_step_end(args, state_at(step), control)
        assert ending.asked == control.should_save == control.should_training_stop
        return ending.asked

    ending = monitor.Ending(tmp_path / "stop")
    assert not wishes(ending, 1)
    (tmp_path / "stop").touch()
    assert not wishes(ending, 100), "it is at its end anyway"
    assert wishes(ending, 2)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        for number in before:
            ending = monitor.Ending(tmp_path / "none")
            ending.listen()
            assert not wishes(ending, 3)
            os.kill(os.getpid(), number)
            assert wishes(ending, 4)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_the_log_has_a_line_for_each_step_and_drops_steps_that_are_made_again(tmp_path):
    log = monitor.StepLog(tmp_path / "log.jsonl", 100, 2e9)
    jsonl.write(log.path, [{"step": 1}, {"step": 2}, {"step": 3}])
    log.on_train_begin(SimpleNamespace(world_size=2), state_at(2), None)
    log.started -= 10
    log.on_log(None, state_at(4), None, {"loss": 1.5, "grad_norm": 0.5, "learning_rate": 1e-5})
    log.on_log(None, state_at(4), None, {"train_runtime": 3})
    *kept, line = jsonl.read(log.path)
    assert kept == [{"step": 1}, {"step": 2}]
    assert {name: line[name] for name in ("step", "of", "loss", "grad_norm", "tokens")} == {
        "step": 4, "of": 100, "loss": 1.5, "grad_norm": 0.5, "tokens": 200,
    }  # fmt: skip
    assert line["tflops"] == pytest.approx(200 * 2e9 / line["seconds"] / 2 / 1e12, abs=1e-4)
    assert 0.1 < line["memory_gb"] < 20


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_operations_of_a_token_are_those_of_the_plan_without_the_second_forward_pass(name):
    model = make_model(name, "sdpa")
    shape = shapes.from_config(model.config.to_dict(), name)
    seen = sum(n * n for n in LENGTHS) / sum(LENGTHS)
    assert monitor.operations(model, LENGTHS) == pytest.approx(hours.operations(shape, False, seen))


@pytest.mark.slow
def test_twenty_kills_at_random_moments_leave_the_losses_and_weights_of_an_undisturbed_training(tmp_path):
    model = str(experts(tmp_path / "model", Shape(), names=("own",))["own"])
    inputs = put_rows(tmp_path / "rows", [50, 1, 3, 33, 8, 9, 20, 2]) | {"model": model}
    plans = {}
    for name in ("calm", "killed"):
        plans[name] = make_plan(tmp_path / name, 1, 1, False, 2, inputs)
        plans[name]["sft"]["epochs"] = 120
    tasks = [
        {"ranks": 1, "plans": [plan], "chunk": CHUNK, "factor": 1, "stop": None, "kills": 20 * (name == "killed")}
        for name, plan in plans.items()
    ]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    words = [sys.executable, str(ROOT / "tests" / "branch" / "train_plans.py"), str(tmp_path / "tasks.json")]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-6000:]
    steps = [int(n) for n in re.findall(r"killed with (\d+) steps", result.stdout)]
    assert len(steps) == 20
    assert 0 < steps[5] < steps[-1] < 240, "the kills have to meet it on its way"
    assert torch.equal(losses(tmp_path / "killed"), losses(tmp_path / "calm"))
    assert len(losses(tmp_path / "calm")) == 240
    assert torch.equal(weights(tmp_path / "killed"), weights(tmp_path / "calm"))
