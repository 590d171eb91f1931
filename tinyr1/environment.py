"""Set up .venv at the repository root, once: `python3 -I tinyr1/environment.py`.

Standard library only: this runs before anything is installed. When `.venv/tinyr1-stamp.json` says that the
environment is complete and made from these requirement files, nothing is printed and nothing is done.
Otherwise the pins are installed with `.venv/bin/python -m pip`, compared with what is then installed, and the
stamp is written last: an environment without it is never used, and is made afresh.

The requirement files are read here too. Lines after a line `# --no-deps` are installed in a second step
without their declared dependencies (pip has no such option per line).

An unsuitable Python has to be able to read this file, so that it ends in a sentence and not in a SyntaxError:
keep to the syntax of Python 3.8.
"""

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
PYTHONS = ((3, 11), (3, 12), (3, 13))
STAMP = "tinyr1-stamp.json"
MARK = "tinyr1-setup-started"  # written first: the directory is this script's to clear
LOG = "setup.log"
NO_DEPS = "# --no-deps"
GB = 1024**3
DISK_CPU, DISK_CUDA = 6 * GB, 12 * GB
UNREACHABLE = (
    "Temporary failure in name resolution|Name or service not known|nodename nor servname|NewConnectionError|"
    "Connection|[Rr]ead timed out|ReadTimeout|ProxyError|SSLError|Network is unreachable"
)
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+_-]+)(?: ; (.+))?$")

# Run by .venv's own Python once pip is done: every pin whose marker holds here must be what is installed.
CHECK = """
import importlib.metadata as metadata, json, sys
from pip._vendor.packaging.requirements import Requirement
for line in json.load(sys.stdin):
    pin = Requirement(line)
    if pin.marker is None or pin.marker.evaluate():
        try:
            have = metadata.version(pin.name)
        except metadata.PackageNotFoundError:
            have = "nothing"
        if have == "nothing" or not pin.specifier.contains(have, prereleases=True):
            print("%s (installed: %s)" % (line, have))
"""


class SetupError(Exception):
    """One sentence for the person at the terminal: what was found, the rule, what to do."""


# --- rules: values in, an answer or a sentence out ---------------------------------------------------------


def dotted(version):
    return ".".join(str(part) for part in version[:2])


def python_sentence(version, searched=True):
    """None for a Python that will do; otherwise the sentence."""
    if tuple(version[:2]) in PYTHONS:
        return None
    return (
        f"this is Python {dotted(version)}, and this project needs Python 3.11, 3.12 or 3.13"
        f"{' (none was found on PATH)' if searched else ''}: install one and run "
        "`make setup PYTHON=/path/to/python3.11`."
    )


def disk_sentence(free, needed, where):
    """None where there is room; otherwise the sentence. `free` counts what the old .venv would give back."""
    if free >= needed:
        return None
    build = "CPU" if needed == DISK_CPU else "CUDA"
    return (
        f"{free / GB:.1f} GB are free for {where}, and the environment needs {needed / GB:.0f} GB with the "
        f"{build} build of PyTorch: free some space, or make .venv a link to a directory on a larger disk, and run "
        "`make setup` again."
    )


def read_requirements(text):
    """(ordinary pins, pins installed without dependencies); a line that is not an exact pin is an error."""
    ordinary, alone = [], []
    into = ordinary
    for line in text.splitlines():
        line = line.strip()
        if line == NO_DEPS:
            into = alone
        elif line and not line.startswith("#"):
            if not PIN.match(line):
                raise SetupError(
                    f"{line!r} in a requirement file is not an exact pin: write `name==version` and run "
                    "`make setup` again."
                )
            into.append(line)
    return ordinary, alone


def torch_offered(index_output, pinned):
    """The build that pip would take for torch==pinned, out of the output of `pip index versions torch`."""
    for line in index_output.splitlines():
        if line.startswith("Available versions:"):
            for version in line.split(":", 1)[1].split(","):
                if version.strip().split("+")[0] == pinned:
                    return version.strip()
    return None


def torch_is_cpu(version, system):
    """PyPI's own wheels (no local part in the version) carry CUDA on Linux and are CPU builds on macOS."""
    return version.endswith("+cpu") or ("+" not in version and system == "Darwin")


