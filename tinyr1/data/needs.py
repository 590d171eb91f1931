"""What the stages need of their data: the rows of stage 01, its teacher, and the questions that stages 01 and 04 read.

What this kit writes itself, the miniature, needs nothing.
"""

from functools import partial

from tinyr1.core import hub
from tinyr1.core.checkpoints import weight_files
from tinyr1.core.config import STAGES, Config, located
from tinyr1.core.needs import Need
from tinyr1.core.params.domains import HUB, FileSource, HubSource, MiniatureBenchmark, Source
from tinyr1.core.params.evaluation import EndpointEngine
from tinyr1.core.params.teacher import OWN_BACKBONE
from tinyr1.data import files, sources
from tinyr1.data.files import PublishedBenchmark
from tinyr1.sampling import engines

CURATION, TRAINING, EVALUATION = STAGES[0], STAGES[1], STAGES[3]
HASHED = 10**8  # bytes of files whose checksum is worked out before a run: a tenth of a second


def needs(cfg: Config) -> list[Need]:
    """What the sources, the teacher and the benchmarks of a run need."""
    found = [
        Need(f"rows of {name}: {sources.name_of(source)}", (CURATION,), partial(_source, name, source))
        for name, domain in cfg.params.domains.items() for source in domain.sources if source.kind != "miniature"
    ]  # fmt: skip
    for name, benchmark in cfg.params.benchmarks.items():
        if not isinstance(benchmark, MiniatureBenchmark):
            where = f"domains.{cfg.params.domain_of[name]}.benchmarks.{name}"
            found.append(Need(f"questions of {name}", (CURATION, EVALUATION), partial(_questions, where, benchmark)))
    return found + _teacher(cfg)


def _source(domain: str, source: Source) -> str:
    where = f"domains.{domain}.sources"
    if isinstance(source, HubSource):
        return hub.require_rows(where, source.path, source.config, source.split or "train", source.revision)
    assert isinstance(source, FileSource)
    count = len(sources.check(source, where).paths)
    return f"{count} file{'s' if count > 1 else ''}"


def _questions(where: str, benchmark: PublishedBenchmark) -> str:
    if benchmark.path.startswith(HUB):
        dataset, names = files.hub_files(benchmark)
        (said, *_) = [hub.require_file(where, dataset, name, str(benchmark.revision)) for name in names]
        return said
    paths = files.local_files(where, benchmark)
    if sum(path.stat().st_size for path in paths) > HASHED:
        return f"{len(paths)} files; the stage compares their checksum"
    files.find_files(where, benchmark)
    return f"{len(paths)} file{'s' if len(paths) > 1 else ''}"


def _teacher(cfg: Config) -> list[Need]:
    teacher = cfg.params.teacher
    if teacher is None:
        return []
    asks = any(source.traces for domain in cfg.params.domains.values() for source in domain.sources)
    stages = ((CURATION,) if asks else ()) + ((TRAINING,) if teacher.model == OWN_BACKBONE else ())
    if not stages:
        return []
    found = [Need("engine of the teacher", stages, partial(engines.ready, teacher.engine))]
    if not isinstance(teacher.engine, EndpointEngine) and teacher.model != OWN_BACKBONE:
        found.append(Need("model of the teacher", stages, partial(_model, str(teacher.model), teacher.revision)))
    return found


def _model(model: str, revision: str | None) -> str:
    if located(model).is_dir():
        return f"{len(weight_files(located(model)))} files of weights"
    return hub.require_model("teacher.model", model, revision)
