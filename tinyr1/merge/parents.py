"""Identities of the checkpoints that a merge starts from: hashes of their weights, computed beside other work.

    weights that this kit made --manifest--> "sha256:…"            (nothing is read)
    weights of somebody else   --b3_hash---> "blake3:…", which `b3sum` prints, too

BLAKE3 takes a third of the time of SHA-256, with which a merge of two cores would wait for the hashes of its inputs.
Nothing here imports torch: the command starts the hashes first, and the seconds of that import pass meanwhile.
"""

import mmap
import os
import threading
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from blake3 import blake3

from tinyr1.core import artifact
from tinyr1.core.checkpoints import ADAPTER_CONFIG, read_config, weight_files
from tinyr1.core.errors import UserError
from tinyr1.merge import beside, inputs

WINDOW = 2**23  # bytes of a file that are mapped at once, a multiple of a page


class ParentHashes:
    """Hashes of the weight files of checkpoints, by model; threads compute them from now on.

    folders: the places of the models (`inputs`). A file is called by its path in the folder of its model, one of an
    adapter by + and the name of the adapter's folder before it. The manifest of a checkpoint that this kit made has the
    hashes already. UserError when a folder is no checkpoint, or when one that this kit made was changed afterwards.
    """

    def __init__(self, folders: dict[str, Path]) -> None:
        self.files: dict[str, dict[str, Path]] = {}
        self.beside: dict[str, dict[str, Path]] = {}  # config and tokenizer, of models that this kit did not make
        self.contents: dict[str, str] = {}  # of models that this kit made and no adapter changes
        self.known: dict[Path, str] = {}
        self.futures: dict[Path, Future[str]] = {}
        queue: SimpleQueue[Path] = SimpleQueue()
        for name, place in folders.items():
            folder, adapter = inputs.parts(place)
            read_config(folder)
            files = {str(file.relative_to(folder)): file for file in weight_files(folder)}
            if artifact.manifest_path(folder).is_file():
                manifest = _checked_manifest(folder, files)
                self.known |= {file: manifest["files"][called]["sha256"] for called, file in files.items()}
                if adapter is None:
                    self.contents[name] = manifest["content"]
            if adapter is not None:
                of_adapter = (adapter / ADAPTER_CONFIG, inputs.adapter_weights(adapter))
                files |= {f"+{adapter.name}/{file.name}": file for file in of_adapter}
            self.files[name] = files
            if not artifact.manifest_path(folder).is_file():
                small = ["config.json", beside.GENERATION, *beside.PROCESSORS, *beside.tokenizer_files(folder)]
                small += [str(file.relative_to(folder)) for file in sorted(folder.glob("*.py"))]
                self.beside[name] = {called: folder / called for called in small if (folder / called).is_file()}
            for file in files.values():
                if file not in self.known and file not in self.futures:
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
                self.futures[file].set_result(f"blake3:{b3_hash(file)}")
            except BaseException as error:  # noqa: BLE001 (nobody can catch it in a thread; `hashes` raises it)
                self.futures[file].set_exception(error)

    def identities(self) -> dict[str, Any]:
        """By model, without waiting: `content` of its manifest, else file name -> (bytes, time of the last change)."""
        identities: dict[str, Any] = dict(self.contents)
        for name in self.files.keys() - identities.keys():
            files = self.files[name] | self.beside.get(name, {})
            stats = {called: file.stat() for called, file in files.items()}
            identities[name] = {called: (stat.st_size, stat.st_mtime_ns) for called, stat in stats.items()}
        return identities

    def hashes(self) -> dict[str, dict[str, str]]:
        """Model -> file name -> `sha256:` or `blake3:`, and the digits; waits for them and raises errors of threads."""
        return {name: {called: f"sha256:{self.known[file]}" if file in self.known else self._hash(file)
                       for called, file in files.items()} for name, files in self.files.items()}  # fmt: skip

    def made_from(self) -> dict[str, dict[str, str]]:
        """The hashes of the weights and of the small files that the result takes over or is read by.

        SHA-256 stands without its name, so that merges of earlier versions keep their identity.
        """
        small = {name: {called: artifact.file_hash(file) for called, file in files.items()}
                 for name, files in self.beside.items()}  # fmt: skip
        return {name: {called: self._hash(file) for called, file in files.items()} | small.get(name, {})
                for name, files in self.files.items()}  # fmt: skip

    def _hash(self, file: Path) -> str:
        return self.known[file] if file in self.known else self.futures[file].result()


def b3_hash(path: Path) -> str:
    """BLAKE3 of a file's bytes, as 64 hexadecimal digits. OSError when the file becomes shorter meanwhile."""
    result = blake3()
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        for begin in range(0, size, WINDOW):
            # Reading a mapped page behind the end of a file kills the process, so the size is checked before each one.
            if os.fstat(file.fileno()).st_size < size:
                raise OSError(f"{path}: cut short while it was hashed; another program works in that folder")
            length = min(WINDOW, size - begin)
            with mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ, offset=begin) as window:
                window.madvise(mmap.MADV_WILLNEED)
                result.update(window)
    return result.hexdigest()


def _checked_manifest(folder: Path, files: dict[str, Path]) -> dict[str, Any]:
    """The manifest of a checkpoint whose files are as this kit made them."""
    manifest = artifact.check(folder, "make it again")
    if added := [called for called in files if called not in manifest["files"]]:
        raise UserError(f"{folder}: {', '.join(added)} came after the folder was finished; remove it")
    return manifest
