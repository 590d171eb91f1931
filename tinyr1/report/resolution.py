"""What the paper's own numbers can show: how far apart two published scores must be before they say more than chance.

Published are means only, so that the variance has to be assumed. p is a score, n its questions, k the answers to each:

    the same questions   p(1-p) / (n k)   every question is equally hard, so that all of the variance is that of answers
    other questions      p(1-p) / n       the answers to one question are all alike: k answers say no more than one

The truth lies between them. For the same questions the first is the largest variance that the answers can have; for
other questions the second is, where the two models are independent (docs/evaluation.md §6.3). Everything is in points,
with 95 % intervals.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z, Z_ONE_SIDED = 1.959964, 1.644854  # of the normal distribution: 95 % two-sided, and one-sided for equivalence

# Whether the paper's own numbers support a statement.
YES = "yes"
SAME = "for its own questions only"  # beyond chance for the same questions, and not for others of their kind
SIGN = "only its sign"
NOT_SHOWN = "not shown"
NO = "no"
ALONE = "nothing to hold it against"
NO_NUMBERS = "no numbers"


@dataclass(frozen=True)
class Score:
    """A published pass@1 in percent, of so many questions with so many answers to each."""

    percent: float
    questions: int
    samples: int

    @property
    def variances(self) -> tuple[float, float]:
        """Squared standard error in points for the same questions, and for other ones."""
        p = self.percent / 100
        other = 1e4 * p * (1 - p) / self.questions
        return other / self.samples, other


def half_widths(scores: Sequence[Score]) -> tuple[float, float]:
    """Half the 95 % interval of a sum or difference of independent scores, for the same and for other questions."""
    same, other = (math.sqrt(sum(score.variances[i] for score in scores)) for i in (0, 1))
    return Z * same, Z * other


def of_number(score: Score) -> str:
    """In words, how exactly a published score is known."""
    same, other = half_widths([score])
    return f"±{same:.1f} points for these {score.questions} questions, up to ±{other:.1f} for others of their kind"


def of_difference(says: str, pairs: Sequence[tuple[Score, Score]], margin: float) -> tuple[str, str]:
    """(whether the numbers show what a claim says, why in words) for the mean difference over pairs of scores.

    says: "higher", "lower", "similar", "retains" (similar or higher), "slightly higher" or "slightly lower". margin:
    points within which scores count as similar.
    """
    difference = sum(a.percent - b.percent for a, b in pairs) / len(pairs)
    same, other = (half / len(pairs) for half in half_widths([score for pair in pairs for score in pair]))
    why = f"{difference:+.1f} points; chance gives ±{same:.1f} for the same questions, up to ±{other:.1f} for others"
    equal = abs(difference) + Z_ONE_SIDED / Z * other < margin
    if says in ("similar", "retains"):
        lost = difference < -margin or (says == "similar" and difference > margin)
        shown = equal or (says == "retains" and difference > other)
        return (NO if lost else YES if shown else NOT_SHOWN), f"{why}; similar means within ±{margin:g}"
    sign = -1 if says.endswith("lower") else 1
    if round(sign * difference, 6) <= 0:
        return NO, f"{why}; the numbers say the opposite" if round(difference, 6) else f"{why}; they are equal"
    if says.startswith("slightly") and abs(difference) > margin:
        return NO, f"{why}; that is more than {margin:g} points"
    return (YES if sign * difference > other else SAME if sign * difference > same else SIGN), why
