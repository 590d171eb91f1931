"""A finished report is copied as it is shown, and the README's table follows from it."""

import json
import os

import pytest
from report_parts import write_record, write_scores
from test_index import CLAIM

from tinyr1.core import artifact, config, record
from tinyr1.core.config import STAGES
from tinyr1.core.errors import UserError
from tinyr1.core.params.domains import HubSource
from tinyr1.report import publish
from tinyr1.report import readme as readme_writer

BEFORE = "before\n<!-- results of smol: written by hand -->\nold\n<!-- /results -->\nafter"


@pytest.fixture
def readme(tmp_path, monkeypatch):
    """A README of its own with the markers of run smol."""
    path = tmp_path / "README.md"
    path.write_text(BEFORE, encoding="utf-8")
    monkeypatch.setattr(readme_writer, "README", path)
    return path


@pytest.fixture
def ready(whole, readme):
    """A finished run with the page of every stage."""
    for stage in STAGES:
        artifact.write_atomic(whole.reports / f"{stage}.html", f"page of {stage}")
    return whole


def published():
    """Names in the published folder of the run."""
    folder = config.reports_folder() / "smol"
    return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []


def run_publish(monkeypatch):
    monkeypatch.setattr("sys.argv", ["publish", "smol"])
    return publish.main()


def test_the_report_is_copied_and_nothing_else(ready, readme, monkeypatch, capsys):
    (ready.reports / "05_ablations.ipynb").write_text("{}")
    (ready.reports / ".gains.png.7.tmp").write_text("half")
    (ready.reports / "notes.txt").write_text("mine")
    assert run_publish(monkeypatch) == 0
    stages = [f"{stage}{suffix}" for stage in STAGES for suffix in (".html", ".json")]
    assert published() == sorted([*stages, "README.md", "gains.png", "index.html", "scores.csv"])
    folder = config.reports_folder() / "smol"
    assert capsys.readouterr().out == f"written: {folder}\nwritten: {readme}\n"
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "5 of 5 stages finished" in page
    assert "notes.txt" not in page


def test_stale_files_of_an_earlier_publication_go_and_other_files_stay(ready):
    folder = config.reports_folder() / "smol"
    folder.mkdir(parents=True)
    for name in ("old_figure.png", "06_more.html", ".scores.csv.7.tmp", "notes.txt"):
        (folder / name).write_text("old")
    publish.publish(ready)
    assert not {"old_figure.png", "06_more.html", ".scores.csv.7.tmp"} & set(published())
    assert (folder / "notes.txt").read_text() == "old"


def test_a_second_publication_writes_the_same(ready, readme):
    def content():
        return {p.name: p.read_bytes() for p in (config.reports_folder() / "smol").iterdir()}

    publish.publish(ready)
    first, text = content(), readme.read_text(encoding="utf-8")
    publish.publish(ready)
    assert (content(), readme.read_text(encoding="utf-8")) == (first, text)


def test_a_run_that_read_the_newest_commit_of_a_dataset_is_not_published(ready):
    names = {"kind": "huggingface", "columns": "s1", "path": "owner/data", "correct": "any", "keep": {}}
    source = HubSource(**names, config=None, revision=None, rows=None)
    domains = ready.params.domains
    loose = domains | {"math": domains["math"].model_copy(update={"sources": [source]})}
    cfg = ready.model_copy(update={"params": ready.params.model_copy(update={"domains": loose})})
    with pytest.raises(UserError, match=r"domains\.math\.sources\.0\.revision: null is the newest commit of a day"):
        publish.publish(cfg)
    assert not (config.reports_folder() / "smol").exists()


def test_no_published_text_names_a_path_of_the_machine(ready, monkeypatch):
    home = ready.home.parent
    page = f"see {home}/smol/logs and {config.ROOT}/tinyr1/run.py"
    artifact.write_atomic(ready.reports / "03_fusion_merge.html", page)
    write_record(ready, STAGES[4], facts={"headline": "x", "log": f"{home}/smol/logs\n{config.ROOT}"})
    artifact.write_atomic(ready.reports / "where.csv", f"file\n{home}/smol/a\n")
    publish.publish(ready)
    folder = config.reports_folder() / "smol"
    assert (folder / "03_fusion_merge.html").read_text() == "see runs/smol/logs and tinyr1/run.py"
    assert (folder / "where.csv").read_text() == "file\nruns/smol/a\n"
    for path in folder.iterdir():
        assert str(home).encode() not in path.read_bytes()
        assert str(config.ROOT).encode() not in path.read_bytes()


@pytest.mark.parametrize("killed_at", [0, 3, 11])
def test_a_kill_leaves_each_file_old_or_new_and_the_same_command_finishes(ready, readme, monkeypatch, killed_at):
    folder = config.reports_folder() / "smol"
    folder.mkdir(parents=True)
    (folder / "scores.csv").write_text("old")
    written, replace = [], os.fsync

    def fsync(handle):
        if len(written) == killed_at:
            raise KeyboardInterrupt
        written.append(handle)
        replace(handle)

    with monkeypatch.context() as patch:
        patch.setattr(artifact.os, "fsync", fsync)
        with pytest.raises(KeyboardInterrupt):
            publish.publish(ready)
    assert readme.read_text(encoding="utf-8") == BEFORE
    for path in folder.iterdir():
        if not path.name.startswith("."):
            assert path.read_bytes() in (b"old", (ready.reports / path.name).read_bytes())
    publish.publish(ready)
    assert (folder / "scores.csv").read_bytes() == (ready.reports / "scores.csv").read_bytes()
    assert not [name for name in published() if name.startswith(".")]


