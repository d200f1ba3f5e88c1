"""From bit vectors to what an interface's program is loaded with. Pure."""

from __future__ import annotations

from enforcer.backends.xdp.compile.ports import PAGE
from enforcer.backends.xdp.compile.receiver import Receiver
from enforcer.backends.xdp.compile.rows import ROW, XdpRows, address_rows, row_octets
from enforcer.backends.xdp.state.generation import Contents, Elements
from enforcer.backends.xdp.state.manifest import Members
from enforcer.planning.plan import InterfacePlan

ADDRESS_ROWS = 4 * ROW
NAMED_KEY = 24


def contents_of(
    plan: InterfacePlan, rows: XdpRows, members: Members, capacity: int, *, receiver: Receiver, ipv6: bool
) -> Contents:
    """``members`` are the classes of addresses there are, ``capacity`` how many there may come to be."""
    settings = {
        **receiver.settings,
        "row_words": rows.words,
        "ask_destination": int(rows.asks_destination),
        "ask_named": int(rows.asks_named),
        "may_skip": int(rows.may_skip),
        "drop_unlisted": int(rows.drops_unlisted),
    }
    policy = rows.policy + rows.ports.directories.tobytes()
    arrays = {
        "policy": Elements(len(policy), policy),
        "tiers": Elements(ROW, rows.tiers),
        "rows": rows_of_classes(plan, members, capacity, ipv6=ipv6),
        "protocols": Elements(ROW, rows.protocols),
        "port_pages": Elements(2 * PAGE, rows.ports.pages.tobytes()),
        "port_rows": Elements(2 * ROW, b"".join(map(_pair, rows.ports.rows))),
    }
    named = rows.ports.named
    hashes = {"named": (Elements(NAMED_KEY, b"".join(named)), Elements(2 * ROW, b"".join(map(_pair, named.values()))))}
    return Contents(settings, arrays, hashes, len(rows.names))


def rows_of_classes(plan: InterfacePlan, members: Members, capacity: int, *, ipv6: bool) -> Elements:
    """What each class of addresses means to an interface, by number; nothing for numbers that no class has."""
    data = bytearray(capacity * ADDRESS_ROWS)
    rendered = address_rows(plan, members, ipv6=ipv6)
    for at, number in enumerate(members):
        data[number * ADDRESS_ROWS : (number + 1) * ADDRESS_ROWS] = rendered[
            at * ADDRESS_ROWS : (at + 1) * ADDRESS_ROWS
        ]
    return Elements(ADDRESS_ROWS, bytes(data))


def _pair(pair: tuple[int, int]) -> bytes:
    return row_octets(pair[0]) + row_octets(pair[1])
