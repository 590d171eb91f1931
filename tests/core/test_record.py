import json
import os
import re
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from tinyr1.core import artifact, config, jsonl, machine, record, show
from tinyr1.core.errors import UserError

REMEDY = "run `make something`"
STAGE = "01_data_curation"


class Builder:
    """Writes given files, counts how often it ran, and can be killed half-way."""

    def __init__(self, files):
        self.files, self.calls, self.found, self.dies = files, 0, [], False

    def __call__(self, folder):
        self.calls += 1
        self.found = sorted(p.name for p in folder.iterdir())
        for name, text in self.files.items():
            (folder / name).write_text(text)
            if self.dies:
                raise KeyboardInterrupt
        return {"files": len(self.files)}


@pytest.fixture
def builder():
    return Builder({"a.bin": "aaaa", "b.bin": "bbbb"})


@pytest.fixture
def folder(tmp_path, builder):
    """A finished artifact."""
    artifact.make(tmp_path / "thing", {"seed": 1}, builder, REMEDY)
    return tmp_path / "thing"


@pytest.fixture
def stage(home):
    """A run whose first stage made one table and wrote its record."""
    cfg = config.load("smol")
    path = cfg.rows("math")

    def build(file):
        jsonl.write(file, [{"id": "math-1"}])
        return {}

    artifact.make(path, {"seed": 1}, build, REMEDY)
    record.write(cfg, STAGE, {"math": path}, {"rows": 1}, {"curate": 0.12})
    return cfg


def remake(path, builder, seed=1):
    return artifact.make(path, {"seed": seed}, builder, REMEDY)


def test_an_artifact_is_made_once_and_then_kept(tmp_path, builder):
    first, built = remake(tmp_path / "thing", builder)
    again, rebuilt = remake(tmp_path / "thing", builder)
    assert (built, rebuilt, builder.calls) == (True, False, 1)
    assert first == again
    assert first["facts"] == {"files": 2}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thing"]
    assert sorted(p.name for p in (tmp_path / "thing").iterdir()) == ["a.bin", "artifact.json", "b.bin"]


def test_the_order_of_the_inputs_does_not_matter():
    assert artifact.digest({"a": 1, "b": 2}) == artifact.digest({"b": 2, "a": 1})
    assert artifact.digest({"a": 1, "b": 2}) != artifact.digest({"a": 2, "b": 1})


def test_an_artifact_is_made_again_from_other_inputs(folder):
    other = Builder({"c.bin": "cc"})
    manifest, built = remake(folder, other, seed=2)
    assert built
    assert other.found == []
    assert set(manifest["files"]) == {"c.bin"}
    assert sorted(p.name for p in folder.iterdir()) == ["artifact.json", "c.bin"]


def test_equal_files_have_an_equal_content_hash_whatever_their_inputs(folder, builder):
    before = artifact.check(folder, REMEDY)
    after, _ = remake(folder, builder, seed=2)
    assert before["key"] != after["key"]
    assert before["content"] == after["content"]


def test_an_interrupted_build_leaves_nothing_under_the_final_name(tmp_path, builder):
    builder.dies = True
    with pytest.raises(KeyboardInterrupt):
        remake(tmp_path / "thing", builder)
    assert not (tmp_path / "thing").exists()
    with pytest.raises(UserError, match="never finished"):
        artifact.check(tmp_path / "thing", REMEDY)


def test_the_next_attempt_from_the_same_inputs_finds_the_work_of_the_interrupted_one(tmp_path, builder):
    builder.dies = True
    with pytest.raises(KeyboardInterrupt):
        remake(tmp_path / "thing", builder)
    builder.dies = False
    _, built = remake(tmp_path / "thing", builder)
    assert built
    assert builder.found == ["a.bin"]


def test_an_attempt_from_other_inputs_throws_the_work_of_the_interrupted_one_away(tmp_path, builder):
    builder.dies = True
    with pytest.raises(KeyboardInterrupt):
        remake(tmp_path / "thing", builder)
    builder.dies = False
    remake(tmp_path / "thing", builder, seed=2)
    assert builder.found == []


def test_an_interrupted_rebuild_leaves_the_old_artifact_usable(folder):
    other = Builder({"c.bin": "cc"})
    other.dies = True
    with pytest.raises(KeyboardInterrupt):
        remake(folder, other, seed=2)
    assert set(artifact.check(folder, REMEDY)["files"]) == {"a.bin", "b.bin"}


