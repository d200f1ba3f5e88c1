"""Where a record is guessed to begin: after any byte of a file, at the right place unless a payload holds a capture."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest

from dossim.packet.guess import guess_pcap, guess_pcapng

_T = 1_700_000_000


def pcap_records(count: int, order: str, header: int, rng: random.Random) -> list[bytes]:
    records = []
    for number in range(count):
        payload = rng.choice((bytes(rng.randint(1, 90)), rng.randbytes(rng.randint(1, 1500))))
        head = struct.pack(f"{order}IIII", _T + number, rng.randrange(1_000_000), len(payload), len(payload))
        records.append(head + bytes(header - 16) + payload)
    return records


def pcapng_blocks(count: int, order: str, rng: random.Random) -> list[bytes]:
    blocks = []
    for _ in range(count):
        payload = rng.choice((bytes(rng.randint(1, 90)), rng.randbytes(rng.randint(1, 1500))))
        padded = payload + bytes(-len(payload) % 4)
        size = 32 + len(padded)
        fields = struct.pack(f"{order}IIIIIII", 6, size, 0, 0, 0, len(payload), len(payload))
        blocks.append(fields + padded + struct.pack(f"{order}I", size))
    return blocks


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("header", [16, 24])
def test_the_next_record_of_a_pcap(order: str, header: int) -> None:
    rng = random.Random(1)
    records = pcap_records(80, order, header, rng)
    starts = np.cumsum([0, *map(len, records)])
    buf = np.frombuffer(b"".join(records), np.uint8)
    for at in [0, 1, *rng.sample(range(int(starts[40])), 60)]:
        found = guess_pcap(buf[at:], big_endian=order == ">", header=header, unit_ns=1000)
        assert found == starts[np.searchsorted(starts, at)] - at


@pytest.mark.parametrize("order", "<>")
def test_the_next_block_of_a_pcapng(order: str) -> None:
    rng = random.Random(2)
    blocks = pcapng_blocks(80, order, rng)
    starts = np.cumsum([0, *map(len, blocks)])
    buf = np.frombuffer(b"".join(blocks), np.uint8)
    for at in [0, 1, *rng.sample(range(int(starts[40])), 60)]:
        found = guess_pcapng(buf[at:], at, big_endian=order == ">")
        assert found == starts[np.searchsorted(starts, at)] - at


def test_the_first_of_a_capture_in_a_payload_is_taken_for_one() -> None:
    """So that what is guessed must be proved."""
    rng = random.Random(3)
    inner = b"".join(pcap_records(40, "<", 16, rng))
    record = struct.pack("<IIII", _T, 0, len(inner) + 3, len(inner) + 3) + b"abc" + inner
    buf = np.frombuffer(record + b"".join(pcap_records(40, "<", 16, rng)), np.uint8)
    assert guess_pcap(buf[1:], big_endian=False, header=16, unit_ns=1000) == 16 + 3 - 1


@pytest.mark.parametrize(
    "buf",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(bytes(3), id="less than a word"),
        pytest.param(bytes(5000), id="zeros are no headers, though lengths of 0 would form a chain"),
        pytest.param(b"\xff" * 5000, id="nor are ones"),
    ],
)
def test_nothing_is_plausible(buf: bytes) -> None:
    data = np.frombuffer(buf, np.uint8)
    assert guess_pcap(data, big_endian=False, header=16, unit_ns=1000) is None
    assert guess_pcapng(data, 0, big_endian=False) is None
