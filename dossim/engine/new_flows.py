"""``engine/new_flows.c``: the flows that packets begin which leave a conntrack entry, in bounded memory."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dossim.engine.layout import FlowCountsStruct, FlowKeys, FlowSetupStruct, Kept
from dossim.engine.library import function
from dossim.engine.predictor import Frames, Given
from enforcer.model.nets import Nets

Bool = npt.NDArray[np.bool_]

MOST = 1 << 21
_POINTER = ctypes.c_void_p


class BegunFlows:
    """What packets to a host with these addresses begin, which listens on these TCP ports: at most so many flows are
    told apart (33 MB for all of MOST).
    """

    def __init__(
        self, own: Nets, tcp_ports: Sequence[int], *, forward: bool, tcp_loose: bool, most: int = MOST
    ) -> None:
        """Raises MemoryError."""
        kept, keys = Kept(), os.urandom(ctypes.sizeof(FlowKeys))
        self._kept = kept
        ports = kept.rows(np.uint16, tcp_ports)
        setup = FlowSetupStruct(
            kept.nets(own), ports, len(tcp_ports), forward, tcp_loose, keys=FlowKeys.from_buffer_copy(keys), most=most
        )
        found = function("engine_new_flows", [_POINTER], _POINTER)(ctypes.byref(setup))
        if not found:
            raise MemoryError("new flows cannot be counted: there is no memory")
        self.address: int = found
        weakref.finalize(self, function("engine_new_flows_free", [_POINTER], None), found)

    def add(self, capture: Frames, wanted: Bool) -> None:
        """Count the wanted packets, which leave an entry. Raises ValueError for one that is not within the data."""
        given, wanted = Given(capture), np.ascontiguousarray(wanted)
        run = function("engine_count_flows", [_POINTER, _POINTER, ctypes.c_int64, _POINTER], ctypes.c_int64)
        given.require(run(self.address, given.address, len(wanted), wanted.ctypes.data))

    @property
    def counts(self) -> FlowCountsStruct:
        """``flows``: by class (enum flow_class) of their first packet; ``beginning``: packets that begin one or repeat
        its first packet; ``unknown``: those that may begin one or not; ``is_more``: there were others, beyond as many
        as are told apart.
        """
        found = FlowCountsStruct()
        function("engine_flow_counts", [_POINTER, _POINTER], None)(self.address, ctypes.byref(found))
        return found
