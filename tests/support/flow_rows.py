"""What rules match on, of one packet of the model, as a row of FLOW, which the engine writes of others."""

from __future__ import annotations

import numpy as np

from dossim.engine.layout import FLOW, Rows
from dossim.engine.rules import CUT, NONE
from dossim.packet.cut import CutError
from dossim.packet.fields import HIDDEN, ICMP, ICMP_HEADER, ICMPV6, Transport
from dossim.pipeline.match_key import MatchKey
from dossim.pipeline.xdp_headers import PORT_HEADERS
from dossim.predict.compiled import halves
from enforcer.model.nets import IPAddress


def flows_of_key(key: MatchKey) -> Rows:
    """One packet, by what rules match on."""
    found = np.zeros(1, FLOW)
    _fill(found[0], key.version, key.source, key.destination, key.transport)
    return found


def _fill(row: np.void, version: int, source: IPAddress, destination: IPAddress, found: Transport | None) -> None:
    row["version"] = version
    row["source"], row["destination"] = halves(source), halves(destination)
    row["protocol"] = NONE if found is None else CUT if found is HIDDEN else found.protocol
    known = None if found is HIDDEN else found
    row["sport"], row["dport"] = _ports(known)
    row["icmp_type"], row["icmp_code"] = _icmp(known)
    row["later_fragment"] = bool(known and known.fragment_offset)
    row["whole_header"] = _is_whole(known)


def _ports(found: Transport | None) -> tuple[int, int]:
    """Both ports, NONE if there are none."""
    try:
        return (NONE, NONE) if found is None else found.ports or (NONE, NONE)
    except CutError:
        return CUT, CUT


def _icmp(found: Transport | None) -> tuple[int, int]:
    """Type and code, NONE if there are none."""
    if found is None or found.protocol not in (ICMP, ICMPV6) or found.fragment_offset:
        return NONE, NONE
    if len(found.buf) < ICMP_HEADER:
        return NONE, NONE
    try:
        return found.buf[0], found.buf[1]
    except CutError:
        return CUT, CUT


def _is_whole(found: Transport | None) -> bool:
    """All of a TCP, UDP or SCTP header is there."""
    if found is None or found.fragment_offset:
        return False
    least = PORT_HEADERS.get(found.protocol)
    return least is not None and len(found.buf) >= least
