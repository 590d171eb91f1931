"""The command that merges checkpoints; `tinyr1.merge.checkpoint` does it.

    python -m tinyr1.merge --math A --science B --code C --out D      the released order: (math & science) & code
    python -m tinyr1.merge --recipe recipe.yaml --out D               any recipe; ours or mergekit's YAML
    python -m tinyr1.merge --verify D                                 hash the files again

What needs torch is imported late: it takes seconds, in which the weights are hashed already, and a mistake in the
command is said at once.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tinyr1.core import artifact, launch, recipe
from tinyr1.core.errors import UserError, guarded
from tinyr1.core.recipe import Recipe
from tinyr1.merge import mergekit
from tinyr1.merge.checks import check_disk, chosen
from tinyr1.merge.parents import Parents

if TYPE_CHECKING:
    from tinyr1.merge.engine import Options

MADE_FROM = "made_from"  # fact of a merge: hash of recipe, settings and weights


def _folder(text: str) -> Path | None:
    """A path; an empty one, as `make merge` gives for a variable that was not set, is none."""
    return Path(text) if text else None


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Merge checkpoints: Arcee Fusion and other methods, in any nesting.")
    for name in ("math", "science", "code"):
        parser.add_argument(f"--{name}", type=_folder, help=f"{name} expert; the order is (math & science) & code")
    parser.add_argument("--recipe", type=_folder, help="YAML: `recipe` and `models` (name: folder), or mergekit's own")
    parser.add_argument("--out", type=_folder, help="folder for the merged checkpoint")
    parser.add_argument("--reading", choices=recipe.READINGS, help="of Arcee Fusion, see tinyr1.merge.fusion; default: exact")
    parser.add_argument("--iqr-multiplier", type=float, help="λ of fusion's threshold; default: 1.5")
    parser.add_argument("--dtype", choices=recipe.DTYPE_NAMES, help="convert inputs to it first; default: as stored")
    parser.add_argument("--out-dtype", choices=recipe.DTYPE_NAMES, help="of the result; default: dtype")
    parser.add_argument("--tokenizer", metavar="MODEL", help="keep this model's tokenizer where they differ")
    parser.add_argument("--device", help="default: cuda where there is a GPU, else cpu")
    parser.add_argument("--threads", type=_count, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--dry-run", action="store_true", help="check, print the plan and an estimate, write nothing")
    parser.add_argument("--verify", type=Path, metavar="FOLDER", help="hash a merged checkpoint's files again")
    return parser


def _job(a: argparse.Namespace) -> tuple[Recipe, dict[str, Path], dict]:
    """Recipe, folders and settings from the command line and the recipe file; the command line wins."""
    settings: dict = {}
    experts = {name: getattr(a, name) for name in ("math", "science", "code")}
    if a.recipe is not None:
        if any(experts.values()):
            raise UserError("--recipe names its own models; leave out --math, --science and --code")
        steps, folders, settings = mergekit.read(a.recipe)
    else:
        if absent := [f"--{name}" for name, folder in experts.items() if folder is None]:
            raise UserError(f"{', '.join(absent)}: missing; give all three experts, or --recipe")
        steps, folders = Recipe(method="fusion", base="code",
                                other=Recipe(method="fusion", base="science", other="math")), experts  # fmt: skip
    own = {k: getattr(a, k) for k in (*recipe.FILE_KEYS, "device", "threads")}
    settings |= {k: v for k, v in own.items() if v is not None}
    return steps, folders, {k: v for k, v in settings.items() if v is not None}


def verify(folder: Path) -> list[str]:
    """What is wrong with a merged checkpoint: files that are missing, changed or new. Hashes every file."""
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


def _check_free(out: Path) -> None:
    """The output folder is free or holds a finished merge."""
    if out.exists() and not artifact.manifest_path(out).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not a merged checkpoint; choose another --out or remove it")


def _check_room(out: Path, need: int) -> None:
    """The disk has room for a new merge of `need` bytes, if one is to be made."""
    if not artifact.manifest_path(out).is_file():
        unfinished = sum(f.stat().st_blocks * 512 for f in artifact.partial_path(out).glob("*"))  # removed before writing
        check_disk(out, need - unfinished)


def _check_same(out: Path, made_from: Callable[[], str]) -> None:
    """A finished merge in the output folder is this very one."""
    if artifact.manifest_path(out).is_file() and artifact.manifest(out)["facts"].get(MADE_FROM) != made_from():
        raise UserError(f"{out}: holds the result of another recipe or other models; choose another --out")


def _make(steps: Recipe, folders: dict[str, Path], out: Path, options: "Options", parents: Parents) -> str:
    """Merge into `out`, or find that merge there; a line about it. A merge that fails leaves nothing behind."""
    from tinyr1.merge import checkpoint

    job = {"recipe": steps.model_dump(by_alias=True), **options.results()}

    def made_from() -> str:
        return artifact.digest(job | {"models": parents.hashes()})

    def build(partial: Path) -> dict:
        _check_same(out, made_from)  # once more, now that this process is alone with the output
        try:
            return checkpoint.merge(steps, folders, partial, options, "merge", parents) | {MADE_FROM: made_from()}
        except BaseException:  # an interrupt too: a merge starts over, and half of one is of no use to anybody
            artifact.discard(out)
            raise

    _check_same(out, made_from)
    # The key is of what is known before the hashes are: it tells whether a kill left a finished merge of this command.
    manifest, built = artifact.make(out, job | {"models": parents.stamps()}, build, "run it again")
    facts = manifest["facts"]
    return f"{'merged in ' + str(facts['seconds']) + ' s' if built else 'already there'}: {out} ({facts['order']})"


def _run(a: argparse.Namespace) -> int:
    if a.verify is not None:
        problems = verify(a.verify)
        print("\n".join(problems) or f"{a.verify}: every file is as it was written")
        return 1 if problems else 0
    steps, folders, settings = _job(a)
    if a.out is not None:
        _check_free(a.out)
    elif not a.dry_run:
        raise UserError("--out: missing; name the folder for the merged checkpoint")
    parents = None if a.dry_run else Parents(chosen(steps, folders))
    with launch.lasting_imports():
        from tinyr1.merge import checkpoint

    options = checkpoint.options(settings)
    models = checkpoint.load(steps, folders, options)
    if a.out is not None:
        _check_room(a.out, checkpoint.output_bytes(models, steps, options))
    if a.dry_run:
        print(checkpoint.plan(steps, models, a.out, options))
    else:
        print(_make(steps, folders, a.out, options, parents))
    return 0


def main() -> int:
    return guarded(lambda: _run(_arguments().parse_args()), "interrupted; nothing was left behind")


if __name__ == "__main__":
    sys.exit(main())
