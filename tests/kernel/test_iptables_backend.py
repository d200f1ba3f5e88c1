"""The raw-table backend and the kernel's tables: what is programmed, repaired and left alone."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enforcer.backends.iptables import IptablesBackend, Settings, installed_chains, probe
from enforcer.backends.iptables import table as raw_module
from enforcer.backends.iptables.blob import SetIndex, encode
from enforcer.backends.iptables.render import render
from enforcer.backends.iptables.rules import Rule, Verdict, save_line
from enforcer.errors import HostError
from enforcer.policy.resources import DEFAULT_FAILSAFE_INBOUND, DEFAULT_FAILSAFE_OUTBOUND, IcmpMatch
from enforcer.policy.ruletable import AddressMatch
from enforcer.words import Action, Answer, Direction
from tests.kernel.iptables_support import (
    SAVE,
    dport,
    entered,
    entry,
    ip_set,
    namespace,
    nets,
    plan,
    ports,
    run,
    source,
    table,
)

pytestmark = pytest.mark.needs_root

ALLOW, DENY, LOG, PASS = Action.ALLOW, Action.DENY, Action.LOG, Action.PASS
BACKEND = IptablesBackend()

DENY_LIST = ip_set("s:deny", ["203.0.113.0/24", "198.51.100.7", "2001:db8:bad::/48"])
FROM_LIST = AddressMatch(ip_set="s:deny")
FAILSAFES = {"inbound": DEFAULT_FAILSAFE_INBOUND, "outbound": DEFAULT_FAILSAFE_OUTBOUND}

# One of everything a rule can hold.
RICH = table(
    entry(0, LOG, tier="security", protocol=17),
    entry(1, PASS, tier="security", source=source("192.0.2.0/24")),
    entry(2, DENY, tier="security", source=FROM_LIST),
    entry(3, DENY, tier="security", protocol=6, destination=dport(80, (8000, 8080))),
    entry(4, DENY, tier="security", protocol=17, destination=AddressMatch(not_ports=ports(*range(1, 60, 2)))),
    entry(5, DENY, tier="security", protocol=132, source=dport(*range(1, 60, 2))),
    entry(0, ALLOW, source=AddressMatch(nets=nets("10.0.0.0/8"), not_nets=nets("10.1.0.0/16"))),
    entry(1, DENY, source=source("10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0")),
    entry(2, DENY, not_protocol=6, destination=AddressMatch(not_nets=nets("10.0.0.0/8"))),
    entry(3, DENY, not_protocol=6, destination=AddressMatch(not_nets=nets("2001:db8::/32"))),
    entry(4, DENY, protocol=253),
    entry(5, DENY, protocol=1, icmp=IcmpMatch(8, 0)),
    entry(6, DENY, protocol=58, not_icmp=IcmpMatch(128)),
    entry(7, DENY, protocol=136, policy="quo'te\"d-" + "x" * 250),
    egress=(entry(0, DENY, direction=Direction.EGRESS, destination=FROM_LIST),),
    sets=[DENY_LIST],
    **FAILSAFES,
)


@pytest.fixture
def inside() -> Iterator[str]:
    """The test runs in a fresh namespace."""
    with namespace() as name, entered(name):
        yield name


def saved(version: int, *options: str) -> list[str]:
    """What iptables-save says of raw, without its dates."""
    lines = run(SAVE[version], "-t", "raw", *options).splitlines()
    return [line for line in lines if not line.startswith("#")]


def everything() -> list[str]:
    sets = [line for line in run("ipset", "save").splitlines() if line]
    creates = [line.split(" hashsize")[0] for line in sets if line.startswith("create")]
    return [*saved(4), *saved(6), *sorted(creates), *sorted(line for line in sets if line.startswith("add"))]


# --- what is programmed -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
def test_iptables_save_reads_exactly_what_was_rendered(inside: str, version: int) -> None:
    BACKEND.apply(plan(RICH))
    chains = render(plan(RICH), Settings()).chains[version]
    expected = {save_line(chain.name, rule, version) for chain in chains for rule in chain.rules}
    found = {line for line in saved(version) if line.startswith("-A enf-")}
    assert found == expected
    assert not any("REJECT" in line for line in found)
    assert "-A PREROUTING -j enf-PREROUTING" in saved(version)
    assert "-A OUTPUT -j enf-OUTPUT" in saved(version)


def test_read_back_is_what_was_rendered(inside: str) -> None:
    BACKEND.apply(plan(RICH))
    for version, chains in render(plan(RICH), Settings()).chains.items():
        assert {chain.name: chain for chain in installed_chains(version)} == {chain.name: chain for chain in chains}


def test_applying_again_changes_nothing(inside: str) -> None:
    assert BACKEND.apply(plan(RICH)).changes
    before = everything()
    assert BACKEND.apply(plan(RICH)).changes == ()
    assert everything() == before


def test_a_dry_run_says_what_apply_does_and_does_nothing(inside: str) -> None:
    announced = BACKEND.apply(plan(RICH), dry_run=True)
    assert everything() == ["*raw", ":PREROUTING ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]", "COMMIT"] * 2
    assert BACKEND.apply(plan(RICH)) == announced
    other = plan(table(entry(0, DENY, source=FROM_LIST), sets=[ip_set("s:deny", ["10.0.0.0/8"])]))
    before = everything()
    announced = BACKEND.apply(other, dry_run=True)
    assert everything() == before
    assert BACKEND.apply(other) == announced


def test_a_plan_without_entries_makes_no_table(inside: str) -> None:
    assert BACKEND.apply(plan(table(**FAILSAFES))).changes == ()
    assert BACKEND.counters() == ()
    assert BACKEND.detach() == ()
    assert not any(raw_module.exists(version) for version in (4, 6))


@pytest.mark.parametrize("mode", ["insert", "append"])
def test_the_hook_is_where_the_insert_mode_says(inside: str, mode: str) -> None:
    run("iptables-legacy", "-t", "raw", "-A", "PREROUTING", "-p", "tcp")
    backend = IptablesBackend(Settings(insert_mode=mode))
    backend.apply(plan(RICH))
    hooks = [line for line in saved(4) if line.startswith("-A PREROUTING")]
    assert hooks.index("-A PREROUTING -j enf-PREROUTING") == (0 if mode == "insert" else 1)
    assert backend.apply(plan(RICH)).changes == ()


def test_namespaces_of_one_process_are_kept_apart() -> None:
    other = table(entry(0, DENY, protocol=253))
    with namespace() as first, namespace() as second:
        with entered(first):
            BACKEND.apply(plan(RICH))
            alone = everything()
        with entered(second):
            BACKEND.apply(plan(other))
            assert [item.entry for item in BACKEND.counters()] == ["gnp/edge ingress[0]"]
        with entered(first):
            assert everything() == alone
            assert BACKEND.apply(plan(RICH)).changes == ()
            BACKEND.detach()
        with entered(second):
            assert BACKEND.apply(plan(other)).changes == ()


def test_a_thread_acts_in_its_own_namespace(inside: str) -> None:
    with namespace() as other:

        def apply_there() -> None:
            with entered(other):
                BACKEND.apply(plan(RICH))

        thread = threading.Thread(target=apply_there)
        thread.start()
        thread.join()
        assert installed_chains(4) == ()
        with entered(other):
            assert installed_chains(4)


# --- what is left alone -------------------------------------------------------------------------------

FOREIGN = """*raw
:PREROUTING ACCEPT [11:1100]
:OUTPUT ACCEPT [12:1200]
:cali-PREROUTING - [0:0]
:mine - [0:0]
[7:700] -A PREROUTING -j cali-PREROUTING
[8:800] -A PREROUTING -i lo -p tcp -m tcp --dport 22 --tcp-flags SYN,RST SYN -j mine
[9:900] -A OUTPUT -m owner --uid-owner 0 -j RETURN
[1:100] -A cali-PREROUTING -j MARK --set-xmark 0x0/0xffff0000
[2:200] -A mine -m limit --limit 5/min -j ACCEPT
[3:300] -A mine ! -i eth+ -f -j DROP
COMMIT
"""


def test_foreign_rules_keep_their_place_and_their_counters(inside: str) -> None:
    run("iptables-legacy-restore", "-c", text=FOREIGN)
    run("ipset", "create", "mine", "hash:ip")
    before = saved(4, "-c")
    assert before == FOREIGN.splitlines()
    for current in (plan(RICH), plan(table(entry(0, DENY, protocol=253))), plan(RICH)):
        BACKEND.apply(current)
        assert [line for line in saved(4, "-c") if "enf-" not in line] == before
    BACKEND.detach()
    assert saved(4, "-c") == before
    assert run("ipset", "list", "-n").split() == ["mine"]


def test_a_foreign_rule_that_uses_what_is_ours_does_no_harm(inside: str) -> None:
    BACKEND.apply(plan(RICH))
    name = next(item for item in run("ipset", "list", "-n").split() if item.startswith("enf4"))
    run("iptables-legacy", "-t", "raw", "-N", "mine")
    run("iptables-legacy", "-t", "raw", "-A", "mine", "-j", "enf-fh-eth0")
    run("iptables-legacy", "-t", "raw", "-A", "mine", "-m", "set", "--match-set", name, "src", "-j", "RETURN")
    BACKEND.detach()
    assert [line for line in saved(4) if line.startswith("-A")] == [
        "-A mine -j enf-fh-eth0",
        f"-A mine -m set --match-set {name} src -j RETURN",
    ]
    assert run("ipset", "list", "-n").split() == [name]
    assert BACKEND.detach() == ()
    assert BACKEND.apply(plan(RICH)).changes
    assert BACKEND.apply(plan(RICH)).changes == ()


def test_detach_leaves_nothing(inside: str) -> None:
    clean = everything()
    BACKEND.apply(plan(RICH))
    assert BACKEND.detach()
    assert everything() == clean
    assert BACKEND.detach() == ()


def test_detach_of_an_interface_leaves_the_others(inside: str) -> None:
    other_set = ip_set("s:other", ["192.0.2.1"])
    other = table(entry(0, DENY, source=AddressMatch(ip_set="s:other")), interface="eth1", sets=[other_set])
    BACKEND.apply(plan(other))
    alone = everything()
    BACKEND.apply(plan(RICH, other))
    assert everything() != alone
    assert BACKEND.detach(["eth0"])
    assert everything() == alone
    assert BACKEND.detach(["eth0"]) == ()
    assert BACKEND.apply(plan(other)).changes == ()


# --- repair -------------------------------------------------------------------------------------------

SET4, SET6 = (spec.name for spec in render(plan(RICH), Settings()).sets if len(spec.nets) == 3 and not spec.lenient)

HAND_EDITS = {
    "a rule deleted": "iptables-legacy -t raw -D enf-pi-eth0/security 3",
    "a rule added": "iptables-legacy -t raw -I enf-pi-eth0/security 2 -s 10.9.9.9 -j ACCEPT",
    "a rule of an extension we never use": "iptables-legacy -t raw -I enf-fh-eth0 -m ttl --ttl-eq 3 -j ACCEPT",
    "rules out of order": "iptables-legacy -t raw -R enf-fh-eth0 1 -j enf-pi-eth0/security",
    "a chain emptied": "ip6tables-legacy -t raw -F enf-fh-eth0",
    "a chain of ours nobody asked for": "iptables-legacy -t raw -N enf-stray",
    "unhooked": "iptables-legacy -t raw -D PREROUTING -j enf-PREROUTING",
    "hooked twice": "iptables-legacy -t raw -A OUTPUT -j enf-OUTPUT",
    "hooked under a condition": "iptables-legacy -t raw -R PREROUTING 1 -p tcp -j enf-PREROUTING",
    "hooked elsewhere": "iptables-legacy -t raw -A OUTPUT -j enf-fh-eth0",
    "a member removed": f"ipset del {SET4} 203.0.113.0/24",
    "a member added": f"ipset add {SET6} 2001:db8::1",
    "a member excepted": f"ipset add {SET4} 203.0.113.9/32 nomatch",
    "all members removed": f"ipset flush {SET4}",
    "a stray set": "ipset create enf4-stray hash:ip",
    "everything gone": "iptables-legacy -t raw -F",
}


@pytest.mark.parametrize("edit", HAND_EDITS)
def test_a_change_by_hand_is_repaired(inside: str, edit: str) -> None:
    BACKEND.apply(plan(RICH))
    before = everything()
    run(*HAND_EDITS[edit].split())
    assert everything() != before
    assert BACKEND.apply(plan(RICH)).changes
    assert everything() == before
    assert BACKEND.apply(plan(RICH)).changes == ()


def test_a_hook_that_is_no_longer_first_is_moved_back(inside: str) -> None:
    BACKEND.apply(plan(RICH))
    run("iptables-legacy", "-t", "raw", "-I", "PREROUTING", "-j", "ACCEPT")
    assert BACKEND.apply(plan(RICH)).changes == ("raw IPv4: chain PREROUTING: hooked to enf-PREROUTING",)
    hooks = [line for line in saved(4) if line.startswith("-A PREROUTING")]
    assert hooks == ["-A PREROUTING -j enf-PREROUTING", "-A PREROUTING -j ACCEPT"]


@pytest.mark.parametrize(
    "options", ["timeout 1000", "counters", "comment", "maxelem 2"], ids=lambda options: f"made with {options}"
)
def test_a_set_with_other_options_is_rebuilt_under_the_rules_that_use_it(inside: str, options: str) -> None:
    run("ipset", "create", SET4, "hash:net", "family", "inet", *options.split())
    BACKEND.apply(plan(RICH))
    assert f"create {SET4} hash:net family inet" in everything()
    assert BACKEND.apply(plan(RICH)).changes == ()


def test_a_set_of_another_type_is_refused_by_name(inside: str) -> None:
    run("ipset", "create", SET4, "hash:ip")
    with pytest.raises(HostError, match=rf"{SET4} is of type hash:ip.*enforcer detach"):
        BACKEND.apply(plan(RICH))
    BACKEND.detach()
    assert BACKEND.apply(plan(RICH)).changes


def test_a_pass_cut_short_is_finished_by_the_next(inside: str) -> None:
    scratch = f"{SET4[:5]}~{SET4[5:]}"
    run("ipset", "create", scratch, "hash:net")
    run("ipset", "create", SET4, "hash:net", "maxelem", "2")
    BACKEND.apply(plan(RICH))
    assert scratch not in run("ipset", "list", "-n").split()


# --- the host -----------------------------------------------------------------------------------------


def test_apply_waits_for_the_lock_of_iptables(inside: str) -> None:
    with open("/run/xtables.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=lambda: in_namespace(inside, lambda: BACKEND.apply(plan(RICH))))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        assert installed_chains(4) == ()
    waiting.join()
    assert installed_chains(4)


def in_namespace(name: str, action: Callable[[], object]) -> None:
    with entered(name):
        action()


def test_a_table_changed_behind_our_back_is_read_again(inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, calls = raw_module.RawTable.commit, list[int]()

    def late_commit(self: raw_module.RawTable) -> None:
        calls.append(self.version)
        if len(calls) == 1:  # a program that does not take the lock comes first
            with raw_module.raw_table(4) as foreign:
                foreign.insert("PREROUTING", 0, encode(Rule(Verdict.RETURN, protocol=6), 4, SetIndex({})))
                commit(foreign)
        commit(self)

    monkeypatch.setattr(raw_module.RawTable, "commit", late_commit)
    BACKEND.apply(plan(RICH))
    assert calls == [4, 4, 6]
    assert "-A PREROUTING -p tcp -j RETURN" in saved(4)
    assert BACKEND.apply(plan(RICH)).changes == ()


def test_probe_says_yes_here(inside: str) -> None:
    assert probe().answer is Answer.YES


UNPRIVILEGED = """
from enforcer.backends.iptables import IptablesBackend, probe
from enforcer.errors import PrivilegeError
print(probe())
try:
    IptablesBackend().detach()
except PrivilegeError as error:
    print(error, error.exit_code)
"""


def test_without_privilege_the_probe_cannot_tell_and_the_error_says_what_is_needed() -> None:
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", UNPRIVILEGED]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert "cannot tell" in done.stdout, done.stderr
    assert "CAP_NET_ADMIN" in done.stdout
    assert done.stdout.rstrip().endswith(" 3")
