import json

import pytest

from tinyr1 import sources
from tinyr1.config import ConfigError, Source

ROWS = [
    {"question": f"q{i}", "cot_type": "science", "attempt": "a", "thinking_trajectories": ["t"]}
    for i in range(5)
]


def source(kind="files", columns="s1", path=None, rows=None, keep=None):
    return Source(
        kind=kind, columns=columns, path=None if path is None else str(path), config=None, revision=None,
        rows=rows, keep=keep or {}, correct="any",
    )  # fmt: skip


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(spec, domain="science", seed=1):
    return list(sources.read(spec, domain, [1, 2], seed))


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
    spec = source("miniature", columns, rows=30)
    first = read(spec, domain)
    assert len(first) == 30
    assert read(spec, domain) == first
    assert read(spec, domain, seed=2) != first
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


def test_a_parquet_file_gives_its_rows(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert read(source(path=tmp_path / "a.parquet")) == ROWS


def test_a_missing_column_is_named_with_the_columns_there_are(tmp_path):
    rows = [{"question": "q", "solution": "s"}]
    with pytest.raises(ConfigError) as error:
        read(source(path=write(tmp_path / "a.jsonl", rows)))
    assert "sources.science" in str(error.value)
    assert "has no column cot_type; it has question, solution. Is `columns: s1` right?" in str(error.value)


def test_a_column_that_only_the_filter_needs_must_be_there_too(tmp_path):
    with pytest.raises(ConfigError, match="has no column source_type"):
        read(source(path=write(tmp_path / "a.jsonl", ROWS), keep={"source_type": ["x"]}))


def test_a_path_that_does_not_exist_is_named(tmp_path):
    path = tmp_path / "nowhere.jsonl"
    with pytest.raises(ConfigError, match=r"nowhere\.jsonl: no such file, or a folder without"):
        read(source(path=path))


def test_a_folder_without_data_files_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("not data")
    with pytest.raises(ConfigError, match=r"without \.jsonl or \.parquet files"):
        read(source(path=tmp_path))


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
    with pytest.raises(ConfigError, match="has no column cot_type; it has question, solution, source_type"):
        read(source(path=path))
