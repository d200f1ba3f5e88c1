"""One source, two toolchains: what bcc compiles on this host decides as the prebuilt object does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from enforcer.backends.xdp.render import MapContent
from tests.bpf.xdp_frames import (
    DESTINATION,
    FRAGMENT,
    HOP_BY_HOP,
    IPV4,
    IPV6,
    TCP,
    UDP,
    UNLISTED4,
    VLAN,
    chain,
    ether,
    fragment6,
    ipv4,
    ipv6,
    tcp,
    udp,
)
from tests.bpf.xdp_program import LISTS, loaded, table_of

pytestmark = pytest.mark.needs_root

ROOT = Path(__file__).parents[2]
PYTHON = Path("/usr/bin/python3")  # bcc is Debian's package for Debian's interpreter

FRAMES = [
    ether(IPV4, ipv4()),
    ether(IPV4, ipv4(source=UNLISTED4)),
    ether(IPV4, ipv4(source="198.51.100.1")),
    ether(IPV4, ipv4(tcp(dport=22), protocol=TCP)),
    ether(IPV4, ipv4(tcp(), protocol=TCP)),
    ether(IPV4, ipv4(udp(sport=53), protocol=UDP), (VLAN, 5)),
    ether(IPV4, ipv4(udp(), protocol=UDP, offset=1)),
    ether(IPV4, ipv4(options=bytes(8), total=20)),
    ether(IPV6, ipv6()),
    ether(IPV6, ipv6(fragment6(TCP, offset=1), next_header=FRAGMENT)),
    chain(HOP_BY_HOP, *[DESTINATION] * 7, payload=tcp(dport=22)),
    chain(HOP_BY_HOP, *[DESTINATION] * 7, payload=tcp(dport=80)),
    chain(*[DESTINATION] * 9, payload=tcp(dport=80)),
]


def linux_headers() -> tuple[Path, Path]:
    """(build, source) of the running kernel's headers, else of any that is installed; skips when there are none.

    The program needs no kernel structure, so another kernel's headers do; bcc cannot do without any.
    """
    own = Path("/lib/modules") / os.uname().release
    if (own / "build").exists():
        return own / "build", own / "source" if (own / "source").exists() else own / "build"
    for build in sorted(Path("/usr/src").glob("linux-headers-*")):
        if (build / "Makefile").exists() and "common" not in build.name:
            common = sorted(Path("/usr/src").glob(f"{build.name.rpartition('-')[0]}-common"))
            return build, common[0] if common else build
    pytest.skip("no kernel headers: apt-get install linux-headers-amd64 (or -arm64)")


@pytest.fixture
def bcc() -> list[str]:
    """The command that runs a script with bcc and headers where bcc looks for them: /lib/modules/<release>/.

    They are put there in a mount namespace of the child's, so the host is as before. Skips when bcc is not installed.
    """
    if not PYTHON.exists() or subprocess.run([PYTHON, "-c", "import bcc"], capture_output=True, check=False).returncode:
        pytest.skip("no bcc: apt-get install python3-bpfcc")
    if shutil.which("unshare") is None:
        pytest.skip("no unshare: apt-get install util-linux")
    build, source = linux_headers()
    script = """
set -e
modules=/lib/modules/$(uname -r)
if [ ! -e "$modules/build" ]; then
    mount -t tmpfs none /lib/modules
    mkdir "$modules"
    ln -s "$1" "$modules/build"
    ln -s "$2" "$modules/source"
fi
shift 2
exec "$@"
"""
    return ["unshare", "--mount", "sh", "-c", script, "sh", str(build), str(source), str(PYTHON)]


def hexed(content: MapContent) -> list[tuple[str, str]]:
    return [(key.hex(), value.hex()) for key, value in content.items()]


@pytest.mark.parametrize("pass_tagged", [False, True])
def test_both_toolchains_decide_and_count_alike(bcc: list[str], pass_tagged: bool) -> None:
    table = table_of(*LISTS)
    job = {
        "source": str(ROOT / "bpf" / "xdp_untracked.bpf.c"),
        "include": str(ROOT / "bpf" / "include"),
        "pass_tagged": pass_tagged,
        "maps": {"deny4": hexed(table.deny4), "deny6": hexed(table.deny6), "failsafe": hexed(table.failsafe)},
        "frames": [frame.hex() for frame in FRAMES],
        "entries": len(table.entries),
    }
    child = [*bcc, str(Path(__file__).parent / "bcc_child.py")]
    answer = subprocess.run(child, input=json.dumps(job), capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    for program in loaded(table, pass_tagged=pass_tagged):
        verdicts = [program.run(frame) for frame in FRAMES]
        packets = [count for count, _ in program.counts()]
    assert json.loads(answer.stdout) == {"verdicts": verdicts, "packets": packets}
    assert packets[0] > 0
    assert packets[1] > 0
