"""explain has a result for every frame: it never raises, always ends in a fate, and follows only edges of the graph."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dossim.model.disposition import Fate
from dossim.model.host import Host
from dossim.packet.cut import ETHERNET_LEAST
from dossim.packet.parse import parse
from dossim.pipeline.explain import Explainer, Trace
from dossim.pipeline.graph import START, pipeline_graph
from enforcer.model.vocabulary import Mode
from enforcer.policy.resources import Resources
from tests.support.examples import examples
from tests.support.frames import captures
from tests.support.strategies import hosts, resources

GRAPH = pipeline_graph()
MODES = st.sampled_from((None, *Mode))
# Random bytes after an IP ethertype get further than entirely random frames.
NOISE = st.one_of(
    st.binary(max_size=120),
    st.tuples(st.sampled_from((b"\x08\x00\x45", b"\x86\xdd\x60")), st.binary(max_size=120)).map(
        lambda parts: bytes(12) + parts[0] + parts[1]
    ),
)


def assert_total(trace: Trace) -> None:
    nodes = [hop.stage for hop in trace.hops]
    assert nodes[0] is START
    assert isinstance(nodes[-1], Fate)
    assert (nodes == [START, Fate.NOT_SENDABLE]) is (nodes[-1] is Fate.NOT_SENDABLE)
    assert nodes[-1] is Fate.NOT_SENDABLE or all(GRAPH.has_edge(*pair) for pair in pairwise(nodes))
    assert all(hop.looked_at and hop.result for hop in trace.hops[:-1])
    disposition = trace.disposition
    assert disposition.fate is nodes[-1]
    assert (disposition.stage is nodes[-2]) is (disposition.fate is Fate.DROPPED)
    assert disposition.entry is None or disposition.fate is Fate.DROPPED
    assert disposition.reason


@settings(suppress_health_check=list(HealthCheck))
@given(resources(), hosts(), MODES, captures())
def test_frames_of_any_kind(policy: Resources, host: Host, mode: Mode | None, frames: list[bytes]) -> None:
    for trace in Explainer(policy, host, mode=mode).explain_capture(frames):
        assert_total(trace)


@settings(max_examples=examples(300, nightly=10_000), suppress_health_check=list(HealthCheck))
@given(NOISE, hosts())
def test_noise(frame: bytes, host: Host) -> None:
    assert parse(frame).frame == frame
    is_short = len(frame) < ETHERNET_LEAST
    assert (Explainer(Resources(), host, mode=None).explain(frame).disposition.fate is Fate.NOT_SENDABLE) is is_short
    assert_total(Explainer(Resources(), host, mode=None).explain(frame))


@settings(max_examples=examples(50, nightly=10_000), suppress_health_check=list(HealthCheck))
@given(resources(), hosts(), MODES, captures(max_size=3), st.data())
def test_one_packet_of_a_capture_is_explained_as_with_all(
    policy: Resources, host: Host, mode: Mode | None, frames: list[bytes], data: st.DataObject
) -> None:
    number = data.draw(st.integers(0, len(frames) - 1))
    explainer = Explainer(policy, host, mode=mode)
    assert explainer.explain_packet_of(frames, number) == explainer.explain_capture(frames)[number]
