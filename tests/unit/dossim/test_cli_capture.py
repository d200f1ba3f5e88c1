"""CAPTURE on a command line: a file, stdin or a pipe; link types, limits, and numbers of packets."""

from __future__ import annotations

import base64
import gzip
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether

from dossim.cli import main

ROOT = Path(__file__).parents[3]
HOW_TO = str(ROOT / "scenarios" / "policies" / "how-to.yaml")
HOST = ["-p", HOW_TO, "--address", "10.10.10.10/24"]
ETHERNET, SLL, USER0 = 1, 113, 147
PACKETS = [bytes(IP(src=f"203.0.113.{last}", dst="10.10.10.10") / UDP()) for last in range(1, 5)]


def pcap(packets: list[bytes], link: int = ETHERNET) -> bytes:
    records = b"".join(struct.pack("<IIII", 0, 0, len(packet), len(packet)) + packet for packet in packets)
    return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link) + records


FLOOD = pcap([bytes(Ether() / IP(packet)) for packet in PACKETS])
# The second and the third are not received packets: one was sent by the host, one is to another host.
COOKED = pcap(
    [
        struct.pack(">HHH8sH", kind, 1, 6, b"", 0x800) + packet
        for kind, packet in zip((0, 4, 3, 0), PACKETS, strict=True)
    ],
    SLL,
)


def dossim(*words: object, stdin: bytes | str | None = None) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], input=stdin)


def predicted(*words: object, stdin: bytes | None = None) -> int:
    """The number of packets in a prediction."""
    result = dossim("predict", *words, *HOST, "--json", "-", stdin=stdin)
    assert (result.exit_code, result.stderr) == (0, "")
    packets = json.loads(result.stdout)["packets"]
    assert isinstance(packets, int)
    return packets


@pytest.mark.parametrize("buf", [FLOOD, gzip.compress(FLOOD)], ids=["plain", "gzip"])
def test_a_capture_from_stdin(buf: bytes) -> None:
    assert predicted("-", stdin=buf) == 4


