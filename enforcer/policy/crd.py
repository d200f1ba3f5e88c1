"""Calico's metadata in objects of ``crd.projectcalico.org/v1``.

Calico's client stores labels, annotations and the name of a policy in one annotation, as JSON, and restores them when
it reads (``libcalico-go/lib/backend/k8s/resources/resources.go``); kubectl writes them where they belong. Both exist.
"""

from __future__ import annotations

import json
from typing import Any

from enforcer.policy.nodes import DocumentFault, shown

API_VERSION = "crd.projectcalico.org/v1"
ANNOTATION = "projectcalico.org/metadata"

_WHERE = f"metadata.annotations[{ANNOTATION}]"
_POLICIES = "GlobalNetworkPolicy"


def restored(data: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """The object as Calico's client returns it, and its name. ``name``: of the object of the datastore.

    Any other object is returned as it is. Raises DocumentFault for an annotation that cannot be used: without its
    labels, a set would be in no rule.
    """
    metadata = data.get("metadata")
    if data.get("apiVersion") != API_VERSION or not isinstance(metadata, dict):
        return data, name
    annotations = metadata.get("annotations")
    if not isinstance(annotations, dict) or ANNOTATION not in annotations:
        return data, name
    stored = _stored(annotations[ANNOTATION])
    if metadata.get("name") != name:
        raise DocumentFault(f"metadata.name: expected {shown(name)}, as its name says")
    made: dict[str, Any] = {**metadata, "annotations": {k: v for k, v in annotations.items() if k != ANNOTATION}}
    for field in ("labels", "annotations"):
        made[field] = _mapping(made.get(field), f"metadata.{field}") | _mapping(stored.get(field), f"{_WHERE}: {field}")
    if data.get("kind") == _POLICIES and isinstance(stored.get("name"), str) and stored["name"]:
        made["name"] = stored["name"]
    if stored.get("creationTimestamp"):
        made["creationTimestamp"] = stored["creationTimestamp"]
    return {**data, "metadata": made}, str(made["name"])


def _stored(text: object) -> dict[str, Any]:
    try:
        data = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError) as error:
        raise DocumentFault(f"{_WHERE}: not JSON") from error
    if not isinstance(data, dict):
        raise DocumentFault(f"{_WHERE}: expected a JSON object, as Calico writes it")
    return data


def _mapping(data: object, where: str) -> dict[str, Any]:
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise DocumentFault(f"{where}: expected a mapping")
    return data
