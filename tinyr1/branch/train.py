"""Supervised fine-tuning of one model: the process of each rank, which DeepSpeed starts where there are several.

    deepspeed --module tinyr1.branch.train plan.json

    plan.json (written by tinyr1.branch.stage) --> settings, start checkpoint
    layout + tokens --PackedSequences--> one packed sequence --causal_lm--> summed loss of its target tokens
                 --PackedTrainer--> mean over the target tokens of the step --DeepSpeed--> weights
    every optimizer step --monitor--> log.jsonl                    at the end --> checkpoint, then the file `finished`

Hugging Face's Trainer drives DeepSpeed: bf16 weights with fp32 master copies, loss on the responses only. With
`save_steps`, a killed training goes on from its last checkpoint. Sources of the settings: docs/fidelity.md §2.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, cast

from tinyr1.core import launch

# These imports take seconds, and searching them for garbage a third of that time.
with launch.lasting_imports():
    import torch
    import torch.distributed as dist
    from torch.utils.data import DataLoader
    from transformers import (
        AutoModelForCausalLM,
        PreTrainedModel,
        PreTrainedTokenizerBase,
        Trainer,
        TrainingArguments,
    )

    from tinyr1.branch import monitor, products, ranks
    from tinyr1.branch.attention import ATTENTION
    from tinyr1.branch.causal_lm import PackedCausalLM
    from tinyr1.branch.packing import PackedSequences
    from tinyr1.core.errors import UserError
    from tinyr1.core.tokenizers import load_tokenizer
    from tinyr1.data.tokens import read_tokens

# Parameters of the trainer block that the Trainer calls by the same name.
SAME_NAME = ("adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "max_grad_norm", "gradient_checkpointing")


class PackedTrainer(Trainer):
    """Trainer whose loss is the mean over all target tokens of an optimizer step.

    A mean for each sequence would give tokens in sequences with few targets a larger weight (docs/fidelity.md §2.4).
    """

    guard: monitor.Guard  # is told of each sequence

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Loss of one packed sequence, as its share of the step's mean."""
        index = inputs.pop("index")
        total = model(**inputs)
        self.guard.saw(index, total)
        # The number is that of all ranks, while DeepSpeed averages their gradients: hence the factor.
        return total / num_items_in_batch * self.accelerator.num_processes

    def get_train_dataloader(self) -> DataLoader:
        """The packed sequences of this rank in random order, and idle ones where the other ranks have one more."""
        loader: Any = super().get_train_dataloader()  # one of Accelerate's
        if self.accelerator.num_processes > 1:  # the Trainer would give some sequences to two ranks
            loader.set_sampler(ranks.EvenSampler(loader.get_sampler(), self.accelerator.num_processes))
        return loader

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Saves the inner model under its own tensor names, so that any tool loads the folder."""
        folder = str(output_dir or self.args.output_dir)
        inner: PreTrainedModel = self.accelerator.unwrap_model(self.model).model
        if state_dict is not None:
            # PackedCausalLM puts "model." before every name. A tied output head is the embedding, stored once.
            tied = inner.all_tied_weights_keys if inner.config.tie_word_embeddings else {}
            named = {k.removeprefix("model."): v for k, v in state_dict.items()}
            state_dict = {k: v for k, v in named.items() if k not in tied}
        inner.save_pretrained(folder, state_dict=state_dict)
        cast(PreTrainedTokenizerBase, self.processing_class).save_pretrained(folder)


def training_arguments(plan: dict, out: Path) -> TrainingArguments:
    """The plan in the Trainer's words; each rank takes one packed sequence at a time and accumulates its share."""
    sft, trainer = plan["sft"], plan["trainer"]
    return TrainingArguments(
        output_dir=str(out),
        num_train_epochs=sft["epochs"],
        per_device_train_batch_size=1,  # a packed sequence is full: two would be padded to each other
        gradient_accumulation_steps=sft["batch_size"] // plan["ranks"],
        learning_rate=sft["learning_rate"],
        lr_scheduler_type=sft["schedule"],
        warmup_steps=sft["warmup_ratio"],  # a number below 1 is a share of all steps
        **{name: trainer[name] for name in SAME_NAME},
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        deepspeed=ranks.deepspeed_config(trainer["zero_stage"]),
        average_tokens_across_devices=True,
        save_strategy="steps" if trainer["save_steps"] else "no",
        save_steps=trainer["save_steps"] or 500,
        logging_steps=1,
        report_to=trainer.get("report_to") or "none",
        run_name=out.stem,
        disable_tqdm=True,
        remove_unused_columns=False,  # cu_seq_lens is not a name that the Trainer knows
        seed=plan["seed"],
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def require_ranks(planned: int, there: int) -> None:
    """UserError where a training was started with another number of ranks than its batch was divided among."""
    if there != planned:
        raise UserError(
            f"{there} rank{'s' if there > 1 else ''} started a training whose plan is for {planned}: its batch would "
            f"have another size; start {planned}, or change trainer.processes_per_node in the params file"
        )


def fine_tune(plan: dict) -> None:
    """Trains as planned and saves the checkpoint in plan["out"]; then, as the last thing, makes plan["finished"]."""
    out = Path(plan["out"])
    ranks.connect()
    require_ranks(plan["ranks"], dist.get_world_size())
    args = training_arguments(plan, out)  # before the model, as under ZeRO-3 it is sharded while it loads
    model = AutoModelForCausalLM.from_pretrained(
        plan["model"], dtype=torch.bfloat16, attn_implementation=ATTENTION
    )
    ranks.restore_frequencies(model)
    tokenizer = load_tokenizer(Path(plan["model"]))
    parts = [read_tokens(Path(part["folder"])).part(slice(*part["rows"])) for part in plan["tokens"]]
    data = PackedSequences(Path(plan["layout"]), parts, plan["sft"].get("packing"))
    # On average: to count the tokens of each step would need another exchange between the ranks.
    per_step = data.tokens / len(data) * plan["sft"]["batch_size"]
    packed = PackedCausalLM(model)
    work = monitor.operations(model, data.seen)
    ending, guard = monitor.Ending(Path(plan["stop"])), monitor.Guard(data, plan["trainer"].get("spike"))
    trainer = PackedTrainer(
        model=packed, args=args, train_dataset=data, processing_class=tokenizer, data_collator=lambda rows: rows[0],
        callbacks=[monitor.StepLog(out / "log.jsonl", per_step, work), guard, ending],
    )
    trainer.guard = guard
    if plan["trainer"]["save_steps"]:  # else a signal ends the training at once
        ending.listen()
    with products.of_this_processor():
        trainer.train(resume_from_checkpoint=monitor.last_checkpoint(out))
    if ending.asked:
        return
    trainer.save_model(str(out))
    if trainer.is_world_process_zero():
        Path(plan["finished"]).touch()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("plan", type=Path, help="JSON file written by tinyr1.branch.stage")
    parser.add_argument("--local_rank", type=int, default=-1, help="set by the DeepSpeed launcher")
    launch.die_with_parent()
    plan = json.loads(parser.parse_args().plan.read_text(encoding="utf-8"))
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    try:
        fine_tune(plan)
    except UserError as error:
        sys.exit(f"error: {error}")
    if dist.is_initialized():
        launch.leave()


if __name__ == "__main__":
    main()
