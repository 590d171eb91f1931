"""The table of docs/merge.md: each merge method beside mergekit's, measured on odd tensors and on whole checkpoints.

    tensors of odd shapes           merge_tensors     | by_mergekit  \\
                                                                      entries that differ, and how far -> table
    checkpoints of save_pretrained  merge_checkpoints | run_merge    /

`PYTHONPATH=tests python tests/merge/parity_table.py` writes the table. `test_parity_table` compares it with the
document and holds every row to what it claims.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import peers
import torch
from parity import CLOSE, DTYPES, EXACT, IN_FLOAT32, by_mergekit, failures, kit_method, peer_case, tied
from safetensors.torch import load_file

from tinyr1.core.recipe import TAKES, Recipe, parse
from tinyr1.merge import checkpoint, mergekit
from tinyr1.merge.engine import MergeOptions
from tinyr1.merge.fusion_blocks import Fusion
from tinyr1.merge.method import Method, merge_tensors

DOCUMENT = Path(__file__).parents[2] / "docs" / "merge.md"
BEGIN, END = "<!-- parity: written by tests/merge/parity_table.py -->\n", "<!-- /parity -->\n"
SHAPES = {"row": (1, 40), "column": (40, 1), "cube": (13, 7, 5), "vector": (2000,), "single": (), "tall": (26003, 40)}
TALL = ("float32", "bfloat16")  # dtypes in which the large tensor, of more than a million entries, is merged
MODELS = ("a", "b", "c", "d")
EQUAL, CUT, ROUNDED, SCALED = "equal", "equal apart from ties", "equal up to rounding", "equal up to the factor"


@dataclass(frozen=True)
class Row:
    """A line of the table about one case of `parity`.

    claim: EQUAL to the bit; CUT, to the bit but for entries with the magnitude at which pruning stops; ROUNDED, up to
    `bound` of the largest entry in float32, and up to the neighbouring number in the others; SCALED, up to a unit in
    the last place of the factor on what stays. why: where the rest comes from. test: which one shows it in detail.
    """

    case: str
    says: str
    claim: str
    why: str = ""
    test: str = "test_results_are_equal_bit_for_bit"
    bound: float = 0.0


SUMS = "sums over the tensor: float64 here, float32 there"
CLOSE_TEST = "test_results_differ_by_the_rounding_of_a_sum"
TIES = "of equal magnitudes the first by index stay here, any of them there (an unstable sort)"
FACTOR = "its factor is a ratio of two sums that are rounded to the dtype; float16 rounds and overflows there, not here"
ROWS = (
    Row("fusion", "fusion, `released`", EQUAL, "above a million entries mergekit takes quartiles of a random sample",
        "test_released_fusion_is_equal_bit_for_bit_up_to_a_million_entries"),
    Row("weighted", "linear", EQUAL),
    Row("task arithmetic", "task_arithmetic", EQUAL),
    Row("slerp, start", "slerp, `t: 0`", EQUAL),
    Row("slerp, end", "slerp, `t: 1`", EQUAL),
    Row("slerp", "slerp, `t: 0.3`", ROUNDED, SUMS, CLOSE_TEST, 1e-5),
    Row("nuslerp", "nuslerp", ROUNDED, SUMS, CLOSE_TEST, 1e-5),
    Row("nuslerp, base", "nuslerp with a base", ROUNDED, SUMS, CLOSE_TEST, 1e-5),
    Row("nuslerp, rows", "nuslerp, a vector for each row", ROUNDED, SUMS, CLOSE_TEST, 1e-5),
    Row("nuslerp, columns", "nuslerp, a vector for each column", ROUNDED, SUMS, CLOSE_TEST, 1e-5),
    Row("multislerp", "multislerp", ROUNDED, SUMS, CLOSE_TEST, 1e-4),
    Row("multislerp, base", "multislerp with a base", ROUNDED, SUMS, CLOSE_TEST, 1e-4),
    Row("karcher", "karcher", ROUNDED, f"{SUMS}; beside mergekit in float32, see below",
        "test_karcher_differs_from_what_mergekit_computes_in_bfloat16_by_less_than_2_percent", 1e-5),
    Row("ties", "ties", CUT, TIES),
    Row("ties, rescaled", "ties, `rescale: true`", SCALED, FACTOR, CLOSE_TEST),
    Row("breadcrumbs", "breadcrumbs", CUT, TIES),
    Row("breadcrumbs, rescaled", "breadcrumbs, `rescale: true`", SCALED, FACTOR, CLOSE_TEST),
    Row("breadcrumbs_ties", "breadcrumbs_ties", CUT, TIES),
    Row("dare_linear, density 1", "dare_linear, `density: 1`", EQUAL),
    Row("dare_ties, density 1", "dare_ties, `density: 1`", EQUAL),
    Row("della_linear, density 1", "della_linear, `density: 1`", EQUAL),
    Row("della, density 1", "della, `density: 1`", EQUAL),
    Row("sce", "sce", ROUNDED, SUMS, CLOSE_TEST, 1e-6),
    Row("sce, a part", "sce, `select_topk: 0.3`", CUT, f"{TIES}, and the weights of the models follow; {SUMS}",
        "test_ties_at_the_cut_change_the_weights_of_sce_by_a_unit_in_their_last_place", 1e-3),
    Row("model_stock", "model_stock", ROUNDED, SUMS, CLOSE_TEST, 1e-6),
    Row("model_stock, rows", "model_stock, `filter_wise: true`", ROUNDED, SUMS, CLOSE_TEST, 1e-6),
    Row("nearswap", "nearswap", EQUAL),
    Row("passthrough", "passthrough", EQUAL),
    Row("passthrough, scaled", "passthrough, `scale: 0.3`", EQUAL),
)  # fmt: skip


@dataclass
class Seen:
    """What a row showed in one dtype, added up over its tensors. largest: in shares of a tensor's largest entry."""

    entries: int = 0
    differing: int = 0
    beside_ties: int = 0  # entries that differ and are not tied at the cut
    largest: float = 0.0  # of those

    def add(self, ours: torch.Tensor, theirs: torch.Tensor, ties: torch.Tensor) -> None:
        differs = ours != theirs
        self.entries += ours.numel()
        self.differing += int(differs.sum())
        self.beside_ties += int((differs & ~ties).sum())
        gap = ((ours.double() - theirs.double()).abs() * ~ties).max() / theirs.double().abs().max().clamp(min=1e-30)
        self.largest = max(self.largest, float(gap))

    def cell(self) -> str:
        """"equal", or the share of entries that differ and how far those beside ties are apart."""
        if not self.differing:
            return "equal"
        far = f", up to {self.largest:.0e}" if self.beside_ties else ", ties alone"
        return f"{100 * self.differing / self.entries:.3g} %{far}"


