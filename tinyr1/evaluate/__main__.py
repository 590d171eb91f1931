"""The evaluation alone, for any checkpoint folder, hub id or served endpoint: `python -m tinyr1.evaluate`.

    python -m tinyr1.evaluate --model FOLDER --benchmarks aime24,gpqa,lcb --protocol sound
    python -m tinyr1.evaluate --endpoint http://localhost:8000/v1 --model NAME --benchmarks aime24
    python -m tinyr1.evaluate --model NAME --benchmarks aime24 --responses samples.jsonl      grade, sample nothing
    python -m tinyr1.evaluate --model FOLDER --benchmarks aime24 --against OUT_FOLDER         and compare in pairs
    python -m tinyr1.evaluate --model FOLDER --benchmarks math:quiz.jsonl,choice:exam.csv     questions of one's own
    python -m tinyr1.evaluate --model A --model B --model C --benchmarks aime24,gpqa          all pairs of several

Benchmarks, engine and sampling come from a params file; options override them. The output folder holds responses,
graded samples, scores.csv, examples.txt, evaluation.json (protocol, sources, isolation, outcomes) and the files that
users of lm-evaluation-harness know. Of several models each has the folder that it has when it is evaluated alone, so no
answer is sampled twice; one process samples them all, and one more folder holds their comparison. The same command
continues after an interruption.
"""

import argparse
import json
import sys
from pathlib import Path

import pandas as pd

from tinyr1.core import artifact, config, machine, record, surroundings
from tinyr1.core.errors import UserError, guarded
from tinyr1.core.params.domains import RELEASES
from tinyr1.core.params.schema import Params
from tinyr1.data import benchmarks
from tinyr1.evaluate import adopt, against, examples, lm_eval, notices, own, scores, stage
from tinyr1.evaluate.single import SideBySide, SingleModel, checkpoint_folder, content_key, fitted_to_context

# Benchmarks that a params file need not have: the one whose settings they take, and their own questions. The paper has
# no AIME 2025. lm-evaluation-harness reads the same dataset: columns problem, answer, id; 30 rows, both exams.
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


def command_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tinyr1.evaluate", description=__doc__.splitlines()[0],
        epilog="Model code runs confined; see evaluate.sandbox in the params file.",
    )  # fmt: skip
    parser.add_argument("--model", required=True, action="append", help="checkpoint folder or hub id; with --endpoint "
                        "the served name; give it again for each further model")  # fmt: skip
    parser.add_argument("--benchmarks", required=True, help=f"names from the params file, and {own.FORMS}, with commas")
    parser.add_argument("--protocol", choices=("sound", "released"), help="default: the params file's")
    parser.add_argument("--run", default="r1-1.5b", help="params file with benchmarks, engine and sampling")
    parser.add_argument("--out", type=Path, help="default: runs/evaluations/<model and hash>; of several models it "
                        "holds a folder for each")  # fmt: skip
    parser.add_argument("--samples", type=int, help="answers to each question")
    parser.add_argument("--questions", type=int, help="ask only the first so many of each benchmark")
    parser.add_argument("--max-tokens", type=int, help="longest answer in tokens, thinking included")
    parser.add_argument("--temperature", type=float, help="of sampling; the paper has 0.6")
    parser.add_argument("--top-p", type=float, help="of sampling; the paper has 0.95")
    parser.add_argument("--path", action="append", default=[], metavar="BENCHMARK=FILE", help="a local file or folder")
    own.add_options(parser)
    parser.add_argument("--release", choices=tuple(RELEASES), help="LiveCodeBench's; sets which of its files are read")
    parser.add_argument("--endpoint", metavar="URL", help="an OpenAI-compatible server, up to and with /v1")
    parser.add_argument("--api-key-variable", metavar="NAME", help="environment variable that holds the server's key")
    parser.add_argument("--max-tokens-name", choices=("max_tokens", "max_completion_tokens"),
                        help="what the server calls the longest answer; default: max_tokens")  # fmt: skip
    parser.add_argument("--failed-as-wrong", action="store_true",
                        help="count generations that failed as wrong, and do not ask for them again")  # fmt: skip
    parser.add_argument("--responses", type=Path, help="JSONL or JSON of answers of one benchmark; nothing is sampled")
    parser.add_argument("--against", type=Path, metavar="OUT_FOLDER", help="another finished evaluation, to compare")
    return parser


