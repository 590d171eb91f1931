"""The command that merges checkpoints; `tinyr1.merge.checkpoint` does the work.

    python -m tinyr1.merge --math A --science B --code C --out D      the released order: (math & science) & code
    python -m tinyr1.merge --recipe recipe.yaml --out D               any recipe; ours or mergekit's YAML
    python -m tinyr1.merge --verify D                                 hash the files again
    python -m tinyr1.merge --card D --scores scores.csv               print its model card with scores

Everything that needs torch is imported late. Its import takes seconds: the weights are hashed meanwhile, and a mistake
in the command is an error before it.
"""

import argparse
import csv
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyr1.core import artifact, launch
from tinyr1.core.errors import UserError, guarded
from tinyr1.core.recipe import DTYPE_NAMES, FILE_KEYS, READINGS, About, Recipe
from tinyr1.merge import card, inputs, mergekit, outputs
from tinyr1.merge.checks import folders_of
from tinyr1.merge.parents import ParentHashes

if TYPE_CHECKING:
    from tinyr1.merge.engine import MergeOptions
    from tinyr1.merge.reader import Checkpoint

MADE_FROM = "made_from"  # fact of a merge: hash of recipe, settings and weights of the parents


def _folder(text: str) -> Path | None:
    """A path; None for an empty text, which `make merge` passes for a variable that was not set."""
    return Path(text) if text else None


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Merge checkpoints: Arcee Fusion and other methods, in any nesting. "
        "The order of the three experts is (math & science) & code."
    )
    add = parser.add_argument
    for name in ("math", "science", "code"):
        add(f"--{name}", type=_folder, help=f"{name} expert: a folder, a hub id or base+adapter")
    add("--recipe", type=_folder, help="YAML: `recipe` and `models` (name: model), or mergekit's own")
    add("--out", type=_folder, help="folder for the merged checkpoint")
    add("--replace", action="store_true", help="replace the result of another merge in --out, once this one is done")
    add("--reading", choices=READINGS, help="of Arcee Fusion, see tinyr1.merge.fusion; default: exact")
    add("--iqr-multiplier", type=float, help="λ of fusion's threshold; default: 1.5")
    add("--dtype", choices=DTYPE_NAMES, help="convert inputs to it first; default: as stored")
    add("--out-dtype", choices=DTYPE_NAMES, help="of the result; default: dtype")
    add("--tokenizer", metavar="MODEL", help="use the tokenizer of this model where they differ")
    add("--tokenizer-source", metavar="SOURCE", help="base, union or a model: whose tokens the result has, row by row")
    add("--device", help="default: cuda where there is a GPU, else cpu")
    add("--threads", type=_count, default=len(os.sched_getaffinity(0)))
    add("--dry-run", action="store_true", help="check, print the plan and an estimate, write nothing")
    add("--card", type=Path, metavar="FOLDER", help="print the card of a merged checkpoint with its --scores")
    add("--scores", type=Path, metavar="FILE", help="scores.csv of the run that has the checkpoint, for --card")
    add("--verify", type=Path, metavar="FOLDER", help="hash a merged checkpoint's files again")
    return parser


def _job(a: argparse.Namespace) -> tuple[Recipe, dict[str, Path], dict[str, Any]]:
    """Recipe, folders and settings from the command line and the recipe file; the command line wins."""
    settings: dict[str, Any] = {}
    experts = {name: getattr(a, name) for name in ("math", "science", "code")}
    if a.recipe is not None:
        if any(experts.values()):
            raise UserError("--recipe names its own models; leave out --math, --science and --code")
        recipe, folders, settings = mergekit.read_recipe(a.recipe)
    else:
        if absent := [f"--{name}" for name, folder in experts.items() if folder is None]:
            raise UserError(f"{', '.join(absent)}: missing; give all three experts, or --recipe")
        first = Recipe(method="fusion", base="science", other="math")
        recipe = Recipe(method="fusion", base="code", other=first)
        folders = {name: inputs.place(str(given), Path()) for name, given in experts.items()}
    settings |= {k: v for k in (*FILE_KEYS, "device", "threads") if (v := getattr(a, k, None)) is not None}
    return recipe, folders, {k: v for k, v in settings.items() if v is not None}


