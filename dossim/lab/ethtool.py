"""The one ethtool setting a lab needs, set by ioctl: pyroute2's generic-netlink ethtool cannot set GRO."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

_SIOCETHTOOL = 0x8946  # linux/sockios.h
_ETHTOOL_SGRO = 0x2C  # linux/ethtool.h, struct ethtool_value {__u32 cmd, data}


def set_gro(interface: str, *, on: bool) -> None:
    """Switch generic receive offload of an interface of the current namespace. OSError if the driver refuses."""
    value = ctypes.create_string_buffer(struct.pack("II", _ETHTOOL_SGRO, int(on)))
    request = struct.pack("16sP16x", interface.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCETHTOOL, request)
