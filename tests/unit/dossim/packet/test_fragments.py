"""Which packets are fragments of one datagram, and that every frame has a summary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from dossim.packet.capture import Capture
from dossim.packet.fragments import datagram_keys, widest_datagram
from dossim.packet.summary import summary

E = Ether(dst="06:00:00:00:00:01", src="02:00:00:00:00:00")


def four(ident: int, *, frag: int = 0, more: bool = True, src: str = "203.0.113.7") -> Packet:
    return E / IP(src=src, dst="10.10.10.10", id=ident, frag=frag, flags="MF" if more else 0, proto=17) / Raw(bytes(24))


def six(ident: int, *, size: int = 24, more: bool = True) -> Packet:
    fragment = IPv6ExtHdrFragment(id=ident, m=int(more), nh=17)
    return E / IPv6(src="2001:db8::7", dst="fd00::10") / IPv6ExtHdrHopByHop() / fragment / Raw(bytes(size))


def keys(*packets: Packet) -> dict[int, object]:
    return dict(datagram_keys(Capture.from_frames([bytes(packet) for packet in packets])))


def test_fragments_of_one_datagram_share_a_key() -> None:
    found = keys(four(1), four(2), four(1, frag=3, more=False))
    assert found[0] == found[2] != found[1]


def test_whole_packets_have_none() -> None:
    assert keys(four(1, more=False), E / IPv6(src="2001:db8::7", dst="fd00::10") / Raw(b"x")) == {}


def test_the_source_tells_datagrams_apart() -> None:
    found = keys(four(1), four(1, src="203.0.113.8"))
    assert found[0] != found[1]


def test_ipv6_fragments_after_other_headers() -> None:
    found = keys(six(1), six(1, more=False), six(2))
    assert found[0] == found[1] != found[2]


def test_an_ipv6_fragment_that_is_not_queued_is_none() -> None:
    assert keys(six(1, size=21)) == {}, "not the last, and its length is no multiple of 8"
    assert list(keys(six(1, size=21, more=False))) == [0], "the last may have any length"


def test_the_widest_datagram_is_counted_in_packets() -> None:
    assert widest_datagram(keys(four(1), four(2), four(3), four(1, frag=3))) == 3
    assert widest_datagram({}) == 0


@given(st.binary(max_size=120))
def test_any_frame_has_a_summary(buf: bytes) -> None:
    assert summary(bytes(E)[:12] + buf)
