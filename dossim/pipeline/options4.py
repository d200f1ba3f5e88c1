"""IPv4 options of a received packet (``net/ipv4/ip_options.c``: ``__ip_options_compile``; ``ip_input.c``:
``ip_rcv_options``).
"""

from __future__ import annotations

from collections.abc import Callable

from dossim.model.host import Host

END, NO_OPERATION = 0, 1
RECORD_ROUTE, TIMESTAMP, LOOSE_ROUTE, STRICT_ROUTE, ROUTER_ALERT, CIPSO = 7, 68, 131, 137, 148, 134
TIMESTAMP_ALONE, TIMESTAMP_AND_ADDRESS, TIMESTAMP_PRESPECIFIED = 0, 1, 3
ONLY_ONCE = {RECORD_ROUTE, TIMESTAMP, LOOSE_ROUTE, STRICT_ROUTE}


def why_bad_options(options: bytes, host: Host) -> str:
    """Why a packet with these options is dropped; "" when it is not. Source routes are never accepted here."""
    seen: set[int] = set()
    at = 0
    while at < len(options) and options[at] != END:
        kind = options[at]
        if kind == NO_OPERATION:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 0
        if length < 2 or at + length > len(options):
            return f"IP option {kind} of length {length}"
        body = options[at : at + length]
        once = LOOSE_ROUTE if kind == STRICT_ROUTE else kind
        if once in seen and once in ONLY_ONCE:
            return f"IP option {kind} twice"
        seen.add(once)
        if kind in _CHECKS and not _CHECKS[kind](body, host):
            return f"malformed IP option {kind}"
        at += length
    return "source route, which is not accepted" if LOOSE_ROUTE in seen else ""


def _is_route(body: bytes, host: Host) -> bool:
    return len(body) >= 3 and body[2] >= 4


def _is_record(body: bytes, host: Host) -> bool:
    """Whether the pointer is past the option (full), or leaves room for one more address."""
    return len(body) >= 3 and body[2] >= 4 and (body[2] > len(body) or body[2] + 3 <= len(body))


def _is_timestamp(body: bytes, host: Host) -> bool:
    if len(body) < 4 or body[2] < 5:
        return False
    pointer, flag, overflow = body[2], body[3] & 0x0F, body[3] >> 4
    if pointer > len(body):  # full: the overflow field counts hosts that found no room
        return flag == TIMESTAMP_PRESPECIFIED or overflow < 15
    room = 7 if flag in (TIMESTAMP_AND_ADDRESS, TIMESTAMP_PRESPECIFIED) else 3
    return pointer + room <= len(body)


def _is_known_label(body: bytes, host: Host) -> bool:
    """A security label needs a domain, and a host has none until netlabelctl defines one (``cipso_v4_validate``)."""
    return False


def _is_router_alert(body: bytes, host: Host) -> bool:
    return len(body) >= 4


_CHECKS: dict[int, Callable[[bytes, Host], bool]] = {
    RECORD_ROUTE: _is_record,
    TIMESTAMP: _is_timestamp,
    LOOSE_ROUTE: _is_route,
    STRICT_ROUTE: _is_route,
    ROUTER_ALERT: _is_router_alert,
    CIPSO: _is_known_label,
}
