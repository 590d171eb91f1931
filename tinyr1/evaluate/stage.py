r"""The evaluation of the models of a run, as notebook 04 calls it: questions -> responses -> graded samples.

    asked: benchmark -> questions
      \-- generation_plan --generate: a child process samples the missing ones--> responses/<model>/<benchmark>.jsonl
                                                                                    \-- grade_all --> graded samples

A stored response belongs to a checkpoint (`model_key`) and to all that shaped it (`protocol_key`), so a rerun samples
and grades only those that are missing or changed. A generation that failed is a row, too, with the outcome `failed`.
`tinyr1.evaluate.scores` makes the tables.
"""

import json
import os
from contextlib import nullcontext
from pathlib import Path

import pandas as pd

from tinyr1.core import artifact, jsonl, machine
from tinyr1.core.config import Config
from tinyr1.core.params.evaluation import EndpointEngine, Engine, VllmEngine
from tinyr1.core.prompts import final_answer
from tinyr1.evaluate import protocol as protocols
from tinyr1.evaluate.grading import grade, programs, selftest
from tinyr1.evaluate.grading.symbolic import OPINIONS, Verifier
from tinyr1.evaluate.loops import loops
from tinyr1.evaluate.notices import FAILED
from tinyr1.sampling import responses
from tinyr1.sampling.child import sample_in_child
from tinyr1.sandbox.runner import Runner

STORED_COLUMNS = ("model", "benchmark", "question", "family", "sample", "outcome", "extracted", "n_tokens", "text")


# --- identity -----------------------------------------------------------------------------------------------


def describe_protocol(cfg: Config, name: str, questions: list[dict]) -> dict:
    """Everything that decides a score of the benchmark `name` besides the model, as plain values to print and store."""
    evaluate = cfg.params.evaluate
    rules = protocols.of(cfg.params, name)
    return rules.describe() | {
        "split": evaluate.split, "n_problems": len(questions), "seed": cfg.params.seed,
        "failed": evaluate.failed, "responses": protocols.response_key(rules, questions)[:16],
        "engine": _engine_name(evaluate.engine), "versions": machine.describe()["packages"],
    }  # fmt: skip


def _engine_name(engine: Engine) -> str:
    if isinstance(engine, EndpointEngine):
        return f"{engine.model} at {engine.base_url}"
    return f"vLLM, max_model_len {engine.max_model_len}, bf16"


def protocol_key(cfg: Config, name: str, questions: list[dict]) -> str:
    """Hash of all that shapes the responses of a model; each response carries it.

    Prompts and sampling shape them, and of vLLM its seed and max_model_len, by which it chooses the positions of
    models with LongRoPE. An endpoint takes neither; `model_key` holds its address. Whatever else an engine is given
    (batch sizes, memory, GPUs), versions of packages and grading rules stay out: stored responses outlive them.
    """
    engine = cfg.params.evaluate.engine
    own = [cfg.params.seed, engine.max_model_len] if isinstance(engine, VllmEngine) else []
    return artifact.digest([protocols.response_key(protocols.of(cfg.params, name), questions), engine.kind, *own])


def model_key(cfg: Config, model: str) -> str:
    """Content hash of a model's checkpoint; of a served model, whose weights are out of sight, its address and name.

    UserError when the checkpoint is missing, or is not what its manifest lists.
    """
    if (known := cfg.known_key(model)) is not None:
        return known
    engine = cfg.params.evaluate.engine
    if isinstance(engine, EndpointEngine):
        return artifact.digest([engine.base_url, engine.model])
    made_by = "04_evaluation" if cfg.params.verification else "02_branch_sft 03_fusion_merge"
    return artifact.check(cfg.model(model), cfg.remedy(made_by))["content"]


# --- responses ----------------------------------------------------------------------------------------------


def generation_plan(cfg: Config, models: list[str], asked: dict[str, list[dict]]) -> dict:
    """The plan that `tinyr1.sampling.process` reads: engine settings, and the jobs of each model."""

    def job(model: str, name: str) -> dict:
        rules = protocols.of(cfg.params, name)
        return {
            "name": name, "out": str(cfg.responses(model, name)), "sampling": rules.sampling(),
            "protocol_key": protocol_key(cfg, name, asked[name]),
            "requests": protocols.requests(rules, asked[name]),
        }  # fmt: skip

    return {
        "engine": cfg.params.evaluate.engine.model_dump(), "seed": cfg.params.seed,
        "models": [
            {"name": m, "path": str(cfg.model(m)), "key": model_key(cfg, m), "jobs": [job(m, b) for b in asked]}
            for m in models
        ],
    }  # fmt: skip


def generate(cfg: Config, asked: dict[str, list[dict]], has_gpu: bool, partial: bool = False) -> dict:
    """Sample the missing responses in a child process; the tokens and seconds of this call, 0 when none was missing.

    Generations of a served model that fail are stored and asked again by the next call; where `evaluate.failed` says
    what they count as, they stand. partial: what follows can do with a part of the benchmarks. UserError with the error
    in the log when the child fails, and when generations failed that neither stand nor may be missing; everything that
    it had sampled is stored.
    """
    stand = cfg.params.evaluate.failed is not None
    served = isinstance(cfg.params.evaluate.engine, EndpointEngine)
    plan = generation_plan(cfg, list(cfg.models), asked)
    plan |= {"tolerant": served and (partial or stand), "final": responses.KINDS if stand else ()}
    return sample_in_child(plan, cfg.home / "generate.json", cfg.home / "logs" / "generate.log", has_gpu)


# --- grades -------------------------------------------------------------------------------------------------


