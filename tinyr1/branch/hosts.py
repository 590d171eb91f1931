r"""Several hosts that train together: whether they are ready, which one is not, and why.

    hostfile --> hosts --ssh, all at once--> report of each (python -m tinyr1.branch.hosts --report TOKEN)
    report of this host ---------------------\
                                              --> faults, each with the name of its host --> UserError, or a table

DeepSpeed says of a host that it cannot use only that a command failed, after the models were loaded elsewhere.
"""

import argparse
import json
import re
import secrets
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyr1.core import machine, record, surroundings
from tinyr1.core.config import ROOT, Config, located
from tinyr1.core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

PACKAGES = ("torch", "transformers", "deepspeed")  # that have to be the same on all hosts
SECONDS = 60  # in which a host has to answer
LINE = re.compile(r"^(?P<name>[^\s#]+)\s+slots=(?P<slots>\d+)\s*(?:#.*)?$")


@dataclass(frozen=True)
class Host:
    """One line of a hostfile: a name or address, and how many ranks it has room for."""

    name: str
    slots: int


def read_hostfile(path: Path) -> list[Host]:
    """The hosts of a DeepSpeed hostfile, `name slots=8` each. UserError when there is none, or a line is another."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    hosts = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LINE.match(line.strip())
        if match is None:
            wrong = f"{path}:{number}: {line.strip()!r} is not of the form `hostname slots=8`"
            raise UserError(f"trainer.hostfile: {wrong}")
        hosts.append(Host(match["name"], int(match["slots"])))
    if not hosts:
        raise UserError(
            f"trainer.hostfile: {path} does not exist or names no node; write one line a node: `hostname slots=8`"
        )
    return hosts


# --- what a host says of itself -------------------------------------------------------------------------------


def report(token: Path) -> dict[str, Any]:
    """Packages, code and GPUs of this host, and the text of the token: a file that the first host has just written."""
    return {
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "source": record.code_version()["source"],
        "gpus": len(machine.describe()["gpus"]),
        "token": token.read_text(encoding="utf-8") if token.is_file() else None,
    }


def ask(host: Host, token: Path) -> dict[str, Any] | str:
    """The report of a host, by ssh; or why there is none, in words."""
    module = [sys.executable, "-m", "tinyr1.branch.hosts", "--report", str(token)]
    words = f"cd {shlex.quote(str(ROOT))} && {shlex.join(module)}"
    command = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", host.name, words]
    try:
        done = subprocess.run(
            command, env=surroundings.for_child(), capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except FileNotFoundError:
        return "there is no program `ssh` on this machine; install it"
    except subprocess.TimeoutExpired:
        return f"it did not answer within {SECONDS} s; try `ssh {host.name} true`"
    said = (done.stderr.strip().splitlines() or [""])[-1]
    if done.returncode == 255:
        return f"ssh does not reach it ({said}); `ssh {host.name} true` has to work without a password"
    if done.returncode:
        return (
            f"the kit does not run there ({said}); {ROOT} with its .venv has to be at the same place, on a disk that "
            "all hosts share for instance"
        )
    return json.loads(done.stdout.splitlines()[-1])


def faults(host: Host, theirs: dict[str, Any] | str, mine: dict[str, Any], ranks: int, has_gpu: bool) -> list[str]:
    """What keeps a host from training, in sentences without its name. mine: the report of this machine."""
    if isinstance(theirs, str):
        return [theirs]
    found = [
        f"{name} is {theirs['packages'][name]} there and {version} here; run `make setup` there"
        for name, version in mine["packages"].items() if theirs["packages"][name] != version
    ]  # fmt: skip
    if theirs["source"] != mine["source"]:
        found.append("its tinyr1 is not the one of this machine; bring both to the same commit")
    if theirs["token"] != mine["token"]:
        found.append("it does not see the folder of the run; TINYR1_HOME has to be on a disk that all hosts share")
    if has_gpu and theirs["gpus"] < ranks:
        found.append(f"it has {theirs['gpus']} GPUs, trainer.processes_per_node is {ranks}")
    if host.slots < ranks:
        found.append(f"the hostfile gives it {host.slots} slots, trainer.processes_per_node is {ranks}")
    return found


# --- all hosts ------------------------------------------------------------------------------------------------


def check(cfg: Config, has_gpu: bool) -> "pd.DataFrame":
    """A line for each host: slots, GPUs, PyTorch. UserError names every host with a fault, before anything is trained.

    Without a hostfile there is this machine, and nothing to ask.
    """
    import pandas as pd

    trainer = cfg.params.trainer
    if trainer.hostfile is None:
        mine: dict[str, Any] = {
            "packages": {"torch": metadata.version("torch")}, "gpus": len(machine.describe()["gpus"])
        }  # fmt: skip
        rows = [("this machine", trainer.processes_per_node, mine)]
    else:
        hosts = read_hostfile(located(trainer.hostfile))
        _refuse_paths_in_pieces(ROOT, Path(sys.executable), cfg.home)
        rows = [
            (host.name, host.slots, found)
            for host, found in _reports(cfg, hosts, trainer.processes_per_node, has_gpu).items()
        ]
    table = [{"host": n, "slots": slots, "GPUs": r["gpus"], "torch": r["packages"]["torch"]} for n, slots, r in rows]
    return pd.DataFrame(table).set_index("host")


def _refuse_paths_in_pieces(*paths: Path) -> None:
    """UserError for the first path that a shell would not read as one word."""
    for path in paths:
        if shlex.quote(str(path)) != str(path):
            raise UserError(
                f"trainer.hostfile: DeepSpeed hands {str(path)!r} to a shell of each host without quotes, which breaks "
                "it; move the repository, or TINYR1_HOME, to a path of letters, digits, /, -, _ and ."
            )


def _reports(cfg: Config, hosts: list[Host], ranks: int, has_gpu: bool) -> dict[Host, dict[str, Any]]:
    cfg.home.mkdir(parents=True, exist_ok=True)
    token = cfg.home / f".hosts-{secrets.token_hex(4)}"
    token.write_text(secrets.token_hex(16), encoding="utf-8")
    try:
        with ThreadPoolExecutor(len(hosts)) as threads:
            reports = dict(zip(hosts, threads.map(lambda host: ask(host, token), hosts), strict=True))
        mine = report(token)
    finally:
        token.unlink()
    problems = [
        f"{host.name}: {fault}"
        for host, theirs in reports.items() for fault in faults(host, theirs, mine, ranks, has_gpu)
    ]  # fmt: skip
    if problems:
        raise UserError("\n".join(problems))
    return {host: theirs for host, theirs in reports.items() if isinstance(theirs, dict)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--report", type=Path, required=True, help="a file that the first host has written")
    print(json.dumps(report(parser.parse_args().report)))


if __name__ == "__main__":
    main()
