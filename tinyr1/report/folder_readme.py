"""Writes README.md into a run's report folder: its headline, verdicts, scores and figures, for a reader on GitHub."""

from tinyr1.core import artifact
from tinyr1.core.config import Config
from tinyr1.report import scoreboard, verdicts, verification


def write(
    cfg: Config, headline: str | None, claims: list[dict], rows: list[dict], figures: list[tuple[str, str, str]]
) -> None:
    """Write README.md of a run's report folder.

    headline, claims, rows: see `states`, `verdicts.stored_claims` and `scoreboard.stored_scores`; what is not there yet
    is left out. figures: (name, file, how to read it).
    """
    parts = [f"# Report of run `{cfg.run}`", cfg.params.description]
    parts.append(headline or f"The run is not finished; {cfg.remedy('reproduce')}.")
    if claims:
        parts.append(verdict_line(claims))
    if items := verification.stored(cfg.reports):
        parts += ["## Published and measured", verification_lines(items)]
    elif rows:
        parts += ["## Scores", score_lines(rows), score_note(rows)]
    parts += [f"## {name}\n\n{text}\n\n![{name}]({file})" for name, file, text in figures]
    parts.append("The whole report is [index.html](index.html); open it from a clone, no server needed.")
    artifact.write_atomic(cfg.reports / "README.md", "\n\n".join(parts) + "\n")


def verdict_line(claims: list[dict]) -> str:
    """How many claims of the paper have which verdict, as one sentence."""
    counts = ", ".join(f"{n} {verdict}" for verdict, n, _ in verdicts.counts(claims))
    return f"Claims of the paper, each asked of this run's own models: {counts}."


def score_lines(rows: list[dict]) -> str:
    """Rows of scores.csv as a Markdown table: models down, benchmarks across, percent with 95 % intervals."""
    table = scoreboard.score_grid(rows, _score, scoreboard.size)
    heads = ["model", *(", ".join(column) for column in table["columns"])]
    lines = [heads, ["---"] * len(heads), *([model, *cells] for model, cells in table["rows"])]
    if levels := scoreboard.chance_levels(rows):
        lines.append(["*guessing*", *(f"{levels[b]:.1f}" if b in levels else None for b, _ in table["columns"])])
    return "\n".join(f"| {' | '.join(text or '–' for text in line)} |" for line in lines)


def verification_lines(items: list[dict]) -> str:
    """The items of a verification run as a Markdown table, in percent, with a sentence that explains it."""
    table = verification.table(items)
    lines = [["benchmark", *table.columns], ["---"] * (1 + len(table.columns))]
    lines += [[str(name), *map(str, row)] for name, row in zip(table.index, table.to_numpy().tolist(), strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + (
        "\n\nScores are pass@1 in percent with the 95 % interval over questions in brackets; differences are "
        "in points; the verdict is about the same questions, asked again."
    )


def score_note(rows: list[dict]) -> str:
    """What the numbers of `score_lines` are."""
    guess = " Guessing is right as often as the last row says." if scoreboard.chance_levels(rows) else ""
    return (
        "Each number is pass@1: the percentage of a model's answers that are right, with the 95 % interval over "
        f"questions in brackets.{guess}"
    )


def _score(row: dict) -> str | None:
    shown = scoreboard.cell(row)
    return f"{shown['at']:.1f} {shown['interval']}" if shown else None