def self_test(cfg: Config, asked: dict[str, list[dict]]) -> pd.DataFrame:
    """The graders on reference answers and constants, before anything is scored (docs/evaluation.md §0.4).

    UserError names the answers that were graded wrongly. Refused where there are programs to run and no isolation.
    """
    has_programs = any(q["kind"] == "program" for questions in asked.values() for q in questions)
    sandbox = Runner(cfg.params.evaluate.sandbox) if has_programs else nullcontext()
    with sandbox as runner, Verifier() as verifier:
        rows = [
            row
            for name, questions in asked.items()
            for row in selftest.run_self_test(protocols.of(cfg.params, name), questions, runner, verifier)
        ]
    return pd.DataFrame(rows).set_index(["benchmark", "answer"])


def describe_isolation(cfg: Config) -> dict:
    """How programs run on this machine: layers, private user, result of the escape probes, semantics, comparator.

    Without a benchmark whose answers are programs nothing has to run here, and nothing is tried.
    """
    if not any(benchmark.answers == "program" for benchmark in cfg.params.benchmarks.values()):
        return {"isolation": "not used: no benchmark asks for programs"}
    with Runner(cfg.params.evaluate.sandbox) as runner:
        return runner.description() | {"comparator": programs.COMPARATOR}


def grade_all(cfg: Config, asked: dict[str, list[dict]]) -> pd.DataFrame:
    """One row for each stored sample: STORED_COLUMNS, and three that are seen from the others each time.

    looping: whether its text loops (`tinyr1.evaluate.loops`). final: the part of its text that is the answer, "" where
    there is none. reason: "unreadable" where an answer is wrong because its box cannot be read, why a generation
    failed, else None.
    Grades of an earlier call that still hold are used again.
    """
    plan = generation_plan(cfg, list(cfg.models), asked)
    rendered = isinstance(cfg.params.evaluate.engine, VllmEngine)  # by us, and so with the tag that we open
    by_id = {name: {q["id"]: q for q in questions} for name, questions in asked.items()}
    rules = {name: protocols.of(cfg.params, name) for name in asked}
    found = [
        (model["name"], name, responses.of_job(job, model["key"]))
        for model in plan["models"] for name, job in zip(asked, model["jobs"], strict=True)
    ]  # fmt: skip
    samples = [
        grade.Sample(model, name, {"opened": rendered and rules[name].open_think} | response,
                     by_id[name][response["question"]], rules[name])
        for model, name, stored in found for response in stored.lines
    ]  # fmt: skip
    grades = grade.grade_samples(cfg.home / "grades.jsonl", samples, cfg.params.evaluate.sandbox)
    rows = [
        (*sample.name[:3], sample.question["family"], sample.response["sample"], graded["outcome"], graded["extracted"],
         sample.response["n_tokens"], sample.response["text"],
         final_answer(sample.response["text"], sample.response["opened"])[0] or "", None)
        for sample, graded in zip(samples, grades, strict=True)
    ]  # fmt: skip
    rows += [
        (model, name, line["question"], by_id[name][line["question"]]["family"], line["sample"], FAILED, None,
         line["n_tokens"], line["text"], "", line["reason"])
        for model, name, stored in found for line in stored.failed
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=[*STORED_COLUMNS, "final", "reason"])
    table = table.sort_values(["model", "benchmark", "question", "sample"], ignore_index=True)
    return _with_reason(_with_looping(table))


def _with_looping(graded: pd.DataFrame) -> pd.DataFrame:
    return graded.assign(looping=graded["text"].map(loops).astype(bool))


def _with_reason(graded: pd.DataFrame) -> pd.DataFrame:
    """With "unreadable" in the column `reason` where an answer is wrong because its box cannot be read. What the column
    says already stays; where there is none, it is None elsewhere."""
    unreadable = graded["outcome"].eq("wrong") & graded["extracted"].isna()
    told = graded["reason"] if "reason" in graded else pd.Series(None, graded.index, dtype=object)
    return graded.assign(reason=told.astype(object).mask(unreadable, "unreadable"))


def second_opinions(graded: pd.DataFrame, asked: dict[str, list[dict]]) -> pd.DataFrame:
    """Integers and formulas on which Math-Verify, by itself, and the grader disagree; empty when they agree on all
    (docs/evaluation.md §4.2). graded: as `grade_all` returns it."""
    truth = {(name, q["id"]): q["answer"] for name, qs in asked.items() for q in qs if q["kind"] in OPINIONS}
    answered = graded[graded["outcome"] != FAILED].to_dict("records")
    rows = [r for r in answered if (r["benchmark"], r["question"]) in truth]
    items = [
        {key: r[key] for key in ("question", "sample", "outcome", "extracted")}
        | {"answer": truth[r["benchmark"], r["question"]], "text": r["final"]}
        for r in rows
    ]
    with Verifier(len(os.sched_getaffinity(0))) as verifier:
        return pd.DataFrame(verifier.second_opinion(items))


def graded_path(cfg: Config) -> Path:
    """The file of a run's graded samples."""
    return cfg.home / "graded.jsonl"


def save_graded(cfg: Config, graded: pd.DataFrame) -> None:
    """Store STORED_COLUMNS of the graded samples, and the reason of each outcome, as an artifact."""
    columns = [*STORED_COLUMNS, "reason"]
    rows = json.loads(_with_reason(graded)[columns].to_json(orient="records"))

    def build(path: Path) -> dict:
        jsonl.write(path, rows)
        return {"samples": len(rows)}

    artifact.make(graded_path(cfg), {"rows": artifact.digest(rows)}, build, cfg.remedy("04_evaluation"))


def load_graded(cfg: Config) -> pd.DataFrame:
    """The rows of `grade_all` of a finished evaluation. UserError when they are missing, or were changed."""
    artifact.check(graded_path(cfg), cfg.remedy("04_evaluation"))
    return _with_looping(pd.DataFrame(jsonl.read(graded_path(cfg))))
