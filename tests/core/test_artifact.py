"""Artifacts: complete or absent, identified by what was made, and damage that is named with a remedy."""

import os
import re
import subprocess
import sys

import pytest

from tinyr1.core import artifact, jsonl
from tinyr1.core.config import ROOT
from tinyr1.core.errors import UserError

REMEDY = "run `make something`"


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


def test_two_processes_do_not_make_one_artifact(tmp_path):
    def build(folder):
        with pytest.raises(UserError, match="another process is making it"):
            artifact.make(tmp_path / "thing", {"a": 1}, build, "wait")
        (folder / "file").write_text("x")
        return {}

    artifact.make(tmp_path / "thing", {"a": 1}, build, "wait")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thing"], "no lock is left"


# --- identity -------------------------------------------------------------------------------------------------


def trained(tmp_path, name, seconds, weights="weights"):
    """An artifact whose log says in how many seconds it was made."""

    def build(folder):
        (folder / "model.bin").write_text(weights)
        (folder / "log.jsonl").write_text(f'{{"seconds": {seconds}}}\n')
        return {artifact.ASIDE: ["log.jsonl"], "steps": 3}

    return artifact.make(tmp_path / name, {"seed": 1}, build, REMEDY)[0]


def test_files_set_aside_do_not_decide_what_an_artifact_is(tmp_path):
    fast, slow = trained(tmp_path, "fast", 1.5), trained(tmp_path, "slow", 20.25)
    assert fast["files"]["log.jsonl"]["sha256"] != slow["files"]["log.jsonl"]["sha256"]
    assert fast["content"] == slow["content"]
    assert trained(tmp_path, "other", 1.5, weights="others")["content"] != fast["content"]


def test_a_file_set_aside_is_listed_and_a_change_of_it_is_found(tmp_path):
    made = trained(tmp_path, "thing", 1.5)
    assert set(made["files"]) == {"log.jsonl", "model.bin"}
    assert made["facts"] == {"steps": 3}, "what is set aside is no fact of the artifact"
    log = tmp_path / "thing" / "log.jsonl"
    log.write_text('{"seconds": 9.9}\n')
    os.utime(log, ns=(1, 1))
    with pytest.raises(UserError, match=r"log\.jsonl: its content changed after it was made"):
        artifact.check(tmp_path / "thing", REMEDY)
    log.unlink()
    with pytest.raises(UserError, match=r"log\.jsonl: deleted after it was made"):
        artifact.check(tmp_path / "thing", REMEDY)


def test_the_name_of_a_file_is_a_part_of_the_identity(tmp_path):
    one, two = (artifact.make(tmp_path / n, {}, Builder({n: "same"}), REMEDY)[0] for n in ("one", "two"))
    assert one["content"] != two["content"]


def test_hashes_that_the_builder_knows_are_not_made_again(folder, tmp_path, monkeypatch):
    known = {name: entry["sha256"] for name, entry in artifact.check(folder, REMEDY)["files"].items()}
    monkeypatch.setattr(artifact, "file_hash", lambda path: pytest.fail(f"{path} hashed"))
    builder = Builder({"a.bin": "aaaa", "b.bin": "bbbb"})
    made, _ = artifact.make(tmp_path / "other", {}, lambda f: builder(f) | {artifact.HASHED: known}, REMEDY)
    assert {name: entry["sha256"] for name, entry in made["files"].items()} == known
    assert made["facts"] == {"files": 2}


# --- one process at a time ------------------------------------------------------------------------------------

HOLD = """
import os, signal, sys, time
from pathlib import Path
from tinyr1.core import artifact
def build(folder):
    print("building", flush=True)
    time.sleep(60)
artifact.make(Path(sys.argv[1]), {"seed": 1}, build, "wait")
"""


def test_a_lock_goes_with_a_killed_process_and_the_next_one_removes_its_file(tmp_path, builder):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "thing")], cwd=ROOT, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"building\n"
    with pytest.raises(UserError, match="another process is making it"):
        remake(tmp_path / "thing", builder)
    holder.kill()
    holder.communicate()
    assert remake(tmp_path / "thing", builder)[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thing"]


RACE = """
import os, sys, time
from pathlib import Path
from tinyr1.core import artifact
from tinyr1.core.errors import UserError
folder, ended = Path(sys.argv[1]), 0
def build(made):
    handle = os.open(folder / "inside", os.O_CREAT | os.O_EXCL)  # fails while another builder is inside
    (made / "file").write_text("x")
    os.close(handle)
    os.unlink(folder / "inside")
    return {}
deadline, seed = time.monotonic() + 3, 0
while time.monotonic() < deadline:
    seed += 1
    try:
        artifact.make(folder / "thing", {"seed": [os.getpid(), seed]}, build, "wait")
        ended += 1
    except (UserError, FileNotFoundError):  # the lock is taken, or a finished artifact is replaced while it is checked
        pass
print(ended)
"""


def test_builders_that_compete_are_never_inside_together(tmp_path):
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    racers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
              for _ in range(4)]  # fmt: skip
    made = 0
    for racer in racers:
        out, errors = racer.communicate(timeout=60)
        assert racer.returncode == 0, errors
        made += int(out)
    assert made > 0
    assert not list(tmp_path.glob(".*lock"))
