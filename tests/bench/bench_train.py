"""`make bench`: training against TRL and generation against transformers, in one sitting, on the run's own rows.

The peers live in an environment of their own (tests/peers.py). Needs a finished run: `make reproduce` first.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from itertools import islice
from pathlib import Path

import peers

from tinyr1.branch import backbone, packing, plan
from tinyr1.core import artifact, config, jsonl, prompts
from tinyr1.core.config import Config
from tinyr1.data import benchmarks, curate, tokens
from tinyr1.evaluate import stage
from tinyr1.sampling.child import sample_in_child

ROWS, BATCH = 120, 64

TRL = """
import json, sys, time, torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer
rows, model, length, out = json.load(open(sys.argv[1])), sys.argv[2], int(sys.argv[3]), sys.argv[4]
class Clock(TrainerCallback):
    times = []
    def on_step_end(self, *a, **k): self.times.append(time.perf_counter())
args = SFTConfig(output_dir=out, packing=True, max_length=length, bf16=True, use_cpu=True, num_train_epochs=1,
                 per_device_train_batch_size=1, gradient_accumulation_steps=1, learning_rate=1e-4, report_to="none",
                 gradient_checkpointing=False, disable_tqdm=True, save_strategy="no", logging_steps=1)
trainer = SFTTrainer(model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16), args=args,
                     train_dataset=Dataset.from_list(rows), callbacks=[Clock()],
                     processing_class=AutoTokenizer.from_pretrained(model))
data = trainer.train_dataset
trainer.train()
tokens = sum(len(r["input_ids"]) for r in data) / len(data)
steps = len(Clock.times) - 1
print("RESULT", tokens * steps / (Clock.times[-1] - Clock.times[0]))
"""


def training(cfg: Config, repeats: int) -> dict[str, float]:
    """Median tokens/s of `tinyr1.branch.train` and of TRL's SFTTrainer on the same rows, alternating."""
    tokenizer = backbone.tokenizer(cfg)
    first = slice(ROWS // len(cfg.domains))  # of each domain
    texts = [
        {"prompt": prompts.render_prompt(tokenizer, prompts.row_turn(block, row)),
         "completion": prompts.render_target(row["thinking"], row["response"])}
        for name, block in cfg.params.domains.items() for row in islice(curate.curated_rows(cfg, name), first.stop)
    ]  # fmt: skip
    parts = [tokens.read_tokens(cfg.rows(name)).part(first) for name in cfg.domains]
    length, sft = cfg.params.trainer.sequence_length, next(iter(cfg.params.domains.values())).sft
    rates: dict[str, list[float]] = {"tinyr1.branch.train": [], "TRL SFTTrainer": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)  # the peer's script must not be called trl.py: it would import itself
        packing.write_layout(folder / "layout.safetensors", parts, length, 0)
        settings = {
            "model": str(cfg.backbone), "layout": str(folder / "layout.safetensors"), "seed": 0,
            "tokens": [{"folder": str(part.folder), "rows": [first.start, first.stop]} for part in parts],
            "finished": str(folder / "finished"), "stop": str(folder / "stop"), "ranks": 1,
            "sft": sft.model_dump() | {"batch_size": 1, "epochs": 1}, "trainer": cfg.params.trainer.model_dump(),
        }  # fmt: skip
        (folder / "rows.json").write_text(json.dumps(texts), encoding="utf-8")
        (folder / "peer.py").write_text(TRL, encoding="utf-8")
        for i in range(repeats):
            out = folder / f"out{i}"
            out.mkdir()
            (folder / "plan.json").write_text(json.dumps(settings | {"out": str(out)}), encoding="utf-8")
            words, environment = plan.training_command(cfg, folder / "plan.json", has_gpu=False)
            subprocess.run(words, env=os.environ | environment, check=True, capture_output=True)
            log = jsonl.read(out / "log.jsonl")
            took = log[-1]["seconds"] - log[0]["seconds"]
            rates["tinyr1.branch.train"].append((log[-1]["tokens"] - log[0]["tokens"]) / took)
            peer = [folder / "peer.py", folder / "rows.json", cfg.backbone, str(length), folder / "t"]
            result = subprocess.run([peers.python(), *peer], stdout=subprocess.PIPE, check=True, text=True)
            rates["TRL SFTTrainer"].append(float(result.stdout.rpartition("RESULT")[2]))
    return {name: statistics.median(values) for name, values in rates.items()}


def sampling(cfg: Config, repeats: int) -> dict[str, float]:
    """Median useful tokens/s of `tinyr1.sampling.process` and of transformers.generate at batch 64, alternating.

    The start of either is not counted.
    """
    asked = {name: one.questions for name, one in benchmarks.load_all(cfg).items()}
    planned = stage.generation_plan(cfg, ["backbone"], asked)
    rates: dict[str, list[float]] = {"tinyr1.sampling.process": [], "transformers.generate": []}
    for _ in range(repeats):
        rates["tinyr1.sampling.process"].append(ours(planned))
        rates["transformers.generate"].append(theirs(cfg, planned))
    return {name: statistics.median(values) for name, values in rates.items()}


def ours(planned: dict) -> float:
    """Tokens/s of all requests of a plan for one model."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for job in planned["models"][0]["jobs"]:
            job["out"] = str(folder / f"{job['name']}.jsonl")
        sampled = sample_in_child(planned, folder / "plan.json", folder / "sampling.log", has_gpu=False)
    return sampled["tokens"] / sampled["seconds"]


def theirs(cfg: Config, planned: dict) -> float:
    """Tokens/s, without padding, of one batch of the plan's prompts."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = backbone.tokenizer(cfg)
    tokenizer.padding_side = "left"
    model = AutoModelForCausalLM.from_pretrained(cfg.backbone, dtype=torch.bfloat16).eval()
    asks = [r for job in planned["models"][0]["jobs"] for r in job["requests"] if r["sample"] == 0]
    users = [r["messages"][-1]["content"] for r in asks]
    texts = [prompts.render_prompt(tokenizer, user) for user in users[:: max(1, len(users) // BATCH)][:BATCH]]
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    most = max(b.max_tokens for b in cfg.params.benchmarks.values())
    started = time.perf_counter()
    with torch.inference_mode():
        out = model.generate(**batch, max_new_tokens=most, do_sample=True, temperature=cfg.params.evaluate.temperature)
    seconds = time.perf_counter() - started
    written = out[:, batch["input_ids"].shape[1] :]
    return (int((written != tokenizer.pad_token_id).sum()) + len(texts)) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", default="smol")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    cfg = config.load(arguments.run)
    artifact.check(cfg.backbone, f"run `make reproduce RUN={cfg.run}` first")
    for title, measure in (("training", training), ("sampling", sampling)):
        (kit, fast), (peer, slow) = measure(cfg, arguments.repeats).items()
        print(f"{title}: {kit} {fast:.0f} tokens/s, {peer} {slow:.0f} tokens/s, ratio {fast / slow:.1f}")


if __name__ == "__main__":
    main()
