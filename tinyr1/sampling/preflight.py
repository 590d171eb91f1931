"""What is checked before an engine starts: its hardware, checkpoints, chat templates, context lengths.

A run that cannot finish must fail here, in seconds, and not after hours of sampling.
"""

import importlib.util
from collections import Counter
from pathlib import Path

from safetensors import SafetensorError, safe_open

from tinyr1.core import checkpoints, machine
from tinyr1.core.artifact import digest
from tinyr1.core.checkpoints import PROVENANCE, SPECIAL
from tinyr1.core.errors import UserError
from tinyr1.sampling.requests import Prompts, Request, requests_of_job, tokenizer_key

SHOWN = 5  # problems in one message
# RoPE variants whose max_position_embeddings already is the scaled length.
SCALED_ALREADY = {"su", "longrope", "llama3", "yarn", "deepseek_yarn"}


def context_limit(config: dict) -> int | None:
    """Tokens that a model was made for, prompt and answer together; None where its config.json does not say."""
    config = config.get("text_config", config)
    limit = config.get("max_position_embeddings")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    scaled = rope.get("rope_type", rope.get("type")) in SCALED_ALREADY
    return int(limit * (1.0 if scaled else rope.get("factor") or 1.0)) if limit else None


def signature(folder: Path) -> str:
    """Hash that is equal for checkpoints which one engine can serve in turn: those that share the network, the names
    and shapes of all tensors, the vocabulary and the end tokens.

    UserError names the file that is missing or damaged.
    """
    config = checkpoints.read_config(folder)
    # Special token ids are left out here, because _end_tokens reads them from where vLLM does.
    config = {k: v for k, v in config.items() if k not in (*PROVENANCE, *SPECIAL)}
    tensors = {name: shape for file in checkpoints.weight_files(folder) for name, shape in _shapes(file).items()}
    return digest([config, tensors, _vocabulary(folder), _end_tokens(folder)])


