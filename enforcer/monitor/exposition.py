"""The metrics as text, for a scraper and for a file. The only door to prometheus_client, which is an extra."""

from __future__ import annotations

import gzip
from collections.abc import Callable

from enforcer.agent.state import View
from enforcer.model.errors import HostError
from enforcer.monitor.counters import CounterReader

Render = Callable[[str, str], tuple[bytes, dict[str, str]]]
MISSING = "metrics need the Python package prometheus_client: pip install 'dossim[metrics]'"


def require_prometheus() -> None:
    """Raises HostError where prometheus_client is not installed."""
    try:
        import prometheus_client  # noqa: F401 - whether it is there
    except ImportError as error:
        raise HostError(f"{MISSING} ({error})") from error


def renderer(view: Callable[[], View], counters: CounterReader, *, process: bool) -> Render:
    """A function from the Accept and Accept-Encoding of a scraper to the body and its headers. ``process``: with the
    metrics of the process itself. Raises HostError where prometheus_client is not installed.
    """
    require_prometheus()
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.exposition import choose_encoder

    from enforcer.monitor.collector import AgentCollector

    registry = CollectorRegistry(auto_describe=False)
    registry.register(AgentCollector(view, counters))
    if process:
        ProcessCollector(registry=registry)

    def render(accept: str, encodings: str) -> tuple[bytes, dict[str, str]]:
        encode, content_type = choose_encoder(accept)
        body = encode(registry)
        headers = {"Content-Type": content_type}
        if "gzip" in (item.split(";")[0].strip().lower() for item in encodings.split(",")):
            body = gzip.compress(body, compresslevel=1)
            headers["Content-Encoding"] = "gzip"
        return body, headers

    return render
