"""Turns jobs into checkpoints, each trained by DeepSpeed in a process of its own; tables of what the trainings did.

    Job --train_job--> layout, plan.json --deepspeed--> tinyr1.branch.train --> checkpoint, log.jsonl --> tables
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from tinyr1.branch import packing, plan
from tinyr1.core import artifact, jsonl, launch
from tinyr1.core.config import Config
from tinyr1.core.errors import UserError
from tinyr1.core.progress import say

KEPT_FROM_TRAINING = "log.jsonl"


def train_job(cfg: Config, job: plan.Job, has_gpu: bool) -> dict:
    """Trains a job, unless its checkpoint was made from the same inputs before; returns counts, losses and speed.

    A training that was killed goes on from its last checkpoint, where trainer.save_steps asks for checkpoints.
    UserError when the job cannot run, or its training fails or ends early.
    """
    plan.check_jobs(cfg, [job])

    def build(folder: Path) -> dict:
        work = folder.with_name(f"{folder.name}.work")  # beside the checkpoint, of which it is no part
        work.mkdir(exist_ok=True)
        finished = work / "finished"
        finished.unlink(missing_ok=True)  # of a training that ended, before this process was killed
        parts, layout = job.tokens(), work / "layout.safetensors"
        packed = packing.write_layout(
            layout, parts, cfg.params.trainer.sequence_length, cfg.params.seed, job.sft.packing
        )
        settings = {
            "model": str(job.start), "layout": str(layout), "out": str(folder),
            "tokens": [{"folder": str(path), "rows": [rows.start, rows.stop]} for path, rows in job.rows],
            "finished": str(finished), "gradient_accumulation": job.sft.batch_size // plan.world_size(cfg),
            "seed": cfg.params.seed, "sft": job.sft.model_dump(), "trainer": cfg.params.trainer.model_dump(),
        }  # fmt: skip
        artifact.write_atomic(work / "plan.json", json.dumps(settings, indent=1))
        words, environment = plan.training_command(cfg, work / "plan.json", has_gpu)
        log = cfg.home / "logs" / f"train-{job.name}.log"
        launch.follow(
            words, environment, log, job.name, lambda: training_progress(folder / KEPT_FROM_TRAINING), "step",
            "starting DeepSpeed and loading the model", "saving the model",
        )  # fmt: skip
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
        }  # fmt: skip

    remedy = cfg.remedy("02_branch_sft")
    out = cfg.model(job.name)
    manifest, built = artifact.make(out, plan.job_inputs(cfg, job), build, remedy)
    facts = manifest["facts"]
    state = f"trained at {facts['tokens_per_s']:.0f} tokens/s" if built else "kept"
    say(f"  {job.name:9s} {facts['steps']:4d} steps, loss {facts['first_loss']:.3f} -> "
        f"{facts['last_loss']:.3f}, {state}")  # fmt: skip
    return facts | {"model": job.name, "trained_now": built, "planned_samples": sum(map(len, job.tokens()))}


def training_table(trained: list[dict]) -> pd.DataFrame:
    """One line for each training: samples, tokens, fill, steps, losses (nats/token), tokens/s."""
    columns = ["model", "samples", "tokens", "fill", "steps", "first_loss", "last_loss", "tokens_per_s"]
    return pd.DataFrame(trained)[columns].set_index("model").round(3)


def final_tokens(planned: list[plan.Job]) -> set[int]:
    """The ids of the tokens that end the rows of some jobs; a model that never sees its end token there never stops."""
    return {int(i) for job in planned for part in job.tokens() for i in np.unique(part.last_ids)}


def training_progress(log: Path) -> tuple[int, int, str] | None:
    """(step, all steps, text for the bar) from the log of a training; None before its first step."""
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()  # the last line may not be written to its end
    if not lines:
        return None
    last = json.loads(lines[-1])
    return last["step"], last["of"], f"loss {last['loss']:.3f}, {last['tokens'] / last['seconds']:.0f} tokens/s"


def log_table(cfg: Config, names: list[str]) -> pd.DataFrame:
    """One line for each optimizer step of the named models, with the columns of train.StepLog and `model`."""
    frames = [
        pd.DataFrame(jsonl.read(cfg.model(name) / KEPT_FROM_TRAINING)).assign(model=name) for name in names
    ]
    return pd.concat(frames, ignore_index=True)
