"""The documents of a mergekit configuration as one recipe: a document that another names is a step inside it.

    name: inner ---\
                    +--> the document without a name, or the last one: the result
    name: other ---/
"""

from typing import Any

from tinyr1.core.errors import UserError
from tinyr1.core.recipe import Recipe
from tinyr1.merge.mergekit_document import Document
from tinyr1.merge.mergekit_values import Data, mapping, model_text


def recipe_of(documents: list[Any], name: str) -> tuple[Recipe, dict[str, str], Data]:
    """(recipe, model -> folder as it is written, settings) of a file's documents.

    settings: dtype and out_dtype, and those of tokenizer, tokenizer_source and chat_template that the file decides.

    name: how errors call the file. UserError for everything that has no counterpart here.
    """
    if not documents or not all(isinstance(document, dict) for document in documents):
        raise UserError(f"{name}: expected a mapping with merge_method and models")
    reader = _Reader(documents, name)
    return reader.recipe, reader.folders, reader.settings()


class _Reader:
    """The documents of a file, each read once, and the folders of the models that they name."""

    def __init__(self, documents: list[Data], name: str) -> None:
        self.name, self.several = name, len(documents) > 1
        self.documents = [mapping(document, name) for document in documents]
        self.folders: dict[str, str] = {}
        self.steps: dict[int, Recipe | None] = {}  # None while a document is being read
        self.names = self._names()
        unnamed = [i for i, document in enumerate(self.documents) if document.get("name") is None]
        if len(unnamed) > 1:
            raise UserError(f"{self._place(unnamed[1])}: name: is missing; only the document of the result has none")
        last = unnamed[0] if unnamed else len(documents) - 1
        self.result = self.documents[last]
        self.recipe = self._step(last)
        if unused := [i for i in range(len(documents)) if i not in self.steps]:
            raise UserError(f"{self._place(unused[0])}: the result does not use it, and one merge has one result; "
                            "remove it")  # fmt: skip

    def settings(self) -> Data:
        """dtypes, tokenizer and chat template of the merge, which all documents share."""
        for key in ("dtype", "out_dtype", "tokenizer_source", "tokenizer", "chat_template"):
            if len({str(document.get(key)) for document in self.documents}) > 1:
                raise UserError(f"{self.name}: {key} differs between the documents; one merge has one")
        settings: Data = {}
        for key in ("dtype", "out_dtype"):
            value = self.result.get(key)
            if value is not None and not isinstance(value, str):
                raise UserError(f"{self.name}: {key}: {value!r} is not the name of a dtype")
            settings[key] = value and value.removeprefix("torch.")
        if (template := self.result.get("chat_template")) is not None:
            if not isinstance(template, str):
                raise UserError(f"{self.name}: chat_template: {template!r} is neither a name nor Jinja text")
            settings["chat_template"] = template
        return settings | self._tokenizer()

    def _names(self) -> dict[str, int]:
        names: dict[str, int] = {}
        for i, document in enumerate(self.documents):
            called = document.get("name")
            if called is not None and (not isinstance(called, str) or called in names):
                raise UserError(f"{self._place(i)}: name: {called!r} is no text, or the name of another document, too")
            if called is not None:
                names[called] = i
        return names

    def _place(self, i: int) -> str:
        """How errors call a document: the file, and its number where there are several."""
        return f"{self.name}: document {i + 1}" if self.several else self.name

    def _step(self, i: int) -> Recipe:
        if i not in self.steps:
            self.steps[i] = None
            self.steps[i] = Document(self.documents[i], self._place(i), self._part).recipe()
        step = self.steps[i]
        if step is None:
            raise UserError(f"{self._place(i)}: it is one of its own models; correct the names")
        return step

    def _part(self, model: str) -> str | Recipe:
        """The step of another document, or the model in a folder."""
        if model in self.names:
            return self._step(self.names[model])
        self.folders[model] = model
        return model

    def _tokenizer(self) -> Data:
        """`tokenizer_source`, or `tokenizer` where a base_model that no step merges first only gives its files."""
        key, source = "tokenizer_source", self.result.get("tokenizer_source")
        if (block := self.result.get("tokenizer")) is not None:
            key, source = "tokenizer.source", self._source_of(mapping(block, f"{self.name}: tokenizer"))
        base = self.result.get("base_model")
        base = None if base is None else self._leaf(model_text(base, f"{self.name}: base_model"))
        if source is None:
            gives = base in self.recipe.leaves and base != self.recipe.main_leaf
            return {"tokenizer": base} if gives else {}
        if source == "union":
            return {"tokenizer_source": source}
        if source == "base":
            model = base or self.recipe.main_leaf
        else:
            text = source.removeprefix("model:") if isinstance(source, str) else source  # an older form of mergekit's
            model = self._leaf(model_text(text, f"{self.name}: {key}"))
        self.folders[model] = model  # mergekit takes the tokens of any model, merged or not
        return {"tokenizer_source": model}

    def _source_of(self, block: Data) -> object:
        """`source` of the key `tokenizer`, which can say more than `tokenizer_source`."""
        if self.result.get("tokenizer_source") is not None:
            raise UserError(f"{self.name}: tokenizer and tokenizer_source exclude each other; remove one")
        for key, value in block.items():
            if key != "source" and value:
                raise UserError(f"{self.name}: tokenizer.{key}: tokens and padding cannot be chosen here; remove it")
        return block.get("source", "union")

    def _leaf(self, model: str) -> str:
        """A model, or the main model of another document."""
        return self._step(self.names[model]).main_leaf if model in self.names else model
