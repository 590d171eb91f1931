"""README and CONTRIBUTING name what is there, and their commands are ones that the kit takes.

The commands of the README's table of tasks are carried out on run `smoke` by tests/test_smoke.py; what needs a server,
a GPU or a network is checked here as far as its arguments go. That the README's numbers are those of the published
report is tested in tests/report/test_publish.py.
"""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from functools import cache

import pytest
import yaml
from conftest import ROOT
from kit import WHOLE_RUN

from tinyr1.core import config
from tinyr1.data import curate
from tinyr1.data.contamination import Contamination

MOST_LINES, MOST_LINES_TO_READ, MOST_LINES_OF_README = 400, 2600, 220
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/params.md", "docs/smol.md")
# Commands that no test carries out, and why.
NOT_DONE = {
    "make lab": "tests/test_lab.py does it",
    "make test": "it runs these tests",
    "make 01_data_curation RUN=yours": "test_the_domain_of_the_readme_is_curated does it",
    "make reproduce RUN=r1-1.5b": "it takes a GPU and most of a day",
    "make reproduce RUN=verify-r1-distill-1.5b": "it takes a GPU; tests/test_verification.py does it on a tiny model",
    "make plan RUN=paper": "tests/test_plan.py does it",
    "make gpu-check": "it needs a card; tests/gpu does it on a CPU",
    'make merge MATH=a SCIENCE=b CODE=c OUT=d ARGS="--reading released"': "tests/merge does it for every reading",
    "python -m tinyr1.merge --recipe recipe.yaml --out d": "tests/merge does it",
    "python -m tinyr1.evaluate --endpoint http://localhost:8000/v1 --model NAME --benchmarks aime24": "needs a server",
    "python -m tinyr1.evaluate --model NAME --benchmarks aime24 --responses answers.jsonl": "it needs the hub",
    "python -m tinyr1.evaluate --model FOLDER --benchmarks aime24 --against OUT_FOLDER": "it needs the hub",
    "python -m tinyr1.evaluate --model A --model B --benchmarks aime24": "it needs the hub; tests/evaluate does it",
    "deepspeed --num_gpus 8 --module tinyr1.branch.train plan.json": "it needs eight GPUs",
    "python -m tinyr1.sampling.process plan.json": "tests/sampling does it",
}


def lines_of(path):
    return len(path.read_text(encoding="utf-8").splitlines())


@cache
def readme():
    return (ROOT / "README.md").read_text(encoding="utf-8")


