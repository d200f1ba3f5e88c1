"""The FelixConfiguration fields for the iptables backend."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from enforcer.backends.iptables.rules import Limit, TableName
from enforcer.backends.netfilter.settings import DEFAULT_MAX_SET_SIZE, UNITS, accept_bit, drop_bit, rate_of
from enforcer.backends.netfilter.tracked import AllowActions
from enforcer.policy.resources import FelixConfiguration


@dataclass(frozen=True)
class IptablesSettings:
    """What FelixConfiguration says about our chains; defaults are Felix's. ``insert_mode`` is "insert" or "append".

    ``max_set_size``: a set that needs more members of one family than this is refused. ``accepting``: the tables after
    raw that accept what an Allow has marked; in others it meets the host's own rules. ``log_limit``: how much Log
    entries may log, each by itself.
    """

    insert_mode: str = "insert"
    mark_mask: int = 0xFFFF0000
    log_prefix: str = "calico-packet"
    ipv6: bool = True
    max_set_size: int = DEFAULT_MAX_SET_SIZE
    accepting: frozenset[TableName] = frozenset({TableName.MANGLE, TableName.FILTER})
    log_limit: Limit | None = None

    @property
    def accept_mark(self) -> int:
        """The lowest bit of the mask, which is the bit Felix gives to *accept*."""
        return accept_bit(self.mark_mask)

    @property
    def drop_mark(self) -> int:
        """The bit that a packet has when tracked policy drops it; 0 where the mask has no second bit."""
        return drop_bit(self.mark_mask)

    @property
    def allow_actions(self) -> AllowActions:
        """Where an Allow of tracked policy is final."""
        return AllowActions(TableName.MANGLE in self.accepting, TableName.FILTER in self.accepting)


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
