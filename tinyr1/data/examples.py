"""What notebook 01 shows of rows: how the miniature spoils its own, one on its way, a dropped one for each reason."""

from collections.abc import Iterator

import pandas as pd
from transformers import PreTrainedTokenizerBase

from tinyr1.core import prompts
from tinyr1.core.config import Config
from tinyr1.core.errors import UserError
from tinyr1.core.params.domains import Source
from tinyr1.data.curate import REASONS, Ledger, curated_rows
from tinyr1.data.readers import Row, normalise
from tinyr1.data.sources import read_source

SHORT = 160  # characters of a value in a table
# Kinds of dirt of tinyr1.data.miniature.raw -> what is done to a good row, and what should notice it.
DIRT = {
    "proof": ("its kind becomes proof, its answer becomes proof", "question_type, or no_answer"),
    "multiple_choice": ("its kind becomes MCQ", "question_type"),
    "wrong": ("another number stands in the box; in s1's columns, its subject becomes math", "unverified, or cot_type"),
    "cut": ("the reasoning stops before its end, or is missing", "incomplete"),
    "duplicate": ("the row before it is repeated", "duplicate"),
    "contaminated": ("a benchmark question takes its place", "contaminated"),
}
# The columns of a raw row that show why a reader gave a reason. A reason from `keep` is the name of its column.
EVIDENCE = {
    "no_answer": ("answer",),
    "unverified": ("correctness_math_verify",),
    "incomplete": ("generations", "conversations", "deepseek_reasoning", "thinking_trajectories"),
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


def question_of(raw: dict) -> str:
    """The question of a raw row, whichever columns it has; "" where it has none."""
    turns = {turn["from"]: turn["value"] for turn in raw.get("conversations") or ()}
    return str(raw.get("problem") or raw.get("question") or turns.get("user", ""))


def short(value: object, limit: int = SHORT) -> str:
    """A value as text on one line; of a longer one, its beginning and its end."""
    text = " ".join(str(value).split())
    return text if len(text) <= limit else f"{text[: limit // 2]} […] {text[-limit // 2 :]}"


def dropped_rows(cfg: Config, ledgers: list[Ledger]) -> pd.DataFrame:
    """One dropped row for each reason that occurs: reason, meaning, domain, question, seen by.

    The sources are read again, up to the first row of each reason, because a ledger holds no raw rows.
    """
    rows: dict[str, tuple[str, ...]] = {}
    for ledger in ledgers:
        reasons = {why for _, why in ledger.dropped} - rows.keys()
        for why in reasons & ledger.examples.keys():
            question, _, other = ledger.examples[why].partition("\n  benchmark: ")
            seen_by = f"benchmark question: {short(other)}" if other else _rule(cfg, ledger.domain, why)
            rows[why] = (REASONS[why], ledger.domain, short(question), seen_by)
        for why, raw in _refused(cfg, ledger.domain, reasons - rows.keys()):
            columns = EVIDENCE.get(why, (why,))
            seen_by = "; ".join(f"{name}: {short(raw[name])!r}" for name in columns if name in raw)
            meaning = REASONS.get(why, f"its {why} is not one that the params file keeps")
            rows[why] = (meaning, ledger.domain, short(question_of(raw)), seen_by)
    order = [why for why in [*REASONS, *rows] if why in rows]
    table = pd.DataFrame([(why, *rows[why]) for why in dict.fromkeys(order)],
                         columns=["reason", "meaning", "domain", "question", "seen by"])  # fmt: skip
    return table.set_index("reason")


def _rule(cfg: Config, domain: str, why: str) -> str:
    """What a row broke that a reader had accepted."""
    limits = {"too_long": f"curate.max_tokens: {cfg.params.curate.max_tokens}",
              "over_limit": f"limit of the domain: {cfg.params.domains[domain].limit}"}  # fmt: skip
    return limits.get(why, "an earlier row asks the same")


def _raw_rows(cfg: Config, domain: str) -> Iterator[tuple[Source, dict]]:
    for source in cfg.params.domains[domain].sources:
        for raw in read_source(source, domain, cfg.params.seed):
            yield source, raw


def _refused(cfg: Config, domain: str, reasons: set[str]) -> Iterator[tuple[str, dict]]:
    """(reason, raw row) of the first raw row that the readers refuse for each reason."""
    missing = set(reasons)
    for source, raw in _raw_rows(cfg, domain) if missing else ():
        why = normalise(raw, source, 1)[0]
        if isinstance(why, str) and why in missing:
            missing.remove(why)
            yield why, raw
            if not missing:
                return


def journey(cfg: Config, tokenizer: PreTrainedTokenizerBase) -> str:
    """The first training row of the first domain on its way: raw, in the columns of its dataset; normalised, in those
    of this kit; rendered, as the model reads it. UserError where the sources do not hold it any more."""
    domain, block = next(iter(cfg.params.domains.items()))
    row = next(curated_rows(cfg, domain))
    raw = _origin(cfg, domain, row)
    columns = ("question", "starter_code", "thinking", "response", "answer")
    parts = {
        f"raw: the columns of {row['source']}": _lines(raw),
        "normalised: the columns of this kit": _lines({name: row[name] for name in columns}),
        "rendered: the prompt": prompts.render_prompt(tokenizer, prompts.row_turn(block, row)),
        f"rendered: what the model learns to write, before {tokenizer.eos_token}":
            prompts.render_target(row["thinking"], row["response"]),
    }  # fmt: skip
    return "\n\n".join(f"=== {title} ===\n{text.rstrip()}" for title, text in parts.items())


def _lines(row: dict) -> str:
    return "\n".join(f"{name}: {short(value)}" for name, value in row.items())


def _origin(cfg: Config, domain: str, row: Row) -> dict:
    """The raw row that a training row was made from."""
    for source, raw in _raw_rows(cfg, domain):
        for made in normalise(raw, source, cfg.params.curate.generations_per_question):
            if not isinstance(made, str) and (made["question"], made["thinking"]) == (row["question"], row["thinking"]):
                return raw
    raise UserError(
        f"domains.{domain}: no raw row of the sources gives row {row['id']}; put the sources back as they were, or "
        f"remove {cfg.rows(domain)} and {cfg.remedy('01_data_curation')}"
    )
