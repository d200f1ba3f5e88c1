"""Objects of crd.projectcalico.org/v1 as calicoctl and kubectl write them, and what is said of others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from enforcer.policy.collect import Key
from enforcer.policy.objects import StoredObject, collected, read_object
from enforcer.policy.resources import Resources
from enforcer.policy.tolerant import Loaded, merged

V1 = "crd.projectcalico.org/v1"
NOTHING = Resources()


def load(plural: str, name: str, item: dict[str, Any], last: Resources = NOTHING) -> Loaded:
    stored = StoredObject(plural, "", name, json.dumps(item).encode(), "1")
    return merged(collected([read_object(stored, "kubernetes")]), last)


def network_set(annotation: object, version: str = V1, **metadata: Any) -> dict[str, Any]:
    annotations = {"projectcalico.org/metadata": annotation, "mine": "yes"}
    return {
        "apiVersion": version,
        "kind": "GlobalNetworkSet",
        "metadata": {"name": "bots", "annotations": annotations, **metadata},
        "spec": {"nets": ["203.0.113.0/24"]},
    }


def policy(name: str, annotation: dict[str, Any]) -> dict[str, Any]:
    annotations = {"projectcalico.org/metadata": json.dumps(annotation)}
    metadata = {"name": name, "annotations": annotations}
    return {"apiVersion": V1, "kind": "GlobalNetworkPolicy", "metadata": metadata, "spec": {"selector": "all()"}}


def test_labels_in_the_annotation_count_and_those_of_kubectl_stay() -> None:
    written = json.dumps({"creationTimestamp": None, "labels": {"deny": "all", "both": "calico"}})
    loaded = load("globalnetworksets", "bots", network_set(written, labels={"own": "1", "both": "kubectl"}))
    assert not loaded.faults
    (found,) = loaded.resources.global_network_sets
    assert found.labels == {"own": "1", "both": "calico", "deny": "all"}


def test_a_policy_has_the_name_in_its_annotation_as_it_has_for_calico() -> None:
    loaded = load("globalnetworkpolicies", "default.dos", policy("default.dos", {"name": "dos"}))
    assert not loaded.faults
    assert [item.name for item in loaded.resources.policies] == ["dos"]
    again = read_object(
        StoredObject("globalnetworkpolicies", "", "default.dos", json.dumps(policy("default.dos", {})).encode(), "1"),
        "kubernetes",
    )
    assert [item.key for item in again.documents] == [Key("GlobalNetworkPolicy", "", "default.dos")]


def test_a_faulty_policy_with_another_name_keeps_its_last_version() -> None:
    good = load("globalnetworkpolicies", "default.dos", policy("default.dos", {"name": "dos"})).resources
    item = policy("default.dos", {"name": "dos"}) | {"spec": {"selector": "("}}
    now = load("globalnetworkpolicies", "default.dos", item, good)
    assert now.kept == ("GlobalNetworkPolicy dos",)
    assert now.resources.policies == good.policies
    assert "kubernetes: globalnetworkpolicies/default.dos: spec.selector" in str(now.findings[0])


def test_the_annotation_of_another_version_means_nothing() -> None:
    written = json.dumps({"labels": {"deny": "all"}})
    loaded = load("globalnetworksets", "bots", network_set(written, "projectcalico.org/v3"))
    assert loaded.resources.global_network_sets[0].labels == {}


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        ("{", "metadata.annotations[projectcalico.org/metadata]: not JSON"),
        ("[]", "expected a JSON object, as Calico writes it"),
        (7, "expected a JSON object, as Calico writes it"),
        ('{"labels": []}', "metadata.annotations[projectcalico.org/metadata]: labels: expected a mapping"),
        ('{"labels": {"deny": 7}}', "metadata.labels.deny"),
    ],
)
def test_an_annotation_that_cannot_be_used_keeps_the_last_version(annotation: object, says: str) -> None:
    """Without its labels the set would be in no rule."""
    good = load("globalnetworksets", "bots", network_set('{"labels": {"deny": "all"}}')).resources
    now = load("globalnetworksets", "bots", network_set(annotation), good)
    assert now.kept == ("GlobalNetworkSet bots",)
    assert now.resources.global_network_sets == good.global_network_sets
    assert says in str(now.findings[0])
