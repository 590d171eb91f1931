"""What a person and an editor read about params files: a page and a JSON schema, both from the blocks of a schema.

    Params -> blocks: path in the file -> the kinds of block that may stand there
           -> page: one section for each path, a table of its parameters
           -> schema: JSON schema, for the YAML language server

It knows pydantic models and no parameter. `tinyr1.core.config` uses the same paths for its messages.
"""

import re
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Kinds = tuple[type[BaseModel], ...]
PATHS = 4  # of a block that many parameters have, the paths that its title names


def kinds_of(annotation: Any) -> Kinds:
    """The kinds of block that a value of this type may be; none where it is a number, a text, a list or a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    if get_origin(annotation) is Annotated:
        return kinds_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(kind for member in get_args(annotation) for kind in kinds_of(member))
    return ()


def _entries(annotation: Any) -> Any:
    """The type of the entries of a mapping or list; None for other types."""
    if get_origin(annotation) is Annotated:
        return _entries(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return next((part for member in get_args(annotation) if (part := _entries(member)) is not None), None)
    return get_args(annotation)[-1] if get_origin(annotation) in (dict, list) else None


def fields_of(kind: type[BaseModel]) -> dict[str, FieldInfo]:
    """The parameters of a block by the name that they have in a file; `kind` first."""
    fields = {field.alias or name: field for name, field in kind.model_fields.items()}
    return {name: fields[name] for name in sorted(fields, key=lambda name: name != "kind")}


def tag(kind: type[BaseModel]) -> str | None:
    """What a block's parameter `kind` says, if it has one."""
    field = kind.model_fields.get("kind")
    return str(get_args(field.annotation)[0]) if field and get_origin(field.annotation) is Literal else None


def kinds_at(root: type[BaseModel], path: Iterable[str | int]) -> Kinds:
    """The kinds of block that may stand at a path of a file: those at ("backbone", "distill") are (Distill,)."""
    annotation: Any = root
    for part in path:
        kinds = kinds_of(annotation)
        if kinds:
            annotation = next((fields_of(k)[str(part)].annotation for k in kinds if part in fields_of(k)), None)
        else:
            annotation = _entries(annotation)
    return kinds_of(annotation)


def blocks(root: type[BaseModel]) -> dict[str, Kinds]:
    """Path -> the kinds of block at it, in the order of a file; "" is the file. A recursive block occurs once."""
    places: dict[str, Kinds] = {}

    def visit(annotation: Any, path: str, above: Kinds) -> None:
        kinds, entries = kinds_of(annotation), _entries(annotation)
        if entries is not None:
            name = path.rpartition(".")[2].removesuffix("s")
            visit(entries, f"{path}.<{name if get_origin(_bare(annotation)) is dict else 'i'}>", above)
        elif kinds and not set(kinds) & set(above):
            places[path] = kinds
            for kind in kinds:
                for name, field in fields_of(kind).items():
                    visit(field.annotation, f"{path}.{name}" if path else name, (*above, *kinds))

    visit(root, "", ())
    return places


