"""Memory and time of ``dossim predict -`` on captures of any size: ``.venv/bin/python -m bench.bench_stream [GB]``.

A generator writes a capture into a pipe: a SYN flood of which half is deny-listed, pairs of fragments, first fragments
whose datagrams never end. tcpdump reads the same pipe in the same run. CPU time is of the reading process alone, user
and system; memory is the most that it had (ru_maxrss).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.flood import Bytes, kinds, listed, policy_text, syn_flood
from dossim.packet.capture import Capture

PACKETS = 500_000  # of a block, which is written again and again
WRITE = """
import sys
block, count = open(sys.argv[1], "rb").read(), int(sys.argv[2])
out = sys.stdout.buffer
out.write(block[:24])
for _ in range(count):
    out.write(memoryview(block)[24:])
"""
# A small process: what getrusage() says is at least what the process had that forked it.
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss, file=sys.stderr)
"""


@dataclass(frozen=True)
class Used:
    """Of one process."""

    cpu_s: float
    memory_mib: float


def used_by(command: Sequence[str], block: Path, count: int) -> Used:
    """The command reads a capture of so many blocks from its stdin."""
    with subprocess.Popen([sys.executable, "-c", WRITE, str(block), str(count)], stdout=subprocess.PIPE) as writer:
        measured = [sys.executable, "-c", MEASURE, *command]
        child = subprocess.run(
            measured, stdin=writer.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True
        )
    cpu_s, memory = child.stderr.split()[-2:]
    return Used(float(cpu_s), int(memory) / 1024)


def never_complete(flood: Capture) -> Capture:
    """Each packet the first of two fragments."""
    found = kinds(flood)["two fragments each"]
    rows: Bytes = found.data[: len(found) * int(found.length[0])].reshape(len(found), -1)
    return found.only(np.arange(0, len(rows), 2, dtype=np.int64))


def main(gigabytes: float = 2.0) -> None:
    sources = listed()
    flood = syn_flood(PACKETS, sources)
    captures = {
        "SYN flood": flood,
        "two fragments each": kinds(flood)["two fragments each"],
        "fragments without end": never_complete(flood),
    }
    with tempfile.TemporaryDirectory() as folder:
        policy, block = Path(folder) / "policy.yaml", Path(folder) / "block.pcap"
        policy.write_text(policy_text(sources))
        dossim = str(Path(sys.executable).with_name("dossim"))
        for name, capture in captures.items():
            capture.write(block)
            count = max(int(gigabytes * 1e9 / block.stat().st_size), 1)
            packets = count * len(capture)
            for command in (
                (dossim, "predict", "-", "-p", str(policy)),
                (dossim, "predict", "-", "-p", str(policy), "--tracked", "enforce"),
                ("tcpdump", "--count", "-r", "-", "src net 203.0.113.0/24"),
            ):
                if shutil.which(command[0]) is None:
                    continue
                found = used_by(command, block, count)
                what = f"{Path(command[0]).name} {' '.join(part for part in command[1:] if part != str(policy))}"
                print(
                    f"{name}, {packets / 1e6:.0f} M packets, {what[:44]:<44} "
                    f"{packets / found.cpu_s / 1e6:6.2f} M packets/s   {found.memory_mib:4.0f} MiB"
                )


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
