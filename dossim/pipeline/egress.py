"""What becomes of a packet the host sends: untracked and tracked egress policy, hop by hop.

A short path apart from the graph, which is for received packets: ``raw`` (OUTPUT, -300), ``conntrack``, then ``egress``
for filter OUTPUT and the rest. No XDP program sees sent packets, and no other stage of the model drops them.
"""

from __future__ import annotations

from dataclasses import dataclass

from dossim.model.disposition import Disposition, Fate
from dossim.model.host import Host
from dossim.packet.fields import IP
from dossim.packet.parse import parse
from dossim.pipeline.conntrack.sentences import describe as describe_state
from dossim.pipeline.conntrack.table import Conntrack
from dossim.pipeline.explain import Hop, Trace
from dossim.pipeline.hooks import describe
from dossim.pipeline.match_key import MatchKey, match_key_in_raw
from dossim.pipeline.policy import Decision, Policy, Verdict
from dossim.pipeline.tracked import TrackedPolicy
from enforcer.model.errors import UsageError
from enforcer.model.vocabulary import Backend, Direction, Stage
from enforcer.policy.resources import Resources

# A packet that leaves counts as forwarded: it left the POSTROUTING hook.
_SENT = Disposition(Fate.FORWARDED, reason="sent")


@dataclass(frozen=True)
class SentExplainer:
    """Explains packets that leave by ``host.interface``, each as the first of its connection. Raises
    UnsupportedRuleError for rules that match on what a packet does not show. ``tracked`` None: tracked policy takes no
    part.
    """

    policy: Policy
    host: Host
    raw_backend: Backend = Backend.IPTABLES
    tracked: TrackedPolicy | None = None

    @classmethod
    def of(
        cls, resources: Resources, host: Host, raw_backend: Backend = Backend.IPTABLES, *, tracked: bool = False
    ) -> SentExplainer:
        addresses = [address.ip for address in host.addresses]
        return cls(
            Policy.of(
                resources, node=host.node, interface=host.interface, addresses=addresses, direction=Direction.EGRESS
            ),
            host,
            raw_backend,
            TrackedPolicy.of(resources, host) if tracked else None,
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
        hops, ended = self._after_raw(ip, key, decision)
        return Trace((hop, *hops, Hop(ended.fate, "", str(ended))), ended, is_sent=ended.fate is Fate.FORWARDED)

    def _after_raw(self, ip: IP, key: MatchKey, decision: Decision) -> tuple[tuple[Hop, ...], Disposition]:
        match decision.verdict:
            case Verdict.DENY | Verdict.HOTDROP:
                entry = decision.decided_by.name if decision.decided_by else None
                return (), Disposition(Fate.DROPPED, Stage.RAW, entry, entry or decision.why)
            case Verdict.ALLOW:
                accepted = "accepted at once: it has the accept mark"
                return (
                    Hop(Stage.CONNTRACK, "connection table", "not tracked (NOTRACK in raw)"),
                    Hop(Stage.EGRESS, "filter OUTPUT", accepted),
                ), _SENT
            case Verdict.GO_ON if self.tracked is not None:
                return self._in_filter(ip, key, self.tracked)
            case Verdict.GO_ON:
                return (
                    Hop(Stage.CONNTRACK, "connection table", "passes"),
                    Hop(Stage.EGRESS, "filter OUTPUT", "passes"),
                ), _SENT

    def _in_filter(self, ip: IP, key: MatchKey, tracked: TrackedPolicy) -> tuple[tuple[Hop, ...], Disposition]:
        said = Conntrack(self.host).sent(ip, 0)
        assert said.state is not None, "of the first packet of a flow one state is possible"
        found = tracked.output(key, said.state, marked=False)
        logged = f"logged by {', '.join(found.logged)}" if found.logged else ""
        position = found.rule.rule.position if found.rule is not None else None
        hops = (
            Hop(Stage.CONNTRACK, "connection table", describe_state(said)),
            Hop(Stage.EGRESS, f"filter OUTPUT: {describe(key)}", str(found), found.entry, position, logged),
        )
        if found.denies:
            return hops, Disposition(Fate.DROPPED, Stage.EGRESS, found.entry, found.entry or found.why)
        return hops, _SENT
