"""SHA-256 of the weights that a merge starts from, found while other work goes on."""

import os
import threading
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue

from tinyr1.core import artifact
from tinyr1.core.checkpoints import read_config, weight_files
from tinyr1.core.errors import UserError


class Parents:
    """The weight files of checkpoints, by model, of which threads make the hashes from now on.

    Those of a checkpoint that this kit made are in its manifest. UserError when a folder is none, UserError when
    one that this kit made is no longer as it was made.
    """

    def __init__(self, folders: dict[str, Path]) -> None:
        self.files: dict[str, list[Path]] = {}
        self.known: dict[str, dict[str, str]] = {}
        self.asked: dict[str, dict[str, Future]] = {}
        self.waiting: SimpleQueue[tuple[Path, Future]] = SimpleQueue()
        for name, folder in folders.items():
            read_config(folder)
            files = self.files[name] = weight_files(folder)
            if artifact.manifest_path(folder).is_file():
                self.known[name] = _manifest_hashes(folder, files)
            else:
                self.asked[name] = {file.name: Future() for file in files}
                for file in files:
                    self.waiting.put((file, self.asked[name][file.name]))
        for _ in range(min(self.waiting.qsize(), len(os.sched_getaffinity(0)))):
            threading.Thread(target=self._work, daemon=True).start()  # an error elsewhere does not wait for them

    def _work(self) -> None:
        while True:
            try:
                file, digest = self.waiting.get_nowait()
            except Empty:
                return
            try:
                digest.set_result(artifact.file_hash(file))
            except BaseException as error:  # noqa: BLE001 (a thread has nobody to raise it to; `hashes` does)
                digest.set_exception(error)

    def stamps(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Model -> file name -> (bytes, time of the last change), which cost nothing to know."""
        stats = {name: {file.name: file.stat() for file in files} for name, files in self.files.items()}
        return {n: {file: (s.st_size, s.st_mtime_ns) for file, s in files.items()} for n, files in stats.items()}

    def hashes(self) -> dict[str, dict[str, str]]:
        """Model -> file name -> SHA-256, once all are there."""
        found = {name: {file: d.result() for file, d in files.items()} for name, files in self.asked.items()}
        return {name: (self.known | found)[name] for name in self.files}


def _manifest_hashes(folder: Path, files: list[Path]) -> dict[str, str]:
    """What the manifest of a checkpoint says, after checking that its files are as they were made."""
    made = artifact.check(folder, "make it again")["files"]
    if added := [file.name for file in files if file.name not in made]:
        raise UserError(f"{folder}: {', '.join(added)} came after the folder was finished; remove it")
    return {file.name: made[file.name]["sha256"] for file in files}
