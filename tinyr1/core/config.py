"""Runs: `params/<run>.yaml` in, one frozen object out, which also knows where everything of the run is stored.

`load(run)` reads one complete file (there is no inheritance) and checks it against `tinyr1.core.params`. All problems
are reported at once, each with its path in the file and the rule it breaks.
"""

import difflib
import inspect
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import yaml
from pydantic import TypeAdapter, ValidationError

from tinyr1.core.errors import UserError
from tinyr1.core.params import Block, Params, contradictions
from tinyr1.core.recipe import Recipe

STAGES = ("01_data_curation", "02_branch_sft", "03_fusion_merge", "04_evaluation", "05_ablations")
ROOT = Path(__file__).resolve().parents[2]
SCORE_COLUMNS = (
    "run", "model", "benchmark", "n_problems", "n_samples", "pass_at_1", "ci_low", "ci_high",
    "mean_tokens", "truncated", "no_answer", "timeout", "grader_error", "paper",
)  # fmt: skip


class Config(Block):
    """Validated parameters of one run, and where everything of it is stored."""

    run: str
    params: Params

    @property
    def home(self) -> Path:
        """Artifacts of the run; TINYR1_HOME moves them, to a cluster's scratch disk for example.

        Like every relative path of this kit, it is relative to the repository: notebooks run in several folders.
        """
        return ROOT / os.environ.get("TINYR1_HOME", "runs") / self.run

    @property
    def reports(self) -> Path:
        """Small evidence of the run: records, scores, figures, rendered notebooks. `make publish` copies it."""
        return self.home / "report"

    def remedy(self, target: str) -> str:
        """What an error tells a person to do about a missing or damaged result: the make target that makes it."""
        return f"run `make {target} RUN={self.run}`"

    @property
    def backbone(self) -> Path:
        """Folder of the common ancestor of the branches."""
        return self.home / "backbone"

    def rows(self, domain: str) -> Path:
        """Folder of a domain's curated rows: rows.jsonl and their tokens (tinyr1.data.tokens)."""
        return self.home / "rows" / domain

    def model(self, name: str) -> Path:
        """Folder of a checkpoint, by model name."""
        if name == "backbone":
            return self.backbone
        return self.home / ("merged" if name in self.merges else "branches") / name

    def known_key(self, model: str) -> str | None:
        """What ties responses to a model, where that is not the manifest of a checkpoint of this run."""
        return None

    def responses(self, model: str, benchmark: str) -> Path:
        """The store of a model's answers to a benchmark."""
        return self.home / "responses" / model / f"{benchmark}.jsonl"

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains, which are also the names of their experts."""
        return tuple(self.params.domains)

    @property
    def merges(self) -> dict[str, Recipe]:
        """Recipes of the merged models by model name; the first one is the merged model of the report."""
        return {merged.called: merged.recipe for merged in self.params.merge.models}

    @property
    def branches(self) -> tuple[str, ...]:
        """The experts, then the data-mixture baseline if the run has one."""
        return (*self.domains, "mixture") if self.params.mixture else self.domains

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that is evaluated, in the order of the tables."""
        return ("backbone", *self.branches, *self.merges)


def reports_folder() -> Path:
    """reports/, where published reports are committed; or TINYR1_REPORTS, which tests use to leave them alone."""
    return ROOT / os.environ.get("TINYR1_REPORTS", "reports")


def params_folder() -> Path:
    """params/, or TINYR1_PARAMS."""
    return ROOT / os.environ.get("TINYR1_PARAMS", "params")


def runs() -> list[str]:
    """Names of the runs that have a params file."""
    return sorted(p.stem for p in params_folder().glob("*.yaml"))


def load(run: str) -> Config:
    """Parameters of `run`, validated. UserError names every problem."""
    path = params_folder() / f"{run}.yaml"
    if not re.fullmatch(r"[A-Za-z0-9._-]+", str(run)) or not path.is_file():
        close = difflib.get_close_matches(str(run), runs(), n=1)
        hint = f" Did you mean RUN={close[0]}?" if close else ""
        raise UserError(f"run {run!r}: there is no params/{run}.yaml; runs are {', '.join(runs())}.{hint}")
    return Config(run=run, params=parse(path.read_text(encoding="utf-8"), f"params/{run}.yaml"))


