"""What each model of a run is, in words for a reader who meets it for the first time."""

from tinyr1.core.config import Config
from tinyr1.core.recipe import Recipe, describe
from tinyr1.core.varying import described

METHODS = {
    "fusion": "Arcee Fusion",
    "linear": "weighted average of the weights",
    "slerp": "SLERP, an average along the arc between two models",
    "task_arithmetic": "task arithmetic: the sum of the experts' changes to the backbone",
    "ties": "TIES: the largest changes of each expert, where most experts agree on the sign",
    "dare_linear": "DARE: a random part of each expert's changes, scaled up",
    "dare_ties": "DARE-TIES: a random part of each expert's changes, where most experts agree on the sign",
    "della_linear": "DELLA: a part of each expert's changes, large ones more often",
    "della": "DELLA-TIES: a part of each expert's changes, large ones more often, where most experts agree on the sign",
    "breadcrumbs": "Breadcrumbs: each expert's changes without the smallest and the largest",
    "breadcrumbs_ties": "Breadcrumbs-TIES: changes without the extremes, where most experts agree on the sign",
    "nuslerp": "NuSLERP, an average along the arc between two models, or between their changes to the backbone",
    "multislerp": "Multi-SLERP, an average of directions and lengths of several models",
    "karcher": "Karcher mean, the mean direction of several models",
    "sce": "SCE: the changes that differ most between the experts, weighted by their size, where the signs agree",
    "model_stock": "Model Stock: the mean of the experts, drawn to the backbone as far as their changes disagree",
    "nearswap": "NearSwap: the base, with the other model's entries where both are close",
    "passthrough": "one model as it is, or scaled",
    "stack": "layers of models, one upon the other",
    "noise": "placebo: the base and random noise as large as the other model's changes",
}
MASKS = {"random": "placebo of fusion: random entries", "largest": "placebo of fusion: the largest changes"}
# Settings of a step that are named where a recipe gives them, and their names on the page.
SETTINGS = {"reading": "reading", "iqr_multiplier": "λ", "t": "t", "lambda_": "factor"}


# Benchmarks in words: by their kind, and those of the miniature by their tasks.
BENCHMARKS = {
    "aime": "problems of the mathematics competition AIME, answered by a whole number from 0 to 999",
    "gpqa": "GPQA-Diamond: science questions for experts, with four options",
    "livecodebench": "LiveCodeBench: programming problems of contests, judged by running the programs",
    "math": "questions of a file of one's own, answered by a number or a formula",
    "choice": "questions of a file of one's own, with options",
}
MINIATURE = {
    "math": "made-up problems in arithmetic, in words, answered by a whole number",
    "science": "made-up questions of physics, chemistry and biology, with four options",
    "science_values": "made-up questions of physics, chemistry and biology, answered by a whole number",
    "code": "made-up small programming problems, judged by running the programs",
}


def benchmark_roles(cfg: Config) -> list[tuple[str, str]]:
    """(benchmark, what it asks) of every benchmark of a run, in the order of the tables."""
    asked = cfg.params.benchmarks.items()
    return [
        (name, MINIATURE[benchmark.tasks] if benchmark.kind == "miniature" else BENCHMARKS[benchmark.kind])
        for name, benchmark in asked
    ]


def model_roles(cfg: Config) -> list[tuple[str, str]]:
    """(model, what it is) of every model of a run, in the order of the tables."""
    if cfg.params.verification:
        spec = cfg.params.backbone
        published = f"the published weights of {spec.model} at commit {spec.revision}, as they are"
        return [(cfg.models[0], published if spec.revision else "the weights of a local folder, as they are")]
    backbone = f"the model that every branch starts from, here {cfg.params.backbone.model}"
    roles = {"backbone": backbone + (", first distilled on a few rows" if cfg.params.backbone.distill else "")}
    roles |= {domain: f"the {domain} expert: the backbone, fine-tuned on the {domain} rows" for domain in cfg.domains}
    roles["mixture"] = "the data mixture: the backbone, fine-tuned on the rows of all domains; merging competes with it"
    roles |= {name: merged_role(recipe) for name, recipe in cfg.merges.items()}
    return [(model, roles[model]) for model in cfg.models]


def ablation_roles(cfg: Config) -> list[tuple[str, str]]:
    """(model, what it is) of every merge that the ablations define, in the order of the params file."""
    merges = cfg.params.ablations.merges() if cfg.params.ablations else {}
    return [
        (name, merged_role(merged.recipe) + (f", computed in {merged.dtype}" if merged.dtype else ""))
        for name, merged in merges.items()
    ]


def merged_role(recipe: Recipe) -> str:
    """How a model was merged: the method of its last step in words, the experts, and the settings that it gives."""
    method = MASKS.get(recipe.mask or "", METHODS[recipe.method])
    given = {words: getattr(step, name) for step in recipe.steps for name, words in SETTINGS.items()}
    settings = [f"{words} = {value:g}" if isinstance(value, float) else f"{words} = {described(value)}"
                for words, value in given.items() if value is not None]  # fmt: skip
    return f"merged without training, {method}: {', '.join([describe(recipe), *settings])}"
