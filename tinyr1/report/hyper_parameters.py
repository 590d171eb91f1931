"""Every hyper-parameter of the trainings beside its sources: the paper, the README of the release, its training script.

    PUBLISHED, what the three say --\
    params of a run, its jobs -------> table --> notebook 02

Where the sources contradict each other, a row names the entry of docs/fidelity.md that works it out.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from tinyr1.branch.plan import Job, world_size
from tinyr1.core.config import Config
from tinyr1.core.params.training import Sft

NONE = "–"  # the source says nothing


@dataclass(frozen=True)
class Published:
    """What the sources say of one hyper-parameter; see: where docs/fidelity.md works it out."""

    paper: str
    readme: str
    script: str
    see: str


# docs/fidelity.md §2.1 to §2.5, for math / science / code where they differ.
PUBLISHED = {
    "backbone": Published("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", "the same", "passed on", "docs/fidelity.md §2.1"),
    "sequence length, tokens": Published("16,384", "16,384", "passed on", "docs/fidelity.md §2.1"),
    "epochs": Published("5 / 5 / 15", "5 / 5 / 15", "default 10", "docs/fidelity.md §2.1"),
    "batch, packed sequences": Published(
        "96 / 32 / 96", "24 / 8 / 24 as written, on 8 GPUs", "1 for each GPU", "docs/fidelity.md C7"
    ),
    "GPUs": Published("32", "a hostfile that no command names", "8 or a hostfile", "docs/fidelity.md C7"),
    "learning rate": Published("1e-5", "1e-5", "passed on", "docs/fidelity.md §2.1"),
    "schedule": Published(
        "constant / cosine / constant", "constant_with_warmup / cosine / constant_with_warmup", "passed on",
        "docs/fidelity.md C6",
    ),  # fmt: skip
    "warm-up, share of the steps": Published(NONE, "0.1", "0.1 whatever is passed", "docs/fidelity.md C6, C8"),
    "packing": Published(NONE, "contaminated / neat / neat", "default neat", "docs/fidelity.md C31"),
    "template of the rows": Published(NONE, "qwen", "passed on", "docs/fidelity.md C9"),
    "rows that are too long": Published(NONE, NONE, "truncate", "docs/fidelity.md §2.4"),
    "loss": Published(NONE, NONE, "mean over sequences of means over tokens", "docs/fidelity.md §2.4"),
    "ZeRO stage": Published(NONE, NONE, "3", "docs/fidelity.md §2.2"),
    "gradients are added up in": Published(NONE, NONE, "bf16", "docs/fidelity.md §2.2"),
    "gradient checkpointing": Published(NONE, NONE, "yes", "docs/fidelity.md §2.1"),
    "AdamW β": Published(NONE, NONE, "0.9, 0.95", "docs/fidelity.md §2.1"),
    "AdamW ε": Published(NONE, NONE, "1e-8", "docs/fidelity.md §2.1"),
    "weight decay": Published(NONE, NONE, "0.01 whatever is passed", "docs/fidelity.md C8"),
    "gradient norm": Published(NONE, NONE, "1.0", "docs/fidelity.md §2.1"),
    "checkpoint, every so many steps": Published(NONE, "200", "200, weights only", "docs/fidelity.md §2.1"),
    "seed": Published(NONE, NONE, "42", "docs/fidelity.md §2.1"),
    "mixture: rows, as a share of those of all experts": Published(NONE, NONE, NONE, "docs/fidelity.md §5.2"),
}


def table(cfg: Config, jobs: Sequence[Job]) -> pd.DataFrame:
    """A row for each hyper-parameter: paper, README, released script, this run, and where the contradiction is.

    jobs: the branches of the run (`tinyr1.branch.plan.jobs`), for their rows.
    """
    own = _of_run(cfg, jobs)
    rows = [
        {"": name, "paper": said.paper, "README": said.readme, "released script": said.script, "this run": own[name],
         "where it is worked out": said.see}
        for name, said in PUBLISHED.items()
    ]  # fmt: skip
    return pd.DataFrame(rows).set_index("")


def _of_run(cfg: Config, jobs: Sequence[Job]) -> dict[str, str]:
    p, trainer = cfg.params, cfg.params.trainer

    def sft(value: Callable[[Sft], object]) -> str:
        return _joined(str(value(domain.sft)) for domain in p.domains.values())

    return {
        "backbone": p.backbone.model + (", distilled first" if p.backbone.distill else ""),
        "sequence length, tokens": f"{trainer.sequence_length:,}",
        "epochs": sft(lambda s: s.epochs),
        "batch, packed sequences": sft(lambda s: s.batch_size),
        "GPUs": f"{world_size(cfg)} rank{'s' if world_size(cfg) > 1 else ''}",
        "learning rate": sft(lambda s: f"{s.learning_rate:g}"),
        "schedule": sft(lambda s: s.schedule),
        "warm-up, share of the steps": sft(lambda s: f"{s.warmup_ratio:g}"),
        "packing": sft(lambda s: s.packing or "neat"),
        "template of the rows": p.backbone.training_template or f"{p.backbone.chat_template}, as in evaluation",
        "rows that are too long": p.curate.overlong or "drop",
        "loss": "mean over all target tokens of a step",
        "ZeRO stage": str(trainer.zero_stage),
        "gradients are added up in": "fp32" if trainer.zero_stage else "bf16",
        "gradient checkpointing": "yes" if trainer.gradient_checkpointing else "no",
        "AdamW β": f"{trainer.adam_beta1:g}, {trainer.adam_beta2:g}",
        "AdamW ε": f"{trainer.adam_epsilon:g}",
        "weight decay": f"{trainer.weight_decay:g}",
        "gradient norm": f"{trainer.max_grad_norm:g}",
        "checkpoint, every so many steps": str(trainer.save_steps or "never"),
        "seed": str(p.seed),
        "mixture: rows, as a share of those of all experts": _passes(cfg, jobs),
    }


def _joined(values: Iterable[str]) -> str:
    """a / b / c, or a where all are equal."""
    texts = list(values)
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


def _passes(cfg: Config, jobs: Sequence[Job]) -> str:
    """How many rows the mixture is trained on, epochs counted, as a share of what all experts are trained on."""
    passes = {job.name: job.sft.epochs * sum(map(len, job.tokens())) for job in jobs}
    experts = sum(passes[name] for name in cfg.domains)
    if "mixture" not in passes:
        return "no mixture"
    return f"{passes['mixture'] / experts:.2f} ({passes['mixture']:,} of {experts:,})"
