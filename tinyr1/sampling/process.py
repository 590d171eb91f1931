r"""The process that samples: it reads a plan and appends missing responses to their store.

    python -m tinyr1.sampling.process plan.json

    plan.json --- unfinished: requests without a stored response --- preflight: checks, prompts as token ids
      kind: endpoint --> one Endpoint ----------------------\
      kind: vllm ------> one Vllm for each signature -------->  answers, failures --> responses/*.jsonl, plan.progress
                           \-- next signature: a fresh process image of the same command, --continued

One engine serves every checkpoint of one signature in turn, its weights reloaded in place. Checkpoints of another
signature, and one that cannot be reloaded, get a new engine in a fresh process image, so that all memory is returned.
A killed run loses only the requests in flight; the same command again draws the missing ones.

The plan, a JSON object: `engine` (the engine block of the params file), `seed`, and `models`, each with `name`, `path`,
`key` (a hash of what answers) and `jobs`. A job has a `name` for messages, `out` (its file of responses),
`protocol_key` (a hash of how it asks), `sampling` (see `tinyr1.sampling.requests.Request`) and `requests`, each with
`question` (an id), `sample` (a number from 0), `messages` or `prompt`, `open_think`, and optionally `order`.

Three more keys are optional. `limits` is for an endpoint (see `tinyr1.sampling.limits`). `tolerant` is true where a
request without an answer is no error; a server that is given up is an error all the same. `final` lists the kinds of
failures that stand: what failed so is not asked again. All others are asked again by the next run of the same plan.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinyr1.core import launch, machine, surroundings
from tinyr1.core.errors import UserError, guarded
from tinyr1.sampling import preflight, responses
from tinyr1.sampling.endpoint import Endpoint
from tinyr1.sampling.requests import Answer, Engine, Failure, Request
from tinyr1.sampling.store import LineWriter
from tinyr1.sampling.vllm import RELOAD_ERRORS, Vllm

PROGRESS_PERIOD = 0.5  # seconds between two progress files
COUNTED = ("done", "tokens", "prompt_tokens", "dollars", "seconds")  # sums over the answers
TOO_LONG = "prompt and longest answer do not fit into engine.max_model_len"


class Progress:
    """The file that the parent process reads: done, of (answers), tokens, prompt_tokens, dollars, seconds of sampling,
    the model's name, and failures (reason -> requests that the next run of the plan asks again)."""

    def __init__(self, path: Path, of: int, continued: bool) -> None:
        # A fresh process image goes on with the count of the one before, so that the parent sees one run.
        before: dict[str, Any] = read_progress(path) if continued else dict.fromkeys(COUNTED, 0)
        self.path, self.model, self.written = path, "", 0.0
        self.counts = {name: before[name] for name in COUNTED}
        self.of = self.counts["done"] + of
        self.failures: Counter[str] = Counter(before["failures"]) if continued else Counter()

    def count(self, answer: Answer | None, seconds: float) -> None:
        """Count one more answer, or a failure that stands, of which None came; `seconds` have passed since the last
        call."""
        used = (answer.n_tokens or 0, answer.n_prompt or 0, answer.dollars or 0.0) if answer else (0, 0, 0.0)
        counted = (1, *used, seconds)
        for name, more in zip(COUNTED, counted, strict=True):
            self.counts[name] += more
        # Thousands of short answers a second must not become as many files.
        if time.monotonic() - self.written >= PROGRESS_PERIOD:
            self.save()

    def fail(self, reason: str, sent: Answer | None, seconds: float) -> None:
        """Count one more failure, with what was paid for it."""
        self.failures[reason] += 1
        self.counts["dollars"] += (sent and sent.dollars) or 0.0
        self.counts["seconds"] += seconds
        if time.monotonic() - self.written >= PROGRESS_PERIOD:
            self.save()

    def save(self) -> None:
        """Write the file now."""
        self.written = time.monotonic()
        seconds = round(self.counts["seconds"], 2)
        more = {"of": self.of, "seconds": seconds, "model": self.model, "failures": self.failures}
        _replace(self.path, self.counts | more)


