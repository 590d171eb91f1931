r"""Which rank of a training on several hosts failed first, and why: the others fail because it is gone.

    what the launchers say --one rank was killed without a word--> its host, the log that holds no error -\
    ranks/*.log ---------------------------the first with an error--> its exception, the lines around it --> a text
"""

import re
import signal
from pathlib import Path

from tinyr1.core import endings, launch

ENDS = "exits with return code = "  # what DeepSpeed's launcher says of a rank that failed
# Of several hosts, pdsh puts the name before each line.
KILLED = re.compile(rf"^(?:(?P<host>\S+): )?\[.*{ENDS}-(?P<number>\d+)\s*$", re.MULTILINE)
# Signals that the system sends. SIGABRT is not one: NCCL ends a rank with it that has lost another one.
OF_THE_SYSTEM = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS)


def first_failure(logs: Path, said: str) -> str | None:
    """The rank that failed first, in one line, and the lines of its log that tell why; None where nothing tells.

    logs: the folder of the logs of all ranks. said: what the launchers have written.
    """
    texts = {
        file.name: file.read_text(encoding="utf-8", errors="replace")
        for file in sorted(logs.glob("*.log"), key=lambda file: file.stat().st_mtime_ns)
    }
    causes = {name: found for name, text in texts.items() if (found := endings.cause(text))}
    for killed in KILLED.finditer(said):
        number = int(killed["number"])
        if number in OF_THE_SYSTEM:
            silent = [name for name in texts if name not in causes]
            of = f"a rank of {killed['host'] or 'this host'}{f', {silent[0]},' if len(silent) == 1 else ''}"
            shown = f"\n{launch.error_excerpt(texts[silent[0]])}" if len(silent) == 1 else ""
            return f"{of} {endings.told(-number, endings.Memory())}; the others failed because it is gone{shown}"
    for name, found in causes.items():
        return f"the first rank that failed, {name}: {found}\n{launch.error_excerpt(texts[name])}"
    return None
