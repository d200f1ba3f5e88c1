"""The two directions through a raw table (PREROUTING and OUTPUT), and the failsafes of each. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from enforcer.backends.netfilter.names import ChainKind
from enforcer.model.nets import IPNetwork
from enforcer.model.vocabulary import Direction, Side
from enforcer.policy.resources import Failsafe, PortRange
from enforcer.policy.ruletable import Entry, RuleTable


@dataclass(frozen=True)
class Way:
    """One direction: its base chain, the kinds of its chains, and the side of a packet that failsafe nets match on."""

    direction: Direction
    base: str
    endpoint: ChainKind
    failsafe: ChainKind
    tier: ChainKind
    remote: Side

    def entries(self, table: RuleTable) -> tuple[Entry, ...]:
        """A table's entries for this direction."""
        return table.ingress if self.direction is Direction.INGRESS else table.egress


WAYS = (
    Way(
        Direction.INGRESS,
        "enf-PREROUTING",
        ChainKind.FROM_HOST_ENDPOINT,
        ChainKind.FAILSAFE_IN,
        ChainKind.TIER_IN,
        Side.SOURCE,
    ),
    Way(
        Direction.EGRESS,
        "enf-OUTPUT",
        ChainKind.TO_HOST_ENDPOINT,
        ChainKind.FAILSAFE_OUT,
        ChainKind.TIER_OUT,
        Side.DESTINATION,
    ),
)


@dataclass(frozen=True)
class FailsafeGroup:
    """Failsafes that differ only in the port: one rule. ``side``: the side that the ports match on."""

    side: Side
    sample: Failsafe
    ports: tuple[PortRange, ...]

    @property
    def net(self) -> IPNetwork | None:
        """The remote net; None for any address, also if the failsafe's net has prefix length 0."""
        return self.sample.net if self.sample.net and self.sample.net.prefixlen else None


def failsafe_groups(table: RuleTable, direction: Direction, version: int) -> Iterator[FailsafeGroup]:
    """The direction's own failsafes, which match on the destination port; then those of the other direction, whose
    replies match on the source port.
    """
    own, other = table.failsafe_inbound, table.failsafe_outbound
    if direction is Direction.EGRESS:
        own, other = other, own
    for side, failsafes in ((Side.DESTINATION, own), (Side.SOURCE, other)):
        yield from grouped_failsafes(side, failsafes, version)


def grouped_failsafes(side: Side, failsafes: Iterable[Failsafe], version: int) -> Iterator[FailsafeGroup]:
    """Failsafes of a family by the port of one side, as few groups as possible."""
    for sample, ports in _grouped(failsafes):
        if sample.net is None or sample.net.version == version:
            yield FailsafeGroup(side, sample, ports)


def _grouped(failsafes: Iterable[Failsafe]) -> list[tuple[Failsafe, tuple[PortRange, ...]]]:
    groups: dict[tuple[int, object], list[Failsafe]] = {}
    for item in failsafes:
        groups.setdefault((item.protocol, item.net), []).append(item)
    return [(group[0], tuple(PortRange(item.port, item.port) for item in group)) for group in groups.values()]
