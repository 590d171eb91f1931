"""Blocks of a params file: what is compared before anybody has seen a score, and which ablations a run makes.

An ablation asks one question of many models: other merges of the same branches, or the same merges of branches that
were trained otherwise. Each has a control, the model that every other one is compared with.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from tinyr1.core.params.blocks import Block, Count, Name, Positive, PositiveShare, Seed, unless_verifying
from tinyr1.core.params.training import PACKINGS, MergedModel

OWN = "own"  # the training of the run itself


class Headline(Block):
    """One confirmatory comparison, averaged over all benchmarks."""

    model: Name
    """Name of a model of the run. Choice."""
    against: Name
    """Name of the model that it is compared with. Choice."""


class Analysis(Block):
    """What is tested, written down before the run; every other test of the report is exploratory."""

    margin: Positive
    """Points within which two models count as similar: "similar", "retains" and "slightly" are tests of equivalence
    within ± this margin (docs/evaluation.md §6). Choice."""
    headline: Annotated[list[Headline], Field(min_length=1)] = unless_verifying()
    """The confirmatory comparisons, one family of Holm's correction. Choice."""


class Training(Block):
    """Another training of the branches on the rows of the run, which differs from the run's own in what is given."""

    models: Annotated[list[Name], Field(min_length=1)]
    """Names of the models that are trained again, from the run's own backbone. Choice."""
    seed: Seed | None = None
    """Seed of the order of the rows; null: that of the run. Choice."""
    learning_rate: Positive | None = None
    """Peak learning rate of each of these models; null: its own. Choice."""
    epochs: Count | None = None
    """Passes over the rows; null: its own. Choice."""
    share: PositiveShare | None = None
    """Share of the rows of each domain, the first ones; null: all. Choice."""
    packing: Literal[PACKINGS] | None = None  # type: ignore[valid-type]
    """Which samples a token sees (`Sft.packing`); null: as each model's own. Choice."""
    template: Literal["qwen"] | None = None
    """The template of the training rows (`Backbone.training_template`); null: as the run's own. Choice."""

    @property
    def repeats(self) -> tuple:
        """What the training changes but for the seed; trainings of which this is equal are repetitions."""
        return self.learning_rate, self.epochs, self.share, self.packing, self.template


class Ablation(Block):
    """One question, and the models that answer it."""

    question: str
    """The question in one sentence, for the report. Choice."""
    control: Name
    """Name of the model that every other model of this ablation is compared with. Choice."""
    trainings: Annotated[list[Name], Field(min_length=1)] = Field(default=[OWN])
    """Trainings of the branches: `own` is that of the run, others are named in `ablations.trainings`. Choice."""
    control_training: Name | None = None
    """The training of the control; null: that of the model which is compared with it. Choice."""
    models: list[Name | MergedModel]
    """Names of branches, of merged models of `merge.models` or of other ablations; or merges that are defined here.
    Paper Table 2 and Figure 2 for some; else choice."""


class Ablations(Block):
    """The ablations of a run, `make ablations`. A file that holds only this block serves any run with its models."""

    trainings: dict[Name, Training] = Field(default={})
    """Other trainings of the branches by name. Choice."""
    groups: Annotated[dict[Name, Ablation], Field(min_length=1)]
    """The ablations by name, in the order of the report. Choice."""

    def merges(self) -> dict[str, MergedModel]:
        """The merges that are defined here, by name."""
        return {m.called: m for group in self.groups.values() for m in group.models if isinstance(m, MergedModel)}


def names_of(group: Ablation) -> list[str]:
    """The names of the models of an ablation, in their order."""
    return [m if isinstance(m, str) else m.called for m in group.models]


def problems(ablations: Ablations, branches: set[str], merges: set[str]) -> Iterator[str]:
    """Lines "path: problem". branches: trained models of the run, without the backbone; merges: names of its merges."""
    for name, training in ablations.trainings.items():
        if name == OWN:
            yield f"ablations.trainings.{OWN}: is the name of the run's own training; choose another name"
        for unknown in [model for model in training.models if model not in branches]:
            yield f"ablations.trainings.{name}.models: {unknown!r} is not one of {', '.join(sorted(branches))}"
    taken = branches | merges | {"backbone"}
    known = taken | set(ablations.merges())
    for name, group in ablations.groups.items():
        where = f"ablations.groups.{name}"
        for model in group.models:
            if isinstance(model, MergedModel):
                yield from _merge_problems(model, f"{where}.models", taken, branches)
                taken = taken | {model.called}
            elif model not in known:
                yield f"{where}.models: {model!r} is no model of the run and no merge of an ablation"
        if group.control not in names_of(group):
            yield f"{where}.control: {group.control!r} is not among the models of this ablation"
        for other in filter(None, [*group.trainings, group.control_training]):
            if other != OWN and other not in ablations.trainings:
                yield f"{where}.trainings: {other!r} is not named in ablations.trainings"


def _merge_problems(model: MergedModel, where: str, taken: set[str], branches: set[str]) -> Iterator[str]:
    """The problems of one merge. taken: names of other models."""
    if model.called in taken:
        yield f"{where}: the name {model.called!r} is taken; name that model here, without its recipe"
    for leaf in sorted(set(model.recipe.leaves) - branches - {"backbone"}):
        yield f"{where}.{model.called}: {leaf!r} is no model of the run"
