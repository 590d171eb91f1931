import copy
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tinyr1.core import config, prompts
from tinyr1.core.errors import UserError
from tinyr1.core.tokenizers import load_tokenizer
from tinyr1.sampling.requests import encode_request

ROW = {
    "domain": "math",
    "question": "What is 2 + 3?",
    "thinking": "2 + 3 = 5.",
    "response": "It is \\boxed{5}.",
}
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
CHATML = (  # opens no think tag, as DeepSeek's template before 9 February 2025
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def domains():
    return config.load("smoke").params.domains


@pytest.fixture
def math(domains):
    return domains["math"]


@pytest.fixture
def bos_tokenizer(tokenizer):
    """A tokenizer that puts a BOS before everything and whose template writes one too, as Llama's does."""
    made = copy.deepcopy(tokenizer)
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    made.chat_template = "<|endoftext|>" + prompts.R1_TEMPLATE
    return made


def test_the_loss_covers_exactly_the_target_and_the_end_of_sequence(tokenizer, math):
    encoded = prompts.encode_row(tokenizer, math, ROW)
    supervised = tokenizer.decode(encoded.ids[encoded.n_prompt :])
    target = prompts.render_target(ROW["thinking"], ROW["response"])
    assert target == "2 + 3 = 5.\n</think>\n\nIt is \\boxed{5}."
    assert supervised == target + tokenizer.eos_token


def test_the_end_of_sequence_is_supervised_once(tokenizer, math):
    encoded = prompts.encode_row(tokenizer, math, ROW)
    supervised = encoded.ids[encoded.n_prompt :]
    assert supervised[-1] == tokenizer.eos_token_id
    assert supervised.count(tokenizer.eos_token_id) == 1


def test_training_and_sampling_see_the_same_prompt(tokenizer, math):
    encoded = prompts.encode_row(tokenizer, math, ROW)
    prompt = prompts.encode_prompt(tokenizer, prompts.user_turn(BOXED, ROW["question"]))
    assert encoded.ids[: encoded.n_prompt] == prompt
    assert tokenizer.decode(prompt) == (
        "<|im_start|>user\nWhat is 2 + 3?\nPlease reason step by step, and put your final answer within "
        "\\boxed{}.<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )


def test_a_tokenizer_that_adds_bos_does_not_double_it(bos_tokenizer, math):
    bos = bos_tokenizer.convert_tokens_to_ids("<|endoftext|>")
    text = prompts.render_prompt(bos_tokenizer, "Hello")
    assert bos_tokenizer.encode(text)[:2] == [bos, bos]  # what would happen
    assert prompts.encode_prompt(bos_tokenizer, "Hello").count(bos) == 1
    assert prompts.encode_row(bos_tokenizer, math, ROW).ids.count(bos) == 1


@pytest.mark.parametrize("template", [prompts.R1_TEMPLATE, CHATML], ids=["opens the tag", "leaves it to us"])
def test_the_think_tag_is_opened_once_whether_or_not_the_template_opens_it(tokenizer, math, template):
    made = copy.deepcopy(tokenizer)
    made.chat_template = template
    prompt = prompts.render_prompt(made, "Hello")
    assert prompt.endswith("assistant\n<think>\n")
    assert prompt.count("<think>") == 1
    encoded = prompts.encode_row(made, math, ROW)
    assert made.decode(encoded.ids).count("<think>") == 1
    assert made.decode(encoded.ids).count("</think>") == 1


def test_starter_code_stands_between_the_question_and_the_instruction():
    text = prompts.user_turn("Think.", "Add.", "def f(a):\n    ")
    assert text == "Add.\nStart from:\n```python\ndef f(a):\n```\nThink."
    assert prompts.user_turn("Think.", "Add.") == "Add.\nThink."


class TestSplit:
    """One rule parts reasoning and answer, for curation, training, chat and grading."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("thought\n</think>\n\n 5 ", ("thought", "5")),
            ("<think>\nthought\n</think>\n\n5", ("thought", "5")),
            ("never closed", ("never closed", None)),
            ("<think>never closed", ("never closed", None)),
            ("a</think>b</think> c", ("ab", "c")),
            ("a</think> 5 </think>\n</think>", ("a", "5")),
            ("a</think>5<think>", ("a", "5")),
            ("a\n</think>\n<think>\nb\n</think>\n5", ("a\n\n\nb", "5")),
            ("thought</think>", ("thought", None)),
            ("thought</think> \n <think></think>", ("thought", None)),
            ("a<thi<think>nk></thi</think>nk>b</think>5", ("ab", "5")),
            ("</think>5", ("", "5")),
            ("", ("", None)),
        ],
    )
    def test_the_answer_follows_the_last_closing_tag_with_text_behind_it(self, text, expected):
        assert prompts.split_reasoning(text) == expected

    def test_other_tags_part_a_text_by_the_same_rule(self):
        text = "<|begin|>why <think><|end|>so<|end|>"
        assert prompts.split_reasoning(text, "<|begin|>", "<|end|>") == ("why <think>", "so")

    def test_a_rendered_target_splits_into_its_parts(self):
        text = prompts.render_target(" why \n", "\n because ")
        assert prompts.split_reasoning(text) == ("why", "because")


class TestOptions:
    """Whether a question shows lettered options decides whether the answer is a letter."""

    @pytest.mark.parametrize(
        "question",
        [
            "The sum is $\\textbf{(A)}\\ 1000 \\qquad\\textbf{(B)}\\ 1005 \\qquad\\textbf{(C)}\\ 1010$",
            "What is $a+b+c$? $\\textbf{(A) }59\\qquad\\textbf{(B) }60\\qquad\\textbf{(C) }61$",
            "Which are true?\n\n(A) $x > 0$\n\n(B) $x < 0$\n\n(C) $x = 0$\n\n(D) none",
            "Which reagent is it?\nA) water\nB) ethanol\nC) ether\nD) acetone",
            "Which reagent is it?\nA. water\nB. ethanol\nC. ether\nD. acetone",
            "How hot is it?\nA: $3500 \\mathrm{~K}$\nB: $10000 \\mathrm{~K}$\nC: $25000 \\mathrm{~K}$",
            "What is its speed?\n\nA)  $v_2 = v_1$ B)  $v_2 = 2 v_1$ C)  $v_2 = 3 v_1$ D)  $v_2 = 4 v_1$",
            "Then a+b+c+d+e= ( ). A. 25\nB. 31\nC. 37\nD. 43",
            "Which?\n[A] one\n[B] two\n[C] three",
        ],
    )
    def test_lettered_options_are_seen(self, question):
        assert prompts.shows_options(question)

    @pytest.mark.parametrize(
        "question",
        [
            "Prove that $(x \\cos A)(y \\cos B)(z \\cos C) \\le 1$.",
            "In triangle ABC, the points A, B and C lie on a circle.",
            "The circles (A), (B) and (C) touch each other. What is the radius of (A)?",
            "A train starts at A. Then it stops at B. Then it stops at C.",
            "A. Smith has 3 apples and B. Jones has 5. How many have they?",
            "What is 2 + 3?",
            "(a) Find x. (b) Find y. (c) Find z.",
            "\\begin{tikzpicture}\\coordinate (A) at (0,0);\n\\coordinate (B) at (6,0);\n\\coordinate (C) at (3,5);\n"
            "\\end{tikzpicture} What is the area of ABC?",
            '[asy]label("(A)", a); label("(B)", b); label("(C)", c);[/asy] How long is AB?',
            "Print the menu.\n```\nA) add\nB) bin\nC) cut\n```",
        ],
    )
    def test_letters_that_are_no_options_are_not(self, question):
        assert not prompts.shows_options(question)

    def test_an_empty_question_shows_none(self):
        assert not prompts.shows_options("")

    def test_a_domain_asks_for_the_letter_where_options_are_shown(self, domains):
        science = domains["science"]
        assert "the letter" in science.instruction_for(True)
        assert science.instruction_for(False) == "Reason step by step, and put your final answer within \\boxed{}."

    def test_a_domain_without_an_instruction_for_options_has_one_for_all(self, domains):
        for name in ("math", "code"):
            assert domains[name].instruction_for(True) == domains[name].instruction_for(False)

    def test_the_turn_of_a_row_ends_in_the_instruction_that_fits_its_question(self, domains):
        options = "Which is it?\nA) one\nB) two\nC) three"
        science = domains["science"]
        assert prompts.row_turn(science, {"question": options}) == f"{options}\n{science.instruction_with_options}"
        assert prompts.row_turn(science, {"question": "How many?"}) == f"How many?\n{science.instruction}"

    def test_a_program_that_prints_a_menu_is_asked_for_as_a_program(self, domains):
        row = {"question": "Read a letter.\nA) adds\nB) subtracts\nC) ends", "starter_code": "def f(letter):\n"}
        assert prompts.shows_options(row["question"])
        assert prompts.row_turn(domains["code"], row) == (
            f"{row['question']}\nStart from:\n```python\ndef f(letter):\n```\n{domains['code'].instruction}"
        )

    def test_of_the_real_s1k_rows_two_to_four_percent_show_options(self, shared_data):
        rows = questions(shared_data / "s1k" / "partial_solution_question_source_type.jsonl", "question")
        assert 0.02 <= sum(map(prompts.shows_options, rows)) / len(rows) <= 0.04

    @pytest.mark.parametrize(("name", "key"), [("aime24", "problem"), ("aime25", "question")])
    def test_no_aime_problem_shows_options(self, shared_data, name, key):
        rows = questions(shared_data / "aime" / f"tinyr1_{name}_test.jsonl", key)
        assert len(rows) == 30
        assert not any(map(prompts.shows_options, rows))


def questions(path, key):
    return [json.loads(line)[key] for line in path.read_text(encoding="utf-8").splitlines()]


# --- chat templates of public models --------------------------------------------------------------------------

TEMPLATES = Path(__file__).parent / "templates"
SENTENCES = [
    "It is a small question, and the answer is 25. The end of a turn ends it.",
    "user assistant system think im_end",
    "What is 2 + 3? So what does the end token do, and the first one?\n\nPlease reason step by step.",
]
# How Llama 3 and Qwen split text: signs keep the line ends behind them, so a token may hold both.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Model:
    """A chat template with the tokens that it needs.

    added: tokens that are not special. opened: what is added to its prompt where it should open the think tag.
    renders: its own rendering of the last turn keeps the reasoning.
    """

    template: str
    special: tuple[str, ...]
    end: str
    added: tuple[str, ...] = ()
    bos: str | None = None
    opened: str = "<think>\n"
    renders: bool = True
    before: str = ""  # a setting that a server passes to the template


THINK_TAGS = ("<think>", "</think>")
CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LLAMA = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
DEEPSEEK = {
    "special": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"), "end": "<｜end▁of▁sentence｜>",
    "added": ("<｜User｜>", "<｜Assistant｜>", *THINK_TAGS), "bos": "<｜begin▁of▁sentence｜>", "renders": False,
}  # fmt: skip
QWEN3 = {"special": CHATML_TOKENS, "end": "<|im_end|>", "added": ("<tool_response>", "</tool_response>", *THINK_TAGS)}
MODELS = {
    "R1-Distill-Qwen": Model("deepseek-r1-distill", **DEEPSEEK | {"opened": ""}),
    "R1-Distill-Llama": Model(
        "deepseek-r1-distill", **DEEPSEEK | {"opened": "", "special": (*DEEPSEEK["special"], *LLAMA)}
    ),
    "R1-Distill of January": Model("deepseek-r1-distill-january", **DEEPSEEK),
    "DeepSeek-V3.1 that thinks": Model(
        "deepseek-v3.1", **DEEPSEEK | {"opened": "", "before": "{% set thinking = 1 %}"}
    ),
    "Llama-3": Model("llama-3", LLAMA, "<|eot_id|>", bos="<|begin_of_text|>"),
    "Llama-3.2": Model("llama-3.2", LLAMA, "<|eot_id|>", bos="<|begin_of_text|>"),
    "Qwen2.5": Model("qwen2.5", CHATML_TOKENS, "<|im_end|>"),
    "Qwen3": Model("qwen3", **QWEN3),
    "Qwen3-Thinking": Model("qwen3-thinking", **QWEN3 | {"opened": ""}),
    "SmolLM2": Model("smollm2", CHATML_TOKENS, "<|im_end|>"),
    "SmolLM3": Model("smollm3", CHATML_TOKENS, "<|im_end|>", THINK_TAGS),
}
RENDERING = [name for name, model in MODELS.items() if model.renders]
HISTORY = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 1 + 1?"},
    {"role": "assistant", "content": "It is 2."},
]


@cache
def byte_level(special, added=()):
    """A byte-level BPE tokenizer of a few hundred tokens, as the Rust library makes it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    made.add_tokens([AddedToken(token, normalized=False) for token in added])
    return made


def tokenizer_of(name):
    model = MODELS[name]
    made = PreTrainedTokenizerFast(
        tokenizer_object=byte_level(model.special, model.added), bos_token=model.bos, eos_token=model.end
    )
    made.chat_template = model.before + (TEMPLATES / f"{model.template}.jinja").read_text(encoding="utf-8")
    return made


def own(tokenizer, messages, **settings):
    """Token ids of messages as the template and transformers make them."""
    return tokenizer.apply_chat_template(messages, return_dict=False, **settings)


def plain(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("history", [[], HISTORY, HISTORY[1:]], ids=["one turn", "system and turns", "turns"])
@pytest.mark.parametrize("name", MODELS)
def test_the_prompt_is_that_of_the_models_own_template(name, history, math):
    made = tokenizer_of(name)
    messages = prompts.row_messages(math, ROW | {"history": history})
    ids = own(made, messages, add_generation_prompt=True)
    assert prompts.encode_messages(made, messages, open_think=False) == ids
    opened = prompts.encode_messages(made, messages, open_think=True)
    assert opened == ids + plain(made, MODELS[name].opened)
    assert made.decode(opened).rstrip().endswith("<think>")
    encoded = prompts.encode_row(made, math, ROW | {"history": history})
    assert encoded.ids[: encoded.n_prompt] == opened
    assert encoded.ids[encoded.n_prompt :] == [
        *plain(made, prompts.render_target(ROW["thinking"], ROW["response"])), made.eos_token_id
    ]  # fmt: skip


@pytest.mark.parametrize("history", [[], HISTORY], ids=["one turn", "system and turns"])
@pytest.mark.parametrize("name", RENDERING)
def test_prompt_and_target_together_are_the_conversation_in_the_models_own_template(name, history, math):
    made = tokenizer_of(name)
    row = ROW | {"history": history}
    text = f"<think>\n{ROW['thinking']}\n</think>\n\n{ROW['response']}"
    forms = [{"content": text}]
    if MODELS[name].template.startswith("qwen3"):
        forms.append({"content": ROW["response"], "reasoning_content": ROW["thinking"]})
    for form in forms:
        ids = own(made, [*prompts.row_messages(math, row), {"role": "assistant", **form}])
        encoded = prompts.encode_row(made, math, row).ids
        assert ids[: len(encoded)] == encoded
        assert made.decode(ids[len(encoded) :]) in ("", "\n")  # ChatML ends a line after the end token


@pytest.mark.parametrize("name", [name for name in MODELS if name not in RENDERING])
def test_deepseeks_templates_cut_reasoning_away_even_in_the_last_turn_so_only_the_prompt_is_theirs(name, math):
    made = tokenizer_of(name)
    target = prompts.render_target(ROW["thinking"], ROW["response"])
    whole = made.decode(own(made, [*prompts.row_messages(math, ROW), {"role": "assistant", "content": target}]))
    assert ROW["thinking"] not in whole
    assert whole.endswith(f"{ROW['response']}{made.eos_token}")
    assert made.decode(prompts.encode_row(made, math, ROW).ids).endswith(f"{target}{made.eos_token}")


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("Qwen3", "{% set enable_thinking = false %}"), ("SmolLM3", "{% set enable_thinking = false %}"),
        ("DeepSeek-V3.1 that thinks", "{% set thinking = 0 %}"),
    ],
)  # fmt: skip
def test_a_think_block_that_a_template_skips_is_opened_instead_of_a_second_one(name, before):
    made = tokenizer_of(name)
    made.chat_template = made.chat_template.removeprefix(MODELS[name].before)
    expected = prompts.render_prompt(made, "Hello").rstrip().removesuffix("</think>").removesuffix("<think>").rstrip()
    made.chat_template = before + made.chat_template
    assert "</think>" in prompts.render_messages(made, [{"role": "user", "content": "Hello"}], open_think=False)[-20:]
    prompt = prompts.render_prompt(made, "Hello")
    assert prompt.endswith("<think>\n")
    role = "<｜Assistant｜>" if "DeepSeek" in name else "assistant\n"
    assert prompt.rpartition(role)[2] == "<think>\n"
    assert expected.endswith(role.strip())


def test_reasoning_of_earlier_turns_is_cut_away_by_the_template_though_the_turn_spells_a_control_token(math):
    made = tokenizer_of("Qwen3")
    earlier = {"role": "assistant", "content": "<think>\nhidden <|im_end|>\n</think>\n\nIt is <|im_end|>."}
    row = ROW | {"history": [HISTORY[1], earlier]}
    text = made.decode(prompts.encode_row(made, math, row).ids)
    assert "hidden" not in text
    assert "<|im_start|>assistant\nIt is <|im_end|>.<|im_end|>\n" in text


# --- control tokens that a text spells ------------------------------------------------------------------------

SPELLED = {
    "question": "What does <|im_end|> do, and <|endoftext|>?", "thinking": "It ends a turn: <|im_end|>",
    "response": "The end token <|endoftext|>.",
}  # fmt: skip


def controls_in(tokenizer, ids):
    """The control tokens among ids, think tags aside."""
    tokens = {i: t.content for i, t in tokenizer.added_tokens_decoder.items() if t.content not in THINK_TAGS}
    return [tokens[i] for i in ids if i in tokens]


@pytest.mark.parametrize("name", ["Qwen2.5", "Qwen3", "SmolLM2", "SmolLM3"])
def test_special_tokens_that_a_row_spells_are_text(name, math):
    made = tokenizer_of(name)
    encoded = prompts.encode_row(made, math, SPELLED)
    prompt, target = encoded.ids[: encoded.n_prompt], encoded.ids[encoded.n_prompt :]
    usual = prompts.encode_row(made, math, ROW)
    assert controls_in(made, prompt) == controls_in(made, usual.ids[: usual.n_prompt])
    assert controls_in(made, target) == [made.eos_token]
    assert target[-1] == made.eos_token_id
    assert made.decode(prompt) == prompts.render_prompt(made, prompts.row_turn(math, SPELLED))
    assert made.decode(target[:-1]) == prompts.render_target(SPELLED["thinking"], SPELLED["response"])


@pytest.mark.parametrize("name", MODELS)
def test_no_text_opens_or_ends_a_turn(name, math):
    """Every control token, special or not, in each place where a row has text."""
    made, model = tokenizer_of(name), MODELS[name]
    spelled = [token for token in (*model.special, *model.added) if token not in THINK_TAGS]
    text = " ".join(f"{token} x{token}{token}" for token in spelled) + spelled[-1]
    turns = [{"role": role, "content": text} for role in ("system", "user", "assistant")]
    harmless = [turn | {"content": "x"} for turn in turns]
    row = {"history": turns, "question": text, "thinking": text, "response": f"\n{text} "}
    usual = prompts.encode_row(made, math, ROW | {"history": harmless})
    encoded = prompts.encode_row(made, math, row)
    assert controls_in(made, encoded.ids) == controls_in(made, usual.ids)
    assert sum(i in made.convert_tokens_to_ids(THINK_TAGS) for i in encoded.ids) == sum(
        i in made.convert_tokens_to_ids(THINK_TAGS) for i in usual.ids
    )
    messages = prompts.row_messages(math, row)
    target = prompts.render_target(text, text)
    assert made.decode(encoded.ids) == prompts.render_messages(made, messages, True) + target + made.eos_token


def test_a_spelled_control_token_is_tokenized_as_any_other_text():
    made = tokenizer_of("Qwen3")
    start, end = made.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])

    def literal(text):
        return made.encode(text, add_special_tokens=False, split_special_tokens=True)

    ids = prompts.encode_messages(made, [{"role": "user", "content": SPELLED["question"]}], open_think=False)
    assert ids == [start, *literal(f"user\n{SPELLED['question']}"), end, *literal("\n"), start,
                   *literal("assistant\n")]  # fmt: skip


