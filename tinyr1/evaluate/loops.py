r"""Whether an answer loops: whether it ends in a repeated tail, as a model does that cannot stop.

A text loops if its last characters are at least REPEATS copies of one unit, at least SHORTEST characters in all; the
unit has at most LONGEST characters, and the last copy may be cut off. Copies must be equal to the letter: a model that
counts upwards for ever is not found, so a share of looping answers is a lower bound.

    "… so x = 4. Wait, let me check. Wait, let me check. Wait, let me check. Wait, let me ch"    loops
    "| 0 | 0 |\n| 0 | 0 |\n| 0 | 0 |\n| 0 | 0 |\n| 0 | 0 |\nThe answer is \boxed{0}."            does not: it went on
"""

REPEATS = 4
SHORTEST = 40  # characters; four equal digits or a line of dashes are no loop
LONGEST = 2000  # characters, some 500 tokens


def loops(text: str) -> bool:
    """Whether the text ends in a repeated tail, by the definition above."""
    for unit in range(1, min(LONGEST, len(text) // REPEATS) + 1):
        tail = max(REPEATS * unit, SHORTEST)
        # A tail repeats a unit if it is equal to itself one unit earlier.
        if tail <= len(text) and text[unit - tail :] == text[-tail:-unit]:
            return True
    return False
