"""Probes and netlink: the properties of interfaces, with three-valued answers, without disturbing what is attached."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from enforcer.backends.xdp.backend import XdpBackend
from enforcer.enforcement.probe_cache import ProbeCache
from enforcer.kernel import rtnetlink
from enforcer.kernel.bpf.features import announces_native_xdp
from enforcer.kernel.bpf.links import attach_xdp
from enforcer.kernel.bpf.programs import program_info
from enforcer.kernel.bpf.xdp import load_pass_program
from enforcer.kernel.links import Link
from enforcer.kernel.probe import probe_host
from enforcer.kernel.rtnetlink import InterfaceState, XdpState, interface, interfaces
from enforcer.model.errors import KernelError
from enforcer.model.facts import HostFacts, Probe
from enforcer.model.vocabulary import Answer, Backend, Mode
from enforcer.policy.resources import Resources
from tests.kernel.conftest import NetnsPair
from tests.kernel.forked import enter, forked
from tests.kernel.xdp_support import plan_of

pytestmark = pytest.mark.needs_root

OFFLOAD_NO = Probe(Answer.NO, "the driver runs no XDP programs in hardware (EINVAL)")
YES = Probe(Answer.YES)


def modes_of(name: str) -> dict[Mode, Probe]:
    facts = probe_host("jasper", [name]).interface(name)
    assert facts is not None
    return dict(facts.modes)


# -- netlink -------------------------------------------------------------------------------------------------------


def test_interfaces_have_name_mtu_driver_and_addresses(netns_pair: NetnsPair) -> None:
    with netns_pair.host():
        with IPRoute() as ip:
            ip.addr("add", index=ip.link_lookup(ifname="eth0")[0], address="10.10.10.10", prefixlen=24)
        assert [item.name for item in interfaces()] == ["lo", "eth0"]
        eth0 = interface("eth0")
        assert eth0 is not None
        assert (eth0.driver, eth0.mtu, eth0.addresses, eth0.xdp) == ("veth", 1500, (ip_address("10.10.10.10"),), ())
        assert interface("eth1") is None


@pytest.mark.parametrize("mode", [Mode.NATIVE, Mode.GENERIC])
def test_an_attached_program_is_seen_with_its_mode(netns_pair: NetnsPair, mode: Mode) -> None:
    with netns_pair.host():
        before = interface("eth0")
        assert before is not None
        fd = load_pass_program()
        with attach_xdp(fd, before.index, mode):
            during = interface("eth0")
            assert during is not None
            assert during.xdp == (XdpState(mode, program_info(fd).id),)
        os.close(fd)
        assert interface("eth0") == before


def test_an_interface_below_a_vlan_of_this_namespace_is_known() -> None:
    """From a constructed rtnetlink message: this machine's kernel has no VLAN interfaces."""
    below, other = (Link(at, name, mtu=1500, link_type=1) for at, name in ((2, "below0"), (3, "other0")))
    vlan = Link(4, "below0.5", link=2, kind="vlan")
    elsewhere = Link(5, "other0.5", link=3, link_netnsid=0, kind="vlan")
    ipvlan = Link(6, "iv0", link=3, kind="ipvlan")
    states = rtnetlink._states([below, other], [below, other, vlan, elsewhere, ipvlan], [], {}, "")
    assert states == [
        InterfaceState("below0", 2, 1500, vlans="VLAN interface below0.5"),
        InterfaceState("other0", 3, 1500, rx_owner="ipvlan iv0"),
    ]


def test_drivers_announce_what_they_have(netns_pair: NetnsPair) -> None:
    with netns_pair.host():
        states = {item.name: item.index for item in interfaces()}
        assert announces_native_xdp(states["eth0"]) is True
        assert announces_native_xdp(states["lo"]) is False
        assert announces_native_xdp(999) is None


@pytest.mark.parametrize(
    ("name", "kind", "relation"),
    [("br0", "bridge", "master"), ("mv0", "macvlan", "link")],
    ids=["a port of a bridge", "below a macvlan"],
)
def test_an_interface_whose_packets_another_takes_gets_no_xdp(
    netns_pair: NetnsPair, name: str, kind: str, relation: str
) -> None:
    with netns_pair.host():
        with IPRoute() as ip:
            below = ip.link_lookup(ifname="eth0")[0]
            if relation == "link":
                ip.link("add", ifname=name, kind=kind, link=below)
            else:
                ip.link("add", ifname=name, kind=kind)
                ip.link("set", index=below, master=ip.link_lookup(ifname=name)[0])
        reason = f"{kind} {name} takes its packets before raw could see them as eth0's"
        assert set(modes_of("eth0").values()) == {Probe(Answer.NO, reason)}
        assert modes_of(name)[Mode.GENERIC] == YES


def test_gateways_are_the_next_hops_by_an_interface(netns_pair: NetnsPair) -> None:
    with netns_pair.host(), IPRoute() as ip:
        index = ip.link_lookup(ifname="eth0")[0]
        ip.addr("add", index=index, address="192.0.2.1", prefixlen=24)
        ip.route("add", dst="default", gateway="192.0.2.254")
        hops = [{"hops": 0, "gateway": f"192.0.2.{n}", "oif": index} for n in (252, 253)]
        ip.route("add", dst="198.51.100.0/24", multipath=hops)
        facts = probe_host("jasper", ["eth0"]).interface("eth0")
        assert facts is not None
        assert set(facts.gateways) == {ip_address(f"192.0.2.{n}") for n in (252, 253, 254)}


# -- probes --------------------------------------------------------------------------------------------------------


