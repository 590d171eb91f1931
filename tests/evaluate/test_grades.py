"""Grades are stored as they are made, used again while nothing that determines them changes, and survive kill -9."""

import ast
import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from processes import descendants
from test_grade import params_of

from tinyr1.core import config, record
from tinyr1.core.config import ROOT
from tinyr1.core.errors import UserError
from tinyr1.data.benchmarks import load_all
from tinyr1.evaluate import protocol as protocols
from tinyr1.evaluate.grading import grade
from tinyr1.evaluate.protocol import GRADING
from tinyr1.sampling import store

WORKERS = len(os.sched_getaffinity(0))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def quiz(folder, rows_aime, rows_lcb=(), protocol="sound"):
    """A run with these questions, as params/quiz.yaml in `folder`."""
    common = {"questions": None, "samples": 2, "max_tokens": 16}
    benchmarks = {"math": {"aime24": {"kind": "aime", "path": write(folder / "aime.jsonl", rows_aime), **common}}}
    if rows_lcb:
        window = ["2024-01-01", "2024-12-31"]
        lcb = {"kind": "livecodebench", "path": write(folder / "lcb.jsonl", rows_lcb), "window": window, **common}
        benchmarks["code"] = {"lcb": lcb}
    params = params_of(benchmarks, protocol)
    params["evaluate"]["sandbox"]["cpu_seconds"] = 1
    (folder / "quiz.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


AIME = [{"id": f"a{i}", "question": f"{i}?", "answer": str(i)} for i in range(4)]
TEXTS = {("aime24", f"a{i}", s): f"hm</think>\\boxed{{{i + s}}}" for i in range(4) for s in (0, 1)}


def samples_of(cfg, texts=TEXTS):
    """A sample for each text of a model, by (benchmark, question, sample)."""
    loaded = load_all(cfg)
    questions = {(name, q["id"]): q for name, one in loaded.items() for q in one.questions}
    rules = {name: protocols.of(cfg.params, name) for name in loaded}
    return [
        grade.Sample("only", name, {"question": i, "sample": s, "text": text, "finish": "stop"}, questions[name, i],
                     rules[name])
        for (name, i, s), text in texts.items()
    ]  # fmt: skip


def grade_quiz(cfg, texts=TEXTS):
    return grade.grade_samples(cfg.home / "grades.jsonl", samples_of(cfg, texts), cfg.params.evaluate.sandbox)


def outcomes(cfg):
    return [line["outcome"] for line in grade_quiz(cfg)]


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    """Four questions with two answers each, the first of which is right."""
    monkeypatch.setenv("TINYR1_HOME", str(tmp_path / "runs"))
    monkeypatch.setenv("TINYR1_PARAMS", str(tmp_path))
    quiz(tmp_path, AIME)
    return config.load("quiz")


@pytest.fixture
def graded_now(monkeypatch):
    """(question, sample) of every response that the grader gets, in this order."""
    seen, outcome = [], grade.outcome

    def spy(response, question, *more):
        seen.append((question["id"], response["sample"]))
        return outcome(response, question, *more)

    monkeypatch.setattr(grade, "outcome", spy)
    return seen


def test_each_answer_is_graded_once_and_a_second_call_grades_none(cfg, graded_now, capsys):
    first = grade_quiz(cfg)
    assert sorted(graded_now) == sorted((q, s) for _, q, s in TEXTS)
    assert [line["outcome"] for line in first] == ["correct", "wrong"] * 4
    assert grade_quiz(cfg) == first
    assert len(graded_now) == len(TEXTS)
    assert "8 of 8 grades are stored already" in capsys.readouterr().out


def change_rules(cfg, patch):
    made = protocols.of
    patch.setattr(protocols, "of", lambda *arguments: replace(made(*arguments), reads="whole"))


def change_limits(cfg, patch):
    path = cfg.home.parents[1] / "quiz.yaml"
    path.write_text(path.read_text().replace("cpu_seconds: 1", "cpu_seconds: 2"))


def change_source(cfg, patch):
    patch.setattr(record, "source_hash", lambda *parts: "of another statement")


def change_library(cfg, patch):
    patch.setattr(grade.metadata, "version", lambda name: "0.0")


@pytest.mark.parametrize("change", [change_rules, change_limits, change_source, change_library])
def test_what_decides_every_grade_makes_them_all_anew(cfg, graded_now, monkeypatch, change):
    grade_quiz(cfg)
    graded_now.clear()
    change(cfg, monkeypatch)
    grade_quiz(config.load("quiz"))
    assert len(graded_now) == len(TEXTS)


def changed(sample, **parts):
    """The sample with keys of its response or question replaced."""
    return replace(sample, **{part: getattr(sample, part) | values for part, values in parts.items()})


@pytest.mark.parametrize(
    "parts",
    [{"response": {"text": "hm</think>\\boxed{7}"}}, {"response": {"finish": "length"}}, {"response": {"order": [0]}},
     {"question": {"answer": "7"}}, {"question": {"tests": [{"input": "", "output": "1"}]}}],
)  # fmt: skip
def test_a_changed_response_or_question_is_graded_anew_and_the_others_are_kept(cfg, graded_now, parts):
    samples, path = samples_of(cfg), cfg.home / "grades.jsonl"
    grade.grade_samples(path, samples, cfg.params.evaluate.sandbox)
    graded_now.clear()
    again = [changed(samples[0], **parts), *samples[1:]]
    found = grade.grade_samples(path, again, cfg.params.evaluate.sandbox)
    assert graded_now == [("a0", 0)]
    assert len(found) == len(samples)
    graded_now.clear()
    assert grade.grade_samples(path, again, cfg.params.evaluate.sandbox) == found
    assert graded_now == []


def test_more_samples_of_each_question_leave_the_grades_there_are(cfg, graded_now):
    grade_quiz(cfg)
    graded_now.clear()
    grade_quiz(cfg, TEXTS | {("aime24", "a0", 2): "hm</think>\\boxed{0}"})
    assert graded_now == [("a0", 2)]


def test_the_grader_reads_no_other_rules_than_those_of_the_key(cfg):
    (sample, *_) = samples_of(cfg)
    read = set()

    class Spy:
        def __getattr__(self, name):
            read.add(name)
            return getattr(sample.rules, name)

    option = {"id": "o", "kind": "option", "options": ["w", "x", "y", "z"], "answer": "0"}
    grade.outcome(sample.response, sample.question, Spy())
    grade.outcome(sample.response | {"finish": "length"}, sample.question, Spy())
    sample = replace(sample, rules=replace(sample.rules, extraction="anchored_option", grader="option"))
    assert grade.outcome(sample.response | {"text": "</think>\\boxed{A}"}, option, Spy()) == ("wrong", "A")
    assert read == set(GRADING)


def test_what_the_grader_failed_on_is_tried_again(cfg, monkeypatch):
    outcome, failing = grade.outcome, [True]

    def sometimes(response, question, *more):
        return ("grader_error", None) if failing and question["id"] == "a2" else outcome(response, question, *more)

    monkeypatch.setattr(grade, "outcome", sometimes)
    assert outcomes(cfg).count("grader_error") == 2
    failing.clear()
    assert outcomes(cfg) == ["correct", "wrong"] * 4


def test_damaged_lines_are_passed_over_and_their_samples_graded_again(cfg, graded_now):
    first = grade_quiz(cfg)
    path = cfg.home / "grades.jsonl"
    lines = path.read_text().splitlines()
    broken = [lines[0].replace('"outcome"', '"come"'), lines[1].replace("correct", "perfect").replace("wrong", "poor"),
              lines[2][:40], "{broken", *lines[3:-1], lines[-1][:50]]  # fmt: skip
    path.write_text("\n".join(broken))
    graded_now.clear()
    assert grade_quiz(cfg) == first
    assert len(graded_now) == 4
    graded_now.clear()
    assert grade_quiz(cfg) == first
    assert graded_now == []


def test_an_error_ends_the_grading_soon_and_what_was_found_is_kept(cfg, monkeypatch):
    outcome, asked, first = grade.outcome, [], threading.Event()

    def fails(response, question, *more):
        asked.append(question["id"])
        if question["id"] == "a1":
            assert first.wait(60)
            raise UserError("no isolation")
        found = outcome(response, question, *more)
        if (question["id"], response["sample"]) == ("a0", 0):
            first.set()  # its thread writes it down before it looks whether another has failed
        return found

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})  # more workers might have asked everything by then
    monkeypatch.setattr(grade, "outcome", fails)
    with pytest.raises(UserError, match="no isolation"):
        grade_quiz(cfg)
    assert len(asked) < len(TEXTS)
    kept = [line for _, line in grade.FORM.lines(cfg.home / "grades.jsonl")]
    assert [(line["question"], line["outcome"]) for line in kept if line["sample"] == 0][:1] == [("a0", "correct")]


