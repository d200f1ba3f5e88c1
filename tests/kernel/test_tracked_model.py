"""A drill with tracked policy that is not enforced: the kernel delivers what Calico would drop, and is right."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dossim.drill.run import drill_capture
from dossim.drill.situation import Situation, situation_for
from dossim.packet.capture import Capture
from dossim.report.json import as_dict
from dossim.report.view import view_of
from enforcer.model.choices import ModeChoice, TrackedChoice
from enforcer.model.vocabulary import Action, CtState
from enforcer.policy.resources import Resources
from tests.kernel.drill_support import assert_as_predicted
from tests.unit.dossim.pipeline.tracked_support import (
    TCP,
    UDP,
    given,
    ingress,
    pre_dnat,
    rule,
    tcp,
    udp,
    untracked,
)

pytestmark = pytest.mark.needs_root

POLICY = given(
    untracked("raw", rule(Action.DENY, UDP, 7)),
    pre_dnat("early", rule(Action.DENY, UDP, 8)),
    ingress("normal", rule(Action.DENY, UDP, 9), rule(Action.ALLOW, TCP, 80)),
)
FRAMES = [*(udp(port, sport=port + 1_000 * times) for port in (7, 8, 9, 10) for times in range(1, 6)), tcp(port=80)]


def situation(policy: Resources, tracked: TrackedChoice) -> Situation:
    found = situation_for(policy, capture=Capture.from_frames(FRAMES), choice=ModeChoice.RAW, interface="eth0")
    return replace(found, tracked=tracked)


def test_what_calico_would_drop_is_delivered_and_matched() -> None:
    result = drill_capture(Capture.from_frames(FRAMES), situation(POLICY, TrackedChoice.MODEL))
    assert_as_predicted(result)
    found = as_dict(view_of(result))
    assert {word: row["matched"] for word, row in found["stages"].items()} == {"raw": 5, "delivered": 16}
    states = {str(CtState.NEW): 16, "matched": 16, "differing": 0, "several": 0}
    assert found["states"] == states, "conntrack tracks what no chain of ours asks it of"
    assert (found["matched"], found["mismatched"]) == (21, 0)
    assert [row["entry"] for row in found["entries"]] == ["gnp/raw ingress[0]"]
    calico = found["calico"]
    assert calico["verified"] is False
    assert [(row["stage"], row["entry"], row["predicted"]) for row in calico["entries"]] == [
        ("mangle", "gnp/early ingress[0]", 5),
        ("filter-input", "gnp/normal ingress[0]", 5),
        ("filter-input", "tier/default ingress default", 5),
    ]


def test_the_enforced_policy_drops_just_these() -> None:
    result = drill_capture(Capture.from_frames(FRAMES), situation(POLICY, TrackedChoice.ENFORCE))
    assert_as_predicted(result)
    found = as_dict(view_of(result))
    assert {word: row["matched"] for word, row in found["stages"].items()} == {
        "raw": 5,
        "mangle": 5,
        "filter-input": 10,
        "delivered": 1,
    }
    assert found["calico"] is None
