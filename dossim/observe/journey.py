"""The observer's record of one packet, as ``bpf/include/journey.h`` lays it out."""

from __future__ import annotations

from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt

JOURNEY = np.dtype(
    [
        ("location", "<u8"),  # kernel address; 0 when the packet did not end
        ("pre_defrag_ns", "<u8"),
        ("post_defrag_ns", "<u8"),
        ("checkpoints", "<u4"),
        ("reason", "<u2"),
        ("end", "u1"),
        ("ends", "u1"),
    ]
)
assert JOURNEY.itemsize == 32, "bpf/include/journey.h asserts the same"


Journeys = npt.NDArray[np.void]  # of JOURNEY, one per packet


class Checkpoint(IntFlag):
    """How far a packet got, in the order it meets them. Numbers are PREROUTING priorities."""

    RECEIVE = 1 << 0
    PRE_DEFRAG = 1 << 1  # -401
    POST_DEFRAG = 1 << 2  # -399
    POST_RAW = 1 << 3  # -299
    POST_CONNTRACK = 1 << 4  # -199
    POST_MANGLE = 1 << 5  # -149
    PRE_ROUTE = 1 << 6  # last
    INPUT_FIRST = 1 << 7
    INPUT_LAST = 1 << 8
    FORWARD_FIRST = 1 << 9
    FORWARD_LAST = 1 << 10
    POSTROUTING = 1 << 11
    # Not places, but what is known of the packet:
    GROUP = 1 << 12  # the frame's destination is a group address
    NO_TCP = 1 << 13  # freed with less than its TCP header left
    NO_UDP = 1 << 14  # freed with less than a UDP header left
    TRACKED = 1 << 15  # conntrack knew it
    BAD_SUM = 1 << 16  # freed after the kernel had summed it up (__skb_checksum_complete), and the sum was wrong


PLACES = tuple(checkpoint for checkpoint in Checkpoint if checkpoint <= Checkpoint.POSTROUTING)


class End(IntEnum):
    NONE = 0
    KFREE = 1
    CONSUME = 2
