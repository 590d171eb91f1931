"""Every statement of the paper asked of made runs: what is missing, what is decided, and what a reversal changes."""

import pytest
from claim_parts import BENCHMARKS, EVERY, NAMES, made_run, shares

from tinyr1.core import paper
from tinyr1.report import audit, spending
from tinyr1.report.statement import MERGED, MIXTURE
from tinyr1.report.statements import statements
from tinyr1.report.verdicts import CONTRADICTED, MEANINGS, NOT_RUN, SUPPORTED, UNCHECKED, UNDECIDED


def asked(run: audit.Run) -> dict[str, dict]:
    return {item["id"]: item for item in audit.audit(statements(), run)}


def test_every_statement_has_an_id_of_its_own_and_one_item_with_all_keys():
    items = audit.audit(statements(), made_run(EVERY))
    assert len({item["id"] for item in items}) == len(items) == len(statements()) + 1
    assert {tuple(item) for item in items} == {(
        "id", "group", "family", "confirmatory", "source", "claim", "paper_value", "paper_points",
        "paper_supports_itself", "paper_why",
        *audit.MEASURED, "verdict", "why",
    )}  # fmt: skip
    assert {item["verdict"] for item in items} <= set(MEANINGS)
    assert all(item["source"] and item["why"] and item["paper_supports_itself"] for item in items)


def test_every_number_of_the_tables_and_of_figure_2_is_in_the_audit():
    items = [item for item in audit.audit(statements(), made_run(EVERY)) if item["group"] in ("Single numbers", "Cost")]
    said = {(item["source"].partition(";")[0], item["paper_value"]) for item in items}
    for row in paper.TABLE_1.values():
        for percent, tokens in row.values():
            assert ("paper Table 1", f"{percent:g}") in said
            assert tokens is None or ("paper Table 1", f"{tokens:g}k") in said
    assert all(("paper Table 2", f"{v:g}") in said for row in paper.TABLE_2.values() for v in row.values())
    assert all(("paper Table 2", f"{hours:g} GPU hours") in said for hours in paper.MERGING_HOURS.values())
    assert all(("paper Figure 2", f"{v:g}") in said for v in paper.FIGURE_2.values())
    numbers = [item for item in items if item["group"] == "Single numbers"]
    assert len(numbers) == 12 + 9 + 12 + 6, "scores and lengths of Table 1, scores of Table 2, bars of Figure 2"


@pytest.mark.parametrize(
    "named",
    ["seesaw", "over-backbone-math", "over-70b-science", "below-r1-code", "slightly-below-mixture-merged", "filters",
     "orders-higher-average", "orders-math", "figure-2", "other-backbones", "cost-merge-hours",
     "cost-table-2-data-mixture", "cost-mixture-hours", "cost-ideal-hours", "cost-dollars", "cost-saving", "cost-share",
     "openness", "longer-than-r1-science", "near-r1-math", "over-mixture-average"],
)  # fmt: skip
def test_the_statements_that_must_not_be_forgotten_are_there(named):
    assert named in {statement.id for statement in statements()}


def test_a_model_that_is_missing_gives_not_run_with_its_part():
    items = asked(made_run({name: p for name, p in EVERY.items() if name != "mixture"}, headline=[]))
    for name in ("over-mixture-math", "seesaw", "slightly-below-mixture-merged", "table-2-data-mixture-code"):
        assert items[name]["verdict"] == NOT_RUN, name
        assert items[name]["ours"] is None
    assert items["over-mixture-math"]["why"] == "this run has no data mixture"
    assert items["over-70b-math"]["why"] == "this run has no 70B distill"
    assert items["over-backbone-math"]["verdict"] != NOT_RUN
    assert items["cost-saving"]["verdict"] == NOT_RUN


def test_a_domain_that_is_missing_gives_not_run():
    items = asked(made_run(EVERY, benchmarks={"math": ("mini-math",)}, headline=[]))
    assert items["over-backbone-code"]["why"] == "this run has no benchmark in code"
    assert items["over-backbone-code"]["verdict"] == NOT_RUN


def test_a_planted_reversal_flips_the_verdicts():
    better = asked(made_run(EVERY | {"math-science-code": 0.8}))
    worse = asked(made_run(EVERY | {"math-science-code": 0.2}))
    names = ("headline-1", "over-backbone-math", "over-backbone-average", "over-mixture-average", "over-expert-math")
    for name in names:
        assert (better[name]["verdict"], worse[name]["verdict"]) == (SUPPORTED, CONTRADICTED), name
        assert better[name]["ours"] == pytest.approx(30, abs=0.01)
        assert worse[name]["ours"] == pytest.approx(-30, abs=0.01)
        assert worse[name]["low"] < worse[name]["ours"] < worse[name]["high"] < 0
    assert (better["retains-code"]["verdict"], worse["retains-code"]["verdict"]) == (SUPPORTED, CONTRADICTED)
    assert better["orders-math"]["verdict"] == worse["orders-math"]["verdict"] == CONTRADICTED, "no minor difference"


def test_equal_models_are_similar_and_nothing_is_shown_of_a_difference():
    items = asked(made_run(EVERY))
    assert items["orders-average"]["verdict"] == items["retains-code"]["verdict"] == SUPPORTED
    assert items["over-backbone-math"]["verdict"] == UNDECIDED
    assert items["over-backbone-math"]["detectable"] > 0


