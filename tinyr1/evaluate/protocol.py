"""Evaluation protocols as data: everything that decides a score besides the model and the questions.

    released   does what the authors' scripts do (`tinyr1.evaluate.released`), with their faults, which it names
    sound      asks with the prompts of `tinyr1.core.prompts`, as in training, with balanced option orders, and reads
               the text after the thinking strictly (docs/evaluation.md §0.2, §4.3, §5)

The params file gives samples, temperature, top_p and max_tokens. A protocol adds prompts, seeds, stop rules, option
order, extraction and grader. `of` makes the protocol of a benchmark, `requests` makes the requests for a model, and
`Protocol.describe` makes the description that is printed and stored with every number.
"""

from dataclasses import asdict, dataclass, fields
from random import Random
from string import Template

from tinyr1.core import artifact, prompts
from tinyr1.core.params.domains import Benchmark, Domain
from tinyr1.core.params.schema import Params
from tinyr1.data.answers import LETTERS
from tinyr1.evaluate.released import RELEASED

PAPER = {"temperature": 0.6, "top_p": 0.95, "max_tokens": 32768}  # paper §3.1.2
PAPER_SAMPLES = {"aime": 16, "gpqa": 4, "livecodebench": 4}  # paper §3.1.2
GRADING = ("option_order", "reads", "truncated_counts", "extraction", "grader")  # the rules that make an outcome
REMARKS = ("known_faults", "not_reproduced")  # texts for the reader, on which no score depends


@dataclass(frozen=True)
class Protocol:
    """How one benchmark is asked and graded. Prompt texts are `string.Template`s of question, options, starter_code."""

    name: str  # released or sound
    benchmark: str  # its name in the params file
    kind: str  # the kind of the benchmark in the params file
    system: str | None
    prompt: str  # the user's message, or the whole prompt where chat_template is False
    prompt_with_starter: str | None  # the same for problems with starter code; None: the kind has no such problems
    chat_template: bool  # False: the prompt is tokenized as it is, and the tokenizer adds its BOS
    open_think: bool  # True: the prompt ends with an open think tag, whatever the template does
    temperature: float
    top_p: float
    samples: int
    max_tokens: int
    first_seed: int | None  # sample i of every question is drawn with first_seed + i; None: the engine's seed only
    stop: tuple[str, ...]
    stop_token_ids: tuple[int, ...]
    option_order: str | None  # balanced or shuffled; None: there are no options to order
    option_layout: str | None  # lines or one_line
    reads: str  # final: the text after the last </think>; whole: the thinking too
    truncated_counts: bool  # True: a response that was cut off at max_tokens is still searched for an answer
    extraction: str  # a rule of tinyr1.evaluate.grading.grade
    grader: str  # a rule of tinyr1.evaluate.grading.grade
    known_faults: tuple[str, ...] = ()
    not_reproduced: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Hash of every rule above, grading included; the remarks do not count."""
        return artifact.digest({k: v for k, v in asdict(self).items() if k not in REMARKS})

    @property
    def grading_key(self) -> str:
        """Hash of the rules that make an outcome of a response; samples and sampling are not among them."""
        return artifact.digest({name: getattr(self, name) for name in GRADING})

    @property
    def template_hash(self) -> str:
        """Hash of the prompt texts alone."""
        texts = [self.system, self.prompt, self.prompt_with_starter]
        return artifact.digest([*texts, self.chat_template, self.open_think])

    def sampling(self) -> dict:
        """The settings with which an engine draws samples. seed: that of sample 0, sample i has seed + i; None where
        only the engine has a seed."""
        return {
            "temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens,
            "stop": list(self.stop), "stop_token_ids": list(self.stop_token_ids), "seed": self.first_seed,
        }  # fmt: skip

    def describe(self) -> dict:
        """Plain values for printing and storing: every field, both hashes, and where the paper samples otherwise."""
        hashes = {"template_hash": self.template_hash[:16], "protocol_hash": self.key[:16]}
        return {f.name: getattr(self, f.name) for f in fields(self)} | hashes | {"differs_from_paper": self.differs()}

    def differs(self) -> tuple[str, ...]:
        """Sampling parameters that are not the paper's (paper §3.1.2); empty for kinds that the paper does not have."""
        if self.kind not in PAPER_SAMPLES:
            return ()
        paper = PAPER | {"samples": PAPER_SAMPLES[self.kind]}
        pairs = [(name, getattr(self, name), value) for name, value in paper.items()]
        return tuple(f"{name} {ours}, paper {theirs}" for name, ours, theirs in pairs if ours != theirs)


def of(params: Params, name: str) -> Protocol:
    """The protocol of the benchmark `name`: the rules of `evaluate.protocol` with the sampling parameters of params."""
    evaluate, benchmark = params.evaluate, params.benchmarks[name]
    domain = params.domains[params.domain_of[name]]
    rules = RELEASED[benchmark.kind] if evaluate.protocol == "released" else _sound(domain, benchmark)
    return Protocol(
        name=evaluate.protocol, benchmark=name, kind=benchmark.kind, temperature=evaluate.temperature,
        top_p=evaluate.top_p, samples=benchmark.samples, max_tokens=benchmark.max_tokens, **rules,
    )  # fmt: skip


