"""judge: turns the kernel's record of each packet into its fate.

The last checkpoint shows between which two hooks the packet was dropped; the freeing function and the drop reason
distinguish causes between the same two hooks. A packet without evidence of its end has no observation: nothing is
guessed.

After defragmentation a fragment shares the fate of its datagram: the first datagram with the same (source, destination,
id) that left defragmentation after the fragment entered it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dossim.model.disposition import Disposition, Fate
from dossim.observe.evidence import FILTER_STAGES, DroppedBy, Evidence
from dossim.observe.journey import CT_STATES, NO_STATE, PLACES, Checkpoint, End, Journeys, ct_states, is_reply
from dossim.observe.symbols import drop_reasons, resolve
from enforcer.model.counted import counted
from enforcer.model.vocabulary import CtState, Stage

FATES = tuple(Fate)
STAGES = tuple(Stage)
NONE = 255

# The transport itself rejected these; any other end after LOCAL_IN means that the packet reached it.
MALFORMED = frozenset(
    {
        "NOT_SPECIFIED",
        "TCP_CSUM",
        "UDP_CSUM",
        "ICMP_CSUM",
        "PKT_TOO_SMALL",
        "PKT_TOO_BIG",
        "IP_INHDR",
        "IPV6_BAD_EXTHDR",
    }
    | {"HDR_TRUNC", "SKB_CSUM", "OTHERHOST", "UNHANDLED_PROTO"}
)
# Handlers of control messages free unneeded messages with various reasons; only a bad checksum is a rejection. Handlers
# of PIM and tunnels exist depending on the kernel configuration, and free without a reason what no multicast router or
# tunnel takes. The packet still reached them, as it does in a kernel without them.
CONTROL_HANDLERS = frozenset({"icmp_rcv", "icmpv6_rcv", "igmp_rcv"})
CONTROL_HANDLERS |= {"pim_rcv", "pim6_rcv", "gre_rcv", "l2tp_ip_recv", "l2tp_ip6_recv"}
# Here freeing without a reason is a rejection only if one of these checkpoints is set. UDP also frees datagrams to a
# group that no socket has joined (__udp4_lib_mcast_deliver), TCP segments that a half-open connection does not need.
_REFUSED_BY = {
    "__udp4_lib_rcv": Checkpoint.NO_UDP,
    "__udp6_lib_rcv": Checkpoint.NO_UDP,
    "tcp_v4_rcv": Checkpoint.NO_TCP | Checkpoint.GROUP,
    "tcp_v6_rcv": Checkpoint.NO_TCP | Checkpoint.GROUP,
}
# Freed by defragmentation itself, not by the later fate of the datagram (whose parts skb_release_data frees). The IPv6
# hook leaves freeing what it rejects to the caller of all hooks.
DEFRAG_REASONS = frozenset({"FRAG_REASM_TIMEOUT", "FRAG_TOO_FAR", "DUP_FRAG"})
DEFRAG_PLACES = (
    "inet_frag_rbtree_purge",
    "inet_frag_destroy",
    "ip_expire",
    "ip_frag_queue",
    "ip_defrag",
    "nf_ct_frag6_",
    "nf_hook_slow",
)

# Checkpoints in order, each with the stage that dropped a packet whose last checkpoint it is.
_LOST_AFTER = (
    (Checkpoint.PRE_DEFRAG, Stage.DEFRAG),
    (Checkpoint.POST_DEFRAG, Stage.RAW),
    (Checkpoint.POST_RAW, Stage.CONNTRACK),
    (Checkpoint.POST_CONNTRACK, Stage.MANGLE),
    (Checkpoint.POST_MANGLE, Stage.NAT),
    (Checkpoint.PRE_ROUTE, Stage.ROUTE),
    (Checkpoint.INPUT_FIRST, Stage.FILTER_INPUT),
    (Checkpoint.FORWARD_FIRST, Stage.FILTER_FORWARD),
    (Checkpoint.FORWARD_LAST, Stage.EGRESS),
)


@dataclass(frozen=True)
class Observations:
    """One observation per packet: ``fate`` and ``stage`` index Fate and Stage (255: none).

    ``evidence_index`` indexes ``sentences``; ``absorbed`` fragments share the end of the datagram they became part of.
    ``state`` indexes CT_STATES (NO_STATE: did not get past conntrack), ``reply`` is conntrack's direction; ``mark`` is
    ``skb->mark`` at the end.
    """

    fate: npt.NDArray[np.uint8]
    stage: npt.NDArray[np.uint8]
    evidence_index: npt.NDArray[np.int32]
    sentences: tuple[str, ...]
    absorbed: npt.NDArray[np.bool_]
    state: npt.NDArray[np.uint8]
    reply: npt.NDArray[np.bool_]
    mark: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.fate)

    @property
    def unobserved(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.fate == NONE, np.bool_)

    def disposition(self, packet: int) -> Disposition | None:
        """What became of a packet, None without evidence of its end."""
        if self.fate[packet] == NONE:
            return None
        stage = None if self.stage[packet] == NONE else STAGES[self.stage[packet]]
        return Disposition(FATES[self.fate[packet]], stage, reason=str(self.evidence(packet)))

    def without(self, packets: Mapping[int, str]) -> Observations:
        """The same, but with these packets unobserved, each for the given reason."""
        if not packets:
            return self
        fate, stage, index = self.fate.copy(), self.stage.copy(), self.evidence_index.copy()
        sentences = list(self.sentences)
        for packet, why in packets.items():
            fate[packet] = stage[packet] = NONE
            index[packet] = len(sentences)
            sentences.append(f"{why}; {self.evidence(packet).end}")
        return replace(self, fate=fate, stage=stage, evidence_index=index, sentences=tuple(sentences))

    def evidence(self, packet: int) -> Evidence:
        """What the kernel reported of a packet, or why it did not."""
        end = self.sentences[int(self.evidence_index[packet])]
        return Evidence(end, self.ct_state(packet), bool(self.reply[packet]), int(self.mark[packet]))

    def ct_state(self, packet: int) -> CtState | None:
        """What conntrack said of a packet, None where it did not get past it."""
        code = int(self.state[packet])
        return None if code == NO_STATE else CT_STATES[code]

    def dropped_by(self, packet: int, deny_mask: int) -> DroppedBy | None:
        """Whose rule dropped a packet in mangle or filter; None for a packet that was not dropped there.

        ``deny_mask`` is the bit of the mark that a Deny of ours sets before it drops, and no other rule
        (``enforcer.backends.netfilter.settings.drop_bit``). The freeing function does not tell: drops of iptables are
        freed in nf_hook_slow, those of nf_tables in nft_do_chain (older kernels: nf_hook_slow), for the same reason.
        """
        dropped = self.fate[packet] == FATES.index(Fate.DROPPED)
        if not dropped or STAGES[self.stage[packet]] not in FILTER_STAGES:
            return None
        return DroppedBy.OURS if int(self.mark[packet]) & deny_mask else DroppedBy.OTHERS


@dataclass(frozen=True)
class _Verdict:
    fate: Fate | None
    stage: Stage | None
    evidence: str


def judge(
    journeys: Journeys,
    datagram_of: Mapping[int, object],
    unsent: Mapping[int, str],
    conntrack_drops: int | None = None,
) -> Observations:
    """Observations of all packets. ``datagram_of`` gives each fragment's datagram key; ``unsent`` why a frame was
    not sent. ``conntrack_drops`` is how many packets conntrack's own counter has, None if that is not known.
    """
    sources = _with_datagram_ends(journeys, datagram_of)
    fields = journeys[_JUDGED][sources]
    kinds, kind_of = np.unique(fields, return_inverse=True)
    symbols = resolve(int(value) for value in np.unique(kinds["location"]))
    verdicts = [_judge_one(kind, symbols) for kind in kinds]
    fate = np.array([_code(FATES, verdict.fate) for verdict in verdicts], np.uint8)[kind_of]
    stage = np.array([_code(STAGES, verdict.stage) for verdict in verdicts], np.uint8)[kind_of]
    evidence = kind_of.astype(np.int32)
    at_conntrack = [_is_table_full(verdict, kind) for verdict, kind in zip(verdicts, kinds, strict=True)]
    absorbed = sources != np.arange(len(journeys))
    own = _own_drops(int(np.array(at_conntrack, np.bool_)[kind_of][~absorbed].sum()), conntrack_drops)
    sentences = [verdict.evidence + (own if full else "") for verdict, full in zip(verdicts, at_conntrack, strict=True)]
    for packet, why in unsent.items():
        fate[packet] = stage[packet] = NONE
        evidence[packet] = len(sentences)
        sentences.append(f"not sent: {why}")
    ended = journeys[sources]
    return Observations(
        fate,
        stage,
        evidence,
        tuple(sentences),
        absorbed,
        state=ct_states(ended),
        reply=is_reply(ended),
        mark=ended["mark"],
    )


def _is_table_full(verdict: _Verdict, kind: np.void) -> bool:
    """Whether a packet was dropped between raw and the checkpoint after conntrack, where conntrack drops new flows when
    its table is full; not at its confirmation, which has another counter.
    """
    is_confirmation = Checkpoint.INPUT_LAST in Checkpoint(int(kind["checkpoints"]))
    return verdict.fate is Fate.DROPPED and verdict.stage is Stage.CONNTRACK and not is_confirmation


def _own_drops(dropped: int, own: int | None) -> str:
    """What conntrack's counter (drop in /proc/net/stat/nf_conntrack) says of these packets, to append to evidence."""
    if own is None:
        return ""
    if own >= dropped:
        return f"; conntrack itself counted {counted(own, 'drop')}"
    return f"; conntrack itself counted {own:,} of {counted(dropped, 'drop')}: another hook drops there, too"


