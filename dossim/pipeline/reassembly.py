"""Defragmentation at -400: which fragments become a datagram, which are dropped, which go on as they are.

Models ``net/ipv4/ip_fragment.c`` (``ip_frag_queue``), ``net/ipv6/netfilter/nf_conntrack_reasm.c``
(``nf_ct_frag6_gather``, ``nf_ct_frag6_queue``) and ``net/ipv4/inet_fragment.c`` (``inet_frag_queue_insert``) of Linux
6.x, on a host where no queue is ever abandoned for memory or distance and a whole capture arrives within the timeout.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

from dossim.packet.cut import CutError, captured_length, joined, on_wire
from dossim.packet.fields import IP, IPV6_HEADER, IPv4, IPv6
from dossim.packet.fragment6 import Fragment6, find_fragment6
from dossim.packet.parse import internet_checksum, parse_ipv4, parse_ipv6
from enforcer.model.vocabulary import Word

MAX_DATAGRAM = 65535  # IPv4: the whole datagram; IPv6: the payload
TIMEOUT = "reassembly timeout: fragments are missing"
OPEN = "the capture cut a packet that may be part of its datagram"
OPEN_ITSELF = "cut by the capture: whether it is a fragment, and of what datagram, is not known"

# A datagram's key (version, source, destination, id, ...), or the beginning of one, for all datagrams of such a key.
Key = tuple[object, ...]


@dataclass(frozen=True)
class Untouched:
    """Not a fragment, or one that defragmentation leaves to the stack."""


@dataclass(frozen=True)
class Lost:
    """Dropped at defrag."""

    reason: str


@dataclass(frozen=True)
class Open:
    """Undetermined: a packet that the capture cut may belong to its datagram, or it is that packet. ``since``: the
    number of that packet, if it came after this one.
    """

    reason: str
    since: int | None = None


@dataclass(frozen=True)
class Perhaps:
    """A packet that may or may not reach defragmentation as a fragment of one of these datagrams."""

    prefix: Key


@dataclass(frozen=True)
class Whole:
    """A fragment of a datagram that was reassembled. ``parts`` are the numbers of its fragments in order of arrival;
    the last one completed it. ``head`` is the number of the fragment with offset 0, whose link and IP headers the
    datagram has. ``largest`` is the size of the largest fragment with its IP header; ``transport_at`` the offset in the
    datagram at which the fragmentable part begins.
    """

    datagram: IP
    parts: tuple[int, ...]
    head: int
    largest: int
    transport_at: int


Reassembly = Untouched | Lost | Open | Whole


def reassemble(arrivals: Iterable[tuple[int, IP | Perhaps]]) -> dict[int, Reassembly]:
    """The result for each numbered packet, given in order of arrival. There is none for a Perhaps."""
    defragmenter = _Defragmenter()
    for number, arrived in arrivals:
        if isinstance(arrived, Perhaps):
            defragmenter.leave_open(arrived.prefix, number)
        elif isinstance(arrived, IPv4):
            defragmenter.take4(number, arrived)
        else:
            defragmenter.take6(number, arrived)
    return defragmenter.finish()


class Refusal(Word):
    """Why a fragment does not fit among those queued, as results print it."""

    DUPLICATE = "duplicate of a fragment"
    OVERLAP = "overlapping fragments"


@dataclass
class _Queue:
    """``struct inet_frag_queue``. ``starts`` and ``ends`` are the bounds of its runs, disjoint and ascending.

    ``length`` is the length of the datagram as far as it is known.
    """

    members: list[int] = field(default_factory=list)
    pieces: dict[int, bytes] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    first: IP | None = None
    first6: Fragment6 | None = None
    head: int = -1
    has_last: bool = False
    length: int = 0
    meat: int = 0
    ecn: int = 0
    largest: int = 0
    largest_unfragmentable: int = 0

    @property
    def is_complete(self) -> bool:
        return self.first is not None and self.has_last and self.meat == self.length

    @property
    def payload(self) -> bytes:
        """All data; the first byte that the capture cut hides all after it."""
        found = joined(self.pieces[offset] for offset in sorted(self.pieces))
        return on_wire(bytes.__getitem__(found, slice(captured_length(found))), len(found))

    @property
    def is_ecn_valid(self) -> bool:
        """``ip_frag_ecn_table``: fragments without ECN cannot be combined with others."""
        return not (self.ecn & 1 and self.ecn & ~1)

    def announce_last(self, end: int) -> bool:
        """The last fragment gives the datagram's end. False if that contradicts the queued fragments."""
        if end < self.length or (self.has_last and end != self.length):
            return False
        self.has_last, self.length = True, end
        return True

    def announce_more(self, end: int) -> bool:
        """Another fragment ends at ``end``. False if the datagram is known to end before that."""
        if end > self.length:
            if self.has_last:
                return False
            self.length = end
        return True

    def insert(self, offset: int, end: int) -> Refusal | None:
        """Insert ``[offset, end)``, or return why it does not fit (``inet_frag_queue_insert``).

        A fragment that lies within one run of fragments that arrived in order is a duplicate, whatever its bounds.
        """
        if not self.ends or end > self.ends[-1]:
            if self.ends and offset < self.ends[-1]:
                return Refusal.OVERLAP
            if self.ends and offset == self.ends[-1]:
                self.ends[-1] = end
            else:
                self.starts.append(offset)
                self.ends.append(end)
            return None
        # The first run that ends after the fragment's start is the first that it can overlap.
        at = bisect_right(self.ends, offset)
        if end > self.starts[at]:
            return Refusal.DUPLICATE if offset >= self.starts[at] and end <= self.ends[at] else Refusal.OVERLAP
        # A fragment that fills a hole never joins a run (fragrun_append_to_last knows only the last).
        self.starts.insert(at, offset)
        self.ends.insert(at, end)
        return None

    def add(self, number: int, offset: int, data: bytes, *, ecn_bits: int, size: int) -> None:
        self.members.append(number)
        self.pieces[offset] = data
        self.meat += len(data)
        self.ecn |= 1 << (ecn_bits & 3)
        self.largest = max(self.largest, size)


