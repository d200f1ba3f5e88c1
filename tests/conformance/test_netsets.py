"""Network sets (``felix/fv/netsets_test.go``): IPv4 and IPv6, global and namespaced, in XDP and in raw.

In Calico's test, a policy allows a set and everything else is denied; here, it denies the set and everything else is
allowed, which tests the sets in the same way.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from ipaddress import ip_network

import numpy as np
import pytest

from enforcer.backends.xdp.addresses import open_tables
from enforcer.backends.xdp.state.layout import TablePins
from enforcer.kernel.bpf.libbpf_conn import LIBBPF
from enforcer.kernel.netns import current_inode
from enforcer.model.choices import ModeChoice
from enforcer.model.vocabulary import Stage
from tests.conformance.documents import DENY_LISTED, endpoint, namespaced_set, network_set, policy
from tests.conformance.flows import Flow, assert_blocked, assert_reached
from tests.conformance.topology import Document, Host, Network

pytestmark = pytest.mark.needs_root

ENTRY = "gnp/xdpf ingress[0]"
MODES = pytest.mark.parametrize("choice", [ModeChoice.NATIVE, ModeChoice.RAW], indirect=True, ids=str)

MakeSet = Callable[..., Document]


class Case:
    """A server that denies the members of sets, and which hosts can then reach it."""

    def __init__(self, network: Network, family: int, stage: Stage, make_set: MakeSet) -> None:
        self.network = network
        self.server = network.server
        self.make_set = make_set
        self._family = family
        self._stage = stage

    def address(self, host: Host) -> str:
        return host.address(self._family)

    def net(self, number: int, length: int) -> str:
        """A net within the LAN: 10.65.0.<number>/<length>, or the IPv6 net of the same number and host bits."""
        if self._family == 4:
            return str(ip_network(f"10.65.0.{number}/{length}", strict=False))
        return str(ip_network(f"fd65::{number}/{96 + length}", strict=False))

    def apply(self, *sets: Document) -> None:
        self.server.apply([endpoint(self.server), policy(DENY_LISTED), *sets])

    def expect(self, *blocked: Host) -> None:
        """Exactly these of client and external are blocked."""
        for host in (self.network.client, self.network.external):
            flow = Flow(host, self.server, "udp", family=self._family)
            if host in blocked:
                assert_blocked(flow, by=ENTRY, at=self._stage)
            else:
                assert_reached(flow)


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


@pytest.fixture(params=[network_set, namespaced_set], ids=["global", "namespaced"])
def case(network: Network, choice: ModeChoice, stage: Stage, family: int, request: pytest.FixtureRequest) -> Case:
    return Case(network, family, stage, request.param)


@MODES
def test_no_set_then_members_then_other_members_and_back(case: Case) -> None:
    client, external = case.network.client, case.network.external
    case.apply()
    case.expect()
    for members, blocked in (
        ([case.address(client)], [client]),
        ([case.address(external)], [external]),
        ([case.address(client), case.address(external)], [client, external]),
        ([], []),
        ([case.address(client)], [client]),
    ):
        case.apply(case.make_set(*members))
        case.expect(*blocked)
    case.apply()
    case.expect()


@MODES
def test_everybody_and_back(case: Case, family: int) -> None:
    """0.0.0.0/0 and ::/0, which a kernel set cannot hold as a single member."""
    client, external = case.network.client, case.network.external
    case.apply(case.make_set(case.address(client)))
    case.expect(client)
    case.apply(case.make_set(case.address(client), "0.0.0.0/0" if family == 4 else "::/0"))
    case.expect(client, external)
    case.apply(case.make_set(case.address(client)))
    case.expect(client)


@MODES
def test_everybody_of_the_other_family_blocks_none_of_this(case: Case, family: int) -> None:
    case.apply(case.make_set("::/0" if family == 4 else "0.0.0.0/0"))
    case.expect()


@MODES
def test_a_second_set_overlaps_and_either_or_both_go(case: Case) -> None:
    client, external = case.network.client, case.network.external
    first = case.make_set(case.address(client), case.net(0, 30), name="one")  # .0 to .3
    second = case.make_set(case.address(client), case.net(8, 29), name="two")  # .8 to .15
    for sets, blocked in (
        ([first], [client]),
        ([first, second], [client, external]),
        ([second], [client, external]),
        ([first, second], [client, external]),
        ([first], [client]),
        ([], []),
    ):
        case.apply(*sets)
        case.expect(*blocked)


@MODES
def test_duplicates_overlaps_and_bare_addresses_then_some_go(case: Case) -> None:
    """A net within another, and one net in two spellings: an address stays denied until the last of them is removed."""
    client, external = case.network.client, case.network.external
    bare, host_net, wide = case.address(client), case.net(2, 32), case.net(2, 28)  # wide: .0 to .15
    for members, blocked in (
        ([bare, host_net, wide, wide], [client, external]),
        ([bare, host_net], [client]),
        ([host_net], [client]),
        ([bare, wide], [client, external]),
        ([wide], [client, external]),
        ([case.net(2, 31), bare], [client]),
        ([bare], [client]),
        ([case.net(8, 29)], [external]),
    ):
        case.apply(case.make_set(*members))
        case.expect(*blocked)


@MODES
def test_a_set_that_gains_and_loses_the_label(case: Case) -> None:
    """In Calico's test, workloads change their labels; here, the set does."""
    client = case.network.client
    address = case.address(client)
    case.apply(case.make_set(address))
    case.expect(client)
    case.apply(case.make_set(address, labels={"xdpblocklist-set": "false"}))
    case.expect()
    case.apply(case.make_set(address))
    case.expect(client)


