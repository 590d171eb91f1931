r"""The teacher: another model writes a trace for each question, as DeepSeek-R1 did for the paper (§2.1).

    seeds --wanted--> plan --sampling process--> teacher/<domain>/responses.jsonl --judged--> samples of each seed
              ^                                                                                  |
              \------- while a seed needs further samples ---------------------------------------/
                                                                                                 |
    curate <--read_traces-- teacher/<domain>/traces.jsonl <--trace_of: one sample, or why none --/

A seed is a dict: key (hexadecimal, unique for a question), domain, source, question, starter_code, answer ("" where the
source has none), and history (the turns before the question). It is asked with the words that the model will be trained
with. The teacher is an OpenAI-compatible server or vLLM, by the block `teacher` of the params file.

An answer that is stored is never asked for again, and a killed run loses only the requests in flight. A sample is asked
again under a number of its own: number i is followed by i + samples, i + 2 samples, …, up to `teacher.attempts` times.
A generation that failed is asked again by the next call, except one that was refused, which is a sample like others.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import pandas as pd

from tinyr1.core import artifact, hub, jsonl, machine, prompts
from tinyr1.core.checkpoints import CHECKPOINT
from tinyr1.core.config import Config, located
from tinyr1.core.errors import UserError
from tinyr1.core.params.evaluation import EndpointEngine, VllmEngine
from tinyr1.core.params.teacher import OWN_BACKBONE, Teacher
from tinyr1.core.progress import say
from tinyr1.data.rejection import OUTCOMES, SPOILED, Grade, Sample, Seed, Trace, judged, trace_of, wanted
from tinyr1.sampling import responses
from tinyr1.sampling.child import sample_what_comes
from tinyr1.sampling.requests import BUDGET

FINAL = ["refused"]  # kinds of failures that are not asked again under the same number


@dataclass(frozen=True)
class Taught:
    """What the teacher made of all seeds of a domain.

    traces: by key, in the order of the seeds. fates: by key, how many samples were right, wrong, unchecked or spoiled.
    failures: reason -> requests of this call that have no answer. tokens, dollars: of all samples that are stored.
    """

    traces: dict[str, Trace]
    fates: dict[str, Counter[str]]
    failures: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    dollars: float = 0.0

    @property
    def outcomes(self) -> dict[str, int]:
        """Number of seeds by outcome, those that occur, in the order of OUTCOMES."""
        counts = Counter(trace.outcome for trace in self.traces.values())
        return {name: counts[name] for name in OUTCOMES if counts[name]}


# --- one domain ---------------------------------------------------------------------------------------------


def folder(cfg: Config, domain: str) -> Path:
    """Where the answers and the traces of a domain are."""
    return cfg.home / "teacher" / domain


def ask(cfg: Config, domain: str, seeds: Iterable[Seed], grade: Grade) -> Taught:
    """Ask the teacher for what the store lacks, and store one trace, or the reason why there is none, for each seed.

    seeds: of one key only the first counts. grade: the grader of the domain. UserError when the run has no teacher, the
    server cannot be asked or is given up, and when the budget is used up; every answer that came is stored, and the
    same call goes on from there.
    """
    return _teach(cfg, _teacher_of(cfg), domain, folder(cfg, domain), seeds, grade)


def read_traces(cfg: Config, domain: str) -> dict[str, Trace]:
    """The traces that `ask` stored for a domain, by key; none where no source of the domain has `traces`.

    UserError when they are missing or were changed.
    """
    if not any(source.traces for source in cfg.params.domains[domain].sources):
        return {}
    path = folder(cfg, domain) / "traces.jsonl"
    artifact.check(path, cfg.remedy("01_data_curation"))
    return {row["key"]: Trace(**row) for row in jsonl.read(path)}


def _teacher_of(cfg: Config) -> Teacher:
    if cfg.params.teacher is None:
        raise UserError(f"teacher: params/{cfg.run}.yaml has no such block; give one (docs/params.md)")
    return cfg.params.teacher


def _teach(
    cfg: Config, teacher: Teacher, domain: str, place: Path, seeds: Iterable[Seed], grade: Grade
) -> Taught:
    """`ask` with any teacher, into the folder `place`."""
    by_key: dict[str, _Asked] = {}
    for seed in seeds:
        by_key.setdefault(seed["key"], _Asked(seed, prompts.row_messages(cfg.params.domains[domain], seed)))
    asked = list(by_key.values())
    failures = _draw(cfg, teacher, domain, place, asked, grade)
    taught = Taught(
        {key: trace_of(key, one.samples, teacher.choose) for key, one in by_key.items()},
        {key: Counter(sample.fate for sample in one.samples.values()) for key, one in by_key.items()},
        failures, sum(one.tokens for one in asked), sum(one.dollars for one in asked),
    )  # fmt: skip
    _save(cfg, place / "traces.jsonl", teacher, taught)
    _report(domain, taught)
    return taught


def _draw(
    cfg: Config, teacher: Teacher, domain: str, place: Path, asked: list["_Asked"], grade: Grade
) -> Counter[str]:
    """Draw samples until no seed needs one; reason -> requests that have no answer."""
    checkpoint, key = _checkpoint(cfg, teacher)
    job = {"name": domain, "out": str(place / "responses.jsonl"), "protocol_key": _protocol_key(teacher),
           "sampling": _sampling(teacher)}  # fmt: skip
    model = {"name": "teacher", "path": str(checkpoint), "key": key}
    log = cfg.home / "logs" / f"teacher-{place.name}.log"
    has_gpu = isinstance(teacher.engine, VllmEngine) and machine.has_gpu()
    failures: Counter[str] = Counter()
    tried: set[tuple[str, int]] = set()  # what fails in this call is asked for in the next one
    while True:
        drawn = _take_stored(job, key, asked, grade)
        new = [
            (one, number)
            for one in asked for number in wanted(one.samples, teacher) if (one.name, number) not in tried
        ]  # fmt: skip
        if not new:
            return failures
        tried |= {(one.name, number) for one, number in new}
        # The plan also names what is stored, or its lines would count as foreign.
        stored = [(one, number) for one in asked for number in one.samples]
        plan = {
            "engine": teacher.engine.model_dump(), "limits": _limits(teacher, spent_dollars(cfg)),
            # Without a new seed for each call, vLLM could draw the same samples again.
            "seed": cfg.params.seed + drawn, "final": FINAL,
            "models": [model | {"jobs": [job | {"requests": [_request(*pair) for pair in new + stored]}]}],
        }  # fmt: skip
        found = Counter(sample_what_comes(plan, place / "plan.json", log, has_gpu)["failures"])
        if unpaid := found[BUDGET.reason]:
            raise UserError(
                f"teacher.budget: ${teacher.budget:g} leaves no room for the longest of the {unpaid} answers of "
                f"{domain} that are missing (${spent_dollars(cfg):.2f} spent); all others are stored; raise it, and "
                "run the same command to go on"
            )
        failures += found


def _take_stored(job: dict, key: str, asked: list["_Asked"], grade: Grade) -> int:
    """Give every seed its stored answers and refusals, and judge those that are new; the number of them."""
    by_name = {one.name: one for one in asked}
    found = responses.stored(Path(job["out"]), key, job["protocol_key"])
    lines = found.lines + [line for line in found.failed if line["kind"] in FINAL]
    for line in lines:
        if one := by_name.get(line["question"]):
            one.take(line, grade)
    return len(lines)


def _save(cfg: Config, path: Path, teacher: Teacher, taught: Taught) -> None:
    """Store the traces, unless exactly these are stored already."""
    rows = [asdict(trace) for trace in taught.traces.values()]

    def build(partial: Path) -> dict:
        jsonl.write(partial, rows)
        return {"teacher": name_of(teacher), "outcomes": taught.outcomes, "tokens": taught.tokens,
                "dollars": round(taught.dollars, 4)}  # fmt: skip

    artifact.make(path, {"traces": artifact.digest(rows)}, build, cfg.remedy("01_data_curation"))


def _report(domain: str, taught: Taught) -> None:
    counts = taught.outcomes
    others = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in counts.items() if name != "written")
    money = f", ${taught.dollars:.2f}" if taught.dollars else ""
    say(f"  {domain:8s} {counts.get('written', 0)} of {len(taught.traces)} seeds have a trace of the teacher"
        f"{f' ({others})' if others else ''}; {taught.tokens / 1e6:.2f} M tokens{money}")  # fmt: skip
    for reason, n in taught.failures.most_common(3):
        say(f"           {n} x {reason}; asked again at the next run")


# --- how it is asked ----------------------------------------------------------------------------------------


class _Asked:
    """One seed with its messages, the name under which its answers are stored, and those that came so far."""

    def __init__(self, seed: Seed, messages: list[dict]) -> None:
        self.seed, self.messages = seed, messages
        # The name holds what was asked, so that no answer is taken for one to other words.
        self.name = f"{seed['key']}.{artifact.digest(messages)[:8]}"
        self.samples: dict[int, Sample] = {}
        self.tokens, self.dollars = 0, 0.0

    def take(self, line: dict, grade: Grade) -> None:
        """Judge a stored answer, once."""
        if line["sample"] not in self.samples:
            self.samples[line["sample"]] = judged(self.seed, line, grade)
            self.tokens += (line["n_tokens"] or 0) + line.get("n_prompt", 0)
            self.dollars += line.get("dollars", 0.0)


def _request(one: _Asked, number: int) -> dict:
    return {"question": one.name, "sample": number, "messages": one.messages, "open_think": True}


def _sampling(teacher: Teacher) -> dict:
    names = ("temperature", "top_p", "max_tokens")
    return {name: getattr(teacher, name) for name in names} | {"stop": [], "stop_token_ids": [], "seed": None}


def _protocol_key(teacher: Teacher) -> str:
    """Hash of what shapes an answer besides the model and the messages; limits, samples and the choice do not."""
    return artifact.digest([_sampling(teacher), teacher.engine.kind])


def _limits(teacher: Teacher, spent: float) -> dict:
    """The limits of the plan; its budget is what is left of the teacher's."""
    return {
        "requests_per_minute": teacher.requests_per_minute, "tokens_per_minute": teacher.tokens_per_minute,
        "price": teacher.price and teacher.price.model_dump(),
        "budget": None if teacher.budget is None else teacher.budget - spent,
    }  # fmt: skip


