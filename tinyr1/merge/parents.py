"""Identities of the checkpoints that a merge starts from: SHA-256 of their weights, computed beside other work.

Nothing here imports torch: the command starts the hashes first, and the seconds of that import pass meanwhile.
"""

import os
import threading
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from tinyr1.core import artifact
from tinyr1.core.checkpoints import read_config, weight_files
from tinyr1.core.errors import UserError


class ParentHashes:
    """Hashes of the weight files of checkpoints, by model; threads compute them from now on.

    The manifest of a checkpoint that this kit made has them already. UserError when a folder is no checkpoint, or when
    one that this kit made was changed afterwards.
    """

    def __init__(self, folders: dict[str, Path]) -> None:
        self.files: dict[str, list[Path]] = {}
        self.manifests: dict[str, dict[str, Any]] = {}
        self.futures: dict[Path, Future[str]] = {}
        queue: SimpleQueue[Path] = SimpleQueue()
        for name, folder in folders.items():
            read_config(folder)
            files = self.files[name] = weight_files(folder)
            if artifact.manifest_path(folder).is_file():
                self.manifests[name] = _checked_manifest(folder, files)
                continue
            for file in files:
                self.futures[file] = Future()
                queue.put(file)
        for _ in range(min(queue.qsize(), len(os.sched_getaffinity(0)))):
            # Daemons: a mistake elsewhere ends the process without waiting for a hash.
            threading.Thread(target=self._work, args=(queue,), daemon=True).start()

    def _work(self, queue: "SimpleQueue[Path]") -> None:
        while True:
            try:
                file = queue.get_nowait()
            except Empty:
                return
            try:
                self.futures[file].set_result(artifact.file_hash(file))
            except BaseException as error:  # noqa: BLE001 (nobody can catch it in a thread; `hashes` raises it)
                self.futures[file].set_exception(error)

    def identities(self) -> dict[str, Any]:
        """By model, without waiting: `content` of its manifest, else file name -> (bytes, time of the last change)."""
        identities: dict[str, Any] = {name: manifest["content"] for name, manifest in self.manifests.items()}
        for name in self.files.keys() - identities.keys():
            stats = {file.name: file.stat() for file in self.files[name]}
            identities[name] = {file: (stat.st_size, stat.st_mtime_ns) for file, stat in stats.items()}
        return identities

    def hashes(self) -> dict[str, dict[str, str]]:
        """Model -> file name -> SHA-256; waits for those that are not ready, and raises the error of a thread."""
        return {
            name: {f.name: self.manifests[name]["files"][f.name]["sha256"] for f in files} if name in self.manifests
            else {f.name: self.futures[f].result() for f in files}
            for name, files in self.files.items()
        }  # fmt: skip


def _checked_manifest(folder: Path, files: list[Path]) -> dict[str, Any]:
    """The manifest of a checkpoint whose files are as this kit made them."""
    manifest = artifact.check(folder, "make it again")
    if added := [file.name for file in files if file.name not in manifest["files"]]:
        raise UserError(f"{folder}: {', '.join(added)} came after the folder was finished; remove it")
    return manifest
