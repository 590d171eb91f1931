"""`make bench`: stage 01 at the paper's size: 94,000 rows of OpenR1-Math-220k's form, about 1.5 GB.

    made-up rows (words of a Zipf law, formulas, two generations of lognormal length) --> a temporary JSONL file
    curate_domain with the miniature's tokenizer, twice --> seconds, raw rows a second, peak memory

The measured part runs in a process of its own, so that its peak memory is not that of writing the rows.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROWS, WORDS, MEDIAN, SPREAD = 94_000, 30_000, 950, 0.55  # words of a trace: median, and spread of its logarithm
MOST_SECONDS, MOST_AGAIN, MOST_GB = 360, 10, 4.0


def write(path: Path, rows: int) -> int:
    """Rows with their usual flaws: 2 % repeat a question, 8 % are not verified, 5 % were cut; returns the bytes."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    lengths = rng.integers(2, 11, WORDS)
    vocabulary = ["".join(letters[(rng.exponential(6, n).astype(int)) % 26]) for n in lengths]
    ranks = np.minimum(rng.zipf(1.25, 4_000_000), WORDS) - 1
    formulas = ["$x^{2} + 3x = 10$", "\\frac{a}{b}", "= 42", "\\(n \\geq 7\\)", "3.14", "12,000", "\\sqrt{2}"]

    def text(n: int) -> str:
        start = int(rng.integers(0, len(ranks) - n))
        words = [vocabulary[rank] for rank in ranks[start : start + n]]
        for at in rng.integers(0, n, n // 12):
            words[at] = formulas[at % len(formulas)] + str(at)
        return " ".join(words)

    with path.open("w", encoding="utf-8") as file:
        question = ""
        for i in range(rows):
            if i % 50 or not question:
                question = f"{text(40)} {i}?"
            sizes = np.clip(rng.lognormal(np.log(MEDIAN), SPREAD, 2), 50, 6000).astype(int)
            traces = [f"<think>\n{text(int(n))}\n</think>\n\n{text(60)} \\boxed{{{i}}}" for n in sizes]
            if i % 20 == 7:
                traces = [trace[: len(trace) // 2] for trace in traces]
            file.write(json.dumps({
                "problem": question, "solution": traces[0][:500], "answer": str(i), "problem_type": "Algebra",
                "question_type": "math-word-problem", "source": "olympiads", "uuid": str(i),
                "is_reasoning_complete": [i % 20 != 7] * 2, "generations": traces,
                "correctness_math_verify": [i % 12 != 5] * 2, "finish_reasons": None,
            }) + "\n")  # fmt: skip
    return path.stat().st_size


def measure(file: Path) -> dict:
    """Seconds of a first and a second curation, rows, and the peak memory of this process in GB."""
    from tinyr1.branch import backbone
    from tinyr1.core import config
    from tinyr1.core.params.domains import FileSource
    from tinyr1.data import curate
    from tinyr1.data.benchmarks import load_all
    from tinyr1.data.contamination import Contamination

    cfg = config.load("smol")
    backbone.prepare_base(cfg)
    keep = {"question_type": ["math-word-problem"], "source": ["olympiads"]}
    source = FileSource(kind="files", columns="openr1_math", path=str(file), rows=None, keep=keep, correct="verified")
    rules = cfg.params.curate.model_copy(update={"max_tokens": 16_384, "near_duplicates": 0.8})
    block = cfg.params.domains["math"].model_copy(update={"sources": [source], "limit": 58_000, "choose": "sample"})
    params = cfg.params.model_copy(update={"domains": {"math": block}, "curate": rules})
    questions = [question for one in load_all(cfg).values() for question in one.questions]
    cfg = cfg.model_copy(update={"params": params})
    unseen, tokenizer = Contamination(questions, rules.decontaminate), backbone.tokenizer(cfg)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        ledger = curate.curate_domain(cfg, "math", unseen, tokenizer)
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"first": seconds[0], "second": seconds[1], "kept": ledger.kept, "raw": ledger.raw, "gb": peak}


def main() -> int:
    """Write the rows and measure a child process; 1 where a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--file", type=Path, help="only measure this file")
    options = parser.parse_args()
    if options.file:
        print(json.dumps(measure(options.file)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        size = write(file, options.rows)
        words = [sys.executable, __file__, "--file", str(file)]
        home = os.environ | {"TINYR1_HOME": folder}
        child = subprocess.run(words, env=home, capture_output=True, text=True, check=False)
        if child.returncode:
            print(child.stderr[-3000:], file=sys.stderr)
            return 1
        result = json.loads(child.stdout.splitlines()[-1])
    print(f"{result['raw']:,} raw rows, {size / 1e9:.2f} GB, {result['kept']:,} kept: {result['first']:.0f} s "
          f"({result['raw'] / result['first']:.0f} rows/s), again {result['second']:.1f} s, peak {result['gb']:.2f} GB;"
          f" limits {MOST_SECONDS} s, {MOST_AGAIN} s, {MOST_GB:g} GB")  # fmt: skip
    return int(result["first"] > MOST_SECONDS or result["second"] > MOST_AGAIN or result["gb"] > MOST_GB)


if __name__ == "__main__":
    sys.exit(main())