def spent_dollars(cfg: Config) -> float:
    """What all stored answers and failures of all domains cost, those to questions that are not asked any more
    included."""
    stores = sorted((cfg.home / "teacher").glob("*/responses*.jsonl"))
    lines = (line for path in stores for _, line in responses.RESPONSE.lines(path))
    return sum(line.get("dollars", 0.0) for line in lines if line is not None)


def name_of(teacher: Teacher) -> str:
    """The name of the model that writes."""
    return teacher.engine.model if isinstance(teacher.engine, EndpointEngine) else str(teacher.model)


def _checkpoint(cfg: Config, teacher: Teacher) -> tuple[Path, str]:
    """(the folder that vLLM loads, what ties answers to the model). UserError when the checkpoint cannot be had."""
    if isinstance(teacher.engine, EndpointEngine):
        # By its name alone: a server that moves to another address is the same teacher, and its answers cost money.
        return cfg.home, artifact.digest(["endpoint", teacher.engine.model])
    if teacher.model == OWN_BACKBONE:
        return cfg.backbone, artifact.check(cfg.backbone, cfg.remedy("02_branch_sft"))["content"]
    model = str(teacher.model)
    if located(model).is_dir():
        files = sorted({file for pattern in CHECKPOINT for file in located(model).glob(pattern)})
        return located(model), artifact.digest({file.name: artifact.file_hash(file) for file in files})
    found = hub.model_folder("teacher.model", model, teacher.revision)
    return found, artifact.digest([model, found.name])  # the hub's cache names the folder by the commit


