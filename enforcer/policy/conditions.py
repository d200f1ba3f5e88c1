"""What an entry matches on: a closed union of conditions, all of which must hold. Pure.

Every consumer handles :data:`Condition` with its own ``match`` whose last case calls :func:`unhandled` or another
function that takes ``NoReturn``. So mypy reports every consumer that does not handle a new member, and no consumer
ignores a condition and matches more packets than it should.
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
    """The address of one side is (not) in one of the nets; there is at least one. Nets of the other family contain no
    address of the packet.
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
    """The port of one side is (not) in one of the ranges or in one of the sets of named ports (keys of the table's
    ``port_sets``). There is at least one range or name.
    """

    side: Side
    ranges: tuple[PortRange, ...] = ()
    names: tuple[str, ...] = ()
    negated: bool = False


@dataclass(frozen=True)
class Icmp:
    """The ICMP type, and the code if it is not None, is (not) this one. The entry's protocol tells ICMP from ICMPv6."""

    type: int
    code: int | None = None
    negated: bool = False


Condition = Protocol | InNets | InSet | Ports | Icmp
Conditions = tuple[Condition, ...]


def families_of(ip_version: int | None, conditions: Collection[Condition]) -> tuple[int, ...]:
    """The families in which the conditions can hold: those of ``ip_version`` that no condition excludes.

    A list of nets of one family, negated or not, restricts an entry to that family (Felix: ``FilterRuleToIPVersion``).
    An entry that can match no packet of a family has no netfilter rule there. So it also hotdrops nothing, and no stage
    before raw may drop for it.
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
    """The protocol of the positive protocol condition; None if there is none."""
    return next((item.number for item in conditions if isinstance(item, Protocol) and not item.negated), None)


def unhandled(condition: NoReturn, who: str) -> UnsupportedRuleError:
    """The error for a condition that a ``match`` over :data:`Condition` does not handle; mypy rejects such a match."""
    return UnsupportedRuleError(f"{who} cannot match on {name_of(condition)}")


def name_of(condition: object) -> str:
    """The name of a kind of condition in messages."""
    return type(condition).__name__
