"""Checkouts as people have them: an archive without git, in a folder with a blank, on a disk that cannot be written.

A mount namespace makes the checkout read-only, which takes root; elsewhere these tests are skipped.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest
from kit import WHOLE_RUN

from tinyr1.core.config import ROOT, STAGES

MOUNT = 'mount --bind -o ro "$1" "$2"; cd "$2"; shift 2; exec "$@"'
REQUIREMENTS = ("requirements.txt", "requirements-cpu.txt", "requirements-gpu.txt")
PARTS = ("tinyr1", "notebooks", "params", "pyproject.toml", *REQUIREMENTS)


@pytest.fixture
def checkout(tmp_path):
    """Call with words and variables: what Python says to them in a read-only archive of the kit, without git."""
    source, place, programs = tmp_path / "source", tmp_path / "my kit", tmp_path / "bin"
    for folder in (source, place, programs):
        folder.mkdir()
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TINYR1_")}

    def run(*words, **variables):
        inside = ["unshare", "--mount", "sh", "-ec", MOUNT, "sh", source, place, "env", f"PATH={programs}", *words]
        environment = kept | {"PYTHONPATH": str(place), "HOME": str(tmp_path)} | variables
        words = list(map(str, inside))
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=WHOLE_RUN)

    tried = run(shutil.which("touch"), "x")
    if "Read-only file system" not in tried.stderr:
        pytest.skip(f"nothing can be mounted here: {tried.stderr.strip()}")
    return place, run


def test_where_nothing_can_be_written_a_run_ends_in_one_sentence_before_its_first_stage(checkout):
    place, run = checkout
    done = run(sys.executable, "-m", "tinyr1.run", "smoke")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {place}/runs/smoke cannot be written (Read-only file system); all of a run is stored there: set "
        "TINYR1_HOME to a folder that you may write to\n"
    )
    assert "==" not in done.stdout


@pytest.mark.slow
def test_a_read_only_archive_without_git_in_a_folder_with_a_blank_runs_with_its_results_elsewhere(checkout, tmp_path):
    done = checkout[1](sys.executable, "-m", "tinyr1.run", "smoke", "--stage", STAGES[0],
                       TINYR1_HOME=str(tmp_path / "my runs"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = tmp_path / "my runs" / "smoke" / "report"
    assert (report / f"{STAGES[0]}.html").is_file()
    code = json.loads((report / f"{STAGES[0]}.json").read_text(encoding="utf-8"))["code"]
    assert (code["commit"], code["modified"], len(code["source"])) == ("no commit", False, 64)
