"""JupyterLab, where people step through the notebooks: `make lab` in a real browser, on a clone, with run `smoke`."""

import difflib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import chromium
import pytest
from lab import Lab, clone, git, make, until
from test_kill import family
from test_notebooks import strip_command

from tinyr1.core.config import ROOT, STAGES

pytestmark = pytest.mark.slow
FIRST, SECOND = STAGES[:2]
REFUSED = "another process is making it; wait for it or stop it first"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("there is nothing to clone: the kit came as an archive")
    return clone(tmp_path_factory.mktemp("lab") / "tinyr1")


@pytest.fixture(scope="module")
def environment(smoke_run, tmp_path_factory):
    """Variables with a copy of the finished run, and without the settings of whoever runs this test."""
    scratch = tmp_path_factory.mktemp("scratch")
    shutil.copytree(smoke_run[0]["TINYR1_HOME"], scratch / "home")
    own = {f"JUPYTER_{name}_DIR": str(scratch / f"jupyter-{name.lower()}") for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {"TINYR1_HOME": str(scratch / "home"), "IPYTHONDIR": str(scratch / "ipython")}
    around = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "RUN", "ARGS", "PYTHONPATH")
    return {name: value for name, value in smoke_run[0].items() if name not in around} | own


@pytest.fixture(scope="module")
def home(environment):
    return Path(environment["TINYR1_HOME"], "smoke")


@pytest.fixture(scope="module")
def lab(repository, environment, tmp_path_factory):
    program = chromium.installed()
    if program is None:
        pytest.skip(f"no browser is installed: one of {', '.join(chromium.NAMES)}")
    folder = tmp_path_factory.mktemp("browser")
    browser = chromium.Chromium(program, folder)
    try:
        opened = Lab(repository, environment, browser, folder.with_name("lab.log"))
        try:
            opened.open()
            yield opened
        finally:
            opened.close()
    finally:
        browser.close()


def changes(repository, stage):
    """The lines that a commit of a notebook would add and remove."""
    name = f"notebooks/{stage}.ipynb"
    words = [*strip_command(), "--textconv", name]
    stripped = subprocess.run(words, cwd=repository, check=True, capture_output=True, text=True).stdout
    before = git(repository, "show", f"HEAD:{name}").splitlines()
    lines = list(difflib.unified_diff(before, stripped.splitlines(), n=0, lineterm=""))[2:]
    return [line for line in lines if not line.startswith("@@")]


def made(home):
    """When each finished model, table and store of answers of the run was written, without what is made of them for
    other tools."""
    files = [file for name in ("*.safetensors", "*.jsonl") for file in home.rglob(name)
             if ".partial" not in str(file) and "lm_eval" not in file.parts]  # fmt: skip
    return {file: file.stat().st_mtime_ns for file in files}


def test_make_lab_opens_the_repository_at_the_first_notebook(lab):
    assert f"/lab/tree/notebooks/{FIRST}.ipynb?token=" in lab.address
    assert lab.tab(FIRST).current == f"notebooks/{FIRST}.ipynb"
    names = "jupyterapp.serviceManager.contents.get('').then((folder) => folder.content.map((entry) => entry.name))"
    assert {"README.md", "Makefile", "notebooks", "params", "tinyr1"} <= set(lab.browser.evaluate(names))


@pytest.mark.parametrize("stage", STAGES)
def test_a_notebook_that_is_run_and_saved_shows_no_error_and_leaves_nothing_to_commit(lab, repository, home, stage):
    tab = lab.tab(stage)
    tab.save()
    assert changes(repository, stage) == [], "it was opened and saved"
    before = made(home)
    tab.name_run("smoke")
    tab.run_all(300)
    assert tab.failures() == []
    cells = tab.cells()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert lab.errors() == []
    tab.save()
    assert changes(repository, stage) == ['-    "run = \\"smol\\""', '+    "run = \\"smoke\\""']
    after = made(home)
    assert {file: after.get(file) for file in before} == before, "finished work was made again"
    tab.shut_down()


def test_the_next_make_finds_what_was_run_in_jupyterlab_finished(lab, repository, environment):
    done = make(repository, environment, FIRST, "RUN=smoke", stdout=subprocess.PIPE)
    assert (done.communicate(timeout=300)[0], done.returncode) == (f"{FIRST}: kept\n", 0)


def trainings(home):
    """Processes that train on the run, by number."""
    return [pid for pid, command in family(home.parent) if "-m tinyr1.branch.train" in command or "--module" in command]


def hold(home):
    """Stop the trainings of the run in their tracks, as long as they are; a function that lets them go on."""
    until(lambda: trainings(home), 120, "a training has begun")
    held = trainings(home)
    for pid in held:
        os.kill(pid, signal.SIGSTOP)
    return lambda: [os.kill(pid, signal.SIGCONT) for pid in held]


def test_a_stage_goes_on_after_the_stop_button_and_a_restart_and_only_one_process_works_on_it(
    lab, repository, environment, home
):
    branches = home / "branches"
    for name in ("science", "code"):
        shutil.rmtree(branches / name)
    before = made(home)
    tab = lab.tab(SECOND)
    tab.name_run("smoke")

    tab.start()
    until(lambda: (branches / "science.partial").exists(), 240, "science is trained")
    until(lambda: trainings(home), 120, "a training has begun")
    tab.click("notebook:interrupt-kernel")
    tab.wait(120)
    assert [failure["ename"] for failure in tab.failures()] == ["KeyboardInterrupt"]
    until(lambda: not trainings(home), 60, "the training has ended with its cell")

    tab.start()
    go_on = hold(home)
    done = make(repository, environment, SECOND, "RUN=smoke", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _, said = done.communicate(timeout=400)
    assert done.returncode
    assert f"UserError: {branches / 'science.partial'}: {REFUSED}" in said
    assert "Traceback" not in said
    go_on()
    until(lambda: (branches / "code.partial").exists(), 240, "code is trained")
    science = (branches / "science" / "model.safetensors").stat().st_mtime_ns
    tab.click("notebook:restart-kernel")
    tab.confirm()
    until(lambda: not trainings(home), 120, "the training has ended with the kernel")
    until(lambda: tab.status == "idle", 120, "the kernel is there again")

    with open(home / "terminal.txt", "w") as file:
        done = make(repository, environment, SECOND, "RUN=smoke", stdout=file, stderr=file)
    go_on = hold(home)
    tab.run_all(300)
    (failure,) = tab.failures()
    assert failure["traceback"] == [f"UserError: {branches / 'code.partial'}: {REFUSED}"]
    go_on()
    assert done.wait(timeout=400) == 0, (home / "terminal.txt").read_text()
    after = made(home)
    assert (branches / "code" / "model.safetensors") in after
    assert after[branches / "science" / "model.safetensors"] == science
    kept = {file: stamp for file, stamp in before.items() if file.suffix == ".safetensors"}
    assert {file: after.get(file) for file in kept} == kept
