"""Models that are evaluated apart from a run: where their checkpoints are, and what ties responses to them.

    each model --SingleModel--> a folder of its own, as if it were evaluated alone
    several ----SideBySide----> the same folders, sampled by one process; their comparison has one more folder
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tinyr1.core import artifact, hub
from tinyr1.core.checkpoints import CHECKPOINT, read_config
from tinyr1.core.config import Config
from tinyr1.core.errors import UserError
from tinyr1.core.params.evaluation import VllmEngine
from tinyr1.core.params.schema import Params
from tinyr1.sampling.preflight import context_limit


class SingleModel(Config):
    """A run of one model: its checkpoint may lie anywhere, and all results go into one folder."""

    name: str
    checkpoint: Path
    out: Path
    key: str
    """What ties responses to the model (`content_key`)."""

    @property
    def home(self) -> Path:
        return self.out

    @property
    def reports(self) -> Path:
        return self.out

    @property
    def models(self) -> tuple[str, ...]:
        return (self.name,)

    def model(self, name: str) -> Path:
        return self.checkpoint

    def known_key(self, model: str) -> str:
        return self.key


class SideBySide(Config):
    """Several models that are asked the same questions. Everything of one model stays in its own folder."""

    each: tuple[SingleModel, ...]
    out: Path

    @property
    def home(self) -> Path:
        return self.out

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.each)

    def one(self, name: str) -> SingleModel:
        """The model of this name."""
        return self.each[self.models.index(name)]

    def model(self, name: str) -> Path:
        return self.one(name).checkpoint

    def known_key(self, model: str) -> str:
        return self.one(model).key

    def responses(self, model: str, benchmark: str) -> Path:
        return self.one(model).responses(model, benchmark)


def checkpoint_folder(model: str) -> Path:
    """The folder of a model, fetched from the hub where `model` is no folder here but a hub id (owner/name)."""
    folder = Path(model)
    if folder.is_dir():
        return folder
    if model.count("/") != 1:
        raise UserError(f"--model: {model} is no folder and no hub id (owner/name)")
    return hub.model_folder("--model", model, None)


def content_key(folder: Path) -> str:
    """Hash of the contents of a checkpoint's files; a checkpoint of this kit has it in its manifest.

    UserError when the folder holds no checkpoint, or not the one that its manifest lists.
    """
    if artifact.manifest_path(folder).is_file():
        return artifact.check(folder, "make it again")["content"]
    files = sorted({f for pattern in CHECKPOINT for f in folder.glob(pattern)})
    if not any(f.suffix == ".safetensors" for f in files):
        raise UserError(f"--model: {folder} holds no checkpoint (no .safetensors)")
    with ThreadPoolExecutor() as pool:
        return artifact.digest(dict(zip([f.name for f in files], pool.map(artifact.file_hash, files), strict=True)))


def fitted_to_context(params: Params, folder: Path) -> Params:
    """The params with an engine that asks for no more context than the model has.

    They stay as they are where a benchmark's max_tokens needs more than the model has: then sampling refuses.
    """
    engine = params.evaluate.engine
    if not isinstance(engine, VllmEngine) or not (folder / "config.json").is_file():
        return params
    try:
        limit = context_limit(read_config(folder))
    except UserError as error:
        raise UserError(f"--model: {error}") from error
    longest = max(benchmark.max_tokens for benchmark in params.benchmarks.values())
    if limit is None or not longest < limit < engine.max_model_len:
        return params
    evaluate = params.evaluate.model_copy(update={"engine": engine.model_copy(update={"max_model_len": limit})})
    return params.model_copy(update={"evaluate": evaluate})
