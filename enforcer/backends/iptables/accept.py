"""The rules after raw that an Allow needs: they accept packets that carry the accept mark. Pure.

An untracked packet does not match the ``--ctstate ESTABLISHED`` of a host's firewall, so an Allow in raw alone would
not let it in. If a direction has an Allow entry, these chains accept marked packets, as in Felix
(``felix/rules/static.go``), in the family of that entry::

    ingress   mangle PREROUTING ── enf-PREROUTING ── mark set: ACCEPT
              filter INPUT      ── enf-INPUT      ── mark set: ACCEPT
    egress    filter OUTPUT     ── enf-OUTPUT     ── mark set: ACCEPT

filter FORWARD is not changed. There, Felix skips only its own forward policy of host endpoints and still applies that
of workloads. We have neither, so the host's own firewall decides on forwarded packets.
"""

from __future__ import annotations

from collections.abc import Collection

from enforcer.backends.iptables.rules import TableName
from enforcer.model.vocabulary import Direction, Stage

# For each table: built-in chain -> our chain that it jumps to.
HOOKS = {
    TableName.RAW: {"PREROUTING": "enf-PREROUTING", "OUTPUT": "enf-OUTPUT"},
    TableName.MANGLE: {"PREROUTING": "enf-PREROUTING"},
    TableName.FILTER: {"INPUT": "enf-INPUT", "OUTPUT": "enf-OUTPUT", "FORWARD": "enf-FORWARD"},
}

# Where the chains that a base chain dispatches to are enforced.
STAGES = {
    (TableName.RAW, "enf-PREROUTING"): Stage.RAW,
    (TableName.RAW, "enf-OUTPUT"): Stage.RAW,
    (TableName.MANGLE, "enf-PREROUTING"): Stage.MANGLE,
    (TableName.FILTER, "enf-INPUT"): Stage.FILTER_INPUT,
    (TableName.FILTER, "enf-OUTPUT"): Stage.EGRESS,
    (TableName.FILTER, "enf-FORWARD"): Stage.FILTER_FORWARD,
}

_BUILTIN_CHAINS = {
    (TableName.MANGLE, Direction.INGRESS): "PREROUTING",
    (TableName.FILTER, Direction.INGRESS): "INPUT",
    (TableName.FILTER, Direction.EGRESS): "OUTPUT",
}


def accept_chain_names(name: TableName, allowing: Collection[Direction]) -> list[str]:
    """The names of the chains of a table that these directions need."""
    return [
        HOOKS[name][builtin]
        for (table, direction), builtin in _BUILTIN_CHAINS.items()
        if table is name and direction in allowing
    ]
