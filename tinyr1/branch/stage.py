"""Turns jobs into checkpoints, each trained by DeepSpeed in a process of its own; tables of what the trainings did.

    Job --train_job--> layout, plan.json --deepspeed--> tinyr1.branch.train --> checkpoint, log.jsonl --> tables
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from tinyr1.branch import failures, packing, plan
from tinyr1.core import artifact, jsonl, launch
from tinyr1.core.config import Config
from tinyr1.core.errors import UserError
from tinyr1.core.progress import say

KEPT_FROM_TRAINING = "log.jsonl"
# A training goes on from its checkpoint whatever these are; other rows or weights have another key (`plan.job_inputs`).
ANY_CHECKPOINT = {"model", "tokens", *(f"trainer.{name}" for name in plan.WITHOUT_EFFECT)}


def train_job(
    cfg: Config, job: plan.Job, has_gpu: bool, watch: Callable[[Path], None] = lambda _: None
) -> dict:
    """Trains a job, unless its checkpoint was made from the same inputs before; returns counts, losses and speed.

    watch: is given the log of the training twice a second.

    A training that was killed goes on from its last checkpoint, where trainer.save_steps asks for checkpoints.
    UserError when the job cannot run, or its training fails or ends early.
    """
    plan.check_jobs(cfg, [job])
    out, remedy = cfg.model(job.name), cfg.remedy("02_branch_sft")
    inputs = plan.job_inputs(cfg, job)
    _refuse_other_plan(cfg, job, artifact.begun_from_others(out, inputs))

    def build(folder: Path) -> dict:
        work = work_folder(folder)
        work.mkdir(exist_ok=True)
        finished = work / "finished"
        finished.unlink(missing_ok=True)  # of a training that ended, before this process was killed
        parts, layout = job.tokens(), work / "layout.safetensors"
        packed = packing.write_layout(
            layout, parts, cfg.params.trainer.sequence_length, cfg.params.seed, job.sft.packing
        )
        files = {"layout": str(layout), "out": str(folder), "finished": str(finished), "stop": str(work / launch.STOP)}
        settings = files | _settings(cfg, job)
        artifact.write_atomic(work / "plan.json", json.dumps(settings, indent=1))
        words, environment = plan.training_command(cfg, work / "plan.json", has_gpu)
        plan.prepare_hosts(cfg, work, has_gpu)
        log = cfg.home / "logs" / f"train-{job.name}.log"
        try:
            launch.follow(
                words, environment, log, job.name, lambda: training_progress(folder / KEPT_FROM_TRAINING, watch),
                "step", "starting DeepSpeed and loading the model", "saving the model",
                work / launch.STOP if cfg.params.trainer.save_steps else None,
                failures.ENDS if cfg.params.trainer.hostfile else "",
            )  # fmt: skip
        except UserError as error:
            if failed := failures.first_failure(work / plan.RANK_LOGS, launch.latest(log)):
                raise UserError(f"{job.name}: {failed}\nThe logs of all ranks: {work / plan.RANK_LOGS}") from error
            raise
        if (work / launch.STOP).exists() and not finished.exists():
            step, of, _ = training_progress(folder / KEPT_FROM_TRAINING) or (0, 0, "")
            raise UserError(f"{job.name}: stopped by a signal after step {step} of {of}, with a checkpoint; {remedy}")
        # The launcher ends with exit status 0 when a signal has ended the process that it started.
        if not finished.exists():
            raise UserError(f"{job.name}: training ended before its model was saved, see {log}; {remedy}")
        for leftover in folder.glob("checkpoint-*"):
            shutil.rmtree(leftover)
        shutil.rmtree(work)
        steps = jsonl.read(folder / KEPT_FROM_TRAINING)
        return packed | {
            artifact.ASIDE: [KEPT_FROM_TRAINING],
            "steps": steps[-1]["step"], "first_loss": steps[0]["loss"], "last_loss": steps[-1]["loss"],
            "tokens_per_s": round(steps[-1]["tokens"] / steps[-1]["seconds"], 1),
            "tflops": steps[-1].get("tflops"), "memory_gb": steps[-1].get("memory_gb"),
        }  # fmt: skip

    manifest, built = artifact.make(out, inputs, build, remedy)
    facts = manifest["facts"]
    state = f"trained at {facts['tokens_per_s']:.0f} tokens/s" if built else "kept"
    say(f"  {job.name:9s} {facts['steps']:4d} steps, loss {facts['first_loss']:.3f} -> "
        f"{facts['last_loss']:.3f}, {state}")  # fmt: skip
    return facts | {"model": job.name, "trained_now": built, "planned_samples": sum(map(len, job.tokens()))}


def work_folder(partial: Path) -> Path:
    """Where the plan of a training and the layout of its sequences are: beside the checkpoint, of which they are no
    part."""
    return partial.with_name(f"{partial.name}.work")


def _settings(cfg: Config, job: plan.Job) -> dict:
    """What a training does, for its process."""
    return {
        "model": str(job.start),
        "tokens": [{"folder": str(path), "rows": [rows.start, rows.stop]} for path, rows in job.rows],
        "ranks": plan.world_size(cfg), "seed": cfg.params.seed, "sft": job.sft.model_dump(),
        "trainer": cfg.params.trainer.model_dump(),
    }  # fmt: skip


def _refuse_other_plan(cfg: Config, job: plan.Job, other_inputs: bool) -> None:
    """UserError where a training that was broken off has a checkpoint which another plan would throw away, or could not
    go on from. other_inputs: whether it was begun from other rows or parameters."""
    partial = artifact.partial_path(cfg.model(job.name))
    file = work_folder(partial) / "plan.json"
    if not file.is_file() or not any(partial.glob(f"checkpoint-*/{plan.CHECKPOINT_DONE}")):
        return
    before, now = (_flat(settings) for settings in (json.loads(file.read_text("utf-8")), _settings(cfg, job)))
    changed = [
        f"{name} was {before[name]}, now {now[name]}" for name in now
        if name in before and before[name] != now[name] and name not in ANY_CHECKPOINT
    ]  # fmt: skip
    if other_inputs and not changed:
        changed = ["its rows or its start checkpoint were others"]
    if changed:
        raise UserError(
            f"{job.name}: {partial} holds a checkpoint of another training: {'; '.join(changed)}; set it back to go "
            f"on, or remove {partial} and {file.parent} to begin again"
        )


def _flat(settings: dict, above: str = "") -> dict[str, str]:
    """Nested settings as dotted names and JSON values."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": json.dumps(value)}
    return flat


