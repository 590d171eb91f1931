r"""The normal form of a question: two questions with one form ask the same.

    question --normalised--> one form of blanks, delimiters and signs --question_key--> equal bytes: an exact duplicate

A normalisation may only remove what no reader could take for a part of the question: `5!` stays another question than
`5`, `F` than `f`, `3.14` than `3,14`. A repeated question that stays costs a little training time, a question that goes
is lost. Questions that differ in wording only are found by `tinyr1.data.near_duplicates`.
"""

import re
import unicodedata
from hashlib import blake2b


def words(text: str) -> frozenset[str]:
    """The words of a text with blanks between them."""
    return frozenset(text.split())


# --- one form for each sign -----------------------------------------------------------------------------------------

# A sign and the LaTeX commands that set it. Letters of a language stay in prose; in formulas they are these symbols.
SIGNS = {
    "×": "times", "·": "cdot bullet", "÷": "div", "±": "pm", "∓": "mp", "*": "ast", "∘": "circ", "°": "degree",
    "=": "equal", "+": "plus", "-": "minus", "≤": "le leq leqslant", "≥": "ge geq geqslant", "≠": "ne neq", "<": "lt",
    ">": "gt", "≈": "approx", "≡": "equiv", "∼": "sim", "≅": "cong", "∝": "propto", "≪": "ll", "≫": "gg",
    "∞": "infty", "…": "ldots dots cdots dotsc dotsb",
    "→": "to rightarrow longrightarrow", "←": "gets leftarrow", "⇒": "Rightarrow implies Longrightarrow",
    "⇔": "iff Leftrightarrow Longleftrightarrow", "↦": "mapsto", "∈": "in", "∉": "notin", "⊂": "subset",
    "⊆": "subseteq", "⊃": "supset", "⊇": "supseteq", "∪": "cup", "∩": "cap", "∖": "setminus",
    "∅": "emptyset varnothing",
    "∑": "sum", "∏": "prod", "∫": "int", "∮": "oint", "∂": "partial", "∇": "nabla", "∠": "angle", "△": "triangle",
    "⊥": "perp", "∥": "parallel Vert lVert rVert", "|": "mid vert lvert rvert", "∤": "nmid", "∀": "forall",
    "∃": "exists", "¬": "neg lnot", "∧": "wedge land", "∨": "vee lor", "⌊": "lfloor", "⌋": "rfloor", "⌈": "lceil",
    "⌉": "rceil", "⟨": "langle", "⟩": "rangle", "⊕": "oplus", "⊗": "otimes", "ℓ": "ell", "'": "prime", ":": "colon",
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon varepsilon", "ζ": "zeta", "η": "eta",
    "θ": "theta vartheta", "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi",
    "ρ": "rho varrho", "σ": "sigma", "τ": "tau", "υ": "upsilon", "φ": "phi varphi", "χ": "chi", "ψ": "psi",
    "ω": "omega", "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma",
    "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega", "\\{": "lbrace", "\\}": "rbrace",
}  # fmt: skip
# Commands that only place or size what follows them, or are a gap.
GAPS = words(
    "left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr displaystyle textstyle limits "
    "nolimits quad qquad space thinspace medspace thickspace enspace nobreakspace noindent"
)
FUNCTIONS = words(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp gcd lcm max min sup inf lim det dim ker "
    "deg arg mod bmod"
)
COMMANDS = (
    {name: sign for sign, names in SIGNS.items() for name in names.split()}
    | dict.fromkeys(GAPS, " ")
    | {name: f" {name.removeprefix('b')} " for name in FUNCTIONS}
)
RENAMED = {"dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom"}
ESCAPES = dict.fromkeys(("\\(", "\\)", "\\[", "\\]", "$", "$$", "~"), " ") | {
    **dict.fromkeys(("\\,", "\\;", "\\:", "\\!", "\\>", "\\ ", "\\\n", "\\\t"), " "),
    "\\%": "%", "\\#": "#", "\\&": "&", "\\_": "_", "\\|": "∥",
}  # fmt: skip


