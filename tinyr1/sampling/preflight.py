"""What is checked before an engine starts: checkpoints, chat templates, context lengths; and prompts as token ids.

A run that cannot finish must fail here, in seconds, and not after hours of sampling.
"""

import importlib.util
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from safetensors import SafetensorError, safe_open

from tinyr1.core import checkpoints, prompts
from tinyr1.core.artifact import digest
from tinyr1.core.checkpoints import PROVENANCE, SPECIAL, TOKENIZER_FILES
from tinyr1.core.errors import UserError

SHOWN = 5  # problems in one message
# RoPE variants whose max_position_embeddings already is the scaled length.
SCALED_ALREADY = {"su", "longrope", "llama3", "yarn", "deepseek_yarn"}


@dataclass(frozen=True)
class Request:
    """One sample to draw: `job` is the index of its job in the model's plan.

    prompt: token ids for an engine of our own; None where the endpoint renders `messages` or `text` itself.
    """

    job: int
    question: str
    sample: int
    order: Any
    sampling: dict
    prompt: list[int] | None = None
    messages: list[dict] | None = None
    text: str | None = None


def requests_of(job_index: int, job: dict, wanted: list[dict], token_ids: list[list[int] | None]) -> list[Request]:
    """Requests of one job; those of a question stand together, so that they share its prefix in the engine's cache."""
    made = [
        Request(job_index, r["question"], r["sample"], r.get("order"), job["sampling"], ids, r.get("messages"),
                raw_prompt(r) if "prompt" in r else None)
        for r, ids in zip(wanted, token_ids, strict=True)
    ]  # fmt: skip
    first = {}
    for request in made:
        first.setdefault(request.question, len(first))
    return sorted(made, key=lambda r: first[r.question])


# --- checkpoints --------------------------------------------------------------------------------------------


def context_limit(config: dict) -> int | None:
    """Tokens the model was made for, prompt and answer together; None where config.json does not say."""
    config = config.get("text_config", config)
    limit = config.get("max_position_embeddings")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    scaled = rope.get("rope_type", rope.get("type")) in SCALED_ALREADY
    return int(limit * (1.0 if scaled else rope.get("factor") or 1.0)) if limit else None


def signature(folder: Path) -> str:
    """Equal for checkpoints that one engine can serve in turn: same network, tensors, vocabulary and end tokens.

    UserError names the file that is missing or damaged.
    """
    config = checkpoints.read_config(folder)
    config = {k: v for k, v in config.items() if k not in (*PROVENANCE, *SPECIAL)}  # ids: see _eos
    tensors = {name: shape for file in checkpoints.weight_files(folder) for name, shape in _shapes(file).items()}
    return digest([config, tensors, _vocabulary(folder), _eos(folder)])


