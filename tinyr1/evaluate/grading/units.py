r"""Units of measure behind a number, so far as two of them can be told apart (docs/evaluation.md §0.5).

    "\text{ kg}\cdot\text{m/s}^2" --pieces--> kg, m, / s^2 --canonical--> "kg m s^-2"

Nothing is converted: 5 km and 5000 m have different numbers, and 5 km and 5 m different units.
"""

import re

FONT = r"\\(?:text(?:bf|it|rm|normal)?|mathrm|mbox|operatorname)"
_BLANKS = r"(?:\\[,;:! ]|~|\s|\$)*"
_POWER = r"(?:\s*\^\s*(?:\{\s*[-−]?[0-9]\s*\}|[-−]?[0-9])|[²³])"
_DEGREES = r"(?:\^\s*\{?\s*\\circ\s*\}?\s*)?"
_MICRO = rf"(?:\\mu(?![A-Za-z]){_BLANKS})?"  # alone it is a variable
_PIECE = rf"(?:{_DEGREES}{_MICRO}{FONT}\s*\{{[^{{}}]*\}}|\\(?:Omega|AA)(?![A-Za-z])){_POWER}?"
_JOINED = rf"{_BLANKS}(?:\\cdot(?![A-Za-z])|\\times(?![A-Za-z])|·|/|\*)?{_BLANKS}"
# One unit or several behind a value: `5\text{ cm}^2`, `5 \mathrm{kg}\cdot\mathrm{m}`, `5 km/h`, `5 apples`.
TAIL = re.compile(
    rf"(?:{_BLANKS}(?P<set>{_PIECE}(?:{_JOINED}{_PIECE})*)"
    rf"|(?<=[\s~$])(?P<bare>[A-Za-z]{{2,}}(?:(?:[ /]+|{_POWER}[ /]*)[A-Za-z]+)*{_POWER}?))[\s$.]*\Z"
)
_UNWRAPPED = re.compile(rf"{FONT}\s*\{{([^{{}}]*)\}}")
_FACTOR = re.compile(r"(/)?[\s(]*([^\W\d_]+|°\s*[CF]?)\s*(?:\^\s*\{?\s*)?(-?[0-9])?\}?")

_PREFIXES = {"tera": "T", "giga": "G", "mega": "M", "kilo": "k", "hecto": "h", "deci": "d", "centi": "c", "milli": "m",
             "micro": "µ", "nano": "n", "pico": "p", "femto": "f"}  # fmt: skip
