"""What the merges of stage 03 need: methods that take the settings of every recipe."""

from functools import partial

from tinyr1.core.config import STAGES, Config
from tinyr1.core.needs import Need


def needs(cfg: Config) -> list[Need]:
    """What the merges of a run need, of which a verification run has none. The methods need PyTorch, which is imported
    when this is asked for."""
    return [] if cfg.params.verification else [Need("settings of the merges", STAGES[1:3], partial(_settings, cfg))]


def _settings(cfg: Config) -> str:
    from tinyr1.merge import stage

    stage.check(cfg)
    return f"{len(cfg.merges)} recipes"
