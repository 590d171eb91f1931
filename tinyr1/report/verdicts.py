"""claims.json as a run's reports show it: how many claims have which verdict, and the claims of each."""

import json
from pathlib import Path

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "not distinguishable"
NOT_RUN, UNCHECKED = "not run", "cannot be checked"
# Verdicts in the order of the reports, each with the sentence that says what it means.
MEANINGS = {
    SUPPORTED: "what the claim says was found in this run, beyond what chance explains",
    CONTRADICTED: "the opposite of what the claim says was found in this run, beyond what chance explains",
    UNDECIDED: "the questions of this run are too few to say either; the difference that would have shown "
    "stands beside each",
    NOT_RUN: "this run has no model or benchmark that could decide the claim",
    UNCHECKED: "the claim does not say enough to be measured, or nothing of it can be measured here",
}
DECIDED = (SUPPORTED, CONTRADICTED)
HEADLINE = "Headline"  # the group of the confirmatory comparisons, which are the run's own and not the paper's


def stored_claims(folder: Path) -> list[dict]:
    """The claims of claims.json in a report folder; [] where the file is not there."""
    path = folder / "claims.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def of_paper(claims: list[dict]) -> list[dict]:
    """The statements of the paper among the items of claims.json."""
    return [claim for claim in claims if claim["group"] != HEADLINE]


def counts(claims: list[dict]) -> list[tuple[str, int, str]]:
    """(verdict, number of the paper's statements, meaning) of every verdict, also of one that none has; unknown
    verdicts last."""
    claims = of_paper(claims)
    names = dict.fromkeys([*MEANINGS, *(claim["verdict"] for claim in claims)])
    return [(name, sum(c["verdict"] == name for c in claims), MEANINGS.get(name, "")) for name in names]
