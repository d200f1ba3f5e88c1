"""What is judged in place of a capture, and what a drill sends for it: packets as they were on the wire.

A recorded packet may have been captured before hardware completed its checksum. The field then holds an artefact of the
capture, recognised from the packet itself (:mod:`dossim.packet.offload`):

- the sum of the pseudo header alone is what Linux leaves there. The packet is judged, and sent, with the checksum
  that hardware gave it.
- 0 is what other systems leave there, and what a careless flood sends. From an Ethernet source that leaves pseudo
  header sums as well it is completed likewise; otherwise it is unknown, and the packet is judged as if cut there.
- 0 for the checksum of an IPv4 header, or for the total length of a large packet, is what Windows leaves to hardware.
  From an Ethernet source that leaves pseudo header sums the header's checksum is completed. Else the packet is judged
  as it stands and with its header completed; where the two ends differ the fate is undetermined.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from dossim.model.errors import CaptureError
from dossim.packet.capture import PADDING, Capture
from dossim.packet.cut import LARGEST, most_sendable
from dossim.packet.fields import IP, IPV6_HEADER, TCP, UDP, IPv4
from dossim.packet.offload import Artefacts, artefacts_of
from dossim.packet.parse import internet_checksum, parse_ethernet, parse_ip, transport_checksum, transport_of
from dossim.packet.source import Reading, limit_of

Bool = npt.NDArray[np.bool_]
HEADER = "its IPv4 header is not complete, or it or its datagram was bad on the wire"
ZERO = "its checksum is 0: bad on the wire, or not computed yet when it was captured"
NO_SENDER = bytes(6)  # frames made from link types without a source address: one says nothing about another
_CHECKSUM_AT = {TCP: 16, UDP: 6}


@dataclass(frozen=True)
class Judged:
    """``capture`` is what is judged, ``whole`` the same with all captured bytes.

    ``completed``: number of packets whose checksum was completed. ``zero``: packets whose checksum may have been bad on
    the wire. ``ambiguous``: number of packets whose IPv4 header may have been; ``mended`` is the capture with those
    headers completed, and ``doubtful`` their numbers. ``senders``: Ethernet sources that leave pseudo header sums;
    ``wanted``: those that would decide some of the rest, if they did.
    """

    capture: Capture
    whole: Capture
    zero: Bool
    completed: int = 0
    ambiguous: int = 0
    mended: Capture | None = None
    senders: frozenset[bytes] = frozenset()
    wanted: frozenset[bytes] = frozenset()
    doubtful: tuple[int, ...] = ()

    @property
    def padded(self) -> int:
        """Number of packets that get zeros for what the capture cut."""
        return int((self.whole.wire_length > self.whole.length).sum())

    @cached_property
    def sent(self) -> Capture:
        """The frames that a drill sends for the capture, at their length on the wire."""
        return _at_wire_length(self.whole) if self.padded else self.whole


def every(capture: Capture) -> Bool:
    """Marks all packets of a capture as recorded."""
    return np.ones(len(capture), np.bool_)


def judged(capture: Capture, recorded: Bool | None = None, known: Collection[bytes] = ()) -> Judged:
    """``recorded`` packets were captured somewhere. The others were generated, and are taken as they are. ``known``:
    Ethernet sources that leave pseudo header sums elsewhere.
    """
    zero = np.zeros(len(capture), np.bool_)
    if recorded is None or not recorded.any():
        return Judged(capture, capture, zero)
    return judged_by(capture, artefacts_of(capture), recorded, known)


def judged_by(capture: Capture, artefacts: Artefacts, recorded: Bool, known: Collection[bytes]) -> Judged:
    """As :func:`judged`; ``artefacts`` are those of the capture."""
    zero = np.zeros(len(capture), np.bool_)
    if not artefacts.is_any_incomplete:
        return Judged(capture, capture, zero)
    rows = np.flatnonzero(artefacts.offloaded & recorded)
    found = {int(row): place for row in rows if (place := _checksum_place(capture, int(row))) is not None}
    here = {_sender(capture, row) for row, place in found.items() if _has_sum(capture, row, place)} - {NO_SENDER}
    senders, wanted = here.union(known), set[bytes]()
    patches: dict[int, bytes] = {}
    cut_at: dict[int, int] = {}
    for row, place in found.items():
        if _has_sum(capture, row, place) or _sender(capture, row) in senders:
            patches[row] = _completed(capture.frame(row), place)
        else:
            zero[row], cut_at[row] = True, place
            wanted.add(_sender(capture, row))
    headers: dict[int, bytes] = {}
    for row in np.flatnonzero((artefacts.header | artefacts.length) & recorded).tolist():
        frame = _with_header(patches.get(row, capture.frame(row)), int(capture.wire_length[row]))
        is_whole = not _is_length_missing(capture.frame(row))
        if is_whole and _sender(capture, row) in senders:
            patches[row] = frame
            continue
        headers[row] = frame
        if is_whole:
            wanted.add(_sender(capture, row))
    completed = _patched(capture, patches)
    length = completed.length.copy()
    length[list(cut_at)] = list(cut_at.values())
    shown = replace(completed, length=length)
    mended = _patched(shown, headers) if headers else None
    decisive = frozenset(here), frozenset(wanted - {NO_SENDER})
    return Judged(shown, completed, zero, len(patches), len(headers), mended, *decisive, tuple(headers))


def _sender(capture: Capture, row: int) -> bytes:
    return capture.frame(row)[6:12]


def _has_sum(capture: Capture, row: int, place: int) -> bool:
    return any(capture.frame(row)[place : place + 2])


def _checksum_place(capture: Capture, row: int) -> int | None:
    """The offset of the frame's TCP or UDP checksum; None if unknown. A cut packet stays undetermined anyway."""
    frame = capture.frame(row)
    link = parse_ethernet(frame)
    ip = None if link is None else parse_ip(link)
    transport = None if ip is None else transport_of(ip)
    if link is None or ip is None or transport is None:
        return None
    at = _CHECKSUM_AT.get(transport.protocol)
    if at is None or _length(ip) > len(link.payload):
        return None
    return len(frame) - len(link.payload) + transport.offset + at


