"""From a Plan to the table of netdev ingress. Pure.

One table ``netdev enforcer`` for both families, a base chain for each interface::

    hook ingress device eth0, priority -300: enf-nd-eth0 ─┬─ tagged, or for another interface: on to raw
                                                          ├─ sound IPv4 header: goto enf-nd-4/eth0
                                                          └─ sound IPv6 header: goto enf-nd-6/eth0
    enf-nd-4/eth0 ─┬─ failsafes: on to raw
                   ├─ enf-nd-4/eth0/default
                   └─ enf-nd-4/eth0/...

"On to raw" is accept. Deny is drop; Allow and Log are accept, because raw executes them; Pass is return. Packets for
which a match is indeterminate are accepted as well: before the rule with the match, a jump to
``enf4-indeterminate-...`` accepts them and returns for all others. ``dossim/pipeline/netdev.py`` models which packets
these are, and docs/packet-fates.md lists them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from enforcer.backends.netfilter.names import ChainKind, chain_name
from enforcer.backends.netfilter.ways import FailsafeGroup, failsafe_groups
from enforcer.backends.nftables import expr
from enforcer.backends.nftables.entry_rules import entry_rules
from enforcer.backends.nftables.match import (
    ICMP_BYTES,
    NAMED_PORT_BYTES,
    EntryMatch,
    Exprs,
    SetRegistry,
    match_of,
    needs_mark,
    port_numbers,
)
from enforcer.backends.nftables.rules import FAMILY_OF, Chain, Code, Expr, Hook, NftablesSettings, Rule, Table
from enforcer.kernel.nfnetlink import Family
from enforcer.model.errors import UnsupportedRuleError
from enforcer.model.vocabulary import Action, Direction, Side
from enforcer.planning.plan import InterfacePlan, Plan
from enforcer.policy.conditions import ICMP_OF_FAMILY
from enforcer.policy.ruletable import Entry

INGRESS_HOOK = 0  # NF_NETDEV_INGRESS
PRIORITY = -300
# IPv6 headers that may precede a transport (``ipv6_ext_hdr``), without 59 (no next header).
EXTENSION_HEADERS = (0, 43, 44, 51, 60)
WHOLE_HEADERS = NAMED_PORT_BYTES  # transport -> how many bytes of it a match on ports needs

_ON_TO_RAW = expr.verdict(Code.ACCEPT)


def render(plan: Plan, settings: NftablesSettings) -> Table:
    """The table with every interface of the plan that has netdev ingress; an empty table is deleted.

    Raises UnsupportedRuleError with the entries that need a mark if the mark mask is 0.
    """
    require_marks(plan, settings)
    plans = [item for item in plan.interfaces if item.netdev]
    families = [_Family(version, settings) for version in FAMILY_OF if version == 4 or settings.ipv6]
    chains = [chain for item in plans for chain in _interface(item, families)]
    helpers = [chain for family in families for chain in family.helpers.values()]
    sets = [spec for family in families for spec in family.sets.specs()]
    return Table(Family.NETDEV, (*helpers, *chains), tuple(sets))


def require_marks(plan: Plan, settings: NftablesSettings) -> None:
    """Raises UnsupportedRuleError as :func:`render` does; renders nothing."""
    problems = [problem for item in plan.interfaces if item.netdev for problem in _unmarked(item, settings)]
    if problems:
        raise UnsupportedRuleError("\n".join(dict.fromkeys(problems)))


def _unmarked(plan: InterfacePlan, settings: NftablesSettings) -> Iterator[str]:
    for entry in plan.early_entries:
        if not settings.accept_mark and needs_mark(entry):
            yield f"netdev ingress cannot hold {entry.name}: a negated named port needs a mark, and the mark mask is 0"


def _interface(plan: InterfacePlan, families: Iterable[_Family]) -> Iterator[Chain]:
    """All chains of an interface, its base chain last."""
    rules = [Rule((*match, _ON_TO_RAW)) for match in (*expr.tagged(), expr.for_another_host())]
    for family in families:
        *below, entry_point = _Endpoint(family, plan).chains()
        yield from (*below, entry_point)
        sound = (*expr.of_family(family.version), *expr.protocol_is_known())
        rules.append(Rule((*sound, expr.verdict(Code.GOTO, entry_point.name))))
    hook = Hook(INGRESS_HOOK, PRIORITY, plan.interface)
    yield Chain(chain_name(ChainKind.NETDEV, plan.interface), tuple(rules), hook)


@dataclass
class _Family:
    """Renders one family. ``helpers``: the chains that interfaces share, by name, created when first needed."""

    version: int
    settings: NftablesSettings
    helpers: dict[str, Chain] = field(default_factory=dict, init=False)
    sets: SetRegistry = field(init=False)

    def __post_init__(self) -> None:
        self.sets = SetRegistry(self.version)

    def indeterminate_protocol(self) -> Expr:
        """A jump to the chain that passes to raw the packets whose transport protocol is indeterminate because of an
        extension header (fragments included). IPv6 only.
        """
        headers = [Rule((*expr.next_header(kind), _ON_TO_RAW)) for kind in EXTENSION_HEADERS]
        return self._jump(f"enf{self.version}-indeterminate-protocol", headers)

    def indeterminate_transport(self, protocol: int, length: int) -> Expr:
        """A jump to the chain that passes to raw the packets that may have fewer than ``length`` bytes of transport."""
        whole = expr.whole_transport(self.version, length)
        rules = [Rule((*match, expr.verdict(Code.RETURN))) for match in whole]
        return self._jump(f"enf{self.version}-indeterminate-{protocol}", [*rules, Rule((_ON_TO_RAW,))])

    def _jump(self, name: str, rules: Iterable[Rule]) -> Expr:
        self.helpers.setdefault(name, Chain(name, tuple(rules)))
        return expr.verdict(Code.JUMP, name)


@dataclass
class _Endpoint:
    """Renders the chains of one interface and family.

    ``checked``: the protocols whose transport header is known to be complete in every packet that gets this far; None
    is in it if every packet's protocol is known.
    """

    family: _Family
    plan: InterfacePlan
    checked: set[int | None] = field(default_factory=set, init=False)

    def chains(self) -> list[Chain]:
        """All chains, the entry point last."""
        place = (str(self.family.version), self.plan.interface)
        rules = list(self._failsafes())
        tiers: dict[str, list[Rule]] = {}
        # A packet that leaves a tier by a Pass skips the later checks of that tier, so each tier starts with what the
        # failsafes have checked.
        by_failsafes = frozenset(self.checked)
        checked: dict[str, set[int | None]] = {}
        for entry in self.plan.early_entries:
            self.checked = checked.setdefault(entry.tier, set(by_failsafes))
            tiers.setdefault(entry.tier, []).extend(self._entry(entry))
        name = "/".join(place)
        below = [Chain(chain_name(ChainKind.NETDEV, f"{name}/{tier}"), tuple(found)) for tier, found in tiers.items()]
        rules += [Rule((expr.verdict(Code.JUMP, chain.name),)) for chain in below]
        # Matches on negated named ports rely on a cleared mark, as in raw. Raw clears it for every packet anyway.
        clear = [Rule(expr.set_mark(self._mark, on=False))] if self._marks else []
        return [*below, Chain(chain_name(ChainKind.NETDEV, name), (*clear, *rules))]

    @property
    def _mark(self) -> int:
        return self.family.settings.accept_mark

    @property
    def _marks(self) -> bool:
        return any(map(needs_mark, self.plan.early_entries))

    def _failsafes(self) -> Iterator[Rule]:
        """On to raw: by destination port, and for replies by source port."""
        for group in failsafe_groups(self.plan.table, Direction.INGRESS, self.family.version):
            yield from self._failsafe(group)

    def _failsafe(self, group: FailsafeGroup) -> Iterator[Rule]:
        sample = group.sample
        any_address = sample.net is None or not sample.net.prefixlen
        remote = () if any_address or sample.net is None else expr.net(Side.SOURCE, sample.net)
        transport = expr.protocol(sample.protocol)
        yield from self._indeterminate_protocol()
        yield from self._indeterminate_transport(sample.protocol, WHOLE_HEADERS[sample.protocol], remote, transport)
        number = port_numbers(group.side, group.ports, self.family.sets)
        yield Rule((*remote, *transport, *number, _ON_TO_RAW))

    def _entry(self, entry: Entry) -> Iterator[Rule]:
        """The entry's rules in this family; none if the entry is for the other family or can match no packet."""
        if self.family.version not in entry.families:
            return
        found = match_of(entry, self.plan.table, self.family.sets)
        if found.protocol or found.ports or found.icmp:
            yield from self._indeterminate_protocol()
        yield from self._indeterminate(found)
        yield from entry_rules(entry.name, found, _statements(entry.action), self._mark)

    def _indeterminate(self, found: EntryMatch) -> Iterator[Rule]:
        """The rules before an entry's own: they pass to raw the packets whose match is indeterminate."""
        protocols = WHOLE_HEADERS if found.ports else {}
        if found.icmp:
            protocols = {**protocols, ICMP_OF_FAMILY[self.family.version]: ICMP_BYTES}
        for protocol, length in protocols.items():
            if found.admits(protocol):
                is_it = found.protocol is not None and not found.protocol.negated
                transport = found.transport if is_it else (*found.transport, *expr.protocol(protocol))
                yield from self._indeterminate_transport(protocol, length, found.nets, transport, found.sets)

    def _indeterminate_protocol(self) -> Iterator[Rule]:
        """For packets of all addresses, because raw evaluates the protocol before sets and hotdrops there."""
        if self.family.version == 6 and None not in self.checked:
            self.checked.add(None)
            yield Rule((self.family.indeterminate_protocol(),))

    def _indeterminate_transport(
        self, protocol: int, length: int, nets: Exprs, transport: Exprs, sets: Exprs = ()
    ) -> Iterator[Rule]:
        if protocol not in self.checked:
            if not nets and not sets:
                self.checked.add(protocol)
            yield Rule((*nets, *transport, *sets, self.family.indeterminate_transport(protocol, length)))


def _statements(action: Action) -> Exprs:
    """The statements of an entry's rule. Only drops are counted; raw counts everything else."""
    match action:
        case Action.DENY:
            return (expr.COUNTER, expr.verdict(Code.DROP))
        case Action.PASS:
            return (expr.verdict(Code.RETURN),)
        case Action.ALLOW | Action.LOG:
            return (_ON_TO_RAW,)
