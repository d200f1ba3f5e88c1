"""Hypothesis strategies for resources with tracked policy as well, and for conversations that meet it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from ipaddress import ip_network

from hypothesis import strategies as st

from dossim.model.host import Host
from enforcer.model.vocabulary import Action
from enforcer.policy.resources import EntityRule, GlobalNetworkPolicy, Resources, Rule, Tier
from tests.support.choices import Choices, built
from tests.support.conversations import conversations
from tests.support.frames import ME4, ME6, SOURCES4, SOURCES6, ethernet
from tests.support.strategies import resources_of, rule_of

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
def tracked_resources() -> st.SearchStrategy[Resources]:
    """Like ``resources()``, with policy of every kind and profiles with rules. Some allow what is left."""
    return built(_tracked, 304)


@cache
def resources_of_every_kind() -> st.SearchStrategy[Resources]:
    """Like :func:`tracked_resources`, with a tier before all others that has a policy of each kind.

    Each of these begins with deny lists that XDP can hold and that nothing comes before in their chains. No two list
    the same addresses, so that packets get to each of them; the one of forwarded packets allows the sources of no list.
    """
    return built(_of_every_kind, 376)


def _tracked(choices: Choices) -> Resources:
    found = resources_of(choices)
    felix = tuple(replace(one, disable_conntrack_invalid_check=choices.one_in(2)) for one in found.felix_configurations)
    profiles = tuple(replace(one, ingress=_of_profile(choices), egress=_of_profile(choices)) for one in found.profiles)
    policies = tuple(_of_any_kind(choices, one) for one in found.policies)
    return replace(found, policies=policies, profiles=profiles, felix_configurations=felix)


def _of_every_kind(choices: Choices) -> Resources:
    lists = zip(choices.shuffled(LISTS4), choices.shuffled(LISTS6), strict=True)
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
                *choices.some(partial(rule_of, choices), 0, 2),
            ),
            do_not_track=kind == "untracked",
            pre_dnat=kind == "pre-dnat",
            apply_on_forward=kind != "normal",
        )
        for kind, listed in kinds
    )
    found = _tracked(choices)
    return replace(found, tiers=(FIRST, *found.tiers), policies=first + found.policies)


def _of_sources(action: Action, *nets: str) -> tuple[Rule, ...]:
    return tuple(Rule(action, source=EntityRule(nets=(ip_network(net),))) for net in nets)


def _of_profile(choices: Choices) -> tuple[Rule, ...]:
    return tuple(choices.some(partial(rule_of, choices), 0, 2)) if choices.below(2) else (ALLOW,)


def _of_any_kind(choices: Choices, policy: GlobalNetworkPolicy) -> GlobalNetworkPolicy:
    kind = choices.of(("untracked", "untracked", "normal", "forward", "pre-dnat"))
    found = policy
    if kind != "untracked":
        found = replace(policy, do_not_track=False, apply_on_forward=kind != "normal")
    if kind == "pre-dnat":
        found = replace(found, types=("Ingress",), egress=(), pre_dnat=True)
    if found.do_not_track or choices.below(3):
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
