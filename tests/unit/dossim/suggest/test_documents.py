"""The resources that suggest writes: valid, and they deny exactly what is counted as denied."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dossim.drill.run import predict_capture
from dossim.drill.situation import situation_for
from dossim.suggest.applied import with_documents, with_endpoint
from dossim.suggest.documents import Names, documents
from dossim.suggest.failsafe import passes
from dossim.suggest.job import Job, run
from dossim.suggest.measure import Rule, Suggested
from dossim.suggest.signature import Signature
from dossim.suggest.tally import Ranges, tally
from dossim.suggest.traffic import read_traffic
from enforcer.model.choices import ModeChoice
from enforcer.model.errors import UsageError
from enforcer.model.vocabulary import Side
from enforcer.policy.load import load_documents, load_text
from enforcer.policy.resources import Resources
from tests.support.examples import examples
from tests.support.frames import ME4, ME6
from tests.unit.dossim.suggest.generated import ICMP, TCP, UDP, Packet, capture

NET = ip_network("203.0.113.0/24")
HOW_TO = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: host, labels: {mitigate: "true"}}
spec: {node: jasper, interfaceName: eth0}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: bad, labels: {deny: "true"}}
spec: {nets: [192.0.2.0/25]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: bad}
spec:
  selector: mitigate == 'true'
  doNotTrack: true
  applyOnForward: true
  types: [Ingress]
  ingress: [{action: Deny, source: {selector: deny == 'true'}}]
"""


# For mypy: of JSON
def made(*rules: Rule, labels: dict[str, str] | None = None, protected: tuple[str, ...] = ()) -> list[dict]:  # type: ignore[type-arg]
    telling = tuple(rule.signature for rule in rules if rule.signature)
    found = Suggested(rules, telling, Ranges([]))
    return documents(found, Names("list", labels or {}), [ip_network(text) for text in protected])


def test_beside_a_deny_list_it_is_one_set_with_its_labels() -> None:
    (only,) = made(Rule(None, (NET,)), labels={"deny": "true"})
    assert only["kind"] == "GlobalNetworkSet"
    assert only["metadata"] == {"name": "list", "labels": {"deny": "true"}}
    assert only["spec"] == {"nets": ["203.0.113.0/24"]}


def test_alone_it_comes_with_a_policy_that_selects_the_set() -> None:
    found = load_documents(made(Rule(None, (NET,))))
    (policy,) = found.policies
    assert policy.do_not_track
    assert [rule.source.selector for rule in policy.ingress] == ["dossim-suggested == 'list'"]
    assert found.global_network_sets[0].labels == {"dossim-suggested": "list"}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        pytest.param(
            Rule(Signature(UDP, Side.SOURCE, 123), (), (4, 6)),
            {"protocol": "UDP", "source": {"ports": [123]}},
            id="from a port, everywhere",
        ),
        pytest.param(
            Rule(Signature(TCP, Side.DESTINATION, 25565), (), (6,)),
            {"protocol": "TCP", "destination": {"ports": [25565]}, "ipVersion": 6},
            id="to a port, IPv6 only",
        ),
        pytest.param(
            Rule(Signature(ICMP, None, 3), (), (4,)), {"protocol": "ICMP", "icmp": {"type": 3}}, id="an ICMP type"
        ),
        pytest.param(
            Rule(Signature(UDP, Side.SOURCE, 123), (NET,)),
            {"protocol": "UDP", "source": {"selector": "dossim-suggested == 'list-udp-src-123'", "ports": [123]}},
            id="from a port of some networks",
        ),
    ],
)
def test_rules_with_protocol_and_port(rule: Rule, expected: dict[str, object]) -> None:
    written = made(rule)
    load_documents(written)
    assert written[-1]["spec"]["ingress"] == [{"action": "Deny", **expected}]


def test_rules_leave_out_what_is_protected() -> None:
    *sets, policy = made(Rule(Signature(UDP, Side.SOURCE, 123), (), (4, 6)), protected=("192.0.2.1/32", "fd00::/8"))
    assert [item["spec"]["nets"] for item in sets] == [["192.0.2.1/32", "fd00::/8"]]
    (rule,) = policy["spec"]["ingress"]
    assert rule["source"] == {"notSelector": "dossim-suggested == 'list-protected'", "ports": [123]}


def test_a_name_that_the_policy_has_is_refused() -> None:
    with pytest.raises(UsageError, match="--name bad: the policy has bad already; choose another name"):
        with_documents(load_text(HOW_TO), made(Rule(None, (NET,))) and documents(
            Suggested((Rule(None, (NET,)),), (), Ranges([])), Names("bad", {"deny": "true"}), []), "bad")  # fmt: skip


SOURCES = ("203.0.113.7", "203.0.113.8", "203.0.112.9", "198.51.100.9", "192.0.2.33", "2001:db8::7", "2001:db8:1::9")
PACKETS: st.SearchStrategy[list[Packet]] = st.lists(
    st.tuples(
        st.sampled_from(SOURCES), st.sampled_from((TCP, UDP)), st.sampled_from([(53, 9), (123, 9), (9, 22), (7, 80)])
    )
    | st.tuples(st.sampled_from(SOURCES[:5]), st.just(ICMP), st.sampled_from([(3, 1), (8, 0)])),
    min_size=1,
    max_size=30,
)


@settings(max_examples=examples(30, nightly=3_000))
@given(
    PACKETS,
    PACKETS,
    st.integers(1, 6),
    st.sampled_from([0.0, 0.2, 1.0]),
    st.sampled_from(list(ModeChoice)[-2:]),
    st.booleans(),
)
def test_predicted_with_the_list_applied_those_packets_drop_that_it_denies(
    attack: list[Packet], baseline: list[Packet], budget: int, limit: float, mode: ModeChoice, has_policy: bool
) -> None:
    """Packet for packet, of the attack and of the baseline, with the entries of the list."""
    resources = load_text(HOW_TO) if has_policy else Resources()
    one, other = capture(attack), capture(baseline)
    own = (ip_interface(ME4), ip_interface(ME6))
    situation = situation_for(resources, capture=one, choice=mode, addresses=own)
    # The policy has 192.0.2.0/25 in its deny list: nothing is left to suggest if there is nothing else.
    assume(not has_policy or all({source for source, *_ in each} - {"192.0.2.33"} for each in (attack, baseline)))
    done = run(Job(one, None, other, situation, budget, limit, "list", protect=(ip_network("203.0.113.8/32"),)))
    found = done.suggestion.suggested
    assert done.suggestion.here.share <= limit
    assert done.suggestion.here.size <= budget
    before = with_endpoint(resources, situation)
    after = with_documents(before, list(done.documents), "list")
    for each in (one, other):
        traffic = read_traffic(each, []).traffic
        denied = [
            bool(found.denies(tally(traffic.where(traffic.packet == row), found.signatures)).any())
            for row in range(len(each))
        ]
        free = passes(traffic, resources.felix_for("jasper"))
        usual, its = (
            predict_capture(
                each, situation_for(items, capture=each, choice=mode, addresses=own, node=situation.host.node)
            ).prediction
            for items in (before, after)
        )
        assert (its.entry >= 0).tolist() == ((np.array(denied) & ~free) | (usual.entry >= 0)).tolist()
