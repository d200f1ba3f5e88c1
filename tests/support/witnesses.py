"""The two witnesses that need no kernel, with one interface; and the rule that XDP and netdev only accelerate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dossim.model.disposition import Disposition, Fate
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.pipeline.explain import Explainer
from dossim.predict import predict
from enforcer.model.choices import ModeChoice, RawChoice
from enforcer.model.facts import HostFacts, InterfaceFacts, Probe
from enforcer.model.vocabulary import STAGE_OF_MODE, Answer, Backend, Mode, Stage
from enforcer.planning.plan import InterfacePlan, make_plan
from enforcer.policy.compile import compile_table
from enforcer.policy.resources import Resources
from enforcer.policy.ruletable import RuleTable

EARLY = frozenset(STAGE_OF_MODE[mode] for mode in Mode) | {Stage.NETDEV_INGRESS}
BEFORE_RAW = frozenset({Stage.IP_INPUT, Stage.DEFRAG})

Frames = Sequence[bytes]


def table_of(policy: Resources, host: Host) -> RuleTable:
    addresses = [address.ip for address in host.addresses]
    return compile_table(policy, node=host.node, interface=host.interface, addresses=addresses)


def plan_for(
    policy: Resources,
    host: Host,
    choice: ModeChoice,
    raw: RawChoice = RawChoice.IPTABLES,
    *,
    netdev: bool = False,
) -> InterfacePlan:
    """The plan for a host whose interface supports everything."""
    modes = {mode: Probe(Answer.YES) for mode in Mode}
    addresses = tuple(address.ip for address in host.addresses)
    facts = HostFacts(
        host.node,
        interfaces=(InterfaceFacts(host.interface, addresses=addresses, modes=modes),),
        backends={Backend.IPTABLES: Probe(Answer.YES)},
    )
    felix = policy.felix_for(host.node)
    plan = make_plan([table_of(policy, host)], facts, felix=felix, choice=choice, raw=raw, netdev=netdev)
    backend = Backend.NFTABLES if raw is RawChoice.NFTABLES else Backend.IPTABLES
    return plan.interface(host.interface) or InterfacePlan(RuleTable(host.interface), None, backend, ())


def explained(
    policy: Resources,
    host: Host,
    choice: ModeChoice,
    frames: Frames,
    raw: RawChoice = RawChoice.IPTABLES,
    *,
    netdev: bool = False,
) -> list[Disposition]:
    plan = plan_for(policy, host, choice, raw, netdev=netdev)
    explainer = Explainer(policy, host, mode=plan.mode, raw_backend=plan.raw_backend, netdev=plan.netdev)
    return [trace.disposition for trace in explainer.explain_capture(frames)]


def predicted(
    policy: Resources,
    host: Host,
    choice: ModeChoice,
    frames: Frames,
    raw: RawChoice = RawChoice.IPTABLES,
    *,
    netdev: bool = False,
) -> list[Disposition]:
    prediction = predict(Capture.from_frames(frames), plan_for(policy, host, choice, raw, netdev=netdev), host)
    return [prediction.disposition(number) for number in range(len(frames))]


def differences(one: Sequence[Disposition], other: Sequence[Disposition]) -> list[str]:
    """Where two witnesses disagree on the same frames: fate, stage or entry."""
    return [
        f"packet {number}: {a}; {b}"
        for number, (a, b) in enumerate(zip(one, other, strict=True))
        if not a.agrees(b) or a.entry != b.entry
    ]


def breaches(
    early: Sequence[Disposition], raw: Sequence[Disposition], alone: Sequence[Disposition] | None = None
) -> list[str]:
    """Where XDP does more than accelerate. Parameters: the fates of the frames with XDP, without XDP, and without the
    frames that XDP drops.

    What XDP drops, raw drops by the same entry, or the kernel before raw. All other packets end as they would without
    XDP if the dropped ones had never arrived (``alone``). ``alone`` differs from ``raw`` only for fragments: without
    its overlapping fragment, a datagram can be reassembled.
    """
    later = those_left(early)
    found = [
        f"packet {number}: {with_xdp} with XDP, {without} without"
        for number, (with_xdp, without) in enumerate(zip(early, raw, strict=True))
        if with_xdp.stage in EARLY and not _accelerated(with_xdp, without)
    ]
    return found + differences([early[number] for number in later], alone or [raw[number] for number in later])


def those_left(early: Sequence[Disposition]) -> list[int]:
    """The numbers of the frames that XDP does not drop."""
    return [number for number, end in enumerate(early) if end.stage not in EARLY]


def _accelerated(early: Disposition, raw: Disposition) -> bool:
    by_the_same = raw.stage is Stage.RAW and raw.entry == early.entry
    return raw.fate is Fate.DROPPED and (raw.stage in BEFORE_RAW or by_the_same)


def breaches_of(
    decide: Callable[[ModeChoice, Frames], list[Disposition]], choice: ModeChoice, frames: Frames
) -> list[str]:
    """As :func:`breaches`, with a witness evaluated once with XDP and twice without."""
    early, raw = decide(choice, frames), decide(ModeChoice.RAW, frames)
    return breaches(early, raw, decide(ModeChoice.RAW, [frames[number] for number in those_left(early)]))
