"""The state table of TCP: ``tcp_conntracks`` of ``net/netfilter/nf_conntrack_proto_tcp.c`` (Linux 6.18).

A row is the kind of segment, a column the state the entry is in; the cell is the next state. Two more answers: IV, the
segment is invalid; IG, the entry stays as it is and the segment passes, because entry and ends may be out of step.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

from dossim.pipeline.conntrack.states import CtDirection


class TcpState(IntEnum):
    """``enum tcp_conntrack``; the order counts (TIME_WAIT and after are closed)."""

    NONE = 0
    SYN_SENT = 1
    SYN_RECV = 2
    ESTABLISHED = 3
    FIN_WAIT = 4
    CLOSE_WAIT = 5
    LAST_ACK = 6
    TIME_WAIT = 7
    CLOSE = 8
    SYN_SENT2 = 9


class Kind(IntEnum):
    """``enum tcp_bit_set``: RST before SYN before FIN before ACK (``get_conntrack_index``)."""

    SYN = 0
    SYNACK = 1
    FIN = 2
    ACK = 3
    RST = 4
    NONE = 5


Next = TcpState | Literal["invalid", "ignore"]
INVALID: Literal["invalid"] = "invalid"
IGNORE: Literal["ignore"] = "ignore"

_CELLS: dict[str, Next] = {
    "NO": TcpState.NONE,
    "SS": TcpState.SYN_SENT,
    "SR": TcpState.SYN_RECV,
    "ES": TcpState.ESTABLISHED,
    "FW": TcpState.FIN_WAIT,
    "CW": TcpState.CLOSE_WAIT,
    "LA": TcpState.LAST_ACK,
    "TW": TcpState.TIME_WAIT,
    "CL": TcpState.CLOSE,
    "S2": TcpState.SYN_SENT2,
    "IV": INVALID,
    "IG": IGNORE,
}

_ROWS: dict[tuple[CtDirection, Kind], str] = {
    # in state:                              NO SS SR ES FW CW LA TW CL S2
    (CtDirection.ORIGINAL, Kind.SYN): "      SS SS IG IG IG IG IG SS SS S2",
    (CtDirection.ORIGINAL, Kind.SYNACK): "   IV IV SR IV IV IV IV IV IV SR",
    (CtDirection.ORIGINAL, Kind.FIN): "      IV IV FW FW LA LA LA TW CL IV",
    (CtDirection.ORIGINAL, Kind.ACK): "      ES IV ES ES CW CW TW TW CL IV",
    (CtDirection.ORIGINAL, Kind.RST): "      IV CL CL CL CL CL CL CL CL CL",
    (CtDirection.ORIGINAL, Kind.NONE): "     IV IV IV IV IV IV IV IV IV IV",
    (CtDirection.REPLY, Kind.SYN): "         IV S2 IV IV IV IV IV SS IV S2",
    (CtDirection.REPLY, Kind.SYNACK): "      IV SR IG IG IG IG IG IG IG SR",
    (CtDirection.REPLY, Kind.FIN): "         IV IV FW FW LA LA LA TW CL IV",
    (CtDirection.REPLY, Kind.ACK): "         IV IG SR ES CW CW TW TW CL IG",
    (CtDirection.REPLY, Kind.RST): "         IV CL CL CL CL CL CL CL CL CL",
    (CtDirection.REPLY, Kind.NONE): "        IV IV IV IV IV IV IV IV IV IV",
}

_TABLE: dict[tuple[CtDirection, Kind, TcpState], Next] = {
    (direction, kind, state): _CELLS[cell]
    for (direction, kind), row in _ROWS.items()
    for state, cell in zip(TcpState, row.split(), strict=True)
}


def next_state(direction: CtDirection, kind: Kind, state: TcpState) -> Next:
    return _TABLE[direction, kind, state]
