"""Runs the notebooks of a run in order, headlessly.

    python -m tinyr1.run smol                     all five stages
    python -m tinyr1.run smol --stage 03_fusion_merge

A stage whose record fits its parameters, its notebook and what the stages before it made is kept. Success is a
notebook whose every cell ran *and* a fresh record; papermill's word alone is not enough (a kernel that dies or
calls sys.exit leaves exit status 0).
"""

import argparse
import fcntl
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

from tinyr1.core import artifact, config, progress, record
from tinyr1.core.config import ROOT, STAGES, Config
from tinyr1.core.errors import UserError, guarded

NOTEBOOKS = ROOT / "notebooks"
REST = 10**9  # bytes for rows, responses, logs and pages
# A resumable checkpoint in sizes of the bf16 model: its weights twice, fp32 weights and two moments (6); the next one
# is written beside it.
RESUMABLE = 2 * 8


def is_fresh(cfg: Config, stage: str) -> bool:
    """Whether a stage's results are there, whole, and made from the present parameters and notebook."""
    try:
        entry = record.require(cfg, stage)
    except (UserError, FileNotFoundError):
        return False
    page = cfg.reports / f"{stage}.html"
    return page.is_file() and entry["notebook"] == record.notebook_hash(stage)


def check_before(cfg: Config, stage: str) -> None:
    """The stages before this one are finished and intact; UserError names the first that is not."""
    for earlier in STAGES[: STAGES.index(stage)]:
        record.require(cfg, earlier)


class Terminal:
    """Shows what the kernel reports: finished lines stay, bars are redrawn in place."""

    def __init__(self, events: Path) -> None:
        self.events, self.live = events, sys.stdout.isatty()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Terminal":
        self.events.parent.mkdir(parents=True, exist_ok=True)
        self.events.write_text("", encoding="utf-8")
        os.environ[progress.EVENTS] = str(self.events)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        del os.environ[progress.EVENTS]

    def _follow(self) -> None:
        last_bar = 0.0
        with self.events.open(encoding="utf-8", newline="") as file:
            while True:
                stopping = self.stop.is_set()
                for piece in file.read().splitlines(keepends=True):
                    text = piece.rstrip("\r\n")
                    if piece.endswith("\n"):
                        print(f"\r{text:<{progress.WIDTH}}" if self.live else text, flush=True)
                    elif self.live:
                        print(f"\r{text:<{progress.WIDTH}}", end="", flush=True)
                    elif time.monotonic() - last_bar > 30:  # a log file gets a picture now and then
                        last_bar = time.monotonic()
                        print(text, flush=True)
                if stopping:
                    return
                time.sleep(0.2)


def execute(cfg: Config, stage: str) -> str | None:
    """Run one notebook; returns the first line of its error, or None. The page is rendered either way."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    from tinyr1.report import pages

    executed = cfg.home / "executed" / f"{stage}.ipynb"
    executed.parent.mkdir(parents=True, exist_ok=True)
    failure = None
    with Terminal(cfg.home / "logs" / "events.txt"):
        try:
            papermill.execute_notebook(
                NOTEBOOKS / f"{stage}.ipynb", executed, parameters={"run": cfg.run}, kernel_name="python3",
                cwd=ROOT, progress_bar=False, coalesce_streams=True, start_timeout=180,
                extra_arguments=["--IPKernelApp.log_level=40"],  # it warns of its own transport otherwise
            )  # fmt: skip
        except PapermillExecutionError as error:
            failure = f"{error.ename}: {error.evalue}"
    failure = failure or pages.failing_cell(executed)
    if failure is None and not record.record_path(cfg, stage).is_file():
        failure = f"the notebook ran to its end without writing {stage}.json"
    pages.render(executed, cfg.reports / f"{stage}.html")
    return failure


def run_stage(cfg: Config, stage: str, failures: dict[str, str]) -> bool:
    """Keep or run a stage and tell the terminal; False when it failed. The page says how it stands, also when left."""
    from tinyr1.report import index

    if is_fresh(cfg, stage):
        print(f"{stage}: kept", flush=True)
        return True
    print(f"\n== {stage}", flush=True)
    for made_last in (record.record_path(cfg, stage), cfg.reports / f"{stage}.html"):  # these two make it fresh
        made_last.unlink(missing_ok=True)
    started = time.monotonic()
    try:
        index.index(cfg, running=stage)
        failure = execute(cfg, stage)
    except BaseException:  # Ctrl-C, or a kernel that does not start
        index.index(cfg, interrupted=stage)
        raise
    if failure:
        failures[stage] = failure
        page = index.index(cfg, failures=failures)
        print(f"\n{stage} failed after {time.monotonic() - started:.0f} s:\n{failure}\n", file=sys.stderr)
        print(f"The failing cell: {page.parent / stage}.html#papermill-error-cell", file=sys.stderr)
        print(f"Once it is mended, {cfg.remedy('reproduce')}; it goes on from here.", file=sys.stderr)
        return False
    index.index(cfg)
    print(f"   {stage} finished in {time.monotonic() - started:.0f} s", flush=True)
    return True


def close_page(cfg: Config) -> None:
    """A page that says "running" to whoever holds the run's lock was left by a run that was killed."""
    from tinyr1.report import index

    stage = index.shown_as_running(cfg)
    if stage is not None:
        index.index(cfg, interrupted=None if is_fresh(cfg, stage) else stage)


