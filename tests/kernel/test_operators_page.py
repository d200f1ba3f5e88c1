"""docs/operators.md is followed word by word: in a shell on a host, under a flood, from the preparation to the end.

Its own are the host's name, /etc, /run, /var/lib and the BPF file system. There is no systemd in it: ``systemctl``
starts what the unit says, and the other commands of the project are children of one process, which has imported their
modules. The service that is flooded reads its socket now and then, as one does that has not enough
CPU time: a packet of a customer is lost if there was no room for it. So goodput depends on the order of packets, not on
time.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest
from pyroute2 import IPRoute
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from enforcer.kernel.rtnetlink import interface
from enforcer.policy.load import load
from tests.kernel.conftest import NODE, NetnsPair
from tests.kernel.enforcer_support import DEADLINE_S, VICTIM
from tests.kernel.sandbox import UNIT, settings

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is missing, which the page uses"),
]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operators.md"
PORT, MARKER, ELSEWHERE = 9, 10, 11
ATTACKERS, BUSY, PRACTICE = ("198.51.100.66", "198.51.100.67"), "198.51.100.68", "203.0.113.66"
CUSTOMER = "192.0.2.200"
REQUESTS, BURST = 5, 200
HALF_A_DAY_S = 12 * 3600

_SECTION = re.compile(r"^## (.*)$", re.MULTILINE)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\S+)\n")

SYSTEMD = r"""
systemctl() {
	if [ -n "$AGENT" ]; then kill "$AGENT"; wait "$AGENT"; AGENT=; fi
	[ "$1" != stop ] || return 0
	: >agent.log
	$SLEPT AGENT_WORDS 2>agent.log CONTROL>&- &
	AGENT=$!
	until grep -q 'policy applied' agent.log; do kill -0 $AGENT || return 1; sleep 0.05; done
}
"""


def sections() -> dict[str, list[tuple[str, str]]]:
    """The blocks of each section: their language, "" for commands, and their text."""
    _, *parts = _SECTION.split(PAGE.read_text())
    return {title: _BLOCK.findall(text) for title, text in zip(parts[::2], parts[1::2], strict=True)}


class Shell:
    """A shell on the host."""

    def __init__(self, host: NetnsPair, folder: Path) -> None:
        self.folder = folder
        words = [
            "nsenter",
            f"--net=/run/netns/{host.host_name}",
            "unshare",
            "--mount",
            "--uts",
            "--propagation",
            "private",
        ]
        control, served = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with control, served:
            self._process = subprocess.Popen(
                [*words, "bash"],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                pass_fds=[control.fileno(), served.fileno()],
            )
            self._control, server = control.fileno(), served.fileno()
        agent = [str(Path(sys.executable).with_name("enforcer")), *settings(UNIT)["ExecStart"][0].split()[1:]]
        self._make_commands()
        self.run("export PATH=$PWD/bin:$PATH; AGENT= SLEPT= ENFORCER_OPTIONS=")
        self.run(f"echo {NODE} >/proc/sys/kernel/hostname")
        self.run("mkdir etc && cp -a /etc/{passwd,group,hosts,nsswitch.conf,resolv.conf,ld.so.cache,alternatives} etc")
        self.run("mount --bind etc /etc")
        self.run("mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib && mount -t bpf bpf /sys/fs/bpf")
        self.run(SYSTEMD.replace("AGENT_WORDS", " ".join(agent)).replace("CONTROL", str(self._control)))
        serve = f"exec {sys.executable} -m tests.support.fork_server {server} dossim.cli {self._control}>&-"
        self.run(f"(cd {ROOT} && OPENBLAS_NUM_THREADS=1 {serve}) & exec {server}>&-")

    def _make_commands(self) -> None:
        """Start the commands of the project by the socket of a fork server."""
        folder = self.folder / "bin"
        folder.mkdir()
        client = f"{sys.executable} -IS {ROOT}/tests/support/fork_client.py {self._control}"
        for name in ("enforcer", "dossim"):
            (folder / name).write_text(f'#!/bin/sh\nexec {client} {name}.cli "$@"\n')
            (folder / name).chmod(0o755)

    def run(self, command: str) -> str:
        """What it prints. It must succeed."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{command}\nprintf '\\n=%d\\n' $?\n")
        self._process.stdin.flush()
        said = ""
        while not (ended := re.search(r"\n=(\d+)\n$", said)):
            line = self._process.stdout.readline()
            assert line, f"the shell has ended: {said}"
            said += line
        assert ended[1] == "0", f"{command}: {ended[1]}\n{said}"
        return said[: ended.start()]

    def close(self) -> None:
        """The agent and the fork server end, and with the shell its mounts and all that is pinned there."""
        self._process.communicate(f"systemctl stop; exec {self._control}>&-; wait; exit\n", timeout=DEADLINE_S)


def frame(source: str, port: int) -> bytes:
    layers = Ether(src="02:00:00:00:00:02", dst="ff:ff:ff:ff:ff:ff") / IP(src=source, dst=VICTIM)
    return bytes(layers / UDP(sport=40000, dport=port) / source.encode())