def test_a_process_killed_while_it_builds_leaves_nothing_under_the_final_name(tmp_path, builder):
    def killed(folder):
        builder(folder)
        os.kill(os.getpid(), 9)

    pid = os.fork()
    if pid == 0:
        artifact.make(tmp_path / "thing", {"seed": 1}, killed, REMEDY)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == 9
    assert not (tmp_path / "thing").exists()
    _, built = remake(tmp_path / "thing", builder)
    assert built
    assert builder.found == ["a.bin", "b.bin"]


def test_a_table_without_its_manifest_is_not_finished(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"half": 1}\n')

    def build(file):
        jsonl.write(file, [{"n": 1}, {"n": 2}])
        return {}

    _, built = artifact.make(path, {}, build, REMEDY)
    assert built
    assert jsonl.read(path) == [{"n": 1}, {"n": 2}]
    assert artifact.make(path, {}, build, REMEDY)[1] is False


def spoil_shorter(path):
    path.write_text("aa")


def spoil_same_size(path):
    path.write_text("aXaa")
    os.utime(path, ns=(1, 1))  # in case the clock is too coarse to tell the writes apart


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (spoil_shorter, "2 bytes, but 4 when it was made"),
        (spoil_same_size, "its content changed after it was made"),
        (os.unlink, "deleted after it was made"),
    ],
)
def test_a_damaged_file_is_named_with_the_rule_and_the_command(folder, builder, spoil, complaint):
    spoil(folder / "a.bin")
    with pytest.raises(UserError) as error:
        artifact.check(folder, REMEDY)
    for part in (str(folder / "a.bin"), complaint, REMEDY):
        assert part in str(error.value)
    with pytest.raises(UserError, match="rm -r"):
        remake(folder, builder)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{\n "key": "01', "damaged, it is not valid JSON"),
        (b"", "damaged, it is not valid JSON"),
        (b'{"key": "\xc3', "damaged, it is not valid JSON"),
        (b"[]", "damaged, it is no JSON object"),
        (b'{"key": "k", "content": "c", "facts": {}}', "damaged, it has no files"),
    ],
)
def test_a_damaged_manifest_is_an_error_that_says_what_to_do(folder, builder, content, complaint):
    (folder / "artifact.json").write_bytes(content)
    with pytest.raises(UserError) as error:
        artifact.manifest(folder)
    assert str(error.value).startswith(f"{folder}/artifact.json: {complaint}")
    assert str(error.value).endswith(f"; remove it (rm -r {folder}) and make it again")
    with pytest.raises(UserError, match=f"{complaint}.*; {REMEDY}$"):
        artifact.check(folder, REMEDY)
    with pytest.raises(UserError, match=rf"{complaint}.*remove it \(rm -r .*/thing\) and {REMEDY}"):
        remake(folder, builder)
    assert builder.calls == 1, "what may be hours of work is not thrown away"


def test_a_manifest_is_read_without_a_look_at_the_files(folder):
    (folder / "a.bin").unlink()
    assert set(artifact.manifest(folder)["files"]) == {"a.bin", "b.bin"}
    (folder / "artifact.json").unlink()
    with pytest.raises(UserError, match=r"thing: not there, or never finished \(no artifact\.json\); remove it"):
        artifact.manifest(folder)


def test_the_remedy_for_a_damaged_table_removes_its_manifest_too(tmp_path):
    path = tmp_path / "rows.jsonl"

    def build(file):
        jsonl.write(file, [{"n": 1}])
        return {}

    artifact.make(path, {}, build, REMEDY)
    path.unlink()
    with pytest.raises(UserError, match="deleted after it was made; remove it") as error:
        artifact.make(path, {}, build, REMEDY)
    subprocess.run(re.search(r"\((rm .*?)\)", str(error.value))[1].split(), check=True)
    assert artifact.make(path, {}, build, REMEDY)[1]


def test_a_file_that_was_only_touched_is_accepted(folder):
    os.utime(folder / "a.bin", ns=(1, 1))
    assert artifact.check(folder, REMEDY)["files"]


def test_a_torn_last_line_is_left_out_and_the_file_as_it_is(tmp_path):
    path, written = tmp_path / "log.jsonl", b'{"n": 1}\n{"n": 2}\n{"n": "\xc3'
    path.write_bytes(written)
    assert jsonl.read(path) == [{"n": 1}, {"n": 2}]
    assert path.read_bytes() == written


