"""One line about a packet, as tcpdump users know it."""

from __future__ import annotations


def summary(frame: bytes) -> str:
    """What a frame is, e.g. ``Ether / IP / TCP 203.0.113.9:1234 > 10.10.10.10:http S`` (Scapy's own words)."""
    # Imported here: Scapy takes longer to import than a whole prediction takes to run.
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether

    assert IPv6  # registers the layers that Ether dissects into
    try:
        return str(Ether(frame).summary())
    except Exception:  # Scapy's layers raise anything for a cut or patched frame
        return f"frame of {len(frame)} bytes: {frame[:32].hex(' ')}"
