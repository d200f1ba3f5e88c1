"""From one plan to the next: large sets in acceptable time, and no packet passes between two steps."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace

import numpy as np
import pytest

from enforcer.backends.iptables import IptablesBackend, IptablesSettings
from enforcer.backends.iptables.ipset import IpSets, ipsets
from enforcer.backends.iptables.members import members_in, members_of
from enforcer.backends.iptables.render import render
from enforcer.backends.iptables.table import KernelTable
from enforcer.backends.nftables import NftablesBackend, NftablesSettings
from enforcer.backends.nftables.read import read_members
from enforcer.backends.nftables.render import render as render_nft
from enforcer.kernel.nfnetlink import Family, Message, NfTables, nftables
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Backend
from enforcer.planning.plan import Plan
from enforcer.policy.ruletable import RuleTable
from tests.kernel.iptables_plans import (
    ALLOW,
    DENY,
    DENY_LIST,
    FAILSAFES,
    FROM_LIST,
    entry,
    ip_set,
    plan,
    port_set,
    source,
    table,
)
from tests.kernel.iptables_support import (
    LISTED,
    OTHER,
    Wire,
    add_counting_rules,
    cable_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
    entered,
    frames,
    run,
    udp,
    v4,
)
from tests.kernel.raw_support import (
    RawDriver,
    raw_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
)
from tests.support.entries import SideMatch

pytestmark = pytest.mark.needs_root


def big_nets(count: int) -> Nets:
    """``count`` prefixes of 24 bits, none in 192.0.0.0/8."""
    return Nets(
        (np.arange(count, dtype=np.uint32) << np.uint32(8)) + np.uint32(0x01000000), np.full(count, 24, np.uint8)
    )


def test_a_hundred_thousand_prefixes(raw: RawDriver, cable: Wire) -> None:
    many = ip_set("s:deny", big_nets(100_000))
    wanted = raw.plan(table(entry(0, DENY, source=FROM_LIST), sets=[many]))
    with cable.inside():
        raw.backend.apply(wanted)
        assert raw.backend.apply(wanted).changes == ()
        assert_holds_all(raw.word, wanted, many.nets)
        raw.backend.apply(raw.plan(table(entry(0, DENY, source=FROM_LIST), sets=[ip_set("s:deny", big_nets(99_999))])))
    cable.send(frames(v4("1.0.1.9", udp(9)) + v4(OTHER, udp(9))))
    with cable.inside():
        assert raw.backend.counters()[0].packets == 1


def assert_holds_all(backend: Backend, wanted: Plan, nets: Nets) -> None:
    if backend is Backend.NFTABLES:
        (spec,) = (item for item in render_nft(wanted, NftablesSettings())[0].sets if len(item.members) == 100_000)
        with nftables() as door:
            assert np.array_equal(read_members(door, Family.IP, spec.name, spec.type), spec.members)
        return
    name = next(spec.name for spec in render(wanted, IptablesSettings()).sets if spec.version == 4)
    with ipsets() as sets:
        assert np.array_equal(members_in(sets.listing(name, 4), 4), members_of(nets, 4))
    assert run("ipset", "list", "-t", name).count("Number of entries: 100000") == 1


def moving(denied_by: str) -> RuleTable:
    """The listed source is in one of two deny lists, one evaluated before an allow list and one after it. While it is
    in the first, it is in the allow list as well.
    """
    members = {name: ["10.0.0.0/8", *([LISTED] if name == denied_by else [])] for name in ("s:first", "s:last")}
    members["s:allow"] = ["10.0.0.0/8", *([LISTED] if denied_by == "s:first" else [])]
    actions = {"s:first": DENY, "s:allow": ALLOW, "s:last": DENY}
    rules = [entry(i, action, source=SideMatch(ip_set=name)) for i, (name, action) in enumerate(actions.items())]
    return table(*rules, sets=[ip_set(name, members[name]) for name in actions])


def moving_port(denied_by: str) -> RuleTable:
    """The victim's port 9 is in one of two named ports that are denied, one before and one after an allowed one."""
    victim = ("10.10.10.10", 9)
    members = {name: [("10.0.0.1", 80), *([victim] if name == denied_by else [])] for name in ("first", "last")}
    members["allow"] = [("10.0.0.1", 80), *([victim] if denied_by == "first" else [])]
    actions = {"first": DENY, "allow": ALLOW, "last": DENY}
    rules = [
        entry(i, action, destination=SideMatch(named_ports=(f"n:{name}",)))
        for i, (name, action) in enumerate(actions.items())
    ]
    return table(*rules, port_sets=[port_set(name, *members[name], protocol=17) for name in actions])


