"""Raw rows become training rows on disk; every dropped row has one reason, and the ledger adds up."""

import shutil
import tracemalloc
from functools import partial

import pytest
from test_contamination import BENCHMARK, CLEAN, rule
from test_readers import source

from tinyr1.core import config
from tinyr1.core.errors import UserError
from tinyr1.core.prompts import Encoded
from tinyr1.data import curate, readers, tokens


def math_row(problem=CLEAN, answer="5", generations=("<think>a</think>b",), verified=(True,), **other):
    return {
        "problem": problem, "answer": answer, "question_type": "math-word-problem", "source": "olympiads",
        "generations": list(generations), "correctness_math_verify": verified and list(verified), **other,
    }  # fmt: skip


def words_of(row):
    return " ".join((row["question"], row["thinking"], row["response"])).split()


def run(raw_rows, max_tokens=100, limit=None, generations=1, unseen=None, **options):
    """(training rows, ledger) of OpenR1 rows; a token is a word of the whole row."""
    spec = source("openr1_math", keep={"question_type": ["math-word-problem"], "source": ["olympiads"]}, **options)
    ledger = curate.Ledger("math")
    streams = [("openr1", map(partial(readers.normalise, source=spec, generations=generations), raw_rows))]
    encode = lambda row: Encoded([0] * len(words_of(row)), 1)  # noqa: E731
    found = curate.curate(ledger, streams, unseen or rule(), encode, max_tokens, limit)
    return [row for row, encoded in found if row["n_tokens"] == len(encoded.ids)], ledger


@pytest.mark.parametrize(
    ("reason", "rows"),
    [
        ("question_type", [math_row(question_type="MCQ")]),
        ("source", [math_row(source="synthetic_math")]),
        ("no_question", [math_row(problem=" \n")]),
        ("no_answer", [math_row(answer="proof")]),
        ("no_answer", [math_row(answer="notfound")]),
        ("no_answer", [math_row(answer=None)]),
        ("unverified", [math_row(verified=(False,))]),
        ("unverified", [math_row(verified=None)]),
        ("incomplete", [math_row(generations=("<think>cut off",))]),
        ("incomplete", [math_row(generations=("<think>cut off</think> ",))]),
        ("incomplete", [math_row(generations=("<think>cut", "<think>a</think>b"), verified=(True, False))]),
        ("duplicate", [math_row(), math_row(problem=f"  {CLEAN.upper()}?")]),
        ("contaminated", [math_row(problem=f"Homework: {BENCHMARK}. Why?")]),
        ("too_long", [math_row(problem="word " * 101)]),
        ("over_limit", [math_row(problem=f"{CLEAN} {i}") for i in range(4)]),
    ],
)  # fmt: skip
def test_a_row_is_dropped_for_the_reason_it_was_made_for(reason, rows):
    kept, ledger = run(rows, limit=3)
    assert ledger.dropped == {("openr1", reason): 1}
    assert ledger.raw == len(rows)
    assert ledger.kept == len(kept) == len(rows) - 1
    assert reason in curate.REASONS


def test_the_ledger_adds_up_over_a_mixture_of_rows():
    rows = [
        math_row(problem=f"{CLEAN} {i}", answer="proof" if i % 5 == 0 else "1", verified=(i % 3 != 0,))
        for i in range(40)
    ] + [math_row(problem=BENCHMARK), math_row(problem=f"{CLEAN} 1"), math_row(problem="x " * 200)]
    kept, ledger = run(rows, limit=15)
    assert ledger.raw == len(rows) == ledger.kept + sum(ledger.dropped.values())
    assert ledger.kept == len(kept) == 15
    assert {reason for _, reason in ledger.dropped} == {
        "no_answer", "unverified", "contaminated", "duplicate", "too_long", "over_limit",
    }  # fmt: skip


def test_a_kept_row_is_the_first_verified_generation():
    generations = ("<think>wrong</think>4", "<think>\nright\n</think>\n\n5", "<think>also right</think>5")
    (row,), _ = run([math_row(generations=generations, verified=(False, True, True))])
    assert row.pop("id").startswith("math-")
    assert row == {
        "domain": "math", "source": "openr1", "question": CLEAN, "starter_code": "", "thinking": "right",
        "response": "5", "answer": "5", "n_tokens": 14,
    }  # fmt: skip


def test_unverified_generations_are_kept_where_any_will_do():
    kept, _ = run([math_row(verified=(False,))], correct="any")
    assert len(kept) == 1


def test_several_generations_of_a_question_are_one_raw_row_and_never_exceed_the_limit():
    rows = [
        math_row(
            problem=f"{CLEAN} {i}",
            generations=[f"<think>{n}</think>5" for n in range(3)],
            verified=(True,) * 3,
        )
        for i in range(3)
    ]
    kept, ledger = run(rows, generations=2)
    assert [row["thinking"] for row in kept] == ["0", "1"] * 3
    assert len({row["id"] for row in kept}) == 6
    assert (ledger.raw, ledger.kept) == (3, 3)
    assert len(run(rows, generations=2, limit=3)[0]) == 3


def test_the_ledger_shows_a_contaminated_question_beside_the_benchmark_question():
    _, ledger = run([math_row(problem=f"Homework: {BENCHMARK}")])
    assert ledger.examples["contaminated"] == f"Homework: {BENCHMARK}\n  benchmark: {BENCHMARK}"


