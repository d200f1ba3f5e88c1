"""Untracked policy in XDP: a deny list per interface, in front of the raw table that has every entry as well.

``eligible`` (pure) says what XDP can decide; ``render`` (pure) makes the contents of the program's maps; ``layout`` and
``manifest`` say how they lie pinned; ``read``, ``generation`` and ``apply`` reconcile; ``backend`` is what others use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from enforcer.backends.xdp.backend import XdpBackend as XdpBackend

__all__ = ["XdpBackend"]


def __getattr__(name: str) -> object:
    """Loaded on first use: the planner asks ``eligible`` on hosts that have neither libbpf nor netlink."""
    if name == "XdpBackend":
        from enforcer.backends.xdp.backend import XdpBackend

        return XdpBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
