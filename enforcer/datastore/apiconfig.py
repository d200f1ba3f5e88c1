"""Where the datastore is: Calico's configuration, in a file (``calicoctl.cfg``) or the environment.

Names and rules are those of ``libcalico-go/lib/apiconfig``: a file and the environment are not merged, unknown fields
are refused, and each name of the environment may have the prefix ``CALICO_``.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from enforcer.model.errors import UsageError
from enforcer.policy.nodes import DocumentFault, Fieldset, Node, Scalar, from_text, shown
from enforcer.system import files
from enforcer.system.files import UnreadableError

DEFAULT_FILE = Path("/etc/calico/calicoctl.cfg")
API_VERSION, KIND = "projectcalico.org/v3", "CalicoAPIConfig"
_MAX_BYTES = 4 << 20  # certificates may be in it
ETCD, KUBERNETES = "etcdv3", "kubernetes"

# Field of the file: name in the environment; "" where Calico has none.
FIELDS = {
    "datastoreType": "DATASTORE_TYPE",
    "etcdEndpoints": "ETCD_ENDPOINTS",
    "etcdDiscoverySrv": "ETCD_DISCOVERY_SRV",
    "etcdUsername": "ETCD_USERNAME",
    "etcdPassword": "ETCD_PASSWORD",
    "etcdKeyFile": "ETCD_KEY_FILE",
    "etcdCertFile": "ETCD_CERT_FILE",
    "etcdCACertFile": "ETCD_CA_CERT_FILE",
    "etcdKey": "",
    "etcdCert": "",
    "etcdCACert": "",
    "kubeconfig": "KUBECONFIG",
    "k8sAPIEndpoint": "K8S_API_ENDPOINT",
    "k8sKeyFile": "K8S_KEY_FILE",
    "k8sCertFile": "K8S_CERT_FILE",
    "k8sCAFile": "K8S_CA_FILE",
    "k8sAPIToken": "K8S_API_TOKEN",
    "k8sInsecureSkipTLSVerify": "K8S_INSECURE_SKIP_TLS_VERIFY",
    "k8sDisableNodePoll": "K8S_DISABLE_NODE_POLL",
    "usePodCIDR": "USE_POD_CIDR",
    "kubeconfigInline": "",
    "k8sClientQPS": "",
    "k8sCurrentContext": "K8S_CURRENT_CONTEXT",
    "calicoAPIGroup": "CALICO_API_GROUP",
}


@dataclass(frozen=True)
class ApiConfig:
    """What is configured. ``values``: by the field names of the file, those that are not empty. ``origin``: where they
    are from, for messages.
    """

    origin: str
    values: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold secrets

    def get(self, name: str) -> str:
        assert name in FIELDS
        return self.values.get(name, "")

    def called(self, name: str) -> str:
        """The name of a field as its author knows it, with where it is: ``environment: ETCD_ENDPOINTS``."""
        return f"{self.origin}: {FIELDS[name] if self.origin == ENVIRONMENT else f'spec.{name}'}"


ENVIRONMENT = "environment"


def api_config(path: Path | None, environment: Mapping[str, str] = os.environ) -> ApiConfig:
    """The configuration in this file; without a path that in :data:`DEFAULT_FILE` if there is one, else that in the
    environment. Raises UsageError.
    """
    if path is None and files.may_exist(DEFAULT_FILE):
        path = DEFAULT_FILE
    return _of_file(path) if path is not None else _of_environment(environment)


def _of_environment(environment: Mapping[str, str]) -> ApiConfig:
    values = {
        name: environment.get(f"CALICO_{word}") or environment.get(word, "") for name, word in FIELDS.items() if word
    }
    return ApiConfig(ENVIRONMENT, {name: value for name, value in values.items() if value})


def _of_file(path: Path) -> ApiConfig:
    where = str(path)
    try:
        documents = list(from_text(files.read_text(where, limit_bytes=_MAX_BYTES, instead=f"a {KIND} is expected")))
    except UnreadableError as error:
        raise UsageError(f"{where}: {error}") from error
    except DocumentFault as fault:
        place = f":{fault.line}:{fault.column}" if fault.line else ""
        raise UsageError(f"{where}{place}: {fault.message}") from fault
    if len(documents) != 1 or not isinstance(documents[0], Fieldset):
        raise UsageError(f"{where}: expected one document, apiVersion: {API_VERSION}, kind: {KIND}")
    document = documents[0]
    _refuse_unknown(where, document, ("apiVersion", "kind", "metadata", "spec"), "")
    for name, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        found = document.fields.get(name)
        if not isinstance(found, Scalar) or found.value != wanted:
            raise UsageError(f"{_at(where, found)}: {name}: expected {wanted}, found {found or 'nothing'}")
    spec = document.fields.get("spec")
    if not isinstance(spec, Fieldset):
        raise UsageError(f"{_at(where, spec)}: spec: expected a mapping, found {spec or 'nothing'}")
    _refuse_unknown(where, spec, FIELDS, "spec.")
    return ApiConfig(where, {name: text for name, node in spec.fields.items() if (text := _text(where, name, node))})


def _refuse_unknown(where: str, node: Fieldset, known: Mapping[str, str] | tuple[str, ...], prefix: str) -> None:
    for name, key in node.keys.items():
        if name not in known:
            near = difflib.get_close_matches(name, list(known), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"{_at(where, key)}: {prefix}{shown(name)} is not a field of {KIND}{hint}")
    for again, first in node.repeated:
        raise UsageError(f"{_at(where, again)}: {prefix}{first.value}: written twice, first at line {first.line}")


def _text(where: str, name: str, node: Node) -> str:
    if not isinstance(node, Scalar):
        raise UsageError(f"{_at(where, node)}: spec.{name}: expected a string, found {node}")
    if isinstance(node.value, bool):
        return "true" if node.value else ""
    return "" if node.value is None else node.written or str(node.value)


def _at(where: str, node: Node | None) -> str:
    return f"{where}:{node.line}:{node.column}" if node is not None and node.line else where
