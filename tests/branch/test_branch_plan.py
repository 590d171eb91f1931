"""A job is checked before any is trained; a branch is finished only when its training said so."""

import dataclasses
import functools
import json
import os
import sys
from pathlib import Path

import nbformat
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tinyr1.branch import failures, hosts, packing, plan, stage
from tinyr1.core import artifact, config, jsonl, launch, machine, record, show
from tinyr1.core.config import ROOT
from tinyr1.core.errors import UserError
from tinyr1.core.prompts import Encoded
from tinyr1.data import tokens
from tinyr1.data.tokens import RowWriter
from tinyr1.report import plots_branch

ROW = {"domain": "math", "question": "1 + 1?", "thinking": "2", "response": "2", "n_tokens": 9}


def put_rows(folder, count, ids=(5, 6, 7, 2)):
    """Rows of four tokens, two of them prompt."""
    folder.mkdir(parents=True, exist_ok=True)
    with RowWriter(folder) as writer:
        for _ in range(count):
            writer.write(ROW, Encoded(list(ids), 2))


@pytest.fixture
def cfg(home):
    """A run with twelve curated rows of each domain."""
    cfg = config.load("smol")
    distill = cfg.params.backbone.distill.model_copy(update={"rows": dict.fromkeys(cfg.domains, 2)})
    cfg = changed(cfg, backbone={"distill": distill})
    for domain in cfg.domains:
        put_rows(cfg.rows(domain), 12)
    return cfg


def changed(cfg, **blocks):
    """The run with other parameters in some blocks."""
    made = {name: getattr(cfg.params, name).model_copy(update=update) for name, update in blocks.items()}
    return cfg.model_copy(update={"params": cfg.params.model_copy(update=made)})


def with_batch(sft, size):
    return sft.model_copy(update={"batch_size": size})


def all_jobs(cfg):
    return [plan.distill_job(cfg, cfg.home / "base"), *plan.jobs(cfg)]


def with_batches(cfg, **sizes):
    """The run with other batch sizes of its experts."""
    domains = {
        name: block.model_copy(update={"sft": with_batch(block.sft, sizes.get(name, block.sft.batch_size))})
        for name, block in cfg.params.domains.items()
    }
    return cfg.model_copy(update={"params": cfg.params.model_copy(update={"domains": domains})})


def test_every_job_that_cannot_run_is_named_at_once_by_its_place_in_the_params_file(cfg):
    plan.check_jobs(cfg, all_jobs(cfg))
    assert list(plan.plan_table(cfg, all_jobs(cfg)).index) == ["backbone", *cfg.branches]
    p = cfg.params
    distill = p.backbone.distill.model_copy(update={"sft": with_batch(p.backbone.distill.sft, 3)})
    cfg = changed(cfg, trainer={"processes_per_node": 2}, backbone={"distill": distill})
    cfg = with_batches(cfg, math=4, science=2, code=5)
    params = cfg.params.model_copy(update={"mixture": with_batch(p.mixture, 2)})
    cfg = cfg.model_copy(update={"params": params})
    put_rows(cfg.rows("science"), 2)  # all of them for the distillation
    with pytest.raises(UserError) as error:
        plan.check_jobs(cfg, all_jobs(cfg))
    rule = "packed sequences cannot be shared by 2 ranks; use a multiple of 2"
    assert str(error.value).splitlines() == [
        f"backbone.distill.sft.batch_size: 3 {rule}",
        "science: no rows to train on are left after curation; see sources and limit",
        f"domains.code.sft.batch_size: 5 {rule}",
    ]
    with pytest.raises(UserError, match=r"^domains\.code\.sft\.batch_size: 5 packed"):
        stage.train_job(cfg, all_jobs(cfg)[3], has_gpu=False)


def test_the_distillation_takes_the_first_rows_of_each_domain_and_the_branches_the_others(cfg):
    put_rows(cfg.rows("code"), 5)
    counts = {job.name: [len(part) for part in job.tokens()] for job in all_jobs(cfg)}
    assert counts == {"backbone": [2, 2, 2], "math": [10], "science": [10], "code": [3], "mixture": [10, 10, 3]}
    assert [job.start.name for job in all_jobs(cfg)] == ["base", *["backbone"] * 4]


