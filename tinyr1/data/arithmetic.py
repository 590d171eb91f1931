"""Reads what stands on one side of an equals sign: the value of plain arithmetic, or a name such as `m+n` or `|S|`.

    "45 + 159"        value -> 204          "\\frac{408}{2}"   value -> 204
    "m+n", "f(5)"     is_name -> True       "2x", "\\ln"       is_name -> False: an equation to be solved, not an answer

Texts are as `tinyr1.data.answers.plain` leaves them. Both functions are pure, and linear in the length of the text.
"""

import re
from fractions import Fraction

MOST_TOKENS = 200
MOST_EXPONENT = 20

_TOKEN = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?(?![0-9])|\\[dt]?frac|\\cdot|\\times|\\div|[-+*/^(){}]")
_TIMES, _OVER = ("*", "\\cdot", "\\times"), ("/", "\\div")


class _NoValue(ValueError):
    """The text is not plain arithmetic."""


def value(text: str) -> Fraction | None:
    """The value of numbers with + - * / ^, \\cdot, \\times, \\div, \\frac and brackets; None for all else."""
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != re.sub(r"\s+", "", text) or re.search(r"[0-9]\s+[0-9]", text) or len(tokens) > MOST_TOKENS:
        return None
    parser = _Parser(tokens)
    try:
        found = parser.sum()
    except (_NoValue, ZeroDivisionError):
        return None
    return found if parser.at_end() else None


