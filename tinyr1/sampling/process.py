"""The process that samples: it reads a plan written by `tinyr1.evaluate` and appends to the response store.

    python -m tinyr1.sampling.process plan.json

One engine serves every checkpoint of one signature in turn, its weights reloaded in place. Checkpoints of another
signature, and one that cannot be reloaded, get a new engine in a fresh process image, so that all memory is returned.
A killed run loses only the requests in flight; the same command again draws what is missing.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tinyr1.core import launch
from tinyr1.core.errors import UserError, guarded
from tinyr1.core.machine import describe as machine
from tinyr1.sampling import engines, preflight, responses

CPU_ENVIRONMENT = {
    # One process, so that killing it leaves no workers behind and imports are paid once.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
Engine = engines.Vllm | engines.Endpoint
PROGRESS_PERIOD = 0.5  # seconds between two progress files


class Progress:
    """The file that whoever started this process reads: done, of, tokens, seconds of sampling, and the model's name."""

    def __init__(self, path: Path, of: int, continued: bool) -> None:
        before = read_progress(path) if continued else {"done": 0, "tokens": 0, "seconds": 0.0}
        self.path, self.of, self.model = path, before["done"] + of, ""
        self.done, self.tokens, self.seconds = before["done"], before["tokens"], before["seconds"]
        self.written = 0.0

    def add(self, tokens: int | None, seconds: float) -> None:
        """One more answer; `seconds` have passed since the last call."""
        self.done, self.tokens, self.seconds = self.done + 1, self.tokens + (tokens or 0), self.seconds + seconds
        if time.monotonic() - self.written >= PROGRESS_PERIOD:
            self.write()

    def write(self) -> None:
        self.written = time.monotonic()
        facts = {"done": self.done, "of": self.of, "tokens": self.tokens, "seconds": round(self.seconds, 2),
                 "model": self.model}  # fmt: skip
        _replace(self.path, facts)


