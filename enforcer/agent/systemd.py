"""sd_notify(3) for a service of ``Type=notify``; without systemd it does nothing."""

from __future__ import annotations

import os
import socket

_STATE_MAX_CHARS = 2000  # a status is for people, and datagrams have a maximum size


def notify(*states: str) -> None:
    """Send states such as ``READY=1`` and ``STATUS=...``. A service manager that does not listen is not an error.

    A line break would start a new state, and file names may contain one: control characters are escaped.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # the abstract namespace
    text = "\n".join(map(_escaped, states)).encode()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(text, socket.MSG_DONTWAIT, address)
    except (OSError, ValueError):
        return


def watchdog_interval_s() -> float | None:
    """The interval between ``WATCHDOG=1``: half of systemd's limit; None when systemd does not watch this process."""
    allowed_us = os.environ.get("WATCHDOG_USEC", "")
    watched = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not (allowed_us.isascii() and allowed_us.isdigit()) or watched != str(os.getpid()):
        return None
    return int(allowed_us) / 2_000_000


def _escaped(state: str) -> str:
    """The state on one line, as valid UTF-8."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in state[:_STATE_MAX_CHARS])
