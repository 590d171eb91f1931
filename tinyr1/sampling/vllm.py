"""The vLLM engine, which lives in the sampling process and serves one checkpoint after another.

Inside this file `from vllm import …` is the library: imports are absolute, and this module is `tinyr1.sampling.vllm`.
The library is imported when an engine starts, because that takes many seconds.
"""

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tinyr1.core import launch, machine
from tinyr1.sampling import preflight
from tinyr1.sampling.requests import Answer, Failure, Request, Result

if TYPE_CHECKING:
    import torch
    from vllm import CompletionOutput, SamplingParams

# What `reload_weights` raises where a checkpoint cannot take the place of the one before; a new engine is the remedy.
RELOAD_ERRORS = (RuntimeError, ValueError, KeyError, AttributeError, AssertionError, OSError)


def cpu_environment(settings: dict) -> dict[str, str]:
    """Environment variables of the sampling process on a machine without a GPU; none where a server samples.

    settings: the plan's engine block.
    """
    if settings["kind"] == "endpoint":
        return {}
    return {
        # One process, so that killing it leaves no workers behind and imports are paid once.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
        "VLLM_CPU_KVCACHE_SPACE": str(settings["cpu_kv_cache_gb"]),
    }


def vllm_options(settings: dict, path: str, seed: int, is_cpu: bool) -> dict[str, Any]:
    """Arguments of vllm.LLM for the checkpoint at `path`. UserError for settings that a CPU cannot have."""
    if is_cpu:
        preflight.require_hardware(settings, has_gpu=False)
    options = {
        "model": path, "dtype": machine.inference_dtype(not is_cpu), "seed": seed, "enable_prefix_caching": True,
        **{name: settings[name] for name in ("max_model_len", "max_num_seqs", "tensor_parallel_size",
                                             "pipeline_parallel_size", "enforce_eager")},
    }  # fmt: skip
    if settings["max_num_batched_tokens"]:
        options["max_num_batched_tokens"] = settings["max_num_batched_tokens"]
    if is_cpu:
        return options | {"distributed_executor_backend": "uni"}
    if settings["distributed_executor_backend"]:
        options["distributed_executor_backend"] = settings["distributed_executor_backend"]
    return options | {"gpu_memory_utilization": settings["gpu_memory_utilization"]}


class Vllm:
    """One engine that starts with the checkpoint at `path`; `serve` puts another one of its signature in its place."""

    def __init__(self, settings: dict, path: str, seed: int) -> None:
        with launch.lasting_imports():
            from vllm import LLM
            from vllm.platforms import current_platform

        self.is_cpu = current_platform.is_cpu()
        # On a CPU, a random generator for each request kills the engine of vLLM 0.32, so all requests share the
        # engine's seed there.
        self.request_seeds = not self.is_cpu
        self.llm = LLM(**vllm_options(settings, path, seed, self.is_cpu))

    def serve(self, path: str) -> None:
        """Reload the weights in place from the checkpoint at `path`.

        One of RELOAD_ERRORS when that fails; the engine cannot be used any more after that.
        """
        self.llm.collective_rpc("reload_weights", kwargs={"weights_path": path})
        if self.is_cpu:
            self.llm.apply_model(repack_heads)
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("the prefix cache of the weights before could not be emptied")

    def close(self) -> None:
        """End the engine's processes and return their memory."""
        self.llm.llm_engine.engine_core.shutdown()

    def answers(self, requests: Iterable[Request]) -> Iterator[Result]:
        """Yield each request with its answer or failure as it finishes.

        Each sample is a request of its own. vLLM would hand out the samples of one request only when all of them are
        done, so a kill would lose finished ones. They share the prompt's blocks through the prefix cache either way.
        """
        from vllm import RequestOutput

        engine = self.llm.llm_engine
        waiting: dict[str, tuple[Request, int | None]] = {}
        params: dict[tuple, SamplingParams] = {}
        for i, request in enumerate(requests):
            seed = request.seed if self.request_seeds else None
            key = (request.job, seed)
            if key not in params:
                params[key] = sampling_params(request.sampling, seed)
            engine.add_request(str(i), {"prompt_token_ids": request.prompt}, params[key])
            waiting[str(i)] = (request, seed)
        while waiting:
            for output in engine.step():
                if output.finished and isinstance(output, RequestOutput):
                    request, seed = waiting.pop(output.request_id)
                    yield request, answer_of(output.outputs[0], seed)


def answer_of(output: "CompletionOutput", seed: int | None) -> Answer | Failure:
    """The answer that a finished output of vLLM holds; a failure where vLLM aborted the request."""
    if output.finish_reason not in ("stop", "length"):
        return Failure(f"the engine ended it with {output.finish_reason!r}")
    return Answer(output.text, len(output.token_ids), output.finish_reason, seed)


def repack_heads(model: "torch.nn.Module") -> None:
    """Pack the weights of the output heads again, after they were reloaded on a CPU.

    Output heads multiply by a packed copy of their weights there. vLLM 0.32 renews it only for a head that the
    checkpoint lists, so a head tied to the embedding would stay that of the first checkpoint.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for head in model.modules():
        if isinstance(head, ParallelLMHead):
            head.quant_method.process_weights_after_loading(head)


def sampling_params(sampling: dict, seed: int | None) -> "SamplingParams":
    """A job's sampling settings in vLLM's form."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling["temperature"], top_p=sampling["top_p"], max_tokens=sampling["max_tokens"],
        stop=sampling["stop"] or None, stop_token_ids=sampling["stop_token_ids"] or None, seed=seed,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )  # fmt: skip