# Units that take a prefix: the symbol, and how the unit is written out.
_METRIC = {
    "m": ("meter", "metre"), "g": ("gram", "gramme"), "s": ("second", "sec"), "A": ("ampere", "amp"), "K": ("kelvin",),
    "mol": ("mole",), "cd": ("candela",), "Hz": ("hertz",), "N": ("newton",), "Pa": ("pascal",), "J": ("joule",),
    "W": ("watt",), "C": ("coulomb",), "V": ("volt",), "F": ("farad",), "H": ("henry",), "T": ("tesla",),
    "Wb": ("weber",), "Ω": ("ohm",), "eV": ("electronvolt",), "L": ("liter", "litre"), "bar": (), "cal": ("calorie",),
    "B": ("byte",),
}  # fmt: skip
_OTHERS = {
    "in": ("inch", "inche"), "ft": ("foot", "feet"), "yd": ("yard",), "mi": ("mile",), "lb": ("lbs", "pound"),
    "oz": ("ounce",), "min": ("minute",), "h": ("hr", "hour"), "day": (), "week": (), "month": (), "year": ("yr",),
    "dollar": ("usd",), "cent": (), "euro": ("eur",), "degree": ("deg", "°"), "rad": ("radian",),
    "atm": ("atmosphere",), "°C": ("celsius",), "°F": ("fahrenheit",), "rpm": (),
    "Å": ("angstrom", "ångström"),
}  # fmt: skip
_SYMBOLS = {
    **{prefix + symbol: prefix + symbol for symbol in _METRIC for prefix in ("", *_PREFIXES.values())},
    **{symbol: symbol for symbol in _OTHERS}, "l": "L", "ml": "mL",
}  # fmt: skip
_WORDS = {
    **{
        written + word: _PREFIXES.get(written, "") + symbol
        for symbol, words in _METRIC.items() for word in words for written in ("", *_PREFIXES)
    },
    **{word: symbol for symbol, words in _OTHERS.items() for word in (symbol.lower(), *words)},
    # Symbols in capitals or small letters, where no other unit is written that way.
    **{symbol.lower(): symbol for symbol in ("m", "g", "s", "kg", "mg", "cm", "mm", "km", "J", "kJ", "N")},
    **{symbol.lower(): symbol for symbol in ("W", "kW", "V", "Hz", "kHz", "Pa")},
}  # fmt: skip
# Several units in one word; `ms^{-1}` is a metre per second, though `ms` is a millisecond.
_JOINED_WORDS = (
    (re.compile(r"\bms(?=\s*\^\s*\{?\s*-)"), "m s"),
    (re.compile(r"\b([NJ])([ms])\b"), r"\1 \2"),
    (re.compile(r"\b(k?)Wh\b"), r"\1W h"),
    (re.compile(r"\bmph\b"), "mi/h"),
    (re.compile(r"\bkm?ph\b"), "km/h"),
    (re.compile(r"\bdeg(?:rees?)?\.? (?=(?:c|f|celsius|fahrenheit)\b)", re.IGNORECASE), ""),
    (re.compile(r"(?<=[^\W\d_]) per (?=[^\W\d_])"), "/"),
)
_BEFORE = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}  # words for the power of the next unit, and of the last one
_BEHIND = {"squared": 2, "cubed": 3}


def plain_unit(tail: str) -> str:
    """The text of what `TAIL` found, without fonts and LaTeX: `\\text{ m/s}^2` is "m/s^2"."""
    text = _UNWRAPPED.sub(r" \1", tail).replace("²", "^2").replace("³", "^3").replace("−", "-")
    text = re.sub(r"\\mu(?![A-Za-z])\s*", "µ", text).replace("μ", "µ")
    text = re.sub(r"\\Omega(?![A-Za-z])|Ω", "Ω", text).replace("\\AA", "Å")
    text = re.sub(r"\\(?:cdot|times)(?![A-Za-z])|[·*$~]|\\[,;:! ]", " ", text)
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?\s*", "°", text)
    return re.sub(r"(?<![^\W\d_])([kMGmµ]) Ω", r"\1Ω", " ".join(text.split()).strip(" ."))


def canonical(text: str) -> str:
    """A name for the unit that a plain text says, the same for all its spellings; "" where it is none that is known."""
    for joined, apart in _JOINED_WORDS:
        text = joined.sub(apart, text)
    if _FACTOR.sub("", text).strip(" .()"):
        return ""
    powers: dict[str, int] = {}
    sign, power, last = 1, 1, ""
    for slash, word, exponent in _FACTOR.findall(text):
        sign = -1 if slash else sign  # what follows a slash is below the line
        if word.lower() in _BEFORE:
            power = _BEFORE[word.lower()]
        elif word.lower() in _BEHIND and last:
            powers[last] *= _BEHIND[word.lower()]
        elif last := _named(word):
            powers[last] = powers.get(last, 0) + sign * power * int(exponent or 1)
            power = 1
        else:
            return ""
    return " ".join(name if power == 1 else f"{name}^{power}" for name, power in sorted(powers.items()) if power)


def same(a: str, b: str) -> bool:
    """Whether two canonical names may be one unit; "" may be any. A bare C or F is a temperature, too."""
    return not a or not b or a.removeprefix("°") == b.removeprefix("°")


def _named(word: str) -> str:
    """The name of a single unit, "" for another word. Symbols before words: MHz is not mHz."""
    word = word.replace(" ", "")
    small = word.lower()
    return _SYMBOLS.get(word) or _WORDS.get(small) or _WORDS.get(small.removesuffix("s")) or ""
