"""The Hugging Face hub: the one module that fetches from it and turns its errors into a sentence.

    before a run:  require_file, require_rows, require_model --in the cache, or the hub would give it--> words
    in a stage:    dataset_file, dataset_rows, model_folder --> files in the cache of this machine

`where` names the setting that a person can change: a key of the params file (`backbone.model`) or an option
(`--model`). Every function but `weight_bytes` raises UserError where the fetch fails or would fail, with what to do.
The libraries are imported only when something is fetched: they take seconds, and most commands need none of them.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue

from tinyr1.core.checkpoints import CHECKPOINT, PICKLES, weight_files
from tinyr1.core.errors import UserError

SITE = "https://huggingface.co"
SECONDS = 5.0  # in which the hub has to say whether it gives something to this user
CACHED, GIVEN = "in the cache of this machine", "the hub gives it to this user"


def dataset_file(where: str, dataset: str, name: str, revision: str) -> Path:
    """The path of one file of a dataset at a commit, after it was fetched into the hub's cache."""
    with _explained(*_file(where, dataset, name, revision)):
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(dataset, name, repo_type="dataset", revision=revision))


def dataset_rows(where: str, dataset: str, config: str | None, split: str, revision: str | None) -> Iterator[dict]:
    """Yield the rows of a split of a dataset; `datasets` fetches it once and maps its cache into memory."""
    from datasets import exceptions, load_dataset

    with _explained(*_rows(where, dataset, config, split, revision), exceptions.DatasetsError):
        rows = load_dataset(dataset, config, revision=revision, split=split)
    yield from rows


def model_folder(where: str, model: str, revision: str | None, pickles: bool = False) -> Path:
    """The folder with the checkpoint files of a model, after they were fetched into the hub's cache.

    pickles: whether the pickled weights of a model are fetched that has no safetensors file.
    """
    with _explained(*_model(where, model, revision)):
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(model, revision=revision, allow_patterns=list(CHECKPOINT)))
        if pickles and not any(folder.rglob("*.safetensors")):
            snapshot_download(model, revision=revision, allow_patterns=list(PICKLES))
        return folder


def cached_file(model: str, name: str, revision: str | None) -> Path | None:
    """The path of a model's file in the hub's cache; None where it was never fetched. It uses no network."""
    from huggingface_hub import errors, try_to_load_from_cache

    try:
        path = try_to_load_from_cache(model, name, revision=revision)
    except errors.HFValidationError:  # the name of a folder
        return None
    return Path(path) if isinstance(path, str) else None


def weight_bytes(model: str, revision: str | None) -> int | None:
    """Size of a model's weights in bytes; None where the hub does not say (`model_folder` raises the reason then)."""
    from huggingface_hub import snapshot_download

    try:
        files = snapshot_download(model, revision=revision, allow_patterns=["*.safetensors"], dry_run=True)
    except _refusals():
        return None
    return sum(file.file_size or 0 for file in files)


# --- before a run ---------------------------------------------------------------------------------------------


def require_file(where: str, dataset: str, name: str, revision: str) -> str:
    """Where `dataset_file` will get a file from. UserError where it would fail."""
    from huggingface_hub import get_token, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.file_download import get_hf_file_metadata

    if isinstance(try_to_load_from_cache(dataset, name, repo_type="dataset", revision=revision), str):
        return CACHED
    url = hf_hub_url(dataset, name, repo_type="dataset", revision=revision)
    _ask(_file(where, dataset, name, revision), lambda: get_hf_file_metadata(url, get_token(), SECONDS))
    return GIVEN


def require_rows(where: str, dataset: str, config: str | None, split: str, revision: str | None) -> str:
    """Where `dataset_rows` will get its rows from. UserError where it would fail; that the configuration and the split
    are there only the fetch tells."""
    if _rows_are_cached(dataset, config, revision):
        return CACHED
    from huggingface_hub import HfApi

    def ask() -> None:
        HfApi().dataset_info(dataset, revision=revision, timeout=SECONDS)
        HfApi().auth_check(dataset, repo_type="dataset")  # the page of a gated dataset is for everybody

    _ask(_rows(where, dataset, config, split, revision), ask)
    return GIVEN


def require_model(where: str, model: str, revision: str | None) -> str:
    """Where `model_folder` will get a model from. UserError where it would fail."""
    from huggingface_hub import errors, get_token, hf_hub_url, snapshot_download
    from huggingface_hub.file_download import get_hf_file_metadata

    with suppress(errors.LocalEntryNotFoundError, errors.HFValidationError, UserError):  # not, or not all of it
        weight_files(Path(snapshot_download(model, revision=revision, local_files_only=True)))
        return CACHED

    def ask() -> None:
        get_hf_file_metadata(hf_hub_url(model, "config.json", revision=revision), get_token(), SECONDS)

    _ask(_model(where, model, revision), ask)
    return GIVEN


