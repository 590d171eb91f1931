"""Blocks of a params file: the domains, each with its sources of rows and its benchmarks (paper §2.1, §3.1.2)."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from tinyr1.core.params.blocks import (
    Block,
    Commit,
    Count,
    Date,
    Level,
    Name,
    PositiveShare,
    Sha256,
    Share,
    unless_verifying,
)
from tinyr1.core.params.training import Sft

HUB = "hf://"
# Problems of each LiveCodeBench release (its README; docs/fidelity.md §1.4).
RELEASES = {"release_v1": 400, "release_v2": 511, "release_v3": 612, "release_v4": 713, "release_v5": 880,
            "release_v6": 1055}  # fmt: skip


Columns = Literal[
    "openr1_math", "openthoughts", "openthoughts_metadata", "s1", "messages", "sharegpt", "columns"
]
Tasks = Literal["math", "science", "science_values", "code"]


class ColumnNames(Block):
    """The names that a dataset of its own form gives to its columns."""

    question: str
    """Column with the question. Choice."""
    response: str
    """Column with the answer as the model shall write it; with the reasoning in think tags before it, where `reasoning`
    is null. Choice."""
    reasoning: str | None = None
    """Column with the reasoning alone; null: it stands in tags inside the response. Choice."""
    answer: str | None = None
    """Column with the short answer that a grader compares; null: there is none. Choice."""
    starter_code: str | None = None
    """Column with code that the answer has to begin from; null: there is none. Choice."""


class Alternative(Block):
    """Another reading of what the paper leaves open. It changes no row: stage 01 counts what it would give."""

    keep: dict[str, Annotated[list[str], Field(min_length=1)]]
    """Column -> accepted values, in place of the source's `keep`. Choice."""
    correct: Literal["verified", "any"]
    """In place of the source's `correct`. Choice."""


class _Source(Block):
    """What all kinds of sources have."""

    columns: Columns
    """Whose columns the rows have: those of OpenR1-Math-220k, of OpenThoughts-114k (configuration default or metadata),
    or of s1 (docs/fidelity.md §1.4); of any dataset with `messages` (role and content), or with `conversations` (from
    and value: `sharegpt`); or `columns` that `names` names. It decides how a row is read (tinyr1.data.readers)."""
    names: ColumnNames | None = None
    """The names of the columns; goes with `columns: columns` and with nothing else. Choice."""
    keep: dict[str, Annotated[list[str], Field(min_length=1)]]
    """Column -> accepted values. A row with another value is dropped, with the column as its reason. Paper §2.1
    names some columns and no values (docs/fidelity.md §1.1)."""
    correct: Literal["verified", "any"]
    """`verified`: only the generations that a checker accepted, where the columns say so; `any`: all. Paper §2.1:
    verified for math (docs/fidelity.md §1.1)."""
    think_tags: tuple[str, str] | None = None
    """What opens and closes the reasoning inside a text; null: <think> and </think>. Choice."""
    traces: Literal["missing", "all"] | None = None
    """Whose traces the `teacher` writes: of rows that come without one, or of all; null: of none. Paper §2.1: all of
    the science rows (docs/fidelity.md §1.3)."""
    without_reasoning: Literal["drop", "keep"] | None = None
    """Whether a row with an answer and no reasoning is kept; null: it is dropped. Choice."""
    turns: Literal["last", "all", "refuse"] | None = None
    """Of a conversation with several answers: the `last` one with all turns before it; `all`, one training row for each
    answer, so that each carries loss once; or `refuse` the conversation. Null: last. Choice."""
    alternatives: dict[Name, Alternative] | None = None
    """Other readings of the paper for this source, whose rows are counted beside the source's own. Choice
    (docs/fidelity.md §7.1)."""
    published: Count | None = None
    """Rows that the paper says this source gives; shown beside this run's. Paper §2.1 (docs/fidelity.md §1)."""

    @model_validator(mode="after")
    def _names_and_tags_fit(self) -> "_Source":
        if (self.columns == "columns") != (self.names is not None):
            raise ValueError(f"names: goes with `columns: columns`; columns is {self.columns!r}")
        if self.think_tags and not all(tag.strip() for tag in self.think_tags):
            raise ValueError(f"think_tags: {list(self.think_tags)} holds an empty tag; give what opens and what closes")
        return self


