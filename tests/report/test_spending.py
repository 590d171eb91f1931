"""Hours of merging beside hours of training on the mixed data, and the paper's hours worked out."""

import pytest

from tinyr1.report import spending
from tinyr1.report.spending import Cost

MACHINE = {"cores": 2, "gpus": []}


def test_a_part_of_a_stage_costs_its_seconds_on_every_core_or_gpu():
    cost = spending.of_part({"seconds": {"mixture": 1800.0}, "machine": MACHINE}, "mixture")
    assert (cost.hours, cost.unit) == (1.0, "core")
    gpus = spending.of_part({"seconds": {"mixture": 1800.0}, "machine": {"cores": 64, "gpus": ["a"] * 8}}, "mixture")
    assert (gpus.hours, gpus.unit) == (4.0, "GPU")
    assert spending.of_part({"seconds": {}, "machine": MACHINE}, "mixture") is None
    assert spending.of_part({"seconds": {"mixture": 0.0}, "machine": MACHINE}, "mixture") is None, "it was finished"


def test_the_run_stands_beside_the_paper_as_a_ratio():
    table = spending.table(Cost(10, 2, "core"), Cost(2000, 2, "core"))
    assert table.loc["paper, H800 hours (Table 2)"].to_list() == ["4", "740", "1 : 185 (0.54 %)"]
    assert table.loc["this run, core hours", "merging : mixture"] == "1 : 200 (0.50 %)"
    assert table.loc["this run, seconds"].to_list() == ["10.0", "2000.0", ""]
    assert len(spending.table(None, None)) == 1
    assert spending.share(Cost(10, 2, "core"), Cost(1000, 2, "core")) == pytest.approx(1.0)


def test_the_papers_hours_are_worked_out_in_words():
    assert "0.5 h × 4 GPUs = 2 GPU hours, and Table 2 has 4." in spending.merge_hours_in_words()
    assert "23 h × 32 GPUs = 736 GPU hours, and Table 2 has 740" in spending.mixture_hours_in_words()
    assert "(720 to 752)" in spending.mixture_hours_in_words()
    assert "save 97.8 %" in spending.saving_in_words()
    assert "save 99.5 %" in spending.saving_in_words()
    assert spending.ideal_in_words().startswith("744 = 740 + 4:")
    assert spending.price_in_words() == "1500 dollars for 744 hours are 2.02 dollars an hour."
