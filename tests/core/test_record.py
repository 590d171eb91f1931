import functools
import json
import shutil
import subprocess
import sys

import pytest
import yaml

from tinyr1.core import artifact, config, jsonl, machine, record, surroundings
from tinyr1.core.errors import UserError
from tinyr1.report import states

REMEDY = "run `make something`"
STAGE = "01_data_curation"


def rows(row):
    """Builds a folder with one row."""

    def build(folder):
        jsonl.write(folder / "rows.jsonl", [row])
        return {}

    return build


@pytest.fixture
def home(home):
    """The run smol with a short `analysis` and `ablations`, so that a test may drop the models that they name."""
    file = home / "params" / "smol.yaml"
    mine = {"question": "Which?", "control": "math", "models": ["math", "code"]}
    changes = {"analysis": {"margin": 5.0, "headline": [{"model": "math", "against": "backbone"}]},
               "ablations": {"groups": {"mine": mine}}}  # fmt: skip
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | changes, sort_keys=False))
    return home


@pytest.fixture
def stage(home):
    """A run whose first stage made the rows of one domain and wrote its record."""
    cfg = config.load("smol")
    path = cfg.rows("math")
    artifact.make(path, {"seed": 1}, rows({"id": "math-1"}), REMEDY)
    record.write(cfg, STAGE, {"math": path}, {"rows": 1}, {"curate": 0.12})
    return cfg


def test_a_stage_record_holds_what_was_made_and_from_what(stage):
    entry = record.require(stage, STAGE)
    assert entry == json.loads((stage.reports / f"{STAGE}.json").read_text())
    assert entry["artifacts"]["math"]["path"] == "rows/math"
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


def change_params(home, path, value):
    """The run after the parameter at `path` (keys joined by dots) got another value."""
    file = home / "params" / "smol.yaml"
    data = yaml.safe_load(file.read_text())
    *above, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    functools.reduce(lambda block, key: block[key], above, data)[last] = value
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    return config.load("smol")


def test_a_record_made_from_other_parameters_is_refused(stage, home):
    cfg = change_params(home, "curate.generations_per_question", 7)
    with pytest.raises(
        UserError, match="other parameters or inputs; run `make 01_data_curation RUN=smol`"
    ):
        record.require(cfg, STAGE)


def test_parameters_of_a_later_stage_leave_a_record_valid(stage, home):
    cfg = change_params(home, "merge.iqr_multiplier", 7.0)
    assert record.require(cfg, STAGE)["facts"] == {"rows": 1}


def test_a_record_is_refused_when_the_stage_before_it_made_something_else(stage):
    record.write(stage, "02_branch_sft", {}, {}, {})
    assert record.require(stage, "02_branch_sft")
    path = stage.rows("math")
    artifact.make(path, {"seed": 2}, rows({"id": "other"}), REMEDY)
    with pytest.raises(UserError, match=r"rows/math: not what 01_data_curation\.json lists"):
        record.require(stage, STAGE)
    record.write(stage, STAGE, {"math": path}, {}, {})
    with pytest.raises(UserError, match="other parameters or inputs"):
        record.require(stage, "02_branch_sft")


def test_a_deleted_artifact_is_found_before_the_next_stage_starts(stage):
    (stage.rows("math") / "rows.jsonl").unlink()
    with pytest.raises(
        UserError, match=r"rows\.jsonl: deleted after it was made; run `make 01_data_curation"
    ):
        record.require(stage, STAGE)


