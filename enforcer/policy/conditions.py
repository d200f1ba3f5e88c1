"""What an entry matches on: a closed union of conditions, all of which must hold. Pure.

Every consumer handles :data:`Condition` by a ``match`` of its own whose last case is :func:`unhandled`, or another
function that takes ``NoReturn``: so mypy names every consumer that does not know a new member, and none of them
matches more packets than it should.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NoReturn

from enforcer.model.errors import UnsupportedRuleError
from enforcer.model.nets import IPNetwork
from enforcer.model.vocabulary import Side
from enforcer.policy.resources import PortRange

FAMILIES = (4, 6)
ICMP, ICMPV6 = 1, 58
ICMP_OF_FAMILY = {4: ICMP, 6: ICMPV6}


@dataclass(frozen=True)
class Protocol:
    """The IP protocol is (not) this one."""

    number: int
    negated: bool = False


@dataclass(frozen=True)
class InNets:
    """The address of one side is (not) in one of the nets; there is at least one. Nets of the other family hold no
    address of a packet.
    """

    side: Side
    nets: tuple[IPNetwork, ...]
    negated: bool = False


@dataclass(frozen=True)
class InSet:
    """The address of one side is (not) in the set of this id, a key of the table's ``sets``."""

    side: Side
    id: str
    negated: bool = False


@dataclass(frozen=True)
class Ports:
    """The port of one side is (not) in a range or in the set of a named port, a key of the table's ``port_sets``:
    either is enough. There is at least one range or name.
    """

    side: Side
    ranges: tuple[PortRange, ...] = ()
    names: tuple[str, ...] = ()
    negated: bool = False


@dataclass(frozen=True)
class Icmp:
    """The ICMP type, and where it is given the code, is (not) this one. The entry's protocol says whose types."""

    type: int
    code: int | None = None
    negated: bool = False


Condition = Protocol | InNets | InSet | Ports | Icmp
Conditions = tuple[Condition, ...]


def families_of(ip_version: int | None, conditions: Collection[Condition]) -> tuple[int, ...]:
    """The families in which the conditions can hold: as written, and none that one of them excludes.

    A list of nets, negated or not, that is all of the other family makes an entry one of that family (Felix:
    ``FilterRuleToIPVersion``). What can hold for no packet is no rule of netfilter's, so it drops nothing that cannot
    be read either, and no stage before raw may.
    """
    return tuple(
        version
        for version in FAMILIES
        if ip_version in (None, version) and all(_may_hold(each, version, conditions) for each in conditions)
    )


def _may_hold(condition: Condition, version: int, others: Collection[Condition]) -> bool:
    match condition:
        case Protocol(number, negated):
            return not negated or Protocol(number) not in others
        case InNets(_, nets, negated):
            own = [net for net in nets if net.version == version]
            return bool(own) and not (negated and any(not net.prefixlen for net in own))
        case Icmp():
            return Protocol(ICMP_OF_FAMILY[version]) in others
        case InSet() | Ports():
            return True
        case _:
            raise unhandled(condition, "the compiler")


def protocol_of(conditions: Collection[Condition]) -> int | None:
    """The protocol that is wanted, if one is."""
    return next((item.number for item in conditions if isinstance(item, Protocol) and not item.negated), None)


def unhandled(condition: NoReturn, who: str) -> UnsupportedRuleError:
    """To be raised for what a ``match`` over :data:`Condition` does not handle; mypy has refused it before."""
    return UnsupportedRuleError(f"{who} cannot match on {name_of(condition)}")


def name_of(condition: object) -> str:
    """What messages call a kind of condition."""
    return type(condition).__name__
