"""The evaluation command: a served model end to end, answers of other tools, and what it refuses."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from served import MODEL, Served, completion

from tinyr1.core import config, prompts
from tinyr1.core.errors import UserError
from tinyr1.data import benchmarks
from tinyr1.evaluate import __main__ as command
from tinyr1.evaluate import against, examples, single
from tinyr1.sampling import responses

AIME = [{"id": f"q{i}", "question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(1, 9)]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYR1_HOME", str(tmp_path / "runs"))
    (tmp_path / "aime.jsonl").write_text("".join(json.dumps(row) + "\n" for row in AIME))
    return tmp_path


def options(*words):
    return command.command_parser().parse_args(words)


def evaluate(home, *words):
    fixed = ["--benchmarks", "aime24", "--path", f"aime24={home / 'aime.jsonl'}", "--out", str(home / "out")]
    command.evaluate_models(options(*fixed, *words))


def test_answers_of_another_tool_are_graded_and_stored_in_every_form(home, capsys):
    answers = home / "answers.jsonl"
    rows = [{"id": r["id"], "response": f"<think>x</think>\\boxed{{{r['answer']}}}"} for r in AIME[:6]]
    rows += [{"id": "q7", "response": "<think>x</think>\\boxed{1}"}, {"id": "q8", "response": "<think>still thinking"}]
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate(home, "--model", "other/tool", "--responses", str(answers), "--samples", "1")
    shown = capsys.readouterr().out
    assert "75.0" in shown
    assert shown.index("template_hash") < shown.index("pass@1"), "the protocol comes before any number"
    facts = json.loads((home / "out" / "evaluation.json").read_text())
    outcomes = {o["outcome"]: o["samples"] for o in facts["outcomes"]}
    assert outcomes == {"correct": 6, "wrong": 1, "truncated": 1}
    results = json.loads((home / "out" / "tool" / "results.json").read_text())
    assert results["results"]["aime24"]["exact_match,none"] == 0.75
    assert len((home / "out" / "tool" / "samples_aime24.jsonl").read_text().splitlines()) == 8
    assert facts["isolation"] == {"isolation": "not used: no benchmark asks for programs"}


@pytest.mark.parametrize(
    ("model", "shown_rows"),
    [
        # 22 of 30 right, s = 44.98 points: t(0.975, 58) · 44.98 · sqrt(2 / 30) = 23.2; the paper has 72.6 and 78.1
        ("qihoo360/TinyR1-32B-Preview",
         ["72.6; ours less it +0.7 [-22.5, +24.0]", "78.1; ours less it -4.8 [-28.0, +18.5]"]),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B",
         ["72.6; ours less it +0.7 [-22.5, +24.0]", "78.1; ours less it -4.8 [-28.0, +18.5]"]),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", ["28.9; ours less it +44.4 [+21.2, +67.7]"]),
        ("DeepSeek-R1-Distill-Qwen-32B", []),  # a folder's name says nothing about its contents
        ("the/tool", []),
    ],
)  # fmt: skip
def test_published_numbers_stand_beside_the_published_models_only(home, model, shown_rows):
    outcomes = ["correct"] * 22 + ["wrong"] * 8
    graded = pd.DataFrame({"model": "m", "benchmark": "aime24", "question": range(30), "outcome": outcomes})
    table = against.beside_published(model, config.load("r1-1.5b").params, graded)
    assert (table["aime24"].to_list() if shown_rows else list(table)) == shown_rows


@pytest.mark.parametrize("way", ["file", "endpoint"])
def test_no_published_number_stands_beside_questions_of_ones_own(home, capsys, way):
    exam = [{"id": f"q{i}", "question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(1, 31)]
    (home / "aime.jsonl").write_text("".join(json.dumps(row) + "\n" for row in exam))
    model = "qihoo360/TinyR1-32B-Preview"
    if way == "file":
        evaluate(home, *answers(home, "out", 22, rows=exam, model=model))
    else:
        says = lambda prompt, times: completion(f"\\boxed{{{2 * int(prompt.split()[2])}}}")  # noqa: E731
        with Served(models=(model,), says=says) as server:
            evaluate(home, "--model", model, "--endpoint", server.url, "--samples", "1", "--max-tokens", "64")
    shown = capsys.readouterr().out
    assert ("73.3" if way == "file" else "100.0") in shown
    assert "published numbers" not in shown
    assert "ours less it" not in shown
    assert "paper" not in (home / "out" / "scores.csv").read_text().partition("\n")[2]


def test_a_part_of_a_benchmark_has_no_published_number(home, capsys):
    evaluate(home, *answers(home, "answers", 6, model="qihoo360/TinyR1-32B-Preview"))
    assert "published" not in capsys.readouterr().out


def test_a_served_model_is_asked_every_question_and_an_unchanged_command_asks_nothing(home, capsys):
    with Served() as server:
        words = ("--model", MODEL, "--endpoint", server.url, "--samples", "2", "--max-tokens", "64")
        evaluate(home, *words)
        asked = server.attempts
        assert asked == 2 * len(AIME)
        evaluate(home, *words)
        assert server.attempts == asked
    said = capsys.readouterr().out
    assert "responses kept" in said
    assert "[aime24] a prompt (messages; the server renders them):\nuser: " in said


def answers(home, out, right, tokens=None, rows=AIME, model=None):
    """Options that grade answers to `rows` of which the first `right` are right, into the folder `out`."""
    made = [
        {"id": r["id"], "response": f"</think>\\boxed{{{r['answer'] if i < right else 999}}}"}
        | ({"n_tokens": tokens + i} if tokens else {})
        for i, r in enumerate(rows)
    ]  # fmt: skip
    path = home / f"{out}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return ["--model", model or f"the/{out}", "--responses", str(path), "--samples", "1", "--out", str(home / out)]


def test_lengths_and_examples_of_each_outcome_are_shown(home, capsys):
    evaluate(home, *answers(home, "tool", 6, tokens=100))
    shown = capsys.readouterr().out
    (line,) = [line.split() for line in shown.partition("tokens in an answer:")[2].splitlines() if "aime24" in line][:1]
    assert line == ["aime24", "100", "102", "104", "105", "107", "107"]
    text = (home / "tool" / "examples.txt").read_text()
    assert "[aime24: correct, by tool] What is 1 + 1?" in text
    assert "[aime24: wrong, by tool] What is 7 + 7?\n\n</think>\\boxed{999}\n\nright: 14" in text
    evaluate(home, *answers(home, "tool", 6))
    assert "tokens in an answer" not in capsys.readouterr().out


def test_a_finished_evaluation_is_compared_question_by_question(home, capsys):
    evaluate(home, *answers(home, "first", 3))
    evaluate(home, *answers(home, "second", 6), "--against", str(home / "first"))
    shown = capsys.readouterr().out.partition("second less first, in points with 95 % intervals")[2]
    # 3 of 8 questions differ: s = 51.75 points, t(0.975, 7) · s / sqrt(8) = 43.3; of 8 ways to flip signs 2 are as far
    (line,) = [line.split() for line in shown.splitlines() if line.startswith("aime24")]
    assert line[:7] == ["aime24", "+37.5", "[-5.8,", "+80.8]", "0.25", "0.25", "undecided"]
    evaluate(home, *answers(home, "second", 6), "--against", str(home / "second"))
    assert f"second less second in {home / 'second'}, in points with" in capsys.readouterr().out


def test_another_evaluation_that_differs_is_refused_by_what_differs(home):
    evaluate(home, *answers(home, "first", 3))
    words = [*answers(home, "second", 3), "--against", str(home / "first")]
    for more, message in (
        (["--samples", "2", "--top-p", "0.5"], "aime24: top_p 0.95; here 0.5\naime24: samples 1; here 2"),
        (["--benchmarks", "aime24,aime25", "--path", f"aime25={home / 'aime.jsonl'}"],
         "benchmarks: aime24; here aime24, aime25"),
    ):  # fmt: skip
        with pytest.raises(UserError) as error:
            evaluate(home, *words, *more)
        assert str(error.value).endswith(f"benchmarks, questions and protocol:\n{message}")
    (home / "aime.jsonl").write_text("".join(json.dumps(r | {"question": "Else?"}) + "\n" for r in AIME))
    with pytest.raises(UserError, match="aime24: its questions are not those asked here"):
        evaluate(home, *words)
    with pytest.raises(UserError, match=r"nowhere/evaluation\.json cannot be read: FileNotFoundError"):
        evaluate(home, *words, "--against", str(home / "nowhere"))


def test_questions_that_one_evaluation_lacks_are_named(home):
    evaluate(home, *answers(home, "first", 3))
    with pytest.raises(UserError, match="2 questions have answers in one evaluation only: aime24/q7, aime24/q8;"):
        evaluate(home, *answers(home, "second", 3, rows=AIME[:6]), "--against", str(home / "first"))
    assert (home / "second" / "scores.csv").is_file(), "its own scores are there"


@pytest.fixture
def several(home, monkeypatch):
    """Three checkpoints whose answers are made here: call with more options; the plans that sampling was given."""
    right, plans = {"weak": 1, "middle": 4, "strong": 8}, []
    for name in right:
        (home / "models" / name).mkdir(parents=True)
        (home / "models" / name / "model.safetensors").write_text(name)

    def sample(plan, path, log, has_gpu):
        plans.append(plan)
        for model in plan["models"]:
            for job in model["jobs"]:
                lines = [
                    {"question": row["id"], "sample": 0, "n_tokens": 5, "finish": "stop", "seed": None,
                     "text": f"</think>\\boxed{{{row['answer'] if i < right[model['name']] else 999}}}",
                     "model_key": model["key"], "protocol_key": job["protocol_key"]} for i, row in enumerate(AIME)
                ]  # fmt: skip
                out = responses.shard(Path(job["out"]), 0)
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return {"tokens": 40, "seconds": 1.0}

    monkeypatch.setattr(command.stage, "sample_in_child", sample)
    monkeypatch.setattr(examples, "example_prompts", lambda *_: "the prompts")

    def run(*names, more=()):
        words = [word for name in names for word in ("--model", str(home / "models" / name))]
        evaluate(home, *words, "--samples", "1", *more)
        return plans

    return run


def test_several_models_are_sampled_by_one_process_and_compared_in_pairs(home, several, capsys):
    (plan,) = several("weak", "middle", "strong")
    assert [model["name"] for model in plan["models"]] == ["weak", "middle", "strong"]
    shown = capsys.readouterr().out
    assert shown.count("the prompts") == 1, "they are the same for all"
    title = "every pair of models, by benchmark, in points with 95 % intervals paired by question"
    rows = [line.split() for line in shown.partition(title)[2].splitlines() if "aime24" in line]
    # 7 of 8 questions differ, all one way: 2 of 128 flips are as far, 0.016 · 3 pairs = 0.047; then 0.12 and 0.25
    found = {(row[0], row[1]): (row[3], row[6], row[7], row[8]) for row in rows}
    assert found == {
        ("middle", "weak"): ("+37.5", "0.25", "0.25", "undecided"),
        ("strong", "weak"): ("+87.5", "0.016", "0.047", "higher"),
        ("strong", "middle"): ("+50.0", "0.12", "0.25", "undecided"),
    }
    folders = sorted(path.name for path in (home / "out").iterdir())
    assert [name.partition("-")[0] for name in folders] == ["comparison", "middle", "strong", "weak"]
    stored = json.loads((home / "out" / folders[0] / "comparison.json").read_text())
    assert [row["verdict"] for row in stored["comparisons"]] == ["undecided", "higher", "undecided"]
    assert {facts["folder"] for facts in stored["models"].values()} == set(folders[1:])


def test_the_folder_of_one_of_several_is_that_of_an_evaluation_alone(home, several):
    several("weak", "strong")
    (folder,) = (home / "out").glob("weak-*")
    facts = json.loads((folder / "evaluation.json").read_text())
    assert (facts["model"], facts["protocols"][0]["benchmark"]) == ("weak", "aime24")
    assert (folder / "scores.csv").is_file()
    again = against.earlier_evaluation(folder, facts["protocols"], "weak")
    assert again["outcome"].eq("correct").sum() == 1


def test_two_models_of_one_name_are_told_apart_and_one_model_twice_is_refused(home, several, capsys):
    for place, text in (("a", "one"), ("b", "two"), ("c", "one")):
        (home / place / "weak").mkdir(parents=True)
        (home / place / "weak" / "model.safetensors").write_text(text)
    words = [word for place in "ab" for word in ("--model", str(home / place / "weak"))]
    fixed = ["--benchmarks", "aime24", "--path", f"aime24={home / 'aime.jsonl'}"]
    names = [one.name for one in command.models_of(options(*fixed, *words))]
    assert len(set(names)) == 2
    assert all(name.startswith("weak-") for name in names)
    with pytest.raises(UserError, match="hold the same model; name it once"):
        command.models_of(options(*fixed, *words, "--model", str(home / "c" / "weak")))


GPQA = {"Record ID": "rec", "Question": "SECRET", "Correct Answer": "SECRET right", "High-level domain": "Physics",
        **{f"Incorrect Answer {n}": f"SECRET {n}" for n in (1, 2, 3)}}  # fmt: skip


def shown(cfg, imported=False):
    asked = {name: one.questions for name, one in benchmarks.load_all(cfg).items()}
    return examples.example_prompts(cfg, asked, imported)


@pytest.fixture
def vllm_run(home, tokenizer):
    """The evaluation of a checkpoint folder on an open and a gated benchmark; no engine is started."""
    folder = home / "checkpoint"
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"")
    (home / "gpqa.jsonl").write_text(json.dumps(GPQA) + "\n")
    words = ["--model", str(folder), "--benchmarks", "aime24,gpqa", "--path", f"aime24={home / 'aime.jsonl'}",
             "--path", f"gpqa={home / 'gpqa.jsonl'}"]  # fmt: skip
    return words, command.models_of(options(*words))[0]


def test_the_prompt_is_shown_as_the_model_sees_it(vllm_run, tokenizer):
    _, cfg = vllm_run
    text = shown(cfg)
    turn = prompts.user_turn(cfg.params.domains["math"].instruction, AIME[0]["question"])
    assert prompts.render_messages(tokenizer, [{"role": "user", "content": turn}], open_think=True) in text
    assert "[gpqa] a prompt, as the model sees it" in text
    assert "A) (option " in text
    assert "SECRET" not in text


def test_a_raw_prompt_is_shown_as_tokenized_and_of_other_peoples_answers_only_what_we_would_ask(vllm_run):
    words, cfg = vllm_run
    released = command.models_of(options(*words, "--protocol", "released"))[0]
    assert "<｜User｜>What is 1 + 1?<｜Assistant｜>" in shown(released)
    assert "as this protocol would ask" in shown(cfg, imported=True)


def test_a_checkpoint_without_a_tokenizer_is_named(vllm_run):
    _, cfg = vllm_run
    for path in cfg.checkpoint.iterdir():
        path.unlink()
    with pytest.raises(UserError, match="checkpoint: its tokenizer cannot be loaded"):
        shown(cfg)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "nowhere"], "is no folder and no hub id"),
        (["--model", "x", "--responses", "absent.jsonl"], "absent.jsonl: no such file"),
        (["--model", "x/y", "--benchmarks", "mmlu"], "mmlu: not in params/r1-1.5b.yaml, which gives aime24, aime25"),
        (["--model", "x/y", "--run", "smol", "--benchmarks", "aime25"], "aime25: not in params/smol.yaml"),
        (["--model", "x/y", "--path", "aime24"], "must be one of the benchmarks"),
        (["--model", "x/y", "--samples", "0"], "--samples: 0 should be greater than or equal to 1"),
        (["--model", "x/y", "--top-p", "2"], "--top-p: 2.0 should be less than or equal to 1"),
        (["--model", "x/y", "--max-tokens", "99999"], "--max-tokens: 99999 leaves no room for the prompt"),
        (["--model", "x", "--endpoint", "localhost:8000/v1"],
         "--endpoint: 'localhost:8000/v1' should begin with http:// or https://"),
        (["--model", "x", "--endpoint", ""], "--endpoint: '' should begin with"),
        (["--model", "x", "--api-key-variable", "KEY"], "--api-key-variable: KEY goes with --endpoint only"),
        (["--model", "damaged"], "--model: damaged/config.json: not valid JSON"),
        (["--model", "damaged", "--model", "nowhere", "--model", "else"],
         "--model: nowhere is no folder and no hub id (owner/name)\n--model: else is no folder"),
        (["--model", "a", "--model", "b", "--endpoint", "http://x/v1"], "--endpoint: goes with one --model, and there"),
        (["--model", "a", "--model", "b", "--responses", "x.jsonl"], "--responses: goes with one --model, and there"),
        (["--model", "a", "--model", "b", "--against", "out"], "--against: goes with one --model, and there are 2"),
    ],
)
def test_what_it_refuses(home, words, message, monkeypatch, capsys):
    monkeypatch.chdir(home)
    (home / "damaged").mkdir()
    (home / "damaged" / "config.json").write_text('{"model_type": ')
    fixed = ["--benchmarks", "aime24", "--path", f"aime24={home / 'aime.jsonl'}", "--out", str(home / "out")]
    monkeypatch.setattr("sys.argv", ["evaluate", *fixed, *words])
    assert command.main() == 2
    assert message in capsys.readouterr().err


def test_a_value_that_fits_no_benchmark_is_said_once(home):
    words = ["--model", "a/b", "--benchmarks", "aime24,gpqa,lcb", "--samples", "-1"]
    with pytest.raises(UserError) as error:
        command.overridden(config.load("r1-1.5b").params, options(*words))
    assert str(error.value) == "--samples: -1 should be greater than or equal to 1"


@pytest.mark.parametrize("has_gpu", [True, False])
def test_it_samples_on_the_gpu_that_torch_can_use(home, monkeypatch, has_gpu):
    told = []

    def generate(cfg, asked, has_gpu, partial):
        told.append(has_gpu)
        raise UserError("not here")

    monkeypatch.setattr(command.machine, "has_gpu", lambda: has_gpu)
    monkeypatch.setattr(command.stage, "generate", generate)
    with pytest.raises(UserError, match="not here"):
        evaluate(home, "--model", MODEL, "--endpoint", "http://127.0.0.1:9/v1")
    assert told == [has_gpu]


def test_a_folder_without_a_checkpoint_is_an_error(home, monkeypatch, capsys):
    (home / "empty").mkdir()
    monkeypatch.setattr("sys.argv", ["evaluate", "--model", str(home / "empty"), "--benchmarks", "aime24"])
    assert command.main() == 2
    assert "holds no checkpoint" in capsys.readouterr().err


def test_the_key_of_a_folder_depends_on_the_files_of_the_checkpoint_alone(tmp_path):
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (tmp_path / name).write_text(name)
    key = single.content_key(tmp_path)
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "config.json").touch()
    assert single.content_key(tmp_path) == key
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (tmp_path / name).write_text("else")
        assert single.content_key(tmp_path) != key
        (tmp_path / name).write_text(name)


def test_aime_2025_comes_from_the_hub_with_the_settings_of_aime_2024(home):
    words = ["--model", "a/b", "--benchmarks", "aime2024,aime2025"]
    found = command.overridden(config.load("r1-1.5b").params, options(*words))
    old, new = (found.benchmarks[name] for name in ("aime24", "aime25"))
    differ = {key for key, value in new.model_dump().items() if value != getattr(old, key)}
    assert differ == {"path", "revision", "sha256"}
    assert new.path == "hf://math-ai/aime25/test.jsonl"
    assert new.revision, "a commit, not a branch that moves"
    assert new.sha256


def test_the_twin_of_a_benchmark_may_be_in_another_domain(home):
    data = config.load("r1-1.5b").params.model_dump(mode="json")
    own = data["domains"]["math"]["benchmarks"]["aime24"] | {"path": "own.jsonl", "revision": None, "sha256": None}
    data["domains"]["science"]["benchmarks"]["aime25"] = own
    params = command.overridden(config.validate(data, "x"), options("--model", "a/b", "--benchmarks", "aime25"))
    assert [(name, b.path) for name, b in params.benchmarks.items()] == [("aime25", "own.jsonl")]


def test_it_evaluates_a_model_on_a_domain_that_is_not_the_papers(home, monkeypatch, capsys):
    data = yaml.safe_load((config.ROOT / "params" / "smoke.yaml").read_text())
    data["domains"] = {"law": data["domains"]["science"] | {"instruction_with_options": "Give the letter in a box."}}
    data["domains"]["law"]["benchmarks"] = {
        "bar-exam": {"kind": "miniature", "tasks": "science", "levels": [1], "questions": 4, "samples": 1,
                     "max_tokens": 24}
    }  # fmt: skip
    data["backbone"]["distill"]["rows"] = {"law": 8}
    data["merge"]["models"] = [{"recipe": {"method": "linear", "models": [{"model": "law"}, {"model": "mixture"}]}}]
    data |= {"ablations": None, "analysis": {"margin": 5, "headline": [{"model": "law", "against": "backbone"}]}}
    (home / "params").mkdir()
    (home / "params" / "law.yaml").write_text(yaml.safe_dump(data))
    monkeypatch.setenv("TINYR1_PARAMS", str(home / "params"))
    with Served() as server:
        command.evaluate_models(options("--run", "law", "--benchmarks", "bar-exam", "--model", MODEL, "--endpoint",
                                        server.url, "--out", str(home / "out")))  # fmt: skip
        assert server.attempts == 4
        assert all(prompt.endswith("Give the letter in a box.") for prompt in server.asked)
    assert "[bar-exam] a prompt (messages" in capsys.readouterr().out
    assert (home / "out" / "scores.csv").read_text().splitlines()[1].startswith("law,parrot,bar-exam,4,1,")


def test_a_file_takes_the_place_of_the_hubs_aime_2025(home):
    words = ["--model", "a/b", "--benchmarks", "aime25", "--path", f"aime25={home / 'aime.jsonl'}"]
    found = command.overridden(config.load("r1-1.5b").params, options(*words))
    new = found.benchmarks["aime25"]
    assert (new.path, new.revision, new.sha256) == (str(home / "aime.jsonl"), None, None)


def test_options_override_the_params_file(home):
    words = ["--model", "a/b", "--benchmarks", "aime25,lcb", "--path", f"aime25={home / 'aime.jsonl'}",
             "--temperature", "0.1", "--top-p", "0.5", "--protocol", "released", "--samples", "3"]  # fmt: skip
    params = command.overridden(config.load("r1-1.5b").params, options(*words))
    e = params.evaluate
    assert (e.temperature, e.top_p, e.protocol) == (0.1, 0.5, "released")
    assert list(params.benchmarks) == ["aime25", "livecodebench"]
    assert params.benchmarks["aime25"].kind == "aime"
    assert params.benchmarks["livecodebench"].samples == 3
    whole = yaml.safe_load((config.ROOT / "params" / "r1-1.5b.yaml").read_text())
    block = whole["domains"]["code"]["benchmarks"]["livecodebench"]
    assert params.benchmarks["livecodebench"].revision == block["revision"]


def test_livecodebench_is_asked_in_any_release_and_any_part_of_it(home):
    def block(*words):
        params = command.overridden(config.load("r1-1.5b").params, options("--model", "a/b", *words))
        return params.benchmarks["livecodebench"]

    pinned = block("--benchmarks", "lcb")
    other = block("--benchmarks", "lcb", "--release", "release_v6")
    assert (other.release, other.sha256, other.revision) == ("release_v6", None, pinned.revision)
    assert block("--benchmarks", "lcb", "--release", pinned.release) == pinned
    part = block("--benchmarks", "lcb", "--path", "lcb=some.jsonl")
    assert (part.release, part.sha256) == (None, None), "the number of its problems is not that of a release"
    whole = block("--benchmarks", "lcb", "--path", "lcb=folder", "--release", "release_v2")
    assert whole.release == "release_v2"
    assert whole.path.endswith("/folder")
    with pytest.raises(UserError, match="--release: release_v2 is LiveCodeBench's"):
        block("--benchmarks", "aime24", "--release", "release_v2")


@pytest.mark.parametrize(("limit", "length"), [(8192, 8192), (100, 36864), (131072, 36864), (None, 36864)])
def test_the_engine_asks_for_no_more_context_than_a_small_model_has(home, limit, length):
    """But for a max_tokens of 200, which a context of 100 cannot hold: that is refused when it comes to sampling."""
    (home / "model").mkdir()
    (home / "model" / "config.json").write_text(json.dumps({"max_position_embeddings": limit}))
    words = ["--model", "m", "--benchmarks", "aime24", "--max-tokens", "200"]
    params = command.overridden(config.load("paper").params, options(*words))
    assert single.fitted_to_context(params, home / "model").evaluate.engine.max_model_len == length
    assert single.fitted_to_context(params, home / "nowhere") == params
