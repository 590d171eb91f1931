"""The evaluation alone, for any checkpoint folder, hub id or served endpoint: `python -m tinyr1.evaluate`.

    python -m tinyr1.evaluate --model FOLDER --benchmarks aime24,gpqa,lcb --protocol sound
    python -m tinyr1.evaluate --endpoint http://localhost:8000/v1 --model NAME --benchmarks aime24
    python -m tinyr1.evaluate --model NAME --benchmarks aime24 --responses samples.jsonl      grade, sample nothing
    python -m tinyr1.evaluate --model FOLDER --benchmarks aime24 --against OUT_FOLDER         and compare in pairs

Benchmarks, engine and sampling come from a params file; options override them. The output folder holds responses,
graded samples, scores.csv, examples.txt, evaluation.json (protocol, sources, isolation, outcomes) and the files that
users of lm-evaluation-harness know. The same command continues after an interruption.
"""

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from tinyr1.core import artifact, config, hub, jsonl, machine, record
from tinyr1.core.checkpoints import CHECKPOINT, read_config
from tinyr1.core.config import Config
from tinyr1.core.errors import UserError, guarded
from tinyr1.core.params import Params
from tinyr1.data import benchmarks
from tinyr1.evaluate import against, compare, lm_eval, stage
from tinyr1.evaluate import protocol as protocols
from tinyr1.sampling import preflight, requests

# Benchmarks that a params file need not have: whose settings they take, and their own questions. The paper has no AIME
# 2025. lm-evaluation-harness reads the same dataset: columns problem, answer, id; 30 rows, both exams.
TWINS = {
    "aime25": ("aime24", {
        "path": "hf://math-ai/aime25/test.jsonl", "revision": "563bb8404243c5f09de6ec262f2db674fe5bce9b",
        "sha256": "b4e273c02d3e7fe1b74b59eae768fc8230bfb0f79539890cb56f4361caac0331",
    }),
}  # fmt: skip
# Options by the last part of the path of what they set in a params file.
FLAGS = {"samples": "--samples", "questions": "--questions", "max_tokens": "--max-tokens",
         "temperature": "--temperature", "top_p": "--top-p"}  # fmt: skip
ALIASES = {"lcb": "livecodebench", "gpqa-diamond": "gpqa", "aime2024": "aime24", "aime2025": "aime25"}


class Single(Config):
    """A run of one model: its checkpoint is anywhere, its artifacts are in one folder."""

    name: str
    checkpoint: Path
    out: Path
    key: str

    @property
    def home(self) -> Path:
        return self.out

    @property
    def reports(self) -> Path:
        return self.out

    @property
    def models(self) -> tuple[str, ...]:
        return (self.name,)

    def model(self, name: str) -> Path:
        return self.checkpoint

    def known_key(self, model: str) -> str:
        return self.key


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tinyr1.evaluate", description=__doc__.splitlines()[0],
        epilog="Model code runs confined; see evaluate.sandbox in the params file.",
    )  # fmt: skip
    parser.add_argument("--model", required=True, help="checkpoint folder or hub id; with --endpoint the served name")
    parser.add_argument("--benchmarks", required=True, help="names from the params file, with commas: aime24,gpqa,lcb")
    parser.add_argument("--protocol", choices=("sound", "released"), help="default: the params file's")
    parser.add_argument("--run", default="r1-1.5b", help="params file with benchmarks, engine and sampling")
    parser.add_argument("--out", type=Path, help="default: runs/evaluations/<model and hash>")
    parser.add_argument("--samples", type=int, help="of each question")
    parser.add_argument("--questions", type=int, help="only so many of each benchmark")
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--path", action="append", default=[], metavar="BENCHMARK=FILE", help="a local file or folder")
    parser.add_argument("--endpoint", metavar="URL", help="an OpenAI-compatible server, up to and with /v1")
    parser.add_argument("--api-key-variable", metavar="NAME", help="environment variable that holds the server's key")
    parser.add_argument("--responses", type=Path, help="JSONL of answers of one benchmark; nothing is sampled")
    parser.add_argument("--against", type=Path, metavar="OUT_FOLDER", help="another finished evaluation, to compare")
    return parser


