"""explain with tracked policy: total, never earlier than conntrack, and the same for one packet as for the capture."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dossim.model.disposition import Fate
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.packet.cut import on_wire
from dossim.pipeline.explain import Explainer
from dossim.pipeline.related import related
from enforcer.model.vocabulary import Stage
from enforcer.policy.resources import HostEndpoint, Profile, Resources
from tests.property.test_explain_is_total import assert_total
from tests.support.examples import examples
from tests.support.frames import captures
from tests.support.strategies import hosts
from tests.support.tracked_strategies import ALLOW, tracked_resources

AFTER = {Stage.MANGLE, Stage.NAT, Stage.ROUTE, Stage.FILTER_INPUT, Stage.FILTER_FORWARD, Stage.SOCKET, Stage.EGRESS}


@st.composite
def cut_captures(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    """Frames, some of them more than once, and the same with some of them cut."""
    frames = draw(captures())
    frames += draw(st.lists(st.sampled_from(frames), max_size=4)) if frames else []
    lengths = [draw(st.sampled_from((len(frame), len(frame), 60, 42, 36, 20))) for frame in frames]
    return frames, [on_wire(frame[:length], len(frame)) for frame, length in zip(frames, lengths, strict=True)]


@settings(max_examples=examples(60, nightly=20_000), suppress_health_check=list(HealthCheck))
@given(tracked_resources(), hosts(), captures())
def test_it_answers_for_every_frame(policy: Resources, host: Host, frames: list[bytes]) -> None:
    for trace in Explainer(policy, host, mode=None, tracked=True).explain_capture(frames):
        assert_total(trace)


@settings(max_examples=examples(60, nightly=20_000), suppress_health_check=list(HealthCheck))
@given(tracked_resources(), hosts(), cut_captures())
def test_stages_before_conntrack_decide_as_without_it(
    policy: Resources, host: Host, both: tuple[list[bytes], list[bytes]]
) -> None:
    _, frames = both
    without = Explainer(policy, host, mode=None).explain_capture(frames)
    found = Explainer(policy, host, mode=None, tracked=True).explain_capture(frames)
    for one, other in zip(found, without, strict=True):
        if other.disposition.fate is Fate.DROPPED and other.disposition.stage not in AFTER:
            assert one == other
        elif one.disposition != other.disposition:
            assert other.disposition.stage is None or other.disposition.stage in AFTER


@settings(max_examples=examples(60, nightly=20_000), suppress_health_check=list(HealthCheck))
@given(hosts(), captures())
def test_what_allows_everything_changes_nothing(host: Host, frames: list[bytes]) -> None:
    """A profile that allows all, and INVALID packets let through."""
    every = HostEndpoint("all", node=host.node, interface_name="*", profiles=("all",))
    felix = replace(Resources().felix_for(host.node), disable_conntrack_invalid_check=True)
    policy = Resources(
        host_endpoints=(every,), profiles=(Profile("all", ingress=(ALLOW,), egress=(ALLOW,)),),
        felix_configurations=(replace(felix, failsafe_inbound=(), written=frozenset({"failsafe_inbound"})),),
    )  # fmt: skip
    without = Explainer(Resources(), host, mode=None).explain_capture(frames)
    found = Explainer(policy, host, mode=None, tracked=True).explain_capture(frames)
    assert [one.disposition.ends for one in found] == [other.disposition.ends for other in without]


@settings(max_examples=examples(100, nightly=10_000), suppress_health_check=list(HealthCheck))
@given(tracked_resources(), hosts(), captures(max_size=8))
def test_one_packet_of_a_capture_is_explained_as_in_it(policy: Resources, host: Host, frames: list[bytes]) -> None:
    explainer = Explainer(policy, host, mode=None, tracked=True)
    whole = explainer.explain_capture(frames)
    capture = Capture.from_frames(frames)
    for number, expected in enumerate(whole):
        kept = related(capture, number, tracked=True)
        found = explainer.explain_packet_of([frames[index] for index in kept], kept.index(number))
        assert found.disposition == expected.disposition


@settings(max_examples=examples(150, nightly=50_000), suppress_health_check=list(HealthCheck))
@given(tracked_resources(), hosts(), cut_captures())
def test_what_is_said_of_cut_packets_is_true_of_whole_ones(
    policy: Resources, host: Host, both: tuple[list[bytes], list[bytes]]
) -> None:
    frames, cut = both
    explainer = Explainer(policy, host, mode=None, tracked=True)
    order = list(Stage)
    for whole, found in zip(explainer.explain_capture(frames), explainer.explain_capture(cut), strict=True):
        end = found.disposition
        if end.fate is not Fate.UNDETERMINED:
            assert whole.disposition.ends <= end.ends
            continue
        assert end.stage is not None
        ends = [stage for _, stage in whole.disposition.ends if stage is not None]
        assert all(order.index(stage) >= order.index(end.stage) for stage in ends)
