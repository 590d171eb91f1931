"""The Hugging Face hub: the one module that fetches from it and turns its errors into a sentence.

`where` names the setting that a person can change: a key of the params file (`backbone.model`) or an option
(`--model`). Every function but `weight_bytes` raises UserError where the fetch fails, with what to do about it.
The libraries are imported only when something is fetched: they take seconds, and most commands need none of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyr1.core.checkpoints import CHECKPOINT, PICKLES
from tinyr1.core.errors import UserError

SITE = "https://huggingface.co"


def dataset_file(where: str, dataset: str, name: str, revision: str) -> Path:
    """The path of one file of a dataset at a commit, after it was fetched into the hub's cache."""
    with _explained(where, f"{name} of {dataset} at {revision}", f"{SITE}/datasets/{dataset}", "give a local path"):
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(dataset, name, repo_type="dataset", revision=revision))


def dataset_rows(where: str, dataset: str, config: str | None, split: str, revision: str | None) -> Iterator[dict]:
    """Yield the rows of a split of a dataset; `datasets` fetches it once and maps its cache into memory."""
    what = f"{dataset} (config {config}, split {split}, revision {revision})"
    from datasets import exceptions, load_dataset

    page, otherwise = f"{SITE}/datasets/{dataset}", "download it and use kind: files"
    with _explained(where, what, page, otherwise, exceptions.DatasetsError):
        rows = load_dataset(dataset, config, revision=revision, split=split)
    yield from rows


def model_folder(where: str, model: str, revision: str | None, pickles: bool = False) -> Path:
    """The folder with the checkpoint files of a model, after they were fetched into the hub's cache.

    pickles: whether the pickled weights of a model are fetched that has no safetensors file.
    """
    what = model if revision is None else f"{model} at revision {revision}"
    with _explained(where, what, f"{SITE}/{model}", "give a folder with the model"):
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
