"""Whether an engine of a params file can be had, before anything is asked of it: its GPUs and packages, its server."""

from tinyr1.core import machine
from tinyr1.core.params.evaluation import EndpointEngine, Engine
from tinyr1.sampling import preflight
from tinyr1.sampling.endpoint import Endpoint

SECONDS, RETRIES = 5.0, 0  # of the question whether a server is there


def ready(engine: Engine) -> str:
    """What an engine will work with, in words. UserError where it could not."""
    settings = engine.model_dump()
    if not isinstance(engine, EndpointEngine):
        return preflight.check_engine(settings, machine.has_gpu())
    server = Endpoint(settings | {"timeout_seconds": SECONDS, "retries": RETRIES})
    try:
        server.check_served()
    finally:
        server.close()
    return f"{engine.base_url} answers and serves {engine.model}"
