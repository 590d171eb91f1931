"""Math word problems with an integer answer from 0 to 999, each solved by a few written-out steps."""

import operator
from random import Random

from tinyr1.data.miniature.task import Family, Task, boxed_answer

PEOPLE = ("Ana", "Ben", "Cara", "Dan", "Emma", "Finn", "Grace", "Ivy", "Jack", "Kate", "Leo", "Mia", "Tom")
ITEMS = ("apples", "beads", "books", "cakes", "cards", "coins", "pears", "pens", "shells", "stamps", "toys")
PLACES = ("garden", "field", "yard", "park", "farm", "floor", "hall", "lawn")
TIMES = (("minutes", "seconds", 60), ("hours", "minutes", 60), ("days", "hours", 24), ("weeks", "days", 7),
         ("years", "months", 12))
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}
SMALL = {1: (2, 5), 2: (3, 9), 3: (4, 12)}
BIG = {1: (2, 9), 2: (8, 30), 3: (20, 60)}


class _Work:
    """A calculator that keeps a trace: each call computes one step and adds its line."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.result = 0

    def __call__(self, a: int, sign: str, b: int) -> int:
        self.result = OPERATIONS[sign](a, b)
        self.lines.append(f"{a} {sign} {b} = {self.result}")
        return self.result


def _small(rng: Random, level: int) -> int:
    return rng.randint(*SMALL[level])


def _big(rng: Random, level: int) -> int:
    return rng.randint(*BIG[level])


def _who_and_what(rng: Random) -> tuple[str, str]:
    return rng.choice(PEOPLE), rng.choice(ITEMS)


def _task(rng: Random, family: str, level: int, do: _Work, phrasings: tuple[str, ...]) -> Task:
    """The task that has one of the phrasings as its question, and the last number of the work as its answer."""
    thinking, response = "\n".join(do.lines), boxed_answer(do.result)
    return Task("math", family, level, rng.choice(phrasings), thinking, response, str(do.result))


def shop(rng: Random, level: int) -> Task:
    """Several items at one price, plus a fee, at level 3 less a coupon."""
    do, (name, item) = _Work(), _who_and_what(rng)
    n, price = _small(rng, level), _big(rng, level)
    fee, coupon = rng.randint(2, 9 * level), rng.randint(2, 30)
    total = do(do(n, "*", price), "+", fee)
    off = ""
    if level == 3:
        do(total, "-", coupon)
        off = f" A coupon takes off {coupon} dollars."
    return _task(rng, "shop", level, do, (
        f"{name} buys {n} {item} at {price} dollars each and a bag for {fee} dollars.{off} What is the cost?",
        f"{name} orders {n} {item} at {price} dollars each. Postage is {fee} dollars.{off} What is the bill?",
        f"{name} gets {n} {item}, each {price} dollars, and a hat for {fee} dollars.{off} What is the total?",
    ))


def travel(rng: Random, level: int) -> Task:
    """Distance over two legs, at level 3 with two speeds."""
    do, name = _Work(), rng.choice(PEOPLE)
    speed, second = _big(rng, level), _big(rng, level)
    hours, more = rng.randint(2, level + 2), rng.randint(2, level + 2)
    if level == 3:
        do(do(speed, "*", hours), "+", do(second, "*", more))
        leg = f"{more} hours at {second} km per hour"
    else:
        do(do(hours, "+", more), "*", speed)
        leg = f"{more} more hours at the same speed"
    return _task(rng, "travel", level, do, (
        f"{name} rides at {speed} km per hour for {hours} hours, then {leg}. How many km is the trip?",
        f"A boat goes {speed} km per hour for {hours} hours, then {leg}. How far does it go in km?",
        f"{name} travels at {speed} km per hour for {hours} hours and then {leg}. How many km is that?",
    ))


def ages(rng: Random, level: int) -> Task:
    """The age of a friend some years from now."""
    do, (first, friend, other) = _Work(), rng.sample(PEOPLE, 3)
    age, times = rng.randint(4, 5 + 5 * level), rng.randint(2, 4)
    gap, years = rng.randint(2, 3 + 2 * level), rng.randint(2, 5 * level)
    who, then = friend, do(age, "*", times) if level > 1 else do(age, "+", gap)
    relation = f"{times} times as old as {first}" if level > 1 else f"{gap} years older than {first}"
    if level == 3:
        who, then = other, do(then, "-", gap)
        relation += f", and {other} is {gap} years younger than {friend}"
    do(then, "+", years)
    return _task(rng, "ages", level, do, (
        f"{first} is {age} years old. {friend} is {relation}. How old will {who} be in {years} years?",
        f"{first} is {age} and {friend} is {relation}. What will be the age of {who} after {years} years?",
        f"Today {first} turns {age}. {friend} is {relation}. Find the age of {who} {years} years from now.",
    ))


def remainder(rng: Random, level: int) -> Task:
    """The remainder of a number, a product (level 2) or a product plus a number (level 3)."""
    do, (name, item) = _Work(), _who_and_what(rng)
    a, b, c, m = rng.randint(3, 9), _big(rng, 2), _big(rng, 2), rng.randint(3, 5 if level == 1 else 9)
    n, text = rng.randint(10, 39), f"{a} * {b}"
    if level == 1:
        text = str(n)
    else:
        n = do(a, "*", b)
    if level == 3:
        n, text = do(n, "+", c), f"{text} + {c}"
    do(n, "-", do(m, "*", n // m))
    return _task(rng, "remainder", level, do, (
        f"What is the remainder when {text} is divided by {m}?",
        f"{name} divides {text} by {m}. What is the remainder?",
        f"{name} packs {text} {item} in full boxes of {m}. How many {item} are left over?",
    ))


def rectangle(rng: Random, level: int) -> Task:
    """Perimeter or area of a rectangle, at level 3 the area around a pond."""
    do, name, place = _Work(), rng.choice(PEOPLE), rng.choice(PLACES)
    length, width = _big(rng, level), _small(rng, level)
    measure, unit, pond = rng.choice(("area", "perimeter")), "m", ""
    if level == 3:
        p, q = rng.randint(2, 9), rng.randint(2, width - 1)
        do(do(length, "*", width), "-", do(p, "*", q))
        measure, unit, pond = "area around the pond", "square m", f" It has a pond of {p} m by {q} m."
    elif measure == "area":
        do(length, "*", width)
        unit = "square m"
    else:
        do(do(length, "+", width), "*", 2)
    return _task(rng, "rectangle", level, do, (
        f"A {place} is {length} m long and {width} m wide.{pond} What is the {measure} in {unit}?",
        f"{name} has a {place} of {length} m by {width} m.{pond} Find the {measure} in {unit}.",
        f"{name} measures a {place}: {length} m by {width} m.{pond} How many {unit} is the {measure}?",
    ))


def sequence(rng: Random, level: int) -> Task:
    """A term of an arithmetic sequence."""
    do, name = _Work(), rng.choice(PEOPLE)
    start, step, n = _big(rng, level), _small(rng, level), rng.randint(2, 5) if level == 1 else rng.randint(4, 12)
    rule, goal = f"starts at {start} and goes up by {step} each time", f"term number {n}"
    if level == 3:
        rule = f"goes {start}, {start + step}, {start + 2 * step} and so on"
        do(start + step, "-", start)
    if level == 1:
        goal = f"the number after {n} jumps"
    jumps = n if level == 1 else do(n, "-", 1)
    do(start, "+", do(jumps, "*", step))
    return _task(rng, "sequence", level, do, (
        f"A list of numbers {rule}. What is {goal}?",
        f"{name} writes a list that {rule}. Find {goal}.",
        f"{name} sees a pattern that {rule}. What is {goal}?",
    ))


def sharing(rng: Random, level: int) -> Task:
    """Equal shares of the rest after a loss."""
    do, (name, item) = _Work(), _who_and_what(rng)
    friends, lost = _small(rng, level), rng.randint(2, 3 + 4 * level)
    n = _big(rng, level) * friends + lost
    stock = f"{n} {item}"
    if level == 3:
        boxes, per = rng.randint(4, 9), _big(rng, level)
        n, friends = do(boxes, "*", per), rng.randint(3, 9)
        lost, stock = n % friends + friends * rng.randint(1, 3), f"{boxes} boxes of {per} {item}"
    do(do(n, "-", lost), "/", friends)
    return _task(rng, "sharing", level, do, (
        f"{name} has {stock}, loses {lost} {item} and splits the rest among {friends} boys. How many each?",
        f"{name} buys {stock}, but {lost} {item} get lost. {friends} children share the rest. How many each?",
        f"{name} takes {stock}, sells {lost} {item} and fills {friends} equal bags. How many per bag?",
    ))


def percent(rng: Random, level: int) -> Task:
    """A percentage of a multiple of ten, at level 3 the rest."""
    do, (name, item) = _Work(), _who_and_what(rng)
    n, tenths = 10 * _big(rng, level), rng.randint(1, 5 if level == 1 else 9)
    part = do(do(n, "/", 10), "*", tenths)
    no = ""
    if level == 3:
        do(n, "-", part)
        no = "not "
    return _task(rng, "percent", level, do, (
        f"{name} has {n} {item}, and {10 * tenths}% of them are red. How many {item} are {no}red?",
        f"A shop has {n} {item}. {name} says {10 * tenths}% of them are sold. How many are {no}sold?",
        f"Of the {n} {item} in a box, {10 * tenths}% are new. How many {item} are {no}new?",
    ))


def gcd(rng: Random, level: int) -> Task:
    """The greatest common divisor by subtraction; the pair is built backwards, one step at a time."""
    do, (name, item) = _Work(), _who_and_what(rng)
    high = low = rng.randint(2, 9 if level == 1 else 24)
    pairs: list[tuple[int, int]] = []
    for _ in range(level + 1):
        high, low = high + low, rng.choice((high, low))
        pairs.insert(0, (high, low))
    for a, b in pairs:
        do(a, "-", b)
    x, y = rng.sample((high, low), 2)
    return _task(rng, "gcd", level, do, (
        f"{name} asks for the greatest common divisor of {x} and {y}. What is it?",
        f"{name} cuts ropes of {x} cm and {y} cm into equal pieces, no waste. How long is a piece at most?",
        f"{name} splits {x} {item} and {y} hats into equal gifts, using all. At most how many gifts?",
    ))


def duration(rng: Random, level: int) -> Task:
    """A time in a larger and a smaller unit turned into the smaller one, at level 3 less a part of it."""
    do, name, (large, small, size) = _Work(), rng.choice(PEOPLE), rng.choice(TIMES)
    n, more, past = _small(rng, level), rng.randint(2, min(size - 1, 10 * level)), rng.randint(2, 27)
    total = do(do(n, "*", size), "+", more)
    span, goal = f"{n} {large} and {more} {small}", f"How many {small} is that?"
    if level == 3:
        do(total, "-", past)
        goal = f"After {past} {small}, how many {small} are left?"
    return _task(rng, "duration", level, do, (
        f"{name} plans a trip of {span}. {goal}",
        f"A job takes {name} {span}. {goal}",
        f"{name} has {span} to wait. {goal}",
    ))


def equation(rng: Random, level: int) -> Task:
    """A linear equation, at level 3 with the unknown on both sides."""
    do, name = _Work(), rng.choice(PEOPLE)
    a, x, b = _small(rng, level), _big(rng, min(level, 2)), _big(rng, level)
    right = words = str(a * x + b)
    if level == 3:
        c = rng.randint(2, 6)
        a += c
        d = (a - c) * x + b
        right, words = f"{c}x + {d}", f"{c} times the number plus {d}"
        do(do(d, "-", b), "/", do(a, "-", c))
    else:
        do(do(a * x + b, "-", b), "/", a)
    return _task(rng, "equation", level, do, (
        f"Solve {a}x + {b} = {right} for x.",
        f"{name} writes {a}x + {b} = {right}. What is x?",
        f"{name} thinks of a number. {a} times the number plus {b} is {words}. What is the number?",
    ))


def average(rng: Random, level: int) -> Task:
    """The mean of two, three or four numbers."""
    do, (name, item) = _Work(), _who_and_what(rng)
    n = level + 1
    values = [_big(rng, min(level, 2)) for _ in range(n)]
    values[-1] += -sum(values) % n
    total = values[0]
    for value in values[1:]:
        total = do(total, "+", value)
    do(total, "/", n)
    listed = f"{', '.join(map(str, values[:-1]))} and {values[-1]}"
    return _task(rng, "average", level, do, (
        f"What is the average of {listed}?",
        f"{name} scores {listed} points in some games. What is the average score?",
        f"Some boxes hold {listed} {item}. What is the average number of {item} in a box?",
    ))


MATH_FAMILIES: dict[str, Family] = {
    family.__name__: family
    for family in (shop, travel, ages, remainder, rectangle, sequence,
                   sharing, percent, gcd, duration, equation, average)
}