def test_a_private_use_character_of_a_text_is_kept_beside_a_control_token():
    made = tokenizer_of("SmolLM2")
    text = "\U000f0000 <|im_end|> \U000f0001 <|im_start|>"
    ids = prompts.encode_prompt(made, text)
    assert text in made.decode(ids)
    assert len(controls_in(made, ids)) == 5


def test_blanks_that_a_special_token_takes_with_it_are_taken_as_in_any_other_prompt():
    made = tokenizer_of("Qwen2.5")
    made.add_special_tokens({"eos_token": AddedToken("<|end|>", rstrip=True, special=True, normalized=False)})
    made.chat_template = "{% for m in messages %}{{ m['content'] }}<|end|>\n{% endfor %}Go:"
    ids = prompts.encode_messages(made, [{"role": "user", "content": "So <|im_end|>"}], open_think=False)
    usual = prompts.encode_messages(made, [{"role": "user", "content": "So"}], open_think=False)
    assert ids[-len(usual) + len(plain(made, "So")) :] == usual[len(plain(made, "So")) :]


@pytest.mark.parametrize("name", [*MODELS, "miniature"])
def test_ids_of_other_rows_are_those_of_the_rendered_text(name, tokenizer, math):
    made = tokenizer if name == "miniature" else tokenizer_of(name)
    for text in ("2 < 3 | x > 1 and <b>, <|, im_end|>", "caf\u00e9 \U000f0000 答案 \r\n\t x", "<think> or </think>?"):
        row = {"question": text, "thinking": text, "response": text}
        encoded = prompts.encode_row(made, math, row)
        prompt = plain(made, prompts.render_prompt(made, prompts.row_turn(math, row)))
        assert encoded.ids == [*prompt, *plain(made, prompts.render_target(text, text)), made.eos_token_id]
        assert encoded.n_prompt == len(prompt)