class Service:
    """What customers use, and who floods it."""

    def __init__(self, host: NetnsPair) -> None:
        with host.host():
            for name in ("all", "eth0"):
                Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text("0")
            with IPRoute() as ip:
                ip.addr("add", index=ip.link_lookup(ifname="eth0")[0], address=VICTIM, prefixlen=24)
            self._service = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._service.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
            self._marks = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with host.peer():
            self._sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            self._sender.bind((host.PEER_INTERFACE, 0))
        self._service.bind((VICTIM, PORT))
        self._service.setblocking(False)
        self._marks.bind((VICTIM, MARKER))
        self._marks.settimeout(DEADLINE_S)

    @contextmanager
    def busy(self, *attackers: str) -> Iterator[None]:
        """Of 20 packets 16 are of the attackers; besides them there are 20 customers, and one who sends a lot."""
        others = cycle(frame(f"192.0.2.{number}", ELSEWHERE) for number in range(100, 120))
        attack = [frame(source, PORT) for source in attackers] * 8
        busy = [frame(BUSY, ELSEWHERE)] * 3
        over = threading.Event()

        def send() -> None:
            while not over.wait(0.01):
                for packet in (*attack, *busy, next(others)):
                    self._sender.send(packet)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def arrives(self, source: str, before: tuple[bytes, ...] = ()) -> bool:
        """Whether the service gets a packet that comes after others."""
        self._drain()
        for packet in (*before, frame(source, PORT), frame(CUSTOMER, MARKER)):
            self._sender.send(packet)
        self._marks.recv(64)
        return source in self._drain()

    def goodput(self) -> int:
        """How many of the requests of a customer are answered, each of which comes with many of the attack."""
        attack = tuple(frame(source, PORT) for source in ATTACKERS) * (BURST // len(ATTACKERS))
        return sum(self.arrives(CUSTOMER, before=attack) for _ in range(REQUESTS))

    def _drain(self) -> list[str]:
        found = []
        try:
            while True:
                found.append(self._service.recv(64).decode())
        except BlockingIOError:
            return found

    def close(self) -> None:
        for each in (self._service, self._marks, self._sender):
            each.close()


@pytest.fixture
def service(netns_pair: NetnsPair) -> Iterator[Service]:
    made = Service(netns_pair)
    yield made
    made.close()


@pytest.fixture
def shell(netns_pair: NetnsPair, tmp_path: Path) -> Iterator[Shell]:
    made = Shell(netns_pair, tmp_path)
    try:
        yield made
    finally:
        made.close()


def follow(shell: Shell, section: str, checks: dict[str, Callable[[str], None]] | None = None) -> None:
    """Write the files and run the commands of a section. ``checks``: of what a command with this beginning has printed
    and done.
    """
    waiting = dict(checks or {})
    for language, text in sections()[section]:
        if language:
            name = _FILE.match(text)
            assert name
            path = shell.folder / name[1]
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            continue
        for line in text.splitlines():
            said = shell.run(line)
            for begins in [begins for begins in waiting if line.startswith(begins)]:
                waiting.pop(begins)(said)
    assert not waiting, f"not on the page: {[*waiting]}"


def suggested(shell: Shell) -> set[str]:
    """The addresses of the suggested list."""
    resources = load([shell.folder / "suggested.yaml"])
    return {str(address) for item in resources.global_network_sets for net in item.nets for address in net}


def has_xdp(host: NetnsPair) -> bool:
    with host.host():
        found = interface(host.HOST_INTERFACE)
    return bool(found and found.xdp)


def test_the_page_is_followed(netns_pair: NetnsPair, service: Service, shell: Shell) -> None:
    def holds(check: Callable[[], bool]) -> Callable[[str], None]:
        def checked(said: str) -> None:
            assert check(), said

        return checked

    def says(text: str) -> Callable[[str], None]:
        def checked(said: str) -> None:
            assert text in said

        return checked

    assert service.goodput() < REQUESTS, "the attack is one"
    with service.busy():
        follow(
            shell,
            "Prepare",
            {
                "dossim lint": says("1 note"),
                "enforcer status": says("everything that was read is enforced"),
                f"enforcer deny {PRACTICE}": holds(lambda: not service.arrives(PRACTICE)),
                f"enforcer list {PRACTICE}": says("practice"),
                f"enforcer allow {PRACTICE}": holds(lambda: service.arrives(PRACTICE)),
            },
        )
    assert has_xdp(netns_pair)
    assert service.arrives(CUSTOMER)
    with service.busy(*ATTACKERS):
        assert service.goodput() == 0
        listed = shell.folder / "attackers.txt"
        follow(
            shell,
            "The first ten minutes",
            {
                "dossim suggest": holds(lambda: suggested(shell) == {*ATTACKERS}),
                "awk": holds(lambda: sorted(listed.read_text().split()) == [*ATTACKERS, BUSY]),
                "enforcer deny": holds(lambda: service.goodput() == REQUESTS and not service.arrives(BUSY)),
                "enforcer counters": says("gnp/dos-mitigation ingress[0]"),
                "enforcer allow": holds(lambda: service.arrives(BUSY) and service.goodput() == REQUESTS),
                "grep": holds(lambda: service.arrives(BUSY) and service.goodput() == REQUESTS),
            },
        )
        follow(shell, "Afterwards", {"enforcer list": says("")})
    assert "still going on" in (shell.folder / "acts.json").read_text()
    assert "198.51.100.66" in (shell.folder / "upstream.nft").read_text()
    assert not service.arrives(ATTACKERS[0])
    shell.run(f"SLEPT='unshare --time --boottime {HALF_A_DAY_S}'; systemctl restart enforcer")
    assert service.arrives(ATTACKERS[0]), "the acts have ended by themselves"
    shell.run("systemctl stop enforcer && enforcer detach")
    assert not has_xdp(netns_pair)


def test_what_the_page_does_not_show_is_not_asked_of_it() -> None:
    assert [*sections()][:4] == ["Install", "Prepare", "The first ten minutes", "Afterwards"]
