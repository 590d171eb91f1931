r"""Reads the sources of a domain: every raw row passes on to the choice of rows, or gets the reason why it does not.

    source --read_source--> raw rows --normalise, contamination--> found/<i>.jsonl        training rows that pass
                                                \---------------> found/<i>.lines.jsonl  a line for each raw row
                                                                   found/<i>.json         counts; written last
    found/ --pending_rows--> Pending rows --> tinyr1.data.curate

A source whose counts are there was read before a kill, and is not read again. Rows lie on the disk between the two
steps: those of one domain take gigabytes at the paper's size, while some hundred bytes of each stay in memory.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinyr1.core import artifact, jsonl
from tinyr1.core.config import Config
from tinyr1.core.errors import UserError
from tinyr1.core.params.domains import Source
from tinyr1.core.progress import Bar
from tinyr1.data import readers, sources
from tinyr1.data.answers import kind_of_answer
from tinyr1.data.columns import Drop
from tinyr1.data.contamination import Contamination
from tinyr1.data.duplicates import question_key
from tinyr1.data.readers import Row

MAX_MALFORMED = 0.01  # share of a source's rows, where the params file gives none
PERIOD = 1000  # raw rows between two pictures of the progress


def key_of(row: Row) -> bytes:
    """16 bytes that two rows share when they ask the same, after the same turns."""
    return question_key(readers.asked(row["question"], row.get("history", ())), row["starter_code"])


@dataclass
class Reading:
    """What one reading of a source gives: raw rows that pass, and the keys of their questions."""

    source: Source
    rows: int = 0
    keys: set[bytes] = field(default_factory=set)

    def count(self, found: list[Row]) -> None:
        """Count a raw row that gives these training rows, if any."""
        self.rows += bool(found)
        self.keys.update(key_of(row) for row in found)


class Tally:
    """Counts of one source while it is read: raw rows, malformed ones, and what other readings of the paper give."""

    def __init__(self, source: Source) -> None:
        self.source, self.name = source, sources.name_of(source)
        self.raw = self.malformed = 0
        self.examples: list[str] = []
        self.readings = {"this run": Reading(source)} | {
            name: Reading(source.model_copy(update={"keep": other.keep, "correct": other.correct}))
            for name, other in (source.alternatives or {}).items()
        }

    def count(self, raw: sources.Raw, line: dict, generations: int, taught: Mapping[str, Any] | None) -> None:
        """Count a raw row, of which `line` is what `_judged` notes."""
        self.raw += 1
        if line["outcome"] == "malformed":
            self.malformed += 1
            self.examples += [f"{raw.file}:{raw.row} {line['detail']}"] if len(self.examples) < 5 else []
        if len(self.readings) > 1 or self.source.published:
            for reading in self.readings.values():
                judged = [] if raw.error else readers.normalise(raw.value, reading.source, generations, taught)
                reading.count([candidate for candidate, _ in judged if isinstance(candidate, dict)])

    def check(self, domain: str, allowed: float) -> None:
        """UserError where a larger share of the rows is malformed."""
        if self.malformed > allowed * self.raw:
            raise UserError(
                f"domains.{domain}.sources: {self.malformed} of {self.raw} rows of {self.name} are malformed, more "
                f"than curate.max_malformed ({allowed:g}) allows: {'; '.join(self.examples)}; mend them, name other "
                "`columns`, or raise the share"
            )

    def facts(self) -> dict:
        """The counts as JSON can hold them."""
        shown = len(self.readings) > 1 or self.source.published is not None
        return {
            "raw": self.raw,
            "readings": [
                {
                    "source": self.name, "reading": name, "raw rows": self.raw, "rows": reading.rows,
                    "questions": len(reading.keys), "paper": self.source.published,
                }  # fmt: skip
                for name, reading in self.readings.items() if shown
            ],
        }  # fmt: skip


def read_one(
    folder: Path, i: int, source: Source, cfg: Config, domain: str, contamination: Contamination,
    taught: Mapping[str, Any] | None, bar: Bar,
) -> None:  # fmt: skip
    """Read source i into `folder`: <i>.jsonl and <i>.lines.jsonl hold what it gives, <i>.json, written last, counts.

    UserError where more rows are malformed than `curate.max_malformed` allows.
    """
    rules, tally = cfg.params.curate, Tally(source)
    with (folder / f"{i}.jsonl").open("wb") as rows, (folder / f"{i}.lines.jsonl").open("wb") as lines:
        for raw in sources.read_source(source, domain, cfg.params.seed):
            judged: list[tuple[readers.Candidate, Any]]
            if raw.error:
                judged = [(Drop("malformed", raw.error), None)]
            else:
                judged = list(readers.normalise(raw.value, source, rules.generations_per_question, taught))
            line = _judged(raw, judged, contamination)
            tally.count(raw, line, rules.generations_per_question, taught)
            if kept := line.pop("rows"):
                line |= {"at": rows.tell(), "size": sum(len(row["thinking"]) + len(row["response"]) for row in kept)}
                rows.write(jsonl.encode(kept))
            lines.write(jsonl.encode(line))
            if tally.raw % PERIOD == 0:
                bar.wait(f"{tally.name}, {tally.raw:,} raw rows read")
    tally.check(domain, MAX_MALFORMED if rules.max_malformed is None else rules.max_malformed)
    artifact.write_atomic(folder / f"{i}.json", json.dumps(tally.facts()))


def _judged(raw: sources.Raw, judged: list[tuple[readers.Candidate, Any]], contamination: Contamination) -> dict:
    """What is noted of a raw row: its place, its rows that pass, or the first reason why none does."""
    rows: list[Row] = []
    drops: list[tuple[Drop, str, bool]] = []
    for candidate, parsed in judged:
        question = parsed.question if parsed else ""
        # A question that repeats one of a benchmark is not put to the teacher, for that reason and no other.
        whole = not isinstance(candidate, Drop) or candidate.reason == readers.NOT_ASKED
        hit = contamination.hit(question) if whole or contamination.private else None
        # A row that repeats a question which must not be published may not be shown either, whatever it is dropped for.
        private = hit is not None and hit.question in contamination.private
        if whole and hit:
            drops.append((Drop("contaminated", f"{hit.kind}, {hit.share:.0%}: {hit.question}"), question, private))
        elif isinstance(candidate, Drop):
            drops.append((candidate, question, private))
        else:
            rows.append(candidate)
    line: dict = {"file": raw.file, "row": raw.row, "outcome": "", "rows": rows}
    if rows:
        detail = next((parsed.detail for _, parsed in judged if parsed and parsed.detail), "")
        return line | {"detail": detail, "level": _level(raw.value), "answer": kind_of_answer(rows[0]["answer"])}
    drop, question, private = drops[0]
    return line | {"outcome": drop.reason, "detail": drop.detail[:300], "question": question[:300], "private": private}


def _level(raw: Any) -> str:
    """How hard a row is, where it says so."""
    levels = [raw[name] for name in ("level", "difficulty") if isinstance(raw.get(name), (str, int))]
    return str(levels[0])[:40] if levels else ""


def read_sources(
    folder: Path, cfg: Config, domain: str, contamination: Contamination, taught: Mapping[str, Any] | None
) -> None:
    """Read every source of a domain that was not read before a kill."""
    folder.mkdir(exist_ok=True)
    bar = Bar(domain, "row")
    for i, source in enumerate(cfg.params.domains[domain].sources):
        if not (folder / f"{i}.json").is_file():
            read_one(folder, i, source, cfg, domain, contamination, taught, bar)


@dataclass(frozen=True)
class Pending:
    """A raw row that passed step 1: its source, its place in the two files of the source, and its length in
    characters."""

    source: int
    line: int
    at: int
    size: int


def pending_rows(folder: Path, n_sources: int) -> list[Pending]:
    """The raw rows that passed step 1, in the order of the sources."""
    found = []
    for i in range(n_sources):
        for number, line in enumerate(jsonl.scan(folder / f"{i}.lines.jsonl")):
            value: Any = line.value
            if not value["outcome"]:
                found.append(Pending(i, number, value["at"], value["size"]))
    return found
