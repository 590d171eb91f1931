"""One fine-tuning run: rows and parameters -> plan -> command -> checkpoint and log table (paper §2.1, §3.1.1)."""

import json
import math
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from transformers import PreTrainedTokenizerBase

from tinyr1.branch import packing
from tinyr1.core import artifact, jsonl, launch, prompts
from tinyr1.core.config import DOMAINS, ROOT, Config, Sft
from tinyr1.core.errors import UserError
from tinyr1.core.progress import say

KEPT_FROM_TRAINING = "log.jsonl"
CPU_ENVIRONMENT = {
    "DS_ACCELERATOR": "cpu",
    # Large buffers stay in the process, in huge pages: otherwise a third of a step goes into page faults.
    "THP_MEM_ALLOC_ENABLE": "1",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_MMAP_THRESHOLD_": "100000000000",
}


@dataclass(frozen=True)
class Job:
    """One model to fine-tune: start checkpoint, rows, schedule.

    Where the backbone is distilled, the first `reserved` rows of each file went into it and the branches train on
    the others, as the paper's branches saw other data than DeepSeek's distillation.
    """

    name: str
    start: Path
    files: tuple[Path, ...]
    sft: Sft
    reserved: tuple[int, ...]
    distills: bool = False

    @property
    def section(self) -> str:
        """Where its schedule is in the params file."""
        return "backbone.distill.sft" if self.distills else f"branch.{self.name}"

    def rows(self) -> list[dict]:
        found = []
        for path, reserved in zip(self.files, self.reserved, strict=True):
            found += jsonl.read(path)[slice(reserved) if self.distills else slice(reserved, None)]
        return found


def jobs(cfg: Config) -> list[Job]:
    """The three experts and the data-mixture baseline, which sees all rows (paper Table 2)."""
    reserved = _reserved(cfg)
    domains = {name: (name,) for name in DOMAINS} | {"mixture": DOMAINS}
    return [
        Job(
            name, cfg.backbone, tuple(cfg.rows(d) for d in domains[name]), getattr(cfg.params.branch, name),
            tuple(reserved[d] for d in domains[name]),
        )
        for name in cfg.branches
    ]  # fmt: skip


def _reserved(cfg: Config) -> dict[str, int]:
    distill = cfg.params.backbone.distill
    return distill.rows if distill else dict.fromkeys(DOMAINS, 0)


def distill_job(cfg: Config, base: Path) -> Job | None:
    """The job that makes the backbone from a base checkpoint; None where the backbone reasons already."""
    distill = cfg.params.backbone.distill
    if distill is None:
        return None
    reserved = tuple(distill.rows[d] for d in DOMAINS)
    return Job("backbone", base, tuple(map(cfg.rows, DOMAINS)), distill.sft, reserved, True)


def world_size(cfg: Config) -> int:
    """Ranks of a training run: processes_per_node on each host of the hostfile, or on this machine."""
    trainer = cfg.params.trainer
    if trainer.hostfile is None:
        return trainer.processes_per_node
    path = ROOT / trainer.hostfile
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    nodes = [line for line in lines if line.strip() and not line.startswith("#")]
    if not nodes:
        raise UserError(
            f"trainer.hostfile: {path} does not exist or names no node; write one line a node: `hostname slots=8`"
        )
    return len(nodes) * trainer.processes_per_node


def check(cfg: Config, planned: list[Job]) -> None:
    """Every job has rows, and a batch that the ranks can share evenly; UserError lists all jobs that cannot run."""
    ranks, problems = world_size(cfg), []
    for job in planned:
        if job.sft.batch_size % ranks:
            problems.append(
                f"{job.section}.batch_size: {job.sft.batch_size} packed sequences cannot be shared by {ranks} ranks; "
                f"use a multiple of {ranks}"
            )
        if not job.rows():
            problems.append(f"{job.name}: no rows to train on are left after curation; see sources and curate.limit")
    if problems:
        raise UserError("\n".join(problems))


def command(cfg: Config, plan: Path, has_gpu: bool) -> tuple[list[str], dict[str, str]]:
    """(command, environment) that trains as a plan file says; can be pasted into a terminal."""
    trainer = cfg.params.trainer
    words = [str(Path(sys.executable).with_name("deepspeed"))]
    if trainer.hostfile:
        words += ["--hostfile", str(ROOT / trainer.hostfile)]
    else:
        words += ["--master_port", str(_free_port())]  # two runs may share a machine
    words += ["--num_gpus" if has_gpu else "--num_accelerators", str(trainer.processes_per_node)]
    return [*words, "--module", "tinyr1.branch.train", str(plan)], {} if has_gpu else CPU_ENVIRONMENT


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def inputs(cfg: Config, job: Job) -> dict:
    """Everything that determines a branch checkpoint; its hash is the checkpoint's key."""
    remedy = cfg.remedy("01_data_curation")
    return {
        "start": artifact.check(job.start, remedy)["content"],
        "rows": [artifact.check(path, remedy)["content"] for path in job.files],
        "reserved": [job.reserved, job.distills],
        "sft": job.sft.model_dump(),
        "trainer": cfg.params.trainer.model_dump(exclude={"save_steps"}),
        "seed": cfg.params.seed,
    }


