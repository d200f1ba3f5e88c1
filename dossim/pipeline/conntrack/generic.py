"""Every other protocol: ``generic_packet`` of ``net/netfilter/nf_conntrack_core.c``. An entry for each pair of
addresses and protocol.
"""

from __future__ import annotations

from dossim.pipeline.conntrack.entry import Entry, Seen
from dossim.pipeline.conntrack.states import Accepted, CtDirection, Tracked


def track_generic(entry: Entry, direction: CtDirection, seen: Seen) -> Tracked:
    entry.refresh(seen.time_ns, seen.settings.generic_timeout)
    return Accepted()
