import re

import pytest
from report_parts import write_record, write_scores

from tinyr1.core import artifact, config
from tinyr1.core.config import ROOT, STAGES


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    """Run `smol` in folders of its own, with a description that has to be escaped."""
    for name in ("HOME", "REPORTS", "PARAMS"):
        monkeypatch.setenv(f"TINYR1_{name}", str(tmp_path / name.lower()))
    config.params_folder().mkdir()
    text = (ROOT / "params" / "smol.yaml").read_text(encoding="utf-8")
    text = re.sub(r"^description: .*$", "description: small <b>and</b> offline", text, flags=re.MULTILINE)
    (config.params_folder() / "smol.yaml").write_text(text, encoding="utf-8")
    return config.load("smol")


@pytest.fixture
def whole(cfg):
    """A run whose five stages are finished, with scores, as in a fresh clone: without runs/."""
    for stage in STAGES:
        write_record(cfg, stage)
    write_scores(cfg, ("smol", "math", "mini-math", 96, 1, 0.5, 0.4, 0.6, 80.0, 0, 0, ""))
    artifact.write_atomic(cfg.reports / "gains.png", "")
    return cfg
