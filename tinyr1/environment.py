"""Set up .venv at the repository root, once: `python3 -I tinyr1/environment.py [--exact-python]`.

The stamp in .venv is written last: an environment without it is unfinished, never used, and made afresh. pip installs
uv, and uv the rest, from the indexes of pip. Standard library and syntax of Python 3.8: a wrong one ends in a sentence.
"""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV, PYTHON, STAMP = ROOT / ".venv", ROOT / ".venv" / "bin" / "python", ROOT / ".venv" / "tinyr1-stamp.json"
MARK = VENV / "tinyr1-setup-started"  # written first: this script may clear the folder
FILES = ("requirements.txt", "requirements-cpu.txt", "requirements-gpu.txt", "pyproject.toml")
PYTHONS, THIS, BASE = ("3.11", "3.12", "3.13"), "{}.{}".format(*sys.version_info), os.path.realpath(sys.executable)
# How installers name a missing network; variables that change what is installed, or where; settings of pip for uv.
NO_NETWORK = r"name resolution|lookup address|[Cc]onnect(ion|\))|timed out|unreachable|Proxy|SSL|versions: none"
LEAKS = "PYTHON|VIRTUAL_|PIP_(TARG|PREF|ROOT|DRY|REQ|PY)|UV_(PY|SYSTEM_P|PROJ|WORK|.*CONF|.*CONSTR|OVER|EXCL|REQ|NO_ED)"
FOR_UV = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "find-links": "UV_FIND_LINKS",
          "no-index": "UV_OFFLINE", "trusted-host": "UV_INSECURE_HOST", "constraint": "UV_CONSTRAINT",
          "cert": "SSL_CERT_FILE", "proxy": "ALL_PROXY", "timeout": "UV_HTTP_TIMEOUT"}  # fmt: skip


def end(sentence="the installer failed: put right what the lines above name", output=""):
    """End with the last lines of an installer's output, if any, and one sentence."""
    if re.search("No space left|Disk quota", output):
        sentence = "the disk is full: free some space for .venv, the cache of uv and temporary files"
    elif re.search(NO_NETWORK, output):
        sentence = "no package index was reached: check the network, and the proxy and indexes in `pip config list`"
    tail = "".join(f"    {line[:300]}\n" for line in output.strip().splitlines()[-15:])
    sys.exit(f"{tail}set-up: {sentence}, and run `make setup` again.")


def run(*command, may_fail=False, **variables):
    """Run a command to its end; its output, or nothing where it may fail and does."""
    kept = {name: value for name, value in os.environ.items() if not re.match(LEAKS, name)}
    kept.update(variables, PYTHONNOUSERSITE="1", PIP_USER="0", PIP_QUIET="0", PIP_NO_INPUT="1")
    with subprocess.Popen(command, cwd=ROOT, env=kept, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, start_new_session=True, close_fds=False) as child:  # fmt: skip
        try:
            output = child.communicate()[0].decode(errors="replace")
        finally:
            if child.returncode is None:  # an interrupt: no child outlives the set-up
                os.killpg(child.pid, signal.SIGTERM)
    return output if child.returncode == 0 else "" if may_fail else end(output=output)


def leave_others(stamp):
    """End where .venv is a link to an environment that is another clone's, which nothing here may change."""
    if not VENV.is_symlink():
        return
    place = VENV.resolve()
    if not place.exists():
        end(f"{VENV} is a link to {place}, which does not exist: make that folder, or remove the link")
    owners = [stamp.get("root"), MARK.read_text("utf-8") if MARK.exists() else None, str(place.parent)]
    for owner in filter(None, owners):  # a clone that was moved away has no .venv there any more
        if Path(owner) != ROOT and (Path(owner) / ".venv").resolve() == place:
            end(f"{VENV} is a link to the environment of {owner}, which would be lost: link it to another folder")


