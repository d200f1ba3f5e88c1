"""Which cluster answers, and in which API group it has Calico's objects: known once for all kinds."""

from __future__ import annotations

import threading
from http import HTTPStatus

from enforcer.datastore.kubernetes.client import Client, KubernetesError
from enforcer.datastore.kubernetes.config import V1, V3
from enforcer.datastore.kubernetes.kinds import CALICO, Kind, metadata_of

EMPTIED = (
    "Calico has no objects here, not even clusterinformations/default: was it emptied, or is it another cluster? To "
    "delete the policy, delete its objects and leave that one"
)


class NotBelievedError(Exception):
    """The datastore answers, but what it says would lift protection by accident."""


class Cluster:
    """``group``: the API group with its version, "" to discover it as Calico does."""

    def __init__(self, group: str) -> None:
        self._lock = threading.Lock()
        self._group = group
        self._identity = ""  # of the first answer

    def require_same(self, client: Client) -> None:
        """Raises NotBelievedError for another cluster than the one that answered first.

        The identity is the uid of the namespace kube-system; without the permission to read it nothing is compared.
        """
        try:
            found = metadata_of(client.get("/api/v1/namespaces/kube-system")).get("uid")
        except KubernetesError as error:
            if error.status in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
                return
            raise
        with self._lock:
            self._identity = self._identity or str(found)
            if found != self._identity:
                raise NotBelievedError(
                    f"another cluster answers: its kube-system has the uid {found}, and had {self._identity}; if that "
                    "is intended, restart the agent"
                )

    def group(self, client: Client) -> str:
        """v3 only where v1 is not: otherwise an API server makes v3 of v1 (``libcalico-go/lib/backend/k8s/
        discovery.go``). Raises KubernetesError.
        """
        with self._lock:
            if not self._group:
                there = [version for version in (V1, V3) if _kinds(client, f"/apis/{version}")]
                if not there:
                    raise KubernetesError(f"the API serves neither {V1} nor {V3}: are Calico's CRDs installed?")
                self._group = there[0]
            return self._group

    def serves(self, client: Client, kind: Kind) -> bool:
        """Whether the API says that it has this kind, which it just did not find. Raises KubernetesError."""
        return kind.plural in _kinds(client, kind.home(self.group(client)))

    def require_something(self, client: Client) -> None:
        """Raises NotBelievedError if Calico has nothing here, not even an object that every installation has.

        The server is asked for each kind: what was known of the others may be from before it was emptied.
        """
        for kind in (Kind("clusterinformations"), *CALICO):
            try:
                if client.get(kind.path(self.group(client)), limit="1").get("items"):
                    return
            except KubernetesError as error:
                if error.status not in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
                    raise
        raise NotBelievedError(EMPTIED)


def _kinds(client: Client, home: str) -> set[str]:
    """The kinds that are served below a path. Raises KubernetesError."""
    try:
        resources = client.get(home).get("resources")
    except KubernetesError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return set()
        raise
    if not isinstance(resources, list):
        raise KubernetesError("the answer is not a list of kinds: is this a Kubernetes API server?")
    return {str(item.get("name")) for item in resources if isinstance(item, dict)}