class _Defragmenter:
    def __init__(self) -> None:
        self._queues: dict[Key, _Queue] = {}
        self._fates: dict[int, Reassembly] = {}
        self._open: set[Key] = set()

    def finish(self) -> dict[int, Reassembly]:
        """The timeout: drop all fragments still queued."""
        for key in list(self._queues):
            self._kill(key, TIMEOUT)
        return self._fates

    def leave_open(self, prefix: Key, number: int) -> None:
        """A packet that may belong to one of these datagrams has arrived. The fate of those that are incomplete, or
        that begin later, is unknown.
        """
        if self._is_open(prefix):
            return
        self._open.add(prefix)
        for key in [key for key in self._queues if key[: len(prefix)] == prefix]:
            for member in self._queues.pop(key).members:
                self._fates[member] = Open(OPEN, number)

    def _is_open(self, key: Key) -> bool:
        return bool(self._open) and any(key[:length] in self._open for length in range(len(key) + 1))

    def _kill(self, key: Key, reason: str) -> None:
        """Drop a queue with all it holds; the next fragment of the datagram opens a new one."""
        for member in self._queues.pop(key).members:
            self._fates[member] = Lost(reason)

    def _complete(self, key: Key, datagram: IP | None) -> None:
        queue = self._queues[key]
        if datagram is None:
            self._kill(key, "datagram too long")
        elif not queue.is_ecn_valid:
            self._kill(key, "fragments with contradicting ECN")
        else:
            transport_at = len(datagram.buf) - queue.length
            whole = Whole(datagram, tuple(queue.members), queue.head, queue.largest, transport_at)
            self._fates |= dict.fromkeys(queue.members, whole)
            del self._queues[key]

    # -- IPv4 ---------------------------------------------------------------------------------------------------------

    def take4(self, number: int, ip: IPv4) -> None:
        if not ip.is_fragment:
            self._fates[number] = Untouched()
            return
        key = (4, ip.source, ip.destination, ip.ident, ip.protocol)
        if self._is_open(key):
            self._fates[number] = Open(OPEN)
            return
        queue = self._queues.setdefault(key, _Queue())
        reason = _queue4(queue, number, ip)
        if reason:
            self._fates[number] = Lost(reason)
            if reason is not Refusal.DUPLICATE:
                self._kill(key, reason)
        elif queue.is_complete:
            self._complete(key, _datagram4(queue))

    # -- IPv6 ---------------------------------------------------------------------------------------------------------

    def take6(self, number: int, ip: IPv6) -> None:
        try:
            fragment = find_fragment6(ip)
        except CutError:
            self._fates[number] = Open(OPEN_ITSELF)
            self.leave_open((6, ip.source, ip.destination), number)
            return
        if fragment is None:
            self._fates[number] = Untouched()
            return
        if fragment.is_cut:
            self._fates[number] = Lost("IPv6 fragment header cut short")
            return
        key = (6, ip.source, ip.destination, fragment.ident)
        if self._is_open(key):
            self._fates[number] = Open(OPEN)
            return
        queue = self._queues.setdefault(key, _Queue())
        end = fragment.offset + len(fragment.data)
        if end <= MAX_DATAGRAM and fragment.more and end % 8:
            # Left to the stack, which answers with a parameter problem (RFC 8200, 4.5).
            self._fates[number] = Untouched()
            self._kill(key, "IPv6 fragment, not last, of a length that is no multiple of 8")
            return
        reason = _queue6(queue, number, ip, fragment)
        if reason:
            self._fates[number] = Lost(reason)
            if reason is Refusal.OVERLAP:  # unlike IPv4, other contradictions drop only the fragment that causes them
                self._kill(key, reason)
        elif queue.is_complete:
            self._complete(key, _datagram6(queue))


