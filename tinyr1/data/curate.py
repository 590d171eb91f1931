"""Raw rows to training rows; every dropped row has exactly one reason (paper §2.1, docs/fidelity.md §1).

    raw rows --readers--> candidates --curate--> kept rows --tokens--> rows/<domain>/
                               \\--- or a reason ---> Ledger

A kept row is a dict: id, domain, source, question, starter_code, thinking, response, answer, n_tokens. Rows pass one by
one from the source to the disk; what is kept in memory of them is their questions' hashes.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from transformers import PreTrainedTokenizerBase

from tinyr1.core import artifact, jsonl, prompts
from tinyr1.core.config import Config
from tinyr1.core.errors import UserError
from tinyr1.core.params import Source
from tinyr1.core.progress import say
from tinyr1.core.prompts import Encoded
from tinyr1.data import sources, tokens
from tinyr1.data.contamination import Contamination
from tinyr1.data.readers import Candidate, Row, candidates

REASONS = {
    "question_type": "not a kind of question the paper keeps",
    "source": "from a collection the filter leaves out",
    "domain": "belongs to another domain",
    "cot_type": "belongs to another domain",
    "no_question": "the question is empty",
    "no_answer": "no answer to check against",
    "unverified": "no generation passed the answer checker",
    "incomplete": "no generation ran to its end",
    "duplicate": "the same question was kept before",
    "contaminated": "shares its wording with a benchmark question",
    "too_long": "longer than curate.max_tokens",
    "over_limit": "more rows than the domain's limit",
}


@dataclass
class Ledger:
    """Where every raw row went. raw == kept + sum(dropped.values()), always."""

    domain: str
    raw: int = 0
    kept: int = 0
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)  # (source name, reason) -> rows
    examples: dict[str, str] = field(default_factory=dict)  # reason -> one dropped question

    def drop(self, source: str, reason: str, question: str) -> None:
        """Count one dropped row."""
        self.dropped[source, reason] += 1
        if question:
            self.examples.setdefault(reason, question[:300])


def _same(row: Row) -> str:
    """What two rows share when they ask the same: the question but for case, blanks and punctuation marks.

    Operators stay: `3 + 4` and `3 - 4` are two questions.
    """
    return re.sub(r"[\s.,;:!?]+", " ", f"{row['question']} {row['starter_code']}".lower()).strip()


def curate(
    ledger: Ledger,
    candidates_of: list[tuple[str, Iterator[list[Candidate]]]],  # (source name, candidates of each of its raw rows)
    contamination: Contamination,
    encode: Callable[[Row], Encoded],
    max_tokens: int,
    limit: int | None,
) -> Iterator[tuple[Row, Encoded]]:
    """Kept rows with their tokens, one after another, while the ledger counts all.

    Checks go from cheap to dear; the first one that fails is the reason.
    """
    seen: set[str] = set()
    written = 0

    def judge(row: Row) -> tuple[str | None, Encoded | None]:
        """(reason to drop the row, None), or (None, its tokens)."""
        if _same(row) in seen:
            return "duplicate", None
        if hit := contamination.hit(row["question"]):
            if hit[0] in contamination.private:  # the row repeats it, so that neither may be shown
                ledger.examples.setdefault("contaminated", "(a question that must not be published)")
            else:
                ledger.examples.setdefault("contaminated", f"{row['question'][:300]}\n  benchmark: {hit[0][:300]}")
            return "contaminated", None
        encoded = encode(row)
        if len(encoded.ids) > max_tokens:
            return "too_long", None
        return ("over_limit", None) if limit is not None and written >= limit else (None, encoded)

    for source, rows in candidates_of:
        for found in rows:
            ledger.raw += 1
            judged = [(c, *((c, None) if isinstance(c, str) else judge(c))) for c in found]
            good = [(row, encoded) for row, _, encoded in judged if encoded is not None]
            if not good:
                row, why, _ = judged[0]
                ledger.drop(source, why, row["question"] if isinstance(row, dict) else "")
                continue
            ledger.kept += 1
            seen.add(_same(good[0][0]))
            for row, encoded in good[: None if limit is None else limit - written]:
                digest = hashlib.sha256(f"{row['question']}\0{row['thinking']}".encode()).hexdigest()
                named = {"id": f"{ledger.domain}-{digest[:16]}", "domain": ledger.domain, "source": source}
                written += 1
                yield {**named, **row, "n_tokens": len(encoded.ids)}, encoded


def curate_domain(
    cfg: Config, domain: str, contamination: Contamination, tokenizer: PreTrainedTokenizerBase
) -> Ledger:
    """Curated rows of a domain with their tokens, on disk; kept if they were made from the same sources and rules.

    UserError when nothing is left.
    """
    p, block = cfg.params, cfg.params.domains[domain]
    inputs = {
        "sources": [s.model_dump(mode="json") for s in block.sources], "limit": block.limit,
        "instructions": [block.instruction, block.instruction_with_options], "curate": p.curate.model_dump(),
        "seed": p.seed, "benchmarks": contamination.questions,
        "tokenizer": artifact.digest(tokenizer.get_vocab()), "template": tokenizer.chat_template,
    }  # fmt: skip

    def build(folder: Path) -> dict:
        ledger = Ledger(domain)
        generations = p.curate.generations_per_question
        streams = [(s.columns, _candidates(s, domain, p.seed, generations)) for s in block.sources]
        rows = curate(
            ledger, streams, contamination, lambda row: prompts.encode_row(tokenizer, block, row),
            p.curate.max_tokens, block.limit,
        )  # fmt: skip
        with tokens.RowWriter(folder) as writer:
            for row, encoded in rows:
                writer.write(row, encoded)
        if not ledger.kept:
            raise UserError(f"domains.{domain}: none of {ledger.raw} raw rows is left: {dict(ledger.dropped)}")
        dropped = [[source, why, n] for (source, why), n in sorted(ledger.dropped.items())]
        return {"raw": ledger.raw, "kept": ledger.kept, "dropped": dropped, "examples": ledger.examples}

    manifest, built = artifact.make(cfg.rows(domain), inputs, build, cfg.remedy("01_data_curation"))
    f = manifest["facts"]
    say(f"  {domain:8s} {f['kept']} of {f['raw']} rows {'curated' if built else 'kept from before'}")
    dropped = Counter({(source, why): n for source, why, n in f["dropped"]})
    return Ledger(domain, f["raw"], f["kept"], dropped, f["examples"])


def _candidates(source: Source, domain: str, seed: int, generations: int) -> Iterator[list[Candidate]]:
    return candidates(sources.read_source(source, domain, seed), source, generations)


def curated(cfg: Config, domain: str) -> Iterator[Row]:
    """The curated rows of a domain as text, one after another."""
    for line in jsonl.scan(cfg.rows(domain) / tokens.ROWS):
        yield line.value


def lengths(cfg: Config) -> pd.DataFrame:
    """domain and n_tokens of every curated row of a run."""
    frames = [
        pd.DataFrame({"n_tokens": tokens.read_tokens(cfg.rows(name)).lengths}).assign(domain=name)
        for name in cfg.domains
    ]
    return pd.concat(frames, ignore_index=True)


def funnel(ledgers: list[Ledger]) -> pd.DataFrame:
    """Rows by domain and fate: one column for each reason, then `kept`; a row sums to the raw rows."""
    table = {}
    for ledger in ledgers:
        fates: Counter[str] = Counter()
        for (_, why), n in ledger.dropped.items():
            fates[why] += n
        table[ledger.domain] = {**fates, "kept": ledger.kept}
    frame = pd.DataFrame(table).T.fillna(0).astype(int)
    known = [*(c for c in REASONS if c in frame), *sorted(set(frame) - set(REASONS) - {"kept"})]  # keep: own columns
    return frame[[*known, "kept"]]
