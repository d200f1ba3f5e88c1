"""Values of a table of nf_tables: expressions, rules, chains, sets. Pure.

An :class:`Expr` is what the kernel has for it: a name and attributes by number, each a number, a name, bytes or a
verdict. So two equal rules are one rule to the kernel, and what is read back can be compared with what was requested,
whatever ``nft`` would print for it. :mod:`enforcer.backends.nftables.expr` gives them meaning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import numpy.typing as npt

from enforcer.backends.netfilter.settings import DEFAULT_MAX_SET_SIZE, accept_bit
from enforcer.kernel.nfnetlink import Family

TABLE = "enforcer"
FAMILY_OF = {4: Family.IP, 6: Family.IP6}
NAME_LENGTH = 255  # NFT_NAME_MAXLEN less the NUL
COMMENT_LENGTH = 250  # NFT_USERDATA_MAXLEN less type, length and NUL of the only item, with some room

Members = npt.NDArray[np.bytes_]


class Code(Enum):
    """What a verdict does with a packet: the kernel's numbers (``linux/netfilter.h``, ``nf_tables.h``)."""

    DROP = 0
    ACCEPT = 1
    JUMP = -3
    GOTO = -4
    RETURN = -5


@dataclass(frozen=True)
class Verdict:
    code: Code
    chain: str = ""


Value = int | str | bytes | Verdict


@dataclass(frozen=True)
class Expr:
    """One expression of a rule. ``attributes`` are in the order of their numbers."""

    name: str
    attributes: tuple[tuple[int, Value], ...] = ()

    def get(self, number: int) -> Value | None:
        return next((value for known, value in self.attributes if known == number), None)


@dataclass(frozen=True)
class Rule:
    """``comment`` is the name of the entry the rule is of; "" for a rule that is of none."""

    exprs: tuple[Expr, ...]
    comment: str = ""


@dataclass(frozen=True)
class Hook:
    """The hook of a base chain. ``device`` only for the netdev family."""

    number: int
    priority: int
    device: str = ""


@dataclass(frozen=True)
class Chain:
    """``hook`` None: reached by jumps only."""

    name: str
    rules: tuple[Rule, ...]
    hook: Hook | None = None


@dataclass(frozen=True)
class SetType:
    """``key_type`` is what ``nft`` calls the key (``enum nft_datatypes`` of its sources, six bits for each part)."""

    name: str
    key_type: int
    key_bytes: int
    interval: bool


_ADDRESS4, _ADDRESS6, _PROTOCOL, _SERVICE = 7, 8, 12, 13
NETS = {
    4: SetType("ipv4_addr", _ADDRESS4, 4, interval=True),
    6: SetType("ipv6_addr", _ADDRESS6, 16, interval=True),
}
PORTS = SetType("inet_service", _SERVICE, 2, interval=True)
# Each part of a concatenated key fills whole registers of four bytes.
NAMED_PORTS = {
    4: SetType(
        "ipv4_addr . inet_proto . inet_service", _ADDRESS4 << 12 | _PROTOCOL << 6 | _SERVICE, 12, interval=False
    ),
    6: SetType(
        "ipv6_addr . inet_proto . inet_service", _ADDRESS6 << 12 | _PROTOCOL << 6 | _SERVICE, 24, interval=False
    ),
}


@dataclass(frozen=True, eq=False)
class SetSpec:
    """A set that must hold exactly ``members``: sorted; keys, or for intervals first key and the one after the last,
    which is empty (all NUL) where the interval goes to the end. ``origin`` is what errors call it.

    ``lenient``: matching it lets a packet go (Allow, Pass), or not matching it has it dropped; no set is both.
    """

    name: str
    type: SetType
    members: Members
    origin: str = ""
    lenient: bool = False


@dataclass(frozen=True)
class Table:
    """Our table of one family, as it is to be or as it is."""

    family: Family
    chains: tuple[Chain, ...] = ()
    sets: tuple[SetSpec, ...] = ()

    @property
    def wanted(self) -> bool:
        return bool(self.chains)


@dataclass(frozen=True)
class RateLimit:
    """At most ``count`` a ``unit_s``, ``burst`` at once (``nft_limit.c``)."""

    count: int
    unit_s: int
    burst: int


@dataclass(frozen=True)
class NftablesSettings:
    """What FelixConfiguration says about our tables; defaults are Felix's. ``max_set_size``: a set with more members of
    one family is refused. ``log_limit``: how much Log entries may log, each by itself.
    """

    mark_mask: int = 0xFFFF0000
    log_prefix: str = "calico-packet"
    ipv6: bool = True
    max_set_size: int = DEFAULT_MAX_SET_SIZE
    log_limit: RateLimit | None = field(default=None)

    @property
    def accept_mark(self) -> int:
        """The lowest bit of the mask, which is the bit Felix gives to *accept*."""
        return accept_bit(self.mark_mask)
