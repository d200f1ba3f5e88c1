"""Reads from ethtool the driver of an interface, and whether it removes VLAN tags from frames."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import struct

from enforcer.model.errors import KernelError

_SIOCETHTOOL = 0x8946  # linux/sockios.h
# linux/ethtool.h
_ETHTOOL_GDRVINFO = 0x3
_ETHTOOL_GFLAGS = 0x25
_ETH_FLAG_RXVLAN = 1 << 8
_DRVINFO = struct.Struct("=I32s160x")  # struct ethtool_drvinfo
_VALUE = struct.Struct("=II")  # struct ethtool_value
_ETHTOOL_GSSET_INFO, _ETHTOOL_GSTRINGS, _ETHTOOL_GFEATURES = 0x37, 0x1B, 0x3A
_ETH_SS_FEATURES = 4
_SSET_INFO = struct.Struct("=IIQI")  # struct ethtool_sset_info, of one set
_COUNTED = struct.Struct("=III")  # struct ethtool_gstrings
_FEATURES = struct.Struct("=II")  # struct ethtool_gfeatures
_FEATURE_BLOCK = struct.Struct("=IIII")  # 32 features each: available, requested, active, never changed
_STRING_BYTES = 32
# net/ethtool/common.c: netdev_features_strings
_TAKES_TAGS = ("rx-vlan-hw-parse", "rx-vlan-stag-hw-parse")
# Their frames keep the sender's metadata, so a tag may be outside the frame whatever the receiver's features are.
_BESIDE = ("veth", "netkit")


def driver_of(sock: socket.socket, name: str) -> str:
    """The driver's name as ethtool shows it; "" if the device has none (lo, some tunnels)."""
    answer = _ask(sock, name, _DRVINFO.pack(_ETHTOOL_GDRVINFO, b""))
    return "" if answer is None else str(_DRVINFO.unpack(answer)[1].split(b"\0")[0].decode(errors="replace"))


def tags_stay_in_frames(sock: socket.socket, name: str) -> bool:
    """Whether a network card is known to leave VLAN tags (802.1Q and 802.1ad) in received frames."""
    flags = _ask(sock, name, _VALUE.pack(_ETHTOOL_GFLAGS, 0))
    if flags is None or _VALUE.unpack(flags)[1] & _ETH_FLAG_RXVLAN or driver_of(sock, name) in _BESIDE:
        return False
    try:
        return not active_features(sock, name).intersection(_TAKES_TAGS)
    except KernelError:
        return False


def active_features(sock: socket.socket, name: str) -> set[str]:
    """The enabled features of a network card, by their kernel names (``netdev_features_strings``).

    Raises KernelError if the device does not report them.
    """
    names = _feature_names(sock, name)
    blocks = (len(names) + 31) // 32
    room = bytes(blocks * _FEATURE_BLOCK.size)
    answer = _reply(sock, name, _FEATURES.pack(_ETHTOOL_GFEATURES, blocks) + room)
    active = [block[2] for block in _FEATURE_BLOCK.iter_unpack(answer[_FEATURES.size :])]
    return {word for at, word in enumerate(names) if active[at // 32] >> at % 32 & 1}


def _feature_names(sock: socket.socket, name: str) -> list[str]:
    """The names of the features, indexed by bit number."""
    request = _SSET_INFO.pack(_ETHTOOL_GSSET_INFO, 0, 1 << _ETH_SS_FEATURES, 0)
    _, _, held, count = _SSET_INFO.unpack(_reply(sock, name, request))
    if not held or not count:
        raise KernelError(f"{name}: it names no features")
    room = bytes(count * _STRING_BYTES)
    answer = _reply(sock, name, _COUNTED.pack(_ETHTOOL_GSTRINGS, _ETH_SS_FEATURES, count) + room)[_COUNTED.size :]
    return [
        answer[at : at + _STRING_BYTES].split(b"\0")[0].decode(errors="replace")
        for at in range(0, count * _STRING_BYTES, _STRING_BYTES)
    ]


def _reply(sock: socket.socket, name: str, request: bytes) -> bytes:
    answer = _ask(sock, name, request)
    if answer is None:
        raise KernelError(f"{name}: ask ethtool", number=errno.EOPNOTSUPP)
    return answer


def _ask(sock: socket.socket, name: str, request: bytes) -> bytes | None:
    """The reply of the device; None if it does not support the request."""
    buffer = ctypes.create_string_buffer(request, len(request))
    interface = struct.pack("16sP16x", name.encode(), ctypes.addressof(buffer))
    try:
        fcntl.ioctl(sock, _SIOCETHTOOL, interface)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENODEV, errno.EPERM):
            return None
        raise KernelError(f"{name}: ask ethtool", number=error.errno or 0) from error
    return buffer.raw
