"""compile_table: Resources -> RuleTable of one interface. Pure; every entry records where it came from.

Order (``felix/calc/policy_sorter.go``): tiers that exist before those that do not, by order (none last), then name;
policies by order (none last), then name, namespace and kind; rules as written. The tiers ``default``, ``kube-admin``
and ``kube-baseline`` always exist. Only policies with doNotTrack result in entries; the other policies that select the
endpoint are listed as tracked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from enforcer.model.errors import UnsupportedRuleError
from enforcer.model.nets import IPAddress
from enforcer.model.vocabulary import Action, Direction
from enforcer.policy import schema
from enforcer.policy.compile_tracked import tracked_table
from enforcer.policy.endpoint import governing_endpoint
from enforcer.policy.entries import EntryMaker
from enforcer.policy.labels import endpoint_labels, policy_selector
from enforcer.policy.members import Membership
from enforcer.policy.resources import GlobalNetworkPolicy, HostEndpoint, Profile, Resources, Rule, Tier
from enforcer.policy.ruletable import RuleTable, TrackedPolicy
from enforcer.policy.selector import parse
from enforcer.policy.tracked import TrackedTable

BUILT_IN_TIERS = {
    name: Tier(name, order=order, default_action=Action(action))
    for name, (order, action) in schema.RESERVED_TIERS.items()
}  # created by Calico (``libcalico-go/lib/clientv3/client.go``, ensureTierExists)
_ALLOW = (Rule(Action.ALLOW),)
BUILT_IN_PROFILES = {schema.DEFAULT_ALLOW_PROFILE: Profile(schema.DEFAULT_ALLOW_PROFILE, ingress=_ALLOW, egress=_ALLOW)}


class Compiler:
    """Compiles the tables of interfaces. If it is kept when the resources change, it rebuilds only the sets whose
    members changed; for the same resources object it answers with the same tables.
    """

    def __init__(self) -> None:
        self._resources: Resources | None = None
        self._membership = Membership(Resources())
        self._policies: Sequence[GlobalNetworkPolicy] = ()
        self._tables: dict[tuple[str, str, tuple[IPAddress, ...]], RuleTable] = {}  # of these resources

    def compile(
        self, resources: Resources, *, node: str, interface: str, addresses: Sequence[IPAddress] = ()
    ) -> RuleTable:
        """The untracked entries of one interface of a node; none if no HostEndpoint governs it.

        Raises UnsupportedRuleError with every rule that has a match which cannot be expressed.
        """
        key = node, interface, tuple(addresses)
        if resources is self._resources and key in self._tables:
            return self._tables[key]
        felix = resources.felix_for(node)
        endpoint = governing_endpoint(resources, node=node, interface=interface, addresses=addresses, felix=felix)
        if endpoint is None:
            return RuleTable(interface)
        self._take(resources)
        selecting = self._selecting(endpoint)
        policies = [item for item in selecting if item.do_not_track]
        entries = EntryMaker(self._membership, "untracked policy")
        ingress = tuple(entries.of(policies, Direction.INGRESS))
        egress = tuple(entries.of(policies, Direction.EGRESS))
        if entries.unsupported:
            raise UnsupportedRuleError("\n".join(entries.unsupported))
        self._tables[key] = RuleTable(
            interface=interface,
            endpoint=endpoint.name,
            ingress=ingress,
            egress=egress,
            failsafe_inbound=felix.failsafe_inbound,
            failsafe_outbound=felix.failsafe_outbound,
            sets=entries.sets,
            port_sets=entries.port_sets,
            tracked=tuple(_tracked(item) for item in selecting if not item.do_not_track),
        )
        return self._tables[key]

    def compile_tracked(
        self, resources: Resources, *, node: str, interface: str, addresses: Sequence[IPAddress] = ()
    ) -> TrackedTable | None:
        """The chains after conntrack of one interface of a node; None without a governing HostEndpoint."""
        felix = resources.felix_for(node)
        endpoint = governing_endpoint(
            resources, node=node, interface=interface, addresses=addresses, felix=felix, loopback=True
        )
        if endpoint is None:
            return None
        self._take(resources)
        return tracked_table(
            interface,
            endpoint,
            self._selecting(endpoint),
            tiers=BUILT_IN_TIERS | {tier.name: tier for tier in resources.tiers},
            profiles=BUILT_IN_PROFILES | {item.name: item for item in resources.profiles},
            felix=felix,
            membership=self._membership,
        )

    def _selecting(self, endpoint: HostEndpoint) -> list[GlobalNetworkPolicy]:
        """The policies that select an endpoint, in evaluation order."""
        assert self._resources is not None
        labels = endpoint_labels(endpoint, {item.name: item for item in self._resources.profiles})
        return [item for item in self._policies if parse(policy_selector(item)).evaluate(labels)]

    def _take(self, resources: Resources) -> None:
        if resources is self._resources:
            return
        self._membership.forget_before()
        self._membership = Membership(resources, self._membership)
        self._policies = ordered_policies(resources)
        self._tables = {}
        self._resources = resources


def compile_table(resources: Resources, *, node: str, interface: str, addresses: Sequence[IPAddress] = ()) -> RuleTable:
    """One table, compiled with a new Compiler; see :meth:`Compiler.compile`."""
    return Compiler().compile(resources, node=node, interface=interface, addresses=addresses)


def ordered_policies(resources: Resources) -> list[GlobalNetworkPolicy]:
    """All policies in evaluation order (untracked and tracked ones are each evaluated in this order)."""
    tiers = BUILT_IN_TIERS | {tier.name: tier for tier in resources.tiers}

    def rank(policy: GlobalNetworkPolicy) -> tuple[bool, float, str, float, str]:
        tier = tiers.get(policy.tier)
        return (
            tier is None,
            math.inf if tier is None or tier.order is None else tier.order,
            policy.tier,
            math.inf if policy.order is None else policy.order,
            f"{policy.name}//GlobalNetworkPolicy",  # "name/namespace/kind": "-" and "." come before "/"
        )

    return sorted(resources.policies, key=rank)


def _tracked(policy: GlobalNetworkPolicy) -> TrackedPolicy:
    if policy.pre_dnat:
        hooks = ["mangle PREROUTING"]
    else:
        hooks = [
            hook for kind, hook in (("Ingress", "filter INPUT"), ("Egress", "filter OUTPUT")) if kind in policy.types
        ]
        hooks += ["filter FORWARD"] if policy.apply_on_forward else []
    return TrackedPolicy(f"gnp/{policy.name}", tuple(hooks), policy.position)


def compile_tracked(
    resources: Resources, *, node: str, interface: str, addresses: Sequence[IPAddress] = ()
) -> TrackedTable | None:
    """One table of tracked policy, compiled from nothing; see :meth:`Compiler.compile_tracked`."""
    return Compiler().compile_tracked(resources, node=node, interface=interface, addresses=addresses)
