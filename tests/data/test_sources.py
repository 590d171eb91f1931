import gzip
import json

import datasets
import pyarrow.parquet
import pytest
from pydantic import TypeAdapter

from tinyr1.core import config
from tinyr1.core.errors import UserError
from tinyr1.core.params.domains import Source
from tinyr1.data import files, schema, sources

ROWS = [{"question": f"q{i}", "cot_type": "science", "attempt": "a", "thinking_trajectories": ["t"]} for i in range(5)]


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
    """The values of a source's rows; the errors of those that have none."""
    return [raw.error or raw.value for raw in sources.read_source(spec, domain, seed)]


def places(spec):
    return [(raw.file, raw.row) for raw in sources.read_source(spec, "science", 1)]


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
    assert set(schema.required(spec)) <= first[0].keys()


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
    rows = [{"problem": "q", "solution": "s"}]
    with pytest.raises(UserError) as error:
        read(source(path=write(tmp_path / "a.jsonl", rows)))
    assert "domains.science.sources" in str(error.value)
    assert "has no column question; it has problem, solution. Is `columns: s1` right?" in str(error.value)


def test_a_column_that_only_the_filter_needs_must_be_there_too(tmp_path):
    with pytest.raises(UserError, match="has no column source_type"):
        read(source(path=write(tmp_path / "a.jsonl", ROWS), keep={"source_type": ["x"]}))


def test_a_path_that_does_not_exist_is_named(tmp_path):
    path = tmp_path / "nowhere.jsonl"
    with pytest.raises(UserError, match=r"^domains\.science.*: .*nowhere\.jsonl: no such \.jsonl, .*\.parquet file"):
        read(source(path=path))


def test_a_folder_without_data_files_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("not data")
    with pytest.raises(UserError, match=r"no folder with any; not read: README\.md \(\.md is no format of rows\)"):
        read(source(path=tmp_path))


def test_a_folder_may_hold_both_kinds_of_files_and_empty_ones(tmp_path):
    parquet(tmp_path / "b.parquet", ROWS[3:])
    write(tmp_path / "a.jsonl", ROWS[:3])
    (tmp_path / "c.jsonl").touch()
    assert read(source(path=tmp_path)) == ROWS


def test_a_relative_path_is_in_the_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "ROOT", tmp_path)
    write(tmp_path / "a.jsonl", ROWS)
    assert read(source(path="a.jsonl")) == ROWS


@pytest.mark.parametrize("line", ['{"question": "q', "\x00", "{'question': 'q'}"])
def test_a_line_that_is_no_json_is_a_row_with_an_error_and_a_place(tmp_path, line):
    with write(tmp_path / "a.jsonl", ROWS).open("a") as file:
        file.write(line + "\n" + json.dumps(ROWS[0]) + "\n")
    found = list(sources.read_source(source(path=tmp_path), "science", 1))
    assert [raw.value for raw in found if not raw.error] == [*ROWS, ROWS[0]]
    (bad,) = [raw for raw in found if raw.error]
    assert (bad.file, bad.row) == ("a.jsonl", 6)
    assert bad.error.startswith("not valid JSON")


def zst(data):
    return pyarrow.compress(data, codec="zstd", asbytes=True)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", lambda lines, array: lines), ("A.JSONL", lambda lines, array: lines),
        ("a.ndjson", lambda lines, array: lines), ("a.json", lambda lines, array: array),
        ("a.JSON", lambda lines, array: lines), ("a.jsonl", lambda lines, array: array),
        ("bom.jsonl", lambda lines, array: b"\xef\xbb\xbf" + lines),
        ("bom.json", lambda lines, array: b"\xef\xbb\xbf" + array),
        ("a.jsonl.gz", lambda lines, array: gzip.compress(lines)),
        ("a.json.gz", lambda lines, array: gzip.compress(array)),
        ("a.JSONL.GZ", lambda lines, array: gzip.compress(lines)),
        ("a.jsonl.zst", lambda lines, array: zst(lines)), ("a.json.zst", lambda lines, array: zst(array)),
        ("two.jsonl.gz", lambda lines, array: gzip.compress(lines[:100]) + gzip.compress(lines[100:])),
    ],
)  # fmt: skip
def test_a_file_of_any_form_gives_the_same_rows(tmp_path, name, data):
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    (tmp_path / name).write_bytes(data(lines, json.dumps(ROWS, indent=1).encode()))
    assert read(source(path=tmp_path / name)) == ROWS
    assert read(source(path=tmp_path)) == ROWS


@pytest.mark.parametrize("packed", [False, True])
def test_a_csv_file_gives_its_rows_and_names_those_with_too_few_fields(tmp_path, packed):
    text = 'question,cot_type,attempt,thinking_trajectories\n"a, b\n?",science,a,t\nshort,row\nq2,science,,t\n'
    path = tmp_path / ("a.csv.gz" if packed else "a.CSV")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    first, bad, second = read(source(path=path))
    assert (first["question"], second["attempt"]) == ("a, b\n?", "")
    assert bad == "a row without the 4 fields of the header"


def test_a_csv_header_that_names_a_column_twice_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("question,question\na,b\n")
    with pytest.raises(UserError, match=r"a\.csv: its header names question twice"):
        read(source(path=tmp_path / "a.csv"))


