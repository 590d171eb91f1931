"""The training process: which checkpoint a killed run continues from, and what is exact while it trains."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from tinyr1.branch import monitor, ranks, train
from tinyr1.core.errors import UserError


def checkpoint(folder: Path, step: int, complete: bool) -> None:
    place = folder / f"checkpoint-{step}"
    place.mkdir()
    (place / "weights.bin").write_bytes(b"w")
    if complete:
        (place / monitor.CHECKPOINT_DONE).touch()


def test_another_number_of_ranks_than_planned_is_refused_because_the_batch_would_be_another():
    train.require_ranks(2, 2)
    with pytest.raises(UserError, match="8 ranks started a training whose plan is for 1: .* start 1, or change"):
        train.require_ranks(1, 8)


def test_continues_from_the_newest_complete_checkpoint(tmp_path):
    assert monitor.last_checkpoint(tmp_path) is None
    checkpoint(tmp_path, 9, complete=True)
    checkpoint(tmp_path, 10, complete=True)
    checkpoint(tmp_path, 11, complete=False)
    assert monitor.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_a_checkpoint_whose_deletion_was_cut_short_is_not_taken_for_complete(tmp_path, monkeypatch):
    checkpoint(tmp_path, 1, complete=True)
    checkpoint(tmp_path, 2, complete=False)

    def killed(folder: Path) -> None:
        (folder / "weights.bin").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        monitor.keep_only(tmp_path, "checkpoint-2")
    assert monitor.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")


def test_older_checkpoints_go(tmp_path):
    checkpoint(tmp_path, 1, complete=True)
    checkpoint(tmp_path, 2, complete=False)
    monitor.keep_only(tmp_path, "checkpoint-2")
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-2"]


def test_rotary_frequencies_are_fp32_again_after_zero3_made_them_bf16():
    shape = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
             "num_attention_heads": 2, "num_key_value_heads": 2}  # fmt: skip
    model = AutoModelForCausalLM.from_config(LlamaConfig(**shape), dtype=torch.bfloat16)
    rotary = model.get_decoder().rotary_emb
    exact = rotary.inv_freq.clone()
    assert exact.dtype == torch.float32
    model.bfloat16()
    assert not torch.equal(rotary.inv_freq.float(), exact)
    names = list(model.state_dict())
    ranks.restore_frequencies(model)
    assert torch.equal(rotary.inv_freq, exact)
    assert torch.equal(rotary.original_inv_freq, exact)
    assert list(model.state_dict()) == names
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_sharded_gradients_are_added_up_and_sent_in_fp32(stage):
    config = ranks.deepspeed_config(stage)
    assert config["data_types"]["grad_accum_dtype"] == config["communication_data_type"] == "fp32"
