"""Evaluation protocols as data: all that decides a score besides the model and the questions.

    released   what the authors' scripts do (docs/fidelity.md §4.1-4.4), faults included; `known_faults` names them
    sound      prompts of `tinyr1.core.prompts`, as in training; balanced option orders; strict extraction after the
               thinking (docs/evaluation.md §4.3, §5, §6)

Params give k, temperature, top_p and max_tokens; a protocol adds prompts, seeds, stop rules, option order, extraction
and grader. `requests` makes what a model is asked, `describe` what is printed and stored with every number.
"""

from dataclasses import asdict, dataclass, fields
from random import Random
from string import Template

from tinyr1.core import artifact, prompts
from tinyr1.core.params import Benchmark, Domain, Params

LETTERS = "ABCD"
PAPER = {"temperature": 0.6, "top_p": 0.95, "max_tokens": 32768}  # paper §3.1.2
GRADING = ("option_order", "reads", "truncated_counts", "extraction", "grader")  # the rules that make an outcome
PAPER_SAMPLES = {"aime": 16, "gpqa": 4, "livecodebench": 4}


@dataclass(frozen=True)
class Protocol:
    """How one benchmark is asked and graded. Prompt texts are `string.Template`s of question, options, starter_code."""

    name: str  # released or sound
    benchmark: str  # name in params
    kind: str  # of Benchmark
    system: str | None
    prompt: str  # the user's message, or the whole prompt where chat_template is False
    prompt_with_starter: str | None  # the same for problems with starter code
    chat_template: bool  # False: the prompt is tokenized as it is, and the tokenizer adds its BOS
    open_think: bool  # True: the prompt ends with an open think tag, whatever the template does
    temperature: float
    top_p: float
    samples: int
    max_tokens: int
    first_seed: int | None  # sample i of every question is drawn with first_seed + i; None: the engine's seed only
    stop: tuple[str, ...]
    stop_token_ids: tuple[int, ...]
    option_order: str | None  # balanced or shuffled; None: no options to order
    option_layout: str | None  # lines or one_line
    reads: str  # final: the text after the last </think>; whole: the thinking too
    truncated_counts: bool  # True: a response cut off at max_tokens is still searched for an answer
    extraction: str  # rule of tinyr1.evaluate.grading.grade
    grader: str  # rule of tinyr1.evaluate.grading.grade
    known_faults: tuple[str, ...] = ()
    not_reproduced: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Hash of every rule above, grading included; remarks do not count."""
        return artifact.digest({k: v for k, v in asdict(self).items() if k not in ("known_faults", "not_reproduced")})

    @property
    def grading_key(self) -> str:
        """Hash of the rules that make an outcome of a response; k and sampling are not among them."""
        return artifact.digest({name: getattr(self, name) for name in GRADING})

    @property
    def template_hash(self) -> str:
        """Hash of the prompt texts alone."""
        texts = [self.system, self.prompt, self.prompt_with_starter]
        return artifact.digest([*texts, self.chat_template, self.open_think])

    def sampling(self) -> dict:
        """What an engine needs to draw samples. seed: of sample 0; sample i has seed + i; None: the engine's alone."""
        return {
            "temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens,
            "stop": list(self.stop), "stop_token_ids": list(self.stop_token_ids), "seed": self.first_seed,
        }  # fmt: skip

    def describe(self) -> dict:
        """Plain values for printing and storing, with both hashes and the settings in which the paper differs."""
        hashes = {"template_hash": self.template_hash[:16], "protocol_hash": self.key[:16]}
        return {f.name: getattr(self, f.name) for f in fields(self)} | hashes | {"differs_from_paper": self.differs()}

    def differs(self) -> tuple[str, ...]:
        """Sampling parameters that are not the paper's (§3.1.2); empty for benchmarks it does not have."""
        if self.kind not in PAPER_SAMPLES:
            return ()
        paper = PAPER | {"samples": PAPER_SAMPLES[self.kind]}
        pairs = [(name, getattr(self, name), value) for name, value in paper.items()]
        return tuple(f"{name} {ours}, paper {theirs}" for name, ours, theirs in pairs if ours != theirs)


def of(params: Params, name: str) -> Protocol:
    """The protocol of benchmark `name`: the rules of evaluate.protocol with the sampling parameters of params."""
    evaluate, benchmark = params.evaluate, params.benchmarks[name]
    domain = params.domains[params.domain_of[name]]
    rules = RELEASED[benchmark.kind] if evaluate.protocol == "released" else _sound(domain, benchmark)
    return Protocol(
        name=evaluate.protocol, benchmark=name, kind=benchmark.kind, temperature=evaluate.temperature,
        top_p=evaluate.top_p, samples=benchmark.samples, max_tokens=benchmark.max_tokens, **rules,
    )  # fmt: skip


