"""A plan as text for the terminal: the short form that `make reproduce` begins with, and the whole."""

from tinyr1.core.config import ROOT
from tinyr1.core.params.evaluation import VllmEngine
from tinyr1.plan import hours
from tinyr1.plan.estimate import Plan, Stage, engine_gpus
from tinyr1.plan.hardware import GB
from tinyr1.plan.verdict import Problem, grouped
from tinyr1.plan.words import duration, money, tokens, wrapped
from tinyr1.report import spending

IDLE = "01 to 03  nothing to do: the run asks a published model and trains and merges nothing"


def short(plan: Plan, problems: list[Problem]) -> str:
    """A few lines: what is left of each stage, the sum, and whether it fits."""
    cfg = plan.cfg
    rows = "" if cfg.params.verification else f", rows {'counted' if _counted(plan) else 'estimated'}"
    head = f"plan of {cfg.run} on {plan.machine}{rows}"
    if not any(stage.seconds is None or stage.seconds > 0 for stage in plan.stages):
        return f"{head}: everything is finished"
    lines = [head, *(f"  {stage.name:17s} {_said(plan, stage)}" for stage in plan.stages if stage.name in cfg.stages)]
    return "\n".join([*lines, f"  together          {_sum(plan)}; {_verdict_in_a_word(problems)}"])


def whole(plan: Plan, problems: list[Problem]) -> str:
    """Everything: the model, each stage, sums, the verdict, and the paper's cost beside it."""
    shape = plan.shape
    source = plan.shape_source.removeprefix(f"{ROOT}/")
    before = [IDLE] if plan.cfg.params.verification else [_curation(plan), _training(plan), _merging(plan)]
    blocks = [
        f"Plan of run {plan.cfg.run} on {plan.machine}\n\n"
        f"Model  {plan.cfg.params.backbone.model}: {shape.parameters / 1e6:,.0f} M weights, {shape.layers} layers of "
        f"width {shape.width:,}, vocabulary {shape.vocabulary:,} ({source})",
        *before,
        _evaluation(plan),
        f"05  the report: a minute\n\nTogether: {_sum(plan)}.\n{_not_counted()}",
        _verdict(problems),
        *([] if plan.cfg.params.verification else ["\n".join([paper_cost(), *_beside_the_paper(plan)])]),
    ]
    return wrapped("\n\n".join(blocks))


def paper_cost() -> str:
    """The paper's 744 GPU hours and 1,500 dollars, worked out (docs/fidelity.md C28, C29)."""
    sentences = (spending.ideal_in_words(), spending.price_in_words(), spending.merge_hours_in_words(),
                 spending.mixture_hours_in_words())  # fmt: skip
    return "The paper's cost\n" + "\n".join(f"  {sentence}" for sentence in sentences)


def _beside_the_paper(plan: Plan) -> list[str]:
    """What the mixture takes in this plan, where it has GPUs, and the experts, which the 744 hours leave out."""
    spent = {one.name: plan.training_seconds(one) for one in plan.trainings}
    known = {name: seconds * plan.ranks / 3600 for name, seconds in spent.items() if seconds is not None}
    if plan.machine.gpu is None or "mixture" not in known:
        return []
    experts = sum(spent for name, spent in known.items() if name in plan.cfg.domains)
    return [f"  In this plan the mixture takes {known['mixture']:,.0f} GPU hours, and the experts take {experts:,.0f}."]


def _counted(plan: Plan) -> bool:
    return all(one.counted for one in plan.trainings)


def _said(plan: Plan, stage: Stage) -> str:
    """What is left of a stage, on one line."""
    took = duration(stage.seconds)
    if stage.seconds == 0:
        return "finished"
    if stage.name.startswith("01"):
        rows = sum(one.rows for one in plan.trainings if one.name != "mixture")  # the distillation has its own
        return f"about {rows:,} rows: {took}, downloads not counted"
    if stage.name.startswith("02"):
        trained, steps = sum(one.trained_tokens for one in plan.left), sum(one.steps for one in plan.left)
        return (
            f"{len(plan.left)} trainings, {tokens(trained)} tokens in {steps:,} steps: {took}; "
            f"{stage.memory / GB:.1f} GB" + (f" on each of {plan.ranks} {_ranks(plan)}" if plan.ranks > 1 else "")
        )
    if stage.name.startswith("03"):
        return f"{len(plan.cfg.merges)} merged models: {took}"
    asked = sum(one.all_tokens for one in plan.asked)
    return f"{sum(one.answers for one in plan.asked):,} answers, {tokens(asked)} tokens: {took}"


def _ranks(plan: Plan) -> str:
    return ("rank" if plan.ranks == 1 else "ranks") if plan.machine.gpu is None else "GPU" + "s" * (plan.ranks > 1)


def _workers(plan: Plan) -> str:
    """The ranks, and how many GPUs stay without work."""
    idle = plan.machine.count - plan.ranks
    spare = f" of {plan.machine.count}" if plan.machine.gpu and idle > 0 else ""
    return f"{plan.ranks}{spare} {_ranks(plan)}"


