"""What is followed in the Kubernetes API, and how it becomes an object of Calico."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from enforcer.datastore.kubernetes.client import KubernetesError
from enforcer.datastore.kubernetes.config import V3
from enforcer.policy.labels import NAMESPACE_PREFIX, NAMESPACE_PROFILE
from enforcer.policy.nodes import shown
from enforcer.policy.objects import PLURALS, StoredObject

# Metadata that changes without the object, or that only other programs read; some of it is as long as the object.
_NOISE = ("managedFields", "resourceVersion", "generation", "selfLink")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True)
class Kind:
    """A kind by its name in URLs. ``core``: one of Kubernetes' own. ``fields``: a field selector, "" for all."""

    plural: str
    core: bool = False
    fields: str = ""

    def path(self, group: str) -> str:
        return f"{self.home(group)}/{self.plural}"

    def home(self, group: str) -> str:
        """The path that says which kinds are served."""
        return "/api/v1" if self.core else f"/apis/{group}"


CALICO = (
    *(Kind("hostendpoints"), Kind("globalnetworkpolicies"), Kind("globalnetworksets")),
    *(Kind("networksets"), Kind("tiers"), Kind("felixconfigurations")),
)


def followed(node: str) -> tuple[Kind, ...]:
    """Calico's kinds, the namespaces, which are profiles, and the agent's own node."""
    return (*CALICO, Kind("namespaces", core=True), Kind("nodes", core=True, fields=f"metadata.name={node}"))


def revision_of(item: object) -> str:
    """The resourceVersion of an object or a list; "" if it has none."""
    found = metadata_of(item).get("resourceVersion")
    return found if isinstance(found, str) else ""


def metadata_of(item: object) -> dict[str, Any]:
    """Raises KubernetesError for what is no object of the API."""
    metadata = item.get("metadata") if isinstance(item, dict) else None
    if not isinstance(metadata, dict):
        raise KubernetesError("the answer is not an object of Kubernetes: it has no metadata", expired=True)
    return metadata


def stored(kind: Kind, item: dict[str, Any]) -> StoredObject:
    """The object; its revision is made of its text, because resourceVersion also changes without it, and is reused
    after a backup was restored. Raises KubernetesError.
    """
    metadata = metadata_of(item)
    name, namespace = metadata.get("name"), metadata.get("namespace", "")
    if not isinstance(name, str) or not name or not isinstance(namespace, str) or "/" in name + namespace:
        raise KubernetesError(f"the answer has an object named {shown(str(name))}", expired=True)
    if kind.plural == "namespaces":
        plural, name, made = "profiles", NAMESPACE_PROFILE + name, _profile(name, metadata)
    elif kind.plural == "nodes":
        plural, made = kind.plural, _node(name, metadata)
    else:
        plural = kind.plural
        made = {"apiVersion": V3, "kind": PLURALS[plural], **item, "metadata": _without_noise(metadata)}
    text = json.dumps(made, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")
    return StoredObject(plural, "" if kind.core else namespace, name, text, hashlib.blake2b(text).hexdigest()[:16])


def _without_noise(metadata: dict[str, Any]) -> dict[str, Any]:
    made = {key: value for key, value in metadata.items() if key not in _NOISE}
    if isinstance(annotations := made.get("annotations"), dict) and _LAST_APPLIED in annotations:
        made["annotations"] = {key: value for key, value in annotations.items() if key != _LAST_APPLIED}
    return made


def _profile(namespace: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """The profile that Calico's client makes of a namespace (``conversion.go``, NamespaceToProfile)."""
    labels = metadata.get("labels") or {}
    applied = {f"{NAMESPACE_PREFIX}{key}": value for key, value in labels.items()}
    applied[f"{NAMESPACE_PREFIX}projectcalico.org/name"] = namespace
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "Profile",
        "metadata": {"name": NAMESPACE_PROFILE + namespace},
        "spec": {"ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}], "labelsToApply": applied},
    }


def _node(name: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """A node without its status, which changes all the time."""
    labels = metadata.get("labels") or {}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
