"""bpf/include/journey.h in Python, written by tools/abi.py: do not edit.

A structure is what numpy.dtype takes; NAME_BYTES is its size, also of those that hold other structures.
"""

from __future__ import annotations

from typing import Any

# journey.h
CHECKPOINT_RECEIVE = 1
CHECKPOINT_PRE_DEFRAG = 2
CHECKPOINT_POST_DEFRAG = 4
CHECKPOINT_POST_RAW = 8
CHECKPOINT_POST_CONNTRACK = 16
CHECKPOINT_POST_MANGLE = 32
CHECKPOINT_PRE_ROUTE = 64
CHECKPOINT_INPUT_FIRST = 128
CHECKPOINT_INPUT_LAST = 256
CHECKPOINT_FORWARD_FIRST = 512
CHECKPOINT_FORWARD_LAST = 1024
CHECKPOINT_POSTROUTING = 2048
CHECKPOINT_GROUP = 4096
CHECKPOINT_NO_TCP = 8192
CHECKPOINT_NO_UDP = 16384
CHECKPOINT_BAD_SUM = 32768
END_NONE = 0
END_KFREE = 1
END_CONSUME = 2
CTINFO_ESTABLISHED = 0
CTINFO_RELATED = 1
CTINFO_NEW = 2
CTINFO_ESTABLISHED_REPLY = 3
CTINFO_RELATED_REPLY = 4
CTINFO_UNTRACKED = 7
CTINFO_MASK = 7
CTINFO_ENTRY = 8
JOURNEY_BYTES = 40
JOURNEY: list[Any] = [
    ("location", "=u8"),
    ("pre_defrag_ns", "=u8"),
    ("post_defrag_ns", "=u8"),
    ("checkpoints", "=u4"),
    ("mark", "=u4"),
    ("reason", "=u2"),
    ("end", "u1"),
    ("ends", "u1"),
    ("ctinfo", "u1"),
    ("unused", "u1", (3,)),
]
