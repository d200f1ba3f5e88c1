"""Tracked policy of a host, evaluated straight from the resources: preDNAT, normal and applyOnForward policy, profiles.

The chains around those of the endpoints: ``felix/rules/static.go`` without workloads, tunnels and IPVS; which of them
a packet meets: ``dispatch.go``, ``endpoint_mgr.go``. The host has no rules of its own in mangle and filter, so that
what Calico leaves to them passes, and Accept and Return (``iptablesFilterAllowAction``) end alike.

Two deviations from Calico: neighbour discovery is accepted before normal policy (row N0), because conntrack does not
track it and a default deny would cut the host off; Reject drops, because mangle has no REJECT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from dossim.model.host import Host
from dossim.pipeline.applicable import NamedRule, applicable, governs, named, rules_of, tier_actions
from dossim.pipeline.governing import governing_endpoint
from dossim.pipeline.match_key import MatchKey
from dossim.pipeline.matching import require_expressible
from dossim.pipeline.selection import Selection
from dossim.pipeline.tracked_chain import KNOWN, Chain, Decision, Kind, ProfileRules, TierRules, Verdict
from enforcer.model.nets import IPAddress
from enforcer.model.vocabulary import Action, CtState, Direction
from enforcer.policy.resources import FelixConfiguration, GlobalNetworkPolicy, HostEndpoint, Resources


@dataclass(frozen=True)
class EndpointChains:
    """The chains of the endpoint that governs an interface. ``pre_dnat`` None: it has no preDNAT policy."""

    endpoint: str
    pre_dnat: Chain | None
    ingress: Chain
    egress: Chain
    forward_ingress: Chain
    forward_egress: Chain


@dataclass(frozen=True)
class TrackedPolicy:
    """What becomes of a packet in mangle and filter. ``outside`` and ``inside`` are the host's interfaces; None where
    no HostEndpoint governs one. ``marked``: the accept mark is set already, by an untracked or preDNAT Allow.
    """

    outside: EndpointChains | None
    inside: EndpointChains | None

    @classmethod
    def of(cls, resources: Resources, host: Host) -> TrackedPolicy:
        """Raises UnsupportedRuleError for rules that match on what a packet does not show."""
        addresses = [address.ip for address in host.addresses]
        outside = endpoint_chains(resources, host.node, host.interface, addresses)
        return cls(outside, endpoint_chains(resources, host.node, host.inside, ()))

    @property
    def governs(self) -> bool:
        return self.outside is not None or self.inside is not None

    def mangle(self, key: MatchKey, state: CtState, *, marked: bool) -> Decision:
        """mangle PREROUTING of a packet received outside."""
        if state in KNOWN:
            return Decision(Verdict.ACCEPT, "M1", "RELATED or ESTABLISHED", marked)
        if marked:
            return Decision(Verdict.ACCEPT, "M2", "it has the accept mark", True)
        if self.outside is None:
            return Decision(Verdict.RETURN, "M5", "no HostEndpoint governs the interface")
        if self.outside.pre_dnat is None:
            return Decision(Verdict.RETURN, "M5", "no preDNAT policy applies to the interface")
        return self.outside.pre_dnat.decide(key, state)

    def input(self, key: MatchKey, state: CtState, *, marked: bool) -> Decision:
        """filter INPUT of a packet received outside."""
        return _to_host(self.outside, lambda chains: chains.ingress, "I", key, state, marked=marked)

    def output(self, key: MatchKey, state: CtState, *, marked: bool) -> Decision:
        """filter OUTPUT of a packet that leaves outside. The host has no DNAT, so mangle POSTROUTING, where Calico asks
        this policy of what was DNATed, has nothing to decide.
        """
        return _to_host(self.outside, lambda chains: chains.egress, "O", key, state, marked=marked)

    def forward(self, key: MatchKey, state: CtState, *, marked: bool, to_inside: bool) -> list[Decision]:
        """filter FORWARD of a packet received outside: the decisions of both interfaces' chains that were asked, and of
        the chain itself, in this order. The last one decides.
        """
        found: list[Decision] = []
        if self.outside is not None and not marked:
            found.append(self.outside.forward_ingress.decide(key, state))
            if found[-1].verdict is not Verdict.RETURN:
                return found
            marked = found[-1].marked
        leaves_by = self.inside if to_inside else self.outside
        if leaves_by is not None:
            # A mark set before only spares the packet the first chain: this one clears it (F3).
            found.append(leaves_by.forward_egress.decide(key, state))
            if found[-1].verdict is not Verdict.RETURN:
                return found
            marked = found[-1].marked
        end = Decision(Verdict.ACCEPT, "F5", "it has the accept mark", True)
        return [
            *found,
            end if marked else Decision(Verdict.RETURN, "F6", "left to the host's own rules"),
        ]


def _to_host(
    chains: EndpointChains | None,
    chosen: Callable[[EndpointChains], Chain],
    letter: str,
    key: MatchKey,
    state: CtState,
    *,
    marked: bool,
) -> Decision:
    """filter INPUT (I) and OUTPUT (O), which differ only in the chain that they ask."""
    if marked:
        return Decision(Verdict.ACCEPT, f"{letter}{2 if letter == 'I' else 1}", "it has the accept mark", True)
    if chains is None:
        return Decision(Verdict.RETURN, f"{letter}6", "no HostEndpoint governs the interface")
    found = chosen(chains).decide(key, state)
    return replace(found, verdict=Verdict.ACCEPT) if found.marked else found  # I5, O5


# -- from the resources ------------------------------------------------------------------------------------------------


def endpoint_chains(
    resources: Resources, node: str, interface: str, addresses: Sequence[IPAddress]
) -> EndpointChains | None:
    """The chains of a node's interface; None if no HostEndpoint governs it. ``*`` governs the loopback as well.

    Raises UnsupportedRuleError.
    """
    felix = resources.felix_for(node)
    endpoint = governing_endpoint(resources.host_endpoints, felix, node, interface, addresses, loopback=True)
    return None if endpoint is None else _Maker(resources, endpoint, felix).chains()


class _Maker:
    """Makes the chains of one endpoint. A policy is untracked, or preDNAT, or normal (``event_sequencer.go``)."""

    def __init__(self, resources: Resources, endpoint: HostEndpoint, felix: FelixConfiguration) -> None:
        policies = [item for item in applicable(resources, endpoint) if not item.do_not_track]
        self._resources = resources
        self._endpoint = endpoint
        self._felix = felix
        self._pre_dnat = [item for item in policies if item.pre_dnat]
        self._normal = [item for item in policies if not item.pre_dnat]
        self._forward = [item for item in self._normal if item.apply_on_forward]
        self._actions = tier_actions(resources)
        self._selection = Selection(resources)

    def chains(self) -> EndpointChains:
        pre_dnat = self._chain(Kind.PRE_DNAT, Direction.INGRESS, self._pre_dnat) if self._pre_dnat else None
        return EndpointChains(
            self._endpoint.name,
            pre_dnat,
            ingress=self._chain(Kind.NORMAL, Direction.INGRESS, self._normal),
            egress=self._chain(Kind.NORMAL, Direction.EGRESS, self._normal),
            forward_ingress=self._chain(Kind.FORWARD, Direction.INGRESS, self._forward),
            forward_egress=self._chain(Kind.FORWARD, Direction.EGRESS, self._forward),
        )

    def _chain(self, kind: Kind, direction: Direction, policies: Sequence[GlobalNetworkPolicy]) -> Chain:
        own = self._felix.failsafe_inbound if direction is Direction.INGRESS else self._felix.failsafe_outbound
        return Chain(
            kind,
            direction,
            tuple(self._tiers([item for item in policies if governs(item, direction)], direction)),
            self._selection,
            tuple(self._profiles(direction)) if kind is Kind.NORMAL else (),
            failsafes=() if kind is Kind.FORWARD else own,
            denies_invalid=not self._felix.disable_conntrack_invalid_check,
            by_default=kind is Kind.FORWARD and not policies,
        )

    def _tiers(self, policies: Sequence[GlobalNetworkPolicy], direction: Direction) -> Iterator[TierRules]:
        for tier in dict.fromkeys(item.tier for item in policies):
            rules = [rule for item in policies if item.tier == tier for rule in rules_of(item, direction)]
            # A tier that does not exist has no defaultAction, which is not Pass.
            default = self._actions.get(tier, Action.DENY)
            yield TierRules(tier, _expressible(rules), default)

    def _profiles(self, direction: Direction) -> Iterator[ProfileRules]:
        profiles = {item.name: item for item in self._resources.profiles}
        for name in dict.fromkeys(self._endpoint.profiles):
            profile = profiles.get(name)
            if profile is None:
                yield ProfileRules(name, None)
                continue
            rules = profile.ingress if direction is Direction.INGRESS else profile.egress
            yield ProfileRules(name, _expressible(named(f"profile/{name} {direction}", "", rules)))


def _expressible(rules: Iterable[NamedRule]) -> tuple[NamedRule, ...]:
    found = tuple(rules)
    for item in found:
        require_expressible(item.name, item.rule, "tracked")
    return found
