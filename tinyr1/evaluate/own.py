"""Benchmarks of one's own on the command line: `math:FILE`, `choice:FILE`, `NAME=math:FILE` (docs/evaluation.md §0.5).

    --benchmarks aime24,math:quiz.jsonl --named--> aime24, quiz; a block for quiz stands in the params then
    --columns quiz={question: Frage}    --described--> in its block
"""

import argparse
import re
from pathlib import Path

from tinyr1.core import params_text
from tinyr1.core.errors import UserError
from tinyr1.core.params.domains import HUB
from tinyr1.core.params.schema import Params
from tinyr1.data.files import slug

# Kinds of one's own, and how the benchmark is answered from which they take domain, max_tokens and instruction.
KINDS = {"math": ("integer", "expression"), "choice": ("option",)}
_WORD = re.compile(rf"(?:(?P<name>[^=:]+)=)?(?P<kind>{'|'.join(KINDS)}):(?P<path>.+)")
FORMS = "math:FILE or choice:FILE"  # for messages


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that only benchmarks of one's own have."""
    parser.add_argument("--columns", action="append", default=[], metavar="BENCHMARK=COLUMNS",
                        help="of a file of one's own, as in a params file: quiz={question: Frage, answer: Loesung}")
    parser.add_argument("--instruction", action="append", default=[], metavar="BENCHMARK=TEXT",
                        help="what is appended to each question of a file of one's own")


def named(params: Params, data: dict, words: str) -> list[str]:
    """The names of the benchmarks in `--benchmarks`. Each file of one's own gets a block in `data`, the plain params.

    A block has one sample of each question, and max_tokens and domain of the first benchmark that is answered alike.
    UserError where there is none, and where a name is taken.
    """
    names: list[str] = []
    for word in (word.strip() for word in words.split(",")):
        if match := _WORD.fullmatch(word):
            names.append(_added(params, data, match, names))
        else:
            names.append(word)
    return names


def _added(params: Params, data: dict, match: re.Match, earlier: list[str]) -> str:
    kind, path = match["kind"], match["path"]
    name = match["name"] or slug(Path(path).name.partition(".")[0])
    if name in params.benchmarks or name in earlier:
        raise UserError(f"--benchmarks: {match[0]}: the name {name!r} is taken; give another, as in quiz={kind}:FILE")
    like = next((one for one, block in params.benchmarks.items() if block.answers in KINDS[kind]), None)
    if like is None:
        raise UserError(
            f"--benchmarks: {match[0]}: the params file has no benchmark that is answered alike, from which to take "
            "domain and max_tokens; name another --run, or write a block with this kind"
        )
    in_domain = data["domains"][params.domain_of[like]]["benchmarks"]
    in_domain[name] = {
        "kind": kind, "path": path if path.startswith(HUB) else str(Path(path).resolve()), "questions": None,
        "samples": 1, "max_tokens": params.benchmarks[like].max_tokens,
    }  # fmt: skip
    return name


def described(wanted: dict[str, dict], options: argparse.Namespace) -> None:
    """Put `--columns` and `--instruction` into the blocks of their benchmarks. UserError for another benchmark."""
    for flag in ("columns", "instruction"):
        for pair in getattr(options, flag):
            name, _, value = pair.partition("=")
            if name not in wanted or wanted[name]["kind"] not in KINDS or not value:
                raise UserError(
                    f"--{flag}: {pair!r}: must be a benchmark from a file of your own ({FORMS}), =, and a value"
                )
            wanted[name][flag] = params_text.mapping(value, f"--{flag}") if flag == "columns" else value
