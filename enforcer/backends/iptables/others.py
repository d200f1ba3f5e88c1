"""Counts the foreign rules in the legacy tables."""

from __future__ import annotations

from enforcer.backends.base import OthersRules
from enforcer.backends.iptables.rules import TABLES, TableName
from enforcer.backends.iptables.table import Tables
from enforcer.backends.netfilter.kubernetes import KUBELET_CHAINS
from enforcer.backends.netfilter.names import is_felix_chain, is_our_chain
from enforcer.model.errors import UnsupportedKernelError


def others_rules(tables: Tables) -> OthersRules:
    """A base chain with policy DROP counts as one rule. A table that does not exist has none and is not created."""
    count, kubernetes, felix = 0, False, ""
    for table in filter(tables.exists, TABLES):
        try:
            with tables.open(table) as snapshot:
                for chain in snapshot.chain_names():
                    count += snapshot.drops_by_policy(chain)
                    if not is_our_chain(chain):
                        count += sum(not is_our_chain(rule.target) for rule in snapshot.rules(chain))
                    kubernetes |= table.name is TableName.MANGLE and chain in KUBELET_CHAINS
                    if is_felix_chain(chain) and not felix:
                        felix = f"chain {chain} of the legacy table {table}"
        except UnsupportedKernelError:
            continue
    return OthersRules(count, kubernetes, felix)