def _compatible(*spans: tuple[int, int]) -> dict[int, str]:
    """Characters of the spans (first, last) with the plain characters that Unicode gives for them."""
    return {i: unicodedata.normalize("NFKC", chr(i)) for first, last in spans for i in range(first, last + 1)}


# Full-width ASCII, ligatures, and the italics of formulas. Bold and script letters are symbols of their own.
CHARACTERS = _compatible((0xFF01, 0xFF5E), (0xFB00, 0xFB06), (0x1D434, 0x1D467), (0x1D6E2, 0x1D71B)) | str.maketrans({
    **dict.fromkeys("\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff", ""),
    **dict.fromkeys("‐‑‒–—―−﹣", "-"),
    **dict.fromkeys("“”„‟«»", '"'), **dict.fromkeys("‘’‚‛ʼ′", "'"), "″": "''",
    **dict.fromkeys("⋅∙•‧", "·"), **dict.fromkeys("✕✖⨯", "×"), "∗": "*", "⁄": "/", "∕": "/", "∶": ":",
    "∣": "|", "‖": "∥",
    "⩽": "≤", "⩾": "≥", "⋯": "…", "µ": "μ", "ϕ": "φ", "ϵ": "ε", "ϑ": "θ", "ϱ": "ρ", "º": "°", "∆": "Δ", "ℎ": "h",
    "＄": "\\$", "√": "\\sqrt ", "∛": "\\sqrt[3]", "ℝ": "\\mathbb{R}", "ℕ": "\\mathbb{N}", "ℤ": "\\mathbb{Z}",
    "ℚ": "\\mathbb{Q}", "ℂ": "\\mathbb{C}", "½": "\\frac{1}{2}", "⅓": "\\frac{1}{3}", "⅔": "\\frac{2}{3}",
    "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}",
})  # fmt: skip
RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "0123456789+-=()ni")
LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙᵢₖ", "0123456789+-=()nik")
ASCII_SIGNS = (("<=>", "⇔"), ("<=", "≤"), (">=", "≥"), ("=>", "⇒"), ("->", "→"), ("...", "…"), (" != ", "≠"))

RAISED_RUN = re.compile("[⁰¹²³⁴-⁹⁺⁻⁼⁽⁾ⁿⁱ]+")
LOWERED_RUN = re.compile("[₀-₉₊₋₌₍₎ₙᵢₖ]+")
ROOT = re.compile(r"√\s*(\d+)")  # √12 is the root of 12, where \sqrt12 is that of 1
TOKEN = re.compile(
    r"\\(?:left|right)\s*\.|\\(?:begin|end)\{(?:equation|displaymath|math)\*?\}|\\([A-Za-z]+)(\s*(?:\{\})?)|\\.|\$\$?|~",
    re.DOTALL,
)
TEXT = re.compile(r"\\(?:text|textrm|textbf|textit|textnormal|mbox|operatorname|emph)\*?\s*\{([^{}]*)\}")
UPRIGHT = re.compile(r"\\(?:mathrm|mathit|mathop|rm)\s*\{([^{}]*)\}")
MODULO = re.compile(r"\\pmod\s*\{([^{}]*)\}")
ONE_LETTER = re.compile(r"\\(frac|binom|sqrt\[3\]|sqrt|mathbb|mathbf|mathcal|vec|overline|bar|hat)(?![A-Za-z])\s*(\w)")
SECOND_LETTER = re.compile(r"(\\(?:frac|binom)\{[^{}]*\})\s*(\w)")
SCRIPT = re.compile(r"([\^_])\s*(-?\d+|[^\W\d_]|[∘'*+∞]|\\[A-Za-z]+)")
GREEK = "\u0386-\u03ce"
# A blank that stands between two words, or two numbers, stays; so does the one after the full stop of `3. 14`. The
# blank in `2 x` says nothing, and neither does one between a Greek letter and another sign.
EMPTY = re.compile(
    r" (?:(?!\w)|(?<!\w )(?!(?<=\d\. )\d)|(?<=\d )(?=[^\W\d])"
    rf"|(?<=[{GREEK}] )(?![{GREEK}])|(?<![{GREEK}] )(?=[{GREEK}]))"
)
PAUSE = re.compile(r"(?<=[^\W\d_]{2}) ?[,;:.] ([A-Z]?[a-z]{3,})(?![A-Za-z])")  # between two words of prose
FENCED = re.compile(r"(```.*?(?:```|\Z))", re.DOTALL)


