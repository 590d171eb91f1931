"""Raw rows become training rows on disk; every dropped row has one reason, and the ledger adds up."""

import json
import shutil
import tracemalloc
from collections import Counter
from types import SimpleNamespace

import pandas as pd
import pytest
from test_contamination import BENCHMARK, CLEAN, rule
from test_readers import source

from tinyr1.core import config, prompts
from tinyr1.core.errors import UserError
from tinyr1.core.prompts import Encoded
from tinyr1.data import curate, readers, sources, tokens
from tinyr1.data import ledger as ledger_tables
from tinyr1.data.columns import Parsed
from tinyr1.data.contamination import Contamination
from tinyr1.data.ledger import LEDGER, REASONS, Ledger, Outcomes
from tinyr1.data.sources import Raw


def math_row(problem=CLEAN, answer="5", generations=("<think>a</think>b",), verified=(True,), **other):
    return {
        "problem": problem, "answer": answer, "question_type": "math-word-problem", "source": "olympiads",
        "generations": list(generations), "correctness_math_verify": verified and list(verified), **other,
    }  # fmt: skip


def words_of(row):
    return " ".join((row["question"], row["thinking"], row["response"])).split()


class Words:
    """A tokenizer whose tokens are words."""

    chat_template, eos_token_id = "none", 2

    def get_vocab(self):
        return {"a": 3}


@pytest.fixture(autouse=True)
def encode_words(monkeypatch):
    """Tokens are the words of the whole row; `lengths` of a test's tokenizer says otherwise."""

    def encode_rows(tokenizer, block, rows, num_proc=1, template=None):
        lengths = [getattr(tokenizer, "length", None) or len(words_of(row)) for row in rows]
        return [Encoded([3] * (n - 1) + [Words.eos_token_id], 1) for n in lengths]

    monkeypatch.setattr(prompts, "encode_rows", encode_rows)


@pytest.fixture
def run(home, monkeypatch):
    """Call with raw rows: (training rows, ledger) of the domain math with one source in OpenR1-Math's columns."""

    def curated(raw_rows, max_tokens=100, limit=None, generations=1, unseen=None, choose=None, rules=None, **options):
        keep = options.pop("keep", {"question_type": ["math-word-problem"], "source": ["olympiads"]})
        spec = source(options.pop("columns", "openr1_math"), path="olympiads", keep=keep, **options)
        cfg = config.load("smol")
        block = cfg.params.domains["math"].model_copy(update={"sources": [spec], "limit": limit, "choose": choose})
        rules = {"max_tokens": max_tokens, "generations_per_question": generations, "max_malformed": 1} | (rules or {})
        changed = {"domains": {"math": block}, "curate": cfg.params.curate.model_copy(update=rules)}
        cfg = cfg.model_copy(update={"params": cfg.params.model_copy(update=changed)})
        monkeypatch.setattr(sources, "read_source", lambda *_: (Raw("f", i, row) for i, row in enumerate(raw_rows, 1)))
        monkeypatch.setattr(sources, "find", lambda *_: sources.Found([]))
        shutil.rmtree(cfg.rows("math"), ignore_errors=True)
        ledger = curate.curate_domain(cfg, "math", unseen or rule(), Words())
        assert ledger.raw == ledger.kept + sum(ledger.dropped.values()) == len(raw_rows)
        table = pd.read_parquet(cfg.rows("math") / LEDGER)
        assert len(table) == len(raw_rows)
        assert table[["source", "file", "row"]].drop_duplicates().shape[0] == len(raw_rows)
        counts = Counter(table.outcome)
        assert counts.pop("kept", 0) == ledger.kept
        assert counts == {why: n for (_, why), n in ledger.dropped.items()}
        return list(curate.curated_rows(cfg, "math")), ledger

    return curated


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
        ("duplicate", [math_row(), math_row(problem=f"  {CLEAN}\n")]),
        ("malformed", [math_row(), math_row(problem=["a", "list"])]),
        ("no_reasoning", [math_row(generations=("<think> </think>b",))]),
        ("near_duplicate", [math_row(), math_row(problem=f"Problem 3. {CLEAN}?")]),
        ("contaminated", [math_row(problem=f"Homework: {BENCHMARK}. Why?")]),
        ("too_long", [math_row(problem="word " * 101)]),
        ("over_limit", [math_row(problem=f"{CLEAN} {i}") for i in range(4)]),
    ],
)  # fmt: skip
def test_a_row_is_dropped_for_the_reason_it_was_made_for(run, reason, rows):
    good = [math_row(problem="A good row that differs from all others")] if len(rows) == 1 else []
    kept, ledger = run([*rows, *good], limit=3, choose="first", rules={"near_duplicates": 0.5})
    assert ledger.dropped == {("olympiads", reason): 1}
    assert ledger.kept == len(kept) == len(rows) + len(good) - 1
    assert reason in REASONS
    assert len(ledger.examples[reason]) == 1


