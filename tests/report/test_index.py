"""The index of a run opens from a file, offline, and says what happened."""

import html
import json
import re
import shutil

import pandas as pd
from report_parts import write_record, write_scores
from test_pages import fetched

from tinyr1.core import artifact, config, record
from tinyr1.core.config import ROOT, STAGES
from tinyr1.report import ablation_lines, index, roles


def index_of(cfg, **how: object) -> str:
    return index.write_index(cfg, **how).read_text(encoding="utf-8")


def row_of(page: str, stage: str) -> str:
    start = page.index(f'data-stage="{stage}"')
    return page[start : page.index("</tr>", start)]


def states_of(page: str) -> list[str]:
    return [re.search(r'class="status ([\w ]+)">\1<', row_of(page, s))[1] for s in STAGES]


def test_the_index_shows_the_state_of_every_stage(cfg):
    write_record(cfg, STAGES[0])
    write_record(cfg, STAGES[1])
    page = index_of(cfg, running=STAGES[3], failures={STAGES[2]: "ValueError: a <b>\nmore"})
    assert states_of(page) == ["finished", "finished", "failed", "running", "not run"]
    assert "2 of 5 stages finished, 5 min 9 s of work" in page
    assert "2025-03-07 10:11:12 UTC" in row_of(page, STAGES[0])
    assert "ValueError: a &lt;b&gt;" in page
    assert "more" not in page[page.index("ValueError") : page.index("</tr>", page.index("ValueError"))]


def test_a_failure_outweighs_an_older_record(cfg):
    write_record(cfg, STAGES[0])
    page = index_of(cfg, failures={STAGES[0]: "KeyError: 'x'"})
    assert "0 of 5 stages finished" in page
    assert "2025-03-07" not in page


def test_the_time_of_a_stage_is_the_sum_of_its_parts(cfg):
    write_record(cfg, STAGES[0])
    page = index_of(cfg)
    assert "<summary>2 min 34 s</summary>" in page
    assert "<td>code &lt;x&gt;</td><td>93.5 s</td>" in page


def test_the_index_links_rendered_stages_and_the_failing_cell(cfg):
    cfg.reports.mkdir(parents=True)
    for stage in STAGES[:2]:
        (cfg.reports / f"{stage}.html").write_text("page")
    page = index_of(cfg, failures={STAGES[1]: "dead", STAGES[2]: "never rendered"})
    assert f'<a href="{STAGES[0]}.html">{STAGES[0]}</a>' in page
    assert f'<a href="{STAGES[1]}.html#papermill-error-cell">' in page
    assert f'href="{STAGES[2]}.html' not in page


def test_the_index_says_which_code_and_machine_made_the_numbers(cfg):
    write_record(cfg, STAGES[0])
    page = index_of(cfg)
    assert "commit 0123456789<" in page
    assert "2 CPU cores, 7.9 GB memory, no GPU; Python 3.11.9, torch 2.8.0" in page
    write_record(cfg, STAGES[1], code={"commit": "fedcba9876543210", "modified": True, "source": "s"})
    page = index_of(cfg)
    assert 'commit fedcba9876, with uncommitted changes <span class="soft">(stages 02)' in page


def test_a_report_without_its_checkpoints_stands_as_finished(whole):
    page = index_of(whole)
    assert states_of(page) == ["finished"] * 5
    assert "earlier run" not in page


def test_the_committed_report_stands_as_finished(monkeypatch, tmp_path):
    monkeypatch.setenv("TINYR1_HOME", str(tmp_path / "runs"))
    shutil.copytree(ROOT / "reports" / "smol", config.load("smol").reports)
    assert states_of(index_of(config.load("smol"))) == ["finished"] * 5


def test_while_a_stage_runs_or_after_it_failed_the_stages_after_it_are_not_finished(whole):
    entry = record.record_path(whole, STAGES[1]).read_text()
    pages = [index_of(whole, running=STAGES[1])]  # its record is there still: the stages after it have the right keys
    record.record_path(whole, STAGES[1]).unlink()
    pages += [index_of(whole, running=STAGES[1]), index_of(whole, interrupted=STAGES[1]),
              index_of(whole, failures={STAGES[1]: "KeyError: 'x'"}), index_of(whole)]  # fmt: skip
    states = [states_of(page) for page in pages]
    assert [s[1] for s in states] == ["running", "running", "interrupted", "failed", "not run"]
    for page, state in zip(pages, states, strict=True):
        assert [state[0], *state[2:]] == ["finished", "outdated", "outdated", "outdated"]
        assert "1 of 5 stages finished, 2 min 34 s of work" in page
        assert "from an earlier run of the stages above" in row_of(page, STAGES[2])
        assert "04_evaluation: outdated. These scores are of an earlier run." in page
        assert "A figure of a stage that is not finished may be of an earlier run." in page
    artifact.write_atomic(record.record_path(whole, STAGES[1]), entry)
    assert states_of(index_of(whole)) == ["finished"] * 5


