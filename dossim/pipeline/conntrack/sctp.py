"""SCTP: ``nf_conntrack_sctp_packet`` of ``net/netfilter/nf_conntrack_proto_sctp.c`` (Linux 6.18.44)."""

from __future__ import annotations

from dataclasses import dataclass

from dossim.packet.cut import visible
from dossim.packet.parse import number
from dossim.pipeline.conntrack.checksum import crc32c
from dossim.pipeline.conntrack.entry import Entry, Seen
from dossim.pipeline.conntrack.sctp_flow import SctpFlow
from dossim.pipeline.conntrack.sctp_states import Chunk, SctpState, next_state
from dossim.pipeline.conntrack.states import Accepted, CtDirection, Reason, Refused, Tracked

HEADER, CHUNK_HEADER = 12, 4
_INIT_HEADER = 16  # struct sctp_inithdr: after the header of the chunk
_T_FLAG = 1  # the tag is the peer's own
_ALONE = (Chunk.INIT, Chunk.INIT_ACK, Chunk.SHUTDOWN_COMPLETE)
_FIRST = (Chunk.COOKIE_ACK, Chunk.COOKIE_ECHO)
_ENDS = frozenset({Chunk.ABORT, Chunk.SHUTDOWN_COMPLETE, Chunk.COOKIE_ACK})
_OWN_TAG_RULE = frozenset(
    {
        Chunk.INIT,
        Chunk.SHUTDOWN_COMPLETE,
        Chunk.COOKIE_ECHO,
        Chunk.ABORT,
        Chunk.SHUTDOWN_ACK,
        Chunk.HEARTBEAT,
        Chunk.HEARTBEAT_ACK,
    }
)


@dataclass(frozen=True)
class SctpChunk:
    """``tag`` is the initiate tag of an INIT or INIT ACK that is long enough, else None."""

    kind: int
    flags: int
    length: int
    tag: int | None


def read_chunks(buf: bytes) -> list[SctpChunk]:
    """The chunks, as far as their headers are there. One of length 0 ends the list."""
    chunks: list[SctpChunk] = []
    at = HEADER
    while len(buf) >= at + CHUNK_HEADER:
        length = number(buf, at + 2, 2)
        has_tag = len(buf) >= at + CHUNK_HEADER + _INIT_HEADER
        tag = number(buf, at + CHUNK_HEADER, 4) if buf[at] in _ALONE[:2] and has_tag else None
        chunks.append(SctpChunk(buf[at], buf[at + 1], length, tag))
        if not length:
            break
        at += (length + 3) & ~3
    return chunks


def track_sctp(entry: Entry, direction: CtDirection, seen: Seen) -> Tracked:
    buf = seen.buf
    if len(buf) < HEADER:
        return Refused(Reason.SCTP_SHORT, f"{len(buf)} bytes")
    if seen.verifies and not _checksum_ok(buf):
        return Refused(Reason.SCTP_CHECKSUM)
    chunks = read_chunks(buf)
    if not _are_well_formed(chunks):
        return Refused(Reason.SCTP_CHUNKS)
    kinds = {chunk.kind for chunk in chunks}
    tag = number(buf, 4, 4)
    if not entry.confirmed:
        begun = _begin(chunks, kinds, tag)
        if begun is None:
            return Refused(Reason.SCTP_NOT_OPENING)
        entry.sctp = begun
    assert entry.sctp is not None, "every entry of SCTP has one"
    if not kinds & _OWN_TAG_RULE and tag != entry.sctp.tags[direction]:
        return Refused(Reason.SCTP_TAG)
    return _Step(entry, entry.sctp, direction, seen, kinds, tag).take(chunks)


def _checksum_ok(buf: bytes) -> bool:
    whole = visible(buf)
    return crc32c(whole[:8] + bytes(4) + whole[HEADER:]) == int.from_bytes(whole[8:12], "little")


def _are_well_formed(chunks: list[SctpChunk]) -> bool:
    """``do_basic_checks``: some chunks are alone in their packet, others its first; none has length 0."""
    for place, chunk in enumerate(chunks):
        is_misplaced = place > 0 and (
            chunk.kind in _FIRST or any(other.kind in _ALONE for other in chunks[: place + 1])
        )
        if is_misplaced or not chunk.length:
            return False
    return bool(chunks)


