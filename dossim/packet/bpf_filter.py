"""Filters in the language of tcpdump (pcap-filter(7)), through libpcap, which has it.

libpcap compiles an expression to classic BPF and runs that on the bytes of a packet; it opens no device here.
"""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np
import numpy.typing as npt

from dossim.packet.capture import Capture
from dossim.packet.linkdecoders import ETHERNET
from enforcer.model.errors import HostError, UsageError

_SONAME = "libpcap.so.0.8"  # of every libpcap since 1.0, as Debian names it
_OTHER_SONAME = "libpcap.so.1"  # as others do
_SNAPLEN = 262_144
_UNKNOWN = 0xFFFF_FFFF  # PCAP_NETMASK_UNKNOWN


class _Program(ctypes.Structure):
    """``struct bpf_program``."""

    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


def matching(capture: Capture, expression: str, option: str) -> npt.NDArray[np.bool_]:
    """bool[N]: the packets that match. Raises UsageError with libpcap's message, named after the option, and HostError
    without libpcap.
    """
    pcap = _libpcap()
    program = _Program()
    handle = pcap.pcap_open_dead(ETHERNET, _SNAPLEN)
    if not handle:
        raise MemoryError("libpcap has no memory")
    try:
        text = expression.encode(errors="surrogateescape")  # an argument may be no UTF-8
        if pcap.pcap_compile(handle, ctypes.byref(program), text, 1, _UNKNOWN):
            message = pcap.pcap_geterr(handle).decode("utf-8", "replace")
            raise UsageError(
                f"{option} {expression!r}: {message}; expected an expression as for tcpdump (pcap-filter(7))"
            )
        try:
            return _run(pcap, program, capture)
        finally:
            pcap.pcap_freecode(ctypes.byref(program))
    finally:
        pcap.pcap_close(handle)


def _run(pcap: ctypes.CDLL, program: _Program, capture: Capture) -> npt.NDArray[np.bool_]:
    base, run, instructions = capture.data.ctypes.data, pcap.bpf_filter, program.instructions
    rows = zip(capture.offset.tolist(), capture.length.tolist(), capture.wire_length.tolist(), strict=True)
    return np.array([run(instructions, base + at, wire, captured) != 0 for at, captured, wire in rows], np.bool_)


@cache
def _libpcap() -> ctypes.CDLL:
    for name in (_SONAME, _OTHER_SONAME):
        try:
            loaded = ctypes.CDLL(name)
            break
        except OSError:
            continue
    else:
        raise HostError(f"a filter needs libpcap, but {_SONAME} cannot be loaded; on Debian: apt install libpcap0.8")
    loaded.pcap_open_dead.argtypes, loaded.pcap_open_dead.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_void_p
    loaded.pcap_compile.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32]
    loaded.pcap_geterr.argtypes, loaded.pcap_geterr.restype = [ctypes.c_void_p], ctypes.c_char_p
    loaded.pcap_freecode.argtypes, loaded.pcap_freecode.restype = [ctypes.c_void_p], None
    loaded.pcap_close.argtypes, loaded.pcap_close.restype = [ctypes.c_void_p], None
    loaded.bpf_filter.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    loaded.bpf_filter.restype = ctypes.c_uint
    return loaded