def test_a_stage_whose_inputs_have_changed_is_outdated(whole):
    write_record(whole, STAGES[1], artifacts={"math": {"path": "branches/math", "content": "retrained"}})
    page = index_of(whole)
    assert states_of(page) == ["finished", "finished", "outdated", "outdated", "outdated"]
    assert "made from other parameters or inputs" in row_of(page, STAGES[2])
    assert "2025-03-07 10:11:12 UTC" in row_of(page, STAGES[2])


def test_a_stage_made_from_other_parameters_is_outdated(whole):
    path = config.params_folder() / "smol.yaml"
    path.write_text(path.read_text().replace("iqr_multiplier: 1.5", "iqr_multiplier: 7.5"))
    page = index_of(config.load("smol"))
    assert states_of(page) == ["finished", "finished", "outdated", "outdated", "outdated"]
    assert "made from other parameters or inputs" in row_of(page, STAGES[2])


def test_scores_of_a_stage_that_is_run_again_may_be_of_an_earlier_run(whole):
    assert "04_evaluation: running. These scores may be of an earlier run." in index_of(whole, running=STAGES[3])
    assert "These scores" not in index_of(whole, running=STAGES[4])


def test_a_damaged_record_does_not_keep_the_page_from_being_written(whole):
    record.record_path(whole, STAGES[2]).write_text("<<<<<<< HEAD\n")
    page = index_of(whole)
    assert states_of(page) == ["finished", "finished", "outdated", "outdated", "outdated"]
    assert "its record is damaged" in row_of(page, STAGES[2])


def test_the_stage_that_the_page_shows_as_running_can_be_read_from_it(whole):
    assert index.shown_as_running(whole) is None
    index_of(whole, running=STAGES[3])
    assert index.shown_as_running(whole) == STAGES[3]
    index_of(whole, interrupted=STAGES[3])
    assert index.shown_as_running(whole) is None


def test_scores_stand_with_their_interval_and_size(cfg):
    write_scores(
        cfg,
        ("smol", "backbone", "mini-math", 96, 1, 0.34375, 0.2708, 0.4161, 80.0, 0, 0, ""),
        ("smol", "math", "mini-math", 96, 1, 0.5, 0.4, 0.6, 80.0, 0, 0, ""),
        ("smol", "math", "mini-code", 40, 4, 0.1, 0.05, 0.15, 80.0, 0, 0, "nan"),
    )
    page = index_of(cfg)
    assert re.sub("<[^>]+>", "", page).count("34.4 % [27.1, 41.6]") == 1
    assert "mini-math<small>96 questions × 1 answer</small></th>" in page
    assert "mini-code<small>40 questions × 4 answers</small></th>" in page
    assert page.count("–</span>") == 1  # the backbone has no mini-code
    assert "guessing" not in page, "tables of earlier versions have no chance level"
    assert "Published by the paper" not in page


def test_chance_has_a_row_and_a_score_that_does_not_reach_above_it_says_so(cfg):
    write_scores(
        cfg,
        ("smol", "math", "mini-science", 96, 1, 0.3, 0.25, 0.4, 80.0, 0, 0, ""),
        ("smol", "science", "mini-science", 96, 1, 0.5, 0.4, 0.6, 80.0, 0, 0, ""),
        ("smol", "math", "mini-code", 96, 1, 0.0, 0.0, 0.1, 80.0, 0, 0, ""),
        ("smol", "science", "mini-code", 96, 1, 0.1, 0.05, 0.2, 80.0, 0, 0, ""),
    )
    table = pd.read_csv(cfg.reports / "scores.csv")
    table["chance"] = table.benchmark.map({"mini-science": 0.25, "mini-code": 0.0})
    table.to_csv(cfg.reports / "scores.csv", index=False)
    page = index_of(cfg)
    assert page.count("<small>not above chance</small>") == 1
    assert page.count('<u style="left:25.0%">') == 2
    assert '<th scope="row">guessing</th><td>25.0 %</td><td><span class="soft">–</span></td>' in page
    assert "| *guessing* | 25.0 | – |" in (cfg.reports / "README.md").read_text()


CLAIM = {
    "id": "t1", "group": "Main results", "source": "paper Table 1", "claim": "merged > <backbone>",
    "confirmatory": True, "paper_value": "+5.5",
    "paper_supports_itself": "only its sign", "ours": 7.25, "low": 2.0, "high": 12.5, "unit": "points", "n": 324,
    "k": 1, "why": "higher",
}  # fmt: skip