def _queue4(queue: _Queue, number: int, ip: IPv4) -> str:
    """``ip_frag_queue``. Returns why the fragment was not taken."""
    end = ip.offset + len(ip.payload)
    if ip.more_fragments:
        end &= ~7
    if not (queue.announce_more(end) if ip.more_fragments else queue.announce_last(end)):
        return "fragment beyond the end of its datagram"
    if end == ip.offset:
        return "fragment without data"
    refused = queue.insert(ip.offset, end)
    if refused:
        return refused
    size = ip.header_length + end - ip.offset
    queue.add(number, ip.offset, ip.payload[: end - ip.offset], ecn_bits=ip.tos, size=size)
    if ip.dont_fragment:
        queue.largest_unfragmentable = max(queue.largest_unfragmentable, size)
    if ip.offset == 0:
        queue.first, queue.head = ip, number
    return ""


def _datagram4(queue: _Queue) -> IPv4 | None:
    """``ip_frag_reasm``: the first fragment's header and all data; None if that would be too long."""
    assert isinstance(queue.first, IPv4), "complete"
    header = bytearray(queue.first.buf[: queue.first.header_length])
    length = len(header) + queue.length
    if length > MAX_DATAGRAM:
        return None
    header[2:4] = length.to_bytes(2, "big")
    header[6:8] = b"\x40\0" if queue.largest_unfragmentable == queue.largest else b"\0\0"
    header[10:12] = b"\0\0"
    header[10:12] = internet_checksum(bytes(header)).to_bytes(2, "big")
    return parse_ipv4(joined([bytes(header), queue.payload]))


def _queue6(queue: _Queue, number: int, ip: IPv6, fragment: Fragment6) -> str:
    """``nf_ct_frag6_queue``. Returns why the fragment was not taken."""
    end = fragment.offset + len(fragment.data)
    if end > MAX_DATAGRAM:
        return "fragment beyond 65,535 bytes"
    if not (queue.announce_more(end) if fragment.more else queue.announce_last(end)):
        return "fragment beyond the end of its datagram"
    if not fragment.data:
        return "fragment without data"
    refused = queue.insert(fragment.offset, end)
    if refused:
        return refused
    size = IPV6_HEADER + ip.payload_length
    queue.add(number, fragment.offset, fragment.data, ecn_bits=ip.traffic_class, size=size)
    if fragment.offset == 0:
        queue.first, queue.first6, queue.head = ip, fragment, number
    return ""


def _datagram6(queue: _Queue) -> IPv6 | None:
    """``nf_ct_frag6_reasm``: the first fragment's headers without the fragment header, then all data."""
    assert isinstance(queue.first, IPv6), "complete"
    assert queue.first6 is not None, "set together with first"
    fragment = queue.first6
    head = bytearray(queue.first.buf[: fragment.at])
    head[fragment.pointer_at] = fragment.next_header
    payload_length = len(head) - IPV6_HEADER + queue.length
    if payload_length > MAX_DATAGRAM:
        return None
    head[4:6] = payload_length.to_bytes(2, "big")
    return parse_ipv6(joined([bytes(head), queue.payload]))
