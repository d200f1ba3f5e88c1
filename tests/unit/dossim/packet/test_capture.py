"""Capture files: every supported format, byte order and link type, and every kind of damage."""

from __future__ import annotations

import gzip
import hashlib
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from dossim.model.errors import CaptureError
from dossim.packet.capture import PADDING, Capture, concat, read_capture

FRAMES = [bytes(range(at, at + size)) for at, size in ((0, 60), (7, 14), (9, 15), (1, 64))]
ETHERNET, RAW, SLL, SLL2 = 1, 101, 113, 276
MICROSECONDS, NANOSECONDS, MODIFIED = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34
SECTION, INTERFACE, PACKET, SIMPLE, ENHANCED, STATISTICS = 0x0A0D0D0A, 1, 2, 3, 6, 5

Write = Callable[[bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(buf: bytes) -> Path:
        path = tmp_path / "x.cap"
        path.write_bytes(buf)
        return path

    return written


def pcap(frames: list[bytes], *, order: str = "<", magic: int = MICROSECONDS, link: int = ETHERNET) -> bytes:
    """Packet i was captured i seconds and i units after 1970."""
    buf = bytearray(struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, link))
    for i, frame in enumerate(frames):
        buf += struct.pack(f"{order}IIII", i, i, len(frame), len(frame))
        buf += bytes(8 if magic == MODIFIED else 0) + frame
    return bytes(buf)


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack(f"{order}I", len(body) + 12)
    return struct.pack(f"{order}I", kind) + size + body + size


def section(order: str = "<") -> bytes:
    return block(order, SECTION, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str = "<", *, link: int = ETHERNET, snaplen: int = 0, options: bytes = b"") -> bytes:
    return block(order, INTERFACE, struct.pack(f"{order}HHI", link, 0, snaplen) + options)


def option(order: str, code: int, value: bytes) -> bytes:
    return struct.pack(f"{order}HH", code, len(value)) + value + bytes(-len(value) % 4)


def enhanced(order: str, frame: bytes, *, number: int = 0, ticks: int = 0, claims: int | None = None) -> bytes:
    size = len(frame) if claims is None else claims
    body = struct.pack(f"{order}IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, size, size) + frame
    comment = bytes(-len(frame) % 4) + option(order, 1, b"comment") + option(order, 0, b"")
    return block(order, ENHANCED, body + comment)


def frames_of(capture: Capture) -> list[bytes]:
    return [capture.frame(number) for number in range(len(capture))]


# -- pcap ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize(
    ("magic", "unit_ns"),
    [
        pytest.param(MICROSECONDS, 1000, id="microseconds"),
        pytest.param(NANOSECONDS, 1, id="nanoseconds"),
        pytest.param(MODIFIED, 1000, id="modified"),
    ],
)
def test_pcap(write: Write, magic: int, unit_ns: int, order: str, zipped: bool) -> None:
    buf = pcap(FRAMES, order=order, magic=magic)
    buf = gzip.compress(buf) if zipped else buf
    capture = read_capture(write(buf))
    assert frames_of(capture) == FRAMES
    assert capture.timestamp_ns.tolist() == [i * (1_000_000_000 + unit_ns) for i in range(len(FRAMES))]
    assert capture.sha256 == hashlib.sha256(buf).hexdigest()
    assert [str(array.dtype) for array in (capture.data, capture.offset, capture.length)] == ["uint8", "int64", "int32"]


def test_a_frame_check_sequence_that_the_file_header_tells_of_is_taken_off(write: Write) -> None:
    """The FCS length in 16-bit words, in the upper bits of the link-type word (draft-ietf-opsawg-pcap, section 4)."""
    checked = [frame + b"FCS!" for frame in FRAMES]
    capture = read_capture(write(pcap(checked, link=0x2400_0000 | ETHERNET)))
    assert (frames_of(capture), capture.wire_length.tolist()) == (FRAMES, [len(frame) for frame in FRAMES])
    assert frames_of(read_capture(write(pcap(FRAMES, link=0x2000_0000 | ETHERNET)))) == FRAMES  # the length is unknown


# -- pcapng ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
def test_pcapng_packets_of_every_kind(write: Write, order: str) -> None:
    obsolete = struct.pack(f"{order}HHIIII", 0, 0, 0, 5, len(FRAMES[1]), len(FRAMES[1])) + FRAMES[1]
    buf = (
        section(order) + interface(order, snaplen=20)
        + enhanced(order, FRAMES[0], ticks=3)
        + block(order, PACKET, obsolete)
        + block(order, STATISTICS, bytes(16))
        + block(order, SIMPLE, struct.pack(f"{order}I", len(FRAMES[3])) + FRAMES[3][:20])
    )  # fmt: skip
    capture = read_capture(write(buf))
    assert frames_of(capture) == [FRAMES[0], FRAMES[1], FRAMES[3][:20]]
    assert capture.timestamp_ns.tolist() == [3000, 5000, 0]


def test_pcapng_interfaces_have_their_own_link_type_and_clock(write: Write) -> None:
    ipv4 = bytes([0x45]) + bytes(19)
    milliseconds, binary = option("<", 9, b"\x03"), option("<", 9, b"\x8a")  # 10^-3 s, 2^-10 s
    shifted = option("<", 14, struct.pack("<q", 100))
    buf = (
        section() + interface(options=milliseconds) + interface(link=RAW, options=binary + shifted)
        + enhanced("<", FRAMES[0], number=0, ticks=2) + enhanced("<", ipv4, number=1, ticks=512)
    )  # fmt: skip
    capture = read_capture(write(buf))
    assert frames_of(capture) == [FRAMES[0], bytes(12) + b"\x08\x00" + ipv4]
    assert capture.timestamp_ns.tolist() == [2_000_000, 100_500_000_000]


def test_pcapng_sections_have_their_own_byte_order_and_interfaces(write: Write) -> None:
    buf = section("<") + interface("<") + enhanced("<", FRAMES[0])
    buf += section(">") + interface(">", link=RAW) + enhanced(">", b"\x60" + bytes(39))
    assert frames_of(read_capture(write(buf))) == [FRAMES[0], bytes(12) + b"\x86\xdd\x60" + bytes(39)]


# -- link types ------------------------------------------------------------------------------------------------------

IPV4, IPV6 = b"\x45" + bytes(19), b"\x60" + bytes(39)
NOBODY, GROUP, BROADCAST = bytes(6), b"\x01" + bytes(5), b"\xff" * 6


def sll(kind: int, protocol: int, payload: bytes) -> bytes:
    return struct.pack(">HHH8sH", kind, 1, 6, b"\x02" * 8, protocol) + payload


def sll2(kind: int, protocol: int, payload: bytes) -> bytes:
    return struct.pack(">HHIHBB8s", protocol, 0, 3, 1, kind, 6, b"\x02" * 8) + payload


LINKS: dict[str, tuple[int, bytes, bytes]] = {
    "raw IPv4": (101, IPV4, NOBODY + bytes(6) + b"\x08\x00" + IPV4),
    "raw IPv6": (101, IPV6, NOBODY + bytes(6) + b"\x86\xdd" + IPV6),
    "raw, number of BSD/OS": (12, IPV4, NOBODY + bytes(6) + b"\x08\x00" + IPV4),
    "raw, number of OpenBSD": (14, IPV6, NOBODY + bytes(6) + b"\x86\xdd" + IPV6),
    "IPv4 alone, whatever its version says": (228, b"\x65" + IPV4[1:], NOBODY + bytes(6) + b"\x08\x00\x65" + IPV4[1:]),
    "IPv6 alone": (229, IPV6, NOBODY + bytes(6) + b"\x86\xdd" + IPV6),
    "BSD loopback": (0, b"\x02\0\0\0" + IPV4, NOBODY + bytes(6) + b"\x08\x00" + IPV4),
    "OpenBSD loopback": (108, b"\0\0\0\x18" + IPV6, NOBODY + bytes(6) + b"\x86\xdd" + IPV6),
    "cooked, to us": (SLL, sll(0, 0x0800, IPV4), NOBODY + bytes(6) + b"\x08\x00" + IPV4),
    "cooked, broadcast": (SLL, sll(1, 0x0806, b"arp"), BROADCAST + bytes(6) + b"\x08\x06arp"),
    "cooked, multicast": (SLL, sll(2, 0x86DD, IPV6), GROUP + bytes(6) + b"\x86\xdd" + IPV6),
    "cooked 2, to us": (SLL2, sll2(0, 0x0800, IPV4), NOBODY + bytes(6) + b"\x08\x00" + IPV4),
    "cooked 2, broadcast": (SLL2, sll2(1, 0x0800, IPV4), BROADCAST + bytes(6) + b"\x08\x00" + IPV4),
    "cooked 2, multicast": (SLL2, sll2(2, 0x86DD, IPV6), GROUP + bytes(6) + b"\x86\xdd" + IPV6),
}


@pytest.mark.parametrize(("link", "packet", "frame"), LINKS.values(), ids=LINKS)
def test_other_link_types_get_an_ethernet_header(write: Write, link: int, packet: bytes, frame: bytes) -> None:
    assert frames_of(read_capture(write(pcap([packet], link=link)))) == [frame]


# -- damaged files ---------------------------------------------------------------------------------------------------

HUGE = pcap(FRAMES)[:24] + struct.pack("<IIII", 0, 0, 0xFFFFFFF0, 0xFFFFFFF0)
REFUSED: dict[str, tuple[bytes, str]] = {
    "an empty file": (b"", "not a capture, it is empty; a pcap or pcapng file"),
    "text": (b"hello", "not a capture, it begins with 68 65 6c 6c; a pcap or pcapng file"),
    "a file header cut short": (pcap([])[:10], "the file header is cut short: needs 24 bytes, 10 are there; copy"),
    "a file of another version": (
        struct.pack("<IHHiIII", MICROSECONDS, 2, 3, 0, 0, 0, 1),
        "it has version 2.3 of the ",
    ),
    "a section of another version": (
        block("<", SECTION, struct.pack("<IHHq", 0x1A2B3C4D, 2, 0, -1)),
        "the section has version 2.0; expected 1.0",
    ),
    "a simple packet larger than packets are": (
        section() + interface() + block("<", SIMPLE, struct.pack("<I", 300_000) + bytes(300_000)),
        "its packet has 300,000 bytes, no packet has more than 262,144",
    ),
    "a record of absurd length": (HUGE, "record 0 at byte 24 claims 4,294,967,280 bytes, no packet has more than 26"),
    "a section header cut short": (section()[:20], "no section header of pcapng: it is cut short: needs 28 bytes, 20"),
    "a block of impossible length": (
        section() + struct.pack("<III", 1, 13, 0),
        "its length is 13; expected a multiple of 4",
    ),
    "a section without byte order": (
        struct.pack("<III", SECTION, 28, 0) + bytes(16),
        "no byte-order magic, found 00 00",
    ),
    "a packet of no interface": (section() + enhanced("<", FRAMES[0]), "it names interface 0, 0 are described"),
    "a packet beyond its block": (
        section() + interface() + enhanced("<", b"", claims=99),
        "it claims 99 bytes of packet, 16 are in it",
    ),
    "a packet without its fields": (section() + block("<", ENHANCED, bytes(8)), "a packet block without its fields"),
    "an interface without its fields": (section() + block("<", INTERFACE, b""), "an interface description without"),
    "an option beyond its block": (
        section() + interface(options=struct.pack("<HH", 14, 8)),
        "its option 14 claims 8 bytes, 0 are left in it",
    ),
    "lengths at begin and end differ": (section() + interface()[:-4] + b"\x18\0\0\0", "its length is 20 at its begin"),
}


@pytest.mark.parametrize(("buf", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_is_wrong_from_the_start_is_refused_with_one_sentence(
    write: Write, buf: bytes, sentence: str
) -> None:
    path = write(buf)
    with pytest.raises(CaptureError, match=re.escape(f"{path}: ") + f".*{sentence}") as refused:
        read_capture(path)
    assert refused.value.exit_code == 2
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"absent\.pcap: cannot be read: No such file"):
        read_capture(tmp_path / "absent.pcap")


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="cannot be read: Is a directory"):
        read_capture(tmp_path)


WHOLE = pcap(FRAMES)
BLOCKS = section() + interface() + enhanced("<", FRAMES[0])
UP_TO_THERE: dict[str, tuple[bytes, int, str]] = {
    "a record cut short": (WHOLE[:-4], 3, "record 3 at byte 161 is cut short: needs 80 bytes, 76 are left; the 3"),
    "a record header cut short": (WHOLE[:168], 3, "record 3 at byte 161 is cut short: needs 16 bytes, 7 are left"),
    "the first record cut short": (WHOLE[:30], 0, "record 0 at byte 24 is cut short: .*; no packet was read"),
    "a header of Kuznetzov's cut short": (
        pcap(FRAMES, magic=MODIFIED)[:120], 1, "record 1 at byte 108 is cut short: needs 24 bytes, 12 are left",
    ),
    "a record of 4 GB": (WHOLE + HUGE[24:], 4, "record 4 at byte 241 claims 4,294,967,280 bytes: the file is damaged"),
    "a record larger than packets are, all there": (
        WHOLE + struct.pack("<IIII", 0, 0, 300_000, 300_000) + bytes(300_000) + WHOLE[24:],
        4,
        "record 4 at byte 241 claims 300,000 bytes: the file is damaged",
    ),
    "a block header cut short": (BLOCKS + bytes(7), 1, "block at byte 156: it is cut short: a block needs 12 bytes, 7"),
    "a block cut short": (BLOCKS + BLOCKS[48:-4], 1, "block at byte 156: it is cut short: needs 108 bytes, 104"),
    "a block of 1 GB": (BLOCKS + struct.pack("<III", 6, 1 << 30, 0), 1, "needs 1,073,741,824 .* the file is damaged"),
    "no packet before the cut": (BLOCKS[:52], 0, "block at byte 48: it is cut short: .*; no packet was read"),
    "a packet of no interface": (
        BLOCKS + enhanced("<", FRAMES[1], number=3) + BLOCKS[48:], 1, "it names interface 3, 1 are described; ",
    ),
    "the interface comes too late": (
        BLOCKS + enhanced("<", FRAMES[1], number=1) + interface(), 1, "it names interface 1, 1 are described",
    ),
    "a section of no byte order": (BLOCKS + block("<", SECTION, bytes(16)), 1, "no byte-order magic"),
    "a section of another version": (
        BLOCKS + block("<", SECTION, struct.pack("<IHHq", 0x1A2B3C4D, 2, 1, -1)), 1, "the section has version 2.1",
    ),
    "an odd length": (BLOCKS + struct.pack("<III", 6, 107, 0) + bytes(200), 1, "its length is 107; expected"),
    "lengths that differ": (BLOCKS + BLOCKS[48:-4] + bytes(4), 1, "its length is 108 at its begin and 0 at its end"),
}  # fmt: skip


@pytest.mark.parametrize(("buf", "packets", "warning"), UP_TO_THERE.values(), ids=UP_TO_THERE)
def test_a_file_that_goes_wrong_is_read_up_to_there(write: Write, buf: bytes, packets: int, warning: str) -> None:
    path = write(buf)
    capture = read_capture(path)
    assert frames_of(capture) == FRAMES[:packets]
    (sentence,) = capture.warnings
    assert re.match(re.escape(f"{path}: ") + f".*{warning}", sentence)


def test_every_prefix_of_a_capture_is_read_up_to_its_end_or_refused(write: Write) -> None:
    """As a killed tcpdump leaves it: wherever the file is cut, all whole packets are read."""
    for whole, ends in ((WHOLE, [100, 130, 161, 241]), (BLOCKS + BLOCKS[48:], [156, 264])):
        header = 24 if whole is WHOLE else 28
        for size in range(4, len(whole)):
            path = write(whole[:size])
            if size < header:
                with pytest.raises(CaptureError):
                    read_capture(path)
                continue
            capture = read_capture(path)
            assert len(capture) == sum(end <= size for end in ends)
            assert bool(capture.warnings) == (size not in (header, *ends) and (whole is WHOLE or size != 48))


def test_times_are_no_reason_to_refuse(write: Write) -> None:
    """Zero and impossible times are accepted: a prediction needs no time."""
    late = enhanced("<", FRAMES[0], ticks=(1 << 64) - 1)
    capture = read_capture(write(section() + interface() + enhanced("<", FRAMES[0]) + late))
    assert frames_of(capture) == FRAMES[:1] * 2
    assert capture.timestamp_ns.tolist() == [0, 9_223_372_035 * 10**9 + 709_551_615_000 % 10**9]
    (warning,) = capture.warnings
    assert warning.endswith("times before 1677 or after 2262, which are not kept: 1")
    capture.write(path := write(b""))
    assert len(read_capture(path)) == 2


@pytest.mark.parametrize("buf", [pcap([]), pcap([], link=147), section(), section() + interface()])
def test_a_capture_without_packets_is_a_capture(write: Write, buf: bytes) -> None:
    assert len(read_capture(write(buf))) == 0


# -- writing captures ------------------------------------------------------------------------------------------------


def test_frames_are_kept_and_padded() -> None:
    capture = Capture.from_frames([*FRAMES, b""])
    assert (capture.path, len(capture)) == ("<generated>", 5)
    assert frames_of(capture) == [*FRAMES, b""]
    assert len(capture.data) == sum(map(len, FRAMES)) + PADDING


def test_a_part_shares_the_data() -> None:
    whole = Capture.from_frames(FRAMES)
    part = whole.part(1, 3)
    assert frames_of(part) == FRAMES[1:3]
    assert part.data is whole.data


def test_concat_keeps_the_order() -> None:
    assert frames_of(concat([Capture.from_frames(FRAMES[:1]), Capture.from_frames(FRAMES[1:])])) == FRAMES
    assert len(concat([])) == 0


@pytest.mark.parametrize("frames", [[], FRAMES, [b"", b"x"]], ids=["none", "some", "short"])
def test_what_is_written_is_read_again(tmp_path: Path, frames: list[bytes]) -> None:
    written = Capture.from_frames(frames)
    written.write(tmp_path / "written.pcap")
    read = read_capture(tmp_path / "written.pcap")
    assert frames_of(read) == frames
    assert read.timestamp_ns.tolist() == written.timestamp_ns.tolist()


PACKETS = {
    "pkt.TCP.synflood.spoofed.pcap": 37_841,
    "amp.dns.RRSIG.fragmented.pcap": 4_412,
    "amp.UDP.snmp.src161.pcapng": 4_373,
    "amp.UDP.isakmp.pcap": 3_984,
    "amp.TCP.syn.optionallyACK.optionallysamePort.pcapng": 896,
}


@pytest.mark.parametrize(("name", "packets"), PACKETS.items(), ids=PACKETS)
def test_real_captures(captures: Path, name: str, packets: int) -> None:
    capture = read_capture(captures / name)
    assert len(capture) == packets
    assert (capture.length >= 14).all()
    assert (capture.timestamp_ns > 0).all()


@pytest.mark.parametrize("order", "<>")
def test_a_cut_packet_keeps_its_length_on_the_wire(write: Write, order: str) -> None:
    header = struct.pack(f"{order}IHHiIII", MICROSECONDS, 2, 4, 0, 0, 20, ETHERNET)
    path = write(header + struct.pack(f"{order}IIII", 0, 0, 20, 1514) + bytes(20))
    capture = read_capture(path)
    assert (capture.length.tolist(), capture.wire_length.tolist(), capture.record.tolist()) == ([20], [1514], [0])
    capture.part(0, 1).write(path)
    assert read_capture(path).wire_length.tolist() == [1514]


def test_a_header_put_in_front_counts_on_the_wire(write: Write) -> None:
    header = struct.pack("<IHHiIII", MICROSECONDS, 2, 4, 0, 0, 20, RAW)
    capture = read_capture(write(header + struct.pack("<IIII", 0, 0, 20, 60) + b"\x45" + bytes(19)))
    assert (capture.length.tolist(), capture.wire_length.tolist()) == ([34], [74])