_STRICT = {"integer": "boxed_integer", "expression": "boxed_expression", "option": "anchored_option",
           "program": "last_fence_or_program"}  # fmt: skip


def _sound(domain: Domain, benchmark: Benchmark) -> dict:
    """The rules of `sound`: the benchmark's instruction or its domain's, and the strict extraction of its answers."""
    orders_options = benchmark.kind in ("gpqa", "choice")  # others have their options in the question
    question = "${question}\n${options}" if orders_options else "${question}"
    own = getattr(benchmark, "instruction", None)
    instruction = (own or domain.instruction_for(benchmark.answers == "option")).replace("$", "$$")  # string.Template's
    with_starter = prompts.user_turn(instruction, question, "${starter_code}")
    return {
        "system": None, "prompt": prompts.user_turn(instruction, question),
        "prompt_with_starter": with_starter if benchmark.answers == "program" else None,
        "chat_template": True, "open_think": True, "first_seed": None,
        "stop": (), "stop_token_ids": (), "option_order": "balanced" if orders_options else None,
        "option_layout": "lines" if orders_options else None, "reads": "final", "truncated_counts": False,
        "extraction": _STRICT[benchmark.answers], "grader": benchmark.answers,
    }  # fmt: skip


def order(protocol: Protocol, question: dict, sample: int) -> tuple[int, ...] | None:
    """Option ids in the order in which sample `sample` shows them, A first; None without options to order.

    The order depends on the question's id and the sample alone, so all models and runs see the same. balanced: each
    block of n samples shows every one of n options at every letter once. shuffled: each sample is drawn by itself
    (docs/evaluation.md §5). A question that is `fixed` keeps the order of its file (docs/evaluation.md §0.5).
    """
    if protocol.option_order is None or "options" not in question:
        return None
    n = len(question["options"])
    if question.get("fixed"):
        return tuple(range(n))
    if protocol.option_order == "shuffled":
        return tuple(Random(f"shuffled/{question['id']}/{sample}").sample(range(n), n))
    block, turn = divmod(sample, n)
    rng = Random(f"balanced/{question['id']}/{block}")
    base, turns = rng.sample(range(n), n), rng.sample(range(n), n)
    return tuple(base[(i + turns[turn]) % n] for i in range(n))


def letters(question: dict) -> str:
    """The letters of a question's options; a question that shows its options in its text has four."""
    return LETTERS[: len(question.get("options", LETTERS[:4]))]


def requests(protocol: Protocol, questions: list[dict], samples: int | None = None) -> list[dict]:
    """The requests for a model: one dict for each question and sample, in the order of the questions.

    Each has question (id), sample, seed (None: the engine's), open_think, order (None without options), and either
    messages (role and content; for the model's chat template) or prompt (the whole text).
    samples: answers to each question; None: as many as the protocol says.
    """
    return [
        _request(protocol, question, sample)
        for question in questions
        for sample in range(protocol.samples if samples is None else samples)
    ]


def shown_text(protocol: Protocol, question: dict) -> str:
    """The user's message, or the raw prompt, that shows a question to a model in sample 0."""
    request = _request(protocol, question, 0)
    return request["prompt"] if "prompt" in request else request["messages"][-1]["content"]


def response_key(protocol: Protocol, questions: list[dict]) -> str:
    """Hash of prompts, seeds, option orders and sampling, which shape the responses.

    Grading rules and the number of samples stay out of it: responses can be graded again by other rules, and more
    samples can be added to those that are stored.
    """
    return artifact.digest([requests(protocol, questions, 1), protocol.option_order, protocol.sampling()])


def _request(protocol: Protocol, question: dict, sample: int) -> dict:
    ordered = order(protocol, question, sample)
    text = _text(protocol, question, ordered)
    system = [{"role": "system", "content": protocol.system}] if protocol.system else []
    asked = {"messages": [*system, {"role": "user", "content": text}]} if protocol.chat_template else {"prompt": text}
    return {
        "question": question["id"], "sample": sample, **asked, "open_think": protocol.open_think,
        "order": list(ordered) if ordered else None,
        "seed": None if protocol.first_seed is None else protocol.first_seed + sample,
    }  # fmt: skip


def _text(protocol: Protocol, question: dict, ordered: tuple[int, ...] | None) -> str:
    """The prompt's text; `sound` trims what it inserts, `released` inserts it as it is."""
    starter, trims = question.get("starter_code", ""), protocol.name == "sound"
    template = (protocol.prompt_with_starter if starter else None) or protocol.prompt
    options = [question["options"][i] for i in ordered or ()]
    options = [option.strip() for option in options] if trims else options
    lines = [f"{letter}) {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return Template(template).substitute(
        question=question["question"].strip() if ordered and trims else question["question"],
        options=("\n" if protocol.option_layout == "lines" else ", ").join(lines),
        starter_code=starter.rstrip() if trims else starter,
    )
