"""Untracked and tracked policy in nf_tables instead of legacy iptables: the same plan, the same semantics
(docs/nftables.md).

``render`` and ``tracked`` (pure) turn a plan into tables, with ``entry_rules`` and ``match`` for an entry and ``expr``
for the kernel's expressions; ``blob`` and ``members`` (pure) encode and decode its bytes;
:mod:`enforcer.kernel.nfnetlink` talks to the kernel; ``read`` and ``apply`` reconcile, all rules in one transaction;
``backend`` is the interface to the rest of the enforcer.
"""

from enforcer.backends.nftables.backend import NftablesBackend
from enforcer.backends.nftables.probe import probe
from enforcer.backends.nftables.rules import NftablesSettings
from enforcer.backends.nftables.status import installed

__all__ = ["NftablesBackend", "NftablesSettings", "installed", "probe"]
