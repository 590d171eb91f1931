"""Raw rows of a source: a Hugging Face dataset, local files, or the miniature's made-up rows.

    source of the params file --read_source--> rows in their dataset's own columns --> tinyr1.data.readers
"""

from collections.abc import Iterator

from tinyr1.core import hub
from tinyr1.core.config import ROOT
from tinyr1.core.errors import UserError
from tinyr1.core.params.domains import FileSource, Source
from tinyr1.data import files

ROW_SUFFIXES = (".jsonl", ".parquet")
# Columns that the reader of these rows needs (tinyr1.data.readers); the other columns of a dataset may be cut away.
REQUIRED = {
    "openr1_math": ("problem", "answer", "question_type", "source", "generations", "correctness_math_verify"),
    "openthoughts": ("conversations",),
    "openthoughts_metadata": ("problem", "deepseek_reasoning", "deepseek_solution", "domain"),
    "s1": ("question", "cot_type"),
}


def read_source(source: Source, domain: str, seed: int) -> Iterator[dict]:
    """Raw rows in their dataset's own columns, at most `source.rows` of them, each read when it is needed.

    domain is part of messages; seed is the miniature's. UserError when a file or dataset cannot be read, or a row lacks
    a column that the reader needs.
    """
    where = f"domains.{domain}.sources"
    needed = {*REQUIRED[source.columns], *source.keep}
    for i, row in enumerate(_raw_rows(source, where, seed)):
        if i == source.rows:
            return
        if missing := sorted(needed - row.keys()):
            name = source.kind if source.kind == "miniature" else source.path
            raise UserError(
                f"{where}: row {i + 1} of {name} has no column {', '.join(missing)}; it has {', '.join(sorted(row))}. "
                f"Is `columns: {source.columns}` right?"
            )
        yield row


def _raw_rows(source: Source, where: str, seed: int) -> Iterator[dict]:
    if source.kind == "miniature":
        from tinyr1.data.miniature import raw  # the real runs need none of it

        return raw.rows(source.tasks, source.columns, source.rows, source.levels, seed)
    if source.kind == "files":
        return _file_rows(source, where)
    return hub.dataset_rows(where, source.path, source.config, source.revision)


def _file_rows(source: FileSource, where: str) -> Iterator[dict]:
    """Rows of a JSONL or parquet file, or of all such files in a folder. UserError names the file and row of damage."""
    path = ROOT / source.path
    data_files = [p for p in (path, *sorted(path.rglob("*"))) if p.suffix in ROW_SUFFIXES and p.is_file()]
    if not data_files:
        raise UserError(
            f"{where}: {path}: no such {' or '.join(ROW_SUFFIXES)} file, and no folder with any; put it there, or name "
            "another path"
        )
    for file in data_files:
        try:
            yield from files.read_rows(file)
        except UserError as error:
            raise UserError(f"{where}: {error}; mend the file, or put it there again") from error
