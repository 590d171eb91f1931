"""The schema of a params file, `params/<run>.yaml`: every parameter with its meaning, its unit and its source.

`docs/params.md` and `params/schema.json` are generated from these blocks (`python -m tinyr1.core.params`), so the text
below a parameter is what a person reads about it. `tinyr1.core.config` reads the files.

Sources: "paper §x" is arXiv 2503.04872v2; "released" is the code of Qihoo360/TinyR1-32B-Preview and of the training
framework that it names; "choice" means that neither states it.
"""

import json
import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from tinyr1.core.params import ablations as ablation
from tinyr1.core.params.ablations import Ablations, Analysis
from tinyr1.core.params.blocks import COMMIT, Block, Name, Seed, unless_verifying
from tinyr1.core.params.domains import Benchmark, Curate, Domain
from tinyr1.core.params.evaluation import Evaluate, VllmEngine
from tinyr1.core.params.teacher import Teacher
from tinyr1.core.params.training import Backbone, Merge, Mixture, Trainer

# What a verification run leaves out, which trains and merges nothing: blocks of the file, and keys of each domain.
TRAINING, OF_A_DOMAIN = ("curate", "trainer", "mixture", "merge"), ("sources", "limit", "sft")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")  # a folder of this form is written with ./ before it
_REQUIRED: JsonDict = {
    "if": {"required": ["verification"]},
    "else": {
        "required": list(TRAINING),
        "properties": {
            "domains": {"additionalProperties": {"required": list(OF_A_DOMAIN)}},
            "analysis": {"required": ["headline"]},
        },
    },
}  # fmt: skip


class Params(Block):
    """A whole params file."""

    model_config = ConfigDict(json_schema_extra=_REQUIRED)

    description: str
    """One sentence for the head of the report. Choice."""
    seed: Seed
    """Seed of everything that is drawn; released training script: 42 (docs/fidelity.md §2.1)."""
    verification: Literal[True] | None = Field(default=None, exclude_if=lambda value: value is None)
    """Where it is true, the run asks a published model, which `backbone` names at a commit, and trains and merges
    nothing. Its file leaves out `curate`, `trainer`, `mixture` and `merge`, `sources`, `limit` and `sft` of each
    domain, and `analysis.headline`; its report sets published scores beside its own (docs/evaluation.md §6.3).
    Choice."""
    backbone: Backbone
    """The common ancestor of the branches; paper §3.1.1. Of a verification run, the published model."""
    domains: Annotated[dict[Name, Domain], Field(min_length=1)]
    """The domains by name, in the order of all tables; paper §2.1: math, science and code."""
    teacher: Teacher | None = None
    """What writes the traces of sources with `traces`; null: nothing does. Paper §2.1: DeepSeek-R1 (docs/fidelity.md
    §1.3)."""
    curate: Curate = unless_verifying()
    """From raw rows to training rows; paper §2.1 (docs/fidelity.md §1)."""
    trainer: Trainer = unless_verifying()
    """What all fine-tuning runs share; released (docs/fidelity.md §2)."""
    mixture: Mixture | None = unless_verifying(null=True)
    """The data-mixture baseline, one model on the rows of all domains; null: none. Paper Table 2, which does not give
    its settings (docs/fidelity.md §5.2)."""
    merge: Merge = unless_verifying()
    """How the experts become one model; paper §2.2 (docs/fidelity.md §3)."""
    evaluate: Evaluate
    """How every model is asked and judged; paper §3.1.2 (docs/fidelity.md §4)."""
    analysis: Analysis
    """What is tested, written down before the run (docs/evaluation.md §6). Choice."""
    ablations: Ablations | None = None
    """What `make ablations` compares; null: nothing. Paper §3.2, Figure 2 and Table 2."""

    @property
    def benchmarks(self) -> dict[str, Benchmark]:
        """Every benchmark by name, in the order of the domains."""
        return {name: b for domain in self.domains.values() for name, b in domain.benchmarks.items()}

    @property
    def domain_of(self) -> dict[str, str]:
        """Benchmark name -> domain name."""
        return {name: domain for domain, block in self.domains.items() for name in block.benchmarks}

    @model_validator(mode="after")
    def _consistent(self) -> "Params":
        if problems := list(contradictions(self)):
            raise ValueError("\n".join(problems))
        return self


