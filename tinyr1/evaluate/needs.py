"""What the evaluation of stage 04 needs: an engine that answers, and isolation for the programs among the answers."""

from functools import partial

from tinyr1.core import hub
from tinyr1.core.config import STAGES, Config, located
from tinyr1.core.needs import Need
from tinyr1.core.params.evaluation import VllmEngine
from tinyr1.evaluate import stage
from tinyr1.sampling import engines, preflight
from tinyr1.sandbox.forkserver import Refused, SandboxError

EVALUATION = STAGES[3]


def needs(cfg: Config) -> list[Need]:
    """What the evaluation of a run needs."""
    return [
        Need("engine of the evaluation", (EVALUATION,), partial(_engine, cfg)),
        Need("isolation of programs", (EVALUATION,), partial(_isolation, cfg)),
    ]


def _engine(cfg: Config) -> str:
    said, engine, spec = engines.ready(cfg.params.evaluate.engine), cfg.params.evaluate.engine, cfg.params.backbone
    if isinstance(engine, VllmEngine):
        folder, cached = located(spec.model), hub.cached_file(spec.model, "config.json", spec.revision)
        known = folder if (folder / "config.json").is_file() else cached and cached.parent
        if known:  # else its stage finds out, when the model is there
            preflight.require_context(engine.model_dump(), known)
    return said


def _isolation(cfg: Config) -> str:
    try:
        facts = stage.describe_isolation(cfg)
    except Refused:
        raise
    except SandboxError:  # a busy machine may have kept a test program from starting
        facts = stage.describe_isolation(cfg)
    if "layers" not in facts:
        return facts["isolation"]
    return f"{facts['isolation']} with {', '.join(facts['layers'])}; no test program could break out"