# Each parameter of run smol, changed to another value, and the first stage that it decides; None: no stage.
DECIDES = [
    ("description", "Another sentence.", None),
    ("seed", 43, "01_data_curation"),
    ("backbone.model", "random-qwen2", "01_data_curation"),
    ("backbone.chat_template", "own", "01_data_curation"),
    ("backbone.distill.rows.math", 99, "02_branch_sft"),
    ("backbone.distill.sft.epochs", 2, "02_branch_sft"),
    ("domains.science.instruction", "Think.", "01_data_curation"),
    ("domains.science.instruction_with_options", "Think.", "01_data_curation"),
    ("domains.math.sources.0.rows", 621, "01_data_curation"),
    ("domains.math.limit", 341, "01_data_curation"),
    ("domains.math.sft.schedule", "linear", "02_branch_sft"),
    ("domains.math.benchmarks.mini-math.questions", 109, "01_data_curation"),  # training rows must not hold them
    ("domains.math.benchmarks.mini-math.levels", [2], "01_data_curation"),
    ("domains.math.benchmarks.mini-math.samples", 2, "04_evaluation"),
    ("domains.math.benchmarks.mini-math.max_tokens", 121, "04_evaluation"),
    ("curate.max_tokens", 511, "01_data_curation"),
    ("curate.decontaminate.min_share", 0.8, "01_data_curation"),
    ("trainer.weight_decay", 0.02, "02_branch_sft"),
    ("trainer.sequence_length", 513, "02_branch_sft"),
    ("mixture", None, "02_branch_sft"),
    ("merge.reading", "paper", "03_fusion_merge"),
    ("merge.models.0.recipe.iqr_multiplier", 2.0, "03_fusion_merge"),
    ("merge.models.0.name", "headline", "03_fusion_merge"),
    ("evaluate.split", "validation", "01_data_curation"),
    ("evaluate.temperature", 0.7, "04_evaluation"),
    ("evaluate.engine.max_num_seqs", 8, "04_evaluation"),
    ("evaluate.sandbox.cpu_seconds", 5, "04_evaluation"),
    ("analysis.margin", 4.0, "05_ablations"),
    ("ablations.groups.mine.question", "Another?", "05_ablations"),
]


@pytest.fixture
def finished(stage):
    """A run with a record of every stage."""
    for name in config.STAGES[1:]:
        record.write(stage, name, {}, {}, {})
    return stage


@pytest.mark.parametrize(("path", "value", "first"), DECIDES, ids=[path for path, *_ in DECIDES])
def test_a_parameter_decides_its_own_stage_and_those_after_it(finished, home, path, value, first):
    before = {name: record.stage_key(finished, name) for name in config.STAGES}
    cfg = change_params(home, path, value)
    changed = []
    for name in config.STAGES:  # every stage is repeated, as a rerun does
        if record.stage_key(cfg, name) != before[name]:
            changed.append(name)
        artifacts = {"math": cfg.rows("math")} if name == STAGE else {}
        record.write(cfg, name, artifacts, {}, {})
    assert changed == list(config.STAGES[config.STAGES.index(first) :] if first else ())


@pytest.mark.parametrize(("path", "value", "first"), DECIDES, ids=[path for path, *_ in DECIDES])
def test_a_stage_names_a_parameter_where_the_params_file_has_it(home, path, value, first):
    """What a notebook shows at its top are the parameters that decide its stage."""
    params = change_params(home, path, value).params
    held = []
    for name in config.STAGES:
        block = record.determines(record.as_stored(params), name)
        for key in path.split("."):
            block = block[int(key)] if isinstance(block, list) else block.get(key) if isinstance(block, dict) else None
        if block == value and (value is not None or path in record.determines(record.as_stored(params), name)):
            held.append(name)
    assert held[:1] == ([first] if first else [])


def test_every_parameter_but_the_description_decides_a_stage():
    """For each run of the repository: what the stages name, laid over each other, is the params file."""

    def over(a, b):
        return {k: over(a[k], b[k]) if isinstance(a.get(k), dict) and k in b else {**b, **a}[k] for k in {**a, **b}}

    for run in ("smoke", "smol", "r1-1.5b", "paper"):
        params = record.as_stored(config.load(run).params)
        named = functools.reduce(over, (record.determines(params, stage) for stage in config.STAGES))
        del params["curate"]["num_proc"]  # it changes the speed and not the rows
        assert named | {"description": params["description"]} == params


# --- commit and sources -------------------------------------------------------------------------------------------


@pytest.fixture
def asked_anew():
    record.code_version.cache_clear()
    yield
    record.code_version.cache_clear()


def test_without_the_program_git_a_record_says_so_and_keeps_the_sources(asked_anew, tmp_path, monkeypatch):
    source = record.code_version()["source"]
    record.code_version.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert record.code_version() == {"commit": "no commit", "modified": False, "source": source}


