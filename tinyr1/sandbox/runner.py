"""Runs generated programs outside this process, isolated (docs/evaluation.md §3).

    with Runner(cfg.params.evaluate.sandbox) as runner:
        runner.run("print(int(input()) + 1)", "1\\n").output        # "2\\n"

A `Runner` owns one fork-server; each execution is a confined fork of it. `landlock` isolation means Landlock, seccomp,
resource limits and, for root, a user of its own for each Runner; `bubblewrap` puts namespaces around the fork-server as
well. Before a Runner is used, and after each restart of its fork-server, the programs of `probes` try to break out. If
one succeeds or a layer is missing, the Runner refuses to run anything. Kernel and hardware stay shared with the
programs. `confine` draws who holds which data.
"""

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

from tinyr1.sandbox import scratch
from tinyr1.sandbox.forkserver import ENOUGH, Ceilings, ForkServer, Refused, Result, SandboxError, Take
from tinyr1.sandbox.probes import REMEDIES, try_to_break_out

# The first is for callers that expect no particular output; the second bounds the memory of this process.
OUTPUT_BYTES, MOST_OUTPUT_BYTES = 1 << 20, 64 << 20
SOURCE_BYTES = 1 << 20
LAYERS = ("rlimits", "landlock", "seccomp")
# A whole sentence, so that nobody sets the variable without having read what it permits.
CONFIRMATION = "TINYR1_RUN_UNCONFINED"
CONFIRMED = "generated programs may read and change everything I can"


# A protocol, so that the sandbox can be used without pydantic and without a params file.
class Limits(Protocol):
    """The settings of a Runner; `evaluate.sandbox` of a params file has them.

    cpu_seconds: CPU time of a test in `real` semantics, wall clock of a test in `lcb-compat`. memory_mb: address space
    in MiB. semantics: real or lcb-compat (docs/evaluation.md §3.5). isolation: auto, bubblewrap, landlock or none.
    """

    @property
    def cpu_seconds(self) -> int: ...
    @property
    def memory_mb(self) -> int: ...
    @property
    def semantics(self) -> str: ...
    @property
    def isolation(self) -> str: ...


