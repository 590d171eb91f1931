"""Blocks of a params file: what samples answers, and how they are judged (paper §3.1.2; docs/evaluation.md)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tinyr1.core.params.blocks import (
    ADDRESS,
    Block,
    Count,
    CountOrZero,
    Flag,
    Positive,
    PositiveOrZero,
    PositiveShare,
)


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
    """Further attempts after time-outs, lost connections, HTTP 408, 409, 429 and 5xx, replies without an answer, and
    generations that the server gave up; a pause that the server asks for is kept. Choice."""
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] | None = None
    """The name by which the server takes the longest answer: OpenAI's reasoning models refuse max_tokens, older servers
    do not know the other. null: max_tokens. Choice."""


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
    """`auto`: the strongest that works here; `none` also needs the environment variable TINYR1_RUN_UNCONFINED
    (docs/evaluation.md §3.6). Choice."""


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
    failed: Literal["wrong"] | None = None
    """What a generation counts as that the server failed to finish, refused, or found too long: `wrong`; null: it is
    asked again by the next run, and its benchmark has no score before (docs/evaluation.md §0.6). Choice."""
