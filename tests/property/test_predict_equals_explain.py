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
from tests.reach import reach
from tests.strategies import hosts, resources

CHOICES = (ModeChoice.RAW, ModeChoice.NATIVE, ModeChoice.NATIVE, ModeChoice.GENERIC, ModeChoice.OFFLOAD)

# Pairs of resources and a packet; the nightly profile has examples for many more.
LEAST_PAIRS = 200_000 if settings().max_examples >= 100_000 else 2_000

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


def test_predict_equals_explain() -> None:
    """On random captures, and on the packets that reach every entry."""
    pairs = 0

    @settings(max_examples=max(250, settings().max_examples), suppress_health_check=list(HealthCheck))
    @given(resources(), hosts(), st.sampled_from(CHOICES), captures(), st.integers(0, 9))
    def agree(policy: Resources, host: Host, choice: ModeChoice, others: list[bytes], seed: int) -> None:
        nonlocal pairs
        frames = [*reach(plan_for(policy, host, choice).table, host, seed).frames, *others]
        predicted, explained = both(policy, host, choice, frames)
        for number, frame in enumerate(frames):
            note(f"{number}: {frame.hex()}")
        assert predicted == explained
        pairs += len(frames)

    agree()
    assert pairs >= LEAST_PAIRS


def test_random_captures_end_everywhere() -> None:
    """What the property draws is worth its time: policy drops at every stage that enforces, and packets get through."""
    ends: Counter[object] = Counter()

    @settings(max_examples=500, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(resources(), hosts(), st.sampled_from(CHOICES), captures())
    def collect(policy: Resources, host: Host, choice: ModeChoice, others: list[bytes]) -> None:
        plan = plan_for(policy, host, choice)
        frames = [*reach(plan.table, host).frames, *others]
        for trace in Explainer(policy, host, mode=plan.mode).explain_capture(frames):
            end = trace.disposition
            ends[end.column] += 1
            ends[f"{end.column} by an entry"] += end.entry is not None

    collect()
    expected = {f"{stage} by an entry" for stage in ("nic-offload", "driver", "generic", "raw")}
    expected |= {"ip-input", "defrag", "raw", "route", "socket", "delivered", "forwarded"}
    assert not [end for end in sorted(expected) if not ends[end]], dict(ends)
