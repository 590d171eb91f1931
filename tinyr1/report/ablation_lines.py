"""The ablations of a run for its index: each question with the models that answer it, in one line by verdict."""

from dataclasses import dataclass

from tinyr1.core.config import Config
from tinyr1.evaluate.compare import VERDICTS
from tinyr1.evaluate.scores import points_texts
from tinyr1.report import ablations, effects


@dataclass(frozen=True)
class Line:
    """One ablation: its question, in how many trainings it was asked, the names of its controls, and the models of each
    of VERDICTS with their differences to the control, joined by semicolons."""

    question: str
    trainings: int
    control: str
    models: tuple[str, ...]


def lines(cfg: Config) -> list[Line]:
    """The ablations that have results, in the order of the params file; [] where none were made."""
    made, block = ablations.load(cfg), cfg.params.ablations
    if made is None or block is None:
        return []
    found = []
    for name, group in block.groups.items():
        rows = effects.differences(name, block, made[1], list(cfg.params.benchmarks), cfg.params.analysis.margin)
        if len(rows):
            texts = rows["model"] + " " + points_texts(rows)
            models = tuple("; ".join(texts[rows["verdict"] == verdict]) for verdict in VERDICTS)
            trainings = len(effects.repetitions(block) & {*group.trainings})
            found.append(Line(group.question, trainings, ", ".join(dict.fromkeys(rows["against"])), models))
    return found