# --- a demonstration ----------------------------------------------------------------------------------------


def is_own_backbone(cfg: Config) -> bool:
    """Whether the teacher is the backbone of the run, which costs nothing to ask once it was distilled."""
    return cfg.params.teacher is not None and cfg.params.teacher.model == OWN_BACKBONE


def demonstrate(cfg: Config, domain: str, rows: Iterable[dict], grade: Grade, questions: int = 48) -> pd.DataFrame:
    """Rejection sampling in small: the teacher of the run answers questions of training rows, and a grader decides.

    rows: the curated rows of the domain (`tinyr1.data.curate.curated_rows`); those that the backbone was distilled on
    are left out, since it has seen their answers. All samples are drawn, whatever `teacher.choose` says. The answers
    are stored apart from those of stage 01, and nothing is trained on them.
    Lines: samples that the grader accepted, and what became of the others; questions with at least one accepted sample.
    Columns: number, of, percent, and the 95 % interval over questions, as text.
    """
    distill = cfg.params.backbone.distill
    seen = distill.rows[domain] if distill else 0
    seeds = [
        {"key": row["id"], "domain": domain, "source": row["source"], "question": row["question"],
         "starter_code": row["starter_code"], "answer": row["answer"], "history": list(row.get("history", ()))}
        for row in islice(rows, seen, seen + questions)
    ]  # fmt: skip
    teacher = _teacher_of(cfg).model_copy(update={"choose": "shortest_correct"})
    taught = _teach(cfg, teacher, domain, folder(cfg, f"{domain}-demonstration"), seeds, grade)
    return acceptance(taught.fates)