def kit_of(case: str) -> Method:
    return Fusion("released") if case == "fusion" else kit_method(case)


def tensors() -> dict[str, torch.Tensor]:
    """'i|dtype|shape' -> tensor of SHAPES; 0 is the base."""
    made, generator = {}, torch.Generator().manual_seed(5)
    for name, shape in SHAPES.items():
        base = torch.randn(shape, generator=generator) * 0.02
        for i in range(len(MODELS)):
            moved = base + torch.randn(shape, generator=generator) * 0.01 * (i > 0)
            for dtype in DTYPES if name != "tall" else TALL:
                made[f"{i}|{dtype}|{name}"] = moved.to(DTYPES[dtype])
    return made


def merges(dtype: str) -> list[Row]:
    """The rows that are measured in a dtype: float16 has no `released`, and no factor of a sum that overflows in it."""
    return [row for row in ROWS if dtype != "float16" or not (row.case == "fusion" or row.claim == SCALED)]


def on_tensors(folder: Path) -> dict[tuple[str, str], Seen]:
    """(case, dtype) -> what the tensors of odd shapes show; the large one not in fusion, which is sampled there."""
    models = tensors()
    cases = {row.case: ("arcee_fusion", {}, 2, 0, ()) if row.case == "fusion" else peer_case(row.case) for row in ROWS}
    theirs = by_mergekit(models, cases, folder)
    assert not failures(folder)
    seen: dict[tuple[str, str], Seen] = {}
    for key, expected in theirs.items():
        case, dtype, name = key.split("|")
        if all(row.case != case for row in merges(dtype)) or (case, name) == ("fusion", "tall"):
            continue
        method = kit_of(case)
        inputs = tuple(models[f"{i}|{dtype}|{name}"] for i in range(method.inputs))
        ours = merge_tensors(method, inputs)[0]
        seen.setdefault((case, dtype), Seen()).add(ours, expected.to(ours.dtype), tied(method, inputs))
    return seen


# --- whole checkpoints ---------------------------------------------------------------------------------------

PEER = """
import sys, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
for path in sys.argv[1:]:
    config = MergeConfiguration.model_validate(yaml.safe_load(open(path)))
    run_merge(config, path.removesuffix(".yml"), MergeOptions(quiet=True, write_model_card=False, copy_tokenizer=False))
"""


def starts(folder: Path) -> dict[tuple[str, str], dict[str, Path]]:
    """(network, dtype) -> model -> a checkpoint that save_pretrained wrote: in three files, Qwen2 with a tied head."""
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

    size = {"hidden_size": 40, "intermediate_size": 56, "num_hidden_layers": 2, "vocab_size": 100}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    made: dict[tuple[str, str], dict[str, Path]] = {}
    for config in (Qwen2Config(**size, **heads, tie_word_embeddings=True), LlamaConfig(**size, **heads)):
        torch.manual_seed(6)
        base = AutoModelForCausalLM.from_config(config).state_dict()
        for i, name in enumerate(MODELS):
            moved = {n: t + 0.01 * torch.randn(t.shape) * (i > 0) for n, t in base.items()}
            for dtype, of_torch in DTYPES.items():
                model = AutoModelForCausalLM.from_config(config)
                model.load_state_dict(moved)
                place = folder / config.model_type / dtype / name
                model.to(of_torch).save_pretrained(place, max_shard_size="60KB")
                made.setdefault((config.model_type, dtype), {})[name] = place
    return made


