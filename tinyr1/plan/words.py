"""Figures as a person says them, and lines that fit a terminal."""

import textwrap

WIDTH = 118  # of a line in a terminal


def duration(seconds: float | None) -> str:
    """Seconds, minutes, hours, days or years, whichever is read most easily."""
    if seconds is None:
        return "an unknown time"
    for unit, length in (("years", 31_536_000), ("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}" if seconds < 10 * length else f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} s"


def tokens(count: float) -> str:
    """A number of tokens with three digits: 31.4 k, 810 M, 4.05 G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f}"


def wrapped(text: str) -> str:
    """The text with its long lines broken; what follows is indented further."""
    return "\n".join(
        textwrap.fill(line, WIDTH, subsequent_indent=" " * (len(line) - len(line.lstrip()) + 4), break_long_words=False)
        if len(line) > WIDTH
        else line
        for line in text.splitlines()
    )


def money(dollars: float | None) -> str:
    """Dollars without cents where there are many."""
    return "unknown" if dollars is None else f"${dollars:,.0f}" if dollars >= 10 else f"${dollars:.2f}"