def spoil_record(cfg):
    record.record_path(cfg, STAGES[1]).unlink()


def spoil_order(cfg):
    write_record(cfg, STAGES[1], artifacts={"math": {"path": "branches/math", "content": "retrained"}})


def spoil_page(cfg):
    (cfg.reports / f"{STAGES[3]}.html").unlink()


def spoil_scores(cfg):
    (cfg.reports / "scores.csv").unlink()


def spoil_columns(cfg):
    path = cfg.reports / "scores.csv"
    path.write_text(path.read_text().replace(",ci_low", ",low"))


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (spoil_record, "run smol: 02_branch_sft is not run; run `make reproduce RUN=smol` first"),
        (spoil_order, "run smol: 03_fusion_merge is outdated (made from other parameters or inputs); run `make"),
        (spoil_page, "04_evaluation.html: missing; run `make reproduce RUN=smol` first"),
        (spoil_scores, "scores.csv: missing or empty; run `make 04_evaluation RUN=smol`"),
        (spoil_columns, "scores.csv has no column ci_low: an earlier version of this kit wrote it; remove "),
    ],
)
def test_a_report_that_is_not_whole_is_refused_in_one_sentence(ready, readme, monkeypatch, capsys, spoil, complaint):
    spoil(ready)
    assert run_publish(monkeypatch) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert complaint in said
    assert said.count("\n") == 1
    assert published() == []
    assert readme.read_text(encoding="utf-8") == BEFORE


def test_a_run_without_a_marker_in_the_readme_is_only_copied(ready, readme):
    text = BEFORE.replace("results of smol", "results of other")
    readme.write_text(text, encoding="utf-8")
    assert publish.publish(ready) == [config.reports_folder() / "smol"]
    assert readme.read_text(encoding="utf-8") == text


def test_the_readme_of_this_repository_shows_the_published_report():
    text = (config.ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("<!-- results of smol: ") == text.count("<!-- /results -->") == 1
    assert readme_writer.with_results(text, config.ROOT / "reports" / "smol") == text, "run `make readme RUN=smol`"


def test_the_readme_shows_table_verdicts_figure_and_every_commit_that_made_them(ready, readme):
    write_scores(
        ready,
        ("smol", "math", "mini-math", 96, 1, 0.5, 0.4, 0.6, 80.0, 0, 0, ""),
        ("smol", "math", "mini-code", 40, 4, 0.1, 0.05, 0.15, 80.0, 0, 0, ""),
    )
    artifact.write_atomic(ready.reports / "claims.json", json.dumps([CLAIM | {"verdict": "not run"}]))
    artifact.write_atomic(ready.reports / "figure_1.png", "")
    publish.publish(ready)
    made = readme.read_text(encoding="utf-8")
    first = "before\n<!-- results of smol: written by hand -->\nThe merged model is no better.\n\nClaims of the paper"
    assert made.startswith(first)
    assert "0 contradicted, 0 not distinguishable, 1 not run" in made
    assert (
        "| model | mini-math, 96 questions × 1 answer | mini-code, 40 questions × 4 answers |\n| --- | --- | --- |"
        in made
    )
    assert "| math | 50.0 [40.0, 60.0] | 10.0 [5.0, 15.0] |" in made
    assert "Made by commit 0123456789 on 2 cores, 13 minutes" in made
    assert made.endswith("](reports/smol/figure_1.png)\n<!-- /results -->\nafter")
    write_record(ready, STAGES[3], code={"commit": "fedcba9876543210", "modified": True, "source": "s"})
    write_record(ready, STAGES[4], code={"commit": "aaaaaaaaaaaaaaaa", "modified": False, "source": "s"})
    publish.publish(ready)
    both = "commit 0123456789 (stages 01, 02, 03) and commit fedcba9876, with uncommitted changes (stages 04)"
    assert f"Made by {both} on 2 cores" in readme.read_text(encoding="utf-8")


def test_make_readme_needs_a_published_report_and_a_marker(ready, readme, monkeypatch, capsys):
    def run_readme(run):
        monkeypatch.setattr("sys.argv", ["readme", run])
        return readme_writer.main(), capsys.readouterr()

    status, said = run_readme("smol")
    assert (status, said.err) == (
        2,
        f"error: {config.reports_folder()}/smol/scores.csv: missing; run `make publish RUN=smol`\n",
    )
    publish.publish(ready)
    readme.write_text(BEFORE, encoding="utf-8")
    assert run_readme("smol")[0] == 0
    assert "50.0 [40.0, 60.0]" in readme.read_text(encoding="utf-8")
    status, said = run_readme("other")
    assert status == 2
    assert "README.md: has no line `<!-- results of other: … -->`" in said.err
