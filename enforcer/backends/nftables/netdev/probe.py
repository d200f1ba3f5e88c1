"""Probes whether nf_tables supports netdev ingress in this namespace."""

from __future__ import annotations

from enforcer.backends.nftables import expr
from enforcer.backends.nftables.netdev.render import INGRESS_HOOK, PRIORITY
from enforcer.backends.nftables.probe import try_out
from enforcer.backends.nftables.rules import NETS, Code, Hook, Rule
from enforcer.kernel.nfnetlink import Connect, Family, nftables
from enforcer.model.facts import Probe
from enforcer.model.vocabulary import Side

_EVERYWHERE = "lo"  # exists in every namespace; the transaction is aborted, so nothing is created


def probe(connect: Connect = nftables) -> Probe:
    """NO if the kernel lacks a part, UNKNOWN if privileges are missing. Like the probe of nftables."""
    rule = Rule(
        (
            *expr.of_family(4),
            *expr.protocol_is_known(),
            *expr.address_in(Side.SOURCE, 4, "probe"),
            *expr.whole_transport(4, 8)[0],
            *expr.set_mark(1, on=True),
            expr.COUNTER,
            expr.verdict(Code.DROP),
        )
    )
    return try_out([(Family.NETDEV, Hook(INGRESS_HOOK, PRIORITY, _EVERYWHERE), NETS[4], rule)], connect)
