r"""Turns raw rows into training rows; every raw row that it drops has exactly one reason (docs/fidelity.md §1.1).

    sources --> raw rows --readers--> candidates --curate--> training rows --tokens--> rows/<domain>/
                                                     \---- reasons ----> Ledger

A training row is a dict: id, domain, source, question, starter_code, thinking, response, answer, n_tokens. Rows pass
one by one from the source to the disk. Only a hash of each question stays in memory, for the next duplicate: the rows
of one domain take gigabytes at the paper's size.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd
from transformers import PreTrainedTokenizerBase

from tinyr1.core import artifact, prompts
from tinyr1.core.config import Config
from tinyr1.core.errors import UserError
from tinyr1.core.progress import say
from tinyr1.core.prompts import Encoded
from tinyr1.data.contamination import Contamination
from tinyr1.data.files import read_rows
from tinyr1.data.readers import Candidate, Row, normalise
from tinyr1.data.sources import read_source
from tinyr1.data.tokens import ROWS, RowWriter, read_tokens

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
    """Counts where every raw row of a domain went; raw == kept + sum(dropped.values()), always."""

    domain: str
    raw: int = 0
    kept: int = 0
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)  # (source, reason) -> rows
    examples: dict[str, str] = field(default_factory=dict)  # reason -> start of one dropped question

    def drop(self, source: str, reason: str, question: str) -> None:
        """Count one dropped row; the first question of each reason becomes its example."""
        self.dropped[source, reason] += 1
        if question:
            self.examples.setdefault(reason, question[:300])


def _question_hash(row: Row) -> bytes:
    """16 bytes that two rows share when they ask the same: the question but for case, blanks and punctuation marks.

    Operators count: `3 + 4` and `3 - 4` are two questions.
    """
    text = re.sub(r"[\s.,;:!?]+", " ", f"{row['question']} {row['starter_code']}".lower()).strip()
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()


def curate(
    ledger: Ledger,
    candidates_of: Iterable[tuple[str, Iterable[list[Candidate]]]],
    contamination: Contamination,
    encode: Callable[[Row], Encoded],
    max_tokens: int,
    limit: int | None,
) -> Iterator[tuple[Row, Encoded]]:
    """Training rows with their tokens, one after another; the ledger counts every raw row.

    candidates_of: (name of a source, candidates of each of its raw rows). A raw row is kept when at least one of its
    candidates passes all checks; otherwise the reason of its first candidate counts. Checks go from cheap to dear.
    """
    seen: set[bytes] = set()
    written = 0  # training rows; a raw row may give several

    def judge(row: Row) -> Encoded | str:
        """The tokens of a row, or the reason to drop it."""
        if _question_hash(row) in seen:
            return "duplicate"
        if hit := contamination.hit(row["question"]):
            # The row repeats the benchmark question: where that must not be published, neither may be shown.
            shown = f"{row['question'][:300]}\n  benchmark: {hit[0][:300]}"
            hidden = "(a question that must not be published)"
            ledger.examples.setdefault("contaminated", hidden if hit[0] in contamination.private else shown)
            return "contaminated"
        encoded = encode(row)
        if len(encoded.ids) > max_tokens:
            return "too_long"
        return "over_limit" if limit is not None and written >= limit else encoded

    for source, raw_rows in candidates_of:
        for candidates in raw_rows:
            ledger.raw += 1
            good: list[tuple[Row, Encoded]] = []
            reasons: list[tuple[str, str]] = []  # (reason, question)
            for candidate in candidates:
                verdict = candidate if isinstance(candidate, str) else judge(candidate)
                if isinstance(candidate, dict) and isinstance(verdict, Encoded):
                    good.append((candidate, verdict))
                else:
                    reasons.append((str(verdict), "" if isinstance(candidate, str) else candidate["question"]))
            if not good:
                ledger.drop(source, *reasons[0])
                continue
            ledger.kept += 1
            # Not before: the traces of one question are no duplicates of each other.
            seen.add(_question_hash(good[0][0]))
            for row, encoded in good[: None if limit is None else limit - written]:
                # The id depends on the text alone, so that a row keeps it when the rows before it change.
                digest = hashlib.sha256(f"{row['question']}\0{row['thinking']}".encode()).hexdigest()
                named = {"id": f"{ledger.domain}-{digest[:16]}", "domain": ledger.domain, "source": source}
                written += 1
                yield {**named, **row, "n_tokens": len(encoded.ids)}, encoded


def curate_domain(
    cfg: Config, domain: str, contamination: Contamination, tokenizer: PreTrainedTokenizerBase
) -> Ledger:
    """Curates the rows of a domain into the folder `cfg.rows(domain)`, with their tokens; returns the ledger.

    An earlier result is kept where it was made from the same sources and rules. UserError when no row is left.
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
        # Nothing is read yet: `map` and the generators behind it take a raw row when curate asks for the next one.
        streams = [
            (s.columns, map(partial(normalise, source=s, generations=generations), read_source(s, domain, p.seed)))
            for s in block.sources
        ]
        encode = partial(prompts.encode_row, tokenizer, block)
        with RowWriter(folder) as writer:
            for row, encoded in curate(ledger, streams, contamination, encode, p.curate.max_tokens, block.limit):
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


def curated_rows(cfg: Config, domain: str) -> Iterator[Row]:
    """The training rows of a domain as text, read from the disk one after another."""
    yield from read_rows(cfg.rows(domain) / ROWS)


def row_lengths(cfg: Config) -> pd.DataFrame:
    """One line for each training row of a run: domain, n_tokens (prompt and response)."""
    frames = [
        pd.DataFrame({"n_tokens": read_tokens(cfg.rows(name)).lengths}).assign(domain=name) for name in cfg.domains
    ]
    return pd.concat(frames, ignore_index=True)


def repeated(cfg: Config, contamination: Contamination) -> tuple[list[str], list[str]]:
    """(ids that occur more than once, ids of rows that repeat a benchmark question), from the rows on the disk."""
    counts: Counter[str] = Counter()
    leaks = []
    for domain in cfg.domains:
        for row in curated_rows(cfg, domain):
            counts[row["id"]] += 1
            if contamination.hit(row["question"]):
                leaks.append(row["id"])
    return [name for name, n in counts.items() if n > 1], leaks


def fates(ledgers: list[Ledger]) -> pd.DataFrame:
    """Raw rows by domain (lines) and fate (columns: each reason that occurs, then `kept`)."""
    table = {}
    for ledger in ledgers:
        fates: Counter[str] = Counter()
        for (_, why), n in ledger.dropped.items():
            fates[why] += n
        table[ledger.domain] = {**fates, "kept": ledger.kept}
    # A source may filter by a column of its own, which is then the reason and has no place in REASONS.
    own = sorted({why for ledger in ledgers for _, why in ledger.dropped} - REASONS.keys())
    frame = pd.DataFrame(table).T.fillna(0).astype(int)
    return frame[[*(why for why in REASONS if why in frame), *own, "kept"]]