def overridden(params: Params, options: argparse.Namespace) -> Params:
    """The params with the options of the command in place; UserError lists the options that do not fit."""
    data = params.model_dump(mode="json")
    wanted = _benchmark_blocks(data, own.named(params, data, options.benchmarks), options.run)
    own.described(wanted, options)
    for domain in data["domains"].values():
        domain["benchmarks"] = {name: block for name, block in domain["benchmarks"].items() if name in wanted}
    for pair in options.path:
        name, _, path = pair.partition("=")
        name = ALIASES.get(name, name)
        if name not in wanted or not path:
            raise UserError(f"--path: {pair!r}: must be one of the benchmarks, =, and a file or folder")
        wanted[name] |= {"path": str(Path(path).resolve()), "revision": None, "sha256": None}
        if "release" in wanted[name]:  # whatever the file holds; the record has the number of its problems
            wanted[name]["release"] = None
    if options.release:
        _set_release(wanted, options.release)
    for block in wanted.values():
        block |= _given(options, "samples", "max_tokens", "questions")
    data["evaluate"] |= _given(options, "protocol", "temperature", "top_p")
    data["evaluate"] |= {"failed": "wrong"} if options.failed_as_wrong else {}
    if engine := _endpoint_block(options):
        data["evaluate"]["engine"] = engine
    try:
        return config.validate(data, "")
    except UserError as error:
        lines = [_as_option(line.removeprefix(": "), options) for line in str(error).splitlines()]
        raise UserError("\n".join(dict.fromkeys(lines))) from error


def _given(options: argparse.Namespace, *names: str) -> dict:
    """The options among `names` that the command line sets."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _set_release(wanted: dict[str, dict], release: str) -> None:
    """Give LiveCodeBench another release; its pinned checksum is that of the files of the params file's release."""
    blocks = [block for block in wanted.values() if block["kind"] == "livecodebench"]
    if not blocks:
        raise UserError(f"--release: {release} is LiveCodeBench's; name livecodebench in --benchmarks, too")
    for block in blocks:
        if block["release"] != release:
            block |= {"release": release, "sha256": None}


def _benchmark_blocks(data: dict, names: list[str], run: str) -> dict[str, dict]:
    """The blocks of the benchmarks with these names, by name; TWINS are put into `data` beside their models."""
    blocks = [domain["benchmarks"] for domain in data["domains"].values()]
    known = {name: block for in_domain in blocks for name, block in in_domain.items()}
    for twin, (model, questions) in TWINS.items():
        for in_domain in blocks:
            if model in in_domain and twin not in known:
                known[twin] = in_domain[twin] = in_domain[model] | questions
    wanted = [ALIASES.get(name, name) for name in names]
    if unknown := sorted(set(wanted) - set(known)):
        raise UserError(
            f"--benchmarks: {', '.join(unknown)}: not in params/{run}.yaml, which gives "
            f"{', '.join(sorted(known))}; a file of your own is {own.FORMS}"
        )
    return {name: known[name] for name in wanted}


def _endpoint_block(options: argparse.Namespace) -> dict | None:
    """The engine block of a served model, None where the command names no server."""
    if options.endpoint is None:
        for name in ("api_key_variable", "max_tokens_name"):
            if value := getattr(options, name):
                raise UserError(f"--{name.replace('_', '-')}: {value} goes with --endpoint only; give the URL too")
        return None
    return {
        "kind": "endpoint", "base_url": options.endpoint, "model": options.model[0],
        "api_key_variable": options.api_key_variable, "concurrency": 16, "timeout_seconds": 3600.0, "retries": 5,
        "max_tokens_name": options.max_tokens_name,
    }  # fmt: skip


def _as_option(line: str, options: argparse.Namespace) -> str:
    """A problem `path: value rule` with the option in place of the path in the params file, where one sets it."""
    path, _, rest = line.partition(": ")
    if path.endswith(".base_url"):
        return f"--endpoint: {options.endpoint!r} should begin with http:// or https://, without user name or password"
    return f"{FLAGS.get(path.rpartition('.')[2], path)}: {rest}"


def models_of(options: argparse.Namespace) -> list[SingleModel]:
    """The models that the command names, fetched where they are on the hub, with their params and output folders.

    UserError for one that is missing, before anything is fetched or sampled.
    """
    base = config.load(options.run)
    params = overridden(base.params, options)  # before anything is fetched
    _require_one_where_one_is_asked(options)
    absent = [model for model in options.model if not Path(model).is_dir() and model.count("/") != 1]
    if absent and not (options.responses or options.endpoint):
        raise UserError("\n".join(f"--model: {model} is no folder and no hub id (owner/name)" for model in absent))
    needs_no_checkpoint = options.responses or options.endpoint
    folders = [Path(model) if needs_no_checkpoint else checkpoint_folder(model) for model in options.model]
    for folder in folders:  # all have the context of the shortest, since one engine asks them all
        params = fitted_to_context(params, folder)
    keys = [_key(options, folder) for folder in folders]
    names = _names(options.model, folders, keys)
    parent = base.home.parent / "evaluations" if options.out is None else options.out
    outs = [parent / f"{name.removesuffix(f'-{key[:8]}')}-{key[:8]}" for name, key in zip(names, keys, strict=True)]
    if options.out and len(outs) == 1:
        outs = [options.out]
    return [
        SingleModel(run=options.run, params=params, name=name, checkpoint=folder, out=out, key=key)
        for name, folder, out, key in zip(names, folders, outs, keys, strict=True)
    ]


