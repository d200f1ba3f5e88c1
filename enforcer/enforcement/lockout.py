"""What switching on policy after conntrack would cut, and why it is refused. Pure.

ESTABLISHED comes first in every chain, so a connection that conntrack knows goes on. To conntrack the next packet of
any other connection is NEW, and the policy decides: after conntrack begins to count on a host, and after a loss of its
entries (``conntrack -F``). A connection goes on from the first packet that the policy allows in either direction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from enforcer.kernel.sockets import TCP, TcpSocket
from enforcer.model.counted import counted
from enforcer.model.vocabulary import Action
from enforcer.planning.plan import Plan
from enforcer.policy.evaluate import Flow, denied_by
from enforcer.policy.tracked import Hook, TrackedTable

CONSENT = "--cut-established"
_MOST_NAMED = 20


@dataclass(frozen=True)
class Lost:
    """An established connection that the policy would not let begin. ``received`` and ``sent``: what denies NEW packets
    of each direction, "" where nothing does. ``known``: conntrack has it, so its packets are ESTABLISHED.
    """

    socket: TcpSocket
    interface: str
    received: str
    sent: str
    known: bool = False

    @property
    def closed(self) -> bool:
        """Neither side gets a NEW packet through."""
        return bool(self.received and self.sent)

    @property
    def is_cut(self) -> bool:
        """Closed, and unknown to conntrack."""
        return self.closed and not self.known

    def __str__(self) -> str:
        where = f"{self.socket} on {self.interface}"
        if self.closed:
            return f"{where}: received packets denied by '{self.received}', sent ones by '{self.sent}'"
        if self.sent:
            return f"{where}: goes on with the next packet from {self.socket.remote}; until then '{self.sent}' denies"
        return f"{where}: goes on with the next packet that this host sends; until then '{self.received}' denies"


@dataclass(frozen=True)
class SwitchOn:
    """A first switch-on. ``refused``: why it does not happen. ``lost``: the established connections that the policy
    denies, were they NEW, in one direction at least.
    """

    refused: tuple[str, ...] = ()
    lost: tuple[Lost, ...] = ()

    @property
    def cut(self) -> tuple[Lost, ...]:
        return tuple(item for item in self.lost if item.is_cut)

    @property
    def waiting(self) -> tuple[Lost, ...]:
        """Those that go on with the next packet of one side."""
        return tuple(item for item in self.lost if not item.closed and not item.known)

    @property
    def kept(self) -> tuple[Lost, ...]:
        """Those that go on only while conntrack has them."""
        return tuple(item for item in self.lost if item.closed and item.known)


def lost_connections(tables: Iterable[TrackedTable], sockets: Mapping[TcpSocket, str]) -> list[Lost]:
    """Of these connections those that the policy denies in one direction at least, were they unknown to conntrack.

    Each has the interface that its packets leave by; it is taken to receive by the same.
    """
    of_interface = {table.interface: table for table in tables}
    found: list[Lost] = []
    for item, interface in sockets.items():
        table = of_interface.get(interface)
        if table is None:
            continue
        received = Flow(TCP, item.remote, item.remote_port, item.local, item.local_port)
        lost = Lost(
            item,
            interface,
            denied_by(table, Hook.INPUT, received),
            denied_by(table, Hook.OUTPUT, received.reversed()),
        )
        if lost.received or lost.sent:
            found.append(lost)
    return found


def why_not_with_felix(chains: Iterable[str]) -> Iterator[str]:
    """``chains``: those of Felix that were found."""
    for chain in chains:
        yield (
            f"normal policy is not enforced: there is {chain}, so Felix enforces it here. Stop calico-node and remove "
            f"its chains first, or use --tracked model"
        )


def why_not_without_loose(loose: bool | None) -> Iterator[str]:
    """``loose``: whether conntrack takes up connections in midstream; None: it is not loaded, and will."""
    if loose is False:
        yield (
            "normal policy is not enforced: net.netfilter.nf_conntrack_tcp_loose is 0, so after a loss of conntrack's "
            "entries every packet of an established connection is INVALID, and denied before failsafes: SSH would be "
            "cut. Set it to 1: sysctl -w net.netfilter.nf_conntrack_tcp_loose=1"
        )


def why_not_with_cut(cut: Sequence[Lost]) -> Iterator[str]:
    """A sentence, and one for each connection."""
    if not cut:
        return
    count = counted(len(cut), "established connection")
    yield (
        f"normal policy is not enforced: it would cut {count} that conntrack does not know. Allow them, close them, or "
        f"use {CONSENT}"
    )
    yield from (f"would be cut: {item}" for item in cut[:_MOST_NAMED])
    if len(cut) > _MOST_NAMED:
        yield f"would be cut: {len(cut) - _MOST_NAMED} more"


def without_denies(plan: Plan) -> Plan:
    """The plan whose chains after conntrack only accept ESTABLISHED and RELATED: conntrack counts for them."""
    return replace(plan, tracked=tuple(replace(item, table=_without_denies(item.table)) for item in plan.tracked))


def without_tracked(plan: Plan) -> Plan:
    """The plan that enforces nothing after conntrack."""
    return replace(plan, tracked=tuple(replace(item, enforced=False) for item in plan.tracked))


def _without_denies(table: TrackedTable) -> TrackedTable:
    chains = tuple(
        replace(chain, tiers=(), profiles=(), failsafes=(), denies_invalid=False, end=Action.PASS)
        for chain in table.chains
    )
    return replace(table, chains=chains, sets={}, port_sets={})
