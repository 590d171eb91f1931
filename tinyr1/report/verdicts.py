"""claims.json as a run's reports show it: how many claims have which verdict, and the claims of each."""

import json
from pathlib import Path
from typing import Any

# Verdicts in the order of the reports, each with the sentence that says what it means.
MEANINGS = {
    "supported": "what the claim says was found in this run, beyond what chance explains",
    "contradicted": "the opposite of what the claim says was found in this run, beyond what chance explains",
    "not distinguishable": "the questions of this run are too few to say either; the smallest difference that they "
    "would show stands beside each",
    "not run": "this run has no model or benchmark that could decide the claim",
    "cannot be checked": "the claim does not say enough to be measured, or nothing of it can be measured here",
}
DECIDED = ("supported", "contradicted")


def stored_claims(folder: Path) -> list[dict]:
    """The claims of claims.json in a report folder; [] where the file is not there."""
    path = folder / "claims.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def counts(claims: list[dict]) -> list[tuple[str, int, str]]:
    """(verdict, number of claims, meaning) of every verdict, also of one that no claim has; unknown verdicts last."""
    names = dict.fromkeys([*MEANINGS, *(claim["verdict"] for claim in claims)])
    return [(name, sum(c["verdict"] == name for c in claims), MEANINGS.get(name, "")) for name in names]


def ours(claim: dict) -> str:
    """What this run measured for a claim, with its interval where there is one."""
    value = _text(claim.get("ours"))
    ends = [_text(claim.get(key)) for key in ("low", "high")]
    return f"{value} [{', '.join(ends)}]" if value and all(ends) else value


def detectable(claim: dict) -> str:
    """The smallest difference that the questions of this run would show for a claim."""
    return _text(claim.get("detectable"))


def paper_value(claim: dict) -> str:
    """The number of the paper that a claim rests on."""
    return _text(claim.get("paper_value"))


def _text(value: Any) -> str:
    """A number with one decimal, a text as it is, nothing for null."""
    if value is None:
        return ""
    return f"{value:.1f}" if isinstance(value, float) else str(value)
