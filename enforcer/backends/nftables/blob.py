"""Encodes and decodes expressions, rules, chains and sets as netlink attributes. Pure.

Decoding ignores what the kernel adds (handles, use counts, attributes of newer kernels), so that the requested and the
present state can be compared by value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from enforcer.backends.nftables.rules import COMMENT_LENGTH, Chain, Code, Expr, Hook, Rule, SetType, Value, Verdict
from enforcer.kernel.netlink import attribute, attributes, be32, be64, nested, string, text

# NFTA_{TABLE,CHAIN,RULE,SET}_*: those that are used
TABLE_NAME, TABLE_FLAGS, TABLE_USE = 1, 2, 3
CHAIN_TABLE, CHAIN_NAME, CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE = 1, 3, 4, 5, 7
HOOK_NUMBER, HOOK_PRIORITY, HOOK_DEVICE = 1, 2, 3
RULE_TABLE, RULE_CHAIN, RULE_HANDLE, RULE_EXPRESSIONS, RULE_POSITION, RULE_USERDATA = 1, 2, 3, 4, 6, 7
SET_TABLE, SET_NAME, SET_FLAGS, SET_KEY_TYPE, SET_KEY_LENGTH, SET_ID = 1, 2, 3, 4, 5, 10
ELEMENTS_TABLE, ELEMENTS_SET, ELEMENTS_LIST = 1, 2, 3
LIST_ELEM = 1

FLAG_INTERVAL = 0x4  # NFT_SET_INTERVAL
ACCEPT_POLICY = 1
_EXPR_NAME, _EXPR_DATA = 1, 2
_DATA_VALUE, _DATA_VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
_COUNTER_BYTES, _COUNTER_PACKETS = 1, 2
_COMMENT = 0  # NFTNL_UDATA_RULE_COMMENT


class Kind(Enum):
    """How an attribute of an expression is encoded."""

    U8 = "u8"
    U32 = "u32"
    U64 = "u64"
    TEXT = "text"
    DATA = "data"


_U32 = Kind.U32
# For each expression: the numbers of the attributes that define what it does.
EXPRESSIONS: Mapping[str, Mapping[int, Kind]] = {
    "meta": {1: _U32, 2: _U32, 3: _U32},
    "payload": {1: _U32, 2: _U32, 3: _U32, 4: _U32, 5: _U32},
    "exthdr": {1: _U32, 2: Kind.U8, 3: _U32, 4: _U32, 5: _U32, 6: _U32, 7: _U32},
    "cmp": {1: _U32, 2: _U32, 3: Kind.DATA},
    "range": {1: _U32, 2: _U32, 3: Kind.DATA, 4: Kind.DATA},
    "bitwise": {1: _U32, 2: _U32, 3: _U32, 4: Kind.DATA, 5: Kind.DATA},
    "lookup": {1: Kind.TEXT, 2: _U32, 3: _U32, 5: _U32},
    "immediate": {1: _U32, 2: Kind.DATA},
    "limit": {1: Kind.U64, 2: Kind.U64, 3: _U32, 4: _U32, 5: _U32},
    "log": {1: Kind.U8, 2: Kind.TEXT, 5: _U32, 6: _U32},
    "counter": {},
    "notrack": {},
    "ct": {1: _U32, 2: _U32, 3: Kind.U8, 4: _U32},
}


@dataclass(frozen=True)
class ReadRule:
    """A rule as it is in the kernel. ``rule`` None: another program wrote it, because ours never look like this."""

    chain: str
    handle: int
    rule: Rule | None
    packets: int = 0
    bytes: int = 0


def encode_rule(rule: Rule) -> bytes:
    """The attributes of a rule's expressions and comment."""
    exprs = nested(RULE_EXPRESSIONS, *(nested(LIST_ELEM, _encode_expr(expr)) for expr in rule.exprs))
    return exprs + _encode_comment(rule.comment)


def _encode_comment(comment: str) -> bytes:
    if not comment:
        return b""
    text = comment.encode() + b"\0"
    assert len(text) <= COMMENT_LENGTH + 1, "longer comments are split over several rules"
    return attribute(RULE_USERDATA, bytes([_COMMENT, len(text)]) + text)


def _encode_expr(expr: Expr) -> bytes:
    kinds = EXPRESSIONS[expr.name]
    content = b"".join(_encode_value(number, kinds[number], value) for number, value in expr.attributes)
    return text(_EXPR_NAME, expr.name) + nested(_EXPR_DATA, content)


def _encode_value(number: int, kind: Kind, value: Value) -> bytes:
    match value:
        case int():
            if kind is Kind.U8:
                return attribute(number, bytes([value]))
            return be64(number, value) if kind is Kind.U64 else be32(number, value)
        case str():
            return text(number, value)
        case bytes():
            return nested(number, attribute(_DATA_VALUE, value))
        case Verdict(code, chain):
            target = text(_VERDICT_CHAIN, chain) if chain else b""
            return nested(number, nested(_DATA_VERDICT, be32(_VERDICT_CODE, code.value) + target))