def acceptance(fates: Mapping[str, Counter[str]]) -> pd.DataFrame:
    """The table of `demonstrate` from the fates of the samples of each question."""
    asked = [counts for counts in fates.values() if counts]
    total = Counter({name: sum(counts[name] for counts in asked) for name in ("right", "wrong", "unchecked", *SPOILED)})
    names = {"right": "samples accepted", "wrong": "samples wrong", "unchecked": "samples not checked",
             "empty_reasoning": "samples without reasoning or answer", "refused": "samples refused",
             "truncated": "samples cut off"}  # fmt: skip
    rows = {
        label: (total[name], total.total(), [counts[name] / counts.total() for counts in asked])
        for name, label in names.items()
        if total[name] or name == "right"
    }
    with_one = [float(counts["right"] > 0) for counts in asked]
    rows["questions with an accepted sample"] = (int(sum(with_one)), len(asked), with_one)
    return pd.DataFrame(
        {label: {"number": n, "of": of, "percent": round(100 * n / of, 1) if of else float("nan"),
                 "95 % interval": _interval(shares)} for label, (n, of, shares) in rows.items()}
    ).T  # fmt: skip


def _interval(shares: list[float]) -> str:
    """95 % interval of the mean of shares of independent questions, in percent: Student's t, cut to 0 and 100; Wilson's
    where all shares are equal (docs/evaluation.md §6.1)."""
    from scipy import stats

    n = len(shares)
    if n < 2:
        return ""
    mean = sum(shares) / n
    if len(set(shares)) == 1:
        low, high = stats.binomtest(round(mean * n), n).proportion_ci(method="wilson")
    else:
        half = float(stats.t.ppf(0.975, n - 1)) * float(stats.sem(shares))
        low, high = max(0.0, mean - half), min(1.0, mean + half)
    return f"[{100 * low:.1f}, {100 * high:.1f}]"
