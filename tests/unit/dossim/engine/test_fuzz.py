"""The engine survives damaged packets and files, with sanitizers, for a moment; ``engine/fuzz`` can run for hours."""

from __future__ import annotations

import random
import re
import subprocess
from pathlib import Path

import pytest

from dossim.packet.capture import Capture
from tests.property.test_fragments import datagrams
from tests.support import checked_engine
from tests.support.examples import examples

ROOT = Path(__file__).parents[4]
SEEDS = 40
SECONDS = examples(30, nightly=1_800)  # of each; the same inputs for as long as it runs

pytestmark = pytest.mark.slow


def packets(frames: list[bytes], seed: int) -> bytes:
    """As ``fuzz/packets.c`` splits it."""
    lengths = (len(frame).to_bytes(2, "little") for frame in frames)
    return bytes([seed % 256]) + b"".join(length + frame for length, frame in zip(lengths, frames, strict=True))


def files(frames: list[bytes], seed: int, folder: Path) -> bytes:
    """As ``fuzz/files.c`` reads it: the records of a pcap file, without its header."""
    Capture.from_frames(frames).write(folder / "capture.pcap")
    return bytes([seed % 2 * 2]) + (folder / "capture.pcap").read_bytes()[24:]


@pytest.mark.parametrize("name", ["packets", "files"])
def test_nothing_is_read_or_written_out_of_bounds(name: str, tmp_path: Path) -> None:
    checked_engine.make("fuzz")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for seed in range(SEEDS):
        frames = [frame[:600] for frame in datagrams(random.Random(seed))]
        data = packets(frames, seed) if name == "packets" else files(frames, seed, tmp_path)
        (corpus / str(seed)).write_bytes(data)
    command = [
        str(ROOT / "engine" / "build" / f"fuzz-{name}"),
        f"-max_total_time={SECONDS}",
        "-max_len=6000",
        "-seed=1",
        str(corpus),
    ]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-4000:]
    done = re.search(r"^Done (\d+) runs", found.stderr, re.MULTILINE)
    assert done
    assert int(done[1]) > 10 * SEEDS