class HubSource(_Source):
    """Rows of a Hugging Face dataset, in the cache of the library `datasets`."""

    kind: Literal["huggingface"]
    """Rows of a Hugging Face dataset."""
    path: str
    """Dataset id, such as open-r1/OpenR1-Math-220k; paper §2.1 (docs/fidelity.md §1.4)."""
    config: str | None
    """Configuration of the dataset; null: its default. Choice where the paper names none (docs/fidelity.md §1.4)."""
    split: str | None = None
    """Split of the dataset; null: train. Choice."""
    revision: str | None
    """Commit or branch of the dataset; null: the newest, which no published run may read. Choice."""
    rows: Count | None
    """At most so many raw rows are read; null: all. Choice."""


class FileSource(_Source):
    """Rows of local files."""

    kind: Literal["files"]
    """Rows of local files."""
    path: str
    """A .jsonl, .json, .csv, .tsv or .parquet file, a folder of them, or a pattern such as data/part-*.jsonl.gz;
    relative to the repository. Text files may be compressed (.gz, .zst). Choice."""
    rows: Count | None
    """At most so many raw rows are read; null: all. Choice."""


class MiniatureSource(_Source):
    """Rows that tinyr1.data.miniature writes, offline, in the columns of the real datasets and with their dirt."""

    kind: Literal["miniature"]
    """Written by this kit."""
    tasks: Tasks
    """Which families of tasks. Choice."""
    levels: Annotated[list[Level], Field(min_length=1)]
    """Difficulties, in turn: 1 easy to 3 hard. Choice."""
    rows: Count
    """Raw rows to write. Choice."""


Source = Annotated[HubSource | FileSource | MiniatureSource, Field(discriminator="kind")]


class _Benchmark(Block):
    """What all kinds of benchmarks have."""

    questions: Count | None
    """Only the first so many questions are asked; null: all, as in the paper."""
    samples: Count
    """Answers to each question; paper §3.1.2: 16 for AIME, 4 for GPQA-Diamond and LiveCodeBench (docs/fidelity.md C18,
    C21)."""
    max_tokens: Count
    """Longest answer in tokens, thinking included; paper §3.1.2: 32,768 (docs/fidelity.md §4.1)."""


class _Published(_Benchmark):
    """A benchmark that is read from files."""

    answers: ClassVar[str]
    """How its questions are answered: integer, expression, option or program."""
    hub_form: ClassVar[str] = "hf://owner/dataset/file.jsonl (or .json, .csv, .tsv, .parquet; with .gz, .zst)"
    hub_pattern: ClassVar[str] = (
        r"hf://[\w.-]+/[\w.-]+(/[\w.-]+)+\.(parquet|(jsonl|ndjson|json|csv|tsv)(\.gz|\.zst)?)"
    )
    path: str
    """A .jsonl, .json, .csv, .tsv or .parquet file or a folder of them, relative to the repository, or a file of a hub
    dataset: hf://owner/dataset/file at `revision`. Text files may be compressed (.gz, .zst). Choice (docs/evaluation.md
    §0.1)."""
    revision: Commit | None = None
    """Commit of a hf:// dataset; such paths need it, and no others have it. Choice (docs/evaluation.md §0.1)."""
    sha256: Sha256 | None = None
    """SHA-256 of the files, which refuses others; null: any are read. Choice (docs/evaluation.md §0.1)."""

    @model_validator(mode="after")
    def _path_and_revision_fit(self) -> "_Published":
        hub, problems = self.path.startswith(HUB), []
        if hub != (self.revision is not None):
            problems.append(f"revision: goes with {HUB} paths, which need the full commit; path is {self.path!r}")
        if hub and not re.fullmatch(self.hub_pattern, self.path):
            problems.append(f"path: {self.path!r} should read {self.hub_form}")
        if problems:
            raise ValueError("\n".join(problems))
        return self


class AimeBenchmark(_Published):
    """AIME problems, answered by an integer from 0 to 999 (docs/evaluation.md §4)."""

    kind: Literal["aime"]
    """AIME problems."""
    answers: ClassVar[str] = "integer"


class GpqaBenchmark(_Published):
    """GPQA-Diamond, four options a question; gated on the hub (docs/evaluation.md §5)."""

    kind: Literal["gpqa"]
    """GPQA-Diamond."""
    answers: ClassVar[str] = "option"


