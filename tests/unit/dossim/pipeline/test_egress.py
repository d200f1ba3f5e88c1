"""Tracked policy of what the host sends, after raw OUTPUT."""

from __future__ import annotations

import pytest

from dossim.model.disposition import Fate
from dossim.pipeline.egress import SentExplainer
from enforcer.model.vocabulary import Action, Stage
from enforcer.policy.resources import Resources
from tests.support.frames import ME4, segment
from tests.unit.dossim.pipeline.tracked_support import (
    ALLOW,
    DENY,
    HOST,
    PEER,
    TCP,
    UDP,
    egress,
    endpoint,
    framed,
    given,
    rule,
)


def sent(protocol: int = TCP, port: int = 80) -> bytes:
    return framed(protocol, segment(protocol, ME4, PEER, (1024, port), b""), source=ME4, destination=PEER)


ALLOWED = given(egress("e", rule(Action.ALLOW, TCP, 80)))


@pytest.mark.parametrize(
    ("policy", "frame", "entry", "result"),
    [
        pytest.param(given(), sent(), "no profile egress", "N9: no policy and no profile allows it", id="no policy"),
        pytest.param(given(), sent(UDP, 53), None, "N3: failsafe udp/53 applies", id="a failsafe"),
        pytest.param(ALLOWED, sent(), None, "N5: gnp/e egress[0] allows it", id="an Allow"),
        pytest.param(ALLOWED, sent(port=81), "tier/default egress default",
                     "N6: end of tier default, defaultAction Deny", id="the port beside it"),
        pytest.param(given(egress("e", DENY)), sent(), "gnp/e egress[0]", "N5: gnp/e egress[0] denies it", id="a Deny"),
        pytest.param(given(of=endpoint(interface="eth1")), sent(), None,
                     "O6: no HostEndpoint governs the interface", id="no endpoint"),
    ],
)  # fmt: skip
def test_the_row_that_decides(policy: Resources, frame: bytes, entry: str | None, result: str) -> None:
    found = SentExplainer.of(policy, HOST, tracked=True).explain(frame)
    (hop,) = [hop for hop in found.hops if hop.stage is Stage.EGRESS]
    assert hop.result == result
    if entry is None:
        assert (found.disposition.fate, found.is_sent) == (Fate.FORWARDED, True)
    else:
        assert (found.disposition.fate, found.disposition.stage) == (Fate.DROPPED, Stage.EGRESS)
        assert (found.disposition.entry, found.is_sent) == (entry, False)


def test_conntrack_says_what_the_packet_is() -> None:
    found = SentExplainer.of(given(), HOST, tracked=True).explain(sent())
    assert [hop.result for hop in found.hops if hop.stage is Stage.CONNTRACK] == ["NEW: no entry"]


def test_an_untracked_allow_spares_the_packet_all_of_it() -> None:
    policy = given(egress("u", ALLOW, do_not_track=True), egress("e", DENY))
    found = SentExplainer.of(policy, HOST, tracked=True).explain(sent())
    assert found.disposition.fate is Fate.FORWARDED
    assert [hop.result for hop in found.hops if hop.stage is Stage.EGRESS] == [
        "accepted at once: it has the accept mark"
    ]


def test_without_the_switch_tracked_policy_drops_nothing() -> None:
    found = SentExplainer.of(given(egress("e", DENY)), HOST).explain(sent())
    assert found.disposition.fate is Fate.FORWARDED
    assert [hop.result for hop in found.hops if hop.stage is Stage.EGRESS] == ["passes"]