def test_an_array_is_read_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "HEAD", 16)
    rows = [row | {"attempt": "é€😀" * n} for n, row in enumerate(ROWS)]
    (tmp_path / "a.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    assert read(source(path=tmp_path)) == rows
    (tmp_path / "a.json").write_text("[]")
    assert read(source(path=tmp_path)) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"question": "q"}, {"question": ', r"entry 2 of its array is not valid JSON"),
        ('[{"question": "q"}] {"question": "lost"}', "text follows the end of its array"),
        ('[{"question": "q"}', "entry 2 of its array is not valid JSON"),
    ],
)
def test_a_damaged_array_is_named(tmp_path, text, said):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=said):
        read(source(path=tmp_path))


@pytest.mark.parametrize("pack", [gzip.compress, zst])
def test_a_compressed_file_cut_short_is_named(tmp_path, pack):
    rows = [row | {"attempt": str(i * 7919)} for i, row in enumerate(ROWS * 2000)]
    data = pack("".join(json.dumps(row) + "\n" for row in rows).encode())
    path = tmp_path / f"a.jsonl.{'gz' if pack is gzip.compress else 'zst'}"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"domains\.science\.sources: .*a\.jsonl\.\w+: cannot be read to its end"):
        read(source(path=path))


def test_every_file_of_a_folder_is_read_or_named(tmp_path):
    write(tmp_path / "b.jsonl", ROWS[:1])
    (tmp_path / "deep" / "er").mkdir(parents=True)
    write(tmp_path / "deep" / "er" / "a.jsonl", ROWS[1:2])
    for name in ("notes.txt", ".hidden.jsonl", "b.parquet.gz", "LICENSE"):
        (tmp_path / name).touch()
    spec = source(path=tmp_path)
    assert places(spec) == [("b.jsonl", 1), ("deep/er/a.jsonl", 1)]
    assert dict(sources.unread(spec, "science")) == {
        ".hidden.jsonl": "hidden", "LICENSE": "a name without an ending is no format of rows",
        "b.parquet.gz": ".gz is no format of rows", "notes.txt": ".txt is no format of rows",
    }  # fmt: skip


def test_a_linked_folder_is_read_once_and_a_circle_ends(tmp_path):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "a.jsonl", ROWS)
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "linked").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "back").symlink_to(tmp_path / "all")
    assert read(source(path=tmp_path / "all")) == ROWS


@pytest.mark.parametrize("name", ["a.jsonl", "folder"])
def test_a_link_that_leads_nowhere_is_an_error(tmp_path, name):
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "b.jsonl", ROWS)
    (folder / "a.jsonl").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=r"a\.jsonl is a link to .*gone, which is not there"):
        read(source(path=folder if name == "folder" else folder / name))


def test_a_pattern_names_files(tmp_path):
    for i in range(3):
        write(tmp_path / f"part-{i}.jsonl", ROWS[i : i + 1])
    write(tmp_path / "other.jsonl", ROWS)
    assert read(source(path=tmp_path / "part-*.jsonl")) == ROWS[:3]
    assert read(source(path=tmp_path / "**" / "part-[12].jsonl")) == ROWS[1:3]
    with pytest.raises(UserError, match="no such"):
        read(source(path=tmp_path / "nothing-*.jsonl"))


@pytest.mark.parametrize("first", [0, 1])
def test_a_missing_file_of_a_numbered_set_is_an_error(tmp_path, first):
    names = [f"data-{i:05d}-of-00003.jsonl" for i in range(first, first + 3)]
    for i, name in enumerate(names):
        write(tmp_path / name, ROWS[i : i + 1])
    assert read(source(path=tmp_path)) == ROWS[:3]
    assert read(source(path=tmp_path / "data-*[12]-of-*.jsonl")) == ROWS[1 - first : 3 - first]  # left out on purpose
    (tmp_path / names[1]).unlink()
    with pytest.raises(UserError, match=rf"has 2 of 3 files; missing: {names[1].removesuffix('.jsonl')};"):
        read(source(path=tmp_path))
    assert read(source(path=tmp_path / names[0])) == ROWS[:1]


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
    assert message.startswith(
        "domains.science.sources: owner/data (config None, split train, revision None) could not be fetched ("
    )
    assert f"{type(error).__name__}: {error}" in message
    assert "https://huggingface.co/datasets/owner/data and run `hf auth login`" in message


def test_rows_of_the_hub_are_those_of_the_split_and_revision(monkeypatch):
    asked = []

    def load(*names, **options):
        asked.append((names, options))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    spec = source("huggingface", path="owner/data").model_copy(update={"split": "test", "revision": "abc"})
    assert read(spec) == ROWS
    assert asked[0] == (("owner/data", None), {"revision": "abc", "split": "test"})
    assert places(spec)[:2] == [("test", 1), ("test", 2)]


def test_real_rows_are_read_in_their_own_columns(shared_data):
    path = shared_data / "openr1_math_220k/assembled_row0_one_placeholder.jsonl"
    (row,) = read(source(columns="openr1_math", path=path))
    assert row["correctness_math_verify"] == [True, False]
    assert len(row) == 14


def test_real_s1_rows_without_their_filter_column_are_refused(shared_data):
    path = shared_data / "s1k" / "partial_solution_question_source_type.jsonl"
    with pytest.raises(UserError, match="has no column cot_type; it has question, solution, source_type"):
        read(source(path=path, keep={"cot_type": ["science"]}))