def _bare(annotation: Any) -> Any:
    """A type without its annotations and without null."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return next(_bare(member) for member in get_args(annotation) if member is not type(None))
    return annotation


# --- JSON schema --------------------------------------------------------------------------------------------


def schema(root: type[BaseModel], title: str) -> dict:
    """JSON schema of a file: pydantic's, with names of entries checked and descriptions on one line.

    It is of draft 7, the newest that every release of the YAML language server knows.
    """
    result = root.model_json_schema(ref_template="#/definitions/{model}")
    result = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        "definitions": result.pop("$defs"),
        **{key: value for key, value in result.items() if key != "title"},
    }

    def mend(value: Any) -> None:
        if isinstance(value, dict):
            if "patternProperties" in value:
                value.setdefault("additionalProperties", False)
            if "prefixItems" in value:
                value["items"] = value.pop("prefixItems")
            if isinstance(value.get("description"), str):
                value["description"] = _line(value["description"])
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            mend(inner)

    mend(result)
    return result


# --- the page -----------------------------------------------------------------------------------------------


def page(root: type[BaseModel]) -> str:
    """Markdown: a section for each block in the order of a file, the kinds of a block side by side."""
    definitions = root.model_json_schema()
    definitions = definitions["$defs"] | {root.__name__: definitions}
    places: dict[Kinds, list[str]] = {}
    for path, kinds in blocks(root).items():
        places.setdefault(kinds, []).append(path)
    return "".join(
        f"\n{line}\n" for kinds, paths in places.items() for line in _section(kinds, paths, definitions, list(places))
    )


def _listed(paths: list[str]) -> str:
    return ", ".join(f"`{path}`" for path in paths)


def _section(kinds: Kinds, paths: list[str], definitions: dict, all_kinds: list[Kinds]) -> Iterator[str]:
    title = _listed(paths[:PATHS]) if paths != [""] else "The file"
    others = paths[PATHS:]
    title += f" and {len(others)} more" if others else ""
    yield f'<a id="{_anchor(kinds)}"></a>\n\n## {title}'
    if others:
        yield f"The others are {_listed(others)}."
    if len(kinds) == 1:
        yield _linked(kinds[0].__doc__)
        yield _table(["parameter", "type and range", "default", "meaning"], (
            [f"`{name}`", _type(part, all_kinds), _default(part), _linked(part.get("description"))]
            for name, part in _parts(kinds[0], definitions)
        ))  # fmt: skip
        return
    yield "\n".join(f"* `kind: {tag(kind)}`: {_linked(kind.__doc__)}" for kind in kinds)
    rows: dict[tuple[str, ...], set[str | None]] = {}  # a parameter that differs between kinds has several rows
    for kind in kinds:
        for name, part in _parts(kind, definitions):
            if name != "kind":
                row = (f"`{name}`", _type(part, all_kinds), _default(part), _linked(part.get("description")))
                rows.setdefault(row, set()).add(tag(kind))
    tags = [tag(kind) for kind in kinds]
    names = list(dict.fromkeys(name for name, *_ in rows))
    yield _table(["parameter", *(f"`{one}`" for one in tags), "type and range", "default", "meaning"], (
        [row[0], *("yes" if one in owners else "" for one in tags), *row[1:]]
        for row, owners in sorted(rows.items(), key=lambda item: names.index(item[0][0]))
    ))  # fmt: skip


def _parts(kind: type[BaseModel], definitions: dict) -> Iterator[tuple[str, dict]]:
    """The parameters of a block by name, each with its JSON schema."""
    for name in fields_of(kind):
        yield name, definitions[kind.__name__]["properties"][name]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _anchor(kinds: Kinds) -> str:
    return kinds[0].__name__.lower()


def _line(text: str) -> str:
    return " ".join(text.split())


def _linked(text: str | None) -> str:
    """A docstring on one line; the page is in docs/, so a document that it cites is its neighbour."""
    return re.sub(r"\bdocs/([\w-]+\.md)", r"[\1](\1)", _line(text or ""))


def _default(part: dict) -> str:
    if "default" not in part:
        return "required"
    return "null" if part["default"] is None else f"`{part['default']}`"


def _type(part: dict, all_kinds: list[Kinds]) -> str:
    """A JSON schema in words: "whole number ≥ 1 or null"."""

    def words(part: dict) -> str:
        if "anyOf" in part:
            return " or ".join(words(member) for member in part["anyOf"])
        if "oneOf" in part and not all("$ref" in member for member in part["oneOf"]):  # told apart by their form
            return " or ".join(words(member) for member in part["oneOf"])
        if "$ref" in part or "oneOf" in part:
            return _link([member["$ref"] for member in part.get("oneOf", [part])], all_kinds)
        if "const" in part or "enum" in part:
            return " or ".join(f"`{value}`" for value in part.get("enum", [part.get("const")]))
        if part["type"] == "array":
            inner = [words(item) for item in part.get("prefixItems", ())]
            some = "list, not empty, of" if part.get("minItems") else "list of"
            return f"list of {len(inner)}: {', '.join(inner)}" if inner else f"{some} {words(part['items'])}"
        if part["type"] == "object":
            entries = [part["additionalProperties"]] if "additionalProperties" in part else []
            return f"name -> {words([*entries, *part.get('patternProperties', {}).values()][0])}"
        names = {"integer": "whole number", "string": "text", "boolean": "true or false"}
        name = "date" if part.get("format") == "date" else names.get(part["type"], part["type"])
        signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
        ranges = [f"{sign} {part[key]:g}" for key, sign in signs.items() if key in part]
        pattern = f"like `{part['pattern']}`" if "pattern" in part else ""
        return " ".join(filter(None, [name, pattern, " and ".join(ranges)]))

    return words(part)


def _link(references: list[str], all_kinds: list[Kinds]) -> str:
    """A link to the section of a block, or of the kinds of one."""
    name = references[0].rpartition("/")[2]
    home = next(kinds for kinds in all_kinds if name in {kind.__name__ for kind in kinds})
    return f"[{name if len(home) == 1 else ' or '.join(f'`{tag(kind)}`' for kind in home)}](#{_anchor(home)})"
