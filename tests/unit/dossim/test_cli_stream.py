"""``dossim predict`` on captures of any size: pipes, compressed, rotated and damaged files, samples, rows."""

from __future__ import annotations

import bz2
import csv
import gc
import gzip
import hashlib
import itertools
import json
import lzma
import os
import random
import select
import shlex
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lz4.frame
import pytest
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from dossim.packet.capture import Reading, read_capture
from dossim.packet.stream import WINDOW
from tests.unit.dossim.test_cli_capture import HOST, HOW_TO, ROOT, dossim, pcap

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LISTED, OTHER, VICTIM = "203.0.113.7", "198.51.100.7", "10.10.10.10"
MAC = "02:00:00:00:00:0a"
MOST_KIB = 300 << 10


def packet(source: str, port: int = 1) -> bytes:
    return bytes(Ether(dst=MAC, src="02:00:00:00:00:01") / IP(src=source, dst=VICTIM) / UDP(sport=port) / Raw(b"data"))


FLOOD = pcap([packet(LISTED), packet(OTHER)] * 50)
PACK = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
    "lz4": lz4.frame.compress,
}


def found(*words: object, stdin: bytes | None = None) -> dict[str, Any]:
    result = dossim("predict", *words, *HOST, "--mode", "raw", "--json", "-", stdin=stdin)
    assert result.exit_code == 0, result.stderr
    data: dict[str, Any] = json.loads(result.stdout)
    return data


def stages(*words: object, stdin: bytes | None = None) -> dict[str, int]:
    return {stage: row["predicted"] for stage, row in found(*words, stdin=stdin)["stages"].items()}


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("through", ["file", "stdin", "pipe"])
def test_every_source_of_every_compression(tmp_path: Path, kind: str, through: str) -> None:
    buf, path = PACK[kind](FLOOD), tmp_path / "x"
    expected = {"raw": 50, "delivered": 50}
    if through == "stdin":
        assert stages("-", stdin=buf) == expected
        return
    if through == "pipe":
        os.mkfifo(path)
        writer = threading.Thread(target=path.write_bytes, args=[buf])
        writer.start()
    else:
        path.write_bytes(buf)
    assert stages(path) == expected


def test_rotated_files_are_one_capture(tmp_path: Path) -> None:
    """A datagram's fragments are in two of them, one of which is compressed."""
    whole = Ether(dst=MAC) / IP(src=OTHER, dst=VICTIM, id=7) / UDP(sport=1) / Raw(bytes(2000))
    first, second = (bytes(piece) for piece in fragment(whole, fragsize=1200))
    files = [tmp_path / f"attack.pcap{number}" for number in range(3)]
    files[0].write_bytes(pcap([packet(LISTED), first]))
    files[1].write_bytes(gzip.compress(pcap([packet(OTHER)])))
    files[2].write_bytes(pcap([second, packet(LISTED)]))
    assert stages(*files) == {"raw": 2, "delivered": 3}
    assert stages(files[0]) == {"raw": 1, "defrag": 1}
    data = found(*files)["capture"]
    assert (data["path"], data["packets"]) == (f"{files[0]} and 2 more", 5)
    # After -p, too: files that begin as captures do are no policy.
    result = dossim("predict", *HOST, *files, "--json", "-")
    assert json.loads(result.stdout)["packets"] == 5
    rows = tmp_path / "rows.csv"
    assert dossim("predict", *files, *HOST, "--csv", rows).exit_code == 0
    numbers = [int(row["packet"]) for row in csv.DictReader(rows.open())]
    assert sorted(numbers) == list(range(5))


