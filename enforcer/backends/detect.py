"""Where the host's own packet filter is: in the legacy tables of iptables, or in nf_tables.

As Felix's DetectBackend (``felix/environment/feature_detect_linux.go``), which does as iptables-wrappers do: where
Kubernetes has left its mark, else where more rules are, and the legacy tables in a draw. Our own rules do not count.
Felix asks ``iptables-nft-save``, which shows the tables that iptables-nft made; here all tables of IP count, so that a
firewall of nft's own counts as well. Nothing is made by asking: legacy tables that are not there have no rules.
"""

from __future__ import annotations

from enforcer.backends.iptables.rules import TABLES, TableName
from enforcer.backends.iptables.table import exists, kernel_table
from enforcer.backends.netfilter.names import is_our_chain
from enforcer.backends.nftables import blob
from enforcer.backends.nftables.rules import TABLE
from enforcer.kernel.netlink import attributes, string
from enforcer.kernel.nfnetlink import Family, NfTables, RulesetChangedError, nftables
from enforcer.model.errors import UnsupportedKernelError
from enforcer.model.facts import HostRules
from enforcer.model.vocabulary import Backend

_GET_CHAIN, _GET_RULE = 4, 7
_ATTEMPTS = 5
# Chains that kubelet makes in the mangle table of the iptables it uses.
_KUBERNETES = ("KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY")
_MANGLE = "mangle"
_NAT = ("nat", "security")  # of iptables-nft; nothing that an Allow is for is dropped there, nor is it read of legacy


def host_rules() -> HostRules:
    """How many rules of others each netfilter of the calling thread's network namespace has.

    A base chain whose policy is to drop counts as a rule. A netfilter that the host does not have has no rules; raises
    HostError where one cannot be read.
    """
    nft, in_nft = _nft()
    legacy, in_legacy = _legacy()
    kubernetes = Backend.NFTABLES if in_nft else Backend.IPTABLES if in_legacy else None
    return HostRules(legacy, nft, kubernetes)


def _nft() -> tuple[int, bool]:
    try:
        with nftables() as conn:
            found = [_nft_family(conn, family) for family in (Family.IP, Family.IP6, Family.INET)]
    except UnsupportedKernelError:
        return 0, False
    return sum(count for count, _ in found), any(kubernetes for _, kubernetes in found)


def _nft_family(conn: NfTables, family: Family) -> tuple[int, bool]:
    chains, rules = (_dumped(conn, command, family) for command in (_GET_CHAIN, _GET_RULE))
    others = [item for item in chains if string(item[blob.CHAIN_TABLE]) not in (TABLE, *_NAT)]
    dropping = [item for item in others if blob.CHAIN_HOOK in item and not _accepts(item)]
    count = len(dropping) + sum(string(item[blob.RULE_TABLE]) not in (TABLE, *_NAT) for item in rules)
    marks = (string(item[blob.CHAIN_NAME]) for item in others if string(item[blob.CHAIN_TABLE]) == _MANGLE)
    return count, any(name in _KUBERNETES for name in marks)


def _dumped(conn: NfTables, command: int, family: Family) -> list[dict[int, bytes]]:
    """The attributes of all objects; read again while somebody else changes them."""
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


def _legacy() -> tuple[int, bool]:
    count, kubernetes = 0, False
    for table in filter(exists, TABLES):
        try:
            with kernel_table(table) as snapshot:
                for chain in snapshot.chain_names():
                    count += snapshot.drops_by_policy(chain)
                    if not is_our_chain(chain):
                        count += sum(not is_our_chain(rule.target) for rule in snapshot.rules(chain))
                    kubernetes |= table.name is TableName.MANGLE and chain in _KUBERNETES
        except UnsupportedKernelError:
            continue
    return count, kubernetes
