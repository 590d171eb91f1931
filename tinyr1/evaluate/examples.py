"""Examples for the reader of an evaluation: one prompt of each benchmark, one answer of each outcome, and one question
with the answers of all models.

Questions that must not be published (`private`) are shown nowhere: another text stands in for them.
"""

import html
from typing import TYPE_CHECKING

import pandas as pd

from tinyr1.core.config import Config
from tinyr1.evaluate import protocol as protocols
from tinyr1.evaluate.notices import FAILED
from tinyr1.sampling import requests

if TYPE_CHECKING:
    from IPython.display import HTML

SHOWN_CHARACTERS = 1500  # of each end of an answer


def example_prompts(cfg: Config, asked: dict[str, list[dict]], imported: bool = False) -> str:
    """One prompt of each benchmark: as the first model sees it, or as it is sent where somebody else renders it.

    imported: the answers come from a file, and nobody knows what they were given to.
    """
    prompts, parts = requests.Prompts(), []
    served = cfg.params.evaluate.engine.kind == "endpoint"
    for name, questions in asked.items():
        (request,) = protocols.requests(protocols.of(cfg.params, name), [_publishable(questions[0])], 1)
        if imported:
            how = " (as this protocol would ask; the prompts behind the answers of the file are not known)"
        elif served:
            how = " (messages; the server renders them)" if "messages" in request else " (sent as it is)"
        else:
            how = ", as the model sees it"
        text = _sent(request) if imported or served else prompts.text(cfg.model(cfg.models[0]), request)
        parts.append(f"[{name}] a prompt{how}:\n{text}\n")
    return "\n".join(parts)


def _publishable(question: dict) -> dict:
    """The question, or one of its shape in place of one that must not be published."""
    if not question["private"]:
        return question
    options = [f"(option {n})" for n in range(len(question["options"]))]
    return question | {"question": "(a question that must not be published)", "options": options}


def _sent(request: dict) -> str:
    if "messages" not in request:
        return requests.raw_prompt(request)
    return "\n".join(f"{message['role']}: {message['content']}" for message in request["messages"])


def example_answers(cfg: Config, graded: pd.DataFrame, asked: dict[str, list[dict]]) -> str:
    """One answer for each benchmark and outcome that occurs, by the first model that has it."""
    parts = []
    for names, rows in graded.groupby(["benchmark", "outcome"]):
        benchmark, outcome = map(str, names)
        model = next(m for m in cfg.models if rows["model"].eq(m).any())
        answer = rows[rows["model"] == model].iloc[0]
        parts.append(f"[{benchmark}: {outcome}, by {model}] {_example(answer, asked[benchmark])}")
    return f"\n{'-' * 60}\n".join(parts)


def _example(answer: pd.Series, asked: list[dict]) -> str:
    """Question, answer and right answer of one graded sample."""
    question = next(q for q in asked if q["id"] == answer["question"])
    if question["private"]:
        return "its questions must not be published"
    truth = f"\n\nright: {right_answer(question)}" if "answer" in question else ""
    why = f"({answer['reason']})\n\n" if answer["outcome"] == FAILED else ""
    return f"{question['question']}\n\n{why}{_shortened(answer['text'])}{truth}"


def right_answer(question: dict) -> str:
    """The right answer for a reader: of options, the text of the right one."""
    return question["options"][int(question["answer"])] if "options" in question else question["answer"]


def _shortened(text: str) -> str:
    """The two ends of a long answer."""
    left_out = len(text) - 2 * SHOWN_CHARACTERS
    if left_out <= 0:
        return text
    return f"{text[:SHOWN_CHARACTERS]}\n[… {left_out:,} characters …]\n{text[-SHOWN_CHARACTERS:]}"


def telling_question(graded: pd.DataFrame, asked: dict[str, list[dict]]) -> tuple[str, str] | None:
    """(benchmark, id) of the question whose answers say most about the scores; None where none may be published.

    Of the questions that some model answers right, it is one of the benchmark on which most models are never right; of
    those, one whose first answers end in most different outcomes, and to which most of them are not right.
    """
    public = [(name, q["id"]) for name, questions in asked.items() for q in questions if not q["private"]]
    firsts = graded.sort_values("sample").drop_duplicates(["model", "benchmark", "question"])
    right = graded["outcome"].eq("correct").groupby([graded["benchmark"], graded["model"]]).any()
    never = (~right).groupby("benchmark").sum()
    outcomes = firsts.groupby(["benchmark", "question"])["outcome"].agg(list)
    known = [name for name in public if name in outcomes.index]

    def says(name: tuple[str, str]) -> tuple[bool, int, int, int]:
        found = outcomes[name]
        return "correct" in found, never[name[0]], len(set(found)), len(found) - found.count("correct")

    return max(known, key=says) if known else None


def side_by_side(cfg: Config, graded: pd.DataFrame, asked: dict[str, list[dict]]) -> "HTML":
    """One question (`telling_question`) with the whole first answer of every model, and how each answer ended."""
    from IPython.display import HTML

    if (name := telling_question(graded, asked)) is None:
        return HTML("<p>The questions of these benchmarks must not be published.</p>")
    benchmark, question = name[0], next(q for q in asked[name[0]] if q["id"] == name[1])
    answers = graded[(graded["benchmark"] == benchmark) & (graded["question"] == question["id"])]
    answers = answers.sort_values("sample").drop_duplicates("model").set_index("model")
    style = ' style="text-align: left; vertical-align: top; white-space: pre-wrap; overflow-wrap: anywhere"'
    rows = [("the question", "", protocols.shown_text(protocols.of(cfg.params, benchmark), question))]
    for model in [model for model in cfg.models if model in answers.index]:
        answer = answers.loc[model]
        ended = str(answer["outcome"]).replace("_", " ") + (", loops" if answer["looping"] else "")
        rows.append((model, ended, answer["text"]))
    is_program = question["kind"] == "program"
    right = f"a program that passes {len(question['tests'])} tests" if is_program else right_answer(question)
    rows.append(("right is", "", right))
    cells = ("".join(f"<td{style}>{html.escape(str(text))}</td>" for text in row) for row in rows)
    head = f"<thead><tr><th>{html.escape(benchmark)}</th><th>outcome</th><th>text</th></tr></thead>"
    return HTML(f"<table>{head}<tbody>\n" + "\n".join(f"<tr>{row}</tr>" for row in cells) + "\n</tbody></table>")
