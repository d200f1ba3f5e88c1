"""Prevents name lookups and network access while packets are built.

Scapy resolves: it looks up a string that is not an address as a host name (``socket.getaddrinfo``), and a missing MAC
address with an ARP request. The interpreter's audit events (PEP 578) report such calls of any library, which cannot
avoid them; an exception from the hook stops the call.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_LOOKUPS = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"})
_OTHERS = frozenset({
    *("socket.__new__", "socket.connect", "socket.sendto", "socket.sendmsg"),
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"),
})  # fmt: skip

_here = threading.local()


class LookupRefused(Exception):
    """An attempt to look up a host name."""


class NetworkRefused(Exception):
    """An attempt to use the network or to start a process."""


@contextmanager
def offline() -> Iterator[None]:
    """Within the block, any use of the network by this thread raises LookupRefused or NetworkRefused."""
    _install()
    before = getattr(_here, "offline", False)
    scapy = logging.getLogger("scapy")
    level = scapy.level
    _here.offline = True
    scapy.setLevel(logging.CRITICAL)  # it logs an error before raising it
    try:
        yield
    finally:
        _here.offline = before
        scapy.setLevel(level)


@cache
def _install() -> None:
    """Installs the hook once: hooks stay until the interpreter ends."""
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not getattr(_here, "offline", False):
        return
    if event in _LOOKUPS:
        refuse_name(arguments[0] if arguments else "")
    if event in _OTHERS:
        raise NetworkRefused("it would use the network of this machine")


def refuse_name(host: object) -> None:
    """Raises LookupRefused within :func:`offline` unless ``name`` is an address."""
    if getattr(_here, "offline", False) and not is_numeric(host):
        raise LookupRefused(f"expected an IP address or CIDR, found {str(host)[:60]!r}; names are not looked up")


def is_numeric(host: object) -> bool:
    """Whether getaddrinfo reads it as an address, without a lookup."""
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, str(text))
        except (OSError, ValueError):
            continue
        return True
    return False