def test_a_run_without_distillation_or_mixture_has_its_experts_only(cfg):
    params = cfg.params.model_copy(update={"mixture": None})
    cfg = changed(cfg.model_copy(update={"params": params}), backbone={"distill": None})
    assert plan.distill_job(cfg, cfg.home / "base") is None
    assert {job.name: [len(part) for part in job.tokens()] for job in plan.jobs(cfg)} == dict.fromkeys(
        ("math", "science", "code"), [12]
    )


def test_the_plan_counts_rows_tokens_sequences_and_steps(cfg):
    cfg = changed(cfg, trainer={"sequence_length": 8})
    table = plan.plan_table(cfg, all_jobs(cfg))
    assert table.loc["math", ["rows", "tokens", "packed sequences", "epochs", "batch", "steps"]].tolist() == [
        10, 40, 5, 1, 1, 5,
    ]  # fmt: skip
    assert table.loc["mixture", ["rows", "packed sequences"]].tolist() == [30, 15]


def test_a_checkpoint_depends_on_its_rows_start_and_schedule_and_not_on_how_often_it_is_saved(cfg, monkeypatch):
    monkeypatch.setattr(artifact, "check", lambda path, remedy: {"content": path.name})
    job = plan.jobs(cfg)[0]
    first = plan.job_inputs(cfg, job)
    assert first["rows"] == [["math", 2, None]]
    assert first == plan.job_inputs(changed(cfg, trainer={"save_steps": 3}), job)
    assert first != plan.job_inputs(changed(cfg, trainer={"weight_decay": 0.5}), job)
    assert first != plan.job_inputs(with_batches(cfg, math=2), plan.jobs(with_batches(cfg, math=2))[0])


def test_a_switch_that_is_not_used_leaves_the_checkpoints_of_earlier_versions_valid(cfg, monkeypatch):
    monkeypatch.setattr(artifact, "check", lambda path, remedy: {"content": path.name})
    job = plan.jobs(cfg)[0]
    known = {"epochs", "batch_size", "learning_rate", "schedule", "warmup_ratio"}
    assert set(plan.job_inputs(cfg, job)["sft"]) == known
    assert set(plan.job_inputs(cfg, job)["trainer"]) == {
        "hostfile", "processes_per_node", "zero_stage", "sequence_length", "gradient_checkpointing", "adam_beta1",
        "adam_beta2", "adam_epsilon", "weight_decay", "max_grad_norm",
    }  # fmt: skip
    packed = dataclasses.replace(job, sft=job.sft.model_copy(update={"packing": "contaminated"}))
    assert plan.job_inputs(cfg, packed)["sft"]["packing"] == "contaminated"


@pytest.mark.parametrize(
    ("balance", "passes"),
    [(None, (1, 1, 1)), ("rows", (1, 1, 1)), ("epochs", (5, 5, 15)), ("tokens", (4, 2, 1))],
)
def test_the_mixture_goes_over_its_domains_by_rows_tokens_or_epochs(cfg, balance, passes):
    for domain, count in zip(cfg.domains, (2 + 5, 2 + 10, 2 + 20), strict=True):
        put_rows(cfg.rows(domain), count)
    epochs = dict(zip(cfg.domains, (5, 5, 15), strict=True))
    domains = {
        name: block.model_copy(update={"sft": block.sft.model_copy(update={"epochs": epochs[name]})})
        for name, block in cfg.params.domains.items()
    }
    mixture = cfg.params.mixture.model_copy(update={"balance": balance})
    params = cfg.params.model_copy(update={"domains": domains, "mixture": mixture})
    cfg = cfg.model_copy(update={"params": params})
    job = plan.jobs(cfg)[-1]
    counts = [sum(folder == cfg.rows(domain) for folder, _ in job.rows) for domain in cfg.domains]
    assert counts == list(passes)
    assert sum(map(len, job.tokens())) == sum(n * k for n, k in zip((5, 10, 20), passes, strict=True))


def words_of_launcher(cfg, monkeypatch, visible, **trainer):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    words, environment = plan.start_of("module", changed(cfg, trainer=trainer), cfg.home / "work", True)
    assert words[:4] == [sys.executable, "-m", "deepspeed.launcher.runner", "--master_port"]
    assert words[-2:] == ["--module", "module"]
    return words[5:-2], environment


def test_the_gpus_that_a_process_may_use_are_those_of_its_trainings(cfg, monkeypatch):
    assert words_of_launcher(cfg, monkeypatch, "", processes_per_node=2)[0] == ["--num_gpus", "2"]
    assert words_of_launcher(cfg, monkeypatch, "2,5,7", processes_per_node=2)[0] == ["--include", "localhost:2,5"]