def test_the_ledger_shows_nothing_of_a_benchmark_that_must_not_be_published():
    kept, ledger = run([math_row(problem=f"Homework: {BENCHMARK}"), math_row()], unseen=rule(private=True))
    assert (len(kept), ledger.dropped["openr1", "contaminated"]) == (1, 1)
    assert ledger.examples == {"contaminated": "(a question that must not be published)"}


class Words:
    """A tokenizer whose tokens are words."""

    chat_template, eos_token_id = "none", 2

    def get_vocab(self):
        return {"a": 3}

    def apply_chat_template(self, messages, **_):
        return messages[0]["content"]

    def encode(self, text, **_):
        return [3] * len(text.split())


def metadata_row(i, length=3):
    return {"problem": f"{CLEAN} {i}", "deepseek_reasoning": f"{i} " * length, "deepseek_solution": "5", "domain": "x"}


class Short(Words):
    """A tokenizer that makes little of a long row, and another vocabulary."""

    def get_vocab(self):
        return {"b": 3}

    def encode(self, text, **_):
        return [3] * 9


@pytest.fixture
def raw(monkeypatch):
    """The raw rows of the only source; a test may change them."""
    rows = [metadata_row(i) for i in range(5)] + [metadata_row(1)]
    monkeypatch.setattr(curate, "read_source", lambda source, domain, seed: iter(rows))
    return rows


@pytest.fixture
def cfg(home, raw):
    """The run smol with the domain code and no other, whose source gives `raw`."""
    cfg = config.load("smol")
    keep = cfg.params.domains["code"].sources[0].model_copy(update={"keep": {}})
    block = cfg.params.domains["code"].model_copy(update={"sources": [keep], "limit": None})
    return cfg.model_copy(update={"params": cfg.params.model_copy(update={"domains": {"code": block}})})


def test_the_rows_of_a_domain_are_on_disk_as_text_and_as_tokens(cfg, capsys):
    ledger = curate.curate_domain(cfg, "code", rule(), Words())
    assert (ledger.raw, ledger.kept, ledger.dropped) == (6, 5, {("openthoughts_metadata", "duplicate"): 1})
    rows, found = list(curate.curated_rows(cfg, "code")), tokens.read_tokens(cfg.rows("code"))
    assert [row["question"] for row in rows] == [f"{CLEAN} {i}" for i in range(5)]
    assert found.lengths.tolist() == [row["n_tokens"] for row in rows]
    assert found.last_ids.tolist() == [Words.eos_token_id] * 5
    lengths = curate.row_lengths(cfg)
    assert (lengths.domain.unique().tolist(), lengths.n_tokens.tolist()) == (["code"], found.lengths.tolist())
    assert "5 of 6 rows curated" in capsys.readouterr().out


def test_rows_are_curated_again_only_when_what_decides_them_changed(cfg, raw, capsys):
    first = curate.curate_domain(cfg, "code", rule(), Words())
    raw.clear()  # would be seen if the source were read again
    assert curate.curate_domain(cfg, "code", rule(), Words()) == first
    assert "kept from before" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"^domains\.code: none of 0 raw rows is left"):
        curate.curate_domain(cfg, "code", rule(), Short())


def test_a_domain_without_a_row_left_is_an_error_and_leaves_nothing(cfg, raw):
    raw[:] = [metadata_row(i, length=1000) for i in range(3)]
    with pytest.raises(UserError, match=r"none of 3 raw rows is left: \{\('openthoughts_metadata', 'too_long'\): 3\}"):
        curate.curate_domain(cfg, "code", rule(), Words())
    assert not cfg.rows("code").exists()


def test_rows_on_disk_that_repeat_an_id_or_a_benchmark_question_are_found(cfg):
    curate.curate_domain(cfg, "code", rule(), Words())
    assert curate.repeated(cfg, rule()) == ([], [])
    path = cfg.rows("code") / tokens.ROWS
    text = path.read_text(encoding="utf-8")
    path.write_text(text + text.splitlines()[0].replace(CLEAN, BENCHMARK) + "\n", encoding="utf-8")
    name = next(curate.curated_rows(cfg, "code"))["id"]
    assert curate.repeated(cfg, rule()) == ([name], [name])


def test_curation_holds_no_rows_in_memory(cfg, monkeypatch):
    def peak(count):
        """Bytes that Python held at most while it curated `count` rows."""
        rows = (metadata_row(i, length=1500) for i in range(count))
        monkeypatch.setattr(curate, "read_source", lambda source, domain, seed: rows)
        tracemalloc.start()
        try:
            curate.curate_domain(cfg, "code", rule(), Short())
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few = peak(1000)
    small = (cfg.rows("code") / tokens.ROWS).stat().st_size
    shutil.rmtree(cfg.rows("code"))
    more = peak(20_000) - few
    text = (cfg.rows("code") / tokens.ROWS).stat().st_size - small
    assert text > 150e6
    assert more < 5e6, f"{more / 1e6:.0f} MB were held for {text / 1e6:.0f} MB of rows"


def test_a_funnel_has_a_line_for_each_domain_that_sums_to_its_raw_rows():
    _, one = run([math_row(), math_row(), math_row(problem=f"{CLEAN} 2", answer="proof")])
    other = curate.Ledger("history", raw=2, kept=1)
    other.drop("files", "language", "")
    table = curate.fates([one, other])
    assert table.columns.tolist() == ["no_answer", "duplicate", "language", "kept"]
    assert table.to_dict("index") == {
        "math": {"no_answer": 1, "duplicate": 1, "language": 0, "kept": 1},
        "history": {"no_answer": 0, "duplicate": 0, "language": 1, "kept": 1},
    }