@pytest.mark.parametrize("line", ['{"n": 1', "[1]", "NaN,"])
def test_a_damaged_line_is_named_and_never_left_out(tmp_path, line):
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"n": 0}}\n{line}\n{{"n": 2}}\n')
    with pytest.raises(UserError, match=r"log\.jsonl:2: .*; the file is damaged"):
        jsonl.read(path)


def test_a_file_with_nothing_but_a_torn_line_has_no_rows(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"n"')
    assert jsonl.read(path) == []


def test_lines_come_back_as_they_were_written(tmp_path):
    rows = [{"text": "line\nbreak \u2028 \x85 é"}, {"n": [1, None]}]
    jsonl.write(tmp_path / "rows.jsonl", rows)
    assert jsonl.read(tmp_path / "rows.jsonl") == rows
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_file_that_is_not_there_has_no_rows(tmp_path):
    assert jsonl.read(tmp_path / "none.jsonl") == []


def test_a_stage_record_holds_what_was_made_and_from_what(stage):
    entry = record.require(stage, STAGE)
    assert entry == json.loads((stage.reports / f"{STAGE}.json").read_text())
    assert entry["artifacts"]["math"]["path"] == "rows/math.jsonl"
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


def change_params(home, section, name, value):
    path = home / "params" / "smol.yaml"
    data = yaml.safe_load(path.read_text())
    data[section][name] = value
    path.write_text(yaml.safe_dump(data))
    return config.load("smol")


def test_a_record_made_from_other_parameters_is_refused(stage, home):
    cfg = change_params(home, "curate", "generations_per_question", 7)
    with pytest.raises(
        UserError, match="other parameters or inputs; run `make 01_data_curation RUN=smol`"
    ):
        record.require(cfg, STAGE)


def test_parameters_of_a_later_stage_leave_a_record_valid(stage, home):
    cfg = change_params(home, "merge", "iqr_multiplier", 7.0)
    assert record.require(cfg, STAGE)["facts"] == {"rows": 1}


def test_a_record_is_refused_when_the_stage_before_it_made_something_else(stage):
    record.write(stage, "02_branch_sft", {}, {}, {})
    assert record.require(stage, "02_branch_sft")
    path = stage.rows("math")
    artifact.make(path, {"seed": 2}, lambda f: jsonl.write(f, [{"id": "other"}]) or {}, REMEDY)
    with pytest.raises(UserError, match=r"math\.jsonl: not what 01_data_curation\.json lists"):
        record.require(stage, STAGE)
    record.write(stage, STAGE, {"math": path}, {}, {})
    with pytest.raises(UserError, match="other parameters or inputs"):
        record.require(stage, "02_branch_sft")


def test_a_deleted_artifact_is_found_before_the_next_stage_starts(stage):
    stage.rows("math").unlink()
    with pytest.raises(
        UserError, match=r"math\.jsonl: deleted after it was made; run `make 01_data_curation"
    ):
        record.require(stage, STAGE)


def test_two_processes_do_not_make_one_artifact(tmp_path):
    def build(folder):
        with pytest.raises(UserError, match="another process is making it"):
            artifact.make(tmp_path / "thing", {"a": 1}, build, "wait")
        (folder / "file").write_text("x")
        return {}

    artifact.make(tmp_path / "thing", {"a": 1}, build, "wait")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thing"], "no lock is left"


@pytest.fixture
def torch_says(tmp_path, monkeypatch):
    """Sets what nvidia-smi lists and what a child process finds as PyTorch; each question is noted in a file."""

    def set_up(gpus, torch):
        asked = tmp_path / "asked"
        (tmp_path / "torch.py").write_text(f"open({str(asked)!r}, 'a').write('x')\n{torch}\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
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
    torch_says(["NVIDIA H100, 81559 MiB"], "class cuda: is_available = lambda: True")
    code = "import sys; from tinyr1.core import machine; machine.describe = lambda: {'gpus': ['one']}; "
    code += "print(machine.has_gpu(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=config.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_a_table_of_texts_is_shown_to_the_end_of_each():
    text = "first line\n" + "word " * 100 + "end"
    page = show.whole(pd.DataFrame({"prompt": [text, None]})).to_html()
    assert text in page
    assert "pre-wrap" in page
