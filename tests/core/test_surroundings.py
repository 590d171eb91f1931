"""What a child process inherits: exactly the documented variables, and nothing of the shell around the kit."""

import ast
import json
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

from tinyr1.core import launch, surroundings
from tinyr1.core.errors import UserError

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
# What has broken a run, or could: packages and settings of another Python, an encoding, and a parent's ranks.
FOREIGN = {
    "PYTHONPATH": "/hostile", "PYTHONHOME": "/hostile", "PYTHONSTARTUP": "/hostile.py", "PYTHONSAFEPATH": "1",
    "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONOPTIMIZE": "2", "LC_ALL": "C",
    "LC_CTYPE": "de_DE.ISO-8859-1", "LANG": "de_DE.ISO-8859-1", "JUPYTER_PATH": "/hostile", "VIRTUAL_ENV": "/hostile",
    "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "x", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_MCA_ess_base_vpid": "1", "PMI_RANK": "1", "PMI_SIZE": "4", "PMIX_RANK": "1", "MV2_COMM_WORLD_RANK": "1",
    "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "ACCELERATE_USE_DEEPSPEED": "true", "MPLBACKEND": "Qt5Agg",
}  # fmt: skip
WANTED = {
    "HF_HOME": "/hf", "HF_TOKEN": "hf_secret", "CUDA_VISIBLE_DEVICES": "0,1", "OMP_NUM_THREADS": "2", "TMPDIR": "/tmp",
    "https_proxy": "http://proxy:8080", "NCCL_SOCKET_IFNAME": "ib0", "VLLM_LOGGING_LEVEL": "DEBUG", "HOME": "/home/me",
    "SLURM_JOB_ID": "7", "OMPI_MCA_btl": "tcp", "TINYR1_HOME": "/runs", "WANDB_API_KEY": "w_secret",
}  # fmt: skip


@pytest.fixture
def around(monkeypatch):
    """An environment of which each variable is known."""
    for name in os.environ:
        if name != "PATH":
            monkeypatch.delenv(name)
    for name, value in (FOREIGN | WANTED).items():
        monkeypatch.setenv(name, value)


def of_a_child(**more):
    """The environment that a real child finds."""
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env=surroundings.for_child(**more), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def documented():
    """(patterns that pass, names that a launcher gives its ranks, names that the kit sets) as the page lists them."""
    text = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
    passing, _, rest = text.partition("## Variables that pass")[2].partition("Those of clusters let")
    ranks = rest.partition("numbered by a launcher of its own:")[2].partition("\n\n")[0]
    made = rest.partition("## Variables that the kit sets")[2].partition("\n##")[0]
    names = [re.findall(r"`([A-Za-z0-9_]+\*?)`", line.split("|")[1]) for line in made.splitlines() if line[:2] == "| "]
    found = re.findall(r"`([A-Za-z0-9_]+\*?)`", passing), re.findall(r"`([A-Za-z0-9_]+\*?)`", ranks)
    return *found, [name for line in names for name in line]


def test_the_page_lists_the_variables_that_reach_a_child():
    passing, ranks, made = documented()
    assert passing == [pattern for group in surroundings.PASSED.values() for pattern in group]
    assert ranks == list(surroundings.OF_A_RANK)
    assert made == [*surroundings.SET, *surroundings.EXCLUDED]


def test_a_child_finds_the_documented_variables_and_no_other(around, monkeypatch, tmp_path):
    passing, ranks, made = documented()
    monkeypatch.chdir(tmp_path)  # PYTHONPYCACHEPREFIX is among them: the child makes a folder of that name
    for pattern in passing:  # one of each kind
        monkeypatch.setenv(pattern.replace("*", "ANY"), "1")
    for pattern in ranks:
        monkeypatch.setenv(pattern.replace("*", "_any"), "1")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    expected = {*WANTED, *made, *(pattern.replace("*", "ANY") for pattern in passing)}
    assert of_a_child().keys() == expected


def test_what_a_person_sets_passes_as_it_is_and_what_the_shell_brings_does_not(around):
    found = of_a_child()
    assert found.items() >= WANTED.items()
    assert found.items() >= surroundings.SET.items()
    assert not {name: value for name, value in FOREIGN.items() if found.get(name) == value}