def _require_one_where_one_is_asked(options: argparse.Namespace) -> None:
    """UserError for several models with an option that is about one."""
    if len(options.model) == 1:
        return
    why = {
        "--endpoint": "a server is asked as one model; evaluate each by a command of its own, the later ones --against "
        "the first",
        "--responses": "a file holds the answers of one model; grade each by a command of its own, the later ones "
        "--against the first",
        "--against": "several models are compared with each other; name the earlier one as one more --model",
    }
    for option, reason in why.items():
        if getattr(options, option.removeprefix("--")) is not None:
            raise UserError(f"{option}: goes with one --model, and there are {len(options.model)}: {reason}")


def _names(models: list[str], folders: list[Path], keys: list[str]) -> list[str]:
    """What tables call the models: their last part, with the hash of the contents where two have the same.

    UserError where two are the same model.
    """
    for i, key in enumerate(keys):
        if key in keys[:i]:
            raise UserError(f"--model: {models[keys.index(key)]} and {models[i]} hold the same model; name it once")
    fetched = [not folder.is_dir() or "/snapshots/" in str(folder) for folder in folders]
    names = [
        Path(model).name if on_hub else folder.resolve().name
        for model, folder, on_hub in zip(models, folders, fetched, strict=True)
    ]
    return [f"{name}-{key[:8]}" if names.count(name) > 1 else name for name, key in zip(names, keys, strict=True)]


def _key(options: argparse.Namespace, folder: Path) -> str:
    """What ties responses to a model: a file of responses, a server, or the contents of its checkpoint."""
    if options.responses:
        return _file_key(options.responses)
    return artifact.digest([options.endpoint, options.model[0]]) if options.endpoint else content_key(folder)


