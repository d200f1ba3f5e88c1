"""What every datastore does for the agent, whatever holds the objects: files, a real etcd, the Kubernetes API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api_server import needs_api_server
from tests.support.datastores import Following, World, nets, put, world
from tests.support.etcd import network_set

BOTS, OTHERS = network_set("bots", "203.0.113.0/24"), network_set("others", "192.0.2.0/24")
BOTH = {"bots": ["203.0.113.0/24"], "others": ["192.0.2.0/24"]}
AT = "globalnetworksets/bots"
FAULTY = {
    "a CIDR that is none": (
        json.dumps(network_set("bots", "203.0.113.0/33")),
        "spec.nets[0]: expected a prefix length",
    ),
    "no JSON": ("{", "not "),
    "JSON that is no object": ("7", "expected a"),
}


@pytest.fixture(params=["files", "etcd", "kubernetes", pytest.param("api server", marks=needs_api_server)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with world(request.param, tmp_path) as made:
        put(made, BOTS)
        yield made


def test_objects_are_followed(where: World) -> None:
    with Following(where.store()) as following:
        assert nets(following.snapshot()) == {"bots": ["203.0.113.0/24"]}
        put(where, OTHERS)
        assert nets(following.until(lambda loaded: len(nets(loaded)) == 2)) == BOTH
        put(where, network_set("bots", "198.51.100.0/24"))
        following.until(lambda loaded: nets(loaded)["bots"] == ["198.51.100.0/24"])
        where.delete(AT)
        following.until(lambda loaded: list(nets(loaded)) == ["others"])
        assert not following.snapshot().faults


def test_a_change_before_anybody_listens_is_not_missed(where: World) -> None:
    following = Following(where.store())
    put(where, OTHERS)
    with following:
        following.until(lambda loaded: nets(loaded) == BOTH)


@pytest.mark.parametrize("fault", FAULTY)
def test_a_faulty_object_keeps_its_last_version_and_delays_no_other(where: World, fault: str) -> None:
    text, says = FAULTY[fault]
    if not (where.holds_any_text or text.startswith('{"')):
        pytest.skip("the Kubernetes API holds JSON objects only")
    with Following(where.store()) as following:
        following.snapshot()
        where.put_text(AT, text)
        put(where, OTHERS)
        loaded = following.until(lambda loaded: loaded.faults and len(nets(loaded)) == 2)
        assert nets(loaded) == BOTH
        assert loaded.kept == ("GlobalNetworkSet bots",)
        (told,) = following.store.state().faults
        assert told.object.startswith(where.fault_of(AT))
        assert says in told.message
        assert "GlobalNetworkSet bots" in told.outcome
        put(where, network_set("others", "192.0.2.0/25"))
        following.until(lambda loaded: nets(loaded)["others"] == ["192.0.2.0/25"])
        assert following.store.state().faults == (told,), "it has the time at which it began"
        put(where, BOTS)
        following.until(lambda loaded: not loaded.faults)
        assert following.store.state().faults == ()


def test_a_new_agent_has_the_last_version_of_an_object_that_is_faulty(where: World) -> None:
    with Following(where.store()) as following:
        following.snapshot()
        following.store.keep()
    where.put_text(AT, FAULTY["a CIDR that is none"][0])
    with Following(where.store()) as following:
        loaded = following.snapshot()
        assert nets(loaded) == {"bots": ["203.0.113.0/24"]}
        assert loaded.kept == ("GlobalNetworkSet bots",)


def test_a_policy_with_a_fault_is_not_stored_for_a_new_agent(where: World) -> None:
    where.put_text(AT, FAULTY["a CIDR that is none"][0])
    with Following(where.store()) as following:
        assert following.snapshot().faults
        following.store.keep()
        assert following.store.last_good().global_network_sets == ()


def test_a_refresh_loses_nothing(where: World) -> None:
    with Following(where.store()) as following:
        following.snapshot()
        following.store.refresh()
        put(where, OTHERS)
        following.until(lambda loaded: nets(loaded) == BOTH)


def test_what_is_known_stays_while_the_store_is_away(where: World) -> None:
    with Following(where.store()) as following:
        following.until(lambda loaded: following.store.state().connected)
        with where.away():
            following.until_state(lambda store: following.snapshot() and not store.state().connected)
            assert nets(following.snapshot()) == {"bots": ["203.0.113.0/24"]}
            assert following.store.state().problem
        following.until_state(lambda store: following.snapshot() and store.state().connected)
        assert following.store.state().problem == ""
        put(where, OTHERS)
        following.until(lambda loaded: nets(loaded) == BOTH)


def test_a_new_agent_whose_store_is_away_has_the_policy_of_the_last(where: World) -> None:
    with Following(where.store()) as following:
        following.snapshot()
        following.store.keep()
    with where.away(), Following(where.store()) as following:
        loaded = following.snapshot()
        assert loaded.faults
        assert nets(loaded) == {"bots": ["203.0.113.0/24"]}
        assert not following.store.state().connected


def test_a_new_agent_without_a_store_and_without_a_state_knows_nothing(where: World) -> None:
    with where.away(), Following(where.store()) as following:
        loaded = following.snapshot()
        assert loaded.empty
        assert loaded.faults, "it must not be taken for a policy of nothing"


def test_the_state_says_what_there_is(where: World) -> None:
    with Following(where.store()) as following:
        following.snapshot()
        state = following.store.state()
        assert state.connected
        assert state.objects == 1
        assert state.contact >= state.since > 0
        assert (state.kept, state.left_out, state.faults, state.problem) == ((), (), (), "")