def test_a_child_writes_utf_8_and_imports_this_package(around, tmp_path):
    code = "import sys, tinyr1; print('ü', sys.stdout.encoding, open(0).encoding, tinyr1.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=surroundings.for_child(), capture_output=True)
    assert done.stdout.decode().split()[:3] == ["ü", "utf-8", "utf-8"]
    assert str(ROOT / "tinyr1" / "__init__.py") in done.stdout.decode()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "localhost,127.0.0.1,::1"),
        ({"NO_PROXY": "intern.example, localhost"}, "intern.example,localhost,127.0.0.1,::1"),
        ({"no_proxy": "a,b", "NO_PROXY": "b,c"}, "b,c,a,localhost,127.0.0.1,::1"),
    ],
)
def test_local_addresses_go_through_no_proxy(around, monkeypatch, given, expected):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    found = surroundings.for_child()
    assert {found["NO_PROXY"], found["no_proxy"]} == {expected}


def test_a_child_gets_what_its_caller_adds_and_the_key_that_it_needs(around, monkeypatch):
    monkeypatch.setenv("QUIZ_KEY", "s3cret")
    assert "QUIZ_KEY" not in surroundings.for_child()
    found = surroundings.for_child({"OMP_NUM_THREADS": "1"}, ["QUIZ_KEY", "NOT_SET"])
    assert (found["OMP_NUM_THREADS"], found["QUIZ_KEY"], "NOT_SET" in found) == ("1", "s3cret", False)


def test_the_key_of_a_followed_command_is_not_in_its_log(around, monkeypatch, tmp_path):
    monkeypatch.setenv("QUIZ_KEY", "s3cret")
    code = "import os; print(len(os.environ['QUIZ_KEY']))"
    log = tmp_path / "log"
    launch.follow([sys.executable, "-c", code], {}, log, "work", lambda: None, "step", passing=["QUIZ_KEY"])
    assert log.read_text().endswith("\n6\n")
    assert "s3cret" not in log.read_text()


def test_every_child_of_the_package_gets_this_environment():
    """The set-up runs before the package is there, and the sandbox gives its programs four variables."""
    apart = {"environment.py", "forkserver.py"}
    calls = []
    for path in sorted((ROOT / "tinyr1").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("subprocess.run", "subprocess.Popen"):
                given = {word.arg: ast.unparse(word.value) for word in node.keywords}.get("env", "")
                calls.append((path.name, given))
    made = ("surroundings.for_child(", "variables", "environment")  # two of them are made in the line above
    assert [name for name, given in calls if name not in apart and not given.startswith(made)] == []
    assert len(calls) >= 8
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tinyr1").rglob("*.py"))
    assert "os.environ |" not in text


# --- values that the kit reads ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("OMP_NUM_THREADS", "garbage", "'garbage': is no number of threads; give a whole number from 1 on, or unset"),
        ("OMP_NUM_THREADS", "0", "'0': is no number of threads"),
        ("OMP_NUM_THREADS", "4,", "'4,': is no number of threads"),
        ("MKL_NUM_THREADS", "", "'': is no number of threads"),
        ("CUDA_VISIBLE_DEVICES", "all", "'all': is no list of GPUs; give numbers or UUIDs, as in 0,1, or unset it"),
        ("FORCE", "yes", "'yes': is neither 0 nor 1"),
        ("TINYR1_HOME", " ", "is empty; name a folder, or unset it"),
        ("TINYR1_HOME", "README.md/runs", "README.md is a file; name a folder"),
        ("TINYR1_PARAMS", "/no/such/folder", "/no/such/folder is no folder; name the one that holds the params files"),
        ("TINYR1_HOEM", "/x", "is unknown; did you mean TINYR1_HOME?"),
    ],
)
def test_a_value_that_cannot_be_read_is_refused_by_name(around, monkeypatch, name, value, rule):
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as refused:
        surroundings.check()
    assert str(refused.value).startswith(f"environment variable {name}")
    assert rule in str(refused.value)


def test_all_wrong_values_are_told_at_once(around, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "two")
    monkeypatch.setenv("FORCE", "yes")
    with pytest.raises(UserError) as refused:
        surroundings.check()
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("CUDA_VISIBLE_DEVICES", one) for one in ("", "-1", "0, 3", "GPU-8932f937-d72c", "MIG-GPU-8/1/0", "NoDevFiles")]
    + [("FORCE", "1"), ("TINYR1_HOME", "runs/of/mine"), ("TINYR1_EVENTS", "/x")]
    + [("OMP_NUM_THREADS", one) for one in ("16", "4,2")],
)
def test_good_values_pass(around, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    surroundings.check()


def test_a_record_names_what_was_set_and_shows_no_secret(around):
    found = surroundings.recorded()
    assert found.items() >= {"HF_TOKEN": None, "OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "0,1"}.items()
    assert not {"HOME", "PATH", "LC_ALL", "RANK", "PYTHONPATH", "TINYR1_EVENTS"} & found.keys()
    assert "secret" not in json.dumps(found)
