"""The check of a GPU, on a CPU and small shapes: every part of it but the card."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gpu_check import CHECKS, RIGHT, TINY, WRONG, Row, check, judged, main, table

from tinyr1.branch import attention
from tinyr1.core.config import ROOT
from tinyr1.merge import fusion

CPU = torch.device("cpu")


def test_what_is_right_passes_and_is_told_in_one_table(capsys, tmp_path):
    assert main(["--tiny", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert WRONG not in printed
    for check_of in ("packed attention: gradient of k", "training step: loss", "tokens/s at 256", "merge, released"):
        assert check_of in printed
    assert not list(tmp_path.iterdir()), "a CPU's figures are no report of a card"


def imported(file):
    """Names of the packages that a module imports as it is loaded."""
    nodes = ast.parse(file.read_text(encoding="utf-8")).body
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def test_it_needs_pytorch_and_transformers_alone():
    code = "import gpu_check, sys; print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('tinyr1')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "tests" / "gpu", capture_output=True, text=True)
    files = [ROOT / "tests" / "gpu" / "gpu_check.py", *map(Path, done.stdout.split())]
    assert ROOT / "tinyr1" / "branch" / "causal_lm.py" in files
    needed = set().union(*map(imported, files)) - set(sys.stdlib_module_names)
    assert needed == {"torch", "transformers", "tinyr1"}


def test_without_a_gpu_it_says_that_it_was_not_run(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 2
    assert "not run: PyTorch" in capsys.readouterr().out


def verdicts(monkeypatch, module, name, broken):
    monkeypatch.setattr(module, name, broken)
    return {row.check: row.verdict for row in check(TINY, CPU)}


def test_attention_that_sees_another_sample_is_found(monkeypatch):
    right = attention.packed_attention

    def leaky(*args, cu_seq_lens_q, **kwargs):
        ends = cu_seq_lens_q[[0, -1]]
        return right(*args, cu_seq_lens_q=ends, **(kwargs | {"max_length_q": int(ends[-1])}))

    found = verdicts(monkeypatch, attention, "packed_attention", leaky)
    assert {found[name] for name in found if name.startswith("packed attention")} == {WRONG}
    assert found["merge, exact: entries unlike the CPU's"] == RIGHT


def test_a_merge_that_takes_one_entry_more_is_found(monkeypatch):
    right, calls = fusion.fuse, []

    def off_by_one(base, other, **kwargs):
        merged, about = right(base, other, **kwargs)
        calls.append(1)
        if len(calls) % 2 == 0:
            merged[0, 0] = other[0, 0] if merged[0, 0] != other[0, 0] else base[0, 0] + 1
        return merged, about

    assert verdicts(monkeypatch, fusion, "fuse", off_by_one)["merge, exact: entries unlike the CPU's"] == WRONG


def test_a_check_that_raises_is_wrong_and_the_others_go_on(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no kernel image is available")

    rows = verdicts(monkeypatch, fusion, "fuse", broken)
    assert rows["merge_rows"] == WRONG
    assert rows["training step: loss"] == RIGHT
    assert len(CHECKS) == 4


@pytest.mark.parametrize(("value", "verdict"), [(0.01, RIGHT), (0.011, WRONG), (float("nan"), WRONG)])
def test_a_bound_is_kept_or_broken(value, verdict):
    assert judged("x", value, 0.01).verdict == verdict


def test_the_table_is_aligned():
    lines = table([Row("a", "1", "at most 2", RIGHT), Row("longer", "1,000", "", WRONG)]).splitlines()
    assert lines[1] == "a       1         at most 2  ok"
    assert lines[2].endswith(WRONG)