def _begin(chunks: list[SctpChunk], kinds: set[int], tag: int) -> SctpFlow | None:
    """``sctp_new``, and what an unknown association cannot begin with (RFC 9260, section 8.4)."""
    if kinds & _ENDS:
        return None
    flow = SctpFlow()
    for chunk in chunks:
        if next_state(CtDirection.ORIGINAL, chunk.kind, SctpState.NONE) in (SctpState.NONE, None):
            return None
        if chunk.kind == Chunk.INIT:
            if tag or chunk.tag is None:
                return None
            flow.tags[CtDirection.REPLY] = chunk.tag
        elif chunk.kind == Chunk.HEARTBEAT:
            flow.tags[CtDirection.ORIGINAL] = tag
        elif chunk.kind == Chunk.SHUTDOWN_ACK:
            flow.tags[CtDirection.REPLY] = tag
    return flow


class _Step:
    """One packet on its entry, chunk by chunk."""

    def __init__(
        self, entry: Entry, flow: SctpFlow, direction: CtDirection, seen: Seen, kinds: set[int], tag: int
    ) -> None:
        self.entry = entry
        self.flow = flow
        self.direction = direction
        self.seen = seen
        self.kinds = kinds
        self.tag = tag
        self.keeps_timeout = False

    def take(self, chunks: list[SctpChunk]) -> Tracked:
        new = SctpState.NONE
        for chunk in chunks:
            answer = self._tag_verdict(chunk)
            if answer is False:
                return Refused(Reason.SCTP_TAG)
            if answer is None:
                continue
            old = self.flow.state
            following = next_state(self.direction, chunk.kind, old)
            if following is None:
                return Refused(Reason.SCTP_STATE, f"chunk {chunk.kind} in {old.name}")
            new = following
            if not self._take_initiate_tag(chunk, old, new):
                return Refused(Reason.SCTP_TAG)
            self.flow.state = new
            self.entry.assured |= old is not new and new is SctpState.ESTABLISHED
        if not self.keeps_timeout:
            self.entry.refresh(self.seen.time_ns, self.seen.settings.sctp_timeouts[new])
        return Accepted()

    def _tag_verdict(self, chunk: SctpChunk) -> bool | None:
        """The rules of single chunks (RFC 9260, section 8.5.1). None: the chunk is passed over."""
        flow, tag, expected = self.flow, self.tag, self.flow.tags[self.direction]
        match chunk.kind:
            case Chunk.INIT:
                return tag == 0
            case Chunk.ABORT | Chunk.SHUTDOWN_COMPLETE:
                return tag == (flow.tags[self.direction.other] if chunk.flags & _T_FLAG else expected)
            case Chunk.COOKIE_ECHO:
                return tag == expected
            case Chunk.COOKIE_ACK:
                flow.inits = [False, False]
                return True
            case Chunk.HEARTBEAT | Chunk.HEARTBEAT_ACK:
                return self._heartbeat(chunk.kind == Chunk.HEARTBEAT_ACK)
            case _:
                return True

    def _heartbeat(self, is_answer: bool) -> bool | None:
        """A restarted peer has another tag: believed once the other side answers."""
        flow, direction = self.flow, self.direction
        if flow.tags[direction] == 0:
            flow.tags[direction] = self.tag
            return True
        if self.tag == flow.tags[direction]:
            flow.heartbeat_failed = False
            return True
        if Chunk.DATA in self.kinds or self.keeps_timeout:
            return False
        if not is_answer:
            flow.heartbeat_failed, flow.last_direction, self.keeps_timeout = True, direction, True
            return None
        if not flow.heartbeat_failed or flow.last_direction is direction:
            return False
        flow.heartbeat_failed = False
        flow.tags[direction], flow.tags[direction.other] = self.tag, 0
        return True

    def _take_initiate_tag(self, chunk: SctpChunk, old: SctpState, new: SctpState) -> bool:
        flow, direction, other = self.flow, self.direction, self.direction.other
        if chunk.kind not in _ALONE[:2]:
            return True
        if chunk.tag is None:
            return False
        if chunk.kind == Chunk.INIT:
            # Else it is repeated or late, which counted in 6.18 without its updates.
            if old is SctpState.NONE or flow.tags[other] != chunk.tag:
                flow.inits[other] &= not flow.inits[direction]
                flow.inits[direction] = True
            is_repeated = old is SctpState.CLOSED and new is SctpState.CLOSED
            self.keeps_timeout |= is_repeated and self.entry.confirmed
        else:
            known = flow.tags[other]
            collides = all(flow.inits) or not flow.inits[other]
            if collides and known != chunk.tag and (known or all(flow.inits)):
                return False
        flow.tags[other] = chunk.tag
        return True
