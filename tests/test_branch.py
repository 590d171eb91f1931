"""A branch is finished only when its training said so."""

import pytest

from tinyr1 import branch, config, launch, record


def test_a_launcher_that_ends_well_after_its_process_was_killed_makes_no_branch(tmp_path, monkeypatch):
    """DeepSpeed's launcher returns 0 when a signal has ended the process below it; the log is there, no model is."""
    monkeypatch.setenv("TINYR1_HOME", str(tmp_path / "runs"))
    cfg = config.load("smoke")
    job = branch.Job("math", tmp_path / "start", (tmp_path / "rows.jsonl",), cfg.params.branch.math, (0,))
    row = {"domain": "math", "question": "1 + 1?", "thinking": "2", "response": "2", "n_tokens": 9}
    record.write_lines(tmp_path / "rows.jsonl", [row])
    monkeypatch.setattr(branch, "inputs", lambda cfg, job: {"start": "x"})
    monkeypatch.setattr(branch.packing, "write", lambda *a: {})
    monkeypatch.setattr(branch.chat, "encode", lambda tokenizer, row: row)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda path: None)

    def killed(words, environment, log, title, poll, unit):
        line = {"step": 1, "of": 2, "loss": 1.0, "tokens": 5, "seconds": 1.0}
        record.write_lines(cfg.home / "branches" / "math.partial" / branch.KEPT_FROM_TRAINING, [line])

    monkeypatch.setattr(launch, "follow", killed)
    with pytest.raises(record.StageError, match="training ended before its model was saved"):
        branch.train(cfg, job, has_gpu=False)
    assert not cfg.model("math").exists()
