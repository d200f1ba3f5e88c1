"""What ethtool says of an interface: its driver, and whether that takes VLAN tags out of frames."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import struct
from contextlib import closing

from pyroute2.ethtool.ioctl import EthtoolError, IoctlEthtool

from enforcer.model.errors import KernelError

_SIOCETHTOOL = 0x8946  # linux/sockios.h
# linux/ethtool.h
_ETHTOOL_GDRVINFO = 0x3
_ETHTOOL_GFLAGS = 0x25
_ETH_FLAG_RXVLAN = 1 << 8
_DRVINFO = struct.Struct("=I32s160x")  # struct ethtool_drvinfo
_VALUE = struct.Struct("=II")  # struct ethtool_value
# net/ethtool/common.c: netdev_features_strings
_TAKES_TAGS = ("rx-vlan-hw-parse", "rx-vlan-stag-hw-parse")
# Frames that come with the tag beside them, as the sender left them: no feature of the receiver says so.
_BESIDE = ("veth", "netkit")


def driver_of(sock: socket.socket, name: str) -> str:
    """The driver's name as ethtool shows it; "" where the device has none to tell (lo, some tunnels)."""
    answer = _ask(sock, name, _DRVINFO.pack(_ETHTOOL_GDRVINFO, b""))
    return "" if answer is None else str(_DRVINFO.unpack(answer)[1].split(b"\0")[0].decode(errors="replace"))


def tags_stay_in_frames(sock: socket.socket, name: str) -> bool:
    """Whether a network card is known to leave VLAN tags, of 802.1Q and 802.1ad, in the frames it hands up."""
    flags = _ask(sock, name, _VALUE.pack(_ETHTOOL_GFLAGS, 0))
    if flags is None or _VALUE.unpack(flags)[1] & _ETH_FLAG_RXVLAN or driver_of(sock, name) in _BESIDE:
        return False
    try:
        with closing(IoctlEthtool(name)) as asking:
            features = asking.get_features()
            return not any(features.is_active(item) for item in _TAKES_TAGS)
    except (EthtoolError, OSError):
        return False


def _ask(sock: socket.socket, name: str, request: bytes) -> bytes | None:
    """The answer of the device, None where it has none."""
    buffer = ctypes.create_string_buffer(request, len(request))
    interface = struct.pack("16sP16x", name.encode(), ctypes.addressof(buffer))
    try:
        fcntl.ioctl(sock, _SIOCETHTOOL, interface)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENODEV, errno.EPERM):
            return None
        raise KernelError(f"{name}: ask ethtool", number=error.errno or 0) from error
    return buffer.raw
