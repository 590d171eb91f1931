"""Science questions: short calculations of physics, chemistry and biology, with four options or without.

Each function below draws numbers and words and returns a Draft: the stem, the working up to the last equals sign, and
four options, the right one first. `_family` makes two tasks of it: one that shows the options in a random order and is
answered by a letter, as GPQA's questions are, and one that is answered by the value, where that is a number. A guess is
right in a quarter of the first, and almost never in the second.
"""

import re
from collections.abc import Callable
from functools import wraps
from random import Random
from typing import Any

import periodictable

from tinyr1.data.miniature.task import Family, Task, boxed_answer

Draft = tuple[str, str, list[str]]  # stem, working, options

SCIENCE_FAMILIES: dict[str, Family] = {}  # answered by a letter
VALUE_FAMILIES: dict[str, Family] = {}  # answered by a number
OPTION_LETTERS = "ABCD"
PHRASINGS = ("{Facts}. What is {ask}?", "What is {ask} if {facts}?", "Suppose {facts}. Find {ask}.",
             "Find {ask} when {facts}.")  # fmt: skip
NEAR = {1: (3, 5, 10), 2: (2, 5, 10), 3: (1, 2, 10)}  # how far a near miss lies from its value, by level

ELEMENTS = {e.symbol: e for e in periodictable.elements if 1 <= e.number <= 36}
MASS = {symbol: round(e.mass) for symbol, e in ELEMENTS.items()}
NUCLIDES = [  # isotopes near the mean mass, with at least two neutrons: name, atomic number, mass number
    (e.name, e.number, mass) for e in ELEMENTS.values() for mass in e.isotopes
    if abs(mass - e.mass) < 3 and mass - e.number > 1
]  # fmt: skip
CHARGES = {
    "Be": 2, "N": -3, "O": -2, "F": -1, "Na": 1, "Mg": 2, "Al": 3, "P": -3, "S": -2, "Cl": -1, "K": 1,
    "Ca": 2, "Sc": 3, "Ti": 4, "V": 3, "Cr": 3, "Mn": 2, "Fe": 3, "Co": 2, "Ni": 2, "Cu": 2, "Zn": 2,
    "Ga": 3, "Se": -2, "Br": -1,
}  # fmt: skip
BINARY = (
    "H2O", "CO2", "CO", "CH4", "NH3", "NaCl", "KCl", "MgO", "CaO", "HCl", "HF", "H2S", "SO2", "SO3", "NO2",
    "NO", "N2O", "C2H6", "C2H4", "C3H8", "C2H2", "Al2O3", "Fe2O3", "SiO2", "MgCl2", "CaCl2", "NaF", "LiF",
    "KBr", "PH3", "PCl3", "CuO", "ZnO", "CS2", "N2H4", "H2O2", "MnO2", "ZnS", "FeO", "FeS", "BF3",
)  # fmt: skip
TERNARY = (
    "HNO3", "NaOH", "KOH", "H2SO4", "CaCO3", "Na2CO3", "CH4O", "C2H6O", "C2H4O2", "CH2O", "C3H6O", "C3H8O",
    "NaNO3", "KNO3", "H2CO3", "H3PO4", "HClO", "NaClO", "HCN", "KMnO4", "CuSO4", "ZnSO4", "MgSO4", "CaSO4",
    "Na2SO4", "K2CO3", "MgCO3", "LiOH", "KClO3", "C6H12O6",
)  # fmt: skip
TRAITS = (
    ("pea plants", "tall", "short", "T"), ("mice", "black", "white", "B"), ("flowers", "purple", "pale", "P"),
    ("rabbits", "gray", "white", "G"), ("seeds", "round", "wrinkled", "R"),
)  # fmt: skip
STRANDS = {  # partners of A, T, G and C -> (the strand that is given, the strand to find)
    "TACG": ("a DNA strand reads", "the complementary DNA strand"),
    "UACG": ("a DNA template strand reads", "the transcribed mRNA"),
    "AUGC": ("a DNA coding strand reads", "the matching mRNA"),
}


