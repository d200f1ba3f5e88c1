"""Compiled policy as the rows that the engine reads (``engine/predict.h``). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dossim.engine.rules import Chain, RuleRows, Rules
from enforcer.model.nets import IPAddress, Nets
from enforcer.model.vocabulary import Action, Direction, Side
from enforcer.policy.conditions import Condition, Icmp, InNets, InSet, Ports, Protocol, unhandled
from enforcer.policy.resources import Failsafe
from enforcer.policy.ruletable import Entry, NamedSets, RuleTable
from enforcer.policy.tracked import Hook, TrackedChain, TrackedTable

FAMILY_BITS = {4: 1, 6: 2}
_ACTIONS = {Action.ALLOW: 0, Action.DENY: 1, Action.LOG: 2, Action.PASS: 3}
_SIDES = {Side.SOURCE: 0, Side.DESTINATION: 1}
# In the order in which netfilter's rules evaluate conditions: each is evaluated if all before it match.
_ON_PROTOCOL, _ON_NETS, _ON_PORTS, _ON_ICMP = range(4)
_LOW = (1 << 64) - 1

Row = tuple[int, int, bool, int, int, int, int, int]  # of CONDITION


def rules_of(table: RuleTable, direction: Direction) -> Rules:
    """One direction of a table."""
    return Rules(rows_of(table, direction), egress=direction is Direction.EGRESS)


def rows_of(table: RuleTable, direction: Direction) -> RuleRows:
    """One direction of a table. The failsafes of this direction match the destination port, those of the other the
    source port. Raises UnsupportedRuleError for a condition that is unknown here.
    """
    is_ingress = direction is Direction.INGRESS
    builder = _Builder(table)
    entries = table.ingress if is_ingress else table.egress
    builder.add(entries, range(len(entries)))
    own, other = table.failsafe_inbound, table.failsafe_outbound
    if not is_ingress:
        own, other = other, own
    builder.rows.own, builder.rows.other = builder.failsafes(own), builder.failsafes(other)
    return builder.rows


def chain_of(table: TrackedTable, chain: TrackedChain, index: Mapping[str, int]) -> Chain:
    """The policy at one hook; ``index`` has the number of each entry and default by name."""
    builder = _Builder(table)
    direction = chain.hook.direction
    tiers = []
    for tier in (*chain.tiers, *chain.profiles):
        by_default = index[tier.end(direction)] if tier.default is Action.DENY else -1
        tiers.append((len(builder.rows.entries), len(tier.entries), by_default))
        builder.add(tier.entries, [index[entry.name] for entry in tier.entries])
    builder.rows.own = builder.failsafes(chain.failsafes)
    return Chain(
        builder.rows,
        tiers,
        by_invalid=index[chain.invalid] if chain.denies_invalid else -1,
        by_end=index[chain.no_profile] if chain.end is Action.DENY else -1,
        egress=chain.hook is Hook.OUTPUT,
    )


def halves(address: IPAddress) -> tuple[int, int]:
    """The high and the low 64 bits of an address; of IPv4 the high ones are 0."""
    return int(address) >> 64, int(address) & _LOW


class _Builder:
    """Collects the rows of the entries of one table."""

    def __init__(self, table: NamedSets) -> None:
        self._table = table
        self.rows = RuleRows()
        self._sets: dict[str, int] = {}
        self._port_sets: dict[str, int] = {}

    def add(self, entries: Sequence[Entry], index: Sequence[int]) -> None:
        tier, before = -1, ""
        for number, entry in zip(index, entries, strict=True):
            tier += tier < 0 or entry.tier != before
            before = entry.tier
            first, numbers = len(self.rows.conditions), any(_numbers(item) for item in entry.conditions)
            found = sorted(self._conditions(entry))
            self.rows.conditions += found
            kinds = {row[0] for row in found}
            families = sum(FAMILY_BITS[version] for version in entry.families)
            has = (_ON_PROTOCOL in kinds, _ON_PORTS in kinds, numbers, _ON_ICMP in kinds)
            self.rows.entries.append((_ACTIONS[entry.action], families, *has, tier, first, len(found), number))

    def _conditions(self, entry: Entry) -> list[Row]:
        found: list[Row] = []
        singles: set[tuple[Side, int]] = set()  # what netfilter evaluates before the protocol: one net of each side
        for condition in entry.conditions:
            found.append(self._row(condition, entry, singles))
        return found

    def _row(self, condition: Condition, entry: Entry, singles: set[tuple[Side, int]]) -> Row:
        match condition:
            case Protocol(number, negated):
                return (_ON_PROTOCOL, 0, negated, 0, number, 0, 0, 0)
            case InNets(side, nets, negated):
                single = 0
                for version, bit in FAMILY_BITS.items():
                    is_one = sum(net.version == version for net in nets) == 1
                    if is_one and (side, version) not in singles:
                        singles.add((side, version))
                        single |= bit
                return (_ON_NETS, _SIDES[side], negated, single, self._nets(Nets.of(nets)), 0, 0, 0)
            case InSet(side, name, negated):
                if name not in self._sets:
                    self._sets[name] = self._nets(self._table.sets[name].nets)
                return (_ON_NETS, _SIDES[side], negated, 0, self._sets[name], 0, 0, 0)
            case Ports(side, ranges, names, negated):
                start, first = len(self.rows.ranges), len(self.rows.names)
                self.rows.ranges += [(item.first, item.last) for item in ranges]
                self.rows.names += [self._port_set(name) for name in names]
                return (_ON_PORTS, _SIDES[side], negated, 0, start, len(ranges), first, len(names))
            case Icmp(kind, code, negated):
                return (_ON_ICMP, 0, negated, 0, kind, -1 if code is None else code, 0, 0)
            case _:
                raise unhandled(condition, f"no prediction for {entry.name}: it")

    def _nets(self, nets: Nets) -> int:
        self.rows.nets.append(nets)
        return len(self.rows.nets) - 1

    def _port_set(self, name: str) -> int:
        if name not in self._port_sets:
            port_set = self._table.port_sets[name]
            self._port_sets[name] = len(self.rows.port_sets)
            self.rows.port_sets.append((len(self.rows.port_members), len(port_set.members), port_set.protocol, 0))
            self.rows.port_members += [
                (halves(address), port, address.version, (0,) * 5) for address, port in port_set.members
            ]
        return self._port_sets[name]

    def failsafes(self, failsafes: Sequence[Failsafe]) -> list[tuple[int, int, int, int]]:
        found = []
        for item in failsafes:
            nets = -1 if item.net is None else self._nets(Nets.of([item.net]))
            found.append((item.protocol, item.port, nets, 0 if item.net is None else item.net.version))
        return found


def _numbers(condition: Condition) -> bool:
    """Whether port numbers are matched on; both sides' are readable or neither's."""
    return isinstance(condition, Ports) and bool(condition.ranges)