def read_progress(path: Path) -> dict:
    """The facts in a progress file."""
    return json.loads(path.read_text(encoding="utf-8"))


def _replace(path: Path, facts: dict) -> None:
    # The parent may read at any moment, so the file has to change in one step. A power cut may lose it: no fsync.
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(json.dumps(facts), encoding="utf-8")
    temporary.replace(path)


def share_of_rank(requests: list[dict], rank: int, ranks: int) -> list[dict]:
    """The requests of one data-parallel rank: whole questions, dealt out in turn."""
    # Whole questions, because the samples of a question share its prompt in the cache of one engine.
    number: dict[str, int] = {}
    for request in requests:
        number.setdefault(request["question"], len(number))
    return [r for r in requests if number[r["question"]] % ranks == rank]


def unfinished(plan: dict, rank: int, ranks: int) -> list[dict]:
    """Models of the plan with the requests that this rank has to sample; those without any are left out."""
    left, final = [], plan.get("final", ())
    for model in plan["models"]:
        # The whole job is shared out, and not its missing part, because the other ranks are writing already.
        mine = [job | {"requests": share_of_rank(job["requests"], rank, ranks)} for job in model["jobs"]]
        jobs = [job | {"requests": responses.missing(job, model["key"], final)} for job in mine]
        if any(job["requests"] for job in jobs):
            left.append(model | {"jobs": jobs})
    return left


def line_of(model: dict, request: Request, answer: Answer) -> dict:
    """The stored form of one sample; `order` is what the plan gave with the question, such as option orders."""
    line = {
        "question": request.question, "sample": request.sample, "text": answer.text, "n_tokens": answer.n_tokens,
        "finish": answer.finish, "seed": answer.seed, "model_key": model["key"],
        "protocol_key": model["jobs"][request.job]["protocol_key"],
    }  # fmt: skip
    # Fields that older stores do not have; they are left out where there is nothing to say.
    more = {"order": request.order, "n_prompt": answer.n_prompt, "dollars": answer.dollars}
    return line | {name: value for name, value in more.items() if value is not None}


def failed_line(model: dict, request: Request, failure: Failure) -> dict:
    """The stored form of a failure: a line whose finish reason is no answer's, with the kind and the reason."""
    sent = failure.sent or Answer("", None, responses.FAILED, request.seed)
    line = line_of(model, request, sent) | {"kind": failure.kind, "reason": failure.reason}
    return line if responses.failure_kind(sent.finish) else line | {"finish": responses.FAILED}


class Writers:
    """The files of one rank for the jobs of a model: all of answers, and one of failures for each job that has some."""

    def __init__(self, stack: ExitStack, model: dict, rank: int) -> None:
        # All files are opened before the first request: a second process that samples the same job ends here.
        self.stack, self.model, self.rank = stack, model, rank
        self.outs = [Path(job["out"]) for job in model["jobs"]]
        self.answers = [self._open(out) for out in self.outs]
        self.failures: dict[int, LineWriter] = {}
        self.pending: list[tuple[Request, Failure]] = []

    def _open(self, out: Path) -> LineWriter:
        return self.stack.enter_context(LineWriter(responses.shard(out, self.rank), responses.RESPONSE))

    def append(self, request: Request, result: Answer | Failure) -> None:
        """Store an answer, or a failure of a request that was sent and that says nothing about the others.

        A failure that may pass waits until the server has shown that it is still there, or for `settle`.
        """
        if isinstance(result, Answer) or result.kind == "refused":
            self.settle(given_up=False)
        if isinstance(result, Answer):
            self.answers[request.job].append(line_of(self.model, request, result))
        elif result.kind == "passing":
            self.pending.append((request, result))
        elif result.kind in responses.KINDS:
            self._fail(request, result)

    def settle(self, given_up: bool) -> None:
        """Store the failures that wait. given_up: they are the server's, and never stand for those of a question."""
        for request, failure in self.pending:
            self._fail(request, replace(failure, kind="given_up") if given_up else failure)
        self.pending.clear()

    def _fail(self, request: Request, failure: Failure) -> None:
        if request.job not in self.failures:
            self.failures[request.job] = self._open(responses.failures(self.outs[request.job]))
        self.failures[request.job].append(failed_line(self.model, request, failure))


