"""Safetensors checkpoints: headers, rows, layout of what is written, and five hundred damaged ones."""

import errno
import fcntl
import json
import os
import re
import struct
import sys
from collections import Counter

import pytest
import torch
from checkpoints import Shape, bytes_of, experts, put_json, store, weights, write
from damage import damages
from safetensors import safe_open
from safetensors.torch import load_file

from tinyr1.core.artifact import file_hash
from tinyr1.core.checkpoints import INDEX
from tinyr1.core.errors import UserError
from tinyr1.merge import __main__ as merge
from tinyr1.merge import writer as checkpoint_writer
from tinyr1.merge.method import as_rows
from tinyr1.merge.reader import Checkpoint
from tinyr1.merge.writer import ShardWriter

DAMAGES = 500
EVERY = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
)  # fmt: skip


@pytest.fixture
def mixed():
    """Tensors of every dtype, 0-d to 4-d, empty ones among them."""
    torch.manual_seed(2)
    shapes = [(), (5,), (3, 4), (2, 3, 4), (2, 1, 3, 2), (0,), (3, 0), (0, 4)]
    return {f"{str(d)[6:]}.{i}": (torch.randn(s) * 9).to(d) for d in EVERY for i, s in enumerate(shapes)}


def whole(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    shape = checkpoint.tensors[name].shape
    return checkpoint.rows(name, 0, as_rows(shape)[0]).reshape(shape)


def written(folder, tensors: dict[str, torch.Tensor], limit: int) -> None:
    """The tensors through `ShardWriter`, the last first and two bytes at a time where that is possible."""
    writer = ShardWriter(folder, {n: (tuple(t.shape), t.dtype) for n, t in tensors.items()}, limit)
    for name, tensor in reversed(list(tensors.items())):
        flat = tensor.reshape(-1)
        for i in reversed(range(0, len(flat), 2)):
            writer.write(name, i * tensor.dtype.itemsize, flat[i : i + 2])
    assert writer.close() == {f.name: file_hash(f) for f in folder.glob("*.safetensors")}


class TestReading:
    @pytest.mark.parametrize("shards", [1, 3])
    def test_headers_say_where_everything_is(self, tmp_path, mixed, shards):
        put_json(tmp_path / "config.json", {})
        store(tmp_path, mixed, shards)
        checkpoint = Checkpoint(tmp_path)
        assert {n: (s.shape, s.dtype) for n, s in checkpoint.tensors.items()} == {
            n: (tuple(t.shape), t.dtype) for n, t in mixed.items()
        }
        assert checkpoint.bytes == sum(t.nbytes for t in mixed.values())
        checkpoint.open()
        for name, tensor in mixed.items():
            assert torch.equal(whole(checkpoint, name), tensor), name
        checkpoint.close()

    def test_rows_are_those_of_the_last_dimension(self, tmp_path):
        tensor = torch.randn(4, 5, 6)
        put_json(tmp_path / "config.json", {})
        store(tmp_path, {"a": torch.zeros(3), "b": tensor})
        checkpoint = Checkpoint(tmp_path).open()
        assert torch.equal(checkpoint.rows("b", 7, 13), tensor.reshape(20, 6)[7:13])
        checkpoint.close()

    def test_closing_what_was_never_opened_changes_nothing(self, tmp_path):
        """As after an input that could not be opened, whose error must be the one that is seen."""
        Checkpoint(write(tmp_path / "a", Shape(), weights(Shape(), torch.Generator()))).close()

    @pytest.mark.parametrize("width", [100, 5000])
    def test_windows_change_nothing(self, tmp_path, monkeypatch, width):
        """Rows within a mapping, across two, and longer than one."""
        monkeypatch.setattr("tinyr1.merge.reader.WINDOW", 4096)
        tensor = torch.randn(200, width)
        put_json(tmp_path / "config.json", {})
        store(tmp_path, {"a": torch.zeros(3), "b": tensor})
        checkpoint = Checkpoint(tmp_path).open()
        for first in range(0, 200, 7):
            assert torch.equal(checkpoint.rows("b", first, min(first + 7, 200)), tensor[first : first + 7])
        checkpoint.close()

    def test_a_file_cut_while_it_is_read_is_named(self, tmp_path):
        folder = write(tmp_path / "a", Shape(), weights(Shape(), torch.Generator()))
        checkpoint = Checkpoint(folder).open()
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
        with pytest.raises(UserError, match=r"model.safetensors: became shorter while model.norm.weight was read"):
            checkpoint.rows("model.norm.weight", 0, 1)
        checkpoint.close()

    def test_what_is_not_a_checkpoint_is_named(self, tmp_path):
        for expected in ("no such folder", "no config.json", "no weights"):
            with pytest.raises(UserError, match=expected) as caught:
                Checkpoint(tmp_path / "a")
            assert str(tmp_path / "a") in str(caught.value)
            if expected == "no such folder":
                (tmp_path / "a").mkdir()
            else:
                put_json(tmp_path / "a" / "config.json", {})

    def test_a_tensor_in_two_files_is_refused(self, tmp_path):
        put_json(tmp_path / "config.json", {})
        for i in (1, 2):
            store(tmp_path, {"x": torch.zeros(2)})
            (tmp_path / "model.safetensors").rename(tmp_path / f"model-0000{i}-of-00002.safetensors")
        with pytest.raises(UserError, match=r"2-of-00002\.safetensors: x is also in model-00001-of-00002\.safetensors"):
            Checkpoint(tmp_path)

    def test_an_index_that_leaves_a_tensor_out_is_refused(self, tmp_path):
        put_json(tmp_path / "config.json", {})
        store(tmp_path, {"x": torch.zeros(2), "y": torch.zeros(2)}, 2)
        index = json.loads((tmp_path / INDEX).read_text())
        store(tmp_path, {"x": torch.zeros(2), "y": torch.zeros(2), "z": torch.zeros(2)}, 2)
        put_json(tmp_path / INDEX, index)
        with pytest.raises(UserError, match=r"model-00001-of-00002.safetensors: holds z, which the index"):
            Checkpoint(tmp_path)


class TestWriting:
    def test_safetensors_reads_what_was_written(self, tmp_path, mixed):
        written(tmp_path, mixed, 10**9)
        assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
        found = load_file(tmp_path / "model.safetensors")
        assert found.keys() == mixed.keys()
        assert all(torch.equal(found[n], t) and found[n].dtype == t.dtype for n, t in mixed.items())
        with safe_open(tmp_path / "model.safetensors", "pt") as file:
            assert file.metadata() == {"format": "pt"}

    @pytest.mark.parametrize("limit", [1, 100, 1000])
    def test_files_keep_to_the_limit_and_the_index_to_the_files(self, tmp_path, mixed, limit):
        written(tmp_path, mixed, limit)
        files = sorted(tmp_path.glob("*.safetensors"))
        index = json.loads((tmp_path / INDEX).read_text())
        assert index["metadata"]["total_size"] == sum(t.nbytes for t in mixed.values())
        found = {}
        for i, file in enumerate(files, 1):
            assert file.name == f"model-{i:05d}-of-{len(files):05d}.safetensors"
            part = load_file(file)
            assert sum(t.nbytes for t in part.values()) <= max(limit, max(t.nbytes for t in part.values()))
            assert {index["weight_map"][n] for n in part} == {file.name}
            found |= part
        assert all(torch.equal(found[n], t) for n, t in mixed.items())
        assert len(found) == len(mixed)

    def test_every_tensor_is_aligned_to_its_own_size(self, tmp_path, mixed):
        written(tmp_path, mixed, 10**9)
        data = (tmp_path / "model.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        put_json(tmp_path / "config.json", {})
        assert length % 8 == 0
        assert not [n for n, s in Checkpoint(tmp_path).tensors.items() if s.begin % s.dtype.itemsize]


def test_damaged_checkpoints_give_clear_errors_and_no_output(tmp_path, monkeypatch, capsys):
    shape = Shape(layers=1, hidden=8, intermediate=16, vocabulary=16, shards=2)
    folders = experts(tmp_path / "experts", shape)
    whole = {name: {p.name: p.read_bytes() for p in folder.iterdir()} for name, folder in folders.items()}
    out, seen, kinds = tmp_path / "made" / "merged", set(), Counter()
    (tmp_path / "made").mkdir()
    experts_given = [word for name, folder in folders.items() for word in (f"--{name}", str(folder))]
    monkeypatch.setattr(sys, "argv", ["merge", *experts_given, "--out", str(out)])
    ways = {name: damages(i, folder) for i, (name, folder) in enumerate(folders.items())}
    for turn in range(10 * DAMAGES):
        victim = list(folders)[turn % 3]
        kind, damage = next(ways[victim])
        damage()
        state = tuple(sorted((p.name, p.read_bytes()) for p in folders[victim].iterdir()))
        if (victim, state) not in seen:
            seen.add((victim, state))
            kinds[kind] += 1
            code, message = merge.main(), capsys.readouterr().err
            assert code == 2, f"{kind} in {victim} went unnoticed"
            assert message.startswith("error: "), message
            assert re.search(rf"\b{victim}\b", message), f"{kind} in {victim}: {message}"
            assert not list((tmp_path / "made").iterdir()), kind
        for name, data in whole[victim].items():
            (folders[victim] / name).write_bytes(data)
        if len(seen) == DAMAGES:
            break
    assert len(seen) == DAMAGES
    assert min(kinds.values()) >= 5, kinds
    assert merge.main() == 0, "the restored checkpoints merge"
    assert bytes_of(out)


class TestPieces:
    """Blocks through buffers of a few bytes, past the page cache and through it."""

    TENSORS = {"a": ((40, 300), torch.float32), "b": ((7, 1001), torch.bfloat16), "c": ((0, 4), torch.float32)}

    def written(self, folder) -> None:
        torch.manual_seed(3)
        tensors = {name: torch.randn(shape).to(dtype) for name, (shape, dtype) in self.TENSORS.items()}
        for limit, files in ((10**9, 1), (60_000, 2)):
            out = folder / str(limit)
            out.mkdir()
            written(out, tensors, limit)
            made = sorted(out.glob("*.safetensors"))
            assert len(made) == files
            stored = {name: tensor for file in made for name, tensor in load_file(file).items()}
            assert stored.keys() == tensors.keys()
            assert all(torch.equal(stored[name], tensor) for name, tensor in tensors.items())

    @pytest.mark.parametrize("piece", [4096, 2 * 4096, 2**23])
    def test_pieces_of_any_size_make_the_same_files(self, tmp_path, monkeypatch, piece):
        monkeypatch.setattr(checkpoint_writer, "PIECE", piece)
        self.written(tmp_path)

    @pytest.mark.parametrize("place", ["fcntl.fcntl", "os.pwrite"])
    def test_a_file_system_without_direct_writing(self, tmp_path, monkeypatch, place):
        """It refuses when it is asked for it, or promises it and refuses the first piece."""

        def refuse(handle, *rest):
            flags = rest[1] if place == "fcntl.fcntl" and len(rest) > 1 else fcntl_of(handle, fcntl.F_GETFL)
            if flags & os.O_DIRECT:
                refused.append(place)
                raise OSError(errno.EINVAL, "Invalid argument")
            return real(handle, *rest)

        fcntl_of, refused = fcntl.fcntl, []
        real = fcntl.fcntl if place == "fcntl.fcntl" else os.pwrite
        monkeypatch.setattr(checkpoint_writer, "PIECE", 4096)
        monkeypatch.setattr(f"tinyr1.merge.writer.{place}", refuse)
        self.written(tmp_path)
        assert refused

    def test_whole_pieces_go_past_the_page_cache(self, tmp_path, monkeypatch):
        def watch(handle, view, at):
            direct.append((bool(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_DIRECT), len(view)))
            return real(handle, view, at)

        with (tmp_path / "probe").open("w") as probe:
            if not checkpoint_writer.set_direct(probe.fileno(), True):
                pytest.skip("this file system cannot write past the page cache")
        real, direct = os.pwrite, []
        monkeypatch.setattr(checkpoint_writer, "PIECE", 4096)
        monkeypatch.setattr(checkpoint_writer.os, "pwrite", watch)
        writer = ShardWriter(tmp_path, {"a": ((64, 64), torch.float32)}, 10**9)
        writer.write("a", 0, torch.zeros(64, 64))
        writer.close()
        *whole, last = direct
        assert whole == [(True, 4096)] * 4
        assert last[0] is False
        assert 0 < last[1] < 4096

    def test_bytes_that_never_came_are_an_error(self, tmp_path):
        writer = ShardWriter(tmp_path, {"a": ((4, 4), torch.float32)}, 10**9)
        writer.write("a", 0, torch.zeros(3, 4))
        with pytest.raises(ValueError, match="model.safetensors: of all bytes only the first"):
            writer.close()


class TestWritingFails:
    """What goes wrong in the threads that write must not be lost with them."""

    @pytest.mark.parametrize("error", [OSError("no room"), KeyError("a defect")])
    @pytest.mark.parametrize("call", ["open", "ftruncate", "pwrite", "fsync"])
    def test_an_error_of_the_writing_threads_is_raised_by_close(self, tmp_path, monkeypatch, call, error):
        def fail(*_):
            raise error

        writer = ShardWriter(tmp_path, {"a": ((4, 4), torch.float32)}, 10**9)
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint_writer.os, call, fail)
            writer.write("a", 0, torch.zeros(4, 4))
            with pytest.raises(type(error)):
                writer.close()

    def test_a_full_disk_ends_a_large_file_and_gives_every_buffer_back(self, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(checkpoint_writer, "PIECE", 4096)
        monkeypatch.setattr(checkpoint_writer.os, "pwrite", full)
        writer = ShardWriter(tmp_path, {"a": ((1024, 1024), torch.float32)}, 10**9)

        def write_all():
            for row in range(1024):
                writer.write("a", row * 4096, torch.zeros(1, 1024))

        with pytest.raises(OSError, match="No space left"):
            write_all()
        writer.abandon()
        assert writer.stream.free.qsize() + (writer.stream.buffer is not None) == checkpoint_writer.PIECES

    def test_a_file_cut_by_somebody_else_is_an_error(self, tmp_path, monkeypatch):
        def cut(handle):
            os.truncate(tmp_path / "model.safetensors", 3)
            real(handle)

        real = os.fsync
        monkeypatch.setattr(checkpoint_writer.os, "fsync", cut)
        writer = ShardWriter(tmp_path, {"a": ((4, 4), torch.float32)}, 10**9)
        writer.write("a", 0, torch.zeros(4, 4))
        with pytest.raises(OSError, match="cut short while it was written"):
            writer.close()
