"""GRE: ``nf_conntrack_gre_packet`` of ``net/netfilter/nf_conntrack_proto_gre.c`` (Linux 6.18).

An entry for each pair of addresses; of PPTP for each call (:mod:`dossim.pipeline.conntrack.tuples`).
"""

from __future__ import annotations

from dossim.pipeline.conntrack.entry import Entry, Seen
from dossim.pipeline.conntrack.states import Accepted, CtDirection, Tracked


def track_gre(entry: Entry, direction: CtDirection, seen: Seen) -> Tracked:
    timeout = seen.settings.gre_timeout_stream if entry.seen_reply else seen.settings.gre_timeout
    entry.refresh(seen.time_ns, timeout)
    entry.assured |= entry.seen_reply
    return Accepted()