def decode_rule(data: bytes) -> ReadRule:
    """The rule in the attributes of a message from the kernel."""
    found = dict(attributes(data))
    exprs: list[Expr | None] = []
    packets = size = 0
    for _, item in attributes(found.get(RULE_EXPRESSIONS, b"")):
        name, content, expr = _decode_expr(item)
        exprs.append(expr)
        if name == "counter":
            counts = dict(attributes(content))
            packets = int.from_bytes(counts.get(_COUNTER_PACKETS, b""), "big")
            size = int.from_bytes(counts.get(_COUNTER_BYTES, b""), "big")
    known = tuple(expr for expr in exprs if expr is not None)
    rule = Rule(known, _decode_comment(found.get(RULE_USERDATA, b""))) if len(known) == len(exprs) else None
    handle = int.from_bytes(found[RULE_HANDLE], "big")
    return ReadRule(string(found[RULE_CHAIN]), handle, rule, packets, size)


def _decode_comment(data: bytes) -> str:
    if len(data) < 2 or data[0] != _COMMENT:
        return ""
    return string(data[2 : 2 + data[1]])


@lru_cache(maxsize=4096)  # rules consist of few different expressions, and are read again in each pass
def _decode_expr(item: bytes) -> tuple[str, bytes, Expr | None]:
    """Its name, its attributes, and the expression if it is one that we write."""
    parts = dict(attributes(item))
    name, content = string(parts.get(_EXPR_NAME, b"")), parts.get(_EXPR_DATA, b"")
    kinds = EXPRESSIONS.get(name)
    if kinds is None:
        return name, content, None
    known = sorted((number, value) for number, value in attributes(content) if number in kinds)
    values = [(number, _decode_value(kinds[number], value)) for number, value in known]
    return name, content, Expr(name, tuple((number, value) for number, value in values if value is not None))


def _decode_value(kind: Kind, payload: bytes) -> Value | None:
    if kind is Kind.TEXT:
        return string(payload)
    if kind is not Kind.DATA:
        return int.from_bytes(payload, "big")
    for number, value in attributes(payload):
        if number == _DATA_VALUE:
            return value
        if number == _DATA_VERDICT:
            parts = dict(attributes(value))
            code = int.from_bytes(parts[_VERDICT_CODE], "big", signed=True)
            known = code in {item.value for item in Code}
            return Verdict(Code(code), string(parts.get(_VERDICT_CHAIN, b""))) if known else None
    return None


# --- chains and sets --------------------------------------------------------------------------------------------------


def encode_hook(hook: Hook) -> bytes:
    """The attributes of a base chain: type filter, hook, policy accept."""
    device = text(HOOK_DEVICE, hook.device) if hook.device else b""
    where = nested(CHAIN_HOOK, be32(HOOK_NUMBER, hook.number) + be32(HOOK_PRIORITY, hook.priority) + device)
    return where + be32(CHAIN_POLICY, ACCEPT_POLICY) + text(CHAIN_TYPE, "filter")


def decode_chain(data: bytes) -> tuple[str, Chain | None]:
    """The table's name and the chain, without its rules. None for a base chain of a kind we never create."""
    found = dict(attributes(data))
    hook, name = None, string(found[CHAIN_NAME])
    if CHAIN_HOOK in found:
        parts = dict(attributes(found[CHAIN_HOOK]))
        priority = int.from_bytes(parts[HOOK_PRIORITY], "big", signed=True)
        device = string(parts.get(HOOK_DEVICE, b""))
        hook = Hook(int.from_bytes(parts[HOOK_NUMBER], "big"), priority, device)
        accepts = int.from_bytes(found.get(CHAIN_POLICY, b""), "big") == ACCEPT_POLICY
        if string(found.get(CHAIN_TYPE, b"")) != "filter" or not accepts:
            return string(found[CHAIN_TABLE]), None
    return string(found[CHAIN_TABLE]), Chain(name, (), hook)


def encode_set(kind: SetType, number: int) -> bytes:
    """The attributes of a new set. ``number``: its id within the transaction."""
    flags = FLAG_INTERVAL if kind.interval else 0
    types = be32(SET_KEY_TYPE, kind.key_type) + be32(SET_KEY_LENGTH, kind.key_bytes)
    return be32(SET_FLAGS, flags) + types + be32(SET_ID, number)


@dataclass(frozen=True)
class ReadSet:
    """A set as it is in the kernel."""

    name: str
    flags: int
    key_bytes: int

    def is_of(self, kind: SetType) -> bool:
        """Whether it is a set as we create it for this type: the same key, and no timeouts, data or limits."""
        return self.key_bytes == kind.key_bytes and self.flags == (FLAG_INTERVAL if kind.interval else 0)


def decode_set(data: bytes) -> tuple[str, ReadSet]:
    found = dict(attributes(data))
    flags, key_bytes = (int.from_bytes(found.get(kind, b""), "big") for kind in (SET_FLAGS, SET_KEY_LENGTH))
    return string(found[SET_TABLE]), ReadSet(string(found[SET_NAME]), flags, key_bytes)


def decode_table(data: bytes) -> tuple[str, int, int]:
    """The table's name, its flags, and the number of its chains, sets and other objects."""
    found = dict(attributes(data))
    flags, use = (int.from_bytes(found.get(kind, b""), "big") for kind in (TABLE_FLAGS, TABLE_USE))
    return string(found[TABLE_NAME]), flags, use


def element_lists(data: bytes) -> Iterator[bytes]:
    """The content of each element list of a message."""
    return (value for kind, value in attributes(data) if kind == ELEMENTS_LIST)


def elements(piece: bytes) -> bytes:
    """A packed list of elements (``members.pack``) as an attribute."""
    return nested(ELEMENTS_LIST, piece)