class _Parser:
    """Recursive descent over at most MOST_TOKENS tokens, which bounds its depth."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.next = tokens, 0

    def at_end(self) -> bool:
        return self.next == len(self.tokens)

    def taken(self, *wanted: str) -> str | None:
        """The next token, if it is one of these."""
        if self.at_end() or self.tokens[self.next] not in wanted:
            return None
        self.next += 1
        return self.tokens[self.next - 1]

    def sum(self) -> Fraction:
        total = -self.product() if self.taken("-") else self.product()
        while sign := self.taken("+", "-"):
            total += self.product() if sign == "+" else -self.product()
        return total

    def product(self) -> Fraction:
        total = self.power()
        while operator := self.taken(*_TIMES, *_OVER):
            total = total * self.power() if operator in _TIMES else total / self.power()
        return total

    def power(self) -> Fraction:
        base = self.atom()
        if not self.taken("^"):
            return base
        exponent = self.atom()
        if exponent.denominator != 1 or not 0 <= exponent <= MOST_EXPONENT:
            raise _NoValue
        return base**exponent.numerator

    def atom(self) -> Fraction:
        if self.taken("\\frac", "\\dfrac", "\\tfrac"):
            numerator = self.group("{", "}")
            return numerator / self.group("{", "}")
        for opening, closing in (("(", ")"), ("{", "}")):
            if not self.at_end() and self.tokens[self.next] == opening:
                return self.group(opening, closing)
        if self.at_end() or not self.tokens[self.next][0].isdigit():
            raise _NoValue
        self.next += 1
        return Fraction(self.tokens[self.next - 1])

    def group(self, opening: str, closing: str) -> Fraction:
        if not self.taken(opening):
            raise _NoValue
        inner = self.sum()
        if not self.taken(closing):
            raise _NoValue
        return inner


# --- names ----------------------------------------------------------------------------------------------------

_GREEK = (
    "alpha|beta|gamma|delta|epsilon|varepsilon|zeta|eta|theta|vartheta|iota|kappa|lambda|mu|nu|xi|rho|sigma|tau|"
    "upsilon|phi|varphi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Sigma|Phi|Psi|Omega|ell|max|min|gcd|lcm|det|dim|deg"
)
_PART = re.compile(
    # a variable, word or rounded value with its subscript, primes and argument: x, a_1, S_{100}, f'(5)
    rf"(?P<name>[A-Za-z]+|\\(?:{_GREEK})(?![A-Za-z])|\\lfloor[^=]*\\rfloor|\\lceil[^=]*\\rceil)(?P<own>(?:\s*_\s*(?:\{{[^{{}}]*\}}|[0-9]+|[A-Za-z](?![A-Za-z])|[A-Za-z]{{3,}}))?'*)"
    r"(?P<argument>\s*\([^()=]*\))?"
    r"|(?P<calculated>[-+*/^]|\\cdot(?![A-Za-z])|\\times(?![A-Za-z])|[0-9]+)"
    r"|(?P<mark>[#|()\[\]{}\s]|\\(?:angle|triangle|overline|widehat|hat|vec|bar|lvert|rvert|vert|cap|cup)(?![A-Za-z]))"
    r"|(?P<other>.)", re.DOTALL,
)  # fmt: skip
_SIZE = re.compile(r"\s*(?:\||\\[lr]?vert)\s*[a-z]\s*(?:\||\\[lr]?vert)\s*")
# Words with which a number is no longer the answer, or not for certain; functions whose value it would be.
_SPOILING = (
    "ln log lg exp sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan arg sqrt root mod bmod pmod modulo "
    "percent percents percentage pct per not non no nor or and either neither none without except unless if than "
    "maybe perhaps possibly probably about approx approximately roughly around nearly almost guess dozen dozens "
    "hundred hundreds thousand thousands million millions billion billions trillion trillions quadrillion quintillion "
    "lakh lakhs crore crores square squared cube cubed half halved twice "
    "double thrice triple inverse reciprocal opposite negative minus plus times wrong incorrect false least most more "
    "less over under upper lower bound bounds estimate estimated error unknown bad complement numerator denominator "
    "trial try old"
)
SPOILED = frozenset(_SPOILING.split())
LONGEST_NAME = 200  # characters
MOST_WORDS = 5  # in a name such as "area of the triangle"


def is_name(text: str) -> bool:
    """Whether a text names one quantity, so that `text = 204` says that the answer is 204.

    It may be a variable with marks and subscripts, a word or a few, a function's value, the size of a set, or a sum or
    product of at least two variables, as in "find m+n". An expression in one unknown (2x, x^2, -x) is no name, because
    the answer may be the unknown; nor is a product with a number (2AB, AB/2) or a sum with one (m+n-1), for the same
    reason. Nor is the logarithm or the like of something, or a text with doubt or a per cent in it.
    """
    if len(text) > LONGEST_NAME or any(text.count(a) != text.count(b) for a, b in ("()", "[]", "{}")):
        return False
    parts = list(_PART.finditer(text))
    words = [part["name"] for part in parts if part["name"]]
    if not words or any(part["other"] for part in parts) or SPOILED & {word.lower() for word in words}:
        return False
    if sum(len(word) > 3 for word in words) > MOST_WORDS or _SIZE.fullmatch(text):  # |x| = 5 may mean x = -5
        return False
    is_expression = any(part["calculated"] for part in parts)
    variables: set[str] = set()
    for part in parts:
        if part["name"]:
            of_itself = part["argument"] is not None and part["name"] in part["argument"]  # n(n+1) is a product
            is_expression = is_expression or of_itself
            variables |= {part["name"]} if of_itself else _variables(part)
    return not is_expression or (len(variables) > 1 and not _has_own_number(parts))


def _has_own_number(parts: list[re.Match]) -> bool:
    """Whether an expression has a sign before it, a term that is a number, or is one term with a number in it. In a sum
    of several terms each may have a factor: 100m+n is the three digits of a number."""
    depth, terms, power = 0, [""], False
    for part in parts:
        mark, calculated = part["mark"] or "", part["calculated"] or ""
        depth += (mark in ("(", "[", "{")) - (mark in (")", "]", "}"))
        if depth == 0 and calculated in ("+", "-"):
            terms.append("")
        elif part["name"]:
            terms[-1] += "n"
        elif depth == 0 and calculated[:1].isdigit() and not power:  # AB^2 is the square of a length
            terms[-1] += "1"
        power = calculated == "^"
    return any("n" not in term for term in terms) or (len(terms) == 1 and "1" in terms[0])


def is_variable(text: str) -> bool:
    """Whether a name is one word or symbol and nothing else."""
    return re.fullmatch(r"\s*\\?[A-Za-z]+\s*", text) is not None


def _variables(part: re.Match) -> set[str]:
    """The variables of a part of _PART: a short word is a product of them, a longer one is a name."""
    name = part["name"]
    if part["own"] or part["argument"]:
        return {part[0]}
    return set(name) if name.isalpha() and (len(name) <= 3 or name.isupper()) else {name}
