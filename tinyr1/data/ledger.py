"""Where every raw row went: each ends with exactly one outcome, and the counts of a domain add up.

curate --settle--> Outcomes --write--> rows/<domain>/ledger.parquet: source, file, row, outcome, detail, id
                       \\--summary--> Ledger: counts, five examples of each reason, notes; in the artifact's facts
Ledgers --fates, kept_by, readings--> the tables of notebook 01
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

LEDGER = "ledger.parquet"
KEPT = "kept"
EXAMPLES = 5  # of each reason
SHOWN = 300  # characters of a question or detail in the ledger
PRIVATE = "(a question that must not be published)"
# In the order in which a row meets them. A row may also be dropped for a column of `keep`, whose name is its reason.
REASONS = {
    "malformed": "it does not have the form of its columns",
    "question_type": "not a kind of question the paper keeps",
    "source": "from a collection the filter leaves out",
    "domain": "belongs to another domain",
    "cot_type": "belongs to another domain",
    "no_question": "the question is empty",
    "no_answer": "no answer to check against",
    "unverified": "no generation passed the answer checker",
    "incomplete": "no generation ran to its end",
    "no_reasoning": "an answer without reasoning before it",
    "several_turns": "a conversation with several answers",
    "teacher_not_asked": "the teacher has written no trace for it yet",
    "teacher_refused": "the teacher refused to answer",
    "teacher_truncated": "the teacher's trace ran into its limit",
    "teacher_empty_reasoning": "the teacher answered without reasoning",
    "teacher_wrong": "no trace of the teacher reached the right answer",
    "teacher_failed": "the server gave no trace",
    "contaminated": "shares its wording with a benchmark question",
    "duplicate": "the same question was kept before",
    "too_long": "longer than curate.max_tokens",
    "near_duplicate": "a question that differs in wording only was kept before",
    "over_limit": "more rows than the domain's limit",
}


@dataclass(frozen=True)
class Example:
    """One row for the reader: where it stands, what it asks, and what decided."""

    source: str
    file: str
    row: int
    question: str
    detail: str


@dataclass
class Ledger:
    """The summary of a domain; raw == kept + sum(dropped.values()), always.

    dropped: (source, reason) -> raw rows. examples: of each reason. kept_by: (source, level, kind of answer) ->
    training rows. readings: what `alternatives` of the sources would give. unread: files that are not read, and why.
    notes: sentences on filters that refuse all rows, or none.
    """

    domain: str
    raw: int = 0
    kept: int = 0
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[str, list[Example]] = field(default_factory=dict)
    kept_by: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    readings: list[dict] = field(default_factory=list)
    unread: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def facts(self) -> dict:
        """The same as JSON can hold it; `of_facts` reads it."""
        return asdict(self) | {
            "dropped": [[*key, n] for key, n in sorted(self.dropped.items())],
            "kept_by": [[*key, n] for key, n in sorted(self.kept_by.items())],
        }

    @classmethod
    def of_facts(cls, facts: dict) -> "Ledger":
        """A ledger from the facts of its artifact."""
        return cls(**facts | {
            "dropped": Counter({(source, why): n for source, why, n in facts["dropped"]}),
            "kept_by": Counter({(source, level, kind): n for source, level, kind, n in facts["kept_by"]}),
            "examples": {why: [Example(**one) for one in some] for why, some in facts["examples"].items()},
            "unread": [(name, why) for name, why in facts["unread"]],
        })  # fmt: skip


class Outcomes:
    """The outcome of each raw row while a domain is curated; a few dozen bytes for each."""

    def __init__(self, domain: str) -> None:
        self.summary = Ledger(domain)
        self.columns: dict[str, list] = {name: [] for name in ("source", "file", "row", "outcome", "detail", "id")}

    def settle(self, source: str, file: str, row: int, outcome: str, question: str = "", detail: str = "",
               name: str = "", private: bool = False) -> None:  # fmt: skip
        """Count a raw row. name: the id of its first training row. private: it repeats what nobody may publish."""
        question, detail = (PRIVATE, "") if private else (question[:SHOWN], detail[:SHOWN])
        for column, value in zip(self.columns.values(), (source, file, row, outcome, detail, name), strict=True):
            column.append(value)
        ledger = self.summary
        ledger.raw += 1
        if outcome == KEPT:
            ledger.kept += 1
            return
        ledger.dropped[source, outcome] += 1
        some = ledger.examples.setdefault(outcome, [])
        if len(some) < EXAMPLES:
            some.append(Example(source, file, row, question, detail))

    def write(self, folder: Path) -> None:
        """Write ledger.parquet, one line for each raw row in the order of the sources."""
        import pyarrow
        from pyarrow import parquet

        table = pyarrow.table(self.columns)
        for name in ("source", "file", "outcome") if len(table) else ():  # few different texts
            table = table.set_column(table.column_names.index(name), name, table[name].dictionary_encode())
        parquet.write_table(table, folder / LEDGER)


def fates(ledgers: Sequence[Ledger]) -> pd.DataFrame:
    """Raw rows by domain (lines) and fate (columns: each reason that occurs, then `kept`)."""
    table = {}
    for ledger in ledgers:
        counts: Counter[str] = Counter()
        for (_, why), n in ledger.dropped.items():
            counts[why] += n
        table[ledger.domain] = {**counts, KEPT: ledger.kept}
    # A source may filter by a column of its own, which is then the reason and has no place in REASONS.
    own = sorted({why for ledger in ledgers for _, why in ledger.dropped} - REASONS.keys())
    frame = pd.DataFrame(table).T.fillna(0).astype(int)
    return frame[[*(why for why in REASONS if why in frame), *own, KEPT]]


def examples_table(ledgers: Iterable[Ledger]) -> pd.DataFrame:
    """Up to five dropped rows for each reason that occurs: reason, meaning, domain, place, question, seen by."""
    lines: dict[str, list[tuple]] = {}
    for ledger in ledgers:
        for why, some in ledger.examples.items():
            meaning = REASONS.get(why, f"its {why} is not one that the params file keeps")
            lines.setdefault(why, []).extend(
                (meaning, ledger.domain, f"{one.file or one.source}:{one.row}", one.question, one.detail)
                for one in some
            )
    order = [why for why in [*REASONS, *lines] if why in lines]
    table = [(why, *line) for why in dict.fromkeys(order) for line in lines[why][:EXAMPLES]]
    columns = ["reason", "meaning", "domain", "row", "question", "seen by"]
    return pd.DataFrame(table, columns=columns).set_index("reason")


def kept_by(ledgers: Iterable[Ledger]) -> pd.DataFrame:
    """What was kept: training rows by domain, source, level and kind of answer."""
    lines = [(ledger.domain, *key, n) for ledger in ledgers for key, n in sorted(ledger.kept_by.items())]
    return pd.DataFrame(lines, columns=["domain", "source", "level", "answer", "rows"]).set_index("domain")


def readings(ledgers: Iterable[Ledger]) -> pd.DataFrame:
    """What each reading of the paper gives, from one pass over the rows, beside what the paper says of the source.

    rows: raw rows that the source's filter and its readers accept; questions: different ones among them.
    """
    columns = ["source", "reading", "raw rows", "rows", "questions", "paper", "rows less paper"]
    lines = [{"domain": ledger.domain, **line} for ledger in ledgers for line in ledger.readings]
    table = pd.DataFrame(lines, columns=["domain", *columns[:-1]])
    table[columns[-1]] = table.rows - table.paper
    return table.set_index("domain")


def files_not_read(ledgers: Iterable[Ledger]) -> pd.DataFrame:
    """Files that stand among those of a source and are not read."""
    lines = [(ledger.domain, *one) for ledger in ledgers for one in ledger.unread]
    return pd.DataFrame(lines, columns=["domain", "file", "why it is not read"]).set_index("domain")
