"""Raw rows to training rows; every dropped row has exactly one reason (paper §2.1, ledger §1).

    candidate = normalise(raw row)         a Row, or the reason why there is none
    rows, ledger = curate(candidates, …)   what is kept, and a count for every reason

A Row is a dict: id, domain, source, question, starter_code, thinking, response, answer, n_tokens.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from transformers import PreTrainedTokenizerBase

from tinyr1.core import artifact, jsonl, prompts
from tinyr1.core.config import DOMAINS, Config, Decontaminate, Source
from tinyr1.core.errors import UserError
from tinyr1.core.progress import say

Row = dict
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
    "over_limit": "more rows than curate.limit",
}


@dataclass
class Ledger:
    """Where every raw row went. raw == kept + sum(dropped.values()), always."""

    domain: str
    raw: int = 0
    kept: int = 0
    dropped: Counter = field(default_factory=Counter)  # (source name, reason) -> rows
    examples: dict[str, str] = field(default_factory=dict)  # reason -> one dropped question

    def drop(self, source: str, reason: str, question: str) -> None:
        self.dropped[source, reason] += 1
        if question:
            self.examples.setdefault(reason, question[:300])


def think_parts(text: str) -> tuple[str, str] | None:
    """(thinking, response) of an R1 generation; None when the reasoning never closed."""
    head, tag, response = text.partition("</think>")
    if not tag or not response.strip():
        return None
    return head.replace("<think>", "", 1).strip(), response.strip()


def openthoughts_parts(text: str) -> tuple[str, str] | None:
    """(thinking, response) from OpenThoughts' tags.

    The paper writes that `<|end_of_solution|>` becomes `</think>`, which would put the answer inside the
    reasoning; `<|end_of_thought|>` is meant (ledger C3). The solution tags are removed.
    """
    form = r"<\|begin_of_thought\|>(.*)<\|end_of_thought\|>\s*<\|begin_of_solution\|>(.*)<\|end_of_solution\|>"
    match = re.search(form, text, re.DOTALL)
    return (match[1].strip(), match[2].strip()) if match else None


Candidate = Row | str  # a row without id and n_tokens, or the reason to drop it


def _row(question: str, thinking: str, response: str, answer: str = "", starter_code: str = "") -> Row:
    return {
        "question": question.strip(), "starter_code": starter_code or "", "thinking": thinking.strip(),
        "response": response.strip(), "answer": answer,
    }  # fmt: skip


def _openr1_math(raw: dict, source: Source, generations: int) -> list[Candidate]:
    if raw["answer"] in (None, "", "proof", "notfound"):
        return ["no_answer"]
    verified = raw["correctness_math_verify"] or [False] * len(raw["generations"])
    texts = [
        text for text, ok in zip(raw["generations"], verified, strict=True) if ok or source.correct == "any"
    ]
    if not any(map(think_parts, raw["generations"])):
        return ["incomplete"]
    if not texts:
        return ["unverified"]
    parts = [p for p in map(think_parts, texts) if p]
    return [_row(raw["problem"], *p, answer=raw["answer"]) for p in parts[:generations]] or ["incomplete"]


def _openthoughts(raw: dict, source: Source, generations: int) -> list[Candidate]:
    turns = {turn["from"]: turn["value"] for turn in raw["conversations"]}
    parts = openthoughts_parts(turns.get("assistant", ""))
    return [_row(turns.get("user", ""), *parts)] if parts else ["incomplete"]


def _openthoughts_metadata(raw: dict, source: Source, generations: int) -> list[Candidate]:
    thinking, response = raw["deepseek_reasoning"] or "", raw["deepseek_solution"] or ""
    if not thinking.strip() or not response.strip():
        return ["incomplete"]
    return [_row(raw["problem"], thinking, response, starter_code=raw.get("starter_code") or "")]


def _s1(raw: dict, source: Source, generations: int) -> list[Candidate]:
    """s1K-1.1 brings DeepSeek-R1's traces; s1's full set only Gemini's, which the paper replaced (ledger §1.3)."""
    thinking = raw.get("deepseek_thinking_trajectory") or "".join(raw.get("thinking_trajectories") or [])
    response = raw.get("deepseek_attempt") or raw.get("attempt") or ""
    if not thinking.strip() or not response.strip():
        return ["incomplete"]
    return [_row(raw["question"], thinking, response, answer=raw.get("solution") or "")]


