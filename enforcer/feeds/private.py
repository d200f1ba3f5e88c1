"""Networks that a public list must not deny: no such address comes from the Internet, and hosts need them. Pure.

Sources: RFC 6890 and IANA's special-purpose address registries. Networks for documentation are not among them.
"""

from __future__ import annotations

from enforcer.feeds.canonical import Protected
from enforcer.lists.entry import networks_of

_PRIVATE = {
    "10.0.0.0/8": "private (RFC 1918)",
    "172.16.0.0/12": "private (RFC 1918)",
    "192.168.0.0/16": "private (RFC 1918)",
    "100.64.0.0/10": "shared by carriers (RFC 6598)",
    "fc00::/7": "private (RFC 4193)",
}
_NEVER = {
    "0.0.0.0/8": "this network (RFC 1122)",
    "127.0.0.0/8": "loopback",
    "169.254.0.0/16": "link-local",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved, and broadcast",
    "::/128": "the unspecified address",
    "::1/128": "loopback",
    "fe80::/10": "link-local, which IPv6 needs to find neighbours and routers",
    "ff00::/8": "multicast, which IPv6 needs to find neighbours and routers",
}


def special(*, private: bool) -> list[Protected]:
    """Networks that are always protected, and with ``private`` the private ones."""
    named = _NEVER | (_PRIVATE if private else {})
    return [Protected(networks_of(text)[0], what) for text, what in named.items()]
