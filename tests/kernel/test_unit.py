"""packaging/enforcer.service: the enforcer works under all its restrictions."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from enforcer.enforcement.apply import Enforcer
from enforcer.kernel.bpf.links import attach_xdp
from enforcer.kernel.bpf.programs import program_info
from enforcer.kernel.bpf.xdp import load_pass_program
from enforcer.kernel.ip_tables import MODULES
from enforcer.kernel.rtnetlink import interface
from enforcer.model.choices import ModeChoice
from enforcer.model.vocabulary import Mode, Stage
from enforcer.system import clock
from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import (
    ALLOWED,
    APPLIED,
    DENIED,
    NODE,
    agent,
    deny_list,
    documents,
    endpoint,
    policy,
    run,
    traffic,
)
from tests.kernel.sandbox import UNIT, as_unit, settings

pytestmark = pytest.mark.needs_root

OTHER = "198.51.100.77"


def capable() -> list[str]:
    """The command prefix that runs a command with the unit's capabilities, and no other setting of it."""
    names = settings(UNIT)["CapabilityBoundingSet"][0].lower().replace("cap_", "+").split()
    return ["setpriv", "--no-new-privs", f"--bounding-set=-all,{','.join(names)}", "--inh-caps=-all"]


def test_systemd_finds_little_exposed() -> None:
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)]
    said = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "LANG": "C.UTF-8"})
    level = re.search(r"Overall exposure level for enforcer.service: ([0-9.]+)", said.stdout)
    assert level, said.stderr
    assert float(level[1]) < 3


def test_the_unit_is_one(tmp_path: Path) -> None:
    """As systemd reads it; the path of the command depends on the host."""
    unit = tmp_path / "enforcer.service"
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/enforcer", "/bin/true"))
    words = ["systemd-analyze", "verify", "--man=no", str(unit)]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    assert [line for line in said.stderr.splitlines() if "enforcer.service" in line] == []


def test_the_units_of_feeds_are_ones_that_expose_little(tmp_path: Path) -> None:
    unit, timer = tmp_path / "enforcer-feed.service", tmp_path / "enforcer-feed.timer"
    unit.write_text((UNIT.parent / unit.name).read_text().replace("/usr/local/bin/enforcer", "/bin/true"))
    timer.write_text((UNIT.parent / timer.name).read_text())
    words = ["systemd-analyze", "verify", "--man=no", str(unit), str(timer)]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    assert [line for line in said.stderr.splitlines() if "enforcer-feed" in line] == []
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    said = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "LANG": "C.UTF-8"})
    level = re.search(r"Overall exposure level for enforcer-feed.service: ([0-9.]+)", said.stdout)
    assert level, said.stderr
    assert float(level[1]) < 3


