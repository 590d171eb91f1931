"""Every statement of the paper, its README and its model card in numbers or comparisons, as data.

`tinyr1.report.audit` holds each against the paper's own numbers and asks a run the same. "v3" is arXiv 2503.04872v3 of
29 April 2026; everything else is in v2 (docs/fidelity.md, sources). [S] and [C] are its marks.
"""

from collections.abc import Iterator

from tinyr1.core import paper
from tinyr1.report import spending
from tinyr1.report.resolution import ALONE, NO, NO_NUMBERS, YES
from tinyr1.report.statement import (
    AVERAGE,
    BACKBONE,
    DOMAINS,
    EXPERT,
    FIGURE_2,
    LLAMA_70B,
    MERGED,
    MIXTURE,
    OTHER_ORDER,
    R1,
    TABLE_1,
    TABLE_2,
    TWO_AVERAGED,
    TWO_DARE_LINEAR,
    TWO_DARE_TIES,
    TWO_FUSED,
    Statement,
    scores,
    tokens,
)

HARDWARE = "hours of other hardware and other sizes"
PUBLICATION = "it is about what was published, not about models"


def statements() -> list[Statement]:
    """All of them, in the order of the report; the last ones are the single numbers of the tables."""
    return [*_results(), *_lengths(), *_mixture(), *_orders(), *_methods(), *_costs(), *_others(), *_numbers()]


def _results() -> Iterator[Statement]:
    """Table 1: TinyR1 over its backbone, the 70B distill and its teacher."""
    group, where = "Main results", "paper Table 1"
    for d in DOMAINS:
        claim = f"The merged model scores higher than its backbone in {d}."
        yield Statement(f"over-backbone-{d}", group, where, claim, "higher", MERGED, BACKBONE, d)
    claim = "The merged model has more accuracy than its backbone on average; the paper says about 5 %."
    yield Statement("over-backbone-average", group, "paper §1; docs/fidelity.md C27", claim, "higher", MERGED, BACKBONE,
                    AVERAGE)  # fmt: skip
    for d, says in zip(DOMAINS, ("higher", "higher", "lower"), strict=True):
        claim = f"The merged model scores {says} than the 70B distill in {d}."
        yield Statement(f"over-70b-{d}", group, where, claim, says, MERGED, LLAMA_70B, d)  # type: ignore[arg-type]
    claim = "The merged model outperforms the 70B distill, in general."
    yield Statement("over-70b-average", group, "paper §1, README, model card; docs/fidelity.md C27", claim, "higher",
                    MERGED, LLAMA_70B, AVERAGE)  # fmt: skip
    for d in DOMAINS:
        claim = f"The merged model scores lower than DeepSeek-R1 in {d}."
        yield Statement(f"below-r1-{d}", group, where, claim, "lower", MERGED, R1, d)
    claim = "The merged model nearly matches DeepSeek-R1 in math."
    yield Statement("near-r1-math", group, "paper abstract, README", claim, "similar", MERGED, R1, "math")
    claim = "The merged model has near-R1 performance."
    yield Statement("near-r1-average", group, "model card", claim, "similar", MERGED, R1, AVERAGE)
    yield Statement("parameters", group, "model card", "The merged model has 5 % of R1's parameters.", "fact",
                    value="5 %", holds=YES, why=f"32 of 671 billion are {100 * 32 / 671:.1f} %.",
                    unasked="it is about the sizes of two published models")  # fmt: skip


def _lengths() -> Iterator[Statement]:
    """Table 1: tokens in an answer."""
    group, printed, counts = "Answer lengths", {"math": 23, "code": 19, "science": 62}, tokens()
    for d in DOMAINS:
        claim = f"Answers of the merged model are {printed[d]} % longer than those of DeepSeek-R1 in {d}."
        value = f"+{printed[d]} %"
        yield Statement(f"longer-than-r1-{d}", group, "paper Table 1", claim, "longer", MERGED, R1, d, value)
    shares = ", ".join(f"{100 * (counts[MERGED][d] / counts[R1][d] - 1):+.0f} % in {d}" for d in DOMAINS)
    yield Statement("slightly-more-tokens", group, "paper Table 1", "The merged model writes slightly more than R1.",
                    "fact", value="slightly more", holds=NO, why=f"{shares}; the last is no slight difference.",
                    unasked="no run of this kit has the teacher")  # fmt: skip
    for d in DOMAINS:
        claim = f"Answers of the merged model are longer than those of its backbone in {d}."
        yield Statement(f"longer-than-backbone-{d}", group, "paper Table 1", claim, "longer", MERGED, BACKBONE, d)


