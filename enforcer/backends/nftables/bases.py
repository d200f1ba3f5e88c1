"""Our base chains in the tables of both families: name, hook, and the stage at which they enforce. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from enforcer.backends.nftables.rules import Hook
from enforcer.model.vocabulary import Stage

_PREROUTING, _INPUT, _FORWARD, _OUTPUT = range(4)  # NF_INET_*
_RAW, _MANGLE, _FILTER = -300, -150, 0  # NF_IP_PRI_*; conntrack is at -200


@dataclass(frozen=True)
class Base:
    name: str
    hook: Hook
    stage: Stage


RAW_IN = Base("enf-PREROUTING", Hook(_PREROUTING, _RAW), Stage.RAW)
RAW_OUT = Base("enf-OUTPUT", Hook(_OUTPUT, _RAW), Stage.RAW)
MANGLE_IN = Base("enf-mangle-PREROUTING", Hook(_PREROUTING, _MANGLE), Stage.MANGLE)
FILTER_IN = Base("enf-filter-INPUT", Hook(_INPUT, _FILTER), Stage.FILTER_INPUT)
FILTER_OUT = Base("enf-filter-OUTPUT", Hook(_OUTPUT, _FILTER), Stage.EGRESS)
FILTER_FORWARD = Base("enf-filter-FORWARD", Hook(_FORWARD, _FILTER), Stage.FILTER_FORWARD)

# In the order of counters: at each hook, the order in which a packet meets them.
BASES = (RAW_IN, RAW_OUT, MANGLE_IN, FILTER_IN, FILTER_OUT, FILTER_FORWARD)
# They clear the accept mark; chains after them rely on that.
CLEARING = frozenset({RAW_IN, RAW_OUT, MANGLE_IN})
