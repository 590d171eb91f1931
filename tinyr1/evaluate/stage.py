"""Responses -> outcomes -> scores.

    generate(cfg)   missing samples of every model, through one vLLM process
    grade_all(cfg)  an outcome for every stored sample; kept, and made again when what decides it changes
    scores(graded)  the table everybody reads, reports/<run>/scores.csv
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from tinyr1.core import artifact, jsonl, launch, machine
from tinyr1.core.config import SCORE_COLUMNS, Config
from tinyr1.core.errors import UserError
from tinyr1.core.params import Engine
from tinyr1.core.progress import say
from tinyr1.core.prompts import split_response
from tinyr1.evaluate import lm_eval, stats
from tinyr1.evaluate import protocol as protocols
from tinyr1.evaluate.compare import by_question
from tinyr1.evaluate.grading import grade, programs, selftest
from tinyr1.evaluate.grading.symbolic import Verifier
from tinyr1.sampling import responses
from tinyr1.sampling.vllm import CPU_ENVIRONMENT
from tinyr1.sandbox.runner import Runner

SHOWN_CHARACTERS = 1500  # of each end of an answer
QUANTILES = {"min": 0.0, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95, "max": 1.0}
GRADED_COLUMNS = ("model", "benchmark", "question", "family", "sample", "outcome", "extracted", "n_tokens", "text")


def protocol(cfg: Config, name: str, asked: list[dict]) -> dict:
    """All that decides a score besides the model; stored with it."""
    e = cfg.params.evaluate
    rules = protocols.of(cfg.params, name)
    return rules.describe() | {
        "split": e.split, "n_problems": len(asked), "seed": cfg.params.seed,
        "responses": protocols.response_key(rules, asked)[:16],
        "engine": engine_name(e.engine), "versions": machine.describe()["packages"],
    }  # fmt: skip


def protocol_key(cfg: Config, name: str, asked: list[dict]) -> str:
    """Hash of all that shapes the responses of a model; each response carries it."""
    p = protocol(cfg, name, asked)
    key = protocols.response_key(protocols.of(cfg.params, name), asked)
    return artifact.digest([key, p["split"], p["seed"], p["engine"]])


def engine_name(engine: Engine) -> str:
    """What decides a score of the engine's settings."""
    if engine.kind == "endpoint":
        return f"{engine.model} at {engine.base_url}"
    return f"vLLM, max_model_len {engine.max_model_len}, bf16"


def model_key(cfg: Config, model: str) -> str:
    """Content hash of a model's checkpoint; of a served model, whose weights are out of sight, its address and name."""
    if (known := cfg.known_key(model)) is not None:
        return known
    engine = cfg.params.evaluate.engine
    if engine.kind == "endpoint":
        return artifact.digest([engine.base_url, engine.model])
    return artifact.check(cfg.model(model), cfg.remedy("02_branch_sft 03_fusion_merge"))["content"]


def generation_plan(cfg: Config, models: list[str], asked: dict[str, list[dict]]) -> dict:
    """What the generating process reads: engine settings, and for each model its jobs."""
    e = cfg.params.evaluate

    def job(model: str, name: str) -> dict:
        rules = protocols.of(cfg.params, name)
        return {
            "name": name, "out": str(cfg.responses(model, name)), "sampling": rules.sampling(),
            "protocol_key": protocol_key(cfg, name, asked[name]),
            "requests": protocols.requests(rules, asked[name]),
        }  # fmt: skip

    return {
        "engine": e.engine.model_dump(), "seed": cfg.params.seed,
        "models": [
            {"name": m, "path": str(cfg.model(m)), "key": model_key(cfg, m), "jobs": [job(m, b) for b in asked]}
            for m in models
        ],
    }  # fmt: skip


def missing(plan: dict) -> list[str]:
    """Models of a plan that lack responses; those of other checkpoints or protocols do not count."""
    return [m["name"] for m in plan["models"] if any(responses.missing(job, m["key"]) for job in m["jobs"])]


