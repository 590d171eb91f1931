import copy
import json

import pytest
from tokenizers.processors import TemplateProcessing

from tinyr1.core import config, prompts

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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("thought\n</think>\n\n 5 ", ("thought\n", "5")),
        ("never closed", ("never closed", None)),
        ("a</think>b</think> c", ("a</think>b", "c")),
        ("thought</think>", ("thought", "")),
        ("", ("", None)),
    ],
)
def test_a_response_is_split_at_the_last_closing_tag(text, expected):
    assert prompts.split_response(text) == expected


def test_a_rendered_target_splits_into_its_parts():
    thinking, final = prompts.split_response(prompts.render_target(" why \n", "\n because "))
    assert (thinking.strip(), final) == ("why", "because")


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