def _sum(plan: Plan) -> str:
    """Hours, GPU hours, money and disk of all that is left."""
    words, spent = [("" if plan.complete else "at least ") + duration(plan.seconds)], plan.gpu_hours
    if plan.machine.gpu is not None:
        words.append(f"{spent:,.{0 if spent >= 10 else 1}f} GPU hours")
        if plan.machine.price is not None:
            words.append(money(spent * plan.machine.price))
    free = "" if plan.disk_free is None else f" of {plan.disk_free / GB:,.0f} GB free"
    return ", ".join([*words, f"{plan.disk_need / GB:,.1f} GB of disk{free}"])


def _curation(plan: Plan) -> str:
    stage = plan.stages[0]
    rows = [[one.name, f"{one.rows:,}", tokens(one.tokens)] for one in plan.trainings if one.name in plan.cfg.domains]
    how = (
        "counted by finished stage 01" if _counted(plan)
        else "an estimate: limits and published sizes, typical lengths (docs/fidelity.md §1, §5.1)"
    )  # fmt: skip
    took = "finished" if stage.seconds == 0 else f"{duration(stage.seconds)} ({stage.source}, downloads not counted)"
    return f"01  rows: {how}; {took}\n{aligned(['expert', 'rows to train on', 'tokens'], rows)}"


def _training(plan: Plan) -> str:
    trainer = plan.cfg.params.trainer
    table = [
        [one.name, tokens(one.tokens), str(one.epochs), f"{one.steps:,}",
         "finished" if one.done else duration(plan.training_seconds(one)), *_spent(plan, plan.training_seconds(one))]
        for one in plan.trainings
    ]  # fmt: skip
    gpu_columns = [] if plan.machine.gpu is None else ["GPU hours"] + (["price"] if plan.machine.price else [])
    head = (
        f"02  training: {_workers(plan)}, ZeRO stage {trainer.zero_stage}, sequences of "
        f"{trainer.sequence_length:,} tokens, {'with' if trainer.gradient_checkpointing else 'without'} gradient "
        f"checkpointing; {_speed(plan.training_rate)}"
    )
    text = f"{head}\n{aligned(['model', 'tokens', 'epochs', 'steps', 'time', *gpu_columns], table)}"
    if plan.training is None:
        return text
    parts = ", ".join(f"{name} {size / GB:.2f}" for name, size in plan.training.parts.items() if size)
    return f"{text}\n    memory of each rank, GB: {parts}; together {plan.training.total / GB:.1f}"


def _merging(plan: Plan) -> str:
    stage = plan.stages[2]
    return (
        f"03  merging: {len(plan.cfg.merges)} merged models, {duration(stage.seconds)} ({stage.source}), "
        f"{stage.memory / GB:.0f} GB of main memory at most"
    )


def _spent(plan: Plan, seconds: float | None) -> list[str]:
    """GPU hours and money of one training, where there are GPUs and a price."""
    if plan.machine.gpu is None:
        return []
    spent = None if seconds is None else seconds * plan.ranks / 3600
    price = plan.machine.price
    return ["unknown" if spent is None else f"{spent:,.1f}"] + (
        [money(None if spent is None else spent * price)] if price else []
    )


def _speed(rate: hours.Rate) -> str:
    return f"{rate.value:,.0f} tokens/s ({rate.source})" if rate.value else rate.source


def _evaluation(plan: Plan) -> str:
    engine, stage = plan.cfg.params.evaluate.engine, plan.stages[3]
    table = [[one.benchmark, f"{one.answers:,}", f"{one.tokens:,.0f}", tokens(one.all_tokens)] for one in plan.asked]
    where = ""
    if isinstance(engine, VllmEngine):
        count = engine_gpus(plan.cfg)
        gpus = "the CPU" if plan.machine.gpu is None else "1 GPU" if count == 1 else f"{count} GPUs"
        where = f", vLLM on {gpus}, {stage.memory / GB:.1f} GB {'on each ' if plan.machine.gpu else ''}at least"
    took = "finished" if stage.seconds == 0 else f"{duration(stage.seconds)} ({stage.source})"
    columns = ["benchmark", "answers of all models", "tokens of one", "tokens"]
    models = "1 model" if len(plan.cfg.models) == 1 else f"{len(plan.cfg.models)} models"
    return f"04  evaluation: {models}{where}; {took}\n{aligned(columns, table)}"


def _not_counted() -> str:
    return "Not counted: downloads, ablations, GPUs that wait; memory for fragmentation and for CUDA itself."


def _verdict_in_a_word(problems: list[Problem]) -> str:
    return "does not fit" if problems else "it fits"


def _verdict(problems: list[Problem]) -> str:
    if not problems:
        return "Verdict: it fits."
    groups = grouped(problems).items()
    lines = ["\n".join([*(f"  {why}." for why in whys), f"    Smallest change: {change}."]) for change, whys in groups]
    return "\n".join(["Verdict: it does not fit.", *lines])


def aligned(columns: list[str], rows: list[list[str]]) -> str:
    """A table, indented: the first column to the left, the others to the right."""
    lines = [columns, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "    " + "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )
