"""bpf/include/abi.h and bpf/include/offload.h in Python, written by tools/abi.py: do not edit.

A structure is what numpy.dtype takes; NAME_BYTES is its size, also of those that hold other structures.
"""

from __future__ import annotations

from typing import Any

# abi.h
ABI_VERSION = 2
MAX_BITS = 512
MAX_SKIPS = 16
ROW_WORDS = 8
NEXT_IS_PAGE = 0x80000000
PORT_PAGE_ENTRIES = 256
PROTOCOL_UNKNOWN = 256
PROTOCOLS = 257
WORD_KIND_SHIFT = 28
WORD_LEAF = 0
WORD_NODE = 15
UNIT_SHIFT4 = 4
UNIT_SHIFT6 = 6
SEGMENT_SHIFT4 = 16
TABLE_PAGE_SHIFT = 18
TABLE_PAGE_BYTES = 262144
LARGEST_KIND4 = 15
LARGEST_KIND6 = 13
MAX_STEPS6 = 12
ROOT_WORDS = 65536
ROOT_SHIFT4 = 16
ROOT_SHIFT6 = 48
LOOK_RX_OWNER = 1
LOOK_VLANS = 2
PORTS_SOURCE = 0
PORTS_DESTINATION = 1
PORTS_ICMP = 2
PORTS_ICMPV6 = 3
PORT_DIRECTORIES = 4
SIDE_SOURCE = 0
SIDE_DESTINATION = 1
ROW_BYTES = 64
ROW: list[Any] = [("word", "=u8", (8,))]
PORT_DIRECTORY_BYTES = 1024
PORT_DIRECTORY: list[Any] = [("next", "=u4", (256,))]
PORT_PAGE_BYTES = 512
PORT_PAGE: list[Any] = [("next", "=u2", (256,))]
POLICY_BYTES = 4480
ADDRESS_ROWS_BYTES = 256
PORT_ROWS_BYTES = 128
NAMED_KEY_BYTES = 24
NAMED_KEY: list[Any] = [
    ("address", ">u4", (4,)),
    ("port_be", ">u2"),
    ("protocol", "u1"),
    ("side", "u1"),
    ("family", "u1"),
    ("pad", "u1", (3,)),
]
ROOT_BYTES = 262144
ROOT: list[Any] = [("word", "=u4", (65536,))]
SIEVE_BYTES = 524288
SIEVE: list[Any] = [("word", "=u4", (131072,))]
TABLE_PAGE: list[Any] = [("byte", "u1", (262144,))]
NODE6_BYTES = 32
NODE6: list[Any] = [
    ("low", "=u8"),
    ("below", "=u4"),
    ("base", "=u4"),
    ("last", "=u4"),
    ("shift", "=u4"),
    ("pad", "=u4", (2,)),
]
ENTRY_COUNT_BYTES = 16
ENTRY_COUNT: list[Any] = [("packets", "=u8"), ("bytes", "=u8")]

# offload.h
MAX_LENGTHS4 = 33
MAX_LENGTHS6 = 32
ANY_PROTOCOL = 0
PORT_INBOUND = 0
PORT_RETURN = 1
PORT_ANY = 2
LENGTH4_BYTES = 8
LENGTH4: list[Any] = [("length", "=u4"), ("mask", ">u4")]
LENGTH6_BYTES = 20
LENGTH6: list[Any] = [("length", "=u4"), ("mask", ">u4", (4,))]
NET4_BYTES = 8
NET4: list[Any] = [("length", "=u4"), ("address", ">u4")]
NET6_BYTES = 20
NET6: list[Any] = [("length", "=u4"), ("address", ">u4", (4,))]
FAILSAFE_PORT_BYTES = 4
FAILSAFE_PORT: list[Any] = [("port_be", ">u2"), ("protocol", "u1"), ("side", "u1")]
OFFLOAD_SETTINGS_BYTES = 8
OFFLOAD_SETTINGS: list[Any] = [("own_address_first", "=u4"), ("own_address_last", "=u4")]