def _shapes(file: Path) -> dict[str, list[int]]:
    """Shape of each tensor of a safetensors file. UserError when the file is damaged or of another format."""
    if file.suffix != ".safetensors":
        raise UserError(f"{file}: no .safetensors file; load the model with transformers and save it again")
    try:
        with safe_open(file, "numpy") as handle:
            return {name: handle.get_slice(name).get_shape() for name in handle.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{file}: damaged safetensors file: {error}; fetch or write it again") from error


def _vocabulary(folder: Path) -> str:
    """Hash of tokenizer.json without the truncation and padding that training may have left in it; of all tokenizer
    files where there is no tokenizer.json."""
    content = checkpoints.read_object(folder / "tokenizer.json")
    if content is None:
        return tokenizer_key(folder)
    return digest({k: v for k, v in content.items() if k not in ("truncation", "padding")})


def _end_tokens(folder: Path) -> list[int]:
    """Token ids that end an answer, from generation_config.json, or else from config.json."""
    for name in ("generation_config.json", "config.json"):
        ids = (checkpoints.read_object(folder / name) or {}).get("eos_token_id")
        if ids is not None:
            return sorted(ids) if isinstance(ids, list) else [ids]
    return []


def check_engine(engine: dict, has_gpu: bool) -> str:
    """What vLLM takes of this machine with these settings, in words. UserError when they do not fit its hardware, when
    a package is missing, or when its processes have no room to exchange data."""
    require_hardware(engine, has_gpu)
    require_ray(engine)
    spans = engine["tensor_parallel_size"] * engine["pipeline_parallel_size"]
    room = machine.require_shared_memory(spans)
    count = spans * engine["data_parallel_size"]
    return f"vLLM on {f'{count} GPU' + 's' * (count > 1) if has_gpu else 'the CPU'}, /dev/shm with {room}"


def require_hardware(engine: dict, has_gpu: bool) -> None:
    """UserError when this machine lacks the GPUs that the settings of vLLM ask for; those of other nodes are Ray's."""
    engines, size = engine["data_parallel_size"], engine["tensor_parallel_size"] * engine["pipeline_parallel_size"]
    if not has_gpu and engines * size > 1:
        raise UserError(
            "engine: tensor_parallel_size, pipeline_parallel_size and data_parallel_size are 1 on a CPU, where "
            "one engine uses every core"
        )
    shown = len(machine.visible_gpus())
    if not has_gpu or engine.get("distributed_executor_backend") == "ray" or engines * size <= shown:
        return
    if engines > 1:
        raise UserError(
            f"engine.data_parallel_size: {engines} engines of {size} GPU{'s' if size > 1 else ''} need "
            f"{engines * size}, this machine shows {shown}; lower it, to 1 on a CPU"
        )
    raise UserError(
        f"engine.tensor_parallel_size x pipeline_parallel_size: {size} GPUs hold one model, and this machine shows "
        f"{shown}; lower them"
    )


def require_ray(engine: dict) -> None:
    """UserError when the settings ask for Ray, and its package is not installed."""
    if engine["distributed_executor_backend"] == "ray" and importlib.util.find_spec("ray") is None:
        raise UserError(
            "engine.distributed_executor_backend: ray needs the package ray on every node, and a running cluster "
            "(`ray start --head` on this node, `ray start --address` on the others)"
        )


def require_context(engine: dict, folder: Path) -> None:
    """UserError when vLLM is to read longer sequences than the checkpoint in a folder was made for."""
    limit = context_limit(checkpoints.read_config(folder))
    if limit and engine["max_model_len"] > limit:
        raise UserError(
            f"engine.max_model_len: {engine['max_model_len']:,} is above {limit:,}, the context that "
            f"{folder} was made for (max_position_embeddings); lower it, and max_tokens with it"
        )


def check_vllm(engine: dict, models: list[dict]) -> None:
    """UserError when these vLLM settings cannot work with these checkpoints, or when a folder is no checkpoint."""
    require_ray(engine)
    for model in models:
        require_context(engine, Path(model["path"]))
        checkpoints.weight_files(Path(model["path"]))


def check_distinct(model: dict) -> None:
    """UserError when a job asks for the same sample of a question twice."""
    for job in model["jobs"]:
        counts = Counter((r["question"], r["sample"]) for r in job["requests"])
        if twice := [f"{question}, sample {i}" for (question, i), n in counts.items() if n > 1]:
            raise UserError(
                f"{job['name']}: asked for twice: {'; '.join(twice[:SHOWN])}; a question id and a sample number "
                "name a response, so each pair is asked for once"
            )


def fits(engine: dict, request: Request) -> bool:
    """Whether the prompt and the longest answer of a request fit into the engine's context."""
    return len(request.prompt) + request.sampling["max_tokens"] <= engine["max_model_len"]


def check_lengths(engine: dict, model: dict, requests: list[Request]) -> None:
    """UserError when the prompt and the longest answer of a request do not fit into the engine's context."""
    most, problems = engine["max_model_len"], {}
    for r in requests:
        if not fits(engine, r):
            n = len(r.prompt) + r.sampling["max_tokens"]
            name = f"{model['jobs'][r.job]['name']}/{r.question}"
            problems[name] = f"{name}: {len(r.prompt):,} + {r.sampling['max_tokens']:,} = {n:,}"
    if problems:
        lines = list(problems.values())
        more = f"\n… and {len(lines) - SHOWN} more questions" if len(lines) > SHOWN else ""
        raise UserError(
            f"prompt tokens + max_tokens exceed engine.max_model_len ({most:,}); raise it, or lower max_tokens:\n"
            + "\n".join(lines[:SHOWN]) + more
        )  # fmt: skip


def checked_requests(engine: dict, models: list[dict], tolerant: bool = False) -> dict[str, list[Request]]:
    """Model name -> its requests, ready for the engine. UserError when the plan cannot work.

    engine: the plan's engine block. models: the plan's models, their jobs holding only requests that are to be sampled.
    tolerant: requests that are too long for the engine are left out, and are no reason to refuse the plan.
    """
    served = engine["kind"] == "endpoint"
    if served and len(models) > 1:
        raise UserError(
            f"engine.kind: endpoint serves one model ({engine['model']}), but the run has {len(models)}: "
            f"{', '.join(m['name'] for m in models)}; evaluate it alone"
        )
    if not served:
        check_vllm(engine, models)
    encoder, ready = Prompts(), {}
    for model in models:
        check_distinct(model)
        requests: list[Request] = []
        for i, job in enumerate(model["jobs"]):
            wanted = job["requests"]
            ids: list[list[int]] = [[]] * len(wanted) if served else encoder.encode(Path(model["path"]), wanted)
            requests += requests_of_job(i, job, ids)
        if tolerant and not served:
            requests = [r for r in requests if fits(engine, r)]
        elif not served:
            check_lengths(engine, model, requests)
        ready[model["name"]] = requests
    return ready
