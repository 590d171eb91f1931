"""Raw rows and benchmark questions of the miniature, in the columns of the real datasets.

    families --tasks--> distinct tasks of one split --rows--> raw rows with dirt        (sources)
                                                    --question_row--> questions         (benchmarks)

Everything here is made up. Training and benchmark questions never share a worked computation: the hash of a task's
solution decides whether it belongs to training, to validation or to the test. Raw rows carry the dirt of the real
datasets, in about the proportions in which the paper's filters act (94k raw rows to 58k for math; docs/fidelity.md
§1.1).
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from itertools import count
from random import Random

from tinyr1.data.miniature.code_tasks import CODE_FAMILIES
from tinyr1.data.miniature.math_tasks import MATH_FAMILIES
from tinyr1.data.miniature.science_tasks import SCIENCE_FAMILIES, VALUE_FAMILIES
from tinyr1.data.miniature.task import Task

FAMILIES = {  # by what params call `tasks`
    "math": MATH_FAMILIES, "science": SCIENCE_FAMILIES, "science_values": VALUE_FAMILIES, "code": CODE_FAMILIES,
}  # fmt: skip
# Tenths of all solutions. Those of the remainder 0 were the test questions until their scores decided settings of run
# smol (docs/smol.md); such questions test nothing any more.
SPLITS = {1: "validation", 2: "test"}
PUBLIC_TESTS = 2
DRAWS = 200

# Share of each kind of dirt among the raw rows; the other rows are clean. A dataset without a column for a kind of dirt
# has none of it (HAS_DIRT).
DIRT = {
    "proof": 0.08,  # asks for a proof: no answer to check
    "multiple_choice": 0.08,
    "wrong": 0.10,  # a wrong answer, as its checker said; s1 has no checker: a question of another domain
    "cut": 0.05,  # the trace stops before its end
    "duplicate": 0.05,
    "contaminated": 0.02,  # a benchmark question
}


def solution_key(task: Task) -> str:
    """Text that two tasks share when the solution of one gives away the other: a program, or the numbers computed."""
    if task.domain == "code":
        return f"{task.family}|{re.sub(r'def [a-zA-Z]+', 'def f', task.response)}"  # names say nothing
    work = task.thinking.partition(" A) ")[0]  # science: the computation, without the options that follow it
    return f"{task.family}|{' '.join(re.findall(r'[0-9.]+', work)) if '=' in work else work}"


def split_of(task: Task) -> str:
    """`test` for one solution in ten, `validation` for another one, `train` for the rest."""
    digest = int(hashlib.sha256(solution_key(task).encode()).hexdigest(), 16) % 10
    return SPLITS.get(digest, "train")


def tasks(domain: str, split: str, levels: list[int], seed: int) -> Iterator[Task]:
    """Distinct tasks of one split without end; families and levels take turns."""
    rng = Random(f"{domain}/{split}/{seed}")
    seen: set[str] = set()
    for turn in count():
        family = list(FAMILIES[domain].values())[turn % len(FAMILIES[domain])]
        level = levels[turn // len(FAMILIES[domain]) % len(levels)]
        for _ in range(DRAWS):  # a family may have no more solutions of this level in this split
            task = family(rng, level)
            if task.question not in seen and split_of(task) == split:
                seen.add(task.question)
                yield task
                break


def take(domain: str, split: str, levels: list[int], seed: int, n: int) -> list[Task]:
    """The first n tasks of a split."""
    source = tasks(domain, split, levels, seed)
    return [next(source) for _ in range(n)]


def rows(domain: str, columns: str, n: int, levels: list[int], seed: int) -> Iterator[dict]:
    """n raw rows with dirt, in the columns of a real dataset (a key of WRITERS)."""
    rng = Random(f"dirt/{domain}/{columns}/{seed}")
    clean = tasks(domain, "train", levels, seed + sum(map(ord, columns)))
    leaked = take(domain, "test", levels, seed, max(1, round(n * DIRT["contaminated"])))
    write = WRITERS[columns]
    kinds = [kind for kind in DIRT if kind in HAS_DIRT[columns]]
    previous: dict | None = None
    for i in range(n):
        kind = rng.choices([*kinds, ""], [*(DIRT[k] for k in kinds), 1 - sum(DIRT[k] for k in kinds)])[0]
        if kind == "duplicate" and previous is not None:
            yield previous | ({"uuid": _uuid(domain, i)} if "uuid" in previous else {})
            continue
        task = leaked.pop() if kind == "contaminated" and leaked else next(clean)
        row = write(task, kind, _uuid(domain, i), rng)
        if not kind:
            previous = row
        yield row


def question_row(task: Task, number: int) -> dict:
    """A benchmark question: LiveCodeBench's columns for code; id, question, answer and family for the others."""
    name = f"{task.family}-{number}"
    if task.domain != "code":
        return {"id": name, "question": task.question, "answer": task.answer, "family": task.family}
    kind = "functional" if task.func_name else "stdin"
    tests = [{"input": t.input, "output": t.output, "testtype": kind} for t in task.tests]
    return {
        "question_title": task.family, "question_content": task.question, "platform": "miniature", "question_id": name,
        "contest_id": task.family, "contest_date": "2026-01-01T00:00:00", "starter_code": task.starter_code,
        "difficulty": ("easy", "medium", "hard")[task.level - 1],
        "public_test_cases": json.dumps(tests[:PUBLIC_TESTS]),
        "private_test_cases": json.dumps(tests[PUBLIC_TESTS:]),
        "metadata": json.dumps({"func_name": task.func_name} if task.func_name else {}),
    }  # fmt: skip


