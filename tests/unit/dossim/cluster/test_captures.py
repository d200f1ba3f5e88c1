"""Real captures: in any number of shards each packet ends as in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from dossim.drill.situation import situation_for
from dossim.packet.capture import read_capture
from enforcer.model.choices import TrackedChoice
from enforcer.policy.load import load
from tests.support.sharded import Inline, ends_in_shards, in_one, sharded

ROOT = Path(__file__).parents[4]
POLICY = ROOT / "scenarios" / "policies" / "how-to.yaml"


@pytest.mark.slow
@pytest.mark.parametrize("tracked", TrackedChoice, ids=str)
@pytest.mark.parametrize(
    "name",
    [
        "amp.TCP.syn.optionallyACK.optionallysamePort.pcapng",
        "amp.UDP.isakmp.pcap",
        "amp.UDP.snmp.src161.pcapng",
        "amp.dns.RRSIG.fragmented.pcap",
        "pkt.TCP.synflood.spoofed.pcap",
    ],
)
def test_the_same_packet_by_packet(captures: Path, name: str, tracked: TrackedChoice) -> None:
    path = captures / name
    situation = situation_for(load([POLICY]), capture=read_capture(path), tracked=tracked)
    one = in_one([path], situation)
    for count in (2, 64):
        found = sharded(Inline(), [path], situation, count, counts_flows=True)
        assert ends_in_shards(found) == one.ends
        assert (found.totals, found.flows) == (one.totals, one.flows)
