"""Raw rows of a source: a Hugging Face dataset, local files, or the miniature."""

from collections.abc import Iterator

from tinyr1.core.config import ROOT, Config, ConfigError, Source
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

    ConfigError when a file or dataset cannot be read, or a row lacks a column that the reader needs.
    """
    where = f"sources.{domain}"
    if source.kind == "miniature":
        rows = _miniature(source, domain, levels, seed)
    else:
        rows = _files(source, where) if source.kind == "files" else _hub(source, where)
    needed = {*REQUIRED[source.columns], *source.keep}
    for i, row in enumerate(rows):
        if i == source.rows:
            return
        if missing := sorted(needed - row.keys()):
            raise ConfigError(
                f"{where}: row {i + 1} of {source.path or source.kind} has no column {', '.join(missing)}; it has "
                f"{', '.join(sorted(row))}. Is `columns: {source.columns}` right?"
            )
        yield row


def _miniature(source: Source, domain: str, levels: list[int], seed: int) -> Iterator[dict]:
    from tinyr1.data.miniature import raw  # the real runs need none of it

    return raw.rows(domain, source.columns, source.rows, levels, seed)


def _files(source: Source, where: str) -> Iterator[dict]:
    """Rows of a JSONL or parquet file, or of all in a folder. ConfigError names file and row of one that is damaged."""
    path = ROOT / source.path
    found = [p for p in (path, *sorted(path.rglob("*"))) if p.suffix in SUFFIXES and p.is_file()]
    if not found:
        raise ConfigError(
            f"{where}: {path}: no such {' or '.join(SUFFIXES)} file, and no folder with any; put it there, or name "
            "another path"
        )
    for file in found:
        try:
            yield from files.rows(file)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}; mend the file, or put it there again") from error


def _hub(source: Source, where: str) -> Iterator[dict]:
    """Rows of a Hugging Face dataset, streamed: s1's full set alone is 5.8 GB."""
    from datasets import exceptions, load_dataset  # takes seconds; the other kinds of sources need none of it
    from huggingface_hub.errors import HTTPError

    done = 0
    try:
        for row in load_dataset(source.path, source.config, revision=source.revision, split="train", streaming=True):
            yield row
            done += 1
    # A missing, gated or unreachable dataset and a lost connection are OSErrors and HTTPErrors; an unknown
    # configuration and damaged data ValueErrors; a dataset that is a program a RuntimeError.
    except (OSError, HTTPError, ValueError, RuntimeError, exceptions.DatasetsError) as error:
        said = str(error).partition("\n")[0]
        raise ConfigError(
            f"{where}: {source.path} (config {source.config}, revision {source.revision}) failed after {done} rows "
            f"({type(error).__name__}: {said}); check path, config, revision and the network. Where it is gated, "
            f"accept its terms at https://huggingface.co/datasets/{source.path} and run `hf auth login`. Or download "
            "it and use kind: files"
        ) from error
