"""The heaviest stage of `smol`, a training of its network, in the memory that README.md states."""

import os

import pytest
import yaml
from kit import STATED, memory_group, run_kit

from tinyr1.core import config, record
from tinyr1.core.config import ROOT, STAGES

pytestmark = pytest.mark.slow


def few_rows():
    """Run `smol` with two domains of so few rows that each training has one full sequence of the same network."""
    smol = yaml.safe_load((ROOT / "params" / "smol.yaml").read_text(encoding="utf-8"))
    domains = {}
    for name in ("math", "science"):
        sources = [source | {"rows": 60} for source in smol["domains"][name]["sources"]]
        domains[name] = smol["domains"][name] | {"sources": sources, "limit": 5}
    average = {"name": "average", "recipe": {"method": "linear", "models": [{"model": name} for name in domains]}}
    return smol | {
        "backbone": smol["backbone"] | {"distill": None}, "domains": domains, "mixture": None, "teacher": None,
        "merge": smol["merge"] | {"models": [average]}, "ablations": None,
        "analysis": {"margin": 5, "headline": [{"model": "average", "against": "backbone"}]},
    }  # fmt: skip


def test_a_training_of_smol_ends_in_the_stated_memory(tmp_path, monkeypatch):
    for name in ("HOME", "REPORTS", "PARAMS"):
        (tmp_path / name.lower()).mkdir()
        monkeypatch.setenv(f"TINYR1_{name}", str(tmp_path / name.lower()))
    (tmp_path / "params" / "few.yaml").write_text(yaml.safe_dump(few_rows(), sort_keys=False), encoding="utf-8")
    with memory_group(STATED) as inside:
        if not inside:
            pytest.skip("this user may make no memory control group")
        for stage in STAGES[:2]:
            done = run_kit("few", "--stage", stage, env=dict(os.environ), inside=inside)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    training = record.read(config.load("few"), "02_branch_sft")
    assert [model["model"] for model in training["facts"]["models"]] == ["math", "science"]
    assert 3 < training["peak_memory_gb"] < STATED / 1e9, "as much as the whole run, which trains the same network"
