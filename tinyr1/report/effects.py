"""What one ablation shows: every model's score with its interval, and its difference to the control.

    ablation_questions.csv --scores--------> a row for each model and benchmark, and for the average of all
                           --differences---> a row for each model: model - control, with the verdict of `decide`

Trainings that differ from each other in their seed only are repetitions: they share a row, and its interval is over
seeds and questions. The row of trainings that differ from the run's own in more has the name of the first one.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from tinyr1.core.params.ablations import OWN, Ablation, Ablations, Training, names_of
from tinyr1.evaluate import stats
from tinyr1.evaluate.compare import Comparison, decide, in_words
from tinyr1.evaluate.scores import points_texts
from tinyr1.report.statement import AVERAGE


def families(ablations: Ablations) -> dict[str, str]:
    """Training -> the first of those that differ from it in nothing but the seed: OWN, or a training of the block."""
    first: dict[tuple, str] = {Training(models=[OWN]).repeats: OWN}
    return {OWN: OWN} | {name: first.setdefault(one.repeats, name) for name, one in ablations.trainings.items()}


def repetitions(ablations: Ablations) -> set[str]:
    """The trainings that repeat the run's own with another seed, and the own one."""
    return {name for name, first in families(ablations).items() if first == OWN}


def label(model: str, training: str, family: Mapping[str, str]) -> str:
    """What a model is called in figures and tables: its name, with the training where that is another one."""
    return model if family[training] == OWN else f"{model} ({family[training]})"


def _rows(group: Ablation, ablations: Ablations) -> list[tuple[str, str]]:
    """(label, label of its control) of every model of an ablation, in their order, each once; controls of a training
    that has no rows of its own come last."""
    family = families(ablations)
    pairs = [
        (label(model, training, family), label(group.control, group.control_training or training, family))
        for training in group.trainings
        for model in names_of(group)
    ]
    return list(dict.fromkeys([*pairs, *((control, control) for _, control in pairs if control not in dict(pairs))]))


def shares(group: Ablation, ablations: Ablations, questions: pd.DataFrame) -> pd.DataFrame:
    """The share of right answers: index (seed, benchmark, question), a column for each label of an ablation.

    questions: the rows of ablation_questions.csv. A model without answers has no column.
    """
    family, names = families(ablations), [name for name, _ in _rows(group, ablations)]
    trainings = {*group.trainings, group.control_training or group.trainings[0]}
    rows = questions[questions["training"].isin(trainings) & questions["model"].isin(names_of(group))]
    labels = [label(m, t, family) for m, t in zip(rows["model"], rows["training"], strict=True)]
    rows = rows.assign(label=labels, share=rows["right"] / rows["samples"])
    wide = rows.pivot_table(index=["seed", "benchmark", "question"], columns="label", values="share", sort=False)
    return wide.reindex(columns=[name for name in names if name in wide])


def scores(group: Ablation, ablations: Ablations, questions: pd.DataFrame, benchmarks: list[str]) -> pd.DataFrame:
    """Columns model (label), control (its label), benchmark, mean, low, high, trainings; scores in [0, 1].

    benchmarks: in the order of the report; AVERAGE comes first. trainings: the score of each training in the row. A
    model that has not answered every benchmark has no row.
    """
    wide, rows, controls = shares(group, ablations, questions), [], dict(_rows(group, ablations))
    for name in map(str, wide):
        values = [_by_seed(wide[name], benchmark) for benchmark in benchmarks]
        if any(part.size == 0 for part in values):
            continue
        for benchmark, parts in [(AVERAGE, values), *((b, [v]) for b, v in zip(benchmarks, values, strict=True))]:
            single = stats.proportion(parts[0][0]) if len(parts) == 1 and len(parts[0]) == 1 else None
            estimate = single or stats.mean_over(parts).estimate()
            each = np.mean([part.mean(axis=1) for part in parts], axis=0)
            rows.append((name, controls[name], benchmark, estimate.mean, estimate.low, estimate.high, tuple(each)))
    return pd.DataFrame(rows, columns=["model", "control", "benchmark", "mean", "low", "high", "trainings"])


def _by_seed(column: pd.Series, benchmark: str) -> np.ndarray:
    """The values (seeds, questions) of a model on a benchmark, for the seeds in which it answered."""
    if benchmark not in column.index.get_level_values("benchmark"):
        return np.empty((0, 0))
    return column.xs(benchmark, level="benchmark").unstack("seed").dropna(axis=1).to_numpy().T


def differences(
    name: str, ablations: Ablations, questions: pd.DataFrame, benchmarks: list[str], margin: float
) -> pd.DataFrame:
    """The rows of `compare.decide` for every model of an ablation against its control, averaged over the benchmarks.

    name: of the ablation, which is one family of Holm's correction. margin: in points. Models and controls that have
    not answered every benchmark are left out.
    """
    group = ablations.groups[name]
    wide = shares(group, ablations, questions)
    complete = set(scores(group, ablations, questions, benchmarks)["model"])
    pairs = [pair for pair in _rows(group, ablations) if pair[0] != pair[1] and set(pair) <= complete]
    asked = [Comparison(f"exploratory: {name}", model, control, tuple(benchmarks)) for model, control in pairs]
    return decide(wide, asked, margin)


def table(rows: pd.DataFrame, decided: pd.DataFrame) -> pd.DataFrame:
    """An ablation for reading: percent right by benchmark, and the difference of the average to the control in points.

    rows, decided: of `scores` and `differences`. A control has no difference to itself.
    """
    wide = (100 * rows.pivot(index="model", columns="benchmark", values="mean")).round(1)
    wide = wide.reindex(index=rows["model"].unique(), columns=rows["benchmark"].unique())
    words = [in_words(row) + row["star"] for _, row in decided.iterrows()]
    points = points_texts(decided) if len(decided) else []
    effect = pd.DataFrame({"less": decided["against"].to_list(), "points": points, "verdict": words}, decided["model"])
    return wide.join(effect).fillna("").rename_axis(None).rename_axis(None, axis=1)


def summary(groups: Mapping[str, Ablation], run: str) -> str:
    """What ablations a page shows, in a sentence; how to make them where there are none."""
    if not groups:
        return f"No ablations were made for this run; `make ablations RUN={run}` makes them."
    return f"{len(groups)} ablations: {', '.join(groups)}."


def of_models(
    pairs: Mapping[str, tuple[str, str]], table: pd.DataFrame, benchmarks: Sequence[str], margin: float
) -> dict[str, str]:
    """Name of an effect -> the difference of two models in words, where both answered every question.

    pairs: name -> (model, the model that it is compared with), which are one exploratory family. table: index
    (benchmark, question), a column for each model, the share of right answers. margin: in points.
    """
    ready = {n: p for n, p in pairs.items() if set(p) <= set(table.columns) and table[list(p)].notna().all(axis=None)}
    asked = [Comparison("exploratory: fidelity card", a, b, tuple(benchmarks)) for a, b in ready.values()]
    decided = decide(table, asked, margin)
    words = [
        f"{row['model']} less {row['against']}: {points} points, {in_words(row)}"
        for (_, row), points in zip(decided.iterrows(), points_texts(decided) if asked else [], strict=True)
    ]
    return dict(zip(ready, words, strict=True))