class QuestionColumns(Block):
    """The columns of a file of one's own questions (docs/evaluation.md §0.5)."""

    question: str | None = None
    """Column with the question; null: question, problem or prompt, whichever the file has. Choice."""
    context: str | None = None
    """Column with a text that the question is about, which is put before it; "" for none; null: none, and a file with a
    column passage, context, article or the like is refused, so that no text is left out in silence. Choice."""
    answer: str | None = None
    """Column with the reference answer, or with a worked solution that has it behind #### or in a box; null: answer,
    expected_answer, final_answer or solution. With options, the column that names the right one; null: answer,
    answerKey, answer_key, label or correct. Choice."""
    id: str | None = None
    """Column with a name for each question; null: id, unique_id, question_id or another usual one, else the name of the
    file with the number of the row. Choice."""
    options: str | Annotated[list[str], Field(min_length=2, max_length=26)] | None = None
    """Column with all options, as a list or as texts with labels, or one column for each option, in the order of their
    letters; null: choices, options, or A, B, C and so on. Choice."""
    answer_as: Literal["letter", "index", "text"] | None = None
    """How the right option is named: by its letter or label, by its index from 0, or by its own text; null: in the one
    way that fits every row. Choice."""
    right: str | None = None
    """Column with the text of the right option, in place of `options` and `answer`; null: Correct Answer or
    correct_answer. The options are then put into an order by the protocol, as those of GPQA. Choice."""
    wrong: Annotated[list[str], Field(min_length=1, max_length=25)] | None = None
    """Columns with the texts of the others; goes with `right`. Null: Incorrect Answer 1 and so on, or distractor1 and
    so on. Choice."""

    @model_validator(mode="after")
    def _one_form(self) -> "QuestionColumns":
        if (self.right is None) != (self.wrong is None):
            raise ValueError("right: goes with `wrong`; name the column of the right option and those of the others")
        if self.right is not None and (self.options or self.answer or self.answer_as):
            raise ValueError(f"right: {self.right!r} names the right option, so options and answer have no meaning")
        return self


