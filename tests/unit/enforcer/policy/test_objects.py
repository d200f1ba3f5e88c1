"""Objects of a datastore: what each text is taken for, and what is said of it."""

from __future__ import annotations

import json

import pytest

from enforcer.policy.collect import Key
from enforcer.policy.objects import OBJECT_MAX_BYTES, PLURALS, StoredObject, collected, read_object
from enforcer.policy.resources import Resources
from enforcer.policy.tolerant import Loaded, merged
from enforcer.policy.validate import KINDS

HEAD = '"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet"'
GOOD = f'{{{HEAD}, "metadata": {{"name": "bots"}}, "spec": {{"nets": ["203.0.113.0/24"]}}}}'
NOTHING = Resources()


def bots(text: str | bytes, name: str = "bots") -> StoredObject:
    return StoredObject("globalnetworksets", "", name, text.encode() if isinstance(text, str) else text, "1")


def load(*items: StoredObject, last: Resources = NOTHING) -> Loaded:
    return merged(collected(read_object(item, "etcd") for item in items), last)


def test_every_kind_has_the_name_that_calico_gives_it() -> None:
    assert set(PLURALS.values()) == set(KINDS)
    assert {"globalnetworkpolicies", "hostendpoints", "globalnetworksets", "tiers", "networksets"} <= PLURALS.keys()
    assert {"felixconfigurations", "profiles", "nodes"} <= PLURALS.keys()


def test_a_value_as_calico_stores_it_is_the_resource() -> None:
    metadata = {"name": "bots", "uid": "1f4", "creationTimestamp": "2026-11-30T12:00:00Z", "generation": 3}
    text = json.dumps(json.loads(GOOD) | {"metadata": metadata})
    loaded = load(bots(text))
    assert not loaded.faults
    assert [item.name for item in loaded.resources.global_network_sets] == ["bots"]
    assert loaded.resources == load(bots(GOOD)).resources


FAULTY = [
    ("{", "not JSON: Expecting property name enclosed in double quotes at character 2"),
    ("", "not JSON: Expecting value at character 1"),
    ("[]", "expected a JSON object with apiVersion, kind, metadata and spec, found a list"),
    ('"bots"', "expected a JSON object with apiVersion, kind, metadata and spec, found a string"),
    ("null", "expected a JSON object with apiVersion, kind, metadata and spec, found null"),
    ("7", "expected a JSON object with apiVersion, kind, metadata and spec, found a number"),
    (b"\xff", "not text: byte 0xff at 0 is not UTF-8"),
    ("[" * 100_000, "not a resource: nested too deeply"),
    (GOOD.replace("spec", "metadata"), "the field 'metadata' is written twice"),
    (GOOD.replace('"203.0.113.0/24"', "NaN"), "not JSON: NaN is not a JSON number"),
    ("x" * (OBJECT_MAX_BYTES + 1), "larger than 1.5 MiB, the limit of etcd; split it into several objects"),
    (GOOD.replace("v3", "v4"), "apiVersion: expected projectcalico.org/v3"),
    (GOOD.replace("GlobalNetworkSet", "Tier"), "kind: expected GlobalNetworkSet, as its name says, found 'Tier'"),
    (GOOD.replace('"bots"', '"bats"'), "metadata.name: expected 'bots', as its name says, found 'bats'"),
    (GOOD.replace(".0/24", ".0/33"), "spec.nets[0]: expected a prefix length of 0..32"),
    (GOOD.replace('"bots"', '"Bots!"'), "metadata.name: "),
    (GOOD.replace('"bots"', '"bats"').replace(".0/24", ".0/33"), "metadata.name: expected 'bots'"),
]


@pytest.mark.parametrize(("text", "says"), FAULTY, ids=[says[:40] for _, says in FAULTY])
def test_a_faulty_object_is_named_and_keeps_its_last_version(text: str | bytes, says: str) -> None:
    good = load(bots(GOOD), bots(GOOD.replace("bots", "other"), "other")).resources
    now = load(bots(text), bots(GOOD.replace("bots", "other"), "other"), last=good)
    assert any(f"etcd: globalnetworksets/bots: {says}" in str(finding) for finding in now.findings)
    assert now.kept == ("GlobalNetworkSet bots",)
    assert sorted(item.name for item in now.resources.global_network_sets) == ["bots", "other"]
    assert all(item in good.global_network_sets for item in now.resources.global_network_sets)
    assert all("bots" in fault.outcome for fault in now.faults)
    alone = load(bots(text))
    assert alone.resources.global_network_sets == ()
    assert alone.left_out


def test_an_object_in_a_namespace_is_another_than_one_without() -> None:
    text = GOOD.replace("GlobalNetworkSet", "NetworkSet").replace('"name"', '"namespace": "shop", "name"')
    item = StoredObject("networksets", "shop", "bots", text.encode(), "1")
    assert item.path == "networksets/shop/bots"
    assert not load(item).faults
    (found,) = load(StoredObject("networksets", "other", "bots", text.encode(), "1")).findings
    assert str(found) == (
        "etcd: networksets/other/bots: metadata.name: expected 'other/bots', as its name says, found 'shop/bots'"
    )


def test_of_two_objects_for_the_same_resource_the_first_counts() -> None:
    """The Kubernetes API can hold them: there the name of a policy is an annotation."""
    sources = [read_object(bots(GOOD), "etcd"), read_object(bots(GOOD), "kubernetes")]
    loaded = merged(collected(sources), NOTHING)
    (fault,) = loaded.faults
    assert fault.outcome == "only the first counts"
    assert "a second GlobalNetworkSet named 'bots'; the first is etcd: globalnetworksets/bots" in str(fault.finding)
    assert len(loaded.resources.global_network_sets) == 1
    assert [item.key for item in sources[1].documents] == [Key("GlobalNetworkSet", "", "bots")], (
        "a source is not changed"
    )
