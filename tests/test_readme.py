"""README and CONTRIBUTING name what is there; the package keeps to the sizes that they promise."""

import re

import pytest
from conftest import ROOT

MOST_LINES, MOST_LINES_TO_READ = 400, 2600
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/params.md", "docs/smol.md")


def lines_of(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def reading_path():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("\n## Reading path\n")[1].split("\n## ")[0]
    return [ROOT / target for target in re.findall(r"\((tinyr1/[^)]+\.py)\)", section)]


def test_the_reading_path_is_short_enough_to_be_read():
    modules = reading_path()
    assert len(modules) >= 15
    assert sum(map(lines_of, modules)) <= MOST_LINES_TO_READ


@pytest.mark.parametrize("path", sorted((ROOT / "tinyr1").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_module_is_too_long_to_be_read_at_once(path):
    assert lines_of(path) <= MOST_LINES


@pytest.mark.parametrize("name", PAGES)
def test_every_link_to_a_file_leads_to_one(name):
    page = ROOT / name
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [t for t in targets if "://" not in t and not (page.parent / t).exists()] == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_every_module_and_make_target_that_is_named_is_there(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    modules = re.findall(r"(?:python -m|--module) (tinyr1(?:\.\w+)+)", text)
    places = [ROOT / module.replace(".", "/") for module in modules]
    assert [p for p in places if not (p.with_suffix(".py").is_file() or (p / "__main__.py").is_file())] == []
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?:`|^    )make ([a-z-]+)", text, re.MULTILINE))
    assert targets
    assert [t for t in targets if not re.search(rf"^{t}:", makefile, re.MULTILINE)] == []
