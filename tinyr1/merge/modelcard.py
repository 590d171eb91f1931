"""The README.md that goes with a merged checkpoint: recipe, parents, and what the merge did to each tensor."""

from collections.abc import Iterable

from tinyr1.core.recipe import Recipe, describe

COLUMNS = ("tensor", "other", "base", "threshold", "selected share", "distance share", "rows KL <= 0", "regime")


def card(recipe: Recipe, parents: dict[str, dict[str, str]], settings: dict, rows: list[dict], yaml_text: str) -> str:
    """Markdown of a model card. parents: model -> {file name: sha256}; rows: `merge.write`'s statistics."""
    parts = [
        "---\ntags:\n- merge\n- tinyr1\nlibrary_name: transformers\n---\n",
        f"# {describe(recipe)}\n",
        "Merged by [tinyr1](https://arxiv.org/abs/2503.04872); `a & b` is fusion with b as the base.\n",
        "## Settings\n", _table(settings.items(), ("setting", "value")),
        "## Parents\n",
        _table([(m, f, h) for m, files in parents.items() for f, h in files.items()], ("model", "file", "sha256")),
        "## Recipe for mergekit\n", f"```yaml\n{yaml_text}```\n",
    ]  # fmt: skip
    fused = [row for row in rows if row["method"] == "fusion" and "threshold" in row]
    if fused:
        parts += [
            "## Fusion, tensor by tensor\n",
            "Shares are of the entries that differ and of the squared distance between the two models. `everything` "
            "means that all that differs was taken, so that the tensor is the right model's; `nothing`, the base's.\n",
            _table(map(_numbers, fused), COLUMNS),
        ]
    return "\n".join(parts)


def _numbers(row: dict) -> tuple:
    share = row["selected"] / row["differing"] if row["differing"] else 0.0
    return (row["tensor"], row["other"], row["base"], f"{row['threshold']:.3g}", f"{share:.4f}",
            f"{row['distance_share']:.4f}", f"{row['nonpositive_rows']} of {row['rows']}", row["regime"])  # fmt: skip


def _table(rows: Iterable[tuple], columns: tuple[str, ...]) -> str:
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(str(value) for value in row) for row in rows]
    return "".join(f"| {line} |\n" for line in lines)