def settings(a: argparse.Namespace, params: Params) -> Params:
    """The params file with the command line's options; UserError lists what does not fit."""
    data = params.model_dump(mode="json")
    benchmarks = _benchmarks(a, data)
    for domain in data["domains"].values():
        domain["benchmarks"] = {name: b for name, b in domain["benchmarks"].items() if name in benchmarks}
    for pair in a.path:
        name, _, path = pair.partition("=")
        name = ALIASES.get(name, name)
        if name not in benchmarks or not path:
            raise UserError(f"--path: {pair!r}: must be one of the benchmarks, =, and a file or folder")
        benchmarks[name] |= {"path": str(Path(path).resolve()), "revision": None, "sha256": None}
    for key, value in (("samples", a.samples), ("max_tokens", a.max_tokens), ("questions", a.questions)):
        if value is not None:
            for benchmark in benchmarks.values():
                benchmark[key] = value
    e = data["evaluate"]
    e |= {k: v for k in ("protocol", "temperature", "top_p") if (v := getattr(a, k)) is not None}
    e["engine"] = _endpoint(a) or e["engine"]
    try:
        return config.validate(data, "")
    except UserError as error:
        lines = [_as_option(line.removeprefix(": ")) for line in str(error).splitlines()]
        raise UserError("\n".join(dict.fromkeys(lines))) from error


def _benchmarks(a: argparse.Namespace, data: dict) -> dict[str, dict]:
    """The blocks of the benchmarks that the command names, by name; twins are put into `data` beside their model."""
    for twin, (model, own) in TWINS.items():
        for domain in data["domains"].values():
            if model in domain["benchmarks"] and twin not in domain["benchmarks"]:
                domain["benchmarks"][twin] = domain["benchmarks"][model] | own
    known = {name: block for domain in data["domains"].values() for name, block in domain["benchmarks"].items()}
    wanted = [ALIASES.get(name.strip(), name.strip()) for name in a.benchmarks.split(",")]
    if unknown := sorted(set(wanted) - set(known)):
        raise UserError(
            f"--benchmarks: {', '.join(unknown)}: not in params/{a.run}.yaml, which gives {', '.join(sorted(known))}"
        )
    return {name: known[name] for name in wanted}


def _endpoint(a: argparse.Namespace) -> dict | None:
    """The engine block of a served model, None where none is asked for."""
    if a.endpoint is None:
        if a.api_key_variable:
            raise UserError(f"--api-key-variable: {a.api_key_variable} goes with --endpoint only; give the URL too")
        return None
    return {
        "kind": "endpoint", "base_url": a.endpoint, "model": a.model, "api_key_variable": a.api_key_variable,
        "concurrency": 16, "timeout_seconds": 3600.0, "retries": 5,
    }  # fmt: skip


def _as_option(line: str) -> str:
    """A problem `path: value rule` with the option in place of the path in the params file, where one sets it."""
    path, _, rest = line.partition(": ")
    if path.endswith(".base_url"):
        value = rest.partition(" ")[0]
        return f"--endpoint: {value} should begin with http:// or https://, without user name or password"
    return f"{FLAGS.get(path.rpartition('.')[2], path)}: {rest}"


def checkpoint(a: argparse.Namespace) -> Path:
    """The folder of the model, fetched from the hub where it is no folder here; not needed for an endpoint."""
    folder = Path(a.model)
    if a.endpoint or a.responses or folder.is_dir():
        return folder
    if a.model.count("/") != 1:
        raise UserError(f"--model: {a.model} is no folder and no hub id (owner/name)")
    return hub.model_folder("--model", a.model, None)