_FINAL = int(Checkpoint.INPUT_LAST | Checkpoint.POSTROUTING)
_JUDGED = ["checkpoints", "end", "reason", "location"]


def open_packets(journeys: Journeys, datagram_of: Mapping[int, object]) -> npt.NDArray[np.int64]:
    """Packets whose end is not known yet; a consumed buffer is no end where XDP may have copied it."""
    journeys = np.array(journeys)  # copied, because the kernel continues to write
    waiting = _undecided(journeys, np.arange(len(journeys)))
    if not any(int(packet) in datagram_of for packet in waiting):
        return waiting
    sources = _with_datagram_ends(journeys, datagram_of)
    return waiting[np.isin(sources[waiting], _undecided(journeys, sources[waiting]))]


def _undecided(journeys: Journeys, packets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The packets whose own record proves no fate. Most are excluded by a quick test."""
    records = journeys[packets]
    packets = packets[(records["checkpoints"] & _FINAL == 0) & (records["end"] != End.KFREE)]
    kinds, kind_of = np.unique(journeys[_JUDGED][packets], return_inverse=True)
    symbols = resolve(int(value) for value in np.unique(kinds["location"]))
    is_open = np.array([_judge_one(kind, symbols).fate is None for kind in kinds], np.bool_)
    return packets[is_open[kind_of]]


def _with_datagram_ends(journeys: Journeys, datagram_of: Mapping[int, object]) -> npt.NDArray[np.int64]:
    """For each packet the packet whose record shows its end: itself, or the datagram it was reassembled into."""
    sources = np.arange(len(journeys))
    symbols = resolve(int(value) for value in np.unique(journeys["location"]))
    completed: dict[object, list[tuple[int, int]]] = {}
    left_ns = journeys["post_defrag_ns"]
    for packet in sorted((packet for packet in datagram_of if left_ns[packet]), key=left_ns.__getitem__):
        completed.setdefault(datagram_of[packet], []).append((int(left_ns[packet]), packet))
    reasons = drop_reasons()
    for packet, key in datagram_of.items():
        later = completed.get(key, [])
        if not later or not _absorbed(journeys[packet], symbols, reasons):
            continue
        first = bisect_left(later, (int(journeys["pre_defrag_ns"][packet]), -1))
        if first < len(later):
            sources[packet] = later[first][1]
    return sources


def _absorbed(record: np.void, symbols: Mapping[int, str], reasons: Mapping[int, str]) -> bool:
    """Whether a fragment entered defragmentation, did not leave it, and was not freed by it."""
    checkpoints = Checkpoint(int(record["checkpoints"]))
    if Checkpoint.PRE_DEFRAG not in checkpoints or Checkpoint.POST_DEFRAG in checkpoints:
        return False
    reason = reasons.get(int(record["reason"]), "") if record["end"] == End.KFREE else ""
    return not _freed_by_defrag(symbols[int(record["location"])] if record["location"] else "", reason)


def _freed_by_defrag(place: str, reason: str) -> bool:
    return reason in DEFRAG_REASONS or place.startswith(DEFRAG_PLACES)


def _judge_one(kind: np.void, symbols: Mapping[int, str]) -> _Verdict:
    checkpoints = Checkpoint(int(kind["checkpoints"]))
    end = End(int(kind["end"]))
    place = symbols[int(kind["location"])] if kind["location"] else ""
    reason = drop_reasons().get(int(kind["reason"]), str(kind["reason"])) if end is End.KFREE else ""
    evidence = _sentence(checkpoints, end, place, reason)
    fate, stage = _fate(checkpoints, end, place, reason)
    return _Verdict(fate, stage, evidence)


def _fate(checkpoints: Checkpoint, end: End, place: str, reason: str) -> tuple[Fate | None, Stage | None]:
    if Checkpoint.POSTROUTING in checkpoints:
        # No neighbour answers in a lab: a packet that waits for neighbour resolution was forwarded anyway.
        lost = end is End.KFREE and not (place.startswith("neigh_") or reason.startswith("NEIGH_"))
        return (Fate.DROPPED, Stage.EGRESS) if lost else (Fate.FORWARDED, None)
    if Checkpoint.INPUT_LAST in checkpoints:
        return _after_input(checkpoints, end, place, reason)
    if end is End.NONE:
        return None, None
    for checkpoint, stage in reversed(_LOST_AFTER):
        if checkpoint in checkpoints:
            freed = end is End.KFREE or (stage is Stage.DEFRAG and _freed_by_defrag(place, reason))
            return (Fate.DROPPED, stage) if freed else (None, None)
    if Checkpoint.RECEIVE in checkpoints:
        return _before_hooks(end, place, reason)
    if end is End.KFREE and "xdp" in place:
        return Fate.DROPPED, Stage.DRIVER
    return None, None


def _after_input(checkpoints: Checkpoint, end: End, place: str, reason: str) -> tuple[Fate, Stage | None]:
    """Handed to the transport: it ends there, or in a socket's queue, unless the transport found it malformed."""
    if end is not End.KFREE:
        return Fate.DELIVERED, None
    if place == "__udp6_lib_rcv" and reason == "NO_SOCKET" and Checkpoint.BAD_SUM in checkpoints:
        # IPv6 sets the reason before it verifies datagrams longer than 76 bytes; IPv4 reports UDP_CSUM.
        return Fate.DROPPED, Stage.SOCKET
    if reason == "NETFILTER_DROP":  # only conntrack's confirmation comes after the last checkpoint
        return Fate.DROPPED, Stage.CONNTRACK
    if place in CONTROL_HANDLERS and reason != "ICMP_CSUM":
        return Fate.DELIVERED, None
    if reason == "NOT_SPECIFIED" and not checkpoints & _REFUSED_BY.get(place, checkpoints):
        return Fate.DELIVERED, None
    return (Fate.DROPPED, Stage.SOCKET) if reason in MALFORMED else (Fate.DELIVERED, None)


def _before_hooks(end: End, place: str, reason: str) -> tuple[Fate, Stage | None]:
    """Left the driver but reached no hook of IP: generic XDP, netdev ingress, header checks, or a protocol without
    hooks (ARP). Netfilter has no other hook there that drops.
    """
    if end is End.CONSUME:
        return Fate.DELIVERED, None
    if "xdp" in place:
        return Fate.DROPPED, Stage.GENERIC
    if reason == "NETFILTER_DROP":
        return Fate.DROPPED, Stage.NETDEV_INGRESS
    return Fate.DROPPED, Stage.IP_INPUT


def _sentence(checkpoints: Checkpoint, end: End, place: str, reason: str) -> str:
    passed = [str(place.name).lower() for place in PLACES if place in checkpoints]
    path = f"last checkpoint {passed[-1]}" if passed else "no checkpoint"
    match end:
        case End.KFREE:
            return f"kfree_skb in {place}, reason {reason}; {path}"
        case End.CONSUME:
            return f"consume_skb in {place}; {path}"
        case _:
            return f"not freed; {path}"


def _code(words: tuple[object, ...], word: object | None) -> int:
    return NONE if word is None else words.index(word)
