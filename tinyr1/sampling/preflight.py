"""What is checked before an engine starts: checkpoints, chat templates, context lengths.

A run that cannot finish must fail here, in seconds, and not after hours of sampling.
"""

import importlib.util
from collections import Counter
from pathlib import Path

from safetensors import SafetensorError, safe_open

from tinyr1.core import checkpoints
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


def check_vllm(engine: dict, models: list[dict]) -> None:
    """UserError when these vLLM settings cannot work with these checkpoints or on this machine, or when a folder is no
    checkpoint."""
    for model in models:
        limit = context_limit(checkpoints.read_config(Path(model["path"])))
        checkpoints.weight_files(Path(model["path"]))
        if limit and engine["max_model_len"] > limit:
            raise UserError(
                f"engine.max_model_len: {engine['max_model_len']:,} is above {limit:,}, the context that "
                f"{model['path']} was made for (max_position_embeddings); lower it, and max_tokens with it"
            )
    if engine["distributed_executor_backend"] == "ray" and importlib.util.find_spec("ray") is None:
        raise UserError(
            "engine.distributed_executor_backend: ray needs the package ray on every node, and a running cluster "
            "(`ray start --head` on this node, `ray start --address` on the others)"
        )


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