def _sound(domain: Domain, benchmark: Benchmark) -> dict:
    has_options = benchmark.kind == "gpqa"  # as texts to be ordered; the miniature's stand in the question
    question = "${question}\n${options}" if has_options else "${question}"
    instruction = domain.instruction_for(benchmark.answers == "option").replace("$", "$$")  # of a string.Template
    extraction = {"integer": "boxed_integer", "option": "anchored_option", "program": "last_fence"}[benchmark.answers]
    return {
        "system": None, "prompt": prompts.user_turn(instruction, question),
        "prompt_with_starter": (
            prompts.user_turn(instruction, question, "${starter_code}") if benchmark.answers == "program" else None
        ),
        "chat_template": True, "open_think": True, "first_seed": None,
        "stop": (), "stop_token_ids": (), "option_order": "balanced" if has_options else None,
        "option_layout": "lines" if has_options else None, "reads": "final", "truncated_counts": False,
        "extraction": extraction, "grader": benchmark.answers,
    }  # fmt: skip


_LCB_TASK = (
    "You will be given a question (problem specification) and will generate a correct Python program that matches the "
    "specification and passes all tests.\n\nQuestion: ${question}\n\n"
)
_TEMPLATE_DECIDES = "whether the prompt opens the think tag depends on the revision of the tokenizer's template"
_WHOLE = "the thinking and texts cut off at the token limit are searched for an answer too"
_VERSIONS = "the engine and library versions of the scripts, two sets of which are documented (docs/fidelity.md C19)"

RELEASED: dict[str, dict] = {
    # docs/fidelity.md §4.2
    "aime": {
        "system": None,
        "prompt": "<｜begin▁of▁sentence｜>Please reason step by step, and put your final answer within \\boxed{}."
                  "<｜User｜>${question}<｜Assistant｜>",
        "prompt_with_starter": None, "chat_template": False, "open_think": False,
        "first_seed": 0, "stop": ("</s>",), "stop_token_ids": (), "option_order": None, "option_layout": None,
        "reads": "whole", "truncated_counts": True, "extraction": "released_math", "grader": "math_equal",
        "known_faults": (
            "the prompt is DeepSeek's format whatever the model's own template, and does not open the think tag",
            "the text holds a BOS and the tokenizer adds one: two where it adds any",
            "seed i of run i is the same for every question",
            "stop words depend on the words deepseek and qwen in the model's path; these are for a path with neither",
            _WHOLE,
            "without a box the last number of the text is the answer",
            "the text after the word boxed is read even where no brace follows",
            "numbers are equal within 1e-4 relative, and as a hundredth or a hundredfold: 5 = 500, 204.01 = 204",
            "a comparison that takes longer than 3 s counts as wrong in the scripts; here its outcome is timeout",
        ),
        "not_reproduced": (
            "a limit of 32,768 tokens on prompt and answer together; here on the answer",
            "output that ends in a code fence is run as Python and generation goes on",
            "rounding of each run's accuracy to 0.1 before averaging",
            "symbolic comparison by three parsers; Math-Verify here",
            _VERSIONS,
        ),
    },
    # docs/fidelity.md §4.3
    "gpqa": {
        "system": "You are a helpful and harmless assistant. You should think step-by-step.",
        "prompt": "Return your final response within \\boxed{{}} and only include the letter choice (A, B, C, or D) as "
                  "your final response. ${question}\n${options}",
        "prompt_with_starter": None, "chat_template": True, "open_think": False,
        "first_seed": 0, "stop": ("<|im_end|>", "<|endoftext|>"), "stop_token_ids": (151645, 151643),
        "option_order": "shuffled", "option_layout": "one_line",
        "reads": "whole", "truncated_counts": True, "extraction": "last_letter", "grader": "option",
        "known_faults": (
            "the prompt shows \\boxed{{}} with double braces",
            "options are shuffled without a seed in the scripts, anew for each run; seeded here, so that models can be "
            "compared in pairs, but not balanced",
            "the last bare A, B, C or D of the upper-cased text is the answer: the article a is A, vitamin D is D",
            _WHOLE,
            "seed i of run i is the same for every question",
            _TEMPLATE_DECIDES,
            "the stop ids are those of Qwen's vocabulary, and the scripts choose them by the model's name",
        ),
        "not_reproduced": ("a failed run counts -1 in the scripts' mean", _VERSIONS),
    },
    # docs/fidelity.md §4.4
    "livecodebench": {
        "system": None,
        "prompt": _LCB_TASK + "Read the inputs from stdin solve the problem and write the answer to stdout (do not "
                  "directly test on the sample inputs). Enclose your code within delimiters as follows.\n"
                  "```python\n# YOUR CODE HERE\n```\n\n",
        "prompt_with_starter": _LCB_TASK + "You will use the following starter code to write the solution to the "
                               "problem and enclose your code within delimiters.\n```python\n${starter_code}\n```\n\n",
        "chat_template": True, "open_think": False, "first_seed": 10008,
        "stop": ("<｜end▁of▁sentence｜>",), "stop_token_ids": (), "option_order": None, "option_layout": None,
        "reads": "whole", "truncated_counts": True, "extraction": "last_fence", "grader": "program",
        "known_faults": (
            "the scripts draw every sample with seed 10008 and differ in k (1, 2, 16; paper 4); here sample i has "
            "seed 10008 + i",
            _TEMPLATE_DECIDES,
            _WHOLE,
        ),
        "not_reproduced": (
            "a second BOS before the rendered template",
            "18 s of wall clock for a test and 60 s for all tests of a problem",
            "output compared with a tolerance that lets some wrong answers pass (docs/evaluation.md §1.3); the "
            "official comparison here",
            "the release latest on the day; params pin one",
            _VERSIONS,
        ),
    },
}  # fmt: skip


