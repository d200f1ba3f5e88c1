"""What Python passes to the engine has the size that C gives it; each text of the engine is there once."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from dossim.engine.layout import LAYOUT
from dossim.engine.library import function
from dossim.engine.new_flows import BegunFlows
from dossim.engine.predictor import reasons
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.packet.offload import artefacts_of
from dossim.predict import predict
from dossim.predict.prediction import FATES, STAGES
from dossim.predict.world import reasons_of
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action, Backend
from enforcer.planning.plan import InterfacePlan
from enforcer.policy.ruletable import IpSet, RuleTable
from tests.support.entries import SideMatch, entry_of

LISTED = entry_of("listed", Action.DENY, source=SideMatch(ip_set="s:a"))


def test_structures_have_the_sizes_of_c() -> None:
    size = function("engine_size", [ctypes.c_uint32], ctypes.c_uint32)
    mine = [item.itemsize if isinstance(item, np.dtype) else ctypes.sizeof(item) for item in LAYOUT]
    assert mine == [size(number) for number in range(len(LAYOUT))]
    assert size(len(LAYOUT)) == 0


def test_reasons_are_distinct_and_complete_sentences_of_a_host() -> None:
    assert reasons()[0] == ""
    assert len(set(reasons())) == len(reasons())
    found = reasons_of(Host("jasper", mtu=1300, inside="behind"))
    assert len(found) == len(reasons())
    assert not [text for text in found if "{" in text or "}" in text]
    assert "larger than the MTU (1300) and not to be fragmented" in found
    assert "to another host, by behind" in found


def test_codes_of_fates_and_stages_are_those_of_c() -> None:
    """enum fate, enum stage of engine/predict.h."""
    assert [str(fate) for fate in FATES] == ["delivered", "forwarded", "dropped", "undetermined", "not-sendable"]
    assert [STAGES.index(stage) for stage in STAGES if stage in ("ip-input", "raw", "route", "socket")] == [
        4,
        6,
        10,
        13,
    ]


@pytest.mark.parametrize(("offset", "length"), [(-1, 40), (-(1 << 62), 40), (0, 1 << 30), (1 << 40, 40), (0, -4)])
def test_a_packet_outside_of_the_data_is_refused(offset: int, length: int) -> None:
    capture = Capture.from_frames([bytes(60), bytes(60)])
    object.__setattr__(capture, "offset", np.array([0, offset], np.int64))
    object.__setattr__(capture, "length", np.array([60, length], np.int32))
    nets = Nets.of(f"10.{number}.0.0/24" for number in range(200))  # enough for an index, which is looked up ahead
    table = RuleTable("eth0", "hep", (LISTED,), sets={"s:a": IpSet("s:a", "a", nets)})
    with pytest.raises(ValueError, match="packet 1 is not within the capture's data"):
        predict(capture, InterfacePlan(table, None, Backend.IPTABLES, ()), Host("jasper"))
    with pytest.raises(ValueError, match="packet 1 is not within the capture's data"):
        BegunFlows(nets, [], forward=False, tcp_loose=True).add(capture, np.ones(2, np.bool_))
    with pytest.raises(ValueError, match="packet 1 is not within the capture's data"):
        artefacts_of(capture)
