"""A job is checked before any is trained; a branch is finished only when its training said so."""

import pytest
from test_config import change
from test_notebooks import code_cells

from tinyr1.branch import plan
from tinyr1.core import config, jsonl, launch, machine, record
from tinyr1.core.config import ROOT
from tinyr1.core.errors import UserError

ROW = {"domain": "math", "question": "1 + 1?", "thinking": "2", "response": "2", "n_tokens": 9}


@pytest.fixture
def cfg(home):
    """A run with twelve curated rows of each domain."""
    cfg = config.load("smol")
    distill = cfg.params.backbone.distill.model_copy(update={"rows": dict.fromkeys(config.DOMAINS, 2)})
    cfg = changed(cfg, backbone={"distill": distill})
    for domain in config.DOMAINS:
        jsonl.write(cfg.rows(domain), [ROW] * 12)
    return cfg


def changed(cfg, **blocks):
    """The run with other parameters in some blocks."""
    made = {name: getattr(cfg.params, name).model_copy(update=update) for name, update in blocks.items()}
    return cfg.model_copy(update={"params": cfg.params.model_copy(update=made)})


def with_batch(sft, size):
    return sft.model_copy(update={"batch_size": size})


def all_jobs(cfg):
    return [plan.distill_job(cfg, cfg.home / "base"), *plan.jobs(cfg)]


def test_every_job_that_cannot_run_is_told_at_once_by_its_place_in_the_params_file(cfg):
    plan.check(cfg, all_jobs(cfg))
    assert list(plan.plan_table(cfg, all_jobs(cfg)).index) == ["backbone", *cfg.branches]
    p = cfg.params
    distill = p.backbone.distill.model_copy(update={"sft": with_batch(p.backbone.distill.sft, 3)})
    sizes = {"math": 4, "science": 2, "code": 5, "mixture": 2}
    branches = {name: with_batch(getattr(p.branch, name), size) for name, size in sizes.items()}
    cfg = changed(cfg, trainer={"processes_per_node": 2}, backbone={"distill": distill}, branch=branches)
    jsonl.write(cfg.rows("science"), [ROW] * 2)  # all of them for the distillation
    with pytest.raises(UserError) as error:
        plan.check(cfg, all_jobs(cfg))
    rule = "packed sequences cannot be shared by 2 ranks; use a multiple of 2"
    assert str(error.value).splitlines() == [
        f"backbone.distill.sft.batch_size: 3 {rule}",
        "science: no rows to train on are left after curation; see sources and curate.limit",
        f"branch.code.batch_size: 5 {rule}",
    ]
    with pytest.raises(UserError, match=r"^branch\.code\.batch_size: 5 packed"):
        plan.train(cfg, all_jobs(cfg)[3], has_gpu=False)


@pytest.mark.parametrize("text", [None, "", "# node1 slots=8\n\n"])
def test_a_hostfile_without_nodes_is_refused(cfg, tmp_path, text):
    if text is not None:
        (tmp_path / "hosts").write_text(text)
    cfg = changed(cfg, trainer={"hostfile": str(tmp_path / "hosts")})
    with pytest.raises(UserError, match=r"trainer\.hostfile: .*hosts does not exist or names no node; write"):
        plan.check(cfg, all_jobs(cfg))


def test_a_relative_hostfile_is_in_the_repository(cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "ROOT", tmp_path / "repository")
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "hosts").write_text("node1 slots=2\nnode2 slots=2\n")
    cfg = changed(cfg, trainer={"hostfile": "hosts", "processes_per_node": 2})
    assert plan.world_size(cfg) == 4
    words, _ = plan.command(cfg, tmp_path / "plan.json", has_gpu=True)
    assert words[words.index("--hostfile") + 1] == str(tmp_path / "repository" / "hosts")


def cells():
    return [cell.source for cell in code_cells(ROOT / "notebooks" / "02_branch_sft.ipynb")]


BAD_RECIPE = {"method": "ties", "base": "backbone", "models": [{"model": "math", "density": 0.5}, {"model": "code"}]}


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("branch.code.batch_size", 3, "branch.code.batch_size: 3 packed sequences cannot be shared"),
        ("merge.models.some", BAD_RECIPE, "merge.models.some: ties: models: density is given for some models only"),
    ],
)
def test_the_notebook_refuses_what_cannot_be_trained_or_merged_before_it_trains(
    home, params_text, monkeypatch, path, value, complaint
):
    text = params_text.replace("processes_per_node: 1", "processes_per_node: 2")
    text = change(text.replace("batch_size: 1", "batch_size: 2"), path, value)
    (home / "params" / "mine.yaml").write_text(text)
    for domain in config.DOMAINS:
        jsonl.write(config.load("mine").rows(domain), [ROW] * 200)
    monkeypatch.setattr(record, "require", lambda cfg, stage: {"facts": {"tokens": {}}})
    monkeypatch.setattr(plan, "train", lambda *_: pytest.fail("a model was trained first"))
    program = "\n".join(cells()).replace('run = "smol"', 'run = "mine"')
    with pytest.raises(UserError, match=complaint):
        exec(program, {})


def test_the_notebook_trains_on_a_gpu_only_where_the_installed_torch_can_use_it(cfg, monkeypatch):
    (cell,) = [cell for cell in cells() if "has_gpu = " in cell]
    seen = []
    monkeypatch.setattr(machine, "describe", lambda: {"gpus": ["NVIDIA H100"]})
    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    monkeypatch.setattr(plan, "train", lambda cfg, job, has_gpu: seen.append(has_gpu))
    monkeypatch.setattr(plan, "facts_table", lambda trained: None)
    exec(cell, {"cfg": cfg, "branch": plan, "machine": machine, "first": all_jobs(cfg)[0], "watch": record.Stopwatch()})
    assert seen == [False]


def test_the_notebook_prints_a_command_that_can_be_pasted(cfg, capsys):
    (cell,) = [cell for cell in cells() if "branch.command(" in cell]
    exec(cell, {"cfg": cfg, "branch": plan, "launch": launch, "has_gpu": False})
    printed = capsys.readouterr().out
    assert printed.startswith("DS_ACCELERATOR=cpu ")
    assert printed.rstrip().endswith("--module tinyr1.branch.train " + str(cfg.home / "branches/math.partial.work/plan.json"))


def test_a_launcher_that_ends_well_after_its_process_was_killed_makes_no_branch(tmp_path, monkeypatch):
    """DeepSpeed's launcher returns 0 when a signal has ended the process below it; the log is there, no model is."""
    monkeypatch.setenv("TINYR1_HOME", str(tmp_path / "runs"))
    cfg = config.load("smoke")
    job = plan.Job("math", tmp_path / "start", (tmp_path / "rows.jsonl",), cfg.params.branch.math, (0,))
    jsonl.write(tmp_path / "rows.jsonl", [ROW])
    monkeypatch.setattr(plan, "inputs", lambda cfg, job: {"start": "x"})
    monkeypatch.setattr(plan.packing, "write", lambda *a: {})
    monkeypatch.setattr(plan.prompts, "encode", lambda tokenizer, row: row)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda path: None)

    def killed(words, environment, log, title, poll, unit):
        line = {"step": 1, "of": 2, "loss": 1.0, "tokens": 5, "seconds": 1.0}
        jsonl.write(cfg.home / "branches" / "math.partial" / plan.KEPT_FROM_TRAINING, [line])

    monkeypatch.setattr(launch, "follow", killed)
    with pytest.raises(UserError, match="training ended before its model was saved"):
        plan.train(cfg, job, has_gpu=False)
    assert not cfg.model("math").exists()
