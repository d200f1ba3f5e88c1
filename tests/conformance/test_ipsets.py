"""Sets that another program has changed (``felix/fv/ipsets_test.go``): the next pass repairs them.

The tests use raw, so that the ipset decides.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from enforcer.model.choices import ModeChoice
from enforcer.model.vocabulary import Stage
from tests.conformance.daemon import daemon
from tests.conformance.documents import DENY_LISTED, endpoint, felix, network_set, policy
from tests.conformance.flows import Flow, assert_blocked, assert_reached, wait_until
from tests.conformance.topology import Document, Host, Network

IN_RAW = pytest.mark.parametrize("choice", [ModeChoice.RAW], indirect=True, ids=str)
pytestmark = [pytest.mark.needs_root, IN_RAW]

ENTRY = "gnp/xdpf ingress[0]"


@pytest.fixture
def documents(network: Network, choice: ModeChoice) -> list[Document]:
    server = network.server
    return [endpoint(server), policy(DENY_LISTED), network_set(network.client.address(), "192.0.2.0/24")]


def names(host: Host, prefix: str) -> list[str]:
    return [name for name in host.run("ipset", "list", "-name").split() if name.startswith(prefix)]


def test_a_member_removed_by_another_program_comes_back(network: Network, documents: list[Document]) -> None:
    server, client = network.server, network.client
    server.apply(documents)
    (name,) = names(server, "enf4-")
    server.run("ipset", "del", name, client.address())
    assert_reached(Flow(client, server))
    assert len(server.apply(documents).changes) == 1
    assert_blocked(Flow(client, server), by=ENTRY, at=Stage.RAW)


def test_a_member_added_by_another_program_is_removed(network: Network, documents: list[Document]) -> None:
    server, external = network.server, network.external
    server.apply(documents)
    (name,) = names(server, "enf4-")
    server.run("ipset", "add", name, external.address())
    assert_blocked(Flow(external, server), by=ENTRY, at=Stage.RAW)
    assert len(server.apply(documents).changes) == 1
    assert_reached(Flow(external, server))


def test_a_set_emptied_by_another_program_is_filled_again(network: Network, documents: list[Document]) -> None:
    server, client = network.server, network.client
    server.apply(documents)
    for name in names(server, "enf"):
        server.run("ipset", "flush", name)
    server.apply(documents)
    assert_blocked(Flow(client, server), by=ENTRY, at=Stage.RAW)


def test_a_foreign_set_is_never_touched(network: Network, documents: list[Document]) -> None:
    server = network.server
    server.run("ipset", "create", "theirs", "hash:net")
    server.run("ipset", "add", "theirs", "192.0.2.1")
    before = server.run("ipset", "save", "theirs")
    server.apply(documents)
    server.apply([])
    assert server.run("ipset", "list", "-name").split() == ["theirs"]
    assert server.run("ipset", "save", "theirs") == before


def test_the_daemon_repairs_a_set_by_itself(network: Network, documents: list[Document], tmp_path: Path) -> None:
    """Calico repairs it in its periodic resync."""
    server, client = network.server, network.client
    with daemon(server, [*documents, felix(ipsetsRefreshInterval="200ms")], tmp_path):
        wait_until(lambda: len(names(server, "enf4-")) == 1 and bool(server.counts()), "the daemon enforces nothing")
        (name,) = names(server, "enf4-")
        server.run("ipset", "del", name, client.address())
        wait_until(
            lambda: server.attempt("ipset", "test", name, client.address()).returncode == 0, "it did not come back"
        )
        assert_blocked(Flow(client, server), by=ENTRY, at=Stage.RAW)
