"""Address tables in the kernel: shared by interfaces, and changed under a flood without passing a packet."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from enforcer.backends.xdp.backend import XdpBackend
from enforcer.backends.xdp.lists import Lists
from enforcer.backends.xdp.state import manifest as manifests
from enforcer.backends.xdp.state.layout import MANIFEST, Pins, TablePins
from enforcer.kernel.bpf.libbpf_conn import LIBBPF
from enforcer.kernel.netns import current_inode
from enforcer.model.errors import KernelError
from enforcer.model.vocabulary import Mode
from enforcer.planning.plan import Plan
from tests.kernel.conftest import NetnsPair
from tests.kernel.xdp_support import counts, flood, interface_plan, passes, plan_of, sniffer, udp_from
from tests.support.examples import examples

pytestmark = pytest.mark.needs_root

UPDATES, REBUILDS = examples(3_000, nightly=100_000), 10
SET = "s:0"


def neighbours(rng: random.Random) -> str:
    """A random CIDR, or one that shares a /16, a /24 or a list with those that are always listed."""
    host = rng.randrange(256)
    return rng.choice(
        [
            f"203.0.113.{host}",
            f"203.0.{host}.0/24",
            f"203.{host}.0.0/16",
            f"198.51.100.{host & 0xF8}/29",
            f"10.{host}.{rng.randrange(256)}.0/24",
        ]
    )


@pytest.mark.long
def test_thousands_of_updates_and_rebuilds_let_nothing_of_a_listed_cidr_through(
    netns_pair: NetnsPair, pin_root: Path
) -> None:
    backend, rng = XdpBackend(pin_root), random.Random(4)
    always = ["203.0.113.1", "203.0.113.255", "198.51.100.7", "192.0.2.200"]
    listed = ["203.0.113.1", "203.0.113.255", "198.51.100.0/27", "192.0.2.128/25"]
    with netns_pair.host():
        backend.apply(plan_of(listed))
    with sniffer(netns_pair) as ears, flood(netns_pair, always) as sent:
        ears.setblocking(False)
        with netns_pair.host():
            for rebuild in range(REBUILDS):
                # Another policy: new tables are built, and the program is replaced by one that uses them.
                plan = plan_of(listed, *[["100.64.0.0/10"]] * (rebuild % 2))
                assert not backend.apply(plan).refused
                _update(pin_root, plan, rng, UPDATES // REBUILDS)
        with pytest.raises(BlockingIOError):
            ears.recv(2048)
    with netns_pair.host():
        assert counts(backend)["deny0"] == sent[0] > UPDATES
        assert not XdpBackend(pin_root).apply(plan).refused
        backend.detach()


def _update(pin_root: Path, plan: Plan, rng: random.Random, count: int) -> None:
    """Add and remove single CIDRs; what is always listed is never removed."""
    extra: set[str] = set()
    with Lists(pin_root, plan) as lists:
        for number in range(count):
            cidr = neighbours(rng)
            if cidr in ("203.0.113.1", "203.0.113.255"):
                continue
            if cidr in extra:
                lists.remove(SET, [cidr])
                extra.remove(cidr)
            else:
                lists.add(SET, [cidr])
                extra.add(cidr)
            if number % 50 == 0:
                lists.reclaim()


def test_a_cidr_is_enforced_when_add_returns_and_no_more_when_remove_does(
    netns_pair: NetnsPair, pin_root: Path
) -> None:
    backend, plan = XdpBackend(pin_root), plan_of(["203.0.113.0/24", "2001:db8::/48"])
    with netns_pair.host():
        backend.apply(plan)
        with Lists(pin_root, plan) as lists:
            assert lists.add(SET, ["198.51.100.0/24"])
            assert not lists.add(SET, ["203.0.113.7"])
    assert not passes(netns_pair, udp_from("198.51.100.255"))
    with netns_pair.host(), Lists(pin_root, plan) as lists:
        assert lists.remove(SET, ["203.0.113.0/24"])
    assert passes(netns_pair, udp_from("203.0.113.7"))
    assert not passes(netns_pair, udp_from("198.51.100.255"))
    with netns_pair.host():
        # The next pass makes the tables equal to the plan.
        assert backend.apply(plan).changes == ("eth0: address lists changed in place (1 entry, 2 CIDRs)",)
    assert passes(netns_pair, udp_from("198.51.100.255"))
    with netns_pair.host():
        backend.detach()


def test_lists_that_are_not_in_force_cannot_be_changed(netns_pair: NetnsPair, pin_root: Path) -> None:
    with netns_pair.host(), pytest.raises(KernelError, match="apply a plan first"):
        Lists(pin_root, plan_of(["203.0.113.0/24"]))


def test_interfaces_share_the_tables_and_keep_their_own_policies(netns_pair: NetnsPair, pin_root: Path) -> None:
    netns_pair.make_veth("eth1", "wire1")
    backend = XdpBackend(pin_root)
    one = interface_plan(["203.0.113.0/24"], mode=Mode.NATIVE, interface="eth0")
    two = interface_plan(["203.0.113.0/24"], ["198.51.100.0/24"], mode=Mode.GENERIC, interface="eth1", prefix="other")
    with netns_pair.host():
        backend.apply(Plan("jasper", (one, two)))
        tables = manifests.read_tables(LIBBPF, TablePins.of(LIBBPF, pin_root, current_inode()).directory / MANIFEST)
        used = [
            manifests.read(LIBBPF, Pins.of(LIBBPF, pin_root, name).directory / MANIFEST) for name in ("eth0", "eth1")
        ]
    assert tables is not None
    assert [item.tables for item in used if item] == [tables.maps[0]] * 2
    assert passes(netns_pair, udp_from("198.51.100.1"))
    assert not passes(netns_pair, udp_from("198.51.100.1"), near="eth1", far="wire1")
    assert not passes(netns_pair, udp_from("203.0.113.1"))
    with netns_pair.host():
        # The second interface is detached: the first stays; with the last one, the tables are removed.
        backend.apply(Plan("jasper", (one,)))
    assert not passes(netns_pair, udp_from("203.0.113.1"))
    with netns_pair.host():
        backend.detach()
