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

from tinyr1 import chat
from tinyr1.core import config, prompts


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
    status = chat.main()
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
    "no weights": (without("model.safetensors"), "{folder}: no weights: neither model.safetensors nor"),
    "no template": (without("chat_template.jinja"), UNTEMPLATED),
    "no tokenizer": (
        without("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
        "{folder}: its tokenizer cannot be loaded: there is no tokenizer.json; copy it and its neighbours from the",
    ),
    "broken template": (
        lambda f: (f / "chat_template.jinja").write_text("{{ raise_exception('no user turn') }}"),
        "{folder}: cannot be loaded (no user turn); make it or fetch it again",
    ),
    "broken tokenizer": (
        lambda f: (f / "tokenizer.json").write_text('{"ver'),
        "{folder}/tokenizer.json: not valid JSON: Unterminated string",
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
    assert status == 2
    *_, last = said.splitlines()  # transformers may have shown a progress bar
    assert last.startswith(f"error: {sentence.format(folder=model)}")


def test_without_a_folder_the_merged_model_answers_where_the_run_is_stored(tokenizer, home, monkeypatch, capsys):
    folder = config.load("smol").model("math-science-code")
    assert folder.is_relative_to(home)
    status, _, said = answered(monkeypatch, capsys)
    assert (status, said) == (2, f"error: {folder}: no such folder; `make reproduce` makes the merged model, "
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
def answer(*_):
    print("thinking", flush=True)
    time.sleep(60)
chat.load_model = lambda folder: (type("Model", (), {"name_or_path": folder, "device": "cpu"}), None)
chat.stream_answer = answer
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
    assert process.communicate(timeout=60) == ("", "\ninterrupted\n")
    assert process.returncode == 130