def _family(subject: str, numeric: bool = True) -> Callable[[Callable[[Random, int], Draft]], Family]:
    """Register a draft under its own name as a family of `subject`; numeric: whether its options are numbers."""

    def register(draft: Callable[[Random, int], Draft]) -> Family:
        name = draft.__name__

        @wraps(draft)
        def make_value(rng: Random, level: int) -> Task:
            stem, work, (right, *_) = draft(rng, level)
            value, unit = right.split(" ", 1)
            return Task("science", name, level, f"{stem} Answer in {unit}.", f"{work} {right}.", boxed_answer(value),
                        value, subject)  # fmt: skip

        @wraps(draft)
        def make(rng: Random, level: int) -> Task:
            stem, work, options = draft(rng, level)
            shown = rng.sample(options, 4)
            letter = OPTION_LETTERS[shown.index(options[0])]
            question = "\n".join([stem, *(f"{a}) {b}" for a, b in zip(OPTION_LETTERS, shown, strict=True))])
            looked_at = zip(OPTION_LETTERS, shown[: OPTION_LETTERS.index(letter) + 1], strict=False)
            checks = (f"{a}) {b}, {'yes' if a == letter else 'no'}." for a, b in looked_at)
            thinking = " ".join([f"{work} {options[0]}.", *checks])
            return Task("science", name, level, question, thinking, boxed_answer(letter), letter, subject)

        SCIENCE_FAMILIES[name] = make
        if numeric:
            VALUE_FAMILIES[name] = make_value
        return make

    return register


def _stem(rng: Random, facts: str, ask: str) -> str:
    return rng.choice(PHRASINGS).format(Facts=facts[0].upper() + facts[1:], facts=facts, ask=ask)


def _options(rng: Random, level: int, right: int, unit: str, *mistakes: int) -> list[str]:
    """The right value, a mistake below or above it and a near miss of each: size does not betray it."""
    step = rng.choice([n for n in NEAR[level] if 3 * n < right] or [1])
    step = 10 if right % 10 == 0 and right > 20 else step
    sign = rng.choice((-1, 1))
    typical = [m for m in rng.sample(mistakes, len(mistakes)) if (m - right) * sign > 0]
    for mistake in (*typical, right + sign * 3 * step, right + 3 * step):
        near = [v - step if v - step > 1 and rng.random() < 0.5 else v + step for v in (right, mistake)]
        values = [right, mistake, *near]
        if min(values) > 1 and len(set(values)) == 4:
            break
    return [f"{value} {unit}" for value in values]