READERS: dict[str, Callable[[dict, Source, int], list[Candidate]]] = {
    "openr1_math": _openr1_math,
    "openthoughts": _openthoughts,
    "openthoughts_metadata": _openthoughts_metadata,
    "s1": _s1,
}


def normalise(raw: dict, source: Source, generations: int) -> list[Candidate]:
    """Rows of one raw row (up to `generations` traces), or one reason to drop it."""
    for column, accepted in source.keep.items():
        if raw[column] not in accepted:
            return [column]
    candidates = READERS[source.columns](raw, source, generations)
    return [c if isinstance(c, str) or c["question"] else "no_question" for c in candidates]


def candidates(raw_rows: Iterable[dict], source: Source, generations: int) -> Iterator[list[Candidate]]:
    """`normalise` over all raw rows of a source."""
    for raw in raw_rows:
        yield normalise(raw, source, generations)


def _same(row: Row) -> str:
    """What two rows share when they ask the same: the question but for case, blanks and punctuation marks.

    Operators stay: `3 + 4` and `3 - 4` are two questions.
    """
    return re.sub(r"[\s.,;:!?]+", " ", f"{row['question']} {row['starter_code']}".lower()).strip()


def words(text: str) -> list[str]:
    """Lower-case words and numbers: the units of the contamination check."""
    return re.findall(r"[a-z]+|\d+", text.lower())


def _ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    tokens = words(text)
    return {tuple(tokens[i : i + n]) for i in range(max(1, len(tokens) - n + 1))}


class Contamination:
    """Finds rows that hold a benchmark question's wording.

    A row is contaminated when at least `min_share` of the n-grams of some benchmark question occur in it. A
    low share catches quotations in long competition problems; templated questions, which share their phrasing
    and differ in their numbers, need a high one.

    asked: questions of `tinyr1.data.benchmarks`. Texts of those that are private are in `private`.
    """

    def __init__(self, asked: Iterable[dict], rule: Decontaminate) -> None:
        self.rule = rule
        private = {q["question"]: q["private"] for q in asked}
        self.questions = list(private)
        self.private = {question for question, hidden in private.items() if hidden}
        self.sizes = [len(_ngrams(q, rule.ngram)) for q in self.questions]
        self.index: dict[tuple[str, ...], list[int]] = {}
        for i, question in enumerate(self.questions):
            for gram in _ngrams(question, rule.ngram):
                self.index.setdefault(gram, []).append(i)

    def hit(self, text: str) -> tuple[str, float] | None:
        """(benchmark question, share of its n-grams found), the worst hit, or None."""
        found = Counter(i for gram in _ngrams(text, self.rule.ngram) for i in self.index.get(gram, ()))
        shares = {i: count / self.sizes[i] for i, count in found.items()}
        worst = max(shares, key=shares.__getitem__, default=None)
        if worst is None or shares[worst] < self.rule.min_share:
            return None
        return self.questions[worst], shares[worst]


