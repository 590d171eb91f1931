"""Runs the notebooks of a run in order, headlessly: `make reproduce RUN=smol`.

    python -m tinyr1.run smol                     all five stages
    python -m tinyr1.run smol --stage 03_fusion_merge

    params/smol.yaml -> plan: a few lines, and a refusal of what this machine cannot carry out, unless FORCE=1
                     -> doctor: a refusal of what is missing for the stages that have work left
                     -> for each stage that is not fresh: execute its notebook -> record, HTML page, page of the run

A verification run, which trains and merges nothing, has the last two stages alone; a notebook is executed without the
cells that are tagged for runs of the other kind.

A stage is fresh, and is not run again, when its record fits the parameters, the notebook and what the stages before it
made. A stage has succeeded when every cell ran *and* the notebook wrote its record. Papermill's own verdict is not
enough: it calls a notebook successful whose kernel died or called `sys.exit(0)`.
"""

import argparse
import fcntl
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinyr1.core import config, progress, record, surroundings
from tinyr1.core.config import ROOT, STAGES, Config
from tinyr1.core.errors import BUG, UserError, guarded, is_bug
from tinyr1.core.launch import SIGNALS, ask_to_stop
from tinyr1.disk import require_disk_space, require_writable
from tinyr1.plan.gate import forced, pass_gate, remember
from tinyr1.report.states import is_fresh, left

NOTEBOOKS = ROOT / "notebooks"
TRAINING, VERIFICATION = "training", "verification"  # tags of cells that only one kind of run has


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="name of a file in params/, without .yaml")
    parser.add_argument("--stage", choices=STAGES, help="only this stage; the ones before it must be finished")
    arguments = parser.parse_args()
    for number in SIGNALS:
        signal.signal(number, lambda *given: end(arguments.run, *given))
    again = f"make {arguments.stage or 'reproduce'} RUN={arguments.run}"
    return guarded(
        lambda: run(arguments.run, arguments.stage), f"interrupted; the same command goes on from here: {again}"
    )


def end(name: str, *given: Any) -> None:
    """What `kill` and a cluster's time limit do: a training that writes checkpoints ends with one; all else ends as by
    Ctrl-C, and so does the training at the second signal."""
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)
    if not ask_to_stop(config.load(name).home):
        signal.default_int_handler(*given)


def run(name: str, only: str | None) -> int:
    """Run those stages of a run that are not fresh, or only one stage; the exit status of the command."""
    surroundings.check()
    cfg = config.load(name)
    if idle := [stage for stage in STAGES if stage not in cfg.stages and only in (None, stage)]:
        print(f"{', '.join(idle)}: nothing to do, {cfg.run} asks a published model and trains and merges nothing")
        if only:
            return 0
    plan = pass_gate(cfg) if only is None else None
    with locked(cfg):
        if plan is not None:
            remember(cfg, plan)
        correct_page(cfg)
        if not forced():
            require_disk_space(cfg)
        if only:
            require_before(cfg, only)
        require_needs(cfg, only)
        for stage in [only] if only else cfg.stages:
            if not run_stage(cfg, stage):
                return 1
        if only in (None, cfg.stages[-1]):
            print(f"\n{closing_table(cfg)}\n\npass@1 in percent, with 95 % intervals. Report: {cfg.reports}/index.html")
    return 0


def run_stage(cfg: Config, stage: str) -> bool:
    """Run a stage unless it is fresh, and write the page of the run before and after it; False when it failed."""
    from tinyr1.report import index

    if is_fresh(cfg, stage):
        print(f"{stage}: kept", flush=True)
        return True
    print(f"\n== {stage}", flush=True)
    record.set_aside(cfg, stage)  # without it, or its page, the stage is not fresh
    (cfg.reports / f"{stage}.html").unlink(missing_ok=True)
    started = time.monotonic()
    try:
        index.write_index(cfg, running=stage)
        failure = execute(cfg, stage)
    except BaseException:  # Ctrl-C, or a kernel that does not start
        index.write_index(cfg, interrupted=stage)
        raise
    seconds = time.monotonic() - started
    if failure:
        page = index.write_index(cfg, failures={stage: failure})
        print(f"\n{stage} failed after {seconds:.0f} s:\n{failure}\n", file=sys.stderr)
        print(f"The failing cell: {page.parent / stage}.html#papermill-error-cell", file=sys.stderr)
        print(f"Once the cause is removed, {cfg.remedy('reproduce')}; it goes on from here.", file=sys.stderr)
        return False
    index.write_index(cfg)
    print(f"   {stage} finished in {seconds:.0f} s", flush=True)
    return True


