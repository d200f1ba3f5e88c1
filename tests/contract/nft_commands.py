"""Short forms of nf_tables commands for our table."""

from __future__ import annotations

import numpy as np

from enforcer.backends.nftables import blob, expr
from enforcer.backends.nftables.members import none_of, pack
from enforcer.backends.nftables.rules import NETS, PORTS, TABLE, Code, Expr, Hook, Rule, SetType
from enforcer.kernel.netlink import be32, be64, text
from enforcer.kernel.nfnetlink import Family, Message

EXCLUSIVE, CREATE, APPEND = 0x200, 0x400, 0x800
PREROUTING = Hook(0, -300)
DROP = Rule((expr.COUNTER, expr.verdict(Code.DROP)))


def new_table(
    name: str = TABLE, *, family: Family = Family.IP, flags: int = CREATE, dormant: int | None = None
) -> Message:
    return Message(
        0, family, text(1, name) + (b"" if dormant is None else be32(2, dormant)), f"new table {name}", flags
    )


def delete_table(name: str = TABLE, *, family: Family = Family.IP) -> Message:
    return Message(2, family, text(1, name), f"delete table {name}")


def new_chain(
    name: str, hook: Hook | None = None, *, table: str = TABLE, family: Family = Family.IP, flags: int = CREATE
) -> Message:
    body = text(1, table) + text(3, name) + (blob.encode_hook(hook) if hook else b"")
    return Message(3, family, body, f"new chain {name}", flags)


def delete_chain(name: str) -> Message:
    return Message(5, Family.IP, text(1, TABLE) + text(3, name), f"delete chain {name}")


def new_rule(chain: str, rule: Rule = DROP, *, position: int = 0, flags: int = CREATE | APPEND) -> Message:
    where = be64(blob.RULE_POSITION, position) if position else b""
    body = text(1, TABLE) + text(2, chain) + blob.encode_rule(rule) + where
    return Message(6, Family.IP, body, f"new rule of {chain}", flags)


def delete_rule(chain: str, handle: int = 0) -> Message:
    which = be64(blob.RULE_HANDLE, handle) if handle else b""
    return Message(8, Family.IP, text(1, TABLE) + text(2, chain) + which, f"delete rule of {chain}")


def new_set(name: str, kind: SetType = NETS[4], *, flags: int = CREATE) -> Message:
    return Message(9, Family.IP, text(1, TABLE) + text(2, name) + blob.encode_set(kind, 1), f"new set {name}", flags)


def delete_set(name: str) -> Message:
    return Message(11, Family.IP, text(1, TABLE) + text(2, name), f"delete set {name}")


def add(name: str, *intervals: tuple[int, int], flags: int = CREATE) -> Message:
    """Members of a set of ports: the first port, and the one after the last (0: no end)."""
    return Message(12, Family.IP, _elements(name, intervals), f"add to {name}", flags)


def delete(name: str, *intervals: tuple[int, int]) -> Message:
    return Message(14, Family.IP, _elements(name, intervals), f"delete from {name}")


def flush(name: str) -> Message:
    return Message(14, Family.IP, text(1, TABLE) + text(2, name), f"flush {name}")


def _elements(name: str, intervals: tuple[tuple[int, int], ...]) -> bytes:
    records = [first.to_bytes(2, "big") + behind.to_bytes(2, "big") for first, behind in intervals]
    pieces = b"".join(pack(np.array(records, none_of(PORTS).dtype), PORTS))
    return text(1, TABLE) + text(2, name) + blob.elements(pieces)


def jump(chain: str) -> Rule:
    return Rule((expr.verdict(Code.JUMP, chain),))


def looks_up(name: str, kind: SetType = NETS[4]) -> Rule:
    """A rule that looks its packets up in a set."""
    size = kind.key_bytes
    load = Expr("payload", ((1, 1), (2, 1), (3, 12), (4, size)))
    return Rule((load, Expr("lookup", ((1, name), (2, 1), (5, 0))), expr.verdict(Code.DROP)), f"looks up {name}")
