"""Counts the foreign rules in nf_tables: those of iptables-nft, and those of other nft users."""

from __future__ import annotations

from enforcer.backends.base import OthersRules
from enforcer.backends.netfilter.kubernetes import KUBELET_CHAINS
from enforcer.backends.netfilter.names import is_felix_chain
from enforcer.backends.nftables import blob
from enforcer.backends.nftables.rules import TABLE
from enforcer.kernel.netlink import attributes, string
from enforcer.kernel.nfnetlink import Connect, Family, NfTablesConn, RulesetChangedError
from enforcer.model.errors import UnsupportedKernelError

_GET_CHAIN, _GET_RULE = 4, 7
_ATTEMPTS = 5
_MANGLE = "mangle"
_NAT = ("nat", "security")  # tables of iptables-nft that do not drop allowed packets; not counted in legacy either


def others_rules(connect: Connect) -> OthersRules:
    """The number of rules in all IP tables. (Felix counts with ``iptables-nft-save``, which shows only the tables of
    iptables-nft.) A base chain with policy drop counts as one rule.
    """
    try:
        with connect() as conn:
            found = [_family(conn, family) for family in (Family.IP, Family.IP6, Family.INET)]
    except UnsupportedKernelError:
        return OthersRules()
    felix = next((item.felix for item in found if item.felix), "")
    return OthersRules(sum(item.count for item in found), any(item.kubernetes for item in found), felix)


def _family(conn: NfTablesConn, family: Family) -> OthersRules:
    chains, rules = (_dumped(conn, command, family) for command in (_GET_CHAIN, _GET_RULE))
    others = [item for item in chains if string(item[blob.CHAIN_TABLE]) not in (TABLE, *_NAT)]
    dropping = [item for item in others if blob.CHAIN_HOOK in item and not _accepts(item)]
    count = len(dropping) + sum(string(item[blob.RULE_TABLE]) not in (TABLE, *_NAT) for item in rules)
    marks = (string(item[blob.CHAIN_NAME]) for item in others if string(item[blob.CHAIN_TABLE]) == _MANGLE)
    return OthersRules(count, any(name in KUBELET_CHAINS for name in marks), _felix(family, chains))


def _felix(family: Family, chains: list[dict[int, bytes]]) -> str:
    named = ((string(item[blob.CHAIN_NAME]), string(item[blob.CHAIN_TABLE])) for item in chains)
    return next((f"chain {name} of the nftables table {family} {table}" for name, table in named
                 if is_felix_chain(name)), "")  # fmt: skip


def _dumped(conn: NfTablesConn, command: int, family: Family) -> list[dict[int, bytes]]:
    """The attributes of all objects of a kind, read again if another program changes them meanwhile."""
    for attempt in range(_ATTEMPTS):
        try:
            what = f"read the tables of nftables {family}"
            return [dict(attributes(item)) for item in conn.dump(command, family, what=what)]
        except RulesetChangedError:
            if attempt == _ATTEMPTS - 1:
                raise
    return []


def _accepts(chain: dict[int, bytes]) -> bool:
    return int.from_bytes(chain.get(blob.CHAIN_POLICY, b""), "big") == blob.ACCEPT_POLICY
