"""The response store: one JSON line for each generated sample, appended as it finishes.

A line belongs to (model key, protocol key, question, sample). Readers take only the lines of one model and protocol and
count what else is in the files, so that an answer is never attached to another question, model or protocol.
Several processes write one file each: `math.jsonl` and, for data-parallel ranks 1, 2, …, `math.shard-1.jsonl`, ….
"""

from dataclasses import dataclass, field
from pathlib import Path

from tinyr1.sampling.store import Form

RESPONSE = Form("response", {
    "question": str, "sample": int, "text": str, "n_tokens": (int, type(None)), "finish": str, "model_key": str,
    "protocol_key": str,
})  # fmt: skip


@dataclass
class Stored:
    """What the files of one job hold.

    lines: responses of one model and protocol, one for each (question, sample), in the order of the files.
    foreign: number of whole lines of other models or protocols. repeated: number of further lines of a (question,
    sample) that is there already. malformed: `file:line` of lines that are no response; their samples count as missing.
    """

    lines: list[dict] = field(default_factory=list)
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


def stored(out: Path, model_key: str, protocol_key: str) -> Stored:
    """The responses of one model under one protocol, and counts of everything else in the job's files."""
    result = Stored()
    seen: set[tuple[str, int]] = set()
    for path in shards(out):
        for number, line in RESPONSE.lines(path):
            if line is None:
                result.malformed.append(f"{path}:{number}")
            elif (line["model_key"], line["protocol_key"]) != (model_key, protocol_key):
                result.foreign += 1
            elif (key := (line["question"], line["sample"])) in seen:
                result.repeated += 1
            else:
                seen.add(key)
                result.lines.append(line)
    return result


def of_job(job: dict, model_key: str) -> Stored:
    """The responses to the requests of one job of a plan; lines of samples that it does not request are foreign."""
    result = stored(Path(job["out"]), model_key, job["protocol_key"])
    requested = {(r["question"], r["sample"]) for r in job["requests"]}
    lines = [line for line in result.lines if (line["question"], line["sample"]) in requested]
    result.foreign += len(result.lines) - len(lines)
    result.lines = lines
    return result


def missing(job: dict, model_key: str) -> list[dict]:
    """Requests of a job that have no response yet, in the order of the job."""
    done = {(line["question"], line["sample"]) for line in of_job(job, model_key).lines}
    return [r for r in job["requests"] if (r["question"], r["sample"]) not in done]
