"""Hypothesis strategies for what a host enforces in raw, before and after a change."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from enforcer.model.vocabulary import Action, Backend, Direction
from enforcer.planning.plan import InterfacePlan, Plan
from enforcer.policy.ruletable import Entry, RuleTable
from tests.kernel.iptables_plans import entry, ip_set, table
from tests.support.entries import SideMatch
from tests.support.ruletables import NAMES, NETS, SETS, rule_tables

INTERFACES = ("eth0", "eth1")


def plan_of(backend: Backend, *tables: RuleTable) -> Plan:
    """All of the tables in raw, by one backend. A set has the same members in all of them."""
    shared = [replace(item, sets=tables[0].sets, port_sets=tables[0].port_sets) for item in tables]
    return Plan("node", tuple(InterfacePlan(item, None, backend, ()) for item in shared))


@st.composite
def _tables(draw: st.DrawFn, interface: str) -> RuleTable:
    """Of both directions."""
    table = draw(rule_tables((0,), 5))
    out = draw(st.one_of(st.just(()), rule_tables((0,), 3).map(lambda other: other.ingress)))
    egress = tuple(replace(entry, name=f"out-{entry.name}", direction=Direction.EGRESS) for entry in out)
    return replace(table, interface=interface, egress=egress)


@st.composite
def _changed(draw: st.DrawFn, old: RuleTable) -> RuleTable:
    """The same sets with other members, some entries removed, others added."""
    other = draw(_tables(old.interface))
    kept = [entry for entry in old.ingress if draw(st.booleans())]
    at = draw(st.integers(0, len(kept)))
    come = [
        replace(entry, name=f"new-{entry.name}", tier=kept[at - 1].tier if at else entry.tier)
        for entry in other.ingress
    ]
    entries = {"members": old.ingress, "entries": (*kept[:at], *come[:2], *kept[at:])}
    what = draw(st.sampled_from(("members", "members", "entries", "both")))
    chosen = entries["members" if what == "members" else "entries"] or old.ingress
    if what == "entries":
        return replace(old, ingress=chosen)
    return replace(old, ingress=chosen, sets=other.sets, port_sets=other.port_sets)


def _decisive() -> tuple[Entry, ...]:
    """Entries such that a packet can be dropped by one in the old plan and by another in the new one."""
    a, b, c = SETS
    return (
        entry(0, Action.DENY, source=SideMatch(ip_set=a)),
        entry(1, Action.DENY, source=SideMatch(ip_set=b), protocol=17),
        entry(2, Action.PASS, source=SideMatch(ip_set=c)),
        entry(3, Action.ALLOW, source=SideMatch(ip_set=b)),
        entry(4, Action.DENY, source=SideMatch(not_ip_set=a)),
        entry(5, Action.DENY, destination=SideMatch(named_ports=NAMES[:1])),
        entry(6, Action.ALLOW, source=SideMatch(not_ip_set=c)),
        entry(7, Action.DENY, source=SideMatch(nets=NETS[1:3])),
        entry(8, Action.DENY),
    )


@st.composite
def _by_sets(draw: st.DrawFn) -> RuleTable:
    """A table whose sets decide: the entries in any order, some of them omitted."""
    entries = draw(st.permutations(_decisive()))[: draw(st.integers(1, 5))]
    table = draw(rule_tables((0,), 1))
    return replace(table, ingress=tuple(entries), failsafe_inbound=(), failsafe_outbound=())


@st.composite
def changes(draw: st.DrawFn, backend: Backend) -> tuple[Plan, Plan]:
    """The enforced plan and the next one; they have much in common, or nothing."""
    names = draw(st.sampled_from((INTERFACES[:1], INTERFACES[:1], INTERFACES)))
    how = draw(st.sampled_from((*["by sets"] * 4, *["changed"] * 2, "other", "first", "last", "fewer")))
    if how == "by sets":
        return plan_of(backend, draw(_by_sets())), plan_of(backend, draw(_by_sets()))
    old = [draw(_tables(name)) for name in names]
    new = [draw(_tables(table.interface)) if how == "other" else draw(_changed(table)) for table in old]
    if how == "first":
        old = []
    return plan_of(backend, *old), plan_of(backend, *{"last": [], "fewer": new[1:]}.get(how, new))


_LISTED, _NOBODY = ip_set(SETS[0], ["10.0.0.1/32", "2001:db8::1/128"]), ip_set(SETS[0], [])
_BY_LIST = SideMatch(ip_set=SETS[0])
_BY_NAME = SideMatch(nets=tuple(net for net in NETS if net.prefixlen == net.max_prefixlen))
_NOT_LISTED = SideMatch(not_ip_set=SETS[0])
_DENY_ALL = entry(9, Action.DENY)

# Old and new tables that drop the same packets by different rules: correct only if members are added and removed in the
# right order.
_TIMELY: dict[str, tuple[RuleTable, RuleTable]] = {
    "denied by a list, then by name": (
        table(entry(0, Action.DENY, source=_BY_LIST), sets=[_LISTED]),
        table(entry(0, Action.DENY, source=_BY_NAME), entry(1, Action.DENY, source=_BY_LIST), sets=[_NOBODY]),
    ),
    "denied by name, then by a list": (
        table(entry(0, Action.DENY, source=_BY_NAME), entry(1, Action.DENY, source=_BY_LIST), sets=[_NOBODY]),
        table(entry(0, Action.DENY, source=_BY_LIST), sets=[_LISTED]),
    ),
    "allowed by a list, after a Deny by name": (
        table(entry(0, Action.ALLOW, source=_BY_LIST), _DENY_ALL, sets=[_NOBODY]),
        table(
            entry(0, Action.DENY, source=_BY_NAME), entry(1, Action.ALLOW, source=_BY_LIST), _DENY_ALL, sets=[_LISTED]
        ),
    ),
    "allowed by a list no more, its Deny gone": (
        table(
            entry(0, Action.DENY, source=_BY_NAME), entry(1, Action.ALLOW, source=_BY_LIST), _DENY_ALL, sets=[_LISTED]
        ),
        table(entry(0, Action.ALLOW, source=_BY_LIST), _DENY_ALL, sets=[_NOBODY]),
    ),
    "denied for not being listed": (
        table(entry(0, Action.DENY, source=_NOT_LISTED), sets=[_NOBODY]),
        table(entry(0, Action.DENY, source=_BY_NAME), entry(1, Action.DENY, source=_NOT_LISTED), sets=[_LISTED]),
    ),
    "passed by a list": (
        table(entry(0, Action.PASS, source=_BY_LIST), _DENY_ALL, sets=[_NOBODY]),
        table(
            entry(0, Action.DENY, source=_BY_NAME), entry(1, Action.PASS, source=_BY_LIST), _DENY_ALL, sets=[_LISTED]
        ),
    ),
}
TIMELY = tuple(_TIMELY)


def timely(name: str, backend: Backend) -> tuple[Plan, Plan]:
    """The plans of a row of :data:`TIMELY`."""
    old, new = _TIMELY[name]
    return plan_of(backend, old), plan_of(backend, new)
