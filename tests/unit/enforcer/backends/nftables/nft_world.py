"""The reconciler of nf_tables on a fake kernel."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from unittest.mock import patch

from enforcer.backends.nftables import apply as transactions
from enforcer.backends.nftables.read import read_members, read_table
from enforcer.backends.nftables.render import render
from enforcer.backends.nftables.rules import FAMILY_OF, TABLE, NftablesSettings, Table
from enforcer.planning.plan import Plan
from tests.support.fakes.calls import Calls
from tests.support.fakes.nft import FakeNfTables, Tables
from tests.support.fakes.nft_packets import Place, Walk, looked_up
from tests.support.fakes.packets import PACKETS
from tests.support.host_plans import INTERFACES
from tests.support.reconcile import Met, World, remembering

_HOOKS = {0: True, 3: False}  # NF_INET_PRE_ROUTING for received packets, NF_INET_LOCAL_OUT for sent ones
PLACES = {
    version: [
        Place(family, hook, interface, received)
        for hook, received in _HOOKS.items()
        for interface in (*INTERFACES, "eth2")
    ]
    for version, family in FAMILY_OF.items()
}

OURS = [(family, TABLE) for family in FAMILY_OF.values()]

_render = remembering(render)

N = TypeVar("N", bound="NftWorld")


@dataclass
class NftWorld(World):
    """``settings``: those of the backend. ``memory``: what its process knows of the sets."""

    fake: FakeNfTables = field(default_factory=FakeNfTables)
    settings: NftablesSettings = field(default_factory=NftablesSettings)
    memory: transactions._MemberCache = field(default_factory=transactions._MemberCache)

    @property
    def calls(self) -> Calls:  # type: ignore[override]  # a property of the fake
        return self.fake.calls

    def tables(self, plan: Plan) -> tuple[Table, ...]:
        return _render(plan, self.settings)

    def apply(self, plan: Plan) -> list[str]:
        tables = self.tables(plan)
        with patch.object(transactions, "_MEMBERS", self.memory):
            return transactions.transact(
                lambda edit: [edit.to_table(table) for table in tables], connect=self.fake.connect
            )

    def state(self) -> Tables:
        return self.fake.tables

    def copy(self: N) -> N:
        return replace(self, fake=self.fake.copy(), memory=copy(self.memory))

    def everything(self) -> Hashable:
        remembered = self.memory.recall(self.fake.namespace, self.fake.number)
        known = sorted((*place, members.dtype.str, members.tobytes()) for place, members in remembered.items())
        return tuple(known), tuple((place, table.content()) for place, table in self.fake.tables.items())

    def holds(self, plan: Plan) -> bool:
        return all(self._is(table) for table in self.tables(plan))

    def _is(self, wanted: Table) -> bool:
        found = read_table(self.fake, wanted.family)
        if not wanted.wanted:
            return not found.present
        rules = {name: tuple(item.rule for item in rules) for name, rules in found.rules.items()}
        members: Mapping[str, Any] = {
            spec.name: read_members(self.fake, wanted.family, spec.name, spec.type) for spec in wanted.sets
        }
        return (
            not found.strange
            and {name: chain.hook for name, chain in found.chains.items()}
            == {chain.name: chain.hook for chain in wanted.chains}
            and rules == {chain.name: chain.rules for chain in wanted.chains}
            and found.sets.keys() == members.keys()
            and all(members[spec.name].tolist() == spec.members.tolist() for spec in wanted.sets)
        )

    def dropped(self, rules: Tables, sets: Tables, among: Met | None = None) -> Met:
        pairs = among if among is not None else [(p, at) for p in PACKETS for at in PLACES[p.version]]
        return {(packet, place) for packet, place in pairs if Walk(packet, place, rules, sets).dropped()}

    def value(self, rules: Tables, sets: Tables) -> Hashable:
        return tuple(
            (
                place,
                table.flags,
                tuple(
                    (name, item.hook, tuple(rule.exprs for rule in item.rules)) for name, item in table.chains.items()
                ),
                tuple(looked_up(item, sets.get(place)).content() for item in table.sets.values()),
            )
            for place, table in rules.items()
        )

    def foreign(self) -> Tables:
        """Existing state that is foreign."""
        return {place: table for place, table in self.fake.tables.items() if place not in OURS}