def order(protocol: Protocol, question: dict, sample: int) -> tuple[int, ...] | None:
    """Option ids in the order in which sample `sample` shows them, A first; None without options to order.

    It depends on question id and sample alone, so all models and runs see the same. balanced: each run of four
    samples shows every option at every letter once. shuffled: each sample is drawn by itself.
    """
    if protocol.option_order is None or "options" not in question:
        return None
    if protocol.option_order == "shuffled":
        return tuple(Random(f"shuffled/{question['id']}/{sample}").sample(range(4), 4))
    block, turn = divmod(sample, 4)
    rng = Random(f"balanced/{question['id']}/{block}")
    base, turns = rng.sample(range(4), 4), rng.sample(range(4), 4)
    return tuple(base[(i + turns[turn]) % 4] for i in range(4))


def requests(protocol: Protocol, questions: list[dict], samples: int | None = None) -> list[dict]:
    """What a model is asked: one dict for each question and sample, questions outermost.

    question (id), sample, seed (None: the engine's), open_think, order (None without options), and either
    messages (role and content; for the model's chat template) or prompt (the whole text).
    samples: protocol.samples unless given.
    """
    return [
        _request(protocol, question, sample)
        for question in questions
        for sample in range(protocol.samples if samples is None else samples)
    ]


def response_key(protocol: Protocol, questions: list[dict]) -> str:
    """Hash of what shapes the responses: prompts, seeds, option orders and sampling.

    Grading rules and k stay out of it: responses can be graded again by other rules, and more samples can be added.
    """
    return artifact.digest([requests(protocol, questions, 1), protocol.option_order, protocol.sampling()])


def _request(protocol: Protocol, question: dict, sample: int) -> dict:
    shown = order(protocol, question, sample)
    text = _text(protocol, question, shown)
    system = [{"role": "system", "content": protocol.system}] if protocol.system else []
    asked = {"messages": [*system, {"role": "user", "content": text}]} if protocol.chat_template else {"prompt": text}
    return {
        "question": question["id"], "sample": sample, **asked, "open_think": protocol.open_think,
        "order": list(shown) if shown else None,
        "seed": None if protocol.first_seed is None else protocol.first_seed + sample,
    }  # fmt: skip


def _text(protocol: Protocol, question: dict, shown: tuple[int, ...] | None) -> str:
    starter, strict = question.get("starter_code", ""), protocol.name == "sound"
    template = protocol.prompt_with_starter if starter else protocol.prompt
    options = [question["options"][i] for i in shown or ()]
    options = [option.strip() for option in options] if strict else options
    lines = [f"{letter}) {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return Template(template).substitute(
        question=question["question"].strip() if shown and strict else question["question"],
        options=("\n" if protocol.option_layout == "lines" else ", ").join(lines),
        starter_code=starter.rstrip() if strict else starter,
    )