def test_an_archive_inside_another_repository_does_not_take_its_commit(asked_anew, tmp_path, monkeypatch):
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    kit = tmp_path / "kit"
    (kit / "tinyr1").mkdir(parents=True)
    (kit / "tinyr1" / "a.py").write_text("x = 1\n")
    own = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]

    def commit(folder):
        for words in (["init", "-q"], ["add", "."], [*own, "commit", "-qm", "one"]):
            subprocess.run(["git", *words], cwd=folder, check=True)

    commit(tmp_path)
    monkeypatch.setattr(record, "ROOT", kit)
    archive = record.code_version()
    assert archive["commit"] == "no commit"
    record.code_version.cache_clear()
    commit(kit)
    assert record.code_version() == archive | {"commit": record._git("rev-parse", "HEAD")}
    assert len(record.code_version()["commit"]) == 40
    assert states.commit_text({"code": archive}) == f"no commit, sources {archive['source'][:10]}"


@pytest.fixture
def torch_says(tmp_path, monkeypatch):
    """Sets what nvidia-smi lists and what a child process finds as PyTorch; each question is noted in a file."""

    def set_up(gpus, torch):
        asked = tmp_path / "asked"
        (tmp_path / "torch.py").write_text(f"open({str(asked)!r}, 'a').write('x')\n{torch}\n")
        monkeypatch.setitem(surroundings.SET, "PYTHONPATH", str(tmp_path))
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
    folder = torch_says(["NVIDIA H100, 81559 MiB"], "class cuda: is_available = lambda: True").parent
    code = f"import sys; from tinyr1.core import machine, surroundings as s; s.SET['PYTHONPATH'] = {str(folder)!r}; "
    code += "machine.describe = lambda: {'gpus': ['one']}; "
    code += "print(machine.has_gpu(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=config.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


@pytest.fixture
def older(finished):
    """The finished run, whose records were written before `backbone.training_template` and `curate.duplicates`."""
    before, made = "", {}
    for name in config.STAGES:
        path = record.record_path(finished, name)
        entry = json.loads(path.read_text())
        del entry["params"]["backbone"]["training_template"], entry["params"]["curate"]["duplicates"]
        block = record.as_stored(finished.params)
        del block["backbone"]["training_template"], block["curate"]["duplicates"]
        entry["key"] = before = artifact.digest([name, record.determines(block, name), before, made])
        made = {key: item["content"] for key, item in entry["artifacts"].items()}
        path.write_text(json.dumps(entry))
    return finished


def test_a_record_holds_when_a_later_version_has_parameters_that_its_file_does_not_use(older):
    for name in config.STAGES:
        assert record.require(older, name)


def test_a_record_does_not_hold_when_the_file_uses_a_parameter_that_it_does_not_know(older, home):
    cfg = change_params(home, "curate.duplicates", "keep")
    assert not record.holds(cfg, STAGE, record.read(cfg, STAGE))


def test_an_older_record_made_from_other_inputs_does_not_hold(older):
    path = record.record_path(older, STAGE)
    entry = json.loads(path.read_text())
    entry["artifacts"]["math"]["content"] = "other rows"
    path.write_text(json.dumps(entry))
    assert not record.holds(older, "02_branch_sft", record.read(older, "02_branch_sft"))


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_stage_that_runs_again_keeps_the_durations_of_what_it_finds_finished(stage, by_hand):
    artifacts = {"math": stage.rows("math")}
    record.write(stage, STAGE, artifacts, {}, {"math": 300.0, "checks": 2.0})
    if not by_hand:  # as in JupyterLab, where nothing sets the record aside
        record.set_aside(stage, STAGE)
        assert not record.record_path(stage, STAGE).exists()
    assert record.write(stage, STAGE, artifacts, {}, {"math": 0.1, "checks": 3.0})["seconds"] == {
        "math": 300.0, "checks": 3.0,
    }  # fmt: skip
    record.set_aside(stage, STAGE)
    artifact.make(stage.rows("math"), {"seed": 2}, rows({"id": "math-2"}), REMEDY)
    again = record.write(stage, STAGE, artifacts, {}, {"math": 100.0, "checks": 1.0})
    assert again["seconds"] == {"math": 100.0, "checks": 1.0}
