"""The files of a checkpoint beside its weights: which model each comes from, and what differs between the models.

    tokenizer, chat templates                  of the model whose tokenizer the result gets
    generation_config.json                     of that model, else of the main model, else of the first that has one
    configs of processors, code of auto_map    of the main model, else of the first that has the file

Code is copied and never executed. Nothing here imports torch.
"""

import ast
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyr1.core.checkpoints import PROVENANCE, TOKENIZER_FILES, read_json, read_object
from tinyr1.merge.configs import differing

GENERATION = "generation_config.json"
PROCESSORS = (
    "processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json",
    "audio_tokenizer_config.json",
)  # fmt: skip
NAMED_TEMPLATES = "additional_chat_templates"  # a folder of named chat templates
IGNORED = {*PROVENANCE, "_from_model_config"}  # keys that say where a file comes from


@dataclass(frozen=True)
class Choice:
    """Whose files the result gets. folders: model -> checkpoint; main, tokenizer: two of the models."""

    folders: Mapping[str, Path]
    main: str
    tokenizer: str

    def sources(self) -> dict[str, Path]:
        """File, relative to the checkpoint -> where it is copied from."""
        chosen = self.folders[self.tokenizer]
        found = {file: chosen / file for file in tokenizer_files(chosen)}
        return found | {file: self.folders[giver] / file for file, _, giver in self._wanted() if giver}

    def notices(self) -> list[str]:
        """What differs between the models in these files, and whose is taken, a line each."""
        lines = []
        for file, first, giver in self._wanted():
            if giver is None:
                lines += [f"{file}: auto_map of {first} names it, and no model has it"] if file.endswith(".py") else []
                continue
            if giver != first:
                lines.append(f"{file}: {first} has none; the result has that of {giver}")
            lines += _differences(file, giver, {n: f / file for n, f in self.folders.items() if (f / file).is_file()})
        return lines

    def _wanted(self) -> list[tuple[str, str, str | None]]:
        """(file, model that it should come from, model that gives it), of all files but those of the tokenizer."""
        wanted = {GENERATION: self.tokenizer, **dict.fromkeys(PROCESSORS, self.main)}
        wanted |= dict.fromkeys(self._code("tokenizer_config.json", self.tokenizer), self.tokenizer)
        for holder in ("config.json", *PROCESSORS):
            wanted |= dict.fromkeys(self._code(holder, self.main), self.main)
        return [(file, model, self._giver(file, model)) for file, model in wanted.items()]

    def _giver(self, file: str, first: str) -> str | None:
        """The model that gives a file: `first`, else the main model, else the first of all that has it."""
        return next((name for name in (first, self.main, *self.folders) if (self.folders[name] / file).is_file()), None)

    def _code(self, holder: str, model: str) -> list[str]:
        """The files of code that a JSON file of a model names, with those that they import from the same folder."""
        folder, found = self.folders[model], dict[str, None]()
        waiting = list(_named(read_object(folder / holder) or {}))
        while waiting:
            file = waiting.pop()
            if file not in found:
                found[file] = None
                giver = self._giver(file, model)
                waiting += _imported(self.folders[giver] / file) if giver else []
        return sorted(found)


def copy(sources: Mapping[str, Path], out: Path) -> None:
    """Copy files to their places below `out`."""
    for file, source in sources.items():
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, out / file)


def tokenizer_files(folder: Path) -> list[str]:
    """The files of a folder that decide how text becomes token ids, named chat templates among them."""
    named = [f"{NAMED_TEMPLATES}/{file.name}" for file in sorted((folder / NAMED_TEMPLATES).glob("*.jinja"))]
    of_code = sorted(file.name for file in folder.glob("*.tiktoken"))  # tokenizers whose code comes with the model
    return [f for f in TOKENIZER_FILES if (folder / f).is_file()] + of_code + named


def content(path: Path) -> object:
    """The data of a JSON file, whatever its layout; the bytes of any other file; None where there is none."""
    if path.suffix == ".json":
        return read_json(path)
    return path.read_bytes() if path.is_file() else None


def same(one: Path, other: Path) -> bool:
    """Whether two files have the same `content`."""
    # Tokenizers have megabytes, and parsing JSON takes a hundred times as long as comparing bytes.
    if one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes():
        return True
    return content(one) == content(other)


def _differences(file: str, taken: str, files: Mapping[str, Path]) -> Iterator[str]:
    """Lines about the models that have a file and do not have the content of the one that is taken."""
    contents = {name: content(path) for name, path in files.items()}
    if all(isinstance(one, dict) for one in contents.values()):
        keys = {key for one in contents.values() if isinstance(one, dict) for key in one} - IGNORED
        for key in sorted(keys):
            values = {n: _plain(one.get(key)) for n, one in contents.items() if isinstance(one, dict)}
            if line := differing(file, key, taken, values):
                yield line
    elif others := [name for name, one in contents.items() if one != contents[taken]]:
        yield f"{file}: differs between {' and '.join([*others, taken])}; the result has that of {taken}"


def _plain(value: Any) -> Any:
    """[2] is 2: transformers takes both for a token id."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _named(config: Mapping[str, Any]) -> Iterator[str]:
    """Files of this folder that auto_map names, `modeling_my.Model`; `owner/name--modeling_my.Model` is on the hub."""
    named = config.get("auto_map")
    for value in named.values() if isinstance(named, dict) else ():
        for reference in value if isinstance(value, list) else [value]:
            module, _, name = str(reference).partition(".")
            if name and module.isidentifier():  # whatever else it says, it is never a path to another place
                yield f"{module}.py"


def _imported(path: Path) -> list[str]:
    """Files that a file of code imports from its own folder; none where it cannot be parsed."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1]
    modules = [node.module or alias.name for node in imports for alias in node.names]
    return [f"{module.split('.')[0]}.py" for module in dict.fromkeys(modules)]
