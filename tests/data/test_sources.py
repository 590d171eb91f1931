import json

import datasets
import pyarrow.parquet
import pytest
from huggingface_hub.errors import HTTPError
from pydantic import TypeAdapter

from tinyr1.core.errors import UserError
from tinyr1.core.params.domains import Source
from tinyr1.data import files, sources

ROWS = [
    {"question": f"q{i}", "cot_type": "science", "attempt": "a", "thinking_trajectories": ["t"]}
    for i in range(5)
]


def source(kind="files", columns="s1", path=None, rows=None, keep=None):
    place = {
        "files": {"path": str(path)}, "huggingface": {"path": str(path), "config": None, "revision": None},
        "miniature": {"tasks": path, "levels": [1, 2]},
    }[kind]  # fmt: skip
    common = {"kind": kind, "columns": columns, "rows": rows, "keep": keep or {}, "correct": "any"}
    return TypeAdapter(Source).validate_python(common | place)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def parquet(path, rows, **options):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, **options)
    return path


def read(spec, domain="science", seed=1):
    return list(sources.read_source(spec, domain, seed))


@pytest.mark.parametrize(
    ("domain", "columns"),
    [
        ("math", "openr1_math"),
        ("science", "s1"),
        ("science", "openthoughts_metadata"),
        ("code", "openthoughts"),
    ],
)
def test_the_miniature_gives_the_same_rows_for_the_same_seed_only(domain, columns):
    spec = source("miniature", columns, domain, rows=30)
    first = read(spec)
    assert len(first) == 30
    assert read(spec, "any name") == first
    assert read(spec, seed=2) != first
    assert set(sources.REQUIRED[columns]) <= first[0].keys()


def test_a_file_gives_its_rows_in_order(tmp_path):
    assert read(source(path=write(tmp_path / "a.jsonl", ROWS))) == ROWS


def test_a_folder_gives_the_rows_of_all_its_files_in_the_order_of_their_names(tmp_path):
    write(tmp_path / "b.jsonl", ROWS[3:])
    write(tmp_path / "a.jsonl", ROWS[:3])
    (tmp_path / "README.md").write_text("not data")
    assert read(source(path=tmp_path)) == ROWS


def test_no_more_rows_are_read_than_asked_for(tmp_path):
    assert read(source(path=write(tmp_path / "a.jsonl", ROWS), rows=2)) == ROWS[:2]


def test_a_parquet_file_gives_its_rows_some_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PARQUET_ROWS", 2)
    assert read(source(path=parquet(tmp_path / "a.parquet", ROWS))) == ROWS


def test_a_missing_column_is_named_with_the_columns_there_are(tmp_path):
    rows = [{"question": "q", "solution": "s"}]
    with pytest.raises(UserError) as error:
        read(source(path=write(tmp_path / "a.jsonl", rows)))
    assert "domains.science.sources" in str(error.value)
    assert "has no column cot_type; it has question, solution. Is `columns: s1` right?" in str(error.value)


def test_a_column_that_only_the_filter_needs_must_be_there_too(tmp_path):
    with pytest.raises(UserError, match="has no column source_type"):
        read(source(path=write(tmp_path / "a.jsonl", ROWS), keep={"source_type": ["x"]}))


def test_a_path_that_does_not_exist_is_named(tmp_path):
    path = tmp_path / "nowhere.jsonl"
    with pytest.raises(UserError, match=r"^domains\.science.*: .*nowhere\.jsonl: no such \.jsonl or \.parquet file"):
        read(source(path=path))


def test_a_folder_without_data_files_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("not data")
    with pytest.raises(UserError, match=r"no such \.jsonl or \.parquet file, and no folder with any; put it there"):
        read(source(path=tmp_path))


def test_a_folder_may_hold_both_kinds_of_files_and_empty_ones(tmp_path):
    parquet(tmp_path / "b.parquet", ROWS[3:])
    write(tmp_path / "a.jsonl", ROWS[:3])
    (tmp_path / "c.jsonl").touch()
    assert read(source(path=tmp_path)) == ROWS


def test_a_relative_path_is_in_the_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    write(tmp_path / "a.jsonl", ROWS)
    assert read(source(path="a.jsonl")) == ROWS


