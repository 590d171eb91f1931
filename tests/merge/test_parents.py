"""Hashes of the weights that a merge starts from: made beside other work, known from a manifest, wrong ones said."""

import hashlib
import mmap
import subprocess
import sys
import threading

import pytest
from blake3 import blake3
from checkpoints import Shape, experts

from tinyr1.core import artifact
from tinyr1.core.errors import UserError
from tinyr1.core.recipe import parse
from tinyr1.merge import checkpoint, parents
from tinyr1.merge.engine import MergeOptions
from tinyr1.merge.parents import ParentHashes

FUSION = {"method": "fusion", "base": "code", "other": "math"}


@pytest.fixture
def folders(tmp_path):
    return experts(tmp_path / "in", Shape(layers=1, shards=2))


def test_every_weight_file_by_model_in_the_order_given(folders):
    found = ParentHashes(folders).hashes()
    assert list(found) == ["math", "science", "code"]
    for name, folder in folders.items():
        digests = {f.name: blake3(f.read_bytes()).hexdigest() for f in folder.glob("*.safetensors")}
        assert found[name] == {called: f"blake3:{digits}" for called, digits in digests.items()}
        assert len(found[name]) == 2


def test_the_config_and_the_tokenizer_of_a_parent_are_part_of_what_a_result_is_made_from(folders):
    before = ParentHashes(folders)
    assert before.made_from()["math"].keys() > before.hashes()["math"].keys()
    (folders["math"] / "chat_template.jinja").write_text("corrected", encoding="utf-8")
    after = ParentHashes(folders)
    assert after.hashes() == before.hashes()
    assert after.made_from()["math"] != before.made_from()["math"]
    assert after.identities()["math"] != before.identities()["math"]
    assert after.made_from()["code"] == before.made_from()["code"]


def test_nobody_waits_for_a_hash_before_asking(folders, monkeypatch):
    go = threading.Event()

    def slow(path):
        assert go.wait(60)
        return path.name

    monkeypatch.setattr(parents, "b3_hash", slow)
    found = ParentHashes(folders)  # returns though no hash can be made yet
    go.set()
    assert set(found.hashes()["math"].values()) == {f"blake3:{f.name}" for f in folders["math"].glob("*.safetensors")}


def test_a_checkpoint_of_this_kit_is_not_hashed_again(folders, tmp_path, monkeypatch):
    steps = parse(FUSION, "test")

    def build(out):
        return checkpoint.merge_checkpoints(steps, folders, out, MergeOptions(), "test")

    artifact.make(tmp_path / "made", {}, build, "")
    monkeypatch.setattr(parents, "b3_hash", lambda path: pytest.fail(f"{path} hashed"))
    manifest = artifact.check(tmp_path / "made", "")
    known = ParentHashes({"made": tmp_path / "made"}).hashes()["made"]
    assert known == {"model.safetensors": f"sha256:{manifest['files']['model.safetensors']['sha256']}"}


def test_weights_that_came_after_a_checkpoint_of_this_kit_was_finished_are_named(folders, tmp_path):
    """Only what would be the model counts: a whole file comes before the shards."""
    steps = parse(FUSION, "test")

    def build(out):
        return checkpoint.merge_checkpoints(steps, folders, out, MergeOptions(shard_bytes=20_000), "test")

    artifact.make(tmp_path / "made", {}, build, "")
    (tmp_path / "made" / "new.safetensors").write_bytes(b"")
    assert "new.safetensors" not in ParentHashes({"made": tmp_path / "made"}).hashes()["made"]
    (tmp_path / "made" / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"model\.safetensors came after the folder was finished"):
        ParentHashes({"made": tmp_path / "made"})


def test_what_goes_wrong_in_a_thread_is_raised_where_the_hashes_are_asked_for(folders, monkeypatch):
    def broken(path):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(parents, "b3_hash", broken)
    found = ParentHashes(folders)
    with pytest.raises(OSError, match="Input/output error"):
        found.hashes()


def test_a_folder_without_weights_is_said_at_once(folders, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        ParentHashes(folders | {"code": tmp_path / "nowhere"})


def test_a_file_cut_while_it_is_hashed_is_named(folders, monkeypatch):
    file = next(folders["math"].glob("*.safetensors"))
    real = hashlib.file_digest

    def cut(handle, name):
        with file.open("r+b") as writer:
            writer.truncate(5000)
        return real(handle, name)

    monkeypatch.setattr(artifact.hashlib, "file_digest", cut)
    with pytest.raises(OSError, match=f"{file.name}: cut short while it was hashed"):
        artifact.file_hash(file)


def test_weights_cut_while_they_are_hashed_are_named(folders, monkeypatch):
    file = next(folders["math"].glob("*.safetensors"))

    class Cut:
        def update(self, window):
            with file.open("r+b") as writer:
                writer.truncate(mmap.PAGESIZE)

    monkeypatch.setattr(parents, "WINDOW", mmap.ALLOCATIONGRANULARITY)
    monkeypatch.setattr(parents, "blake3", Cut)
    with pytest.raises(OSError, match=f"{file.name}: cut short while it was hashed"):
        parents.b3_hash(file)


@pytest.mark.parametrize("size", [0, 1, 4096, 2**18 - 1, 2**18, 2**18 + 1])
def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path, monkeypatch, size):
    data = bytes(i % 251 for i in range(size))
    (tmp_path / "file").write_bytes(data)
    monkeypatch.setattr(parents, "WINDOW", 2**18)
    assert artifact.file_hash(tmp_path / "file") == hashlib.sha256(data).hexdigest()
    assert parents.b3_hash(tmp_path / "file") == blake3(data).hexdigest()


def test_the_command_says_mistakes_before_torch_is_imported():
    """What needs a checkpoint only is imported late: the time in which the weights are hashed."""
    code = "import sys; from tinyr1.merge import __main__ as merge; sys.argv = ['merge', '--math', 'nowhere']; "
    code += "code = merge.main(); sys.exit(9 if 'torch' in sys.modules else code)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (2, "error: --science, --code: missing; give all three experts, "
                                                     "or --recipe\n")  # fmt: skip