class Turns:
    """Lets executions run side by side, except one that asks to be alone in this process."""

    def __init__(self) -> None:
        self._changed, self._running, self._alone = threading.Condition(), 0, False

    @contextlib.contextmanager
    def take(self, alone: bool) -> Iterator[None]:
        """Wait for a turn and hold it. alone: wait until nothing runs, and let nothing start meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            if alone:
                # Set before waiting: otherwise a steady stream of others could keep this one out for ever.
                self._alone = True
                self._changed.wait_for(lambda: not self._running)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._alone = self._alone and not alone
                self._changed.notify_all()


# Both belong to the process and not to a Runner: a program that runs alone must have no neighbour in any thread, and
# two Runners must not give their programs the same user, who could signal or trace the other's.
TURNS = Turns()
SLOTS: set[int] = set()  # the numbers of the Runners in use
_SLOTS_LOCK = threading.Lock()


class Runner:
    """Runs programs one after another. Use it as a context manager, and one for each thread.

    server: its fork-server; None while there is none. slot: its number among the Runners of this process.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.server: ForkServer | None = None
        self.facts: dict[str, Any] = {}

    def __enter__(self) -> "Runner":
        """Start and test the fork-server. Refused where programs cannot be isolated."""
        # The lowest free number, so that a long run needs no more users than it has threads.
        with _SLOTS_LOCK:
            self.slot = next(i for i in range(len(SLOTS) + 1) if i not in SLOTS)
            SLOTS.add(self.slot)
        # Nobody else removes the folders of a judge that was killed.
        scratch.sweep()
        try:
            self.start_server()
        except BaseException:  # after an interrupt, too, the slot and the fork-server are given back
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_server()
        with _SLOTS_LOCK:
            SLOTS.discard(self.slot)

    def description(self) -> dict[str, Any]:
        """How programs are isolated, for the record: isolation, layers, Landlock ABI, identity, probes and limits."""
        return self.facts | {
            "semantics": self.limits.semantics, "cpu_seconds": self.limits.cpu_seconds,
            "memory_mb": self.limits.memory_mb,
        }  # fmt: skip

    def run(
        self, code: str, text: str, func_name: str = "", output_bytes: int = OUTPUT_BYTES, alone: bool = False
    ) -> Result:
        """Run a program once, in a process of its own, with `real` semantics.

        text: standard input, or one JSON argument a line if func_name names a function to call. output_bytes: what it
        may print or return, plus 64 KiB. alone: wait until no other Runner of this process executes anything.
        SandboxError if the sandbox failed; the next call then starts a new fork-server.
        """
        cpu = self.limits.cpu_seconds
        # A function gets its arguments with the job and an empty standard input, since its program may read that, too.
        job = {"code": code, "semantics": "real", "func_name": func_name, "inputs": [text] if func_name else []}
        # The verdict rests on CPU time. Three times as much wall clock leaves room for a busy machine.
        ceilings = Ceilings(cpu, 3 * cpu + 2, self.limits.memory_mb, output_bytes)
        values: list[str] = []

        # One value may come, and only from a function; whatever else comes, the program wrote into the pipe itself.
        def take(record: dict[str, str]) -> str:
            values.append(record.get("value", ""))
            return "" if func_name and set(record) == {"value"} and len(values) == 1 else "protocol"

        ended = self._execute(job, "" if func_name else text, ceilings, take, alone)
        if not func_name or ended.status != "ok":
            return ended
        # `os._exit(0)` inside the function: the exit status is right, and still there is no answer.
        if not values:
            return replace(ended, status="error", error="the program ended before its function returned")
        return replace(ended, output=values[0])

    def run_all(
        self, code: str, inputs: list[str], func_name: str, accept: Callable[[int, str], bool],
        output_bytes: int = OUTPUT_BYTES, alone: bool = False,
    ) -> list[Result]:  # fmt: skip
        """Run a program on several inputs, one after another in one process, with `lcb-compat` semantics.

        accept(i, output): called in this process after test i; False ends the execution. The results end with the first
        one that is not ok or not accepted. Here cpu_seconds is the wall-clock alarm of each test, as in LiveCodeBench's
        official runner (docs/evaluation.md §1.2). Other arguments and errors: as in `run`.
        """
        seconds = self.limits.cpu_seconds
        job = {"code": code, "semantics": "lcb-compat", "func_name": func_name, "inputs": inputs, "seconds": seconds}
        # A program can switch its alarm off, so all tests together have a limit that it cannot reach.
        wall = (seconds + 1) * len(inputs) + 5
        results: list[Result] = []

        # `accept` is called while the program runs on: a wrong program does not use up the time of its other tests.
        def take(record: dict[str, str]) -> str:
            if set(record) != {"value" if func_name else "stdout"} or len(results) == len(inputs):
                return "protocol"
            (output,) = record.values()
            results.append(Result("ok", output))
            return "" if accept(len(results) - 1, output) else ENOUGH

        ended = self._execute(job, "", Ceilings(wall, wall, self.limits.memory_mb, output_bytes), take, alone)
        if ended.status == ENOUGH or (ended.status == "ok" and len(results) == len(inputs)):
            return results
        if ended.status == "ok":
            ended = replace(ended, status="error", error="the program ended before its last test")
        return [*results, replace(ended, output="")]

    def _execute(self, job: dict[str, Any], text: str, ceilings: Ceilings, take: Take, alone: bool) -> Result:
        """Run one job, with a new fork-server if the last one failed or received forged records."""
        # Such a text is no program that a model wrote; it would cost memory here and in the fork-server.
        if len(job["code"]) > SOURCE_BYTES:
            return Result("error", error=f"the program has more than {SOURCE_BYTES} characters")
        with TURNS.take(alone):
            server = self.server or self.start_server()
            try:
                result = server.execute(job, text, ceilings, take)
            except (SandboxError, OSError) as error:
                self._stop_server()
                raise SandboxError(f"the sandbox failed: {error}") from error
            except BaseException:
                # After an interrupt the answer to this request is still to come; the next one must not read it.
                self._stop_server()
                raise
            if result.status == "protocol":
                # A program that forges records may have done more than that; nothing of it shall meet the next one.
                self._stop_server()
        return result

    def _stop_server(self) -> None:
        if self.server is not None:
            self.server.close()
            self.server = None

    def start_server(self) -> ForkServer:
        """Start and test a fork-server with the strongest isolation that works here and that the limits allow."""
        if self.limits.isolation == "none":
            _confirm_no_isolation()
            # There is nothing to probe: every attempt would succeed.
            self.server = ForkServer(self.slot, "none", ("rlimits",))
            self.facts = {"isolation": "none", **self.server.hello, "probes": {}}
            return self.server
        wanted = ("bubblewrap", "landlock") if self.limits.isolation == "auto" else (self.limits.isolation,)
        # The strongest first. bubblewrap may be missing, or may be forbidden to make namespaces inside a container.
        kinds = [kind for kind in wanted if kind != "bubblewrap" or shutil.which("bwrap")]
        problems = [] if kinds else ["bubblewrap: there is no program bwrap"]
        for kind in kinds:
            try:
                server = ForkServer(self.slot, kind, LAYERS)
            except (SandboxError, OSError) as error:
                # A weaker kind may still work. A failed probe is different: it is raised, never worked around.
                problems.append(f"{kind}: {error}")
                continue
            try:
                endings = try_to_break_out(server, self.limits.cpu_seconds, self.limits.memory_mb)
            except BaseException:
                server.close()
                raise
            self.server = server
            self.facts = {"isolation": kind, **server.hello, "probes": endings}
            return server
        raise Refused(f"generated programs are not run without isolation. {'; '.join(problems)}. {REMEDIES}")


def _confirm_no_isolation() -> None:
    """Refuse `isolation: none` to root, and to anybody who has not confirmed it in the environment as well.

    Two separate acts are needed because a params file may come from somebody else.
    """
    if os.geteuid() == 0:
        raise Refused("evaluate.sandbox.isolation: none is never allowed as root; run as an ordinary user")
    if os.environ.get(CONFIRMATION) != CONFIRMED:
        raise Refused(
            f"evaluate.sandbox.isolation: none runs generated programs with your rights. To confirm, also set the "
            f"environment variable {CONFIRMATION} to {CONFIRMED!r}"
        )
