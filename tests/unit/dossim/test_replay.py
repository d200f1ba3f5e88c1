"""How a packet of a drill is marked, and how many there can be."""

from __future__ import annotations

import pytest

from dossim.drill.run import drill_capture
from dossim.drill.situation import Situation
from dossim.lab.lab import PEER_MAC, VICTIM_MAC
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.replay import MOST_PACKETS, ScapySender, new_tag
from enforcer.model.choices import ModeChoice
from enforcer.model.errors import UsageError
from enforcer.policy.resources import Resources
from tests.support.frames import ethernet

FRAME = bytes.fromhex("001122334455 66778899aabb 0800") + b"as captured"


def test_the_source_address_holds_tag_and_number() -> None:
    sender = ScapySender(tag=0xD2A1B3, seen=lambda number: True)
    assert sender.build(MOST_PACKETS - 1, FRAME)[6:12].hex(":") == "d2:a1:b3:ff:ff:ff"
    assert sender.build(1, FRAME)[6:12].hex(":") == "d2:a1:b3:00:00:01"


@pytest.mark.parametrize(
    ("captured", "sent"),
    [("001122334455", VICTIM_MAC), ("ffffffffffff", "ff:ff:ff:ff:ff:ff"), ("01005e000001", "01:00:5e:00:00:01")],
    ids=["unicast", "broadcast", "multicast"],
)
def test_a_unicast_destination_becomes_the_victims(captured: str, sent: str) -> None:
    frame = bytes.fromhex(captured) + FRAME[6:]
    built = ScapySender(tag=0xD2A1B3, seen=lambda number: True).build(1, frame)
    assert (built[:6].hex(":"), built[12:]) == (sent, FRAME[12:])


def test_tags_are_many_and_of_no_address_of_the_lab() -> None:
    tags = {new_tag() for _ in range(1_000)}
    assert len(tags) > 990
    assert all(tag >> 16 & 0b11 == 0b10 for tag in tags), "locally administered, unicast"
    assert not tags & {int(address.replace(":", "")[:6], 16) for address in (PEER_MAC, VICTIM_MAC)}


def test_more_packets_than_there_are_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dossim.replay.MOST_PACKETS", 1)
    capture = Capture.from_frames([ethernet(b"", 0x0800)] * 2)
    with pytest.raises(UsageError, match="at most 1 packets, and the capture has 2: split it"):
        drill_capture(capture, Situation(Resources(), Host("jasper"), ModeChoice.RAW))