def test_one_process_grades_a_run_at_a_time(cfg):
    samples, path = samples_of(cfg), cfg.home / "grades.jsonl"
    with store.LineWriter(path, grade.FORM), pytest.raises(UserError, match="is writing grades there"):
        grade.grade_samples(path, samples, cfg.params.evaluate.sandbox)


def test_nothing_to_grade_gives_no_grades(cfg):
    assert grade_quiz(cfg, {}) == []


# --- the code that determines a grade -------------------------------------------------------------------------

# Modules that judging modules import and that cannot change a grade.
NOT_JUDGING = {
    "tinyr1.core.artifact": "hashes keys",
    "tinyr1.core.record": "hashes the judging modules",
    "tinyr1.core.params.domains": "parameters, whose values are in the key",
    "tinyr1.core.params.evaluation": "parameters, whose values are in the key",
    "tinyr1.core.params.schema": "parameters, whose values are in the key",
    "tinyr1.core.progress": "shows progress",
    "tinyr1.core.surroundings": "the environment of child processes",
    "tinyr1.core.errors": "the class of errors",
    "tinyr1.sampling.store": "the file of grades",
    "tinyr1.evaluate.released": "rules, whose values are in the key",
}


def files_of(parts, root=ROOT):
    """The Python files of parts of the package, as `record.source_hash` takes them."""
    paths = [root / "tinyr1" / part for part in parts]
    assert all(path.exists() for path in paths)
    return [file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]


