r"""The text of a params file or a recipe as plain data: UTF-8, YAML with the numbers of YAML 1.2, no key twice.

    bytes --text_of--> text --mapping----> dict for `tinyr1.core.config`, which knows the parameters
                            --documents--> values for `tinyr1.merge.mergekit`, which knows recipes
                                 \-------> UserError with the place in the file

PyYAML reads YAML 1.1, in which 010 is 8 and 1:30 is 90. Other readers, and most persons, do not.
"""

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from tinyr1.core.errors import UserError

DEEPEST = 60  # levels of nesting; a params file has about ten, and Python's stack ends at a few hundred
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
MERGE = "tag:yaml.org,2002:merge"
INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def text_of(path: Path, name: str) -> str:
    """The text of a file, without a byte order mark. UserError names the line of a byte that is not UTF-8."""
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{name}: line {line}: a byte is not UTF-8; save the file in that encoding") from error


def mapping(text: str, name: str) -> dict:
    """The mapping that a YAML text holds; `name` is how messages call the file. UserError where it holds another."""
    found = documents(text, name)
    if len(found) > 1:
        raise UserError(f"{name}: holds {len(found)} documents; a params file is one, without a line `---` inside")
    data = found[0] if found else None
    if not isinstance(data, dict):
        raise UserError(f"{name}: expected a mapping of parameters, found {type(data).__name__}")
    return data


def documents(text: str, name: str) -> list[Any]:
    """The YAML documents of a text that are not empty; `name` is how messages call the file."""
    try:
        return [data for data in yaml.load_all(text, Loader=_Loader) if data is not None]
    except yaml.YAMLError as error:
        raise UserError(f"{name}: not valid YAML: {error}") from error
    except ValueError as error:  # a date such as 2025-02-30, or a number of thousands of digits
        raise UserError(f"{name}: a value cannot be read: {error}") from error


class _Loader(yaml.SafeLoader):
    """YAML loader that refuses keys that are no text, and a key given twice, where PyYAML silently takes the last."""

    # The readings of YAML 1.1 are taken out, and those of numbers in YAML 1.2 come in below.
    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in readings if tag not in (*NUMBERS, MERGE)]
        for first, readings in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEEPEST:
            mark = self.peek_event().start_mark
            raise ComposerError(None, None, f"it is nested deeper than {DEEPEST} levels", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):  # YAML reads 3, yes, null and 2024-08-01 as something else
                raise ConstructorError(None, None, f"key {key!r} is not a text; put it in quotes", key_node.start_mark)
            if key == "<<":
                told = "`<<` copies no keys here; write them out"
                raise ConstructorError(None, None, told, key_node.start_mark)
            if key in seen:
                raise ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def number(self, node: yaml.ScalarNode) -> int | float:
        """A number as YAML 1.2 reads it."""
        value = node.value
        if value[:2] in ("0o", "0x"):
            return int(value, 0)
        return int(value) if INT.fullmatch(value) else float(re.sub(r"\.(?=[inIN])", "", value))

    def unknown(self, node: yaml.Node) -> None:
        raise ConstructorError(None, None, f"the tag {node.tag} is not read; write the plain value", node.start_mark)


for tag, pattern in zip(NUMBERS, (INT, FLOAT), strict=True):
    _Loader.add_implicit_resolver(tag, re.compile(f"^(?:{pattern.pattern})$"), list("-+.0123456789"))
    _Loader.add_constructor(tag, _Loader.number)
_Loader.add_constructor(None, _Loader.unknown)
