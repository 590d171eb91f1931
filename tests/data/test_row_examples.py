"""What notebook 01 shows of rows agrees with what curation did to them."""

import pytest
from test_contamination import BENCHMARK, CLEAN, rule
from test_curate import Words, math_row, metadata_row
from test_readers import source

from tinyr1.core import config
from tinyr1.core.errors import UserError
from tinyr1.data import curate, examples
from tinyr1.data.miniature import raw as miniature


class Template(Words):
    eos_token = "<end>"


@pytest.fixture
def rows(monkeypatch):
    """The raw rows of the only source; a test may change them."""
    made = [math_row()]
    for module in (curate, examples):
        monkeypatch.setattr(module, "read_source", lambda source, domain, seed: iter(made))
    return made


@pytest.fixture
def cfg(home, rows):
    """The run smol with the domain math and no other, whose source gives `rows`."""
    cfg = config.load("smol")
    spec = source("openr1_math", keep={"question_type": ["math-word-problem"], "source": ["olympiads"]})
    block = cfg.params.domains["math"].model_copy(update={"sources": [spec], "limit": 2})
    params = cfg.params.model_copy(update={"domains": {"math": block}})
    params = params.model_copy(update={"curate": params.curate.model_copy(update={"max_tokens": 60})})
    return cfg.model_copy(update={"params": params})


def test_every_kind_of_dirt_is_explained_with_its_share_and_a_reason_that_curation_has(home):
    assert examples.DIRT.keys() == miniature.DIRT.keys()
    for _, reasons in examples.DIRT.values():
        assert set(reasons.replace(", or ", ",").split(",")) <= curate.REASONS.keys()
    table = examples.dirt(config.load("smol"))
    assert [share.rstrip("%") for share in table.share] == [f"{100 * share:.0f}" for share in miniature.DIRT.values()]
    assert table["rows of"]["proof"] == "math (openr1_math)"
    assert "science (s1)" in table["rows of"]["wrong"]


def test_real_rows_have_no_dirt_of_ours(cfg):
    table = examples.dirt(cfg)
    assert len(table) == 0
    assert list(table.columns) == ["share", "what is done to a good row", "noticed as", "rows of"]


@pytest.mark.parametrize("columns", ["openr1_math", "openthoughts", "openthoughts_metadata", "s1"])
def test_the_question_of_a_raw_row_is_read_from_the_columns_of_every_dataset(columns):
    for row in miniature.rows("science", columns, 3, [1], 1):
        assert miniature.SCIENCE_FAMILIES  # the questions are science questions in other datasets' columns
        assert len(examples.question_of(row)) > 10
    assert examples.question_of({"answer": "5"}) == ""


def test_a_dropped_row_is_shown_for_each_reason_with_what_decided(cfg, rows):
    rows += [
        math_row(problem="a proof", question_type="proof"), math_row(problem="another proof", question_type="proof"),
        math_row(problem="no answer", answer="notfound"), math_row(problem="not right", verified=(False,)),
        math_row(problem="cut", generations=("<think>cut off",)), math_row(problem=f"  {CLEAN.upper()}?"),
        math_row(problem=BENCHMARK), math_row(problem="word " * 61), math_row(problem="a second"),
        math_row(problem="a third"),
    ]  # fmt: skip
    ledger = curate.curate_domain(cfg, "math", rule(), Template())
    table = examples.dropped_rows(cfg, [ledger])
    assert set(table.index) == {why for _, why in ledger.dropped}
    assert table.index.tolist() == [why for why in curate.REASONS if why in table.index]
    assert table.meaning.to_dict() == {why: curate.REASONS[why] for why in table.index}
    seen = table.apply(lambda row: (row.question, row["seen by"]), axis=1).to_dict()
    assert seen["question_type"] == ("a proof", "question_type: 'proof'")
    assert seen["no_answer"] == ("no answer", "answer: 'notfound'")
    assert seen["unverified"] == ("not right", "correctness_math_verify: '[False]'")
    assert seen["incomplete"] == ("cut", "generations: \"['<think>cut off']\"")
    assert seen["duplicate"] == (f"{CLEAN.upper()}?", "an earlier row asks the same")
    assert seen["contaminated"] == (BENCHMARK, f"benchmark question: {BENCHMARK}")
    assert seen["too_long"][1] == "curate.max_tokens: 60"
    assert seen["over_limit"] == ("a third", "limit of the domain: 2")


def test_the_sources_are_not_read_again_where_the_ledger_shows_every_reason(cfg, rows, monkeypatch):
    rows += [math_row()]
    ledger = curate.curate_domain(cfg, "math", rule(), Template())
    monkeypatch.setattr(examples, "read_source", lambda *_: pytest.fail("read again"))
    assert examples.dropped_rows(cfg, [ledger]).index.tolist() == ["duplicate"]


def test_a_question_that_must_not_be_published_is_not_shown(cfg, rows):
    rows += [math_row(problem=BENCHMARK)]
    ledger = curate.curate_domain(cfg, "math", rule(private=True), Template())
    assert BENCHMARK not in examples.dropped_rows(cfg, [ledger]).to_string()


def test_a_reason_of_the_params_file_s_own_is_explained(cfg, rows):
    spec = source("openthoughts_metadata", keep={"difficulty": ["easy"]})
    block = cfg.params.domains["math"].model_copy(update={"sources": [spec]})
    cfg = cfg.model_copy(update={"params": cfg.params.model_copy(update={"domains": {"math": block}})})
    rows[:] = [metadata_row(1) | {"difficulty": "easy"}, metadata_row(2) | {"difficulty": "hard"}]
    ledger = curate.curate_domain(cfg, "math", rule(), Template())
    (row,) = examples.dropped_rows(cfg, [ledger]).itertuples()
    assert (row.Index, row.meaning) == ("difficulty", "its difficulty is not one that the params file keeps")
    assert row[-1] == "difficulty: 'hard'"


def test_a_row_is_shown_raw_normalised_and_rendered(cfg, rows):
    rows[:] = [math_row(answer="proof"), math_row(), math_row(problem=f"{CLEAN} 2")]
    curate.curate_domain(cfg, "math", rule(), Template())
    text = examples.journey(cfg, Template())
    raw, normalised, prompt, target = text.split("\n\n=== ")
    assert "the columns of openr1_math" in raw
    assert "generations: ['<think>a</think>b']" in raw
    assert "answer: 5" in raw, "the row before it was dropped"
    assert f"question: {CLEAN}\nstarter_code: \nthinking: a\nresponse: b" in normalised
    assert cfg.params.domains["math"].instruction in prompt
    assert target.endswith("a\n</think>\n\nb")
    assert "before <end>" in target


def test_a_row_whose_source_is_gone_is_an_error_with_the_remedy(cfg, rows):
    curate.curate_domain(cfg, "math", rule(), Template())
    rows[:] = [math_row(problem="another")]
    with pytest.raises(UserError, match=r"no raw row of the sources gives row math-.*01_data_curation RUN=smol"):
        examples.journey(cfg, Template())


def test_a_long_value_is_shown_by_its_two_ends():
    text = examples.short("a" * 300 + "\n" + "b" * 300, 20)
    assert text == "a" * 10 + " […] " + "b" * 10
    assert examples.short("two\n lines") == "two lines"
