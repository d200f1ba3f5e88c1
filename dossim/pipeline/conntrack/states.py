"""The words of connection tracking: states of a packet, directions of a flow, and the reasons, as closed sets.

:mod:`dossim.pipeline.conntrack.sentences` makes sentences of the reasons.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from enforcer.model.vocabulary import CtState as CtState
from enforcer.model.vocabulary import Word


class CtDirection(IntEnum):
    """``enum ip_conntrack_dir``: that of the packet which made the entry, or the other."""

    ORIGINAL = 0
    REPLY = 1

    @property
    def other(self) -> CtDirection:
        return CtDirection.REPLY if self is CtDirection.ORIGINAL else CtDirection.ORIGINAL


class At(Word):
    """Where conntrack sees a packet. Checksums are verified at PREROUTING only."""

    PREROUTING = "PREROUTING"
    OUTPUT = "OUTPUT"


class Reason(Word):
    """Why a packet has its state. Those of INVALID first, by protocol."""

    NO_PROTOCOL = "no-protocol"
    NO_TUPLE = "no-tuple"
    NO_REPLY_TUPLE = "no-reply-tuple"
    WRONG_FAMILY = "wrong-family"
    TCP_SHORT = "tcp-short"
    TCP_DATA_OFFSET = "tcp-data-offset"
    TCP_CHECKSUM = "tcp-checksum"
    TCP_FLAGS = "tcp-flags"
    TCP_NOT_OPENING = "tcp-not-opening"
    TCP_NOT_LOOSE = "tcp-not-loose"
    TCP_STATE = "tcp-state"
    TCP_RST_OLD = "tcp-rst-old"
    TCP_SEQ_OVER = "tcp-seq-over"
    TCP_ACK_OVER = "tcp-ack-over"
    UDP_SHORT = "udp-short"
    UDP_LENGTH = "udp-length"
    UDP_CHECKSUM = "udp-checksum"
    UDPLITE_SHORT = "udplite-short"
    UDPLITE_COVERAGE = "udplite-coverage"
    UDPLITE_NO_CHECKSUM = "udplite-no-checksum"
    UDPLITE_CHECKSUM = "udplite-checksum"
    ICMP_SHORT = "icmp-short"
    ICMP_CHECKSUM = "icmp-checksum"
    ICMP_TYPE_UNKNOWN = "icmp-type-unknown"
    ICMP_NOT_REQUEST = "icmp-not-request"
    ICMP_QUOTE_SHORT = "icmp-quote-short"
    ICMP_QUOTE_NO_REPLY = "icmp-quote-no-reply"
    ICMP_QUOTE_UNKNOWN = "icmp-quote-unknown"
    ICMP_QUOTE_OTHER = "icmp-quote-other"
    ICMPV6_REDIRECT_SHORT = "icmpv6-redirect-short"
    ICMPV6_REDIRECT_FORGED = "icmpv6-redirect-forged"
    ICMPV6_REDIRECT_NO_QUOTE = "icmpv6-redirect-no-quote"
    SCTP_SHORT = "sctp-short"
    SCTP_CHECKSUM = "sctp-checksum"
    SCTP_CHUNKS = "sctp-chunks"
    SCTP_NOT_OPENING = "sctp-not-opening"
    SCTP_TAG = "sctp-tag"
    SCTP_STATE = "sctp-state"
    # UNTRACKED
    NOTRACK = "notrack"
    ICMPV6_NEIGHBOUR = "icmpv6-neighbour"
    # RELATED
    QUOTES_FLOW = "quotes-flow"
    # NEW
    FIRST = "first"
    NO_REPLY_YET = "no-reply-yet"
    # ESTABLISHED
    IS_REPLY = "is-reply"
    REPLY_SEEN = "reply-seen"


class Remark(Word):
    """What else conntrack did, or left undone, with a packet that is not INVALID."""

    TCP_PICKED_UP = "tcp-picked-up"
    TCP_IGNORED = "tcp-ignored"
    TCP_CHALLENGE_ACK = "tcp-challenge-ack"
    TCP_OVERSHOT = "tcp-overshot"
    TCP_SEQ_UNDER = "tcp-seq-under"
    TCP_ACK_UNDER = "tcp-ack-under"
    TCP_REOPENED = "tcp-reopened"
    TCP_DELETED = "tcp-deleted"


class Coin(Word):
    """Why more than one state is possible."""

    HOST_ISN = "host-isn"
    CAPTURE_CUT = "capture-cut"
    FORGOTTEN = "forgotten"  # of predict alone, which keeps so many flows


@dataclass(frozen=True)
class Accepted:
    """The tracker of the protocol takes the packet. ``deletes``: and removes the entry at once."""

    remark: Remark | None = None
    deletes: bool = False


@dataclass(frozen=True)
class Refused:
    """The packet is INVALID; its entry stays as it is."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True)
class Reopens:
    """The entry is deleted and the packet looked up again (``-NF_REPEAT``)."""


Tracked = Accepted | Refused | Reopens
