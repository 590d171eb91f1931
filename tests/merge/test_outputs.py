"""Where a merge may be written: each place works, or a sentence says why not before anything is computed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import Shape, experts
from test_merge_checks import Usage

from tinyr1.core import artifact
from tinyr1.core.errors import UserError
from tinyr1.merge import __main__ as merge
from tinyr1.merge import checks, outputs


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> dict[str, Path]:
    return experts(tmp_path_factory.mktemp("in"), Shape(layers=1))


@pytest.fixture
def command(three, monkeypatch, capsys):
    """Runs a merge into a folder; returns (exit status, its output, its errors)."""

    def run(out: object, *more: str) -> tuple[int, str, str]:
        words = [word for name, folder in three.items() for word in (f"--{name}", str(folder))]
        monkeypatch.setattr(sys, "argv", ["merge", *words, "--out", str(out), *more])
        capsys.readouterr()
        return merge.main(), *capsys.readouterr()

    return run


@pytest.fixture
def refused(command, monkeypatch):
    """Runs a merge that must end before a weight is hashed, also as a dry run; returns its sentence."""
    monkeypatch.setattr(artifact, "file_hash", lambda path: pytest.fail("hashed"))

    def run(out: object, *more: str) -> str:
        code, _, error = command(out, *more)
        assert code == 2
        assert command(out, "--dry-run", *more)[2] == error
        assert error.count("\n") == 1
        return error.removeprefix("error: ").rstrip("\n")

    return run


class TestPlacesThatWork:
    @pytest.mark.parametrize("name", ["model-v1.5", "with space", ".hidden", "deep/er/out"])
    def test_any_name(self, command, tmp_path, name):
        assert command(tmp_path / name)[0] == 0
        assert (tmp_path / name / "model.safetensors").is_file()
        assert sorted(p.name for p in (tmp_path / name).parent.iterdir()) == [Path(name).name]

    def test_a_link_to_an_empty_folder(self, command, tmp_path):
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        assert command(tmp_path / "link")[0] == 0
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real" / "model.safetensors").is_file()
        assert command(tmp_path / "link")[1].startswith("already there: ")

    def test_a_link_to_a_folder_that_is_not_there_yet(self, command, tmp_path):
        (tmp_path / "link").symlink_to(tmp_path / "later")
        assert command(tmp_path / "link")[0] == 0
        assert (tmp_path / "later" / "model.safetensors").is_file()

    def test_a_relative_folder(self, command, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert command("out")[0] == 0
        assert (tmp_path / "out" / "model.safetensors").is_file()


class TestPlacesThatDoNot:
    @pytest.mark.parametrize("out", [".", "./", "..", "{here}"])
    def test_the_folder_of_the_command(self, refused, tmp_path, monkeypatch, out):
        (tmp_path / "empty").mkdir()
        monkeypatch.chdir(tmp_path / "empty")
        said = refused(out.format(here=tmp_path / "empty"))
        assert "that cannot be the folder in which the command is started" in said
        assert "name a folder inside it, such as " in said
        assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]

    def test_a_mount_point(self, refused, tmp_path, monkeypatch):
        (tmp_path / "disk").mkdir()
        monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "disk")
        assert refused(tmp_path / "disk") == (
            f"--out: {tmp_path / 'disk'} is a mount point, and a result takes the place of its folder; name a folder "
            f"inside it, such as {tmp_path / 'disk' / 'merged'}"
        )

    def test_a_name_of_a_table(self, refused, tmp_path):
        assert "a name that ends in .jsonl is that of a table; choose another --out" in refused(tmp_path / "x.jsonl")

    def test_an_input_and_a_folder_around_one(self, refused, three):
        for out in (three["math"], three["math"].parent):
            said = refused(out, "--replace")
            assert said.startswith(f"--out: {out} is or holds {three['math'].parent}/")
            assert said.endswith(", a model that is merged; choose another --out")

    def test_a_file_and_a_place_under_one(self, refused, tmp_path):
        file = tmp_path / "file"
        file.write_text("x")
        assert refused(file).startswith(f"{file}: exists and is not a merged checkpoint")
        for out in (file / "x", file / "x" / "y"):
            assert refused(out) == f"--out: {out} cannot be made, because {file} is not a folder; choose another --out"

    def test_a_place_where_nothing_can_be_written(self, refused, tmp_path):
        out = Path("/proc/self/merged")
        assert refused(out).startswith(f"--out: {out} cannot be made in /proc/self (")

    def test_a_name_that_is_too_long(self, refused, tmp_path):
        assert "File name too long" in refused(tmp_path / ("x" * 250))


def test_the_disk_that_is_written_is_asked_for_room(tmp_path, monkeypatch):
    """A result is made beside its place, which may be a link to another disk."""
    asked = []
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: asked.append(path) or Usage(0, 0, 10**12))
    (tmp_path / "disk" / "out").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "out")
    outputs.check_room(outputs.place(tmp_path / "link", []), 1)
    outputs.check_room(tmp_path / "disk" / "out", 1)
    outputs.check_room(tmp_path / "new" / "deep" / "out", 1)
    assert asked == [tmp_path / "disk", tmp_path / "disk", tmp_path]


def test_what_a_killed_merge_left_in_folders_counts_as_free(tmp_path, monkeypatch):
    rest = artifact.partial_path(tmp_path / "out") / "additional_chat_templates" / "x.jinja"
    rest.parent.mkdir(parents=True)
    rest.write_bytes(bytes(10**6))
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: Usage(0, 0, checks.RESERVE))
    outputs.check_room(tmp_path / "out", 900_000)
    with pytest.raises(UserError, match="the result takes 0.00 GB"):
        outputs.check_room(tmp_path / "out", 2_000_000)


NO_CACHE = """
from numba.core import caching
caching.CacheImpl._locator_classes = []  # no folder can be written: neither the installation's nor that of a home
from tinyr1.merge import float_bits
assert float_bits.STRICT["cache"] is False
import numpy as np
print(float_bits.all_finite(np.array([0, 1, 0x7F80], dtype=np.uint16)))
"""


def test_an_installation_without_a_writable_folder_compiles_each_time():
    done = subprocess.run([sys.executable, "-c", NO_CACHE], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr[-2000:]