class _Own(_Published):
    """Questions of one's own, from files with columns of any name."""

    columns: QuestionColumns | None = None
    """The names of the columns; null: the usual ones. Choice (docs/evaluation.md §0.5)."""
    instruction: str | None = None
    """Text appended to each question; null: the domain's `instruction`, or its `instruction_with_options` where there
    are options. Choice."""

    @field_validator("instruction")
    @classmethod
    def _says_something(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("is empty; give a text, or null for the instruction of the domain")
        return value


class MathBenchmark(_Own):
    """Questions with any mathematical answer, judged by Math-Verify behind strict rules (docs/evaluation.md §0.5)."""

    kind: Literal["math"]
    """Questions of one's own with mathematical answers."""
    answers: ClassVar[str] = "expression"

    @model_validator(mode="after")
    def _has_no_options(self) -> "MathBenchmark":
        for name in ("options", "answer_as", "right", "wrong"):
            if getattr(self.columns, name, None) is not None:
                raise ValueError(f"columns.{name}: goes with `kind: choice`; the kind is math")
        return self


class ChoiceBenchmark(_Own):
    """Questions with 2 to 26 options, answered by a letter (docs/evaluation.md §0.5)."""

    kind: Literal["choice"]
    """Questions of one's own with options."""
    answers: ClassVar[str] = "option"


class LiveCodeBenchmark(_Published):
    """LiveCodeBench, programs judged by tests (docs/evaluation.md §1.1)."""

    kind: Literal["livecodebench"]
    """LiveCodeBench."""
    answers: ClassVar[str] = "program"
    hub_form: ClassVar[str] = "hf://owner/dataset"
    hub_pattern: ClassVar[str] = r"hf://[\w.-]+/[\w.-]+"
    path: str
    """A folder or file, relative to the repository, or hf://owner/dataset, whose files follow from `release`. Choice
    (docs/evaluation.md §1.1)."""
    release: Literal[tuple(RELEASES)] | None = None  # type: ignore[valid-type]  # mypy wants the literals spelt out
    """Which of the dataset's files are read; the number of their problems is checked. Null: whatever a local path
    holds.
    The paper names none; release_v5 was the newest then (docs/fidelity.md §4.4)."""
    window: tuple[Date, Date]
    """First and last contest date, both included; paper Table 1: 2024-08 to 2025-02, released: 2024-08-01 to 2025-02-01
    (docs/fidelity.md §4.4)."""

    @model_validator(mode="after")
    def _window_and_release_fit(self) -> "LiveCodeBenchmark":
        if self.window[0] > self.window[1]:
            raise ValueError(
                f"window: {self.window[0]} is after {self.window[1]}; give the first contest date, then the last"
            )
        if self.path.startswith(HUB) and self.release is None:
            raise ValueError(f"release: {HUB} paths need one of {', '.join(RELEASES)}")
        return self


class MiniatureBenchmark(_Benchmark):
    """Questions that tinyr1.data.miniature writes; they share no worked solution with its training rows."""

    kind: Literal["miniature"]
    """Written by this kit."""
    tasks: Tasks
    """Which families of tasks: math and science_values are answered by integers, science by one of four letters, code
    by programs. Choice."""
    levels: Annotated[list[Level], Field(min_length=1)]
    """Difficulties, in turn: 1 easy to 3 hard. Choice."""
    questions: Count
    """Questions to write. Choice."""

    @property
    def answers(self) -> str:
        """How its questions are answered."""
        return {"math": "integer", "science": "option", "science_values": "integer", "code": "program"}[self.tasks]


PublishedBenchmark = AimeBenchmark | GpqaBenchmark | LiveCodeBenchmark | MathBenchmark | ChoiceBenchmark
Benchmark = Annotated[PublishedBenchmark | MiniatureBenchmark, Field(discriminator="kind")]


class Domain(Block):
    """One domain: what its expert learns from, and what every model is asked about it."""

    instruction: str
    """Text appended to each question, in training and in evaluation. The paper states none for training; for math,
    DeepSeek's own advice (docs/fidelity.md §2.3)."""
    instruction_with_options: str | None = None
    """The text for questions that show lettered options, which few of the real science rows do; null: the same.
    Choice."""
    sources: Annotated[list[Source], Field(min_length=1)] = unless_verifying()
    """Where the raw rows come from, in this order; paper §2.1 (docs/fidelity.md §1)."""
    limit: Count | None = unless_verifying(null=True)
    """At most so many curated rows are kept, those of the distillation included; null: all. Paper §2.1: 58,000 for math
    (docs/fidelity.md §1.1, C2)."""
    choose: Literal["sample", "first", "longest", "shortest"] | None = None
    """Which rows are kept where there are more than `limit`: a sample by the run's seed, the first of the sources, or
    those with the most or fewest characters; null: first. Choice."""
    sft: Sft = unless_verifying()
    """The fine-tuning of this domain's expert; paper §3.1.1 (docs/fidelity.md §2.1)."""
    benchmarks: dict[Name, Benchmark]
    """The benchmarks of this domain by name; a name occurs in one domain only. Paper §3.1.2: one for each domain."""

    def instruction_for(self, shows_options: bool) -> str:
        """The instruction of a question, by whether it shows lettered options."""
        return (self.instruction_with_options if shows_options else None) or self.instruction


class Decontaminate(Block):
    """A row is contaminated when it holds `min_share` of the word n-grams of a benchmark question."""

    ngram: Count
    """Words in one n-gram. Choice (docs/fidelity.md §1.3)."""
    min_share: PositiveShare
    """Share of a question's n-grams, above 0 and at most 1: low for long competition problems, high for templated ones,
    which share their wording. Choice (docs/fidelity.md §1.3)."""


class Curate(Block):
    """From raw rows to training rows."""

    max_tokens: Count
    """Longest row in tokens, prompt and response together. Released: 16,384 (docs/fidelity.md §2.4)."""
    overlong: Literal["drop", "truncate", "refuse"] | None = None
    """What becomes of a row that is longer: `drop`: it is dropped and counted; `truncate`: its end is cut off, and with
    it the answer and the end token; `refuse`: the stage stops. Null: drop. Released: truncate (docs/fidelity.md
    §2.4)."""
    generations_per_question: Count
    """At most so many traces of one question are kept, where a source has several. Choice (docs/fidelity.md §1.1)."""
    max_malformed: Share | None = None
    """Share of a source's rows that may be malformed before the stage stops; null: 0.01. Choice."""
    duplicates: Literal["drop", "keep"] | None = None
    """Rows that ask what an earlier kept row asks, but for blanks and spelling of formulas; null: they are dropped.
    Choice (docs/fidelity.md §1.3)."""
    near_duplicates: PositiveShare | None = None
    """Share of word shingles from which two questions with the same numbers and symbols count as one; null: they are
    not looked for. Choice."""
    num_proc: Count | None = None
    """Threads that tokenize rows; null: one for each core. It changes the speed and not the rows. Choice."""
    decontaminate: Decontaminate | None
    """The rule against benchmark questions in the training rows; null: they are not compared. Choice: the paper states
    none (docs/fidelity.md §1.3)."""
