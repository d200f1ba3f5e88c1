"""The driver of legacy iptables implements its interface (``backends/base.py``): checked on the fake, without root."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from enforcer.backends.base import ApplyResult, Fill, Holding
from enforcer.backends.iptables import IptablesBackend
from enforcer.backends.iptables.blob import SetIndex, encode
from enforcer.backends.iptables.members import members_of
from enforcer.backends.iptables.rules import Jump, Rule, SetType, TableId, TableName, Verdict
from enforcer.backends.netfilter.names import is_our_chain, is_our_set
from enforcer.model.errors import KernelError, PrivilegeError, UnsupportedKernelError
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action, Answer, Backend, Stage
from enforcer.planning.plan import Plan
from tests.kernel.iptables_plans import ALLOW, DENY, RAW4, RAW6, entry, ip_set, plan, source, table
from tests.support.entries import SideMatch
from tests.support.fakes.calls import Fault, Killed
from tests.support.fakes.xtables import FakeXtables
from tests.support.host_plans import plan_of

SETS = [ip_set("s:a", ["10.0.0.1", "10.1.0.0/16", "2001:db8::1"]), ip_set("s:b", ["192.0.2.0/24"])]
BY_A, BY_B = (entry(at, DENY, source=SideMatch(ip_set=f"s:{name}")) for at, name in enumerate("ab"))
BY_NET = entry(2, Action.DENY, source=source("203.0.113.0/24"))
LETS = entry(3, ALLOW, source=source("198.51.100.0/24"))
ONE = table(BY_A, BY_NET, sets=SETS)
TWO = table(BY_B, BY_NET, LETS, interface="eth1", sets=SETS)
BOTH = plan(ONE, TWO)
FILTER4 = TableId(4, TableName.FILTER)


def driver_of(host: FakeXtables) -> IptablesBackend:
    return IptablesBackend(tables=host, connect=host.connect)


def others(host: FakeXtables) -> None:
    """A rule, a chain and a set that are not ours."""
    with host.lock(), host.open(RAW4) as raw:
        raw.create_chain("cali-PREROUTING")
        raw.insert("cali-PREROUTING", 0, encode(Rule(Verdict.DROP, protocol=47), 4, SetIndex({})))
        raw.insert("PREROUTING", 0, encode(Rule(Jump("cali-PREROUTING")), 4, SetIndex({})))
        raw.commit()
    host.create("cali40s:other", SetType.NET, 4, 1, limit=1)


def everything(host: FakeXtables) -> tuple[Mapping[object, object], Mapping[object, object]]:
    """All rules and sets, without chains that have no rules."""
    chains = {
        (where, name): rules
        for where, found in host.tables.items()
        for name, rules in found.chains.items()
        if rules or name not in found.policies
    }
    return chains, {name: item.members for name, item in host.sets.items()}


def ours(host: FakeXtables) -> tuple[set[str], set[str]]:
    chains = {name for found in host.tables.values() for name in found.chains if is_our_chain(name)}
    return chains, {name for name in host.sets if is_our_set(name)}


def test_what_is_applied_is_told_until_it_is_detached() -> None:
    host = FakeXtables()
    driver = driver_of(host)
    assert driver.apply(BOTH).changes
    assert driver.apply(BOTH) == ApplyResult()
    assert driver.interfaces() == {"eth0": Stage.RAW, "eth1": Stage.RAW}
    names = {name: item.entries for name, item in driver.status().items()}
    assert names == {"eth0": (BY_A.name, BY_NET.name), "eth1": (BY_B.name, BY_NET.name, LETS.name)}
    counts = [(item.interface, item.entry, item.stage, item.packets) for item in driver.counters()]
    assert sorted(counts) == sorted((name, item, Stage.RAW, 0) for name in names for item in names[name])
    assert driver.detach(["eth0"])
    assert list(driver.interfaces()) == ["eth1"]
    assert driver.detach()
    assert (driver.detach(), driver.interfaces(), driver.status(), driver.counters()) == ((), {}, {}, ())
    assert ours(host) == (set(), set())


def test_a_dry_run_says_the_same_and_changes_nothing() -> None:
    host = FakeXtables()
    driver = driver_of(host)
    said = driver.apply(BOTH, dry_run=True)
    assert (host.tables, host.sets) == ({}, {})
    assert driver.apply(BOTH) == said


# --- counters ---------------------------------------------------------------------------------------------------------


def test_counters_are_those_of_both_families_by_interface_and_entry() -> None:
    """An entry's count is the sum of IPv4 and IPv6; an entry of one family has that family's count."""
    host = FakeXtables()
    driver = driver_of(host)
    driver.apply(BOTH)
    host.count(RAW4, 3, 300)
    host.count(RAW6, 4, 4000)
    found = {(item.interface, item.entry): (item.packets, item.bytes) for item in driver.counters()}
    assert found[("eth0", BY_A.name)] == (7, 4300)
    assert found[("eth0", BY_NET.name)] == found[("eth1", BY_NET.name)] == (3, 300)
    assert len(found) == len(driver.counters())


def test_counters_of_what_stays_go_on() -> None:
    host = FakeXtables()
    driver = driver_of(host)
    driver.apply(BOTH)
    host.count(RAW4, 5, 50)
    driver.detach(["eth0"])
    driver.apply(plan(table(BY_B, BY_NET, interface="eth1", sets=SETS)))
    assert {item.entry: item.packets for item in driver.counters()}[BY_NET.name] == 5


def test_rules_of_others_are_not_counted() -> None:
    host = FakeXtables()
    others(host)
    driver = driver_of(host)
    driver.apply(plan(table(BY_NET)))
    host.count(RAW4, 1, 10)
    assert [(item.entry, item.packets, item.bytes) for item in driver.counters()] == [(BY_NET.name, 1, 10)]


# --- status -----------------------------------------------------------------------------------------------------------


def test_status_has_the_sets_of_an_interface_with_what_they_hold() -> None:
    host = FakeXtables()
    driver = driver_of(host)
    driver.apply(plan(ONE))
    [(four, six)] = [sorted(name for name in host.sets if is_our_set(name))]
    limits = [host.sets[name].header.maxelem for name in (four, six)]
    assert driver.status() == {
        "eth0": Holding(
            Stage.RAW,
            (BY_A.name, BY_NET.name),
            (Fill(f"ipset {four}", Stage.RAW, 2, limits[0]), Fill(f"ipset {six}", Stage.RAW, 1, limits[1])),
        )
    }


def test_status_has_no_set_of_another_interface() -> None:
    host = FakeXtables()
    driver = driver_of(host)
    driver.apply(plan(table(BY_A, sets=SETS), table(BY_B, interface="eth1", sets=SETS)))
    used = {name: [item.used for item in found.fills] for name, found in driver.status().items()}
    assert used == {"eth0": [2, 1], "eth1": [1, 0]}


def test_status_of_a_shared_set_is_the_same_on_each_interface_and_lists_no_members() -> None:
    host = FakeXtables()
    others(host)
    driver = driver_of(host)
    driver.apply(plan(ONE, table(BY_A, interface="eth1", sets=SETS)))
    host.calls.log.clear()
    found = driver.status()
    assert found["eth0"].fills == found["eth1"].fills != ()
    assert listed(host) == []


def test_listing_interfaces_lists_no_set() -> None:
    host = FakeXtables()
    driver = driver_of(host)
    driver.apply(BOTH)
    host.calls.log.clear()
    assert set(driver.interfaces()) == {"eth0", "eth1"}
    assert listed(host) == []


# --- what a pass lists ------------------------------------------------------------------------------------------------


def listed(host: FakeXtables) -> list[str]:
    """The sets whose members were listed."""
    return [call.removeprefix("list ipset ") for call in host.calls.log if call.startswith("list ipset ")]


def with_more(*nets: str) -> Plan:
    """``plan(ONE)`` with these CIDRs more in its set."""
    return plan(table(BY_A, BY_NET, sets=[ip_set("s:a", ["10.0.0.1", "10.1.0.0/16", "2001:db8::1", *nets]), SETS[1]]))


def four_of(host: FakeXtables) -> str:
    return min(name for name in host.sets if is_our_set(name))


def held(host: FakeXtables) -> list[bytes]:
    return sorted(host.sets[four_of(host)].members)


def passed_twice(host: FakeXtables) -> IptablesBackend:
    """A driver that has listed the sets of ``plan(ONE)``."""
    driver = driver_of(host)
    driver.apply(plan(ONE))
    assert driver.apply(plan(ONE)) == ApplyResult()
    host.calls.log.clear()
    return driver


def test_a_set_that_changes_is_listed_by_the_pass_after() -> None:
    host = FakeXtables()
    driver, four = passed_twice(host), four_of(host)
    assert driver.apply(with_more("10.2.0.0/16")).changes == (f"ipset {four}: 1 members added",)
    assert four not in listed(host)
    assert driver.apply(with_more("10.2.0.0/16")) == ApplyResult()
    assert four in listed(host)


def test_of_a_set_that_changes_a_missing_member_is_added_again() -> None:
    """Its header has another number of members than the last pass left, so the set is listed."""
    host = FakeXtables()
    driver, four = passed_twice(host), four_of(host)
    host.delete(four, 4, members_of(Nets.of(["10.1.0.0/16"]), 4))
    assert driver.apply(with_more("10.2.0.0/16")).changes == (f"ipset {four}: 2 members added",)
    assert four in listed(host)


def test_of_a_set_that_changes_an_exchanged_member_is_restored_by_the_pass_after() -> None:
    host = FakeXtables()
    driver, four = passed_twice(host), four_of(host)
    host.delete(four, 4, members_of(Nets.of(["10.1.0.0/16"]), 4))
    host.add(four, 4, members_of(Nets.of(["192.0.2.9"]), 4))
    driver.apply(with_more("10.2.0.0/16"))
    assert set(driver.apply(with_more("10.2.0.0/16")).changes) == {
        f"ipset {four}: 1 members added",
        f"ipset {four}: 1 members deleted",
    }
    untouched = FakeXtables()
    driver_of(untouched).apply(with_more("10.2.0.0/16"))
    assert held(host) == held(untouched)


def test_a_set_that_another_program_put_in_the_place_of_ours_is_listed() -> None:
    host = FakeXtables()
    driver, four = passed_twice(host), four_of(host)
    host.sets[four] = replace(host.sets[four], header=replace(host.sets[four].header, index=77))
    driver.apply(with_more("10.2.0.0/16"))
    assert four in listed(host)


# --- detach -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [["eth0"], ["eth1"]])
def test_what_is_left_is_what_would_be_applied_without_the_interface(gone: list[str]) -> None:
    """Chains and sets that only it needed are deleted; the rules for the accept mark go with the last Allow."""
    host, fresh = FakeXtables(), FakeXtables()
    for each in (host, fresh):
        others(each)
    driver_of(host).apply(BOTH)
    assert driver_of(host).detach(gone)
    driver_of(fresh).apply(plan(TWO if gone == ["eth0"] else ONE))
    assert ours(host) == ours(fresh)
    driver_of(host).apply(plan(TWO if gone == ["eth0"] else ONE))
    assert everything(host)[1] == everything(fresh)[1]
    assert ("enf-INPUT" in host.tables[FILTER4].chains) == (gone == ["eth0"])


def test_only_sets_that_no_rule_matches_any_more_are_destroyed() -> None:
    host = FakeXtables()
    driver = driver_of(host)
    driver.apply(BOTH)
    before = ours(host)[1]
    host.calls.log.clear()
    driver.detach(["eth0"])
    destroyed = {call.removeprefix("destroy ipset ") for call in host.calls.log if call.startswith("destroy")}
    assert destroyed == before - ours(host)[1] != set()


def test_a_hook_that_is_needed_still_stays_where_it_is() -> None:
    host = FakeXtables()
    driver = driver_of(host)
    driver.apply(BOTH)
    others(host)  # before ours
    hooks = host.tables[RAW4].chains["PREROUTING"]
    assert len(hooks) == 2
    driver.detach(["eth0"])
    assert host.tables[RAW4].chains["PREROUTING"] == hooks


def test_an_interface_that_has_nothing_is_no_change() -> None:
    host = FakeXtables()
    driver = driver_of(host)
    driver.apply(BOTH)
    before = everything(host)
    assert driver.detach(["eth7"]) == ()
    assert everything(host) == before


def test_what_is_not_ours_stays() -> None:
    host = FakeXtables()
    others(host)
    before = everything(host)
    driver = driver_of(host)
    driver.apply(BOTH)
    assert everything(host) != before
    driver.detach()
    assert everything(host) == before


def test_wherever_a_detach_is_killed_the_next_one_removes_the_rest() -> None:
    clean = FakeXtables()
    driver_of(clean).apply(BOTH)
    first = len(clean.calls.log)
    driver_of(clean).detach()
    count = len(clean.calls.log) - first
    assert count > 20
    for number in range(count):
        host = FakeXtables()
        others(host)
        before = everything(host)
        driver_of(host).apply(BOTH)
        host.calls.fault = Fault(len(host.calls.log) + number, Killed, after=True)
        with pytest.raises(Killed):
            driver_of(host).detach()
        host.calls.fault = None
        driver_of(host).detach()
        assert everything(host) == before


# --- without anything of ours -----------------------------------------------------------------------------------------


def test_without_anything_of_ours_nothing_is_made() -> None:
    host = FakeXtables()
    driver, empty = driver_of(host), Plan("node", ())
    assert not driver.serves(empty)
    assert driver.apply(empty) == ApplyResult()
    assert (driver.detach(), driver.interfaces(), driver.status(), driver.counters()) == ((), {}, {}, ())
    assert (host.tables, host.sets) == ({}, {})
    driver.apply(BOTH)
    assert driver.apply(empty).changes
    assert ours(host) == (set(), set())


def test_a_kernel_without_it_holds_nothing_and_says_no() -> None:
    host = FakeXtables()
    driver = driver_of(host)
    driver.apply(BOTH)

    def absent() -> BaseException:
        return UnsupportedKernelError("the kernel has no legacy tables")

    for read in (driver.interfaces, driver.status, driver.counters, driver.detach):
        host.calls.fault = Fault(len(host.calls.log), absent)
        assert not read()
    host.calls.fault = Fault(len(host.calls.log), absent)
    assert driver.probe().answer is Answer.NO
    host.calls.fault = None
    assert driver.probe().answer is Answer.YES


@pytest.mark.parametrize(
    "error", [KernelError("injected", number=errno.ENOMEM), PrivilegeError("injected")], ids=["memory", "privilege"]
)
def test_what_cannot_be_read_is_not_taken_for_nothing(error: Exception) -> None:
    host = FakeXtables()
    driver = driver_of(host)
    driver.apply(BOTH)
    before = everything(host)
    for read in (driver.interfaces, driver.status, driver.counters):
        first = len(host.calls.log)
        read()
        _fails_throughout(host, read, len(host.calls.log) - first, error)
    _fails_throughout(host, driver.detach, _calls_before_a_change(BOTH), error)
    assert everything(host) == before


def _fails_throughout(host: FakeXtables, read: Callable[[], object], count: int, error: Exception) -> None:
    assert count > 3
    for number in range(count):
        host.calls.fault = Fault(len(host.calls.log) + number, lambda: error)
        with pytest.raises(type(error)):
            read()
    host.calls.fault = None


def _calls_before_a_change(applied: Plan) -> int:
    """The number of reads of a detach before its first change."""
    host = FakeXtables()
    driver = driver_of(host)
    driver.apply(applied)
    first, changing = len(host.calls.log), list[int]()
    host.calls.observe = lambda _: changing.append(len(host.calls.log) - 1 - first)
    driver.detach()
    return changing[0]


def test_the_rules_of_others_are_counted() -> None:
    host = FakeXtables()
    driver = driver_of(host)
    others(host)
    assert driver.others_rules().count == 2
    driver.apply(BOTH)
    assert driver.others_rules().count == 2


def test_a_plan_for_another_backend_is_not_served() -> None:
    driver = driver_of(FakeXtables())
    assert driver.serves(BOTH)
    assert not driver.serves(plan_of(Backend.NFTABLES, ONE, TWO))
