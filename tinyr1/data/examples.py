"""What notebook 01 shows of rows: how the miniature spoils its own, and rows of every outcome on their way."""

from typing import TYPE_CHECKING

import pandas as pd

from tinyr1.core import prompts
from tinyr1.core.config import Config
from tinyr1.core.errors import UserError
from tinyr1.data import sources
from tinyr1.data.curate import curated_rows
from tinyr1.data.ledger import KEPT, LEDGER, PRIVATE, Ledger
from tinyr1.data.readers import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KEPT_ROWS = 3  # kept rows of each source in the viewer
COLUMNS = ("history", "question", "starter_code", "thinking", "response", "answer")
# Kinds of dirt of tinyr1.data.miniature.raw -> what is done to a good row, and what should notice it.
DIRT = {
    "proof": ("its kind becomes proof, its answer becomes proof", "question_type, or no_answer"),
    "multiple_choice": ("its kind becomes MCQ", "question_type"),
    "wrong": ("another number stands in the box; in s1's columns, its subject becomes math", "unverified, or cot_type"),
    "cut": ("the reasoning stops before its end, or is missing", "incomplete, or no_reasoning"),
    "duplicate": ("the row before it is repeated", "duplicate"),
    "contaminated": ("a benchmark question takes its place", "contaminated"),
}


def dirt(cfg: Config) -> pd.DataFrame:
    """How the miniature spoils its good rows: a line for each kind of dirt, with its share of the raw rows.

    The other columns say what is done to a row, which reason should notice it, and whose rows have this kind. The table
    is empty for a run whose rows are real.
    """
    from tinyr1.data.miniature import raw  # the real runs need none of it

    written = {
        source.columns: domain
        for domain, block in cfg.params.domains.items() for source in block.sources if source.kind == "miniature"
    }  # fmt: skip
    rows = []
    for kind, (how, reason) in DIRT.items():
        spoilt = [f"{domain} ({columns})" for columns, domain in written.items() if kind in raw.HAS_DIRT[columns]]
        if spoilt:
            rows.append((kind.replace("_", " "), f"{raw.DIRT[kind]:.0%}", how, reason, ", ".join(spoilt)))
    columns = ["dirt", "share", "what is done to a good row", "noticed as", "rows of"]
    return pd.DataFrame(rows, columns=columns).set_index("dirt")


def viewed_rows(
    cfg: Config, tokenizer: "PreTrainedTokenizerBase", ledgers: list[Ledger], kept: int = KEPT_ROWS
) -> list[dict]:
    """Rows on their whole way, for `report.row_viewer`: the first `kept` rows of each source, and the ledger's examples
    of each reason but those that must not be published.

    Each has id, domain, source, file, row, outcome, detail, raw; and, where it was kept, normalised, prompt, target and
    tokens (text of each token, whether it carries loss), else null. UserError where the sources do not hold it now.
    """
    return [view for ledger in ledgers for view in _views(cfg, tokenizer, ledger, kept)]


def _views(cfg: Config, tokenizer: "PreTrainedTokenizerBase", ledger: Ledger, kept: int) -> list[dict]:
    table = pd.read_parquet(cfg.rows(ledger.domain) / LEDGER)
    first = table[table.outcome == KEPT].groupby("source", sort=False, observed=True).head(kept)
    wanted = {
        (str(source), str(file), int(row)): (KEPT, "", str(name))
        for source, file, row, name in first[["source", "file", "row", "id"]].itertuples(index=False)
    }
    for why, some in ledger.examples.items():
        wanted |= {(one.source, one.file, one.row): (why, one.detail, "") for one in some if one.question != PRIVATE}
    raw = _raw_rows(cfg, ledger.domain, set(wanted))
    rows = _training_rows(cfg, ledger.domain, {name for _, _, name in wanted.values() if name})
    views = []
    for (source, file, number), (outcome, detail, name) in wanted.items():
        view = {"id": name, "domain": ledger.domain, "source": source, "file": file, "row": number, "outcome": outcome,
                "detail": detail, "raw": raw[source, file, number]}  # fmt: skip
        views.append(view | _rendered(cfg, tokenizer, rows.get(name)))
    return views


def _rendered(cfg: Config, tokenizer: "PreTrainedTokenizerBase", row: Row | None) -> dict:
    if row is None:
        return dict.fromkeys(("normalised", "prompt", "target", "tokens"))
    block, template = cfg.params.domains[row["domain"]], cfg.params.backbone.training_template
    encoded = prompts.encode_row(tokenizer, block, row, template)
    prompt, target = prompts.training_texts(tokenizer, block, row, template)
    return {
        "normalised": {name: row[name] for name in COLUMNS if name in row},
        "prompt": prompt,
        "target": target,
        "tokens": [[tokenizer.decode([one]), i >= encoded.n_prompt] for i, one in enumerate(encoded.ids)],
    }


def _raw_rows(cfg: Config, domain: str, wanted: set[tuple[str, str, int]]) -> dict[tuple[str, str, int], dict]:
    """The raw rows at these places, from one pass over the sources that ends with the last of them."""
    found: dict[tuple[str, str, int], dict] = {}
    for source in cfg.params.domains[domain].sources:
        name = sources.name_of(source)
        for raw in sources.read_source(source, domain, cfg.params.seed):
            if len(found) == len(wanted):
                return found
            if (place := (name, raw.file, raw.row)) in wanted:
                found[place] = raw.value if isinstance(raw.value, dict) else {"row": raw.error or raw.value}
    if missing := wanted - found.keys():
        raise UserError(
            f"domains.{domain}: the sources hold no row {sorted(missing)[0]} any more; put them back as they were, or "
            f"remove {cfg.rows(domain)} and {cfg.remedy('01_data_curation')}"
        )
    return found


def _training_rows(cfg: Config, domain: str, names: set[str]) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for row in curated_rows(cfg, domain):
        if row["id"] in names:
            found[row["id"]] = row
        if len(found) == len(names):
            break
    return found
