"""tracked_table: the chains after conntrack of one interface, from the policies that select its endpoint. Pure.

A policy is either untracked, preDNAT or normal; a normal one with applyOnForward is in the chains of filter FORWARD as
well (``felix/calc/event_sequencer.go``). Failsafes guard what ends or begins at the host, not what it forwards. A
profile that does not exist denies everything (``felix/calc/active_rules_calculator.go``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from enforcer.model.vocabulary import Action, Direction
from enforcer.policy.entries import EntryMaker, Origin, applies
from enforcer.policy.members import Membership
from enforcer.policy.resources import (
    FelixConfiguration,
    GlobalNetworkPolicy,
    HostEndpoint,
    Profile,
    Tier,
)
from enforcer.policy.ruletable import Entry
from enforcer.policy.tracked import Hook, TierChain, TrackedChain, TrackedTable


def tracked_table(
    interface: str,
    endpoint: HostEndpoint,
    policies: Sequence[GlobalNetworkPolicy],
    *,
    tiers: Mapping[str, Tier],
    profiles: Mapping[str, Profile],
    felix: FelixConfiguration,
    membership: Membership,
) -> TrackedTable:
    """``policies`` are those that select the endpoint, in evaluation order; untracked ones are left out."""
    entries = EntryMaker(membership, "tracked policy")
    made = _Chains(endpoint, policies, tiers, profiles, felix, entries)
    chains = tuple(made.chains())
    unsupported = tuple(dict.fromkeys(entries.unsupported))
    return TrackedTable(interface, endpoint.name, chains, entries.sets, entries.port_sets, unsupported)


class _Chains:
    """Makes the chains of one endpoint."""

    def __init__(
        self,
        endpoint: HostEndpoint,
        policies: Sequence[GlobalNetworkPolicy],
        tiers: Mapping[str, Tier],
        profiles: Mapping[str, Profile],
        felix: FelixConfiguration,
        entries: EntryMaker,
    ) -> None:
        self._endpoint = endpoint
        self._pre_dnat = [item for item in policies if item.pre_dnat]
        self._normal = [item for item in policies if not item.pre_dnat and not item.do_not_track]
        self._tiers = tiers
        self._profiles = profiles
        self._felix = felix
        self._entries = entries

    def chains(self) -> Iterator[TrackedChain]:
        denies_invalid = not self._felix.disable_conntrack_invalid_check
        if self._pre_dnat:
            # Without a match the packet goes on to normal policy, whatever the tier says.
            tiers = tuple(self._tiers_of(self._pre_dnat, Direction.INGRESS, default=Action.PASS))
            yield TrackedChain(
                Hook.PRE_DNAT, tiers, failsafes=self._felix.failsafe_inbound, denies_invalid=denies_invalid
            )
        for hook, failsafes in (
            (Hook.INPUT, self._felix.failsafe_inbound),
            (Hook.OUTPUT, self._felix.failsafe_outbound),
        ):
            yield TrackedChain(
                hook,
                tuple(self._tiers_of(self._normal, hook.direction)),
                tuple(self._profiles_of(hook.direction)),
                failsafes,
                denies_invalid,
                end=Action.DENY,
            )
        forward = [item for item in self._normal if item.apply_on_forward]
        for hook in (Hook.FORWARD_IN, Hook.FORWARD_OUT):  # without such policy, for INVALID packets
            yield TrackedChain(hook, tuple(self._tiers_of(forward, hook.direction)), denies_invalid=denies_invalid)

    def _tiers_of(
        self, policies: Sequence[GlobalNetworkPolicy], direction: Direction, *, default: Action | None = None
    ) -> Iterator[TierChain]:
        """The tiers that have policies for this direction. ``default`` overrides that of each tier."""
        mine = [item for item in policies if applies(item, direction)]
        for name in dict.fromkeys(item.tier for item in mine):
            of_tier = [item for item in mine if item.tier == name]
            own = self._tiers[name].default_action if name in self._tiers else Action.DENY
            yield TierChain(name, tuple(self._entries.of(of_tier, direction)), default or own)

    def _profiles_of(self, direction: Direction) -> Iterator[TierChain]:
        for name in dict.fromkeys(self._endpoint.profiles):  # what the first one leaves, a second leaves as well
            origin = Origin(f"profile/{name}")
            profile = self._profiles.get(name)
            if profile is None:
                missing = f"{origin.name} {direction}: no such profile"
                yield TierChain(name, (Entry(missing, Action.DENY, tier="", direction=direction),), Action.PASS)
                continue
            rules = profile.ingress if direction is Direction.INGRESS else profile.egress
            yield TierChain(name, tuple(self._entries.rules(origin, direction, rules)), Action.PASS)
