"""The values of an nf_tables table: expressions, rules, chains, sets. Pure.

An :class:`Expr` has the kernel's form: a name, and attributes by number, each a number, a name, bytes or a verdict. So
equal rules are equivalent in the kernel, and the present state can be compared with the requested one.
:mod:`enforcer.backends.nftables.expr` creates them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import numpy.typing as npt

from enforcer.backends.netfilter.settings import DEFAULT_MAX_SET_SIZE, accept_bit, drop_bit
from enforcer.kernel.nfnetlink import Family

TABLE = "enforcer"
FAMILY_OF = {4: Family.IP, 6: Family.IP6}
NAME_LENGTH = 255  # NFT_NAME_MAXLEN less the NUL
COMMENT_LENGTH = 250  # NFT_USERDATA_MAXLEN less type, length and NUL of the only item, rounded down

Members = npt.NDArray[np.bytes_]


class Code(Enum):
    """The kernel's codes of verdicts (``linux/netfilter.h``, ``nf_tables.h``)."""

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
    """One expression of a rule. ``attributes``: (number, value), sorted by number."""

    name: str
    attributes: tuple[tuple[int, Value], ...] = ()

    def get(self, number: int) -> Value | None:
        return next((value for known, value in self.attributes if known == number), None)


@dataclass(frozen=True)
class Rule:
    """``comment``: the name of the rule's entry; "" for a rule that belongs to none."""

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
    """``hook`` None: not a base chain."""

    name: str
    rules: tuple[Rule, ...]
    hook: Hook | None = None


@dataclass(frozen=True)
class SetType:
    """``key_type``: the data type of the key for ``nft`` (``enum nft_datatypes`` in its source, six bits a part)."""

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
    """A set that must hold exactly ``members``, sorted: keys, or records of an interval set (see ``members``).

    ``origin``: how errors name the set. ``lenient``: a match lets a packet pass (Allow, Pass), or the lack of a match
    has it dropped. A set is either lenient everywhere or nowhere.
    """

    name: str
    type: SetType
    members: Members
    origin: str = ""
    lenient: bool = False


@dataclass(frozen=True)
class Table:
    """Our table of one family, desired or present."""

    family: Family
    chains: tuple[Chain, ...] = ()
    sets: tuple[SetSpec, ...] = ()

    @property
    def wanted(self) -> bool:
        return bool(self.chains)


@dataclass(frozen=True)
class RateLimit:
    """At most ``count`` packets in ``unit_s`` seconds, up to ``burst`` at once (``nft_limit.c``)."""

    count: int
    unit_s: int
    burst: int


@dataclass(frozen=True)
class NftablesSettings:
    """The FelixConfiguration fields for our tables; defaults are Felix's. ``max_set_size``: a set with more members of
    one family is refused. ``log_limit``: the rate limit of each Log entry.
    """

    mark_mask: int = 0xFFFF0000
    log_prefix: str = "calico-packet"
    ipv6: bool = True
    max_set_size: int = DEFAULT_MAX_SET_SIZE
    log_limit: RateLimit | None = field(default=None)

    @property
    def accept_mark(self) -> int:
        """The lowest bit of the mask, which Felix uses for *accept*."""
        return accept_bit(self.mark_mask)

    @property
    def drop_mark(self) -> int:
        """The bit that a packet has when tracked policy drops it; 0 where the mask has no second bit."""
        return drop_bit(self.mark_mask)