def test_a_capture_from_a_pipe_that_has_a_name() -> None:
    """As bash's <(zcat x.pcap.gz) and zsh's, and as - from another program."""
    program = [sys.executable, "-m", "dossim.cli"]
    words = " ".join(HOST)
    for capture in ("<(printf %s $CAPTURE_BASE64 | base64 -d)", "- < <(printf %s $CAPTURE_BASE64 | base64 -d)"):
        done = subprocess.run(
            ["bash", "-c", f"{' '.join(program)} predict {words} --json - {capture}"],
            env={**os.environ, "CAPTURE_BASE64": base64.b64encode(FLOOD).decode()},
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["packets"] == 4


def test_stdin_is_there_once(tmp_path: Path) -> None:
    result = dossim("predict", "-", "-p", "-", stdin=FLOOD)
    assert result.exit_code == 2
    assert "the policy and the capture cannot both come from stdin (-)" in result.stderr


def test_a_link_type_that_is_not_read_is_named_and_left_out_on_request(tmp_path: Path) -> None:
    path = tmp_path / "user.pcap"
    path.write_bytes(pcap(PACKETS, USER0))
    refused = dossim("predict", path, *HOST)
    assert refused.exit_code == 2
    assert "of 4 packets, 4 of USER0 (link type 147) cannot be read; --skip-unknown-link-types leaves" in refused.stderr
    assert predicted(path, "--skip-unknown-link-types") == 0


@pytest.mark.parametrize(("size", "fits"), [("1k", True), ("500", True), ("250", False), ("1M", True), ("2GiB", True)])
def test_a_limit_of_size(tmp_path: Path, size: str, fits: bool) -> None:
    path = tmp_path / "x.pcap.gz"
    path.write_bytes(gzip.compress(FLOOD))
    if fits:
        assert predicted(path, "--max-size", size) == 4
        return
    refused = dossim("predict", path, *HOST, "--max-size", size)
    assert refused.exit_code == 2
    assert f"the gzip data unpack to more than {size} bytes, the limit that --max-size sets" in refused.stderr


@pytest.mark.parametrize("size", ["0", "-1", "2X", "", "1.5G", "G"])
def test_what_is_no_size(tmp_path: Path, size: str) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(FLOOD)
    refused = dossim("predict", path, *HOST, "--max-size", size)
    assert refused.exit_code == 2
    assert "is not a size; expected a number of bytes, such as 500M or 4G" in refused.stderr


def test_packets_are_explained_by_their_number_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cooked.pcap"
    path.write_bytes(COOKED)
    for number, source in ((0, "203.0.113.1"), (3, "203.0.113.4")):
        result = dossim("explain", *HOST, f"{path}#{number}")
        assert result.exit_code == 0
        assert source in result.stdout
    left_out = dossim("explain", *HOST, f"{path}#1")
    assert left_out.exit_code == 2
    assert "#1: the packet is one of the skipped ones: 1 sent by the host (SLL packet type 4), 1 to" in left_out.stderr
    beyond = dossim("explain", *HOST, f"{path}#4")
    assert "#4: the capture holds 4 packets, 0 to 3" in beyond.stderr


@pytest.mark.parametrize("name", ["attack (1).pcap", "attack\n2.pcap", "a#1.pcap"])
def test_a_file_of_any_name_has_packets(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(FLOOD)
    result = dossim("explain", *HOST, f"{path}#2")
    assert (result.exit_code, "203.0.113.3" in result.stdout) == (0, True)
    assert "packet number missing" in dossim("explain", *HOST, path).stderr
    path.write_bytes(b"no capture")
    refused = dossim("predict", *HOST, path)
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)


def test_a_packet_of_stdin_is_explained() -> None:
    result = dossim("explain", *HOST, "--", "-#2", stdin=FLOOD)
    assert (result.exit_code, "203.0.113.3" in result.stdout) == (0, True)
    message = "-: packet number missing; /dev/stdin#0 is the first packet"  # -#0 is an argument only after --
    assert message in dossim("explain", *HOST, "-", stdin=FLOOD).stderr


def explained(*words: object) -> dict[str, object]:
    result = dossim("explain", *words, *HOST, "-o", "json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_a_header_that_may_have_been_completed_is_explained_both_ways(tmp_path: Path) -> None:
    """As in predict: undetermined if the possible fates differ; dropped if an entry drops it in any case."""
    packets = [
        bytes(Ether() / IP(src=source, dst="10.10.10.10") / UDP(sport=4444))
        for source in ("198.51.100.1", "203.0.113.1")
    ]
    file = tmp_path / "x.pcap"
    file.write_bytes(pcap([packet[:24] + b"\0\0" + packet[26:] for packet in packets]))
    ends = [explained(f"{file}#{number}", "--mode", "native")["fate"] for number in (0, 1)]
    assert ends == ["undetermined", "dropped"]
    result = dossim("predict", file, *HOST, "--mode", "native", "--json", "-")
    assert {"undetermined": 1, "stages": {"driver": {"predicted": 1}}}.items() <= json.loads(result.stdout).items()


def test_explain_tells_why_a_checksum_of_0_is_open_and_what_is_wrong_with_the_file(tmp_path: Path) -> None:
    packet = bytes(Ether() / IP(src="198.51.100.1", dst="10.10.10.10") / TCP(sport=1, dport=2, chksum=0))
    file = tmp_path / "x.pcap"
    file.write_bytes(pcap([packet, packet])[:-1])
    result = dossim("explain", f"{file}#0", *HOST)
    assert (result.exit_code, "its checksum is 0" in result.stdout) == (0, True)
    assert "cut by the capture" not in result.stdout
    assert "Calico: its checksum is 0" in result.stdout
    assert "record 1 at byte" in result.stderr