def diagnose(output):
    """One sentence for what pip wrote before it failed."""
    if "No space left" in output or "Disk quota exceeded" in output:
        found = "the disk is full: free some space for .venv, pip's cache and the temporary directory"
    elif re.search(r"\(from versions: (?!none\))", output) and not re.search(UNREACHABLE, output):
        found = (
            "pip's index answered but has no file of a pinned version for this Python and platform: choose "
            "another Python with PYTHON=/path/to/python3.11, or another index,"
        )
    elif re.search(UNREACHABLE + "|No matching distribution|Could not find a version", output):
        found = (
            "pip could not reach a package index: check the network connection (or the proxy and the index "
            "in `pip config list`)"
        )
    elif re.search(r"ResolutionImpossible|conflicting dependencies", output):
        found = "the pinned versions contradict each other: restore the requirement files"
    elif "Permission denied" in output:
        found = "a file could not be written: make .venv, pip's cache and the repository writable"
    elif re.search(r"Failed building|metadata-generation-failed|subprocess-exited-with-error", output):
        found = "a package had to be built here and that failed: install what the lines above miss"
    else:
        found = "pip failed for the reason in the lines above: put it right"
    return found + " and run `make setup` again."


def wanted_stamp(root, gpu):
    """What the stamp of a complete environment holds, less the Python it was made with."""
    digest = hashlib.sha256()
    for name in ("requirements.txt", "requirements-cpu.txt", "requirements-gpu.txt", "pyproject.toml"):
        with open(os.path.join(root, name), "rb") as handle:
            content = handle.read()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return {"requirements": digest.hexdigest(), "gpu": gpu, "root": root}


def stamp_matches(stamp, wanted, venv_python, exact_python=None):
    """Is the environment complete and the one wanted? venv_python: the version in .venv/pyvenv.cfg."""
    if not isinstance(stamp, dict) or any(stamp.get(key) != value for key, value in wanted.items()):
        return False
    if stamp.get("python") is None or stamp["python"] != venv_python:
        return False
    return exact_python is None or exact_python == venv_python


def can_update(stamp, wanted, venv_python, python):
    """May pip work on the environment that is there? Only on a complete one, same place, Python and GPU."""
    return (
        isinstance(stamp, dict)
        and stamp.get("root") == wanted["root"]
        and stamp.get("gpu") == wanted["gpu"]
        and stamp.get("python") == venv_python == python
    )


# --- looking at the machine --------------------------------------------------------------------------------


def read_stamp(venv):
    try:
        with open(os.path.join(venv, STAMP)) as handle:
            return json.load(handle)
    except (OSError, ValueError):
        return None


def version_of_venv(venv):
    """major.minor of the Python in .venv, or None where it is missing or no longer starts."""
    if not os.path.exists(os.path.join(venv, "bin", "python")):  # also false for a link to a removed Python
        return None
    try:
        with open(os.path.join(venv, "pyvenv.cfg"), encoding="utf-8") as handle:
            found = re.search(r"^version\s*=\s*(\d+)\.(\d+)", handle.read(), re.M)
    except (OSError, ValueError):
        return None
    return dotted(found.groups()) if found else None