def identity(a: argparse.Namespace, folder: Path) -> str:
    """What ties responses to a model: the content of its files, as in the manifest of a checkpoint this kit made."""
    if a.responses:
        if not a.responses.is_file():
            raise UserError(f"{a.responses}: no such file; give a JSONL file of responses")
        return artifact.file_hash(a.responses)
    if a.endpoint:
        return artifact.digest([a.endpoint, a.model])
    if artifact.manifest_path(folder).is_file():
        return artifact.check(folder, "make it again")["content"]
    files = sorted({f for pattern in CHECKPOINT for f in folder.glob(pattern)})
    if not any(f.suffix == ".safetensors" for f in files):
        raise UserError(f"--model: {folder} holds no checkpoint (no .safetensors)")
    with ThreadPoolExecutor() as pool:
        return artifact.digest(dict(zip([f.name for f in files], pool.map(artifact.file_hash, files), strict=True)))


def fitted(params: Params, folder: Path) -> Params:
    """The engine asks for no more context than the model has, unless a max_tokens needs it: then sampling refuses."""
    e = params.evaluate
    if e.engine.kind != "vllm" or not (folder / "config.json").is_file():
        return params
    try:
        limit = preflight.context_limit(read_config(folder))
    except UserError as error:
        raise UserError(f"--model: {error}") from error
    longest = max(benchmark.max_tokens for benchmark in params.benchmarks.values())
    if limit is None or not longest < limit < e.engine.max_model_len:
        return params
    engine = e.engine.model_copy(update={"max_model_len": limit})
    return params.model_copy(update={"evaluate": e.model_copy(update={"engine": engine})})


def load(a: argparse.Namespace) -> Single:
    base = config.load(a.run)
    params = settings(a, base.params)  # before anything is fetched
    folder = checkpoint(a)
    params = fitted(params, folder)
    name = folder.resolve().name if folder.is_dir() and "/snapshots/" not in str(folder) else Path(a.model).name
    key = identity(a, folder)
    out = a.out or base.home.parent / "evaluations" / f"{name}-{key[:8]}"
    return Single(run=a.run, params=params, name=name, checkpoint=folder, out=out, key=key)


def adopt(cfg: Single, path: Path, asked: dict[str, list[dict]]) -> None:
    """Store the answers of a file as if they had been sampled under this protocol; a note for what is incomplete."""
    if len(asked) != 1:
        raise UserError("--responses: holds the answers of one benchmark; name one in --benchmarks")
    ((name, questions),) = asked.items()
    rules = protocols.of(cfg.params, name)
    shown = [q | {"question": _shown(rules, q)} for q in questions]
    keys = {"model_key": cfg.key, "protocol_key": stage.protocol_key(cfg, name, questions)}
    found = lm_eval.load(path, shown, keys["protocol_key"])
    first = {q["id"]: protocols.order(rules, q, 0) for q in questions}  # the order that another tool's prompt showed
    order = {} if found.form == "tinyr1" else first
    lines = [line | keys | ({"order": order[line["question"]]} if order else {}) for line in found.lines]
    jsonl.write(cfg.responses(cfg.name, name), lines)
    print(f"{path}: {len(found.lines)} answers ({found.form})")
    beyond = sum(line["sample"] >= rules.samples for line in lines)
    if beyond:
        print(f"  {beyond} are samples beyond the {rules.samples} of each question that are graded; raise --samples")
    for note in found.notes:
        print(f"  {note}")


def _shown(rules: protocols.Protocol, question: dict) -> str:
    """A question as other tools know it."""
    return question["question"] if "options" not in question else protocols.requests(rules, [question], 1)[0][
        "messages"][-1]["content"]  # fmt: skip


def show_prompts(cfg: Single, asked: dict[str, list[dict]], imported: bool) -> None:
    """One prompt of each benchmark: as the model sees it, or what is sent where somebody else renders it."""
    prompts, served = requests.Prompts(), cfg.params.evaluate.engine.kind == "endpoint"
    for name, questions in asked.items():
        request = protocols.requests(protocols.of(cfg.params, name), [_public(questions[0])], 1)[0]
        if not (imported or served):
            print(f"[{name}] a prompt, as the model sees it:\n{prompts.text(cfg.checkpoint, request)}\n")
            continue
        if imported:
            what = "as this protocol would ask; what the answers of the file were given to is not known"
        else:
            what = "messages; the server renders them" if "messages" in request else "sent as it is"
        print(f"[{name}] a prompt ({what}):\n{_sent(request)}\n")


