"""The fidelity card: all of C1 to C34, what a run did at each, and effects where both choices were evaluated."""

import pytest
from claim_parts import EVERY, made_run
from test_claims import OTHER, PAPERS, fused, with_merges

from tinyr1.core import config
from tinyr1.report import fidelity_card

ALL = [f"C{i}" for i in range(1, 35)]


@pytest.mark.parametrize("run", ["smol", "smoke", "paper", "r1-1.5b"])
def test_every_contradiction_has_a_topic_and_a_sentence_for_every_run(run):
    assert list(fidelity_card.topics()) == ALL
    done = fidelity_card.choices(config.load(run))
    assert sorted(done, key=ALL.index) == ALL
    assert all(sentence.endswith((".", ")")) for sentence in done.values()), done


def test_sentences_follow_the_params(cfg):
    changed = with_merges(cfg, {"recipe": PAPERS}, headline=[("math-science-code", "backbone")])
    data = changed.params.model_dump(mode="json", by_alias=True)
    data["merge"] |= {"reading": "paper", "iqr_multiplier": 3.0}
    data["evaluate"]["top_p"] = 0.5
    other = fidelity_card.choices(changed.model_copy(update={"params": config.validate(data, "")}))
    assert other["C13"] == "The difference is signed: left − right."
    assert other["C16"] == "λ = 3."
    assert other["C33"].startswith("Top-p 0.5 ")
    assert other["C25"] == "The run has one order only."


def test_a_domain_that_the_run_does_not_have_is_said(cfg):
    data = with_merges(cfg, {"recipe": fused("science", "math")}).params.model_dump(mode="json", by_alias=True)
    del data["domains"]["code"]
    if data["backbone"]["distill"]:
        del data["backbone"]["distill"]["rows"]["code"]
    done = fidelity_card.choices(cfg.model_copy(update={"params": config.validate(data, "")}))
    assert done["C2"] == "Code: the run has no such domain; no limit."
    assert done["C10"] == "The run does not make this merge."


def test_alternatives_differ_from_the_papers_merge_in_one_setting(cfg):
    recipes = {
        "own": PAPERS, "swapped": OTHER, "exchanged": fused("code", fused("math", "science")),
        "released": fused("code", fused("science", "math", reading="released"), reading="released"),
        "printed": fused("code", fused("science", "math", reading="paper"), reading="paper"),
        "wider": fused("code", fused("science", "math", iqr_multiplier=3), iqr_multiplier=3),
        "half": fused("code", fused("science", "math"), iqr_multiplier=3),
        "placebo": fused("code", fused("science", "math", mask="random"), mask="random"),
        "two": fused("code", fused("science", "math", reading="paper", iqr_multiplier=3), reading="paper",
                     iqr_multiplier=3),
    }  # fmt: skip
    run = with_merges(cfg, *({"recipe": recipe, "name": name} for name, recipe in recipes.items()))
    assert {name: pair[0] for name, pair in fidelity_card.alternatives(run).items()} == {
        "C10 exchanged": "exchanged", "C12 released": "released", "C12 printed": "printed", "C13 printed": "printed",
        "C14 printed": "printed", "C16 wider": "wider", "C25 other order": "swapped", "C26 data mixture": "mixture",
    }  # fmt: skip


def test_effects_stand_where_both_models_answered(cfg):
    run = with_merges(cfg, {"recipe": PAPERS}, {"recipe": OTHER}, headline=[("math-science-code", "backbone")])
    card = fidelity_card.card(run, made_run(EVERY | {"mixture": 0.9}))
    assert list(card.index) == ALL
    assert card.loc["C26", "measured effect"].startswith("mixture less math-science-code: +40.0 [")
    assert card.loc["C25", "measured effect"].endswith("similar (within ±5 points)")
    assert card.loc["C16", "measured effect"] == fidelity_card.NO_EFFECT