def _shapes(file: Path) -> dict[str, list[int]]:
    """Shape of each tensor of a safetensors file."""
    try:
        with safe_open(file, "numpy") as handle:
            return {name: handle.get_slice(name).get_shape() for name in handle.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{file}: damaged safetensors file: {error}; fetch or write it again") from error


def _vocabulary(folder: Path) -> object:
    """tokenizer.json without the state that training may have left in it; else the bytes of other vocabularies."""
    content = checkpoints.read_object(folder / "tokenizer.json")
    if content is None:
        return _tokenizer_key(folder)
    return digest({k: v for k, v in content.items() if k not in ("truncation", "padding")})


def _eos(folder: Path) -> list[int]:
    """Token ids that end an answer: of generation_config.json, else of config.json."""
    for name in ("generation_config.json", "config.json"):
        ids = (checkpoints.read_object(folder / name) or {}).get("eos_token_id")
        if ids is not None:
            return sorted(ids) if isinstance(ids, list) else [ids]
    return []


def _tokenizer_key(folder: Path) -> str:
    """Hash of everything that decides how prompts become token ids."""
    files = [folder / name for name in TOKENIZER_FILES]
    return digest([[p.name, p.read_bytes().hex()] for p in files if p.is_file()])


# --- prompts ------------------------------------------------------------------------------------------------


class Prompts:
    """Token ids of requests, each distinct prompt made once for all samples and for all models of one tokenizer."""

    def __init__(self) -> None:
        self.tokenizers: dict[str, Any] = {}
        self.made: dict[tuple[str, str], list[int]] = {}

    def encode(self, folder: Path, requests: list[dict]) -> list[list[int]]:
        """Token ids for each request of the plan, with this checkpoint's template. UserError without a template."""
        key, tokenizer = self._tokenizer(folder)
        if tokenizer.chat_template is None and any("messages" in r for r in requests):
            raise UserError(
                f"{folder}: the tokenizer has no chat template, and the protocol asks with messages; put the model's "
                "chat_template.jinja into the folder, or use a protocol with raw prompts"
            )
        return [self._ids(key, tokenizer, r) for r in requests]

    def text(self, folder: Path, request: dict) -> str:
        """The prompt of one request as the model sees it, special tokens included."""
        (ids,) = self.encode(folder, [request])
        return self._tokenizer(folder)[1].decode(ids)

    def _tokenizer(self, folder: Path) -> tuple[str, Any]:
        key = _tokenizer_key(folder)
        if key not in self.tokenizers:
            from transformers import AutoTokenizer

            try:
                self.tokenizers[key] = AutoTokenizer.from_pretrained(folder)
            except (OSError, ValueError) as error:
                raise UserError(f"{folder}: its tokenizer cannot be loaded: {error}") from error
        return key, self.tokenizers[key]

    def _ids(self, key: str, tokenizer: Any, request: dict) -> list[int]:
        text = json.dumps([request.get("messages"), request.get("prompt"), request["open_think"]])
        if (key, text) not in self.made:
            try:
                self.made[key, text] = encode(tokenizer, request)
            except TemplateError as error:  # a template may refuse a system turn, or turns in this order
                raise UserError(f"{request['question']}: the model's chat template refuses it: {error}") from error
        return self.made[key, text]


def encode(tokenizer: Any, request: dict) -> list[int]:
    """Token ids of one request.

    A chat template writes every special token itself. A raw prompt gets the tokenizer's own (BOS), as in an engine
    that is given a string; a prompt that spells BOS out has it twice, as in the released AIME runs (ledger §4.2).
    """
    if "messages" in request:
        text = prompts.render_messages(tokenizer, request["messages"], request["open_think"])
        return tokenizer.encode(text, add_special_tokens=False)
    return tokenizer.encode(raw_prompt(request))


def raw_prompt(request: dict) -> str:
    """The text of a request without messages; with `open_think` it ends in the opened think tag."""
    text, opened = request["prompt"], f"{prompts.THINK_OPEN}\n"
    return text if not request["open_think"] or text.endswith(opened) else text + opened


# --- the checks ---------------------------------------------------------------------------------------------


def check_engine(engine: dict, models: list[dict]) -> None:
    """vLLM settings that cannot work with these checkpoints or on this machine; folders that are no checkpoints."""
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
    """No job asks for the same sample of a question twice."""
    for job in model["jobs"]:
        counts = Counter((r["question"], r["sample"]) for r in job["requests"])
        if twice := [f"{question}, sample {i}" for (question, i), n in counts.items() if n > 1]:
            raise UserError(
                f"{job['benchmark']}: asked for twice: {'; '.join(twice[:SHOWN])}; a question id and a sample number "
                "name a response, so each pair is asked for once"
            )


def check_lengths(engine: dict, model: dict, requests: list[Request]) -> None:
    """Prompt and answer of every request fit into the engine's context."""
    most, problems = engine["max_model_len"], {}
    for r in requests:
        n = len(r.prompt) + r.sampling["max_tokens"]
        if n > most:
            name = f"{model['jobs'][r.job]['benchmark']}/{r.question}"
            problems[name] = f"{name}: {len(r.prompt):,} + {r.sampling['max_tokens']:,} = {n:,}"
    if problems:
        lines = list(problems.values())
        more = f"\n… and {len(lines) - SHOWN} more questions" if len(lines) > SHOWN else ""
        raise UserError(
            f"prompt tokens + max_tokens exceed engine.max_model_len ({most:,}); raise it, or lower max_tokens:\n"
            + "\n".join(lines[:SHOWN]) + more
        )  # fmt: skip


def prepare(engine: dict, models: list[dict]) -> dict[str, list[Request]]:
    """Model name -> its requests, ready for the engine; UserError before any engine starts.

    models: entries of the plan whose jobs hold only the requests that are to be sampled.
    """
    served = engine["kind"] == "endpoint"
    if served and len(models) > 1:
        raise UserError(
            f"engine.kind: endpoint serves one model ({engine['model']}), but the run has {len(models)}: "
            f"{', '.join(m['name'] for m in models)}; evaluate it alone"
        )
    if not served:
        check_engine(engine, models)
    encoder, ready = Prompts(), {}
    for model in models:
        check_distinct(model)
        requests = []
        for i, job in enumerate(model["jobs"]):
            wanted = job["requests"]
            ids = [None] * len(wanted) if served else encoder.encode(Path(model["path"]), wanted)
            requests += requests_of(i, job, wanted, ids)
        if not served:
            check_lengths(engine, model, requests)
        ready[model["name"]] = requests
    return ready
