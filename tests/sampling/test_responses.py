"""The response store: what is kept, what is counted, and what no accident may do to it."""

import json
import os
import subprocess
import sys

import pytest

from tinyr1.core.errors import UserError
from tinyr1.sampling import responses, store


def line(question="q1", sample=0, model_key="m", protocol_key="p", **changes):
    return {"question": question, "sample": sample, "text": "so 4", "n_tokens": 3, "finish": "stop",
            "model_key": model_key, "protocol_key": protocol_key} | changes  # fmt: skip


def job(out, questions=("q1", "q2"), samples=2):
    requests = [{"question": q, "sample": i} for q in questions for i in range(samples)]
    return {"out": str(out), "protocol_key": "p", "requests": requests}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "a" / "math.jsonl"


def write(out, *lines):
    with store.LineWriter(out, responses.RESPONSE) as writer:
        for one in lines:
            writer.append(one)


def pairs(found):
    return [(one["question"], one["sample"]) for one in found]


def test_what_is_appended_is_read_back_whole(out):
    odd = line(text="two\nlines, \u2028 separator, \ud800 half a pair, ÷", sample=1)
    write(out, line(), odd)
    found = responses.stored(out, "m", "p").lines
    assert [f["text"] for f in found] == ["so 4", "two\nlines, \u2028 separator, ? half a pair, ÷"]
    assert out.read_text(encoding="utf-8").count("\n") == 2


def test_each_line_is_with_the_system_before_append_returns(out):
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tinyr1.sampling import responses, store\n"
        "writer = store.LineWriter(Path(sys.argv[1]), responses.RESPONSE)\n"
        "writer.append({'question': 'q', 'sample': 0, 'text': 'x' * 10000, 'n_tokens': None, 'finish': 'stop',\n"
        "               'model_key': 'm', 'protocol_key': 'p'})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(out)], check=False).returncode == -9
    assert pairs(responses.stored(out, "m", "p").lines) == [("q", 0)]


def test_flushes_to_disk_are_bounded_in_rate_and_the_last_is_never_left_out(out, monkeypatch):
    calls, clock = [], [0.0]
    monkeypatch.setattr(store.os, "fsync", lambda handle: calls.append(clock[0]))
    monkeypatch.setattr(store.time, "monotonic", lambda: clock[0])
    with store.LineWriter(out, responses.RESPONSE) as writer:
        for i in range(40):
            clock[0] = i / 10  # ten answers a second for four seconds
            writer.append(line(sample=i))
        assert calls == [1.0, 2.0, 3.0]
    assert len(calls) == 4


@pytest.mark.parametrize("cut", [1, 30, 100])
def test_a_torn_last_line_is_not_read_and_the_next_writer_cuts_it_off(out, cut):
    write(out, line(), line(sample=1))
    whole = out.read_bytes()
    out.write_bytes(whole + whole.splitlines(keepends=True)[0][:cut])
    found = responses.stored(out, "m", "p")
    assert (pairs(found.lines), found.malformed) == ([("q1", 0), ("q1", 1)], [])
    assert out.stat().st_size == len(whole) + cut, "reading changes nothing"
    write(out, line(sample=2))
    assert pairs(responses.stored(out, "m", "p").lines) == [("q1", 0), ("q1", 1), ("q1", 2)]
    assert responses.stored(out, "m", "p").malformed == []


def test_a_torn_line_longer_than_a_block_is_cut_off_too(out):
    write(out, line(text="y" * (store.BLOCK * 2)))
    whole = out.read_bytes()
    out.write_bytes(whole + whole[:-10])
    write(out, line(sample=1))
    assert pairs(responses.stored(out, "m", "p").lines) == [("q1", 0), ("q1", 1)]


def test_a_whole_last_line_without_line_end_is_kept(out):
    write(out, line())
    out.write_bytes(out.read_bytes().rstrip(b"\n"))
    assert pairs(responses.stored(out, "m", "p").lines) == [("q1", 0)]
    write(out, line(sample=1))
    assert pairs(responses.stored(out, "m", "p").lines) == [("q1", 0), ("q1", 1)]