def has_gpu():
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        done = subprocess.run([program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def gpu_now(stamp):
    """has_gpu(), without starting nvidia-smi (up to seconds) where there was a GPU at set-up."""
    if isinstance(stamp, dict) and stamp.get("gpu") is True and shutil.which("nvidia-smi"):
        return True
    return has_gpu()


def find_python():
    """Path of a Python on PATH that will do and really starts (a shim may not), one with venv if any."""
    started = []
    for version in PYTHONS:
        path = shutil.which("python" + dotted(version))
        if path is None:
            continue
        code = f"import sys; print(sys.version_info[:2] == {version}); import venv, ensurepip; print('venv')"
        try:
            done = subprocess.run([path, "-I", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                  timeout=30)  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            continue
        said = done.stdout.decode(errors="replace").split()
        if said == ["True", "venv"]:
            return path
        if said == ["True"]:
            started.append(path)
    return started[0] if started else None


def base_python():
    """The Python that .venv is made with: not one inside a virtual environment, which may be .venv itself."""
    if sys.prefix == sys.base_prefix:
        return sys.executable
    base = getattr(sys, "_base_executable", None) or ""
    if os.path.exists(base) and os.path.dirname(base) != os.path.join(sys.prefix, "bin"):
        return base
    return os.path.join(sys.base_prefix, "bin", "python" + dotted(sys.version_info))


def size_of(directory):
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except OSError:
                continue
    return total


def check_disk(venv, needed):
    there = venv if os.path.isdir(venv) else os.path.dirname(venv)
    free = shutil.disk_usage(there).free + (size_of(venv) if there == venv else 0)
    sentence = disk_sentence(free, needed, venv)
    if sentence:
        raise SetupError(sentence)


def clean_environment(variables):
    """Environment for pip: nothing that lets another Python's packages in, or sends packages elsewhere."""
    drop = (
        "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT",
        "PIP_NO_DEPS", "PIP_DRY_RUN", "PIP_REQUIREMENT", "PIP_REQUIRE_VIRTUALENV", "PIP_PYTHON", "PIP_QUIET",
        "PIP_VERBOSE", "PIP_LOG",
    )  # fmt: skip
    kept = {name: value for name, value in variables.items() if name not in drop}
    kept.update(PYTHONNOUSERSITE="1", PIP_USER="0", PIP_NO_INPUT="1", PYTHONUTF8="1", LC_ALL="C")
    return kept


# --- doing it ----------------------------------------------------------------------------------------------


def run(command, log):
    """Run a command to its end with its output in the log; (exit status, output)."""
    with open(log, "ab") as handle:
        handle.write("$ {}\n".format(" ".join(command)).encode())
        handle.flush()
        start = handle.tell()
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=handle, stderr=subprocess.STDOUT,
                                 env=clean_environment(os.environ))  # fmt: skip
        try:
            status = child.wait()
        except BaseException:  # an interrupt: no child outlives the set-up that started it
            child.terminate()
            child.wait()
            raise
    with open(log, "rb") as handle:
        handle.seek(start)
        return status, handle.read().decode(errors="replace")


def show_tail(output, log):
    lines = [line[:300] for line in output.splitlines() if line.strip()]
    sys.stderr.write("".join(f"    {line}\n" for line in lines[-15:]))
    sys.stderr.write(f"    (all of it: {log})\n")


def pip(venv, *arguments):
    """Run .venv's own pip; its output, or its last 15 lines and a sentence."""
    log = os.path.join(venv, LOG)
    command = [os.path.join(venv, "bin", "python"), "-m", "pip"] + list(arguments)
    status, output = run(command + ["--disable-pip-version-check"], log)
    if status != 0:
        show_tail(output, log)
        raise SetupError(diagnose(output))
    return output


def install(venv, *arguments):
    return pip(venv, "install", "-q", "--progress-bar", "off", *arguments)


def make_venv(venv):
    """An empty environment in .venv, in place of whatever this script left there before."""
    try:
        import ensurepip
        import venv as _
    except ImportError:
        raise SetupError(
            f"{sys.executable} has no venv module (or no ensurepip), which makes the environment: install it "
            f"(on Debian and Ubuntu: `sudo apt install python{dotted(sys.version_info)}-venv`) or choose another "
            "Python with `make setup PYTHON=/path/to/python3.11`."
        ) from None
    del ensurepip, _
    if os.path.isdir(venv):
        names = os.listdir(venv)
        if names and MARK not in names:
            raise SetupError(
                f"{venv} was not made by this set-up, which clears only what it made: move it away or "
                "delete it, and run `make setup` again."
            )
        for name in names:
            path = os.path.join(venv, name)
            if name != MARK:
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path)
                else:
                    os.remove(path)
    else:
        os.makedirs(venv)
    with open(os.path.join(venv, MARK), "w") as handle:
        handle.write("This directory was made by tinyr1/environment.py, which may clear it.\n")
    log = os.path.join(venv, LOG)
    status, output = run([base_python(), "-m", "venv", venv], log)
    if status != 0:
        show_tail(output, log)
        if "No space left" in output:
            raise SetupError(diagnose(output))
        raise SetupError(
            f"`{base_python()} -m venv` failed: install its venv module (on Debian and Ubuntu: `sudo apt "
            f"install python{dotted(sys.version_info)}-venv`) or choose another Python with "
            "`make setup PYTHON=/path/to/python3.11`."
        )


def pins(root, name):
    with open(os.path.join(root, name), encoding="utf-8") as handle:
        return read_requirements(handle.read())


def set_up(root, venv, stamp, wanted):
    python = dotted(sys.version_info)
    gpu = wanted["gpu"]
    ordinary, alone = pins(root, "requirements.txt")
    check_disk(venv, DISK_CUDA if gpu else DISK_CPU)
    update = can_update(stamp, wanted, version_of_venv(venv), python)
    if update:
        os.remove(os.path.join(venv, STAMP))  # from here on it is unfinished
    else:
        say(f"making .venv with Python {platform.python_version()}")
        make_venv(venv)

    torch = [PIN.match(pin).group(2) for pin in ordinary if pin.startswith("torch==")]
    if torch:
        # Which build pip would take decides the room needed; without an index this fails early, too.
        offered = torch_offered(pip(venv, "index", "versions", "torch", "--retries", "1"), torch[0])
        if offered is None:
            raise SetupError(diagnose("(from versions: others)"))
        if gpu and offered.endswith("+cpu"):
            say(f"pip is offered PyTorch as a CPU build ({offered}), so the GPU will not be used")
            gpu = False
        elif not torch_is_cpu(offered, platform.system()):
            check_disk(venv, DISK_CUDA)
    more, more_alone = pins(root, "requirements-gpu.txt" if gpu else "requirements-cpu.txt")
    ordinary, alone = ordinary + more, alone + more_alone

    what = "{}{} packages".format("PyTorch and " if torch else "", len(ordinary) + len(alone) - len(torch))
    say("installing {} into .venv ({})".format(what, "the changes" if update else "about 4 minutes, once"))
    listed = os.path.join(venv, "tinyr1-requirements.txt")
    for extra, lines in (([], ordinary), (["--no-deps"], alone)):
        if lines:
            with open(listed, "w") as handle:
                handle.write("".join(line + "\n" for line in lines))
            install(venv, *(extra + ["-r", listed]))
    install(venv, "--no-deps", "--no-build-isolation", "-e", root)

    checked = subprocess.run([os.path.join(venv, "bin", "python"), "-I", "-c", CHECK],
                             input=json.dumps(ordinary + alone).encode(), stdout=subprocess.PIPE)  # fmt: skip
    wrong = checked.stdout.decode(errors="replace").split("\n")[0]
    if wrong or checked.returncode != 0:
        raise SetupError(
            f"pip reported success, but .venv does not hold the pinned {wrong or 'packages'}: delete .venv and "
            "run `make setup` again."
        )
    made = dict(wanted, python=python)
    made["installed_for"] = "gpu" if gpu else "cpu"
    unfinished = os.path.join(venv, STAMP + ".part")
    with open(unfinished, "w") as handle:
        json.dump(made, handle, indent=1, sort_keys=True)
        handle.write("\n")
    os.replace(unfinished, os.path.join(venv, STAMP))
    say("done")


def say(text):
    print("set-up: " + text, flush=True)


def main(arguments, root=ROOT):
    """--exact-python: .venv must be of the Python running this (for a PYTHON= given by hand)."""
    venv = os.path.join(root, ".venv")
    usable = python_sentence(sys.version_info) is None

    def ready():
        stamp = read_stamp(venv)
        wanted = wanted_stamp(root, gpu_now(stamp))
        exact = dotted(sys.version_info) if "--exact-python" in arguments else None
        return stamp_matches(stamp, wanted, version_of_venv(venv), exact), stamp, wanted

    if ready()[0]:
        return 0
    if os.name != "posix":
        raise SetupError("this is Windows, and this project needs Linux or macOS: run `make setup` in WSL.")
    if not usable:
        exact = "--exact-python" in arguments
        other = None if exact else find_python()
        if other is None:
            raise SetupError(python_sentence(sys.version_info, searched=not exact))
        sys.stdout.flush()
        os.execv(other, [other, "-I", os.path.abspath(__file__)] + list(arguments))

    import fcntl

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    lock = os.open(root, os.O_RDONLY)  # the directory itself: nothing to leave behind
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("waiting for another set-up of this repository")
            fcntl.flock(lock, fcntl.LOCK_EX)
        done, stamp, wanted = ready()
        if not done:
            set_up(root, venv, stamp, wanted)
    finally:
        os.close(lock)
    return 0


def guarded(arguments, root=ROOT):
    try:
        return main(arguments, root)
    except SetupError as error:
        sys.stderr.write(f"set-up: {error}\n")
        return 1
    except OSError as error:
        what = f"{error}: put it right and run `make setup` again."
        if error.errno == errno.ENOSPC:
            what = diagnose("No space left")
        sys.stderr.write(f"set-up: {what}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nset-up: interrupted; run `make setup` to start it again.\n")
        return 130


if __name__ == "__main__":
    sys.exit(guarded(sys.argv[1:]))