def _mixture() -> Iterator[Statement]:
    """Table 2: experts, data mixture, merged model."""
    group, where = "Experts and data mixture", "paper Table 2"
    for d in DOMAINS:
        claim = f"The {d} expert scores higher than its backbone in {d}."
        yield Statement(f"expert-{d}", group, where, claim, "higher", EXPERT[d], BACKBONE, d)
    for d in ("math", "science"):
        claim = f"Merging improves {d} beyond the {d} expert."
        yield Statement(f"over-expert-{d}", group, where, claim, "higher", MERGED, EXPERT[d], d)
    claim = "The merged model largely retains the coding of the code expert."
    yield Statement("retains-code", group, "v3, ablation study", claim, "retains", MERGED, EXPERT["code"], "code")
    seesaw = (("math", "higher"), ("science", "higher"), ("code", "lower"))
    for d, says in seesaw:
        claim = f"The data mixture scores {says} than the {d} expert in {d}."
        yield Statement(f"seesaw-{d}", group, where, claim, says, MIXTURE, EXPERT[d], d)  # type: ignore[arg-type]
    claim = "The data mixture is a seesaw: it wins in math and science what it loses in code."
    yield Statement("seesaw", group, where, claim, "all", parts=tuple(f"seesaw-{d}" for d, _ in seesaw))
    for d in ("math", "science"):
        claim = f"The merged model surpasses the data mixture in {d}."
        yield Statement(f"over-mixture-{d}", group, where, claim, "higher", MERGED, MIXTURE, d)
    for name, part in (("merged", MERGED), ("other-order", OTHER_ORDER)):
        claim = f"In code the {part} is only slightly below the data mixture."
        yield Statement(f"slightly-below-mixture-{name}", group, "paper §3.2; docs/fidelity.md C26", claim,
                        "slightly lower", part, MIXTURE, "code")  # fmt: skip
    claim = "The merged model surpasses the data mixture on average."
    yield Statement("over-mixture-average", group, where, claim, "higher", MERGED, MIXTURE, AVERAGE)


def _orders() -> Iterator[Statement]:
    """The two orders of Table 2."""
    group, where = "Order of merging", "paper §3.2"
    for d in (*DOMAINS, AVERAGE):
        place = "on average" if d == AVERAGE else f"in {d}"
        claim = f"The two orders of merging differ only in a minor way {place}."
        yield Statement(f"orders-{d}", group, where, claim, "similar", MERGED, OTHER_ORDER, d)
    claim = "Merging math and science first has a slightly higher average."
    yield Statement("orders-higher-average", group, f"{where}; docs/fidelity.md C25", claim, "slightly higher", MERGED,
                    OTHER_ORDER, AVERAGE)  # fmt: skip


def _methods() -> Iterator[Statement]:
    """Figure 2: merge methods on math and science."""
    group, where = "Merge methods", "paper Figure 2"
    mean, soup = FIGURE_2[TWO_FUSED], FIGURE_2[TWO_AVERAGED]
    others = {
        "average": TWO_AVERAGED, "math-expert": "math expert of Figure 2",
        "science-expert": "science expert of Figure 2", "dare-linear": TWO_DARE_LINEAR, "dare-ties": TWO_DARE_TIES,
    }  # fmt: skip
    words = {name: f"the {part.partition(' of ')[0]}".replace("the DARE", "DARE") for name, part in others.items()}
    for name, part in others.items():
        claim = f"In science the fusion of math and science beats {words[name]}."
        yield Statement(f"figure-2-{name}", group, where, claim, "higher", TWO_FUSED, part, "science")
    yield Statement("figure-2", group, where, "Arcee Fusion is the best merge method on science.", "all",
                    parts=tuple(f"figure-2-{name}" for name in others))  # fmt: skip
    methods = {name: part for name, part in others.items() if "expert" not in name}
    for name, part in methods.items():
        claim = f"In math the fusion of math and science beats {words[name]}."
        yield Statement(f"figure-2-math-{name}", group, "v3, further study", claim, "higher", TWO_FUSED, part, "math")
    counts = [round(198 * paper.FIGURE_2[name] / 100) for name in (mean, soup)]
    why = (
        f"All bars of Figure 2 are whole numbers of 198 questions, so that each had one answer; {counts[0]} right "
        f"answers against {counts[1]} make the first place."
    )
    claim = "GPQA-Diamond is averaged over 4 answers to each question."
    yield Statement("figure-2-samples", group, f"paper §3.1.2; {where}", claim, "fact", value="4", holds=NO, why=why,
                    unasked=PUBLICATION)  # fmt: skip