def plan_table(cfg: Config, planned: list[Job]) -> pd.DataFrame:
    """What each run will do before it starts: rows, tokens, optimizer steps, schedule."""
    table = []
    for job in planned:
        lengths = [row["n_tokens"] for row in job.rows()]
        sequences = len(packing.layout(lengths, cfg.params.trainer.sequence_length, cfg.params.seed))
        table.append({
            "model": job.name, "rows": len(lengths), "tokens": sum(lengths), "packed sequences": sequences,
            "epochs": job.sft.epochs, "batch": job.sft.batch_size,
            "steps": math.ceil(sequences / job.sft.batch_size) * job.sft.epochs,
            "learning rate": job.sft.learning_rate, "schedule": job.sft.schedule,
        })  # fmt: skip
    return pd.DataFrame(table).set_index("model")


def train(cfg: Config, job: Job, has_gpu: bool) -> dict:
    """The finished checkpoint of a job: kept if it is there and was made from the same inputs, else trained."""
    check(cfg, [job])

    def build(folder: Path) -> dict:
        from transformers import AutoTokenizer

        work = folder.with_name(f"{folder.name}.work")
        work.mkdir(exist_ok=True)
        tokenizer = AutoTokenizer.from_pretrained(job.start)
        samples = [prompts.encode(tokenizer, row) for row in job.rows()]
        packed = packing.write(
            work / "packed.safetensors", samples, cfg.params.trainer.sequence_length, cfg.params.seed
        )
        plan = {
            "model": str(job.start), "packed": str(work / "packed.safetensors"), "out": str(folder),
            "finished": str(work / "finished"), "gradient_accumulation": job.sft.batch_size // world_size(cfg),
            "seed": cfg.params.seed, "sft": job.sft.model_dump(), "trainer": cfg.params.trainer.model_dump(),
        }  # fmt: skip
        artifact.write_atomic(work / "plan.json", json.dumps(plan, indent=1))
        words, environment = command(cfg, work / "plan.json", has_gpu)
        log = cfg.home / "logs" / f"train-{job.name}.log"
        launch.follow(words, environment, log, job.name, lambda: progress(folder / KEPT_FROM_TRAINING), "step")
        # The launcher ends with exit status 0 when a signal has ended the process that it started.
        if not (work / "finished").exists():
            raise UserError(f"{job.name}: training ended before its model was saved, see {log}; {remedy}")
        for leftover in folder.glob("checkpoint-*"):
            shutil.rmtree(leftover)
        shutil.rmtree(work)
        steps = jsonl.read(folder / KEPT_FROM_TRAINING)
        return packed | {
            artifact.ASIDE: [KEPT_FROM_TRAINING], "steps": steps[-1]["step"], "first_loss": steps[0]["loss"], "last_loss": steps[-1]["loss"],
            "tokens_per_s": round(steps[-1]["tokens"] / steps[-1]["seconds"], 1),
        }  # fmt: skip

    remedy = cfg.remedy("02_branch_sft")
    out = cfg.model(job.name)
    manifest, built = artifact.make(out, inputs(cfg, job), build, remedy)
    facts = manifest["facts"]
    state = f"trained at {facts['tokens_per_s']:.0f} tokens/s" if built else "kept"
    say(f"  {job.name:9s} {facts['steps']:4d} steps, loss {facts['first_loss']:.3f} -> "
        f"{facts['last_loss']:.3f}, {state}")  # fmt: skip
    return facts | {"model": job.name, "trained_now": built, "planned_samples": len(job.rows())}


def facts_table(trained: list[dict]) -> pd.DataFrame:
    """What training did, one row a model: samples, tokens, steps, losses (nats/token), tokens/s."""
    columns = ["model", "samples", "tokens", "fill", "steps", "first_loss", "last_loss", "tokens_per_s"]
    return pd.DataFrame(trained)[columns].set_index("model").round(3)


def targets(job: Job, tokenizer: PreTrainedTokenizerBase) -> Iterator[list[int]]:
    """Supervised token ids of every sample of a job."""
    for row in job.rows():
        sample = prompts.encode(tokenizer, row)
        yield sample.ids[sample.n_prompt :]


def masked_example(tokenizer: PreTrainedTokenizerBase, row: dict) -> str:
    """One row as the network sees it: prompt without loss, then what it learns to write, EOS included."""
    sample = prompts.encode(tokenizer, row)
    prompt, target = (tokenizer.decode(ids) for ids in (sample.ids[: sample.n_prompt], sample.ids[sample.n_prompt :]))
    return f"--- no loss ---\n{prompt}\n--- loss ---\n{target}"


def progress(log: Path) -> tuple[int, int, str] | None:
    """(step, of, text) from the training log."""
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()  # the last line may be on its way
    if not lines:
        return None
    last = json.loads(lines[-1])
    return last["step"], last["of"], f"loss {last['loss']:.3f}, {last['tokens'] / last['seconds']:.0f} tokens/s"


def log_table(cfg: Config, names: list[str]) -> pd.DataFrame:
    """Every optimizer step of the named models: model, step, loss (nats/token), learning_rate, tokens, seconds."""
    frames = [
        pd.DataFrame(jsonl.read(cfg.model(name) / KEPT_FROM_TRAINING)).assign(model=name) for name in names
    ]
    return pd.concat(frames, ignore_index=True)