# --- rules between blocks: each yields lines "path: problem" -------------------------------------------------


def _a_run_that_trains_says_how(params: Params) -> Iterator[str]:
    """Of what a verification run leaves out, every other run gives all, and says `null` where it wants none."""
    for path in _training_keys(params, given=False):
        yield f"{path}: is missing; every parameter must be given"


def _training_keys(params: Params, given: bool) -> Iterator[str]:
    """Paths of what only a run that trains has, as far as the file gives it, or as far as it does not.

    A null counts as given in the second case alone: null says that there is none, which holds where nothing is trained.
    """

    def absent(block: Block, key: str) -> bool:
        return getattr(block, key) is None if given else key not in block.model_fields_set

    yield from (key for key in TRAINING if absent(params, key) != given)
    for name, domain in params.domains.items():
        yield from (f"domains.{name}.{key}" for key in OF_A_DOMAIN if absent(domain, key) != given)
    if absent(params.analysis, "headline") != given:
        yield "analysis.headline"


def _a_verification_trains_nothing(params: Params) -> Iterator[str]:
    why = "a run with `verification: true` asks a published model and trains nothing; remove it"
    others = [key for key in ("teacher", "ablations") if getattr(params, key) is not None]
    distilled = ["backbone.distill"] if params.backbone.distill else []
    for path in (*_training_keys(params, given=True), *others, *distilled):
        yield f"{path}: {why}"


def _a_verified_model_is_pinned(params: Params) -> Iterator[str]:
    """Published scores belong to one state of the weights, and of the tokenizer, which was repaired more than once."""
    model, revision = params.backbone.model, params.backbone.revision
    if HUB_ID.fullmatch(model) and not (revision and re.fullmatch(COMMIT, revision)):
        yield (
            f"backbone.revision: {json.dumps(revision)} does not pin {model}; give all 40 digits of the commit that is "
            f"asked, or write a folder as ./{model}"
        )


def _every_domain_takes_part_in_the_distillation(params: Params) -> Iterator[str]:
    """And leaves rows for its branch."""
    rows = params.backbone.distill.rows if params.backbone.distill else {}
    for name in rows.keys() - params.domains.keys():
        yield f"backbone.distill.rows.{name}: is not a domain of this run ({', '.join(params.domains)})"
    for name, domain in params.domains.items() if rows else ():
        if name not in rows:
            yield f"backbone.distill.rows.{name}: missing; give a number of rows"
        elif domain.limit is not None and domain.limit <= rows[name]:
            yield (
                f"domains.{name}.limit: {domain.limit} rows, but backbone.distill.rows.{name} takes {rows[name]} of "
                "them and the branch is left with none; raise the limit"
            )


def _no_domain_has_the_name_of_another_model(params: Params) -> Iterator[str]:
    for name in sorted(params.domains.keys() & {"backbone", "mixture"}):
        yield f"domains.{name}: the name is taken by another model; choose another name"


def _merges_name_models_of_the_run(params: Params) -> Iterator[str]:
    """Two models of one name would share an output folder."""
    models = {"backbone"} | _branches(params)
    seen = models | {"mixture"}
    for i, merged in enumerate(params.merge.models):
        for leaf in merged.recipe.leaves:
            if leaf not in models:
                yield f"merge.models.{i}: {leaf!r} is not a model of this run ({', '.join(sorted(models))})"
        if merged.called in seen:
            yield (
                f"merge.models.{i}: the name {merged.called!r} is taken by another model, which would share its output "
                "folder; give this one a `name` of its own"
            )
        seen.add(merged.called)


def _headline_compares_models_of_the_run(params: Params) -> Iterator[str]:
    models = {"backbone", *_branches(params), *(merged.called for merged in params.merge.models)}
    for i, pair in enumerate(params.analysis.headline):
        for key in ("model", "against"):
            if getattr(pair, key) not in models:
                yield (
                    f"analysis.headline.{i}.{key}: {getattr(pair, key)!r} is not a model of this run "
                    f"({', '.join(sorted(models))})"
                )


def _ablations_name_models_of_the_run(params: Params) -> Iterator[str]:
    if params.ablations is not None:
        merges = {merged.called for merged in params.merge.models}
        yield from ablation.problems(params.ablations, _branches(params), merges)


