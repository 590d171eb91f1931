"""A real `vllm serve` with a reasoning parser: its answers are those of the engine that this kit starts, to the letter.

One small model is trained until it knows three answers by heart, one of them without an end to its reasoning.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from plans import SAMPLING, VLLM, plan_of, request, start

from tinyr1.core import prompts
from tinyr1.core.errors import UserError
from tinyr1.sampling import endpoint, responses
from tinyr1.sampling.process import sample_plan
from tinyr1.sampling.requests import Request
from tinyr1.sampling.vllm import cpu_environment

pytestmark = pytest.mark.slow
KNOWN = {
    "What is 2 + 2": "Two and two\nmake four.\n</think>\n\nIt is \\boxed{4}.",
    "What is 3 + 4": "Three, four:</think>so \\boxed{7}!",
    "Count for ever": "one " * 30,
}
CONTEXT, LONGEST = 256, 64
GREEDY = SAMPLING | {"temperature": 0.0, "top_p": 1.0, "max_tokens": LONGEST}
STARTS = 1500  # seconds that an engine may take to start on a busy machine


def byte_tokenizer():
    """A token for each byte, the tags of the template, and think tags that are no special tokens, as R1's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(vocab=letters, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|im_end|>")
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    made.add_tokens([prompts.THINK_OPEN, prompts.THINK_CLOSE])
    made.chat_template = prompts.R1_TEMPLATE
    return made


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The folder of the model."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, Qwen2Config

    folder, tokenizer = tmp_path_factory.mktemp("model") / "tiny", byte_tokenizer()
    torch.manual_seed(0)
    end = tokenizer.eos_token_id
    model = AutoModelForCausalLM.from_config(Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=1024, bos_token_id=end, eos_token_id=end,
        pad_token_id=end,
    ), dtype=torch.float32)  # fmt: skip
    asked = [prompts.encode_prompt(tokenizer, f"{question}?") for question in KNOWN]
    answers = [tokenizer.encode(answer) + [end] for answer in KNOWN.values()]
    width = max(len(a) + len(b) for a, b in zip(asked, answers, strict=True))
    rows = [a + b + [end] * (width - len(a + b)) for a, b in zip(asked, answers, strict=True)]
    marks = [[-100] * len(a) + b + [-100] * (width - len(a + b)) for a, b in zip(asked, answers, strict=True)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(500):
        loss = model(input_ids=torch.tensor(rows), labels=torch.tensor(marks)).loss
        if loss < 0.005:
            break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.05, "the model knows its answers"
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def asked_of(folder, tmp_path, engine, **changes):
    """A plan for the model: its questions as messages, and the same prompts as raw text."""
    plan = plan_of(tmp_path, engine | changes, (), ())
    requests = [request(question) for question in KNOWN]
    for question in KNOWN:
        raw = f"<|im_start|>user\n{question}?<|im_end|>\n<|im_start|>assistant\n<think>\n"
        requests.append({"question": f"raw {question}", "sample": 0, "prompt": raw, "open_think": True})
    jobs = [{"name": "quiz", "out": str(tmp_path / "quiz.jsonl"), "protocol_key": "p", "sampling": GREEDY,
             "requests": requests}]  # fmt: skip
    return plan | {"models": [{"name": "tiny", "path": str(folder), "key": "k", "jobs": jobs}]}


def answered(plan):
    """question -> (text, finish, tokens)."""
    found = responses.of_job(plan["models"][0]["jobs"][0], "k").lines
    return {line["question"]: (line["text"], line["finish"], line["n_tokens"]) for line in found}


@pytest.fixture(scope="module")
def local(checkpoint, tmp_path_factory):
    """What the engine of this kit answers."""
    folder = tmp_path_factory.mktemp("local")
    plan = asked_of(checkpoint, folder, VLLM, max_model_len=CONTEXT)
    path = folder / "plan.json"
    path.write_text(json.dumps(plan))
    process = start(path, os.environ | cpu_environment(plan["engine"]))
    try:
        _, errors = process.communicate(timeout=STARTS)
    finally:
        process.kill()
    assert process.returncode == 0, errors[-3000:]
    return answered(plan)


@pytest.fixture(scope="module")
def server(checkpoint, tmp_path_factory):
    """The engine block for a running server of the model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(checkpoint), "--served-model-name", "tiny",
        "--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(CONTEXT), "--dtype", "bfloat16",
        "--enforce-eager", "--reasoning-parser", "deepseek_r1",
    ]  # fmt: skip
    log = tmp_path_factory.mktemp("server") / "log"
    environment = os.environ | cpu_environment(VLLM) | {"HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + STARTS
        while True:
            assert process.poll() is None, log.read_text()[-5000:]
            assert time.monotonic() < deadline, log.read_text()[-5000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        yield {
            "kind": "endpoint", "base_url": f"http://127.0.0.1:{port}/v1", "model": "tiny", "api_key_variable": None,
            "concurrency": 2, "timeout_seconds": 300, "retries": 0, "max_tokens_name": None,
        }  # fmt: skip
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its engine is a process of its own
        process.wait()


def test_the_local_engine_knows_the_answers(local):
    texts = {question: text for question, (text, _, _) in local.items() if not question.startswith("raw")}
    assert texts == {q: text[:LONGEST] if q == "Count for ever" else text for q, text in KNOWN.items()}


def test_a_served_model_writes_what_the_local_engine_writes_with_a_parser_and_without(
    checkpoint, local, server, tmp_path
):
    plan = asked_of(checkpoint, tmp_path, server)
    sample_plan(plan, tmp_path / "p.progress")
    served = answered(plan)
    raw = {question for question in served if question.startswith("raw")}
    assert {q: served[q] for q in raw} == {q: local[q] for q in raw}, "a raw prompt meets no parser"
    first, second, cut = KNOWN
    assert served[first] == local[first], "to the letter, with the same tokens"
    # Nothing shows that there was no line end beside this tag.
    text, finish, tokens = local[second]
    assert served[second] == (text.replace("</think>", "\n</think>\n\n"), finish, tokens)
    text, finish, tokens = local[cut]
    assert served[cut] == (f"<think>\n{text}", finish, tokens), "its prompt opened the tag, which a grader has to see"
    assert finish == "length"


def test_a_question_that_is_too_long_for_it_fails_alone(checkpoint, server, tmp_path):
    plan = asked_of(checkpoint, tmp_path, server) | {"tolerant": True}
    (job,) = plan["models"][0]["jobs"]
    job["requests"] = [request("What is 2 + 2"), request("2 + " * CONTEXT), request("3 + " * (2 * CONTEXT))]
    sample_plan(plan, tmp_path / "p.progress")
    found = responses.of_job(job, "k")
    assert [line["question"] for line in found.lines] == ["What is 2 + 2"]
    assert [line["kind"] for line in found.failed] == ["too_long", "too_long"]
    assert all(line["reason"].startswith("HTTP 400, too long for the server: ") for line in found.failed)


def test_it_takes_the_longest_answer_under_either_name(checkpoint, local, server, tmp_path):
    plan = asked_of(checkpoint, tmp_path, server, max_tokens_name="max_completion_tokens")
    plan["models"][0]["jobs"][0]["requests"] = [request("Count for ever")]
    sample_plan(plan, tmp_path / "p.progress")
    ((_, finish, tokens),) = answered(plan).values()
    assert (finish, tokens) == ("length", LONGEST)


def test_a_name_that_it_does_not_serve_is_refused(checkpoint, server, tmp_path):
    plan = asked_of(checkpoint, tmp_path, server, model="other")
    with pytest.raises(UserError, match="does not serve 'other'; it has tiny"):
        sample_plan(plan, tmp_path / "p.progress")
    asked = Request(0, "q", 0, None, GREEDY, messages=[{"role": "user", "content": "2 + 2?"}])
    failure = endpoint.Endpoint(server | {"model": "other"}).ask(asked)
    assert failure.kind == "fatal"
    assert failure.reason.startswith("HTTP 404: ")
    assert failure.reason.endswith("; check engine.model and engine.base_url")
