"""The peers the kit is measured against and compared with, in an environment of their own (.venv-bench).

It sees the kit's packages and adds its own without their dependencies, so that peers never decide the kit's versions.
"""

import subprocess
import sys
from pathlib import Path

from tinyr1.core import record
from tinyr1.core.config import ROOT

ENVIRONMENT = ROOT / ".venv-bench"
PINS = ("trl==1.16.0", "mergekit==0.1.5", "immutables==0.21", "peft==0.21.2")


def python() -> str:
    """The peers' interpreter; its environment is made or completed when it lacks a pin."""
    interpreter, done = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "pins.txt"
    pins = "\n".join(PINS) + "\n"
    if not done.exists() or done.read_text(encoding="utf-8") != pins:
        subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", ENVIRONMENT], check=True)
        site = Path(record.__file__).parents[2]
        kit = next(p for p in sys.path if p.endswith("site-packages"))
        folder = next((ENVIRONMENT / "lib").glob("python3*")) / "site-packages"
        (folder / "kit.pth").write_text(f"{kit}\n{site}\n", encoding="utf-8")
        subprocess.run([interpreter, "-m", "pip", "install", "-q", "--retries", "10", "--no-deps", *PINS], check=True)
        done.write_text(pins, encoding="utf-8")  # last: an environment without it is not finished
    return str(interpreter)
