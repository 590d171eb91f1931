"""Whatever the package, the params files, the notebooks and the documents cite is in the repository.

    docs/fidelity.md §3.2        a heading of that document
    docs/fidelity.md C12         a row of its table of contradictions; also lists, such as C12 to C14
    paper §3.1.1                 a section of arXiv 2503.04872v2; a Table or Figure needs no more than its number
"""

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT

PAPER = {"1", "2.1", "2.2", "3.1.1", "3.1.2", "3.2"}  # those that docs/fidelity.md quotes
# The ledger counts the fate of each raw row; no document has this name.
LEDGER = {f"tinyr1/data/{name}.py" for name in ("columns", "curate", "examples", "gather", "ledger", "sources")} | {
    "notebooks/01_data_curation.ipynb", "README.md", "CONTRIBUTING.md"
}  # fmt: skip

ITEM = r"(?:§\d+(?:\.\d+)*(?:-\d+(?:\.\d+)*)?|C\d+)"
SOURCE = r"docs/[\w-]+\.md|\[[^\]]*\]\((?:docs/)?[\w-]+\.md\)|[Pp]aper(?:'s)?|[\w-]+\.md|ledger"
CITATION = re.compile(rf"(?P<source>{SOURCE})`?,? \(?(?P<items>{ITEM}(?:(?:,? and |,? to |, |; ){ITEM})*)")


def files(root):
    """Everything that may cite, by its path in the repository."""
    patterns = ["tinyr1/**/*.py", "tinyr1/**/*.j2", "params/**/*.*", "notebooks/*.ipynb", "*.md", "docs/*.md"]
    found = {path for pattern in patterns for path in root.glob(pattern)} - {root / "CHANGELOG.md"}
    return {str(path.relative_to(root)): path for path in sorted(found)}


def text_of(path):
    """The text of a file on one line: a citation may run over two lines of a comment."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    return text if path.suffix == ".md" else re.sub(r"\s*\n\s*(?:# )?", " ", text)


def headings(path):
    """(numbers of the sections of a document, its contradictions, the anchors of its links)."""
    text = path.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    numbers = {match[1] for title in titles if (match := re.match(r"(\d+(?:\.\d+)*)\.? ", title))}
    anchors = set(re.findall(r'<a id="([^"]+)">', text))
    slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    return numbers, {anchor.upper() for anchor in anchors if re.fullmatch(r"c\d+", anchor)}, anchors | slugs


def problems(root):
    """What is cited and is not there, each as "file: citation: why"."""
    documents = {path.name: headings(path) for path in (root / "docs").glob("*.md")}
    for name, path in files(root).items():
        text, own = text_of(path), documents.get(path.name) if name.startswith("docs/") else None
        for cited in sorted(set(re.findall(r"\bdocs/[\w-]+\.md", text))):
            if not (root / cited).is_file():
                yield f"{name}: {cited}: no such document"
        rest = text
        for match in CITATION.finditer(text):
            source, said = match["source"], match[0]
            rest = rest.replace(said, " ", 1)
            if source.startswith(("paper", "Paper")):
                wrong = [one for one in re.findall(r"§([\d.]*\d)", said) if one not in PAPER and not own]
                yield from (f"{name}: {said}: the paper has no §{one}" for one in wrong)
                continue
            if not source.startswith(("docs/", "[")):
                yield f"{name}: {said}: not a document of the repository; cite docs/<name>.md"
                continue
            document = documents.get(Path(re.search(r"([\w-]+\.md)\)?$", source)[1]).name)
            if document is not None:
                yield from (f"{name}: {said}: {why}" for why in missing(match["items"], document))
        yield from bare(name, rest, own)
        for target, anchor in re.findall(r"\]\(((?:docs/)?[\w-]*(?:\.md)?)#([\w-]+)\)", text):
            document = documents.get(Path(target).name) if target else headings(path)
            if document is None or anchor not in document[2]:
                yield f"{name}: {target}#{anchor}: the link leads nowhere"
        if "ledger" in text.lower() and name not in LEDGER and not name.startswith("tinyr1/report/"):
            yield f"{name}: ledger: is the word for the counts of curation only"


def missing(items, document):
    numbers, contradictions, _ = document
    for start, end in re.findall(r"§(\d+(?:\.\d+)*)(?:-(\d+(?:\.\d+)*))?", items):
        yield from (f"no §{one}" for one in (start, end) if one and one not in numbers)
    yield from (f"no {one}" for one in re.findall(r"C\d+", items) if one not in contradictions)


def bare(name, rest, own):
    """Sections without a source: in a document they are its own or the paper's."""
    for line in rest.splitlines():
        for item in re.findall(r"§\d+(?:\.\d+)*|(?<=\()C\d+(?=[),])", line):
            if own is None:
                yield f"{name}: {item}: says of no document; cite docs/<name>.md {item} or paper {item}"
            elif item.removeprefix("§") not in PAPER:
                yield from (f"{name}: {item}: {why}" for why in missing(item, own))


PARAMS = Path("tinyr1/core/params")


def test_every_citation_is_in_the_repository():
    assert list(problems(ROOT)) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        (PARAMS / "training.py", "docs/fidelity.md §2.2", "docs/fidelity.md §2.9", "no §2.9"),
        (PARAMS / "evaluation.py", "docs/fidelity.md C33", "docs/fidelity.md C35", "no C35"),
        (PARAMS / "training.py", "C12 to C14", "C12 to C41", "no C41"),
        (PARAMS / "evaluation.py", "docs/evaluation.md §3.4", "docs/sandbox.md §3.4", "no such document"),
        (PARAMS / "evaluation.py", "docs/evaluation.md §3.4", "evaluation.md §3.4", "not a document of the repository"),
        (PARAMS / "evaluation.py", "docs/evaluation.md §3.4", "ledger §3.4", "not a document of the repository"),
        (PARAMS / "evaluation.py", "docs/evaluation.md §3.4", "§3.4", "says of no document"),
        (PARAMS / "training.py", "paper §3.1.1: 16,384", "paper §3.1.7: 16,384", "the paper has no §3.1.7"),
        (PARAMS / "schema.py", "One sentence for", "One line of the ledger for", "is the word for the counts"),
        ("docs/evaluation.md", "[fidelity.md](fidelity.md) §4.", "[fidelity.md](fidelity.md) §44.", "no §44"),
        ("docs/evaluation.md", "(§5)", "(§55)", "no §55"),
        ("docs/evaluation.md", "(#6-statistics)", "(#7-statistics)", "the link leads nowhere"),
    ],
)
def test_a_planted_citation_of_something_else_is_reported(tmp_path, file, old, new, complaint):
    for name in ("docs", "params", "notebooks", "tinyr1"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    before = set(problems(tmp_path))
    text = (tmp_path / file).read_text(encoding="utf-8")
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    lines = set(problems(tmp_path)) - before
    assert all(line.startswith(f"{file}: ") for line in lines)
    assert any(complaint in line for line in lines)