def parse(text: str, name: str) -> Params:
    """Params from YAML text; `name` is how messages call the file."""
    try:
        data = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{name}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise UserError(f"{name}: expected a mapping of parameters, found {type(data).__name__}")
    return validate(data, name)


def validate(data: dict, name: str) -> Params:
    """Params from plain data; UserError lists every problem as `name: path: value rule`."""
    try:
        return Params.model_validate(data)
    except ValidationError as error:
        lines = [line for item in error.errors() for line in _explain(dict(item), data)]
        lines += contradictions(_valid_part(Params, data))  # pydantic looks for these where nothing else is wrong
        raise UserError("\n".join(f"{name}: {line}" for line in sorted(set(lines)))) from error


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML loader that refuses a key given twice, where PyYAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _valid_part(block: type, data: dict) -> Any:
    """A block with those parameters of `data` that are valid in themselves; the others are absent."""
    values = {}
    for name in block.model_fields.keys() & data.keys():
        field, value = block.model_fields[name], data[name]
        inner = get_args(field.annotation)[-1] if get_origin(field.annotation) is dict else None
        if _is_block(field.annotation) and isinstance(value, dict):
            values[name] = _valid_part(field.annotation, value)
        elif _is_block(inner) and isinstance(value, dict):
            values[name] = {k: _valid_part(inner, v) for k, v in value.items() if isinstance(v, dict)}
        else:
            with suppress(ValidationError):
                values[name] = TypeAdapter(Annotated[field.annotation, field]).validate_python(value)
    return block.model_construct(**values)


def _is_block(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, Block)


_PHRASES = {
    "missing": "is missing; every parameter must be given",
    "float_type": "is not a number; e.g. 1.0e-5",
    "float_parsing": "is not a number; e.g. 1.0e-5",
    "int_type": "is not a whole number",
    "int_parsing": "is not a whole number",
    "int_from_float": "is not a whole number",
    "bool_type": "is neither true nor false",
    "bool_parsing": "is neither true nor false",
    "string_type": "is not a text",
    "dict_type": "is not a mapping",
    "list_type": "is not a list",
    "model_type": "is not a mapping of parameters",
    "model_attributes_type": "is not a mapping of parameters",
    "date_type": "is not a date of the form YYYY-MM-DD; e.g. 2024-08-01",
    "date_from_datetime_parsing": "is not a date of the form YYYY-MM-DD; e.g. 2024-08-01",
    "date_parsing": "is not a date of the form YYYY-MM-DD; e.g. 2024-08-01",
    "too_short": "is empty; give at least one",
}


def _explain(item: dict, data: object) -> list[str]:
    """One pydantic error as lines `path: value rule`."""
    path, value, kind = ".".join(_parts(item, data)), item["input"], item["type"]
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(str(item["loc"][-1]), _known_keys(), n=1, cutoff=0.75)
        return [f"{path}: unknown parameter" + (f"; did you mean {close[0]!r}?" if close else "")]
    if kind == "missing":
        return [f"{path}: {_PHRASES[kind]}"]
    if kind == "value_error":
        lines = str(item["ctx"]["error"]).splitlines()
        # A rule of a block names the parameter that it is about ("window: …"); a check of one value does not.
        return [f"{path}{'.' if path and ': ' in line else ': ' if path else ''}{line}" for line in lines]
    if kind == "union_tag_not_found":
        return [f"{path}: needs the key kind: {item['ctx']['discriminator']}"]
    if kind == "union_tag_invalid":
        return [f"{path}.kind: {item['ctx']['tag']!r} should be one of {item['ctx']['expected_tags']}"]
    return [f"{path}: {value!r} {_PHRASES.get(kind, item['msg'].replace('Input should be', 'should be'))}"]


def _parts(item: dict, data: object) -> Iterator[str]:
    """The keys of a parameter's path in the file; pydantic's own path also names the members of unions it tried."""
    for part in item["loc"]:
        is_key = isinstance(data, dict) and part in data
        if is_key or (isinstance(data, list) and isinstance(part, int) and part < len(data)):
            data = data[part]
            yield str(part)
    if item["type"] == "missing":
        yield str(item["loc"][-1])


def _known_keys() -> list[str]:
    """Every parameter of every block, for "did you mean"."""
    blocks, seen = [Block], set()
    while blocks:
        subclasses = blocks.pop().__subclasses__()
        blocks += subclasses
        seen |= {name for block in subclasses for name in block.model_fields}
    return sorted(seen)