def headline(cfg: Config) -> str:
    """The score table for the terminal: percent with 95 % intervals."""
    import pandas as pd

    table = pd.read_csv(cfg.reports / "scores.csv")
    table["score"] = [
        f"{100 * r.pass_at_1:5.1f} [{100 * r.ci_low:.0f}, {100 * r.ci_high:.0f}]" for r in table.itertuples()
    ]
    order = list(dict.fromkeys(table.model))
    wide = table.pivot(index="model", columns="benchmark", values="score").loc[order]
    return wide[list(dict.fromkeys(table.benchmark))].to_string()


def lock(cfg: Config) -> object:
    """Hold the run for this process; the lock goes with the process, however it ends."""
    cfg.home.mkdir(parents=True, exist_ok=True)
    handle = (cfg.home / ".lock").open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"run {cfg.run}: another process is working on it; wait for it or stop it first") from None
    return handle


def model_bytes(cfg: Config) -> int | None:
    """Size of one model of the run, by the base checkpoint or by what it will be made from; None where unknown."""
    for made in (cfg.home / "base", cfg.backbone):
        if artifact.manifest_path(made).is_file():
            return sum(file["bytes"] for file in artifact.manifest(made)["files"].values())
    from tinyr1.branch import backbone  # PyTorch takes seconds; a run that has begun does not wait for it

    return backbone.weight_bytes(cfg)


def checkpoint_bytes(cfg: Config, size: int) -> int:
    """What the checkpoints of a run still take on its disk, of models of `size` bytes.

    Of those that are not there, with one more for the base or for the old one while a model is made again, and the
    optimizer's state of the model in training; less what an interrupted run has written of them.
    """
    made = [m for m in cfg.models if m != "backbone" or cfg.params.backbone.distill]  # the base is linked, or one more
    absent = [m for m in made if not artifact.manifest_path(cfg.model(m)).is_file()]
    if not absent:
        return 0
    trains = cfg.params.trainer.save_steps and any(m not in cfg.params.merge.models for m in absent)
    copies = len(absent) + 1 + (RESUMABLE if trains else 0)
    begun = [f for m in absent for f in artifact.partial_path(cfg.model(m)).rglob("*") if f.is_file()]
    return max(0, copies * size - sum(f.stat().st_size for f in begun))


def check_disk(cfg: Config) -> None:
    """The disk has room for what the run still makes; UserError says how much is missing."""
    need = checkpoint_bytes(cfg, model_bytes(cfg) or 0) + REST
    free = shutil.disk_usage(cfg.home).free
    if free < need:
        raise UserError(
            f"{cfg.home}: {free / 1e9:.1f} GB free, the run needs about {need / 1e9:.1f} GB more; free some space, "
            "or set TINYR1_HOME to a folder on a larger disk"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="name of a file in params/, without .yaml")
    parser.add_argument("--stage", choices=STAGES, help="only this stage; the ones before it must be finished")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` and a cluster's time limit end it as Ctrl-C does
    again = f"make {arguments.stage or 'reproduce'} RUN={arguments.run}"
    return guarded(
        lambda: run(arguments.run, arguments.stage), f"interrupted; the same command goes on from here: {again}"
    )


def run(name: str, only: str | None) -> int:
    """Run the stages of a run that are not fresh, or only one; the exit status."""
    cfg, failures = config.load(name), {}
    held = lock(cfg)
    close_page(cfg)
    check_disk(cfg)
    if only:
        check_before(cfg, only)
    for stage in [only] if only else STAGES:
        if not run_stage(cfg, stage, failures):
            return 1
    if only in (None, STAGES[-1]):
        print(f"\n{headline(cfg)}\n\npass@1 in percent, with 95 % intervals. Report: {cfg.reports / 'index.html'}")
    del held
    return 0


if __name__ == "__main__":
    sys.exit(main())