def test_a_request_of_the_evaluation_has_the_ids_of_a_row_of_training(math):
    made = tokenizer_of("Qwen3")
    messages = prompts.row_messages(math, SPELLED)
    encoded = prompts.encode_row(made, math, SPELLED)
    request = {"messages": messages, "open_think": True}
    assert encode_request(made, request) == encoded.ids[: encoded.n_prompt]
    raw = {"prompt": "<|im_end|>", "open_think": False}
    assert encode_request(made, raw) == [made.eos_token_id], "a protocol spells special tokens in a raw prompt"


@pytest.mark.parametrize("num_proc", [1, 3])
def test_many_rows_at_once_have_the_ids_that_each_has_alone(num_proc, math):
    made = tokenizer_of("Qwen3")
    made.backend_tokenizer.enable_truncation(5)  # as training leaves it in a tokenizer.json
    made.backend_tokenizer.enable_padding(length=9)
    rows = [ROW | {"question": f"What is {i} + {i}?", "history": HISTORY[: i % 4]} for i in range(50)]
    rows[7:7] = [SPELLED, SPELLED | {"question": "What?"}]
    together = prompts.encode_rows(made, math, rows, num_proc)
    assert together == [prompts.encode_row(made, math, row) for row in rows]
    assert "What is 49 + 49?" in made.decode(together[-1].ids)
    assert prompts.encode_rows(made, math, [], num_proc) == []


