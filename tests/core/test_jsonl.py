"""JSON lines: what is read back, what is refused, and that no reader changes a file."""

import contextlib

import pytest

from tinyr1.core import jsonl
from tinyr1.core.errors import UserError


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


LINES = [
    (b'{"n": 1}\n', (1, {"n": 1}, None, False)),
    (b'\n  \n{"n": 1}\n', (3, {"n": 1}, None, False)),
    (b'[1, "a"]\n', (1, [1, "a"], None, False)),
    (b'{"text": "\\u2028 \xe2\x80\xa8 \x7f"}\n', (1, {"text": "\u2028 \u2028 \x7f"}, None, False)),
    (b'{"n": 1}', (1, {"n": 1}, None, True)),
    (b'{"n": 1', (1, None, "not valid JSON", True)),
    (b'\xff\xfe\x00\n', (1, None, "not valid JSON", False)),
    (b"[" * 100_000 + b"\n", (1, None, "not valid JSON", False)),
]  # fmt: skip


@pytest.mark.parametrize(("written", "expected"), LINES)
def test_each_line_is_scanned_with_its_number_and_what_is_wrong_with_it(tmp_path, written, expected):
    path = tmp_path / "log.jsonl"
    path.write_bytes(written)
    (line,) = jsonl.scan(path)
    number, value, error, torn = expected
    assert (line.number, line.value, line.torn) == (number, value, torn)
    assert line.error is None if error is None else line.error.startswith(error)


@pytest.mark.parametrize("read", [lambda path: list(jsonl.scan(path)), jsonl.read], ids=["scan", "read"])
@pytest.mark.parametrize(
    "written",
    [b"", b"\n\n", b'{"n": 1}\r\n{"n": 2}', b'{"n": 1}\n{"n"', b'\xef\xbb\xbf{"n": 1}\n', b'{"n": 1}\n\xff\n'],
)
def test_no_reader_changes_a_file(tmp_path, read, written):
    path = tmp_path / "log.jsonl"
    path.write_bytes(written)
    path.chmod(0o400)
    before = path.stat()
    with contextlib.suppress(UserError):
        read(path)
    assert path.read_bytes() == written
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_file_is_scanned_line_by_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"n": 1}\n{broken\n{"n": 3}\n')
    lines = jsonl.scan(path)
    assert next(lines).value == {"n": 1}
    assert next(lines).error
    assert next(lines).value == {"n": 3}


def test_half_a_surrogate_pair_is_written_as_a_question_mark():
    assert jsonl.encode({"text": "a\ud800b ÷"}) == '{"text": "a?b ÷"}\n'.encode()


def test_a_value_that_cannot_be_written_leaves_the_file_as_it_was(tmp_path):
    jsonl.write(tmp_path / "rows.jsonl", [{"n": 1}])
    with pytest.raises(TypeError):
        jsonl.write(tmp_path / "rows.jsonl", [{"n": 2}, {"n": object()}])
    assert jsonl.read(tmp_path / "rows.jsonl") == [{"n": 1}]
