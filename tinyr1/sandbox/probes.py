"""Programs that try to break out, run before a fork-server is used and after each restart (docs/evaluation.md §3.6)."""

import os
from dataclasses import replace
from pathlib import Path

from tinyr1.sandbox import scratch
from tinyr1.sandbox.forkserver import SPARE_BYTES, Ceilings, ForkServer, Refused, Result

# Each probe ends without an exception only if the fork could do what it must not. {folder} is open to everybody.
PROBES = {
    "fork": "import os\nif os.fork() == 0: os._exit(0)",
    "execve": "import os\nos.execv('/proc/self/exe', ['python', '-c', ''])",
    "tcp socket": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    "udp socket": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "unix socket": "import socket\nsocket.socket(socket.AF_UNIX, socket.SOCK_STREAM)",
    "read a file": "open({folder!r} + '/canary').read()",
    "write a file": "open({folder!r} + '/written', 'w').write('x')",
    "read /proc": "open('/proc/self/environ', 'rb').read()",
    "list /proc": "import os\nos.listdir('/proc')",
    "signal the fork-server": "import os\nos.kill(os.getppid(), 0)",
    "trace the fork-server": "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    "if libc.ptrace(16, os.getppid(), 0, 0): raise OSError(ctypes.get_errno(), 'ptrace')",
}
REFUSALS = ("PermissionError", "FileNotFoundError")  # namespaces hide the file, which gives the second one
REMEDIES = (
    "What is needed: Linux 5.13 or newer on x86_64 or aarch64, `landlock` in /sys/kernel/security/lsm, and a container "
    "that allows the calls landlock_* and seccomp (Docker's default profile does). bubblewrap, where installed, adds "
    "namespaces"
)


def try_to_break_out(server: ForkServer, cpu_seconds: int, memory_mb: int) -> dict[str, str]:
    """How each attempt ended, by its name: an exception's name for PROBES, a status for the four limits.

    cpu_seconds, memory_mb: the limits of the programs that will follow. Refused if an attempt succeeded, if a limit did
    not hold, or if an ordinary program does not work.
    """
    ceilings = Ceilings(cpu_seconds, 10.0, memory_mb, SPARE_BYTES)

    def attempt(code: str, ceilings: Ceilings = ceilings) -> Result:
        job = {"code": code, "semantics": "real", "func_name": "", "inputs": []}
        return server.execute(job, "1\n2\n", ceilings, lambda _: "protocol")

    endings = {}
    with scratch.folder("canary") as folder:
        # Everybody may use the folder, so only the sandbox can be what keeps a probe out.
        os.chmod(folder, 0o777)
        canary = Path(folder, "canary")
        canary.write_text("canary")
        canary.chmod(0o644)
        for name, code in PROBES.items():
            result = attempt(code.format(folder=folder))
            endings[name] = result.error.partition(":")[0] if result.status == "error" else result.status
        left = sorted(os.listdir(folder))
    escaped = [name for name, ending in endings.items() if ending not in REFUSALS]
    limits = {
        "memory": (attempt(f"bytearray({memory_mb + 128} << 20)"), "memory"),
        "time": (attempt("import time\ntime.sleep(600)", replace(ceilings, wall_seconds=0.1)), "timeout"),
        "output": (attempt("while True: print('x' * 9999)"), "output_limit"),
        "raise a limit": (attempt("import resource as r\nr.setrlimit(r.RLIMIT_CPU, (9999, 9999))"), "error"),
    }
    endings |= {name: result.status for name, (result, _) in limits.items()}
    escaped += [name for name, (result, due) in limits.items() if result.status != due]
    if escaped or left != ["canary"]:
        raise Refused(f"a test program could: {', '.join(escaped) or 'leave files'} ({endings}). {REMEDIES}")
    control = attempt("import fractions\nprint(sum(map(int, sys.stdin)))")
    if control.output != "3\n":
        raise Refused(f"an ordinary program does not run in the sandbox: {control.error or control.status}. {REMEDIES}")
    return endings