def _form(found: re.Match[str]) -> str:
    name = found[1]
    if name is None:
        token = found[0]
        return " " if len(token) > 2 else ESCAPES.get(token, token)
    if name in COMMANDS:
        return COMMANDS[name]  # TeX, too, ignores blanks and an empty group after a command
    return f"\\{RENAMED.get(name, name)}{found[2]}"


def _plain_latex(text: str) -> str:
    """The text with one spelling for each command and without delimiters of formulas, which become blanks."""
    text = TOKEN.sub(_form, text)
    if "\\" in text:
        text = MODULO.sub(r"(mod \1)", UPRIGHT.sub(r"\1", TEXT.sub(r" \1 ", text)))
        text = SECOND_LETTER.sub(r"\1{\2}", ONE_LETTER.sub(r"\\\1{\2}", text))
        text = text.replace("\\not=", "≠").replace("\\not =", "≠").replace("{,}", ",")
    return text


def _plain_characters(text: str) -> str:
    """The text with one character for each sign, and with raised and lowered digits as `^{2}` and `_{2}`."""
    text = ROOT.sub(r"\\sqrt{\1}", unicodedata.normalize("NFC", text))
    text = RAISED_RUN.sub(lambda run: f"^{{{run[0].translate(RAISED)}}}", text)
    text = LOWERED_RUN.sub(lambda run: f"_{{{run[0].translate(LOWERED)}}}", text)
    return text.translate(CHARACTERS)


def normalised_prose(text: str) -> str:
    """The normal form of text without fenced code."""
    if not text.isascii():
        text = _plain_characters(text)
    text = " ".join(_plain_latex(text).split())
    for spelling, sign in ASCII_SIGNS:
        text = text.replace(spelling, sign)
    text = PAUSE.sub(lambda word: f" {word[1].lower()}", text)
    if "^" in text or "_" in text:
        text = SCRIPT.sub(r"\1{\2}", text)
    text = EMPTY.sub("", text).replace("^{∘}", "°").replace("^{'}", "'")
    return text[:-1] if text.endswith((".", "?", "。")) else text  # never `!`: it may be a factorial


def normalised_code(code: str) -> str:
    """A program without blanks at the ends of its lines and without empty lines around it."""
    return "\n".join(line.rstrip() for line in code.splitlines()).strip("\n")


def normalised(text: str) -> str:
    r"""The text in the one form that all spellings of it share: blanks, delimiters of formulas, signs, pauses.

    `Solve \(x − 1 = 2\).` and `Solve $x-1=2$` give the same; digits, operators, decimal marks, factorials, exponents
    and upper case stay. Only a mark between two words goes, with the capital that it brings, and the mark at the end.
    Fenced blocks of code keep everything but blanks at the ends of lines.
    """
    if "```" not in text:
        return normalised_prose(text)
    parts = FENCED.split(text)
    return "\n".join(normalised_code(part) if i % 2 else normalised_prose(part) for i, part in enumerate(parts))


def question_key(question: str, starter_code: str = "") -> bytes:
    """16 bytes that two questions share when they differ in spelling at most, as `normalised` has it."""
    text = f"{normalised(question)}\0{normalised_code(starter_code)}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


# --- units: words and the parts of formulas -------------------------------------------------------------------------