def curate_run(
    cfg: Config,
    domain: str,
    raw: list[tuple[Source, Iterator[dict]]],
    contamination: Contamination,
    tokenizer: PreTrainedTokenizerBase,
) -> Ledger:
    """Curated rows of a run's domain, on disk; kept if they were made from the same sources and rules.

    Raises UserError when nothing is left.
    """
    p = cfg.params
    inputs = {
        "sources": [s.model_dump() for s in p.sources[domain]], "curate": p.curate.model_dump(), "seed": p.seed,
        "benchmarks": contamination.questions, "tokenizer": artifact.digest(tokenizer.get_vocab()),
        "template": tokenizer.chat_template,
    }  # fmt: skip

    def build(path: Path) -> dict:
        streams = [(s.columns, candidates(rows, s, p.curate.generations_per_question)) for s, rows in raw]
        rows, ledger = curate(
            domain, streams, contamination,
            lambda row: len(prompts.encode(tokenizer, row | {"domain": domain}).ids),
            p.curate.max_tokens, p.curate.limit[domain],
        )  # fmt: skip
        if not rows:
            raise UserError(f"sources.{domain}: none of {ledger.raw} raw rows is left: {dict(ledger.dropped)}")
        jsonl.write(path, rows)
        dropped = [[source, why, n] for (source, why), n in sorted(ledger.dropped.items())]
        return {"raw": ledger.raw, "kept": ledger.kept, "dropped": dropped, "examples": ledger.examples}

    again = cfg.remedy("01_data_curation")
    manifest, built = artifact.make(cfg.rows(domain), inputs, build, again)
    f = manifest["facts"]
    say(f"  {domain:8s} {f['kept']} of {f['raw']} rows {'curated' if built else 'kept from before'}")
    dropped = Counter({(source, why): n for source, why, n in f["dropped"]})
    return Ledger(domain, f["raw"], f["kept"], dropped, f["examples"])


def table(cfg: Config) -> pd.DataFrame:
    """All curated rows of a run."""
    return pd.DataFrame([row for domain in DOMAINS for row in jsonl.read(cfg.rows(domain))])


def funnel(ledgers: list[Ledger]) -> pd.DataFrame:
    """Rows by domain and fate: one column for each reason, then `kept`; a row sums to the raw rows."""
    table = {}
    for ledger in ledgers:
        fates = Counter()
        for (_, why), n in ledger.dropped.items():
            fates[why] += n
        table[ledger.domain] = {**fates, "kept": ledger.kept}
    frame = pd.DataFrame(table).T.fillna(0).astype(int)
    return frame[[*(c for c in REASONS if c in frame), "kept"]]


def curate(
    domain: str,
    sources: list[tuple[str, Iterator[list[Candidate]]]],  # (source name, candidates of each raw row)
    contamination: Contamination,
    count_tokens: Callable[[Row], int],
    max_tokens: int,
    limit: int | None,
) -> tuple[list[Row], Ledger]:
    """Kept rows and the ledger. Checks go from cheap to dear; the first that fails is the reason."""
    ledger, rows, seen = Ledger(domain), [], set()

    def reason(row: Row) -> str | None:
        if _same(row) in seen:
            return "duplicate"
        if hit := contamination.hit(row["question"]):
            if hit[0] in contamination.private:  # the row repeats it, so that neither may be shown
                ledger.examples.setdefault("contaminated", "(a question that must not be published)")
            else:
                ledger.examples.setdefault("contaminated", f"{row['question'][:300]}\n  benchmark: {hit[0][:300]}")
            return "contaminated"
        row["n_tokens"] = count_tokens(row)
        if row["n_tokens"] > max_tokens:
            return "too_long"
        return "over_limit" if limit is not None and len(rows) >= limit else None

    for name, source in sources:
        for candidates in source:
            ledger.raw += 1
            found = [(c, c if isinstance(c, str) else reason(c)) for c in candidates]
            good = [row for row, why in found if why is None]
            if not good:
                row, why = found[0]
                ledger.drop(name, why, row["question"] if isinstance(row, dict) else "")
                continue
            ledger.kept += 1
            seen.add(_same(good[0]))
            for row in good[: None if limit is None else limit - len(rows)]:
                digest = hashlib.sha256(f"{row['question']}\0{row['thinking']}".encode()).hexdigest()
                rows.append({"id": f"{domain}-{digest[:16]}", "domain": domain, "source": name, **row})
    return rows, ledger
