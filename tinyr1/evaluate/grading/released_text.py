r"""How the authors' rule for math cleans an answer before it compares (docs/evaluation.md §4.1), faults included.

    "m+n=204" --edges--> --units--> "+n=204" --number words, signs--> --short name before "="--> "204"

Written anew after their `parser.py`, which is Qwen2.5-Math's. The order of the steps is theirs, since a step sees what
the steps before it left. Words of units are removed wherever no letter or digit stands beside them, and so are the
variables m and a; a text with a number word in it becomes that number, whatever else it says.
"""

import re

# Words that are removed, in this order, each also with an s; "." stands for any character, as there.
_SINGLE = (
    "east|degree|mph|kmph|ft|m sqaure| m east|sq m|deg|mile|q .|monkey|prime|ratio|profit of rs|rd|o|gm|p . m|lb|tile|"
    "per|dm|lt|gain|ab|way|west|a .|b .|c .|d .|e .|f .|g .|h .|t|a|h|no change|men|soldier|pie|bc|excess|st|inches|"
    "noon|percent|by|gal|kmh|c|acre|rise|a . m|th|π r 2|sq|mark|l|toy|coin|sq . m|gallon|° f|profit|minw|yr|women|"
    "feet|am|pm|hr|cu cm|square|v â € ™|are|rupee|rounds|cubic|cc|mtr|s|ohm|number|kmph|day|hour|minute|min|second|man|"
    "woman|sec|cube|mt|sq inch|mp|∏ cm ³|hectare|more|sec|unit|cu . m|cm 2|rs .|rs|kg|g|month|km|m|cm|mm|apple|liter|"
    "loss|yard|pure|year|increase|decrease|d|less|Surface|litre|pi sq m|s .|metre|meter|inch"
)
_UNITS = [re.compile(rf"(^|\W){unit}{plural}($|\W)") for plural in ("", "s") for unit in _SINGLE.split("|")]

_BEFORE_UNITS = [(re.compile(pattern), by) for pattern, by in (
    (r"\n", ""), (r"\.+\Z", ""), (r"\\!", ""), (r"\\begin\{array\}\{.*?\}", r"\\begin{pmatrix}"),
    (r"\\end\{array\}", r"\\end{pmatrix}"), ("bmatrix", "pmatrix"), ("[td]frac", "frac"),
    (r"\\(n|l|g)eq", r"\\\1e"), (r"\\left", ""), (r"\\right", ""), (r"\\([{}])", r"\1"),
)]  # fmt: skip
_SIGNS = re.compile(r"\^\{\\circ\}|\^\\circ|\\?\$|\\[()]")
_AFTER_WORDS = [(re.compile(pattern), by) for pattern, by in (
    (r"\\text\{([^}]*)\}", r"\1"), (r"[xyz]=", ""), (r"[xyz]\\in", ""), (r"[xyz]\\to", ""), (r"\\emptyset", "{}"),
    (r"\(-\\infty,\\infty\)", r"\\mathbb{R}"), (r"\\?%", ""), (r" \.", " 0."), (r"\{\.", "{0."),
    (r"infinity", r"\\infty"),
)]  # fmt: skip
_AFTER_INFINITY = [(re.compile(pattern), by) for pattern, by in (
    ("and", ""), (r"\\mathbf", ""), (r"\\mbox\{[^}]*\}", ""),
)]  # fmt: skip
_ZEROS = ((re.compile(r"(\d+)\.0*([^\d])"), r"\1\2"), (re.compile(r"(\d+)\.0*$"), r"\1"))
_WHOLE_OR_ROOT = re.compile(r"-?(?:0|[1-9][0-9]*)|.*sqrt.*", re.DOTALL)
_SHORT_FRACTION = re.compile(r"\\frac([^{])(?:(\{)|(.))", re.DOTALL)


