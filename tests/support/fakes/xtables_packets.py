"""Evaluates packets in the raw table of the fake: an interpreter of the matches and targets that our rules use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from enforcer.backends.iptables.blob import KernelRule, SetIndex, decode
from enforcer.backends.iptables.rules import (
    Comment,
    IcmpType,
    Jump,
    Limit,
    Log,
    MarkMatch,
    Match,
    NoTrack,
    PortsMatch,
    Rule,
    SetMark,
    SetMatch,
    Side,
    TableId,
    TableName,
    Verdict,
)
from enforcer.model.nets import IPAddress, IPNetwork
from tests.support.fakes.packets import Packet
from tests.support.fakes.xtables import FakeIpSet, FakeTable

_PORT_PROTOCOLS = (6, 17, 132)
_ICMP = {4: 1, 6: 58}
# Rules refer to sets by index: here, names are indexes.
_BY_NUMBER = SetIndex({str(number): number for number in range(1000)})


@dataclass
class Walk:
    """One packet in raw, evaluated with the rules of one state and the sets of another."""

    packet: Packet
    interface: str
    received: bool
    tables: Mapping[TableId, FakeTable]
    sets: Mapping[str, FakeIpSet]
    mark: int = 0

    def dropped(self) -> bool:
        table = self.tables.get(TableId(self.packet.version, TableName.RAW))
        chain = "PREROUTING" if self.received else "OUTPUT"
        return table is not None and self._chain(table, chain) is Verdict.DROP

    def _chain(self, table: FakeTable, name: str) -> Verdict:
        """The verdict of a chain; RETURN at its end."""
        for blob, target in table.chains[name]:
            rule = _decoded(blob, target, self.packet.version)
            if not self._matches(rule):
                continue
            match rule.target:
                case Verdict() as verdict:
                    return verdict
                case Jump(chain, goto):
                    found = self._chain(table, chain)
                    if goto or found is not Verdict.RETURN:
                        return found
                case SetMark(value, mask):
                    self.mark = self.mark & ~mask ^ value
                case NoTrack() | Log():
                    pass
        return Verdict.RETURN

    def _matches(self, rule: Rule) -> bool:
        packet = self.packet
        comes, goes = (self.interface, "") if self.received else ("", self.interface)
        return (
            rule.in_interface in ("", comes)
            and rule.out_interface in ("", goes)
            and _is_in(packet.source, rule.source, inverted=rule.not_source)
            and _is_in(packet.destination, rule.destination, inverted=rule.not_destination)
            and (rule.protocol is None or (packet.protocol == rule.protocol) is not rule.not_protocol)
            and all(map(self._holds, rule.matches))
        )

    def _holds(self, match: Match) -> bool:
        transport = b"" if self.packet.later_fragment else self.packet.transport
        match match:
            case SetMatch(name, side, inverted, port):
                found = next((item for item in self.sets.values() if str(item.header.index) == name), None)
                assert found is not None, "a rule keeps its sets"
                return self._is_member(found, side, transport, port=port) is not inverted
            case MarkMatch(value, mask):
                return self.mark & mask == value
            case PortsMatch(side, ports, inverted):
                number = _port(transport, side)
                return number is not None and any(item.first <= number <= item.last for item in ports) is not inverted
            case IcmpType(kind, code, inverted):
                same = transport[:1] == bytes([kind]) and code in (None, *transport[1:2])
                return bool(transport) and same is not inverted
            case Limit() | Comment():
                return True

    def _is_member(self, item: FakeIpSet, side: Side, transport: bytes, *, port: bool) -> bool:
        packet = self.packet
        if item.header.version != packet.version:
            return False
        address = packet.source if side is Side.SOURCE else packet.destination
        if not port:
            return any(address in _net(member, packet.version) for member in item.members)
        number = _port(transport, side) if packet.protocol in _PORT_PROTOCOLS else None
        if number is None:
            return False
        return address.packed + number.to_bytes(2, "big") + bytes([packet.protocol]) in item.members


def _port(transport: bytes, side: Side) -> int | None:
    at = 0 if side is Side.SOURCE else 2
    return int.from_bytes(transport[at : at + 2], "big") if len(transport) >= at + 2 else None


def _is_in(address: IPAddress, net: IPNetwork | None, *, inverted: bool) -> bool:
    return net is None or (address in net) is not inverted


@cache
def _net(member: bytes, version: int) -> IPNetwork:
    from ipaddress import IPv4Network, IPv6Network

    kind = IPv4Network if version == 4 else IPv6Network
    return kind((member[:-1], member[-1]))


@cache
def _decoded(blob: bytes, target: str, version: int) -> Rule:
    rule = decode(KernelRule(blob, target), version, _BY_NUMBER)
    assert isinstance(rule, Rule), "the fake runs only what we write"
    return rule
