"""Checkouts as people have them: an archive without git, in a folder with a blank, on a disk that cannot be written.

A mount namespace makes the checkout read-only, which takes root; elsewhere these tests are skipped. All stages run in
such a checkout in tests/test_domains.py.
"""

import json
import sys

import pytest
from kit import read_only_archive

from tinyr1.core.config import STAGES


@pytest.fixture
def checkout(tmp_path):
    """`read_only_archive`, where this machine lets a test make one."""
    place, run = read_only_archive(tmp_path)
    if isinstance(run, str):
        pytest.skip(run)
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
