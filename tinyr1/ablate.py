"""Makes the ablations of a run: `make ablations RUN=smol`.

    params: ablations.groups --items--> every model that some group names, once for each training
      rows in another template    -> runs/<run>/ablations/<training>/rows/<domain>         they stay
      trainings of the branches   -> runs/<run>/ablations/<training>/branches/<model>      they stay
      merges, some at a time      -> runs/<run>/ablations/<training>/merged/<name>         removed after sampling
      one engine for each batch   -> runs/<run>/ablations/responses/<name>/<benchmark>.jsonl
      grades                      -> report/ablations.csv, report/ablation_questions.csv, after every batch

A model that the run itself has is not sampled again. What ties responses to a merge is the hash of its recipe, its
settings and its branches, so that a merge can be removed once it has answered. Kill it at any moment: the same command
goes on with the first model that lacks an answer.
"""

import argparse
import dataclasses
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyr1.branch import backbone, plan
from tinyr1.branch import stage as training_stage
from tinyr1.core import artifact, config, machine, surroundings
from tinyr1.core.config import Config
from tinyr1.core.errors import UserError, guarded
from tinyr1.core.params import ablations as block
from tinyr1.core.params.training import MergedModel
from tinyr1.core.progress import say
from tinyr1.data import benchmarks, curate
from tinyr1.evaluate import stage as evaluation
from tinyr1.merge import stage as merging
from tinyr1.report import ablations as tables
from tinyr1.run import locked, require_before
from tinyr1.sampling import responses

BATCH = 16  # merges on the disk at the same time


class Variant(Config):
    """A run whose branches were trained otherwise: the rows and the backbone are the run's, the rest is its own."""

    own: Config
    training: str

    @property
    def home(self) -> Path:
        return self.own.home / "ablations" / self.training

    @property
    def backbone(self) -> Path:
        return self.own.backbone

    @property
    def changes(self) -> block.Training | None:
        """What this training changes; None for the run's own."""
        return self.params.ablations.trainings.get(self.training) if self.params.ablations else None

    def rows(self, domain: str) -> Path:
        return self.home / "rows" / domain if self.changes and self.changes.template else self.own.rows(domain)

    @property
    def merged_models(self) -> dict[str, MergedModel]:
        ablations = self.params.ablations
        return self.own.merged_models | (ablations.merges() if ablations else {})

    def model(self, name: str) -> Path:
        """Folder of a branch or of a merge; a branch that this training leaves out is the run's own."""
        if name in self.merged_models:
            return self.home / "merged" / name
        trained = self.changes.models if self.changes else []
        return self.home / "branches" / name if name in trained else self.own.model(name)


@dataclass(frozen=True)
class Item:
    """One model of one training. name: of its folder of responses; own: whether the run itself evaluates it."""

    label: str
    variant: Variant
    own: bool

    @property
    def name(self) -> str:
        return self.label if self.variant.training == block.OWN else f"{self.label}@{self.variant.training}"

    @property
    def is_merge(self) -> bool:
        return self.label in self.variant.merged_models


class Asked(Config):
    """A run of any models, for sampling and grading. places: name -> (folder, what ties responses to the model)."""

    own: Config
    places: dict[str, tuple[Path, str | None]]
    shared: tuple[str, ...] = ()
    """Names of models that the run itself has asked."""

    @property
    def home(self) -> Path:
        return self.own.home / "ablations"

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self.places)

    def model(self, name: str) -> Path:
        return self.places[name][0]

    def known_key(self, model: str) -> str | None:
        return self.places[model][1]

    def responses(self, model: str, benchmark: str) -> Path:
        return self.own.responses(model, benchmark) if model in self.shared else super().responses(model, benchmark)


def items(cfg: Config, ablations: block.Ablations) -> list[Item]:
    """Every model of every training that some ablation names, once, in the order of the ablations."""
    with_block = cfg.params.model_copy(update={"ablations": ablations})
    found: dict[tuple[str, str], Item] = {}
    for group in ablations.groups.values():
        for training in group.trainings:
            variant = Variant(run=cfg.run, params=with_block, own=cfg, training=training)
            for label in block.names_of(group):
                own = training == block.OWN and label in cfg.models
                found.setdefault((label, training), Item(label, variant, own))
    return list(found.values())


def job_of(variant: Variant, label: str) -> plan.Job:
    """The training of a branch, with what its variant changes. UserError where it is no branch of the run."""
    changes = variant.changes
    job = next((job for job in plan.jobs(variant) if job.name == label), None)
    if job is None or changes is None:
        raise UserError(f"ablations.trainings.{variant.training}: {label} is not trained by this run")
    sft = {key: value for key in ("learning_rate", "epochs", "packing") if (value := getattr(changes, key)) is not None}
    rows = job.rows
    if changes.share is not None:
        counts = map(len, job.tokens())
        rows = tuple(
            (folder, slice(part.start, part.start + max(1, round(n * changes.share))))
            for (folder, part), n in zip(job.rows, counts, strict=True)
        )
    return dataclasses.replace(job, sft=job.sft.model_copy(update=sft), rows=rows)