def read_progress(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _replace(path: Path, facts: dict) -> None:
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(json.dumps(facts), encoding="utf-8")
    temporary.replace(path)


def share(requests: list[dict], rank: int, ranks: int) -> list[dict]:
    """The requests of one data-parallel rank: whole questions, dealt out in turn."""
    number: dict[str, int] = {}
    for request in requests:
        number.setdefault(request["question"], len(number))
    return [r for r in requests if number[r["question"]] % ranks == rank]


def unfinished(plan: dict, rank: int, ranks: int) -> list[dict]:
    """Models of the plan with the requests that this rank has to sample; those without any are left out.

    The share is taken of the whole job, not of what is missing: the other ranks are writing already.
    """
    left = []
    for model in plan["models"]:
        mine = [job | {"requests": share(job["requests"], rank, ranks)} for job in model["jobs"]]
        jobs = [job | {"requests": responses.missing(job, model["key"])} for job in mine]
        if any(job["requests"] for job in jobs):
            left.append(model | {"jobs": jobs})
    return left


def line_of(model: dict, request: preflight.Request, answer: engines.Answer) -> dict:
    """The stored form of one sample; `order` is what the protocol gave with the question, such as option orders."""
    line = {
        "question": request.question, "sample": request.sample, "text": answer.text, "n_tokens": answer.n_tokens,
        "finish": answer.finish, "seed": answer.seed, "model_key": model["key"],
        "protocol_key": model["jobs"][request.job]["protocol_key"],
    }  # fmt: skip
    return line if request.order is None else line | {"order": request.order}


def sample(engine: Engine, model: dict, requests: list[preflight.Request], progress: Progress, rank: int) -> Counter:
    """All requests of one model, over all its benchmarks in one submission; counts of failures by reason."""
    progress.model, failures, received = model["name"], Counter(), 0
    with ExitStack() as stack:
        writers = [
            stack.enter_context(responses.Writer(responses.shard(Path(job["out"]), rank))) for job in model["jobs"]
        ]
        last = time.perf_counter()
        for request, result in engine.answers(requests):
            if isinstance(result, engines.Failure):
                failures[result.reason] += 1
                continue
            writers[request.job].append(line_of(model, request, result))
            received += 1
            now = time.perf_counter()
            progress.add(result.n_tokens, now - last)
            last = now
        progress.write()
    if never := len(requests) - received - failures.total():
        failures["not asked: the endpoint was given up after the failures above"] = never
    return failures


def run(plan: dict, progress_path: Path, rank: int = 0, ranks: int = 1, continued: bool = False) -> bool:
    """Sample what is missing; True when checkpoints are left that need a new engine in a fresh process.

    UserError before the engine starts when the plan cannot work, and after everything that was received is stored when
    requests failed.
    """
    settings, models = plan["engine"], unfinished(plan, rank, ranks)
    if not models:
        return False
    ready = preflight.prepare(settings, models)
    progress = Progress(progress_path, sum(map(len, ready.values())), continued)
    if settings["kind"] == "endpoint":
        engine: Engine = engines.Endpoint(settings)
        engine.check()
        same, others = models, False
    else:
        signatures = [preflight.signature(Path(m["path"])) for m in models]
        same = [m for m, s in zip(models, signatures, strict=True) if s == signatures[0]]
        others = len(same) < len(models)
        engine = engines.Vllm(settings, same[0]["path"], plan["seed"] + rank)
    for i, model in enumerate(same):
        if i:
            try:
                engine.load(model["path"])
            except engines.RELOAD_ERRORS as error:
                print(f"{model['path']}: not reloaded in place ({error}); it gets a new engine", file=sys.stderr)
                others = True
                break
        if failures := sample(engine, model, ready[model["name"]], progress, rank):
            reasons = "\n".join(f"  {n} x {reason}" for reason, n in failures.most_common(5))
            raise UserError(
                f"{failures.total()} of {len(ready[model['name']])} requests to {model['name']} have no answer; the "
                f"others are stored, and the same command asks for the missing ones again:\n{reasons}"
            )
    engine.close()
    return others


# --- processes ----------------------------------------------------------------------------------------------


def devices(settings: dict) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each data-parallel rank. UserError when there are too few GPUs."""
    ranks, size = settings["data_parallel_size"], settings["tensor_parallel_size"] * settings["pipeline_parallel_size"]
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [str(i) for i in range(len(machine()["gpus"]))] if listed is None else [g for g in listed.split(",") if g]
    if ranks * size > len(gpus):
        raise UserError(
            f"engine.data_parallel_size: {ranks} engines of {size} GPU{'s' if size > 1 else ''} need {ranks * size}, "
            f"this machine shows {len(gpus)}; lower it, to 1 on a CPU"
        )
    return [",".join(gpus[rank * size : (rank + 1) * size]) for rank in range(ranks)]


def rank_progress(path: Path, rank: int) -> Path:
    return path.with_suffix(f".rank-{rank}.progress")


def total(parts: list[dict]) -> dict:
    """Progress of all ranks as one; they work side by side, so the seconds are those of the slowest."""
    return {
        "done": sum(p["done"] for p in parts), "of": sum(p["of"] for p in parts),
        "tokens": sum(p["tokens"] for p in parts), "seconds": max(p["seconds"] for p in parts),
        "model": parts[-1]["model"],
    }  # fmt: skip


def supervise(path: Path, settings: dict) -> int:
    """One process for each data-parallel rank; the first that fails ends the others. The exit status."""
    visible, ranks, progress = devices(settings), settings["data_parallel_size"], path.with_suffix(".progress")
    files = [rank_progress(path, rank) for rank in range(ranks)]
    for file in files:
        file.unlink(missing_ok=True)
    parent = {launch.WATCH: f"{os.getpid()}@{os.uname().nodename}"}
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "tinyr1.sampling.process", str(path), "--rank", str(rank)],
            env=os.environ | parent | {"CUDA_VISIBLE_DEVICES": visible[rank]},
        )
        for rank in range(ranks)
    ]
    try:
        while True:
            statuses = [child.poll() for child in children]
            if parts := [read_progress(file) for file in files if file.exists()]:
                _replace(progress, total(parts))
            if failed := [status for status in statuses if status]:
                return failed[0]
            if None not in statuses:
                return 0
            time.sleep(PROGRESS_PERIOD)
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path, help="JSON file written by tinyr1.evaluate")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)  # set for data-parallel processes
    parser.add_argument("--continued", action="store_true", help=argparse.SUPPRESS)  # set for the next engine
    arguments = parser.parse_args()
    launch.die_with_parent()
    return guarded(lambda: work(arguments.plan, arguments.rank, arguments.continued))


def work(path: Path, rank: int | None, continued: bool) -> int:
    """Sample what the plan asks for, as one rank or as the supervisor of several; the exit status."""
    plan = json.loads(path.read_text(encoding="utf-8"))
    ranks = plan["engine"].get("data_parallel_size", 1)
    if ranks > 1 and rank is None:
        return supervise(path, plan["engine"])
    progress = rank_progress(path, rank or 0) if ranks > 1 else path.with_suffix(".progress")
    if run(plan, progress, rank or 0, ranks, continued):
        words = [word for word in sys.argv[1:] if word != "--continued"]
        os.execv(sys.executable, [sys.executable, "-m", "tinyr1.sampling.process", *words, "--continued"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
