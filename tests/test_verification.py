"""A verification run: a params file that trains nothing, its plan, and notebooks 04 and 05 on a tiny model."""

import os

import pytest
import yaml
from kit import run_kit

from tinyr1.core import config, record
from tinyr1.core.config import ROOT, STAGES
from tinyr1.core.errors import UserError
from tinyr1.plan import hardware, tables, verdict
from tinyr1.plan.estimate import make_plan

RUNS = ("verify-r1-distill-1.5b", "verify-r1-distill-32b", "verify-tinyr1-32b")


def of_smoke(model):
    """The questions and the engine of run `smoke` for a published model, as the data of a params file."""
    smoke = yaml.safe_load((ROOT / "params" / "smoke.yaml").read_text(encoding="utf-8"))
    kept = {"instruction", "instruction_with_options", "benchmarks"}
    domains = {name: {key: block[key] for key in block.keys() & kept} for name, block in smoke["domains"].items()}
    return {
        "description": "Whether a tiny network says what it said before.", "seed": 7, "verification": True,
        "backbone": {"model": str(model), "revision": None, "chat_template": "own", "distill": None},
        "domains": domains, "evaluate": smoke["evaluate"], "analysis": {"margin": 5},
    }  # fmt: skip


# --- params -----------------------------------------------------------------------------------------------------


