"""Which HostEndpoint governs an interface: a row is (endpoints, interface, its addresses, the one that governs)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from enforcer.policy.endpoint import governing_endpoint, is_host_interface
from enforcer.policy.resources import FelixConfiguration, HostEndpoint, Resources


def hep(name: str, interface: str = "", *addresses: str, node: str = "jasper") -> HostEndpoint:
    return HostEndpoint(
        name, node=node, interface_name=interface, expected_ips=tuple(ip_address(item) for item in addresses)
    )


NAMED, OTHER, ANY = hep("m", "eth0"), hep("n", "eth1"), hep("any", "*")
BY_ADDRESS = hep("b", "", "10.0.0.1")

ROWS: list[tuple[str, list[HostEndpoint], str, list[str], str | None]] = [
    ("the one that names it", [NAMED, OTHER], "eth0", [], "m"),
    ("none that names another", [OTHER], "eth0", ["10.0.0.1"], None),
    ("none of another node", [hep("m", "eth0", node="ruby")], "eth0", [], None),
    ("the one that expects its address", [BY_ADDRESS], "eth0", ["10.9.9.9", "10.0.0.1"], "b"),
    ("none that expects another address", [BY_ADDRESS], "eth0", ["10.0.0.2"], None),
    ("IPv6 addresses too", [hep("b", "", "fd00::1")], "eth0", ["fd00::1"], "b"),
    ("not by address when it names another interface", [hep("a", "eth1", "10.0.0.1")], "eth0", ["10.0.0.1"], None),
    ("by name even when the expected address is not there", [hep("a", "eth0", "10.0.0.9")], "eth0", ["10.0.0.1"], "a"),
    ("the smallest name of several", [hep("z", "eth0"), hep("k", "eth0")], "eth0", [], "k"),
    ("the smallest name, though it matched by address", [NAMED, BY_ADDRESS], "eth0", ["10.0.0.1"], "b"),
    ("* for what no other governs", [ANY, OTHER], "eth0", [], "any"),
    ("* loses against any specific one", [hep("a", "*"), NAMED], "eth0", [], "m"),
    ("the smallest * of several", [hep("y", "*"), hep("x", "*")], "eth0", [], "x"),
    ("* with expected addresses is not matched by them", [hep("x", "*", "10.0.0.1"), hep("y", "*")], "eth0", [], "x"),
    ("* never governs the loopback", [ANY], "lo", [], None),
    ("the loopback by name", [hep("l", "lo"), ANY], "lo", [], "l"),
    ("no workload interface, not even by name", [hep("w", "cali123"), ANY], "cali123", [], None),
    ("no excluded interface", [ANY], "kube-ipvs0", [], None),
    ("no endpoint at all", [], "eth0", [], None),
]


@pytest.mark.parametrize(
    ("endpoints", "interface", "addresses", "name"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_governs(endpoints: list[HostEndpoint], interface: str, addresses: list[str], name: str | None) -> None:
    found = governing_endpoint(
        Resources(host_endpoints=tuple(endpoints)),
        node="jasper",
        interface=interface,
        addresses=[ip_address(item) for item in addresses],
    )
    assert (found.name if found else None) == name


INTERFACES = [
    ("a prefix", "tap0", False),
    ("the prefix alone", "tap", False),
    ("a prefix within", "xtap0", True),
    ("an excluded name", "veth1", False),
    ("a name that begins like it", "veth10", True),
    ("an expression", "kube-x", False),
    ("an expression matches anywhere unless anchored", "a-dummy-b", False),
    ("an anchored expression", "a-kube", True),
]


@pytest.mark.parametrize(("interface", "is_host"), [row[1:] for row in INTERFACES], ids=[row[0] for row in INTERFACES])
def test_host_interfaces(interface: str, is_host: bool) -> None:
    felix = FelixConfiguration("x", interface_prefix=("tap", ""), interface_exclude=("veth1", "/^kube/", "/dummy/"))
    assert is_host_interface(interface, felix) is is_host


def test_one_endpoint_may_govern_several_interfaces() -> None:
    resources = Resources(host_endpoints=(hep("b", "", "10.0.0.1", "10.0.1.1"),))
    for interface, address in (("eth0", "10.0.0.1"), ("eth1", "10.0.1.1")):
        found = governing_endpoint(resources, node="jasper", interface=interface, addresses=[ip_address(address)])
        assert found is resources.host_endpoints[0]
