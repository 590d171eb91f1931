"""docs/params.md and params/schema.json: both are generated, current, and say something of every parameter."""

import copy
import datetime
import json
import re

import jsonschema
import pytest
import yaml
from conftest import ROOT

from tinyr1.core.params import __main__ as generator
from tinyr1.core.params import reference
from tinyr1.core.params.blocks import Block
from tinyr1.core.params.schema import Params

FILES = sorted((ROOT / "params").glob("*.yaml"))
BLOCKS = [kind for kinds in reference.blocks(Params).values() for kind in kinds]
OWN = sorted({kind for kind in BLOCKS if issubclass(kind, Block)}, key=lambda kind: kind.__name__)


@pytest.fixture(scope="module")
def schema():
    return json.loads((ROOT / "params" / "schema.json").read_text(encoding="utf-8"))


def plain(value):
    """YAML data as an editor sees it: dates are texts, and 1e-5 is a number (YAML 1.2)."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, datetime.date) else value


def faults(schema, data):
    """The paths at which a validator for editors marks something."""
    validator = jsonschema.Draft7Validator(schema, format_checker=jsonschema.FormatChecker())
    return [list(error.absolute_path) for error in validator.iter_errors(plain(data))]


def outdated(root):
    """The generated files that are not what the blocks of tinyr1.core.params give."""
    return [path for path, text in generator.generated().items() if (root / path).read_text(encoding="utf-8") != text]


def test_what_is_generated_is_current():
    assert outdated(ROOT) == [], "run `python -m tinyr1.core.params` and commit what it writes"


@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
def test_every_parameter_has_a_meaning_that_is_a_sentence(kind):
    assert kind.__doc__
    for name, field in reference.fields_of(kind).items():
        text = field.description
        assert text, f"{kind.__name__}.{name} has no description"
        assert re.match(r"[A-Zλ`]", text), f"{kind.__name__}.{name}: {text}"
        assert text.rstrip().endswith("."), f"{kind.__name__}.{name}: {text}"


@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
def test_every_parameter_names_its_source(kind):
    """The paper, the released code, a document, or that it is a choice; what a kind is needs none."""
    for name, field in reference.fields_of(kind).items():
        text = field.description or ""
        assert name == "kind" or re.search(r"paper|released|docs/|choice", text, re.IGNORECASE), f"{name}: {text}"


def test_the_page_has_every_parameter_once_for_each_block():
    page = (ROOT / "docs" / "params.md").read_text(encoding="utf-8")
    for path, kinds in reference.blocks(Params).items():
        assert not path or f"`{path}`" in page
        section = page.split(f'<a id="{kinds[0].__name__.lower()}"></a>')[1].split("<a id=")[0]
        for kind in kinds:
            names = set(reference.fields_of(kind)) - ({"kind"} if len(kinds) > 1 else set())
            assert all(f"\n| `{name}` |" in section for name in names)
            assert len(kinds) == 1 or f"* `kind: {reference.tag(kind)}`: " in section
    targets = set(re.findall(r"\]\(#([^)]*)\)", page))
    assert targets <= set(re.findall(r'<a id="([^"]*)">', page)), "a link of the page leads nowhere"


def test_the_tables_of_the_page_have_as_many_cells_as_columns():
    page = (ROOT / "docs" / "params.md").read_text(encoding="utf-8")
    for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_params_file_tells_editors_its_schema(path):
    assert path.read_text(encoding="utf-8").splitlines()[0] == "# yaml-language-server: $schema=schema.json"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_params_file_passes_the_schema(schema, path):
    jsonschema.Draft7Validator.check_schema(schema)
    assert faults(schema, yaml.safe_load(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", "many"),
        ("bogus", 1),
        ("trainer.zero_stage", 4),
        ("trainer.zero_stages", 3),
        ("evaluate.split", "train"),
        ("evaluate.engine.kind", "web"),
        ("domains.Math", {}),
        ("domains.math.limit", 0),
        ("domains.math.sources.0.kind", "web"),
        ("domains.math.sources.0.window", []),
        ("domains.math.sft.learning_rate", "fast"),
        ("domains.math.benchmarks.mini-math.path", "x"),
        ("merge.models", []),
        ("merge.models.0.recipe.right", "math"),
        ("merge.models.0.recipe.method", "fusio"),
    ],
)
def test_an_editor_marks_what_config_refuses(schema, path, value):
    data = yaml.safe_load((ROOT / "params" / "smol.yaml").read_text(encoding="utf-8"))
    spoilt = block = copy.deepcopy(data)
    *above, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in above:
        block = block[key]
    block[last] = value
    assert faults(schema, data) == []
    marks = faults(schema, spoilt)
    assert marks
    assert all(mark == [*above, last][: len(mark)] for mark in marks)


def test_the_schema_has_titles_descriptions_choices_and_kinds(schema):
    domain = schema["definitions"]["Domain"]["properties"]
    assert "draft-07" in schema["$schema"], "the YAML language server warns of newer ones"
    assert not re.search(r"prefixItems|\$defs", json.dumps(schema)), "draft 7 does not know them"
    assert schema["title"]
    assert domain["sources"]["items"]["discriminator"]["propertyName"] == "kind"
    assert schema["definitions"]["Sft"]["properties"]["schedule"]["enum"]
    for name, block in schema["definitions"].items():
        for key, part in block["properties"].items():
            described = "description" in part or name in ("Recipe", "Input")  # those of tinyr1.core.recipe
            assert described, f"{name}.{key}"
            assert "\n" not in part.get("description", "")


def test_the_blocks_at_a_path_are_known():
    def names(*path):
        return [kind.__name__ for kind in reference.kinds_at(Params, path)]

    assert names() == ["Params"]
    assert names("backbone", "distill") == ["Distill"]
    assert names("domains", "any", "sources", 3) == ["HubSource", "FileSource", "MiniatureSource"]
    assert names("merge", "models", 0, "recipe", "other", "other") == ["Recipe"]
    assert names("seed") == names("nowhere", "at", "all") == []
