"""What merging costs beside training on the mixed data: in the paper, recomputed, and in a run of this kit.

Hours of the paper are H800 hours. A run's are hours of a GPU where it has GPUs, else of a CPU core: the seconds of a
part of a stage times the GPUs or cores of the machine that its record names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyr1.core import paper

if TYPE_CHECKING:  # it takes a second, and the plan of a run needs no table
    import pandas as pd

# paper §1, and merging time in GPU hours from Table 2 (docs/fidelity.md §5.4)
MERGE_HOURS, MERGE_GPUS = 0.5, 4
MIXTURE_HOURS, MIXTURE_GPUS = 23.0, 32
SAVED_PERCENT, SHARE_PERCENT = 90.0, 0.5
IDEAL_HOURS, DOLLARS = 744.0, 1500.0
MERGED_HOURS = paper.MERGING_HOURS[paper.MATH_SCIENCE_CODE]
MIXED_HOURS = paper.MERGING_HOURS[paper.MIXTURE]


@dataclass(frozen=True)
class Cost:
    """Seconds of a piece of work on a machine, and how many of its GPUs or cores it is counted for."""

    seconds: float
    workers: int
    unit: str

    @property
    def hours(self) -> float:
        """GPU or core hours."""
        return self.seconds * self.workers / 3600


def of_part(record: Mapping, part: str) -> Cost | None:
    """The cost of one part of a stage by the stage's record; None where the record does not name the part, or has no
    time for it, because it was finished when the stage began and no earlier record is left."""
    if not record["seconds"].get(part):
        return None
    machine = record["machine"]
    gpus = len(machine["gpus"])
    return Cost(record["seconds"][part], gpus or machine["cores"], "GPU" if gpus else "core")


def share(merging: Cost, mixture: Cost) -> float:
    """Merging as a share of the mixture's training, in percent of its hours."""
    return 100 * merging.hours / mixture.hours


def table(merging: Cost | None, mixture: Cost | None) -> "pd.DataFrame":
    """The hours of merging and of training on mixed data, and their ratio: the paper's beside this run's."""
    import pandas as pd

    rows = {"paper, H800 hours (Table 2)": (f"{MERGED_HOURS:g}", f"{MIXED_HOURS:g}", _ratio(MERGED_HOURS, MIXED_HOURS))}
    if merging and mixture:
        unit = f"this run, {mixture.unit} hours" if merging.unit == mixture.unit else "this run, hours of its machines"
        rows[unit] = (f"{merging.hours:.4f}", f"{mixture.hours:.4f}", _ratio(merging.hours, mixture.hours))
        rows["this run, seconds"] = (f"{merging.seconds:.1f}", f"{mixture.seconds:.1f}", "")
    return pd.DataFrame.from_dict(rows, orient="index", columns=["merging", "data mixture", "merging : mixture"])


def _ratio(merging: float, mixture: float) -> str:
    return f"1 : {mixture / merging:.0f} ({100 * merging / mixture:.2f} %)"


def merge_hours_in_words() -> str:
    """The first half of docs/fidelity.md C28, worked out."""
    product = MERGE_HOURS * MERGE_GPUS
    return (
        f"{MERGE_HOURS:g} h × {MERGE_GPUS} GPUs = {product:g} GPU hours, and Table 2 has {MERGED_HOURS:g}. Both fit if "
        f"each of the two fusion steps takes {MERGE_HOURS:g} h: {MERGED_HOURS:g} = 2 × {product:g}."
    )


def mixture_hours_in_words() -> str:
    """The second half of docs/fidelity.md C28, worked out; 23 hours stand for 22.5 to 23.5."""
    low, high = ((MIXTURE_HOURS + half) * MIXTURE_GPUS for half in (-0.5, 0.5))
    return (
        f"{MIXTURE_HOURS:g} h × {MIXTURE_GPUS} GPUs = {MIXTURE_HOURS * MIXTURE_GPUS:g} GPU hours, and Table 2 has "
        f"{MIXED_HOURS:g}, which is within the rounding of {MIXTURE_HOURS:g} h ({low:g} to {high:g})."
    )


def saving_in_words() -> str:
    """The saved time of docs/fidelity.md C28, worked out."""
    clock = 100 * (1 - MERGE_HOURS / MIXTURE_HOURS)
    hours = 100 * (1 - MERGED_HOURS / MIXED_HOURS)
    return (
        f"By the clock {MERGE_HOURS:g} h instead of {MIXTURE_HOURS:g} h save {clock:.1f} %, in GPU hours "
        f"{MERGED_HOURS:g} instead of {MIXED_HOURS:g} save {hours:.1f} %, and not {SAVED_PERCENT:g} %."
    )


def ideal_in_words() -> str:
    """docs/fidelity.md C29, worked out."""
    return (
        f"{IDEAL_HOURS:g} = {MIXED_HOURS:g} + {MERGED_HOURS:g}: the hours of the data mixture, which the method does "
        "not train, and of the merge. The hours of the three experts, which it does train, are nowhere."
    )


def price_in_words() -> str:
    """What an hour costs by the paper's total."""
    return f"{DOLLARS:g} dollars for {IDEAL_HOURS:g} hours are {DOLLARS / IDEAL_HOURS:.2f} dollars an hour."


def share_in_words() -> str:
    """Merging as a share of the mixture's hours."""
    return f"{MERGED_HOURS:g} of {MIXED_HOURS:g} GPU hours are {100 * MERGED_HOURS / MIXED_HOURS:.2f} %."