def test_slightly_lower_needs_a_direction_and_a_small_size():
    slightly, much = (asked(made_run(shares(EVERY | {"mixture": p}, n=4000))) for p in (0.52, 0.7))
    assert slightly["slightly-below-mixture-merged"]["verdict"] == SUPPORTED
    assert much["slightly-below-mixture-merged"]["verdict"] == CONTRADICTED, "20 points are not slight"
    higher = asked(made_run(shares(EVERY | {"mixture": 0.48}, n=4000)))
    assert higher["slightly-below-mixture-merged"]["verdict"] == CONTRADICTED


def test_a_composed_statement_has_the_worst_of_its_parts():
    seesaw = EVERY | {"mixture": 0.7, "code": 0.9}
    assert asked(made_run(seesaw))["seesaw"]["verdict"] == SUPPORTED
    lost = asked(made_run(seesaw | {"code": 0.2}))["seesaw"]
    assert lost["verdict"] == CONTRADICTED
    assert "seesaw-code: contradicted" in lost["why"]


def test_the_paper_is_held_against_its_own_numbers():
    items = asked(made_run(EVERY))
    holds = {name: item["paper_supports_itself"] for name, item in items.items()}
    assert holds["slightly-below-mixture-merged"] == "no", "61.6 is above 61.0"
    assert holds["orders-higher-average"] == "no", "68.23 is below 68.37"
    assert holds["over-mixture-science"] == "no", "65.0 is below 65.7"
    assert holds["over-backbone-math"] == "for its own questions only", "5.5 points of 30 questions"
    assert holds["over-expert-science"] == "only its sign"
    assert holds["orders-math"] == "not shown", "30 questions cannot show that 0.8 points are minor"
    assert holds["figure-2-dare-ties"] == "yes", "68 against 35 of 198 questions"
    assert (holds["cost-merge-hours"], holds["cost-share"], holds["openness"]) == ("no", "yes", "no")
    assert items["over-mixture-average"]["paper_value"] == "68.23 − 67.33 = +0.90"
    assert items["over-70b-science"]["paper_value"] == "65.0 − 65.2 = -0.2"


def test_no_single_number_of_the_paper_is_judged_by_a_miniature():
    items = asked(made_run(EVERY))
    number = items["table-1-tinyr1-32b-preview-math"]
    assert (number["verdict"], number["ours"], number["n"], number["k"]) == (UNCHECKED, 50.0, 200, 2)


def test_a_run_of_the_papers_backbone_on_the_papers_benchmark_may_judge_a_number():
    near = asked(made_run(shares(EVERY | {"math-science-code": 0.78}, n=6000), published=frozenset({"mini-math"})))
    far = asked(made_run(shares(EVERY | {"math-science-code": 0.3}, n=6000), published=frozenset({"mini-math"})))
    name = "table-1-tinyr1-32b-preview-math"
    assert (near[name]["verdict"], far[name]["verdict"]) == (SUPPORTED, CONTRADICTED)
    assert near["table-1-tinyr1-32b-preview-code"]["verdict"] == UNCHECKED


def test_longer_answers_are_tested_and_uncounted_ones_are_not_run():
    table = shares(EVERY)
    lengths = 100 + 10 * shares(dict.fromkeys(EVERY, 0.5), seed=1)
    lengths["math-science-code"] += 20 + 5 * table["math"]
    items = asked(made_run(table, lengths=lengths))
    assert items["longer-than-backbone-math"]["verdict"] == SUPPORTED
    assert 15 < items["longer-than-backbone-math"]["ours"] < 25
    uncounted = asked(made_run(table, lengths=lengths.assign(backbone=float("nan"))))
    assert uncounted["longer-than-backbone-math"]["verdict"] == NOT_RUN


def test_merging_saves_time_or_does_not():
    mixture = spending.Cost(1000, 2, "core")
    saving = [asked(made_run(EVERY, spent=(spending.Cost(s, 2, "core"), mixture)))["cost-saving"] for s in (20, 200)]
    assert [(item["verdict"], item["ours"]) for item in saving] == [(SUPPORTED, 98.0), (CONTRADICTED, 80.0)]
    assert "alone" not in saving[0]["why"], "the time of the experts is not known"
    costs = {"spent": (spending.Cost(20, 2, "core"), mixture), "branches": spending.Cost(1200, 2, "core")}
    with_branches = asked(made_run(EVERY, **costs))["cost-saving"]
    assert with_branches["why"].endswith("it alone takes 120 % of the time of the mixture")


def test_confirmatory_comparisons_come_first_and_lend_their_result_to_the_same_statement():
    items = audit.audit(statements(), made_run(EVERY | {"mixture": 0.52}))
    first, same = items[0], {item["id"]: item for item in items}["over-mixture-average"]
    assert first["id"] == "headline-1"
    assert first["confirmatory"]
    assert same["confirmatory"]
    assert [first[key] for key in audit.MEASURED] == [same[key] for key in audit.MEASURED]
    assert first["paper_value"] == "68.23 − 67.33 = +0.90"
    assert not {item["id"]: item for item in items}["over-backbone-average"]["confirmatory"]


def test_families_are_named_and_corrected_apart():
    items = asked(made_run(EVERY | {"math": 0.56}))
    families = {item["family"] for item in items.values()}
    assert {audit.CONFIRMATORY, "exploratory: Main results", "exploratory: Experts and data mixture"} <= families
    assert items["expert-math"]["holm"] > items["expert-math"]["p"]


def test_parts_and_names_of_the_made_run_are_those_of_the_paper():
    assert made_run(EVERY).models[MERGED] == NAMES[MERGED]
    assert made_run(EVERY).models[MIXTURE] == "mixture"
    assert made_run(EVERY).asked_in("average") == tuple(name for names in BENCHMARKS.values() for name in names)
