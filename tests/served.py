"""Servers for tests: a real vLLM, and a small one that says each prompt's own words again, and misbehaves."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from plans import VLLM

from tinyr1.core import machine
from tinyr1.sampling.vllm import cpu_environment

MODEL = "parrot"
CONTEXT = 512  # tokens of a sequence of the real server


def answer_to(prompt):
    """What the server says; a test can tell from it which question was asked."""
    return f"you asked: {prompt}"


def completion(content, finish="stop", usage=(7, 3), **message):
    """A whole reply to a chat request, with usage as (prompt tokens, tokens of the answer)."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
    return {"choices": [choice], "usage": dict(zip(("prompt_tokens", "completion_tokens"), usage, strict=True))}


class Served:
    """`with Served(faults) as server`: faults is a function of the attempt's number -> None or the name of a fault.

    Faults: an HTTP status as text ("500"; "429 after 0.2" has a Retry-After of so many seconds), "garbage", "empty",
    "slow". says(prompt, times): a whole reply to a prompt that is asked so many times now, as `completion` makes it,
    with a `status` if that is not 200; None: the usual one. asked: requests served, by prompt. moments: when each came.
    """

    def __init__(self, faults=lambda n: None, delay=0.0, models=(MODEL,), says=lambda prompt, times: None):
        self.faults, self.delay, self.models, self.says = faults, delay, models, says
        self.attempts, self.asked, self.bodies, self.headers, self.moments = 0, Counter(), [], [], []
        self.lock = threading.Lock()

    def __enter__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                outer.send(self, 200, json.dumps({"object": "list", "data": [{"id": m} for m in outer.models]}))

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.reply(self, body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def settings(self, **changes):
        """The engine block of a plan for this server."""
        return {
            "kind": "endpoint", "base_url": self.url, "model": MODEL, "api_key_variable": None, "concurrency": 4,
            "timeout_seconds": 10, "retries": 2,
        } | changes  # fmt: skip

    def reply(self, handler, body):
        with self.lock:
            self.attempts += 1
            fault = self.faults(self.attempts)
            self.bodies.append(body)
            self.headers.append(handler.headers)
            self.moments.append(time.monotonic())
        time.sleep(self.delay * random.random())
        if fault == "slow":
            time.sleep(4)  # and then nothing: the client has hung up
            return
        if fault and fault[0].isdigit():
            status, _, pause = fault.partition(" after ")
            self.send(handler, int(status), json.dumps({"error": {"message": f"fault {fault}"}}), pause=pause)
            return
        if fault in ("garbage", "empty"):
            self.send(handler, 200, {"garbage": "<html>busy</html", "empty": '{"choices": []}'}[fault])
            return
        chat = handler.path.endswith("/chat/completions")
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        with self.lock:
            self.asked[prompt] += 1
            reply = self.says(prompt, self.asked[prompt])
        if reply is not None:
            self.send(handler, reply.pop("status", 200), json.dumps(reply))
            return
        said = {"message": {"role": "assistant", "content": answer_to(prompt)}} if chat else {"text": answer_to(prompt)}
        choice = {"index": 0, "finish_reason": "stop", **said}
        self.send(handler, 200, json.dumps({"choices": [choice], "usage": {"completion_tokens": 3}}))

    @staticmethod
    def send(handler, status, text, kind="application/json", pause=""):
        data = text.encode()
        try:
            handler.send_response(status)
            handler.send_header("Content-Type", kind)
            if pause:
                handler.send_header("Retry-After", pause)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client was killed or has run out of patience


@contextmanager
def vllm_server(checkpoint: Path, name: str, log: Path, *options: str) -> Iterator[str]:
    """The address of a real vLLM server with the model of a folder under a name; what it prints goes into `log`."""
    port = machine.free_port()
    # The module, as the command `vllm serve` asks for a package called vllm, and the CPU build has another name.
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint), "--served-model-name",
        name, "--host", "127.0.0.1", "--port", str(port), "--max-num-seqs", "8", "--enforce-eager", *options,
    ]  # fmt: skip
    environment = os.environ | cpu_environment(VLLM) | {"HF_HUB_OFFLINE": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
    try:
        deadline = time.monotonic() + 900  # on a busy machine
        while not _answers(f"http://127.0.0.1:{port}/v1/models"):
            assert process.poll() is None, log.read_text()[-5000:]
            assert time.monotonic() < deadline, log.read_text()[-5000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its engine is a process of its own
        process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False