def _costs() -> Iterator[Statement]:
    """Hours and dollars: paper §1 and the last column of Table 2."""
    group, where = "Cost", "paper §1"
    s = spending
    rows = [
        ("merge-hours", f"{where}; docs/fidelity.md C28", f"A merge takes {s.MERGE_HOURS:g} h on {s.MERGE_GPUS} GPUs.",
         f"{s.MERGE_HOURS:g} h", NO, s.merge_hours_in_words()),
        ("mixture-hours", f"{where}; docs/fidelity.md C28",
         f"Training on the mixed data takes {s.MIXTURE_HOURS:g} h on {s.MIXTURE_GPUS} GPUs.",
         f"{s.MIXTURE_HOURS:g} h × {s.MIXTURE_GPUS}", YES, s.mixture_hours_in_words()),
        ("ideal-hours", f"{where}; docs/fidelity.md C29", f"A reproduction ideally costs {s.IDEAL_HOURS:g} GPU hours.",
         f"{s.IDEAL_HOURS:g} GPU hours", NO, s.ideal_in_words()),
        ("dollars", where, f"A reproduction ideally costs {s.DOLLARS:g} dollars.", f"{s.DOLLARS:g} dollars", YES,
         s.price_in_words()),
        ("share", "paper Table 2", f"Merging takes {s.SHARE_PERCENT:g} % of the hours of the data mixture.",
         f"{s.SHARE_PERCENT:g} %", YES, s.share_in_words()),
    ]  # fmt: skip
    for name, source, claim, value, holds, why in rows:
        yield Statement(f"cost-{name}", group, source, claim, "fact", value=value, holds=holds, why=why,
                        unasked=HARDWARE)  # fmt: skip
    yield Statement("cost-saving", group, f"{where}; docs/fidelity.md C28",
                    f"Merging saves {s.SAVED_PERCENT:g} % of the time of training on the mixed data.", "saves",
                    value=f"{s.SAVED_PERCENT:g} %", holds=YES, why=s.saving_in_words())  # fmt: skip
    for name, hours in paper.MERGING_HOURS.items():
        claim = f"{name}: merging time {hours:g} GPU hours."
        yield Statement(f"cost-table-2-{_slug(name)}", group, "paper Table 2", claim, "fact",
                        value=f"{hours:g} GPU hours", holds=ALONE, why="Nothing else in the paper measures it.",
                        unasked=HARDWARE)  # fmt: skip


def _others() -> Iterator[Statement]:
    """Data, filters, other backbones, openness."""
    group = "Data and openness"
    rows = [
        ("math-rows", "paper §2.1; docs/fidelity.md C1", "58k math rows come from 94k questions of NuminaMath-1.5.",
         "94k", NO, "NuminaMath-1.5 has 896,215 rows; 93,733 is the size of OpenR1-Math-220k's default part."),
        ("code-rows", "paper §2.1; docs/fidelity.md C2", "20k code rows come from OpenThoughts.", "20k", YES,
         "Its code part has 19,904 rows, which round to 20k; the model card says 19k."),
        ("science-rows", "paper §2.1; docs/fidelity.md C4", "8.6k science rows come from three sources.", "8.6k", YES,
         f"2.7 + 1.0 + 4.9 = {2.7 + 1.0 + 4.9:.1f}; the model card leaves one source out."),
        ("openness", "paper §1; docs/fidelity.md C30",
         "Model, data, training code, evaluation code and logs are public.", "all public", NO,
         "Model, data and code are; the repository has neither logs nor curation scripts."),
    ]  # fmt: skip
    for name, source, claim, value, holds, why in rows:
        yield Statement(name, group, source, claim, "fact", value=value, holds=holds, why=why, unasked=PUBLICATION)
    missing = [
        ("filters", "paper §2.1", "At 14B, filtering the math rows has nearly no effect on the results.",
         "no run without the filter belongs to the ablations"),
        ("other-backbones", "paper §3.1.1", "The method works for backbones other than the 32B distill.",
         "a run has one backbone; compare two runs"),
        ("instruction-following", "v3, Table 3", "Merging keeps instruction following above every expert (IFEval).",
         "no run of this kit asks IFEval"),
        ("other-benchmarks", "v3, Table 3", "The merged model is the best on HumanEval and BBH.",
         "no run of this kit asks HumanEval or BBH"),
    ]  # fmt: skip
    for name, source, claim, unasked in missing:
        why = "The numbers of questions and answers are not given." if "v3" in source else "No numbers are given."
        yield Statement(name, group, source, claim, "fact", holds=NO_NUMBERS, why=why, unasked=unasked)


def _numbers() -> Iterator[Statement]:
    """Every score and every length of the tables and of Figure 2."""
    printed = scores()
    tables = {"Table 1": TABLE_1, "Table 2": TABLE_2, "Figure 2": FIGURE_2}
    for table, parts in tables.items():
        for part, name in parts.items():
            for domain, score in printed[part].items():
                claim = f"{paper.short(name)} scores {score.percent:g} in {domain}."
                yield Statement(f"{_slug(table)}-{_slug(name)}-{domain}", "Single numbers", f"paper {table}", claim,
                                "number", part, domain=domain)  # fmt: skip
    for part, row in tokens().items():
        for domain, count in row.items():
            name = paper.short(TABLE_1[part])
            yield Statement(f"tokens-{_slug(name)}-{domain}", "Single numbers", "paper Table 1; docs/fidelity.md C23",
                            f"{name} writes {count:g}k tokens for an answer in {domain}.", "fact", value=f"{count:g}k",
                            holds=ALONE, why="No spread is given, and released code cannot make two of the three.",
                            unasked="the length depends on model and questions")  # fmt: skip


def _slug(name: str) -> str:
    """A name as part of an id."""
    kept = "".join(c if c.isalnum() else "-" for c in paper.short(name).lower())
    return "-".join(filter(None, kept.split("-")))
