"""The fidelity card of a run: what it did at each contradiction C1 to C34, and what that choice changed.

    docs/fidelity.md --topics---> what contradicts what
    params           --choices--> what this run did
    answers          -----------> the measured effect of the choice, where the run or its ablations have both models
"""

import re

import pandas as pd

from tinyr1.core.config import ROOT, Config
from tinyr1.core.params.domains import Domain, MiniatureSource, Source
from tinyr1.core.params.evaluation import VllmEngine
from tinyr1.core.recipe import Recipe
from tinyr1.report import effects, parts
from tinyr1.report.audit import Run
from tinyr1.report.statement import MERGED, MIXTURE, OTHER_ORDER

ROW = re.compile(r'^\| <a id="c\d+"></a>\*\*(C\d+)\*\* \| \*\*(.+?)\*\*', re.MULTILINE)
MADE = "The rows are made by this kit, so the question does not arise."
NO_EFFECT = "not ablated here"


def card(cfg: Config, run: Run) -> pd.DataFrame:
    """Rows C1 to C34: the topic, what this run did, and the measured effect or NO_EFFECT.

    run: what the run can be asked (`claims.of_run`).
    """
    done = choices(cfg)
    found = effects.of_models(alternatives(cfg), run.shares, list(cfg.params.benchmarks), run.margin)
    measured: dict[str, list[str]] = {}
    for name, words in found.items():
        measured.setdefault(name.partition(" ")[0], []).append(words)
    rows = [
        {"no.": number, "contradiction": topic, "this run": done[number],
         "measured effect": "; ".join(measured.get(number, [NO_EFFECT]))}
        for number, topic in topics().items()
    ]  # fmt: skip
    return pd.DataFrame(rows).set_index("no.")


def topics() -> dict[str, str]:
    """Number -> the contradiction in a few words, from docs/fidelity.md §7."""
    text = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
    return {number: topic.replace("`", "").rstrip(".") for number, topic in ROW.findall(text)}


def choices(cfg: Config) -> dict[str, str]:
    """Number -> what the run does, in a sentence, from its params."""
    return _of_data(cfg) | _of_training(cfg) | _of_merging(cfg) | _of_evaluation(cfg) | _of_numbers(cfg)


def _of_data(cfg: Config) -> dict[str, str]:
    code, science = _sources(cfg, "code"), _sources(cfg, "science")
    limit = cfg.params.domains["code"].limit if "code" in cfg.domains else None
    return {
        "C1": f"Math: {_sources(cfg, 'math')}.",
        "C2": f"Code: {code}; {f'at most {limit:,} rows' if limit else 'no limit'}.",
        "C3": f"Code is read by the columns {_columns(cfg, 'code')}; thinking ends where the reasoning ends.",
        "C4": f"Science has {_count(cfg, 'science')} source{'s' if _count(cfg, 'science') != 1 else ''}: {science}.",
        "C5": MADE if _is_made(cfg, "science") else f"Science: {science}.",
    }


def _of_training(cfg: Config) -> dict[str, str]:
    p = cfg.params
    sfts = {name: domain.sft for name, domain in p.domains.items()}
    schedules = "; ".join(f"{n}: {sft.schedule}, {100 * sft.warmup_ratio:g} % warm-up" for n, sft in sfts.items())
    batches = ", ".join(f"{name} {domain.sft.batch_size}" for name, domain in p.domains.items())
    template = {"own": "the backbone's own template", "r1": "ChatML tags without a system turn"}
    asked = template[p.backbone.chat_template]
    trained = "ChatML with a system turn" if p.backbone.training_template else asked
    packings = "; ".join(f"{name}: {sft.packing or 'neat'}" for name, sft in sfts.items())
    return {
        "C6": f"{schedules}.",
        "C7": f"Packed sequences in a batch, on all ranks: {batches}.",
        "C8": f"Weight decay {p.trainer.weight_decay:g}; each value of the params is used.",
        "C9": f"Training uses {trained}, evaluation {asked}.",
        "C31": f"Packing: {packings}.",
    }


def _of_merging(cfg: Config) -> dict[str, str]:
    merge, found = cfg.params.merge, parts.models(cfg)
    merged = found.get(MERGED)
    recipe = cfg.merges.get(merged) if merged else None
    base = f"In {merged} the base of the last step is {recipe.base}." if recipe else "The run does not make this merge."
    signs = {"paper": "signed: left − right"}.get(merge.reading, "absolute")
    kl = {
        "released": "by row, from right to left, in the type of the weights",
        "exact": "by row, from right to left, exactly", "paper": "one for each tensor, from left to right",
        "magnitude": "none: |other − base| alone",
    }[merge.reading]  # fmt: skip
    mask = {"paper": "the factor ⌈max(0, S − THR)⌉"}.get(merge.reading, "a mask with ≥")
    return {
        "C10": base,
        "C11": "A merge uses a GPU where there is one, else the CPU.",
        "C12": f"Divergence {kl} (reading {merge.reading}).",
        "C13": f"The difference is {signs}.",
        "C14": f"Entries are selected by {mask}.",
        "C15": "The interquartile range is Q75 − Q25.",
        "C16": f"λ = {merge.iqr_multiplier:g}.",
    }


