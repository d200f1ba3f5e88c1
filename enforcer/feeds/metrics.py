"""The age and size of feeds for node_exporter's textfile collector, in Prometheus' text format. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from enforcer.feeds.state import FeedState, Status

Value = Callable[[FeedState], float | None]

METRICS: Mapping[str, tuple[str, Value]] = {
    "enforcer_feed_last_success_timestamp_seconds": (
        "When the publisher last confirmed or changed the list; its age is time() less this. 0: never.",
        lambda state: state.good_s,
    ),
    "enforcer_feed_last_attempt_timestamp_seconds": (
        "When the list was last asked for. 0: never.",
        lambda state: state.attempted_s,
    ),
    "enforcer_feed_failed": (
        "Whether the last attempt, or writing its sets, failed; the others stay as they were.",
        lambda state: float(state.status is Status.FAILED or bool(state.unwritten)),
    ),
    "enforcer_feed_held": (
        "Whether the last list waits for a person; the sets stay as they were.",
        lambda state: float(state.status is Status.HELD),
    ),
    "enforcer_feed_cidrs": (
        "CIDRs of the list that was taken last.",
        lambda state: None if state.size is None else float(state.size.cidrs),
    ),
    "enforcer_feed_expires_timestamp_seconds": (
        "When the list ends by its own header; its sets stay even then.",
        lambda state: None if state.expires_s is None else float(state.expires_s),
    ),
}


def exposition(states: Mapping[str, FeedState]) -> bytes:
    """``states``: by the name of the feed, which is a DNS label, so nothing has to be escaped."""
    lines: list[str] = []
    for name, (text, value) in METRICS.items():
        values = {feed: found for feed, state in states.items() if (found := value(state)) is not None}
        if values:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
            lines += [f'{name}{{feed="{feed}"}} {found:.10g}' for feed, found in values.items()]
    return "".join(f"{line}\n" for line in lines).encode()