def test_a_row_that_is_too_long_is_cut_where_the_params_say_so(run):
    long_answer = math_row(problem="What is it?", generations=(f"<think>a</think>{'b ' * 60}",))
    long_reasoning = math_row(problem="Who is it?", generations=(f"<think>{'a ' * 60}</think>b",))
    fitting, too_long = math_row(problem="Where is it?"), math_row(problem="word " * 60)
    again = [long_answer, long_reasoning, fitting, long_answer]  # what is dropped for another reason is not cut
    kept, ledger = run(again, max_tokens=50, rules={"overlong": "truncate"})
    assert ledger.dropped == {("olympiads", "duplicate"): 1}
    assert [row["n_tokens"] for row in kept] == [50, 50, 5]
    # One token of the prompt, 61 of the answer: a part of it is left. The answer of the other stands at its end.
    sentence = "2 rows are cut at 50 tokens and have lost their end token, 1 of them their whole answer"
    assert sentence in ledger.notes
    kept, ledger = run([long_answer, long_reasoning, fitting], max_tokens=50)
    assert [row["n_tokens"] for row in kept] == [5]
    assert ledger.dropped == {("olympiads", "too_long"): 2}
    with pytest.raises(UserError, match=r"'What is it\?' has 64 tokens, curate.max_tokens is 50, and curate.overlong"):
        run([long_answer, fitting], max_tokens=50, rules={"overlong": "refuse"})
    assert len(run([too_long], max_tokens=100, rules={"overlong": "refuse"})[0]) == 1


def test_the_ledger_adds_up_over_a_mixture_of_rows(run):
    rows = [
        math_row(problem=f"{CLEAN} {i}", answer="proof" if i % 5 == 0 else "1", verified=(i % 3 != 0,))
        for i in range(40)
    ] + [math_row(problem=BENCHMARK), math_row(problem=f"{CLEAN} 1"), math_row(problem="x " * 200)]
    kept, ledger = run(rows, limit=15)
    assert ledger.kept == len(kept) == 15
    assert {reason for _, reason in ledger.dropped} == {
        "no_answer", "unverified", "contaminated", "duplicate", "too_long", "over_limit",
    }  # fmt: skip


def test_a_kept_row_is_the_first_verified_generation(run):
    generations = ("<think>wrong</think>4", "<think>\nright\n</think>\n\n5", "<think>also right</think>5")
    (row,), _ = run([math_row(generations=generations, verified=(False, True, True))])
    assert row.pop("id").startswith("math-")
    assert row == {
        "domain": "math", "source": "olympiads", "question": CLEAN, "starter_code": "", "thinking": "right",
        "response": "5", "answer": "5", "n_tokens": 14,
    }  # fmt: skip


def test_unverified_generations_are_kept_where_any_will_do(run):
    kept, _ = run([math_row(verified=(False,))], correct="any")
    assert len(kept) == 1


def test_several_generations_of_a_question_are_one_raw_row_and_never_exceed_the_limit(run):
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


def test_the_ledger_shows_a_contaminated_question_beside_the_benchmark_question(run):
    _, ledger = run([math_row(problem=f"Homework: {BENCHMARK}"), math_row()])
    (example,) = ledger.examples["contaminated"]
    assert example.question == f"Homework: {BENCHMARK}"
    assert example.detail.endswith(BENCHMARK)


