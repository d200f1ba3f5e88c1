"""Whole drills on the running kernel, in every mode: every packet is accounted for, and nothing is left behind."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from dossim.drill.results import DrillResult
from dossim.drill.run import drill_capture
from dossim.drill.situation import Situation, situation_for
from dossim.lab import names
from dossim.model.host import Host, Listener
from dossim.observe.programs import CHECKPOINTS, TRACEPOINTS
from dossim.packet.capture import Capture, read_capture
from enforcer.kernel.bpf.libbpf import libbpf
from enforcer.model.choices import ModeChoice
from enforcer.policy.load import load_text
from enforcer.policy.resources import Resources
from tests.support.odd_frames import frames

pytestmark = pytest.mark.needs_root

MODES = (ModeChoice.NATIVE, ModeChoice.GENERIC, ModeChoice.RAW)
CAPTURES = (
    "pkt.TCP.synflood.spoofed.pcap",
    "amp.dns.RRSIG.fragmented.pcap",
    "amp.UDP.snmp.src161.pcapng",
    "amp.UDP.isakmp.pcap",
    "amp.TCP.syn.optionallyACK.optionallysamePort.pcapng",
)

POLICY = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata:
  name: production-host
  labels: {apply-dos-mitigation: "true"}
spec:
  node: jasper
  interfaceName: eth0
  expectedIPs: ["10.10.10.10"]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata:
  name: dos-mitigation
  labels: {dos-deny-list: "true"}
spec:
  nets: %s
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: dos-mitigation
spec:
  selector: apply-dos-mitigation == 'true'
  order: 10
  doNotTrack: true
  applyOnForward: true
  types: [Ingress]
  ingress:
    - action: Deny
      source:
        selector: dos-deny-list == 'true'
"""

# Half of the address space, and parts of every special range, so that each capture has listed and other sources.
HALF = [f"{first}.0.0.0/8" for first in range(1, 224, 2)] + ["127.0.0.0/9", "224.0.0.0/5", "2001:db8::/32", "2000::/4"]


def policy(nets: list[str]) -> Resources:
    return load_text(POLICY % json.dumps(nets))


def assert_agrees(result: DrillResult) -> None:
    verification = result.verification
    shown = "\n".join(f"{m.packet}: {m.summary}: predicted {m.predicted}, observed {m.observed}: {m.evidence}"
                      for m in verification.mismatches[:10])  # fmt: skip
    assert verification.mismatched == 0, shown
    assert verification.unobserved == 0, shown
    assert verification.matched == verification.packets
    assert all(row.predicted == row.observed for row in verification.entries), verification.entries
    assert verification.agrees


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("name", CAPTURES)
def test_every_packet_of_a_real_capture(captures: Path, name: str, mode: ModeChoice) -> None:
    capture = read_capture(captures / name)
    result = drill_capture(capture, situation_for(policy(HALF), capture=capture, choice=mode))
    assert_agrees(result)
    assert result.mode == str(mode)
    early = {"native": "driver", "generic": "generic", "raw": "raw"}[result.mode]
    assert result.verification.stages[early].observed > 0


@pytest.mark.slow
@pytest.mark.parametrize("forward", [False, True], ids=["host", "router"])
def test_random_odd_frames(forward: bool) -> None:
    """In every mode, one after the other."""
    host = Host(
        node="jasper",
        addresses=(ip_interface("10.10.10.10/24"), ip_interface("fd00::10/64")),
        forward=forward,
        routes=(ip_network("192.0.2.0/24"), ip_network("2001:db8:5::/64")) if forward else (),
        listen=(Listener(6, 80), Listener(17, 9)),
    )
    nets = ["203.0.113.0/24", "127.0.0.0/8", "0.1.2.3", "2001:db8::/32", "fe80::/10"]
    capture = Capture.from_frames(frames(20261123 + forward, 6000))
    for mode in MODES:
        result = drill_capture(capture, Situation(policy(nets), host, mode))
        assert result.mode == str(mode)
        assert_agrees(result)


@pytest.mark.parametrize("mode", [*MODES, ModeChoice.AUTO], ids=str)
def test_an_empty_capture(mode: ModeChoice) -> None:
    capture = Capture.from_frames([])
    result = drill_capture(capture, situation_for(policy(["203.0.113.0/24"]), capture=capture, choice=mode))
    assert result.verification.packets == 0


def test_a_policy_that_governs_nothing_drops_nothing() -> None:
    capture = Capture.from_frames(frames(5, 200))
    result = drill_capture(capture, situation_for(Resources(), capture=capture))
    assert_agrees(result)
    assert "raw" not in result.verification.stages