def _branches(params: Params) -> set[str]:
    """Names of the models that are trained from the backbone."""
    return {*params.domains} | ({"mixture"} if params.mixture else set())


def _a_benchmark_has_one_domain(params: Params) -> Iterator[str]:
    seen: dict[str, str] = {}
    for domain, block in params.domains.items():
        for name in block.benchmarks:
            if seen.setdefault(name, domain) != domain:
                yield f"domains.{domain}.benchmarks.{name}: {seen[name]} has a benchmark of this name; choose another"
    if not seen:
        yield "domains: none of them has a benchmark; give at least one, or nothing can be evaluated"


def _rows_fit_a_sequence(params: Params) -> Iterator[str]:
    if params.curate.max_tokens > params.trainer.sequence_length:
        yield (
            f"curate.max_tokens: {params.curate.max_tokens} is above trainer.sequence_length "
            f"({params.trainer.sequence_length}); a row must fit into one packed sequence"
        )


def _ranks_share_a_batch_evenly(params: Params) -> Iterator[str]:
    """The ranks of one host; how many hosts there are, only the hostfile says (`tinyr1.branch.plan.check_jobs`)."""
    ranks, distill = params.trainer.processes_per_node, params.backbone.distill
    blocks = {f"domains.{name}.sft": domain.sft for name, domain in params.domains.items()}
    blocks |= {"backbone.distill.sft": distill.sft} if distill else {}
    for path, sft in (blocks | ({"mixture": params.mixture} if params.mixture else {})).items():
        if sft.batch_size % ranks:
            yield (
                f"{path}.batch_size: {sft.batch_size} packed sequences cannot be shared by the {ranks} ranks of "
                f"trainer.processes_per_node; use a multiple of {ranks}"
            )


def _answers_fit_the_engine(params: Params) -> Iterator[str]:
    engine = params.evaluate.engine
    if not isinstance(engine, VllmEngine):
        return
    for name, benchmark in params.benchmarks.items():
        if benchmark.max_tokens >= engine.max_model_len:
            yield (
                f"domains.{params.domain_of[name]}.benchmarks.{name}.max_tokens: {benchmark.max_tokens} leaves no room "
                f"for the prompt in evaluate.engine.max_model_len ({engine.max_model_len})"
            )


def _protocol_knows_benchmarks(params: Params) -> Iterator[str]:
    for name, benchmark in params.benchmarks.items() if params.evaluate.protocol == "released" else ():
        if benchmark.kind not in ("aime", "gpqa", "livecodebench"):
            yield (
                f"domains.{params.domain_of[name]}.benchmarks.{name}: the released protocol knows aime, gpqa and "
                "livecodebench only; set evaluate.protocol: sound"
            )


def _traces_need_a_teacher(params: Params) -> Iterator[str]:
    for name, domain in params.domains.items() if params.teacher is None else ():
        for i, source in enumerate(domain.sources):
            if source.traces is not None:
                yield (
                    f"domains.{name}.sources.{i}.traces: {source.traces} needs a teacher; give the block `teacher`, or "
                    "set traces to null to train on the traces that the source brings"
                )


RULES = (
    _a_run_that_trains_says_how,
    _every_domain_takes_part_in_the_distillation,
    _no_domain_has_the_name_of_another_model,
    _merges_name_models_of_the_run,
    _headline_compares_models_of_the_run,
    _ablations_name_models_of_the_run,
    _a_benchmark_has_one_domain,
    _rows_fit_a_sequence,
    _ranks_share_a_batch_evenly,
    _answers_fit_the_engine,
    _protocol_knows_benchmarks,
    _traces_need_a_teacher,
)
VERIFICATION_RULES = (
    _a_verification_trains_nothing,
    _a_verified_model_is_pinned,
    _a_benchmark_has_one_domain,
    _answers_fit_the_engine,
    _protocol_knows_benchmarks,
)


def contradictions(params: Params) -> Iterator[str]:
    """What breaks a rule between blocks. A rule ends where a parameter that it looks at is absent (`config.parse`)."""
    for rule in VERIFICATION_RULES if params.verification else RULES:
        try:
            yield from rule(params)
        except (AttributeError, TypeError):  # what a file lacks is no attribute, or None (`unless_verifying`)
            continue
