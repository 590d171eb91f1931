"""Sampling with vLLM: the process that `tinyr1.evaluate` starts, one for all checkpoints of one architecture.

    python -m tinyr1.generate plan.json

The engine starts once; for each further checkpoint the weights are reloaded in place. Every finished sample is
appended to its JSONL file at once, so a killed run loses only the requests in flight.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tinyr1 import chat, launch
from tinyr1.record import read_lines

if TYPE_CHECKING:
    from vllm import LLM, SamplingParams

CPU_ENVIRONMENT = {
    # One process, so that killing it leaves no workers behind and imports are paid once.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}


def start_engine(plan: dict) -> "LLM":
    """The engine, with the weights of the plan's first model."""
    from vllm import LLM
    from vllm.platforms import current_platform

    settings = plan["engine"]
    options = {
        "model": plan["models"][0]["path"],
        "dtype": "bfloat16",
        "seed": plan["seed"],
        "max_model_len": settings["max_model_len"],
        "max_num_seqs": settings["max_num_seqs"],
        "tensor_parallel_size": settings["tensor_parallel_size"],
        "enforce_eager": settings["enforce_eager"],
        "enable_prefix_caching": True,
    }
    if settings["max_num_batched_tokens"]:
        options["max_num_batched_tokens"] = settings["max_num_batched_tokens"]
    if current_platform.is_cpu():
        options["distributed_executor_backend"] = "uni"
    else:
        options["gpu_memory_utilization"] = settings["gpu_memory_utilization"]
    return LLM(**options)


def remaining(job: dict, model_key: str) -> list[tuple[dict, int]]:
    """(question, sample) pairs of a job that have no response yet."""
    lines = read_lines(Path(job["out"]))
    done = {
        (r["question"], r["sample"])
        for r in lines
        if (r["model_key"], r["protocol_key"]) == (model_key, job["protocol_key"])
    }
    return [
        (q, s) for q in job["questions"] for s in range(job["samples"]) if (q["id"], s) not in done
    ]


def sampling_params(job: dict) -> "SamplingParams":
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=job["temperature"], top_p=job["top_p"], max_tokens=job["max_tokens"],
        output_kind=RequestOutputKind.FINAL_ONLY,
    )  # fmt: skip


def sample(llm: "LLM", model: dict, progress: dict, progress_path: Path) -> None:
    """All missing responses of one model, over all its benchmarks in one submission."""
    tokenizer, engine, waiting = llm.get_tokenizer(), llm.llm_engine, {}
    for job in model["jobs"]:
        Path(job["out"]).parent.mkdir(parents=True, exist_ok=True)
        for question, s in remaining(job, model["key"]):
            ids = chat.encode_prompt(tokenizer, question["user"])
            name = f"{job['benchmark']}/{question['id']}/{s}"
            engine.add_request(name, {"prompt_token_ids": ids}, sampling_params(job))
            waiting[name] = (job, question["id"], s)
    files = {job["out"]: open(job["out"], "a", encoding="utf-8") for job in model["jobs"]}  # noqa: SIM115
    try:
        while waiting:
            finished = [out for out in engine.step() if out.finished]
            for output in finished:
                job, question_id, s = waiting.pop(output.request_id)
                answer = output.outputs[0]
                line = {
                    "question": question_id, "sample": s, "text": answer.text,
                    "n_tokens": len(answer.token_ids), "finish": answer.finish_reason,
                    "model_key": model["key"], "protocol_key": job["protocol_key"],
                }  # fmt: skip
                files[job["out"]].write(json.dumps(line, ensure_ascii=False) + "\n")
                progress["tokens"] += line["n_tokens"]
                progress["done"] += 1
            if finished:
                for file in files.values():
                    file.flush()
                progress["seconds"] = round(time.perf_counter() - progress["started"], 2)
                _write_progress(progress_path, progress | {"model": model["name"]})
    finally:
        for file in files.values():
            os.fsync(file.fileno())
            file.close()


def _write_progress(path: Path, progress: dict) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(progress), encoding="utf-8")
    temporary.replace(path)


def run(plan: dict, progress_path: Path) -> None:
    """Sample everything in the plan that is missing."""
    todo = sum(len(remaining(job, m["key"])) for m in plan["models"] for job in m["jobs"])
    llm = start_engine(plan)
    progress = {"done": 0, "of": todo, "tokens": 0, "started": time.perf_counter(), "seconds": 0.0}
    for i, model in enumerate(plan["models"]):
        if i:
            llm.collective_rpc("reload_weights", kwargs={"weights_path": model["path"]})
            llm.reset_prefix_cache()
        sample(llm, model, progress, progress_path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path, help="JSON file written by tinyr1.evaluate")
    path = parser.parse_args().plan
    launch.die_with_parent()
    run(json.loads(path.read_text(encoding="utf-8")), path.with_suffix(".progress"))


if __name__ == "__main__":
    main()