def recipe_of(case: str) -> Recipe:
    """A case as a step over the models of `starts`."""
    if case == "fusion":
        return parse({"method": "fusion", "reading": "released", "base": "a", "other": "b"}, case)
    method, parameters, *_ = (EXACT | CLOSE)[case]
    takes, of_models = TAKES[method]
    count, has_base = kit_method(case).inputs, getattr(kit_method(case), "has_base", "base" in takes)
    step = {"method": method} | {key: value for key, value in parameters.items() if key not in of_models}
    names = list(MODELS[:count])
    if has_base:
        step["base"] = names.pop(0)
    if "other" in takes:
        return parse(step | {"other": names[0]}, case)
    own = {key: value if isinstance(value, list) else [value] * len(names) for key, value in parameters.items()
           if key in of_models}  # fmt: skip
    models = [{"model": name} | {key: own[key][i] for key in own} for i, name in enumerate(names)]
    return parse(step | {"models": models}, case)


def on_checkpoints(folder: Path) -> dict[tuple[str, str], Seen]:
    """(case, dtype) -> what whole merges show, each with the configuration that the kit writes for mergekit."""
    jobs = list(_jobs(starts(folder)))
    files = []
    for place, row, _, folders, options in jobs:
        names = {option: str(value).removeprefix("torch.") for option, value in options.items()}
        text = mergekit.to_mergekit(recipe_of(row.case), {name: str(path) for name, path in folders.items()},
                                    names.get("dtype"), names.get("out_dtype"))  # fmt: skip
        files.append(folder / f"{place}.yml")
        files[-1].write_text(text, encoding="utf-8")
    (folder / "peer.py").write_text(PEER, encoding="utf-8")
    subprocess.run([peers.python(), folder / "peer.py", *files], check=True)
    seen: dict[tuple[str, str], Seen] = {}
    for (place, row, dtype, folders, options), file in zip(jobs, files, strict=True):
        out = folder / f"{place}-kit"
        out.mkdir()
        checkpoint.merge_checkpoints(recipe_of(row.case), folders, out, MergeOptions(**options), "parity")
        ours, theirs = all_tensors(out), all_tensors(file.with_suffix(""))
        assert ours.keys() == theirs.keys(), (place, ours.keys() ^ theirs.keys())
        inputs = [all_tensors(path) for path in folders.values()]
        method = kit_of(row.case)
        for name in ours:
            ties = tied(method, tuple(model[name] for model in inputs[: method.inputs]))
            seen.setdefault((row.case, dtype), Seen()).add(ours[name], theirs[name].to(ours[name].dtype), ties)
    return seen


def _jobs(made: dict) -> Iterator[tuple[str, Row, str, dict[str, Path], dict[str, torch.dtype]]]:
    """(name, row, dtype, folders, dtypes to merge with): what mergekit would compute in float16 it gets in float32."""
    for (network, dtype), folders in made.items():
        for number, row in enumerate(ROWS):
            method = (EXACT | CLOSE)[row.case][0] if row.case != "fusion" else "fusion"
            wide = method in IN_FLOAT32 and (dtype == "float16" or (method == "karcher" and dtype == "bfloat16"))
            if row in merges(dtype):
                options = {"dtype": torch.float32, "out_dtype": DTYPES[dtype]} if wide else {}
                yield f"{network}-{dtype}-{number}", row, dtype, folders, options


def all_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


# --- the table -----------------------------------------------------------------------------------------------


def table(odd: dict[tuple[str, str], Seen], whole: dict[tuple[str, str], Seen]) -> str:
    """The Markdown table between BEGIN and END."""
    lines = [f"| method | result | {' | '.join(DTYPES)} | whole checkpoints | why they differ | shown by |",
             "| --- " * 8 + "|"]  # fmt: skip
    for row in ROWS:
        cells = [odd[row.case, dtype].cell() if (row.case, dtype) in odd else "not compared" for dtype in DTYPES]
        all_dtypes = [whole[row.case, dtype] for dtype in DTYPES if (row.case, dtype) in whole]
        counts = [sum(getattr(one, key) for one in all_dtypes) for key in ("entries", "differing", "beside_ties")]
        together = Seen(*counts, max(one.largest for one in all_dtypes))
        claim = row.claim + (f", {row.bound:.0e} in float32" if row.claim == ROUNDED else "")
        lines.append(f"| {row.says} | {claim} | {' | '.join(cells)} | {together.cell()} | {row.why} | `{row.test}` |")
    return "\n".join(lines) + "\n"


def measured() -> tuple[dict[tuple[str, str], Seen], dict[tuple[str, str], Seen]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return on_tensors(folder), on_checkpoints(folder)


def main() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    DOCUMENT.write_text(before + BEGIN + table(*measured()) + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
