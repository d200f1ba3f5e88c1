"""The drivers of nf_tables implement their interface (``backends/base.py``): checked on the fake, without root."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from enforcer.backends.base import ApplyResult, BackendDriver
from enforcer.backends.nftables import NftablesBackend
from enforcer.backends.nftables.netdev import NetdevBackend
from enforcer.model.errors import UnsupportedKernelError
from enforcer.model.vocabulary import Action, Answer, Backend, Stage
from enforcer.planning.plan import InterfacePlan, Plan
from enforcer.policy.ruletable import RuleTable
from tests.support.fakes.calls import Fault
from tests.support.fakes.nft import FakeNfTables
from tests.unit.enforcer.backends.nftables.test_nftables_render import entry, table

NAMES = ("eth0", "eth1")
TABLES = [table(entry(0, Action.DENY, protocol=6), interface=name) for name in NAMES]
ENTRIES = tuple(item.name for item in TABLES[0].ingress)
EMPTY = Plan("node", ())

Drivers = Callable[[FakeNfTables], BackendDriver]


def raw_plan(*tables: RuleTable) -> Plan:
    return Plan("node", tuple(InterfacePlan(item, None, Backend.NFTABLES, ()) for item in tables))


def netdev_plan(*tables: RuleTable) -> Plan:
    return Plan("node", tuple(InterfacePlan(item, None, Backend.IPTABLES, (), held=1, netdev=True) for item in tables))


EACH = [
    pytest.param(lambda nft: NftablesBackend(connect=nft.connect), raw_plan, id="raw"),
    pytest.param(lambda nft: NetdevBackend(connect=nft.connect), netdev_plan, id="netdev ingress"),
]
Plans = Callable[..., Plan]


@pytest.mark.parametrize(("make", "plan"), EACH)
def test_what_is_applied_is_told_until_it_is_detached(make: Drivers, plan: Plans) -> None:
    driver = make(FakeNfTables())
    assert driver.apply(plan(*TABLES)).changes
    assert driver.apply(plan(*TABLES)) == ApplyResult()
    assert driver.interfaces() == dict.fromkeys(NAMES, driver.stage)
    status = driver.status()
    assert {name: item.entries for name, item in status.items()} == dict.fromkeys(NAMES, ENTRIES)
    assert {item.stage for item in status.values()} == {driver.stage}
    counts = sorted((item.interface, item.entry, item.stage, item.packets) for item in driver.counters())
    assert counts == [(name, ENTRIES[0], driver.stage, 0) for name in NAMES]
    assert driver.detach(["eth0"])
    assert list(driver.interfaces()) == ["eth1"]
    assert driver.detach()
    assert (driver.detach(), driver.interfaces(), driver.status(), driver.counters()) == ((), {}, {}, ())


@pytest.mark.parametrize(("make", "plan"), EACH)
def test_a_dry_run_says_the_same_and_changes_nothing(make: Drivers, plan: Plans) -> None:
    nft = FakeNfTables()
    driver = make(nft)
    said = driver.apply(plan(*TABLES), dry_run=True)
    assert nft.tables == {}
    assert driver.apply(plan(*TABLES)) == said


@pytest.mark.parametrize(("make", "plan"), EACH)
def test_without_anything_of_ours_a_plan_for_others_reads_no_more_than_that(make: Drivers, plan: Plans) -> None:
    nft = FakeNfTables()
    driver = make(nft)
    assert not driver.serves(EMPTY)
    assert driver.apply(EMPTY) == ApplyResult()
    assert nft.calls.log
    assert all(call.startswith("look for table") for call in nft.calls.log)
    driver.apply(plan(*TABLES))
    assert driver.apply(EMPTY).changes
    assert nft.tables == {}


@pytest.mark.parametrize(("make", "plan"), EACH)
def test_listing_interfaces_reads_no_set_and_no_rules_of_entries(make: Drivers, plan: Plans) -> None:
    nft = FakeNfTables()
    driver = make(nft)
    driver.apply(plan(*TABLES))
    nft.calls.log.clear()
    driver.interfaces()
    assert not [call for call in nft.calls.log if call.startswith("list set")]


@pytest.mark.parametrize(("make", "plan"), EACH)
def test_a_kernel_without_it_holds_nothing_and_says_no(make: Drivers, plan: Plans) -> None:
    nft = FakeNfTables()
    driver = make(nft)
    driver.apply(plan(*TABLES))

    def absent() -> BaseException:
        return UnsupportedKernelError("the kernel has no such part of nf_tables")

    for read in (driver.interfaces, driver.status, driver.counters, driver.detach):
        nft.calls.fault = Fault(len(nft.calls.log), absent)
        assert not read()
    nft.tables.clear()
    nft.calls.fault = Fault(len(nft.calls.log), absent)
    with pytest.raises(UnsupportedKernelError):
        driver.apply(plan(*TABLES))  # what should be enforced and cannot be is reported


def test_probes_prepare_everything_and_leave_nothing() -> None:
    nft = FakeNfTables()
    assert NftablesBackend(connect=nft.connect).probe().answer is Answer.YES
    assert NetdevBackend(connect=nft.connect).probe().answer is Answer.YES
    assert nft.tables == {}


def test_the_drivers_do_not_see_each_others_tables() -> None:
    nft = FakeNfTables()
    raw, netdev = NftablesBackend(connect=nft.connect), NetdevBackend(connect=nft.connect)
    raw.apply(raw_plan(TABLES[0]))
    netdev.apply(netdev_plan(TABLES[1]))
    assert (raw.interfaces(), netdev.interfaces()) == ({"eth0": Stage.RAW}, {"eth1": Stage.NETDEV_INGRESS})
    netdev.detach()
    assert (list(raw.interfaces()), netdev.interfaces()) == (["eth0"], {})
    assert raw.others_rules().count == 0
