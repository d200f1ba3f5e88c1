"""The chains that enforce tracked policy, as both backends of netfilter write them. Pure.

For each interface and hook there is a chain that goes through the steps of a
:class:`~enforcer.policy.tracked.TrackedChain`, and one below it for each tier and for the profiles. A backend turns
each step into rules of its own; the union :data:`Step` is closed.

**Deny** goes to ``enf-deny``, which sets the *drop* bit of the mark before it drops: the observer then sees that the
drop is ours. **Allow** is final where the allow action is Accept. Elsewhere it sets the *accept* bit and returns, and
the chain above returns as well: what follows in the built-in chain then decides, as after Calico's Return.

A forwarded packet that both of its interfaces allow goes on to the host's own rules: we deny, the host allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from enforcer.backends.netfilter.entries import unsupported
from enforcer.backends.netfilter.names import ChainKind, chain_name
from enforcer.backends.netfilter.settings import drop_bit
from enforcer.backends.netfilter.ways import FailsafeGroup, grouped_failsafes
from enforcer.model.errors import InternalError
from enforcer.model.vocabulary import Action, Backend, Side
from enforcer.policy.ruletable import Entry
from enforcer.policy.tracked import Hook, TierChain, TrackedChain, TrackedTable

DENY_CHAIN = "enf-deny"

# ICMPv6 that a host cannot do without: MLD, router and neighbour discovery. Conntrack does not track it
# (nf_conntrack_proto_icmpv6.c), so that no ESTABLISHED lets it pass.
DISCOVERY_TYPES = (130, 131, 132, 133, 134, 135, 136, 143)


class AllowAs(Enum):
    """What an Allow does: let the packet go, set the accept bit and let it go, or set the bit and return."""

    ACCEPT = "accept"
    MARK_AND_ACCEPT = "mark-accept"
    MARK_AND_RETURN = "mark-return"


@dataclass(frozen=True)
class AcceptKnown:
    """ESTABLISHED or RELATED; ``returns``: to the rules after ours, instead of letting it go."""

    returns: bool


@dataclass(frozen=True)
class DenyInvalid:
    """``name`` is what counters call it."""

    name: str


@dataclass(frozen=True)
class AcceptFailsafe:
    """``remote``: the side that the group's net is on."""

    group: FailsafeGroup
    remote: Side


@dataclass(frozen=True)
class ClearAccept:
    """The accept bit is clear from here on."""


@dataclass(frozen=True)
class Below:
    """Goes through another chain. ``returns_marked``: leave this one as well if that one has set the accept bit."""

    chain: str
    returns_marked: bool


@dataclass(frozen=True)
class EntryStep:
    """The rules of an entry."""

    entry: Entry
    allow: AllowAs


@dataclass(frozen=True)
class DenyRest:
    """Denies whatever gets here. ``name`` is what counters call it."""

    name: str


Step = AcceptKnown | DenyInvalid | AcceptFailsafe | ClearAccept | Below | EntryStep | DenyRest


def unknown_step(step: NoReturn) -> InternalError:
    """For the last case of a match on :data:`Step`: mypy names whoever forgets one."""
    return InternalError(f"no rule for {step}")


@dataclass(frozen=True)
class StepChain:
    name: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class AllowActions:
    """Whether an Allow is final, in the mangle and in the filter table (Calico's ...AllowAction: Accept or Return)."""

    mangle: bool = True
    filter: bool = True

    def at(self, hook: Hook) -> AllowAs:
        match hook:
            case Hook.PRE_DNAT:
                return AllowAs.MARK_AND_ACCEPT if self.mangle else AllowAs.MARK_AND_RETURN
            case Hook.INPUT | Hook.OUTPUT:
                return AllowAs.ACCEPT if self.filter else AllowAs.MARK_AND_RETURN
            case Hook.FORWARD_IN | Hook.FORWARD_OUT:
                return AllowAs.MARK_AND_RETURN


@dataclass(frozen=True)
class _Names:
    top: ChainKind
    tier: ChainKind
    profiles: ChainKind


_NAMES = {
    Hook.PRE_DNAT: _Names(ChainKind.PRE_DNAT, ChainKind.PRE_DNAT_TIER, ChainKind.PRE_DNAT_TIER),
    Hook.INPUT: _Names(ChainKind.INPUT, ChainKind.INPUT_TIER, ChainKind.INPUT_PROFILES),
    Hook.OUTPUT: _Names(ChainKind.OUTPUT, ChainKind.OUTPUT_TIER, ChainKind.OUTPUT_PROFILES),
    Hook.FORWARD_IN: _Names(ChainKind.FORWARD_IN, ChainKind.FORWARD_IN_TIER, ChainKind.FORWARD_IN_TIER),
    Hook.FORWARD_OUT: _Names(ChainKind.FORWARD_OUT, ChainKind.FORWARD_OUT_TIER, ChainKind.FORWARD_OUT_TIER),
}


def step_chains(table: TrackedTable, chain: TrackedChain, version: int, allow: AllowActions) -> list[StepChain]:
    """The chains of one interface at one hook, referred-to chains first, the one to dispatch to last."""
    names, way = _NAMES[chain.hook], allow.at(chain.hook)
    below = [
        StepChain(chain_name(names.tier, table.interface, tier.name), tuple(_tier(chain, tier, way)))
        for tier in chain.tiers
    ]
    below += [
        StepChain(chain_name(names.profiles, table.interface, item.name), tuple(_tier(chain, item, way)))
        for item in chain.profiles
    ]
    steps = tuple(_top(chain, [item.name for item in below], version, way))
    return [*below, StepChain(chain_name(names.top, table.interface), steps)]


def _tier(chain: TrackedChain, tier: TierChain, way: AllowAs) -> Iterator[Step]:
    for entry in tier.entries:
        yield EntryStep(entry, way)
    if tier.default is Action.DENY:
        yield DenyRest(tier.end(chain.hook.direction))


def _top(chain: TrackedChain, below: Sequence[str], version: int, way: AllowAs) -> Iterator[Step]:
    """In the order of :mod:`enforcer.policy.tracked`."""
    marks = way is AllowAs.MARK_AND_RETURN
    # What is forwarded is let go by ESTABLISHED even where an Allow is not final, as by Calico.
    yield AcceptKnown(returns=marks and chain.hook not in (Hook.FORWARD_IN, Hook.FORWARD_OUT))
    if chain.denies_invalid:
        yield DenyInvalid(chain.invalid)
    remote = Side.DESTINATION if chain.hook is Hook.OUTPUT else Side.SOURCE
    for group in grouped_failsafes(Side.DESTINATION, chain.failsafes, version):
        yield AcceptFailsafe(group, remote)
    if marks:
        yield ClearAccept()
    for name in below:
        yield Below(name, returns_marked=marks)
    if chain.end is Action.DENY:
        yield DenyRest(chain.no_profile)


def unsupported_tracked(tables: Sequence[TrackedTable], mark_mask: int, backend: Backend) -> Iterator[str]:
    """Why tracked policy cannot be enforced, a sentence for each fault."""
    if tables and not drop_bit(mark_mask):
        yield f"{backend} cannot enforce tracked policy: it needs two bits of the mark mask, which is {mark_mask:#x}"
    for table in tables:
        for chain in table.chains:
            for entry in chain.entries():
                yield from unsupported(entry, backend)
