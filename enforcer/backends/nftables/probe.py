"""Probes whether the nftables backend works in this namespace."""

from __future__ import annotations

from collections.abc import Sequence

from enforcer.backends.nftables import blob, expr
from enforcer.backends.nftables.rules import FAMILY_OF, NETS, Code, Hook, RateLimit, Rule, SetType
from enforcer.kernel.netlink import text
from enforcer.kernel.nfnetlink import Connect, Family, Message, NfTablesConn, nftables
from enforcer.model.errors import HostError, PrivilegeError, ran_out
from enforcer.model.facts import Probe
from enforcer.model.vocabulary import Answer, Side

_TABLE, _CHAIN, _SET = "enforcer-probe", "probe", "probe"
_NEW_TABLE, _NEW_CHAIN, _NEW_RULE, _NEW_SET, _CREATE = 0, 3, 6, 9, 0x400
_BEFORE_CONNTRACK = Hook(0, -300)


Sample = tuple[Family, Hook, SetType, Rule]


def probe(*, ipv6: bool = True, connect: Connect = nftables) -> Probe:
    """Whether nf_tables supports our tables: prepares a transaction with one object of each kind and aborts it.

    NO if the kernel lacks a part, UNKNOWN if privileges are missing. Raises KernelError if the host has run out of a
    resource.
    """
    return try_out([_sample(version) for version in ((4, 6) if ipv6 else (4,))], connect)


def try_out(samples: Sequence[Sample], connect: Connect) -> Probe:
    """The same for any tables, each with a hook, a set, and a rule that may refer to the set ``probe``."""
    try:
        with connect() as conn:
            for sample in samples:
                _try(conn, sample)
    except PrivilegeError as error:
        return Probe(Answer.UNKNOWN, str(error))
    except HostError as error:
        if ran_out(error):  # says nothing about the kernel, and a NO would move the host to the other backend
            raise
        return Probe(Answer.NO, str(error))
    return Probe(Answer.YES)


def _sample(version: int) -> Sample:
    """One object of each kind that our tables contain."""
    rule = Rule(
        (
            *expr.interface("probe", received=True),
            *expr.address_in(Side.SOURCE, version, _SET),
            *expr.later_fragment(version),
            *expr.transport_has(4),
            *expr.set_mark(1, on=True),
            expr.limit(RateLimit(1, 1, 1)),
            expr.COUNTER,
            expr.log("probe: "),
            expr.NOTRACK,
            expr.verdict(Code.ACCEPT),
        )
    )
    return FAMILY_OF[version], _BEFORE_CONNTRACK, NETS[version], rule


def _try(conn: NfTablesConn, sample: Sample) -> None:
    """Has the kernel check the sample without creating it. Raises HostError if a part is missing."""
    family, hook, kind, rule = sample
    chain = text(blob.CHAIN_TABLE, _TABLE) + text(blob.CHAIN_NAME, _CHAIN) + blob.encode_hook(hook)
    made = text(blob.SET_TABLE, _TABLE) + text(blob.SET_NAME, _SET) + blob.encode_set(kind, 1)
    holder = text(blob.RULE_TABLE, _TABLE) + text(blob.RULE_CHAIN, _CHAIN)
    commands = (
        (_NEW_TABLE, text(blob.TABLE_NAME, _TABLE), "a table"),
        (_NEW_SET, made, "a set of intervals"),
        (_NEW_CHAIN, chain, "a chain in prerouting"),
        (_NEW_RULE, holder + blob.encode_rule(rule), "a rule"),
    )
    conn.check([Message(kind, family, body, f"nftables {family}: {what}", _CREATE) for kind, body, what in commands])