def cleaned(text: str) -> str:
    """The answer as it is compared.

    cleaned("\\frac12 \\text{ cm}") -> "\\frac{1}{2}"
    """
    text = re.sub(r"\n\s*", "", text)
    text = text.removeprefix(":").removesuffix(".").removesuffix("/").strip()
    for pattern, by in _BEFORE_UNITS:
        text = pattern.sub(by, text)
    if text.endswith("}"):
        text = re.sub(r"\\text{.*?}$", "", text).strip() or text
    text = _SIGNS.sub("", _without_units(text))
    text = in_digits(text)
    for pattern, by in _AFTER_WORDS:
        text = pattern.sub(by, text)
    if r"\infty" not in text:
        text = text.replace("inf", r"\infty")
    for pattern, by in _AFTER_INFINITY:
        text = pattern.sub(by, text)
    if "j" in text and "i" not in text:
        text = text.replace("j", "i")
    for pattern, by in _ZEROS:
        text = pattern.sub(by, text)
    return _in_one_form(f"0{text}" if text.startswith(".") else text)


def _without_units(text: str) -> str:
    """The text without the words of units; a word that is all there is stays."""
    for _ in range(2):
        for unit in _UNITS:
            text = unit.sub(r"\1\2", text) or text
    return text


def _in_one_form(text: str) -> str:
    """Without a name of at most two characters before the only "=", without blanks, and with braces in fractions."""
    name, *values = text.split("=")
    if len(values) == 1 and len(name) <= 2:
        (text,) = values
    text = re.sub(r"\\sqrt(\w+)", r"\\sqrt{\1}", text).replace(" ", "")
    text = _SHORT_FRACTION.sub(lambda m: rf"\frac{{{m[1]}}}" + (m[2] or f"{{{m[3]}}}"), text)
    numerator, *denominators = text.split("/")
    simple = len(denominators) == 1 and all(re.fullmatch(_WHOLE_OR_ROOT, part) for part in (numerator, *denominators))
    return rf"\frac{{{numerator}}}{{{denominators[0]}}}" if simple else text


# --- number words ---------------------------------------------------------------------------------------------

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_VALUES = (
    {word: i for i, word in enumerate(_SMALL.split())}
    | {word: 10 * i for i, word in enumerate(_TENS.split(), start=2)}
    | {"hundred": 100}
    | _SCALES
)


def in_digits(text: str) -> str:
    """The number that the words of a text say, all other words left out, as digits; the text where they say none.

    The scripts leave this to the package word2number, whose rules these are; a text of digits alone loses its leading
    zeros.
    """
    words = text.replace("-", " ").lower()
    if words.isdigit():
        return str(int(words))
    said = [word for word in words.split() if word in _VALUES or word == "point"]
    if not said or any(said.count(word) > 1 for word in (*_SCALES, "point")):
        return text
    whole, _, decimals = " ".join(said).partition("point")
    value = _whole(whole.split())
    if value is None:
        return text
    digits = decimals.split()
    if not digits:
        return str(value)
    if any(_VALUES[digit] > 9 for digit in digits):
        return text
    return str(value + float("0." + "".join(str(_VALUES[digit]) for digit in digits)))


def _whole(words: list[str]) -> int | None:
    """The value of number words without decimals; None where their order makes no number."""
    if len(words) <= 1:
        return _VALUES[words[0]] if words else 0
    places = [(words.index(scale), factor) for scale, factor in reversed(_SCALES.items()) if scale in words]
    if places != sorted(places):
        return None
    total, start = 0, 0
    for place, factor in places:
        if place == start:
            return None  # a scale without a number before it
        total += factor * _below_thousand(words[start:place])
        start = place + 1
    return total + (_below_thousand(words[start:]) if start < len(words) else 0)


def _below_thousand(words: list[str]) -> int:
    """word2number's value of the words between two scales: of more than four, the first alone."""
    values = [_VALUES[word] for word in words]
    if len(values) in (3, 4) or (len(values) == 2 and 100 in values):
        return values[0] * values[1] + sum(values[2:])
    return sum(values) if len(values) == 2 else values[0]