def test_the_ledger_shows_nothing_of_a_benchmark_that_must_not_be_published(run):
    kept, ledger = run([math_row(problem=f"Homework: {BENCHMARK}"), math_row()], unseen=rule(private=True))
    (example,) = ledger.examples["contaminated"]
    assert (len(kept), example.question, example.detail) == (1, "(a question that must not be published)", "")
    assert BENCHMARK not in json.dumps(ledger.facts())


def test_a_row_that_repeats_what_must_not_be_published_is_hidden_whatever_it_is_dropped_for(run):
    rows = [math_row(), math_row(problem=BENCHMARK, answer="proof"), math_row(problem=BENCHMARK, question_type="MCQ")]
    _, ledger = run(rows, unseen=rule(private=True))
    assert {why for _, why in ledger.dropped} == {"no_answer", "question_type"}
    assert BENCHMARK not in json.dumps(ledger.facts())
    _, ledger = run(rows, unseen=rule())
    assert BENCHMARK in json.dumps(ledger.facts())


def test_a_ledger_survives_its_way_to_the_disk(run):
    _, ledger = run([math_row(), math_row(), math_row(problem="x", answer="proof", level=3)])
    assert Ledger.of_facts(json.loads(json.dumps(ledger.facts()))) == ledger


def test_what_was_kept_is_counted_by_source_level_and_kind_of_answer(run):
    answers = ["5", "1,204", "\\frac{1}{2}", "(B)", "x + 1", "0.5"]
    rows = [math_row(problem=f"{CLEAN} {i}", answer=answer, level=i % 2) for i, answer in enumerate(answers)]
    _, ledger = run(rows)
    kinds = Counter(kind for (_, _, kind), n in ledger.kept_by.items() for _ in range(n))
    assert kinds == {"integer": 2, "number": 2, "option": 1, "text": 1}
    assert {level for _, level, _ in ledger.kept_by} == {"0", "1"}
    assert ledger_tables.kept_by([ledger]).rows.sum() == 6


def test_the_traces_of_one_question_are_no_near_duplicates_of_each_other(run):
    rows = [math_row(generations=("<think>a</think>5", "<think>b</think>5"), verified=(True, True))]
    kept, _ = run(rows, generations=2, rules={"near_duplicates": 0.5})
    assert [row["thinking"] for row in kept] == ["a", "b"]


def test_one_question_after_other_turns_is_no_near_duplicate(run):
    def talk(first):
        answer = ("assistant", "<think>a</think>b")
        turns = [("user", first), answer, ("user", CLEAN), answer]
        return {"messages": [{"role": role, "content": text} for role, text in turns]}

    first, second = "Take 7 guests for the rest.", "Nobody may sit beside the host, and x = 12 chairs are broken."
    kept, ledger = run([talk(first), talk(second)], columns="messages", keep={}, rules={"near_duplicates": 0.5})
    assert (len(kept), ledger.dropped) == (2, {})


def test_nothing_is_compared_with_benchmarks_where_the_rule_is_null(run):
    unseen = Contamination([{"question": BENCHMARK, "private": False}], None)
    kept, _ = run([math_row(problem=BENCHMARK)], unseen=unseen)
    assert len(kept) == 1


def test_ids_are_unique_whatever_is_kept(run):
    kept, ledger = run([math_row(), math_row(), math_row()], rules={"duplicates": "keep"})
    assert (ledger.kept, len({row["id"] for row in kept})) == (3, 3)


def test_the_limit_takes_a_sample_or_the_first_the_longest_the_shortest(run):
    rows = [math_row(problem=f"{CLEAN} {i}", generations=[f"<think>{'why ' * (i + 1)}</think>5"]) for i in range(20)]
    numbers = lambda **options: [int(row["question"].split()[-1]) for row in run(rows, limit=5, **options)[0]]  # noqa: E731
    assert numbers() == numbers(choose="first") == [0, 1, 2, 3, 4]
    assert numbers(choose="longest") == [19, 18, 17, 16, 15]
    assert numbers(choose="shortest") == [0, 1, 2, 3, 4]
    drawn = numbers(choose="sample")
    assert drawn == numbers(choose="sample") != sorted(drawn)