def train(variant: Variant) -> None:
    """The branches of one training, unless they are there."""
    changes = variant.changes
    if changes is None:
        return
    seed = variant.params.seed if changes.seed is None else changes.seed
    seeded = variant.model_copy(update={"params": variant.params.model_copy(update={"seed": seed})})
    say(f"training {variant.training}")
    for domain in variant.domains if changes.template else ():
        place, tokenizer = variant.rows(domain), backbone.tokenizer(variant.own)
        curate.retokenize(variant.own, domain, str(changes.template), place, tokenizer)
    for label in changes.models:
        training_stage.train_job(seeded, job_of(seeded, label), machine.has_gpu())


def place(item: Item) -> tuple[Path, str | None]:
    """(folder, what ties responses to the model) of an item; a merge need not be there."""
    if item.own:
        return item.variant.own.model(item.label), None
    key = merging.key(item.variant, item.label) if item.is_merge else None
    return item.variant.model(item.label), key


def asked_of(cfg: Config, chosen: Sequence[Item]) -> Asked:
    """The run that asks these models."""
    shared = tuple(item.name for item in chosen if item.own)
    return Asked(run=cfg.run, params=cfg.params, own=cfg, places={i.name: place(i) for i in chosen}, shared=shared)


def unanswered(cfg: Config, chosen: Sequence[Item], questions: dict[str, list[dict]]) -> list[Item]:
    """The items that lack a response."""
    asked = asked_of(cfg, chosen)
    jobs = evaluation.generation_plan(asked, list(asked.models), questions)["models"]
    return [
        item
        for item, model in zip(chosen, jobs, strict=True)
        if any(responses.missing(job, model["key"]) for job in model["jobs"])
    ]


def by_training(chosen: Sequence[Item]) -> Iterator[tuple[Variant, list[Item]]]:
    """The items of each training, the run's own first."""
    for training in dict.fromkeys([block.OWN, *(item.variant.training for item in chosen)]):
        if part := [item for item in chosen if item.variant.training == training]:
            yield part[0].variant, part


def batches(left: Sequence[Item]) -> Iterator[list[Item]]:
    """The items in their order, with at most BATCH merges in each part."""
    part: list[Item] = []
    for item in left:
        if sum(one.is_merge for one in part) == BATCH:
            yield part
            part = []
        part.append(item)
    if part:
        yield part


def sample(cfg: Config, part: Sequence[Item], questions: dict[str, list[dict]]) -> None:
    """Merge, ask, and remove the merges again."""
    for item in temporary(part):
        merging.make(item.variant, item.label)
    evaluation.generate(asked_of(cfg, part), questions, machine.has_gpu())
    remove_merges(part)


def temporary(part: Sequence[Item]) -> list[Item]:
    """The merges that are there only until they have answered."""
    return [item for item in part if item.is_merge and not item.own]


def remove_merges(part: Sequence[Item]) -> None:
    """Remove the merges that are there only until they have answered, as far as they are there."""
    for item in temporary(part):
        artifact.remove(item.variant.model(item.label))


def save(cfg: Config, ablations: block.Ablations, done: Sequence[Item], questions: dict[str, list[dict]]) -> None:
    """Grade what is answered and write both tables."""
    graded = evaluation.grade_all(asked_of(cfg, done), questions)
    names = {item.name: (item.label, item.variant.training) for item in done}
    tables.save(cfg, ablations, graded, names)


def ablate(name: str, file: Path | None) -> int:
    """Make the ablations of a run; the exit status. file: YAML with an `ablations` block in place of the run's."""
    surroundings.check()
    cfg = config.load(name)
    cfg.require_training("`make ablations`")
    ablations = config.ablations_from(cfg, file) if file else cfg.params.ablations
    if ablations is None:
        raise UserError(f"params/{name}.yaml: ablations: is null; give the block, or a file that holds it (FILE=…)")
    with locked(cfg):
        require_before(cfg, "05_ablations")
        questions = {name: one.questions for name, one in benchmarks.load_all(cfg).items()}
        done: list[Item] = []
        for variant, chosen in by_training(items(cfg, ablations)):
            train(variant)
            left = unanswered(cfg, chosen, questions)
            say(f"{variant.training}: {len(chosen) - len(left)} of {len(chosen)} models have answered")
            answered = [item for item in chosen if item not in left]
            remove_merges(answered)  # of a command that was killed between the last answer and this
            done += answered
            for part in batches(left):
                say(f"next: {', '.join(item.name for item in part)}")
                sample(cfg, part, questions)
                done += part
                save(cfg, ablations, done, questions)
        save(cfg, ablations, done, questions)
        print(f"written: {tables.path(cfg)}; {cfg.remedy('05_ablations')} for the report")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="name of a file in params/, without .yaml")
    parser.add_argument("--file", type=Path, help="YAML file that holds an `ablations` block, in place of the run's")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    again = f"make ablations RUN={arguments.run}"
    return guarded(
        lambda: ablate(arguments.run, arguments.file), f"interrupted; the same command goes on from here: {again}"
    )


if __name__ == "__main__":
    sys.exit(main())
