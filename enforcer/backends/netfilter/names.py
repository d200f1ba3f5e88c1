"""Names of our chains and sets. Pure.

All names start with ``enf``, never with ``cali``, because Calico may run on the same host. The kernel limits the names
of chains to 28 characters and those of sets to 31; longer names end in a hash, as in Felix (``felix/hash/hash.go``).
"""

from __future__ import annotations

import hashlib
from enum import Enum

CHAIN_PREFIX = "enf-"
CHAIN_LENGTH = 28  # XT_EXTENSION_MAXNAMELEN less the NUL
SET_PREFIXES = {4: "enf4-", 6: "enf6-"}
SET_LENGTH = 31  # IPSET_MAXNAMELEN less the NUL
_HASH_LENGTH = 16  # characters, as in Felix

ALLOW_CHAIN = "enf-allow"

FELIX_PREFIX = "cali-"  # of its chains in iptables (felix/rules/rule_defs.go); in nftables a table's name comes before


class ChainKind(str, Enum):
    """The kinds of chains of one interface. The value is the prefix before the interface's name."""

    FROM_HOST_ENDPOINT = "enf-fh-"
    TO_HOST_ENDPOINT = "enf-th-"
    FAILSAFE_IN = "enf-fsi-"
    FAILSAFE_OUT = "enf-fso-"
    TIER_IN = "enf-pi-"
    TIER_OUT = "enf-po-"
    NETDEV = "enf-nd-"
    # After conntrack: Calico's cali-fh- of mangle and filter, cali-th-, cali-fhfw-, cali-thfw-, and what is below each.
    PRE_DNAT = "enf-dn-"
    PRE_DNAT_TIER = "enf-dnt-"
    INPUT = "enf-in-"
    INPUT_TIER = "enf-int-"
    INPUT_PROFILES = "enf-inp-"
    OUTPUT = "enf-out-"
    OUTPUT_TIER = "enf-outt-"
    OUTPUT_PROFILES = "enf-outp-"
    FORWARD_IN = "enf-fwi-"
    FORWARD_IN_TIER = "enf-fwit-"
    FORWARD_OUT = "enf-fwo-"
    FORWARD_OUT_TIER = "enf-fwot-"


def chain_name(kind: ChainKind, *parts: str) -> str:
    """The name of a chain of this kind; the same parts always give the same name."""
    suffix = "/".join(parts)
    name = f"{kind.value}{suffix}"
    return name if len(name) <= CHAIN_LENGTH else f"{kind.value}_{_hash(suffix.encode())}"


def set_name(version: int, identity: bytes) -> str:
    """The name of the set with this identity (a selector's UID, or the content of a literal list)."""
    return f"{SET_PREFIXES[version]}{_hash(identity)}"


def scratch_name(name: str) -> str:
    """The temporary name of a set that will replace ``name``."""
    return f"{name[: len(SET_PREFIXES[4])]}~{name[len(SET_PREFIXES[4]) :]}"


def is_our_chain(name: str) -> bool:
    return name.startswith(CHAIN_PREFIX)


def is_felix_chain(name: str) -> bool:
    return FELIX_PREFIX in name


def is_our_set(name: str) -> bool:
    return name.startswith(tuple(SET_PREFIXES.values()))


def _hash(identity: bytes) -> str:
    return hashlib.sha256(identity).hexdigest()[:_HASH_LENGTH]
