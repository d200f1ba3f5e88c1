"""Netdev ingress: what raw would drop anyway, dropped right after the driver, in nf_tables (docs/nftables.md).

For interfaces without XDP. As XDP it only accelerates: it holds the same run of entries, drops what it is sure of, and
lets everything else go on to raw, whichever backend that is in. ``render`` (pure) turns a plan into the table; bytes,
values, reading and transactions are those of :mod:`enforcer.backends.nftables`.
"""

from enforcer.backends.nftables.netdev.backend import NetdevBackend
from enforcer.backends.nftables.netdev.probe import probe
from enforcer.backends.nftables.netdev.status import installed, is_installed

__all__ = ["NetdevBackend", "installed", "is_installed", "probe"]
