"""What the paper published, apart from everything measured here (Tables 1 and 2 of arXiv 2503.04872v2).

Percent pass@1. Token counts in thousands. Rows marked with a dagger in the paper were copied there from the
DeepSeek-R1 report, with token lengths of the authors' own testing.
"""

import pandas as pd

BENCHMARKS = {"aime24": "AIME 2024", "livecodebench": "LiveCodeBench 24.08-25.02", "gpqa": "GPQA-Diamond"}
DOMAIN = {"aime24": "math", "livecodebench": "code", "gpqa": "science"}

TABLE_1: dict[str, dict[str, tuple[float, float | None]]] = {  # model -> benchmark -> (pass@1, thousand tokens)
    "DeepSeek-R1-Distill-Qwen-32B": {"aime24": (72.6, 9.6), "livecodebench": (57.2, 10.1), "gpqa": (62.1, 5.3)},
    "DeepSeek-R1-Distill-Llama-70B": {"aime24": (70.0, None), "livecodebench": (57.5, None), "gpqa": (65.2, None)},
    "DeepSeek-R1": {"aime24": (79.8, 9.6), "livecodebench": (65.9, 10.4), "gpqa": (71.5, 5.3)},
    "TinyR1-32B-Preview": {"aime24": (78.1, 11.8), "livecodebench": (61.6, 12.4), "gpqa": (65.0, 8.6)},
}
TABLE_2: dict[str, dict[str, float]] = {  # model name of this kit -> benchmark -> pass@1
    "math": {"aime24": 73.1},
    "code": {"livecodebench": 63.4},
    "science": {"gpqa": 64.5},
    "mixture": {"aime24": 75.3, "livecodebench": 61.0, "gpqa": 65.7},
    "math-code-science": {"aime24": 77.3, "livecodebench": 63.8, "gpqa": 64.0},
    "math-science-code": {"aime24": 78.1, "livecodebench": 61.6, "gpqa": 65.0},
}
BACKBONE = {name: value for name, (value, _) in TABLE_1["DeepSeek-R1-Distill-Qwen-32B"].items()}


def scores() -> dict[tuple[str, str], float]:
    """(model name of this kit, benchmark) -> published pass@1 as a fraction."""
    published = TABLE_2 | {"backbone": BACKBONE}
    return {(m, b): value / 100 for m, row in published.items() for b, value in row.items()}


def table_1() -> pd.DataFrame:
    """The paper's Table 1: `pass@1 (thousand tokens)`."""
    rows = {
        model: {BENCHMARKS[b]: f"{v:.1f}" + (f" ({t:.1f}k)" if t else "") for b, (v, t) in row.items()}
        for model, row in TABLE_1.items()
    }
    return pd.DataFrame(rows).T.rename_axis("paper, Table 1")


def table_2() -> pd.DataFrame:
    """The paper's Table 2: pass@1 in percent."""
    rows = {model: {BENCHMARKS[b]: row.get(b) for b in BENCHMARKS} for model, row in TABLE_2.items()}
    return pd.DataFrame(rows).T.rename_axis("paper, Table 2")
