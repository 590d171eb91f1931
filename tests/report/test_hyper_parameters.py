"""The table of hyper-parameters: what the sources say, and what a run does."""

import re

import pytest

from tinyr1.branch import plan
from tinyr1.core import config
from tinyr1.core.config import ROOT
from tinyr1.report import fidelity_card, hyper_parameters


@pytest.fixture
def table(monkeypatch):
    """Call with a run: its table, where each domain has ten rows."""
    monkeypatch.setattr(plan.Job, "tokens", lambda self: [range(10) for _ in self.rows])

    def of(run, **changes):
        cfg = config.load(run)
        cfg = cfg.model_copy(update={"params": cfg.params.model_copy(update=changes)})
        return hyper_parameters.table(cfg, plan.jobs(cfg))

    return of


def test_the_run_of_the_papers_size_does_what_the_paper_says(table, monkeypatch):
    monkeypatch.setattr(hyper_parameters, "world_size", lambda cfg: 32)
    rows = table("paper")
    for name in ("backbone", "sequence length, tokens", "epochs", "batch, packed sequences"):
        assert rows.loc[name, "this run"] == rows.loc[name, "paper"]
    assert float(rows.loc["learning rate", "this run"]) == float(rows.loc["learning rate", "paper"])
    assert rows.loc["schedule", "this run"] == rows.loc["schedule", "README"]
    assert (rows.loc["GPUs", "this run"], rows.loc["ZeRO stage", "this run"]) == ("32 ranks", "3")


def test_values_that_differ_between_domains_are_all_shown_and_equal_ones_once(table):
    domains = config.load("smol").params.domains
    math = domains["math"].model_copy(
        update={"sft": domains["math"].sft.model_copy(update={"packing": "contaminated", "epochs": 4})}
    )
    rows = table("smol", domains=domains | {"math": math})
    assert rows.loc["packing", "this run"] == "contaminated / neat / neat"
    assert rows.loc["learning rate", "this run"] == "0.0001"
    share = "mixture: rows, as a share of those of all experts"
    assert rows.loc[share, "this run"] == "0.50 (30 of 60)"
    assert table("smol", mixture=None).loc[share, "this run"] == "no mixture"


def test_each_row_leads_to_a_place_of_the_documentation():
    text = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
    sections = set(re.findall(r"^#+ (\d+(?:\.\d+)*)", text, re.MULTILINE))
    for said in hyper_parameters.PUBLISHED.values():
        for place in said.see.removeprefix("docs/fidelity.md ").split(", "):
            assert place in fidelity_card.topics() or place.removeprefix("§").rstrip(".") in sections, place


def test_the_fidelity_card_says_how_each_branch_is_packed_and_in_which_template_it_learns():
    cfg = config.load("smol")
    done = fidelity_card.choices(cfg)
    assert done["C31"] == "Packing: math: neat; science: neat; code: neat."
    tags = "ChatML tags without a system turn"
    assert done["C9"] == f"Training uses {tags}, evaluation {tags}."
    backbone = cfg.params.backbone.model_copy(update={"training_template": "qwen"})
    cfg = cfg.model_copy(update={"params": cfg.params.model_copy(update={"backbone": backbone})})
    assert fidelity_card.choices(cfg)["C9"].startswith("Training uses ChatML with a system turn, evaluation")