# -- churn ------------------------------------------------------------------------------------------------------------

POLICIES, SETS, NETS, ROUNDS = 20, 100, 200, 4


@pytest.mark.slow
@MODES
def test_churn_of_sets_ends_in_the_right_state(network: Network, choice: ModeChoice, stage: Stage) -> None:
    """20 policies over 100 sets of some hundred nets, all changed several times by one process."""
    server, client = network.server, network.client
    chance = random.Random(65)
    sets: dict[int, list[str]] = {}
    for turn in range(ROUNDS):
        for number in chance.sample(range(SETS), SETS if turn == 0 else SETS // 3):
            sets[number] = _some_nets(chance, client.address() if number == 7 and turn == ROUNDS - 1 else "")
        server.apply(_churned(server, sets))
    sets[7] = _some_nets(chance, client.address())
    server.apply(_churned(server, sets))
    assert server.apply(_churned(server, sets)).changes == ()
    assert len(server.enforcers) == 1
    _assert_state(server, choice, sets)
    assert_blocked(Flow(client, server), by="gnp/p07 ingress[0]", at=stage)
    assert_reached(Flow(network.external, server))
    sets[7] = []
    server.apply(_churned(server, sets))
    assert_reached(Flow(client, server))


def _some_nets(chance: random.Random, also: str) -> list[str]:
    numbers = chance.sample(range(1 << 16), chance.randrange(NETS, 2 * NETS))
    found = [f"11.{number >> 8}.{number & 255}.0/24" for number in sorted(numbers)]
    return found + ([also] if also else [])


def _churned(server: Host, sets: dict[int, list[str]]) -> list[Document]:
    """Policy ``n`` denies the sets whose number modulo POLICIES is ``n``: five sets each."""
    documents = [endpoint(server)]
    for number in range(POLICIES):
        rule = {"action": "Deny", "source": {"selector": f"group == 'g{number:02d}'"}}
        documents.append(policy(rule, name=f"p{number:02d}"))
    for number, nets in sets.items():
        labels = {"group": f"g{number % POLICIES:02d}"}
        documents.append(network_set(*nets, name=f"s{number:02d}", labels=labels))
    return documents


def _assert_state(server: Host, choice: ModeChoice, sets: dict[int, list[str]]) -> None:
    """Each policy's ipset holds exactly the members of its sets, and the XDP map those of all sets."""
    held = server.run("ipset", "list", "-output", "save")
    in_ipsets: dict[str, set[str]] = {}
    for line in held.splitlines():
        words = line.split()
        if words[0] == "add" and ":" not in words[2]:
            in_ipsets.setdefault(words[1], set()).add(_full(words[2]))
    groups: dict[int, set[str]] = {}
    for number, nets in sets.items():
        groups.setdefault(number % POLICIES, set()).update(_full(net) for net in nets)
    assert sorted(map(sorted, in_ipsets.values())) == sorted(map(sorted, groups.values()))
    if choice is not ModeChoice.RAW:
        with server.inside():
            tables = open_tables(TablePins.of(LIBBPF, server.pin_root, current_inode()))
        assert tables is not None
        with tables:
            held4 = tables.classified.segments4
            listed = int(np.diff(held4.start.astype(np.int64), append=1 << 32)[held4.cls != 0].sum())
        assert listed == sum(ip_network(net).num_addresses for net in set().union(*groups.values()))


def _full(net: str) -> str:
    return net if "/" in net else f"{net}/32"
