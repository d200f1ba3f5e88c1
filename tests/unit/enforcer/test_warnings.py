"""Warnings of valid input that is probably not meant."""

from __future__ import annotations

import pytest

from enforcer.enforcement.warnings import warnings_of
from enforcer.planning.plan import Plan
from enforcer.policy.load import load_text
from enforcer.policy.resources import Resources

ENDPOINT = "{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: %s}, spec: {node: %s, %s}}"
RIVALS = "HostEndpoints a, b are all for interface eth0; only a, the first name, counts"


def endpoints(*rows: tuple[str, str, str]) -> Resources:
    return load_text("\n---\n".join(ENDPOINT % row for row in rows))


def warned(resources: Resources) -> list[str]:
    return list(warnings_of("jasper", resources, Plan("jasper", ()), ()))


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (("a", "jasper", "interfaceName: eth0"), True),
        (("a", "jasper", "interfaceName: eth1"), False),
        (("a", "other", "interfaceName: eth0"), False),
        (("a", "jasper", "expectedIPs: [192.0.2.1]"), False),
    ],
    ids=["of the same interface", "of another interface", "of another node", "of an address"],
)
def test_two_hostendpoints_of_one_interface_contradict_each_other(other: tuple[str, str, str], says: bool) -> None:
    found = warned(endpoints(("b", "jasper", "interfaceName: eth0"), other))
    assert (RIVALS in found) is says


def test_the_nodes_of_a_fleet_are_not_all_named() -> None:
    fleet = endpoints(*((f"e{number:03}", f"node{number:03}", "interfaceName: eth0") for number in range(100)))
    (first, *_) = warned(fleet)
    assert "nodes with HostEndpoints: node000, node001," in first
    assert "node009 and 90 more" in first
    assert "none at all" in warned(Resources())[0]