def _completed(frame: bytes, place: int) -> bytes:
    """The frame with the checksum that hardware gave it."""
    link = parse_ethernet(frame)
    assert link is not None, "it has a checksum"
    ip = parse_ip(link)
    assert ip is not None, "it has a checksum"
    transport = transport_of(ip)
    assert transport is not None, "it has a checksum"
    start = len(frame) - len(link.payload) + transport.offset
    end = len(frame) - len(link.payload) + _length(ip)
    segment = frame[start:place] + b"\0\0" + frame[place + 2 : end]
    checksum = transport_checksum(ip, transport.protocol, segment)
    return frame[:place] + checksum.to_bytes(2, "big") + frame[place + 2 :]


def _is_length_missing(frame: bytes) -> bool:
    link = parse_ethernet(frame)
    ip = None if link is None else parse_ip(link)
    return isinstance(ip, IPv4) and ip.total_length == 0


def _with_header(frame: bytes, wire_length: int) -> bytes:
    """The frame with a completed IPv4 header; if the total length was missing, also with the transport checksum."""
    link = parse_ethernet(frame)
    assert link is not None, "it has an IPv4 header"
    ip = parse_ip(link)
    assert isinstance(ip, IPv4), "it has an IPv4 header"
    start = len(frame) - len(link.payload)
    total = ip.total_length or min(wire_length - start, 0xFFFF)
    header = ip.buf[:2] + total.to_bytes(2, "big") + ip.buf[4:10] + b"\0\0" + ip.buf[12 : ip.header_length]
    header = header[:10] + internet_checksum(header).to_bytes(2, "big") + header[12:]
    mended = frame[:start] + header + frame[start + ip.header_length :]
    at = _CHECKSUM_AT.get(ip.protocol)
    whole = len(mended) >= start + total
    if ip.total_length or at is None or not whole or total < ip.header_length + 20:
        return mended
    return _completed(mended, start + ip.header_length + at)


def _length(ip: IP) -> int:
    return ip.total_length if isinstance(ip, IPv4) else IPV6_HEADER + ip.payload_length


def _patched(capture: Capture, patches: dict[int, bytes]) -> Capture:
    data = capture.data.copy() if patches else capture.data
    for row, frame in patches.items():
        start = int(capture.offset[row])
        data[start : start + len(frame)] = np.frombuffer(frame, np.uint8)
    return replace(capture, data=data)


def _at_wire_length(capture: Capture) -> Capture:
    """With zeros for what was cut. Raises CaptureError for more than a capture may have: a record of a few bytes can
    claim 65,549.
    """
    most = limit_of(Reading()).size
    assert most is not None, "without a limit of the user's it is one of memory"
    total = int(np.minimum(capture.wire_length, LARGEST).sum(dtype=np.int64))
    if total > most:
        raise CaptureError(
            f"{capture.path}: its packets take {total:,} bytes at their length on the wire; at most {most:,} are sent: "
            "split the capture (editcap -c)"
        )
    frames = []
    for row in range(len(capture)):
        frame = capture.frame(row)
        wanted = min(int(capture.wire_length[row]), most_sendable(frame) + 1)
        frames.append(frame + bytes(max(wanted - len(frame), 0)))
    length = np.array([len(frame) for frame in frames], np.int32)
    offset = (np.cumsum(length, dtype=np.int64) - length).astype(np.int64)
    data = np.frombuffer(b"".join(frames) + bytes(PADDING), np.uint8)
    return replace(capture, data=data, offset=offset, length=length)
