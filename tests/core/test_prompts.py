import copy

import pytest
from tokenizers.processors import TemplateProcessing

from tinyr1.core import prompts

ROW = {
    "domain": "math",
    "question": "What is 2 + 3?",
    "thinking": "2 + 3 = 5.",
    "response": "It is \\boxed{5}.",
}
CHATML = (  # opens no think tag, as DeepSeek's template before 9 February 2025
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def bos_tokenizer(tokenizer):
    """A tokenizer that puts a BOS before everything and whose template writes one too, as Llama's does."""
    made = copy.deepcopy(tokenizer)
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    made.chat_template = "<|endoftext|>" + prompts.R1_TEMPLATE
    return made


def test_the_loss_covers_exactly_the_target_and_the_end_of_sequence(tokenizer):
    encoded = prompts.encode(tokenizer, ROW)
    supervised = tokenizer.decode(encoded.ids[encoded.n_prompt :])
    target = prompts.render_target(ROW["thinking"], ROW["response"])
    assert target == "2 + 3 = 5.\n</think>\n\nIt is \\boxed{5}."
    assert supervised == target + tokenizer.eos_token


def test_the_end_of_sequence_is_supervised_once(tokenizer):
    encoded = prompts.encode(tokenizer, ROW)
    supervised = encoded.ids[encoded.n_prompt :]
    assert supervised[-1] == tokenizer.eos_token_id
    assert supervised.count(tokenizer.eos_token_id) == 1


def test_training_and_sampling_see_the_same_prompt(tokenizer):
    encoded = prompts.encode(tokenizer, ROW)
    prompt = prompts.encode_prompt(tokenizer, prompts.user_turn("math", ROW["question"]))
    assert encoded.ids[: encoded.n_prompt] == prompt
    assert tokenizer.decode(prompt) == (
        "<|im_start|>user\nWhat is 2 + 3?\nPlease reason step by step, and put your final answer within "
        "\\boxed{}.<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )


def test_a_tokenizer_that_adds_bos_does_not_double_it(bos_tokenizer):
    bos = bos_tokenizer.convert_tokens_to_ids("<|endoftext|>")
    text = prompts.render_prompt(bos_tokenizer, "Hello")
    assert bos_tokenizer.encode(text)[:2] == [bos, bos]  # what would happen
    assert prompts.encode_prompt(bos_tokenizer, "Hello").count(bos) == 1
    assert prompts.encode(bos_tokenizer, ROW).ids.count(bos) == 1


@pytest.mark.parametrize("template", [prompts.R1_TEMPLATE, CHATML], ids=["opens the tag", "leaves it to us"])
def test_the_think_tag_is_opened_once_whether_or_not_the_template_opens_it(tokenizer, template):
    made = copy.deepcopy(tokenizer)
    made.chat_template = template
    prompt = prompts.render_prompt(made, "Hello")
    assert prompt.endswith("assistant\n<think>\n")
    assert prompt.count("<think>") == 1
    encoded = prompts.encode(made, ROW)
    assert made.decode(encoded.ids).count("<think>") == 1
    assert made.decode(encoded.ids).count("</think>") == 1


def test_starter_code_stands_between_the_question_and_the_instruction():
    text = prompts.user_turn("code", "Add.", "def f(a):\n    ")
    assert text == f"Add.\nStart from:\n```python\ndef f(a):\n```\n{prompts.INSTRUCTION['code']}"
    assert "Start from" not in prompts.user_turn("code", "Add.")


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


