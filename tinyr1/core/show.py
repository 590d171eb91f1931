"""What notebooks show: parameters, whole tables, figures. pandas and IPython are imported when they are needed."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import yaml

from tinyr1.core.config import Config

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import Image
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler


def parameters(cfg: Config) -> "pd.DataFrame":
    """Every parameter that is not null, a row for each block of the params file, for the first cell of a notebook."""
    import pandas as pd

    def inner(value: dict) -> dict[str, dict]:
        lists = {f"{k}[{i}]": v for k, vs in value.items() if isinstance(vs, list) for i, v in enumerate(vs)}
        return {key: v for key, v in (value | lists).items() if isinstance(v, dict)}

    def rows(value: dict, path: str) -> Iterator[tuple[str, str]]:
        nested = inner(value)
        own = {k: v for k, v in value.items() if v is not None and k not in nested and f"{k}[0]" not in nested}
        if own:
            text = yaml.safe_dump(own, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf)
            yield path or "run", text.strip().removeprefix("{").removesuffix("}")
        for key, block in nested.items():
            yield from rows(block, f"{path}.{key}" if path else key)

    table = rows(cfg.params.model_dump(mode="json"), "")
    return pd.DataFrame(table, columns=["block", "parameters"]).set_index("block")


def whole(table: "pd.DataFrame") -> "Styler":
    """A table of texts for a notebook, each cell to its end and with its own line breaks."""
    return table.astype(str).style.set_properties(**{"text-align": "left", "white-space": "pre-wrap"})


def save_figure(cfg: Config, name: str, figure: "Figure") -> "Image":
    """A figure as reports/<run>/<name>.png, the same bytes each time; returned as a picture for the notebook."""
    from IPython.display import Image  # half a second, and only notebooks draw

    cfg.reports.mkdir(parents=True, exist_ok=True)
    path = cfg.reports / f"{name}.png"
    figure.savefig(path, dpi=120, metadata={"Software": None})
    return Image(data=path.read_bytes(), width=figure.get_figwidth() * 96, alt=name.replace("_", " "))
