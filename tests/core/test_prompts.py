import copy
import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time

import pytest
from checkpoints import Shape, change_json, experts
from tokenizers.processors import TemplateProcessing

from tinyr1.core import config, prompts

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


# --- the program --------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path):
    """A tiny checkpoint whose tokenizer has a chat template."""
    folder = experts(tmp_path, names=("model",))["model"]
    (folder / "chat_template.jinja").write_text(prompts.R1_TEMPLATE)
    return folder


def answered(monkeypatch, capsys, *words):
    """(exit status, standard output, standard error) of the program with `what is it` on its standard input."""
    questions = iter(["what is it"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(questions, ""))
    monkeypatch.setattr(sys, "argv", ["chat", *map(str, words), "--max-tokens", "3"])
    status = prompts.main()
    return status, *capsys.readouterr()


def without(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def cut_short(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


UNTEMPLATED = "{folder}: the tokenizer has no chat template, which makes a prompt of a question; put the model's"
RUINED = {
    "no folder": (lambda f: f.rename(f.with_name("gone")), "{folder}: no such folder; `make reproduce` makes the"),
    "no config": (without("config.json"), "{folder}: no config.json, so it is no checkpoint; `make reproduce` makes"),
    "no weights": (without("model.safetensors"), "{folder}: no .safetensors file; convert the weights"),
    "no template": (without("chat_template.jinja"), UNTEMPLATED),
    "no tokenizer": (
        without("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
        "{folder}: no tokenizer; copy tokenizer.json and its neighbours from the model's origin",
    ),
    "broken template": (
        lambda f: (f / "chat_template.jinja").write_text("{{ raise_exception('no user turn') }}"),
        "{folder}: cannot be loaded (no user turn); make it or fetch it again",
    ),
    "broken tokenizer": (
        lambda f: (f / "tokenizer.json").write_text('{"ver'),
        "{folder}: cannot be loaded (Unterminated string",
    ),
    "cut short": (cut_short, "{folder}: cannot be loaded (Error while deserializing header: incomplete metadata"),
    "unknown network": (
        lambda f: change_json(f / "config.json", model_type="nope"),
        "{folder}: cannot be loaded (The checkpoint you are trying to load has model type `nope`",
    ),
}


@pytest.mark.parametrize("name", RUINED)
def test_a_model_that_cannot_answer_is_one_clear_sentence(model, monkeypatch, capsys, name):
    ruin, sentence = RUINED[name]
    ruin(model)
    status, _, said = answered(monkeypatch, capsys, model)
    assert status == 1
    *_, last = said.splitlines()  # transformers may have shown a progress bar
    assert last.startswith(f"error: {sentence.format(folder=model)}")


def test_without_a_folder_the_merged_model_answers_where_the_run_is_stored(tokenizer, home, monkeypatch, capsys):
    folder = config.load("smol").model("math-science-code")
    assert folder.is_relative_to(home)
    status, _, said = answered(monkeypatch, capsys)
    assert (status, said) == (1, f"error: {folder}: no such folder; `make reproduce` makes the merged model, "
                                 "MODEL=folder names another\n")  # fmt: skip
    made = experts(home, Shape(vocabulary=len(tokenizer)), names=("model",))["model"]
    tokenizer.save_pretrained(made)
    folder.parent.mkdir(parents=True)
    made.rename(folder)
    status, answer, _ = answered(monkeypatch, capsys)
    assert status == 0
    assert answer.strip()


# A test that runs in the background of a shell has inherited that interrupts are ignored; a person's shell does not.
SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from tinyr1 import chat
def stream(*_):
    print("thinking", flush=True)
    time.sleep(60)
chat.load, chat.stream = lambda folder: (type("Model", (), {"name_or_path": folder, "device": "cpu"}), None), stream
sys.argv = ["chat", "a folder"]
sys.exit(chat.main())
"""


class Terminal:
    """The program with an answer that takes a minute, as a person at a terminal meets it."""

    def __init__(self):
        self.hand, end = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", SLOW], cwd=config.ROOT, stdin=end, stdout=end, stderr=end, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(end)

    def read_to(self, text):
        """What the screen shows until `text` appears."""
        shown, deadline = "", time.monotonic() + 60
        while text not in shown and time.monotonic() < deadline:
            if select.select([self.hand], [], [], 0.1)[0]:
                shown += os.read(self.hand, 4096).decode()
        assert text in shown, shown
        return shown

    def type(self, keys):
        os.write(self.hand, keys.encode())

    def end(self, keys):
        """(exit status, rest of the screen) when these keys end the program, typed until it has seen them."""
        deadline, rest = time.monotonic() + 60, ""
        while self.process.poll() is None and time.monotonic() < deadline:
            self.type(keys)
            time.sleep(0.5)
        while select.select([self.hand], [], [], 0.1)[0]:
            try:
                rest += os.read(self.hand, 4096).decode()
            except OSError:  # how Linux tells that the other end is closed
                break
        return self.process.poll(), rest


@pytest.fixture
def terminal():
    made = Terminal()
    yield made
    made.process.kill()
    made.process.wait()
    os.close(made.hand)


@pytest.mark.parametrize("leave", ["\x03", "\x04"], ids=["Ctrl-C", "Ctrl-D"])
def test_an_interrupt_stops_the_answer_and_at_the_prompt_the_program(terminal, leave):
    assert "a folder on cpu" in terminal.read_to("\n> ")
    terminal.type("first\n")
    terminal.read_to("thinking")
    terminal.type("\x03")
    terminal.read_to("\n> ")
    terminal.type("second\n")
    terminal.read_to("thinking")
    terminal.type("\x03")
    terminal.read_to("\n> ")
    status, rest = terminal.end(leave)
    assert status == 0
    assert rest.replace("^C", "").strip() == ""


def test_an_interrupt_ends_the_program_where_questions_come_from_a_pipe():
    process = subprocess.Popen([sys.executable, "-c", SLOW], cwd=config.ROOT, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    process.stdin.write("first\nsecond\n")
    process.stdin.flush()
    assert process.stdout.readline() == "thinking\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 130
