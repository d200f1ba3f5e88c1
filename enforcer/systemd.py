"""What systemd is told by a service of ``Type=notify``, and nothing when there is no systemd (sd_notify(3))."""

from __future__ import annotations

import os
import socket


def notify(*states: str) -> None:
    """Send states such as ``READY=1`` and ``STATUS=...``. A service manager that does not listen is no error."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # the abstract namespace
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto("\n".join(states).encode(), address)
    except OSError:
        return


def watchdog_interval_s() -> float | None:
    """How often ``WATCHDOG=1`` is to be sent: half of what systemd allows; None when it does not watch this process."""
    allowed_us = os.environ.get("WATCHDOG_USEC", "")
    watched = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not allowed_us.isdigit() or watched != str(os.getpid()):
        return None
    return int(allowed_us) / 2_000_000
