"""Raw rows of a source: a Hugging Face dataset, local files, or the miniature."""

from collections.abc import Iterator
from pathlib import Path

from datasets import load_dataset

from tinyr1.config import ROOT, Config, ConfigError, Source

# Columns that a row must have for its reader in `tinyr1.curate`; the rest of a dataset may be cut away.
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

    Raises ConfigError when a file is missing or the rows lack a column that the reader needs.
    """
    rows = _miniature(source, domain, levels, seed) if source.kind == "miniature" else _dataset(source)
    needed = {*REQUIRED[source.columns], *source.keep}
    for i, row in enumerate(rows):
        if i == source.rows:
            return
        if i == 0 and (missing := sorted(needed - row.keys())):
            raise ConfigError(
                f"sources.{domain}: {source.path or source.kind} has no column {', '.join(missing)}; it has "
                f"{', '.join(sorted(row))}. Is `columns: {source.columns}` right?"
            )
        yield row


def _miniature(source: Source, domain: str, levels: list[int], seed: int) -> Iterator[dict]:
    from tinyr1.miniature import raw  # the real runs need none of it

    return raw.rows(domain, source.columns, source.rows, levels, seed)


def _dataset(source: Source) -> Iterator[dict]:
    """Rows through `datasets`, streamed: s1's full set alone is 5.8 GB."""
    if source.kind == "files":
        folder = ROOT / source.path
        files = sorted(str(p) for p in folder.rglob("*") if p.suffix in (".jsonl", ".parquet"))
        files = [str(folder)] if folder.is_file() else files
        if not files:
            raise ConfigError(f"{source.path}: no such file, or a folder without .jsonl or .parquet files")
        form = "parquet" if Path(files[0]).suffix == ".parquet" else "json"
        return iter(load_dataset(form, data_files=files, split="train", streaming=True))
    return iter(
        load_dataset(
            source.path, source.config, revision=source.revision, split="train", streaming=True
        )
    )
