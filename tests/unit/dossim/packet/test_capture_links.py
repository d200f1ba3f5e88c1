"""Link types other than Ethernet: the resulting frames, and which packets are skipped and counted by name."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from dossim.model.errors import CaptureError
from dossim.packet.capture import Capture, Reading, read_capture
from dossim.packet.linknames import link_name, link_name_and_number

Write = Callable[[bytes], Path]

IPV4, IPV6 = b"\x45\0\0\x14" + bytes(8) + bytes([192, 0, 2, 1, 192, 0, 2, 2]), b"\x60" + bytes(39)
NOBODY, BROADCAST = bytes(6), b"\xff" * 6
FOUR, SIX = NOBODY * 2 + b"\x08\x00" + IPV4, NOBODY * 2 + b"\x86\xdd" + IPV6
STATION, ACCESS, FAR = b"\x02" + bytes(4) + b"\x01", b"\x02" + bytes(4) + b"\x02", b"\x02" + bytes(4) + b"\x03"
RELAY = b"\x02" + bytes(4) + b"\x04"
SNAP4 = b"\xaa\xaa\x03\0\0\0\x08\x00" + IPV4


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(buf: bytes) -> Path:
        path = tmp_path / "x.cap"
        path.write_bytes(buf)
        return path

    return written


def pcap(packets: list[bytes], link: int, *, order: str = "<", wire: int | None = None) -> bytes:
    buf = struct.pack(f"{order}IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    for packet in packets:
        buf += struct.pack(f"{order}IIII", 0, 0, len(packet), len(packet) if wire is None else wire) + packet
    return buf


def pcapng(link: int, *packets: tuple[bytes, bytes], interface_options: bytes = b"") -> bytes:
    """``(packet, options)`` each."""

    def block(kind: int, body: bytes) -> bytes:
        return struct.pack("<II", kind, len(body) + 12) + body + struct.pack("<I", len(body) + 12)

    buf = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    buf += block(1, struct.pack("<HHI", link, 0, 0) + interface_options)
    for packet, options in packets:
        head = struct.pack("<IIIII", 0, 0, 0, len(packet), len(packet))
        buf += block(6, head + packet + bytes(-len(packet) % 4) + options)
    return buf


def frames_of(capture: Capture) -> list[bytes]:
    return [capture.frame(number) for number in range(len(capture))]


def wifi(flags: int = 0x02, *, subtype: int = 0, body: bytes = SNAP4, extra: bytes = b"", kind: int = 2) -> bytes:
    """Flags 1: to the distribution system, 2: from it, 4: more fragments, 0x40: protected, 0x80: order."""
    addresses = {
        0: (STATION, FAR, ACCESS),
        1: (ACCESS, STATION, FAR),
        2: (STATION, ACCESS, FAR),
        3: (ACCESS, RELAY, FAR),
    }
    head = bytes([subtype << 4 | kind << 2, flags]) + bytes(2) + b"".join(addresses[flags & 3]) + b"\x10\0"
    return head + (STATION if flags & 3 == 3 else b"") + extra + body


def radiotap(frame: bytes, *, fields: bytes = b"", present: int = 0, more: bytes = b"") -> bytes:
    return struct.pack("<BBHI", 0, 0, 8 + len(more) + len(fields), present) + more + fields + frame


def nflog(
    order: str, payload: bytes, *, hook: int = 1, protocol: int = 0x0800, family: int = 2, tlvs: bytes = b""
) -> bytes:
    def tlv(kind: int, value: bytes) -> bytes:
        return struct.pack(f"{order}HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)

    return (
        bytes([family, 0, 0, 7])
        + tlv(1, struct.pack(">HBB", protocol, hook, 0))
        + tlvs
        + tlv(10, b"p\0")
        + tlv(9, payload)
    )


MAC = struct.pack("<HH", 18, 16) + BROADCAST + FAR + b"\x08\x00" + bytes(2)  # NFULA_HWHEADER
TO_STATION, TO_FAR = STATION + FAR + b"\x08\x00" + IPV4, FAR + STATION + b"\x08\x00" + IPV4
PPI_BAD = struct.pack("<HHQHHHH", 2, 20, 0, 4, 0, 0, 0) + bytes(4)
PPI_FCS = struct.pack("<HHQHHHH", 2, 20, 0, 1, 0, 0, 0) + bytes(4)


def ppi(fields: bytes, link: int, inner: bytes) -> bytes:
    return struct.pack("<BBHI", 0, 0, 8 + len(fields), link) + fields + inner


READ: dict[str, tuple[int, bytes, bytes]] = {
    "NULL, another byte order": (0, b"\0\0\0\x02" + IPV4, FOUR),
    "NULL, IPv6 of FreeBSD": (0, b"\x1c\0\0\0" + IPV6, SIX),
    "LOOP, IPv6 of Darwin": (108, b"\0\0\0\x1e" + IPV6, SIX),
    "PPP": (9, b"\x00\x21" + IPV4, FOUR),
    "PPP with address and control": (9, b"\xff\x03\x00\x57" + IPV6, SIX),
    "PPP, compressed protocol field": (9, b"\x21" + IPV4, FOUR),
    "PPP_HDLC": (50, b"\xff\x03\x00\x21" + IPV4, FOUR),
    "PPP_HDLC, Cisco's": (50, b"\x0f\x00\x08\x00" + IPV4, FOUR),
    "PPP_ETHER with padding": (51, b"\x11\0\0\x01\0\x16\0\x21" + IPV4 + bytes(9), FOUR),
    "PPP_PPPD, in": (166, b"\x00\x03\x00\x21" + IPV4, FOUR),
    "PPP_WITH_DIR, in": (204, b"\x00\xff\x03\x00\x21" + IPV4, FOUR),
    "C_HDLC, broadcast": (104, b"\x8f\x00\x08\x00" + IPV4, BROADCAST + FOUR[6:]),
    "C_HDLC_WITH_DIR, in": (205, b"\x00\x0f\x00\x86\xdd" + IPV6, SIX),
    "SLL with an 802.2 length": (113, struct.pack(">HHH8sH", 0, 1, 6, b"", 4) + b"llc", NOBODY * 2 + b"\0\x03llc"),
    "SLL of a monitor interface": (113, struct.pack(">HHH8sH", 0, 803, 0, b"", 0) + radiotap(wifi()), TO_STATION),
    "802.11 from the access point": (105, wifi(2), TO_STATION),
    "802.11 to the access point": (105, wifi(1), TO_FAR),
    "802.11 ad hoc": (105, wifi(0), TO_STATION),
    "802.11 between access points": (105, wifi(3), FAR + STATION + b"\x08\x00" + IPV4),
    "802.11 QoS": (105, wifi(2, subtype=8, extra=bytes(2)), TO_STATION),
    "802.11 QoS with HT control": (105, wifi(0x82, subtype=8, extra=bytes(6)), TO_STATION),
    "802.11 without SNAP": (105, wifi(2, body=b"\x42\x42\x03stp"), STATION + FAR + b"\0\x06\x42\x42\x03stp"),
    "802.11, AppleTalk in SNAP": (
        105, wifi(2, body=b"\xaa\xaa\x03\0\0\0\x80\xf3aarp"), STATION + FAR + b"\0\x0c\xaa\xaa\x03\0\0\0\x80\xf3aarp",
    ),
    "802.11 in a bridge tunnel": (
        105, wifi(2, body=b"\xaa\xaa\x03\0\0\xf8\x80\xf3aarp"), STATION + FAR + b"\x80\xf3aarp",
    ),
    "radiotap": (127, radiotap(wifi()), TO_STATION),
    "radiotap with time, flags and FCS": (
        127, radiotap(wifi() + b"FCS!", fields=bytes(8) + b"\x10", present=3), TO_STATION,
    ),
    "radiotap with two bitmaps": (
        127, radiotap(wifi() + b"FCS!", fields=b"\x10", present=1 << 31 | 2, more=bytes(4)), TO_STATION,
    ),
    "radiotap, header filled up": (
        127, radiotap(wifi(2, subtype=8, extra=bytes(4)), fields=b"\x20", present=2), TO_STATION,
    ),
    "Prism": (119, struct.pack("<II", 0x44, 144) + bytes(136) + wifi(), TO_STATION),
    "AVS": (163, struct.pack(">II", 0x80211001, 64) + bytes(56) + wifi(), TO_STATION),
    "PPI, 802.11 with FCS": (192, ppi(PPI_FCS, 105, wifi() + b"FCS!"), TO_STATION),
    "PPI, Ethernet": (192, ppi(b"", 1, FOUR), FOUR),
    "PPI, raw": (192, ppi(b"", 12, IPV4), FOUR),
    "NFLOG": (239, nflog("<", IPV4), FOUR),
    "NFLOG, IPv6": (239, nflog("<", IPV6, protocol=0x86DD, family=10), SIX),
    "NFLOG of a bridge": (239, nflog("<", IPV4, family=7), FOUR),
    "NFLOG with the frame's header": (239, nflog("<", IPV4, tlvs=MAC), BROADCAST + FAR + b"\x08\x00" + IPV4),
    "NFLOG, forwarded": (239, nflog("<", IPV4, hook=4, tlvs=struct.pack("<HHI", 8, 4, 2)), FOUR),
}  # fmt: skip


@pytest.mark.parametrize(("link", "packet", "frame"), READ.values(), ids=READ)
def test_a_packet_becomes_a_frame(write: Write, link: int, packet: bytes, frame: bytes) -> None:
    """Three times, so that packets are decoded in bulk where possible; and mixed with others."""
    capture = read_capture(write(pcap([packet] * 3, link)))
    assert (frames_of(capture), capture.skipped, capture.warnings) == ([frame] * 3, {}, ())
    assert capture.wire_length.tolist() == [len(frame)] * 3
    assert capture.link_types == {link_name(link): 3}


@pytest.mark.parametrize(("link", "packet", "frame"), READ.values(), ids=READ)
def test_a_packet_that_is_cut_is_a_frame_that_is_cut(write: Write, link: int, packet: bytes, frame: bytes) -> None:
    """At every length: the bytes present are right, and the length on the wire is that of the whole frame."""
    for size in range(len(packet)):
        capture = read_capture(write(pcap([packet[:size]], link, wire=len(packet))))
        assert len(capture) == 1
        length = int(capture.length[0])
        assert frames_of(capture) == [frame[:length]]
        # If the packet is cut within this header, only its arrival is known.
        assert capture.wire_length[0] == len(frame) if length else capture.wire_length[0] >= 14
    assert length >= min(len(frame), 14)


def test_what_a_monitor_interface_gives_is_told_apart(write: Write) -> None:
    """The SLL headers are the same; the payload decides."""
    cooked = struct.pack(">HHH8sH", 0, 803, 0, b"", 0)
    capture = read_capture(write(pcap([cooked + radiotap(frame) for frame in (wifi(kind=0), wifi(), wifi(0x42))], 113)))
    assert (frames_of(capture), capture.record.tolist()) == ([TO_STATION], [1])
    assert capture.skipped == {"802.11 management frame": 1, "encrypted 802.11 frame": 1}


def test_nflog_of_a_big_endian_machine(write: Write) -> None:
    assert frames_of(read_capture(write(pcap([nflog(">", IPV4)], 239, order=">")))) == [FOUR]


LEFT_OUT: dict[str, tuple[int, bytes, str]] = {
    "SLL, sent": (113, struct.pack(">HHH8sH", 4, 1, 6, b"", 0x800) + IPV4, "sent by the host (SLL packet type 4)"),
    "SLL, another's": (113, struct.pack(">HHH8sH", 3, 1, 6, b"", 0x800) + IPV4, "to another host (SLL packet type 3)"),
    "SLL2, sent": (
        276, struct.pack(">HHIHBB8s", 0x800, 0, 3, 1, 4, 6, b"") + IPV4, "sent by the host (SLL2 packet type 4)",
    ),
    "SLL2, another's": (
        276, struct.pack(">HHIHBB8s", 0x800, 0, 3, 1, 3, 6, b"") + IPV4, "to another host (SLL2 packet type 3)",
    ),
    "SLL, looped back": (
        113, struct.pack(">HHH8sH", 5, 1, 6, b"", 0x800), "looped back to the host itself (SLL packet type 5)",
    ),
    "SLL, unknown": (113, struct.pack(">HHH8sH", 9, 1, 6, b"", 0x800) + IPV4, "SLL, another packet type"),
    "SLL, netlink": (113, struct.pack(">HHH8sH", 0, 824, 0, b"", 0) + bytes(16), "netlink message (SLL)"),
    "NULL, AppleTalk": (0, b"\x10\0\0\0" + bytes(20), "BSD loopback, another address family"),
    "LCP": (9, b"\xff\x03\xc0\x21\x01", "PPP LCP"),
    "a PPP protocol without a name": (9, b"\x40\x01\x01", "PPP, another protocol than IP"),
    "PPPoE discovery": (51, b"\x11\x09\0\0\0\0", "PPPoE discovery"),
    "PPP, sent": (204, b"\x01\xff\x03\x00\x21" + IPV4, "sent by the host (PPP direction)"),
    "PPP of pppd, sent": (166, b"\x01\x03\x00\x21" + IPV4, "sent by the host (PPP direction)"),
    "Cisco's keepalive": (104, b"\x8f\x00\x80\x35" + bytes(18), "Cisco HDLC, another protocol than IP"),
    "Cisco HDLC, sent": (205, b"\x01\x0f\x00\x08\x00" + IPV4, "sent by the host (Cisco HDLC direction)"),
    "beacon": (127, radiotap(wifi(kind=0)), "802.11 management frame"),
    "acknowledgement": (127, radiotap(b"\xd4\0\0\0" + STATION), "802.11 control frame"),
    "null function": (105, wifi(subtype=4, body=b""), "802.11 without data (null function)"),
    "encrypted": (105, wifi(0x42), "encrypted 802.11 frame"),
    "fragment": (105, wifi(0x06), "802.11 fragment"),
    "A-MSDU": (105, wifi(2, subtype=8, extra=b"\x80\0"), "802.11 A-MSDU (several packets in one frame)"),
    "a bad check sequence": (
        127, radiotap(wifi() + b"FCS!", fields=b"\x50", present=2), "bad frame check sequence (802.11)",
    ),
    "a bad check sequence, PPI": (192, ppi(PPI_BAD, 105, wifi()), "bad frame check sequence (802.11)"),
    "802.11, sent": (127, radiotap(wifi(), fields=bytes(2), present=1 << 15), "sent by the host (radiotap TX flags)"),
    "PPI of USB": (192, ppi(b"", 189, bytes(64)), "PPI with another link type in it"),
    "NFLOG, sent": (239, nflog("<", IPV4, hook=3), "sent by the host (NFLOG hook)"),
    "NFLOG, sent at postrouting": (239, nflog("<", IPV4, hook=4), "sent by the host (NFLOG hook)"),
    "NFLOG, ARP": (239, nflog("<", bytes(28), protocol=0x0806, family=3), "NFLOG, another protocol than IP"),
    "NFLOG, an attribute without length": (239, bytes(8), "damaged NFLOG attributes"),
    "too short": (113, b"\0\0", "too short for its LINUX_SLL header"),
    "an 802.11 header alone": (105, wifi(2)[:12], "too short for its IEEE802_11 header"),
}  # fmt: skip


@pytest.mark.parametrize(("link", "packet", "kind"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_is_no_received_packet_is_left_out_and_counted(write: Write, link: int, packet: bytes, kind: str) -> None:
    capture = read_capture(write(pcap([packet] * 3, link)))
    assert (len(capture), capture.skipped) == (0, {kind: 3})
    assert capture.link_types == {link_name(link): 3}


def test_records_keep_their_number_where_others_are_left_out(write: Write) -> None:
    packets = [struct.pack(">HHH8sH", kind, 1, 6, b"", 0x800) + IPV4 for kind in (4, 0, 3, 4, 1)]
    capture = read_capture(write(pcap(packets, 113)))
    assert capture.record.tolist() == [1, 4]
    assert frames_of(capture) == [FOUR, BROADCAST + FOUR[6:]]
    assert list(capture.skipped.items()) == [
        ("sent by the host (SLL packet type 4)", 2),
        ("to another host (SLL packet type 3)", 1),
    ]


def flags(value: int) -> bytes:
    return struct.pack("<HHI", 2, 4, value) + bytes(4)


COMMENT = struct.pack("<HH", 1, 5) + b"hello\0\0\0"
MANY = struct.pack("<HH", 1, 0) * 300


def test_pcapng_flags_tell_direction_reception_and_errors(write: Write) -> None:
    packets = [
        (FOUR, b""), (FOUR, flags(1)), (FOUR, flags(2)), (FOUR, COMMENT + flags(2)), (FOUR, flags(4 << 2)),
        (FOUR, flags(1 << 24)), (FOUR, MANY + flags(2)), (FOUR, MANY), (FOUR, flags(1 << 2)),
        (SIX, bytes(4) + flags(2)),
    ]  # fmt: skip
    capture = read_capture(write(pcapng(1, *packets)))
    assert capture.record.tolist() == [0, 1, 7, 8, 9]
    assert frames_of(capture) == [FOUR] * 4 + [SIX]
    assert capture.skipped == {
        "sent by the host (pcapng direction outbound)": 3,
        "to another host (pcapng reception type promiscuous)": 1,
        "received with a link-layer error (pcapng flags)": 1,
    }


@pytest.mark.parametrize("stated", [4, 32], ids=["bytes", "bits"])
def test_a_frame_check_sequence_of_pcapng_is_taken_off(write: Write, stated: int) -> None:
    """if_fcslen of the interface; epb_flags say otherwise for one packet."""
    option = struct.pack("<HHBxxx", 13, 1, stated)
    packets = [(FOUR + b"FCS!", b""), (FOUR + b"FC", flags(2 << 5))]
    capture = read_capture(write(pcapng(1, *packets, interface_options=option)))
    assert (frames_of(capture), capture.wire_length.tolist()) == ([FOUR] * 2, [len(FOUR)] * 2)


def test_a_cut_packet_may_have_part_of_its_check_sequence(write: Write) -> None:
    for there in range(len(FOUR) - 2, len(FOUR) + 4):
        capture = read_capture(write(pcap([(FOUR + b"FCS!")[:there]], 0x2400_0001, wire=len(FOUR) + 4)))
        assert frames_of(capture) == [FOUR[:there]]
        assert capture.wire_length.tolist() == [len(FOUR)]


def test_link_types_that_are_not_read_are_named(write: Write) -> None:
    path = write(pcap([bytes(64)] * 3, 220))
    with pytest.raises(CaptureError, match=r"of 3 packets, 3 of USB_LINUX_MMAPPED \(link type 220\) cannot be read"):
        read_capture(path)
    capture = read_capture(path, Reading(skip_unknown=True))
    assert (len(capture), capture.skipped) == (0, {"of USB_LINUX_MMAPPED (link type 220)": 3})
    with pytest.raises(CaptureError, match="1 of link type 9999 cannot be read"):
        read_capture(write(pcap([bytes(64)], 9999)))


def test_thousands_of_kinds_are_not_all_named(write: Write) -> None:
    buf = pcapng(1)
    for number in range(100):
        buf += pcapng(30_000 + number, *[(bytes(4), b"")] * (2 if number == 50 else 1))
    path = write(buf)
    capture = read_capture(path, Reading(skip_unknown=True))
    assert (len(capture.skipped), len(capture.link_types), capture.link_types["other link types"]) == (41, 41, 60)
    assert next(iter(capture.skipped.items())) == ("of link type 30050", 2)
    assert capture.skipped["of other kinds"] == 60
    with pytest.raises(CaptureError) as refused:
        read_capture(path)
    assert len(str(refused.value)) < 3000


def test_an_unknown_link_type_is_no_reason_where_its_packets_are_left_out_anyway(write: Write) -> None:
    capture = read_capture(write(pcapng(220, (bytes(64), flags(2)))))
    assert capture.skipped == {"sent by the host (pcapng direction outbound)": 1}


def test_names_of_link_types() -> None:
    named = {1: "ETHERNET", 113: "LINUX_SLL", 127: "IEEE802_11_RADIOTAP", 189: "USB_LINUX", 147: "USER0", 162: "USER15"}
    assert {number: link_name(number) for number in named} == named
    assert (link_name_and_number(189), link_name_and_number(65_000)) == ("USB_LINUX (link type 189)", "link type 65000")


def test_many_different_headers_are_decoded_one_by_one(write: Write) -> None:
    """Too many to decode in bulk: 3,000 address families, of which two are known."""
    packets = [struct.pack("<I", family) + IPV4 for family in range(3000)]
    capture = read_capture(write(pcap(packets, 0)))
    assert capture.record.tolist() == [2, 10, 23, 24, 28, 30]
    assert capture.skipped == {"BSD loopback, another address family": 2994}


@pytest.mark.parametrize("copied", [0, 3, 4, 19, 21, 29, 30])
@pytest.mark.parametrize("order", ["<", ">"])
def test_what_nflog_did_not_copy_was_on_the_wire(write: Write, order: str, copied: int) -> None:
    """``--nflog-size`` and snapshot lengths cut in the kernel, which does not report it; the IP header shows it."""
    four = IPV4[:2] + b"\0\x1e" + IPV4[4:] + bytes(10)
    capture = read_capture(write(pcap([nflog(order, four[:copied])], 239, order=order)))
    assert (int(capture.length[0]), int(capture.wire_length[0])) == (14 + copied, 14 + (30 if copied > 3 else 20))
    six = IPV6[:4] + b"\0\x10" + IPV6[6:] + bytes(16)
    record = nflog(order, six[: copied + 6], protocol=0x86DD, family=10)
    capture = read_capture(write(pcap([record], 239, order=order)))
    assert (int(capture.length[0]), int(capture.wire_length[0])) == (20 + copied, 14 + 56)
