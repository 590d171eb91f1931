r"""What a child process inherits from the shell, the cluster or the container in which the kit is started.

    os.environ --PASSED: what a person sets on purpose--\
    SET: what the kit needs ----------------------------- > for_child --> env= of every child that the kit starts
    variables that the caller adds ----------------------/
    os.environ --check--> UserError that names a variable whose value the kit cannot read
               --recorded--> which of the passed variables were set, for the record of a stage

Everything else stays outside: packages of another Python (PYTHONPATH), the encoding of the terminal, the number that an
MPI or torchrun parent gave to its own rank. The launchers that the kit starts set such numbers themselves. Programs of
a model get less than this: the sandbox has an environment of its own. docs/environment.md lists the variables.
"""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from tinyr1.core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]  # that of config, which needs libraries that `make gpu-check` does without

# Names, or patterns with an asterisk, of the variables that reach a child, by what they are for.
PASSED = {
    "system": (
        "HOME", "PATH", "USER", "LOGNAME", "SHELL", "TERM", "TZ", "TMPDIR", "TMP", "TEMP", "XDG_*", "SSH_AUTH_SOCK",
        "KRB5CCNAME",
    ),
    "libraries and compilers": (
        "LD_LIBRARY_PATH", "LD_PRELOAD", "LIBRARY_PATH", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "CC", "CXX",
        "CFLAGS", "CXXFLAGS", "LDFLAGS", "MAX_JOBS",
    ),
    "Python": ("PYTHONPYCACHEPREFIX", "PYTHONFAULTHANDLER", "PYTHONHASHSEED"),
    "notebooks": ("IPYTHONDIR", "MPLCONFIGDIR"),
    "Hugging Face": ("HF_*", "HUGGING_FACE_HUB_TOKEN", "TRANSFORMERS_*", "SAFETENSORS_*"),
    "network": (
        "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "SSL_CERT_FILE",
        "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    ),
    "GPUs": (
        "CUDA_*", "CUBLAS_*", "CUDNN_*", "NVIDIA_*", "NVCC_*", "NCCL_*", "GLOO_*", "TORCH_*", "PYTORCH_*",
        "TORCHINDUCTOR_*", "TRITON_*", "FLASHINFER_*",
    ),
    "threads and memory": (
        "OMP_*", "GOMP_*", "KMP_*", "MKL_*", "OPENBLAS_*", "DNNL_*", "ONEDNN_*", "NUMEXPR_*", "RAYON_*", "MALLOC_*",
        "THP_*",
    ),
    "engines": ("VLLM_*", "RAY_*", "DS_*"),
    "trackers": ("WANDB_*", "TENSORBOARD_*"),
    "clusters": (
        "SLURM_*", "PBS_*", "LSB_*", "PDSH_*", "OMPI_MCA_*", "PRTE_MCA_*", "I_MPI_*", "MPICH_*", "HYDRA_*", "UCX_*",
        "FI_*",
    ),
    "this kit": ("TINYR1_*",),
}  # fmt: skip
# Exceptions to these patterns: what a launcher says to one of its ranks, and not to whatever that rank starts.
OF_A_RANK = (
    "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_GTIDS", "SLURM_TASK_PID", "PBS_TASKNUM", "PBS_VNODENUM",
    "LSB_PMI_*", "OMPI_MCA_ess*", "OMPI_MCA_orte_*", "OMPI_MCA_pmix*", "PRTE_MCA_ess*", "PRTE_MCA_prte_*",
    "MPICH_LOCAL_RANK", "HYDRA_PROXY_*",
)  # fmt: skip
LOCAL = ("localhost", "127.0.0.1", "::1")  # addresses that no proxy may answer for
SET = {
    "PYTHONPATH": str(ROOT),
    "PYTHONNOUSERSITE": "1",
    "PYTHONUTF8": "1",
    "PYTHONWARNINGS": "ignore:IProgress not found",
    "LC_ALL": "C.UTF-8",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
EXCLUDED = ("NO_PROXY", "no_proxy")  # set as well, with what the person has excluded from the proxy

OWN = ("TINYR1_HOME", "TINYR1_REPORTS", "TINYR1_PARAMS", "TINYR1_RUN_UNCONFINED")  # variables for persons
BETWEEN = ("TINYR1_EVENTS", "TINYR1_PARENT")  # that the kit's processes set for each other
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
DEVICE = re.compile(r"-?\d+|GPU-[\w-]+|MIG-[\w/-]+|NoDevFiles")
# Variables whose values may be published: numbers of threads and GPUs, and switches.
SHOWN = (
    *THREADS, "CUDA_VISIBLE_DEVICES", "CUDA_LAUNCH_BLOCKING", "HF_HUB_OFFLINE", "NCCL_DEBUG", "NCCL_P2P_DISABLE",
    "NCCL_IB_DISABLE", "VLLM_ATTENTION_BACKEND", "VLLM_USE_V1", "DS_ACCELERATOR", "PYTHONHASHSEED",
)  # fmt: skip


def for_child(added: Mapping[str, str] | None = None, passing: Iterable[str] = ()) -> dict[str, str]:
    """The whole environment of a child process.

    added: variables to set for this child, which win. passing: names of further variables that pass where they are set,
    such as that of a server's key.
    """
    also = set(passing)
    kept = {name: value for name, value in os.environ.items() if passes(name) or name in also}
    return kept | SET | _not_through_a_proxy() | dict(added or {})


def passes(name: str) -> bool:
    """Whether a variable reaches the children of this kit by its name alone."""
    patterns = (pattern for group in PASSED.values() for pattern in group)
    return _matches(name, patterns) and not _matches(name, OF_A_RANK)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _not_through_a_proxy() -> dict[str, str]:
    """NO_PROXY in both spellings: what the environment excludes, and the addresses of this machine."""
    given = ",".join(os.environ.get(name, "") for name in EXCLUDED)
    excluded = ",".join(dict.fromkeys([*filter(None, map(str.strip, given.split(","))), *LOCAL]))
    return dict.fromkeys(EXCLUDED, excluded)


def recorded() -> dict[str, str | None]:
    """Variables that a person has set and that reach the children, by name; the value where anybody may see it.

    Those that every system sets are left out, and so are those that the kit sets.
    """
    usual = PASSED["system"]
    names = (name for name in sorted(os.environ) if passes(name) and not _matches(name, usual))
    return {name: os.environ[name] if name in SHOWN else None for name in names if name not in (*SET, *BETWEEN)}


def check() -> None:
    """UserError that lists every variable whose value the kit cannot read, before anything is computed."""
    given = {name: value for name, value in os.environ.items() if name in (*THREADS, "FORCE", "CUDA_VISIBLE_DEVICES")}
    problems = [f"{name}={given[name]!r}: {rule}" for name in given if (rule := _broken_rule(name, given[name]))]
    problems += [f"{name}: {rule}" for name in os.environ if name.startswith("TINYR1_") if (rule := _own_rule(name))]
    if problems:
        raise UserError("\n".join(f"environment variable {problem}" for problem in sorted(problems)))


def _broken_rule(name: str, value: str) -> str | None:
    """What is wrong with the value of a variable that is not the kit's own; None where nothing is."""
    if name == "FORCE":
        return None if value in ("", "0", "1") else "is neither 0 nor 1; set it to 1 to start a run that does not fit"
    if name == "CUDA_VISIBLE_DEVICES":
        right = all(DEVICE.fullmatch(one) for one in map(str.strip, value.split(",")) if one)
        return None if right else "is no list of GPUs; give numbers or UUIDs, as in 0,1, or unset it"
    counts = re.fullmatch(r"0*[1-9][0-9]*(,0*[1-9][0-9]*)*", value)  # a list is for loops inside each other
    return None if counts else "is no number of threads; give a whole number from 1 on, or unset it"


def _own_rule(name: str) -> str | None:
    """What is wrong with a variable whose name begins with TINYR1_; None where nothing is."""
    value, known = os.environ[name], (*OWN, *BETWEEN)
    if name not in known:
        close = difflib.get_close_matches(name, OWN, n=1)
        return f"is unknown; {f'did you mean {close[0]}?' if close else 'the kit reads ' + ', '.join(OWN)}"
    if name not in ("TINYR1_HOME", "TINYR1_REPORTS", "TINYR1_PARAMS"):
        return None
    folder = ROOT / value
    if not value.strip():
        return "is empty; name a folder, or unset it"
    if name == "TINYR1_PARAMS" and not folder.is_dir():
        return f"{folder} is no folder; name the one that holds the params files, or unset it"
    above = next(path for path in (folder, *folder.parents) if path.exists())
    return None if above.is_dir() else f"{above} is a file; name a folder, which is made where it is missing"

