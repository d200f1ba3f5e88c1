"""Listening TCP sockets for an address, as Felix listens: an empty host is every address of both families."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress

from enforcer.model.errors import HostError
from enforcer.monitor.settings import Address

_BACKLOG = 16


def listen(address: Address) -> list[socket.socket]:
    """At least one socket. Raises HostError, naming the address."""
    try:
        return _all(address.port) if not address.host else _named(address)
    except OSError as error:
        reason = "the port is taken" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise HostError(f"{address}: {reason}") from error


def _all(port: int) -> list[socket.socket]:
    with suppress(OSError):  # without IPv6
        return [_bound(socket.AF_INET6, ("::", port), both=True)]
    return [_bound(socket.AF_INET, ("0.0.0.0", port))]


def _named(address: Address) -> list[socket.socket]:
    """``localhost`` has an address of each family: the ones that can be had."""
    found: list[socket.socket] = []
    problem: OSError = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, _, _, _, where in socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM):
        try:
            found.append(_bound(family, where))
        except OSError as error:
            problem = error
            if error.errno == errno.EADDRINUSE:  # half an address would hide that another program answers there
                break
    else:
        if found:
            return found
    for server in found:
        server.close()
    raise problem


def _bound(family: int, where: tuple[object, ...], *, both: bool = False) -> socket.socket:
    server = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        server.bind(where)
        server.listen(_BACKLOG)
        server.setblocking(False)
    except BaseException:
        server.close()
        raise
    return server