def sample_model(
    engine: Engine, model: dict, requests: list[Request], progress: Progress, rank: int, tolerant: bool = False,
    final: Collection[str] = (),
) -> None:  # fmt: skip
    """Send all requests of one model, over all its jobs in one submission, and store what comes as it arrives.

    UserError with counts of the reasons, after everything that arrived is stored, when requests have no answer and no
    failure of a kind in `final`; of a tolerant plan, when the server was given up.
    """
    progress.model = model["name"]
    failures: Counter[str] = Counter()
    examples: dict[str, str] = {}  # reason -> a question that failed for it
    given_up, fatal = False, ""
    with ExitStack() as stack:
        writers = Writers(stack, model, rank)
        last = time.perf_counter()
        for request, result in engine.answers(requests):
            writers.append(request, result)
            now = time.perf_counter()
            if isinstance(result, Failure) and result.kind not in final:
                given_up |= result.kind in ("fatal", "given_up")
                fatal = fatal or (result.reason if result.kind == "fatal" else "")
                failures[result.reason] += 1
                examples.setdefault(result.reason, request.question)
                progress.fail(result.reason, result.sent, now - last)
            else:
                progress.count(result.sent if isinstance(result, Failure) else result, now - last)
            last = now
        writers.settle(given_up)
        progress.save()
    if fatal:
        raise UserError(
            f"the server takes no request to {model['name']}: {fatal}; {failures.total()} of {len(requests)} requests "
            "have no answer, the others are stored, and the same command goes on from there"
        )
    if failures and (given_up or not tolerant):
        reasons = "\n".join(f"  {n} x {reason} (first: {examples[reason]})" for reason, n in failures.most_common(5))
        raise UserError(
            f"{failures.total()} of {len(requests)} requests to {model['name']} have no answer; the "
            f"others are stored, and the same command asks for the missing ones again:\n{reasons}"
        )


def sample_plan(plan: dict, progress_path: Path, rank: int = 0, ranks: int = 1, continued: bool = False) -> bool:
    """Sample the missing responses of a plan; True when checkpoints are left that need a new engine in a fresh process.

    UserError before the engine starts when the plan cannot work, and from `sample_model` when requests failed.
    """
    settings, models = plan["engine"], unfinished(plan, rank, ranks)
    tolerant, final = plan.get("tolerant", False), plan.get("final", ())
    if not models:
        return False
    # All models are checked now, so that a bad last one costs seconds and not the hours of those before it.
    ready = preflight.checked_requests(settings, models, tolerant)
    progress = Progress(progress_path, sum(map(len, ready.values())), continued)
    models = _that_fit(models, ready, progress)
    if not models:
        return False
    if settings["kind"] == "endpoint":
        server = Endpoint(settings, plan.get("limits"))
        server.check_served()
        sample_model(server, models[0], ready[models[0]["name"]], progress, rank, tolerant, final)
        server.close()
        return False
    # A signature needs only the headers of the weights, so it costs little to know which models one engine can serve.
    signatures = [preflight.signature(Path(m["path"])) for m in models]
    same = [m for m, s in zip(models, signatures, strict=True) if s == signatures[0]]
    # Ranks with equal seeds would draw alike where requests have no seed of their own.
    engine, others_left = Vllm(settings, same[0]["path"], plan["seed"] + rank), len(same) < len(models)
    for i, model in enumerate(same):
        if i:
            try:
                engine.serve(model["path"])
            except RELOAD_ERRORS as error:
                # The engine may hold half of the new weights now. The next process image starts with this checkpoint,
                # because it is the first unfinished one.
                print(f"{model['path']}: not reloaded in place ({error}); it gets a new engine", file=sys.stderr)
                others_left = True
                break
        sample_model(engine, model, ready[model["name"]], progress, rank, tolerant, final)
    engine.close()
    return others_left


