"""Hypothesis strategies for resources with tracked policy as well, and for conversations that meet it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from ipaddress import ip_network

from hypothesis import strategies as st

from dossim.model.host import Host
from enforcer.model.vocabulary import Action
from enforcer.policy.resources import EntityRule, GlobalNetworkPolicy, Resources, Rule, Tier
from tests.support.conversations import conversations
from tests.support.frames import ME4, ME6, SOURCES4, SOURCES6, choice, ethernet
from tests.support.strategies import resources, rules

ALLOW = Rule(Action.ALLOW)
FIRST = Tier("first", order=0.0)
# The usual sources, in lists that have no address in common.
LISTS4 = ("203.0.113.0/24", "198.51.100.0/25", "192.0.2.0/24", "8.8.8.0/24")
LISTS6 = ("2001:db8::/48", "2001:db8:1::/48", "2001:db8:bad::/48", "2600::/16")
LEFT = ("10.10.10.0/24", "fd00::/64")
LISTENING = (80, 22, 81)  # the first of the hosts' listeners; a failsafe at times; closed
_BEYOND = {4: "192.0.2.5", 6: "2001:db8:5::5"}  # of the hosts' routes; without them it leaves by the outside interface
_HERE = {4: ME4, 6: ME6}
_PEERS = tuple(dict(zip((4, 6), pair, strict=True)) for pair in zip(SOURCES4, SOURCES6, strict=False))
_EACH_PEER, _EACH_SIDE = st.sampled_from(_PEERS), st.sampled_from((_BEYOND, _HERE))


@cache
@st.composite
def tracked_resources(draw: st.DrawFn) -> Resources:
    """Like :func:`resources`, with policy of every kind and profiles with rules. Some allow what is left."""
    found = draw(resources())
    felix = tuple(
        replace(one, disable_conntrack_invalid_check=draw(st.booleans())) for one in found.felix_configurations
    )
    profiles = tuple(replace(one, ingress=draw(_of_profile()), egress=draw(_of_profile())) for one in found.profiles)
    policies = tuple(_of_any_kind(draw, one) for one in found.policies)
    return replace(found, policies=policies, profiles=profiles, felix_configurations=felix)


@cache
@st.composite
def resources_of_every_kind(draw: st.DrawFn) -> Resources:
    """Like :func:`tracked_resources`, with a tier before all others that has a policy of each kind.

    Each of these begins with deny lists that XDP can hold and that nothing comes before in their chains. No two list
    the same addresses, so that packets get to each of them; the one of forwarded packets allows the sources of no list.
    """
    found = draw(tracked_resources())
    lists = zip(draw(st.permutations(LISTS4)), draw(st.permutations(LISTS6)), strict=True)
    kinds = zip(("untracked", "pre-dnat", "forward", "normal"), lists, strict=True)
    first = tuple(
        GlobalNetworkPolicy(
            f"first.{kind}",
            tier=FIRST.name,
            selector="all()",
            types=("Ingress",),
            ingress=(
                *_of_sources(Action.DENY, *listed),
                *_of_sources(Action.ALLOW, *LEFT) * (kind == "forward"),
                *draw(st.lists(rules(), max_size=2)),
            ),
            do_not_track=kind == "untracked",
            pre_dnat=kind == "pre-dnat",
            apply_on_forward=kind != "normal",
        )
        for kind, listed in kinds
    )
    return replace(found, tiers=(FIRST, *found.tiers), policies=first + found.policies)


def _of_sources(action: Action, *nets: str) -> tuple[Rule, ...]:
    return tuple(Rule(action, source=EntityRule(nets=(ip_network(net),))) for net in nets)


@cache
def _of_profile() -> st.SearchStrategy[tuple[Rule, ...]]:
    return st.one_of(st.lists(rules(), max_size=2).map(tuple), st.just((ALLOW,)))


def _of_any_kind(draw: st.DrawFn, policy: GlobalNetworkPolicy) -> GlobalNetworkPolicy:
    kind = draw(choice(("untracked", "untracked", "normal", "forward", "pre-dnat")))
    found = policy
    if kind != "untracked":
        found = replace(policy, do_not_track=False, apply_on_forward=kind != "normal")
    if kind == "pre-dnat":
        found = replace(found, types=("Ingress",), egress=(), pre_dnat=True)
    if found.do_not_track or draw(st.integers(0, 2)):
        return found
    last = (ALLOW,)
    return replace(
        found,
        ingress=found.ingress + last * ("Ingress" in found.types),
        egress=found.egress + last * ("Egress" in found.types),
    )


@cache
@st.composite
def spoken(draw: st.DrawFn, host: Host, *, most: int = 24) -> list[bytes]:
    """Frames of a conversation of one peer with the host, or through it where it forwards."""
    planned = draw(conversations(peer_only=True, ports=LISTENING, most=most))
    peer = draw(_EACH_PEER)
    to = draw(_EACH_SIDE) if host.forward else _HERE
    packets = [each.packet(peer, to) for each in planned]
    return [ethernet(packet, 0x0800 if packet[0] >> 4 == 4 else 0x86DD) for packet in packets]