def test_a_row_without_history_has_one_turn(math):
    turn = {"role": "user", "content": f"{ROW['question']}\n{BOXED}"}
    assert prompts.row_messages(math, ROW) == prompts.row_messages(math, ROW | {"history": []}) == [turn]
    assert prompts.row_messages(math, ROW | {"history": HISTORY}) == [*HISTORY, turn]


def test_a_tokenizer_without_an_end_token_is_refused(math):
    made = tokenizer_of("Qwen3")
    made.eos_token = None
    with pytest.raises(UserError, match="no eos_token, so no answer would end"):
        prompts.encode_row(made, math, ROW)


# --- loading --------------------------------------------------------------------------------------------------

TEXT = "What is 2 + 3?\n\n  It is 12345, cafe\u0301. <think>\nSo <|im_end|>"
CLASSES = (
    "PreTrainedTokenizerFast", "TokenizersBackend", "LlamaTokenizerFast", "LlamaTokenizer", "Qwen2Tokenizer",
    "Qwen2TokenizerFast", "GPT2Tokenizer", "GPT2TokenizerFast", "SomethingElse", None,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A byte-level tokenizer as DeepSeek publishes it: its config names a class that splits text by other rules."""
    byte_level(CHATML_TOKENS, THINK_TAGS).save(str(tmp_path / "tokenizer.json"))
    describe(tmp_path, "LlamaTokenizerFast")
    return tmp_path


def describe(folder, tokenizer_class, model_type="llama", **settings):
    named = {"tokenizer_class": tokenizer_class} if tokenizer_class else {}
    settings = {"eos_token": "<|im_end|>", "add_bos_token": True, **named, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))


@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
@pytest.mark.parametrize("tokenizer_class", CLASSES)
def test_ids_are_those_of_tokenizer_json_whatever_class_the_config_names(folder, tokenizer_class, model_type):
    describe(folder, tokenizer_class, model_type)
    loaded = load_tokenizer(folder)
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT).ids
    assert loaded.encode(TEXT) == ids
    assert loaded.decode(ids) == TEXT
    assert (loaded.eos_token, len(loaded)) == ("<|im_end|>", len(byte_level(CHATML_TOKENS, THINK_TAGS).get_vocab()))


@pytest.mark.parametrize(
    ("tokenizer_class", "model_type"),
    [("LlamaTokenizerFast", "llama"), ("GPT2Tokenizer", "llama"), ("TokenizersBackend", "qwen2"), (None, "qwen2")],
)
def test_transformers_alone_would_take_the_rules_of_another_class(folder, tokenizer_class, model_type):
    """Why `load_tokenizer` is needed. If this fails, transformers has learned to read the whole file."""
    describe(folder, tokenizer_class, model_type)
    assert AutoTokenizer.from_pretrained(folder).encode(TEXT) != load_tokenizer(folder).encode(TEXT)


def test_a_normalizer_of_tokenizer_json_is_kept(folder):
    made = copy.deepcopy(byte_level(CHATML_TOKENS, THINK_TAGS))
    made.normalizer = normalizers.Lowercase()
    made.save(str(folder / "tokenizer.json"))
    assert load_tokenizer(folder).decode(load_tokenizer(folder).encode("ABC")) == "abc"


def without_file(folder):
    (folder / "tokenizer.json").unlink()


def cut_file(folder):
    (folder / "tokenizer.json").write_text('{"ver')


def newer_file(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(content | {"model": {"type": "Unheard"}}))


def one_more_token(folder):
    token = {"content": "def", "lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    describe(folder, "LlamaTokenizerFast", added_tokens_decoder={"405": token | {"special": False}})


@pytest.mark.parametrize(
    ("ruin", "sentence"),
    [
        (without_file, "its tokenizer cannot be loaded: there is no tokenizer.json; copy it and its neighbours"),
        (cut_file, "tokenizer.json: not valid JSON"),
        (newer_file, "its tokenizer cannot be loaded: .*; fetch or write its files again"),
        (one_more_token, "its tokenizer cannot be loaded: added or special tokens in its other files"),
    ],
)
def test_a_tokenizer_whose_ids_cannot_be_had_is_refused(folder, ruin, sentence):
    ruin(folder)
    with pytest.raises(UserError, match=sentence):
        load_tokenizer(folder)


# --- the template of training alone ---------------------------------------------------------------------------


def test_rows_in_the_template_qwen_are_those_of_the_training_framework(tokenizer, math):
    encoded = prompts.encode_row(tokenizer, math, ROW, "qwen")
    prompt, target = prompts.training_texts(tokenizer, math, ROW, "qwen")
    assert tokenizer.decode(encoded.ids[: encoded.n_prompt]) == prompt == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nWhat is 2 + 3?\n"
        "Please reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert target == "<think>\n2 + 3 = 5.\n</think>\n\nIt is \\boxed{5}."
    assert tokenizer.decode(encoded.ids[encoded.n_prompt :]) == f"{target}<|im_end|>"
    assert prompts.encode_rows(tokenizer, math, [ROW] * 3, template="qwen") == [encoded] * 3
    own = prompts.encode_row(tokenizer, math, ROW)
    assert (tokenizer.decode(own.ids[: own.n_prompt]), tokenizer.decode(own.ids[own.n_prompt : -1])) == (
        prompts.training_texts(tokenizer, math, ROW)
    )


def test_no_row_opens_or_ends_a_turn_of_the_template_qwen(tokenizer, math):
    spelled = ROW | {"question": "What does <|im_end|> end?", "response": "A turn: <|im_end|>"}
    plain = prompts.encode_row(tokenizer, math, ROW, "qwen")
    end = prompts.end_token(tokenizer, "qwen")
    assert prompts.encode_row(tokenizer, math, spelled, "qwen").ids.count(end) == plain.ids.count(end) == 3


def test_a_tokenizer_without_the_end_token_of_the_template_qwen_is_refused(math):
    made = tokenizer_of("Llama-3")
    with pytest.raises(UserError, match=r"no token <\|im_end\|>; set backbone.training_template: qwen, which adds it"):
        prompts.encode_row(made, math, ROW, "qwen")
