"""What notebook 01 shows of rows agrees with what curation did to them."""

import pytest
from test_contamination import BENCHMARK, CLEAN, rule
from test_curate import Words, encode_words, math_row, metadata_row  # noqa: F401  # a fixture
from test_readers import source

from tinyr1.core import config, prompts
from tinyr1.core.errors import UserError
from tinyr1.data import curate, examples, ledger, sources
from tinyr1.data.miniature import raw as miniature
from tinyr1.data.sources import Raw


class Template(Words):
    def decode(self, ids):
        return f"<{ids[0]}>"


@pytest.fixture
def rows(monkeypatch, encode_words):  # noqa: F811
    """The raw rows of the only source; a test may change them."""
    made = [math_row()]
    monkeypatch.setattr(sources, "read_source", lambda *_: (Raw("f", i, row) for i, row in enumerate(made, 1)))
    monkeypatch.setattr(sources, "find", lambda *_: sources.Found([]))
    encode = lambda t, b, row, template: prompts.encode_rows(t, b, [row], template=template)[0]  # noqa: E731
    monkeypatch.setattr(prompts, "encode_row", encode)
    monkeypatch.setattr(prompts, "render_messages", lambda t, messages, open_think: messages[-1]["content"])
    return made


@pytest.fixture
def cfg(home, rows):
    """The run smol with the domain math and no other, whose source gives `rows`."""
    cfg = config.load("smol")
    spec = source("openr1_math", keep={"question_type": ["math-word-problem"], "source": ["olympiads"]})
    block = cfg.params.domains["math"].model_copy(update={"sources": [spec], "limit": 2})
    params = cfg.params.model_copy(update={"domains": {"math": block}})
    params = params.model_copy(
        update={"curate": params.curate.model_copy(update={"max_tokens": 60, "max_malformed": 1})}
    )
    return cfg.model_copy(update={"params": params})


def test_every_kind_of_dirt_is_explained_with_its_share_and_a_reason_that_curation_has(home):
    assert examples.DIRT.keys() == miniature.DIRT.keys()
    for _, reasons in examples.DIRT.values():
        assert set(reasons.replace(", or ", ",").split(",")) <= ledger.REASONS.keys()
    table = examples.dirt(config.load("smol"))
    assert [share.rstrip("%") for share in table.share] == [f"{100 * share:.0f}" for share in miniature.DIRT.values()]
    assert table["rows of"]["proof"] == "math (openr1_math)"
    assert "science (s1)" in table["rows of"]["wrong"]


def test_real_rows_have_no_dirt_of_ours(cfg):
    table = examples.dirt(cfg)
    assert len(table) == 0
    assert list(table.columns) == ["share", "what is done to a good row", "noticed as", "rows of"]


def test_a_dropped_row_is_shown_for_each_reason_with_what_decided(cfg, rows):
    rows += [
        math_row(problem="a proof", question_type="proof"), math_row(problem="another proof", question_type="proof"),
        math_row(problem="no answer", answer="notfound"), math_row(problem="not right", verified=(False,)),
        math_row(problem="cut", generations=("<think>cut off",)), math_row(problem=f"  {CLEAN}\n"),
        math_row(problem=BENCHMARK), math_row(problem="word " * 61), math_row(problem="a second"),
        math_row(problem="a third"),
    ]  # fmt: skip
    found = curate.curate_domain(cfg, "math", rule(), Template())
    table = ledger.examples_table([found])
    assert set(table.index) == {why for _, why in found.dropped}
    assert list(dict.fromkeys(table.index)) == [why for why in ledger.REASONS if why in table.index]
    first = table[~table.index.duplicated()]
    assert first.meaning.to_dict() == {why: ledger.REASONS[why] for why in first.index}
    seen = first.apply(lambda row: (row.question, row["seen by"]), axis=1).to_dict()
    assert seen["question_type"] == ("a proof", "question_type: 'proof'")
    assert seen["no_answer"] == ("no answer", "answer: 'notfound'")
    assert seen["unverified"][0] == "not right"
    assert seen["incomplete"] == ("cut", "</think> is never written")
    assert seen["duplicate"][0].strip() == CLEAN
    assert seen["contaminated"][0] == BENCHMARK
    assert seen["contaminated"][1].endswith(BENCHMARK)
    assert "curate.max_tokens: 60" in seen["too_long"][1]
    assert seen["over_limit"] == ("a third", "limit: 2")
    assert table.loc["question_type", "row"].tolist() == ["f:2", "f:3"]


def test_a_question_that_must_not_be_published_is_shown_nowhere(cfg, rows):
    rows += [math_row(problem=BENCHMARK)]
    found = curate.curate_domain(cfg, "math", rule(private=True), Template())
    assert BENCHMARK not in ledger.examples_table([found]).to_string()
    views = examples.viewed_rows(cfg, Template(), [found])
    assert [view["outcome"] for view in views] == ["kept"]
    assert BENCHMARK not in (cfg.rows("math") / ledger.LEDGER).read_bytes().decode("latin-1")


def test_a_reason_of_the_params_file_s_own_is_explained(cfg, rows):
    spec = source("openthoughts_metadata", keep={"difficulty": ["easy"]})
    block = cfg.params.domains["math"].model_copy(update={"sources": [spec]})
    cfg = cfg.model_copy(update={"params": cfg.params.model_copy(update={"domains": {"math": block}})})
    rows[:] = [metadata_row(1) | {"difficulty": "easy"}, metadata_row(2) | {"difficulty": "hard"}]
    (row,) = ledger.examples_table([curate.curate_domain(cfg, "math", rule(), Template())]).itertuples()
    assert (row.Index, row.meaning) == ("difficulty", "its difficulty is not one that the params file keeps")
    assert row[-1] == "difficulty: 'hard'"


def test_rows_of_every_outcome_are_shown_on_their_way(cfg, rows):
    rows[:] = [math_row(answer="proof"), math_row(), math_row(problem=f"{CLEAN} 2"), math_row(problem=["list"])]
    found = curate.curate_domain(cfg, "math", rule(), Template())
    views = {view["row"]: view for view in examples.viewed_rows(cfg, Template(), [found])}
    assert {row: view["outcome"] for row, view in views.items()} == {
        1: "no_answer",
        2: "kept",
        3: "kept",
        4: "malformed",
    }
    assert views[4]["detail"] == "problem: is a list, not text"
    assert views[1]["normalised"] is views[1]["tokens"] is None
    kept = views[2]
    assert kept["raw"] == rows[1]
    assert kept["normalised"] == {
        "question": CLEAN,
        "starter_code": "",
        "thinking": "a",
        "response": "b",
        "answer": "5",
    }
    assert kept["tokens"][0] == ["<3>", False]
    assert kept["tokens"][-1] == ["<2>", True]
    assert cfg.params.domains["math"].instruction in kept["prompt"]
    assert kept["target"].endswith("a\n</think>\n\nb")


def test_a_row_whose_source_is_gone_is_an_error_with_the_remedy(cfg, rows):
    found = curate.curate_domain(cfg, "math", rule(), Template())
    rows.clear()
    with pytest.raises(UserError, match=r"the sources hold no row .*01_data_curation RUN=smol"):
        examples.viewed_rows(cfg, Template(), [found])
