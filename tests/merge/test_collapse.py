"""Signs of a collapsed merge: variance and effective rank of activations, alone and of small checkpoints."""

import pandas as pd
import pytest
import torch
from checkpoints import Shape, experts
from transformers import AutoModelForCausalLM

from tinyr1.core import artifact, config, launch
from tinyr1.core.errors import UserError
from tinyr1.merge import collapse
from tinyr1.report import plots, plots_merge

IDS = [[4, 5, 6, 7, 8], [9, 10, 11, 4]]


def test_variance_is_from_token_to_token():
    activations = torch.tensor([[1.0, 5.0], [3.0, 5.0], [5.0, 5.0]])
    assert collapse.variance(activations) == pytest.approx((8 / 3 + 0) / 2)
    assert collapse.variance(activations + 100) == pytest.approx(4 / 3), "the mean over the tokens does not count"


@pytest.mark.parametrize(("rows", "width"), [(200, 6), (6, 200)])
def test_the_effective_rank_counts_directions(rows, width):
    generator = torch.Generator().manual_seed(0)
    line = torch.randn(rows, 1, generator=generator) @ torch.randn(1, width, generator=generator)
    assert collapse.effective_rank(line) == pytest.approx(1, abs=1e-3)
    whole = torch.randn(rows, width, generator=generator)
    centred = whole.double() - whole.double().mean(0)
    shares = torch.linalg.svdvals(centred)
    shares = (shares / shares.sum())[shares > 1e-9]
    assert collapse.effective_rank(whole) == pytest.approx(float((-shares * shares.log()).sum().exp()), rel=1e-6)
    assert collapse.effective_rank(10 * whole + 3) == pytest.approx(collapse.effective_rank(whole), rel=1e-6)
    assert collapse.effective_rank(torch.ones(rows, width)) == 0


def test_all_directions_alike_give_the_full_rank():
    corners = torch.cat([torch.eye(5), -torch.eye(5)])
    assert collapse.effective_rank(corners) == pytest.approx(5)


def test_a_checkpoint_is_measured_layer_by_layer_without_the_first_tokens(tmp_path):
    shape = Shape(dtype=torch.float32, architecture="llama", tied=True)
    folder = experts(tmp_path, shape)["math"]
    measured = collapse.of_model(folder, IDS)
    assert len(measured) == shape.layers + 1
    embedding = AutoModelForCausalLM.from_pretrained(folder).model.embed_tokens.weight.detach()
    tokens = embedding[[i for each in IDS for i in each[1:]]]
    assert measured[0] == pytest.approx((collapse.variance(tokens), collapse.effective_rank(tokens)))


@pytest.fixture
def finished(home):
    """(run, checkpoints by name) of three small models that are finished."""
    folders = experts(home / "models", Shape(architecture="llama"))
    for folder in folders.values():
        artifact.seal(folder, "key", {})
    return config.load("smol"), folders


def test_models_are_measured_in_a_child_process_once(finished, monkeypatch):
    cfg, folders = finished
    table = collapse.by_layer(cfg, folders, IDS)
    assert table.groupby("model", sort=False).layer.apply(list).to_dict() == dict.fromkeys(folders, [0, 1, 2])
    assert table[table.model == "code"][["variance", "effective_rank"]].to_numpy() == pytest.approx(
        torch.tensor(collapse.of_model(folders["code"], IDS)).numpy(), rel=1e-6
    )
    assert len(plots_merge.activations(table, list(folders)).axes) == 2
    plots.plt.close("all")
    monkeypatch.setattr(launch, "follow", lambda *_, **__: pytest.fail("it was measured before"))
    assert collapse.by_layer(cfg, folders, IDS).equals(table)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("os.kill(os.getpid(), 9)", "activations: the command was killed by signal 9 (SIGKILL)"),
        ("print('HOSTILE' in os.environ); 1 / 0", "activations: ZeroDivisionError: division by zero"),
    ],
)
def test_a_child_that_fails_is_a_sentence_and_sees_the_variables_of_every_child(finished, monkeypatch, fault, said):
    cfg, folders = finished
    monkeypatch.setenv("HOSTILE", "1")
    follow = launch.follow
    monkeypatch.setattr(
        launch, "follow", lambda words, *more: follow([words[0], "-c", f"import os; {fault}"], *more)
    )
    with pytest.raises(UserError) as error:
        collapse.by_layer(cfg, folders, IDS)
    assert str(error.value).startswith(said)
    assert "True" not in str(error.value).splitlines()
    assert not (cfg.home / "activations.jsonl").exists()


def test_the_merged_model_is_told_in_proportion_to_its_parents():
    rows = [
        {"model": model, "layer": layer, "variance": variance, "effective_rank": rank}
        for model, variances, ranks in (("a", (1.0, 2.0, 4.0), (10, 10, 10)), ("b", (3.0, 2.0, 4.0), (30, 10, 10)),
                                        ("ab", (1.0, 2.0, 2.0), (20, 9, 5)))
        for layer, (variance, rank) in enumerate(zip(variances, ranks, strict=True))
    ]  # fmt: skip
    assert collapse.told(pd.DataFrame(rows), "ab", ["a", "b"]) == (
        "Beside the mean of a, b, the activations of ab vary 50 % as much (50 to 100 % over the layers) and use "
        "directions 90 % as much (50 to 100 % over the layers)."
    )
