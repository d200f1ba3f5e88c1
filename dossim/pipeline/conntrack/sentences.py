"""Reasons as sentences, for people."""

from __future__ import annotations

from dossim.pipeline.conntrack.states import Coin, CtState, Reason, Remark
from dossim.pipeline.conntrack.verdict import Outcome, Verdict

REASONS: dict[Reason, str] = {
    Reason.NO_PROTOCOL: "a later fragment, or extension headers that do not lead to a protocol",
    Reason.NO_TUPLE: "its ports, ICMP header or GRE protocol cannot be read",
    Reason.NO_REPLY_TUPLE: "an ICMP message that is neither request nor reply",
    Reason.WRONG_FAMILY: "ICMP of the other IP version",
    Reason.TCP_SHORT: "less than a TCP header",
    Reason.TCP_DATA_OFFSET: "TCP data offset below 5 or beyond the segment",
    Reason.TCP_CHECKSUM: "bad TCP checksum",
    Reason.TCP_FLAGS: "TCP flags that no segment has together",
    Reason.TCP_NOT_OPENING: "no entry, and the segment cannot begin one",
    Reason.TCP_NOT_LOOSE: "no entry, and with tcp_loose=0 an ACK does not begin one",
    Reason.TCP_STATE: "a segment that the state of its entry does not allow",
    Reason.TCP_RST_OLD: "a RST below what the other side has acknowledged",
    Reason.TCP_SEQ_OVER: "sequence number above the window",
    Reason.TCP_ACK_OVER: "acknowledges what the other side has not sent",
    Reason.UDP_SHORT: "less than a UDP header",
    Reason.UDP_LENGTH: "UDP length below 8 or beyond the packet",
    Reason.UDP_CHECKSUM: "bad UDP checksum",
    Reason.UDPLITE_SHORT: "less than a UDP-Lite header",
    Reason.UDPLITE_COVERAGE: "UDP-Lite coverage below 8 or beyond the packet",
    Reason.UDPLITE_NO_CHECKSUM: "UDP-Lite without checksum",
    Reason.UDPLITE_CHECKSUM: "bad UDP-Lite checksum, as conntrack computes it",
    Reason.ICMP_SHORT: "less than an ICMP header",
    Reason.ICMP_CHECKSUM: "bad ICMP checksum",
    Reason.ICMP_TYPE_UNKNOWN: "ICMP type above 18",
    Reason.ICMP_NOT_REQUEST: "an ICMP reply without a request",
    Reason.ICMP_QUOTE_SHORT: "an ICMP error whose quoted packet cannot be read",
    Reason.ICMP_QUOTE_NO_REPLY: "an ICMP error about an ICMP message that is neither request nor reply",
    Reason.ICMP_QUOTE_UNKNOWN: "an ICMP error about a packet of no entry",
    Reason.ICMP_QUOTE_OTHER: "an ICMP error that was not sent to the sender of the quoted packet",
    Reason.ICMPV6_REDIRECT_SHORT: "less than a redirect message",
    Reason.ICMPV6_REDIRECT_FORGED: "a redirect with a hop limit below 255 or from an address that is not link-local",
    Reason.ICMPV6_REDIRECT_NO_QUOTE: "a redirect without options",
    Reason.SCTP_SHORT: "less than an SCTP header",
    Reason.SCTP_CHECKSUM: "bad SCTP checksum",
    Reason.SCTP_CHUNKS: "SCTP chunks that cannot be together, or none",
    Reason.SCTP_NOT_OPENING: "no entry, and the chunks cannot begin one",
    Reason.SCTP_TAG: "another verification tag",
    Reason.SCTP_STATE: "a chunk that the state of its entry does not allow",
    Reason.NOTRACK: "taken out of tracking in raw",
    Reason.ICMPV6_NEIGHBOUR: "neighbour discovery and MLD are never tracked",
    Reason.QUOTES_FLOW: "an ICMP error about a packet of an entry",
    Reason.FIRST: "no entry",
    Reason.NO_REPLY_YET: "an entry without a reply so far",
    Reason.IS_REPLY: "the reply direction of an entry",
    Reason.REPLY_SEEN: "an entry that has seen a reply",
}
REMARKS: dict[Remark, str] = {
    Remark.TCP_PICKED_UP: "picked up in the middle of a connection (tcp_loose): its window is not enforced",
    Remark.TCP_IGNORED: "passes without effect: the entry may be out of step with the ends",
    Remark.TCP_CHALLENGE_ACK: "passes without effect: a challenge ACK",
    Remark.TCP_OVERSHOT: "passes: slightly more than the window",
    Remark.TCP_SEQ_UNDER: "passes without effect: data that was acknowledged already",
    Remark.TCP_ACK_UNDER: "passes without effect: a late acknowledgment",
    Remark.TCP_REOPENED: "replaces the entry of a closed connection",
    Remark.TCP_DELETED: "removes the entry: the only answer is a RST",
}
COINS: dict[Coin, str] = {
    Coin.HOST_ISN: "depends on the initial sequence number that the host chose for this connection",
    Coin.CAPTURE_CUT: "depends on an earlier packet of the flow that the capture cut",
    Coin.FORGOTTEN: "depends on earlier packets: there are more flows than the prediction keeps",
}


def describe(verdict: Verdict) -> str:
    """``INVALID: bad TCP checksum``; of several outcomes all, with what they depend on."""
    all_of_them = " or ".join(map(describe_outcome, verdict.outcomes))
    return all_of_them if verdict.coin is None else f"{all_of_them}; {COINS[verdict.coin]}"


def describe_outcome(outcome: Outcome) -> str:
    sentence = f"{outcome.state}: {REASONS[outcome.reason]}"
    if outcome.detail and outcome.state is CtState.INVALID:
        sentence += f" ({outcome.detail})"
    return sentence if outcome.remark is None else f"{sentence}; {REMARKS[outcome.remark]}"
