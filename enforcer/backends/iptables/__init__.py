"""Untracked policy in the tables of legacy iptables: enforced in raw, what it allows accepted in mangle and filter.

``render`` (pure) turns a plan into chains and sets, with ``match`` for the sides of an entry; ``blob`` and ``members``
(pure) know the kernel's bytes; ``table`` and ``ipset`` speak with the kernel; ``read``, ``sets`` and ``apply``
reconcile; ``backend`` is what others use.
"""

from enforcer.backends.iptables.backend import IptablesBackend
from enforcer.backends.iptables.probe import probe
from enforcer.backends.iptables.settings import IptablesSettings
from enforcer.backends.iptables.status import installed_chains

__all__ = ["IptablesBackend", "IptablesSettings", "installed_chains", "probe"]
