"""TrackedTable: the policy of one interface that acts after conntrack, compiled. Calico's normal, preDNAT and
applyOnForward policy, and profiles.

A host without workloads has these chains (``felix/rules/static.go``, ``endpoints.go``)::

    PRE_DNAT      mangle PREROUTING   preDNAT policy of the interface a packet came in by
    INPUT         filter INPUT        normal ingress policy of that interface, then its profiles
    OUTPUT        filter OUTPUT       normal egress policy of the interface it leaves by, then its profiles
    FORWARD_IN    filter FORWARD      applyOnForward ingress policy of the interface it came in by
    FORWARD_OUT   filter FORWARD      applyOnForward egress policy of the interface it leaves by

Evaluation of a chain, for one packet:

1. conntrack state ESTABLISHED or RELATED -> accept.
2. INVALID -> deny, if ``denies_invalid``.
3. A failsafe matches -> accept.
4. Tiers in order. Within a tier the first entry that matches decides: ALLOW accepts, DENY denies, PASS goes on with the
   next tier, LOG with the next entry. A packet that no entry matches is denied, if the tier's ``default`` is DENY.
5. ``profiles``, likewise; what one does not decide goes on with the next.
6. The end: ``end`` DENY denies; PASS leaves the packet to the host's own rules.

An interface of an endpoint without such policy has INPUT and OUTPUT chains that only end: Calico denies what no policy
or profile allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from enforcer.model.vocabulary import Action, Direction, Stage, Word
from enforcer.policy.resources import Failsafe
from enforcer.policy.ruletable import Entry, IpSet, PortSet


class Hook(Word):
    """Where a chain is evaluated."""

    PRE_DNAT = "mangle PREROUTING"
    INPUT = "filter INPUT"
    OUTPUT = "filter OUTPUT"
    FORWARD_IN = "filter FORWARD, received"
    FORWARD_OUT = "filter FORWARD, sent"

    @property
    def direction(self) -> Direction:
        """Seen from the interface whose policy it is."""
        return Direction.EGRESS if self in (Hook.OUTPUT, Hook.FORWARD_OUT) else Direction.INGRESS

    @property
    def stage(self) -> Stage:
        return _STAGES[self]


_STAGES = {
    Hook.PRE_DNAT: Stage.MANGLE,
    Hook.INPUT: Stage.FILTER_INPUT,
    Hook.OUTPUT: Stage.EGRESS,
    Hook.FORWARD_IN: Stage.FILTER_FORWARD,
    Hook.FORWARD_OUT: Stage.FILTER_FORWARD,
}


@dataclass(frozen=True)
class TierChain:
    """The policies of a tier that a chain evaluates, or a profile. ``default``: DENY or PASS, what becomes of a packet
    that no entry matches.
    """

    name: str
    entries: tuple[Entry, ...]
    default: Action = Action.DENY

    def end(self, direction: Direction) -> str:
        """What results call the drop of a packet that no entry matches."""
        return f"tier/{self.name} {direction} default"


@dataclass(frozen=True)
class TrackedChain:
    """The evaluation at one hook, in the order of the module's docstring. ``end``: DENY, or PASS."""

    hook: Hook
    tiers: tuple[TierChain, ...] = ()
    profiles: tuple[TierChain, ...] = ()
    failsafes: tuple[Failsafe, ...] = ()
    denies_invalid: bool = True
    end: Action = Action.PASS

    def entries(self) -> Iterator[Entry]:
        """All entries, in evaluation order."""
        for tier in (*self.tiers, *self.profiles):
            yield from tier.entries

    def names(self) -> Iterator[str]:
        """What can deny or match here, by the name that results print, in evaluation order."""
        if self.denies_invalid:
            yield self.invalid
        for tier in self.tiers:
            yield from (entry.name for entry in tier.entries)
            if tier.default is Action.DENY:
                yield tier.end(self.hook.direction)
        yield from (entry.name for profile in self.profiles for entry in profile.entries)
        if self.end is Action.DENY:
            yield self.no_profile

    @property
    def invalid(self) -> str:
        """What results call the drop of an INVALID packet."""
        return f"conntrack INVALID {self.hook.direction}"

    @property
    def no_profile(self) -> str:
        """What results call the drop of a packet that no policy and no profile allows."""
        return f"no profile {self.hook.direction}"


@dataclass(frozen=True)
class TrackedTable:
    """The chains of one interface that ``endpoint`` governs, in the order a packet meets their hooks.

    ``unsupported``: a sentence for each rule that matches on what cannot be expressed; such a table can be neither
    enforced nor predicted.
    """

    interface: str
    endpoint: str
    chains: tuple[TrackedChain, ...] = ()
    sets: Mapping[str, IpSet] = field(default_factory=dict)
    port_sets: Mapping[str, PortSet] = field(default_factory=dict)
    unsupported: tuple[str, ...] = ()

    def at(self, hook: Hook) -> TrackedChain | None:
        return next((chain for chain in self.chains if chain.hook is hook), None)