def test_verdicts_are_counted_and_what_was_not_decided_stands_apart(whole):
    verdicts = ("supported", "not distinguishable", "supported", "not run")
    claims = [CLAIM | {"id": str(i), "verdict": verdict} for i, verdict in enumerate(verdicts)]
    for verdict in ("contradicted", "undecided"):  # not the paper's
        claims.append(CLAIM | {"claim": "our own", "group": "Headline", "verdict": verdict})
    artifact.write_atomic(whole.reports / "claims.json", json.dumps(claims))
    page = index_of(whole)
    counted = re.findall(r'<dt>([\w ]+)</dt><dd class="many">(\d+)</dd><dd>\w+', page)
    names = ("supported", "contradicted", "not distinguishable", "not run", "cannot be checked")
    assert counted == list(zip(names, "20110", strict=True))
    decided, others = page.split(
        "What was not shown: 2 statements of the paper and 1 of the comparisons that the params file names</summary>"
    )
    said = "<td>merged &gt; &lt;backbone&gt;<small>paper Table 1; <b>confirmatory</b></small></td>"
    assert (decided.count(said), others.count(said)) == (2, 2)
    assert "<td>+5.5<small>only its sign</small></td>" in decided
    assert "<td>+7.2 [+2.0, +12.5] points, n = 324 × 1</td><td>supported<small>higher</small></td>" in decided
    said = "2 supported, 0 contradicted, 1 not distinguishable, 1 not run, 0 cannot be checked."
    assert said in (whole.reports / "README.md").read_text()


def test_ablations_answer_their_questions_and_the_confirmatory_comparisons_are_repeated(whole):
    for name in ("ablations.csv", "ablation_questions.csv"):
        artifact.write_atomic(whole.reports / name, (ROOT / "reports" / "smol" / name).read_bytes())
    page = html.unescape(index_of(whole))
    lines = ablation_lines.lines(whole)
    assert [line.question for line in lines] == [group.question for group in whole.params.ablations.groups.values()]
    for line in lines:
        assert f'<tr><td>{line.question}</td><td class="num">{line.trainings}</td><td>{line.control}</td>' in page
    assert [line.trainings for line in lines[:3]] == [3, 3, 1]
    said = [text.split(" ", 1) for models in lines[1].models for text in models.split("; ") if text]
    assert sorted(name for name, _ in said) == ["average", "largest", "random-masks", "ties"], "each has one verdict"
    assert all(re.fullmatch(r"[+-][\d.]+ \[[+-][\d.]+, [+-][\d.]+\]", points) for _, points in said)
    for name in whole.params.ablations.merges():
        assert f"<dt>{name}</dt><dd>merged without training" in page
    repeated = page.split("when the training is repeated")[1].split("</table>")[0]
    for pair in whole.params.analysis.headline:
        assert f"<td>{pair.model}</td><td>{pair.against}</td><td>3</td>" in repeated


def test_the_headline_comes_before_everything_else(whole):
    page = index_of(whole)
    assert page.index('<p class="headline">The merged model is no better.') < page.index("<dl")
    assert (whole.reports / "README.md").read_text().split("\n\n")[2] == "The merged model is no better."


def test_a_part_whose_data_is_not_there_says_so(cfg):
    page = index_of(cfg)
    for sentence in (
        "Nothing is found yet: the last stage, 05_ablations, is not finished.",
        "There are no verdicts yet", "There are no scores yet", "There are no figures of results yet",
        "The ablations of this run were not made", "No stage is finished yet",
        "There is no params/paper.yaml to compare with.",
    ):  # fmt: skip
        assert sentence in page
    assert "The run is not finished; run `make reproduce RUN=smol`." in (cfg.reports / "README.md").read_text()


def test_every_model_is_explained_before_the_scores(whole):
    page = html.unescape(index_of(whole))
    for model in whole.models:
        assert page.index(f"<dt>{model}</dt>") < page.index('<table class="scores">')
    assert "<dd>merged without training, Arcee Fusion: (math & science) & code</dd>" in page


def test_every_benchmark_is_explained_before_the_scores(whole):
    page = html.unescape(index_of(whole))
    for benchmark in whole.params.benchmarks:
        assert page.index(f"<dt>{benchmark}</dt>") < page.index('<table class="scores">')
    assert "<dd>made-up small programming problems, judged by running the programs</dd>" in page


def test_every_kind_of_benchmark_has_words():
    for name in ("smoke", "smol", "r1-1.5b", "paper"):
        cfg = config.load(name)
        assert [benchmark for benchmark, _ in roles.benchmark_roles(cfg)] == list(cfg.params.benchmarks)


