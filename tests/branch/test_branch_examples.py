"""What notebook 02 shows of its trainings is what the trainings read and what the checkpoints answer."""

import json
import sys
from pathlib import Path

import pytest
import torch
from test_branch_plan import changed, put_rows
from transformers import AutoTokenizer

from tinyr1.branch import answer, backbone, examples, packing, plan
from tinyr1.core import artifact, config, jsonl, launch, machine, prompts
from tinyr1.core.errors import UserError
from tinyr1.data import benchmarks


@pytest.fixture
def cfg(home):
    """A run whose domains have rows of four tokens, two of them prompt; two of each are the distillation's."""
    cfg = config.load("smol")
    distill = cfg.params.backbone.distill.model_copy(update={"rows": dict.fromkeys(cfg.domains, 2)})
    cfg = changed(cfg, backbone={"distill": distill}, trainer={"sequence_length": 9})
    for domain in cfg.domains:
        put_rows(cfg.rows(domain), 6)
    return cfg


def test_the_picture_of_packing_is_the_layout_of_the_training(cfg, tmp_path):
    job = plan.jobs(cfg)[-1]
    seen = examples.packed_samples(cfg, job)
    parts = job.tokens()
    packing.write_layout(tmp_path / "layout", parts, cfg.params.trainer.sequence_length, cfg.params.seed)
    data = packing.PackedSequences(tmp_path / "layout", parts)
    assert seen.sequence.unique().tolist() == list(range(1, min(len(data), examples.SEQUENCES) + 1))
    numbers = data.order.tolist()
    for number, samples in seen.groupby("sequence"):
        sequence = data[number - 1]
        assert [*samples["first"], samples["first"].iloc[-1] + samples.tokens.iloc[-1]] == (
            sequence["cu_seq_lens"].tolist())  # fmt: skip
        ignored = (sequence["labels"][0] == packing.IGNORED).tolist()
        shown = [i for row in samples.itertuples() for i in range(row.first, row.first + row.prompt)]
        assert [i for i, without in enumerate(ignored) if without] == shown
        rows = [numbers.pop(0) for _ in range(len(samples))]
        assert samples.domain.tolist() == [cfg.domains[i // 4] for i in rows]  # four rows of each domain are left


class Decoder:
    def decode(self, ids):
        return "".join(f"<{i}>" if i else "\n" for i in ids)


def test_the_tokens_around_the_begin_of_the_loss_are_shown_with_the_last_ones(cfg, monkeypatch):
    put_rows(cfg.rows("math"), 6, ids=(5, 0, 7, 2))
    seen = examples.loss_tokens(Decoder(), plan.jobs(cfg)[0])
    assert seen.values.tolist() == [["<5>", False], ["↵", False], ["<7>", True], ["<2>", True]]
    for name, count in (("BEFORE", 1), ("AFTER", 1), ("ENDING", 1)):
        monkeypatch.setattr(examples, name, count)
    put_rows(cfg.rows("math"), 6, ids=(5, 6, 7, 8, 9, 2))
    seen = examples.loss_tokens(Decoder(), plan.jobs(cfg)[0])
    assert seen.values.tolist() == [["…", False], ["<6>", False], ["<7>", True], ["…", True], ["<2>", True]]


def test_a_domain_is_asked_a_validation_question_and_never_a_test_question(cfg):
    asked = examples.asked_before_and_after(cfg)
    assert tuple(asked) == cfg.domains
    for one in asked.values():
        benchmark = cfg.params.benchmarks[one["benchmark"]]
        for split, there in (("validation", True), ("test", False)):
            loaded = benchmarks.load_benchmark(one["benchmark"], one["domain"], benchmark, split, cfg.params.seed)
            assert (one["question"] in {q["question"] for q in loaded.questions}) == there
        assert one["max_tokens"] == min(benchmark.max_tokens, examples.MOST_TOKENS)


def test_a_question_that_must_not_be_published_is_not_asked(cfg, monkeypatch):
    load = benchmarks.load_benchmark

    def hidden(name, domain, *rest):
        loaded = load(name, domain, *rest)
        for question in loaded.questions:
            question["private"] = domain == "science"
        return loaded

    monkeypatch.setattr(benchmarks, "load_benchmark", hidden)
    assert "science" not in examples.asked_before_and_after(cfg)


def answered(seen):
    """Stands in for launch.follow: answers with the name of the model, and remembers the requests."""

    def follow(command, environment, log, title, poll, unit):
        assert command[:3] == [sys.executable, "-m", "tinyr1.branch.answer"]
        requests, out = jsonl.read(Path(command[3])), Path(command[4])
        assert poll() is None, "nothing to show before the first answer"
        seen.append(requests)
        jsonl.write(out, [{"domain": r["domain"], "role": r["role"], "text": r["model"]} for r in requests])
        assert poll() == (len(requests), len(requests), "")

    return follow


def checkpoints(cfg):
    for name in ("backbone", *cfg.branches):
        folder = cfg.model(name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(name)
        artifact.seal(folder, "key", {})


def test_the_backbone_and_the_expert_are_asked_the_same_question_once(cfg, monkeypatch):
    seen = []
    monkeypatch.setattr(launch, "follow", answered(seen))
    checkpoints(cfg)
    table = examples.before_and_after(cfg)
    assert table.index.tolist() == list(cfg.domains)
    for domain, row in table.iterrows():
        assert (row.backbone, row.expert) == (str(cfg.backbone), str(cfg.model(domain)))
    by_role = {(r["domain"], r["role"]): r["user"] for r in seen.pop()}
    for domain, block in cfg.params.domains.items():
        assert by_role[domain, "backbone"] == by_role[domain, "expert"]
        assert block.instruction_for(prompts.shows_options(table.question[domain])) in by_role[domain, "expert"]
    assert examples.before_and_after(cfg).equals(table)
    assert not seen, "finished answers are kept"
    (cfg.model("math") / "config.json").write_text("another model")
    artifact.seal(cfg.model("math"), "key", {})
    examples.before_and_after(cfg)
    assert len(seen) == 1, "another checkpoint is asked again"


def test_the_branches_must_be_there(cfg, monkeypatch):
    monkeypatch.setattr(launch, "follow", lambda *_: pytest.fail("nobody is there to be asked"))
    with pytest.raises(UserError, match="02_branch_sft RUN=smol"):
        examples.before_and_after(cfg)


@pytest.fixture(scope="module")
def model(tmp_path_factory, request):
    """Folder of a tiny random model with the miniature's tokenizer."""
    tokenizer = request.getfixturevalue("tokenizer")
    folder = tmp_path_factory.mktemp("model")
    backbone._random_qwen2(0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_an_answer_takes_the_likeliest_token_each_time_and_says_where_it_was_cut(model, tmp_path):
    requests = [{"domain": d, "role": "backbone", "model": str(model), "user": d, "max_tokens": 5} for d in ("a", "b")]
    answer.answer(requests, tmp_path / "out.jsonl")
    rows = jsonl.read(tmp_path / "out.jsonl")
    assert [(r["domain"], r["role"]) for r in rows] == [("a", "backbone"), ("b", "backbone")]
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = answer.AutoModelForCausalLM.from_pretrained(model, dtype=machine.inference_dtype(False)).eval()
    for row in rows:
        ids = prompts.encode_prompt(tokenizer, row["domain"])
        start = len(ids)
        for _ in range(5):
            ids.append(int(network(torch.tensor([ids])).logits[0, -1].argmax()))
        assert tokenizer.eos_token_id not in ids[start:], "the random model is asked for too many tokens"
        assert row["text"] == tokenizer.decode(ids[start:], skip_special_tokens=True) + " […]"


def test_an_answer_that_ends_has_no_mark(model):
    class Ends:
        device = "cpu"

        def generate(self, ids, **_):
            return torch.cat([ids, torch.tensor([[1000, tokenizer.eos_token_id]])], dim=1)

    tokenizer = AutoTokenizer.from_pretrained(model)
    assert answer.likeliest(Ends(), tokenizer, "q", 5) == tokenizer.decode([1000]) != ""


def test_the_process_reads_its_plan_and_writes_its_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(answer, "answer", lambda requests, out: out.write_text(json.dumps(requests)))
    jsonl.write(tmp_path / "plan", [{"domain": "a"}])
    monkeypatch.setattr(sys, "argv", ["answer", str(tmp_path / "plan"), str(tmp_path / "out")])
    answer.main()
    assert json.loads((tmp_path / "out").read_text()) == [{"domain": "a"}]
