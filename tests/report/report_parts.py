"""Parts of a run's report for the tests: records and scores, without the artifacts behind them."""

import json

from tinyr1.core import artifact, record
from tinyr1.core.config import SCORE_COLUMNS


def write_record(cfg, stage: str, **changes: object) -> None:
    """The record of a stage that follows from those before it, which are there."""
    entry = {
        "stage": stage, "run": cfg.run, "key": record.stage_key(cfg, stage), "notebook": "n",
        "finished": "2025-03-07T10:11:12Z",
        "code": {"commit": "0123456789abcdef", "modified": False, "source": "s"},
        "machine": {
            "cores": 2, "memory_gb": 7.9, "gpus": [], "python": "3.11.9", "packages": {"torch": "2.8.0"},
        },
        "params": cfg.params.model_dump(mode="json"), "seconds": {"math": 61.0, "code <x>": 93.5},
        "artifacts": {}, "facts": {"headline": "The merged model is no better."},
    }  # fmt: skip
    artifact.write_atomic(record.record_path(cfg, stage), json.dumps(entry | changes))


def write_scores(cfg, *rows: tuple) -> None:
    """Rows without the columns timeout, grader_error and looping, which are 0, and chance, which is empty."""
    lines = [",".join(SCORE_COLUMNS), *[",".join(map(str, (*row[:-1], 0, 0, 0, "", row[-1]))) for row in rows]]
    artifact.write_atomic(cfg.reports / "scores.csv", "\n".join(lines) + "\n")