def execute(cfg: Config, stage: str) -> str | None:
    """Execute the notebook of a stage and render its page, failed or not; the first line of its error, or None."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    from tinyr1.core.kernel import Kernel
    from tinyr1.report import pages

    executed = cfg.home / "executed" / f"{stage}.ipynb"
    executed.parent.mkdir(parents=True, exist_ok=True)
    write_for_run(cfg, NOTEBOOKS / f"{stage}.ipynb", executed)
    failure, kernel = None, Kernel(cfg.key_variables)
    with Terminal(cfg.home / "logs" / "events.txt"):
        progress.note("starting the notebook")
        try:
            papermill.execute_notebook(
                executed, executed, parameters={"run": cfg.run}, kernel_name="python3",
                cwd=ROOT, progress_bar=False, coalesce_streams=True, start_timeout=180,
                kernel_manager_class=kernel.manager,
                # Hides what ipykernel says about its own transport, tracebacks of its end after Ctrl-C included.
                extra_arguments=["--IPKernelApp.log_level=50"],
            )  # fmt: skip
        except PapermillExecutionError as error:
            failure = f"{error.ename}: {error.evalue}" + (f"\n{BUG}" if is_bug(error.ename) else "")
        except RuntimeError:  # nbclient's word for a kernel that is no more, whether it had begun or not
            if kernel.status is None:
                raise
            failure = kernel.told
    failure = failure or pages.failing_cell(executed)
    if failure is None and not record.record_path(cfg, stage).is_file():
        failure = f"the notebook ran to its end without writing {stage}.json"
    pages.render(executed, cfg.reports / f"{stage}.html", cfg.run, cfg.stages)
    return failure


def write_for_run(cfg: Config, notebook: Path, out: Path) -> None:
    """Write a notebook without the cells that are tagged for runs of the other kind (TRAINING, VERIFICATION)."""
    import nbformat

    book, other = nbformat.read(notebook, as_version=4), TRAINING if cfg.params.verification else VERIFICATION
    book.cells = [cell for cell in book.cells if other not in cell.metadata.get("tags", [])]
    nbformat.write(book, out)


def require_needs(cfg: Config, only: str | None) -> None:
    """UserError with a sentence for each thing that is missing for the stages with work left, or for only one stage."""
    stages = left(cfg) if only is None else [] if is_fresh(cfg, only) else [only]
    if stages:
        from tinyr1.doctor import checks  # it takes a second, for which a finished run does not wait

        checks.require(cfg, stages)


def require_before(cfg: Config, stage: str) -> None:
    """UserError names the first of the stages before this one that is not finished or not intact."""
    for earlier in cfg.stages[: cfg.stages.index(stage)]:
        record.require(cfg, earlier)


@contextmanager
def locked(cfg: Config) -> Iterator[None]:
    """Hold the lock of a run; it ends with the process, even by kill -9. UserError where another process holds it, or
    where the folder of the run cannot be written: nothing else of a checkout has to be."""
    require_writable(cfg)
    cfg.reports.mkdir(parents=True, exist_ok=True)
    handle = (cfg.home / ".lock").open("w")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"run {cfg.run}: another process is working on it; wait for it or stop it first") from None
        yield


def correct_page(cfg: Config) -> None:
    """If index.html still shows a stage as running, mark it interrupted: we hold the lock, so that run is dead."""
    from tinyr1.report import index

    stage = index.shown_as_running(cfg)
    if stage is not None:
        index.write_index(cfg, interrupted=None if is_fresh(cfg, stage) else stage)


def closing_table(cfg: Config) -> str:
    """The scores for the terminal: percent with 95 % intervals, models down and benchmarks across."""
    import pandas as pd

    table = pd.read_csv(cfg.reports / "scores.csv")
    percent = 100 * table[["pass_at_1", "ci_low", "ci_high"]].to_numpy()
    table["score"] = [f"{value:5.1f} [{low:.0f}, {high:.0f}]" for value, low, high in percent]
    wide = table.pivot(index="model", columns="benchmark", values="score")
    return wide.loc[list(dict.fromkeys(table.model)), list(dict.fromkeys(table.benchmark))].to_string()


class Terminal:
    """Shows the lines and progress bars of `core.progress` in the kernel: lines stay, bars are redrawn in place.

    The kernel appends them to a file that a thread follows here. Papermill's own `stdout_file`, `stderr_file` and
    `log_output` cannot replace it: they copy everything that a notebook prints to the terminal, whole prompts and
    warnings included, and a bar that reaches them also stays in the executed notebook.
    """

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
        last_bar, unfinished = 0.0, ""
        with self.events.open(encoding="utf-8", newline="") as file:
            while True:
                stopping = self.stop.is_set()
                *pieces, unfinished = re.split(r"(?<=[\r\n])", unfinished + file.read())
                for piece in pieces:
                    text = piece.rstrip("\r\n")
                    if piece.endswith("\n"):
                        print(f"\r{text:<{progress.WIDTH}}" if self.live else text, flush=True)
                    elif self.live:
                        print(f"\r{text:<{progress.WIDTH}}", end="", flush=True)
                    elif time.monotonic() - last_bar > 30:  # in a log file, one picture of the bar every 30 s
                        last_bar = time.monotonic()
                        print(text, flush=True)
                if stopping:
                    if self.live:  # no bar stays behind what is printed next
                        print(f"\r{'':<{progress.WIDTH}}\r", end="", flush=True)
                    return
                time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