def notes(plan: dict) -> list[str]:
    """What else the files of responses hold and no score uses, one line for each model and benchmark."""
    return [
        f"{model['name']}, {job['name']}: {note}"
        for model in plan["models"]
        for job in model["jobs"]
        for note in responses.of_job(job, model["key"]).notes()
    ]


def cpu_environment(cfg: Config) -> dict[str, str]:
    """Environment of the sampling process on a machine without a GPU."""
    return CPU_ENVIRONMENT | {
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
        "VLLM_CPU_KVCACHE_SPACE": str(cfg.params.evaluate.engine.cpu_kv_cache_gb),
    }


def generate(cfg: Config, asked: dict[str, list[dict]], has_gpu: bool) -> dict:
    """Sample what is missing; returns tokens and seconds of this call (zero when nothing was)."""
    plan = generation_plan(cfg, list(cfg.models), asked)
    for note in notes(plan):
        say(f"  {note}")
    names = set(missing(plan))
    todo = plan | {"models": [m for m in plan["models"] if m["name"] in names]}
    if not todo["models"]:
        say("  responses kept: every model has answered every question")
        return {"tokens": 0, "seconds": 0.0}
    path = cfg.home / "generate.json"
    progress = path.with_suffix(".progress")
    progress.unlink(missing_ok=True)
    artifact.write_atomic(path, json.dumps(todo))

    def poll() -> tuple[int, int, str] | None:
        if not progress.exists():
            return None
        p = json.loads(progress.read_text(encoding="utf-8"))
        return p["done"], p["of"], f"{p['model']}, {p['tokens'] / max(p['seconds'], 0.1):.0f} tokens/s"

    environment = {} if has_gpu or plan["engine"]["kind"] == "endpoint" else cpu_environment(cfg)
    words = [sys.executable, "-m", "tinyr1.sampling.process", str(path)]
    launch.follow(words, environment, cfg.home / "logs" / "generate.log", "sampling", poll, "answer")
    if left := missing(plan):
        raise UserError(f"sampling ended, but answers of {', '.join(left)} are missing; run the stage again")
    last = json.loads(progress.read_text(encoding="utf-8"))
    rate = last["tokens"] / max(last["seconds"], 0.1)
    say(f"  {last['done']} answers of {len(todo['models'])} models, {rate:.0f} tokens/s")
    return {"tokens": last["tokens"], "seconds": last["seconds"]}


def grade_all(cfg: Config, asked: dict[str, list[dict]]) -> pd.DataFrame:
    """One row for each sample, GRADED_COLUMNS; grades of an earlier call that still hold are kept."""
    plan = generation_plan(cfg, list(cfg.models), asked)
    by_id = {name: {q["id"]: q for q in qs} for name, qs in asked.items()}
    rules = {name: protocols.of(cfg.params, name) for name in asked}
    samples = [
        grade.Sample(model["name"], name, response, by_id[name][response["question"]], rules[name])
        for model in plan["models"]
        for job in model["jobs"]
        for name in [job["name"]]
        for response in responses.of_job(job, model["key"]).lines
    ]
    found = grade.grade_samples(cfg.home / "grades.jsonl", samples, cfg.params.evaluate.sandbox)
    rows = [_graded(*pair) for pair in zip(samples, found, strict=True)]
    table = pd.DataFrame(rows, columns=GRADED_COLUMNS)
    return table.sort_values(["model", "benchmark", "question", "sample"], ignore_index=True)


def _graded(sample: grade.Sample, found: dict) -> tuple:
    response = sample.response
    return (*sample.name[:3], sample.question["family"], response["sample"], found["outcome"], found["extracted"],
            response["n_tokens"], response["text"])  # fmt: skip