def test_parameters_are_shown_as_differences_from_the_papers_run(cfg):
    shutil.copy(ROOT / "params" / "paper.yaml", config.params_folder())
    page = html.unescape(index_of(cfg))
    rows = dict(re.findall('<tr><th scope="row">([^<]+)</th>(<td>.*?</td><td>.*?</td>)</tr>', page))
    assert rows["domains.math.sft.epochs"] == "<td>5</td><td>1</td>"
    assert "merge.iqr_multiplier" not in rows, "it is the paper's"
    assert f"{len(rows)} parameters differ from params/paper.yaml" in page


def test_hashes_of_what_was_made_are_cut_to_their_first_digits(whole):
    made = {"math": {"path": "branches/math", "content": "a" * 64}}
    write_record(whole, STAGES[1], artifacts=made)
    page = index_of(whole)
    assert f"<td>{STAGES[1]}</td><td>branches/math</td><td><code>{'a' * 12}</code></td>" in page
    assert "a" * 13 not in page


def test_numbers_of_the_paper_stand_in_a_table_of_their_own(cfg):
    write_scores(
        cfg,
        ("paper", "backbone", "aime", 30, 16, 0.7, 0.6, 0.8, 80.0, 0, 0, 0.726),
        ("paper", "math-code-science", "aime", 30, 16, 0.7, 0.6, 0.8, 80.0, 0, 0, ""),
    )
    ours, paper = index_of(cfg).split("Published by the paper, not measured here")
    assert "72.6 %" in paper
    assert "72.6 %" not in ours
    assert "math-code-science" in ours
    assert "math-code-science" not in paper.split("</table>")[0]


def write_old_scores(cfg, *missing: str) -> None:
    """scores.csv of a version that did not write these columns."""
    write_scores(cfg, ("smol", "math", "mini-math", 96, 1, 0.5, 0.4, 0.6, 80.0, 0, 0, ""))
    table = pd.read_csv(cfg.reports / "scores.csv", dtype=str).drop(columns=list(missing))
    table.to_csv(cfg.reports / "scores.csv", index=False)


def test_old_scores_are_shown_with_the_command_that_makes_them_again(cfg):
    write_old_scores(cfg, "timeout", "grader_error")
    page = html.unescape(index_of(cfg))
    assert "50.0 %" in page
    said = "scores.csv has no column timeout, grader_error: an earlier version of this kit wrote it; "
    assert f"{said}remove {cfg.reports}/scores.csv and run `make 04_evaluation RUN=smol`." in page
    write_scores(cfg, ("smol", "math", "mini-math", 96, 1, 0.5, 0.4, 0.6, 80.0, 0, 0, ""))
    assert "an earlier version" not in index_of(cfg)


def test_old_scores_that_cannot_be_shown_do_not_keep_the_page_from_being_written(cfg):
    write_old_scores(cfg, "ci_low", "ci_high")
    page = html.unescape(index_of(cfg, running=STAGES[3]))
    assert "scores.csv has no column ci_low, ci_high" in page
    assert "50.0 %" not in page
    artifact.write_atomic(cfg.reports / "scores.csv", "")
    assert "scores.csv has no column run, model," in index_of(cfg)


def test_files_are_linked_by_name_and_notebooks_are_not(cfg):
    cfg.reports.mkdir(parents=True)
    for name in ("loss & lr#1.png", "table.csv", "01_data_curation.ipynb", ".table.csv"):
        (cfg.reports / name).write_text("x")
    page = index_of(cfg)
    assert '<a href="loss%20%26%20lr%231.png">loss &amp; lr#1.png</a>' in page
    assert '<a href="table.csv">' in page
    assert ".ipynb" not in page
    assert ".table.csv" not in page


def test_the_figures_that_carry_conclusions_come_with_two_sentences_each(cfg):
    for name in ("gains.png", "curation_funnel.png", "figure_1.png", "figure_1.svg"):
        artifact.write_atomic(cfg.reports / name, "")
    page = index_of(cfg)
    shown = [html.unescape(text) for text in re.findall("<figcaption>(.*?)</figcaption>", page)]
    assert shown == [index.FIGURES[name] for name in ("figure_1", "gains")]
    assert re.findall('<img src="([^"]+)"', page) == ["figure_1.svg", "gains.png"]
    assert all(len(re.findall(r"\.( |$)", text)) == 2 for text in index.FIGURES.values())


def test_everything_in_the_index_is_escaped_and_nothing_is_fetched(cfg):
    page = index_of(cfg)
    assert "small &lt;b&gt;and&lt;/b&gt; offline" in page
    assert "<b>and</b>" not in page
    assert not fetched(page)


def test_the_index_shows_the_parameters(cfg):
    page = index_of(cfg)
    assert f"learning_rate: {cfg.params.domains['math'].sft.learning_rate}" in page
    assert "method: fusion" in page