def _file_key(path: Path) -> str:
    """The hash of a file of responses."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a JSONL file of responses")
    return artifact.file_hash(path)


def evaluate_models(options: argparse.Namespace) -> None:
    """The whole command: print the protocol, sample or adopt, grade, store and print the results of each model, and
    compare several in pairs.

    UserError at the end, after all else is stored and printed, names benchmarks without a score.
    """
    surroundings.check()
    cfgs = models_of(options)
    cfg = cfgs[0]  # protocol and questions are the same for all
    loaded = benchmarks.load_all(cfg)
    asked = {name: one.questions for name, one in loaded.items()}
    if few := [name for name, questions in asked.items() if len(questions) < 2]:
        raise UserError(f"--questions: {', '.join(few)}: an interval needs at least 2 questions")
    described = [stage.describe_protocol(cfg, name, questions) for name, questions in asked.items()]
    # An evaluation that cannot be compared is refused now, and not after hours of sampling.
    earlier = against.earlier_evaluation(options.against, described, cfg.name) if options.against else None
    print(pd.DataFrame(described).set_index("benchmark").T.to_string(max_colwidth=70), "\n")
    for text in dict.fromkeys(examples.example_prompts(one, asked, options.responses is not None) for one in cfgs):
        print(text)
    tested = stage.self_test(cfg, asked)
    print(f"{tested['samples'].sum()} answers known to be right or wrong were graded so")
    print("\n".join([*notices.as_texts(tested), ""]))
    together = _side_by_side(options, cfgs)
    if options.responses:
        adopt.adopt_answers(cfg, options.responses, asked)
        sampled = {"imported": str(options.responses)}
    else:
        sampled = stage.generate(together or cfg, asked, has_gpu=machine.has_gpu(), partial=True)
    facts = {
        "protocols": described, "sources": [one.record() for one in loaded.values()],
        "isolation": stage.describe_isolation(cfg), "self_test": tested.reset_index().to_dict("records"),
        "sampled": sampled,
    }  # fmt: skip
    graded, failures = [], []
    for one, model in zip(cfgs, options.model, strict=True):
        complete, failed = finish(one, model, facts, asked, imported=options.responses is not None)
        graded.append(complete)
        failures += failed
    if earlier is not None and not failures:
        print(f"\n{against.question_by_question(graded[0], earlier, cfg.params.analysis.margin)}")
    if together:
        compare_pairs(together, pd.concat(graded, ignore_index=True), described)
    places = ", ".join(str(out) for out in [*(one.out for one in cfgs), *([together.out] if together else [])])
    print(f"\npass@1 in percent, with 95 % intervals. Everything is in {places}")
    if failures:
        compared = ["--against: nothing is compared before all benchmarks have scores"] if options.against else []
        raise UserError("\n".join(failures + compared))


def _side_by_side(options: argparse.Namespace, cfgs: list[SingleModel]) -> SideBySide | None:
    """Several models as one evaluation, with a folder for their comparison; None for one model."""
    if len(cfgs) == 1:
        return None
    parent = options.out or cfgs[0].out.parent
    out = parent / f"comparison-{artifact.digest([one.key for one in cfgs])[:8]}"
    return SideBySide(run=cfgs[0].run, params=cfgs[0].params, each=tuple(cfgs), out=out)


def finish(
    cfg: SingleModel, model: str, facts: dict, asked: dict[str, list[dict]], imported: bool
) -> tuple[pd.DataFrame, list[str]]:
    """Grade, store and print the answers of one model, which the command calls `model`.

    Returns the graded samples of the benchmarks that have a score, and a sentence for each that has none.
    """
    graded = stage.grade_all(cfg, asked)
    if graded.empty:
        raise UserError("no answer to grade")
    opinions = stage.second_opinions(graded, asked)
    failures = notices.failures(graded, cfg.params.evaluate.failed is not None, imported)
    scored = scores.scored(graded, cfg.params.evaluate.failed)
    told = [*failures, *notices.uncounted(graded), *notices.one_sided(graded)]
    own_facts = {"model": cfg.name, "checkpoint": cfg.checkpoint.name, "key": cfg.key} | facts
    own_facts |= {"second_opinion": opinions.to_dict("records"), "notices": told}
    store_results(cfg, own_facts, graded, asked)
    print_results(cfg, model, graded, asked)
    complete = len(scored) == len(graded)
    for sentence in [*notices.disagreement(graded, asked, opinions), *(told if complete else told[len(failures):])]:
        print(f"\n{sentence}")
    return scored, [] if complete else failures


def compare_pairs(cfg: SideBySide, graded: pd.DataFrame, described: list[dict]) -> None:
    """Print every pair of models on every benchmark, and store it as comparison.json, beside the table as text."""
    decided = against.in_pairs(graded, cfg.params.analysis.margin)
    text = against.pairs_in_words(decided)
    print(f"\n{text}")
    artifact.write_atomic(cfg.out / "comparison.txt", text + "\n")
    facts = {
        "models": {one.name: {"key": one.key, "folder": one.out.name} for one in cfg.each}, "protocols": described,
        "comparisons": decided.to_dict("records"), "machine": machine.describe(), "code": record.code_version(),
    }  # fmt: skip
    text = json.dumps(facts, indent=1, ensure_ascii=False, default=str) + "\n"
    artifact.write_atomic(cfg.out / "comparison.json", text)


def store_results(cfg: SingleModel, facts: dict, graded: pd.DataFrame, asked: dict[str, list[dict]]) -> None:
    """Write scores.csv, graded.jsonl, examples.txt, evaluation.json, and the files of lm-evaluation-harness."""
    scores.save_scores(cfg.out, scores.score_rows(cfg, graded, asked, {}))
    stage.save_graded(cfg, graded)
    artifact.write_atomic(cfg.out / "examples.txt", examples.example_answers(cfg, graded, asked) + "\n")
    scored = scores.scored(graded, cfg.params.evaluate.failed)
    lm_eval.export(cfg, cfg.out, scored, asked, facts["protocols"])
    facts |= {
        "outcomes": scores.outcome_counts(graded), "machine": machine.describe(), "code": record.code_version(),
    }  # fmt: skip
    text = json.dumps(facts, indent=1, ensure_ascii=False, default=str) + "\n"
    artifact.write_atomic(cfg.out / "evaluation.json", text)


def print_results(cfg: SingleModel, model: str, graded: pd.DataFrame, asked: dict[str, list[dict]]) -> None:
    """Print outcomes, lengths and scores; published scores, too, where `model` is the hub id of a published model."""
    counts = graded.groupby(["benchmark", "outcome"]).size().unstack(fill_value=0)
    print(f"\n{counts.to_string()}")
    tokens = scores.token_quantiles(graded)
    if not tokens.empty:
        print(f"\ntokens in an answer:\n{tokens.to_string()}")
    scored = scores.scored(graded, cfg.params.evaluate.failed)
    if scored.empty:
        return
    print(f"\n{scores.interval_table(scored, asked, {}).to_string()}")
    theirs = against.beside_published(model, cfg.params, scored)
    if not theirs.empty:
        print(f"\npublished numbers, of others' runs; differences with the width for two independent runs:\n"
              f"{theirs.to_string()}")  # fmt: skip


def main() -> int:
    again = "interrupted; the same command goes on from here"
    return guarded(lambda: evaluate_models(command_parser().parse_args()), again)


if __name__ == "__main__":
    sys.exit(main())
