"""The iptables backend and the kernel's tables: what is programmed, repaired and left alone."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from enforcer.backends.iptables import IptablesBackend, IptablesSettings, installed_chains, probe
from enforcer.backends.iptables import table as raw_module
from enforcer.backends.iptables.blob import SetIndex, encode
from enforcer.backends.iptables.rules import Rule, TableId, TableName, Verdict, save_line
from enforcer.backends.nftables import probe as probe_nftables
from enforcer.model.errors import UnsupportedRuleError
from enforcer.model.facts import Probe
from enforcer.model.vocabulary import Answer
from enforcer.policy.resources import Failsafe
from tests.kernel.iptables_plans import (
    ALLOW,
    BACKEND,
    DENY,
    FAILSAFES,
    FROM_LIST,
    RAW4,
    RICH,
    entry,
    ip_set,
    nets,
    plan,
    rendered,
    table,
)
from tests.kernel.iptables_support import (
    all_tables,
    entered,
    inside_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
    namespace,
    run,
    saved,
)
from tests.kernel.raw_support import (
    RawDriver,
    raw_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
    ruleset,
)
from tests.support.entries import SideMatch

pytestmark = pytest.mark.needs_root

# --- what is programmed -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
def test_iptables_save_reads_exactly_what_was_rendered(inside: str, version: int) -> None:
    BACKEND.apply(plan(RICH))
    chains = rendered(plan(RICH))[TableId(version, TableName.RAW)]
    expected = {save_line(chain.name, rule, version) for chain in chains for rule in chain.rules}
    found = {line for line in saved(version) if line.startswith("-A enf-")}
    assert found == expected
    assert not any("REJECT" in line for line in found)
    assert "-A PREROUTING -j enf-PREROUTING" in saved(version)
    assert "-A OUTPUT -j enf-OUTPUT" in saved(version)


def test_read_back_is_what_was_rendered(inside: str) -> None:
    BACKEND.apply(plan(RICH))
    for place, chains in rendered(plan(RICH)).items():
        found = {chain.name: chain for chain in installed_chains(place.version, place.name)}
        assert found == {chain.name: chain for chain in chains}


def test_applying_again_changes_nothing(raw: RawDriver, inside: str) -> None:
    assert raw.backend.apply(raw.plan(RICH)).changes
    before = raw.everything()
    assert raw.backend.apply(raw.plan(RICH)).changes == ()
    assert raw.everything() == before


def test_a_dry_run_says_what_apply_does_and_does_nothing(raw: RawDriver, inside: str) -> None:
    announced = raw.backend.apply(raw.plan(RICH), dry_run=True)
    assert raw.ours() == []
    assert raw.backend.apply(raw.plan(RICH)) == announced
    other = raw.plan(table(entry(0, DENY, source=FROM_LIST), sets=[ip_set("s:deny", ["10.0.0.0/8"])]))
    before = raw.everything()
    announced = raw.backend.apply(other, dry_run=True)
    assert raw.everything() == before
    assert raw.backend.apply(other) == announced


def test_a_plan_without_entries_makes_no_table(raw: RawDriver, inside: str) -> None:
    assert raw.backend.apply(raw.plan(table(**FAILSAFES))).changes == ()
    assert raw.backend.counters() == ()
    assert raw.backend.detach() == ()
    assert raw.ours() == []


@pytest.mark.parametrize("mode", ["insert", "append"])
def test_the_hook_is_where_the_insert_mode_says(inside: str, mode: str) -> None:
    run("iptables-legacy", "-t", "raw", "-A", "PREROUTING", "-p", "tcp")
    backend = IptablesBackend(IptablesSettings(insert_mode=mode))
    backend.apply(plan(RICH))
    hooks = [line for line in saved(4) if line.startswith("-A PREROUTING")]
    assert hooks.index("-A PREROUTING -j enf-PREROUTING") == (0 if mode == "insert" else 1)
    assert backend.apply(plan(RICH)).changes == ()


def test_namespaces_of_one_process_are_kept_apart(raw: RawDriver) -> None:
    other = table(entry(0, DENY, protocol=253))
    with namespace() as first, namespace() as second:
        with entered(first):
            raw.backend.apply(raw.plan(RICH))
            alone = raw.everything()
        with entered(second):
            raw.backend.apply(raw.plan(other))
            assert [item.entry for item in raw.backend.counters()] == ["gnp/edge ingress[0]"]
        with entered(first):
            assert raw.everything() == alone
            assert raw.backend.apply(raw.plan(RICH)).changes == ()
            raw.backend.detach()
        with entered(second):
            assert raw.backend.apply(raw.plan(other)).changes == ()


def test_a_thread_acts_in_its_own_namespace(raw: RawDriver, inside: str) -> None:
    with namespace() as other:

        def apply_there() -> None:
            with entered(other):
                raw.backend.apply(raw.plan(RICH))

        thread = threading.Thread(target=apply_there)
        thread.start()
        thread.join()
        assert raw.ours() == []
        with entered(other):
            assert raw.ours()


def test_a_set_beyond_maxipsetsize_changes_nothing(raw: RawDriver, inside: str) -> None:
    with pytest.raises(UnsupportedRuleError, match=r"selector s:deny == 'true': it has 2 IPv4 members.* may have 1;"):
        raw.configured(max_ipset_size=1).apply(raw.plan(RICH))
    assert raw.ours() == []


def test_a_set_has_room_for_maxipsetsize_members(inside: str) -> None:
    backend = IptablesBackend(IptablesSettings(max_set_size=2))
    wanted = [
        plan(table(entry(0, DENY, source=FROM_LIST), sets=[ip_set("s:deny", members)]))
        for members in (["10.0.0.0/8", "11.0.0.0/8"], ["12.0.0.0/8", "13.0.0.0/8"])
    ]
    backend.apply(wanted[0])
    assert run("ipset", "list", "-t").count("maxelem 2 ") == 2  # one for each family
    backend.apply(wanted[1])  # in between it holds all four
    assert "Number of entries: 2" in run("ipset", "list", "-t")
    assert backend.apply(wanted[1]).changes == ()


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


def test_detach_leaves_nothing(raw: RawDriver, inside: str) -> None:
    clean = raw.everything()
    raw.backend.apply(raw.plan(RICH))
    assert raw.backend.detach()
    assert raw.everything() == clean
    assert raw.backend.detach() == ()


def test_detach_of_an_interface_leaves_the_others(raw: RawDriver, inside: str) -> None:
    other_set = ip_set("s:other", ["192.0.2.1"])
    other = table(entry(0, DENY, source=SideMatch(ip_set="s:other")), interface="eth1", sets=[other_set])
    raw.backend.apply(raw.plan(other))
    alone = raw.everything()
    raw.backend.apply(raw.plan(RICH, other))
    assert raw.everything() != alone
    assert raw.backend.detach(["eth0"])
    assert raw.everything() == alone
    assert raw.backend.detach(["eth0"]) == ()
    assert raw.backend.apply(raw.plan(other)).changes == ()


@pytest.mark.parametrize("mode", ["insert", "append"])
def test_detach_of_an_interface_leaves_hooks_where_they_are(inside: str, mode: str) -> None:
    for name in ("raw", "mangle"):
        run("iptables-legacy", "-t", name, "-A", "PREROUTING", "-p", "tcp")
    backend = IptablesBackend(IptablesSettings(insert_mode=mode))
    other = table(entry(0, ALLOW), interface="eth1")
    backend.apply(plan(RICH, other))
    hooks = [line for line in all_tables() if line.startswith("-A PREROUTING")]
    assert IptablesBackend().detach(["eth0"])  # which has no settings
    assert [line for line in all_tables() if line.startswith("-A PREROUTING")] == hooks
    assert backend.apply(plan(other)).changes == ()


def test_detach_of_an_interface_does_not_hook_what_another_program_unhooked(inside: str) -> None:
    BACKEND.apply(plan(RICH, table(entry(0, ALLOW), interface="eth1")))
    run("iptables-legacy", "-t", "raw", "-D", "PREROUTING", "-j", "enf-PREROUTING")
    assert BACKEND.detach(["eth0"])
    assert not [line for line in saved(4) if line.startswith("-A PREROUTING")]


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


def test_a_table_changed_by_another_program_is_read_again(inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, calls = raw_module.KernelTable.commit, list[str]()

    def late_commit(self: raw_module.KernelTable) -> None:
        calls.append(str(self.id))
        if calls.count("raw IPv4") == 1 and self.id == RAW4:  # a program that does not take the lock is faster
            with raw_module.kernel_table(RAW4) as foreign:
                foreign.insert("PREROUTING", 0, encode(Rule(Verdict.RETURN, protocol=6), 4, SetIndex({})))
                commit(foreign)
        commit(self)

    monkeypatch.setattr(raw_module.KernelTable, "commit", late_commit)
    BACKEND.apply(plan(RICH))
    assert calls == ["filter IPv4", "mangle IPv4", "raw IPv4", "raw IPv4", "raw IPv6"]
    assert "-A PREROUTING -p tcp -j RETURN" in saved(4)
    assert BACKEND.apply(plan(RICH)).changes == ()


@pytest.mark.parametrize("probe_of", [probe, probe_nftables], ids=["iptables", "nftables"])
def test_probe_says_yes_here_and_leaves_nothing(inside: str, probe_of: Callable[[], Probe]) -> None:
    assert probe_of().answer is Answer.YES
    assert ruleset() == []
    assert not any("enf" in line for line in all_tables())


UNPRIVILEGED = """
from enforcer.backends.{0} import {1} as Backend, probe
from enforcer.model.errors import PrivilegeError
print(probe())
try:
    Backend().detach()
except PrivilegeError as error:
    print(error, error.exit_code)
"""


@pytest.mark.parametrize(
    "names", [("iptables", "IptablesBackend"), ("nftables", "NftablesBackend")], ids=lambda n: n[0]
)
def test_without_privilege_the_probe_cannot_tell_and_the_error_says_what_is_needed(names: tuple[str, str]) -> None:
    script = UNPRIVILEGED.format(*names)
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert "cannot tell" in done.stdout, done.stderr
    assert "CAP_NET_ADMIN" in done.stdout
    assert done.stdout.rstrip().endswith(" 3")


def test_a_failsafe_for_everybody_is_written_once(inside: str) -> None:
    """The kernel treats a net of length 0 as no match: it is absent when read back."""
    everybody = tuple(Failsafe(6, 22, net) for net in nets("0.0.0.0/0", "::/0"))
    wanted = plan(table(entry(0, DENY), egress=(), inbound=everybody, outbound=everybody))
    BACKEND.apply(wanted)
    assert BACKEND.apply(wanted).changes == ()