def scores(cfg: Config, graded: pd.DataFrame, paper: dict[tuple[str, str], float]) -> pd.DataFrame:
    """SCORE_COLUMNS for every model and benchmark; fractions in [0, 1].

    paper: (model, benchmark) -> published pass@1, for the benchmarks the paper has; empty elsewhere.
    """
    rows, counts = [], by_question(graded)
    for model in cfg.models:
        for benchmark in cfg.params.benchmarks:
            part = graded[(graded.model == model) & (graded.benchmark == benchmark)]
            asked = counts.loc[model, benchmark]
            estimate = stats.proportion(asked.share.to_numpy())
            values = (
                cfg.run, model, benchmark, len(asked), asked.samples.max(),
                estimate.mean, estimate.low, estimate.high, part.n_tokens.mean(),
                *(part.outcome.eq(name).mean() for name in ("truncated", "no_answer", *grade.UNDECIDED)),
                paper.get((model, benchmark), np.nan),
            )  # fmt: skip
            rows.append(dict(zip(SCORE_COLUMNS, values, strict=True)))
    return pd.DataFrame(rows)


def per_question(graded: pd.DataFrame) -> pd.DataFrame:
    """model, benchmark, question, score: the share of correct samples."""
    return by_question(graded).share.rename("score").reset_index()


def gains(cfg: Config, graded: pd.DataFrame) -> pd.DataFrame:
    """Paired gains over the backbone: model, benchmark, mean, low, high (fractions)."""
    shares = by_question(graded).share.unstack("model")
    rows = []
    for model in [m for m in cfg.models if m != "backbone"]:
        for benchmark in cfg.params.benchmarks:
            wide = shares.loc[benchmark]
            estimate = stats.paired(wide[model].to_numpy(), wide["backbone"].to_numpy())
            rows.append({"model": model, "benchmark": benchmark, **asdict(estimate)})
    return pd.DataFrame(rows)


def score_table(table: pd.DataFrame, tokens: bool = False) -> pd.DataFrame:
    """Scores for reading: percent [95 % interval], with the mean answer length when `tokens` is set."""
    text = [
        f"{100 * r.pass_at_1:.1f} [{100 * r.ci_low:.1f}, {100 * r.ci_high:.1f}]"
        + (f" ({r.mean_tokens:.0f} tokens)" if tokens else "")
        for r in table.itertuples()
    ]
    return _wide(table.assign(text=text))


def gain_table(table: pd.DataFrame) -> pd.DataFrame:
    """Gains for reading: points [95 % interval]."""
    text = [f"{100 * r.mean:+.1f} [{100 * r.low:+.1f}, {100 * r.high:+.1f}]" for r in table.itertuples()]
    return _wide(table.assign(text=text))


def _wide(table: pd.DataFrame) -> pd.DataFrame:
    """Models down, benchmarks across, in the order of the rows."""
    wide = table.pivot(index="model", columns="benchmark", values="text")
    return wide.loc[list(dict.fromkeys(table.model)), list(dict.fromkeys(table.benchmark))]


def token_quantiles(graded: pd.DataFrame) -> pd.DataFrame:
    """Quantiles of the number of tokens in an answer, one row for each benchmark whose answers were counted."""
    counted = graded.dropna(subset="n_tokens")  # an endpoint need not count them
    tokens = counted.n_tokens.astype(float).groupby(counted.benchmark)
    return pd.DataFrame({name: tokens.quantile(q) for name, q in QUANTILES.items()}).round().astype(int)


def examples(cfg: Config, graded: pd.DataFrame, asked: dict[str, list[dict]]) -> str:
    """One answer for each benchmark and outcome that occurs, by the first model that has it; no private questions."""
    parts = []
    for (benchmark, outcome), rows in graded.groupby(["benchmark", "outcome"]):
        model = next(m for m in cfg.models if rows.model.eq(m).any())
        row = rows[rows.model == model].iloc[0]
        parts.append(f"[{benchmark}: {outcome}, by {model}] {_example(row, asked[benchmark])}")
    return f"\n{'-' * 60}\n".join(parts)


