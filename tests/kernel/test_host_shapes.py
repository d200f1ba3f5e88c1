"""XDP drops only what raw would drop, whatever upper device the interface has, in whichever namespace: tested with
packets.

The policy drops everything except one source; the tests check on each upper device of eth0 for packets that raw would
never have seen as eth0's.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import socket
import struct
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyroute2 import IPRoute, netns
from pyroute2.netlink.exceptions import NetlinkError
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet

from enforcer.enforcement.apply import Applied, Enforcer
from enforcer.kernel import device
from enforcer.kernel.device import can_look
from enforcer.kernel.elsewhere import RX_HANDLERS, possible
from enforcer.kernel.netns import entered
from enforcer.kernel.probe import probe_host
from enforcer.kernel.rtnetlink import interface
from enforcer.model.choices import ModeChoice
from enforcer.model.errors import UnsupportedKernelError
from enforcer.model.facts import Probe
from enforcer.model.vocabulary import Answer, Mode, Stage
from enforcer.policy.load import load_text
from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import NODE, documents, endpoint, felix, policy
from tests.kernel.forked import CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON, enter, forked, keep_capabilities

pytestmark = pytest.mark.needs_root

LISTED, PARTNER, BROADCAST = "203.0.113.7", "198.51.100.9", "ff:ff:ff:ff:ff:ff"
ALLOW_LIST = policy("{action: Pass, source: {nets: [198.51.100.0/24]}}", "{action: Deny}")
RESOURCES = documents(endpoint(), ALLOW_LIST, felix(genericXDPEnabled="true"))


@contextmanager
def namespace() -> Iterator[str]:
    """Another network namespace, like a container's, with IPv6 off."""
    name = f"enftest-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    netns.create(name)
    try:
        with inside(name):
            Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        yield name
    finally:
        netns.remove(name)


@contextmanager
def inside(name: str) -> Iterator[None]:
    with entered(Path("/run/netns") / name):
        yield


@pytest.fixture
def container() -> Iterator[str]:
    with namespace() as name:
        yield name


@pytest.fixture
def detached(netns_pair: NetnsPair, pin_root: Path) -> Iterator[NetnsPair]:
    """The pair; afterwards everything of ours is removed."""
    yield netns_pair
    with netns_pair.host():
        Enforcer(NODE, pin_root=pin_root).detach()


def apply(pair: NetnsPair, pin_root: Path, choice: ModeChoice, text: str = RESOURCES) -> Applied:
    with pair.host():
        return Enforcer(NODE, pin_root=pin_root, choice=choice).apply(load_text(text))


def stage_of(applied: Applied) -> Stage | None:
    (item,) = applied.plan.interfaces
    return item.early


def attached(pair: NetnsPair) -> list[Mode]:
    with pair.host():
        state = interface("eth0")
        assert state is not None
        return [item.mode for item in state.xdp]


def probed(pair: NetnsPair, name: str = "eth0") -> dict[Mode, Probe]:
    with pair.host():
        facts = probe_host(NODE, [name]).interface(name)
    assert facts is not None
    return dict(facts.modes)


def frame(destination: str, source: str, to: str, *tags: Packet) -> bytes:
    packet: Packet = Ether(src="02:00:00:00:00:02", dst=destination)
    for tag in tags:
        packet = packet / tag
    return bytes(packet / IP(src=source, dst=to) / UDP(sport=40000, dport=9) / source.encode())


@contextmanager
def listening(where: str, name: str, address: str) -> Iterator[socket.socket]:
    """A UDP socket behind an interface of a namespace, which gets an address."""
    with inside(where):
        for item in ("all", name):
            Path(f"/proc/sys/net/ipv4/conf/{item}/rp_filter").write_text("0")
        with IPRoute() as ip:
            index = ip.link_lookup(ifname=name)[0]
            ip.addr("add", index=index, address=address, prefixlen=24)
            ip.link("set", index=index, state="up")
            wait_until_up(ip, index)
        ears = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ears.bind(("0.0.0.0", 9))
        ears.settimeout(20)
    with ears:
        yield ears


def wait_until_up(ip: IPRoute, index: int) -> None:
    """Wait until the kernel has announced the change, late on a busy machine: a bridge port takes no frame before."""
    until_s = time.monotonic() + 20
    while ip.get_links(index)[0].get("operstate") not in ("UP", "UNKNOWN"):
        assert time.monotonic() < until_s
        time.sleep(0.02)


