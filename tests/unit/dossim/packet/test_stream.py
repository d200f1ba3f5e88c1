"""Captures read in windows: whatever their size, the same packets as read at once."""

from __future__ import annotations

import gzip
import itertools
import os
import random
import struct
import threading
from collections import Counter
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from dossim.engine.sweep import Span, Sweep, merged, span_of
from dossim.model.errors import CaptureError
from dossim.model.host import Host
from dossim.packet.capture import Capture, read_capture
from dossim.packet.source import Reading
from dossim.packet.stream import Stream
from dossim.predict.batches import Batches
from dossim.predict.world import predictor_of
from enforcer.model.choices import ModeChoice
from enforcer.policy.resources import Resources
from tests.support.witnesses import plan_for
from tests.unit.dossim.packet.test_capture import (
    BLOCKS,
    FRAMES,
    RAW,
    UP_TO_THERE,
    WHOLE,
    enhanced,
    interface,
    pcap,
    section,
)

ANY = Reading(any_file=True)
WINDOWS = (1, 40, 100, 4096, 1 << 20)


class Packet(NamedTuple):
    frame: bytes
    wire_length: int
    record: int
    timestamp_ns: int


def packets_of(capture: Capture) -> list[Packet]:
    columns = (capture.wire_length, capture.record, capture.timestamp_ns)
    numbers = zip(range(len(capture)), *(column.tolist() for column in columns), strict=True)
    return [Packet(capture.frame(row), *rest) for row, *rest in numbers]


def streamed(*paths: Path | str, window: int = 100, most: int = 7) -> tuple[list[Packet], list[str], Stream]:
    """Packets and warnings of all windows."""
    stream = Stream(paths, ANY, window, most)
    packets: list[Packet] = []
    warnings: list[str] = []
    for capture in stream.windows():
        packets += packets_of(capture)
        warnings += capture.warnings
    return packets, warnings, stream


def random_file(rng: random.Random) -> bytes:
    """Sections of both byte orders, blocks that are no packets, packets of several interfaces and link types."""
    if rng.random() < 0.3:
        frames = [rng.randbytes(rng.choice((0, 14, 60, 700))) for _ in range(rng.randrange(60))]
        return pcap(frames, order=rng.choice("<>"), link=rng.choice((1, 1, RAW)))
    buf = b""
    for _ in range(rng.randrange(1, 4)):
        order = rng.choice("<>")
        buf += section(order) + interface(order) + interface(order, link=RAW)
        for _ in range(rng.randrange(30)):
            if rng.random() < 0.2:
                buf += struct.pack(f"{order}III", 5, 32, 0) + bytes(16) + struct.pack(f"{order}I", 32)
            frame = rng.randbytes(rng.choice((14, 60, 700)))
            buf += enhanced(order, frame, number=rng.randrange(2), ticks=rng.randrange(1 << 40))
    return buf