def _rows_are_cached(dataset: str, config: str | None, revision: str | None) -> bool:
    """Whether `datasets` has prepared a configuration of a dataset at a commit, under OWNER___NAME/CONFIG/VERSION."""
    from datasets import config as settings
    from datasets.naming import camelcase_to_snakecase

    *owner, name = dataset.split("/")
    folder = Path(settings.HF_DATASETS_CACHE) / "___".join([*owner, camelcase_to_snakecase(name)])
    return any(path.is_dir() for path in folder.glob(f"{config or '*'}/*/{revision or '*'}"))


Told = tuple[str, str, str, str]  # the setting, what is fetched, its page, and what a person without access can do


def _file(where: str, dataset: str, name: str, revision: str) -> Told:
    return where, f"{name} of {dataset} at {revision}", f"{SITE}/datasets/{dataset}", "give a local path"


def _rows(where: str, dataset: str, config: str | None, split: str, revision: str | None) -> Told:
    what = f"{dataset} (config {config}, split {split}, revision {revision})"
    return where, what, f"{SITE}/datasets/{dataset}", "download it and use kind: files"


def _model(where: str, model: str, revision: str | None) -> Told:
    what = model if revision is None else f"{model} at revision {revision}"
    return where, what, f"{SITE}/{model}", "give a folder with the model"


def _ask(told: Told, call: Callable[[], object]) -> None:
    """Call the hub. UserError when it refuses; when it does not answer in SECONDS, one that says the same of all that
    is to be fetched; and when it must not be asked."""
    from huggingface_hub import constants, errors

    where, what, _, otherwise = told
    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"{where}: {what} is not {CACHED}, and HF_HUB_OFFLINE forbids to fetch it; unset the variable, or "
            f"{otherwise}"
        )
    answer: SimpleQueue[Exception | None] = SimpleQueue()
    expected: tuple[type[Exception], ...] = (*_refusals(), ValueError, RuntimeError)

    def run() -> None:
        try:
            call()
            answer.put(None)
        except expected as error:
            answer.put(error)

    # A name server that is away keeps a call longer than any limit of the client; such a thread is left behind.
    threading.Thread(target=run, daemon=True).start()
    try:
        error = answer.get(timeout=SECONDS)
    except Empty:
        error = TimeoutError(f"no answer in {SECONDS:g} s")
    if error is None:
        return
    if isinstance(error, (*_refusals(), TimeoutError)) and not isinstance(
        error, (errors.HfHubHTTPError, errors.HFValidationError)
    ):
        said = str(error).partition("\n")[0]
        raise UserError(
            f"{constants.ENDPOINT} does not answer ({said}), and not all that is needed of it is {CACHED}; check the "
            "network and HTTPS_PROXY, or fetch it on another machine, bring its HF_HOME here and set HF_HUB_OFFLINE=1"
        ) from error
    with _explained(*told):
        raise error


def _refusals() -> tuple[type[Exception], ...]:
    """The exceptions of the hub's client: a wrong name, a missing file, a refusal, a lost connection, offline mode."""
    from huggingface_hub import errors

    client = errors.HTTPError  # type: ignore[attr-defined]  # of the HTTP client that this release of the library has
    return OSError, client, errors.HFValidationError


@contextmanager
def _explained(where: str, what: str, page: str, otherwise: str, *more: type[Exception]) -> Iterator[None]:
    """Raise a UserError in place of the exceptions of the hub's libraries.

    what: the thing that is fetched. page: the web page where a licence is accepted. otherwise: what a person without
    access can do. more: exceptions of another library that the block uses.
    """
    from huggingface_hub.errors import GatedRepoError

    # `datasets` raises the last two for a configuration that is not there and for a dataset that ships a script.
    refusals: tuple[type[Exception], ...] = (*_refusals(), *more, ValueError, RuntimeError)
    try:
        yield
    except GatedRepoError as error:
        raise UserError(
            f"{where}: {what} is gated and access was refused. Accept its licence at {page} while logged in, then run "
            f"`hf auth login` (or set HF_TOKEN) on this machine; or {otherwise}"
        ) from error
    except refusals as error:
        said = str(error).partition("\n")[0]
        raise UserError(
            f"{where}: {what} could not be fetched ({type(error).__name__}: {said}); check the name, the "
            f"revision and the network; where it is gated, accept its terms at {page} and run `hf auth login`; or "
            f"{otherwise}"
        ) from error
