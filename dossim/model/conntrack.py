"""Connection tracking: what the kernel says of a packet, in the words of ``ctstate`` and ``ct state``."""

from __future__ import annotations

from enforcer.model.vocabulary import Word


class CtState(Word):
    """The state of a packet after conntrack (PREROUTING -200), as rules match on it (``xt_conntrack``, ``nft_ct``).

    NEW: its connection has seen no reply (TCP: it may begin one).
    ESTABLISHED: its connection has seen packets in both directions.
    RELATED: it belongs to another, known connection, as an ICMP error does.
    INVALID: it has no entry; conntrack could not read it, or it fits no connection.
    UNTRACKED: conntrack was told to ignore it (NOTRACK), or ignores it always (ICMPv6 neighbour discovery, MLD).
    """

    NEW = "NEW"
    ESTABLISHED = "ESTABLISHED"
    RELATED = "RELATED"
    INVALID = "INVALID"
    UNTRACKED = "UNTRACKED"