def _that_fit(models: list[dict], ready: dict[str, list[Request]], progress: Progress) -> list[dict]:
    """The models that have requests for an engine; requests that are too long for it count as failures.

    Only the preflight of a tolerant plan leaves requests out.
    """
    asked = sum(len(job["requests"]) for model in models for job in model["jobs"])
    if left_out := asked - sum(map(len, ready.values())):
        progress.failures[TOO_LONG] += left_out
        progress.save()
    return [model for model in models if ready[model["name"]]]


# --- processes ----------------------------------------------------------------------------------------------


def visible_gpus(settings: dict) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each data-parallel rank. UserError when there are too few GPUs."""
    ranks, size = settings["data_parallel_size"], settings["tensor_parallel_size"] * settings["pipeline_parallel_size"]
    preflight.require_hardware(settings, has_gpu=True)  # without one there is one rank, and no call of this
    gpus = machine.visible_gpus()
    return [",".join(gpus[rank * size : (rank + 1) * size]) for rank in range(ranks)]


def rank_progress(path: Path, rank: int) -> Path:
    """The progress file of one data-parallel rank."""
    return path.with_suffix(f".rank-{rank}.progress")


def joint_progress(parts: list[dict]) -> dict:
    """Progress of all ranks as one; they work side by side, so the seconds are those of the slowest."""
    return {
        **{name: sum(p[name] for p in parts) for name in ("of", *COUNTED)},
        "seconds": max(p["seconds"] for p in parts), "model": parts[-1]["model"],
        "failures": sum((Counter(p["failures"]) for p in parts), Counter()),
    }  # fmt: skip


def supervise(path: Path, settings: dict) -> int:
    """Run one process for each data-parallel rank; the first that fails ends the others. The exit status."""
    visible, ranks, progress = visible_gpus(settings), settings["data_parallel_size"], path.with_suffix(".progress")
    files = [rank_progress(path, rank) for rank in range(ranks)]
    for file in files:  # those of an earlier run would be taken for this one's
        file.unlink(missing_ok=True)
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "tinyr1.sampling.process", str(path), "--rank", str(rank)],
            env=surroundings.for_child(launch.watched() | {"CUDA_VISIBLE_DEVICES": visible[rank]}),
        )
        for rank in range(ranks)
    ]
    try:
        while True:
            # The statuses are read before the progress, so that the last picture is that of finished ranks.
            statuses = [child.poll() for child in children]
            if parts := [read_progress(file) for file in files if file.exists()]:
                _replace(progress, joint_progress(parts))
            if failed := [status for status in statuses if status]:
                return failed[0]
            if None not in statuses:
                return 0
            time.sleep(PROGRESS_PERIOD)
    finally:
        # All are asked first and awaited then, so that they end side by side.
        for child in children:
            child.terminate()
        for child in children:
            child.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description="Sample what a plan asks for and the response store lacks.")
    parser.add_argument("plan", type=Path, help="JSON file; the docstring of this module lists its keys")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)  # set for data-parallel processes
    parser.add_argument("--continued", action="store_true", help=argparse.SUPPRESS)  # set for the next engine
    arguments = parser.parse_args()
    # First of all, because loading an engine takes minutes, in which the parent may be killed.
    launch.die_with_parent()
    return guarded(lambda: sample_file(arguments.plan, arguments.rank, arguments.continued))


def sample_file(path: Path, rank: int | None, continued: bool) -> int:
    """Sample what the plan in a file asks for, as one rank or as the supervisor of several; the exit status."""
    plan = json.loads(path.read_text(encoding="utf-8"))
    ranks = plan["engine"].get("data_parallel_size", 1)  # an endpoint has none: the server shares the work out itself
    if ranks > 1 and rank is None:
        return supervise(path, plan["engine"])
    progress = rank_progress(path, rank or 0) if ranks > 1 else path.with_suffix(".progress")
    if sample_plan(plan, progress, rank or 0, ranks, continued):
        words = [word for word in sys.argv[1:] if word != "--continued"]
        # The same process with a fresh image: vLLM returns neither all memory nor its global state otherwise, and the
        # parent keeps watching one process.
        os.execv(sys.executable, [sys.executable, "-m", "tinyr1.sampling.process", *words, "--continued"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
