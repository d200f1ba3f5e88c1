"""From bit vectors to the settings and map contents of an interface's program. Pure."""

from __future__ import annotations

from itertools import chain

from enforcer.backends.xdp.compile.receiver import Receiver
from enforcer.backends.xdp.compile.rows import XdpRows, address_rows, rows_bytes
from enforcer.backends.xdp.state.generation import Contents, Elements
from enforcer.backends.xdp.state.manifest import Members
from enforcer.model.abi import ADDRESS_ROWS_BYTES, NAMED_KEY_BYTES, PORT_PAGE_BYTES, PORT_ROWS_BYTES, ROW_BYTES
from enforcer.planning.plan import InterfacePlan


def contents_of(
    plan: InterfacePlan, rows: XdpRows, members: Members, capacity: int, *, receiver: Receiver, ipv6: bool
) -> Contents:
    """``members``: the present address classes; ``capacity``: how many classes to allocate rows for."""
    settings = {
        **receiver.settings,
        "row_words": rows.words,
        "match_destination": int(rows.matches_destination),
        "match_named_ports": int(rows.matches_named_ports),
        "may_skip": int(rows.may_skip),
        "drop_unlisted": int(rows.drops_unlisted),
    }
    policy = rows.policy + rows.ports.directories.tobytes()
    arrays = {
        "policy": Elements(len(policy), policy),
        "tiers": Elements(ROW_BYTES, rows.tiers),
        "rows": rows_of_classes(plan, members, capacity, ipv6=ipv6),
        "protocols": Elements(ROW_BYTES, rows.protocols),
        "port_pages": Elements(PORT_PAGE_BYTES, rows.ports.pages.tobytes()),
        "port_rows": Elements(PORT_ROWS_BYTES, rows_bytes(chain.from_iterable(rows.ports.rows))),
    }
    named = rows.ports.named
    hashes = {
        "named": (
            Elements(NAMED_KEY_BYTES, b"".join(named)),
            Elements(PORT_ROWS_BYTES, rows_bytes(chain.from_iterable(named.values()))),
        )
    }
    return Contents(settings, arrays, hashes, len(rows.names))


def rows_of_classes(plan: InterfacePlan, members: Members, capacity: int, *, ipv6: bool) -> Elements:
    """The rows of each address class for one interface, by class number; empty rows for unused numbers."""
    data = bytearray(capacity * ADDRESS_ROWS_BYTES)
    rendered = address_rows(plan, members, ipv6=ipv6)
    for at, number in enumerate(members):
        data[number * ADDRESS_ROWS_BYTES : (number + 1) * ADDRESS_ROWS_BYTES] = rendered[
            at * ADDRESS_ROWS_BYTES : (at + 1) * ADDRESS_ROWS_BYTES
        ]
    return Elements(ADDRESS_ROWS_BYTES, bytes(data))