def verify(folder: Path) -> list[str]:
    """The files of a merged checkpoint that are missing, changed or new, a line each. Hashes every file."""
    manifest = artifact.manifest_path(folder)
    if not manifest.is_file():
        raise UserError(f"{folder}: no {manifest.name}; not a checkpoint that this program finished")
    listed = artifact.manifest(folder)["files"]
    problems = []
    for name, entry in listed.items():
        if not (folder / name).is_file():
            problems.append(f"{name}: missing")
        elif artifact.file_hash(folder / name) != entry["sha256"]:
            problems.append(f"{name}: not the bytes that were written")
    here = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {manifest.name}
    return problems + [f"{name}: added later" for name in sorted(here - set(listed))]


def card_with_scores(folder: Path, scores: Path | None) -> str:
    """The card of a merged checkpoint of a run with its scores; the folder is called as its model."""
    for file in (folder / card.CARD, scores):
        if file is None or not file.is_file():
            raise UserError(f"--card needs the folder of a merged checkpoint and --scores; {file} is no file")
    with scores.open(encoding="utf-8", newline="") as lines:  # type: ignore[union-attr]
        text = (folder / card.CARD).read_text(encoding="utf-8")
        return card.with_scores(text, csv.DictReader(lines), folder.name)


def _check_same(out: Path, made_from: Callable[[], str]) -> None:
    """UserError where the output folder holds a finished merge of another recipe or other models."""
    if artifact.manifest_path(out).is_file() and artifact.manifest(out)["facts"].get(MADE_FROM) != made_from():
        raise UserError(f"{out}: holds the result of another recipe or other models; choose another --out, or give "
                        "--replace")  # fmt: skip


def _make(
    recipe: Recipe, folders: dict[str, Path], models: "dict[str, Checkpoint]", out: Path, options: "MergeOptions",
    parents: ParentHashes, replace: bool, about: About,
) -> str:  # fmt: skip
    """Merge into `out` unless that merge is there already; returns a line about it. A failed merge leaves nothing."""
    from tinyr1.merge import checkpoint

    def made_from() -> str:
        return artifact.digest(checkpoint.identity(recipe, options, parents.made_from()))

    def build(partial: Path) -> dict[str, Any]:
        if not replace:
            _check_same(out, made_from)  # check again under the lock
        try:
            facts = checkpoint.merge_checkpoints(recipe, folders, partial, options, "merge", parents, about, models)
            return facts | {MADE_FROM: made_from()}
        except BaseException:  # an interrupt, too: a merge starts over, and nobody can use half of one
            artifact.discard(out)
            raise

    if not replace:
        _check_same(out, made_from)
    # The key must be known before the hashes are: it tells whether a killed process left a finished merge of this job.
    key = checkpoint.identity(recipe, options, parents.identities())
    manifest, built = artifact.make(out, key, build, "run it again")
    facts = manifest["facts"]
    return f"{'merged in ' + str(facts['seconds']) + ' s' if built else 'already there'}: {out} ({facts['order']})"


def _execute(a: argparse.Namespace) -> int:
    if a.verify is not None:
        problems = verify(a.verify)
        print("\n".join(problems) or f"{a.verify}: every file is as it was written")
        return 1 if problems else 0
    if a.card is not None:
        print(card_with_scores(a.card, a.scores), end="")
        return 0
    recipe, folders, settings = _job(a)
    about = settings.pop("about", About())
    used = folders_of(recipe, folders)
    if a.out is not None:
        a.out = outputs.place(a.out, [part for place in used.values() for part in inputs.parts(place) if part])
    elif not a.dry_run:
        raise UserError("--out: missing; name the folder for the merged checkpoint")
    wanted = {*used, settings.get("tokenizer_source")}  # the tokens may be those of a model that is not merged
    folders = {name: inputs.fetched(place) for name, place in folders.items() if name in wanted}
    parents = None if a.dry_run else ParentHashes(folders_of(recipe, folders))
    with launch.lasting_imports():
        from tinyr1.merge import checkpoint

    options = checkpoint.options_from(settings)
    models = checkpoint.load_models(recipe, folders, options)
    if a.out is not None:
        outputs.check_room(a.out, checkpoint.output_bytes(models, recipe, options))
    if parents is None or a.out is None:
        print(checkpoint.describe_plan(recipe, models, a.out, options))
    else:
        print(_make(recipe, folders, models, a.out, options, parents, a.replace, about))
    return 0


def main() -> int:
    launch.die_with_parent()  # a notebook starts this command; without its kernel nobody waits for the result
    return guarded(lambda: _execute(_arguments().parse_args()), "interrupted; nothing was left behind")


if __name__ == "__main__":
    sys.exit(main())
