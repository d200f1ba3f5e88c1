"""The FelixConfiguration fields for the nftables backend."""

from __future__ import annotations

from enforcer.backends.netfilter.settings import UNITS, rate_of
from enforcer.backends.nftables.rules import NftablesSettings, RateLimit
from enforcer.policy.resources import FelixConfiguration


def settings_of(felix: FelixConfiguration) -> NftablesSettings:
    """The settings of the nftables backend in this configuration. Fewer fields have an effect than for iptables: base
    chains have no insert mode, and we cannot accept on behalf of the host's own tables (docs/nftables.md).
    """
    return NftablesSettings(
        mark_mask=felix.nftables_mark_mask if felix.nftables_settings else felix.iptables_mark_mask,
        log_prefix=felix.log_prefix,
        ipv6=felix.ipv6_support,
        max_set_size=felix.max_ipset_size,
        log_limit=_rate_limit(felix),
    )


def _rate_limit(felix: FelixConfiguration) -> RateLimit | None:
    """A rate such as ``10/minute`` in nf_tables' terms, where the burst cannot be zero."""
    if not felix.log_action_rate_limit:
        return None
    count, unit = rate_of(felix.log_action_rate_limit)
    return RateLimit(count, unit.period // UNITS[-1].period, max(felix.log_action_rate_limit_burst, 1))
