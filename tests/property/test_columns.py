"""Columns never raise, and agree with the scalar parser on every frame, whatever its bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dossim.packet.capture import Capture
from dossim.packet.columns import Columns, parse_columns
from dossim.packet.fields import IPv4, IPv6
from dossim.packet.parse import parse
from tests.support import frames as frame

anything = st.lists(st.one_of(frame.frames(), st.binary(max_size=80)), max_size=5)


@given(anything)
def test_columns_equal_the_scalar_parser(found: list[bytes]) -> None:
    columns = parse_columns(Capture.from_frames(found))
    rows4 = {int(number): row for row, number in enumerate(columns.ipv4.rows)}
    rows6 = {int(number): row for row, number in enumerate(columns.ipv6.rows)}
    for number, buf in enumerate(found):
        packet = parse(buf)
        if packet.link is None or columns.links.cut[number]:
            assert columns.links.cut[number]
            assert number not in rows4
            assert number not in rows6
            continue
        assert columns.links.ethertype[number] == packet.link.ethertype
        assert columns.links.tags[number] == len(packet.link.tags)
        assert columns.links.other_host[number] == any(tag.id for tag in packet.link.tags)
        assert columns.links.group[number] == bool(packet.link.destination[0] & 1)
        if isinstance(packet.network, IPv4):
            _assert_ipv4(columns, rows4[number], packet.network)
        elif isinstance(packet.network, IPv6):
            _assert_ipv6(columns, rows6[number], packet.network)


def _assert_ipv4(columns: Columns, row: int, ip: IPv4) -> None:
    four = columns.ipv4
    flags = ip.dont_fragment * 0x4000 | ip.more_fragments * 0x2000
    assert four.available[row] == len(ip.buf)
    assert (four.version[row], four.header_length[row]) == (ip.version, ip.header_length)
    assert (four.total_length[row], four.ident[row]) == (ip.total_length, ip.ident)
    assert four.fragment[row] & 0x7FFF == flags | ip.offset // 8
    assert (four.ttl[row], four.protocol[row]) == (ip.ttl, ip.protocol)
    assert (four.source[row], four.destination[row]) == (int(ip.source), int(ip.destination))


def _assert_ipv6(columns: Columns, row: int, ip: IPv6) -> None:
    six = columns.ipv6
    assert six.available[row] == len(ip.buf)
    assert (six.version[row], six.payload_length[row]) == (ip.version, ip.payload_length)
    assert (six.next_header[row], six.hop_limit[row]) == (ip.next_header, ip.hop_limit)
    for (high, low), address in ((six.source, ip.source), (six.destination, ip.destination)):
        assert int(high[row]) << 64 | int(low[row]) == int(address)
