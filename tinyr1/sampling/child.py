"""Starts the sampling process for a plan, shows its progress, and checks that no response is missing afterwards.

Other rooms call `sample_in_child`, or `sample_what_comes` for a tolerant plan: memory is returned when the child ends,
and a crash is an error with its log.
"""

import json
import sys
from collections.abc import Collection
from pathlib import Path

from tinyr1.core import launch
from tinyr1.core.artifact import write_atomic
from tinyr1.core.errors import UserError
from tinyr1.core.progress import say
from tinyr1.sampling import preflight, responses
from tinyr1.sampling.process import read_progress
from tinyr1.sampling.vllm import cpu_environment


def unfinished_models(plan: dict, final: Collection[str]) -> list[dict]:
    """The models of a plan that lack responses; those under another model key or protocol key do not count.

    final: the kinds of failures that stand (`tinyr1.sampling.responses.missing`).
    """
    return [m for m in plan["models"] if any(responses.missing(job, m["key"], final) for job in m["jobs"])]


def sample_in_child(plan: dict, path: Path, log: Path, has_gpu: bool) -> dict:
    """Sample what a plan asks for and the store lacks. The tokens and seconds of this call, both 0 if nothing lacked.

    plan: see `tinyr1.sampling.process`. path: the plan file that the child reads; its progress file is written beside
    it. log: gets the output of the child. Of a tolerant plan, requests may have failed in place of an answer. UserError
    with the error in the log when the child fails; everything that it had sampled is stored.
    """
    for model in plan["models"]:
        for job in model["jobs"]:
            for note in responses.of_job(job, model["key"]).notes():
                say(f"  {model['name']}, {job['name']}: {note}")
    todo = plan | {"models": unfinished_models(plan, plan.get("final", ()))}
    if not todo["models"]:
        say("  responses kept: no question is left to ask")
        return {"tokens": 0, "seconds": 0.0}
    last = _follow(todo, path, log, has_gpu)
    if left := [m["name"] for m in unfinished_models(plan, responses.KINDS)]:
        raise UserError(f"sampling ended, but answers of {', '.join(left)} are missing; run the same command again")
    rate = last["tokens"] / max(last["seconds"], 0.1)
    failed = sum(last["failures"].values())
    say(f"  {last['done']} answers of {len(todo['models'])} models, {rate:.0f} tokens/s"
        f"{f'; {failed} requests failed' if failed else ''}")  # fmt: skip
    return {"tokens": last["tokens"], "seconds": last["seconds"]}


def sample_what_comes(plan: dict, path: Path, log: Path, has_gpu: bool) -> dict:
    """Sample what a tolerant plan asks for and the store lacks; the last progress, with its `failures`, which may be
    some. UserError as in `sample_in_child`, which explains the arguments, and when a server was given up."""
    return _follow(plan | {"tolerant": True}, path, log, has_gpu)


def _follow(plan: dict, path: Path, log: Path, has_gpu: bool) -> dict:
    """Run the child to its end behind a bar; the last facts in its progress file."""
    if plan["engine"]["kind"] == "vllm":
        preflight.check_engine(plan["engine"], has_gpu)
    progress = path.with_suffix(".progress")
    progress.unlink(missing_ok=True)
    write_atomic(path, json.dumps(plan))

    def poll() -> tuple[int, int, str] | None:
        if not progress.exists():
            return None
        now = read_progress(progress)
        rate = now["tokens"] / max(now["seconds"], 0.1)
        used = (now["tokens"] + now["prompt_tokens"]) / 1e6
        money = f", ${now['dollars']:.2f} for {used:.2f} M tokens" if now["dollars"] else ""
        failed = sum(now["failures"].values())
        note = f", {failed} failed" if failed else ""
        return now["done"] + failed, now["of"], f"{now['model']}, {rate:.0f} tokens/s{money}{note}"

    command = [sys.executable, "-m", "tinyr1.sampling.process", str(path)]
    environment = {} if has_gpu else cpu_environment(plan["engine"])
    key = plan["engine"].get("api_key_variable")
    launch.follow(
        command, environment, log, "sampling", poll, "answer", "starting the engine", "ending the engine",
        passing=[key] if key else [],
    )  # fmt: skip
    return read_progress(progress)
