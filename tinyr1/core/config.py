"""Runs: `params/<run>.yaml` in, one frozen object out, which also knows where everything of the run is stored.

`load(run)` reads one complete file (there is no inheritance) and checks it against `tinyr1.core.params`. All problems
are reported at once, each with its path in the file and the rule it breaks.
"""

import difflib
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from tinyr1.core import params_text
from tinyr1.core.errors import UserError
from tinyr1.core.params import reference
from tinyr1.core.params.ablations import Ablations
from tinyr1.core.params.blocks import PATTERNS, Block
from tinyr1.core.params.schema import Params, contradictions
from tinyr1.core.params.training import MergedModel
from tinyr1.core.recipe import Recipe

# Those of a run that trains; a verification run has the last two (`Config.stages`).
STAGES = ("01_data_curation", "02_branch_sft", "03_fusion_merge", "04_evaluation", "05_ablations")
ROOT = Path(__file__).resolve().parents[2]
SCORE_COLUMNS = (
    "run", "model", "benchmark", "n_problems", "n_samples", "pass_at_1", "ci_low", "ci_high",
    "mean_tokens", "truncated", "no_answer", "timeout", "grader_error", "looping", "chance", "paper",
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
        return runs_folder() / self.run

    @property
    def reports(self) -> Path:
        """Small evidence of the run: records, scores, figures, rendered notebooks. `make publish` copies it."""
        return self.home / "report"

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of the run, in their order; a verification run trains and merges nothing."""
        return STAGES[3:] if self.params.verification else STAGES

    def require_training(self, what: str) -> None:
        """UserError where the run trains nothing and so has nothing for `what` (the subject of a sentence)."""
        if self.params.verification:
            raise UserError(
                f"{what} has nothing to do for {self.run}, which asks a published model and trains and merges nothing; "
                f"{self.remedy('reproduce')} for its evaluation and report"
            )

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
        if name == self.models[0]:
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
    def merged_models(self) -> dict[str, MergedModel]:
        """The merged models by name; the first one is the merged model of the report."""
        if self.params.verification:
            return {}
        return {merged.called: merged for merged in self.params.merge.models}

    @property
    def merges(self) -> dict[str, Recipe]:
        """Recipes of the merged models by name."""
        return {name: merged.recipe for name, merged in self.merged_models.items()}

    @property
    def branches(self) -> tuple[str, ...]:
        """The experts, then the data-mixture baseline if the run has one; none in a verification run."""
        if self.params.verification:
            return ()
        return (*self.domains, "mixture") if self.params.mixture else self.domains

    @property
    def key_variables(self) -> tuple[str, ...]:
        """Names of the environment variables that hold keys of the run's servers."""
        teacher = self.params.teacher.engine if self.params.teacher else None
        named = (getattr(engine, "api_key_variable", None) for engine in (self.params.evaluate.engine, teacher))
        return tuple(filter(None, named))

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that is evaluated, in the order of the tables; a published one alone bears its own name."""
        if self.params.verification:
            return (located(self.params.backbone.model).name,)
        return ("backbone", *self.branches, *self.merges)


def runs_folder() -> Path:
    """runs/, or TINYR1_HOME: the artifacts of all runs."""
    return ROOT / os.environ.get("TINYR1_HOME", "runs")


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
    """Parameters of `run`, validated. UserError names every problem.

    run: the name of a file in the folder of params files; `smol.yaml` and `params/smol.yaml` are understood as well.
    """
    run = str(run).removeprefix("params/").removesuffix(".yaml")
    path = params_folder() / f"{run}.yaml"
    if not re.fullmatch(r"[A-Za-z0-9._-]+", run) or not path.is_file():
        close = difflib.get_close_matches(run, runs(), n=1)
        hint = f" Did you mean RUN={close[0]}?" if close else ""
        raise UserError(f"run {run!r}: there is no params/{run}.yaml; runs are {', '.join(runs())}.{hint}")
    name = f"params/{run}.yaml"
    return Config(run=run, params=parse(params_text.text_of(path, name), name))


def located(path: str) -> Path:
    """A path as a params file names it: relative to the repository, with `~` and `$NAME` as in a shell."""
    return ROOT / os.path.expandvars(os.path.expanduser(path))


def parse(text: str, name: str) -> Params:
    """Params from YAML text; `name` is how messages call the file."""
    return validate(params_text.mapping(text, name), name)


def ablations_from(cfg: Config, file: Path) -> Ablations:
    """The `ablations` block of a file that holds only that, for the models of a run. UserError names every problem."""
    if not file.is_file():
        raise UserError(f"{file}: does not exist; give a YAML file that holds an `ablations` block")
    data = params_text.mapping(params_text.text_of(file, str(file)), str(file))
    if extra := sorted(data.keys() - {"ablations"}):
        raise UserError(f"{file}: {', '.join(extra)}: such a file holds the block `ablations` and nothing else")
    own = cfg.params.model_dump(mode="json", by_alias=True)
    checked = validate(own | {"ablations": data.get("ablations")}, str(file)).ablations
    if checked is None:
        raise UserError(f"{file}: ablations: is missing or null; give the block")
    return checked


def validate(data: dict, name: str) -> Params:
    """Params from plain data; UserError lists every problem as `name: path: value rule`."""
    try:
        return Params.model_validate(data)
    except ValidationError as error:
        lines = [line for item in error.errors() for line in _explain(dict(item), data)]
        told = [_path(line) for line in lines]
        # pydantic looks for these where nothing else is wrong. What is wrong in itself is absent there, not missing.
        lines += [
            line for line in contradictions(_valid_part(Params, data))
            if not (line.endswith(_PHRASES["missing"]) and any(path.startswith(_path(line)) for path in told))
        ]  # fmt: skip
        raise UserError("\n".join(f"{name}: {line}" for line in sorted(set(lines)))) from error


def _path(line: str) -> str:
    """The path of a line `path: value rule`, with a dot behind it."""
    return f"{line.partition(': ')[0]}."


def _valid_part(block: type[Block], data: dict) -> Any:
    """A block with those parameters of `data` that are valid in themselves; the others are absent."""
    values: dict[str, Any] = {}
    for name in block.model_fields.keys() & data.keys():
        field, value = block.model_fields[name], data[name]
        is_mapping = get_origin(field.annotation) is dict
        key, inner = get_args(field.annotation) if is_mapping else (None, field.annotation)
        with suppress(ValidationError):
            if not (isinstance(inner, type) and issubclass(inner, Block) and isinstance(value, dict)):
                values[name] = TypeAdapter(field.rebuild_annotation()).validate_python(value)
            elif not is_mapping:
                values[name] = _valid_part(inner, value)
            elif value and all(isinstance(entry, dict) for entry in value.values()):
                names = TypeAdapter(list[key]).validate_python(list(value))  # type: ignore[valid-type]
                values[name] = {one: _valid_part(inner, value[one]) for one in names}
    return block.model_construct(**values)


# --- messages -----------------------------------------------------------------------------------------------

_PHRASES = {
    "missing": "is missing; every parameter must be given",
    "float_type": "is not a number; e.g. 1.0e-5",
    "float_parsing": "is not a number; e.g. 1.0e-5",
    "int_type": "is not a whole number",
    "int_parsing": "is not a whole number",
    "int_from_float": "is not a whole number",
    "bool_type": "is neither true nor false",
    "string_type": "is not a text",
    "dict_type": "is not a mapping",
    "list_type": "is not a list",
    "tuple_type": "is not a list",
    "model_type": "is not a mapping of parameters",
    "model_attributes_type": "is not a mapping of parameters",
    "too_short": "is empty; give at least one",
}
_STEP = "{method: fusion, base: code, other: math}"
_EXAMPLES = {  # of the blocks of tinyr1.core.recipe
    "Recipe": f"is not a merge step; e.g. {_STEP}",
    "Input": "is not a model with its settings; e.g. {model: math, weight: 0.5}",
}
# Where parameters of the first edition of params files are now. A path ends in the parameter.
_MOVED = {
    "sources": "domains.<domain>.sources",
    "branch": "domains.<domain>.sft, and branch.mixture to mixture",
    "curate.limit": "domains.<domain>.limit",
    "curate.levels": "levels of each miniature source and benchmark",
    "evaluate.benchmarks": "domains.<domain>.benchmarks",
}


def _explain(item: dict, data: object) -> list[str]:
    """One pydantic error as lines `path: value rule`."""
    parts, value, kind = list(_parts(item, data)), item["input"], item["type"]
    path, text = ".".join(map(str, parts)), _quoted(value)
    # A part of a recipe is a name or a step; pydantic reports both attempts, with their types at the end of its path.
    is_part = [*item["loc"][-1:]] != parts[-1:]
    if kind == "string_type" and is_part and item["loc"][-1] == "str":
        return [] if isinstance(value, dict) else [f"{path}: {text} is neither the name of a model nor a merge step"]
    if kind == "model_type" and item["ctx"]["class_name"] in _EXAMPLES:
        return [] if is_part else [f"{path}: {text} {_EXAMPLES[item['ctx']['class_name']]}"]
    if kind == "extra_forbidden":
        return [f"{path}: {_unknown(parts, data)}"]
    if kind == "missing":
        return [f"{path}: {_PHRASES[kind]}"]
    if kind == "value_error":
        lines = str(item["ctx"]["error"]).splitlines()
        # A rule of a block names the parameter that it is about ("window: …"); a check of one value does not.
        return [f"{path}{'.' if path and ': ' in line else ': ' if path else ''}{line}" for line in lines]
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        tags = ", ".join(filter(None, map(reference.tag, reference.kinds_at(Params, parts))))
        fault = f"{_quoted(value['kind'])} is not one of" if kind == "union_tag_invalid" else "is missing; one of"
        return [f"{path}.kind: {fault} {tags}"]
    if kind == "list_type" and path == "merge.models" and isinstance(value, dict):
        return [
            f"{path}: is a list now: `- recipe: {_STEP}` for each model; its name follows from its recipe, and `right` "
            "of a step is `other`"
        ]
    if kind == "string_pattern_mismatch":
        return [f"{path}: {text} {PATTERNS[item['ctx']['pattern']]}"]
    return [f"{path}: {text} {_PHRASES.get(kind, item['msg'].replace('Input should be', 'should be'))}"]


def _quoted(value: object) -> str:
    """A value as it may stand in a params file, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 100 else f"{text[:99]}…"


def _parts(item: dict, data: Any) -> Iterator[str | int]:
    """The keys of a parameter's path in the file; pydantic's own path also names the members of unions it tried."""
    for part in item["loc"]:
        is_key = isinstance(data, dict) and part in data
        if is_key or (isinstance(data, list) and isinstance(part, int) and part < len(data)):
            data = data[part]
            yield part
    if item["type"] == "missing":
        yield item["loc"][-1]


def _unknown(parts: list[str | int], data: Any) -> str:
    """What a person may have meant by an unknown parameter: where it is now, which kind has it, or another spelling."""
    *above, last = parts
    if moved := _MOVED.get(".".join(map(str, parts))):
        return f"moved to {moved}"
    for part in above:
        data = data[part]
    name, kinds = str(last), reference.kinds_at(Params, above)
    owners = [reference.tag(kind) for kind in kinds if name in reference.fields_of(kind)]
    if owners:
        return f"unknown parameter of kind: {data['kind']}; it belongs to kind: {' or '.join(filter(None, owners))}"
    here = [k for kind in kinds if reference.tag(kind) in (None, data.get("kind")) for k in reference.fields_of(kind)]
    places: dict[str, list[str]] = {}
    for path, kinds in reference.blocks(Params).items():
        for known in {known: None for kind in kinds for known in reference.fields_of(kind)}:
            places.setdefault(known, []).append(f"{path}.{known}" if path else known)
    for known in difflib.get_close_matches(name, here, n=1, cutoff=0.75):
        return f"unknown parameter; did you mean {known}?"
    for known in difflib.get_close_matches(name, places, n=1, cutoff=0.75):
        nearby = [place for place in places[known] if place.split(".")[0] == parts[0]]
        return f"unknown parameter; did you mean {' or '.join(nearby or places[known])}?"
    return "unknown parameter"
