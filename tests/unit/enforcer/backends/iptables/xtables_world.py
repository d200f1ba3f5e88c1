"""The reconciler of legacy iptables and ipset on a fake kernel."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from unittest.mock import patch

from enforcer.backends.iptables import sets as set_pass
from enforcer.backends.iptables.accept import HOOKS
from enforcer.backends.iptables.blob import SetIndex
from enforcer.backends.iptables.listed import ListedSets
from enforcer.backends.iptables.members import wanted_members
from enforcer.backends.iptables.read import read_chain, read_chains
from enforcer.backends.iptables.reconcile import reconcile
from enforcer.backends.iptables.render import render
from enforcer.backends.iptables.rules import TABLES, Jump, Rule, TableId, TableName
from enforcer.backends.iptables.settings import IptablesSettings
from enforcer.backends.netfilter.names import is_our_set
from enforcer.planning.plan import Plan
from tests.support.fakes.calls import Calls
from tests.support.fakes.packets import PACKETS
from tests.support.fakes.xtables import FakeIpSet, FakeTable, FakeXtables
from tests.support.fakes.xtables_packets import Walk
from tests.support.host_plans import INTERFACES
from tests.support.reconcile import Met, World, remembering

_PLACES = [(interface, received) for interface in (*INTERFACES, "eth2") for received in (True, False)]

_render = remembering(render)


@dataclass(frozen=True)
class State:
    tables: Mapping[TableId, FakeTable]
    sets: Mapping[str, FakeIpSet]


@dataclass
class XtablesWorld(World):
    """``settings``: those of the backend. ``memory``: what its process knows of the sets."""

    fake: FakeXtables = field(default_factory=FakeXtables)
    settings: IptablesSettings = field(default_factory=IptablesSettings)
    memory: ListedSets = field(default_factory=ListedSets)

    @property
    def calls(self) -> Calls:  # type: ignore[override]  # a property of the fake
        return self.fake.calls

    def apply(self, plan: Plan) -> list[str]:
        with patch.object(set_pass, "LISTED", self.memory):
            return reconcile(_render(plan, self.settings), self.settings, self.fake, tables=self.fake)

    def state(self) -> State:
        return State(dict(self.fake.tables), dict(self.fake.sets))

    def copy(self) -> XtablesWorld:
        return replace(self, fake=self.fake.copy(), memory=deepcopy(self.memory))

    def everything(self) -> Hashable:
        remembered = {name: self.memory.recall(self.fake.namespace, name) for name in self.fake.sets}
        known = tuple(
            (name, found.index, found.members.tobytes(), found.digest) for name, found in remembered.items() if found
        )
        tables = (
            (place, tuple(table.chains.items()), tuple(table.policies.items()))
            for place, table in self.fake.tables.items()
        )
        return known, tuple(self.fake.sets.items()), tuple(tables)

    def holds(self, plan: Plan) -> bool:
        wanted = _render(plan, self.settings)
        sets = {name: item for name, item in self.fake.sets.items() if is_our_set(name)}
        members = {spec.name: frozenset(wanted_members(spec).tolist()) for spec in wanted.sets}
        return {name: item.members for name, item in sets.items()} == members and all(
            self._is(table, {chain.name: chain.rules for chain in wanted.chains.get(table, ())}) for table in TABLES
        )

    def _is(self, table: TableId, wanted: Mapping[str, object]) -> bool:
        """Our chains are these, and each built-in chain begins with the jump to our chain for that hook."""
        if table not in self.fake.tables:
            return not wanted
        numbers = SetIndex({name: item.header.index for name, item in self.fake.sets.items()})
        with self.fake.open(table) as snapshot:
            found = {chain.name: chain.rules for chain in read_chains(snapshot, numbers)}
            heads = {name: read_chain(snapshot, name, numbers) for name in HOOKS[table.name]}
        hooked = {
            HOOKS[table.name][name]
            for name, rules in heads.items()
            if rules and rules[0].rule == Rule(Jump(HOOKS[table.name][name]))
        }
        return found == wanted and hooked == wanted.keys() & set(HOOKS[table.name].values())

    def dropped(self, rules: State, sets: State, among: Met | None = None) -> Met:
        pairs = among if among is not None else [(packet, place) for packet in PACKETS for place in _PLACES]
        return {(packet, place) for packet, place in pairs if Walk(packet, *place, rules.tables, sets.sets).dropped()}

    def value(self, rules: State, sets: State) -> Hashable:
        raw = tuple(rules.tables.get(TableId(version, TableName.RAW)) for version in (4, 6))
        chains = tuple(None if table is None else tuple(sorted(table.chains.items())) for table in raw)
        return chains, tuple(sorted((item.header.index, item.header, item.members) for item in sets.sets.values()))
