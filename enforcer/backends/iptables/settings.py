"""The FelixConfiguration fields for the iptables backend."""

from __future__ import annotations

from collections.abc import Iterator

from enforcer.backends.iptables.render import IptablesSettings
from enforcer.backends.iptables.rules import Limit, TableName
from enforcer.backends.netfilter.settings import UNITS, rate_of
from enforcer.policy.resources import FelixConfiguration


def settings_of(felix: FelixConfiguration) -> IptablesSettings:
    """The settings of the iptables backend in this configuration."""
    return IptablesSettings(
        insert_mode=felix.chain_insert_mode.lower(),
        mark_mask=felix.iptables_mark_mask,
        log_prefix=felix.log_prefix,
        ipv6=felix.ipv6_support,
        max_set_size=felix.max_ipset_size,
        accepting=frozenset(_accepting(felix)),
        log_limit=_log_limit(felix),
    )


def _log_limit(felix: FelixConfiguration) -> Limit | None:
    """A rate such as ``10/minute`` in the kernel's terms. The kernel's credit cannot exceed one day, nor be zero."""
    if not felix.log_action_rate_limit:
        return None
    count, unit = rate_of(felix.log_action_rate_limit)
    period = unit.period // count
    room = max(UNITS[0].period // period, 1)
    return Limit(period, min(max(felix.log_action_rate_limit_burst, 1), room))


def _accepting(felix: FelixConfiguration) -> Iterator[TableName]:
    """The tables whose allow action is Accept, not Return: they accept packets with the accept mark."""
    if felix.iptables_mangle_allow_action.lower() == "accept":
        yield TableName.MANGLE
    if felix.iptables_filter_allow_action.lower() == "accept":
        yield TableName.FILTER