@pytest.mark.parametrize("seed", range(40))
def test_windows_of_every_size_have_the_packets_of_the_whole(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "x.cap"
    whole = random_file(rng)
    path.write_bytes(whole if rng.random() < 0.7 else whole[: rng.randrange(len(whole) // 2, len(whole) + 1)])
    expected = read_capture(path)
    for window in (*WINDOWS, rng.randrange(1, 2000)):
        packets, warnings, stream = streamed(path, window=window)
        assert packets == packets_of(expected)
        assert tuple(warnings) == expected.warnings
        assert stream.sha256 == expected.sha256
        assert stream.taken == stream.size == path.stat().st_size


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("buf", "packets", "warning"), UP_TO_THERE.values(), ids=UP_TO_THERE)
def test_damage_is_told_alike(tmp_path: Path, buf: bytes, packets: int, warning: str, window: int) -> None:
    path = tmp_path / "x.cap"
    path.write_bytes(buf)
    found, warnings, _ = streamed(path, window=window)
    assert len(found) == packets
    assert warnings == list(read_capture(path).warnings)


def frames_to_sweep(rng: random.Random) -> list[bytes]:
    """Such as get to connection tracking, with a bad header checksum, which drops them, and of anything but IP."""
    good = bytes(Ether() / IP(src="198.51.100.7", dst="192.0.2.1") / UDP(sport=7) / Raw(bytes(40)))
    bad = good[:24] + bytes([good[24] ^ 1]) + good[25:]
    share = rng.choice(((1, 1, 1), (0, 1, 0), (1, 200, 1)))
    return rng.choices((good, bad, rng.randbytes(60)), share, k=rng.choice((rng.randrange(300), 5000)))


def file_to_sweep(rng: random.Random) -> bytes:
    """Of any format, perhaps of several link types; some packets were sent, or their bytes have a check sequence."""
    frames, order = frames_to_sweep(rng), rng.choice("<>")
    if rng.random() < 0.5:
        link = rng.choice((1, 1, RAW, 1 | 0x2400_0000))
        return pcap([frame[14:] if link == RAW else frame for frame in frames], order=order, link=link)
    buf = bytearray(section(order) + interface(order) + interface(order, link=RAW))
    others = rng.random() < 0.5
    for at, frame in enumerate(frames):
        number = int(others and rng.random() < 0.1)
        buf += enhanced(order, frame[14:] if number else frame, number=number, ticks=at ^ 5)
        if rng.random() < 0.02:
            buf += section(order) + interface(order) + interface(order, link=RAW)
    return bytes(buf)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(32))
def test_a_sweep_counts_and_leaves_the_same_whatever_the_windows(tmp_path: Path, seed: int) -> None:
    """As it does with all packets at once, of what was read."""
    rng = random.Random(seed)
    path, host = tmp_path / "x.cap", Host("jasper")
    whole = file_to_sweep(rng)
    path.write_bytes(whole if rng.random() < 0.7 else whole[: rng.randrange(len(whole) // 2, len(whole) + 1)])
    engine = predictor_of(plan_for(Resources(), host, ModeChoice.RAW), host)
    at_once, expected = Sweep(engine), read_capture(path)
    left = packets_of(expected.among(at_once.take(expected)["row"]))
    for window, begins in itertools.product((*WINDOWS, rng.randrange(1, 2000)), (False, True)):
        if len(whole) > 100 * window:
            continue  # more would only take long
        sweeps, links = [Sweep(engine) for _ in range(rng.randrange(1, 4))], Counter[str]()
        stream = Stream([path], ANY, window, rng.choice((1, 7, 1000)), is_hashed=rng.random() < 0.3)
        if begins:
            stream.first()
        packets, warnings = list[Packet](), list[str]()
        for capture in stream.windows(sweeps):
            packets += packets_of(capture)
            warnings += capture.warnings
            links.update(capture.link_types)
        assert packets == left
        assert tuple(warnings) == expected.warnings
        assert links == expected.link_types
        assert sum((Counter(sweep.ends()) for sweep in sweeps), Counter()) == at_once.ends()
        assert sum(sweep.packets for sweep in sweeps) == at_once.packets == len(expected) - len(left)
        assert stream.taken == path.stat().st_size
        spans = [times_of(packets), *(sweep.span for sweep in sweeps)]
        assert reduce(merged, spans) == span_of(expected.timestamp_ns)


@pytest.mark.parametrize("window", [100, 4096, 1 << 20])
def test_a_follower_takes_what_is_left_up_to_what_python_has_to_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    """And goes on when that has been taken: when the next window is asked for."""
    monkeypatch.setattr("dossim.packet.gather._MOST", 10)
    host = Host("jasper")
    good = bytes(Ether() / IP(src="198.51.100.7", dst="192.0.2.1") / UDP(sport=7) / Raw(bytes(40)))
    not_summed, dropped = good[:24] + bytes(2) + good[26:], good[:24] + bytes([good[24] ^ 1]) + good[25:]
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap([good, dropped] * 500 + [not_summed] + [good] * 500))
    with Batches(plan_for(Resources(), host, ModeChoice.RAW), host, shows=False) as batches:
        sweeps = [batches.sweep() for _ in range(2)]
        windows = Stream([path], ANY, window, is_hashed=False).windows(sweeps)
        found = [(packets_of(capture), sum(sweep.packets for sweep in sweeps)) for capture in windows if len(capture)]
        ends = batches.counts()[0].ends
    ((packets, taken_before),) = found
    assert [packet.record for packet in packets] == list(range(1000, 1010))
    assert packets[0].frame == not_summed
    assert taken_before == 1000
    assert sum(sweep.packets for sweep in sweeps) == 1491
    assert sum(ends.values()) == 991
    assert sum(sum(sweep.ends().values()) for sweep in sweeps) == 500


def times_of(packets: list[Packet]) -> Span | None:
    return span_of(np.array([packet.timestamp_ns for packet in packets], np.int64))


def test_files_one_after_the_other_are_one_capture(tmp_path: Path) -> None:
    """Each has its own format, byte order and resolution, and perhaps a fault; records are counted on."""
    parts = [WHOLE, pcap(FRAMES, order=">"), gzip.compress(BLOCKS), WHOLE[:-4], pcap([])]
    paths = [tmp_path / f"x.pcap{number}" for number in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(part)
    found, warnings, stream = streamed(*paths)
    assert [packet.frame for packet in found] == [*FRAMES, *FRAMES, FRAMES[0], *FRAMES[:3]]
    assert [packet.record for packet in found] == list(range(12))
    assert [sentence.partition(":")[0] for sentence in warnings] == [str(paths[3])]
    assert (stream.name, len(stream.names)) == (f"{paths[0]} and 4 more", 5)
    assert stream.can_be_read_again
    again, _, _ = streamed(*paths, window=7)
    assert again == found


def test_a_pipe_is_read_as_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            for at in range(0, len(WHOLE), 7):
                file.write(WHOLE[at : at + 7])

    writer = threading.Thread(target=write)
    writer.start()
    found, _, stream = streamed(path)
    writer.join()
    assert [packet.frame for packet in found] == FRAMES
    assert (stream.size, stream.taken) == (None, len(WHOLE))


def test_what_is_wrong_is_raised_where_windows_are_taken(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(WHOLE)
    bad.write_bytes(b"text")
    with pytest.raises(CaptureError, match="bad: not a capture"):
        streamed(good, bad)
    with pytest.raises(CaptureError, match="absent: cannot be read"):
        streamed(good, tmp_path / "absent")


def test_a_file_that_is_read_again_is_the_same(tmp_path: Path) -> None:
    """It may have grown: what writes it has gone on."""
    path = tmp_path / "x"
    path.write_bytes(WHOLE)
    stream = Stream([path], ANY)
    assert sum(map(len, stream.windows())) == len(FRAMES)
    path.write_bytes(pcap([*FRAMES, *FRAMES]))
    assert sum(map(len, stream.windows())) == 2 * len(FRAMES)
    path.write_bytes(WHOLE[:-10])
    with pytest.raises(CaptureError, match=r"x: it was replaced while it was read; .*: use a copy"):
        list(stream.windows())
    path.rename(tmp_path / "x.1")  # as logrotate does
    path.write_bytes(WHOLE)
    with pytest.raises(CaptureError, match="it was replaced"):
        list(stream.windows())


def test_nobody_has_to_take_all(tmp_path: Path) -> None:
    path = tmp_path / "x.cap"
    path.write_bytes(pcap(FRAMES * 100))
    windows = Stream([path], ANY, 100).windows()
    assert len(next(windows)) > 0
    windows.close()  # type: ignore[attr-defined]  # a generator
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]


def test_a_block_larger_than_a_window(tmp_path: Path) -> None:
    path = tmp_path / "x.cap"
    large = struct.pack("<II", 0xBAD, 1 << 20) + bytes((1 << 20) - 12) + struct.pack("<I", 1 << 20)
    path.write_bytes(section() + interface() + large + enhanced("<", FRAMES[0]))
    found, warnings, _ = streamed(path)
    assert ([packet.frame for packet in found], warnings) == ([FRAMES[0]], [])


def test_a_limit_that_is_given_holds_and_none_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "x.cap.gz"
    path.write_bytes(gzip.compress(pcap(FRAMES * 1000)))
    assert len(streamed(path)[0]) == 4000
    with pytest.raises(CaptureError, match=r"the gzip data unpack to more than 97\.66 KiB, the limit that --max-size"):
        list(Stream([path], Reading(max_size=100_000, any_file=True)).windows())
