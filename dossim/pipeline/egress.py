"""What raw OUTPUT does with a packet the host sends: untracked egress policy, hop by hop.

A short path apart from the graph, which is for received packets: ``raw`` (OUTPUT, -300), ``conntrack``, then ``egress``
for the rest. No XDP program sees sent packets, and no other stage of the model drops them.
"""

from __future__ import annotations

from dataclasses import dataclass

from dossim.model.disposition import Disposition, Fate
from dossim.model.host import Host
from dossim.packet.parse import parse
from dossim.pipeline.explain import Hop, Trace
from dossim.pipeline.hooks import describe, match_key_in_raw
from dossim.pipeline.policy import Decision, Policy, Verdict
from enforcer.model.errors import UsageError
from enforcer.model.vocabulary import Backend, Direction, Stage
from enforcer.policy.resources import Resources


@dataclass(frozen=True)
class SentExplainer:
    """Explains packets that leave by ``host.interface``. Raises UnsupportedRuleError for rules that untracked policy
    cannot have.
    """

    policy: Policy
    raw_backend: Backend = Backend.IPTABLES

    @classmethod
    def of(cls, resources: Resources, host: Host, raw_backend: Backend = Backend.IPTABLES) -> SentExplainer:
        addresses = [address.ip for address in host.addresses]
        return cls(
            Policy.of(
                resources, node=host.node, interface=host.interface, addresses=addresses, direction=Direction.EGRESS
            ),
            raw_backend,
        )

    def explain(self, frame: bytes) -> Trace:
        """One packet, given as the frame that would be sent. Raises UsageError if it is not IP."""
        ip = parse(frame).ip
        if ip is None:
            raise UsageError("not an IP packet: raw OUTPUT never sees it, so there is nothing to explain")
        key = match_key_in_raw(ip, self.raw_backend)
        decision = self.policy.decide(key)
        note = f"logged by {', '.join(decision.logged)}" if decision.logged else ""
        rule = decision.decided_by
        entry, position = (rule.name, rule.rule.position) if rule else (None, None)
        hop = Hop(Stage.RAW, describe(key), decision.why, entry, position, note)
        ended = _disposition(decision)
        return Trace(
            (hop, *self._behind_raw(decision), Hop(ended.fate, "", str(ended))),
            ended,
            is_sent=ended.fate is Fate.FORWARDED,
        )

    def _behind_raw(self, decision: Decision) -> tuple[Hop, ...]:
        match decision.verdict:
            case Verdict.DENY | Verdict.HOTDROP:
                return ()
            case Verdict.ALLOW:
                accepted = "accepted at once: it has the accept mark"
                return (
                    Hop(Stage.CONNTRACK, "connection table", "not tracked (NOTRACK in raw)"),
                    Hop(Stage.EGRESS, "filter OUTPUT", accepted),
                )
            case Verdict.GO_ON:
                return (
                    Hop(Stage.CONNTRACK, "connection table", "passes"),
                    Hop(Stage.EGRESS, "filter OUTPUT", "passes", note=self._not_modelled()),
                )

    def _not_modelled(self) -> str:
        asked = ", ".join(self.policy.tracked.get(Stage.EGRESS, ()))
        return f"Calico would evaluate {asked} here: tracked policy, not modelled" if asked else ""


def _disposition(decision: Decision) -> Disposition:
    """A packet that leaves counts as forwarded: it left the POSTROUTING hook."""
    if decision.verdict in (Verdict.DENY, Verdict.HOTDROP):
        entry = decision.decided_by.name if decision.decided_by else None
        return Disposition(Fate.DROPPED, Stage.RAW, entry, entry or decision.why)
    return Disposition(Fate.FORWARDED, reason="sent")
