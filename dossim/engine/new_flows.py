"""``engine/new_flows.c``: what packets that leave a conntrack entry begin."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dossim.engine.layout import Kept, NetsStruct, Rows
from dossim.engine.library import function
from enforcer.model.nets import Nets

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]


class SetupStruct(ctypes.Structure):
    _fields_ = (
        *(("own", NetsStruct), ("tcp_ports", ctypes.c_void_p), ("tcp_count", ctypes.c_uint32)),
        *(("forward", ctypes.c_uint8), ("tcp_loose", ctypes.c_uint8), ("pad", ctypes.c_uint8 * 2)),
    )


class Begun:
    """What packets to a host with these addresses begin, which listens on these TCP ports."""

    def __init__(self, own: Nets, tcp_ports: Sequence[int], *, forward: bool, tcp_loose: bool) -> None:
        kept = self._kept = Kept()
        ports = kept.rows(np.uint16, tcp_ports)
        self._setup = SetupStruct(kept.nets(own), ports, len(tcp_ports), forward, tcp_loose)

    def of(self, data: U8, flows: Rows) -> tuple[U64, U8, int]:
        """``flows``: rows of FLOW, whose ``at`` is a position in ``data``. Returns the keys (uint64[N, 6]) and classes
        (uint8[N], enum flow_class) of those that begin a flow, in order; and how many others may begin one or not.
        """
        flows, count = np.ascontiguousarray(flows), len(flows)
        keys, classes = np.empty((count, 6), np.uint64), np.empty(count + 1, np.uint8)
        unknown = ctypes.c_int64()
        pointer = ctypes.c_void_p
        arguments = [pointer, pointer, pointer, ctypes.c_int64, pointer, pointer, pointer]
        run = function("engine_new_flows", arguments, ctypes.c_int64)
        where = ctypes.byref(self._setup), data.ctypes.data, flows.ctypes.data, count
        found = run(*where, keys.ctypes.data, classes.ctypes.data, ctypes.byref(unknown))
        return keys[:found], classes[:found], unknown.value
