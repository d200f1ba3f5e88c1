"""The observer's record of one packet, as ``bpf/include/journey.h`` lays it out."""

from __future__ import annotations

from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt

from dossim.observe import abi

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
    TRACKED = abi.CHECKPOINT_TRACKED  # it has a conntrack entry
    BAD_SUM = abi.CHECKPOINT_BAD_SUM  # freed after the kernel had found its checksum wrong (__skb_checksum_complete)


PLACES = tuple(checkpoint for checkpoint in Checkpoint if checkpoint <= Checkpoint.POSTROUTING)


class End(IntEnum):
    NONE, KFREE, CONSUME = abi.END_NONE, abi.END_KFREE, abi.END_CONSUME
