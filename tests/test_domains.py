"""Domains are data: a params file with two domains or with four goes through the stages, and no code is changed.

Two are trained as in the paper, sharded over ranks, and that run starts from a checkout that is hard to run from.
"""

import os
import sys

import pandas as pd
import pytest
import yaml
from kit import read_only_archive, run_kit

from tinyr1.core import config, record
from tinyr1.core.config import ROOT, STAGES
from tinyr1.data.tokens import read_tokens

pytestmark = pytest.mark.slow

# Name of a domain -> whose tasks its rows and its benchmark have. "sums" is a second domain of the same tasks.
TWO = {"arithmetic": "math", "programs": "code"}
FOUR = {"nature": "science", "sums": "math", "programs": "code", "algebra": "math"}
MERGES = {
    "two": [
        {"recipe": {"method": "fusion", "base": "programs", "other": "arithmetic"}},
        {"recipe": {"method": "linear", "models": [{"model": name} for name in TWO]}, "name": "average"},
    ],
    "four": [
        {"recipe": {"method": "fusion", "base": "algebra", "other": "nature"}},
        {"recipe": {"method": "fusion", "base": "sums", "other": "programs"}},
    ],
}


def params(run, domains):
    """The run smoke with other domains, no mixture, and merges of two experts.

    Two are trained as in the paper, ZeRO-3 over several ranks; the backbone of four is distilled.
    """
    smoke = yaml.safe_load((ROOT / "params" / "smoke.yaml").read_text(encoding="utf-8"))
    blocks = {}
    sharded = {"processes_per_node": 2, "zero_stage": 3} if run == "two" else {}
    for name, tasks in domains.items():
        block = smoke["domains"][tasks] | {"limit": 12}
        if sharded:
            block["sft"] = block["sft"] | {"batch_size": 2}
        (benchmark,) = block["benchmarks"].values()
        blocks[name] = block | {"benchmarks": {f"quiz-{name}": benchmark | {"questions": 4, "samples": 1}}}
    distill = smoke["backbone"]["distill"] | {"rows": dict.fromkeys(domains, 4)} if run == "four" else None
    headline = [{"model": name, "against": "backbone"} for name in domains]
    return smoke | {
        "analysis": {"margin": 5, "headline": headline}, "ablations": None,
        "description": f"{len(domains)} domains", "domains": blocks, "mixture": None,
        "trainer": smoke["trainer"] | sharded,
        "backbone": smoke["backbone"] | {"distill": distill}, "merge": smoke["merge"] | {"models": MERGES[run]},
    }  # fmt: skip


def in_an_archive(run, folder):
    """Read-only, without git, in a folder with a blank and an umlaut, where this machine lets a test make one."""
    _, inside = read_only_archive(folder)
    if isinstance(inside, str):
        return run_kit(run, env=os.environ)
    variables = {name: value for name, value in os.environ.items() if name.startswith("TINYR1_")}
    return inside(sys.executable, "-m", "tinyr1.run", run, **variables)


@pytest.fixture(scope="module", params=[("two", TWO), ("four", FOUR)], ids=["two", "four"])
def finished(request, tmp_path_factory):
    """(configuration, domains, what the terminal showed) of a finished run."""
    run, domains = request.param
    folder = tmp_path_factory.mktemp(run)
    (folder / "params").mkdir()
    text = yaml.safe_dump(params(run, domains), sort_keys=False)
    (folder / "params" / f"{run}.yaml").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("home", "params", "reports"):
            patch.setenv(f"TINYR1_{name.upper()}", str(folder / name))
        result = in_an_archive(run, folder) if run == "two" else run_kit(run, env=os.environ)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-5000:]
        yield config.load(run), domains, result.stdout


def test_every_stage_is_finished(finished):
    cfg, _, _ = finished
    assert [record.require(cfg, stage)["stage"] for stage in STAGES] == list(STAGES)


def test_every_domain_has_rows_and_an_expert_of_its_own(finished):
    cfg, domains, _ = finished
    assert cfg.domains == cfg.branches == tuple(domains)
    reserved = cfg.params.backbone.distill.rows if cfg.params.backbone.distill else dict.fromkeys(domains, 0)
    trained = {fact["model"]: fact for fact in record.read(cfg, "02_branch_sft")["facts"]["models"]}
    assert list(trained) == [*(["backbone"] if cfg.params.backbone.distill else []), *domains]
    for name in domains:
        rows = len(read_tokens(cfg.rows(name)))
        assert 0 < rows <= 12
        assert trained[name]["samples"] == rows - reserved[name]
        assert (cfg.model(name) / "model.safetensors").is_file()
    assert not (cfg.home / "branches" / "mixture").exists()


def test_domains_of_the_same_tasks_have_rows_of_their_own(finished):
    cfg, domains, _ = finished
    contents = {name: record.require(cfg, STAGES[0])["artifacts"][f"rows/{name}"]["content"] for name in domains}
    assert len(set(contents.values())) == len(domains), "their ids carry the name of the domain"


def test_every_model_is_scored_on_the_benchmark_of_every_domain(finished):
    cfg, domains, _ = finished
    table = pd.read_csv(cfg.reports / "scores.csv")
    benchmarks = {f"quiz-{name}" for name in domains}
    assert set(cfg.models) == {"backbone", *domains, *cfg.merges}
    assert set(zip(table.model, table.benchmark, strict=True)) == {(m, b) for m in cfg.models for b in benchmarks}
    assert table.pass_at_1.between(0, 1).all()


def test_the_terminal_and_the_report_name_the_domains_of_the_run_and_no_others(finished):
    cfg, domains, shown = finished
    page = (cfg.reports / "index.html").read_text(encoding="utf-8")
    for name in (*domains, *cfg.merges):
        assert name in shown
        assert name in page
    for other in ("mini-math", "math-science-code"):
        assert other not in shown
        assert other not in page
    assert "mixture" not in shown
