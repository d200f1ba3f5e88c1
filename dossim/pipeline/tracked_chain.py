"""One chain of tracked policy for one packet: the policy of one endpoint, at one hook and in one direction.

``felix/rules/endpoints.go`` (``endpointIptablesChain``), in its order. Results name the row that decided, as
docs/packet-fates.md numbers them: M preDNAT policy, N normal policy, W applyOnForward policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dossim.packet.fields import ICMPV6
from dossim.pipeline.applicable import NamedRule
from dossim.pipeline.match_key import MatchKey
from dossim.pipeline.matching import Answer, failsafe_matches, rule_matches
from dossim.pipeline.policy import describe_failsafe, hotdrop_reason
from dossim.pipeline.selection import Selection
from enforcer.model.vocabulary import Action, CtState, Direction, Word
from enforcer.policy.resources import Failsafe

# What conntrack itself never tracks: MLD, router and neighbour discovery (nf_conntrack_proto_icmpv6.c).
NEIGHBOUR_TYPES = frozenset({130, 131, 132, 133, 134, 135, 136, 143})
KNOWN = (CtState.ESTABLISHED, CtState.RELATED)
_PRE_DNAT_ROWS = {1: "3a", 2: "3b", 3: "3c", 5: "3d", 9: "3e"}


class Kind(Word):
    """What a chain is part of. The value is the letter of its rows."""

    PRE_DNAT = "M"
    NORMAL = "N"
    FORWARD = "W"


class Verdict(Word):
    """ACCEPT and DENY end the table. RETURN: the caller goes on, with the accept mark set or not."""

    ACCEPT = "accept"
    DENY = "deny"
    RETURN = "return"


@dataclass(frozen=True)
class Decision:
    """``marked``: the accept mark afterwards. ``entry`` is what results call a denial, by a rule or by the chain's own
    rows; None if a packet too short to be evaluated is dropped. ``rule``: the rule that decided, if one did.
    """

    verdict: Verdict
    row: str
    why: str
    marked: bool = False
    entry: str | None = None
    rule: NamedRule | None = None
    logged: tuple[str, ...] = ()

    @property
    def denies(self) -> bool:
        return self.verdict is Verdict.DENY

    def __str__(self) -> str:
        return f"{self.row}: {self.why}"


@dataclass(frozen=True)
class TierRules:
    """The rules of the policies of one tier that take part in the chain; there is at least one such policy.
    ``default``: what becomes of a packet that none of them decides, Deny or Pass.
    """

    name: str
    rules: tuple[NamedRule, ...]
    default: Action


@dataclass(frozen=True)
class ProfileRules:
    """``rules`` None: the endpoint names a profile that does not exist, which Felix makes one that denies everything
    (``active_rules_calculator.go``: DummyDropRules).
    """

    name: str
    rules: tuple[NamedRule, ...] | None


@dataclass(frozen=True)
class Chain:
    """``failsafes`` are those of the direction, by destination port only: raw alone has them by source port.
    ``by_default`` is for FORWARD: the endpoint has no applyOnForward policy of either direction.
    """

    kind: Kind
    direction: Direction
    tiers: tuple[TierRules, ...]
    selection: Selection
    profiles: tuple[ProfileRules, ...] = ()
    failsafes: tuple[Failsafe, ...] = ()
    denies_invalid: bool = True
    by_default: bool = False

    def decide(self, key: MatchKey, state: CtState) -> Decision:
        found = self._by_state(key, state) or self._by_failsafe(key)
        if found is not None:
            return found
        logged: list[str] = []
        found = self._by_tiers(key, logged) or self._by_profiles(key, logged) or self._end()
        return replace(found, logged=tuple(logged))

    def _by_state(self, key: MatchKey, state: CtState) -> Decision | None:
        if self.kind is Kind.NORMAL and state is CtState.UNTRACKED and _is_neighbour(key):
            return Decision(Verdict.ACCEPT, "N0", "neighbour discovery and MLD, which conntrack does not track")
        if state in KNOWN:
            return Decision(Verdict.ACCEPT, self._row(1), "RELATED or ESTABLISHED")
        if state is CtState.INVALID and self.denies_invalid:
            why = "INVALID" if self.kind is Kind.FORWARD else "INVALID, before failsafes"
            return Decision(Verdict.DENY, self._row(2), why, entry=f"conntrack INVALID {self.direction}")
        return None

    def _by_failsafe(self, key: MatchKey) -> Decision | None:
        for failsafe in self.failsafes:
            what = describe_failsafe(failsafe, self.direction)
            match failsafe_matches(failsafe, key, direction=self.direction, answers=False):
                case Answer.YES:
                    return Decision(Verdict.ACCEPT, self._row(3), f"{what} applies")
                case Answer.HOTDROP:
                    return self._too_short(3, what, key)
        return None

    def _by_tiers(self, key: MatchKey, logged: list[str]) -> Decision | None:
        for tier in self.tiers:
            found = self._first(tier.rules, key, 5, logged)
            if isinstance(found, Decision):
                return found
            if not found and tier.default is Action.DENY and self.kind is not Kind.PRE_DNAT:
                why = f"end of tier {tier.name}, defaultAction Deny"
                entry = f"tier/{tier.name} {self.direction} default"
                return Decision(Verdict.DENY, self._row(6), why, entry=entry)
        return None

    def _by_profiles(self, key: MatchKey, logged: list[str]) -> Decision | None:
        for profile in self.profiles:
            if profile.rules is None:
                entry = f"profile/{profile.name} {self.direction}: no such profile"
                return Decision(Verdict.DENY, self._row(8), f"profile {profile.name} does not exist", entry=entry)
            found = self._first(profile.rules, key, 8, logged)
            if isinstance(found, Decision):
                return found
        return None

    def _first(self, rules: Sequence[NamedRule], key: MatchKey, row: int, logged: list[str]) -> Decision | bool:
        """The decision of the first rule that decides; else whether one has passed the packet on."""
        for item in rules:
            answer = rule_matches(item.rule, key, self.selection)
            if answer is Answer.HOTDROP:
                return self._too_short(row, item.name, key)
            if answer is Answer.NO:
                continue
            match item.rule.action:
                case Action.ALLOW:
                    why = f"{item.name} allows it"
                    return Decision(Verdict.RETURN, self._row(row), why, True, item.name, item)
                case Action.DENY:
                    return Decision(Verdict.DENY, self._row(row), f"{item.name} denies it", False, item.name, item)
                case Action.PASS:
                    return True
                case Action.LOG:
                    logged.append(item.name)
        return False

    def _end(self) -> Decision:
        match self.kind:
            case Kind.PRE_DNAT:
                return Decision(Verdict.RETURN, self._row(9), "no preDNAT policy decides")
            case Kind.FORWARD if self.by_default:
                return Decision(Verdict.RETURN, self._row(7), "no applyOnForward policy: allowed by default", True)
            case Kind.FORWARD:
                return Decision(Verdict.RETURN, self._row(9), f"no applyOnForward {self.direction} policy decides")
            case Kind.NORMAL:
                entry = f"no profile {self.direction}"
                return Decision(Verdict.DENY, self._row(9), "no policy and no profile allows it", entry=entry)

    def _too_short(self, row: int, what: str, key: MatchKey) -> Decision:
        why = f"{what} cannot be evaluated: {hotdrop_reason(key.transport)}"
        return Decision(Verdict.DENY, self._row(row), why)

    def _row(self, number: int) -> str:
        return f"{self.kind}{_PRE_DNAT_ROWS[number] if self.kind is Kind.PRE_DNAT else number}"


def _is_neighbour(key: MatchKey) -> bool:
    transport = key.transport
    if key.version != 6 or transport is None or transport.protocol != ICMPV6 or transport.fragment_offset:
        return False
    return len(transport.buf) > 0 and transport.buf[0] in NEIGHBOUR_TYPES