def test_a_rank_that_is_alone_needs_no_launcher(cfg, monkeypatch):
    def start(visible, has_gpu=True):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        words, environment = plan.start_of("module", cfg, cfg.home / "work", has_gpu)
        assert words == [sys.executable, "-u", "-m", "module"]
        named = {name: environment[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")}
        assert named == {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        assert int(environment["MASTER_PORT"]) in machine.PORTS
        return environment.get("CUDA_VISIBLE_DEVICES")

    assert start("") == "0"
    assert start("3,5") == "3"
    assert start("", has_gpu=False) is None


def test_several_hosts_are_started_with_a_log_of_each_rank_and_the_variables_of_this_one(cfg, tmp_path, monkeypatch):
    (tmp_path / "hosts").write_text("a slots=8\nb slots=8\n")
    trainer = {"hostfile": str(tmp_path / "hosts"), "launcher": "slurm", "processes_per_node": 8}
    words, environment = words_of_launcher(cfg, monkeypatch, "0,1", **trainer)
    work = cfg.home / "work"
    assert words == [
        "--hostfile", str(tmp_path / "hosts"), "--launcher", "slurm", "--force_multi", "--enable_each_rank_log",
        str(work / "ranks"), "--num_gpus", "8",
    ]  # fmt: skip
    assert environment == {"DS_ENV_FILE": str(work / "environment")}
    plan.prepare_hosts(changed(cfg, trainer=trainer), work, has_gpu=False)
    assert "DS_ACCELERATOR=cpu\n" in (work / "environment").read_text()


RAISED = "Traceback (most recent call last):\n  File \"tinyr1/branch/train.py\", line 5, in main\n"


@pytest.fixture
def rank_logs(tmp_path):
    """Call with the text of each rank's log, in the order in which they were written last; their folder."""

    def write(**texts):
        for number, (name, text) in enumerate(texts.items()):
            file = tmp_path / f"{name}.log"
            file.write_text(text)
            os.utime(file, (1000 + number, 1000 + number))
        return tmp_path

    return write


def test_the_rank_that_failed_first_is_shown_with_its_cause_in_the_first_line(rank_logs):
    assert failures.first_failure(rank_logs(), "") is None
    lost, full = f"{RAISED}RuntimeError: the peer is gone\n", f"step 3\n{RAISED}MemoryError: 7 GB\n"
    logs = rank_logs(rank2="all is well\n", rank1=full + "noise\n" * 10_000, rank0=lost)
    first, *more = failures.first_failure(logs, "node2: [ERROR] [x] exits with return code = 1").splitlines()
    assert first == "the first rank that failed, rank1.log: MemoryError: 7 GB, at tinyr1/branch/train.py:5"
    assert more[:2] == ["step 3", "Traceback (most recent call last):"]
    assert failures.first_failure(rank_logs(rank2="", rank1="error: the loss is not a number", rank0=lost), "") == (
        "the first rank that failed, rank1.log: the loss is not a number\nerror: the loss is not a number"
    )


def test_a_rank_that_was_killed_is_named_by_its_host_before_those_that_lost_it(rank_logs):
    lost = f"{RAISED}RuntimeError: connection closed by peer\n"
    said = "\n".join(
        f"{host}: [2026-01-02 03:04:05] [ERROR] [launch.py:259:sigkill_handler] ['x'] exits with return code = {code}"
        for host, code in (("node1", 1), ("node2", -9), ("node3", -6))
    )
    assert failures.first_failure(rank_logs(rank0=lost, rank1="step 7\n", rank2=lost), said) == (
        "a rank of node2, rank1.log, was killed by signal 9 (SIGKILL); the others failed because it is gone\nstep 7"
    )
    assert failures.first_failure(rank_logs(rank0="step 7\n"), said) == (
        "a rank of node2 was killed by signal 9 (SIGKILL); the others failed because it is gone"
    )


@pytest.mark.parametrize("text", [None, "", "# node1 slots=8\n\n"])
def test_a_hostfile_without_nodes_is_refused(cfg, tmp_path, text):
    if text is not None:
        (tmp_path / "hosts").write_text(text)
    cfg = changed(cfg, trainer={"hostfile": str(tmp_path / "hosts")})
    with pytest.raises(UserError, match=r"trainer\.hostfile: .*hosts does not exist or names no node; write"):
        plan.check_jobs(cfg, all_jobs(cfg))


def test_a_relative_hostfile_is_in_the_repository(cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "ROOT", tmp_path / "repository")
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "hosts").write_text("node1 slots=2\nnode2 slots=2\n")
    cfg = changed(cfg, trainer={"hostfile": "hosts", "processes_per_node": 2})
    assert plan.world_size(cfg) == 4
    words, _ = plan.training_command(cfg, tmp_path / "plan.json", has_gpu=True)
    assert words[words.index("--hostfile") + 1] == str(tmp_path / "repository" / "hosts")


def cells():
    book = nbformat.read(ROOT / "notebooks" / "02_branch_sft.ipynb", as_version=4)
    return [cell.source for cell in book.cells if cell.cell_type == "code"]


BAD_RECIPE = {"method": "ties", "base": "backbone", "models": [{"model": "math", "density": 0.5}, {"model": "code"}]}


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("domains.code.sft.batch_size", 3, r"domains\.code\.sft\.batch_size: 3 packed sequences cannot be shared"),
        (
            "merge.models.0", {"name": "math-science-code", "recipe": BAD_RECIPE},
            "ties: models: density is given for some models only",
        ),
    ],
)
def test_the_notebook_refuses_what_cannot_be_trained_or_merged_before_it_trains(
    home, params_text, monkeypatch, path, value, complaint
):
    text = params_text.replace("processes_per_node: 1", "processes_per_node: 2")
    data = yaml.safe_load(text.replace("batch_size: 1", "batch_size: 2"))
    *above, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    functools.reduce(lambda block, key: block[key], above, data)[last] = value
    (home / "params" / "mine.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    for domain in ("math", "science", "code"):
        put_rows(home / "runs" / "mine" / "rows" / domain, 200)
    monkeypatch.setattr(record, "require", lambda cfg, stage: {"facts": {"tokens": {}}})
    monkeypatch.setattr(stage, "train_job", lambda *_: pytest.fail("a model was trained first"))
    program = "\n".join(cells()).replace('run = "smol"', 'run = "mine"')
    with pytest.raises(UserError, match=complaint):
        exec(program, {})


def test_the_notebook_trains_on_a_gpu_only_where_the_installed_torch_can_use_it(cfg, monkeypatch):
    asks, trains = (next(cell for cell in cells() if words in cell) for words in ("has_gpu = ", "train_job("))
    seen = []
    monkeypatch.setattr(machine, "describe", lambda: {"gpus": ["NVIDIA H100"]})
    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    monkeypatch.setattr(stage, "train_job", lambda cfg, job, has_gpu, watch: seen.append(has_gpu))
    monkeypatch.setattr(stage, "training_table", lambda trained: None)
    names = {"cfg": cfg, "plan": plan, "stage": stage, "machine": machine, "watch": record.Stopwatch()}
    names |= {"show": show, "plots_branch": plots_branch, "first": all_jobs(cfg)[0], "hosts": hosts}
    exec(f"{asks}\n{trains}", names)
    assert seen == [False]


def test_the_notebook_prints_a_command_that_can_be_pasted(cfg, capsys):
    (cell,) = [cell for cell in cells() if "plan.training_command(" in cell]
    exec(cell, {"cfg": cfg, "plan": plan, "launch": launch, "has_gpu": False, "jobs": plan.jobs(cfg)})
    printed = capsys.readouterr().out
    assert printed.startswith("DS_ACCELERATOR=cpu ")
    file = cfg.home / "branches" / "math.partial.work" / "plan.json"
    assert printed.rstrip().endswith(f"{sys.executable} -u -m tinyr1.branch.train {file}")


@pytest.fixture
def job(tmp_path, monkeypatch):
    """(run smoke, a job with one row, whose start and rows count as checked)"""
    monkeypatch.setenv("TINYR1_HOME", str(tmp_path / "runs"))
    cfg = config.load("smoke")
    put_rows(tmp_path / "rows", 1)
    monkeypatch.setattr(plan, "job_inputs", lambda cfg, job: {"start": "x"})
    rows = ((tmp_path / "rows", slice(0, None)),)
    return cfg, plan.Job("math", tmp_path / "start", rows, cfg.params.domains["math"].sft, "domains.math.sft")


def log_of(cfg, steps=2):
    lines = [{"step": i + 1, "of": 2, "loss": 1.0 - i / 4, "tokens": 5, "seconds": 2.0} for i in range(steps)]
    jsonl.write(cfg.home / "branches" / "math.partial" / stage.KEPT_FROM_TRAINING, lines)


@pytest.mark.parametrize("earlier", [False, True], ids=["first try", "after a training that ended"])
def test_a_launcher_that_ends_well_after_its_process_was_killed_makes_no_branch(job, monkeypatch, earlier):
    """DeepSpeed's launcher returns 0 when a signal has ended the process below it; the log is there, no model is.

    The file by which an earlier training said that it had ended does not count: its model may be half overwritten.
    """
    cfg, job = job
    monkeypatch.setattr(launch, "follow", lambda *_: log_of(cfg, steps=1))
    if earlier:
        work = cfg.home / "branches" / "math.partial.work"
        work.mkdir(parents=True)
        (work / "finished").touch()
        artifact.write_atomic(cfg.home / "branches" / "math.partial.key", artifact.digest(plan.job_inputs(cfg, job)))
    with pytest.raises(UserError, match="training ended before its model was saved"):
        stage.train_job(cfg, job, has_gpu=False)
    assert not cfg.model("math").exists()


def test_a_finished_training_leaves_its_model_and_log_and_is_not_repeated(job, monkeypatch, capsys):
    cfg, job = job
    seen = []

    def trained(words, environment, log, title, poll, unit, first, last, stop, failed):
        settings = json.loads(Path(words[-1]).read_text())
        seen.append((settings, load_file(settings["layout"]), poll))
        (Path(settings["out"]) / "checkpoint-1").mkdir()
        log_of(cfg)
        Path(settings["finished"]).touch()
        assert poll() == (2, 2, "loss 0.750, 2 tokens/s")

    monkeypatch.setattr(launch, "follow", trained)
    facts = stage.train_job(cfg, job, has_gpu=False)
    (settings, layout, poll) = seen.pop()
    assert settings["tokens"] == [{"folder": str(job.rows[0][0]), "rows": [0, None]}]
    assert {name: t.tolist() for name, t in layout.items()} == {"order": [0], "sequences": [0, 1]}
    assert (facts["first_loss"], facts["last_loss"], facts["tokens_per_s"]) == (1.0, 0.75, 2.5)
    assert (facts["samples"], facts["planned_samples"], facts["target_tokens"], facts["trained_now"]) == (1, 1, 2, True)
    assert sorted(p.name for p in cfg.model("math").iterdir()) == [artifact.MANIFEST, stage.KEPT_FROM_TRAINING]
    assert not (cfg.home / "branches" / "math.partial.work").exists()
    assert poll() is None, "the log has moved to the finished branch"
    assert stage.train_job(cfg, job, has_gpu=False) == facts | {"trained_now": False}
    assert not seen
    assert "kept" in capsys.readouterr().out
    log = stage.log_table(cfg, ["math"])
    assert log[["model", "step", "loss"]].values.tolist() == [["math", 1, 1.0], ["math", 2, 0.75]]
    assert stage.training_table([facts]).loc["math", "steps"] == 2


@pytest.mark.parametrize(
    ("block", "changes", "sentence"),
    [
        ("trainer", {"processes_per_node": 2}, "trainer.processes_per_node was 1, now 2"),
        ("trainer", {"weight_decay": 0.5}, "trainer.weight_decay was 0.01, now 0.5"),
        ("sft", {"learning_rate": 1e-9}, "sft.learning_rate was 0.001, now 1e-09"),
        ("rows", {}, "its rows or its start checkpoint were others"),
        ("trainer", {"save_steps": 5, "spike": 4.0}, None),
        (None, {}, None),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_training_is_neither_continued_nor_thrown_away(
    job, monkeypatch, block, changes, sentence
):
    cfg, job = job
    cfg = changed(cfg, trainer={"save_steps": 2})
    job = dataclasses.replace(job, sft=job.sft.model_copy(update={"learning_rate": 1e-3, "batch_size": 4}))
    trainer = ("processes_per_node", "weight_decay")
    monkeypatch.setattr(
        plan, "job_inputs", lambda cfg, job: [str(job.sft), [getattr(cfg.params.trainer, name) for name in trainer]]
    )
    partial = artifact.partial_path(cfg.model("math"))

    def breaks_off(*_):
        (partial / "checkpoint-2").mkdir(parents=True)
        (partial / "checkpoint-2" / plan.CHECKPOINT_DONE).touch()
        raise UserError("broken off")

    monkeypatch.setattr(launch, "follow", breaks_off)
    with pytest.raises(UserError, match="broken off"):
        stage.train_job(cfg, job, has_gpu=False)
    monkeypatch.setattr(launch, "follow", lambda *_: pytest.fail("it went on"))
    if block == "sft":
        job = dataclasses.replace(job, sft=job.sft.model_copy(update=changes))
    if block == "rows":
        monkeypatch.setattr(plan, "job_inputs", lambda cfg, job: "others")
    if block == "trainer":
        cfg = changed(cfg, trainer=changes)
    if sentence:
        with pytest.raises(UserError, match=f"holds a checkpoint of another training: .*{sentence}; set it back"):
            stage.train_job(cfg, job, has_gpu=False)
        assert (partial / "checkpoint-2" / plan.CHECKPOINT_DONE).exists()
    else:
        monkeypatch.setattr(launch, "follow", lambda *_: log_of(cfg, steps=1))
        with pytest.raises(UserError, match="training ended before its model was saved"):
            stage.train_job(cfg, job, has_gpu=False)


def test_a_training_that_a_signal_ended_says_how_to_go_on(job, monkeypatch):
    cfg, job = job
    cfg = changed(cfg, trainer={"save_steps": 2})

    def ended(words, environment, log, title, poll, unit, first, last, stop, failed):
        log_of(cfg, steps=1)
        stop.touch()

    monkeypatch.setattr(launch, "follow", ended)
    said = "math: stopped by a signal after step 1 of 2, with a checkpoint; run `make 02_branch_sft RUN=smoke`"
    with pytest.raises(UserError, match=said):
        stage.train_job(cfg, job, has_gpu=False)


def test_tools_to_report_to_have_to_be_installed(cfg, monkeypatch):
    monkeypatch.setattr(plan.importlib.util, "find_spec", lambda name: None)
    cfg = changed(cfg, trainer={"report_to": ["wandb"]})
    with pytest.raises(UserError, match="trainer.report_to: wandb is not installed; `pip install wandb`, or leave"):
        plan.check_jobs(cfg, all_jobs(cfg))


def test_what_tensorboard_reads_is_not_in_the_checkpoint(cfg):
    cfg = changed(cfg, trainer={"report_to": ["tensorboard"]})
    _, environment = plan.training_command(cfg, cfg.home / "branches" / "math.partial.work" / "plan.json", True)
    assert environment["TENSORBOARD_LOGGING_DIR"] == str(cfg.home / "logs" / "tensorboard" / "math")


def test_the_bar_does_not_read_a_line_that_is_being_written(tmp_path):
    log = tmp_path / "log.jsonl"
    assert stage.training_progress(log) is None
    log.write_text('{"step": 1, "of"')
    assert stage.training_progress(log) is None
    log.write_text('{"step": 1, "of": 4, "loss": 2.0, "tokens": 30, "seconds": 3.0}\n{"step": 2')
    assert stage.training_progress(log) == (1, 4, "loss 2.000, 10 tokens/s")


def test_the_tokens_that_end_the_rows_are_found_in_every_job(cfg):
    put_rows(cfg.rows("science"), 12, ids=(5, 6, 7, 9))
    assert stage.final_tokens(plan.jobs(cfg)[:1]) == {2}
    assert stage.final_tokens(plan.jobs(cfg)) == {2, 9}


def test_a_plan_that_is_trained_reads_the_rows_that_were_planned(cfg, tmp_path):
    """The process that trains gets folders and bounds of slices as JSON."""
    job = plan.jobs(cfg)[3]
    packing.write_layout(tmp_path / "layout", job.tokens(), 8, 0)
    bounds = json.loads(json.dumps([[str(path), rows.start, rows.stop] for path, rows in job.rows]))
    parts = [tokens.read_tokens(Path(path)).part(slice(first, last)) for path, first, last in bounds]
    data, same = (packing.PackedSequences(tmp_path / "layout", rows) for rows in (parts, job.tokens()))
    assert len(data) == 15
    assert all(torch.equal(data[i]["input_ids"], same[i]["input_ids"]) for i in range(len(data)))