def test_a_file_that_is_damaged_in_the_middle_counts_up_to_there(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(FLOOD)
    bad.write_bytes(FLOOD + struct.pack("<IIII", 0, 0, 1 << 30, 1 << 30) + FLOOD[24:])
    data = found(bad, good)
    assert data["packets"] == 200
    (warning,) = data["capture"]["warnings"]
    assert "record 100 at byte" in warning
    assert "the file is damaged there" in warning
    empty = tmp_path / "empty"
    empty.write_bytes(pcap([]))
    assert found(empty)["packets"] == 0
    empty.write_bytes(b"")
    refused = dossim("predict", good, empty, *HOST)
    assert (refused.exit_code, "not a capture, it is empty" in refused.stderr) == (2, True)


@pytest.mark.parametrize("kind", ["damaged", "packed and damaged", "packed, and more behind"])
def test_the_hash_is_of_the_whole_file_also_where_reading_ends_before(tmp_path: Path, kind: str) -> None:
    damage = struct.pack("<IIII", 0, 0, 1 << 30, 1 << 30) + random.Random(1).randbytes(2 * WINDOW)
    content = {
        "damaged": FLOOD + damage,
        "packed and damaged": gzip.compress(FLOOD + damage),
        "packed, and more behind": gzip.compress(FLOOD) + damage,
    }[kind]
    path = tmp_path / "x"
    path.write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()
    assert found(path)["capture"]["sha256"] == expected
    assert read_capture(path).sha256 == expected
    assert found("-", stdin=content)["capture"]["sha256"] == ""  # a pipe may never end
    assert found("-", stdin=FLOOD)["capture"]["sha256"] == hashlib.sha256(FLOOD).hexdigest()


def test_rows_are_there_or_not_at_all(tmp_path: Path) -> None:
    """A fault in the middle leaves what was there before, and nothing else."""
    good, broken, rows = tmp_path / "good", tmp_path / "broken.gz", tmp_path / "rows"
    good.write_bytes(FLOOD)
    rows.write_text("before")
    broken.write_bytes(gzip.compress(FLOOD)[:-6] + b"wrong!")
    refused = dossim("predict", good, broken, *HOST, "--csv", rows)
    assert (refused.exit_code, rows.read_text()) == (2, "before")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.gz", "good", "rows"]
    assert dossim("predict", good, *HOST, "--csv", rows).exit_code == 0
    assert len(rows.read_text().splitlines()) == 101


def late_sender() -> bytes:
    """Its checksum of 0 is in the first window, its pseudo header sum in a later one: sweeps leave all between."""
    zero = Ether(dst=MAC, src="02:00:00:00:00:05") / IP(src=OTHER, dst=VICTIM) / TCP(chksum=0)
    pseudo = sum(struct.unpack(">8H", bytes(zero)[26:34] + struct.pack(">HHHH", 6, 20, 0, 0)))
    partial = bytes(zero)[:50] + struct.pack(">H", (pseudo & 0xFFFF) + (pseudo >> 16)) + bytes(zero)[52:]
    return pcap([bytes(zero), *[packet(OTHER)] * (WINDOW // 60), partial])


@contextmanager
def all_of_pipe(path: Path) -> Iterator[list[bytes]]:
    """What is written into a named pipe, however many times it is opened: complete after the block."""
    os.mkfifo(path)
    both_ends, found, end = os.open(path, os.O_RDWR), list[bytes](), b"\0"

    def read() -> None:
        while (part := os.read(both_ends, 1 << 16)) != end:
            found.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    yield found
    while select.select([both_ends], [], [], 0)[0]:
        pass
    os.write(both_ends, end)
    reader.join()
    os.close(both_ends)


@pytest.mark.parametrize("where", ["file", "stdout", "pipe"])
def test_a_sender_that_shows_itself_late_counts_for_a_file(tmp_path: Path, where: str) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(late_sender())
    output = "-" if where == "stdout" else str(tmp_path / "rows")
    with all_of_pipe(Path(output)) if where == "pipe" else nullcontext([]) as piped:
        result = dossim("predict", path, *HOST, "--mode", "raw", "--csv", output)
    assert result.exit_code == 0, result.stderr
    text = result.stdout if where == "stdout" else b"".join(piped).decode() or Path(output).read_text()
    lines = text.splitlines()
    assert len(lines) == WINDOW // 60 + 3
    assert (lines[1].split(",")[:2], lines[-1].split(",")[1]) == (["0", "delivered"], "delivered")
    data = found("-", stdin=path.read_bytes())
    assert data["undetermined"] == 1  # a pipe is read once
    assert any("a pipe is read once" in sentence for sentence in data["about"])


def test_a_sample_says_that_it_is_one(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap([packet(LISTED), packet(OTHER)] * 500))
    data = found(path, "--sample", 100, "--seed", 5)
    assert data["sample"] == {"packets": 100, "of": 1000, "seed": 5}
    assert data["about"][0] == "A sample: 100 of 1,000 packets, drawn at random (seed 5)."
    assert sum(row["predicted"] for row in data["stages"].values()) == 100
    assert 20 < data["stages"]["raw"]["predicted"] < 80
    again = found(path, "--sample", 100, "--seed", 5)
    assert again["stages"] == data["stages"]
    assert found(path, "--sample", 50_000)["stages"]["raw"]["predicted"] == 500
    assert "a sample does not show which flows are new" in json.dumps(data["conntrack"])
    assert "sample" not in found(path)


def test_a_sample_knows_nothing_of_the_rest_of_a_datagram(tmp_path: Path) -> None:
    whole = Ether(dst=MAC) / IP(src=OTHER, dst=VICTIM, id=7) / UDP(sport=1) / Raw(bytes(2000))
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap([bytes(piece) for piece in fragment(whole, fragsize=1200)]))
    data = found(path, "--sample", 10)
    assert data["undetermined"] == 2
    assert data["open"][0]["reason"].endswith("a fragment whose datagram is not complete in the sample")


def test_progress_is_told_where_it_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(FLOOD)
    assert f"{len(FLOOD):,} bytes (100 %) read" in dossim("predict", path, *HOST, "--progress").stderr
    assert dossim("predict", path, *HOST).stderr == ""


def test_stdin_and_what_is_no_capture_are_told_apart(tmp_path: Path) -> None:
    twice = dossim("predict", "-", "-", *HOST, stdin=FLOOD)
    assert (twice.exit_code, "stdin (-) can be read once" in twice.stderr) == (2, True)
    none = dossim("predict", *HOST[:1])
    assert none.exit_code == 2


def test_data_that_unpack_to_more_than_any_capture_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dossim.packet.source.LIMIT", 1 << 20)
    path = tmp_path / "bomb.zst"
    path.write_bytes(zstd.compress(pcap([bytes(60_000)] * 200)))
    refused = dossim("predict", path, *HOST)
    assert refused.exit_code == 2
    assert "the zstd data unpack to more than 1,000 times their size" in refused.stderr
    assert dossim("predict", path, *HOST, "--max-size", "1G").exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["packets", "fragments"])
def test_memory_does_not_grow_with_the_capture(tmp_path: Path, kind: str) -> None:
    """A pipe with 200 MB: at most 300 MiB, of which the file is not a part."""
    path = tmp_path / "generate.py"
    path.write_text(GENERATE)
    measured = f"{sys.executable} -c {shlex.quote(MEASURED)} predict - {' '.join(HOST)} -o json"
    command = f"{sys.executable} {path} {kind} | {measured}"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["packets"] > 100_000
    assert int(done.stderr.split()[1]) < MOST_KIB


# What getrusage() says is at least what the process had that forked it.
MEASURED = """
import sys
from dossim.cli import main
try:
    main(sys.argv[1:])
finally:
    print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
"""

# Writes a capture of 1,500 bytes a packet: of one flow, or first fragments whose datagrams never end.
GENERATE = """
import struct, sys
header = bytes.fromhex("060000000001 020000000002 0800")
sys.stdout.buffer.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
for number in range(140_000):
    is_fragment = sys.argv[1] == "fragments"
    source = 0xC6336400 + (number >> 16)
    flags = 0x2000 * is_fragment
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, 1484, number & 0xFFFF, flags, 64, 17, 0, source, 0x0A0A0A0A)
    total = sum(struct.unpack(">10H", ip))
    total = (total & 0xFFFF) + (total >> 16)
    total = 0xFFFF - ((total & 0xFFFF) + (total >> 16))
    ip = ip[:10] + struct.pack(">H", total) + ip[12:]
    frame = header + ip + struct.pack(">HHHH", 7, 9, 1464, 0) + bytes(1456)
    sys.stdout.buffer.write(struct.pack("<IIII", number >> 10, 0, len(frame), len(frame)) + frame)
"""


def test_a_planted_link_is_not_written_through(tmp_path: Path) -> None:
    """Where another user can write, the name of the temporary file can be guessed."""
    precious, rows = tmp_path / "precious", tmp_path / "rows.csv"
    precious.write_text("as it was")
    Path(f"{rows}.{os.getpid()}.part").symlink_to(precious)
    (tmp_path / "attack.pcap").write_bytes(pcap([]))
    assert dossim("predict", tmp_path / "attack.pcap", *HOST, "--csv", rows).exit_code == 0
    assert precious.read_text() == "as it was"
    assert rows.is_file()
    assert not rows.is_symlink()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=str)
def test_a_signal_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    """While a thread waits for more of stdin."""
    flood = pcap([packet(LISTED)] * (WINDOW // 60))
    words = ["predict", "-", *HOST, "--csv", str(tmp_path / "rows.csv"), "--parquet", str(tmp_path / "rows.parquet")]
    # What the tests themselves ignore (in the background of a script, under nohup) is not what a user's shell hands on.
    defaults = ["env", "--default-signal=INT,TERM,HUP"]
    command = [*defaults, sys.executable, "-m", "dossim.cli", *words]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, cwd=ROOT) as process:
        assert process.stdin is not None
        process.stdin.write(flood)
        process.stdin.flush()
        while len(list(tmp_path.iterdir())) < 2:
            assert process.poll() is None
        process.send_signal(number)
        process.wait()
        assert process.stdout is not None
        assert process.stdout.read() == b""
        assert process.stderr is not None
        said = process.stderr.read()
    if number is signal.SIGINT:
        assert (process.returncode, said.strip()) == (130, b"interrupted")
    else:
        assert (process.returncode, said) == (-number, b"")
    assert not list(tmp_path.iterdir())


def test_a_stdin_that_does_not_block_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """O_NONBLOCK belongs to the open file, which other processes have as well. The rest comes when nothing is there."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.write(write, FLOOD[:1000])
    whole = os.readv

    def readv(descriptor: int, views: list[memoryview]) -> int:
        try:
            return whole(descriptor, views)
        except BlockingIOError:
            os.write(write, FLOOD[1000:])
            os.close(write)
            raise

    monkeypatch.setattr(os, "readv", readv)
    with os.fdopen(read) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert len(read_capture("-", Reading(any_file=True))) == 100


def test_a_report_takes_the_place_of_no_input(tmp_path: Path) -> None:
    capture, policy, link = tmp_path / "x.pcap", tmp_path / "policy", tmp_path / "link"
    capture.write_bytes(FLOOD)
    policy.mkdir()
    rules = policy / "rules.yaml"
    rules.write_bytes(Path(HOW_TO).read_bytes())
    link.symlink_to(capture)
    words = ["predict", capture, "-p", policy, "--address", "10.10.10.10/24"]
    for option, output in (
        *itertools.product(["--json", "--csv", "--parquet"], [capture, link, rules]),
        ("--csv", f"{tmp_path}/./policy/../x.pcap"),
    ):
        refused = dossim(*words, option, output)
        assert (refused.exit_code, "the command reads this file" in refused.stderr) == (2, True)
    with capture.open("rb") as stdin:
        command = [sys.executable, "-m", "dossim.cli", *map(str, ["predict", "-", *words[2:], "--json", capture])]
        assert subprocess.run(command, stdin=stdin, capture_output=True, cwd=ROOT, check=False).returncode == 2
    assert capture.read_bytes() == FLOOD
    assert rules.read_bytes() == Path(HOW_TO).read_bytes()
    assert dossim(*words, "--json", policy.parent / "new", "--csv", "/dev/null").exit_code == 0


def test_one_file_takes_one_report(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(FLOOD)
    (tmp_path / "link").symlink_to("rows")
    for other in (f"{tmp_path}/./rows", tmp_path / "link"):
        refused = dossim("predict", path, *HOST, "--csv", tmp_path / "rows", "--json", other)
        assert (refused.exit_code, "only one report can go into" in refused.stderr) == (2, True)


@pytest.mark.parametrize("option", ["--csv", "--parquet", "--json"])
def test_a_report_goes_where_a_link_leads_and_keeps_the_permissions(tmp_path: Path, option: str) -> None:
    path, rows, link = tmp_path / "x.pcap", tmp_path / "folder" / "rows", tmp_path / "link"
    path.write_bytes(FLOOD)
    rows.parent.mkdir()
    rows.write_text("older")
    rows.chmod(0o640)
    link.symlink_to(rows)
    assert dossim("predict", path, *HOST, option, link).exit_code == 0
    assert (link.is_symlink(), rows.stat().st_mode & 0o777) == (True, 0o640)
    assert rows.stat().st_size > 1000
    assert list(rows.parent.iterdir()) == [rows]


def test_a_descriptor_that_has_a_name_is_written_to(tmp_path: Path) -> None:
    """/dev/stdout is a link, which must stay one."""
    path, rows = tmp_path / "x.pcap", tmp_path / "rows"
    path.write_bytes(FLOOD)
    command = [sys.executable, "-m", "dossim.cli", "predict", str(path), *HOST, "--csv", "/dev/fd/3"]
    with rows.open("wb") as file:
        before = rows.stat().st_ino
        script = f"exec {shlex.join(command)} 3>&{file.fileno()} >/dev/null"
        subprocess.run(["bash", "-c", script], pass_fds=[file.fileno()], cwd=ROOT, check=True)
    assert (len(rows.read_text().splitlines()), rows.stat().st_ino) == (101, before)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--csv", "--parquet", "--json"])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, option: str) -> None:
    """A limit for the size of files has the error of a quota."""
    path, rows = tmp_path / "x.pcap", tmp_path / "rows"
    path.write_bytes(pcap([packet(LISTED)] * 5000))
    rows.write_text("older")
    command = shlex.join([sys.executable, "-m", "dossim.cli", "predict", str(path), *HOST, option, str(rows)])
    done = subprocess.run(["bash", "-c", f"ulimit -f 1; {command}"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (2, f"error: {rows}: cannot be written: File too large\n")
    assert (rows.read_text(), sorted(tmp_path.iterdir())) == ("older", [rows, path])


def test_rows_as_parquet_start_again_with_the_capture(tmp_path: Path) -> None:
    """What pyarrow still holds of the first time must not get into the file, nor on stdout."""
    path, rows = tmp_path / "x.pcap", tmp_path / "rows.parquet"
    path.write_bytes(late_sender())
    assert dossim("predict", path, *HOST, "--parquet", rows).exit_code == 0
    from pyarrow import parquet  # here, because it starts a thread

    assert parquet.read_table(rows).column("packet").to_pylist() == list(range(WINDOW // 60 + 2))
    broken = tmp_path / "broken.gz"
    broken.write_bytes(gzip.compress(late_sender())[:-6] + b"wrong!")
    refused = dossim("predict", broken, *HOST, "--parquet", tmp_path / "none")
    gc.collect()
    assert (refused.exit_code, refused.stdout) == (2, "")