def training_table(trained: list[dict]) -> pd.DataFrame:
    """One line for each training: samples, tokens, fill, steps, losses (nats/token), tokens/s; 10^12 operations of the
    model a second on one rank, which are the MFU times the peak of its device; the most memory of a rank in GB."""
    columns = ["model", "samples", "tokens", "fill", "steps", "first_loss", "last_loss", "tokens_per_s", "tflops",
               "memory_gb"]  # fmt: skip
    table = pd.DataFrame(trained).reindex(columns=columns).set_index("model")
    return table.dropna(axis="columns", how="all").round(3)  # a training of an earlier version lacks the last two


def final_tokens(planned: list[plan.Job]) -> set[int]:
    """The ids of the tokens that end the rows of some jobs; a model that never sees its end token there never stops."""
    return {int(i) for job in planned for part in job.tokens() for i in np.unique(part.last_ids)}


def training_progress(log: Path, watch: Callable[[Path], None] = lambda _: None) -> tuple[int, int, str] | None:
    """(step, all steps, text for the bar) from the log of a training, which `watch` is given; None before a step."""
    watch(log)
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()  # the last line may not be written to its end
    if not lines:
        return None
    last = json.loads(lines[-1])
    return last["step"], last["of"], f"loss {last['loss']:.3f}, {last['tokens'] / last['seconds']:.0f} tokens/s"


def log_table(cfg: Config, names: list[str]) -> pd.DataFrame:
    """One line for each optimizer step of the named models, with the columns of monitor.StepLog and `model`."""
    frames = [
        pd.DataFrame(jsonl.read(cfg.model(name) / KEPT_FROM_TRAINING)).assign(model=name) for name in names
    ]
    return pd.concat(frames, ignore_index=True)