def problems(data):
    with pytest.raises(UserError) as caught:
        config.validate(data, "x")
    return [line.removeprefix("x: ") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize("name", RUNS)
def test_the_params_of_a_verification_ask_what_was_published_as_it_was_asked(name):
    params = config.load(name).params
    assert len(params.backbone.revision) == 40
    assert (params.evaluate.temperature, params.evaluate.top_p) == (0.6, 0.95)
    assert {b.max_tokens for b in params.benchmarks.values()} == {32768}
    assert list(params.benchmarks) == ["aime24", "aime25", "gpqa", "livecodebench"]
    assert min(params.benchmarks[exam].samples for exam in ("aime24", "aime25")) >= 16


def test_a_verification_has_one_model_and_the_last_two_stages():
    cfg = config.load("verify-tinyr1-32b")
    assert (cfg.models, cfg.branches, dict(cfg.merges)) == (("TinyR1-32B-Preview",), (), {})
    assert cfg.stages == STAGES[3:]
    assert cfg.model("TinyR1-32B-Preview") == cfg.backbone


def test_what_a_verification_leaves_out_is_refused_in_it_and_demanded_elsewhere():
    smoke = yaml.safe_load((ROOT / "params" / "smoke.yaml").read_text(encoding="utf-8"))
    data, why = of_smoke("./tiny"), "asks a published model and trains nothing; remove it"
    assert config.validate(data, "x").verification
    half = data | {"trainer": smoke["trainer"], "domains": {"math": smoke["domains"]["math"]}}
    lines = problems(half | {"analysis": smoke["analysis"]})
    paths = ("analysis.headline", "domains.math.limit", "domains.math.sft", "domains.math.sources", "trainer")
    assert lines == [f"{path}: a run with `verification: true` {why}" for path in paths]
    demanded = problems({key: value for key, value in data.items() if key != "verification"})
    every = ["analysis.headline", "curate", "merge", "mixture", "trainer"]
    every += [f"domains.{d}.{key}" for d in data["domains"] for key in ("sources", "limit", "sft")]
    assert demanded == sorted(f"{path}: is missing; every parameter must be given" for path in every)


def test_what_is_wrong_in_itself_is_not_called_missing():
    smoke = yaml.safe_load((ROOT / "params" / "smoke.yaml").read_text(encoding="utf-8"))
    smoke["trainer"], smoke["domains"]["math"]["sources"][0]["rows"] = 3, -1
    assert problems(smoke) == [
        "domains.math.sources.0.rows: -1 should be greater than or equal to 1",
        "trainer: 3 is not a mapping of parameters",
    ]


@pytest.mark.parametrize("revision", [None, "main", "569f833"])
def test_a_model_of_the_hub_is_pinned_by_a_whole_commit(revision):
    data = of_smoke("qihoo360/TinyR1-32B-Preview")
    data["backbone"]["revision"] = revision
    (line,) = problems(data)
    assert line.startswith("backbone.revision: ")
    assert "give all 40 digits of the commit" in line


def test_the_record_of_a_verification_holds_for_the_same_params_and_no_others():
    cfg = config.Config(run="x", params=config.validate(of_smoke("./tiny"), "x"))
    stored = record.as_stored(cfg.params)
    assert type(cfg.params).model_validate(stored) == cfg.params
    assert {"backbone", "domains", "evaluate", "seed"} <= record.determines(stored, "04_evaluation").keys()
    other = config.Config(run="x", params=config.validate(of_smoke("./other"), "x"))
    assert record.stage_key(cfg, "04_evaluation") != record.stage_key(other, "04_evaluation")


# --- plan and refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
def test_the_plan_prices_the_evaluation_alone(name):
    plan = make_plan(config.load(name), hardware.named("H100-80GB", 4, 2.5))
    assert [stage.seconds == 0 for stage in plan.stages] == [True, True, True, False]
    assert verdict.problems(plan) == []
    text = tables.whole(plan, [])
    assert "01 to 03  nothing to do" in text
    assert "$" in text
    assert "experts" not in text


def test_without_a_gpu_it_is_refused_with_the_machine_that_would_do():
    cpu = hardware.Machine(None, 0, 2, 24e9, None, False)
    slow, *_ = verdict.problems(make_plan(config.load("verify-r1-distill-32b"), cpu))
    assert slow.why.startswith("sampling takes about ")
    assert "training" not in slow.why
    assert slow.change.startswith("use 4 × ")


def test_stages_that_a_verification_does_not_have_are_said_in_one_line_and_not_executed(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYR1_HOME", str(tmp_path))
    done = run_kit("verify-tinyr1-32b", "--stage", "02_branch_sft", env=os.environ)
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1)
    assert done.stdout.startswith("02_branch_sft: nothing to do, ")
    assert list(tmp_path.iterdir()) == []


# --- the whole run on a tiny network ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tokenizer):
    """(configuration, what the terminal showed) of a finished verification run of a folder with a tiny network."""
    from tinyr1.branch import backbone

    folder = tmp_path_factory.mktemp("verification")
    model = folder / "tiny-model"
    backbone._random_qwen2(7).save_pretrained(model)
    tokenizer.save_pretrained(model)
    (folder / "params").mkdir()
    text = yaml.safe_dump(of_smoke(model), sort_keys=False)
    (folder / "params" / "verify-tiny.yaml").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("home", "params", "reports"):
            patch.setenv(f"TINYR1_{name.upper()}", str(folder / name))
        done = run_kit("verify-tiny", env=os.environ)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
        yield config.load("verify-tiny"), done.stdout


@pytest.mark.slow
def test_notebooks_04_and_05_run_without_01_to_03_and_their_pages_tell_of_one_model(finished):
    cfg, shown = finished
    assert shown.startswith("01_data_curation, 02_branch_sft, 03_fusion_merge: nothing to do, ")
    assert [record.require(cfg, stage)["stage"] for stage in cfg.stages] == list(STAGES[3:])
    pages = {path.stem for path in cfg.reports.glob("*.html")}
    assert pages == {*cfg.stages, "index"}
    index, evaluation, report = ((cfg.reports / f"{n}.html").read_text() for n in ("index", *cfg.stages))
    assert "Published and measured: tiny-model" in index
    assert "No published score of tiny-model is known for mini-math, mini-science, mini-code" in index
    for page in (index, evaluation, report):
        assert [word for word in ("branches/", "merged model", "expert", "against the backbone") if word in page] == []
    assert index.count('<tr><th scope="row">mini-') == 2 * 3, "a row of scores and one of ends for each benchmark"
    assert '<th scope="row">temperature</th><td></td><td>0.6</td>' in index
    assert cfg.reports.joinpath("README.md").read_text().count("| mini-") == 3
