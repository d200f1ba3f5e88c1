"""The two witnesses that need no kernel, with tracked policy: ``predict`` on the compiled tables, ``explain`` on the
resources.
"""

from __future__ import annotations

from collections.abc import Sequence

from dossim.model.disposition import Disposition, Fate
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.pipeline.explain import Explainer
from dossim.predict import Tables, predict
from enforcer.model.choices import ModeChoice, RawChoice
from enforcer.model.vocabulary import Stage
from enforcer.policy.compile import compile_table, compile_tracked
from enforcer.policy.resources import Resources
from tests.support.witnesses import plan_for

Frames = Sequence[bytes]


def tables_of(policy: Resources, host: Host) -> Tables:
    addresses = [address.ip for address in host.addresses]
    return Tables(
        compile_tracked(policy, node=host.node, interface=host.interface, addresses=addresses),
        compile_tracked(policy, node=host.node, interface=host.inside),
    )


def predicted(
    policy: Resources, host: Host, choice: ModeChoice, frames: Frames, raw: RawChoice = RawChoice.IPTABLES
) -> list[Disposition]:
    tables = tables_of(policy, host)
    inside = compile_table(policy, node=host.node, interface=host.inside)
    found = predict(Capture.from_frames(frames), plan_for(policy, host, choice, raw), host, tables, inside)
    return [found.disposition(number) for number in range(len(frames))]


def explained(
    policy: Resources, host: Host, choice: ModeChoice, frames: Frames, raw: RawChoice = RawChoice.IPTABLES
) -> list[Disposition]:
    plan = plan_for(policy, host, choice, raw)
    explainer = Explainer(policy, host, mode=plan.mode, raw_backend=plan.raw_backend, tracked=True)
    return [trace.disposition for trace in explainer.explain_capture(frames)]


def differences(one: Sequence[Disposition], other: Sequence[Disposition]) -> list[str]:
    """Where the witnesses disagree on the same frames: the possible ends, with the entry of each."""
    return [
        f"packet {number}: {a}; {b}"
        for number, (a, b) in enumerate(zip(one, other, strict=True))
        if _with_entries(a) != _with_entries(b)
    ]


def _with_entries(end: Disposition) -> frozenset[tuple[Fate, Stage | None, str | None]]:
    return frozenset((one.fate, one.stage, one.entry) for one in (end, *end.others))