def test_a_veth_has_native_and_generic_xdp_and_no_hardware(netns_pair: NetnsPair) -> None:
    with netns_pair.host():
        assert modes_of("eth0") == {Mode.OFFLOAD: OFFLOAD_NO, Mode.NATIVE: YES, Mode.GENERIC: YES}
        eth0 = interface("eth0")
        assert eth0 is not None
        assert not eth0.xdp  # the probe's program is freed


def test_a_driver_without_native_xdp_says_no_and_why(netns_pair: NetnsPair) -> None:
    with netns_pair.host():
        assert modes_of("lo")[Mode.NATIVE] == Probe(Answer.NO, "the driver has no native XDP (EOPNOTSUPP)")
        assert modes_of("lo")[Mode.GENERIC] == YES


@pytest.mark.parametrize(
    ("kind", "word"),
    [("veth", "EINVAL"), ("tuntap", "EINVAL"), ("bridge", "EOPNOTSUPP"), ("ifb", "EOPNOTSUPP")],
    ids=["XDP in the driver", "XDP in tun", "no XDP", "no XDP in ifb"],
)
def test_drivers_without_hardware_for_xdp_say_so_in_the_kernels_word(
    netns_pair: NetnsPair, kind: str, word: str
) -> None:
    with netns_pair.host():
        with IPRoute() as ip:
            if kind != "veth":
                ip.link("add", ifname="t0", kind=kind, **({"mode": "tap"} if kind == "tuntap" else {}))
        name = "eth0" if kind == "veth" else "t0"
        reason = f"the driver runs no XDP programs in hardware ({word})"
        assert modes_of(name)[Mode.OFFLOAD] == Probe(Answer.NO, reason)


@pytest.mark.parametrize("mode", [Mode.NATIVE, Mode.GENERIC])
def test_our_own_program_is_not_disturbed_and_the_answers_stay(
    netns_pair: NetnsPair, pin_root: Path, mode: Mode
) -> None:
    backend = XdpBackend(pin_root)
    with netns_pair.host():
        without = modes_of("eth0")
        backend.apply(plan_of(["10.0.0.0/8"], mode=mode))
        before = interface("eth0")
        assert modes_of("eth0") == without
        assert interface("eth0") == before
        backend.detach()


def test_generic_xdp_of_ours_does_not_hide_that_there_is_no_native(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend = XdpBackend(pin_root)
    with netns_pair.host():
        backend.apply(plan_of(["10.0.0.0/8"], mode=Mode.GENERIC, interface="lo"))
        assert modes_of("lo")[Mode.NATIVE] == Probe(Answer.NO, "the driver announces no native XDP")
        backend.detach()


def test_a_foreign_program_is_no_to_every_mode_and_named(netns_pair: NetnsPair) -> None:
    with netns_pair.host():
        eth0 = interface("eth0")
        assert eth0 is not None
        fd = load_pass_program()
        with attach_xdp(fd, eth0.index, Mode.NATIVE):
            name = f"program id {program_info(fd).id} (enforcer_probe), native"
            facts = probe_host("jasper", ["eth0"]).interface("eth0")
            assert facts is not None
            assert facts.foreign_xdp == name
            assert set(facts.modes.values()) == {Probe(Answer.NO, f"eth0 has a foreign XDP {name}")}
        os.close(fd)


def test_only_the_requested_interfaces_are_probed_and_backends_answer_for_themselves(netns_pair: NetnsPair) -> None:
    raw = Probe(Answer.NO, "no ip_tables")
    with netns_pair.host():
        facts = probe_host("jasper", ["eth0", "eth7"], backends={Backend.IPTABLES: lambda: raw})
        assert [item.name for item in facts.interfaces] == ["eth0"]
        assert facts.backends == {Backend.IPTABLES: raw}
        assert facts.kernel == os.uname().release
        assert [item.name for item in probe_host("jasper").interfaces] == ["lo", "eth0"]
        assert probe_host("jasper", []).interfaces == ()


@pytest.mark.parametrize("free", range(3))
def test_no_descriptor_left_is_no_answer_of_the_driver(netns_pair: NetnsPair, free: int) -> None:
    """If it were taken for a "no" and cached, XDP would stay unused long after descriptors are available again."""

    def act() -> tuple[str, str]:
        enter(netns_pair.host_name)
        cache, states = ProbeCache(), [item for item in interfaces() if item.name == "eth0"]
        cache.begin(Resources())
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = [os.dup(0) for _ in range(free + 1)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(used), hard))
        for descriptor in used[:free]:
            os.close(descriptor)
        try:
            found = str(native(cache.facts("jasper", states)))
        except KernelError as error:  # no netlink socket
            found = errno.errorcode[error.errno]
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return found, str(native(cache.facts("jasper", states)))

    def native(facts: HostFacts) -> Answer:
        return facts.interfaces[0].modes[Mode.NATIVE].answer

    expected = ["EMFILE", str(Answer.UNKNOWN), str(Answer.YES)]
    assert forked(act) == (expected[free], str(Answer.YES))


def test_without_privilege_nothing_is_learned() -> None:
    """In a separate namespace, as the user nobody."""
    script = """
import os
from enforcer.kernel.probe import probe_host
os.setgid(65534); os.setuid(65534)
facts, = probe_host("jasper", ["lo"]).interfaces
print(*sorted({f"{probe.answer}: {probe.reason}" for probe in facts.modes.values()}), sep="\\n")
"""
    command = ["unshare", "--net", sys.executable, "-c", script]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert answer.stdout == "cannot tell: asking needs CAP_NET_ADMIN and CAP_BPF (root)\n"
