"""The science tasks: true working, one right option named by its letter, and enough different questions."""

import re
from collections import Counter
from random import Random

import periodictable
import pytest

from tinyr1.data.miniature import raw
from tinyr1.data.miniature.science_tasks import SCIENCE_FAMILIES, VALUE_FAMILIES
from tinyr1.data.miniature.task import Task

DRAWS = 300
CASES = [(name, level) for name in SCIENCE_FAMILIES for level in (1, 2, 3)]
STATEMENT = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)(?![\d/])")
OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__truediv__}


def draws(name: str, level: int, count: int = DRAWS) -> list[Task]:
    rng = Random(f"{name} {level}")
    return [SCIENCE_FAMILIES[name](rng, level) for _ in range(count)]


def options(task: Task) -> dict[str, str]:
    return dict(line.split(") ", 1) for line in task.question.split("\n")[1:])


def right_number(task: Task) -> int:
    return int(options(task)[task.answer].split()[0])


def stem_numbers(task: Task) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", task.question.split("\n")[0])]


@pytest.mark.parametrize(("name", "level"), CASES)
def test_a_task_is_well_formed_and_its_letter_is_the_one_its_thinking_reaches(name: str, level: int) -> None:
    for task in draws(name, level):
        named, right = options(task), options(task)[task.answer]
        assert list(named) == list("ABCD")
        assert len(set(named.values())) == 4
        assert task.thinking.endswith(f" {task.answer}) {right}, yes.")
        assert task.thinking.count(", no.") == "ABCD".index(task.answer)
        assert task.response == f"The answer is \\boxed{{{task.answer}}}."
        assert (task.domain, task.family, task.level) == ("science", name, level)
        assert len(task.question) <= 300
        assert len(task.thinking) <= 220


@pytest.mark.parametrize(("name", "level"), CASES)
def test_every_arithmetic_statement_of_the_thinking_is_true(name: str, level: int) -> None:
    for task in draws(name, level):
        found = STATEMENT.findall(task.thinking)
        assert len(found) == task.thinking.count("=") > 0 or name == "base_pairing"
        for a, operation, b, result in found:
            assert OPERATIONS[operation](int(a), int(b)) == int(result), task.thinking


@pytest.mark.parametrize(("name", "level"), [case for case in CASES if case[0] in VALUE_FAMILIES])
def test_a_task_without_options_asks_for_the_value_of_the_same_draft(name: str, level: int) -> None:
    for seed in range(DRAWS):
        shown, asked = (families[name](Random(seed), level) for families in (SCIENCE_FAMILIES, VALUE_FAMILIES))
        value, unit = options(shown)[shown.answer].split(" ", 1)
        assert asked.question == f"{shown.question.split(chr(10))[0]} Answer in {unit}."
        assert asked.answer == value == str(int(value))
        assert asked.thinking.endswith(f" {value} {unit}.")
        assert asked.response == f"The answer is \\boxed{{{value}}}."
        assert raw.split_of(asked) == raw.split_of(shown), "one computation belongs to one split"


def test_all_families_but_that_of_strands_are_answered_by_a_number() -> None:
    assert set(SCIENCE_FAMILIES) - set(VALUE_FAMILIES) == {"base_pairing"}


@pytest.mark.parametrize("name", SCIENCE_FAMILIES)
def test_the_right_letter_is_uniform(name: str) -> None:
    counts = Counter(task.answer for task in draws(name, 2, 2000))
    assert sum((counts[letter] - 500) ** 2 / 500 for letter in "ABCD") < 21.1  # chi-square, 3 df, p = 0.0001


def test_the_domain_has_three_subjects_and_over_twenty_thousand_stems() -> None:
    tasks = [task for name, level in CASES for task in draws(name, level, 1000)]
    families = Counter(subject for _, subject in {(task.family, task.subject) for task in tasks})
    assert set(families) == {"physics", "chemistry", "biology"}
    assert min(families.values()) >= 3
    assert len({task.question.split("\n")[0] for task in tasks}) > 20_000


def test_a_seed_fixes_the_tasks_and_another_seed_changes_them() -> None:
    first, again, other = ([SCIENCE_FAMILIES[n](Random(s), v) for n, v in CASES] for s in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("level", [1, 2, 3])
def test_neutrons_are_the_mass_number_less_the_atomic_number_times_the_atoms(level: int) -> None:
    for task in draws("neutrons", level):
        atoms, name, mass = re.search(r"(\d+|one) atoms? of (\w+)-(\d+)", task.question).groups()
        z = periodictable.elements.name(name).number
        assert right_number(task) == (int(atoms) if level == 3 else 1) * (int(mass) - z)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_molar_mass_is_that_of_the_formula_with_rounded_atomic_masses(level: int) -> None:
    for task in draws("molar_mass", level):
        moles, text = re.search(r"(?:mass of (\d+) mol|molar mass) of (\w+)", task.question).groups()
        atoms = periodictable.formula(text).atoms
        assert right_number(task) == int(moles or 1) * sum(round(e.mass) * n for e, n in atoms.items())


def test_strands_pair_base_by_base() -> None:
    pairs = {"complementary": "TACG", "transcribed": "UACG", "matching": "AUGC"}
    for level in (1, 2, 3):
        for task in draws("base_pairing", level):
            partner = dict(zip("ATGC", next(v for k, v in pairs.items() if k in task.question), strict=True))
            strand = re.search(r"reads ([ATGC-]+)", task.question)[1]
            assert options(task)[task.answer] == "".join(partner.get(base, base) for base in strand)


def test_the_last_level_of_six_families_agrees_with_its_formula() -> None:
    formulas = {
        "motion": lambda v, t, w, u: v * t + w * u,
        "force": lambda push, mass, drag: (push - drag) / mass,
        "half_life": lambda start, span, time: start * 0.5 ** (time / span),
        "dilution": lambda volume, strong, weak: strong * volume / weak - volume,
        "codons": lambda bases, intron: (bases - intron) / 3 - 1,
        "doubling": lambda start, span, hours: start * 2 ** (60 * hours / span),
    }
    for name, formula in formulas.items():
        for task in draws(name, 3):
            assert right_number(task) == formula(*stem_numbers(task)), task.question
