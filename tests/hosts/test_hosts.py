"""Two hosts with addresses of their own: network namespaces with an ssh server each, and ZeRO-3 over gloo between them.

Needs root, and the programs ip, unshare, sshd and pdsh; `make test-hosts` runs it.
"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
import yaml
from checkpoints import Shape, experts

from tinyr1.branch import hosts
from tinyr1.core import artifact, config, jsonl
from tinyr1.core.config import ROOT
from tinyr1.core.errors import UserError
from tinyr1.core.prompts import Encoded
from tinyr1.data.tokens import RowWriter

FIRST, SECOND = "10.77.0.1", "10.77.0.2"
NEEDED = ("ip", "unshare", "sshd", "pdsh", "ssh", "ssh-keygen")
MISSING = [name for name in NEEDED if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
STEPS = 60


def run(*words, **kwargs):
    return subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True, **kwargs)


def namespaces_work():
    name = f"tinyr1-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return False
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return True


class Hosts:
    """Two network namespaces that are joined, with an ssh server in each."""

    def __init__(self, folder):
        self.folder = folder
        self.names = {FIRST: f"tinyr1-a{os.getpid()}", SECOND: f"tinyr1-b{os.getpid()}"}
        self.servers = {}
        self.ssh = folder / "ssh"  # stands for root's own folder, in the mount namespace of the commands
        self.ssh.mkdir(mode=0o700)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host_key")
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.ssh / "id_ed25519")
        shutil.copy(self.ssh / "id_ed25519.pub", self.ssh / "authorized_keys")
        key = " ".join((folder / "host_key.pub").read_text().split()[:2])
        (self.ssh / "known_hosts").write_text(f"{FIRST} {key}\n{SECOND} {key}\n")
        ends = {FIRST: f"ta{os.getpid()}", SECOND: f"tb{os.getpid()}"}
        run("ip", "link", "add", ends[FIRST], "type", "veth", "peer", "name", ends[SECOND])
        for address, name in self.names.items():
            run("ip", "netns", "add", name)
            run("ip", "link", "set", ends[address], "netns", name)
            for words in (["addr", "add", f"{address}/24", "dev", ends[address]], ["link", "set", ends[address], "up"],
                          ["link", "set", "lo", "up"]):  # fmt: skip
                run("ip", "-n", name, *words)
            self.serve(address)

    def serve(self, address, environment=""):
        """Start the ssh server of a host. environment: a variable that its sessions have."""
        self.silence(address)
        Path("/run/sshd").mkdir(exist_ok=True)
        config = self.folder / f"sshd-{address}"
        config.write_text(
            f"ListenAddress {address}:22\nHostKey {self.folder / 'host_key'}\nPidFile none\nUsePAM no\nStrictModes no\n"
            f"AuthorizedKeysFile {self.ssh / 'authorized_keys'}\nPermitRootLogin yes\nMaxStartups 100\n"
            + (f"SetEnv {environment}\n" if environment else "")
        )
        words = ["ip", "netns", "exec", self.names[address], shutil.which("sshd", path="/usr/sbin:/sbin"), "-D", "-f"]
        log = (self.folder / "sshd.log").open("a")
        self.servers[address] = subprocess.Popen([*words, config], stderr=log, start_new_session=True)
        time.sleep(1)
        assert self.servers[address].poll() is None, (self.folder / "sshd.log").read_text()

    def silence(self, address):
        """End the ssh server of a host."""
        if server := self.servers.pop(address, None):
            server.kill()
            server.wait()

    def start(self, *words):
        """A command on the first host, with the keys of the test in place of root's own."""
        mount = 'mkdir -p "$1" && mount --bind "$0" "$1" && shift && exec "$@"'
        own = Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".ssh"
        inside = ["unshare", "--mount", "sh", "-c", mount, self.ssh, own, *words]
        return subprocess.Popen(
            list(map(str, ["ip", "netns", "exec", self.names[FIRST], *inside])), cwd=ROOT,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def ranks(self, address):
        """Processes of trainings on a host."""
        namespace = os.stat(f"/run/netns/{self.names[address]}").st_ino
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"tinyr1.branch.train" in words and b"-m" in words and (entry / "ns/net").stat().st_ino == namespace:
                    found += [] if any(w.startswith(b"deepspeed.launcher") for w in words) else [int(entry.name)]
            except OSError:
                continue
        return found

    def close(self):
        for address in list(self.servers):
            self.silence(address)
        for name in self.names.values():
            for pid in run("ip", "netns", "pids", name).stdout.split():
                os.kill(int(pid), signal.SIGKILL)
            run("ip", "netns", "del", name)


@pytest.fixture
def two_hosts(tmp_path):
    if os.geteuid() or MISSING or not namespaces_work():
        pytest.skip(f"needs root, network namespaces and {', '.join(MISSING) or 'their programs'}; `make test-hosts`")
    made = Hosts(tmp_path)
    try:
        reached, said = ended(made.start("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", SECOND, "true"))
        if reached:
            pytest.skip(f"ssh does not work between the namespaces of this machine: {said}")
        yield made
    finally:
        made.close()


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A run `hosts` on two hosts, with a start checkpoint and rows."""
    work, params = tmp_path / "work", tmp_path / "params"
    params.mkdir()
    (tmp_path / "hosts").write_text(f"{FIRST} slots=1\n{SECOND} slots=1  # the other\n")
    data = yaml.safe_load((ROOT / "params" / "smoke.yaml").read_text())
    changes = {"hostfile": str(tmp_path / "hosts"), "zero_stage": 3, "sequence_length": 64, "save_steps": 2}
    data["trainer"] |= changes
    data["curate"]["max_tokens"] = 64
    data["domains"]["math"]["sft"] |= {"batch_size": 2, "epochs": STEPS // 4}
    (params / "hosts.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    for name, value in (("PARAMS", params), ("HOME", tmp_path / "runs"), ("REPORTS", tmp_path / "reports")):
        monkeypatch.setenv(f"TINYR1_{name}", str(value))
    checkpoint = experts(tmp_path / "model", Shape(), names=("own",))["own"]
    artifact.make(work / "start", {}, lambda folder: shutil.copytree(checkpoint, folder, dirs_exist_ok=True) and {}, "")

    def rows(folder):
        rng = Random(1)
        with RowWriter(folder) as writer:
            for _ in range(8):
                writer.write({}, Encoded([rng.randrange(3, 64) for _ in range(60)], 20))
        return {}

    artifact.make(work / "rows", {}, rows, "")
    return work


def ended(process, seconds=240):
    said, _ = process.communicate(timeout=seconds)
    return process.returncode, said


@pytest.mark.slow
def test_two_hosts_train_a_model_lose_a_rank_and_go_on_and_a_host_with_a_fault_is_named(two_hosts, prepared, tmp_path):
    def drive(what):
        return two_hosts.start(sys.executable, "tests/hosts/drive.py", what, prepared)

    status, said = ended(drive("check"))
    assert status == 0, said
    assert FIRST in said
    assert SECOND in said
    status, said = ended(drive("meet"))
    assert (status, said.splitlines()[-1]) == (0, "all have met"), said

    log = tmp_path / "runs" / "hosts" / "branches" / "math.partial" / "log.jsonl"
    training, deadline = drive("train"), time.monotonic() + 180
    while len(jsonl.read(log)) < 5:
        assert training.poll() is None, training.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (rank,) = two_hosts.ranks(SECOND)
    os.kill(rank, signal.SIGKILL)
    status, said = ended(training)
    assert status == 2, said
    assert f"error: math: a rank of {SECOND}, " in said, said
    assert "was killed by signal 9 (SIGKILL); the others failed because it is gone" in said
    before = len(jsonl.read(log))
    assert before < STEPS, "it was killed on its way"

    status, said = ended(drive("train"))
    assert (status, said.splitlines()[-1]) == (0, str(STEPS)), said
    lines = jsonl.read(tmp_path / "runs" / "hosts" / "branches" / "math" / "log.jsonl")
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    again = [a["step"] for a, b in zip(lines[1:], lines, strict=False) if a["tokens"] < b["tokens"]]
    assert len(again) == 1, "the second process began once, at a checkpoint"
    assert 2 < again[0] <= before + 1

    two_hosts.silence(SECOND)
    status, said = ended(drive("check"))
    assert status == 2
    assert f"{SECOND}: ssh does not reach it (" in said, said
    assert f"`ssh {SECOND} true` has to work without a password" in said
    info = tmp_path / "other" / "torch-9.9.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.9.9\n")
    two_hosts.serve(SECOND, f"PYTHONPATH={tmp_path / 'other'}")
    status, said = ended(drive("check"))
    assert status == 2
    assert f"{SECOND}: torch is 9.9.9 there and " in said, said
    assert FIRST not in said.replace(f"{FIRST} slots", "")


# --- without hosts --------------------------------------------------------------------------------------------

MINE = {"packages": {"torch": "2.13.0", "deepspeed": "0.19.8"}, "source": "s", "gpus": 8, "token": "t"}
HOST = hosts.Host("node1", 8)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"packages": {"torch": "2.12.0", "deepspeed": "0.19.8"}}, "torch is 2.12.0 there and 2.13.0 here; run `make"),
        ({"source": "other"}, "its tinyr1 is not the one of this machine"),
        ({"token": None}, "it does not see the folder of the run; TINYR1_HOME has to be on a disk"),
        ({"gpus": 4}, "it has 4 GPUs, trainer.processes_per_node is 8"),
    ],
)
def test_each_fault_of_a_host_is_said(change, fault):
    found = hosts.faults(HOST, MINE | change, MINE, 8, True)
    assert len(found) == (fault is not None)
    assert not fault or found[0].startswith(fault)
    assert hosts.faults(hosts.Host("node1", 4), MINE, MINE, 8, True) == [
        "the hostfile gives it 4 slots, trainer.processes_per_node is 8"
    ]
    assert hosts.faults(HOST, "no", MINE, 8, True) == ["no"]


def test_a_hostfile_has_names_and_slots(tmp_path):
    file = tmp_path / "hosts"
    file.write_text("# all nodes\n\nnode1 slots=8\n  10.0.0.2   slots=4 # the small one\n")
    assert hosts.read_hostfile(file) == [hosts.Host("node1", 8), hosts.Host("10.0.0.2", 4)]
    file.write_text("node1 slots=8\nnode2 8\n")
    with pytest.raises(UserError, match="hosts:2: 'node2 8' is not of the form `hostname slots=8`"):
        hosts.read_hostfile(file)


def test_a_path_that_a_shell_would_break_is_refused_before_a_host_is_asked(home, monkeypatch):
    (home / "hosts").write_text("node1 slots=1\n")
    monkeypatch.setenv("TINYR1_HOME", str(home / "my runs"))
    monkeypatch.setattr(hosts, "ask", lambda *_: pytest.fail("a host was asked"))
    cfg = config.load("smol")
    trainer = cfg.params.trainer.model_copy(update={"hostfile": str(home / "hosts")})
    cfg = cfg.model_copy(update={"params": cfg.params.model_copy(update={"trainer": trainer})})
    with pytest.raises(UserError, match=r"DeepSpeed hands '.*/my runs/smol' to a shell .*; move the repository, or"):
        hosts.check(cfg, False)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo Permission denied >&2; exit 255", "ssh does not reach it (Permission denied); `ssh node1 true` has to"),
        ("echo no such file >&2; exit 127", "the kit does not run there (no such file); "),
        ("sleep 5", "it did not answer within 1 s; try `ssh node1 true`"),
    ],
)
def test_why_a_host_does_not_answer_is_said(tmp_path, monkeypatch, script, words):
    (tmp_path / "ssh").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(hosts, "SECONDS", 1)
    assert hosts.ask(HOST, tmp_path / "token").startswith(words)
