"""`make lab` on a clone, and its page in headless Chromium: what a person does there, by the commands of its buttons.

    Lab: make lab --prints--> address --Chromium--> JupyterLab <-- Tab: one notebook that is open there
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from chromium import Chromium

from tinyr1.core.config import ROOT

ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/lab\S*")
# With it, the page has a name for the application, and a test can see when a kernel is idle.
SEEN = "--LabApp.expose_app_in_browser=True"
# What JupyterLab says on its console by itself. Anything else is an error of a notebook.
OWN_WORDS = ()


def clone(folder: Path) -> Path:
    """A git clone of this repository as it is now, all changes committed, with an environment that imports it."""
    subprocess.run(["git", "clone", "-q", ROOT, folder], check=True, capture_output=True)
    for name in ("tinyr1", "notebooks", "params", "Makefile", ".pre-commit-config.yaml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name, **({"dirs_exist_ok": True} if (ROOT / name).is_dir() else {}))
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", "as it is now")
    environment, kit = folder / ".venv", Path(sys.prefix)
    site = environment / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    for made in (site, environment / "bin"):
        made.mkdir(parents=True)
    shutil.copy(kit / "pyvenv.cfg", environment)
    (environment / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    for name in ("share", "etc"):  # of JupyterLab
        (environment / name).symlink_to(kit / name)
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "clone.pth").write_text(f"{folder}\n{packages}\n", encoding="utf-8")
    return folder


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def make(folder: Path, environment: dict, *words: str, **streams: object) -> subprocess.Popen:
    """Start make in a clone, without a set-up."""
    command = ["make", "-o", "setup", *words]
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, start_new_session=True, **streams)


class Lab:
    """JupyterLab as `make lab` starts it, open in a browser."""

    def __init__(self, folder: Path, environment: dict, browser: Chromium, log: Path) -> None:
        self.browser = browser
        with log.open("w") as file:
            self.process = make(
                folder, environment, "lab", f"ARGS=--no-browser --port 0 {SEEN}", stdout=file, stderr=file
            )
        deadline = time.monotonic() + 120
        while not (found := ADDRESS.search(log.read_text())):
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        self.address = found[0]

    def open(self) -> None:
        """Load the printed address, until the notebook that it names can be run."""
        self.browser.send("Emulation.setFocusEmulationEnabled", enabled=True)  # commands are for the tab with the focus
        self.browser.go(self.address)
        until(lambda: self.browser.evaluate("Boolean(window.jupyterapp)"), 120, "the application starts")
        self.browser.evaluate("jupyterapp.restored.then(() => 0)")

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(timeout=60)

    def tab(self, stage: str) -> "Tab":
        """The tab of a notebook, opened where it is not, in front of the others."""
        path = json.dumps(f"notebooks/{stage}.ipynb")
        self.browser.evaluate(f"jupyterapp.commands.execute('docmanager:open', {{path: {path}}}).then(() => 0)")
        tab = Tab(self.browser, stage)
        until(lambda: tab.current == f"notebooks/{stage}.ipynb", 60, f"{stage} is open")
        until(lambda: tab.status == "idle", 120, f"the kernel of {stage} is idle")
        return tab

    def errors(self) -> list[str]:
        """What the console shows as an error, without what JupyterLab says by itself."""
        texts = [json.dumps(said) for said in self.browser.said() if is_error(said)]
        return [text for text in texts if not any(re.search(known, text) for known in OWN_WORDS)]


def is_error(said: dict) -> bool:
    return "exceptionDetails" in said or "error" in (said.get("type"), said.get("entry", {}).get("level"))


class Tab:
    """The notebook that is in front."""

    PANEL = "jupyterapp.shell.currentWidget"

    def __init__(self, browser: Chromium, stage: str) -> None:
        self.browser, self.stage = browser, stage

    @property
    def current(self) -> str | None:
        return self.browser.evaluate(f"{self.PANEL}?.context?.path")

    @property
    def status(self) -> str | None:
        """idle, busy, restarting … of the kernel; None before there is one."""
        return self.browser.evaluate(f"{self.PANEL}?.sessionContext?.session?.kernel?.status")

    def name_run(self, name: str) -> None:
        """Type the name of a run into the cell of parameters."""
        source = json.dumps(f'run = "{name}"')
        cell = f"{self.PANEL}.content.widgets.find((c) => (c.model.getMetadata('tags') ?? []).includes('parameters'))"
        self.browser.evaluate(f"{cell}.model.sharedModel.setSource({source})")

    def start(self) -> None:
        """Run All, without waiting for its end."""
        self.browser.evaluate(
            "void (window.ran = null, jupyterapp.commands.execute('notebook:run-all-cells').then(() => window.ran = 1))"
        )

    def run_all(self, seconds: float) -> None:
        self.start()
        self.wait(seconds)

    def wait(self, seconds: float) -> None:
        """Until all cells have run, or one has failed."""
        until(lambda: self.browser.evaluate("window.ran"), seconds, f"{self.stage} has run")

    def click(self, command: str) -> None:
        """Press the button of the notebook's toolbar that has this command."""
        self.browser.press(f"""{self.PANEL}.toolbar.node.querySelector('[data-command="{command}"]')""")

    def confirm(self) -> None:
        """Press the button of a dialog that agrees."""
        button = "document.querySelector('.jp-Dialog .jp-mod-accept')"
        until(lambda: self.browser.evaluate(f"Boolean({button})"), 30, "a dialog asks")
        self.browser.evaluate(f"{button}.click()")

    def save(self) -> None:
        self.browser.evaluate("jupyterapp.commands.execute('docmanager:save').then(() => 0)")
        until(lambda: not self.browser.evaluate(f"{self.PANEL}.context.model.dirty"), 30, f"{self.stage} is saved")

    def shut_down(self) -> None:
        """End the kernel, which gives its memory back, and close the tab."""
        self.browser.evaluate(
            f"void (window.gone = null, ((panel) => panel.sessionContext.shutdown().then(() => {{ panel.dispose(); "
            f"window.gone = 1 }}))({self.PANEL}))"
        )
        until(lambda: self.browser.evaluate("window.gone"), 60, f"{self.stage} is closed")

    def cells(self) -> list[dict]:
        """The code cells as the notebook file would hold them."""
        book = self.browser.evaluate(f"{self.PANEL}.context.model.toJSON()")
        return [cell for cell in book["cells"] if cell["cell_type"] == "code"]

    def failures(self) -> list[dict]:
        """The outputs that are errors."""
        return [out for cell in self.cells() for out in cell["outputs"] if out["output_type"] == "error"]


def until(holds, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"after {seconds} s it is not so that {what}"
        time.sleep(0.2)