TRANSITIONS = pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(moving("s:first"), moving("s:last"), id="leaves the first deny list and the allow list"),
        pytest.param(moving("s:last"), moving("s:first"), id="enters the first deny list and the allow list"),
        pytest.param(moving_port("first"), moving_port("last"), id="leaves the first named port and the allowed one"),
        pytest.param(moving_port("last"), moving_port("first"), id="enters the first named port and the allowed one"),
        pytest.param(
            table(entry(0, DENY, source=FROM_LIST), sets=[DENY_LIST]),
            table(entry(1, DENY, source=source(LISTED)), entry(2, DENY, protocol=253), **FAILSAFES),
            id="other rules",
        ),
    ],
)


@TRANSITIONS
def test_what_both_plans_drop_is_dropped_under_fire(
    raw: RawDriver, cable: Wire, before: RuleTable, after: RuleTable
) -> None:
    """Packets arrive all the time; the two plans alternate."""
    with cable.inside():
        raw.backend.apply(raw.plan(before))
        run("nft", "-f", "-", text=AFTER_RAW)
    stop = threading.Event()
    packets, sent = frames(v4(LISTED, udp(9))), [0]

    def fire() -> None:
        with entered(cable.peer), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind(("peer0", 0))
            while not stop.is_set():
                sender.send(packets[0])
                sent[0] += 1

    thread = threading.Thread(target=fire)
    thread.start()
    try:
        with cable.inside():
            for _ in range(10):
                for wanted in (after, before):
                    assert raw.backend.apply(raw.plan(wanted)).changes
    finally:
        stop.set()
        thread.join()
    cable.send([])
    assert sent[0] > 1000
    with cable.inside():
        assert "packets 0 " in run("nft", "list", "table", "ip", "after")


AFTER_RAW = f"""table ip after {{ chain came {{
    type filter hook prerouting priority -299; iifname "eth0" ip saddr {LISTED} counter; }}; }}
"""


@pytest.mark.parametrize("small", [False, True], ids=["in place", "through a swap"])
@TRANSITIONS
def test_what_both_plans_drop_is_dropped_after_every_step_between(
    cable: Wire, monkeypatch: pytest.MonkeyPatch, before: RuleTable, after: RuleTable, small: bool
) -> None:
    steps: list[str] = []

    def watched(kind: type, name: str) -> None:
        step = getattr(kind, name)

        def then_send(*arguments: object, **options: object) -> object:
            answer = step(*arguments, **options)
            steps.append(name)
            cable._send(frames(v4(LISTED, udp(9))))
            return answer

        monkeypatch.setattr(kind, name, then_send)

    backend = IptablesBackend(IptablesSettings(insert_mode="append"))  # so that they count before we accept in mangle
    with cable.inside():
        backend.apply(plan(before))
        add_counting_rules()
        if small:
            shrink_sets()
        for kind, name in ((IpSets, "_change"), (IpSets, "swap"), (IpSets, "destroy"), (KernelTable, "commit")):
            watched(kind, name)
        assert backend.apply(plan(after)).changes
        monkeypatch.undo()
    assert len(steps) > 2
    assert ("swap" in steps) == (small and "_change" in steps)
    cable.send([])
    assert cable.count(4, "mangle", "mangle") == 0


@TRANSITIONS
def test_what_both_plans_drop_is_dropped_after_every_transaction_between(
    cable: Wire, monkeypatch: pytest.MonkeyPatch, before: RuleTable, after: RuleTable
) -> None:
    commit, commits = NfTables.commit, list[int]()

    def then_send(self: NfTables, messages: list[Message], generation: int) -> None:
        commit(self, messages, generation)
        commits.append(generation)
        cable._send(frames(v4(LISTED, udp(9))))

    backend = NftablesBackend()
    with cable.inside():
        backend.apply(nft_plan(before))
        run("nft", "-f", "-", text=AFTER_RAW)
        monkeypatch.setattr(NfTables, "commit", then_send)
        assert backend.apply(nft_plan(after)).changes
        monkeypatch.undo()
    assert len(commits) > 1, "rules and members are not changed in one"
    cable.send([])
    with cable.inside():
        assert "packets 0 " in run("nft", "list", "table", "ip", "after")


def nft_plan(rules: RuleTable) -> Plan:
    return Plan("node", tuple(replace(item, raw_backend=Backend.NFTABLES) for item in plan(rules).interfaces))


def shrink_sets() -> None:
    """Every set unchanged, except that its maximum size is its number of members."""
    for name in run("ipset", "list", "-n").split():
        if not name.startswith("enf4-"):
            continue
        lines = run("ipset", "save", name).replace(f" {name} ", " small ").splitlines()
        size = max(len(lines) - 1, 1)
        create = f"create small {lines[0].split()[2]} family inet maxelem {size}"
        run("ipset", "restore", text="\n".join([create, *lines[1:], ""]))
        run("ipset", "swap", "small", name)
        run("ipset", "destroy", "small")
