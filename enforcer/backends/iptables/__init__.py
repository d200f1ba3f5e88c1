"""Untracked policy in legacy iptables: enforced in raw; allowed packets are accepted in mangle and filter.

``render`` and ``match`` (pure) turn a plan into chains and sets; ``blob`` and ``members`` (pure) encode and decode the
kernel's bytes; ``table`` and ``ipset`` talk to the kernel; ``read``, ``sets`` and ``apply`` reconcile; ``backend`` is
the interface to the rest of the enforcer.
"""

from enforcer.backends.iptables.backend import IptablesBackend
from enforcer.backends.iptables.probe import probe
from enforcer.backends.iptables.settings import IptablesSettings
from enforcer.backends.iptables.status import installed_chains

__all__ = ["IptablesBackend", "IptablesSettings", "installed_chains", "probe"]
