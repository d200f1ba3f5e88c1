"""The observer's record of one packet, as ``bpf/include/journey.h`` lays it out."""

from __future__ import annotations

from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt

from dossim.observe import abi
from enforcer.model.errors import UnsupportedKernelError
from enforcer.model.vocabulary import CtState

JOURNEY = np.dtype(abi.JOURNEY)

Journeys = npt.NDArray[np.void]  # of JOURNEY, one per packet


class Checkpoint(IntFlag):
    """How far a packet got, in the order of the path. Numbers are PREROUTING priorities."""

    RECEIVE = abi.CHECKPOINT_RECEIVE
    PRE_DEFRAG = abi.CHECKPOINT_PRE_DEFRAG  # -401
    POST_DEFRAG = abi.CHECKPOINT_POST_DEFRAG  # -399
    POST_RAW = abi.CHECKPOINT_POST_RAW  # -299
    POST_CONNTRACK = abi.CHECKPOINT_POST_CONNTRACK  # -199
    POST_MANGLE = abi.CHECKPOINT_POST_MANGLE  # -149
    PRE_ROUTE = abi.CHECKPOINT_PRE_ROUTE  # last
    INPUT_FIRST = abi.CHECKPOINT_INPUT_FIRST
    INPUT_LAST = abi.CHECKPOINT_INPUT_LAST
    FORWARD_FIRST = abi.CHECKPOINT_FORWARD_FIRST
    FORWARD_LAST = abi.CHECKPOINT_FORWARD_LAST
    POSTROUTING = abi.CHECKPOINT_POSTROUTING
    # Not positions on the path, but facts about the packet:
    GROUP = abi.CHECKPOINT_GROUP  # the frame's destination is a group address
    NO_TCP = abi.CHECKPOINT_NO_TCP  # freed with less than its TCP header left
    NO_UDP = abi.CHECKPOINT_NO_UDP  # freed with less than a UDP header left
    BAD_SUM = abi.CHECKPOINT_BAD_SUM  # freed after the kernel had found its checksum wrong (__skb_checksum_complete)


PLACES = tuple(checkpoint for checkpoint in Checkpoint if checkpoint <= Checkpoint.POSTROUTING)


class End(IntEnum):
    NONE, KFREE, CONSUME = abi.END_NONE, abi.END_KFREE, abi.END_CONSUME


CT_STATES = tuple(CtState)
NO_STATE = 255

_OF_ENTRY = {
    abi.CTINFO_ESTABLISHED: CtState.ESTABLISHED,
    abi.CTINFO_ESTABLISHED_REPLY: CtState.ESTABLISHED,
    abi.CTINFO_RELATED: CtState.RELATED,
    abi.CTINFO_RELATED_REPLY: CtState.RELATED,
    abi.CTINFO_NEW: CtState.NEW,
}
_REPLIES = tuple(abi.CTINFO_ENTRY | info for info in (abi.CTINFO_ESTABLISHED_REPLY, abi.CTINFO_RELATED_REPLY))


def ct_state(ctinfo: int) -> CtState:
    """The state that a record's ``ctinfo`` stands for, as ``conntrack_mt`` of the kernel derives it (xt_conntrack.c).

    Raises UnsupportedKernelError for a value that no kernel known here has.
    """
    info = ctinfo & abi.CTINFO_MASK
    if not ctinfo & abi.CTINFO_ENTRY:
        return CtState.UNTRACKED if info == abi.CTINFO_UNTRACKED else CtState.INVALID
    if info not in _OF_ENTRY:
        raise UnsupportedKernelError(
            f"conntrack has an entry for a packet and calls it {info}, which is no known state"
        )
    return _OF_ENTRY[info]


def ct_states(journeys: Journeys) -> npt.NDArray[np.uint8]:
    """For each packet an index into CT_STATES; NO_STATE for what did not get past conntrack."""
    known, kind_of = np.unique(journeys["ctinfo"], return_inverse=True)
    codes = np.array([CT_STATES.index(ct_state(int(ctinfo))) for ctinfo in known], np.uint8)[kind_of]
    codes[journeys["checkpoints"] & Checkpoint.POST_CONNTRACK == 0] = NO_STATE
    return codes


def arrivals_ns(journeys: Journeys) -> npt.NDArray[np.int64]:
    """When each packet came to PREROUTING, from the first one on; a packet that did not come there as the one before
    it.
    """
    arrived = journeys["pre_defrag_ns"].astype(np.int64)
    first = arrived[arrived != 0].min(initial=np.iinfo(np.int64).max)
    return np.maximum.accumulate(np.where(arrived == 0, 0, arrived - first))


def is_reply(journeys: Journeys) -> npt.NDArray[np.bool_]:
    """Which packets went the other way than the first one of their connection."""
    return np.isin(journeys["ctinfo"], _REPLIES)
