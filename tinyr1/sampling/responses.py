r"""The response store: one JSON line for each generated sample, appended as it finishes.

    math.jsonl          answers     --\
    math.failed.jsonl   failures    ---> stored: answers, and failures of samples that have no answer --> missing

A line belongs to (model key, protocol key, question, sample). Readers take only the lines of one model and protocol and
count what else is in the files, so that an answer is never attached to another question, model or protocol.
Several processes write one file each: `math.jsonl` and, for data-parallel ranks 1, 2, …, `math.shard-1.jsonl`, ….

A line whose finish reason says that the generation failed is no answer, also in a file of answers: it may come from
another tool. A failure has `kind` and `reason` (`tinyr1.sampling.requests.Failure`) and the text that came, if any.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tinyr1.sampling.store import Form

RESPONSE = Form("response", {
    "question": str, "sample": int, "text": str, "n_tokens": (int, type(None)), "finish": str, "model_key": str,
    "protocol_key": str,
})  # fmt: skip
FAILED = "failed"  # the finish of a generation of which the server says no more
# Finish reasons of generations that the server gave up: of vLLM and SGLang, of others, of DeepSeek's and Zhipu's APIs.
GAVE_UP = (FAILED, "abort", "aborted", "error", "cancelled", "canceled", "timeout", "server_error",
           "insufficient_system_resource", "network_error")  # fmt: skip
# Finish reasons of what a server refused, beside OpenAI's "content_filter": of Google, Anthropic, Amazon and Zhipu.
REFUSED = ("safety", "recitation", "prohibited_content", "blocklist", "spii", "refusal", "guardrail_intervened",
           "sensitive")  # fmt: skip
# Finish reasons of answers that were cut off, beside OpenAI's "length": of Mistral's API, of Zhipu's, of Anthropic's,
# Google's and Amazon's, of TGI, and of tools that write answers into files.
CUT = ("model_length", "model_context_window_exceeded", "max_tokens", "max_output_tokens", "max_new_tokens",
       "max_length", "token_limit")  # fmt: skip
UNKNOWN = "unknown"  # the finish reason of an answer of which nobody says how it ended
KINDS = ("passing", "own", "too_long", "refused")  # failures of single requests that were sent


def finish_of(reason: object) -> str:
    """A finish reason as it is stored: "length" for every word for an answer that was cut off, UNKNOWN for none.

    SGLang's own interface gives an object with the word as `type`.
    """
    reason = reason.get("type") if isinstance(reason, Mapping) else reason
    if not isinstance(reason, str) or not reason:
        return UNKNOWN
    return "length" if _word(reason) in ("length", *CUT) else reason


def _word(reason: str) -> str:
    return reason.lower().replace("-", "_")


def failure_kind(finish: str) -> Literal["passing", "refused"] | None:
    """The kind of failure that a finish reason names; None where it is that of an answer."""
    word = _word(finish)
    if word.startswith("content_filter") or word in REFUSED:  # some add a reason
        return "refused"
    return "passing" if word in GAVE_UP else None


@dataclass
class Stored:
    """What the files of one job hold.

    lines: answers of one model and protocol, one for each (question, sample), in the order of the files.
    failed: the last failure of each (question, sample) that has no answer, with kind and reason.
    foreign: number of whole lines of other models or protocols. repeated: number of further lines of a (question,
    sample) that is there already. malformed: `file:line` of lines that are no response; their samples count as missing.
    """

    lines: list[dict] = field(default_factory=list)
    failed: list[dict] = field(default_factory=list)
    foreign: int = 0
    repeated: int = 0
    malformed: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """One sentence for each kind of line that is not used, for the reader of the run."""
        where = ", ".join(self.malformed[:3]) + (", …" if len(self.malformed) > 3 else "")
        counts = (
            (self.foreign, "of another model or protocol, kept and not used"),
            (self.repeated, "repeating a (question, sample) that is there already, not used"),
            (len(self.malformed), f"malformed ({where}), kept and not used; their samples are drawn again"),
        )
        return [f"{n} response line{'s' if n > 1 else ''} {what}" for n, what in counts if n]


def shard(out: Path, rank: int) -> Path:
    """The file to which data-parallel rank `rank` appends; rank 0 has the job's own."""
    return out.with_name(f"{out.stem}.shard-{rank}{out.suffix}") if rank else out


def shards(out: Path) -> list[Path]:
    """Every file of a job that exists: its own first, then those of other ranks."""
    others = sorted(out.parent.glob(f"{out.stem}.shard-*{out.suffix}"))
    return [path for path in (out, *others) if path.is_file()]


def failures(out: Path) -> Path:
    """The file of a job's failures, beside the file `out` of its answers."""
    return out.with_name(f"{out.stem}.failed{out.suffix}")


def stored(out: Path, model_key: str, protocol_key: str) -> Stored:
    """The answers and failures of one model under one protocol, and counts of everything else in the job's files."""
    result = Stored()
    seen: set[tuple[str, int]] = set()
    failed: dict[tuple[str, int], dict] = {}
    for path in (*shards(out), *shards(failures(out))):
        for number, line in RESPONSE.lines(path):
            if line is None:
                result.malformed.append(f"{path}:{number}")
            elif (line["model_key"], line["protocol_key"]) != (model_key, protocol_key):
                result.foreign += 1
            elif kind := failure_kind(line["finish"]):
                told = {"kind": kind, "reason": f"its finish reason is {line['finish']!r}"}
                failed[line["question"], line["sample"]] = told | line
            elif (key := (line["question"], line["sample"])) in seen:
                result.repeated += 1
            else:
                seen.add(key)
                result.lines.append(line)
    result.failed = [line for key, line in failed.items() if key not in seen]
    return result


def of_job(job: dict, model_key: str) -> Stored:
    """The responses to the requests of one job of a plan; lines of samples that it does not request are foreign."""
    result = stored(Path(job["out"]), model_key, job["protocol_key"])
    requested = {(r["question"], r["sample"]) for r in job["requests"]}

    def wanted(lines: list[dict]) -> list[dict]:
        taken = [line for line in lines if (line["question"], line["sample"]) in requested]
        result.foreign += len(lines) - len(taken)
        return taken

    result.lines, result.failed = wanted(result.lines), wanted(result.failed)
    return result


def missing(job: dict, model_key: str, final: Collection[str] = ()) -> list[dict]:
    """Requests of a job that have no answer yet, in the order of the job.

    final: the kinds of failures that stand, so that a request that failed so is not missing.
    """
    found = of_job(job, model_key)
    settled = [*found.lines, *(line for line in found.failed if line["kind"] in final)]
    done = {(line["question"], line["sample"]) for line in settled}
    return [r for r in job["requests"] if (r["question"], r["sample"]) not in done]