@pytest.mark.parametrize(
    "text",
    ["{broken", "[1, 2]", '"text"', '{"question": "q1"}', json.dumps(line(sample="0")), json.dumps(line(sample=-1)),
     json.dumps(line(sample=True)), json.dumps(line(text=None)), json.dumps(line(question=7)), '{"a": "\\ud8"}'],
)  # fmt: skip
def test_malformed_lines_are_counted_named_and_left_where_they_are(out, text):
    write(out, line())
    with out.open("a", encoding="utf-8") as file:
        file.write(text + "\n\n" + json.dumps(line(sample=1)) + "\n")
    before = out.read_bytes()
    found = responses.stored(out, "m", "p")
    assert pairs(found.lines) == [("q1", 0), ("q1", 1)]
    assert found.malformed == [f"{out}:2"]
    assert "drawn again" in found.notes()[0]
    write(out, line(sample=2))
    assert out.read_bytes().startswith(before)


def test_bytes_that_are_no_text_are_one_malformed_line(out):
    write(out, line())
    out.write_bytes(b"\xff\xfe\x00\n" + out.read_bytes())
    assert responses.stored(out, "m", "p").malformed == [f"{out}:1"]
    assert pairs(responses.stored(out, "m", "p").lines) == [("q1", 0)]


def test_the_sample_of_a_malformed_line_is_missing_again(out):
    out.parent.mkdir()
    out.write_text(json.dumps(line()) + "\n" + json.dumps(line(sample=1, finish=None)) + "\n")
    assert pairs(responses.missing(job(out, ["q1"]), "m")) == [("q1", 1)]


def test_responses_of_another_model_or_protocol_are_never_taken(out):
    write(out, line(model_key="other"), line(protocol_key="other"), line(sample=1))
    found = responses.of_job(job(out), "m")
    assert pairs(found.lines) == [("q1", 1)]
    assert found.notes() == ["2 response lines of another model or protocol, kept and not used"]
    assert pairs(responses.missing(job(out), "m")) == [("q1", 0), ("q2", 0), ("q2", 1)]


def test_a_sample_that_the_job_does_not_ask_for_is_not_counted_as_one_of_its(out):
    write(out, line(sample=7), line("q9"))
    assert responses.of_job(job(out), "m").lines == []
    assert responses.of_job(job(out), "m").foreign == 2
    assert len(responses.missing(job(out), "m")) == 4


def test_a_repeated_sample_counts_once_and_the_first_stays(out):
    write(out, line(text="first"), line(text="second"))
    found = responses.stored(out, "m", "p")
    assert [one["text"] for one in found.lines] == ["first"]
    assert found.repeated == 1


def test_shards_of_other_ranks_belong_to_the_job_and_neighbours_do_not(out):
    write(out, line())
    write(responses.shard(out, 1), line(sample=1))
    write(responses.shard(out, 10), line("q2"))
    write(out.with_name("math2.jsonl"), line("q2", 1))
    assert responses.shard(out, 0) == out
    assert pairs(responses.missing(job(out), "m")) == [("q2", 1)]


def test_two_processes_cannot_write_one_file(out):
    with store.LineWriter(out, responses.RESPONSE), pytest.raises(UserError, match="another process is writing"):
        store.LineWriter(out, responses.RESPONSE)
    write(out, line())


def test_what_is_no_response_is_not_written(out):
    with store.LineWriter(out, responses.RESPONSE) as writer, pytest.raises(ValueError, match="'n_tokens'"):
        writer.append(line(n_tokens="3"))
    assert out.read_bytes() == b""


def test_no_file_is_no_response(out):
    assert responses.stored(out, "m", "p").lines == []
    assert len(responses.missing(job(out), "m")) == 4
    assert not os.path.exists(out.parent)
