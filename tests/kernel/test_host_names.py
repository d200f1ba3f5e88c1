"""Interfaces with alternative names, renamed, removed, absent: what is enforced and reported, and that a pass ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from enforcer.enforcement.apply import Applied, Enforcer
from enforcer.model.choices import ModeChoice
from enforcer.model.vocabulary import Mode, Stage
from enforcer.policy.load import load_text
from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import (
    ALLOWED,
    DENIED,
    NODE,
    deny_list,
    documents,
    endpoint,
    policy,
    run,
    traffic,
)

pytestmark = pytest.mark.needs_root

BOTS = deny_list("203.0.113.0/24")


@pytest.fixture
def detached(netns_pair: NetnsPair, pin_root: Path) -> Iterator[NetnsPair]:
    """The pair; afterwards everything of ours is removed."""
    yield netns_pair
    with netns_pair.host():
        Enforcer(NODE, pin_root=pin_root).detach()


def apply(pair: NetnsPair, pin_root: Path, *names: str, choice: ModeChoice = ModeChoice.AUTO) -> Applied:
    with pair.host():
        text = documents(*map(endpoint, names), BOTS, policy())
        return Enforcer(NODE, pin_root=pin_root, choice=choice).apply(load_text(text))


def rename(pair: NetnsPair, old: str, new: str) -> None:
    with pair.host(), IPRoute() as ip:
        index = ip.link_lookup(ifname=old)[0]
        ip.link("set", index=index, state="down")
        ip.link("set", index=index, ifname=new)
        ip.link("set", index=index, state="up")


def status(pair: NetnsPair, pin_root: Path) -> tuple[list[dict[str, object]], str]:
    place = ("--pin-root", str(pin_root))
    return json.loads(run(pair, ["status", *place, "-o", "json"]).stdout)["interfaces"], run(
        pair, ["status", *place]
    ).stdout


@pytest.mark.parametrize("verb", [("--dry-run",), ()], ids=["dry run", "apply"])
def test_raw_requested_by_name_ends_although_the_interface_is_missing(
    detached: NetnsPair, pin_root: Path, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    (tmp_path / "policy.yaml").write_text(documents(endpoint("eth7"), BOTS, policy()))
    words = ["apply", "-f", str(tmp_path), "--node", NODE, "--pin-root", str(pin_root), "--mode", "raw", *verb]
    done = run(detached, words)  # with a time limit
    assert done.returncode == 0
    assert "interface eth7 does not exist; raw is ready for it" in done.stderr


@pytest.mark.parametrize("choice", ModeChoice)
def test_a_pass_ends_although_the_interface_is_not_there(
    detached: NetnsPair, pin_root: Path, choice: ModeChoice
) -> None:
    applied = apply(detached, pin_root, "eth7", choice=choice)
    assert [(item.interface, item.mode) for item in applied.plan.interfaces] == [("eth7", None)]
    assert apply(detached, pin_root, "eth7", choice=choice).changes == ()


def test_an_alternative_name_is_the_interface(detached: NetnsPair, pin_root: Path) -> None:
    with detached.host(), IPRoute() as ip:
        ip.link("property_add", index=ip.link_lookup(ifname="eth0")[0], altname="uplink")
    applied = apply(detached, pin_root, "uplink")
    assert [(item.interface, item.mode) for item in applied.plan.interfaces] == [("eth0", Mode.NATIVE)]
    assert applied.warnings == ()
    with traffic(detached) as wire:
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
    probed = run(detached, ["probe", "uplink", "-o", "json"])
    (interface,) = json.loads(probed.stdout)["interfaces"]
    assert (interface["name"], interface["alternative_names"]) == ("eth0", ["uplink"])


def test_a_new_alternative_name_is_seen_by_the_same_enforcer(detached: NetnsPair, pin_root: Path) -> None:
    resources = load_text(documents(endpoint("uplink"), BOTS, policy()))
    with detached.host():
        enforcer = Enforcer(NODE, pin_root=pin_root)
        assert [item.interface for item in enforcer.apply(resources).plan.interfaces] == ["uplink"]
        with IPRoute() as ip:
            ip.link("property_add", index=ip.link_lookup(ifname="eth0")[0], altname="uplink")
        assert [item.interface for item in enforcer.apply(resources).plan.interfaces] == ["eth0"]
        assert enforcer.apply(resources).changes == ()


@pytest.mark.parametrize("choice", [ModeChoice.NATIVE, ModeChoice.RAW], ids=str)
def test_status_shows_what_belongs_to_a_renamed_interface(
    detached: NetnsPair, pin_root: Path, choice: ModeChoice
) -> None:
    apply(detached, pin_root, "eth0", choice=choice)
    rename(detached, "eth0", "wan0")
    (found,), said = status(detached, pin_root)
    assert found["present"] is False
    if choice is ModeChoice.RAW:
        assert (found["stage"], found["attached_to"]) == (None, None)
        assert "eth0: no such interface, nothing is enforced" in said
    else:
        assert (found["stage"], found["attached_to"]) == ("driver", "wan0")
        assert "eth0: renamed to wan0; enforced there at driver (XDP native), not in raw" in said


def test_a_renamed_interface_keeps_its_program_and_counts(detached: NetnsPair, pin_root: Path) -> None:
    apply(detached, pin_root, "eth0")
    with traffic(detached) as wire:
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
        rename(detached, "eth0", "wan0")
        with detached.host(), IPRoute() as ip:  # the kernel removed its address when it went down
            index = ip.link_lookup(ifname="wan0")[0]
            if not ip.get_addr(index=index):
                ip.addr("add", index=index, address="10.0.0.1", prefixlen=24)
        applied = apply(detached, pin_root, "wan0")
        assert [(item.interface, item.mode) for item in applied.plan.interfaces] == [("wan0", Mode.NATIVE)]
        assert "eth0: renamed to wan0" in applied.changes
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
    with detached.host():
        enforcer = Enforcer(NODE, pin_root=pin_root)
        counts = [item.packets for item in enforcer.counters() if item.stage is Stage.DRIVER]
        assert [(item.interface, item.attached_to) for item in enforcer.status()] == [("wan0", "wan0")]
    assert counts[0] == 2


def test_status_says_that_an_interface_is_gone(detached: NetnsPair, pin_root: Path) -> None:
    detached.make_veth("eth1", "wire1")
    apply(detached, pin_root, "eth0", "eth1")
    detached.remove_link("eth1")
    (still, gone), said = status(detached, pin_root)
    assert (still["stage"], still["present"]) == ("driver", True)
    assert (gone["stage"], gone["present"], gone["mode"]) == (None, False, None)
    assert "eth1: no such interface, nothing is enforced (raw through iptables is ready for it)" in said
