"""Where the backbone comes from: a folder, or the hub with all that can go wrong there."""

import http.server

import pytest
from checkpoints import Shape, experts
from huggingface_hub import constants

from tinyr1.branch import backbone
from tinyr1.core import config
from tinyr1.core.errors import UserError


@pytest.fixture
def cfg(home):
    return config.load("smol")


def with_backbone(cfg, **changes):
    params = cfg.params.model_copy(update={"backbone": cfg.params.backbone.model_copy(update=changes)})
    return cfg.model_copy(update={"params": params})


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub that refuses every model, for the reason in its name."""

    answers = {"gated": (403, "GatedRepo"), "absent": (401, "RepoNotFound"), "old": (404, "RevisionNotFound"),
               "broken": (500, "")}  # fmt: skip

    def do_GET(self):
        status, code = next(answer for name, answer in self.answers.items() if f"owner/{name}" in self.path)
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(serve_hub):
    serve_hub(Hub)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("owner/gated", r"at revision abc is gated and access was refused\. Accept its licence at .*/owner/gated"),
        ("owner/absent", r"at revision abc could not be fetched \(RepositoryNotFoundError: .*\); check the name"),
        ("owner/old", r"at revision abc could not be fetched \(RevisionNotFoundError: .*\); check the name"),
        ("owner/broken", r"at revision abc could not be fetched \(LocalEntryNotFoundError: .*\); check the name"),
        ("owner/mis spelt", r"at revision abc could not be fetched \(HFValidationError: .*\); check the name"),
    ],
)
def test_a_model_that_the_hub_does_not_give_is_named_with_what_to_do(hub, cfg, model, said):
    cfg = with_backbone(cfg, model=model, revision="abc")
    with pytest.raises(UserError, match=f"^backbone\\.model: {model} {said}"):
        backbone.prepare_base(cfg)
    assert backbone.weight_bytes(cfg) is None


def test_a_hub_out_of_reach_is_named(cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"owner/model could not be fetched .*check the name"):
        backbone.prepare_base(with_backbone(cfg, model="owner/model"))


def test_a_relative_folder_is_in_the_repository(cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "ROOT", tmp_path)
    monkeypatch.chdir(experts(tmp_path / "models", Shape(), names=("own",))["own"])
    cfg = with_backbone(cfg, model="models/own", chat_template="r1")
    weights = (tmp_path / "models" / "own" / "model.safetensors").stat().st_size
    assert backbone.weight_bytes(cfg) == weights
    backbone.prepare_base(cfg)
    assert (backbone.base_path(cfg) / "model.safetensors").stat().st_size == weights
    with pytest.raises(UserError, match=f"backbone.model: {tmp_path}/models/a/b does not exist; give a folder"):
        backbone.prepare_base(with_backbone(cfg, model="models/a/b"))
