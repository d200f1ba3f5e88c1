"""Two witnesses agree: ``predict`` on the compiled RuleTable, ``explain`` on the resources, packet by packet.

They share the kernel's part for odd packets; the policy's part is written twice, and this is where a bug of the
compiler, the planner or the vectorised code would show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from dossim.disposition import Fate
from dossim.host import Host
from dossim.packet.capture import Capture
from dossim.pipeline import Explainer
from dossim.predict import predict
from enforcer.facts import HostFacts, InterfaceFacts, Probe
from enforcer.mode import ModeChoice
from enforcer.plan import InterfacePlan, make_plan
from enforcer.policy.compile import compile_table
from enforcer.policy.resources import Resources
from enforcer.policy.ruletable import RuleTable
from enforcer.words import Answer, Backend, Mode
from tests.frames import captures
from tests.strategies import hosts, resources

CHOICES = (ModeChoice.RAW, ModeChoice.NATIVE, ModeChoice.NATIVE, ModeChoice.GENERIC, ModeChoice.OFFLOAD)

Row = tuple[Fate, object, str | None]


def plan_for(policy: Resources, host: Host, choice: ModeChoice) -> InterfacePlan:
    """The plan on a host whose interface can do everything."""
    addresses = [address.ip for address in host.addresses]
    table = compile_table(policy, node=host.node, interface=host.interface, addresses=addresses)
    modes = {mode: Probe(Answer.YES) for mode in Mode}
    facts = HostFacts(
        host.node,
        interfaces=(InterfaceFacts(host.interface, addresses=tuple(addresses), modes=modes),),
        backends={Backend.IPTABLES: Probe(Answer.YES)},
    )
    plan = make_plan([table], facts, felix=policy.felix_for(host.node), choice=choice)
    return plan.interface(host.interface) or InterfacePlan(RuleTable(host.interface), None, Backend.IPTABLES, ())


def both(policy: Resources, host: Host, choice: ModeChoice, frames: Sequence[bytes]) -> tuple[list[Row], list[Row]]:
    plan = plan_for(policy, host, choice)
    prediction = predict(Capture.from_frames(frames), plan, host)
    predicted = [prediction.disposition(number) for number in range(len(frames))]
    explained = [trace.disposition for trace in Explainer(policy, host, mode=plan.mode).explain_capture(frames)]
    return [(d.fate, d.stage, d.entry) for d in predicted], [(d.fate, d.stage, d.entry) for d in explained]


# Some eight packets an example: thousands of (policy, packet) pairs in a few seconds; nightly, as many as its profile
# says.
@settings(max_examples=max(400, settings().max_examples), suppress_health_check=list(HealthCheck))
@given(resources(), hosts(), st.sampled_from(CHOICES), captures())
def test_predict_equals_explain(policy: Resources, host: Host, choice: ModeChoice, frames: list[bytes]) -> None:
    predicted, explained = both(policy, host, choice, frames)
    for number, frame in enumerate(frames):
        note(f"{number}: {frame.hex()}")
    assert predicted == explained


def test_random_captures_end_everywhere() -> None:
    """What the property draws is worth its time: policy drops at every stage that enforces, and packets get through."""
    ends: Counter[object] = Counter()

    @settings(max_examples=300, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(resources(), hosts(), st.sampled_from(CHOICES), captures())
    def collect(policy: Resources, host: Host, choice: ModeChoice, frames: list[bytes]) -> None:
        plan = plan_for(policy, host, choice)
        for trace in Explainer(policy, host, mode=plan.mode).explain_capture(frames):
            end = trace.disposition
            ends[end.column] += 1
            ends[f"{end.column} by an entry"] += end.entry is not None

    collect()
    expected = {f"{stage} by an entry" for stage in ("nic-offload", "driver", "generic", "raw")}
    expected |= {"ip-input", "defrag", "raw", "route", "socket", "delivered", "forwarded"}
    assert not [end for end in sorted(expected) if not ends[end]], dict(ends)