def arrivals(
    pair: NetnsPair,
    ears: socket.socket,
    destination: str,
    to: str,
    *tags: Packet,
    through: str = "wire0",
    last: str = PARTNER,
) -> list[str]:
    """The sources that arrive, of a listed one and an allowed one; the allowed packet marks the end."""
    with pair.peer(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth:
        mouth.bind((through, 0))
        for source in (LISTED, PARTNER):
            mouth.send(frame(destination, source, to, *tags))
    found: list[str] = []
    while not found or found[-1] != last:
        found.append(ears.recv(2048).decode())
    return found


def mac_of(where: str, name: str) -> str:
    with inside(where), IPRoute() as ip:
        return str(ip.get_links(ip.link_lookup(ifname=name)[0])[0].get("address"))


# -- upper devices ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """``kind`` of the upper device of eth0; ``where``: the host's namespace, another one it was moved to, or another
    one it was created in, of which the host's namespace has no id.
    """

    kind: str
    where: str = "here"
    options: tuple[tuple[str, object], ...] = ()
    tags: tuple[Packet, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind} {self.where}"

    def put(self, pair: NetnsPair, container: str) -> str:
        """Creates it as ``up0``; returns its namespace. Skips if the kernel has no such interfaces."""
        with pair.host(), IPRoute() as ip:
            below = ip.link_lookup(ifname="eth0")[0]
            made = {"net_ns_fd": container} if self.where == "made elsewhere" else {}
            try:
                if self.kind in ("bridge", "bond"):
                    ip.link("add", ifname="up0", kind=self.kind)
                else:
                    ip.link("add", ifname="up0", kind=self.kind, link=below, **dict(self.options), **made)
            except NetlinkError as error:
                pytest.skip(f"Linux {platform.release()} has no {self.kind}: {error}")
            if self.kind in ("bridge", "bond"):
                ip.link("set", index=below, state="down")
                ip.link("set", index=below, master=ip.link_lookup(ifname="up0")[0])
                ip.link("set", index=below, state="up")
            if self.where == "moved":
                ip.link("set", index=ip.link_lookup(ifname="up0")[0], net_ns_fd=container)
        return pair.host_name if self.where == "here" else container


TAG = Dot1Q(vlan=5)
SHAPES = [
    Shape("bridge"),
    Shape("bond"),
    *(Shape("macvlan", where) for where in ("here", "moved", "made elsewhere")),
    *(Shape("ipvlan", where) for where in ("here", "moved", "made elsewhere")),
    *(Shape("vlan", where, (("vlan_id", 5),), (TAG,)) for where in ("here", "moved", "made elsewhere")),
]
MODES = [ModeChoice.NATIVE, ModeChoice.GENERIC]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_its_packets_are_its_own(detached: NetnsPair, pin_root: Path, container: str, shape: Shape) -> None:
    """Even if XDP was not requested by name, probe reports why there is none, and raw has the whole policy."""
    where = shape.put(detached, container)
    answers = probed(detached)
    assert {answer.answer for answer in answers.values()} == {Answer.NO}
    reason = answers[Mode.NATIVE].reason
    assert "takes its packets" in reason or "VLAN interface" in reason
    applied = apply(detached, pin_root, ModeChoice.AUTO)
    assert (stage_of(applied), attached(detached)) == (None, [])
    assert dict(applied.plan.interfaces[0].mode_reasons)[Mode.NATIVE] == reason
    with listening(where, "up0", "10.0.0.5") as ears:
        assert arrivals(detached, ears, mac_of(where, "up0"), "10.0.0.5", *shape.tags) == [LISTED, PARTNER]


@pytest.mark.parametrize("choice", MODES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_interface_on_top_that_comes_later_loses_no_packet(
    detached: NetnsPair, pin_root: Path, container: str, shape: Shape, choice: ModeChoice
) -> None:
    """No agent runs that could detach the program: the program itself passes what raw would not see as eth0's."""
    if shape.kind in ("ipvlan", "vlan", "bridge", "bond") and not can_look():
        pytest.skip("before Linux 6.2 a program knows of others by their addresses alone")
    assert stage_of(apply(detached, pin_root, choice)) is not None
    with listening(detached.host_name, "eth0", "10.0.0.1") as ears:
        assert arrivals(detached, ears, mac_of(detached.host_name, "eth0"), "10.0.0.1") == [PARTNER]
    where = shape.put(detached, container)
    assert attached(detached) == [choice.mode]
    with listening(where, "up0", "10.0.0.5") as ears:
        assert arrivals(detached, ears, mac_of(where, "up0"), "10.0.0.5", *shape.tags) == [LISTED, PARTNER]
        if shape.kind == "macvlan" and can_look():
            # macvlan forwards it from a work queue: what eth0 itself received may arrive first
            assert LISTED in arrivals(detached, ears, BROADCAST, "10.0.0.5", last=LISTED)
    with pytest.raises(UnsupportedKernelError, match="is not possible"):
        apply(detached, pin_root, choice)
    assert attached(detached) == []  # and raw has the policy


@pytest.mark.parametrize("where", ["moved", "made elsewhere"])
def test_they_are_found_where_the_program_cannot_look(
    detached: NetnsPair, container: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on kernels before Linux 6.2: searches each namespace that has a name or a process."""
    monkeypatch.setattr(device, "can_look", lambda: False)
    assert {answer.answer for mode, answer in probed(detached).items() if mode is not Mode.OFFLOAD} == {Answer.YES}
    Shape("macvlan", where).put(detached, container)
    answers = probed(detached)
    assert {answer.answer for answer in answers.values()} == {Answer.NO}
    assert "in another network namespace" in answers[Mode.NATIVE].reason


def test_the_name_of_a_namespace_that_is_not_there_yet_is_no_obstacle(
    detached: NetnsPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``ip netns add`` creates the file before it mounts the namespace on it."""
    monkeypatch.setattr(device, "can_look", lambda: False)
    name = Path(f"/run/netns/enftest-{os.getpid()}-to-come")
    name.touch()
    try:
        answers = {answer.answer for mode, answer in probed(detached).items() if mode is not Mode.OFFLOAD}
    finally:
        name.unlink()
    assert answers == {Answer.YES}


@pytest.mark.skipif(not possible(RX_HANDLERS), reason="this kernel has no interfaces that could take another's packets")
def test_without_the_capability_to_look_auto_leaves_it_to_raw(
    detached: NetnsPair, pin_root: Path, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on kernels before Linux 6.2 with the unit's capabilities; a mode requested by name is attached anyway."""
    monkeypatch.setattr(device, "can_look", lambda: False)
    Shape("macvlan", "made elsewhere").put(detached, container)

    def act() -> tuple[Probe, Stage | None, str, Stage | None]:
        enter(detached.host_name)
        keep_capabilities(CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON, CAP_BPF)
        resources = load_text(RESOURCES)
        facts = probe_host(NODE, ["eth0"]).interface("eth0")
        assert facts is not None
        (auto,) = Enforcer(NODE, pin_root=pin_root).apply(resources).plan.interfaces
        named = Enforcer(NODE, pin_root=pin_root, choice=ModeChoice.NATIVE).apply(resources)
        return facts.modes[Mode.NATIVE], auto.early, dict(auto.mode_reasons)[Mode.NATIVE], stage_of(named)

    answer, auto, reason, named = forked(act)
    assert answer.answer is Answer.UNKNOWN
    assert re.search("macvlan.* would not be detected: looking into other .* needs CAP_SYS_ADMIN", answer.reason)
    assert (auto, named) == (None, Stage.DRIVER)
    assert reason == f"{answer.reason}; '--mode native' asserts that there is none"


def test_what_a_kernel_has_no_code_for_is_not_there() -> None:
    assert possible({"none": "no_such_function", "each": "netif_receive_skb"}) == ["each"]


def test_netdev_ingress_passes_what_is_for_a_macvlan_that_comes_later(
    detached: NetnsPair, pin_root: Path, container: str
) -> None:
    with detached.host():
        enforcer = Enforcer(NODE, pin_root=pin_root, choice=ModeChoice.RAW, netdev=True)
        assert stage_of(enforcer.apply(load_text(RESOURCES))) is Stage.NETDEV_INGRESS
    where = Shape("macvlan", "made elsewhere").put(detached, container)
    with listening(where, "up0", "10.0.0.5") as ears:
        assert arrivals(detached, ears, mac_of(where, "up0"), "10.0.0.5") == [LISTED, PARTNER]
    with detached.host():
        assert stage_of(enforcer.apply(load_text(RESOURCES))) is None  # raw alone


@pytest.mark.parametrize("choice", MODES, ids=str)
def test_a_tag_outside_the_frame_is_not_overlooked(detached: NetnsPair, pin_root: Path, choice: ModeChoice) -> None:
    """As a VLAN interface sends it over veth: the program sees a frame without a tag."""
    with detached.peer(), IPRoute() as ip:
        try:
            ip.link("add", ifname="tagged0", kind="vlan", link=ip.link_lookup(ifname="wire0")[0], vlan_id=5)
        except NetlinkError as error:
            pytest.skip(f"Linux {platform.release()} has no VLAN interfaces: {error}")
        ip.link("set", index=ip.link_lookup(ifname="tagged0")[0], state="up")
    if not can_look():
        pytest.skip("before Linux 6.2 a program does not know of VLAN interfaces that come later")
    assert stage_of(apply(detached, pin_root, choice)) is not None
    where = Shape("vlan", options=(("vlan_id", 5),)).put(detached, "")
    with listening(where, "up0", "10.0.0.5") as ears:
        assert arrivals(detached, ears, mac_of(where, "up0"), "10.0.0.5", through="tagged0") == [LISTED, PARTNER]
    with pytest.raises(UnsupportedKernelError, match="VLAN interface up0 is on it"):
        apply(detached, pin_root, choice)


def test_what_is_gone_again_is_no_obstacle(detached: NetnsPair, pin_root: Path, container: str) -> None:
    Shape("macvlan", "moved").put(detached, container)
    assert stage_of(apply(detached, pin_root, ModeChoice.AUTO)) is None
    with inside(container), IPRoute() as ip:
        ip.link("del", index=ip.link_lookup(ifname="up0")[0])
    assert stage_of(apply(detached, pin_root, ModeChoice.AUTO)) is Stage.DRIVER


def test_another_address_passes_until_the_next_pass(detached: NetnsPair, pin_root: Path) -> None:
    """The program does not know a new address of eth0 yet: raw drops, and after the next pass XDP again."""
    apply(detached, pin_root, ModeChoice.NATIVE)
    with detached.host(), IPRoute() as ip:
        ip.link("set", index=ip.link_lookup(ifname="eth0")[0], address="02:00:00:00:0c:0d")
    with listening(detached.host_name, "eth0", "10.0.0.1") as ears:
        for stage in (Stage.RAW, Stage.DRIVER):
            assert arrivals(detached, ears, "02:00:00:00:0c:0d", "10.0.0.1") == [PARTNER]
            with detached.host():
                counts = {item.stage: item.packets for item in Enforcer(NODE, pin_root=pin_root).counters()}
            assert counts[stage] == 1
            assert apply(detached, pin_root, ModeChoice.NATIVE).changes or stage is Stage.DRIVER


# -- interfaces without Ethernet --------------------------------------------------------------------------------------

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


@contextmanager
def tun(pair: NetnsPair) -> Iterator[int]:
    """A descriptor whose writes the host receives on ``tun0``: packets without a link-layer header."""
    with pair.host():
        device = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
    try:
        yield device
    finally:
        os.close(device)


@pytest.mark.parametrize("choice", [ModeChoice.AUTO, *MODES], ids=str)
def test_an_interface_without_ethernet_is_in_raw(detached: NetnsPair, pin_root: Path, choice: ModeChoice) -> None:
    """Parsed as if there were an Ethernet header, the listed source would pass, and another one would be dropped."""
    with tun(detached) as device:
        reason = "its packets have no Ethernet header (link type 65534 (none, as of tun and WireGuard))"
        assert {answer.reason.partition(",")[0] for answer in probed(detached, "tun0").values()} == {
            reason.partition(",")[0]
        }
        text = documents(endpoint("tun0"), ALLOW_LIST, felix(genericXDPEnabled="true"))
        if choice is ModeChoice.AUTO:
            (item,) = apply(detached, pin_root, choice, text).plan.interfaces
            assert item.early is None
            assert {why.startswith("its packets have no Ethernet header") for _, why in item.mode_reasons} == {True}
        else:
            with pytest.raises(UnsupportedKernelError, match="no Ethernet header"):
                apply(detached, pin_root, choice, text)
        with listening(detached.host_name, "tun0", "10.0.0.1") as ears:
            for source in (LISTED, PARTNER):
                os.write(device, frame(BROADCAST, source, "10.0.0.1")[14:])
            assert ears.recv(2048).decode() == PARTNER


# -- tags outside the frame -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_frame_tagged_for_a_vlan_is_not_counted(detached: NetnsPair, pin_root: Path, mode: ModeChoice) -> None:
    """With the tag in the frame, the program sees it; priority-tagged frames (id 0) are eth0's own."""
    apply(detached, pin_root, mode)
    own = mac_of(detached.host_name, "eth0")
    with listening(detached.host_name, "eth0", "10.0.0.1") as ears:
        assert arrivals(detached, ears, own, "10.0.0.1", Dot1Q(vlan=0)) == [PARTNER]
        with detached.peer(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth:
            mouth.bind(("wire0", 0))
            for tags in ((TAG,), (Dot1AD(vlan=5),), (Dot1AD(vlan=0), TAG)):
                mouth.send(frame(own, LISTED, "10.0.0.1", *tags))
        assert arrivals(detached, ears, own, "10.0.0.1") == [PARTNER]
    with detached.host():
        counts = [item.packets for item in Enforcer(NODE, pin_root=pin_root).counters() if item.stage is not Stage.RAW]
    assert sum(counts) == 2  # the priority-tagged one and the last are eth0's own
