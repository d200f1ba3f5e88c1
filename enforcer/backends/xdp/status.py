"""What our attached programs hold, read without counters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from enforcer.backends.base import Fill, Holding
from enforcer.backends.xdp.addresses import open_tables
from enforcer.backends.xdp.state.layout import TablePins
from enforcer.backends.xdp.state.read import Installed
from enforcer.kernel.bpf.conn import BpfConn
from enforcer.model.abi import MAX_BITS
from enforcer.model.vocabulary import STAGE_OF_MODE


def holding(bpf: BpfConn, pin_root: Path, installed: Installed, called: Mapping[int, str]) -> Holding:
    """``called``: the name of each interface by its index."""
    names = dict.fromkeys(filter(None, installed.manifest.entries))  # a failsafe has none
    attached_to = called.get(installed.link.ifindex, "") if installed.link else ""
    return Holding(STAGE_OF_MODE[installed.mode], tuple(names), tuple(_fills(bpf, pin_root, installed)), attached_to)


def _fills(bpf: BpfConn, pin_root: Path, installed: Installed) -> Iterator[Fill]:
    """The number of bits (entries and failsafes), and of address ranges in any list (bounded by memory only)."""
    stage = STAGE_OF_MODE[installed.mode]
    yield Fill("XDP entries and failsafes", stage, len(installed.manifest.entries), MAX_BITS)
    tables = open_tables(TablePins.of(bpf, pin_root, installed.manifest.namespace))
    if tables is not None:
        with tables:
            said = tables.classified
            yield Fill("XDP IPv4 ranges", stage, int(np.count_nonzero(said.segments4.cls)), None)
            yield Fill("XDP IPv6 ranges", stage, int(np.count_nonzero(said.segments6.cls)), None)