def imported(file):
    """The modules of the package that a file imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("tinyr1."))
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("tinyr1"):
            for alias in node.names:
                inner = ROOT / node.module.replace(".", "/") / alias.name
                is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def test_every_module_that_judging_modules_import_is_in_the_key_or_cannot_change_a_grade():
    covered = files_of(grade.JUDGING)
    modules = {".".join(file.relative_to(ROOT).with_suffix("").parts) for file in covered}
    for file in covered:
        missing = {name for name in imported(file) if name not in modules} - NOT_JUDGING.keys()
        assert not missing, f"{file} imports {missing}: add it to grade.JUDGING, or say above why it changes no grade"


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the package that a test may change; keys are computed from it."""
    shutil.copytree(ROOT / "tinyr1", tmp_path / "copy" / "tinyr1", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(record, "ROOT", tmp_path / "copy")
    return tmp_path / "copy"


COMMENT, STATEMENT = "\n# A new comment.\n", "\nNEW = 1\n"


def test_a_comment_or_docstring_in_a_judging_module_keeps_the_grades_and_a_statement_does_not(cfg, copied):
    samples, limits = samples_of(cfg), cfg.params.evaluate.sandbox
    for file in files_of(grade.JUDGING, copied):
        text = file.read_text(encoding="utf-8")
        before = grade.grade_keys(samples, limits)
        file.write_text(text.replace('"""', '"""New words. ', 1) + COMMENT, encoding="utf-8")
        assert grade.grade_keys(samples, limits) == before, file
        file.write_text(text + STATEMENT, encoding="utf-8")
        after = grade.grade_keys(samples, limits)
        assert not set(after.values()) & set(before.values()), file


UNRELATED = ("report", "merge", "branch", "run.py", "evaluate/stats.py", "evaluate/grading/selftest.py")


@pytest.mark.parametrize("part", UNRELATED)
def test_a_statement_in_an_unrelated_module_keeps_the_grades(cfg, copied, part):
    samples, limits = samples_of(cfg), cfg.params.evaluate.sandbox
    before = grade.grade_keys(samples, limits)
    for file in files_of([part], copied):
        file.write_text(file.read_text(encoding="utf-8") + STATEMENT, encoding="utf-8")
    assert grade.grade_keys(samples, limits) == before


# --- kill -9 --------------------------------------------------------------------------------------------------

NAP = 0.1 * WORKERS  # seconds a program sleeps, so that all of them together take half a minute however many cores
PROGRAMS = {  # by the remainder of the question's number
    0: f"import time\ntime.sleep({NAP})\nprint(int(input()) + 1)",
    1: f"import time\ntime.sleep({NAP})\nprint(0)",
    2: f"import time\ntime.sleep({NAP})\nraise SystemExit(3)",
    3: f"import time\ntime.sleep({NAP})\nprint(input(), end='')\nprint(1 / 0)",
}
N_AIME, N_LCB, KILLS = 12, 150, 30
GRADE = (
    f"import sys\nsys.path[:0] = {[str(ROOT), str(ROOT / 'tests'), str(ROOT / 'tests' / 'evaluate')]!r}\n"
    "import test_grades\ntest_grades.grade_big_quiz()\n"
)


def big_quiz(folder):
    """Programs that take their time, some for ever, and answers that only symbolic comparison can judge."""
    tests = json.dumps([{"input": "1", "output": "2"}, {"input": "5", "output": "6"}])
    lcb = [
        {"question_id": f"p{i}", "question_title": "", "question_content": "Add one.", "difficulty": "easy",
         "starter_code": "", "contest_date": "2024-05-05T00:00:00", "public_test_cases": tests,
         "private_test_cases": "[]", "metadata": "{}"} for i in range(N_LCB)
    ]  # fmt: skip
    quiz(folder, [{"id": f"a{i}", "question": "?", "answer": "4"} for i in range(N_AIME)], lcb, "released")
    forms = {0: "\\frac{8}{2}", 1: "9^{9^{9^9}}", 2: "2+2", 3: "five", 4: "4"}
    texts = {("aime24", f"a{i}", s): f"\\boxed{{{forms[(i + s) % 5 if i < 6 else 4]}}}" for i in range(N_AIME)
             for s in (0, 1)}  # fmt: skip
    for i in range(N_LCB):
        for s in (0, 1):
            code = "while True: pass" if i % 50 == 7 and not s else PROGRAMS[(i + s) % 4]
            texts["lcb", f"p{i}", s] = f"```python\n{code}\n```" if (i + s) % 9 else "I do not know."
    return texts


def grade_big_quiz():
    """Grade in a process of its own, and write all grades to a file at the end."""
    cfg = config.load("quiz")
    texts = {tuple(name): text for name, text in json.loads((cfg.home / "texts.json").read_text())}
    lines = [{name: line[name] for name in line if name != "key"} for line in grade_quiz(cfg, texts)]
    (cfg.home / "graded.json").write_text(json.dumps(lines, indent=1))


@pytest.fixture
def adopts():
    """Orphans become children of this process, which can so see whether any is left."""
    libc, subreaper = ctypes.CDLL(None, use_errno=True), 36
    assert libc.prctl(subreaper, 1, 0, 0, 0) == 0
    yield
    libc.prctl(subreaper, 0, 0, 0, 0)


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
    except OSError:
        return ""


def kill_helper(pid, rng):
    """Kill a random process below `pid`; its name."""
    time.sleep(0.5)  # until every worker's sandbox is probed: a death during that ends the grading, as it should
    for _ in range(100):
        victim = rng.choice(sorted(descendants(pid)))
        try:
            name = Path(f"/proc/{victim}/comm").read_text().strip()
            os.kill(victim, signal.SIGKILL)
            return name
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    raise AssertionError("no helper lived long enough to be killed")


def said(process):
    """What a process that has to end now wrote to its standard error."""
    process.kill()
    return process.communicate()[1]


def orphans(before, seconds):
    """Commands of the processes below this one that are still there after so long and were not there `before`."""
    deadline = time.monotonic() + seconds
    while (left := descendants(os.getpid()) - before) and time.monotonic() < deadline:
        for pid in left:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue  # of a parent that is alive
        time.sleep(0.05)
    return [command_of(pid) for pid in left]


def start(env):
    return subprocess.Popen([sys.executable, "-c", GRADE], env=env, cwd=ROOT, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True)  # fmt: skip


def lines_of(path):
    return [line for _, line in grade.FORM.lines(path)] if path.exists() else []


@pytest.mark.slow
def test_thirty_kills_of_grading_leave_each_sample_graded_once_and_nothing_behind(tmp_path, monkeypatch, adopts):
    monkeypatch.setenv("TINYR1_PARAMS", str(tmp_path))
    texts, rng, temporary = big_quiz(tmp_path), random.Random(23), tmp_path / "tmp"
    temporary.mkdir()
    envs = {name: os.environ | {"TINYR1_HOME": str(tmp_path / name), "TMPDIR": str(temporary)}
            for name in ("calm", "killed")}  # fmt: skip
    for name in envs:
        (tmp_path / name / "quiz").mkdir(parents=True)
        (tmp_path / name / "quiz" / "texts.json").write_text(json.dumps(list(texts.items())))
    calm = start(envs["calm"])
    assert calm.wait(timeout=300) == 0, said(calm)
    path, before = tmp_path / "killed" / "quiz" / "grades.jsonl", descendants(os.getpid())
    in_work, helpers = 0, Counter()
    for i in range(KILLS):
        process, had = start(envs["killed"]), len(lines_of(path))
        size = path.stat().st_size if path.exists() else 0
        deadline, moment = time.monotonic() + 60, rng.uniform(0, 0.7)
        if i % 5:  # four of five while it grades, the others while it starts, up to the probing of the sandbox
            while not (path.exists() and path.stat().st_size > size):
                assert time.monotonic() < deadline, said(process)
                time.sleep(0.01)
            if i % 3 == 0:  # first one of its helpers: fork-server, running program or comparison
                helpers[kill_helper(process.pid, rng)] += 1
            time.sleep(moment)
        else:
            time.sleep(4 * moment)
        assert process.poll() is None, process.stderr.read()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()
        assert not orphans(before, 60), f"left running after kill {i}"
        found = len(lines_of(path))
        assert found >= had
        in_work += found > had
    assert in_work >= 20, "the kills have to meet it at work"
    last = start(envs["killed"])
    assert last.wait(timeout=300) == 0, last.stderr.read()
    names = Counter((line["benchmark"], line["question"], line["sample"]) for line in lines_of(path))
    assert names == Counter(dict.fromkeys(texts, 1)), "each sample is graded once"
    results = [(tmp_path / name / "quiz" / "graded.json").read_bytes() for name in ("calm", "killed")]
    assert results[0] == results[1]
    assert {line["outcome"] for line in json.loads(results[0])} == {"correct", "wrong", "no_answer", "timeout"}
    assert not orphans(before, 60)
    assert not list(temporary.iterdir()), "folders of killed sandboxes"