def _of_evaluation(cfg: Config) -> dict[str, str]:
    p = cfg.params
    e, engine = p.evaluate, p.evaluate.engine
    asked = ", ".join(f"{name}: {b.samples}" for name, b in p.benchmarks.items())
    code = [f"{name}: {b.samples}" for name, b in p.benchmarks.items() if b.answers == "program"]
    released = e.protocol == "released"
    lengths = "counted by the engine" if isinstance(engine, VllmEngine) else "counted where the server counts them"
    samples = f"Answers to each question: {asked}."
    return {
        "C17": "Braces as in the authors' scripts." if released else r"One \boxed{}, at the end of the user turn.",
        "C18": samples,
        "C19": f"One pinned engine for all benchmarks ({engine.kind}).",
        "C20": "No system turn for programs.",
        "C21": f"Answers to each problem: {', '.join(code) or 'no problem asks for a program'}.",
        "C22": f"{e.sandbox.cpu_seconds} s of CPU time for a test, no limit for a problem.",
        "C23": f"Tokens of every answer are {lengths}.",
        "C24": "AIME 2025 is " + ("asked." if any("25" in n and b.kind == "aime" for n, b in p.benchmarks.items())
                                  else "not asked."),
        "C32": f"Answers to each problem: {', '.join(code) or 'no problem asks for a program'}.",
        "C33": f"Top-p {e.top_p:g} and temperature {e.temperature:g} on every benchmark.",
        "C34": "Answers are graded as " + ("the authors' scripts do." if released else "the strict rule says."),
    }  # fmt: skip


def _of_numbers(cfg: Config) -> dict[str, str]:
    found = parts.models(cfg)
    compared = {part: found.get(part) for part in (MERGED, OTHER_ORDER, MIXTURE)}
    order = f"{compared[MERGED]} and {compared[OTHER_ORDER]} are compared." if all(
        (compared[MERGED], compared[OTHER_ORDER])) else "The run has one order only."  # fmt: skip
    mixture = f"{compared[MERGED]} and mixture are compared." if compared[MERGED] and compared[MIXTURE] else \
        "The run has no data mixture."  # fmt: skip
    return {
        "C25": order,
        "C26": mixture,
        "C27": "The run has no 70B model.",
        "C28": "Seconds of the merge and of the data mixture are in the records, and their ratio is in notebook 05.",
        "C29": "Notebook 05 works it out; `make plan RUN=paper` estimates the hours of the experts too.",
        "C30": "Every optimizer step and every dropped row is in the logs and records of the run.",
    }


def alternatives(cfg: Config) -> dict[str, tuple[str, str]]:
    """Name of an effect -> (model with another choice, model with the run's choice): `C12 released` and the like.

    Only merges that differ from the paper's merge in one setting are alternatives. The readings of the code and of the
    formulas differ in C12, C13 and C14 together.
    """
    found = parts.models(cfg)
    merged = found.get(MERGED)
    if merged is None:
        return {}
    own, pairs = parts.candidates(cfg)[merged].recipe, {}
    for name, other in parts.candidates(cfg).items():
        for number in _changed(cfg, own, other.recipe) if other.dtype is None and name != merged else ():
            pairs[f"{number} {name}"] = (name, merged)
    for number, part in (("C25", OTHER_ORDER), ("C26", MIXTURE)):
        if part in found:
            pairs[f"{number} {part}"] = (found[part], merged)
    return pairs


def _changed(cfg: Config, own: Recipe, other: Recipe) -> tuple[str, ...]:
    """The contradictions in which two fusions differ; none where they differ in more than one setting, or otherwise."""
    mine, theirs = parts.settings(cfg, own), parts.settings(cfg, other)
    orders = parts.fusion_order(own), parts.fusion_order(other)
    if not orders[0] or not orders[1] or len(theirs) != 1:
        return ()
    if orders[0] != orders[1]:
        exchanged = orders[1] == (orders[0][1], orders[0][0], *orders[0][2:])
        return ("C10",) if exchanged and theirs == mine else ()
    (reading, multiplier, mask), (new_reading, new_multiplier, new_mask) = *mine, *theirs
    if mask != new_mask or (reading != new_reading) == (multiplier != new_multiplier) or new_reading == "magnitude":
        return ()
    if multiplier != new_multiplier:
        return ("C16",)
    return ("C12", "C13", "C14") if "paper" in (reading, new_reading) else ("C12",)


# --- rows of a domain -------------------------------------------------------------------------------------------


def _domain(cfg: Config, name: str) -> Domain | None:
    return cfg.params.domains.get(name)


def _count(cfg: Config, name: str) -> int:
    domain = _domain(cfg, name)
    return len(domain.sources) if domain else 0


def _is_made(cfg: Config, name: str) -> bool:
    domain = _domain(cfg, name)
    return domain is not None and all(isinstance(source, MiniatureSource) for source in domain.sources)


def _sources(cfg: Config, name: str) -> str:
    """Where the rows of a domain come from, in words."""
    domain = _domain(cfg, name)
    if domain is None:
        return "the run has no such domain"
    return "; ".join(map(_source, domain.sources))


def _source(source: Source) -> str:
    """A source, with the values that it keeps."""
    if isinstance(source, MiniatureSource):
        return f"rows made by this kit in the columns of {source.columns}"
    chosen = ", ".join(f"{column} {'/'.join(accepted)}" for column, accepted in source.keep.items())
    return f"{source.path}{f' ({chosen})' if chosen else ''}"


def _columns(cfg: Config, name: str) -> str:
    domain = _domain(cfg, name)
    return ", ".join(dict.fromkeys(source.columns for source in domain.sources)) if domain else "of no source"
