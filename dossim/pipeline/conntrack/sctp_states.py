"""The state table of SCTP: ``sctp_conntracks`` of ``net/netfilter/nf_conntrack_proto_sctp.c`` (Linux 6.18).

A row is the type of a chunk, a column the state the entry is in; IV: the packet is invalid. Chunks without a row (DATA,
SACK, ...) change nothing.
"""

from __future__ import annotations

from enum import IntEnum

from dossim.pipeline.conntrack.states import CtDirection


class SctpState(IntEnum):
    """``enum sctp_conntrack``."""

    NONE = 0
    CLOSED = 1
    COOKIE_WAIT = 2
    COOKIE_ECHOED = 3
    ESTABLISHED = 4
    SHUTDOWN_SENT = 5
    SHUTDOWN_RECD = 6
    SHUTDOWN_ACK_SENT = 7
    HEARTBEAT_SENT = 8


class Chunk(IntEnum):
    """The types that conntrack looks at (RFC 9260, section 3.2)."""

    DATA = 0
    INIT = 1
    INIT_ACK = 2
    HEARTBEAT = 4
    HEARTBEAT_ACK = 5
    ABORT = 6
    SHUTDOWN = 7
    SHUTDOWN_ACK = 8
    ERROR = 9
    COOKIE_ECHO = 10
    COOKIE_ACK = 11
    SHUTDOWN_COMPLETE = 14


_CELLS: dict[str, SctpState | None] = {
    "CL": SctpState.CLOSED,
    "CW": SctpState.COOKIE_WAIT,
    "CE": SctpState.COOKIE_ECHOED,
    "ES": SctpState.ESTABLISHED,
    "SS": SctpState.SHUTDOWN_SENT,
    "SR": SctpState.SHUTDOWN_RECD,
    "SA": SctpState.SHUTDOWN_ACK_SENT,
    "HS": SctpState.HEARTBEAT_SENT,
    "IV": None,
}

_ROWS: dict[tuple[CtDirection, Chunk], str] = {
    # in state:                                          NO CL CW CE ES SS SR SA HS
    (CtDirection.ORIGINAL, Chunk.INIT): "                CL CL CW CE ES CL CL SA CW",
    (CtDirection.ORIGINAL, Chunk.INIT_ACK): "            CL CL CW CE ES SS SR SA CL",
    (CtDirection.ORIGINAL, Chunk.ABORT): "               CL CL CL CL CL CL CL CL CL",
    (CtDirection.ORIGINAL, Chunk.SHUTDOWN): "            CL CL CW CE SS SS SR SA CL",
    (CtDirection.ORIGINAL, Chunk.SHUTDOWN_ACK): "        SA CL CW CE ES SA SA SA SA",
    (CtDirection.ORIGINAL, Chunk.ERROR): "               CL CL CW CE ES SS SR SA CL",
    (CtDirection.ORIGINAL, Chunk.COOKIE_ECHO): "         CL CL CE CE ES SS SR SA CL",
    (CtDirection.ORIGINAL, Chunk.COOKIE_ACK): "          CL CL CW ES ES SS SR SA CL",
    (CtDirection.ORIGINAL, Chunk.SHUTDOWN_COMPLETE): "   CL CL CW CE ES SS SR CL CL",
    (CtDirection.ORIGINAL, Chunk.HEARTBEAT): "           HS CL CW CE ES SS SR SA HS",
    (CtDirection.ORIGINAL, Chunk.HEARTBEAT_ACK): "       CL CL CW CE ES SS SR SA HS",
    (CtDirection.REPLY, Chunk.INIT): "                   IV CL CW CE ES SS SR SA IV",
    (CtDirection.REPLY, Chunk.INIT_ACK): "               IV CW CW CE ES SS SR SA IV",
    (CtDirection.REPLY, Chunk.ABORT): "                  IV CL CL CL CL CL CL CL IV",
    (CtDirection.REPLY, Chunk.SHUTDOWN): "               IV CL CW CE SR SS SR SA IV",
    (CtDirection.REPLY, Chunk.SHUTDOWN_ACK): "           IV CL CW CE ES SA SA SA IV",
    (CtDirection.REPLY, Chunk.ERROR): "                  IV CL CW CL ES SS SR SA IV",
    (CtDirection.REPLY, Chunk.COOKIE_ECHO): "            IV CL CE CE ES SS SR SA IV",
    (CtDirection.REPLY, Chunk.COOKIE_ACK): "             IV CL CW ES ES SS SR SA IV",
    (CtDirection.REPLY, Chunk.SHUTDOWN_COMPLETE): "      IV CL CW CE ES SS SR CL IV",
    (CtDirection.REPLY, Chunk.HEARTBEAT): "              IV CL CW CE ES SS SR SA HS",
    (CtDirection.REPLY, Chunk.HEARTBEAT_ACK): "          IV CL CW CE ES SS SR SA ES",
}

_TABLE: dict[tuple[CtDirection, int, SctpState], SctpState | None] = {
    (direction, int(chunk), state): _CELLS[cell]
    for (direction, chunk), row in _ROWS.items()
    for state, cell in zip(SctpState, row.split(), strict=True)
}


def next_state(direction: CtDirection, chunk: int, state: SctpState) -> SctpState | None:
    """``sctp_new_state``; None where the chunk is invalid in this state."""
    return _TABLE.get((direction, chunk, state), state)
