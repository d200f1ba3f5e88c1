"""Netdev ingress: drops right after the driver, in nf_tables, what raw would drop anyway (docs/nftables.md).

For interfaces without XDP. Like XDP it only accelerates: it holds the same run of entries, drops a packet only if the
match is certain, and passes everything else to raw, in whichever backend. ``render`` (pure) turns a plan into the
table; encoding, reading and transactions are those of :mod:`enforcer.backends.nftables`.
"""

from enforcer.backends.nftables.netdev.backend import NetdevBackend
from enforcer.backends.nftables.netdev.probe import probe
from enforcer.backends.nftables.netdev.status import installed, is_installed

__all__ = ["NetdevBackend", "installed", "is_installed", "probe"]
