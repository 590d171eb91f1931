"""Has a merge collapsed? Variance and effective rank of the activations, layer by layer, beside the parents.

A merge whose parents pull in different directions can shrink what its layers say: activations vary less from token to
token and use fewer directions. arXiv 2603.04972 names both as signs of a collapse; its formulas are not used here
(docs/fidelity.md §3.6 says why), the two definitions below are.

    token ids -> model -> hidden states of each layer (tokens, width) -> variance, effective_rank

    by_layer --plan--> python -m tinyr1.merge.collapse PLAN OUT, which holds one model at a time --lines--> table
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tinyr1.core import artifact, jsonl, launch
from tinyr1.core.config import Config
from tinyr1.data.tokens import read_tokens

ROWS, LONGEST = 3, 256  # curated rows of each domain, and tokens of each, that the models read


def variance(activations: torch.Tensor) -> float:
    """Variance of an activation from token to token, the mean over all of them. activations: (tokens, width)."""
    return float(activations.double().var(0, correction=0).mean())


def effective_rank(activations: torch.Tensor) -> float:
    """e to the entropy of the normalised singular values of the centred activations (tokens, width).

    1 where all tokens lie on one line, at most min(tokens, width), reached where all directions are used alike (Roy and
    Vetterli 2007, https://doi.org/10.5281/zenodo.40526). Activations that do not vary have rank 0.
    """
    centred = activations.double() - activations.double().mean(0)
    # The smaller of the two products has the squared singular values of the activations.
    squared = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    values = torch.linalg.eigvalsh(squared).clamp_min(0).sqrt()
    if values.sum() == 0:
        return 0.0
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp())


def texts(cfg: Config) -> list[list[int]]:
    """The first rows of each domain of a run as token ids: question, thinking and answer, cut after LONGEST tokens."""
    rows = [read_tokens(cfg.rows(domain)) for domain in cfg.domains]
    return [tokens.row_ids(i)[:LONGEST].tolist() for tokens in rows for i in range(min(ROWS, len(tokens)))]


def by_layer(cfg: Config, models: dict[str, Path], ids: list[list[int]]) -> pd.DataFrame:
    """Columns model, layer (0 is the embedding), variance, effective_rank; models: name -> finished checkpoint.

    A child process loads the models, one after the other, and gives all memory back when it ends. What the same
    checkpoints gave before is kept. UserError, with its log, when the child fails.
    """
    remedy = cfg.remedy("03_fusion_merge")
    contents = {name: artifact.check(folder, remedy)["content"] for name, folder in models.items()}

    def build(path: Path) -> dict:
        plan = path.with_suffix(".plan")
        path.unlink(missing_ok=True)  # of a process that was killed
        artifact.write_atomic(plan, json.dumps({"models": {n: str(f) for n, f in models.items()}, "ids": ids}))
        command = [sys.executable, "-m", "tinyr1.merge.collapse", str(plan), str(path)]
        log = cfg.home / "logs" / "activations.log"
        launch.follow(command, {}, log, "activations", lambda: _progress(path, len(models)), "model")
        plan.unlink()
        return {}

    path = cfg.home / "activations.jsonl"
    artifact.make(path, {"models": contents, "ids": ids}, build, remedy)
    return pd.DataFrame(jsonl.read(path))


def _progress(path: Path, of: int) -> tuple[int, int, str] | None:
    """(models, all, text for the bar) from the lines of the child; None before the first model."""
    done = len({line["model"] for line in jsonl.read(path)})
    return (done, of, "") if done else None


def of_model(folder: Path, ids: list[list[int]]) -> list[tuple[float, float]]:
    """(variance, effective rank) after the embedding and each layer of a checkpoint, over the tokens of all texts.

    The first token of a text is left out: models park attention there, with activations many times as large.
    """
    from transformers import AutoModel  # takes seconds, which only the child process pays

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModel.from_pretrained(folder, dtype="auto")
    model = model.to(device).eval()
    states: list[list[torch.Tensor]] = []
    with torch.inference_mode():
        for each in ids:
            output = model(torch.tensor([each], device=device), output_hidden_states=True)
            states.append([state[0, 1:].float().cpu() for state in output.hidden_states])
    layers = [torch.cat(parts) for parts in zip(*states, strict=True)]
    return [(variance(layer), effective_rank(layer)) for layer in layers]


def told(table: pd.DataFrame, merged: str, parents: Sequence[str]) -> str:
    """`by_layer` in a sentence: the merged model in proportion to the mean of its parents, over the layers."""
    said = []
    for column, called in (("variance", "vary"), ("effective_rank", "use directions")):
        wide = table.pivot(index="layer", columns="model", values=column)
        ratio = (wide[merged] / wide[list(parents)].mean(axis=1)).to_numpy()
        low, middle, high = 100 * np.quantile(ratio, (0, 0.5, 1))
        said.append(f"{called} {middle:.0f} % as much ({low:.0f} to {high:.0f} % over the layers)")
    return f"Beside the mean of {', '.join(parents)}, the activations of {merged} {said[0]} and {said[1]}."


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("plan", type=Path, help="JSON with models (name -> checkpoint) and ids, written by by_layer")
    parser.add_argument("out", type=Path, help="JSON lines, one for each layer of each model")
    arguments = parser.parse_args()
    launch.die_with_parent()
    plan = json.loads(arguments.plan.read_text(encoding="utf-8"))
    with arguments.out.open("ab") as file:
        for name, folder in plan["models"].items():
            for layer, (spread, rank) in enumerate(of_model(Path(folder), plan["ids"])):
                line = {"model": name, "layer": layer, "variance": spread, "effective_rank": rank}
                file.write(jsonl.encode(line))
            file.flush()


if __name__ == "__main__":
    main()
