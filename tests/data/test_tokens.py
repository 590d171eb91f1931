"""Rows and their tokens on disk: complete or unreadable, and read back as they were written."""

import json
from random import Random

import numpy as np
import pytest

from tinyr1.core.errors import UserError
from tinyr1.core.prompts import Encoded
from tinyr1.data import tokens

LENGTHS = [7, 1, 12, 5]
SAMPLES = [Encoded([Random(i).randrange(150_000) for _ in range(n)], max(1, n // 3)) for i, n in enumerate(LENGTHS)]


def write(folder, samples):
    folder.mkdir(exist_ok=True)
    with tokens.RowWriter(folder) as writer:
        for i, sample in enumerate(samples):
            writer.write({"id": i, "question": "a\u2028b"}, sample)
    return tokens.read_tokens(folder)


@pytest.fixture
def found(tmp_path):
    return write(tmp_path / "rows", SAMPLES)


def test_rows_and_tokens_come_back_as_they_were_written(found):
    assert [found.row(i) for i in range(len(found))] == SAMPLES
    assert found.lengths.tolist() == LENGTHS
    assert found.count == sum(LENGTHS)
    lines = (found.folder / tokens.ROWS).read_bytes().split(b"\n")[:-1]
    assert [json.loads(line) for line in lines] == [{"id": i, "question": "a\u2028b"} for i in range(4)]


def test_the_files_have_the_documented_types(found):
    assert np.fromfile(found.folder / tokens.IDS, "<i4").tolist() == [i for s in SAMPLES for i in s.ids]
    assert np.fromfile(found.folder / tokens.STARTS, "<i8").tolist() == [0, 7, 8, 20, 25]
    assert np.fromfile(found.folder / tokens.PROMPTS, "<i4").tolist() == [s.n_prompt for s in SAMPLES]


def test_the_ids_are_mapped_and_not_read(found):
    assert isinstance(found.ids, np.memmap)
    assert np.shares_memory(found.row_ids(2), found.ids)


@pytest.mark.parametrize(("first", "last"), [(None, None), (1, None), (None, 2), (1, 3), (3, 1), (9, None)])
def test_a_part_is_a_slice_of_the_rows(found, first, last):
    part, expected = found.part(slice(first, last)), SAMPLES[first:last]
    assert [part.row(i) for i in range(len(part))] == expected
    assert part.lengths.tolist() == [len(s.ids) for s in expected]
    assert part.count == sum(len(s.ids) for s in expected)
    assert part.last_ids.tolist() == [s.ids[-1] for s in expected]
    assert [part.part(slice(1, None)).row(i) for i in range(max(0, len(part) - 1))] == expected[1:]


def test_an_empty_folder_of_rows_can_be_read(tmp_path):
    empty = write(tmp_path / "rows", [])
    assert len(empty) == empty.count == len(empty.lengths) == len(empty.last_ids) == 0


def test_an_interrupted_writer_leaves_nothing_that_can_be_read(tmp_path):
    def interrupted():
        yield SAMPLES[0]
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "rows", interrupted())
        with pytest.raises(UserError, match=r"rows: holds no complete rows, starts\.bin is missing; make them again"):
            tokens.read_tokens(tmp_path / "rows")
        assert len(write(tmp_path / "rows", SAMPLES)) == 4  # and the second time, complete rows are there before


def test_a_writer_killed_at_any_moment_leaves_nothing_that_can_be_read(tmp_path):
    write(tmp_path / "rows", SAMPLES)
    writer = tokens.RowWriter(tmp_path / "rows")  # never left, as in a killed process
    with pytest.raises(UserError, match="holds no complete rows"):
        tokens.read_tokens(tmp_path / "rows")
    writer.write({}, SAMPLES[0])
    with pytest.raises(UserError, match="holds no complete rows"):
        tokens.read_tokens(tmp_path / "rows")
