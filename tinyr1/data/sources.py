"""Raw rows of a source: a Hugging Face dataset, local files, or the miniature."""

from collections.abc import Iterator

from tinyr1.core import hub
from tinyr1.core.config import ROOT, Config, Source
from tinyr1.core.errors import UserError
from tinyr1.data import files

SUFFIXES = (".jsonl", ".parquet")
# Columns that a row must have for its reader in `tinyr1.data.curate`; the rest of a dataset may be cut away.
REQUIRED = {
    "openr1_math": ("problem", "answer", "question_type", "source", "generations", "correctness_math_verify"),
    "openthoughts": ("conversations",),
    "openthoughts_metadata": ("problem", "deepseek_reasoning", "deepseek_solution", "domain"),
    "s1": ("question", "cot_type"),
}


def read_all(cfg: Config, domain: str) -> list[tuple[Source, Iterator[dict]]]:
    """Every source of a run's domain with its raw rows, which are read as they are asked for."""
    p = cfg.params
    levels = (p.curate.levels or {}).get(domain, [])
    return [(source, read(source, domain, levels, p.seed)) for source in p.sources[domain]]


def read(source: Source, domain: str, levels: list[int], seed: int) -> Iterator[dict]:
    """Raw rows in their dataset's own columns, at most `source.rows` of them.

    UserError when a file or dataset cannot be read, or a row lacks a column that the reader needs.
    """
    where = f"sources.{domain}"
    if source.kind == "miniature":
        rows = _miniature(source, domain, levels, seed)
    else:
        rows = _files(source, where) if source.kind == "files" else hub.dataset_rows(where, source.path, source.config, source.revision)
    needed = {*REQUIRED[source.columns], *source.keep}
    for i, row in enumerate(rows):
        if i == source.rows:
            return
        if missing := sorted(needed - row.keys()):
            raise UserError(
                f"{where}: row {i + 1} of {source.path or source.kind} has no column {', '.join(missing)}; it has "
                f"{', '.join(sorted(row))}. Is `columns: {source.columns}` right?"
            )
        yield row


def _miniature(source: Source, domain: str, levels: list[int], seed: int) -> Iterator[dict]:
    from tinyr1.data.miniature import raw  # the real runs need none of it

    return raw.rows(domain, source.columns, source.rows, levels, seed)


def _files(source: Source, where: str) -> Iterator[dict]:
    """Rows of a JSONL or parquet file, or of all in a folder. UserError names file and row of one that is damaged."""
    path = ROOT / source.path
    found = [p for p in (path, *sorted(path.rglob("*"))) if p.suffix in SUFFIXES and p.is_file()]
    if not found:
        raise UserError(
            f"{where}: {path}: no such {' or '.join(SUFFIXES)} file, and no folder with any; put it there, or name "
            "another path"
        )
    for file in found:
        try:
            yield from files.rows(file)
        except UserError as error:
            raise UserError(f"{where}: {error}; mend the file, or put it there again") from error