@pytest.mark.parametrize("line", ['{"question": "q', "[1, 2]", "\x00"])
def test_a_damaged_line_is_named_by_its_file_and_number(tmp_path, line):
    with write(tmp_path / "a.jsonl", ROWS).open("a") as file:
        file.write(line)
    found = sources.read_source(source(path=tmp_path), "science", 1)
    assert [next(found) for _ in ROWS] == ROWS
    with pytest.raises(UserError, match=r"^domains\.science\.sources: .*jsonl:6: .*; mend the file, or put it there"):
        next(found)


@pytest.mark.parametrize("size", [-20, 0, 4])
def test_a_parquet_file_cut_short_is_named(tmp_path, size):
    whole = parquet(tmp_path / "a.parquet", ROWS).read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[:size])
    with pytest.raises(UserError, match=r"^domains\.science\.sources: .*a\.parquet: not a whole .* beyond 0 "):
        read(source(path=tmp_path))


def test_rows_before_the_damage_in_a_parquet_file_are_counted(tmp_path):
    group = 2 * files.PARQUET_ROWS
    path = parquet(tmp_path / "a.parquet", ROWS * 200, row_group_size=group)
    damaged = bytearray(path.read_bytes())
    second = pyarrow.parquet.read_metadata(path).row_group(1).column(0).dictionary_page_offset
    damaged[second : second + 40] = bytes(40)
    path.write_bytes(damaged)
    found, seen = sources.read_source(source(path=path), "science", 1), []
    with pytest.raises(UserError, match=f"rows beyond {group} cannot be read: "):
        seen.extend(found)
    assert len(seen) == group


def test_a_row_without_a_column_is_named_by_its_number(tmp_path):
    path = write(tmp_path / "a.jsonl", [*ROWS, {"question": "q"}])
    with pytest.raises(UserError, match=r"row 6 of .*a\.jsonl has no column cot_type; it has question\."):
        read(source(path=path))


HUB_ERRORS = (
    datasets.exceptions.DatasetNotFoundError("Dataset 'owner/data' is a gated dataset on the Hub. Visit …"),
    ConnectionError("Couldn't reach 'owner/data' on the Hub (LocalEntryNotFoundError)"),
    ValueError("BuilderConfig 'x' not found. Available: ['default']"),
    RuntimeError("Dataset scripts are no longer supported, but found data.py"),
)


@pytest.mark.parametrize("error", HUB_ERRORS, ids=lambda e: type(e).__name__)
def test_a_dataset_that_the_hub_does_not_give_is_named_with_what_to_do(monkeypatch, error):
    def load(*_, **__):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UserError) as raised:
        read(source("huggingface", path="owner/data"))
    message = str(raised.value)
    assert message.startswith("domains.science.sources: owner/data (config None, revision None) could not be fetched (")
    assert f"{type(error).__name__}: {error}" in message
    assert "https://huggingface.co/datasets/owner/data and run `hf auth login`" in message


@pytest.mark.parametrize("error", [HTTPError("peer is gone"), OSError("timed out"), ValueError("not parquet")])
def test_a_stream_that_breaks_off_says_after_how_many_rows(monkeypatch, error):
    def stream(*_, **__):
        yield from ROWS[:3]
        raise error

    monkeypatch.setattr(datasets, "load_dataset", stream)
    found = sources.read_source(source("huggingface", path="owner/data"), "science", 1)
    assert [next(found) for _ in range(3)] == ROWS[:3]
    said = rf"owner/data .* could not be fetched after 3 rows \({type(error).__name__}: {error}\)"
    with pytest.raises(UserError, match=said):
        next(found)


def test_real_rows_are_read_in_their_own_columns(shared_data):
    (row,) = read(
        source(
            columns="openr1_math", path=shared_data / "openr1_math_220k/assembled_row0_one_placeholder.jsonl"
        )
    )
    assert row["correctness_math_verify"] == [True, False]
    assert len(row) == 14


def test_real_s1_rows_without_their_filter_column_are_refused(shared_data):
    path = shared_data / "s1k" / "partial_solution_question_source_type.jsonl"
    with pytest.raises(UserError, match="has no column cot_type; it has question, solution, source_type"):
        read(source(path=path))