def test_rows_that_the_limit_cuts_are_not_tokenized(run, monkeypatch):
    seen, encode = [], prompts.encode_rows
    monkeypatch.setattr(prompts, "encode_rows", lambda t, b, rows, *n: seen.extend(rows) or encode(t, b, rows, *n))
    monkeypatch.setattr(curate, "BATCH", 8)
    _, ledger = run([math_row(problem=f"{CLEAN} {i}") for i in range(50)], limit=5)
    assert (len(seen), ledger.dropped) == (8 + 1, {("olympiads", "over_limit"): 45})  # and the probe


def test_a_place_that_a_long_row_leaves_is_given_to_the_next(run):
    rows = [math_row(problem="word " * 200), *(math_row(problem=f"{CLEAN} {i}") for i in range(5))]
    assert len(run(rows, limit=5)[0]) == 5


def test_other_readings_of_the_paper_are_counted_in_the_same_pass(run):
    rows = [
        math_row(problem=f"{CLEAN} {i}", source="olympiads" if i % 2 else "other", verified=(i % 3 > 0,))
        for i in range(12)
    ]
    others = {"all": {"keep": {}, "correct": "any"}, "verified": {"keep": {}, "correct": "verified"}}
    _, ledger = run([*rows, rows[0]], alternatives=others, published=10)
    table = ledger_tables.readings([ledger])
    assert table[["reading", "rows", "questions", "rows less paper"]].values.tolist() == [
        ["this run", 4, 4, -6], ["all", 13, 12, 3], ["verified", 8, 8, -2],
    ]  # fmt: skip


def test_a_filter_that_refuses_nothing_or_everything_says_so(run):
    _, ledger = run([math_row(), math_row(problem="x", source="other")])
    assert ledger.notes == ["olympiads: `keep.question_type` refuses no row"]
    with pytest.raises(UserError, match=r"none of 1 raw rows is left: \{\('olympiads', 'source'\): 1\}"):
        run([math_row(source="other")])


def test_too_many_malformed_rows_end_the_stage_and_are_named(run):
    rows = [math_row(problem=f"{CLEAN} {i}") for i in range(98)] + [math_row(problem=[i]) for i in range(2)]
    assert run(rows, rules={"max_malformed": 0.02})[1].kept == 98
    said = r"2 of 100 rows of olympiads are malformed, more than curate.max_malformed \(0.01\) allows: f:99 problem: is"
    with pytest.raises(UserError, match=said):
        run(rows, rules={"max_malformed": None})


def test_turns_before_a_question_belong_to_it(run):
    def talk(first):
        turns = [
            ("user", first),
            ("assistant", "<think>a</think>b"),
            ("user", "Why?"),
            ("assistant", "<think>c</think>d"),
        ]
        return {"messages": [{"role": role, "content": text} for role, text in turns]}

    kept, ledger = run([talk("One?"), talk("Two?"), talk("One?")], columns="messages", keep={})
    assert ledger.dropped == {("olympiads", "duplicate"): 1}
    assert [row["history"][0]["content"] for row in kept] == ["One?", "Two?"]


def metadata_row(i, length=3):
    return {"problem": f"{CLEAN} {i}", "deepseek_reasoning": f"{i} " * length, "deepseek_solution": "5", "domain": "x"}


class Short(Words):
    """A tokenizer that makes little of a long row, and another vocabulary."""

    length = 9

    def get_vocab(self):
        return {"b": 3}


@pytest.fixture
def raw(monkeypatch):
    """The raw rows of the only source; a test may change them."""
    rows = [metadata_row(i) for i in range(5)] + [metadata_row(1)]
    monkeypatch.setattr(sources, "read_source", lambda *_: (Raw("", i, row) for i, row in enumerate(rows, 1)))
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
    assert sorted(p.name for p in cfg.rows("code").iterdir()) == [
        "artifact.json", "ids.bin", "ledger.parquet", "prompts.bin", "rows.jsonl", "starts.bin",
    ]  # fmt: skip