def state() -> dict[str, object]:
    """What a drill could leave behind: namespaces, links, pins, BPF programs and links, rules, sets."""

    def said(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return {
        "namespaces": labs(names.NETNS_DIR),
        "links": re.sub(r"\s+", " ", said("ip", "-o", "link")),
        "pins": labs(names.PIN_ROOT),
        "raw": re.sub(r"\[\d+:\d+\]|#.*", "", said("iptables-legacy-save") + said("ip6tables-legacy-save")),
        "sets": said("ipset", "list", "-name"),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


def labs(directory: Path) -> list[str]:
    """What labs of this process and of ended ones have there; other drills may run on this machine."""
    found = os.listdir(directory) if directory.is_dir() else []
    mine = [name for name in found if name.startswith("dossim-")]
    return sorted(name for name in mine if name.split("-")[1] == str(os.getpid()) or not _lives(name))


def _lives(name: str) -> bool:
    return Path("/proc", name.split("-")[1]).exists()


def bpf_programs() -> set[int]:
    """The numbers of all BPF programs of this machine."""
    lib, numbers = libbpf(), set[int]()
    following = ctypes.c_uint32()
    lib.bpf_prog_get_next_id.argtypes = [ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32)]
    while lib.bpf_prog_get_next_id(following.value, ctypes.byref(following)) == 0:
        numbers.add(following.value)
    return numbers


def bpf_programs_of(pid: int | str = "self") -> set[int]:
    """Programs that a process holds open, or that labs of this process and of ended ones have pinned."""
    opened = [
        fd
        for lab in labs(names.PIN_ROOT)
        for pin in Path(names.PIN_ROOT, lab).rglob("*")
        if pin.is_file() and (fd := libbpf().bpf_obj_get(os.fsencode(pin))) >= 0
    ]
    try:
        held = "".join(_text(info) for info in Path(f"/proc/{pid}/fdinfo").iterdir())
    finally:
        for fd in opened:
            os.close(fd)
    return {int(number) for number in re.findall(r"^prog_id:\s*(\d+)$", held, re.MULTILINE)}


def bpf_links() -> set[int]:
    """The BPF links that this process holds open."""
    held = "".join(_text(info) for info in Path("/proc/self/fdinfo").iterdir())
    return {int(number) for number in re.findall(r"^link_id:\s*(\d+)$", held, re.MULTILINE)}


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:  # the descriptor that listed the directory
        return ""


def wait_until(holds: Callable[[], bool], deadline_s: float = 60.0) -> bool:
    """The kernel frees namespaces and BPF programs asynchronously: wait for it."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_drill_leaves_nothing_behind(mode: ModeChoice) -> None:
    capture = Capture.from_frames(frames(3, 300))
    situation = situation_for(policy(["203.0.113.0/24"]), capture=capture, choice=mode)
    drill_capture(capture, situation)  # the first use of a table or a set type changes what listings show
    before, kept, used = state(), bpf_programs_of(), set[int]()
    drill_capture(capture, situation, progress=lambda phase, done, total: used.update(bpf_programs_of()))
    assert state() == before
    assert len(used) >= len(CHECKPOINTS) + len(TRACEPOINTS), "it observes with BPF programs"
    assert wait_until(lambda: not (used - kept) & bpf_programs()), "BPF programs are left"
    assert not bpf_links(), "the programs that the next drill uses are not attached"


@pytest.mark.alone  # the next drill of any process tidies up
def test_a_drill_killed_in_the_middle_leaves_nothing_after_the_next(tmp_path: Path) -> None:
    capture = Capture.from_frames(frames(3, 300))
    situation = situation_for(policy(["203.0.113.0/24"]), capture=capture, choice=ModeChoice.NATIVE)
    drill_capture(capture, situation)
    before, kept = state(), bpf_programs_of()
    code = (
        "from tests.kernel.test_drill import *\n"
        "capture = Capture.from_frames(frames(3, 300))\n"
        "situation = situation_for(policy(['203.0.113.0/24']), capture=capture, choice=ModeChoice.NATIVE)\n"
        "def stop(phase, done, total):\n    print(phase, flush=True); time.sleep(60)\n"
        "drill_capture(capture, situation, progress=stop)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    assert child.stdout.readline() == "replay\n"
    used = bpf_programs_of(child.pid)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    used |= bpf_programs_of() - kept
    assert used, "it observed with BPF programs"
    assert state() != before, "it was killed while its lab stood"
    drill_capture(capture, situation)
    assert state() == before
    assert wait_until(lambda: not used & bpf_programs()), "BPF programs are left"


def test_an_interrupted_drill_cleans_up() -> None:
    capture = Capture.from_frames(frames(3, 300))
    situation = situation_for(policy(["203.0.113.0/24"]), capture=capture, choice=ModeChoice.NATIVE)
    drill_capture(capture, situation)
    before = state()

    def interrupt(phase: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drill_capture(capture, situation, progress=interrupt)
    assert state() == before
