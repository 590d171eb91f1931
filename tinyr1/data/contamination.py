"""Finds training rows that repeat the wording of a benchmark question (docs/fidelity.md §1.3)."""

import re
from collections import Counter
from collections.abc import Iterable

from tinyr1.core.params.domains import Decontaminate


def words(text: str) -> list[str]:
    """Lower-case words and numbers: the units of the contamination check."""
    return re.findall(r"[a-z]+|\d+", text.lower())


def _ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    tokens = words(text)
    return {tuple(tokens[i : i + n]) for i in range(max(1, len(tokens) - n + 1))}


class Contamination:
    """An index of benchmark questions by their word n-grams.

    A row is contaminated when at least `min_share` of the n-grams of some benchmark question occur in it. A low share
    catches quotations in long competition problems. Templated questions, which share their phrasing and differ in
    their numbers, need a high one.

    questions: dicts of `tinyr1.data.benchmarks`. Their texts are in `questions`; those that must not be published are
    also in `private`.
    """

    def __init__(self, questions: Iterable[dict], rule: Decontaminate) -> None:
        self.rule = rule
        private = {q["question"]: q["private"] for q in questions}
        self.questions = list(private)
        self.private = {question for question, hidden in private.items() if hidden}
        self.sizes = [len(_ngrams(q, rule.ngram)) for q in self.questions]
        self.index: dict[tuple[str, ...], list[int]] = {}
        for i, question in enumerate(self.questions):
            for gram in _ngrams(question, rule.ngram):
                self.index.setdefault(gram, []).append(i)

    def hit(self, text: str) -> tuple[str, float] | None:
        """(benchmark question, share of its n-grams in the text) with the largest share, or None below `min_share`."""
        found = Counter(i for gram in _ngrams(text, self.rule.ngram) for i in self.index.get(gram, ()))
        shares = {i: count / self.sizes[i] for i, count in found.items()}
        worst = max(shares, key=shares.__getitem__, default=None)
        if worst is None or shares[worst] < self.rule.min_share:
            return None
        return self.questions[worst], shares[worst]
