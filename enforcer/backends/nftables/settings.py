"""What a FelixConfiguration says about the tables of nf_tables."""

from __future__ import annotations

from enforcer.backends.netfilter.settings import UNITS, rate_of
from enforcer.backends.nftables.rules import NftablesSettings, RateLimit
from enforcer.policy.resources import FelixConfiguration


def settings_of(felix: FelixConfiguration) -> NftablesSettings:
    """What the configuration says about the tables of nf_tables. Hooks have no first or last place there, and nothing
    of ours could accept for the host's own tables (docs/nftables.md), so fewer fields have an effect.
    """
    return NftablesSettings(
        mark_mask=felix.nftables_mark_mask if felix.nftables_settings else felix.iptables_mark_mask,
        log_prefix=felix.log_prefix,
        ipv6=felix.ipv6_support,
        max_set_size=felix.max_ipset_size,
        log_limit=_rate_limit(felix),
    )


def _rate_limit(felix: FelixConfiguration) -> RateLimit | None:
    """``10/minute`` as nf_tables counts it, which has no burst of none."""
    if not felix.log_action_rate_limit:
        return None
    count, unit = rate_of(felix.log_action_rate_limit)
    return RateLimit(count, unit.period // UNITS[-1].period, max(felix.log_action_rate_limit_burst, 1))
