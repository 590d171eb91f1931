"""The two tables of a run's ablations: written by `tinyr1.ablate`, read by notebook 05 and the report.

graded samples of every model --save--> report/ablations.csv           a score for each ablation, model, benchmark
                                        report/ablation_questions.csv  right answers to each question, for tests
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from tinyr1.core import artifact
from tinyr1.core.config import Config
from tinyr1.core.params.ablations import OWN, Ablations, names_of
from tinyr1.evaluate import stats

COLUMNS = ("ablation", "model", "training", "seed", "benchmark", "n", "k", "pass_at_1", "low", "high", "mean_tokens",
           "truncated", "looping")  # fmt: skip
QUESTION_COLUMNS = ("model", "training", "seed", "benchmark", "question", "samples", "right", "looping")


def path(cfg: Config) -> Path:
    """The table of scores."""
    return cfg.reports / "ablations.csv"


def questions_path(cfg: Config) -> Path:
    """The table of questions."""
    return cfg.reports / "ablation_questions.csv"


def save(cfg: Config, ablations: Ablations, graded: pd.DataFrame, names: Mapping[str, tuple[str, str]]) -> None:
    """Write both tables from the graded samples of the models that have answered.

    graded: one row for each sample: model, benchmark, question, outcome, n_tokens, looping. names: model of `graded` ->
    (label, training). A model that has not answered has no row.
    """
    seeds = {name: training_seed(cfg, ablations, name) for name in [OWN, *ablations.trainings]}
    rows = questions(graded, names, seeds)
    artifact.write_atomic(questions_path(cfg), rows.to_csv(index=False))
    artifact.write_atomic(
        path(cfg), scores(cfg, ablations, graded, names, seeds).to_csv(index=False, float_format="%.6f")
    )


def training_seed(cfg: Config, ablations: Ablations, training: str) -> int:
    """The seed of a training."""
    other = ablations.trainings.get(training)
    return cfg.params.seed if other is None or other.seed is None else other.seed


def questions(graded: pd.DataFrame, names: Mapping[str, tuple[str, str]], seeds: Mapping[str, int]) -> pd.DataFrame:
    """QUESTION_COLUMNS: one row for each model, training and question."""
    keys = [graded["model"], graded["benchmark"], graded["question"]]
    table = pd.DataFrame({
        "samples": graded["outcome"].groupby(keys).size(),
        "right": graded["outcome"].eq("correct").groupby(keys).sum(),
        "looping": graded["looping"].astype(int).groupby(keys).sum(),
    }).reset_index()  # fmt: skip
    table["training"] = [names[name][1] for name in table["model"]]
    table["model"] = [names[name][0] for name in table["model"]]
    table["seed"] = table["training"].map(dict(seeds))
    return table[list(QUESTION_COLUMNS)]


def scores(
    cfg: Config, ablations: Ablations, graded: pd.DataFrame, names: Mapping[str, tuple[str, str]],
    seeds: Mapping[str, int],
) -> pd.DataFrame:  # fmt: skip
    """COLUMNS: one row for each ablation, training, model and benchmark, in the order of the params file."""
    measured = {}
    for (name, benchmark), part in graded.groupby(["model", "benchmark"]):
        right = part["outcome"].eq("correct").groupby(part["question"])
        estimate = stats.proportion(right.mean().to_numpy())
        measured[names[str(name)], str(benchmark)] = (
            len(right), int(right.size().max()), estimate.mean, estimate.low, estimate.high, part["n_tokens"].mean(),
            part["outcome"].eq("truncated").mean(), part["looping"].mean(),
        )  # fmt: skip
    rows = [
        (ablation, label, training, seeds[training], benchmark, *measured[(label, training), benchmark])
        for ablation, group in ablations.groups.items()
        for training in group.trainings
        for label in names_of(group)
        for benchmark in cfg.params.benchmarks
        if ((label, training), benchmark) in measured
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def load(cfg: Config) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """(scores, questions) of the run's ablations, see COLUMNS and QUESTION_COLUMNS; None where none were made."""
    if not path(cfg).is_file() or not questions_path(cfg).is_file():
        return None
    return pd.read_csv(path(cfg)), pd.read_csv(questions_path(cfg))
