"""One line about a packet, as tcpdump users know it."""

from __future__ import annotations


def summary(frame: bytes) -> str:
    """What a frame is, e.g. ``Ether / IP / TCP 203.0.113.9:1234 > 10.10.10.10:http S`` (Scapy's own words)."""
    # Imported here: importing Scapy takes longer than a whole prediction.
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether

    assert IPv6  # registers the layers that Ether dissects
    try:
        return str(Ether(frame).summary())
    except Exception:  # Scapy's layers may raise any exception for a cut or patched frame
        return f"frame of {len(frame)} bytes: {frame[:32].hex(' ')}"
