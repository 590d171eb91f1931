import json
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from tinyr1.core import artifact, config, jsonl, machine, record, show
from tinyr1.core.errors import UserError

REMEDY = "run `make something`"
STAGE = "01_data_curation"


@pytest.fixture
def stage(home):
    """A run whose first stage made one table and wrote its record."""
    cfg = config.load("smol")
    path = cfg.rows("math")

    def build(file):
        jsonl.write(file, [{"id": "math-1"}])
        return {}

    artifact.make(path, {"seed": 1}, build, REMEDY)
    record.write(cfg, STAGE, {"math": path}, {"rows": 1}, {"curate": 0.12})
    return cfg


def test_a_stage_record_holds_what_was_made_and_from_what(stage):
    entry = record.require(stage, STAGE)
    assert entry == json.loads((stage.reports / f"{STAGE}.json").read_text())
    assert entry["artifacts"]["math"]["path"] == "rows/math.jsonl"
    assert entry["params"] == stage.params.model_dump(mode="json")
    assert entry["seconds"] == {"curate": 0.1}
    assert entry["facts"] == {"rows": 1}
    assert {"commit", "modified", "source"} == set(entry["code"])


def test_a_missing_record_is_named_with_the_command_that_makes_it(stage):
    with pytest.raises(
        UserError, match=r"02_branch_sft\.json: missing; run `make 02_branch_sft RUN=smol`"
    ):
        record.require(stage, "02_branch_sft")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('<<<<<<< HEAD\n{"stage": "01"}\n', "it is not valid JSON (Expecting value: line 1 column 1 (char 0))"),
        ('{"stage": "01_data_curation", "key":', "it is not valid JSON"),
        ('{"stage": "01_data_curation"}', "it has no artifacts, code, finished, key, "),
    ],
)
def test_a_damaged_record_is_named_with_the_command_that_makes_it(stage, content, complaint):
    path = record.record_path(stage, STAGE)
    path.write_text(content)
    for ask in (lambda: record.require(stage, STAGE), lambda: record.stage_key(stage, "02_branch_sft")):
        with pytest.raises(UserError) as error:
            ask()
        assert str(error.value).startswith(f"{path}: damaged, {complaint}")
        assert str(error.value).endswith("; run `make 01_data_curation RUN=smol`")


def test_a_stage_cannot_end_before_the_stage_before_it(stage):
    with pytest.raises(UserError, match=r"02_branch_sft\.json: missing"):
        record.write(stage, "03_fusion_merge", {}, {}, {})


def test_a_record_cannot_list_an_artifact_that_is_not_finished(stage):
    with pytest.raises(UserError, match="never finished"):
        record.write(stage, STAGE, {"code": stage.rows("code")}, {}, {})


def change_params(home, section, name, value):
    path = home / "params" / "smol.yaml"
    data = yaml.safe_load(path.read_text())
    data[section][name] = value
    path.write_text(yaml.safe_dump(data))
    return config.load("smol")


def test_a_record_made_from_other_parameters_is_refused(stage, home):
    cfg = change_params(home, "curate", "generations_per_question", 7)
    with pytest.raises(
        UserError, match="other parameters or inputs; run `make 01_data_curation RUN=smol`"
    ):
        record.require(cfg, STAGE)


def test_parameters_of_a_later_stage_leave_a_record_valid(stage, home):
    cfg = change_params(home, "merge", "iqr_multiplier", 7.0)
    assert record.require(cfg, STAGE)["facts"] == {"rows": 1}


def test_a_record_is_refused_when_the_stage_before_it_made_something_else(stage):
    record.write(stage, "02_branch_sft", {}, {}, {})
    assert record.require(stage, "02_branch_sft")
    path = stage.rows("math")
    artifact.make(path, {"seed": 2}, lambda f: jsonl.write(f, [{"id": "other"}]) or {}, REMEDY)
    with pytest.raises(UserError, match=r"math\.jsonl: not what 01_data_curation\.json lists"):
        record.require(stage, STAGE)
    record.write(stage, STAGE, {"math": path}, {}, {})
    with pytest.raises(UserError, match="other parameters or inputs"):
        record.require(stage, "02_branch_sft")


def test_a_deleted_artifact_is_found_before_the_next_stage_starts(stage):
    stage.rows("math").unlink()
    with pytest.raises(
        UserError, match=r"math\.jsonl: deleted after it was made; run `make 01_data_curation"
    ):
        record.require(stage, STAGE)


@pytest.fixture
def torch_says(tmp_path, monkeypatch):
    """Sets what nvidia-smi lists and what a child process finds as PyTorch; each question is noted in a file."""

    def set_up(gpus, torch):
        asked = tmp_path / "asked"
        (tmp_path / "torch.py").write_text(f"open({str(asked)!r}, 'a').write('x')\n{torch}\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(machine, "describe", lambda: {"gpus": gpus})
        machine.has_gpu.cache_clear()
        return asked

    yield set_up
    machine.has_gpu.cache_clear()


@pytest.mark.parametrize(
    ("gpus", "torch", "usable"),
    [
        (["NVIDIA H100, 81559 MiB"], "class cuda: is_available = lambda: True", True),
        (["NVIDIA H100, 81559 MiB"], "class cuda: is_available = lambda: False", False),  # the CPU build
        (["NVIDIA H100, 81559 MiB"], "raise ImportError('libcudart.so.13')", False),
    ],
)
def test_a_gpu_counts_where_the_installed_torch_can_use_it(torch_says, gpus, torch, usable):
    asked = torch_says(gpus, torch)
    assert [machine.has_gpu(), machine.has_gpu()] == [usable, usable]
    assert asked.read_text() == "x", "asked more than once"


def test_without_a_gpu_torch_is_not_even_asked(torch_says):
    asked = torch_says([], "class cuda: is_available = lambda: True")
    assert machine.has_gpu() is False
    assert not asked.exists()


def test_asking_for_a_gpu_does_not_import_torch_here(torch_says):
    torch_says(["NVIDIA H100, 81559 MiB"], "class cuda: is_available = lambda: True")
    code = "import sys; from tinyr1.core import machine; machine.describe = lambda: {'gpus': ['one']}; "
    code += "print(machine.has_gpu(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=config.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_a_table_of_texts_is_shown_to_the_end_of_each():
    text = "first line\n" + "word " * 100 + "end"
    page = show.whole(pd.DataFrame({"prompt": [text, None]})).to_html()
    assert text in page
    assert "pre-wrap" in page