def _public(question: dict) -> dict:
    """The question, or one of its shape in place of one that must not be published."""
    if not question["private"]:
        return question
    options = [f"(option {n})" for n in range(4)]
    return question | {"question": "(a question that must not be published)", "options": options}


def _sent(request: dict) -> str:
    if "messages" not in request:
        return requests.raw_prompt(request)
    return "\n".join(f"{message['role']}: {message['content']}" for message in request["messages"])


def run(a: argparse.Namespace) -> None:
    cfg = load(a)
    loaded = benchmarks.load_all(cfg)
    asked = {name: one.questions for name, one in loaded.items()}
    if few := [name for name, questions in asked.items() if len(questions) < 2]:
        raise UserError(f"--questions: {', '.join(few)}: an interval needs at least 2 questions")
    described = [stage.protocol(cfg, name, questions) for name, questions in asked.items()]
    other = against.load(a.against, described, cfg.name) if a.against else None  # before hours of sampling
    print(pd.DataFrame(described).set_index("benchmark").T.to_string(max_colwidth=70), "\n")
    show_prompts(cfg, asked, bool(a.responses))
    tested = stage.self_test(cfg, asked)
    print(f"{tested.samples.sum()} answers known to be right or wrong were graded so\n")
    if a.responses:
        adopt(cfg, a.responses, asked)
        sampled = {"imported": str(a.responses)}
    else:
        sampled = stage.generate(cfg, asked, has_gpu=machine.has_gpu())
    graded = stage.grade_all(cfg, asked)
    if graded.empty:
        raise UserError("no answer to grade")
    store(cfg, loaded, described, graded, tested, sampled)
    show_results(graded, asked)
    if other is not None:
        print(f"\n{against.question_by_question(graded, other)}")
    print(f"\npass@1 in percent, with 95 % intervals. Everything is in {cfg.out}")


def show_results(graded: pd.DataFrame, asked: dict[str, list[dict]]) -> None:
    """Outcomes, lengths of answers, scores, and the paper's numbers where it has any."""
    counts = graded.groupby(["benchmark", "outcome"]).size().unstack(fill_value=0)
    print(f"\n{counts.to_string()}")
    tokens = stage.token_quantiles(graded)
    if not tokens.empty:
        print(f"\ntokens in an answer:\n{tokens.to_string()}")
    print(f"\n{compare.intervals(graded, asked, {}).to_string()}")
    theirs = against.published(graded, list(asked))
    if not theirs.empty:
        print(f"\nthe paper's own numbers, on its own runs; differences with the width for two independent runs:\n"
              f"{theirs.to_string()}")  # fmt: skip


def store(
    cfg: Single, loaded: dict, described: list[dict], graded: pd.DataFrame, tested: pd.DataFrame, sampled: dict
) -> None:
    """scores.csv, graded.jsonl, examples.txt, evaluation.json, and the harness's results.json and samples_*.jsonl."""
    asked = {name: one.questions for name, one in loaded.items()}
    stage.scores(cfg, graded, {}).to_csv(cfg.out / "scores.csv", index=False, float_format="%.6f")
    stage.save_graded(cfg, graded)
    artifact.write_atomic(cfg.out / "examples.txt", stage.examples(cfg, graded, asked) + "\n")
    stage.export(cfg, cfg.out, graded, asked, described)
    facts = {
        "model": cfg.name, "checkpoint": cfg.checkpoint.name, "key": cfg.key, "protocols": described,
        "sources": [one.record() for one in loaded.values()],
        "isolation": stage.isolation(cfg), "self_test": tested.reset_index().to_dict("records"), "sampled": sampled,
        "outcomes": stage.outcome_counts(graded), "machine": machine.describe(), "code": record.code_version(),
        "second_opinion": stage.second_opinions(graded, asked).to_dict("records"),
    }  # fmt: skip
    text = json.dumps(facts, indent=1, ensure_ascii=False, default=str) + "\n"
    artifact.write_atomic(cfg.out / "evaluation.json", text)


def main() -> int:
    return guarded(lambda: run(_arguments().parse_args()), "interrupted; the same command goes on from here")


if __name__ == "__main__":
    sys.exit(main())