def _example(row: pd.Series, asked: list[dict]) -> str:
    """Question, answer and what is right of one graded sample."""
    if any(q["private"] for q in asked):
        return "its questions must not be published"
    question = next(q for q in asked if q["id"] == row.question)
    truth = f"\n\nright: {question['answer']}" if "answer" in question else ""
    return f"{question['question']}\n\n{_shortened(row.text)}{truth}"


def _shortened(text: str) -> str:
    """The two ends of a long answer."""
    left_out = len(text) - 2 * SHOWN_CHARACTERS
    if left_out <= 0:
        return text
    return f"{text[:SHOWN_CHARACTERS]}\n[… {left_out:,} characters …]\n{text[-SHOWN_CHARACTERS:]}"


def self_test(cfg: Config, asked: dict[str, list[dict]]) -> pd.DataFrame:
    """The graders on reference answers and constants, before anything is scored; UserError when one is wrong."""
    with Runner(cfg.params.evaluate.sandbox) as runner, Verifier() as verifier:
        rows = [
            row
            for name, questions in asked.items()
            for row in selftest.run_self_test(protocols.of(cfg.params, name), questions, runner, verifier)
        ]
    return pd.DataFrame(rows).set_index(["benchmark", "answer"])


def isolation(cfg: Config) -> dict:
    """How programs run on this machine: layers, private user, result of the escape probes, semantics, comparator."""
    with Runner(cfg.params.evaluate.sandbox) as runner:
        return runner.description() | {"comparator": programs.COMPARATOR}


def second_opinions(graded: pd.DataFrame, asked: dict[str, list[dict]]) -> pd.DataFrame:
    """Integer answers on which Math-Verify and the grader disagree; empty when they agree on all."""
    truth = {(name, q["id"]): q["answer"] for name, qs in asked.items() for q in qs if q["kind"] == "integer"}
    rows = [r for r in graded.to_dict("records") if (r["benchmark"], r["question"]) in truth]
    items = [
        {key: r[key] for key in ("question", "sample", "outcome", "extracted")}
        | {"answer": truth[r["benchmark"], r["question"]], "text": split_response(r["text"])[1] or ""}
        for r in rows
    ]
    with Verifier(max(1, len(os.sched_getaffinity(0)))) as verifier:
        return pd.DataFrame(verifier.second_opinion(items))


def outcome_counts(graded: pd.DataFrame) -> list[dict]:
    """Samples by model, benchmark and outcome."""
    return graded.groupby(["model", "benchmark", "outcome"]).size().rename("samples").reset_index().to_dict("records")


def export(
    cfg: Config, folder: Path, graded: pd.DataFrame, asked: dict[str, list[dict]], described: list[dict]
) -> None:
    """Graded samples as lm-evaluation-harness writes them; gated questions stay out."""
    texts = {
        name: [q | {"user": _shown(protocols.of(cfg.params, name), q)} for q in questions]
        for name, questions in asked.items()
    }
    gated = {name for name, questions in asked.items() if questions[0]["private"]}
    lm_eval.write(folder, graded, texts, {d["benchmark"]: d for d in described}, gated)


def _shown(rules: protocols.Protocol, question: dict) -> str:
    """What a model was shown for sample 0."""
    request = protocols.requests(rules, [question], 1)[0]
    return request.get("prompt") or request["messages"][-1]["content"]


def graded_path(cfg: Config) -> Path:
    return cfg.home / "graded.jsonl"


def save_graded(cfg: Config, graded: pd.DataFrame) -> None:
    """Store the graded samples as an artifact."""
    rows = json.loads(graded.to_json(orient="records"))

    def build(path: Path) -> dict:
        jsonl.write(path, rows)
        return {"samples": len(rows)}

    artifact.make(graded_path(cfg), {"rows": artifact.digest(rows)}, build, cfg.remedy("04_evaluation"))


def load_graded(cfg: Config) -> pd.DataFrame:
    """The graded samples of a finished evaluation."""
    artifact.check(graded_path(cfg), cfg.remedy("04_evaluation"))
    return pd.DataFrame(jsonl.read(graded_path(cfg)))
