"""The installed packages beside the pins of the requirement files."""

from importlib import metadata

from packaging.requirements import Requirement
from packaging.version import Version

from tinyr1.core.config import ROOT
from tinyr1.core.errors import UserError

COMMON, ON_CPU, ON_GPU = "requirements.txt", "requirements-cpu.txt", "requirements-gpu.txt"
SHOWN = 5  # packages in one message


def check() -> str:
    """How many packages are at their pins, in words. UserError that names those that are not."""
    if wrong := differences():
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise UserError(
            f"{', '.join(wrong[:SHOWN])}{more}; run `rm -f .venv/tinyr1-stamp.json` and `make setup`, which makes the "
            "environment anew"
        )
    return f"{len(required())}, as pinned"


def differences() -> list[str]:
    """Each package that is not at its pin, in words."""
    wrong = []
    for one in required():
        there, due = installed(one.name), next(iter(one.specifier)).version
        if there is None:
            wrong.append(f"{one.name} is not installed")
        elif Version(there).public != Version(due).public:  # a build such as +cpu is the same release
            wrong.append(f"{one.name} is {there}, pinned is {due}")
    return wrong


def required() -> list[Requirement]:
    """The pins that hold on this machine, those of the vLLM build that is installed included."""
    found = []
    for name in (COMMON, ON_GPU if installed("vllm") else ON_CPU):
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                requirement = Requirement(line)
                if requirement.marker is None or requirement.marker.evaluate():
                    found.append(requirement)
    return found


def installed(name: str) -> str | None:
    """The version of a package that is installed, None where it is not."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