def section(title):
    return readme().split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows_of(title):
    """The cells of the table in a section, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def tasks():
    """The commands of the table of tasks."""
    return [row[1].strip("`") for row in rows_of("What you can do")]


def make(*words, given="", **variables):
    """Run make on the environment that this test runs in. given: what stands at its standard input."""
    set_around = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "RUN", "MODEL", "ARGS")
    env = {k: v for k, v in os.environ.items() if k not in set_around} | variables
    command = ["make", "-o", "setup", f"PY={sys.executable}", *words]
    return subprocess.run(command, env=env, cwd=ROOT, input=given, capture_output=True, text=True, timeout=WHOLE_RUN)


def reading_path():
    return [ROOT / target for target in re.findall(r"\((tinyr1/[^)]+\.py)\)", section("Reading path"))]


def test_the_readme_is_short_enough_to_be_read():
    assert lines_of(ROOT / "README.md") <= MOST_LINES_OF_README


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


# --- the table of results -----------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["backbone", "expert", "mixture", "merge", "pass@1", "interval", "Chance"])
def test_words_are_explained_before_the_table_that_uses_them(word):
    before, after = section("Results of the miniature").split("<!-- results of smol: ")
    assert f"**{word}**" in before
    assert f"**{word}**" not in after


def test_every_model_of_the_table_is_explained_before_it():
    before = section("Results of the miniature").partition("<!-- results of smol: ")[0]
    with (ROOT / "reports" / "smol" / "scores.csv").open(encoding="utf-8", newline="") as file:
        models = {row["model"] for row in csv.DictReader(file)}
    assert models
    assert sorted(model for model in models if not re.search(rf"(?<![\w-]){model}(?![\w-])", before)) == []


# --- runs and files -----------------------------------------------------------------------------------------


def test_the_table_of_hardware_has_every_run():
    runs = sorted(row[0].strip("`") for row in rows_of("Hardware and cost"))
    assert runs == sorted(path.stem for path in (ROOT / "params").glob("*.yaml"))


def tree():
    """(path, description) of each line of the file tree."""
    return re.findall(r"^    (\S+) +(.+)$", section("Files"), re.MULTILINE)


def test_the_file_tree_names_what_is_there():
    for name, described in tree():
        place = ROOT / name
        assert place.is_dir() if name.endswith("/") else place.is_file(), name
        folder = place if place.is_dir() else place.parent
        for other in re.findall(r"[\w.-]+(?:\.(?:py|md|txt|json|csv)\b|/(?= |,|;|$))", described):
            places = [folder / other, *folder.glob(f"*/{other}")]  # reports/ has a folder for each run
            assert any(p.exists() for p in places), f"{name}: {other}"


def test_the_file_tree_names_every_part_of_the_package():
    package = ROOT / "tinyr1"
    parts = {p.name for p in package.iterdir() if (p / "__init__.py").is_file()}
    parts |= {p.name for p in package.glob("*.py") if p.stem != "__init__"}
    assert sorted(part for part in parts if not re.search(rf"\b{re.escape(part)}", section("Files"))) == []


# --- commands -----------------------------------------------------------------------------------------------


def commands():
    """Every command that the README shows, each once: those of its tables, its sentences and its blocks."""
    blocks = re.findall(r"^    ((?:make|python|deepspeed) .+)$", readme(), re.MULTILINE)
    shown = [re.sub(r" {2,}#.*", "", line) for line in [*re.findall(r"`(make [^`]+)`", readme()), *blocks]]
    return list(dict.fromkeys(shown))


def test_every_command_is_carried_out_or_listed_with_the_reason():
    assert set(commands()) - set(tasks()) - {"make setup"} <= set(NOT_DONE)
    assert set(NOT_DONE) <= set(commands())


@cache
def help_of(module):
    """What a command of the package says about itself."""
    told = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    return told.stdout


@pytest.mark.parametrize("command", NOT_DONE)
def test_a_command_that_is_not_carried_out_has_arguments_that_are_taken(command):
    planned = command
    if command.startswith("make "):
        shown = make("-n", *shlex.split(command)[1:])
        assert shown.returncode == 0, shown.stderr
        assert sys.executable in shown.stdout
        planned = shown.stdout
    for module, rest in re.findall(r"(?:-m|--module) (tinyr1[\w.]+)(.*)", planned):
        options = {word for word in shlex.split(rest) if word.startswith("--")}
        assert options <= set(re.findall(r"--[a-z][a-z-]*", help_of(module)))
        assert ("plan.json" in rest) == bool(re.search(r"^  plan ", help_of(module), re.MULTILINE))


def test_the_domain_of_the_readme_is_curated(home, tokenizer):
    """The README's block, put under `domains` of a params file, and rows as it describes them."""
    (block,) = re.findall(r"```yaml\n(.*?)```", section("Your own data"), re.DOTALL)
    assert len(block.splitlines()) <= 10
    data = home / "history.jsonl"
    rows = [{"prompt": f"Who was king {i}?", "completion": f"<think>Count {i}.</think>It was {i}."} for i in range(5)]
    data.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": "Cut?", "completion": "<think>Hm"}]))
    params = yaml.safe_load((ROOT / "params" / "smol.yaml").read_text(encoding="utf-8"))
    params["domains"] |= yaml.safe_load(block.replace("data/history.jsonl", str(data)))
    params["backbone"]["distill"]["rows"]["history"] = 2
    (home / "params" / "mine.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    cfg = config.load("mine")
    ledger = curate.curate_domain(cfg, "history", Contamination([], cfg.params.curate.decontaminate), tokenizer)
    assert (ledger.raw, ledger.kept, [why for _, why in ledger.dropped]) == (6, 5, ["incomplete"])
    first = next(curate.curated_rows(cfg, "history"))
    assert (first["question"], first["thinking"], first["response"]) == ("Who was king 0?", "Count 0.", "It was 0.")