def test_a_feed_is_synced_in_its_sandbox(tmp_path: Path) -> None:
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "all.yaml").write_text(documents())
    (tmp_path / "list").write_text("198.51.100.0/24\n")
    (tmp_path / "feeds.yaml").write_text("feeds: [{name: drop, source: list, labels: {deny: all}}]\n")
    sandbox = as_unit(tmp_path, unit=UNIT.parent / "enforcer-feed.service")
    words = ["feed", "sync", "-f", str(tmp_path / "feeds.yaml"), "--policy", str(tmp_path / "policy")]
    done = subprocess.run(
        [*sandbox, sys.executable, "-m", "enforcer.cli", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "STATE_DIRECTORY": str(tmp_path / "state")},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "198.51.100.0/24" in (tmp_path / "policy" / "feeds" / "feed-drop-v4.yaml").read_text()
    assert (tmp_path / "state" / "feeds" / "drop.json").exists()


def test_no_capability_is_requested_that_grants_everything() -> None:
    said = settings(UNIT)
    assert said["CapabilityBoundingSet"] == ["CAP_NET_ADMIN CAP_NET_RAW CAP_BPF CAP_PERFMON"]
    assert said["ExecStart"][0].startswith("/"), "found by its path, not by $PATH"


def test_systemd_loads_the_modules_that_the_service_may_not_ask_for() -> None:
    said = settings(UNIT)
    for module in MODULES.values():
        unit = f"modprobe@{module}.service"
        assert unit in " ".join(said["Wants"]).split()
        assert unit in " ".join(said["After"]).split()


REFUSED = """
import ctypes, mmap, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def refused(act):
    try:
        return act() == -1
    except OSError:
        return True
print([name for name, act in {
    "write to /etc": lambda: open("/etc/enforcer-was-here", "w"),
    "write to /proc/sys": lambda: open("/proc/sys/net/ipv4/ip_forward", "w"),
    "mount": lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, None),
    "another namespace": lambda: libc.unshare(0x40000000),
    "a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "writable code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC),
    "another's file": lambda: os.chown("/proc/self", 1, 1),
}.items() if not refused(act)])
print([line for line in open("/proc/self/status") if line.startswith(("Seccomp:", "NoNewPrivs:", "CapEff:"))])
"""


def test_the_sandbox_of_these_tests_holds() -> None:
    done = subprocess.run([*as_unit(), sys.executable, "-c", REFUSED], capture_output=True, text=True, check=False)
    wanted = sum(1 << number for number in (12, 13, 38, 39))
    assert done.stdout == ("[]\n" + str([f"CapEff:\t{wanted:016x}\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n"]) + "\n"), (
        done.stderr
    )


@pytest.mark.parametrize(
    ("words", "stage"),
    [
        pytest.param(["--raw-backend", "iptables"], Stage.DRIVER, id="native and iptables"),
        pytest.param(["--mode", "generic", "--raw-backend", "nftables"], Stage.GENERIC, id="generic and nftables"),
        pytest.param(["--mode", "raw", "--netdev-ingress"], Stage.NETDEV_INGRESS, id="netdev ingress"),
    ],
)
def test_the_service_enforces_changes_and_stops(
    host: NetnsPair, pin_root: Path, tmp_path: Path, words: list[str], stage: Stage
) -> None:
    store, state = tmp_path / "policy", tmp_path / "state"
    store.mkdir()
    state.mkdir()
    file = store / "dos.yaml"
    parts = [endpoint(), policy()]
    file.write_text(documents(*parts, deny_list(f"{DENIED}/32")))
    with (
        traffic(host) as wire,
        agent(host, pin_root, store, *words, through=as_unit(state), STATE_DIRECTORY=str(state)) as running,
    ):
        running.expect(APPLIED)
        assert wire.arrivals(DENIED, OTHER, ALLOWED) == [OTHER, ALLOWED]
        (store / ".new").write_text(documents(*parts, deny_list(f"{DENIED}/32", f"{OTHER}/32")))
        (store / ".new").replace(file)
        running.expect(APPLIED)
        assert wire.arrivals(DENIED, OTHER, ALLOWED) == [ALLOWED]
        with host.host():
            (now,) = Enforcer(NODE, pin_root=pin_root).status()
        assert now.stage is stage
        assert running.end(signal.SIGTERM) == 0
        assert not [line for line in running.lines if "level=warning" in line or "level=error" in line]
        assert wire.arrivals(DENIED, OTHER, ALLOWED) == [ALLOWED]
    assert sorted(path.name.partition("-")[0] for path in state.iterdir()) == ["emergency", "last"]


def test_every_command_works_with_the_units_capabilities(host: NetnsPair, pin_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "dos.yaml"
    file.write_text(documents())
    pins = ["--pin-root", str(pin_root)]
    commands = [
        ["apply", "-f", str(file), "--node", NODE, *pins],
        ["probe", "eth0", *pins],
        ["status", *pins],
        ["detach", *pins],
    ]
    said = []
    for words in commands:
        done = run(host, words, through=capable())
        assert (done.returncode, done.stderr) == (0, ""), words
        said.append(done.stdout)
    assert re.search(r"^eth0 +veth +1500 +no +yes +yes", said[1], re.MULTILINE), "our own program looks foreign"
    assert "XDP native" in said[2]
    assert "eth0: detached" in said[3]


@pytest.mark.parametrize(
    ("lacking", "mode", "says"),
    [
        pytest.param("net_admin", "auto", "needs CAP_NET_ADMIN; run", id="network"),
        pytest.param("net_raw", "raw", "needs CAP_NET_RAW; run", id="raw socket"),
        pytest.param("sys_admin,-bpf", "native", "needs CAP_BPF; run", id="programs"),
        pytest.param("sys_admin,-perfmon", "native", "needs CAP_PERFMON; run", id="pointers"),
    ],
)
def test_what_is_missing_is_named(
    host: NetnsPair, pin_root: Path, tmp_path: Path, lacking: str, mode: str, says: str
) -> None:
    file = tmp_path / "dos.yaml"
    file.write_text(documents())
    words = ["apply", "-f", str(file), "--node", NODE, "--mode", mode, "--pin-root", str(pin_root)]
    done = run(host, words, through=["setpriv", f"--bounding-set=-{lacking}", "--inh-caps=-all"])
    assert done.returncode == 3
    assert says in done.stderr


def test_raw_alone_needs_nothing_of_bpf(host: NetnsPair, pin_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "dos.yaml"
    file.write_text(documents())
    words = ["apply", "-f", str(file), "--node", NODE, "--mode", str(ModeChoice.RAW), "--pin-root", str(pin_root)]
    done = run(host, words, through=["setpriv", "--bounding-set=-all,+net_admin,+net_raw", "--inh-caps=-all"])
    assert (done.returncode, done.stderr) == (0, "")


def test_a_foreign_program_stays_without_sys_admin(host: NetnsPair, pin_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "dos.yaml"
    file.write_text(documents())
    with host.host():
        fd = load_pass_program()
        with attach_xdp(fd, interface("eth0").index, Mode.NATIVE) as link:
            words = ["apply", "-f", str(file), "--node", NODE, "--pin-root", str(pin_root)]
            done = run(host, words, through=capable())
            assert done.returncode == 0
            assert f"id {program_info(fd).id} (its name needs CAP_SYS_ADMIN)" in done.stdout
            assert link.info().ifindex


def test_the_service_may_read_whether_the_clock_is_synchronized() -> None:
    assert "ProtectClock" not in settings(UNIT), "it refuses adjtimex(2), and sandbox.py does not know it"
    words = [*as_unit(), sys.executable, "-c", "from enforcer.system import clock; print(clock.kernel_state())"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.strip() == str(clock.kernel_state()), done.stderr
    assert clock.kernel_state() >= 0
