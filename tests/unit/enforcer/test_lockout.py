"""What a switch-on would cut, and the marker of a change on trial."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from enforcer.enforcement.confirmation import Confirmation, now_s
from enforcer.enforcement.lockout import (
    SwitchOn,
    lost_connections,
    why_not_with_cut,
    why_not_with_felix,
    why_not_without_loose,
    without_denies,
    without_tracked,
)
from enforcer.kernel.sockets import TcpSocket
from enforcer.model.errors import UsageError
from enforcer.model.vocabulary import Action, Backend
from enforcer.planning.plan import Plan, TrackedPlan
from enforcer.policy.resources import Failsafe
from enforcer.policy.tracked import Hook, TierChain, TrackedChain, TrackedTable

SSH = Failsafe(6, 22)
CLOSED = TrackedTable(
    "eth0",
    "hep",
    (
        TrackedChain(Hook.INPUT, (TierChain("t", ()),), failsafes=(SSH,), end=Action.DENY),
        TrackedChain(Hook.OUTPUT, end=Action.DENY),
    ),
)
OPEN = TrackedTable("eth0", "hep", (TrackedChain(Hook.INPUT), TrackedChain(Hook.OUTPUT)))


def connection(port: int) -> TcpSocket:
    return TcpSocket(ip_address("10.0.0.1"), port, ip_address("198.51.100.7"), 50000, served=True)


def test_a_connection_is_cut_where_neither_side_gets_a_packet_through() -> None:
    sockets = {connection(2222): "eth0", connection(22): "eth0", connection(80): "eth1"}
    found = SwitchOn(lost=tuple(lost_connections([CLOSED], sockets)))
    assert [item.socket.local_port for item in found.cut] == [2222]
    assert [item.socket.local_port for item in found.waiting] == [22]
    assert str(found.cut[0]) == (
        "10.0.0.1:2222 with 198.51.100.7:50000 on eth0: received packets denied by 'tier/t ingress default', sent ones "
        "by 'no profile egress'"
    )
    assert "goes on with the next packet from 198.51.100.7; until then 'no profile egress' denies" in str(
        found.waiting[0]
    )


def test_what_conntrack_knows_is_kept() -> None:
    sockets = {connection(2222): "eth0", connection(22): "eth0"}
    found = SwitchOn(lost=tuple(replace(item, known=True) for item in lost_connections([CLOSED], sockets)))
    assert [item.socket.local_port for item in found.kept] == [2222]
    assert (found.cut, found.waiting) == ((), ())


def test_what_is_allowed_is_not_lost() -> None:
    assert lost_connections([OPEN], {connection(2222): "eth0"}) == []


@pytest.mark.parametrize(("loose", "refused"), [(True, 0), (None, 0), (False, 1)], ids=["1", "not loaded", "0"])
def test_loose(loose: bool | None, refused: int) -> None:
    assert len(list(why_not_without_loose(loose))) == refused


def test_felix_is_named() -> None:
    assert list(why_not_with_felix([])) == []
    (sentence,) = why_not_with_felix(["chain cali-INPUT of the legacy table filter IPv4"])
    assert "there is chain cali-INPUT of the legacy table filter IPv4, so Felix enforces it here" in sentence


def test_many_connections_are_counted() -> None:
    cut = lost_connections([CLOSED], {connection(port): "eth0" for port in range(1000, 1030)})
    said = list(why_not_with_cut(cut))
    assert "would cut 30 established connections" in said[0]
    assert said[-1] == "would be cut: 10 more"
    assert list(why_not_with_cut([])) == []


def test_without_denies_the_chains_stay_and_nothing_denies() -> None:
    plan = Plan("jasper", (), tracked=(TrackedPlan(CLOSED, Backend.IPTABLES, enforced=True),))
    (item,) = without_denies(plan).tracked
    assert [chain.hook for chain in item.table.chains] == [Hook.INPUT, Hook.OUTPUT]
    assert [name for chain in item.table.chains for name in chain.names()] == []
    assert item.enforced
    assert without_tracked(plan).tracked == (replace(plan.tracked[0], enforced=False),)


# --- the marker -------------------------------------------------------------------------------------------------------


def test_confirmed(tmp_path: Path) -> None:
    waiting, other = Confirmation(tmp_path), Confirmation(tmp_path)
    assert other.until_s() is None
    assert not other.confirm()
    waiting.begin(60.0)
    until_s = other.until_s()
    assert until_s is not None
    assert 0 < until_s - now_s() <= 60
    assert other.confirm()
    assert waiting.until_s() is None
    assert not waiting.claim()
    assert not waiting.was_rolled_back()


def test_rolled_back_by_one_alone(tmp_path: Path) -> None:
    waiting, other = Confirmation(tmp_path), Confirmation(tmp_path)
    waiting.begin(60.0)
    assert other.claim()
    assert not waiting.claim()
    assert waiting.was_rolled_back()
    assert not other.confirm()
    waiting.close()
    Confirmation(tmp_path).begin(60.0)
    assert not waiting.was_rolled_back()


def test_two_cannot_wait(tmp_path: Path) -> None:
    waiting = Confirmation(tmp_path)
    waiting.begin(60.0)
    with pytest.raises(UsageError, match="waits for a confirmation"):
        Confirmation(tmp_path).begin(60.0)
    waiting.close()  # as the kernel does for a process that was killed
    Confirmation(tmp_path).begin(60.0)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"until_boottime_s": "soon"}'])
def test_what_cannot_be_read_is_not_confirmed(tmp_path: Path, text: str) -> None:
    waiting = Confirmation(tmp_path)
    waiting.begin(60.0)
    next(tmp_path.glob("*.pending")).write_text(text)
    assert Confirmation(tmp_path).until_s() == 0.0


def test_a_marker_of_another_namespace_with_the_same_inode_is_forgotten(tmp_path: Path) -> None:
    waiting = Confirmation(tmp_path)
    waiting.begin(60.0)
    path = next(tmp_path.glob("*.pending"))
    path.write_text(path.read_text().replace('"namespace": ', '"namespace": 9'))
    assert Confirmation(tmp_path).until_s() is None
    assert not path.exists()


def test_a_marker_that_others_could_make_counts_for_nothing(tmp_path: Path) -> None:
    waiting = Confirmation(tmp_path)
    waiting.begin(60.0)
    tmp_path.chmod(0o777)
    assert Confirmation(tmp_path).until_s() is None


def test_nothing_is_left(tmp_path: Path) -> None:
    waiting = Confirmation(tmp_path)
    waiting.begin(60.0)
    waiting.forget()
    assert list(tmp_path.iterdir()) == []
