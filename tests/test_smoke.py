"""The whole kit on a tiny random model: notebooks, engines, records and reports, as in `make reproduce RUN=smoke`."""

import json
import os
import random
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from kit import STATED, WHOLE_RUN, git_status, run_kit
from test_readme import NOT_DONE, make, tasks

from tinyr1.core import config, record
from tinyr1.core.config import ROOT, SCORE_COLUMNS, STAGES
from tinyr1.core.params.ablations import names_of
from tinyr1.report import ablations, index


@pytest.fixture(scope="module")
def smoke(smoke_run):
    """`smoke_run`, whose folders this module takes for those of the kit."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TINYR1_HOME", "TINYR1_REPORTS"):
            patch.setenv(name, smoke_run[0][name])
        yield smoke_run


def test_a_run_leaves_the_checkout_as_it_was(smoke):
    before, after = smoke[1].git
    assert after == before
    assert not config.reports_folder().exists()


def test_the_stated_memory_is_enough_for_a_whole_run(smoke):
    """`smoke_run` has had no more, where the machine lets a test limit it."""
    cfg = config.load("smoke")
    peaks = {stage: record.read(cfg, stage)["peak_memory_gb"] for stage in STAGES}
    assert all(0.1 < peak < STATED / 1e9 for peak in peaks.values()), peaks
    if not smoke[1].limited:
        pytest.skip("this user may make no memory control group")
    assert "plan of smoke on " in smoke[1].stdout
    assert " CPU cores, 8 GB" in smoke[1].stdout, "the plan counts with the limit"


def test_every_stage_leaves_a_record_and_a_page(smoke):
    cfg = config.load("smoke")
    for stage in STAGES:
        assert record.require(cfg, stage)["stage"] == stage
        assert (cfg.reports / f"{stage}.html").stat().st_size > 10_000


def test_pages_load_nothing_from_the_network(smoke):
    for page in config.load("smoke").reports.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert 'src="http' not in text
        assert "<script src" not in text
        assert '<link rel="stylesheet" href="http' not in text
        assert str(ROOT) not in text


def test_scores_cover_every_model_and_benchmark_once(smoke):
    cfg = config.load("smoke")
    table = pd.read_csv(cfg.reports / "scores.csv")
    assert tuple(table.columns) == SCORE_COLUMNS
    pairs = {(m, b) for m in cfg.models for b in cfg.params.benchmarks}
    assert len(table) == len(pairs)
    assert set(zip(table.model, table.benchmark, strict=True)) == pairs
    assert table.pass_at_1.between(0, 1).all()
    assert table.paper.isna().all(), "the paper has no score on the miniature's benchmarks"


def test_figures_stand_beside_the_pages(smoke):
    names = {p.stem for p in config.load("smoke").reports.glob("*.png")}
    assert names == {
        "branch_merge", "curation_funnel", "row_lengths", "packing", "packing_attention", "loss_mask",
        "training_loss", "selected_share", "winners", "importance", "outcomes", "answer_lengths", "comparison_matrix",
        "figure_1", "gains", "claims", "branch_distance", "fusion_by_hand", "activations",
    }  # fmt: skip


def test_checkpoints_hold_one_copy_of_each_tensor_and_load(smoke):
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    cfg = config.load("smoke")
    names = {m: set(safe_open(cfg.model(m) / "model.safetensors", "pt").keys()) for m in cfg.models}
    assert all(keys == names["backbone"] for keys in names.values())
    assert "lm_head.weight" not in names["math"], "the tied output head was stored twice"
    for model in ("math", "math-science-code"):
        loaded, info = AutoModelForCausalLM.from_pretrained(cfg.model(model), output_loading_info=True)
        assert not info["missing_keys"]
        assert loaded.num_parameters() > 0


def test_a_finished_run_is_published_without_paths_of_the_machine(smoke):
    """This test comes before those that break the run."""
    cfg = config.load("smoke")
    command = [sys.executable, "-m", "tinyr1.report.publish", "smoke"]
    result = subprocess.run(command, env=smoke[0], cwd=ROOT, capture_output=True, text=True)
    folder = config.reports_folder() / "smoke"
    assert (result.returncode, result.stdout) == (0, f"written: {folder}\n"), result.stderr
    report = {p.name for p in cfg.reports.iterdir() if p.suffix in index.REPORT_SUFFIXES}
    assert {p.name for p in folder.iterdir()} == report
    for path in folder.iterdir():
        for place in (cfg.home.parent, ROOT):
            assert str(place).encode() not in path.read_bytes(), path.name


def test_the_terminal_names_stages_benchmarks_and_the_report(smoke):
    out = smoke[1].stdout
    for word in (*STAGES, "mini-math", "index.html", "steps, loss"):
        assert word in out


def test_a_second_run_keeps_everything_and_is_quick(smoke):
    before = {p: p.stat().st_mtime_ns for p in config.load("smoke").home.rglob("*.safetensors")}
    started = time.monotonic()
    result = run_kit("smoke", env=smoke[0])
    assert result.returncode == 0
    assert result.stdout.count(": kept") == len(STAGES)
    assert time.monotonic() - started < 60, "the stages ran again"
    assert before == {p: p.stat().st_mtime_ns for p in config.load("smoke").home.rglob("*.safetensors")}


def run_ablations(env):
    command = [sys.executable, "-m", "tinyr1.ablate", "smoke"]
    return subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_ablations_go_on_after_a_kill_and_leave_tables_and_no_merge(smoke):
    cfg, rng, env = config.load("smoke"), random.Random(5), smoke[0]
    process = run_ablations(env)
    time.sleep(rng.uniform(8, 40))
    process.kill()
    process.communicate()
    process = run_ablations(env)
    out, errors = process.communicate(timeout=WHOLE_RUN)
    assert process.returncode == 0, out[-3000:] + errors[-5000:]
    scores, questions = ablations.load(cfg)
    expected = {
        (name, model, training, benchmark)
        for name, group in cfg.params.ablations.groups.items() for training in group.trainings
        for model in names_of(group) for benchmark in cfg.params.benchmarks
    }  # fmt: skip
    columns = ["ablation", "model", "training", "benchmark"]
    assert set(scores[columns].itertuples(index=False, name=None)) == expected
    assert len(scores) == len(expected)
    asked = {name: b.questions for name, b in cfg.params.benchmarks.items()}
    counts = questions.groupby(["model", "training", "benchmark"]).size()
    assert all(n == asked[benchmark] for (_, _, benchmark), n in counts.items())
    assert not list((cfg.home / "ablations").rglob("merged/*/*.safetensors"))
    before = ablations.path(cfg).read_bytes(), ablations.questions_path(cfg).read_bytes()
    # As a kill leaves it between the last answer of a merge and its removal.
    (left := cfg.home / "ablations/own/merged/random-masks").mkdir(parents=True)
    (left / "model.safetensors").touch()
    out, _ = run_ablations(env).communicate(timeout=300)
    assert not left.exists()
    assert "answers of" not in out, "a second run asks nothing again"
    assert before == (ablations.path(cfg).read_bytes(), ablations.questions_path(cfg).read_bytes())
    result = run_kit("smoke", env=env)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-5000:]
    assert result.stdout.count(": kept") == len(STAGES) - 1, "the last notebook shows the ablations"


# command of the README's table of tasks -> (what it says at its end, what it leaves on the disk)
DONE = {
    "reproduce": ("Report: {home}/smoke/report/index.html", None),
    "plan": ("Verdict: it fits.", None),
    "doctor": ("run smoke", None),
    "ablations": ("written: {home}/smoke/report/ablations.csv", "{home}/smoke/report/ablations.csv"),
    "compare": ("mini-math", None),
    "chat": ("", None),
    "merge": (" s: {tmp}/merged (", "{tmp}/merged/model.safetensors"),
    "evaluate": ("mini-math", "{home}/evaluations"),
    "publish": ("written: {reports}/smoke", "{reports}/smoke/index.html"),
    "readme": ("README.md shows reports/smol", None),
    "clean": ("removed {home}/smoke", None),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in tasks() if command not in NOT_DONE])
def test_a_command_of_the_readme_does_its_task(smoke, tmp_path, command):
    target, *words = shlex.split(command)[1:]
    env, branches = dict(smoke[0]), f"{smoke[0]['TINYR1_HOME']}/smoke/branches"
    stand_ins = {
        "A": "smoke", "B": "smoke", "MATH": f"{branches}/math", "SCIENCE": f"{branches}/science",
        "CODE": f"{branches}/code", "OUT": f"{tmp_path}/merged", "MODEL": f"{branches}/math", "BENCHMARKS": "mini-math",
    }  # fmt: skip
    words = [f"{word.split('=')[0]}={stand_ins[word.split('=')[0]]}" for word in words]
    run = "smoke"
    if target == "readme":  # the README shows run smol, and it is up to date
        run, env["TINYR1_REPORTS"] = "smol", str(ROOT / "reports")
    if target == "clean":  # other tests need the run
        env["TINYR1_HOME"] = str(tmp_path)
        (tmp_path / "smoke").mkdir()
    before = git_status()
    result = make(target, *words, f"RUN={run}", given="What is 2 + 2?\n\n", **env)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    places = {"home": env["TINYR1_HOME"], "reports": env["TINYR1_REPORTS"], "tmp": str(tmp_path)}
    said, left = DONE[target]
    assert result.stdout.strip()
    assert said.format(**places) in result.stdout, result.stdout[-3000:]
    assert left is None or Path(left.format(**places)).exists()
    assert git_status() == before


def test_a_deleted_merge_is_made_again_and_nothing_else(smoke):
    cfg = config.load("smoke")
    trained = {m: cfg.model(m).joinpath("model.safetensors").stat().st_mtime_ns for m in cfg.branches}
    subprocess.run(["rm", "-r", cfg.model("math-science-code")], check=True)
    result = run_kit("smoke", env=smoke[0])
    assert result.returncode == 0, result.stderr[-3000:]
    assert "02_branch_sft: kept" in result.stdout
    assert "04_evaluation: kept" in result.stdout, "the same merge must not be sampled again"
    assert trained == {m: cfg.model(m).joinpath("model.safetensors").stat().st_mtime_ns for m in cfg.branches}


def test_a_checkpoint_cut_short_is_refused_by_name_with_the_remedy(smoke):
    cfg = config.load("smoke")
    weights = cfg.model("math") / "model.safetensors"
    whole = weights.read_bytes()
    times = (weights.stat().st_atime_ns, weights.stat().st_mtime_ns)
    weights.write_bytes(whole[:1000])
    result = run_kit("smoke", "--stage", "03_fusion_merge", env=smoke[0])
    weights.write_bytes(whole)
    os.utime(weights, ns=times)
    assert result.returncode == 2
    assert str(weights) in result.stderr
    assert "02_branch_sft RUN=smoke" in result.stderr


def test_a_failing_stage_shows_in_the_index_with_a_link_to_its_cell(smoke, tmp_path):
    cfg = config.load("smoke")
    text = (ROOT / "params" / "smoke.yaml").read_text(encoding="utf-8")
    (tmp_path / "smoke.yaml").write_text(text.replace("temperature: 0.6", "temperature: 0.7"), encoding="utf-8")
    graded = cfg.home / "generate.json"
    graded.unlink()
    graded.mkdir()  # sampling cannot write its plan
    result = run_kit("smoke", env=smoke[0] | {"TINYR1_PARAMS": str(tmp_path)})
    graded.rmdir()
    assert result.returncode == 1
    assert "papermill-error-cell" in result.stderr
    index = (cfg.reports / "index.html").read_text(encoding="utf-8")
    assert "04_evaluation.html#papermill-error-cell" in index
    assert 'id="papermill-error-cell"' in (cfg.reports / "04_evaluation.html").read_text(encoding="utf-8")
    assert not record.record_path(cfg, "04_evaluation").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["smolll"], "there is no params/smolll.yaml"),
        (["r1-1.5b", "--stage", "02_branch_sft"], "run `make 01_data_curation RUN=r1-1.5b`"),
    ],
)
def test_bad_requests_end_in_one_clear_error(smoke, words, message):
    result = run_kit(*words, env=smoke[0])
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_records_are_plain_json_with_machine_and_code(smoke):
    entry = json.loads(record.record_path(config.load("smoke"), "01_data_curation").read_text(encoding="utf-8"))
    assert entry["machine"]["cores"] >= 1
    assert entry["code"]["commit"]