def test_rows_are_curated_again_only_when_what_decides_them_changed(cfg, raw, capsys):
    first = curate.curate_domain(cfg, "code", rule(), Words())
    raw.clear()  # would be seen if the source were read again
    assert curate.curate_domain(cfg, "code", rule(), Words()) == first
    assert "kept from before" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"^domains\.code: none of 0 raw rows is left"):
        curate.curate_domain(cfg, "code", rule(), Short())


def test_the_number_of_threads_makes_no_other_rows(cfg, raw):
    curate.curate_domain(cfg, "code", rule(), Words())
    rules = cfg.params.curate.model_copy(update={"num_proc": 7})
    other = cfg.model_copy(update={"params": cfg.params.model_copy(update={"curate": rules})})
    raw.clear()
    assert curate.curate_domain(other, "code", rule(), Words()).kept == 5


def test_a_source_that_was_read_before_a_kill_is_not_read_again(cfg, raw, monkeypatch):
    block = cfg.params.domains["code"]
    two = block.model_copy(update={"sources": [*block.sources, *block.sources]})
    cfg = cfg.model_copy(update={"params": cfg.params.model_copy(update={"domains": {"code": two}})})
    reads, read = [], sources.read_source

    def reading(*given):
        reads.append(1)
        if len(reads) == 2:
            raise KeyboardInterrupt
        return read(*given)

    monkeypatch.setattr(sources, "read_source", reading)
    with pytest.raises(KeyboardInterrupt):
        curate.curate_domain(cfg, "code", rule(), Words())
    ledger = curate.curate_domain(cfg, "code", rule(), Words())
    assert (len(reads), ledger.raw, ledger.kept) == (3, 12, 5)


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
        rows = (Raw("", i, metadata_row(i, length=1500)) for i in range(count))
        monkeypatch.setattr(sources, "read_source", lambda *_: rows)
        tracemalloc.start()
        try:
            curate.curate_domain(cfg, "code", rule(), Short())
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few = peak(1000)
    small = (cfg.rows("code") / tokens.ROWS).stat().st_size
    shutil.rmtree(cfg.rows("code"))
    more = peak(6000) - few
    text = (cfg.rows("code") / tokens.ROWS).stat().st_size - small
    assert text > 30e6
    assert more < 10e6, f"{more / 1e6:.0f} MB were held for {text / 1e6:.0f} MB of rows"


def test_a_funnel_has_a_line_for_each_domain_that_sums_to_its_raw_rows(run):
    _, one = run([math_row(), math_row(), math_row(problem=f"{CLEAN} 2", answer="proof")])
    other = Outcomes("history")
    other.settle("files", "a.jsonl", 1, "kept")
    other.settle("files", "a.jsonl", 2, "language", "q")
    table = ledger_tables.fates([one, other.summary])
    assert table.columns.tolist() == ["no_answer", "duplicate", "language", "kept"]
    assert table.to_dict("index") == {
        "math": {"no_answer": 1, "duplicate": 1, "language": 0, "kept": 1},
        "history": {"no_answer": 0, "duplicate": 0, "language": 1, "kept": 1},
    }


def test_the_teacher_writes_traces_where_a_source_asks_for_them(run):
    rows = [
        math_row(),
        math_row(problem="Second?", generations=["<think>cut"]),
        math_row(problem="Third?", generations=[], verified=None),
    ]
    one = SimpleNamespace(outcome="written", thinking="t", response="r", samples=1)
    with pytest.raises(UserError, match="teacher_not_asked"):
        run(rows, traces="all")
    monkey, key = curate.curate_domain, lambda question: readers.seed_key(Parsed(question))
    taught = {
        key("Second?"): one,
        key("Third?"): SimpleNamespace(outcome="refused", samples=2),
    }
    try:
        curate.curate_domain = lambda *given: monkey(*given, taught)
        kept, ledger = run(rows, traces="missing")
    finally:
        curate.curate_domain = monkey
    assert [(row["thinking"], row["response"]) for row in kept] == [("a", "b"), ("t", "r")]
    assert ledger.dropped == {("olympiads", "teacher_refused"): 1}