def _uuid(domain: str, number: int) -> str:
    return hashlib.sha256(f"{domain}{number}".encode()).hexdigest()[:32]


def _trace(task: Task, kind: str, rng: Random) -> tuple[str, str]:
    """(thinking, response) of a row; another number stands in the box where its kind of dirt is "wrong"."""
    thinking, response = task.thinking, task.response
    if kind == "wrong" and task.answer.isdigit():
        response = response.replace(f"{{{task.answer}}}", f"{{{int(task.answer) + rng.choice((-2, -1, 1, 2))}}}")
    return thinking, response


def _openr1(task: Task, kind: str, uuid: str, rng: Random) -> dict:
    thinking, response = _trace(task, kind, rng)
    text = f"<think>\n{thinking}\n</think>\n\n{response}"
    good, complete = kind != "wrong", kind != "cut"
    generations, verified = [text if complete else text[: len(thinking) // 2]], [good and complete]
    if good and complete and rng.random() < 0.2:  # some questions have a wrong generation before the right one
        wrong = "\n".join(_trace(task, "wrong", rng))
        generations, verified = [f"<think>\n{wrong}", *generations], [False, *verified]
    question_type = {"proof": "proof", "multiple_choice": "MCQ"}.get(kind, "math-word-problem")
    return {
        "problem": task.question,
        "solution": f"{task.thinking} {task.response}",
        "answer": "proof" if kind == "proof" else task.answer,
        "problem_type": task.family,
        "question_type": question_type,
        "source": rng.choice(["olympiads", "cn_contest", "aops_forum"]),
        "uuid": uuid,
        "is_reasoning_complete": [g.count("</think>") == 1 for g in generations],
        "generations": generations,
        "correctness_math_verify": verified,
        "correctness_llama": None,
        "finish_reasons": None,
        "correctness_count": sum(verified),
        "messages": [{"role": "user", "content": task.question}, {"role": "assistant", "content": text}],
    }


# OpenThoughts has a long text of this sense (docs/fidelity.md §1.2).
OPENTHOUGHTS_SYSTEM = "Answer with a Thought section and a Solution section."


def _openthoughts(task: Task, kind: str, uuid: str, rng: Random) -> dict:
    thinking, response = _trace(task, kind, rng)
    starter = f"\n{task.starter_code}" if task.starter_code else ""
    text = (
        f"<|begin_of_thought|>\n\n{thinking}\n\n<|end_of_thought|>\n\n"
        f"<|begin_of_solution|>\n\n{response}\n\n<|end_of_solution|>"
    )
    if kind == "cut":
        text = text[: len(text) // 2]
    turns = [{"from": "user", "value": task.question + starter}, {"from": "assistant", "value": text}]
    return {"system": OPENTHOUGHTS_SYSTEM, "conversations": turns}


def _openthoughts_metadata(task: Task, kind: str, uuid: str, rng: Random) -> dict:
    thinking, response = _trace(task, kind, rng)
    return {
        "problem": task.question,
        "deepseek_reasoning": thinking if kind != "cut" else "",
        "deepseek_solution": response if kind != "cut" else response[: len(response) // 2],
        "ground_truth_solution": task.response,
        "domain": task.subject or task.domain,
        "source": task.family,
        "test_cases": json.dumps([{"input": t.input, "output": t.output} for t in task.tests]),
        "starter_code": task.starter_code,
    }


def _s1(task: Task, kind: str, uuid: str, rng: Random) -> dict:
    thinking, response = _trace(task, kind, rng)
    return {
        "solution": f"{task.thinking} {task.response}",
        "question": task.question,
        "cot_type": "math" if kind == "wrong" else "health science" if task.subject == "biology" else "science",
        "source_type": task.family,
        "metadata": json.dumps({"level": task.level}),
        "cot": None,
        "thinking_trajectories": [thinking] if kind != "cut" else [],
        "attempt": response,
    }


RawWriter = Callable[[Task, str, str, Random], dict]  # (task, kind of dirt, uuid, rng) -> raw row
WRITERS: dict[str, RawWriter] = {
    "openr1_math": _openr1,
    "openthoughts": _openthoughts,
    "openthoughts_metadata": _openthoughts_metadata,
    "s1": _s1,
}
HAS_DIRT = {
    "openr1_math": set(DIRT),
    "openthoughts": {"cut", "duplicate", "contaminated"},
    "openthoughts_metadata": {"cut", "duplicate", "contaminated"},
    "s1": {"wrong", "cut", "duplicate", "contaminated"},
}