def _chain(start: int, operation: str, times: int) -> str:
    """Halve or double `times` times: the working up to the last equals sign."""
    values = [start * 2**i if operation == "*" else start // 2**i for i in range(times + 1)]
    return "".join(f" {v}. {v} {operation} 2 =" for v in values[:-1]).removeprefix(f" {start}. ")


@_family("physics")
def motion(rng: Random, level: int) -> Draft:
    """The speed of a steady motion; level 2 also its distance or time, level 3 the distance of two legs."""
    who = rng.choice(("drone", "train", "truck", "boat", "car", "van", "bus", "falcon"))
    m, s = rng.choice((("m", "s"), ("km", "h")))
    v, t = rng.randint(*((2, 9) if level == 1 else (11, 40))), rng.randint(2, 5 if level == 1 else 9)
    w, u, path = rng.randint(11, 40), rng.randint(2, 9), v * t
    kind = ("speed", rng.choice(("speed", "distance", "time")), "total distance")[level - 1]
    cases: dict[str, tuple[Any, ...]] = {
        "speed": (f"covers {path} {m} in {t} {s}", f"{path} / {t} =", v, f"{m}/{s}", path - t, v + t, v // 2),
        "distance": (f"moves at {v} {m}/{s} for {t} {s}", f"{v} * {t} =", path, m, path + v, path - v, v + t),
        "time": (f"moves {path} {m} at {v} {m}/{s}", f"{path} / {v} =", t, s, t + v, t * 2, t // 2, t - 1),
        "total distance": (
            f"moves at {v} {m}/{s} for {t} {s}, then at {w} {m}/{s} for {u} {s}",
            f"{v} * {t} = {path}. {w} * {u} = {w * u}. {path} + {w * u} =",
            path + w * u, m, v * u + w * t, path + w + u, (v + w) * (t + u), path,
        ),
    }  # fmt: skip
    facts, work, right, unit, *mistakes = cases[kind]
    return _stem(rng, f"a {who} {facts}", f"the {kind}"), work, _options(rng, level, right, unit, *mistakes)


@_family("physics")
def ohms_law(rng: Random, level: int) -> Draft:
    """V = IR; level 2 divides, level 3 first adds two resistors in series."""
    what = rng.choice(("lamp", "heater", "motor", "resistor", "fan", "toaster"))
    amps, ohms = rng.randint(2, 5 if level == 1 else 9), rng.randint(*((2, 9) if level == 1 else (11, 40)))
    volts, work, load = amps * ohms, "", f"a {what} of {ohms} ohm"
    if level == 3:
        first = rng.randint(3, ohms - 3)
        work, load = f"{first} + {ohms - first} = {ohms}. ", f"{first} ohm and {ohms - first} ohm in series"
    kind = ("voltage", rng.choice(("current", "resistance")), rng.choice(("voltage", "current")))[level - 1]
    cases: dict[str, tuple[Any, ...]] = {
        "voltage": (f"{amps} A flows through {load}", f"{amps} * {ohms} =", volts, "V",
                    volts + amps, volts - amps, amps + ohms),
        "current": (f"{volts} V is put across {load}", f"{volts} / {ohms} =", amps, "A",
                    amps + 3, amps * 2, amps - 1, amps // 2),
        "resistance": (f"a {what} draws {amps} A at {volts} V", f"{volts} / {amps} =", ohms, "ohm",
                       volts - amps, ohms + amps, ohms // 2, ohms - amps),
    }  # fmt: skip
    facts, last, right, unit, *mistakes = cases[kind]
    return _stem(rng, facts, f"the {kind}"), work + last, _options(rng, level, right, unit, *mistakes)


@_family("physics")
def force(rng: Random, level: int) -> Draft:
    """F = ma; level 2 asks for the acceleration, level 3 first subtracts friction."""
    what, mass = rng.choice(("cart", "box", "sled", "crate", "ball")), rng.randint(2, 4 * level + 2)
    a, drag = rng.randint(2, 9) if level == 1 else rng.randint(4, 30), rng.randint(5, 60)
    net = mass * a
    if level == 1:
        facts, options = f"a {what} of {mass} kg speeds up at {a} m/s^2", (mass + a, net + mass, net - mass)
        return _stem(rng, facts, "the net force"), f"{mass} * {a} =", _options(rng, level, net, "N", *options)
    facts, work, push = f"{net} N pushes a {what} of {mass} kg", f"{net} / {mass} =", net
    if level == 3:
        push = net + drag
        facts = f"{push} N pushes a {what} of {mass} kg against {drag} N of friction"
        work = f"{push} - {drag} = {net}. {work}"
    mistakes = push // mass, (push + drag) // mass, a + mass, a * 2, a // 2, a - mass, a - 2
    return _stem(rng, facts, "the acceleration"), work, _options(rng, level, a, "m/s^2", *mistakes)


@_family("physics")
def half_life(rng: Random, level: int) -> Draft:
    """The mass that remains of a sample; level 3 first counts the half-lives."""
    times = rng.randint(1, 2) if level == 1 else rng.randint(2, 4)
    left = rng.randint(2, 9 if level == 1 else 20 + 10 * level)
    start, span, unit = left * 2**times, rng.randint(2, 15), rng.choice(("mg", "g"))
    sample = f"{start} {unit} of a radioactive {rng.choice(('isotope', 'tracer', 'nuclide', 'metal'))}"
    facts = f"{sample} decays for " + ("one half-life" if times == 1 else f"{times} half-lives")
    work = _chain(start, "/", times)
    if level == 3:
        clock = rng.choice(("minutes", "hours", "days"))
        facts = f"{sample} with a half-life of {span} {clock} decays for {span * times} {clock}"
        work = f"{span * times} / {span} = {times}. {work}"
    options = _options(rng, level, left, unit, left * 2, left // 2, start - left, start // (times + 2))
    return _stem(rng, facts, "the mass left"), work, options


@_family("chemistry")
def neutrons(rng: Random, level: int) -> Draft:
    """Mass number minus atomic number, given at level 1; level 3 counts several atoms."""
    name, z, mass = rng.choice([n for n in NUCLIDES if n[1] <= (20, 20, 36)[level - 1]])
    each, atoms = mass - z, rng.randint(2, 9) if level == 3 else 1
    sample = rng.choice(("trap", "beam", "crystal", "sample"))
    facts = f"a {sample} holds {f'{atoms} atoms' if level == 3 else 'one atom'} of {name}-{mass}"
    facts += f" (atomic number {z})" if level == 1 else ""
    work = f"Z of {name} is {z}. {mass} - {z} =" + (f" {each}. {atoms} * {each} =" if level == 3 else "")
    mistakes = atoms * z, atoms * mass, atoms * (mass + z), atoms * (each + 1), atoms * (each - 1)
    options = _options(rng, level, atoms * each, "neutrons", *mistakes)
    return _stem(rng, facts, "the number of neutrons"), work, options


@_family("chemistry")
def ion_electrons(rng: Random, level: int) -> Draft:
    """Atomic number minus charge, given at level 1; level 3 counts several ions."""
    symbol, ions = rng.choice(list(CHARGES)), rng.randint(2, 12) if level == 3 else 1
    charge, z, name = CHARGES[symbol], ELEMENTS[symbol].number, ELEMENTS[symbol].name
    size, (sign, back) = abs(charge), ("+", "-") if charge > 0 else ("-", "+")
    each, ion = z - charge, f"{symbol}{size if size > 1 else ''}{sign}"
    holder = rng.choice(("solution", "crystal", "plasma", "droplet"))
    facts = f"a {holder} holds {f'{ions} {ion} ions' if level == 3 else f'one {ion} ion'}"
    facts += (f" ({name}, atomic number {z})", f" of {name}", "")[level - 1]
    work = f"Z of {name} is {z}. {z} {back} {size} =" + (f" {each}. {ions} * {each} =" if level == 3 else "")
    mistakes = ions * z, ions * (z + charge), ions * (each + 1), ions * (each - 1)
    options = _options(rng, level, ions * each, "electrons", *mistakes)
    return _stem(rng, facts, "the number of electrons"), work, options


@_family("chemistry")
def molar_mass(rng: Random, level: int) -> Draft:
    """The molar mass of a compound from whole-number atomic masses; level 3: the mass of several moles."""
    formula = rng.choice((BINARY, TERNARY, BINARY + TERNARY)[level - 1])
    atoms = [(symbol, int(count or 1)) for symbol, count in re.findall(r"([A-Z][a-z]?)(\d*)", formula)]
    parts = [MASS[symbol] * count for symbol, count in atoms]
    moles, total, work = rng.randint(2, 9) if level == 3 else 1, parts[0], ""
    for (symbol, count), part in zip(atoms, parts, strict=True):
        work += f"{symbol}: {count} * {MASS[symbol]} = {part}. " if count > 1 else f"{symbol}: {part}. "
    for part in parts[1:]:
        work, total = work + f"{total} + {part} = {total + part}. ", total + part
    work = work + f"{moles} * {total} =" if level == 3 else work.removesuffix(f" {total}. ")
    facts = "atomic masses are " + rng.choice(("whole numbers", "rounded to integers"))
    if level == 1:
        facts = rng.choice(("", "atomic masses are ")) + " and ".join(f"{s} = {MASS[s]}" for s, _ in atoms)
    ask = f"the mass of {moles} mol of {formula}" if level == 3 else f"the molar mass of {formula}"
    wrong = total + parts[-1], total - parts[-1], sum(MASS[symbol] for symbol, _ in atoms)
    unit = "g" if level == 3 else "g/mol"
    options = _options(rng, level, moles * total, unit, *(moles * mass for mass in wrong))
    return _stem(rng, facts, ask), work, options


@_family("chemistry")
def dilution(rng: Random, level: int) -> Draft:
    """C1 V1 = C2 V2 by the dilution factor: the concentration, the final volume, then the water to add."""
    factor, weak = rng.randint(2, 4 if level == 1 else 9), rng.randint(2, 9)
    volume = 10 * rng.randint(1, 5) if level == 1 else rng.randint(12, 60)
    solute = rng.choice(("HCl", "NaCl", "NaOH", "KBr", "glucose"))
    strong, final = factor * weak, factor * volume
    made = f"{volume} mL of {strong} mM {solute} is diluted to "
    if level == 1:
        work = f"{final} / {volume} = {factor}. {strong} / {factor} ="
        options = _options(rng, level, weak, "mM", strong - factor, weak * 2, strong, weak // 2, factor)
        return _stem(rng, f"{made}{final} mL", "the new concentration"), work, options
    work = f"{strong} / {weak} = {factor}. {factor} * {volume} ="
    if level == 2:
        options = _options(rng, level, final, "mL", final - volume, final + volume, weak * volume)
        return _stem(rng, f"{made}{weak} mM", "the final volume"), work, options
    work = f"{work} {final}. {final} - {volume} ="
    options = _options(rng, level, final - volume, "mL", final, final - 2 * volume, weak * volume)
    return _stem(rng, f"{made}{weak} mM", "the volume of added water"), work, options


@_family("biology", numeric=False)
def base_pairing(rng: Random, level: int) -> Draft:
    """The complement or the mRNA of a DNA strand; level 3 has longer strands and the coding strand."""
    partners = rng.choice(list(STRANDS)[:level] if level < 3 else list(STRANDS)[1:])
    facts, ask = STRANDS[partners]
    strand = "".join(rng.choices("ATGC", k=rng.randint(2 * level + 1, 2 * level + 2)))
    right, *others = (strand.translate(str.maketrans("ATGC", to)) for to in (partners, *STRANDS))
    options = [right, rng.choice([s for s in (right[::-1], *others) if s != right])]
    while len(options) < 4:  # the near misses: one base of the right strand or of the mistake changed
        near, spot = rng.choice(options[:2]), rng.randrange(len(strand))
        near = near[:spot] + rng.choice("ACGU" if "U" in near else "ACGT") + near[spot + 1 :]
        options += [near] if near not in options else []
    pairs = ", ".join(f"{a}:{b}" for a, b in zip(strand, right, strict=True))
    return _stem(rng, f"{facts} {'-'.join(strand)}", ask), f"{pairs}. So", ["-".join(o) for o in options]


@_family("biology")
def codons(rng: Random, level: int) -> Draft:
    """Amino acids of an mRNA: bases / 3; level 2 drops the stop codon, level 3 first removes an intron."""
    triplets, intron = rng.randint(4, 33 if level == 1 else 99), 3 * rng.randint(5, 60)
    bases, what = 3 * triplets, rng.choice(("an mRNA", "a transcript", "a reading frame", "a coding region"))
    stop = "no stop codon" if level == 1 else "one stop codon at the end"
    facts, work, right = f"{what} of {bases} bases has {stop}", f"{bases} / 3 =", triplets - (level > 1)
    mistakes = [triplets - 2, triplets + 1, bases // 2, triplets // 2, triplets, bases // 4, bases]
    work += f" {triplets}. {triplets} - 1 =" if level > 1 else ""
    if level == 3:
        long = bases + intron
        facts = f"a pre-mRNA of {long} bases loses {intron} intron bases and has {stop}"
        work, mistakes = f"{long} - {intron} = {bases}. {work}", [*mistakes[:-1], long // 3 - 1, long // 3]
    options = _options(rng, level, right, "amino acids", *mistakes)
    return _stem(rng, facts, "the number of encoded amino acids"), work, options


@_family("biology")
def doubling(rng: Random, level: int) -> Draft:
    """Growth by doubling; level 2 counts the doublings, level 3 first turns hours into minutes."""
    what = rng.choice(("bacteria", "yeast cells", "algae", "E. coli cells"))
    start, times = rng.randint(2, 7 * level + 2), rng.randint(*((1, 2), (2, 4), (3, 5))[level - 1])
    hours = rng.randint(1, 2)
    span = hours * 60 // times if level == 3 else rng.randint(10, 40)
    facts, work = f"{times} times" if times > 1 else "once", ""
    if level > 1:
        facts = f"every {span} minutes for {f'{hours} h' if level == 3 else f'{span * times} minutes'}"
        work = f"{span * times} / {span} = {times}. "
    if level == 3:
        work = f"{hours} * 60 = {hours * 60}. {work}"
    facts = f"a culture of {start} {what} doubles {facts}"
    right = start * 2**times
    options = _options(rng, level, right, "cells", right // 2, right * 2, start * (times + 1))
    return _stem(rng, facts, "the final number of cells"), work + _chain(start, "*", times), options


@_family("biology")
def punnett(rng: Random, level: int) -> Draft:
    """Expected offspring of a cross: 1/2 or 1/4, then 3/4 or 2/4, then 9/16 or 3/16 with a second gene."""
    who, strong, weak, gene = rng.choice(TRAITS)
    mixed, part = gene + gene.lower(), rng.randint(2, 12 if level == 1 else 30)
    even, double = f"{mixed} x {mixed}", f"{mixed}Dd x {mixed}Dd"
    cross, whole, share, looks = rng.choice((
        ((even, 4, 1, weak), (f"{mixed} x {gene.lower() * 2}", 2, 1, weak)),
        ((even, 4, 3, strong), (even, 4, 2, mixed)),
        ((double, 16, 9, f"{strong} with D"), (double, 16, 3, f"{strong} with dd")),
    )[level - 1])  # fmt: skip
    total = whole * part
    work = f"{cross} gives {share}/{whole}. {total} / {whole} ="
    work += f" {part}. {share} * {part} =" if share > 1 else ""
    facts = f"{strong} ({gene}) is dominant over {weak} and {cross} gives {total} {who}"
    mistakes = (part * s for s in ((2, 3, 4), (1, 2, 3, 4), (1, 3, 4, 8, 9, 12))[level - 1])
    options = _options(rng, level, share * part, who, part // 2, *mistakes)
    return _stem(rng, facts, f"the expected number that are {looks}"), work, options
