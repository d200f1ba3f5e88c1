"""The closed sets of terms that the whole project shares: one spelling in YAML, Python, C, output and prose.

Each is a ``str`` enum, so that members print and serialise as the word itself.
"""

from __future__ import annotations

from enum import Enum


class Word(str, Enum):
    """A ``str`` enum whose members format as their value on every supported Python."""

    def __str__(self) -> str:
        return str(self.value)

    def __format__(self, spec: str) -> str:
        return format(str(self.value), spec)


class Action(Word):
    """What a rule does with a packet it matches (Calico ``policy_common.go``)."""

    ALLOW = "Allow"
    DENY = "Deny"
    LOG = "Log"
    PASS = "Pass"


class Direction(Word):
    INGRESS = "ingress"
    EGRESS = "egress"


class Side(Word):
    """Which address and port of a packet; the words are ipset's."""

    SOURCE = "src"
    DESTINATION = "dst"


class Mode(Word):
    """How an XDP program is attached to an interface, earliest first."""

    OFFLOAD = "offload"
    NATIVE = "native"
    GENERIC = "generic"


class Stage(Word):
    """A node of the packet pipeline, in the order a received packet meets them.

    The numbers after netfilter stages are hook priorities (``include/uapi/linux/netfilter_ipv4.h``).
    """

    NIC_OFFLOAD = "nic-offload"
    DRIVER = "driver"
    GENERIC = "generic"
    NETDEV_INGRESS = "netdev-ingress"  # -300 of a hook of its own
    IP_INPUT = "ip-input"
    DEFRAG = "defrag"  # -400
    RAW = "raw"  # -300
    CONNTRACK = "conntrack"  # -200
    MANGLE = "mangle"  # -150
    NAT = "nat"  # -100
    ROUTE = "route"
    FILTER_INPUT = "filter-input"  # 0
    FILTER_FORWARD = "filter-forward"  # 0
    SOCKET = "socket"
    EGRESS = "egress"


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


class Backend(Word):
    XDP = "xdp"
    IPTABLES = "iptables"
    NFTABLES = "nftables"
    NETDEV = "netdev"


class Toolchain(Word):
    """What compiles the XDP program from its source."""

    LIBBPF = "libbpf"  # clang, ahead of time; libbpf loads the object
    BCC = "bcc"  # on this host


class Answer(Word):
    """The answer of a probe. Only YES and NO are facts about the host."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "cannot tell"


STAGE_OF_MODE = {
    Mode.OFFLOAD: Stage.NIC_OFFLOAD,
    Mode.NATIVE: Stage.DRIVER,
    Mode.GENERIC: Stage.GENERIC,
}
MODE_OF_STAGE = {stage: mode for mode, stage in STAGE_OF_MODE.items()}
