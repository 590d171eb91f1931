r"""Turns raw rows into training rows; every raw row that it drops has exactly one reason (docs/fidelity.md §1.1).

    sources --tinyr1.data.gather--> rows that pass the readers and the benchmark check, on disk
            --in_order--> batches --Selection: duplicates, encode_rows, limit--> rows/<domain>/: rows, tokens, ledger

Nothing is tokenized that the limit cuts. A training row is a dict: id, domain, source, question, starter_code,
thinking, response, answer, n_tokens, and history where turns come before the question.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pandas as pd

from tinyr1.core import artifact, jsonl, prompts
from tinyr1.core.config import Config
from tinyr1.core.errors import UserError
from tinyr1.core.params.domains import Curate, Domain
from tinyr1.core.progress import Bar, say
from tinyr1.core.prompts import Encoded
from tinyr1.core.tokenizers import PROBE
from tinyr1.data import readers, sources, teacher
from tinyr1.data.columns import Drop
from tinyr1.data.contamination import Contamination
from tinyr1.data.files import read_rows
from tinyr1.data.gather import Pending, key_of, pending_rows, read_sources
from tinyr1.data.ledger import KEPT, LEDGER, Ledger, Outcomes
from tinyr1.data.near_duplicates import NearDuplicates
from tinyr1.data.readers import Row
from tinyr1.data.rejection import Grade, Trace
from tinyr1.data.tokens import ROWS, RowWriter, read_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Two tokenizers that give other ids to it are not the same, whatever their vocabularies are.
PROBE_ROW = {"question": PROBE, "starter_code": "", "thinking": PROBE, "response": PROBE}
FOUND = "found"  # folder of what the sources gave, inside the unfinished artifact
BATCH = 256  # raw rows that are tokenized at once


def in_order(pending: list[Pending], choose: str | None, seed: str) -> list[Pending]:
    """The rows in the order in which they are taken until the limit is reached (`Domain.choose`)."""
    if choose in ("longest", "shortest"):
        return sorted(pending, key=lambda one: -one.size if choose == "longest" else one.size)
    ordered = list(pending)
    if choose == "sample":
        Random(seed).shuffle(ordered)
    return ordered


class Selection:
    """Takes rows one after another: no duplicates, none too long, not more than the limit.

    cut: how many rows were cut to `curate.max_tokens`, and how many of them lost their whole answer.
    """

    def __init__(self, domain: str, curate: Curate, limit: int | None) -> None:
        self.domain, self.curate, self.limit = domain, curate, limit
        self.seen: set[bytes] = set()
        self.names: set[str] = set()
        self.compared: dict[bytes, bool] = {}  # key -> whether an earlier question is the same in other words
        self.near = NearDuplicates(curate.near_duplicates) if curate.near_duplicates else None
        self.written = 0
        self.cut = [0, 0]

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return self.limit is not None and self.written >= self.limit

    def is_duplicate(self, key: bytes) -> bool:
        """Whether an earlier row asks the same."""
        return self.curate.duplicates != "keep" and key in self.seen

    def verdict(self, row: Row, key: bytes, encoded: Encoded | None) -> Drop | None:
        """Why a row is not taken, or None. encoded: None for a row that was not tokenized: the limit is reached."""
        if self.is_duplicate(key):
            return Drop("duplicate")
        if encoded is None:
            return Drop("over_limit", f"limit: {self.limit}")
        cuts = self.curate.overlong not in (None, "drop") and encoded.n_prompt < self.curate.max_tokens
        if len(encoded.ids) > self.curate.max_tokens and not cuts:
            return Drop("too_long", f"{len(encoded.ids)} tokens, curate.max_tokens: {self.curate.max_tokens}")
        if self.full:
            return Drop("over_limit", f"limit: {self.limit}")
        return Drop("near_duplicate") if self.is_near_duplicate(row, key) else None

    def fitted(self, row: Row, encoded: Encoded, encode: "Encode") -> Encoded:
        """The tokens of a row that `verdict` lets pass, cut where it is too long. UserError where `curate.overlong`
        refuses such rows."""
        most = self.curate.max_tokens
        if len(encoded.ids) <= most:
            return encoded
        if self.curate.overlong == "refuse":
            raise UserError(
                f"domains.{self.domain}: {row['question'][:80]!r} has {len(encoded.ids)} tokens, curate.max_tokens is "
                f"{most}, and curate.overlong refuses such rows; raise the one, or set the other to drop or truncate"
            )
        without_reasoning = encode([{**row, "thinking": ""}])[0]
        answer = len(without_reasoning.ids) - without_reasoning.n_prompt
        self.cut[0] += 1
        self.cut[1] += len(encoded.ids) - answer >= most
        return Encoded(encoded.ids[:most], encoded.n_prompt)

    def is_near_duplicate(self, row: Row, key: bytes) -> bool:
        """Whether an earlier row asks the same in other words. Rows of one key are compared once: the traces of one
        question are no duplicates of each other."""
        if self.near is None:
            return False
        if key not in self.compared:
            text = readers.asked(row["question"], row.get("history", ()))
            self.compared[key] = self.near.add(text, row["starter_code"]) is not None
        return self.compared[key]

    def take(self, keys: list[bytes], good: list[tuple[Row, Encoded]], source: str) -> list[tuple[Row, Encoded]]:
        """The rows of one raw row as they are written, with their names; not more than the limit leaves room for."""
        # Not before: the traces of one question are no duplicates of each other.
        self.seen.update(keys)
        taken = []
        for row, encoded in good[: None if self.limit is None else self.limit - self.written]:
            # The id depends on the text alone, so that a row keeps it when the rows before it change.
            digest = hashlib.sha256(f"{row['question']}\0{row['thinking']}".encode()).hexdigest()
            name = base = f"{self.domain}-{digest[:16]}"
            copies = 1
            while name in self.names:
                copies += 1
                name = f"{base}-{copies}"
            self.names.add(name)
            head = {"id": name, "domain": self.domain, "source": source}
            taken.append(({**head, **row, "n_tokens": len(encoded.ids)}, encoded))
        self.written += len(taken)
        return taken


Encode = Callable[[list[Row]], list[Encoded]]


def select(
    folder: Path, names: list[str], order: list[Pending], selection: Selection, encode: Encode, bar: Bar
) -> Iterator[tuple[Pending, list[Row], list[tuple[Row, Encoded]], Drop | None]]:
    """For each raw row in turn: (it, its rows, those that are taken, why none is). Tokenizes some hundred at once."""
    spools = [(folder / f"{i}.jsonl").open("rb") for i in range(len(names))]
    try:
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            texts = [_rows_at(spools[one.source], one.at) for one in batch]
            keys = [[key_of(row) for row in rows] for rows in texts]
            needed = [] if selection.full else [
                (i, j) for i, some in enumerate(keys) for j, key in enumerate(some) if not selection.is_duplicate(key)
            ]  # fmt: skip
            encoded = dict(zip(needed, encode([texts[i][j] for i, j in needed]), strict=True)) if needed else {}
            for i, (one, rows) in enumerate(zip(batch, texts, strict=True)):
                good: list[tuple[Row, Encoded]] = []
                why: Drop | None = None
                for j, row in enumerate(rows):
                    tokens = encoded.get((i, j))
                    refused = selection.verdict(row, keys[i][j], tokens)
                    if refused is None and tokens is not None:
                        good.append((row, selection.fitted(row, tokens, encode)))
                    why = why or refused
                yield one, rows, selection.take(keys[i], good, names[one.source]) if good else [], why
            bar.update(start + len(batch), len(order))
    finally:
        for spool in spools:
            spool.close()


def _rows_at(spool: Any, at: int) -> list[Row]:
    spool.seek(at)
    return json.loads(spool.readline())


def build_rows(folder: Path, cfg: Config, domain: str, encode: Encode, found: Path) -> Ledger:
    """Step 2: the rows, tokens and ledger of a domain in `folder`, from what its sources gave."""
    block, curate = cfg.params.domains[domain], cfg.params.curate
    names = [sources.name_of(source) for source in block.sources]
    order = in_order(pending_rows(found, len(names)), block.choose, f"{cfg.params.seed}/{domain}")
    selection = Selection(domain, curate, block.limit)
    settled: dict[tuple[int, int], tuple[str, str, str, str, int]] = {}  # outcome, question, detail, id, training rows
    bar = Bar(domain, "row")
    with RowWriter(folder) as writer:
        for one, rows, taken, why in select(found, names, order, selection, encode, bar):
            for row, encoded in taken:
                writer.write(row, encoded)
            drop = why or Drop("over_limit")
            settled[one.source, one.line] = (
                (KEPT, "", "", taken[0][0]["id"], len(taken)) if taken
                else (drop.reason, rows[0]["question"][:300], drop.detail, "", 0)
            )  # fmt: skip
    outcomes = Outcomes(domain)
    for i, name in enumerate(names):
        for number, scanned in enumerate(jsonl.scan(found / f"{i}.lines.jsonl")):
            line: Any = scanned.value
            if line["outcome"]:
                outcomes.settle(name, line["file"], line["row"], line["outcome"], line["question"], line["detail"],
                                private=line["private"])  # fmt: skip
                continue
            outcome, question, detail, row_id, n = settled[i, number]
            outcomes.settle(name, line["file"], line["row"], outcome, question, detail or line["detail"], row_id)
            if outcome == KEPT:
                outcomes.summary.kept_by[name, line["level"], "program" if _is_code(block) else line["answer"]] += n
        outcomes.summary.readings += json.loads((found / f"{i}.json").read_text(encoding="utf-8"))["readings"]
    outcomes.write(folder)
    if selection.cut[0]:
        outcomes.summary.notes.append(
            f"{selection.cut[0]} rows are cut at {curate.max_tokens} tokens and have lost their end token, "
            f"{selection.cut[1]} of them their whole answer"
        )
    return outcomes.summary


def _is_code(block: Domain) -> bool:
    return all(benchmark.answers == "program" for benchmark in block.benchmarks.values()) and bool(block.benchmarks)


def notes_of(ledger: Ledger, block: Domain) -> list[str]:
    """Sentences on filters of the sources that refuse every row, or none."""
    notes = []
    for source in block.sources:
        name = sources.name_of(source)
        dropped = Counter({why: n for (where, why), n in ledger.dropped.items() if where == name})
        kept = sum(n for (where, _, _), n in ledger.kept_by.items() if where == name)
        for column in source.keep:
            if not dropped[column]:
                notes.append(f"{name}: `keep.{column}` refuses no row")
        if not kept:
            why = ", ".join(f"{why} {n}" for why, n in dropped.most_common())
            notes.append(f"{name}: no row is kept ({why or 'it has no row'})")
    return notes


def curate_domain(
    cfg: Config, domain: str, contamination: Contamination, tokenizer: "PreTrainedTokenizerBase",
    taught: Mapping[str, Any] | None = None,
) -> Ledger:  # fmt: skip
    """Curates the rows of a domain into the folder `cfg.rows(domain)`, with their tokens; returns the ledger.

    taught: the teacher's traces by `readers.seed_key`, where a source asks for them. An earlier result is kept where it
    was made from the same sources and rules. UserError when no row is left, or too many are malformed.
    """
    p, block = cfg.params, cfg.params.domains[domain]
    threads = p.curate.num_proc or len(os.sched_getaffinity(0))

    def encode(rows: list[Row]) -> list[Encoded]:
        return prompts.encode_rows(tokenizer, block, rows, threads, p.backbone.training_template)

    unused = {"num_proc"} | ({"overlong"} if p.curate.overlong is None else set())  # it was no parameter once
    inputs = {
        "sources": [s.model_dump(mode="json") for s in block.sources], "limit": block.limit, "choose": block.choose,
        "instructions": [block.instruction, block.instruction_with_options],
        "curate": p.curate.model_dump(exclude=unused), "seed": p.seed, "benchmarks": contamination.questions,
        "tokenizer": artifact.digest([tokenizer.get_vocab(), encode([PROBE_ROW])[0].ids]),
        "template": tokenizer.chat_template, "files": files_of(block, domain),
        "taught": {key: str(trace) for key, trace in (taught or {}).items()},
    }  # fmt: skip
    def build(folder: Path) -> dict:
        found = folder / FOUND
        read_sources(found, cfg, domain, contamination, taught)
        ledger = build_rows(folder, cfg, domain, encode, found)
        if not ledger.kept:
            raise UserError(f"domains.{domain}: none of {ledger.raw} raw rows is left: {dict(ledger.dropped)}")
        ledger.notes += notes_of(ledger, block)
        ledger.unread = [one for source in block.sources for one in sources.unread(source, domain)]
        shutil.rmtree(found)
        return ledger.facts() | {artifact.ASIDE: [LEDGER]}

    manifest, built = artifact.make(cfg.rows(domain), inputs, build, cfg.remedy("01_data_curation"))
    ledger = Ledger.of_facts(manifest["facts"])
    say(f"  {domain:8s} {ledger.kept} of {ledger.raw} rows {'curated' if built else 'kept from before'}")
    for note in (*ledger.notes, *(f"{name} is not read: {why}" for name, why in ledger.unread)):
        say(f"    {note}")
    return ledger


def files_of(block: Domain, domain: str) -> list[list]:
    """Name, bytes and time of change of each file of the sources: a changed file is read again."""
    where = f"domains.{domain}.sources"
    paths = [path for source in block.sources if source.kind == "files" for path in sources.find(source, where).paths]
    return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]


def taught_traces(
    cfg: Config, contamination: Contamination, grader: Callable[[], AbstractContextManager[Grade]]
) -> dict[str, dict[str, Trace]]:
    """The traces of the teacher by domain and `readers.seed_key`, after it was asked for those that are missing.

    Nothing is asked, and `grader` is not called, where no source has `traces`. UserError as of `teacher.ask`.
    """
    asking = [name for name, block in cfg.params.domains.items() if any(source.traces for source in block.sources)]
    if asking:
        with grader() as grade:
            for domain in asking:
                teacher.ask(cfg, domain, seeds(cfg, domain, contamination), grade)
    return {domain: teacher.read_traces(cfg, domain) for domain in cfg.domains}


def seeds(cfg: Config, domain: str, contamination: Contamination) -> Iterator[dict]:
    """The questions of a domain whose traces the teacher writes, each once: key, domain, source, question,
    starter_code, answer, history. Questions that repeat one of a benchmark are not asked."""
    block, given = cfg.params.domains[domain], set()
    for source in (source for source in block.sources if source.traces):
        for raw in sources.read_source(source, domain, cfg.params.seed):
            parsed = readers.read(raw.value, source) if not raw.error else Drop("malformed")
            for one in parsed if isinstance(parsed, list) else ():
                key = readers.seed_key(one)
                if readers.wants_teacher(one, source) and key not in given and not contamination.hit(one.question):
                    given.add(key)
                    place = {"key": key, "domain": domain, "source": sources.name_of(source)}
                    text = {"question": one.question, "starter_code": one.starter_code, "answer": one.answer}
                    yield place | text | {"history": list(one.history)}


def retokenize(cfg: Config, domain: str, template: str, folder: Path, tokenizer: "PreTrainedTokenizerBase") -> None:
    """The curated rows of a domain in `folder`, tokenized in another template, unless they are there.

    template: as `Backbone.training_template`. UserError for a row that is longer than a packed sequence then.
    """
    content = artifact.check(cfg.rows(domain), cfg.remedy("01_data_curation"))["content"]

    def build(made: Path) -> dict:
        with RowWriter(made) as writer:
            for row in curated_rows(cfg, domain):
                encoded = prompts.encode_row(tokenizer, cfg.params.domains[domain], row, template)
                if len(encoded.ids) > cfg.params.trainer.sequence_length:
                    raise UserError(
                        f"{row['id']}: {len(encoded.ids)} tokens in template {template}, trainer.sequence_length is "
                        f"{cfg.params.trainer.sequence_length}; lower curate.max_tokens"
                    )
                writer.write({**row, "n_tokens": len(encoded.ids)}, encoded)
        return {}

    inputs = {"rows": content, "template": template}
    artifact.make(folder, inputs, build, cfg.remedy("01_data_curation"))


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