def make_venv():  # in place of what an earlier set-up left there
    VENV.mkdir(exist_ok=True)
    entries = set(VENV.iterdir())
    if entries and MARK not in entries:
        end(f"{VENV} was not made by this set-up, which clears only what it made: move it away or delete it")
    MARK.write_text(str(ROOT), "utf-8")
    for entry in entries - {MARK}:
        (shutil.rmtree if entry.is_dir() and not entry.is_symlink() else os.remove)(entry)
    # sys.executable may have been a link in there; the module refuses a folder that is a link.
    run(BASE, "-m", "venv", VENV.resolve())


def install(gpu, new):
    """The pins and this package; without a GPU PyTorch's CPU build, where pip's indexes or its own offer it."""
    pins = {line.split("==")[0]: line for line in (ROOT / FILES[0]).read_text("utf-8").splitlines()}
    run(PYTHON, "-m", "pip", "install", "--disable-pip-version-check", pins["uv"])
    listing, settings = run(PYTHON, "-m", "pip", "config", "list"), {}
    for section in ("global", "install", ":env:"):  # the later win
        for name, value in re.findall(rf"^{section}\.(?:default-)?({'|'.join(FOR_UV)})=.(.+).$", listing, re.M):
            values = map(os.path.expanduser, value.replace(r"\n", " ").split())
            settings[FOR_UV[name]] = ("," if name == "find-links" else " ").join(values)
    uv = (VENV / "bin" / "uv", "pip", "install", "--index-strategy=unsafe-best-match", "--python", PYTHON)
    torch = (*uv, "--dry-run", "--reinstall", "--no-deps", pins["torch"])
    cpu, own = "+cpu" in run(*torch, **settings), {"UV_TORCH_BACKEND": "cpu"}  # `own`: PyTorch's own index
    if not (cpu or gpu) and "+cpu" in run(*torch, may_fail=True, UV_HTTP_RETRIES="0", **settings, **own):
        cpu, settings = True, {**settings, **own}
    need = 4 if cpu else 12
    if new and shutil.disk_usage(VENV).free < need * 2**30:
        end(f"{VENV} needs {need} GB of disk: free some, or make it a link to a folder on a larger disk")
    print(f"set-up: {'making' if new else 'updating'} .venv, PyTorch's {'CPU' if cpu else 'CUDA'} build", flush=True)
    run(*uv, "-r", FILES[0], "-r", FILES[2 if gpu and not cpu else 1], "-b", FILES[0], "-e", ".", **settings)


def main(exact):
    lock = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("set-up: waiting for another set-up of this repository", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    stamp = json.loads(STAMP.read_text()) if STAMP.exists() and PYTHON.exists() else {}
    gpu = shutil.which("nvidia-smi") is not None and (stamp.get("gpu") or os.system("nvidia-smi >/dev/null 2>&1") == 0)
    wanted = {"gpu": gpu, "python": THIS if exact else stamp.get("python", THIS), "root": str(ROOT),
              "requirements": [(ROOT / name).read_text("utf-8") for name in FILES]}  # fmt: skip
    if stamp == wanted:
        return
    leave_others(stamp)
    if THIS not in PYTHONS:
        for other in filter(None, map(shutil.which, [] if exact else [f"python{version}" for version in PYTHONS])):
            if subprocess.call([other, "-I", "-c", "import ensurepip"], stderr=subprocess.DEVNULL) == 0:
                os.execv(other, [other, "-I", __file__, "--exact-python"])  # frees the lock
        end(f"Python {THIS} is not 3.11, 3.12 or 3.13: install one of them, give it as PYTHON=/path/to/python3.11")
    os.set_inheritable(lock, True)  # a child that outlives a killed set-up keeps the next one waiting
    new = any(stamp.get(key) != wanted[key] for key in ("gpu", "python", "root"))
    STAMP.unlink(missing_ok=True)  # from here on it is unfinished
    if new:
        make_venv()
    install(gpu, new)
    STAMP.with_suffix(".part").write_text(json.dumps(wanted, indent=1))
    STAMP.with_suffix(".part").replace(STAMP)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit("set-up: interrupted; `make setup` starts it again."))
    try:
        main("--exact-python" in sys.argv)
    except OSError as error:
        end(output=str(error))
